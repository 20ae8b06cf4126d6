"""Limits of the API listener for unknown clients: heads, bodies, connections and unread answers.

A `Caller` writes bytes by hand and reads whole answers. The time limits have their own tests with a manual clock in
tests/api/test_http_server.py; here they run once in real time, all together.
"""

from __future__ import annotations

import contextlib
import json
import resource
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from end_to_end.kit.alerts import alert, ground, place
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import Session
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE, upgrade_headers

Join = Callable[..., Session]
HEAD_MAX = 32 * 1024
READY = b"GET /readyz HTTP/1.1\r\nHost: node\r\n"


class Said(NamedTuple):
    """A whole HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Caller:
    """A client's socket to the API listener."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._buffer = b""

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def say(self, data: bytes) -> None:
        """Send data, ignoring a closed connection."""
        with contextlib.suppress(ConnectionError):
            self.sock.sendall(data)

    def hear(self) -> Said | None:
        """Return the next answer, or None at the end of the stream."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                return None
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers["content-length"])
        while len(self._buffer) < length:
            assert self._more(), "an answer breaks off"
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Said(int(first.split()[1]), headers, body)

    def _more(self) -> bool:
        try:
            data = self.sock.recv(65536)
        except ConnectionError:
            return False
        self._buffer += data
        return bool(data)

    def has_ended(self) -> bool:
        """Return whether the stream has ended; discard any answer before the end."""
        return not self._more()

    def wait_for_end(self) -> None:
        """Read to the end of the stream."""
        while self._more():
            pass


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as the machine allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def call(node: Node) -> Iterator[Callable[[], Caller]]:
    """A function that returns a new caller, which disconnects at the end of the test."""
    with contextlib.ExitStack() as callers:
        yield lambda: callers.enter_context(Caller(node.api_port))


def fields(*lines: str) -> bytes:
    """Return header fields and the end of a head."""
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


def head(*lines: str, target: str = "/v1/alerts", method: str = "POST", version: str = "1.1") -> bytes:
    """Return the head of a request, exactly as given."""
    return f"{method} {target} HTTP/{version}\r\n".encode() + fields(*lines)


def filled(size: int) -> bytes:
    """Return a valid head of `size` bytes."""
    return READY + b"A: " + b"a" * (size - len(READY) - len(b"A: \r\n\r\n")) + b"\r\n\r\n"


# -- invalid requests

CHUNKED = ("Host: node", "Content-Type: application/json", "Transfer-Encoding: chunked")
NO_REQUESTS = {
    "no Host": (head(target="/readyz", method="GET"), 400, "bad-request"),
    "two Hosts": (head("Host: a", "Host: b", target="/readyz", method="GET"), 400, "bad-request"),
    "two lengths": (head(*CHUNKED, "Content-Length: 2") + b"{}", 400, "bad-request"),
    "two sizes": (head("Host: node", "Content-Length: 2", "Content-Length: 3") + b"{}", 400, "bad-request"),
    "no number": (head("Host: node", "Content-Length: two") + b"{}", 400, "bad-request"),
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01", 400, "bad-request"),
    "no version": (b"GET /readyz\r\n\r\n", 400, "bad-request"),
    "a bad chunk": (head(*CHUNKED) + b"x\r\n", 400, "bad-request"),
    "one endless field": (READY + b"A: " + b"a" * 10 * HEAD_MAX, 431, "head-too-large"),
    "an endless target": (b"GET /" + b"a" * 10 * HEAD_MAX, 431, "head-too-large"),
    "endless fields": (READY + b"a:b\r\n" * HEAD_MAX, 431, "head-too-large"),
    "a byte too many": (filled(HEAD_MAX + 1), 431, "head-too-large"),
    "an endless chunk extension": (head(*CHUNKED) + b"1;" + b"a" * 2 * HEAD_MAX, 431, "head-too-large"),
    "an endless trailer": (head(*CHUNKED) + b"0\r\nA: " + b"a" * 2 * HEAD_MAX, 431, "head-too-large"),
    "a body of crumbs": (head(*CHUNKED) + b"1\r\n \r\n" * 10_000, 413, "too-large"),
}


@pytest.mark.parametrize(("sent", "status", "slug"), NO_REQUESTS.values(), ids=NO_REQUESTS.keys())
def test_invalid_request_gets_a_problem_and_closes_the_connection(
    call: Callable[[], Caller], sent: bytes, status: int, slug: str
):
    """Bytes after the invalid request are not read as another request (rules BA1 and BA1c)."""
    caller = call()
    caller.say(sent)
    answer = caller.hear()
    while answer and answer.status == 401:  # the head of a request with a broken body may have been answered
        answer = caller.hear()
    if answer is not None:
        assert answer.status == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["connection"] == "close"
        assert json.loads(answer.body)["type"] == f"/problems/{slug}"
    else:
        assert b"chunked" in sent, "a refusal whose head was not answered before"
    caller.say(READY + b"\r\n")
    caller.wait_for_end()


def test_request_headers_of_32_kib_or_sent_byte_by_byte_are_accepted(call: Callable[[], Caller]):
    """The limit is inclusive (rule BA1)."""
    caller = call()
    caller.say(filled(HEAD_MAX))
    assert caller.hear().status == 200
    for byte in READY + b"\r\n":
        caller.say(bytes([byte]))
    assert caller.hear().status == 200


def test_http_1_0_request_needs_no_host_header(call: Callable[[], Caller]):
    """HTTP/1.0 does not require a Host field (rule BA1c)."""
    caller = call()
    caller.say(head(target="/readyz", method="GET", version="1.0"))
    assert caller.hear().status == 200
    caller.wait_for_end()


def test_stream_listener_requires_exactly_one_host_header(node: Node):
    """An HTTP/1.1 request without exactly one Host gets 400 (RFC 9112, section 3.2; rule S2)."""
    good = [f"{name}: {value}" for name, value in upgrade_headers("geocast.v1.json", Host=None).items() if value]
    for hosts, status in (([], 400), (["Host: a", "Host: b"], 400), (["Host: a"], 101)):
        with Caller(node.stream_port) as caller:
            caller.say(head(*hosts, *good, target="/v1/stream", method="GET"))
            assert int(caller.sock.recv(65536).split()[1]) == status


# -- valid requests


def test_request_with_an_absolute_url_as_target_is_accepted(call: Callable[[], Caller]):
    """The absolute form is that of RFC 9112, section 3.2.2 (rule BA1c)."""
    caller = call()
    caller.say(head("Host: node", target="http://node/readyz", method="GET"))
    assert caller.hear().status == 200


def publication(keys: Keys, body: bytes, *lines: str) -> bytes:
    """Return a POST request with these header fields in addition to the usual ones."""
    token = f"Authorization: Bearer {keys.token()}"
    return (
        head("Host: 127.0.0.1", "Content-Type: application/json", token, *lines, f"Content-Length: {len(body)}") + body
    )


JAVA = (
    "Connection: Upgrade, HTTP2-Settings",
    "HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAABgAGAAA",
    "Upgrade: h2c",
)


@pytest.mark.parametrize("lines", [JAVA, ("Connection: Upgrade", "Upgrade: websocket")], ids=["h2c", "websocket"])
def test_offer_to_upgrade_the_protocol_is_ignored(call: Callable[[], Caller], keys: Keys, lines: tuple[str, ...]):
    """Java's HttpClient offers HTTP/2 in each request; the body is read as usual (RFC 9110, section 7.8; rule BA1c)."""
    caller = call()
    for _ in range(2):
        caller.say(publication(keys, json.dumps(alert(ground())).encode(), *lines))
        answer = caller.hear()
        assert answer.status == 201, answer
        assert "upgrade" not in answer.headers


