"""A WebSocket client (RFC 6455) on a plain socket, so that a test can send data that no correct client would send.

`Wire` knows frames and nothing of geocast; `encode` and `decode` are the two wire formats, read strictly.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgpack
from support.schemas import check_server_message

PATIENCE = 60.0
"""Seconds after which a waiting test fails; successful tests never wait so long."""

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
DATA_OPCODE = {"json": TEXT, "msgpack": BINARY}
ABNORMAL = 1006
PLAIN = (str, int, float, bool, list, dict)


class Frame(NamedTuple):
    """A received frame; `first` is the octet with FIN, the reserved bits and the opcode."""

    first: int
    payload: bytes

    @property
    def opcode(self) -> int:
        return self.first & 0x0F


class Closed(Exception):  # noqa: N818 - an event, not an error of the test
    """Raised when the connection is over; `code` is the close code, or 1006 if none arrived."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"closed with {code} {reason!r}")
        self.code = code


class Answer(NamedTuple):
    """An HTTP answer on the stream listener; status 0 means that the socket was closed without one."""

    status: int
    headers: dict[str, str]


def encode(fmt: str, message: Any) -> bytes:
    """Encode a message in a wire format."""
    if fmt == "json":
        return json.dumps(message, ensure_ascii=False).encode()
    return msgpack.packb(message)


def decode(fmt: str, payload: bytes) -> dict[str, Any]:
    """Decode a message of the server strictly, and check it against docs/asyncapi.json."""
    if fmt == "json":
        message = json.loads(payload.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    else:
        message = msgpack.unpackb(payload, object_pairs_hook=_unique)
    check_server_message(message)
    return message


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs), f"duplicate keys from the server: {pairs}"
    plain = (type(key) is str and (type(value) in PLAIN or (key, value) == ("open", None)) for key, value in pairs)
    assert all(plain), f"null, which only `open` of a defibrillator may be (RI1), or binary data: {pairs}"
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} from the server")


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """Return the bytes of a client's frame (RFC 6455, section 5.2)."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    flag, size = (0x80 if masked else 0), len(payload)
    if size < 126:
        head = struct.pack("!BB", first, flag | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, flag | 126, size)
    else:
        head = struct.pack("!BBQ", first, flag | 127, size)
    return head + (_mask(payload) if masked else payload)


def _mask(payload: bytes) -> bytes:
    key = os.urandom(4)
    pad = (key * (len(payload) // 4 + 1))[: len(payload)]
    hidden = int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")
    return key + hidden.to_bytes(len(payload), "big")


def handshake_key() -> str:
    """Return a new Sec-WebSocket-Key."""
    return base64.b64encode(os.urandom(16)).decode()


def accept_of(key: str) -> str:
    """Return the Sec-WebSocket-Accept for a key (RFC 6455, section 4.2.2)."""
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    return base64.b64encode(digest).decode()


def upgrade_headers(*protocols: str, **changes: str | None) -> dict[str, str | None]:
    """Return the headers of a valid handshake, with changes; a change of None removes a header."""
    headers: dict[str, str | None] = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": handshake_key(),
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": ", ".join(protocols) or None,
    }
    return headers | {name.replace("_", "-"): value for name, value in changes.items()}


def request_bytes(method: str, target: str, headers: dict[str, str | None]) -> bytes:
    """Return the bytes of an HTTP/1.1 request head."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items() if v is not None)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@contextlib.contextmanager
def closed_on_error(sock: socket.socket) -> Iterator[socket.socket]:
    """Return a context manager that closes a socket if its block raises an exception."""
    try:
        yield sock
    except BaseException:
        sock.close()
        raise


class Wire:
    """A socket to the stream listener. Each operation blocks for at most `PATIENCE` seconds."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        with closed_on_error(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as self.sock:
            if receive_buffer:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.sock.settimeout(PATIENCE)
            self.sock.connect(("127.0.0.1", port))
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self.answer_pings = True

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    # -- HTTP

    def request(self, method: str, target: str, headers: dict[str, str | None]) -> Answer:
        """Send a request head and read the head of the answer."""
        self.sock.sendall(request_bytes(method, target, headers))
        return self.read_answer()

    def read_answer(self) -> Answer:
        """Return the head of an HTTP answer, or status 0 if there is none."""
        try:
            while b"\r\n\r\n" not in self._buffer:
                self._fill()
        except Closed:
            return Answer(0, {})
        head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        first, *rest = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in rest)}
        return Answer(int(first.split()[1]), headers)

    def upgrade(self, *protocols: str, **changes: str | None) -> Answer:
        """Make the opening handshake, and check the proof of a 101 answer.

        An exception closes the socket.
        """
        with closed_on_error(self.sock):
            return self._upgrade(*protocols, **changes)

    def _upgrade(self, *protocols: str, **changes: str | None) -> Answer:
        headers = upgrade_headers(*protocols, **changes)
        answer = self.request("GET", "/v1/stream", headers)
        if answer.status == 101:
            assert answer.headers["sec-websocket-accept"] == accept_of(headers["Sec-WebSocket-Key"] or "")
            assert "sec-websocket-extensions" not in answer.headers, "no extension is negotiated"
        return answer

    # -- frames

    def send(self, opcode: int, payload: bytes, **options: Any) -> None:
        """Send one frame."""
        self.sock.sendall(frame(opcode, payload, **options))

    def recv(self) -> Frame:
        """Return the next frame of any kind."""
        first, second = self._take(2)
        assert not second & 0x80, "a server does not mask"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._take(8))
        return Frame(first, self._take(size))

    def recv_data(self) -> Frame:
        """Return the next whole message; answer pings on the way, and raise `Closed` at a close frame."""
        while True:
            got = self.recv()
            assert got.first & 0xF0 == 0x80, f"one message is one frame, without extensions: {got}"
            if got.opcode == PING:
                self._pong(got.payload)
            elif got.opcode == CLOSE:
                raise self._closed(got.payload)
            elif got.opcode != PONG:
                return got

    def _pong(self, payload: bytes) -> None:
        if self.answer_pings:
            self.send(PONG, payload)

    def _closed(self, payload: bytes) -> Closed:
        if len(payload) < 2:
            return Closed(1005)
        with contextlib.suppress(OSError):  # the server may be gone by now
            self.send(CLOSE, payload[:2])
        return Closed(struct.unpack("!H", payload[:2])[0], payload[2:].decode())

    def close_code(self) -> int:
        """Read to the end, and return the close code."""
        try:
            while True:
                self.recv_data()
        except Closed as closed:
            return closed.code

    def at_end(self) -> bool:
        """Return whether only the end of the stream is left to read."""
        try:
            self._fill()
        except Closed:
            return not self._buffer
        return False

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _fill(self) -> None:
        try:
            data = self.sock.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            raise Closed(ABNORMAL)
        self._buffer += data
