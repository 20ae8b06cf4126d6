"""Responders: a token that qualifies, and a phone on a connection. Nothing of the server is imported here."""

from __future__ import annotations

import time
from typing import Any

from end_to_end.kit.alerts import Json, place
from end_to_end.kit.earth import Point
from end_to_end.kit.keys import PHONE_SCOPE, Keys
from end_to_end.kit.node import Node
from end_to_end.kit.wire import DATA_OPCODE, Wire, decode, encode

A_DAY_S = 24 * 3600
NORTH = 1 / 111_195  # degrees of latitude in a metre


def qualified(keys: Keys, sub: str, *quals: str) -> str:
    """A token of somebody who has learnt that, good for a day; `keys` may grant it."""
    now = int(time.time())
    return keys.token(sub=sub, scope=PHONE_SCOPE, iat=now, exp=now + A_DAY_S, quals=list(quals))


def north_of(spot: Point, metres: float) -> Point:
    """A spot so many metres to the north."""
    return spot[0] + metres * NORTH, spot[1]


class Responder:
    """A responder's phone on one connection, which keeps what it was sent."""

    def __init__(
        self, node: Node, sub: str, *places: Json, quals: tuple[str, ...] = ("cpr",), fmt: str = "json", **hello: Any
    ) -> None:
        self.fmt = fmt
        self.wire = Wire(node.stream_port)
        self.frames: list[bytes] = []
        assert self.wire.upgrade(f"geocast.v1.{fmt}").status == 101
        token = hello.pop("token", None) or qualified(node.keys, sub, *quals)
        self.say("hello", token=token, places=list(places), **hello)
        self.welcome = self.take("welcome")

    def __enter__(self) -> Responder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.wire.sock.close()

    def say(self, kind: str, **fields: Any) -> None:
        """Send a message."""
        self.wire.send(DATA_OPCODE[self.fmt], encode(self.fmt, {"type": kind, **fields}))

    def any(self) -> Json:
        """The next message, whatever it is."""
        payload = self.wire.recv_data().payload
        self.frames.append(payload)
        return decode(self.fmt, payload)

    def take(self, kind: str, **fields: Any) -> Json:
        """The next message, which must be of this type and have these fields."""
        message = self.any()
        assert message["type"] == kind, message
        assert message | fields == message, message
        return message

    def barrier(self, *places: Json) -> Json:
        """Move there; the `ok`, which comes next: so nothing had come before it."""
        self.say("move", places=list(places))
        return self.take("ok")


def here(spot: Point, **fields: Any) -> Json:
    """The place where a responder is now."""
    return place(spot, here=True, **fields)
