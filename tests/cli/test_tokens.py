"""Keys and tokens: `geocast keygen`, `geocast token` and `geocast token --check`."""

import io
import json
import re
import stat
import sys
import time

import pytest

from geocast.auth.scopes import SCOPES
from geocast.auth.tokens import Grant, TokenVerifier, load_keys
from geocast.calls.encryption import load_call_keys, make_call_key
from geocast.clock import Now
from geocast.push.encryption import make_push_key

# ---- keygen and token --------------------------------------------------------------------------------------------


def test_signed_token_is_accepted_by_a_node(geocast, tmp_path, keys):
    """`keygen` makes a key pair, and `token` signs with the private key (K2)."""
    before = int(time.time())
    scopes = [argument for scope in SCOPES for argument in ("--scope", scope)]
    outcome = geocast("token", "--sub", "desk-7", *scopes, "--expires-in-s", 60)
    assert (outcome.status, outcome.err) == (0, "")
    tokens = TokenVerifier(load_keys(tmp_path / "keys.jwks"))
    grant = tokens.check(outcome.out.strip(), Now(before * 1000, 0.0))
    assert isinstance(grant, Grant)
    assert (grant.sub, grant.scopes) == ("desk-7", frozenset(SCOPES))
    assert before + 60 <= grant.expires_at // 1000 <= int(time.time()) + 60


def test_private_key_is_readable_for_its_owner_only(tmp_path, keys):
    """The public key set does not contain the private key (K2)."""
    assert stat.S_IMODE((tmp_path / "private.jwk").stat().st_mode) == 0o600
    private = json.loads((tmp_path / "private.jwk").read_text())
    assert private["d"]
    assert private["d"] not in (tmp_path / "keys.jwks").read_text()


def test_private_key_is_never_overwritten(geocast, tmp_path, keys):
    """One line is printed, the exit status is 2, and both files are unchanged (K2)."""
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    outcome = geocast("keygen")
    assert outcome.is_one_line_error
    assert "private.jwk exists, and a private key is never overwritten" in outcome.err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_new_key_is_added_to_the_key_set(geocast, tmp_path, keys):
    """Tokens by the old key stay valid (K2)."""
    old = geocast("token", "--sub", "phone", "--scope", "alerts:receive").out.strip()
    assert geocast("keygen", "--private", "new.jwk", "--kid", "new").status == 0
    new = geocast("token", "--key", "new.jwk", "--sub", "phone", "--scope", "alerts:receive").out.strip()
    tokens = TokenVerifier(load_keys(tmp_path / "keys.jwks"))
    now = Now(int(time.time() * 1000), 0.0)
    assert tokens.check(old, now) is not None
    assert tokens.check(new, now) is not None
    assert "new" in load_keys(tmp_path / "keys.jwks")


def test_second_key_with_the_same_kid_is_refused(geocast, tmp_path):
    """Keys are selected by `kid` alone, so nothing is written (T2)."""
    assert geocast("keygen", "--kid", "k").status == 0
    outcome = geocast("keygen", "--kid", "k", "--private", "other.jwk")
    assert outcome.is_one_line_error
    assert not (tmp_path / "other.jwk").exists()


@pytest.mark.parametrize("option", ["--private", "--public"])
def test_key_pair_is_written_completely_or_not_at_all(geocast, tmp_path, option):
    """If one file can't be written, the other one is not written either, and an existing key set is unchanged (K2)."""
    assert geocast("keygen", "--private", "first.jwk").status == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert geocast("keygen", option, "nowhere/file").is_one_line_error
    assert geocast("keygen", option, ".").is_one_line_error
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_key_set_keeps_its_symlink_and_permissions(geocast, tmp_path):
    """Another user may have to read the key set, and it may be in another folder (K2)."""
    real = tmp_path / "elsewhere.jwks"
    (tmp_path / "keys.jwks").symlink_to(real)
    assert geocast("keygen").status == 0
    real.chmod(0o640)
    assert geocast("keygen", "--private", "new.jwk").status == 0
    assert (tmp_path / "keys.jwks").is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert len(load_keys(real)) == 2