def test_trailer_fields_are_not_used_as_headers(call: Callable[[], Caller], keys: Keys):
    """Credentials after a body do not count (RFC 9110, section 6.5.1; rule BA1c)."""
    body = json.dumps(alert(ground())).encode()
    chunks = b"%x\r\n%s\r\n0\r\n" % (len(body), body)
    caller = call()
    caller.say(head(*CHUNKED) + chunks + fields(f"Authorization: Bearer {keys.token()}"))
    assert caller.hear().status == 401
    caller = call()
    caller.say(head(*CHUNKED, f"Authorization: Bearer {keys.token()}") + chunks + fields("Authorization: none"))
    assert caller.hear().status == 201


def test_pipelined_requests_are_answered_in_order(call: Callable[[], Caller], keys: Keys):
    """A request is read only after the previous one is answered, and none is lost (rule BA1b)."""
    bodies = [json.dumps(alert(ground())).encode() for _ in range(20)]
    caller = call()
    caller.say(b"".join(publication(keys, body) for body in bodies))
    for body in bodies:
        answer = caller.hear()
        assert answer.status == 201
        assert json.loads(answer.body)["id"] == json.loads(body)["id"]


def test_request_that_follows_a_refused_and_unread_body_is_answered(call: Callable[[], Caller], keys: Keys):
    """The rest of the refused body is read and discarded (rule BA1a)."""
    caller = call()
    caller.say(head("Host: node", "Content-Type: application/json", "Content-Length: 100000"))
    assert caller.hear().status == 401
    caller.say(b" " * 100_000 + publication(keys, json.dumps(alert(ground())).encode()))
    assert caller.hear().status == 201


