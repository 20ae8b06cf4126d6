"""Every kind of bad handshake gets its documented HTTP status, and of bad frame its close code (RFC 6455)."""

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from end_to_end.kit.alerts import Json
from end_to_end.kit.hello import HELLO_MAX, JSON, MESSAGE_MAX, MSGPACK, good_hello, upgraded
from end_to_end.kit.node import ORIGIN, Node
from end_to_end.kit.subscriber import FORMATS, Session
from end_to_end.kit.wire import (
    BINARY,
    CLOSE,
    CONT,
    DATA_OPCODE,
    PING,
    PONG,
    TEXT,
    Wire,
    handshake_key,
    request_bytes,
    upgrade_headers,
)

Join = Callable[..., Session]


@pytest.fixture
def wire(node: Node) -> Iterator[Wire]:
    """A bare connection to the stream listener."""
    with Wire(node.stream_port) as wire:
        yield wire


# ---- the handshake -----------------------------------------------------------------------------------------------


HANDSHAKES: list[tuple[str, int, str, str, dict[str, str | None]]] = [
    # what is wrong, status, method, target, changes to a good handshake's headers
    ("another path", 404, "GET", "/v1/streams", {}),
    ("a longer path", 404, "GET", "/v1/stream/", {}),
    ("another path before a query", 404, "GET", "/v2/stream?token=abc", {}),
    ("a token in the query", 400, "GET", "/v1/stream?token=abc", {}),
    ("a query before a method", 400, "DELETE", "/v1/stream?x=1", {}),
    ("POST", 405, "POST", "/v1/stream", {}),
    ("no upgrade at all", 426, "GET", "/v1/stream", {"Upgrade": None, "Connection": None}),
    ("no upgrade before an origin", 426, "GET", "/v1/stream", {"Upgrade": None, "Origin": "null"}),
    ("no key", 400, "GET", "/v1/stream", {"Sec-WebSocket-Key": None}),
    ("a short key", 400, "GET", "/v1/stream", {"Sec-WebSocket-Key": "c2hvcnQ="}),
    ("an old version", 400, "GET", "/v1/stream", {"Sec-WebSocket-Version": "8"}),
    ("a bad key before an origin", 400, "GET", "/v1/stream", {"Sec-WebSocket-Key": "*", "Origin": "null"}),
    ("a foreign origin", 403, "GET", "/v1/stream", {"Origin": "https://evil.example"}),
    ("the origin null", 403, "GET", "/v1/stream", {"Origin": "null"}),
    ("an origin with a slash", 403, "GET", "/v1/stream", {"Origin": f"{ORIGIN}/"}),
    ("an origin of another scheme", 403, "GET", "/v1/stream", {"Origin": ORIGIN.replace("https", "http")}),
    ("an origin of another port", 403, "GET", "/v1/stream", {"Origin": f"{ORIGIN}:8443"}),
    ("an origin that begins right", 403, "GET", "/v1/stream", {"Origin": f"{ORIGIN}.evil.example"}),
    ("an origin that ends right", 403, "GET", "/v1/stream", {"Origin": ORIGIN.replace("//", "//evil.")}),
    ("a loopback origin", 403, "GET", "/v1/stream", {"Origin": "http://127.0.0.1"}),
    (
        "an origin before no subprotocol",
        403,
        "GET",
        "/v1/stream",
        {"Origin": "null", "Sec-WebSocket-Protocol": None},
    ),
    ("no subprotocol", 400, "GET", "/v1/stream", {"Sec-WebSocket-Protocol": None}),
    ("an unknown subprotocol", 400, "GET", "/v1/stream", {"Sec-WebSocket-Protocol": "chat, soap"}),
    ("ours in capitals", 400, "GET", "/v1/stream", {"Sec-WebSocket-Protocol": "Geocast.V1.Json"}),
]


