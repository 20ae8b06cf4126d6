"""Bad handshakes, which get the documented HTTP status, and bad frames, which get the close code of RFC 6455."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.kit.alerts import Json
from end_to_end.kit.hello import HELLO_MAX, JSON, MESSAGE_MAX, MSGPACK, good_hello, upgraded
from end_to_end.kit.keys import Keys
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
    """Open a bare connection to the stream listener."""
    with Wire(node.stream_port) as wire:
        yield wire


# ---- the handshake -----------------------------------------------------------------------------------------------


HANDSHAKES: list[tuple[str, int, str, str, dict[str, str | None]]] = [
    # mistake, status, method, target, changes to the headers of a good handshake
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
    ("a known subprotocol in capitals", 400, "GET", "/v1/stream", {"Sec-WebSocket-Protocol": "Geocast.V1.Json"}),
]


@pytest.mark.parametrize("case", HANDSHAKES, ids=lambda case: case[0])
def test_invalid_handshake_gets_the_status_of_its_first_mistake(
    wire: Wire, case: tuple[str, int, str, str, dict[str, str | None]]
):
    """The protocol has the order of the checks (section 5, "Handshake")."""
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
def test_first_known_subprotocol_of_the_clients_list_is_chosen(wire: Wire, offered: tuple[str, ...], chosen: str):
    """The order is that of the client (protocol, section 5)."""
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
def test_handshake_with_harmless_headers_is_accepted(wire: Wire, changes: dict[str, str | None]):
    """A listed `Origin` is accepted; `Authorization` and offered extensions are ignored (protocol, section 5)."""
    assert wire.upgrade(JSON, **changes).status == 101


TWICE: dict[str, tuple[list[str], set[int]]] = {
    "two keys": ([f"Sec-WebSocket-Key: {handshake_key()}"], {400}),
    "two versions": (["Sec-WebSocket-Version: 8"], {400}),
    "two origins": ([f"Origin: {ORIGIN}", "Origin: https://evil.example"], {400, 403}),
    "two lines of subprotocols": (["Sec-WebSocket-Protocol: chat"], {101}),
}


@pytest.mark.parametrize(("lines", "statuses"), TWICE.values(), ids=TWICE.keys())
def test_repeated_header_is_accepted_only_if_its_value_is_a_list(wire: Wire, lines: list[str], statuses: set[int]):
    """RFC 6455, section 4.1, allows several lines for list headers only."""
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
}


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE.keys())
def test_bytes_that_are_not_an_http_request_are_refused(wire: Wire, noise: bytes):
    """The server may close without an answer if the bytes are no HTTP request (S4)."""
    try:
        wire.sock.sendall(noise)
    except ConnectionError:
        return
    status = wire.read_answer().status
    assert status == 0 or status >= 400


@pytest.mark.parametrize(
    ("request_line", "status"),
    [("POST /v1/alerts", 404), ("POST /v1/stream?x=1", 400), ("POST /v1/stream", 405), ("GET /v1/stream", 400)],
)
def test_request_with_a_body_is_told_where_the_api_is(wire: Wire, request_line: str, status: int):
    """A publisher that took the port of the stream is told the right one (S2, S4)."""
    wire.sock.sendall(f"{request_line} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody".encode())
    answer = b"".join(iter(lambda: wire.sock.recv(4096), b""))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"--api" in answer or b"query" in answer


def test_refused_origins_are_logged_once_in_a_minute_and_not_repeated(tmp_path: Path, keys: Keys):
    """The operator who forgot `--origins` reads why a page can't connect (DP13)."""
    with Node(tmp_path, keys) as node:
        for _ in range(3):
            with Wire(node.stream_port) as wire:
                headers = upgrade_headers(JSON) | {"Origin": "https://evil.example"}
                wire.sock.sendall(request_bytes("GET", "/v1/stream", headers))
                assert wire.read_answer().status == 403
        said = node.output()
        assert said.count("--origins") == 1
        assert "evil" not in said


def test_node_survives_connections_that_send_nothing_or_half_a_request(node: Node):
    """A port scan sends requests like these."""
    for sent in (b"", b"G", b"GET /v1/stream HTTP/1.1\r\nHos"):
        with Wire(node.stream_port) as wire:
            wire.sock.sendall(sent)
    node.assert_serving()


# ---- frames ------------------------------------------------------------------------------------------------------


FRAMES: list[tuple[str, int, str, list[tuple[int, bytes, Json]]]] = [
    # mistake, close code, format, frames sent instead of a hello
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
    ("a continuation without a first frame", 1002, "json", [(CONT, b"{}", {})]),
    ("a close code of one byte", 1002, "json", [(CLOSE, b"\x03", {})]),
]


@pytest.mark.parametrize("case", FRAMES, ids=lambda case: case[0])
def test_invalid_frame_closes_the_connection_with_its_close_code(node: Node, case: tuple[str, int, str, list[Any]]):
    """The codes are those of the protocol, section 5, "Close codes", and of RFC 6455."""
    _, code, fmt, frames = case
    with upgraded(node, fmt) as wire:
        for opcode, payload, options in frames:
            wire.send(opcode, payload, **options)
        assert wire.close_code() == code


@pytest.mark.parametrize("fmt", FORMATS)
def test_frame_that_announces_2_to_the_62_bytes_is_closed_with_1009(node: Node, fmt: str):
    """The server closes without waiting for the announced bytes."""
    with upgraded(node, fmt) as wire:
        wire.sock.sendall(struct.pack("!BBQ", 0x80 | DATA_OPCODE[fmt], 0x80 | 127, 2**62))
        assert wire.close_code() == 1009


@pytest.mark.parametrize("fmt", FORMATS)
def test_fragmented_message_with_a_ping_in_between_is_accepted(node: Node, fmt: str):
    """The server accepts fragmented messages (protocol, section 5, "Messages")."""
    hello = good_hello(node, fmt)
    with upgraded(node, fmt) as wire:
        wire.send(DATA_OPCODE[fmt], b"", fin=False)
        for start in range(0, len(hello), 40):
            wire.send(CONT, hello[start : start + 40], fin=False)
        wire.send(PING, b"between")
        wire.send(CONT, b"")
        assert wire.recv()[1] == b"between"
        assert wire.recv_data().opcode == DATA_OPCODE[fmt]


def test_hello_may_have_64_kib_and_any_other_message_16_kib(node: Node):
    """A longer message is closed with 1009 (protocol, section 5)."""
    with upgraded(node, "json") as wire:
        wire.send(TEXT, good_hello(node, "json").ljust(HELLO_MAX))
        assert json.loads(wire.recv_data().payload)["type"] == "welcome"
        wire.send(TEXT, b'{"type":"ping"}'.ljust(MESSAGE_MAX))
        assert json.loads(wire.recv_data().payload)["type"] == "pong"
        wire.send(TEXT, b'{"type":"ping"}'.ljust(MESSAGE_MAX + 1))
        assert wire.close_code() == 1009


@pytest.mark.parametrize("fmt", FORMATS)
def test_ping_gets_a_pong_and_a_close_is_echoed(node: Node, join: Join, fmt: str):
    """The pong has the ping's payload, and code 1000 is the client's own close (RFC 6455)."""
    session = join(node, fmt=fmt)
    session.wire.send(PING, b"are you there")
    assert session.wire.recv()[:2] == (0x80 | PONG, b"are you there")
    session.wire.send(PONG, b"unasked")
    assert session.leave() == 1000
