"""The limits of a connection: too many messages, too late, too long silent, too slow, and an expired token."""

import contextlib
import resource
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.kit.alerts import Json, alert, circle, ground, place, revision_of
from end_to_end.kit.earth import Point
from end_to_end.kit.keys import PHONE_SCOPE, Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import FORMATS, Session, kept_alive
from end_to_end.kit.times import moment, wait_until
from end_to_end.kit.wire import PATIENCE, PING, PONG, TEXT, Answer, Closed, Wire, encode, frame

Join = Callable[..., Session]
BURST = 300
HEADERS_AND_HELLO_S = 10
HEARTBEAT_S = 25
SILENT_S = 60
CONNECTION_MAX = 4_800_000
"""In bytes. More than the kernel buffers for one connection (by default at most 4 MiB) plus one write."""
EMOJI = "\U0001f30d"
BULKY_FRAME = 6_000
"""The smallest size, in bytes, of an alert with a thousand emoji and sixteen circles."""


# -- too many messages


@pytest.mark.parametrize("fmt", FORMATS)
def test_burst_of_three_hundred_messages_is_accepted(node: Node, join: Join, fmt: str):
    """The `hello` counts as one of the 300 messages (protocol, section 5, "Messages")."""
    session = join(node, fmt=fmt)
    for ref in range(BURST - 1):
        session.say({"type": "ping", "ref": ref})
    for ref in range(BURST - 1):
        assert session.take()["ref"] == ref


FLOODS = {
    "pings": (TEXT, b'{"type":"ping"}'),
    "moves": (TEXT, b'{"type":"move","places":[]}'),
    "messages of no known type": (TEXT, b'{"type":"flood"}'),
    "acks": (TEXT, b'{"type":"ack","id":"x","revision":1}'),
    "WebSocket pings": (PING, b""),
    "WebSocket pongs": (PONG, b""),
}


@pytest.mark.parametrize(("opcode", "payload"), FLOODS.values(), ids=FLOODS.keys())
def test_session_that_exceeds_the_burst_is_closed_with_4429(node: Node, join: Join, opcode: int, payload: bytes):
    """Control frames count too, and other sessions are not disturbed (protocol, section 5)."""
    spot = ground()
    other, session = join(node, place(spot)), join(node)
    session.wire.sock.sendall(frame(opcode, payload) * (BURST + 100))
    assert session.wire.close_code() == 4429
    other.listen(node.publish(alert(spot))["id"], 1)


# -- sessions whose token expires


def in_time(begin: Callable[[int], Any]) -> tuple[int, Any]:
    """Call `begin(expiry)` with the expiry of a token, in seconds since the epoch.

    Return the expiry and what `begin` returned. Retry with a later expiry until `begin` returns before the token
    expires.
    """
    for seconds in (3, 12, 48):
        expiry = int(time.time()) + seconds
        with contextlib.suppress(Closed):
            begun = begin(expiry)
            if time.time() < expiry:
                return expiry, begun
    raise AssertionError("too slow for a token of 48 s")


@pytest.mark.parametrize("fmt", FORMATS)
def test_session_is_closed_with_4401_when_its_token_expires(node: Node, join: Join, keys: Keys, fmt: str):
    """The session is not closed earlier, and `token_expires_at` announces the expiry (protocol, section 6)."""
    expiry, session = in_time(
        lambda expiry: join(node, fmt=fmt, token=keys.token(sub="phone", scope=PHONE_SCOPE, exp=expiry))
    )
    assert moment(session.welcome["token_expires_at"]).timestamp() == expiry
    assert session.wire.close_code() == 4401
    assert time.time() >= expiry - 0.1


def test_session_ends_when_its_last_accepted_token_expires(node: Node, join: Join, keys: Keys):
    """A fresh token may end later or earlier than the one before (protocol, section 6)."""
    spot = ground()

    def begin(expiry: int) -> list[Session]:
        brief = keys.token(sub="phone", scope=PHONE_SCOPE, exp=expiry)
        _, kept, cut = sessions = [join(node, place(spot), token=brief) for _ in range(3)]
        kept.renew(PHONE_SCOPE)
        cut.renew(PHONE_SCOPE)
        assert cut.ask("token", token=brief)["type"] == "ok" or time.time() > expiry
        return sessions

    _, (ends, kept, cut) = in_time(begin)
    assert ends.wire.close_code() == 4401
    assert cut.wire.close_code() == 4401
    kept.listen(node.publish(alert(spot))["id"], 1)