@pytest.mark.parametrize("text", ["", "[]", '{"keys": [{}]}', '{"keys": ["x"]}'])
def test_public_file_that_is_not_a_key_set_is_unchanged(geocast, tmp_path, text):
    """No private key is written either (K2)."""
    (tmp_path / "keys.jwks").write_text(text)
    assert geocast("keygen").is_one_line_error
    assert (tmp_path / "keys.jwks").read_text() == text
    assert not (tmp_path / "private.jwk").exists()


@pytest.mark.parametrize("option", ["--private", "--public"])
def test_missing_folder_is_reported_in_one_line(geocast, tmp_path, option):
    """The line names the file (K1)."""
    outcome = geocast("keygen", option, "nowhere/file")
    assert outcome.is_one_line_error
    assert "nowhere/file" in outcome.err
    assert "No such file or directory" in outcome.err


# ---- qualifications, and encryption keys of calls ----------------------------------------------------------------


def test_qualification_counts_only_if_key_and_token_have_it(geocast, tmp_path, piped):
    """`keygen --quals` lets a key grant it, and `token --quals` claims it.

    `--check` says whether it counts (RQ2, RQ3).
    """
    assert geocast("keygen", "--quals", "cpr, medic,cpr", "--kid", "k").status == 0
    assert json.loads((tmp_path / "keys.jwks").read_text())["keys"][0]["quals"] == ["cpr", "medic"]
    assert load_keys(tmp_path / "keys.jwks")["k"].quals == {"cpr", "medic"}
    receive = ("token", "--sub", "r-1", "--scope", "alerts:receive")
    token = geocast(*receive, "--quals", "medic,pilot", "--expires-in-s", 86_400).out.strip()
    now = Now(int(time.time() * 1000), 0.0)
    assert TokenVerifier(load_keys(tmp_path / "keys.jwks")).check(token, now).quals == {"medic"}
    outcome = geocast("token", "--check", GEOCAST_TOKEN=token)
    assert outcome.status == 0
    assert re.findall(r"^qual +(.*)$", outcome.out, re.MULTILINE) == [
        "medic",
        "pilot does not count: its key may not grant it (RQ3)",
    ]
    plain = geocast(*receive).out.strip()
    assert "qual" not in geocast("token", "--check", GEOCAST_TOKEN=plain).out


def test_issuer_of_a_key_is_written_and_shown(geocast, tmp_path, piped):
    """`keygen --issuer` writes the issuer, and `token --check` and `check` show it (HD5)."""
    assert geocast("keygen", "--issuer", "https://a.example", "--kid", "k").status == 0
    assert load_keys(tmp_path / "keys.jwks")["k"].issuer == "https://a.example"
    token = geocast("token", "--sub", "r-1", "--scope", "alerts:receive").out.strip()
    outcome = geocast("token", "--check", GEOCAST_TOKEN=token)
    assert re.findall(r"^issuer +(.*)$", outcome.out, re.MULTILINE) == ['"https://a.example"']
    assert 'keys: k (EdDSA, of "https://a.example")' in geocast("check", "--keys", "keys.jwks").out


@pytest.mark.parametrize("command", ["keygen", "token"])
@pytest.mark.parametrize("quals", ["", "cpr,", "CPR", "a-b", "x" * 33, ",".join(f"q{n}" for n in range(17))])
def test_malformed_qualification_is_reported_in_one_line(geocast, tmp_path, command, quals):
    """The line says what is expected, and nothing is written (RQ1, K1)."""
    outcome = geocast(command, "--quals", quals)
    assert outcome.is_one_line_error
    assert "'--quals': expected 1 to 16 texts of a-z, 0-9 and _" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_token_with_qualifications_may_last_at_most_a_day(geocast, keys):
    """A token that lasts longer would grant no qualification, so the command does not sign it (RQ2)."""
    outcome = geocast("token", "--sub", "r-1", "--scope", "alerts:receive", "--quals", "cpr", "--expires-in-s", 86_401)
    assert outcome.is_one_line_error
    assert "--expires-in-s 86400" in outcome.err


def kids(path):
    """Return the ids of the call keys in a file, in order."""
    return list(load_call_keys(path).kids)


