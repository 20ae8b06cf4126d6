"""The handshake: it is answered or refused, and each step before `hello` has a deadline.

Statuses are those of the protocol's section 5, "Connecting"; `test_refused_handshakes.py` tests them on a running node.
"""

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from stream.line import HEADERS, HELLO, Line, a_stream, close_frame, joined, opened, request

from geocast.model import close_codes
from geocast.stream import connection
from geocast.stream.connection import HEADERS_S, HELLO_S, LINGER_S, MAX_HEADERS_BYTES, RETRY_AFTER_S, SPARE
from geocast.wire.frames import WIRES

# ---- accepted handshakes -------------------------------------------------------------------------------------


def test_handshake_selects_the_first_known_subprotocol():
    """The accept value is that of the RFC's own example key (RFC 6455, 4.2.2)."""
    line = Line()
    line.ask(Sec_WebSocket_Protocol="soap, geocast.v1.msgpack, geocast.v1.json")
    status, headers, text = line.answer()
    assert (status, text) == (101, "")
    assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert headers["sec-websocket-protocol"] == "geocast.v1.msgpack"
    assert "sec-websocket-extensions" not in headers


@pytest.mark.parametrize("first", [wire.subprotocol for wire in WIRES])
def test_signed_stream_of_each_format_is_selected_if_preferred(first):
    """A client that can do without proofs offers both, the signed one first (S7)."""
    line = Line()
    line.ask(Sec_WebSocket_Protocol=", ".join([first, *(wire.subprotocol for wire in WIRES)]))
    assert line.answer()[1]["sec-websocket-protocol"] == first


ODD = st.sampled_from(["", "é", "\t", " x ", "a\r\nHost: b", "\x00", "x" * 9000, "websocket, x", "Upgrade", "0"])
FIELDS = {
    "Host": st.just("geocast.example") | ODD,
    "Connection": st.sampled_from(["Upgrade", "upgrade", "keep-alive, Upgrade", "close", "Upgrade, x"]) | ODD,
    "Upgrade": st.sampled_from(["websocket", "WebSocket", "h2c", "websocket/1"]) | ODD,
    "Sec-WebSocket-Version": st.sampled_from(["13", "8", "13, 8", " 13"]) | ODD,
    "Sec-WebSocket-Key": st.sampled_from(["dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZR==", "AAAA", "*" * 24])
    | ODD,
    "Sec-WebSocket-Protocol": st.sampled_from(["geocast.v1.json", "x ,geocast.v1.msgpack", "geocast.v1.json,", "a b"])
    | ODD,
    "Origin": st.sampled_from(["https://app.example", "https://evil.example", "null"]) | ODD,
    "Content-Length": st.sampled_from(["0", "5"]),
    "Transfer-Encoding": st.just("chunked"),
    "Sec-WebSocket-Extensions": st.just("permessage-deflate; client_max_window_bits") | ODD,
    "X-Forwarded-For": st.just("203.0.113.7") | ODD,
    "Bad Name": st.just("x"),
}


@st.composite
def _heads(draw):
    """Draw a head of a request: an ordinary one with a few fields that are changed, repeated or left out."""
    fields = list(HEADERS.items())
    for name in draw(st.lists(st.sampled_from(list(FIELDS)), max_size=3)):
        how = draw(st.sampled_from(["replace", "add", "remove"]))
        fields = [field for field in fields if how == "add" or field[0] != name]
        if how != "remove":
            fields.append((draw(st.sampled_from([name, name.lower(), name.upper()])), draw(FIELDS[name])))
    start = draw(
        st.sampled_from(["GET /v1/stream HTTP/1.1"] * 6 + ["GET /v1/stream?x HTTP/1.1", "GET /v1/stream HTTP/1.0"])
    )
    colon = draw(st.sampled_from([": ", ":", ":\t", " : "]))
    return "".join([f"{start}\r\n", *(f"{name}{colon}{value}\r\n" for name, value in fields), "\r\n"]).encode("latin-1")


@given(_heads())
def test_request_accepted_without_the_parser_is_accepted_by_the_parser_with_the_same_answer(head):
    """Rule 1 of stream/handshake.py: the module only accepts what the library accepts."""
    stream = a_stream(origins=["https://app.example"])
    quick = stream.accepted(head)
    stream.accepted = lambda _head: None
    line = Line(stream)
    line.say(head)
    if quick is not None:
        assert _without_date(bytes(line.transport.written)) == _without_date(quick[1])
    event(f"accepted: {quick is not None}")


def _without_date(answer):
    return [each for each in answer.split(b"\r\n") if not each.startswith(b"Date: ")]


@pytest.mark.parametrize("changes", [{}, {"Origin": "https://app.example"}, {"Connection": "keep-alive, Upgrade"}])
def test_ordinary_request_is_accepted_without_the_parser(changes):
    """The requests of the usual clients, also those of browsers behind a proxy, need no parser."""
    stream = a_stream(origins=["https://app.example"])
    assert stream.accepted(request(**changes, User_Agent="x", X_Forwarded_For="203.0.113.7"))


