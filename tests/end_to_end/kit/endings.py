"""Every way in which a client can end a connection of the stream listener, with the result that the client observes.

An ending is a function of a `Door`. It connects, and at the end of the connection returns the HTTP status or the close
code that arrived, or 0 if none did.
"""

import contextlib
import json
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from end_to_end.kit.alerts import Json
from end_to_end.kit.keys import PHONE_SCOPE, Keys
from end_to_end.kit.wire import BINARY, CLOSE, CONT, PING, TEXT, Wire, frame, request_bytes, upgrade_headers
from support.flipping import respelled

JSON = "geocast.v1.json"
HOLDING = {f"unknown-{number}": number for number in range(1, 9)}


@dataclass
class Door:
    """A stream listener and the keys of its tokens."""

    port: int
    keys: Keys
    token: str = field(init=False)
    too_weak: str = field(init=False)

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Sign new tokens, because a soak test may last longer than a token."""
        self.token = self.keys.token(sub="phone", scope=PHONE_SCOPE)
        self.too_weak = self.keys.token(sub="phone", scope="alerts:publish")

    def upgraded(self) -> Wire:
        """Return a connection right after its 101 answer."""
        wire = Wire(self.port)
        assert wire.upgrade(JSON).status == 101
        return wire

    def welcomed(self, **fields: Any) -> Wire:
        """Return a connection after its welcome; its hello named alerts that no node knows."""
        wire = self.upgraded()
        say(wire, **self.hello(**fields))
        assert json.loads(wire.recv_data().payload)["type"] == "welcome"
        return wire

    def hello(self, **fields: Any) -> Json:
        """Return a valid hello message, changed by `fields`."""
        place = {"lat": 32.78, "lng": -96.8, "accuracy_m": 50}
        return {"type": "hello", "token": self.token, "places": [place], "holding": HOLDING} | fields


Ending = Callable[[Door], int]


def say(wire: Wire, **message: Any) -> None:
    """Send a message as JSON."""
    wire.send(TEXT, json.dumps(message).encode())


def refused(method: str = "GET", target: str = "/v1/stream", **changes: str | None) -> Ending:
    """Return an ending that makes an invalid handshake."""

    def end(door: Door) -> int:
        with Wire(door.port) as wire:
            headers = upgrade_headers(JSON, **changes)
            answer = wire.request(method, target, headers)
            while wire.sock.recv(4096):
                pass  # read the body of the refusal up to the end
            return answer.status

    return end


def raw(data: bytes) -> Ending:
    """Return an ending that sends bytes instead of a handshake, reads the answer and disconnects."""

    def end(door: Door) -> int:
        with Wire(door.port) as wire, contextlib.suppress(ConnectionError):
            wire.sock.sendall(data)
            return wire.read_answer().status
        return 0

    return end


def unfinished(data: bytes) -> Ending:
    """Return an ending that sends bytes which get no answer, and disconnects."""

    def end(door: Door) -> int:
        with Wire(door.port) as wire:
            wire.sock.sendall(data)
        return 0

    return end


def frames(*sent: tuple[int, bytes, Json], hello: bool = False) -> Ending:
    """Return an ending that sends frames after the 101, or after the welcome, until the node closes the connection."""

    def end(door: Door) -> int:
        with door.welcomed() if hello else door.upgraded() as wire:
            for opcode, payload, options in sent:
                with contextlib.suppress(ConnectionError):  # the connection may be closed before the last frame
                    wire.send(opcode, payload, **options)
            return wire.close_code()

    return end


def first_message(message: Callable[[Door], Json]) -> Ending:
    """Return an ending whose hello is refused."""

    def end(door: Door) -> int:
        with door.upgraded() as wire:
            say(wire, **message(door))
            return wire.close_code()

    return end


def hangs_up(wire: Wire) -> None:
    """End the TCP stream without a close frame."""


def resets(wire: Wire) -> None:
    """Reset the TCP connection."""
    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def says_goodbye(wire: Wire) -> None:
    """Send a close frame, and read the answer."""
    wire.send(CLOSE, struct.pack("!H", 1000))
    wire.close_code()


def half_closes(wire: Wire) -> None:
    """Shut down the sending side, and read to the end."""
    wire.sock.shutdown(socket.SHUT_WR)
    wire.close_code()


def in_a_frame(wire: Wire) -> None:
    """Disconnect in the middle of a frame."""
    wire.sock.sendall(frame(TEXT, bytes(100))[:50])


def in_a_message(wire: Wire) -> None:
    """Disconnect in the middle of a fragmented message."""
    wire.send(TEXT, b"{", fin=False)
    wire.send(CONT, b'"type":', fin=False)
    wire.sock.sendall(b"\x80")


def in_a_conversation(wire: Wire) -> None:
    """Disconnect after one message of each type, valid and invalid."""
    say(wire, type="ack", id="unknown-1", revision=1)
    for asked in (
        {"type": "move", "places": [{"cell": "8926cb19c93ffff"}]},
        {"type": "filter", "categories": ["arson"], "min_severity": "severe"},
        {"type": "ping"},
        {"type": "dance"},
        {"type": "move", "places": 7},
    ):
        say(wire, ref=1, **asked)
        assert json.loads(wire.recv_data().payload)["ref"] == 1
    wire.send(PING, b"there?")
    assert wire.recv().payload == b"there?"


def of_a_session(how: Callable[[Wire], None]) -> Ending:
    """Return an ending in which the client ends a session."""

    def end(door: Door) -> int:
        with door.welcomed(categories=["robbery"]) as wire:
            how(wire)
        return 0

    return end


def after_the_101(door: Door) -> int:
    """Disconnect before the hello."""
    door.upgraded().sock.close()
    return 0


GOOD = request_bytes("GET", "/v1/stream", upgrade_headers(JSON))

HANDSHAKES: dict[str, tuple[int, Ending]] = {
    # defect -> expected status, ending
    "another path": (404, refused(target="/v1/streams")),
    "a query": (400, refused(target="/v1/stream?token=x")),
    "another method": (405, refused("POST")),
    "no upgrade": (426, refused(Upgrade=None, Connection=None)),
    "a bad key": (400, refused(Sec_WebSocket_Key="*")),
    "a foreign origin": (403, refused(Origin="https://evil.example")),
    "no subprotocol": (400, refused(Sec_WebSocket_Protocol=None)),
    "a malformed list of subprotocols": (400, refused(Sec_WebSocket_Protocol=",;,")),
    "two origins": (400, raw(GOOD[:-2] + b"Origin: https://a.example\r\nOrigin: https://b.example\r\n\r\n")),
    "HTTP/1.0": (505, raw(GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"))),
    "line noise": (404, raw(b"\x00\x01\x02\x03\r\n\r\n")),
    "a request without a known method": (404, raw(b"GET nonsense\r\n\r\n")),
    "a header without a colon": (400, raw(b"GET /v1/stream HTTP/1.1\r\nHost 127.0.0.1\r\n\r\n")),
    "a thousand headers": (400, raw(b"GET /v1/stream HTTP/1.1\r\n" + b"X: y\r\n" * 1_000 + b"\r\n")),
    "a body": (405, raw(b"POST /v1/stream HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody")),
    "headers without an end": (0, raw(b"GET /v1/stream HTTP/1.1\r\nX: " + bytes(40_000))),
    "half a request": (0, unfinished(GOOD[:40])),
    "no bytes": (0, unfinished(b"")),
}

MISTAKES: dict[str, tuple[int, Ending]] = {
    # defect -> expected close code, ending
    "an unmasked frame": (1002, frames((TEXT, b"{}", {"masked": False}))),
    "a message inside another message": (1002, frames((TEXT, b"{", {"fin": False}), (TEXT, b"{}", {}))),
    "half a close code": (1002, frames((CLOSE, b"\x03", {}))),
    "binary": (1003, frames((BINARY, b"{}", {}))),
    "bad UTF-8": (1007, frames((TEXT, b'"\xff"', {}))),
    "too long": (1009, frames((TEXT, bytes(70_000), {}))),
    "too long, later": (1009, frames((TEXT, bytes(20_000), {}), hello=True)),
    "an unmasked frame, later": (1002, frames((TEXT, b"{}", {"masked": False}), hello=True)),
    "no JSON": (4400, frames((TEXT, b"[", {}))),
    "no hello": (4400, frames((TEXT, b'{"type":"ping"}', {}))),
    "hello twice": (4400, frames((TEXT, b'{"type":"hello"}', {}), hello=True)),
    "a bad place": (4400, first_message(lambda door: door.hello(places=[{"lat": 91, "lng": 0}]))),
    "no token": (4401, first_message(lambda door: door.hello(token="nonsense"))),
    "a forged token": (4401, first_message(lambda door: door.hello(token=respelled(door.token)))),
    "a token that is too weak": (4403, first_message(lambda door: door.hello(token=door.too_weak))),
    "a flood": (4429, frames(*[(PING, b"", {})] * 400, hello=True)),
}

GOODBYES: dict[str, tuple[int, Ending]] = {
    "after the 101": (0, after_the_101),
    **{
        how.__name__.replace("_", " "): (0, of_a_session(how))
        for how in (hangs_up, resets, says_goodbye, half_closes, in_a_frame, in_a_message, in_a_conversation)
    },
}

ENDINGS = HANDSHAKES | MISTAKES | GOODBYES
