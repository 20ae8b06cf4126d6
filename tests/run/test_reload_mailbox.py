"""The current configuration: it is replaced as a whole, and is the same in all processes (BA2, BA3)."""

import json
import re
from dataclasses import replace

import jwt
import pytest
from cryptography.exceptions import InvalidTag
from jwt.algorithms import OKPAlgorithm
from support.fakes import NOON_MS
from support.flipping import flipped

from geocast.auth.revocations import parse_revoked
from geocast.auth.tokens import make_key
from geocast.calls.encryption import make_call_key
from geocast.clock import Now
from geocast.config import Settings
from geocast.metrics import Metrics
from geocast.model.call import CallEntry
from geocast.model.errors import ConfigError
from geocast.model.server_address import Address
from geocast.run.channel import ReloadMailbox
from geocast.run.runtime_config import RuntimeConfig

NOON = Now(NOON_MS, 0.0)
NOON_S = NOON_MS // 1000
LOOPBACK = Address("127.0.0.1", 8765)
POLICY = """
name = "ours"
[categories]
spill = {{ title = "{}" }}
"""


UNCHANGED = "; publishers unchanged; sources unchanged; reviewers' keys: 0 added, 0 removed, 0 in force"
UNCHANGED += "; call keys unchanged"


class Files:
    """The three files of a node, and tokens signed with its keys."""

    def __init__(self, home):
        self.home = home
        self.settings = Settings(
            stream=LOOPBACK,
            api=LOOPBACK,
            log="memory:",
            keys=home / "keys",
            revoked=home / "revoked",
            policy=home / "policy",
        )
        self.pairs = {name: make_key(name) for name in ("a", "b")}
        self.write("a")

    def write(self, *kids, title="Spill", revoked=""):
        """Write all three files."""
        (self.home / "keys").write_text(json.dumps({"keys": [self.pairs[kid][1] for kid in kids]}))
        (self.home / "policy").write_text(POLICY.format(title))
        (self.home / "revoked").write_text(revoked)

    def token(self, kid, **claims):
        """Return a token signed with one of the keys."""
        claims = {"aud": "geocast", "sub": "phone", "exp": NOON_S + 60, "scope": "alerts:receive"} | claims
        return jwt.encode(claims, OKPAlgorithm.from_jwk(self.pairs[kid][0]), "EdDSA", {"kid": kid})


@pytest.fixture
def files(tmp_path):
    """The files, with the key `a`."""
    return Files(tmp_path)


def state(found, files):
    """Return which keys are valid and which policy applies, so that tests can compare configurations."""
    tokens = [found.tokens.check(files.token(kid), NOON) is not None for kid in files.pairs]
    return tokens, found.now.policy.categories["spill"].title


def shown(found):
    """Return its metrics as Prometheus gets them."""
    metrics = Metrics()
    metrics.watch(found.metrics)
    return "\n".join(
        line for line in metrics.render().decode().splitlines() if not re.search("process_|_created", line)
    )


def test_reload_applies_all_changed_files_in_one_step(files):
    """Callbacks that watch the configuration are called when all files are applied (BA2)."""
    found, seen = RuntimeConfig(files.settings), []
    found.watch(lambda: seen.append(state(found, files)))
    files.write("b", title="Other")
    assert state(found, files) == ([True, False], "Spill")
    found.reload()
    assert seen == [state(found, files)] == [([False, True], "Other")]


@pytest.mark.parametrize("broken", ["keys", "revoked", "policy"])
@pytest.mark.parametrize("content", [b"\xff", b"{", None], ids=["no text", "cut off", "gone"])
def test_reload_with_an_invalid_file_changes_nothing(files, caplog, broken, content):
    """The other files are not applied either. One line is logged, and the failure is counted (BA2)."""
    found, seen = RuntimeConfig(files.settings), []
    found.watch(lambda: seen.append(1))
    files.write("b", title="Other", revoked="[sub]\nphone = 2026-01-31T12:00:00Z")
    path = files.home / broken
    path.unlink() if content is None else path.write_bytes(content)
    found.reload()
    assert state(found, files) == ([True, False], "Spill")
    assert seen == []
    assert 'geocast_reloads_total{result="failed"} 1.0' in shown(found)
    assert 'geocast_reloads_total{result="ok"} 0.0' in shown(found)
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage().startswith(f"the reload failed, so nothing has changed: {broken} {path}: ")
    assert "\n" not in record.getMessage()


def test_reload_that_cannot_be_passed_to_other_processes_changes_nothing(files, caplog):
    """All processes always have the same configuration, even if the disk is full (BA2)."""
    found = RuntimeConfig(files.settings)
    files.write("b")

    def full(_packed):
        raise OSError(28, "No space left on device")

    found.reload(full)
    assert state(found, files) == ([True, False], "Spill")
    assert "No space left" in caplog.text


def test_unexpected_error_counts_as_a_failed_reload(files, caplog):
    """The text of the error is not logged (BA2)."""
    found = RuntimeConfig(files.settings)

    surprises = [ValueError("of a " + "secret")]

    def share(_packed):
        if surprises:
            raise surprises.pop()

    found.reload(share)
    assert 'geocast_reloads_total{result="failed"} 1.0' in shown(found)
    assert "ValueError" in caplog.text
    assert "of a secret" not in caplog.text
    found.reload(share)
    assert 'geocast_reloads_total{result="ok"} 1.0' in shown(found)


