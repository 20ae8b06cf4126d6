"""Odd messages, which no node sends: a table for every client. No message may end a client, or silence it later.

Each case replaces members of a good alert, or is a whole message or a frame. In a `hello`, a client may list only ids
and revisions that a node accepts (docs/protocol.md, A1 and L4), so it may not keep an alert with others.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from client_demo.python.wire import Message

DEEP = 100_000
FAR_AHEAD = "9999-12-31T23:59:59Z"


class Literal(str):
    """A text that stands in JSON as it is, for numbers that Python can't write."""

    __slots__ = ()


def nested(depth: int) -> list[Any]:
    """Return a list in a list, and so on."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


CIRCLE = {"type": "circle", "lat": 1.0, "lng": 2.0, "radius_m": 3.0}
RING = [[0, 0], [1, 0], [1, 1], [0, 0]]

# Members that replace those of a good alert.
ODD_ALERTS: dict[str, Mapping[str, Any]] = {
    "a revision of 2^40": {"revision": 2**40},
    "a revision of 2^31": {"revision": 2**31},
    "a revision of 1.5": {"revision": 1.5},
    "a revision of 0": {"revision": 0},
    "a negative revision": {"revision": -1},
    "a revision in a text": {"revision": "1"},
    "a revision that is true": {"revision": True},
    "a revision that is null": {"revision": None},
    "an id of 300 characters": {"id": "x" * 300},
    "an id of 129 characters": {"id": "x" * 129},
    "an id with a blank": {"id": "a b"},
    "an empty id": {"id": ""},
    "an id with a line feed at its end": {"id": "a\n"},
    "an id in another alphabet": {"id": "\u00e4\u00df\u4e2d"},
    "an id that begins with a point": {"id": ".a"},
    "an id that is a number": {"id": 7},
    "an id that is a list": {"id": ["a"]},
    "a property of every object as the id": {"id": "__proto__"},
    "an end that is a number": {"expires_at": 4_000_000_000},
    "an end without an offset": {"expires_at": "2999-01-01T00:00:00"},
    "an end that is no time": {"expires_at": "soon"},
    "an area that is a text": {"area": "circle"},
    "an area of null": {"area": [None]},
    "a circle with a text as its latitude": {"area": [{**CIRCLE, "lat": "north"}]},
    "a circle without members": {"area": [{"type": "circle"}]},
    "a circle with a huge radius": {"area": [{**CIRCLE, "radius_m": Literal("1e400")}]},
    "a latitude of 400 digits": {"area": [{**CIRCLE, "lat": Literal("9" * 400)}]},
    "a polygon with texts as corners": {"area": [{"type": "Polygon", "coordinates": [[["a", "b"]] * 4]}]},
    "a polygon with a huge corner": {"area": [{"type": "Polygon", "coordinates": [[*RING, [Literal("1e400"), 0]]]}]},
    "a deep area": {"area": nested(200)},
    "a deep member": {"more": nested(400)},
    "a huge number": {"more": Literal("1e400")},
    "half a character in a text": {"headline": Literal('"\\ud800"')},
    "a headline that is a map": {"headline": {"en": "Fire"}},
    "a severity that is a list": {"severity": ["severe"]},
    "a status that is a number": {"status": 1},
}
ODD_CALLS: dict[str, Mapping[str, Any]] = {
    "a call with a revision of 2^40": {"revision": 2**40},
    "a call with an id with a blank": {"id": "a b"},
    "a call with a huge circle": {"near": {**CIRCLE, "lat": Literal("1e400")}},
}
ODD_MESSAGES: dict[str, Message] = {
    "an alert that is a list": {"type": "alert", "alert": []},
    "an alert without members": {"type": "alert", "alert": {}},
    "a cancel of a list": {"type": "cancel", "id": [], "revision": 2},
    "a task with a list as its id": {"type": "task", "id": [], "revision": 1, "expires_at": FAR_AHEAD, "place": {}},
    "a task with a revision of 2^40": {
        "type": "task",
        "id": "t",
        "revision": 2**40,
        "expires_at": FAR_AHEAD,
        "place": {},
    },
    "a standdown of a number": {"type": "standdown", "id": 7, "reason": "over"},
    "a pong with a deep time": {"type": "pong", "now": nested(50)},
    "an error with a list as its ref": {"type": "error", "ref": [], "detail": 7},
}
ODD_TEXTS: dict[str, str | bytes] = {
    "100,000 brackets": "[" * DEEP,
    "50,000 maps": '{"":' * (DEEP // 2),
    "a number": "7",
    "no JSON": "{",
    "a message twice": '{"type":"pong"}{"type":"pong"}',
    "a binary frame": b'{"type":"pong"}',
}
ODD_DOCUMENTS = ("[" * DEEP, "{", "7", '{"type":"FeatureCollection","features":7}')
ODD_BYTES: dict[str, str | bytes] = {
    "100,000 lists": b"\x91" * DEEP,
    "a map with a map as its key": b"\x81\x81\xa1a\x01\x01",
    "a type of MessagePack's own": b"\xd6\xff\x00\x00\x00\x01",
    "a text that is no UTF-8": b"\x81\xa4type\xa2\xff\xfe",
    "half a message": b"\x82\xa4type",
    "nothing": b"",
}


def frames(alert: Message, call: Message, *, is_text: bool) -> dict[str, str | bytes]:
    """Return all odd messages in one of the two formats, by what is odd.

    `alert` and `call` are a good alert and a good call, whose members are replaced.
    """
    odd: dict[str, Message] = {}
    odd |= {why: {"type": "alert", "alert": {**alert, **more}} for why, more in ODD_ALERTS.items()}
    odd |= {why: {"type": "call", "call": {**call, **more}} for why, more in ODD_CALLS.items()}
    odd |= ODD_MESSAGES
    encoded = {why: as_json(message) if is_text else as_msgpack(message) for why, message in odd.items()}
    return {why: frame for why, frame in encoded.items() if frame} | (ODD_TEXTS if is_text else ODD_BYTES)


def document(odd: Message, good: Callable[[str], Message]) -> tuple[str, set[str]]:
    """Return a document of the feed with each odd alert, a good one after each, and the ids of the good ones."""
    names = [f"good-{number}" for number in range(len(ODD_ALERTS))]
    alerts = zip(({**odd, **more} for more in ODD_ALERTS.values()), map(good, names), strict=True)
    features = [{"type": "Feature", "geometry": None, "properties": each} for pair in alerts for each in pair]
    whole = {"type": "FeatureCollection", "features": [7, {}, *features], "cancelled": [7, {"id": []}]}
    return as_json(whole), set(names)


def as_json(message: Any) -> str:
    """Return a message as JSON, with each Literal as it is."""
    if isinstance(message, Literal):
        return str(message)
    if isinstance(message, Mapping):
        return "{" + ",".join(f"{json.dumps(key)}:{as_json(value)}" for key, value in message.items()) + "}"
    if isinstance(message, list):
        return "[" + ",".join(map(as_json, message)) + "]"
    return json.dumps(message)


def as_msgpack(message: Any) -> bytes:
    """Return a message as MessagePack; nothing if it can't be written."""
    import msgpack

    try:
        return bytes(msgpack.packb(_numbers(message)))
    except ValueError:
        return b""


def _numbers(value: Any) -> Any:
    if isinstance(value, Literal):
        return float("inf")
    if isinstance(value, Mapping):
        return {key: _numbers(each) for key, each in value.items()}
    return [_numbers(each) for each in value] if isinstance(value, list) else value