def test_handshake_that_arrives_byte_by_byte_is_accepted():
    """Nothing is answered before the last byte of the head."""
    line = Line()
    *most, last = (bytes([byte]) for byte in request())
    for byte in most:
        line.say(byte)
        assert not line.transport.written
    line.say(last)
    assert line.answer()[0] == 101


def test_hello_sent_together_with_the_handshake_is_accepted():
    """Bytes after the head of the request are the first message."""
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


# ---- refused handshakes --------------------------------------------------------------------------------------


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
def test_invalid_handshake_is_refused_with_the_documented_status(start, headers, status):
    """The end of the stream follows the refusal, and the peer has time to read it (S2)."""
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
def test_refused_handshake_has_the_header_that_http_requires_for_its_status(start, headers, name, value):
    """405 comes with Allow, and 426 with Upgrade (RFC 9110, 15.5.6 and 15.5.22)."""
    line = Line()
    line.ask(start, **headers)
    assert line.answer()[1][name] == value


def test_refused_handshake_repeats_nothing_of_the_request():
    """Errors never repeat a token (section 6)."""
    line = Line()
    line.ask("GET /v1/stream?token=secret HTTP/1.1", Authorization="Bearer secret")
    assert b"secret" not in line.transport.written


def test_listed_origin_is_accepted():
    """Every other Origin gets 403; no Origin is needed (S2)."""
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
def test_loopback_origin_is_accepted_if_configured(origin, status):
    """With `--dev` a page served from loopback may connect, but no name that only looks like it."""
    line = Line(loopback_origins=True)
    line.ask(Origin=origin)
    assert line.answer()[0] == status


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00", b"get /v1/stream HTTP/1.1\r\n", b"\x00"])
def test_connection_that_does_not_send_http_is_closed_without_an_answer(data):
    """A TLS client, for example, would not understand an answer."""
    line = Line()
    line.say(data)
    assert line.transport.closed
    assert not line.transport.written


def test_connection_with_endless_headers_is_closed_without_an_answer():
    """Headers may have MAX_HEADERS_BYTES."""
    line = Line()
    line.say(b"GET /v1/stream HTTP/1.1\r\nCookie: ")
    line.say(b"x" * MAX_HEADERS_BYTES)
    assert line.transport.closed
    assert not line.transport.written


# ---- a node with too many connections ------------------------------------------------------------------------


def test_full_node_answers_503_and_closes_the_connection_at_once():
    """The answer has Retry-After. Lingering, as after other refusals, would keep connections."""
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


def test_draining_node_answers_503_and_keeps_its_sessions():
    """Sessions stay open until the node closes them."""
    line = joined()
    line.stream.draining = True
    late = Line(line.stream)
    late.ask()
    assert late.answer()[0] == 503
    assert not line.transport.closed


def test_connection_is_dropped_if_the_reserve_for_refusals_is_used_up():
    """The node reads nothing from such connections (SPARE)."""
    stream = a_stream(capacity=1, unsaid=1000)
    lines = [Line(stream) for _ in range(1 + SPARE + 1)]
    assert [line.transport.aborted for line in lines] == [False] * (1 + SPARE) + [True]


def test_oldest_connection_without_hello_is_closed_for_newer_ones():
    """After the answer 101 the connection is closed with 1013; before, it is dropped.

    Sessions are never closed for newer connections.
    """
    stream = a_stream(unsaid=2)
    settled, silent, upgraded = joined(stream), Line(stream), opened(stream)
    Line(stream)
    assert silent.transport.aborted
    silent.lose()
    Line(stream)
    assert upgraded.hear() == [close_frame(close_codes.OVERLOADED)]
    assert not settled.transport.closed
    assert len(stream.unsaid) == 2


# ---- deadlines of the handshake ------------------------------------------------------------------------------


def test_connection_with_incomplete_headers_is_dropped_at_the_deadline():
    """The headers must be complete HEADERS_S after the connection was accepted, however often a byte arrives."""
    line = Line()
    line.say(b"GET /v1/stream ")
    line.pass_time(HEADERS_S - 0.1)
    line.say(b"HTTP/1.1\r\n")
    assert not line.transport.closed
    line.pass_time(0.1)
    assert line.transport.aborted
    assert not line.transport.written


def test_connection_without_hello_is_closed_at_the_deadline():
    """The `hello` must be complete HELLO_S after the answer 101, however much of it has arrived (4408)."""
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


def test_session_has_no_handshake_deadline():
    """After `hello`, only the heartbeat demands a sign of life (section 5)."""
    line = joined()
    line.pass_time(HEADERS_S + HELLO_S)
    assert not line.transport.closed
    assert line.stream.unsaid == {}


def test_websocket_parser_never_logs():
    """The library would log headers, and at DEBUG each frame, with tokens and places."""
    assert not connection._SILENT.isEnabledFor(50)