def test_reload_logs_how_many_keys_and_revocations_changed(files, caplog):
    """No line has a key or a `sub` (BA2)."""
    caplog.set_level("INFO")
    found = RuntimeConfig(files.settings)
    files.write("a", "b", revoked='[sub]\n"phone-1" = 2026-01-31T12:00:00Z')
    found.reload()
    files.write("b", title="Other")
    found.reload()
    found.reload()
    said = [record.getMessage() for record in caplog.records]
    assert all(line.endswith(UNCHANGED) for line in said)
    assert [line.removeprefix("the configuration was ").removesuffix(UNCHANGED) for line in said] == [
        "reloaded: keys: 1 added, 0 removed, 2 in force; revocations: 1 added, 0 removed, 1 in force; policy unchanged",
        "reloaded: keys: 0 added, 1 removed, 1 in force; revocations: 0 added, 1 removed, 0 in force; policy changed",
        "reloaded: keys: 0 added, 0 removed, 1 in force; revocations: 0 added, 0 removed, 0 in force; policy unchanged",
    ]


def test_second_process_applies_the_same_bytes_that_the_first_has_read(files, tmp_path):
    """The files may have changed since. The counts of successful and failed reloads are passed on, too (BA2)."""
    first, second = RuntimeConfig(files.settings), RuntimeConfig(files.settings)
    mailbox, folder = ReloadMailbox(tmp_path), ReloadMailbox(tmp_path)
    folder.look(second.take)  # there is nothing yet
    files.write("b", title="Other")
    first.reload(mailbox.write)
    files.write("a", title='no" policy')
    folder.look(second.take)
    assert state(second, files) == state(first, files) == ([False, True], "Other")
    first.reload(mailbox.write)
    folder.look(second.take)
    assert state(second, files) == ([False, True], "Other")
    assert shown(second) == shown(first)
    assert 'geocast_reloads_total{result="failed"} 1.0' in shown(second)


def test_same_files_have_the_same_digest(files):
    """Operators compare nodes by it (BA2)."""

    def digests(found):
        return [line for line in shown(found).splitlines() if line.startswith("geocast_settings_digest{")]

    assert digests(RuntimeConfig(files.settings)) == digests(RuntimeConfig(files.settings))
    before = digests(RuntimeConfig(files.settings))
    files.write("b")
    changed = set(before) ^ set(digests(RuntimeConfig(files.settings)))
    assert {line.partition("}")[0] for line in changed} == {'geocast_settings_digest{file="keys"'}


def test_session_stays_valid_as_long_as_its_key_is_in_the_key_set(files):
    """If the key is replaced by another one with the same name, the session is no longer valid (BA3)."""
    found = RuntimeConfig(files.settings)
    proof = found.tokens.check(files.token("a"), NOON).proof
    files.write("a", "b")
    found.reload()
    assert found.tokens.still_valid(proof)
    files.pairs["a"] = make_key("a")
    files.write("a", "b")
    found.reload()
    assert not found.tokens.still_valid(proof)


def test_reload_forgets_which_tokens_were_checked(files):
    """The API checks the signature of each token once, and again after a reload (BA2)."""
    found = RuntimeConfig(files.settings)
    token = files.token("a")
    assert found.tokens.check(token, NOON, again=True)
    files.write("b")
    found.reload()
    assert found.tokens.check(token, NOON, again=True) is None


# ---- call keys -----------------------------------------------------------------------------------------------


def test_call_keys_are_reloaded_and_passed_to_other_processes(files, tmp_path):
    """Without the file there are no call keys (BA2, RZ5)."""
    one, two = make_call_key("one"), make_call_key("two")
    path = tmp_path / "call-keys"
    path.write_text(json.dumps({"keys": [one]}))
    settings = replace(files.settings, call_keys=path)
    first, second, mailbox = RuntimeConfig(settings), RuntimeConfig(settings), ReloadMailbox(tmp_path)
    assert first.now.call_keys.kids == ("one",)
    path.write_text(json.dumps({"keys": [two, one]}))
    first.reload(mailbox.write)
    mailbox.look(second.take)
    assert first.now.call_keys.kids == second.now.call_keys.kids == ("two", "one")
    sealed = first.now.call_keys.seal("a", 1, "end", b"", b"secret")
    assert second.now.call_keys.open(CallEntry("a", 1, 0, "end", b"", sealed)) == b"secret"
    assert not RuntimeConfig(files.settings).now.call_keys


def test_configuration_passed_to_other_processes_is_encrypted(files, tmp_path):
    """If a node is killed, the bytes stay on the disk, and would outlive the file of keys (RZ5)."""
    path, key = tmp_path / "call-keys", make_call_key("one")
    path.write_text(json.dumps({"keys": [key]}))
    found, handed = RuntimeConfig(replace(files.settings, call_keys=path)), []
    found.reload(handed.append)
    found.reload(handed.append)
    assert len(set(handed)) == 2
    assert not any(word.encode() in each for each in handed for word in (key["k"], "call-keys", "Spill"))
    with pytest.raises(InvalidTag):
        found.take(flipped(handed[0]))


