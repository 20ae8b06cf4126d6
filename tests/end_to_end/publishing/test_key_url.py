"""Keys at a URL: rotation, withdrawal, and a server that is unreachable, slow or serves invalid keys.

The tests use real HTTPS with their own certificate authority, with one process and with several.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.deploy.test_reload import Reloading
from end_to_end.deploy.test_starting import geocast
from end_to_end.kit.alerts import Json, ground, place
from end_to_end.kit.key_server import KeyServer
from end_to_end.kit.keys import PHONE_SCOPE, Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import Session
from end_to_end.kit.times import wait_until
from end_to_end.kit.tls import Certificate
from support.ports import free_ports

Join = Callable[..., Session]
CROWD = 8  # sessions, so that some are on each process


class Published(Reloading):
    """A node whose keys are at a URL, and which has no other files."""

    files = ()

    def __init__(self, node: Node, server: KeyServer) -> None:
        super().__init__(node)
        self.server = server

    def of_old(self) -> Json:
        """Return the old key as published."""
        return {"keys": [self.old.jwks()["keys"][0]]}

    def of_both(self) -> Json:
        """Return both keys, and a key for another purpose."""
        other = {"kty": "RSA", "kid": "enc", "alg": "RSA-OAEP", "use": "enc", "n": "x", "e": "AQAB"}
        return {"keys": [*self.of_old()["keys"], other, *self.only_new()["keys"]]}

    def publish(self, keys: Any, result: str = "ok") -> None:
        """Publish other keys, have the node fetch them (SIGHUP), and wait for the result."""
        self.server.keys = keys
        self.fetch(result)

    def fetch(self, result: str = "ok") -> None:
        """Send SIGHUP, and wait for the result of the fetch."""
        name = f'key_fetches_total{{result="{result}"}}'
        before = self.metric(name)
        self.hang_up()
        wait_until(lambda: self.metric(name) > before, f"a fetch is {result}")


def starting(home: Path, certificate: Certificate, url: str, *options: str) -> Node:
    """Return a node with keys at this URL, not started yet."""
    return Node(home, Keys(), "--keys", url, *options, SSL_CERT_FILE=str(certificate.crt))


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def running(
    request: pytest.FixtureRequest, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Published]:
    """A running node, and the server of its keys."""
    server = KeyServer(None)
    with server.serving(certificate) as url:
        home = tmp_path_factory.mktemp("keys")
        node = starting(home, certificate, url, "--workers", str(request.param), "--keys-refresh-s", "3600")
        server.keys = {"keys": [node.keys.jwks()["keys"][0]]}
        with node:
            yield Published(node, server)


@pytest.fixture
def site(running: Published) -> Published:
    """The node, which uses the old key."""
    running.publish(running.of_old())
    wait_until(lambda: running.status(running.new_token()) == 401, "the new key is not in force")
    return running


def test_first_token_of_a_new_key_waits_for_one_fetch_of_the_keys(running: Published, join: Join):
    """The API and the stream accept the token at once, without a signal to the node (rule T8)."""
    site, asked = running, running.server.asked
    site.server.keys = site.of_both()
    site.server.slow_s = 0.3
    sessions = [Session(site.node) for _ in range(CROWD)]
    for session in sessions:
        session.say({"type": "hello", "token": site.phone(), "places": [place(ground())]})
        session.say({"type": "ping", "ref": 1})
    assert site.status(site.new_token()) == 200
    for session in sessions:
        with session:
            assert session.take()["type"] == "welcome"
            assert session.take()["type"] == "pong"
    assert site.server.asked == asked + 1, "all have waited for one fetch"
    site.server.slow_s = 0.0
    strangers = Keys()
    stranger = strangers.signed(strangers.claims(), kid="nobody's")
    assert site.status(stranger) == 401
    for _ in range(CROWD):
        with Session(site.node) as refused:
            refused.say({"type": "hello", "token": stranger, "places": []})
            assert refused.wire.close_code() == 4401
    assert site.server.asked == asked + 1, "strangers can't have it fetched again and again"


def test_withdrawn_key_ends_only_its_own_sessions(site: Published, join: Join):
    """The close code is 4401; sessions of other keys stay open (rule BA3)."""
    site.publish(site.of_both())
    wait_until(lambda: site.status(site.new_token()) == 200, "the new key is in force")
    leaving = [join(site.node) for _ in range(CROWD)]
    staying = [join(site.node, token=site.phone()) for _ in range(CROWD)]
    site.publish(site.only_new())
    for session in leaving:
        assert session.wire.close_code() == 4401
    wait_until(lambda: site.status(site.old.token()) == 401, "the old key is not in force")
    for session in staying:
        assert session.ask("ping")["type"] == "pong"


@pytest.mark.parametrize(
    "rubbish",
    [b"<html>", {"keys": []}, b" " * 300_000, {"keys": [{"kty": "oct", "kid": "ed", "alg": "HS256", "k": "x" * 64}]}],
    ids=["no JSON", "no keys", "too long", "a secret"],
)
def test_last_valid_key_set_is_kept_while_the_url_serves_invalid_keys(site: Published, join: Join, rubbish: Any):
    """One log line reports the failure (rule T8)."""
    session, since = join(site.node), len(site.node.output())
    site.publish(rubbish, "failed")
    site.fetch("failed")
    assert site.status(site.old.token()) == 200
    assert session.ask("ping")["type"] == "pong"
    assert site.node.output()[since:].count("so the present ones stay valid: keys https://") == 1
    site.publish(site.of_old())
    wait_until(lambda: "signing keys: fetching works again" in site.node.output()[since:], "a line says so")


def test_files_are_reloaded_while_the_keys_cannot_be_fetched(site: Published):
    """An unreachable key server does not keep a new policy out of force (rule BA2)."""
    site.server.status = 503
    try:
        site.reload()
        site.fetch("failed")
    finally:
        site.server.status = 200


def test_withdrawn_key_is_noticed_without_a_signal(tmp_path: Path, certificate: Certificate, join: Join):
    """The node needs at most `--keys-refresh-s` and a second (rule BA3).

    The server may have been unreachable meanwhile.
    """
    server, [port] = KeyServer(None), free_ports(1)
    url = f"https://localhost:{port}/realms/x/certs?tenant=1"
    node = starting(tmp_path, certificate, url, "--keys-refresh-s", "1", "--workers", "2")
    site = Published(node, server)
    server.keys = site.of_both()
    with contextlib.ExitStack() as running:
        with server.serving(certificate, port):
            running.enter_context(node)
        staying, leaving = join(node, token=site.phone()), join(node)
        wait_until(lambda: site.metric('key_fetches_total{result="failed"}') > 0, "it is away")
        server.keys = site.only_new()
        with server.serving(certificate, port):
            assert leaving.wire.close_code() == 4401
        assert staying.ask("ping")["type"] == "pong"


# -- refused configurations


@pytest.mark.parametrize("workers", ["1", "2"])
def test_node_without_usable_keys_does_not_start(tmp_path: Path, certificate: Certificate, workers: str):
    """The command prints one line and exits with status 2 (rule K1)."""
    server = KeyServer({"keys": []})
    with server.serving(certificate) as url:
        ended = geocast(tmp_path, "serve", "--keys", url, "--workers", workers, SSL_CERT_FILE=str(certificate.crt))
        unknown = geocast(tmp_path, "serve", "--keys", url, "--workers", workers)
    away = geocast(tmp_path, "serve", "--keys", url, "--workers", workers, SSL_CERT_FILE=str(certificate.crt))
    for outcome, said in (
        (ended, "holds no usable key"),
        (unknown, "its certificate is not valid"),
        (away, "can't be reached"),
    ):
        assert outcome.returncode == 2
        assert outcome.stdout == ""
        assert re.fullmatch(
            rf"geocast: error: keys https://localhost:\d+/realms/x/certs: {said}[^\n]*\n", outcome.stderr
        )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--keys", "http://127.0.0.1:9/keys"], "give https://"),
        (["--keys", "http://idp.example/keys", "--dev"], "give https://"),
        (["--keys", "ftp://idp.example/keys"], "expected https://HOST/PATH"),
        (["--keys", "https://user:secret@idp.example/keys"], "expected https://HOST/PATH"),
    ],
    ids=range(4),
)
def test_key_url_whose_answer_could_be_forged_is_refused(tmp_path: Path, options: list[str], said: str):
    """Nothing on the way to the keys may be able to change them (rule K1)."""
    ended = geocast(tmp_path, "serve", *options)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert "secret" not in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_plain_http_key_url_is_accepted_on_loopback_with_dev(tmp_path: Path, join: Join):
    """A trial on one machine needs no certificate (rule K1)."""
    keys = Keys()
    server = KeyServer({"keys": [keys.jwks()["keys"][0]]})
    with server.serving(None) as url, Node(tmp_path, keys, "--dev", "--keys", url) as node:
        join(node, token=keys.token(sub="phone", scope=PHONE_SCOPE))