def test_answer_that_the_client_does_not_read_keeps_no_file_open(own_node: Node):
    """Each connection uses only one file descriptor, so that one is left for each subscriber (rule BA1d)."""
    assert own_node.process
    descriptors = Path(f"/proc/{own_node.process.pid}/fd")
    before = [link.readlink() for link in descriptors.iterdir()]
    with contextlib.ExitStack() as open_sockets:
        for _ in range(20):
            caller = open_sockets.enter_context(Caller(own_node.api_port))
            caller.say(head("Host: node", target="/docs/swagger-ui-bundle.js", method="GET"))
            assert caller.sock.recv(1), "the answer has begun"
        held = [link.readlink() for link in descriptors.iterdir()]
        assert len(held) == len(before) + 20
        assert all(str(path).startswith("socket:") for path in set(held).difference(before))


# -- many connections

BAD = 2_000
MANNERS: tuple[tuple[bytes, bytes], ...] = (  # the bytes that each sends first, and the bytes that it repeats
    (b"", b""),
    (READY + b"A: ", b"a"),
    (b"POST /v1/alerts HTTP/1.1\r\n", b""),
    (READY, b"A: " + b"a" * 1_000 + b"\r\n"),
)


@pytest.mark.slow
def test_two_thousand_idle_or_slow_connections_do_not_delay_alerts(own_node: Node, join: Join, many_files: None):
    """The connections are idle, stop in the middle, send slowly or never end.

    Each alert is accepted and delivered meanwhile, and the node closes all of these connections (rule BA1).
    """
    spot = ground()
    session = join(own_node, place(spot))
    published: list[str] = []
    with contextlib.ExitStack() as open_sockets:
        crowd = {}
        poll = select.poll()
        for number in range(BAD):
            caller = open_sockets.enter_context(Caller(own_node.api_port))
            caller.say(MANNERS[number % len(MANNERS)][0])
            crowd[caller.sock.fileno()] = caller, MANNERS[number % len(MANNERS)][1]
            poll.register(caller.sock, select.POLLIN)
        while crowd:
            published.append(own_node.publish(alert(spot))["id"])
            session.listen(published[-1], 1)
            for descriptor, _ in poll.poll(0):
                if crowd[descriptor][0].has_ended():
                    poll.unregister(descriptor)
                    del crowd[descriptor]
            for caller, more in crowd.values():
                caller.say(more)
    assert session.everything() == [(alert_id, 1) for alert_id in published]
    own_node.assert_serving()


DESCRIPTORS = 1_000
CONNECTIONS = DESCRIPTORS // 8


@pytest.fixture
def narrow(keys: Keys, tmp_path: Path) -> Iterator[Node]:
    """A node with at most a thousand open files, so that its API accepts 125 connections."""
    node = Node(tmp_path, keys)
    node.launcher = ["sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$0" "$@"']
    with node:
        yield node


def test_node_with_too_many_connections_closes_the_one_that_has_waited_longest(narrow: Node, keys: Keys, join: Join):
    """A crowd cannot keep publishers out, and subscribers are not affected (rule BA1d)."""
    spot = ground()
    session = join(narrow, place(spot))
    with contextlib.ExitStack() as open_sockets:
        crowd = [open_sockets.enter_context(Caller(narrow.api_port)) for _ in range(2 * CONNECTIONS)]
        publisher = open_sockets.enter_context(Caller(narrow.api_port))
        body = alert(spot)
        publisher.say(publication(keys, json.dumps(body).encode()))
        assert publisher.hear().status == 201
        session.listen(body["id"], 1)
        assert all(caller.hear() is None for caller in crowd[:CONNECTIONS])
        crowd[-1].say(READY + b"\r\n")
        assert crowd[-1].hear().status == 200


def test_connection_is_refused_with_503_while_all_others_have_a_request_in_progress(narrow: Node, keys: Keys):
    """The answer has `Retry-After`; a finished request makes room (rule BA1d)."""
    narrow.api.close()
    with contextlib.ExitStack() as open_sockets:
        body = json.dumps(alert(ground())).encode()
        request = publication(keys, body)
        crowd = [open_sockets.enter_context(Caller(narrow.api_port)) for _ in range(CONNECTIONS)]
        for caller in crowd:
            caller.say(request[:-1])
        wait_until(lambda: knocked(narrow) == 503, "there is no room")
        crowd[0].say(request[-1:])
        assert crowd[0].hear().status == 201
        wait_until(lambda: knocked(narrow) == 200, "the finished request makes room")


def knocked(node: Node) -> int | None:
    """Return the status that a new connection gets, or None if it was reset before the answer."""
    with Caller(node.api_port) as caller:
        caller.say(READY + b"\r\n")
        answer = caller.hear()
    if answer is None:
        return None
    if answer.status == 503:
        assert answer.headers["retry-after"] == "1"
        assert json.loads(answer.body)["type"] == "/problems/too-many-connections"
    return answer.status
