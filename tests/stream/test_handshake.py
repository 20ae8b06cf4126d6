"""The way into the stream: a handshake is answered or refused, and each step before `hello` has a deadline.

Statuses are those of the protocol's section 5, "Connecting"; `test_refused_handshakes.py` asks them of a running node.
"""

import pytest
from stream.line import HELLO, Line, a_stream, close_frame, joined, opened, request

from geocast.model import close_codes
from geocast.stream import connection
from geocast.stream.connection import HEADERS_S, HELLO_S, LINGER_S, MAX_HEADERS_BYTES, RETRY_AFTER_S, SPARE
from geocast.wire.frames import WIRES

# ---- answered ------------------------------------------------------------------------------------------------


def test_a_handshake_is_answered_with_the_first_subprotocol_that_is_known():
    """RFC 6455, 4.2.2: the accept value is the one of the RFC's own example key."""
    line = Line()
    line.ask(Sec_WebSocket_Protocol="soap, geocast.v1.msgpack, geocast.v1.json")
    status, headers, text = line.answer()
    assert (status, text) == (101, "")
    assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert headers["sec-websocket-protocol"] == "geocast.v1.msgpack"
    assert "sec-websocket-extensions" not in headers


@pytest.mark.parametrize("first", [wire.subprotocol for wire in WIRES])
def test_each_format_has_a_signed_stream_too(first):
    """S7: whoever can do without proofs offers both, the signed one first."""
    line = Line()
    line.ask(Sec_WebSocket_Protocol=", ".join([first, *(wire.subprotocol for wire in WIRES)]))
    assert line.answer()[1]["sec-websocket-protocol"] == first


def test_a_handshake_may_come_byte_by_byte():
    """TCP has no messages: nothing is answered before the head's last byte."""
    line = Line()
    *most, last = (bytes([byte]) for byte in request())
    for byte in most:
        line.say(byte)
        assert not line.transport.written
    line.say(last)
    assert line.answer()[0] == 101


def test_a_client_need_not_wait_for_the_answer():
    """What follows the head in the same bytes is the first message."""
    whole = Line()
    whole.say(request() + _hello())
    assert whole.answer()[0] == 101
    assert whole.received() == ["welcome"]
    split = Line()
    hello = _hello()
    split.say(request() + hello[:9])
    assert split.answer()[0] == 101
    split.say(hello[9:])
    assert split.received() == ["welcome"]


def _hello():
    line = Line()
    said = []
    line.say = said.append
    line.tell(HELLO)
    return said[0]


# ---- refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "headers", "status"),
    [
        ("GET /v1/streams HTTP/1.1", {}, 404),
        ("GET / HTTP/1.1", {}, 404),
        ("GET /v1/stream?token=secret HTTP/1.1", {}, 400),
        ("POST /v1/stream HTTP/1.1", {}, 405),
        ("GET /v1/stream HTTP/1.1", {"Upgrade": None}, 426),
        ("GET /v1/stream HTTP/1.1", {"Connection": "close"}, 426),
        ("GET /v1/stream HTTP/1.1", {"Sec_WebSocket_Key": None}, 400),
        ("GET /v1/stream HTTP/1.1", {"Sec_WebSocket_Key": "short"}, 400),
        ("GET /v1/stream HTTP/1.1", {"Sec_WebSocket_Version": "8"}, 400),
        ("GET /v1/stream HTTP/1.1", {"Sec_WebSocket_Version": "13\r\nSec-WebSocket-Version: 13"}, 400),
        ("GET /v1/stream HTTP/1.1", {"Origin": "https://evil.example"}, 403),
        ("GET /v1/stream HTTP/1.1", {"Sec_WebSocket_Protocol": None}, 400),
        ("GET /v1/stream HTTP/1.1", {"Sec_WebSocket_Protocol": "geocast.v2.json"}, 400),
        ("GET /v1/stream HTTP/1.1", {"Sec_WebSocket_Protocol": "geocast v1,"}, 400),
    ],
)
def test_a_handshake_that_is_not_ours_is_refused(start, headers, status):
    """Section 5, connecting: a status that says why, then the end of the stream, and the peer has time to read it."""
    line = Line()
    line.ask(start, **headers)
    assert line.answer()[0] == status
    assert line.stream.refusals == {status: 1}
    assert line.transport.ended
    assert not line.transport.closed
    line.pass_time(LINGER_S)
    assert line.transport.aborted


@pytest.mark.parametrize(
    ("start", "headers", "name", "value"),
    [
        ("POST /v1/stream HTTP/1.1", {}, "allow", "GET"),
        ("GET /v1/stream HTTP/1.1", {"Upgrade": None}, "upgrade", "websocket"),
    ],
)
def test_a_refusal_says_what_would_do(start, headers, name, value):
    """RFC 9110: 405 comes with Allow (15.5.6), 426 with Upgrade (15.5.22)."""
    line = Line()
    line.ask(start, **headers)
    assert line.answer()[1][name] == value