@pytest.mark.parametrize("case", HANDSHAKES, ids=lambda case: case[0])
def test_a_bad_handshake_is_refused(wire: Wire, case: tuple[str, int, str, str, dict[str, str | None]]):
    """Section 5, "Handshake": refusals, first that fits."""
    _, status, method, target, changes = case
    answer = wire.request(method, target, upgrade_headers(JSON) | changes)
    assert answer.status == status


CHOICES = [
    ((JSON,), JSON),
    ((MSGPACK,), MSGPACK),
    ((JSON, MSGPACK), JSON),
    ((MSGPACK, JSON), MSGPACK),
    (("chat", MSGPACK, JSON), MSGPACK),
    (("geocast.v2.json", JSON), JSON),
]


@pytest.mark.parametrize(("offered", "chosen"), CHOICES)
def test_the_first_known_subprotocol_is_taken(wire: Wire, offered: tuple[str, ...], chosen: str):
    """Section 5: in the client's order."""
    answer = wire.upgrade(*offered)
    assert answer.status == 101
    assert answer.headers["sec-websocket-protocol"] == chosen


GOOD_CHANGES = [
    {"Origin": ORIGIN},
    {"Authorization": "Bearer nonsense"},
    {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"},
    {"Connection": "keep-alive, Upgrade"},
    {"Upgrade": "WebSocket"},
    {"Cookie": "x=1"},
]


@pytest.mark.parametrize("changes", GOOD_CHANGES, ids=lambda changes: next(iter(changes)))
def test_what_does_no_harm_in_a_handshake(wire: Wire, changes: dict[str, str | None]):
    """Section 5: a listed `Origin`, an ignored `Authorization`, an offer of extensions (not taken)."""
    assert wire.upgrade(JSON, **changes).status == 101


TWICE: dict[str, tuple[list[str], set[int]]] = {
    "two keys": ([f"Sec-WebSocket-Key: {handshake_key()}"], {400}),
    "two versions": (["Sec-WebSocket-Version: 8"], {400}),
    "two origins": ([f"Origin: {ORIGIN}", "Origin: https://evil.example"], {400, 403}),
    "two lines of subprotocols": (["Sec-WebSocket-Protocol: chat"], {101}),
}


@pytest.mark.parametrize(("lines", "statuses"), TWICE.values(), ids=TWICE.keys())
def test_a_header_that_comes_twice(wire: Wire, lines: list[str], statuses: set[int]):
    """RFC 6455, section 4.1: only lists may come in several lines."""
    good = request_bytes("GET", "/v1/stream", upgrade_headers(JSON))
    more = "".join(f"{line}\r\n" for line in lines).encode()
    wire.sock.sendall(good[:-2] + more + b"\r\n")
    assert wire.read_answer().status in statuses


NOISE = {
    "HTTP/1.0": request_bytes("GET", "/v1/stream", upgrade_headers(JSON)).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a header without a colon": b"GET /v1/stream HTTP/1.1\r\nHost 127.0.0.1\r\n\r\n",
    "a header of 100 kB": b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    "a body": b"POST /v1/stream HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
}


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE.keys())
def test_what_is_no_request_is_refused_or_hung_up_on(wire: Wire, noise: bytes):
    """Section 5: bytes that are no HTTP request, or have a body, may be closed without an answer."""
    try:
        wire.sock.sendall(noise)
    except ConnectionError:
        return
    status = wire.read_answer().status
    assert status == 0 or status >= 400


def test_sockets_that_come_and_go_without_a_word_do_no_harm(node: Node):
    """A port scan is no attack."""
    for sent in (b"", b"G", b"GET /v1/stream HTTP/1.1\r\nHos"):
        with Wire(node.stream_port) as wire:
            wire.sock.sendall(sent)
    node.assert_serving()


# ---- frames ------------------------------------------------------------------------------------------------------


