"""Every bad handshake and every bad message gets its documented answer, and the node goes on serving.

Three layers, three sorts of tables: the HTTP upgrade (statuses), frames (RFC 6455 close codes), messages
(close codes 44xx, and `error`, after which the session goes on with nothing of the message applied).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
from end_to_end.kit.alerts import Json, alert, ground, new_id, place
from end_to_end.kit.keys import PHONE_SCOPE, Keys
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
    encode,
    handshake_key,
    request_bytes,
    upgrade_headers,
)
from websockets.sync.client import connect

Join = Callable[..., Session]
JSON, MSGPACK = "geocast.v1.json", "geocast.v1.msgpack"
HELLO_MAX, MESSAGE_MAX = 64 * 1024, 16 * 1024


@pytest.fixture
def wire(node: Node) -> Iterator[Wire]:
    """A bare connection to the stream listener."""
    with Wire(node.stream_port) as wire:
        yield wire


# -- the handshake

HANDSHAKES: list[tuple[str, int, str, str, dict[str, str | None]]] = [
    # what is wrong, status, method, target, changes to a good handshake's headers
    ("another path", 404, "GET", "/v1/streams", {}),
    ("the root", 404, "GET", "/", {}),
    ("a longer path", 404, "GET", "/v1/stream/", {}),
    ("a path in capitals", 404, "GET", "/v1/Stream", {}),
    ("the api's path", 404, "GET", "/v1/alerts", {}),
    ("another path before a query", 404, "GET", "/v2/stream?token=abc", {}),
    ("another path before a method", 404, "POST", "/v2/stream", {}),
    ("a token in the query", 400, "GET", "/v1/stream?token=abc", {}),
    ("any query", 400, "GET", "/v1/stream?x", {}),
    ("a query before a method", 400, "DELETE", "/v1/stream?x=1", {}),
    ("POST", 405, "POST", "/v1/stream", {}),
    ("HEAD", 405, "HEAD", "/v1/stream", {}),
    ("OPTIONS", 405, "OPTIONS", "/v1/stream", {}),
    ("a method before no upgrade", 405, "DELETE", "/v1/stream", {"Upgrade": None}),
    ("no upgrade at all", 426, "GET", "/v1/stream", {"Upgrade": None, "Connection": None}),
    ("another upgrade", 426, "GET", "/v1/stream", {"Upgrade": "h2c"}),
    ("no upgrade before an origin", 426, "GET", "/v1/stream", {"Upgrade": None, "Origin": "null"}),
    ("no key", 400, "GET", "/v1/stream", {"Sec-WebSocket-Key": None}),
    ("an empty key", 400, "GET", "/v1/stream", {"Sec-WebSocket-Key": ""}),
    ("a short key", 400, "GET", "/v1/stream", {"Sec-WebSocket-Key": "c2hvcnQ="}),
    ("a key that is not base64", 400, "GET", "/v1/stream", {"Sec-WebSocket-Key": "*" * 24}),
    ("no version", 400, "GET", "/v1/stream", {"Sec-WebSocket-Version": None}),
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
    ("another version of ours", 400, "GET", "/v1/stream", {"Sec-WebSocket-Protocol": "geocast.v2.json"}),
    ("ours in capitals", 400, "GET", "/v1/stream", {"Sec-WebSocket-Protocol": "Geocast.V1.Json"}),
    ("half of ours", 400, "GET", "/v1/stream", {"Sec-WebSocket-Protocol": "geocast.v1"}),
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
    "line noise": b"\x00\x01\x02\x03\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /v1/stream\r\n\r\n",
    "a header without a colon": b"GET /v1/stream HTTP/1.1\r\nHost 127.0.0.1\r\n\r\n",
    "a header of 100 kB": b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    "a thousand headers": b"GET /v1/stream HTTP/1.1\r\n" + b"X: y\r\n" * 1_000 + b"\r\n",
    "a folded header": b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    "a body": b"POST /v1/stream HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
    "a line that never ends": b"G" * 100_000,
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


# -- frames


def upgraded(node: Node, fmt: str) -> Wire:
    """A connection right after the 101."""
    wire = Wire(node.stream_port)
    assert wire.upgrade(f"geocast.v1.{fmt}").status == 101
    return wire


def good_hello(node: Node, fmt: str) -> bytes:
    """A hello that would be welcomed."""
    token = node.keys.token(sub="phone", scope=PHONE_SCOPE)
    return encode(fmt, {"type": "hello", "places": [], "token": token})


FRAMES: list[tuple[str, int, str, list[tuple[int, bytes, Json]]]] = [
    # what is wrong, close code, format, frames instead of a hello
    ("binary in the json format", 1003, "json", [(BINARY, b"{}", {})]),
    ("text in the msgpack format", 1003, "msgpack", [(TEXT, b"{}", {})]),
    ("binary in fragments", 1003, "json", [(BINARY, b"{", {"fin": False}), (CONT, b"}", {})]),
    ("an empty binary", 1003, "json", [(BINARY, b"", {})]),
    ("an over-long binary", 1003, "json", [(BINARY, bytes(HELLO_MAX + 1), {})]),
    ("bad UTF-8", 1007, "json", [(TEXT, b'{"type":"\xff"}', {})]),
    ("a surrogate in UTF-8", 1007, "json", [(TEXT, b'{"type":"\xed\xa0\x80"}', {})]),
    ("UTF-8 cut off", 1007, "json", [(TEXT, b'{"type":"\xc3', {})]),
    ("bad UTF-8 in fragments", 1007, "json", [(TEXT, b'{"a":"\xc3', {"fin": False}), (CONT, b'"}', {})]),
    ("over-long", 1009, "json", [(TEXT, b"{" + b" " * HELLO_MAX, {})]),
    ("over-long msgpack", 1009, "msgpack", [(BINARY, bytes(HELLO_MAX + 1), {})]),
    ("over-long by far", 1009, "json", [(TEXT, b" " * 1_000_000, {})]),
    (
        "over-long in fragments",
        1009,
        "json",
        [(TEXT, b" " * HELLO_MAX, {"fin": False}), (CONT, b" ", {})],
    ),
    ("unmasked", 1002, "json", [(TEXT, b"{}", {"masked": False})]),
    ("reserved bit 1", 1002, "json", [(TEXT, b"{}", {"rsv": 4})]),
    ("reserved bit 2", 1002, "msgpack", [(BINARY, b"\x80", {"rsv": 2})]),
    ("reserved bit 3", 1002, "json", [(TEXT, b"{}", {"rsv": 1})]),
    ("reserved opcode 3", 1002, "json", [(3, b"{}", {})]),
    ("reserved opcode 11", 1002, "msgpack", [(11, b"", {})]),
    ("a fragmented ping", 1002, "json", [(PING, b"", {"fin": False})]),
    ("a long ping", 1002, "json", [(PING, bytes(126), {})]),
    ("a continuation of nothing", 1002, "json", [(CONT, b"{}", {})]),
    ("a message inside a message", 1002, "json", [(TEXT, b"{", {"fin": False}), (TEXT, b"}", {})]),
    ("half a close code", 1002, "json", [(CLOSE, b"\x03", {})]),
    ("close code 1005", 1002, "json", [(CLOSE, struct.pack("!H", 1005), {})]),
    ("close code 999", 1002, "json", [(CLOSE, struct.pack("!H", 999), {})]),
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


# -- the first message


def raw_json(text: str) -> list[tuple[str, bytes]]:
    return [("json", text.encode())]


def both(message: Any) -> list[tuple[str, bytes]]:
    """A message in each format."""
    return [(fmt, encode(fmt, message)) for fmt in FORMATS]


def nested(depth: int) -> Any:
    """A list so many levels deep."""
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


DUPLICATE_KEYS = b"\x83\xa4type\xa4ping\xa4type\xa4ping\xa3ref\x01"
NOT_STRICT: dict[str, list[tuple[str, bytes]]] = {
    "nothing": [*raw_json(""), ("msgpack", b"")],
    "a list": both([]),
    "a text": both("hello"),
    "a number": both(7),
    "null": both(None),
    "no type": both({"places": []}),
    "a type that is a number": both({"type": 7}),
    "a type that is null": both({"type": None}),
    "cut off": [("json", b'{"type":"ping"'), ("msgpack", b"\x81\xa4type\xa4pin")],
    "more behind it": [("json", b'{"type":"ping"} {}'), ("msgpack", b"\x81\xa4type\xa4ping\x80")],
    "duplicate keys": [
        ("json", b'{"type":"ping","type":"ping"}'),
        ("msgpack", DUPLICATE_KEYS),
        ("json", b'{"type":"ping","ref":[{"a":1,"a":1}]}'),
    ],
    "not a number": [
        ("json", b'{"type":"ping","ref":NaN}'),
        ("msgpack", msgpack.packb({"type": "ping", "ref": float("nan")})),
    ],
    "infinity, which json does not have": raw_json('{"type":"ping","ref":Infinity}'),
    "too deep": both({"type": "ping", "ref": nested(32)}),
    "far too deep": [("json", b'{"type":' + b"[" * 5_000), ("msgpack", b"\x91" * 5_000)],
    "a byte-order mark": raw_json('\ufeff{"type":"ping"}'),
    "single quotes": raw_json("{'type':'ping'}"),
    "a raw line feed in a text": raw_json('{"type":"pi\nng"}'),
    "a trailing comma": raw_json('{"type":"ping",}'),
    "a key that is bin": [("msgpack", b"\x81\xc4\x04type\xa4ping")],
    "a text that is bin": [("msgpack", b"\x81\xa4type\xc4\x04ping")],
    "a key that is a number": [("msgpack", b"\x82\xa4type\xa4ping\x01\x02")],
    "an ext type": [("msgpack", b"\x82\xa4type\xa4ping\xa3ref\xd4\x05\x00")],
    "a timestamp": [("msgpack", b"\x82\xa4type\xa4ping\xa3ref\xd6\xff\x00\x00\x00\x00")],
    "a str that is no UTF-8": [("msgpack", b"\x81\xa4type\xa4pin\xff")],
    "the byte that msgpack never uses": [("msgpack", b"\xc1")],
    "a map that announces 2^32 pairs": [("msgpack", b"\xdf\xff\xff\xff\xff")],
}
NOT_STRICT_CASES = [
    pytest.param(fmt, payload, id=f"{name}-{i}-{fmt}")
    for name, cases in NOT_STRICT.items()
    for i, (fmt, payload) in enumerate(cases)
]


@pytest.mark.parametrize(("fmt", "payload"), NOT_STRICT_CASES)
def test_a_first_message_that_is_not_strict_is_closed_with_4400(node: Node, fmt: str, payload: bytes):
    """Section 5: not strict JSON or MessagePack, not a map, no string `type`."""
    with upgraded(node, fmt) as wire:
        wire.send(DATA_OPCODE[fmt], payload)
        assert wire.close_code() == 4400


@pytest.mark.parametrize(("fmt", "payload"), NOT_STRICT_CASES)
def test_a_later_message_that_is_not_strict_is_closed_with_4400(node: Node, join: Join, fmt: str, payload: bytes):
    """Section 5: the same in a session that has been welcomed."""
    session = join(node, fmt=fmt)
    session.wire.send(DATA_OPCODE[fmt], payload)
    assert session.wire.close_code() == 4400


HERE = {"lat": 1, "lng": 1}
TEXT_OF_65 = "x" * 65
BAD_PLACES: dict[str, Any] = {
    "not a list": HERE,
    "null": None,
    "a text": "here",
    "nine": [HERE] * 9,
    "not a map": [7],
    "an empty place": [{}],
    "no lng": [{"lat": 1}],
    "no lat": [{"lng": 1}],
    "lat beyond": [{"lat": 90.001, "lng": 1}],
    "lng beyond": [{"lat": 1, "lng": -180.001}],
    "lat is text": [{"lat": "1", "lng": 1}],
    "lat is a boolean": [{"lat": True, "lng": 1}],
    "lng is null": [{"lat": 1, "lng": None}],
    "lng is a list": [{"lat": 1, "lng": [1]}],
    "a name": [HERE | {"name": "home"}],
    "accuracy beyond": [HERE | {"accuracy_m": 2_000.5}],
    "accuracy negative": [HERE | {"accuracy_m": -1}],
    "accuracy is text": [HERE | {"accuracy_m": "5"}],
    "accuracy is null": [HERE | {"accuracy_m": None}],
    "accuracy is a boolean": [HERE | {"accuracy_m": True}],
    "a cell and a point": [HERE | {"cell": "8928308280fffff"}],
    "a cell and an accuracy": [{"cell": "8928308280fffff", "accuracy_m": 1}],
    "a cell in capitals": [{"cell": "8928308280FFFFF"}],
    "a cell with a prefix": [{"cell": "0x8928308280fffff"}],
    "a cell of 14 digits": [{"cell": "8928308280ffff"}],
    "a cell that is none": [{"cell": "f" * 15}],
    "a cell that H3 does not have": [{"cell": "892830828ffffff"}],
    "a cell of resolution 6": [{"cell": "862830827ffffff"}],
    "a cell that is a number": [{"cell": 617700169958293503}],
    "a cell that is null": [{"cell": None}],
    "the second of two": [HERE, {"lat": 91, "lng": 1}],
}
BAD_FILTERS: dict[str, Json] = {
    "categories is text": {"categories": "burglary"},
    "a category that is a number": {"categories": [7]},
    "a category in capitals": {"categories": ["Burglary"]},
    "an empty category": {"categories": [""]},
    "a category of 65": {"categories": [TEXT_OF_65]},
    "a category with a space": {"categories": ["a b"]},
    "65 categories": {"categories": [f"c{i}" for i in range(65)]},
    "an unknown severity": {"min_severity": "unknown"},
    "a severity in capitals": {"min_severity": "Minor"},
    "a severity that is a number": {"min_severity": 1},
    "a severity in a list": {"min_severity": ["minor"]},
    "languages is text": {"languages": "en"},
    "a language that is a number": {"languages": [7]},
    "an empty language": {"languages": [""]},
    "a language of one letter": {"languages": ["e"]},
    "a language with an underscore": {"languages": ["en_CA"]},
    "a language that ends in a line feed": {"languages": ["en\n"]},
    "a language of five parts": {"languages": ["en-aa-bb-cc-dd"]},
    "a language in another script": {"languages": ["ｅｎ"]},
    "9 languages": {"languages": ["en"] * 9},
}
BAD_HOLDINGS: dict[str, Any] = {
    "a list": [["a", 1]],
    "null": None,
    "revision 0": {"a": 0},
    "revision 2^31": {"a": 2**31},
    "revision is text": {"a": "1"},
    "revision is a float": {"a": 1.5},
    "revision is a boolean": {"a": True},
    "revision is null": {"a": None},
    "an empty id": {"": 1},
    "an id with a space": {"a b": 1},
    "an id of 129": {"x" * 129: 1},
    "257 of them": {f"a{i}": 1 for i in range(257)},
}
BAD_HELLOS: dict[str, Json] = {
    "no places": {"places": ...},
    "an unknown field": {"lang": "en"},
    "a ref": {"ref": 1},
    "a token that is a number": {"token": 7},
    "a token that is null": {"token": None},
    "filter categories null": {"categories": None},
    "filter severity null": {"min_severity": None},
    "filter languages null": {"languages": None},
    **{f"places: {name}": {"places": places} for name, places in BAD_PLACES.items()},
    **{f"holding: {name}": {"holding": holding} for name, holding in BAD_HOLDINGS.items()},
    **{f"filter: {name}": fields for name, fields in BAD_FILTERS.items()},
}


def without_dots(fields: Json) -> Json:
    """Fields, less those whose value is `...`."""
    return {name: value for name, value in fields.items() if value is not ...}


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("change", BAD_HELLOS.values(), ids=BAD_HELLOS.keys())
def test_a_hello_that_is_not_well_formed_is_closed_with_4400(node: Node, keys: Keys, change: Json, fmt: str):
    """Section 5: shape is checked before the token."""
    for token in (keys.token(scope=PHONE_SCOPE), "no token at all"):
        hello = without_dots({"type": "hello", "places": [], "token": token} | change)
        with upgraded(node, fmt) as wire:
            wire.send(DATA_OPCODE[fmt], encode(fmt, hello))
            assert wire.close_code() == 4400


FIRST_WORDS: list[Json] = [
    {"type": "ping"},
    {"type": "move", "places": []},
    {"type": "filter", "min_severity": "minor"},
    {"type": "ack", "id": "a", "revision": 1},
    {"type": "token", "token": "x"},
    {"type": "welcome"},
    {"type": "Hello", "places": []},
    {"type": ""},
]


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("message", FIRST_WORDS, ids=lambda message: message["type"])
def test_whatever_comes_before_hello_is_closed_with_4400(node: Node, message: Json, fmt: str):
    """Section 5: first message not a well-formed `hello`."""
    with upgraded(node, fmt) as wire:
        wire.send(DATA_OPCODE[fmt], encode(fmt, message))
        assert wire.close_code() == 4400


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_second_hello_is_closed_with_4400(node: Node, join: Join, fmt: str):
    """Section 5: `hello` is said once."""
    session = join(node, fmt=fmt)
    session.wire.send(DATA_OPCODE[fmt], good_hello(node, fmt))
    assert session.wire.close_code() == 4400


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_hello_without_a_good_token_is_closed_with_4401(node: Node, keys: Keys, fmt: str):
    """Sections 5 and 6: missing, or anything wrong with it."""
    for name, token in {"missing": ..., "empty": "", **keys.bad_tokens()}.items():
        hello = without_dots({"type": "hello", "places": [], "token": token})
        with upgraded(node, fmt) as wire:
            wire.send(DATA_OPCODE[fmt], encode(fmt, hello))
            assert wire.close_code() == 4401, name


@pytest.mark.parametrize("scope", [None, "", "alerts:publish alerts:manage alerts:test", "alerts:receive2"])
def test_a_good_token_without_the_scope_to_receive_is_closed_with_4403(node: Node, keys: Keys, scope: str | None):
    """Section 5: 4403, not 4401."""
    hello = {"type": "hello", "places": [], "token": keys.token(scope=scope)}
    with upgraded(node, "json") as wire:
        wire.send(TEXT, encode("json", hello))
        assert wire.close_code() == 4403


# -- later messages

BAD_REFS: dict[str, Any] = {
    "empty": "",
    "65 characters": TEXT_OF_65,
    "negative": -1,
    "2^53": 2**53,
    "a float": 1.5,
    "a boolean": True,
    "null": None,
    "a list": [],
}
BAD_MESSAGES: dict[str, Json] = {
    "move: nothing": {"type": "move"},
    "move: an unknown field": {"type": "move", "places": [], "to": 1},
    "filter: a field misspelt": {"type": "filter", "category": "burglary"},
    "filter: an unknown field": {"type": "filter", "min_severity": "minor", "places": []},
    "token: nothing": {"type": "token"},
    "token: a number": {"type": "token", "token": 7},
    "token: null": {"type": "token", "token": None},
    "token: an unknown field": {"type": "token", "token": "x", "sub": "phone"},
    "ack: nothing": {"type": "ack"},
    "ack: no revision": {"type": "ack", "id": "a"},
    "ack: no id": {"type": "ack", "revision": 1},
    "ack: an id that is none": {"type": "ack", "id": "a b", "revision": 1},
    "ack: revision 0": {"type": "ack", "id": "a", "revision": 0},
    "ack: revision is a float": {"type": "ack", "id": "a", "revision": 1.0},
    "ack: revision is a boolean": {"type": "ack", "id": "a", "revision": True},
    "ack: revision is text": {"type": "ack", "id": "a", "revision": "1"},
    "ping: an unknown field": {"type": "ping", "now": 1},
    **{f"move: {name}": {"type": "move", "places": places} for name, places in BAD_PLACES.items()},
    **{f"filter: {name}": {"type": "filter", **fields} for name, fields in BAD_FILTERS.items()},
    **{f"ref: {name}": {"type": "ping", "ref": ref} for name, ref in BAD_REFS.items()},
}
NO_REF = ("ref", "ack")


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_bad_field_is_an_error_and_the_session_goes_on(node: Node, join: Join, fmt: str):
    """Section 5: `error` `bad-field`, with the `ref` if one was given; nothing of it is applied."""
    session = join(node, place(ground()), fmt=fmt)
    for i, (name, message) in enumerate(BAD_MESSAGES.items()):
        ref = {} if name.startswith(NO_REF) else {"ref": f"no {i}"}
        session.say(message | ref)
        answer = session.take()
        assert (answer["type"], answer["code"]) == ("error", "bad-field"), name
        assert ref.items() <= answer.items(), name
        assert answer["detail"]
    assert session.ask("ping")["type"] == "pong"


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("kind", ["Move", "subscribe", "alert", "welcome", "", "mo\u0000ve", "x" * 1_000])
def test_an_unknown_type_is_an_error_and_the_session_goes_on(node: Node, join: Join, kind: str, fmt: str):
    """Section 5: `error` `unknown-type`, whatever its fields."""
    session = join(node, fmt=fmt)
    session.say({"type": kind, "ref": "r", "what": {"ever": [1, None]}})
    answer = session.take()
    assert (answer["type"], answer["code"], answer["ref"]) == ("error", "unknown-type", "r")
    assert session.ask("ping")["type"] == "pong"


STRANGE_NUMBERS = [
    '{"type":"move","places":[{"lat":1e999,"lng":1}]}',
    '{"type":"move","places":[{"lat":1,"lng":-1e999}]}',
    '{"type":"move","places":[{"lat":1' + "0" * 400 + ',"lng":1}]}',
    '{"type":"move","places":[{"lat":' + "9" * 5_000 + ',"lng":1}]}',
    '{"type":"ack","id":"a","revision":1e999}',
    '{"type":"ack","id":"a","revision":' + "9" * 5_000 + "}",
    '{"type":"ack","id":"\\ud800","revision":1}',
    '{"type":"filter","categories":["\\ud800"]}',
    '{"type":"ping","ref":"\\ud800"}',
    '{"type":"ping","ref":1e999}',
]


def test_a_value_that_json_allows_and_no_field_does_is_a_bad_field(node: Node, join: Join):
    """Section 5, "JSON as strict as in section 2": 422 there, `bad-field` here."""
    session = join(node)
    for text in STRANGE_NUMBERS:
        session.wire.send(TEXT, text.encode())
        answer = session.take()
        assert (answer["type"], answer["code"]) == ("error", "bad-field"), text[:80]
    assert session.ask("ping")["type"] == "pong"


def test_msgpack_numbers_of_any_kind_are_numbers_and_infinity_is_none(node: Node, join: Join):
    """Section 5: where a number is expected any int or float will do."""
    session = join(node, fmt="msgpack")
    for lat in (1, -1, 1.5, 0, -0.0):
        session.move({"lat": lat, "lng": 1, "accuracy_m": 5})
    session.wire.send(BINARY, b"\x82\xa4type\xa4move\xa6places\x91\x82\xa3lat\xca\x3f\x80\x00\x00\xa3lng\x01")
    assert session.take()["type"] == "ok", "a float 32"
    session.say({"type": "move", "places": [{"lat": float("inf"), "lng": 1}]})
    answer = session.take()
    assert (answer["type"], answer["code"]) == ("error", "bad-field")


@pytest.mark.parametrize("ref", ["x", "x" * 64, "é\u4e16\U0001f30d", 0, 1, 2**31, 2**53 - 1])
@pytest.mark.parametrize("fmt", FORMATS)
def test_a_ref_comes_back_unchanged(node: Node, join: Join, ref: str | int, fmt: str):
    """Section 5: a string of 1 to 64 characters or an integer from 0 to 2^53-1."""
    session = join(node, fmt=fmt)
    session.say({"type": "ping", "ref": ref})
    answer = session.take()
    assert (answer["type"], answer["ref"], type(answer["ref"])) == ("pong", ref, type(ref))
    session.say({"type": "move", "places": [], "ref": ref})
    assert session.take() == {"type": "ok", "live": 0, "ref": ref}


def test_nothing_of_a_bad_move_is_applied(node: Node, join: Join):
    """Section 5: one bad place among good ones, and the session stays where it was."""
    here, there = ground(), ground()
    session = join(node, place(here))
    session.say({"type": "move", "places": [place(there), {"lat": 91, "lng": 0}]})
    assert session.take()["code"] == "bad-field"
    session.say({"type": "filter", "categories": ["shooting"], "min_severity": "worst"})
    assert session.take()["code"] == "bad-field"
    away, near = node.publish(alert(there))["id"], node.publish(alert(here))["id"]
    session.listen(near, 1)
    session.catch_up()
    assert session.everything() == [(near, 1)]
    assert session.heard(away) == []


def test_a_fresh_token_that_is_bad_ends_the_session(node: Node, join: Join, keys: Keys):
    """Section 5: 4401 for a bad one and for another `sub`; 4403 without the scope to receive."""
    bad = {
        "of another sub": (keys.token(sub="somebody-else", scope=PHONE_SCOPE), 4401),
        "without the scope": (keys.token(sub="phone", scope="alerts:test"), 4403),
        **{name: (token, 4401) for name, token in keys.bad_tokens().items()},
    }
    for name, (token, code) in bad.items():
        session = join(node)
        session.say({"type": "token", "token": token})
        assert session.wire.close_code() == code, name


@pytest.mark.parametrize("fmt", FORMATS)
def test_an_ack_of_anything_is_taken_without_an_answer(node: Node, join: Join, fmt: str):
    """Section 5, `ack`: else nothing happens."""
    session = join(node, fmt=fmt)
    session.ack(new_id(), 1)
    session.ack("x" * 128, 2**31 - 1)
    session.say({"type": "ping"})
    assert session.take()["type"] == "pong"


# -- good sessions


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_welcome_says_what_a_client_needs(node: Node, join: Join, fmt: str):
    """Section 5, `welcome`; and each session has a name of its own."""
    first, second = join(node, fmt=fmt), join(node, fmt=fmt)
    welcome = first.welcome
    assert welcome["live"] == 0
    assert welcome["heartbeat_s"] == 25
    assert 0 < welcome["retry"]["min_ms"] < welcome["retry"]["max_ms"]
    assert welcome["now"].endswith("Z")
    assert welcome["token_expires_at"].endswith("Z")
    assert first.welcome["session"] != second.welcome["session"]


@pytest.mark.parametrize("protocol", [JSON, MSGPACK])
def test_a_stock_websocket_client_gets_its_alert(node: Node, keys: Keys, protocol: str):
    """Section 5 needs nothing but RFC 6455: an ordinary library in its default settings."""
    fmt, spot = protocol.rsplit(".", 1)[1], ground()
    alert_id = node.publish(alert(spot))["id"]
    url = f"ws://127.0.0.1:{node.stream_port}/v1/stream"
    token = keys.token(scope=PHONE_SCOPE)
    with connect(url, subprotocols=[protocol], proxy=None) as websocket:
        websocket.send(encode(fmt, {"type": "hello", "token": token, "places": [place(spot)]}), text=fmt == "json")
        load = json.loads if fmt == "json" else msgpack.unpackb
        kinds = [load(websocket.recv()) for _ in range(2)]
    assert [message["type"] for message in kinds] == ["welcome", "alert"]
    assert kinds[1]["alert"]["id"] == alert_id


def test_eight_places_of_every_kind_are_welcome(node: Node, join: Join):
    """Section 5: 0 to 8 places; edges of the ranges included."""
    session = join(
        node,
        {"lat": 90, "lng": 180},
        {"lat": -90, "lng": -180},
        {"lat": 0, "lng": 0, "accuracy_m": 0},
        {"lat": 1.5, "lng": -1.5, "accuracy_m": 2_000},
        {"cell": "872830828ffffff"},
        {"cell": "8f2830828052d25"},
        {"lat": -0.0, "lng": 179.999999999},
        {"lat": 1e-300, "lng": 5e-324},
    )
    assert session.move(*session.places)["live"] == 0


def test_a_full_hello_is_welcome(node: Node, join: Join):
    """Section 5: 256 held alerts, 64 categories."""
    holding = {f"{'h' * 124}.{i:03}": 2**31 - 1 for i in range(256)}
    categories = [f"c_{i}" for i in range(64)]
    session = join(node, holding=holding, categories=categories, min_severity="minor")
    assert session.welcome["live"] == 0


def test_the_node_goes_on_serving_after_all_of_this(node: Node):
    """A good alert still reaches a good session."""
    node.assert_serving()


def test_two_hundred_bad_sockets_at_once_do_not_keep_a_good_one_out(node: Node, join: Join):
    """A crowd that misbehaves in every way, and a subscriber among them."""
    crowd = [upgraded(node, FORMATS[i % 2]) for i in range(200)]
    spot = ground()
    session = join(node, place(spot))
    for i, wire in enumerate(crowd):
        payload = [b"", b"{", b"\xff", b'{"type":"ping"}'][i % 4]
        wire.send([TEXT, BINARY][i // 2 % 2], payload)
    session.listen(node.publish(alert(spot))["id"], 1)
    for wire in crowd:
        assert wire.close_code() in (1003, 1007, 4400)
        wire.sock.close()
