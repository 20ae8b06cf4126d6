"""`geocast push` when it refuses to start. `tests/end_to_end/push` tests what it does when it runs."""

import sqlite3
from contextlib import closing

import pytest
from support.ports import a_free_port

from geocast.alertlog import tail
from geocast.alertlog.sqlite.log_file import opened


@pytest.fixture
def options(geocast, keys, tmp_path):
    """Options with which the command would start, and a database of another program."""
    assert geocast("keygen", "--push", "push.jwks", "--vapid", "vapid.jwks").status == 0
    with closing(sqlite3.connect(tmp_path / "other.db")) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
    opened(tmp_path / "geocast.db")[0].close()
    files = ["--push-keys", "push.jwks", "--vapid", "vapid.jwks", "--keys", "keys.jwks"]
    return ["--listen", f"127.0.0.1:{a_free_port()}", "--contact", "mailto:ops@city.example", *files]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--contact", "me"), "--contact: expected mailto:"),
        (("--devices", "file:x"), "--devices: expected sqlite:PATH"),
        (("--log", "memory:"), "--log memory: is one node's own"),
        (("--push-services", "https://x"), "--push-services: expected names"),
        (("--push-keys", "none.jwks"), "--push-keys none.jwks: No such file"),
        (("--push-keys", "vapid.jwks"), "push-keys vapid.jwks: key 1: expected kty oct and alg A256GCM"),
        (("--vapid", "push.jwks"), "vapid push.jwks: not a JWK set of private keys"),
        (("--push-ca", "none.pem"), "--push-ca none.pem: No such file"),
        (("--push-ca", "vapid.jwks"), "--push-ca vapid.jwks: no certificates in PEM"),
        (("--devices", "sqlite:other.db"), "another program's, or the alert log"),
        (("--origins", "app.example"), "entry 1 is no origin as browsers send it"),
        (("--finest-cell", "10"), "--finest-cell"),
        (("--lease-days", "31"), "--lease-days"),
    ],
)
def test_invalid_push_options_are_refused_in_one_line(geocast, options, wrong, said):
    """The command exits with status 2 and prints one clear line, never a traceback (rule K1)."""
    outcome = geocast("push", *options, *wrong)
    assert outcome.is_one_line_error, outcome.err
    assert said in outcome.err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_push_makes_no_log(geocast, options, tmp_path, monkeypatch, workers):
    """A typing mistake in the path would leave all phones asleep: only nodes make logs."""
    monkeypatch.setattr(tail, "MADE_S", 0.0)
    outcome = geocast("push", *options, "--log", "sqlite:elsewhere.db", "--workers", workers)
    assert outcome.is_one_line_error, outcome.err
    assert f"--log: there is no alert log at {tmp_path / 'elsewhere.db'}: a node makes it" in outcome.err
    assert not (tmp_path / "elsewhere.db").exists()
