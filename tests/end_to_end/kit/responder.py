"""A responder's token, and a responder's phone on one connection. Nothing of the server is imported here."""

from __future__ import annotations

import time
from typing import Any

from end_to_end.kit.alerts import Json, place
from end_to_end.kit.earth import Point
from end_to_end.kit.keys import PHONE_SCOPE, Keys
from end_to_end.kit.node import Node
from end_to_end.kit.wire import DATA_OPCODE, Wire, closed_on_error, decode, encode

A_DAY_S = 24 * 3600
NORTH = 1 / 111_195  # degrees of latitude per metre


def qualified(keys: Keys, sub: str, *quals: str) -> str:
    """Return a token of a person with these qualifications, which `keys` may grant, valid for a day."""
    now = int(time.time())
    return keys.token(sub=sub, scope=PHONE_SCOPE, iat=now, exp=now + A_DAY_S, quals=list(quals))


def north_of(spot: Point, metres: float) -> Point:
    """Return the point `metres` north of another point."""
    return spot[0] + metres * NORTH, spot[1]


class Responder:
    """A responder's phone on one connection, which keeps the frames it receives."""

    def __init__(
        self, node: Node, sub: str, *places: Json, quals: tuple[str, ...] = ("cpr",), fmt: str = "json", **hello: Any
    ) -> None:
        self.fmt = fmt
        self.wire = Wire(node.stream_port)
        self.frames: list[bytes] = []
        with closed_on_error(self.wire.sock):
            assert self.wire.upgrade(f"geocast.v1.{fmt}").status == 101
            token = hello.pop("token", None) or qualified(node.keys, sub, *quals)
            self.say("hello", token=token, places=list(places), **hello)
            self.welcome = self.take("welcome")

    def __enter__(self) -> Responder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.wire.sock.close()

    def say(self, kind: str, **fields: Any) -> None:
        """Send a message of a type."""
        self.wire.send(DATA_OPCODE[self.fmt], encode(self.fmt, {"type": kind, **fields}))

    def any(self) -> Json:
        """Return the next message of any type."""
        payload = self.wire.recv_data().payload
        self.frames.append(payload)
        return decode(self.fmt, payload)

    def take(self, kind: str, **fields: Any) -> Json:
        """Return the next message, which must have this type and these fields."""
        message = self.any()
        assert message["type"] == kind, message
        assert message | fields == message, message
        return message

    def barrier(self, *places: Json) -> Json:
        """Move to `places` and return the `ok`, which must be the next message.

        This shows that the node had sent nothing else before.
        """
        self.say("move", places=list(places))
        return self.take("ok")


def here(spot: Point, **fields: Any) -> Json:
    """Return the current place of a responder."""
    return place(spot, here=True, **fields)