def test_call_key_is_readable_for_its_owner_and_added_at_the_end_of_its_file(geocast, tmp_path):
    """A new key does not encrypt yet. The file keeps its permissions (RZ5)."""
    path = tmp_path / "call-keys.jwks"
    outcome = geocast("keygen", "--call", "--kid", "a")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == "call keys: call-keys.jwks\nseals: a\nnew: a\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    assert geocast("keygen", "--call", "--kid", "b").out == "call keys: call-keys.jwks\nseals: a\nnew: b\n"
    assert kids(path) == ["a", "b"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["call-keys.jwks"]
    assert not any(key["k"] in outcome.out for key in json.loads(path.read_text())["keys"])


def test_rotation_moves_the_last_of_the_call_keys_to_the_front_of_the_list(geocast, tmp_path):
    """A key is the last one in all files before it becomes the first one in any.

    It decrypts for two days after it last encrypted (RZ5).
    """
    path, seen = tmp_path / "c.jwks", []
    for day in range(6):
        assert geocast("keygen", "--call", "--rotate", "--private", "c.jwks", "--kid", f"k{day}").status == 0
        seen.append(kids(path))
    assert seen == [
        ["k0"],
        ["k0", "k1"],
        ["k1", "k0", "k2"],
        ["k2", "k1", "k0", "k3"],
        ["k3", "k2", "k1", "k4"],
        ["k4", "k3", "k2", "k5"],
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--call", "--kid", "a"], "key 2: needs a kid of its own"),
        (["--call", "--private", "."], "call-keys .: Is a directory"),
        (["--call", "--private", "keys.jwks"], "call-keys keys.jwks: key 1: expected kty oct"),
        (["--call", "--private", "nowhere/file"], "nowhere/file: No such file or directory"),
        (["--call", "--private", "full"], "holds 17 keys; expected 1 to 16"),
        (["--call", "--public", "p"], "--call has no --reviewer and no --public"),
        (["--call", "--reviewer", "r-1"], "--call has no --reviewer and no --public"),
        (["--call", "--quals", "cpr"], "--quals is for keys that sign tokens"),
        (["--reviewer", "r-1", "--quals", "cpr"], "--quals is for keys that sign tokens"),
        (["--call", "--issuer", "a"], "--issuer is for keys that sign tokens"),
        (["--reviewer", "r-1", "--issuer", "a"], "--issuer is for keys that sign tokens"),
        (["--issuer", ""], "--issuer: expected the issuer's name, a text of 1 to 256 characters"),
        (["--rotate"], "--rotate is for --call"),
    ],
    ids=str,
)
def test_call_key_that_cannot_be_made_is_reported_in_one_line(geocast, tmp_path, keys, arguments, expected):
    """Nothing is written (K1, RZ5)."""
    assert geocast("keygen", "--call", "--kid", "a").status == 0
    (tmp_path / "full").write_text(json.dumps({"keys": [make_call_key() for _ in range(16)]}))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    outcome = geocast("keygen", *arguments)
    assert outcome.is_one_line_error, outcome.err
    assert expected in outcome.err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--push", "p.jwks", "--kid", "a"], "push-keys p.jwks, as it would be: key 2: needs a kid of its own"),
        (["--push", "full"], "push-keys full, as it would be: holds 17 keys; expected 1 to 16"),
        (["--push", "keys.jwks"], "push-keys keys.jwks: key 1: expected kty oct"),
        (["--push", "."], "geocast: error: .: Is a directory"),
        (["--push", "nowhere/file"], "nowhere/file: No such file or directory"),
    ],
    ids=str,
)
def test_push_key_that_cannot_be_made_is_reported_in_one_line(geocast, tmp_path, keys, arguments, expected):
    """Nothing is written (K1, WPS1)."""
    assert geocast("keygen", "--push", "p.jwks", "--kid", "a").status == 0
    (tmp_path / "full").write_text(json.dumps({"keys": [make_push_key(str(n)) for n in range(16)]}))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    outcome = geocast("keygen", *arguments)
    assert outcome.is_one_line_error, outcome.err
    assert expected in outcome.err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# ---- tokens that can't be signed ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--scope", "alerts:receive"], "Missing option '--sub'"),
        (["--sub", "x"], "Missing option '--scope'"),
        (["--sub", "x", "--scope", "alerts:all"], "'alerts:all' is not one of"),
        (["--sub", "x", "--scope", "alerts:receive", "--expires-in-s", "0"], "'--expires-in-s': 0"),
        (["--sub", "x", "--scope", "alerts:receive", "--key", "nowhere"], "nowhere: No such file or directory"),
        (["--sub", "x", "--scope", "alerts:receive", "--key", "."], ".: Is a directory"),
        (["--sub", "x", "--scope", "alerts:receive", "--key", "broken"], "broken: not a JWK"),
        (["--sub", "x", "--scope", "alerts:receive", "--key", "deep"], "deep: not a JWK"),
        (["--sub", "x", "--scope", "alerts:receive", "--key", "keys.jwks"], "the key can't sign"),
        (["--sub", "x", "--scope", "alerts:receive", "--key", "list"], "the key can't sign"),
    ],
    ids=str,
)
def test_token_that_cannot_be_signed_is_reported_in_one_line(geocast, tmp_path, keys, arguments, expected):
    """No token is printed (K1)."""
    (tmp_path / "broken").write_bytes(b"\xff{")
    (tmp_path / "list").write_text("[]")
    (tmp_path / "deep").write_text("[" * 100_000)
    outcome = geocast("token", *arguments)
    assert outcome.is_one_line_error, outcome.err
    assert expected in outcome.err