def test_alert_published_after_a_token_expired_is_not_sent_to_its_session(node: Node, join: Join, keys: Keys):
    """The session is closed with 4401, and nothing follows (protocol, section 6)."""
    spot = ground()
    _, session = in_time(
        lambda expiry: join(node, place(spot), token=keys.token(sub="phone", scope=PHONE_SCOPE, exp=expiry))
    )
    assert session.wire.close_code() == 4401
    node.publish(alert(spot))
    assert session.wire.at_end()
    assert session.received == []


# -- connections that are too late, silent or slow


class Waiting:
    """Connections that wait for their timeouts at the same time, so that the slow tests run only once."""

    def __init__(self, node: Node, kept_alive: list[Session]) -> None:
        self.node = node
        self.began = time.monotonic()
        self.no_headers = [Wire(node.stream_port) for _ in range(2)]
        self.no_headers[1].sock.sendall(b"GET /v1/stream HTTP/1.1\r\nHost: x\r\n")
        self.no_hello = [Wire(node.stream_port) for _ in range(2)]
        for wire in self.no_hello:
            wire.upgrade("geocast.v1.json")
        self.no_hello[1].send(TEXT, b'{"type":"hello",', fin=False)
        self.answering, self.silent = node.join(), node.join()
        self.silent.wire.answer_pings = False
        kept_alive.append(self.answering)  # before publishing, which may take a minute on a busy machine
        self.unread = unread_session(node)
        self.published = list(publish_more_than_a_connection_takes(node, self.unread.places[0]))
        self.dripping = Wire(node.stream_port)
        for wire in self.wires():
            wire.sock.settimeout(2 * SILENT_S)

    def wires(self) -> list[Wire]:
        sessions = (self.answering, self.silent, self.unread)
        return [*self.no_headers, *self.no_hello, self.dripping, *(session.wire for session in sessions)]

    def waited(self) -> float:
        return time.monotonic() - self.began

    def close(self) -> None:
        for wire in self.wires():
            wire.sock.close()


def unread_session(node: Node) -> Session:
    """Connect a session with a small receive buffer, and read nothing after its `hello`."""
    session = Session(node, receive_buffer=4_096)
    session.hello([place(ground())])
    return session


def publish_more_than_a_connection_takes(node: Node, where: Json) -> Iterator[str]:
    """Publish alerts of several kB for one place, fifty at a time, and yield their ids."""
    spot = (where["lat"], where["lng"])
    area = [circle(spot, 800 + 10 * i) for i in range(16)]
    for _ in range(0, CONNECTION_MAX, 50 * BULKY_FRAME):
        bodies = [alert(spot, headline=EMOJI * 140, description=EMOJI * 1_000, area=area) for _ in range(50)]
        answers = node.at_once("/v1/alerts", bodies)
        assert {answer.status_code for answer in answers} == {201}
        yield from [body["id"] for body in bodies]


@pytest.fixture(scope="module")
def waiting(node: Node) -> Iterator[Waiting]:
    """Yield the connections that wait for their timeouts."""
    not_read: list[Session] = []  # sessions that no test reads yet
    with kept_alive(not_read):
        waiting = Waiting(node, not_read)
        yield waiting
    waiting.close()


@pytest.mark.slow
def test_connection_without_complete_headers_is_closed_after_10_s(waiting: Waiting):
    """Headers must be complete 10 s after the connection was accepted (protocol, section 5)."""
    for wire in waiting.no_headers:
        assert wire.read_answer().status in (0, 408)
    assert waiting.waited() >= HEADERS_AND_HELLO_S - 1


@pytest.mark.slow
def test_connection_whose_headers_come_byte_by_byte_is_closed_after_10_s(waiting: Waiting):
    """Sending single bytes does not extend the limit of 10 s (protocol, section 5)."""
    began, sock = time.monotonic(), waiting.dripping.sock
    while not select.select([sock], [], [], 0.5)[0]:
        sock.sendall(b"G")
        assert time.monotonic() - began < HEADERS_AND_HELLO_S + PATIENCE
    assert waiting.dripping.read_answer().status in (0, 408)


