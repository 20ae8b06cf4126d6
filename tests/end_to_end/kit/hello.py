"""Connections to the stream listener up to their `hello`."""

from end_to_end.kit.keys import PHONE_SCOPE
from end_to_end.kit.node import Node
from end_to_end.kit.wire import (
    Wire,
    encode,
)

JSON, MSGPACK = "geocast.v1.json", "geocast.v1.msgpack"
HELLO_MAX, MESSAGE_MAX = 64 * 1024, 16 * 1024


def upgraded(node: Node, fmt: str) -> Wire:
    """Return a connection right after its 101 answer."""
    wire = Wire(node.stream_port)
    assert wire.upgrade(f"geocast.v1.{fmt}").status == 101
    return wire


def good_hello(node: Node, fmt: str) -> bytes:
    """Return the bytes of a valid hello message."""
    token = node.keys.token(sub="phone", scope=PHONE_SCOPE)
    return encode(fmt, {"type": "hello", "places": [], "token": token})
