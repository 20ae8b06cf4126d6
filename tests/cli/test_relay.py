"""`geocast relay` when it refuses to start, and `geocast keygen --webhook`.

`tests/end_to_end/relay` tests what the relay does when it runs.
"""

import re
import sqlite3
from contextlib import closing

import pytest

from geocast.alertlog import tail


@pytest.fixture
def targets(geocast, tmp_path):
    """Make a file of targets, its secret, and a database of another program."""
    assert geocast("keygen", "--webhook", "siren.secret").status == 0
    with closing(sqlite3.connect(tmp_path / "other.db")) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
    (tmp_path / "targets.toml").write_text(
        '[targets.siren]\nurl = "https://sirens.example/hook?key=hidden"\nsecret_file = "siren.secret"\n'
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--targets", "none.toml"), "targets none.toml: No such file"),
        (("--targets", "siren.secret"), "targets siren.secret: not TOML"),
        (("--state", "other.db"), "--state: the file is another program's, or the alert log"),
        (("--log", "memory:"), "--log memory: is one node's own"),
        (("--policy", "none.toml"), "policy none.toml: No such file"),
        (("--reviewers", "siren.secret"), "reviewers siren.secret"),
        (("--metrics", "here"), "--metrics"),
    ],
)
def test_invalid_relay_options_are_refused_in_one_line(geocast, targets, wrong, said):
    """The command exits with status 2 and prints one clear line without secrets (rules K1, WH8)."""
    outcome = geocast("relay", "--targets", "targets.toml", *wrong)
    assert outcome.is_one_line_error, outcome.err
    assert said in outcome.err
    assert "hidden" not in outcome.err
    assert "whsec_" not in outcome.err


@pytest.mark.parametrize("there", [None, b""], ids=["no file", "an empty file"])
def test_relay_makes_no_log(geocast, targets, tmp_path, monkeypatch, there):
    """A relay on a mistyped path would be ready, and its siren silent: only nodes make logs."""
    monkeypatch.setattr(tail, "MADE_S", 0.0)
    path = tmp_path / "elsewhere.db"
    if there is not None:
        path.write_bytes(there)
    outcome = geocast("relay", "--targets", "targets.toml", "--log", "sqlite:elsewhere.db")
    assert outcome.is_one_line_error, outcome.err
    assert f"--log: there is no alert log at {path}: a node makes it" in outcome.err
    assert (path.read_bytes() if path.exists() else None) == there


def test_unknown_variable_is_refused_by_relay(geocast, targets):
    """A variable whose name begins with GEOCAST_ must be a setting (rule K1)."""
    wrong = "GEOCAST_RELAY_STATE" + "S"
    outcome = geocast("relay", "--targets", "targets.toml", **{wrong: "x"})
    assert f"{wrong} in the environment is no setting; did you mean GEOCAST_RELAY_STATE?" in outcome.err


def test_keygen_adds_webhook_secrets_at_the_front_of_a_private_file(geocast, tmp_path):
    """A file has at most four; the public key of Ed25519 is printed, a secret is not (WH9)."""
    made = geocast("keygen", "--webhook", "a.secret")
    assert (made.status, made.out) == (0, "secret: a.secret\n")
    assert (tmp_path / "a.secret").stat().st_mode & 0o077 == 0
    [first] = (tmp_path / "a.secret").read_text().split()
    made = geocast("keygen", "--webhook", "a.secret", "--ed25519")
    assert re.fullmatch(r"secret: a\.secret\npublic key: whpk_[A-Za-z0-9+/]{43}=\n", made.out)
    second, after = (tmp_path / "a.secret").read_text().split()
    assert second.startswith("whsk_")
    assert after == first
    for _ in range(2):
        assert geocast("keygen", "--webhook", "a.secret").status == 0
    before = (tmp_path / "a.secret").read_text()
    outcome = geocast("keygen", "--webhook", "a.secret")
    assert outcome.is_one_line_error
    assert "a.secret, as it would be: expected 1 to 4 secrets" in outcome.err
    assert (tmp_path / "a.secret").read_text() == before
    assert geocast("keygen", "--webhook", "a.secret", "--call").is_one_line_error
    assert geocast("keygen", "--ed25519").is_one_line_error