def test_a_refusal_repeats_nothing_of_what_was_sent():
    """Section 6: errors never repeat a token."""
    line = Line()
    line.ask("GET /v1/stream?token=secret HTTP/1.1", Authorization="Bearer secret")
    assert b"secret" not in line.transport.written


def test_origins_that_are_listed_may_come_in():
    """Section 5, connecting: 403 for every other Origin, and none is needed."""
    stream = a_stream(origins=["https://app.example"])
    assert opened(stream).answer()[0] == 101
    listed = Line(stream)
    listed.ask(Origin="https://app.example")
    assert listed.answer()[0] == 101


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8000", 101),
        ("http://127.0.0.1", 101),
        ("http://[::1]:3000", 101),
        ("http://localhost.example", 403),
        ("http://10.0.0.1", 403),
        ("http://[::1", 403),
        ("null", 403),
    ],
)
def test_pages_of_this_machine_may_come_in_where_that_is_wanted(origin, status):
    """`--dev`: a page that is served from loopback, and nothing that only looks like it."""
    line = Line(loopback_origins=True)
    line.ask(Origin=origin)
    assert line.answer()[0] == status


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00", b"get /v1/stream HTTP/1.1\r\n", b"\x00"])
def test_what_is_no_http_is_closed_without_a_word(data):
    """A TLS client, say: no method begins so, and there is nobody who would understand an answer."""
    line = Line()
    line.say(data)
    assert line.transport.closed
    assert not line.transport.written


def test_headers_without_end_are_closed():
    """MAX_HEADERS_BYTES: nothing more of it is kept."""
    line = Line()
    line.say(b"GET /v1/stream HTTP/1.1\r\nCookie: ")
    line.say(b"x" * MAX_HEADERS_BYTES)
    assert line.transport.closed
    assert not line.transport.written


# ---- full ----------------------------------------------------------------------------------------------------


def test_a_full_node_says_so_and_hangs_up_at_once():
    """503 with Retry-After: it can't wait for each of them to close, as it does with every other refusal."""
    stream = a_stream(capacity=1)
    first = joined(stream)
    second = Line(stream)
    second.ask()
    status, headers, _ = second.answer()
    assert (status, headers["retry-after"]) == (503, str(RETRY_AFTER_S))
    assert second.transport.closed
    second.lose()
    first.lose()
    assert opened(stream).answer()[0] == 101


def test_a_draining_node_takes_nobody():
    """503 for newcomers; who is there stays until it is told to go."""
    line = joined()
    line.stream.draining = True
    late = Line(line.stream)
    late.ask()
    assert late.answer()[0] == 503
    assert not line.transport.closed


def test_beyond_the_spare_connections_nobody_is_answered():
    """SPARE: above them a connection is dropped before it has said anything."""
    stream = a_stream(capacity=1, unsaid=1000)
    lines = [Line(stream) for _ in range(1 + SPARE + 1)]
    assert [line.transport.aborted for line in lines] == [False] * (1 + SPARE) + [True]


def test_newcomers_push_out_the_oldest_that_has_not_said_hello():
    """1013 for who was answered, nothing for who was not; who has said hello is never pushed out."""
    stream = a_stream(unsaid=2)
    settled, silent, upgraded = joined(stream), Line(stream), opened(stream)
    Line(stream)
    assert silent.transport.aborted
    silent.lose()
    Line(stream)
    assert upgraded.hear() == [close_frame(close_codes.OVERLOADED)]
    assert not settled.transport.closed
    assert len(stream.unsaid) == 2


# ---- deadlines -----------------------------------------------------------------------------------------------


def test_headers_have_to_come_in_time():
    """HEADERS_S from accept, however often a byte comes."""
    line = Line()
    line.say(b"GET /v1/stream ")
    line.pass_time(HEADERS_S - 0.1)
    line.say(b"HTTP/1.1\r\n")
    assert not line.transport.closed
    line.pass_time(0.1)
    assert line.transport.aborted
    assert not line.transport.written


def test_hello_has_to_come_in_time():
    """4408: HELLO_S from the 101, whenever that was, and however much of it is there."""
    line = Line()
    line.pass_time(HEADERS_S - 1)
    line.ask()
    assert line.answer()[0] == 101
    line.say(_hello()[:-1])
    line.pass_time(HELLO_S - 0.1)
    assert line.hear() == []
    line.pass_time(0.1)
    assert line.hear() == [close_frame(close_codes.NO_HELLO)]
    assert line.stream.closes == {4408: 1}


def test_who_has_said_hello_has_no_deadline_of_these():
    """Section 5: only the heartbeat asks for a sign of life from then on."""
    line = joined()
    line.pass_time(HEADERS_S + HELLO_S)
    assert not line.transport.closed
    assert line.stream.unsaid == {}


def test_the_parser_never_logs():
    """The library would log headers, and at DEBUG each frame, with tokens and places."""
    assert not connection._SILENT.isEnabledFor(50)
