"""The stream listener with an echo in place of the session, for cases that want their messages back.

Autobahn's cases offer no subprotocol and send messages that mean nothing to a session. Everything else is a node's: the
listener, the handshake, the connection with its parser and limits, and the end.
"""

from __future__ import annotations

from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from geocast.clock import Now
from geocast.model import close_codes
from geocast.model.close_codes import SessionClosed
from geocast.stream.connection import Connection, Stream
from geocast.wire.frames import Wire

NAME = "Sec-WebSocket-Protocol"


class Echo:
    """A session that sends back what it receives, and refuses text that is not UTF-8 as a session does (X1)."""

    row = -1  # it is in no hub

    def __init__(self, peer: Connection, wire: Wire, *_: object) -> None:
        self.peer, self.wire = peer, wire

    def receive(self, payload: bytes, _now: Now) -> None:
        """Send a message back."""
        if self.wire.opcode == Opcode.TEXT:
            try:
                payload.decode()
            except UnicodeDecodeError:
                raise SessionClosed(close_codes.BAD_UTF8) from None
        self.peer.write(Frame(self.wire.opcode, payload).serialize(mask=False))


class EchoStream(Stream):
    """The stream listener, as if each client had offered one subprotocol."""

    subprotocol = ""

    def answer(self, request: Request, parser: ServerProtocol) -> tuple[int, str] | tuple[Wire, Response]:
        """Answer the handshake as if the client had offered the subprotocol, and do not speak of it."""
        request.headers[NAME] = self.subprotocol
        answer = super().answer(request, parser)
        if isinstance(answer[1], Response):
            del answer[1].headers[NAME]
        return answer