FRAMES: list[tuple[str, int, str, list[tuple[int, bytes, Json]]]] = [
    # what is wrong, close code, format, frames instead of a hello
    ("binary in the json format", 1003, "json", [(BINARY, b"{}", {})]),
    ("text in the msgpack format", 1003, "msgpack", [(TEXT, b"{}", {})]),
    ("an over-long binary", 1003, "json", [(BINARY, bytes(HELLO_MAX + 1), {})]),
    ("bad UTF-8", 1007, "json", [(TEXT, b'{"type":"\xff"}', {})]),
    ("bad UTF-8 in fragments", 1007, "json", [(TEXT, b'{"a":"\xc3', {"fin": False}), (CONT, b'"}', {})]),
    ("over-long", 1009, "json", [(TEXT, b"{" + b" " * HELLO_MAX, {})]),
    (
        "over-long in fragments",
        1009,
        "json",
        [(TEXT, b" " * HELLO_MAX, {"fin": False}), (CONT, b" ", {})],
    ),
    ("unmasked", 1002, "json", [(TEXT, b"{}", {"masked": False})]),
    ("reserved bit 1", 1002, "json", [(TEXT, b"{}", {"rsv": 4})]),
    ("reserved opcode 3", 1002, "json", [(3, b"{}", {})]),
    ("a fragmented ping", 1002, "json", [(PING, b"", {"fin": False})]),
    ("a continuation of nothing", 1002, "json", [(CONT, b"{}", {})]),
    ("half a close code", 1002, "json", [(CLOSE, b"\x03", {})]),
]


@pytest.mark.parametrize("case", FRAMES, ids=lambda case: case[0])
def test_a_bad_frame_ends_the_connection(node: Node, case: tuple[str, int, str, list[Any]]):
    """Section 5, the table of mistakes and "Close codes"; RFC 6455."""
    _, code, fmt, frames = case
    with upgraded(node, fmt) as wire:
        for opcode, payload, options in frames:
            wire.send(opcode, payload, **options)
        assert wire.close_code() == code


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_frame_that_announces_more_than_anyone_has_is_over_long(node: Node, fmt: str):
    """1009 comes before the bytes do: 2^62 of them are not waited for."""
    with upgraded(node, fmt) as wire:
        wire.sock.sendall(struct.pack("!BBQ", 0x80 | DATA_OPCODE[fmt], 0x80 | 127, 2**62))
        assert wire.close_code() == 1009


@pytest.mark.parametrize("fmt", FORMATS)
def test_fragments_and_pings_between_them_are_fine(node: Node, fmt: str):
    """Section 5, "Messages": fragmented messages are accepted."""
    hello = good_hello(node, fmt)
    with upgraded(node, fmt) as wire:
        wire.send(DATA_OPCODE[fmt], b"", fin=False)
        for start in range(0, len(hello), 40):
            wire.send(CONT, hello[start : start + 40], fin=False)
        wire.send(PING, b"between")
        wire.send(CONT, b"")
        assert wire.recv()[1] == b"between"
        assert wire.recv_data().opcode == DATA_OPCODE[fmt]


def test_a_hello_may_be_as_long_as_64_kib_and_others_16_kib(node: Node):
    """Section 5: a `hello` is at most 64 KiB, any other message 16 KiB."""
    with upgraded(node, "json") as wire:
        wire.send(TEXT, good_hello(node, "json").ljust(HELLO_MAX))
        assert json.loads(wire.recv_data().payload)["type"] == "welcome"
        wire.send(TEXT, b'{"type":"ping"}'.ljust(MESSAGE_MAX))
        assert json.loads(wire.recv_data().payload)["type"] == "pong"
        wire.send(TEXT, b'{"type":"ping"}'.ljust(MESSAGE_MAX + 1))
        assert wire.close_code() == 1009


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_ping_is_answered_and_a_close_is_echoed(node: Node, join: Join, fmt: str):
    """RFC 6455: pong with the same payload; 1000 is the client's own end."""
    session = join(node, fmt=fmt)
    session.wire.send(PING, b"are you there")
    assert session.wire.recv()[:2] == (0x80 | PONG, b"are you there")
    session.wire.send(PONG, b"unasked")
    assert session.leave() == 1000