@pytest.mark.slow
def test_connection_without_complete_hello_is_closed_with_4408(waiting: Waiting):
    """A complete `hello` must come within 10 s after the 101 answer (protocol, section 5)."""
    for wire in waiting.no_hello:
        assert wire.close_code() == 4408


@pytest.mark.slow
def test_connection_on_which_nothing_is_sent_is_pinged(waiting: Waiting):
    """The server pings a connection to which it wrote nothing for `heartbeat_s` seconds (protocol, section 5)."""
    assert waiting.answering.welcome["heartbeat_s"] == HEARTBEAT_S
    got = waiting.answering.wire.recv()
    assert got.opcode == PING
    assert waiting.waited() >= HEARTBEAT_S - 1
    waiting.answering.wire.send(PONG, got.payload)
    assert waiting.answering.ask("ping")["type"] == "pong"


@pytest.mark.slow
def test_slow_session_delays_nobody_and_gets_only_live_alerts_when_it_reads_again(node: Node, join: Join):
    """When the slow session reads again, it gets only what is still live (protocol, section 3).

    It gets the newest revision of each live alert, and nothing of the alerts that were cancelled or expired meanwhile.
    Most of the alerts are published before it joins: a connection may be full for 30 s only, and a busy machine takes
    longer to publish them.
    """
    spot = ground()
    reader = join(node, place(spot), fmt="msgpack")
    names = []
    for name in publish_more_than_a_connection_takes(node, place(spot)):
        reader.listen(name, 1)  # right away: a session that does not read for long is closed
        names.append(name)
    with Session(node, receive_buffer=4_096) as slow:
        slow.places = [place(spot)]
        slow.say({"type": "hello", "places": slow.places, "token": node.keys.token(sub="phone", scope=PHONE_SCOPE)})
        assert slow.take()["live"] == len(names)
        late = alert(spot)
        node.publish(late)
        names.append(late["id"])
        reader.listen(late["id"], 1)
        last = change_while_unread(node, spot)
        reader.listen(last["revised"], 2)
        for name in names:
            slow.listen(name, 1)
        slow.listen(last["revised"], 2)
        slow.catch_up()
        assert slow.heard(last["cancelled"]) == [], "an alert that was never sent needs no cancel"
        assert slow.heard(last["expired"]) == [], "an expired alert was sent"
        assert slow.heard(last["revised"]) == [2]
        assert len(slow.received) == len(names) + 1, "an alert was sent twice"
        bulky = sorted(len(frame) for frame in slow.frames)[2:]  # without the late and the revised alert
        assert bulky[0] >= BULKY_FRAME, "the alerts are smaller than the test needs"


def change_while_unread(node: Node, spot: Point) -> dict[str, str]:
    """Cancel one alert, revise another, and let a third expire. Return their ids."""
    cancelled, revised = alert(spot), alert(spot)
    for body in (cancelled, revised):
        node.publish(body)
    expired, _ = node.publish_brief(alert(spot), 2)
    node.cancel(cancelled["id"], 2)
    node.revise(revision_of(revised, 2))
    node.wait_for_end(expired["id"])
    return {"cancelled": cancelled["id"], "revised": revised["id"], "expired": expired["id"]}


@pytest.mark.slow
def test_connection_that_sends_nothing_for_60_s_is_aborted(waiting: Waiting):
    """Pings without answers do not keep the connection open (protocol, section 5)."""
    assert waiting.silent.wire.close_code() != 1000
    assert waiting.waited() >= SILENT_S - 1


@pytest.mark.slow
def test_connection_whose_client_stops_reading_is_closed_with_4420(waiting: Waiting):
    """The server closes the connection after 30 s.

    It tries to send the code, but a client that does not read may see 1006 (protocol, section 5).
    """
    with pytest.raises(Closed) as closed:
        waiting.unread.listen(waiting.published[-1], 1)
    assert closed.value.code in (4420, 1006)


def test_node_still_serves_after_all_tests_of_limits(node: Node):
    node.assert_serving()