@pytest.mark.parametrize("content", [b"\xff", b'{"keys": []}', None], ids=["no text", "empty", "gone"])
def test_reload_with_invalid_call_keys_changes_nothing(files, tmp_path, caplog, content):
    """No file is applied, the old keys stay in use, and no log line contains a key (BA2, RZ5, K1)."""
    path, key = tmp_path / "call-keys", make_call_key("one")
    path.write_text(json.dumps({"keys": [key]}))
    found = RuntimeConfig(replace(files.settings, call_keys=path))
    files.write("b", title="Other")
    path.unlink() if content is None else path.write_bytes(content)
    found.reload()
    assert (state(found, files), found.now.call_keys.kids) == (([True, False], "Spill"), ("one",))
    [record] = caplog.records
    assert record.getMessage().startswith(f"the reload failed, so nothing has changed: call-keys {path}: ")
    assert key["k"] not in caplog.text
    with pytest.raises(ConfigError, match=r"^call-keys "):
        RuntimeConfig(replace(files.settings, call_keys=path))


def test_policy_with_calls_is_refused_without_call_keys(files, tmp_path, caplog):
    """Without them a node does not start, and a reload fails (RZ5, K1, BA2)."""
    path, policy = tmp_path / "call-keys", files.settings.policy
    path.write_text(json.dumps({"keys": [make_call_key()]}))
    found = RuntimeConfig(files.settings)
    policy.write_text(POLICY.format("Other") + '[calls.arrest]\ntitle = "Arrest"\nquals = ["cpr"]\n')
    found.reload()
    assert not found.now.policy.calls
    assert "the policy has [calls], but there is no key" in caplog.text
    with pytest.raises(ConfigError, match=r"^the policy has \[calls\], but there is no key"):
        RuntimeConfig(files.settings)
    assert set(RuntimeConfig(replace(files.settings, call_keys=path)).now.policy.calls) == {"arrest"}


# ---- revoked tokens ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("iat", "good"),
    [(NOON_S - 1, False), (NOON_S, True), (NOON_S + 1, True), (None, False), ("x", False), (True, False)],
)
def test_token_issued_before_the_revocation_is_refused(files, iat, good):
    """A token that does not say when it was issued is refused, too (BA3)."""
    files.write("a", revoked="[sub]\nphone = 2026-01-31T12:00:00Z\n")
    tokens = RuntimeConfig(files.settings).tokens
    claims = {} if iat is None else {"iat": iat}
    assert (tokens.check(files.token("a", **claims), NOON) is not None) == good
    assert tokens.check(files.token("a", **claims, sub="other"), NOON)


def test_revocation_times_may_have_any_offset():
    """The times are those of TOML (BA3)."""
    text = b'[sub]\n"a b" = 2026-01-31T13:00:00.5+01:00\nc = 2026-01-31 12:00:00Z\n'
    assert parse_revoked(text, "r") == {"a b": NOON_S + 0.5, "c": NOON_S}
    assert parse_revoked(b"", "r") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\xff", "not TOML"),
        (b"[sub]\nsecret = ", "not TOML: at end of document"),
        (b"[sub]\nsecret = nonsense", "not TOML: at line 2, column 10"),
        (b"[sub]\nsecret = 2026-01-31T12:00:00Z\nsecret = 2026-01-31T12:00:00Z", "not TOML: at end of document"),
        (b"[subs]\nsecret = 2026-01-31T12:00:00Z", "takes one table, [sub]"),
        (b"sub = 5", "takes one table, [sub]"),
        (b"[sub]\nsecret = 2026-01-31", "entry 1 of [sub]: expected"),
        (b"[sub]\nsecret = 2026-01-31T12:00:00", "entry 1 of [sub]: expected"),
        (b"[sub]\na = 2026-01-31T12:00:00Z\nsecret = 'now'", "entry 2 of [sub]: expected"),
        (b'[sub]\n"" = 2026-01-31T12:00:00Z', "entry 1 of [sub]: expected"),
        (b"a = " + b"[" * 5000, "not TOML"),
    ],
    ids=range(11),
)
def test_invalid_revocations_file_is_reported_in_one_line(text, said):
    """A node fails closed; a `sub` is never repeated (BA3, K1)."""
    with pytest.raises(ConfigError) as caught:
        parse_revoked(text, "revoked.toml")
    assert str(caught.value).startswith("revoked revoked.toml: ")
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rewritten_mailbox_file_is_noticed_even_with_the_same_inode(tmp_path, files):
    """The kernel may give a new file the inode of a deleted file."""
    first, second = RuntimeConfig(files.settings), RuntimeConfig(files.settings)
    mailbox, reader = ReloadMailbox(tmp_path), ReloadMailbox(tmp_path)
    for number in range(5):
        files.write("a", title=f"Title {number}")
        first.reload(mailbox.write)
        reader.look(second.take)
        assert second.now.policy == first.now.policy