# ---- token --check -----------------------------------------------------------------------------------------------


@pytest.fixture
def piped(monkeypatch):
    """`piped(bytes)` sets the contents of standard input."""

    def pipe(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    pipe(b"")
    return pipe


def test_token_to_check_is_read_from_standard_input_or_the_environment(geocast, keys, piped):
    """If both have a token, standard input counts. The token is never printed."""
    token = geocast("token", "--sub", "desk-7", "--scope", "alerts:publish").out.strip()
    by_environment = geocast("token", "--check", GEOCAST_TOKEN=token)
    piped(f"{token}\n".encode())
    by_pipe = geocast("token", "--check", GEOCAST_TOKEN="another")
    said = [re.sub(r"(?<=Z), .*", "", outcome.out) for outcome in (by_environment, by_pipe)]  # no remaining time
    assert said[0] == said[1]
    for outcome in (by_environment, by_pipe):
        assert (outcome.status, outcome.err) == (0, "")
        assert re.search(r'^sub +"desk-7"$', outcome.out, re.MULTILINE)
        assert re.search(r"^scope +alerts:publish$", outcome.out, re.MULTILINE)
        assert re.search(r"^expires +2.+Z, in (59|60) minutes$", outcome.out, re.MULTILINE)
        assert token not in outcome.out


def test_token_that_would_be_refused_is_shown_with_reasons(geocast, tmp_path, keys, piped):
    """The command exits with status 1, and prints one line per reason."""
    assert geocast("keygen", "--private", "b.jwk", "--public", "b.jwks", "--kid", "other").status == 0
    token = geocast("token", "--sub", "desk-7", "--scope", "alerts:publish").out
    piped(token.encode())
    outcome = geocast("token", "--check", "--keys", "b.jwks")
    assert outcome.status == 1
    assert re.fullmatch(r'geocast: refused: its kid "\w+" is none of the keys: "other" \(T2\)\n', outcome.err)
    assert '"desk-7"' in outcome.out
    (tmp_path / "revoked.toml").write_text("[sub]\ndesk-7 = 2099-01-01T00:00:00Z\n")
    piped(token.encode())
    outcome = geocast("token", "--check", "--revoked", "revoked.toml")
    assert (outcome.status, outcome.err.count("\n")) == (1, 1)
    assert "are revoked before 2099-01-01T00:00:00.000Z, and it was issued before that" in outcome.err


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"x.y.z", b"." * 70_000])
def test_malformed_token_is_reported_without_repeating_it(geocast, keys, piped, data):
    """No traceback is printed, whatever the input is (K1)."""
    piped(data)
    outcome = geocast("token", "--check")
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert "x.y.z" not in outcome.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "no token to check: give it on standard input, or in GEOCAST_TOKEN"),
        (["--keys", "nowhere"], "No such file"),
    ],
    ids=str,
)
def test_check_without_token_or_keys_is_refused_in_one_line(geocast, keys, piped, arguments, expected):
    """The command exits with status 2, as for any wrong usage (K1)."""
    if arguments:
        piped(b"x")
    outcome = geocast("token", "--check", *arguments)
    assert outcome.is_one_line_error, outcome.err
    assert expected in outcome.err