def test_three_hundred_silent_connections_do_not_keep_a_subscriber_out(node: Node, join: Join):
    """Half of them have finished the handshake without sending `hello` (protocol, section 5)."""
    wires = [Wire(node.stream_port) for _ in range(BURST)]
    for wire in wires[::2]:
        wire.upgrade("geocast.v1.json")
    spot = ground()
    session = join(node, place(spot))
    session.listen(node.publish(alert(spot))["id"], 1)
    for wire in wires:
        wire.sock.close()


def test_hello_sent_byte_by_byte_is_accepted(node: Node, keys: Keys):
    hello = {"type": "hello", "places": [], "token": keys.token(sub="phone", scope=PHONE_SCOPE)}
    with Wire(node.stream_port) as wire:
        wire.upgrade("geocast.v1.json")
        for byte in frame(TEXT, encode("json", hello)):
            wire.sock.sendall(bytes([byte]))
        assert b'"welcome"' in wire.recv_data().payload


# -- too many connections

DESCRIPTORS = 1_000


@pytest.fixture
def narrow(keys: Keys, tmp_path: Path) -> Iterator[Node]:
    """Start a node that may open at most a thousand files."""
    node = Node(tmp_path, keys)
    node.launcher = ["sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$0" "$@"']
    with node:
        yield node


def test_oldest_connections_without_hello_are_closed_to_make_room_for_new_ones(narrow: Node, join: Join):
    """Connections without `hello` may use a tenth of the file descriptors; a subscriber can still join."""
    with contextlib.ExitStack() as open_wires:
        silent = [open_wires.enter_context(Wire(narrow.stream_port)) for _ in range(DESCRIPTORS // 5)]
        gone: list[bool] = []

        def have_gone() -> bool:
            gone[:] = [bool(select.select([wire.sock], [], [], 0)[0]) for wire in silent]
            return sum(gone) >= DESCRIPTORS // 10

        wait_until(have_gone, "the oldest connections are closed")  # checked before the other connections time out
        spot = ground()
        session = join(narrow, place(spot))
        session.listen(narrow.publish(alert(spot))["id"], 1)
        half = len(gone) // 2
        assert sum(gone[:half]) > sum(gone[half:]), "the connections accepted first are closed first"


def test_full_node_answers_503_and_keeps_serving_its_sessions(narrow: Node, join: Join):
    """The answer has `Retry-After`, and a session that leaves makes room (protocol, section 5, "Handshake")."""
    spot = ground()
    sessions: list[Session] = []
    with contextlib.ExitStack() as hung_up, kept_alive(sessions):
        while (answer := attempt(narrow)).status == 101:
            sessions.append(hung_up.enter_context(narrow.join(place(spot))))
            assert len(sessions) < DESCRIPTORS
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 0
        assert len(sessions) > DESCRIPTORS // 2
        name = narrow.publish(alert(spot))["id"]
        for session in sessions:
            session.listen(name, 1)
        assert sessions.pop().leave() == 1000
        wait_until(lambda: attempt(narrow).status == 101, "a new connection is accepted")


def test_node_without_free_descriptors_closes_new_connections_and_recovers(own_node: Node, join: Join):
    """The test lowers the node's limit of open files, so that `accept` fails with EMFILE."""
    spot = ground()
    session = join(own_node, place(spot))
    assert own_node.process
    descriptors = Path(f"/proc/{own_node.process.pid}/fd")
    least = len(list(descriptors.iterdir()))
    limits = resource.prlimit(own_node.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(own_node.process.pid, resource.RLIMIT_NOFILE, (least + 10, limits[1]))
    with contextlib.ExitStack() as open_wires:
        silent = [open_wires.enter_context(Wire(own_node.stream_port)) for _ in range(40)]
        wait_until(
            lambda: len(select.select([wire.sock for wire in silent], [], [], 0)[0]) >= 20,
            "the new connections are closed",
        )
    resource.prlimit(own_node.process.pid, resource.RLIMIT_NOFILE, limits)
    name = own_node.publish(alert(spot))["id"]
    session.listen(name, 1)
    join(own_node, place(spot)).listen(name, 1)


def attempt(node: Node) -> Answer:
    """Try the handshake, close the connection, and return the answer."""
    with Wire(node.stream_port) as wire:
        return wire.upgrade("geocast.v1.json")
