"""Bad messages, each of which gets its documented answer.

A bad message either closes the session with a code 44xx, or is answered with `error` and changes nothing.
"""

import json
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from end_to_end.kit.alerts import Json, alert, ground, new_id, place
from end_to_end.kit.hello import JSON, MSGPACK, good_hello, upgraded
from end_to_end.kit.keys import PHONE_SCOPE, Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import FORMATS, Session
from end_to_end.kit.wire import (
    BINARY,
    DATA_OPCODE,
    TEXT,
    encode,
)
from websockets.sync.client import connect

Join = Callable[..., Session]


# ---- the first message -------------------------------------------------------------------------------------------


def both(message: Any) -> list[tuple[str, bytes]]:
    """Return a message in each format."""
    return [(fmt, encode(fmt, message)) for fmt in FORMATS]


def nested(depth: int) -> Any:
    """Return a list that is nested `depth` levels deep."""
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


DUPLICATE_KEYS = b"\x83\xa4type\xa4ping\xa4type\xa4ping\xa3ref\x01"
NOT_STRICT: dict[str, list[tuple[str, bytes]]] = {
    "an empty message": [("json", b""), ("msgpack", b"")],
    "no type": both({"places": []}),
    "cut off": [("json", b'{"type":"ping"'), ("msgpack", b"\x81\xa4type\xa4pin")],
    "duplicate keys": [
        ("json", b'{"type":"ping","type":"ping"}'),
        ("msgpack", DUPLICATE_KEYS),
        ("json", b'{"type":"ping","ref":[{"a":1,"a":1}]}'),
    ],
    "not a number": [
        ("json", b'{"type":"ping","ref":NaN}'),
        ("msgpack", msgpack.packb({"type": "ping", "ref": float("nan")})),
    ],
    "too deep": both({"type": "ping", "ref": nested(32)}),
    "far too deep": [("json", b'{"type":' + b"[" * 5_000), ("msgpack", b"\x91" * 5_000)],
    "a text that is bin": [("msgpack", b"\x81\xa4type\xc4\x04ping")],
    "a timestamp": [("msgpack", b"\x82\xa4type\xa4ping\xa3ref\xd6\xff\x00\x00\x00\x00")],
    "a map that announces 2^32 pairs": [("msgpack", b"\xdf\xff\xff\xff\xff")],
}
NOT_STRICT_CASES = [
    pytest.param(fmt, payload, id=f"{name}-{i}-{fmt}")
    for name, cases in NOT_STRICT.items()
    for i, (fmt, payload) in enumerate(cases)
]


@pytest.mark.parametrize(("fmt", "payload"), NOT_STRICT_CASES)
def test_session_whose_first_message_is_malformed_is_closed_with_4400(node: Node, fmt: str, payload: bytes):
    """A message must be strict JSON or MessagePack, a map, and have a string `type` (protocol, section 5)."""
    with upgraded(node, fmt) as wire:
        wire.send(DATA_OPCODE[fmt], payload)
        assert wire.close_code() == 4400


@pytest.mark.parametrize(("fmt", "payload"), NOT_STRICT_CASES)
def test_session_with_a_malformed_later_message_is_closed_with_4400(node: Node, join: Join, fmt: str, payload: bytes):
    session = join(node, fmt=fmt)
    session.wire.send(DATA_OPCODE[fmt], payload)
    assert session.wire.close_code() == 4400


HERE = {"lat": 1, "lng": 1}
TEXT_OF_65 = "x" * 65
BAD_PLACES: dict[str, Any] = {
    "not a list": HERE,
    "nine": [HERE] * 9,
    "no lng": [{"lat": 1}],
    "lat beyond": [{"lat": 90.001, "lng": 1}],
    "a name": [HERE | {"name": "home"}],
    "accuracy beyond": [HERE | {"accuracy_m": 2_000.5}],
    "a cell and an accuracy": [{"cell": "8928308280fffff", "accuracy_m": 1}],
    "a cell that H3 does not have": [{"cell": "892830828ffffff"}],
    "a cell of resolution 6": [{"cell": "862830827ffffff"}],
    "the second of two": [HERE, {"lat": 91, "lng": 1}],
}
BAD_FILTERS: dict[str, Json] = {
    "categories is text": {"categories": "burglary"},
    "a category in capitals": {"categories": ["Burglary"]},
    "a category of 65 characters": {"categories": [TEXT_OF_65]},
    "a category with a space": {"categories": ["a b"]},
    "an unknown severity": {"min_severity": "unknown"},
    "a severity in a list": {"min_severity": ["minor"]},
    "a language with an underscore": {"languages": ["en_CA"]},
    "a language of five parts": {"languages": ["en-aa-bb-cc-dd"]},
    "a language in another script": {"languages": ["ｅｎ"]},
    "9 languages": {"languages": ["en"] * 9},
}
BAD_HOLDINGS: dict[str, Any] = {
    "revision 0": {"a": 0},
    "revision is text": {"a": "1"},
    "revision is a boolean": {"a": True},
    "an id with a space": {"a b": 1},
    "257 alerts": {f"a{i}": 1 for i in range(257)},
}
BAD_HELLOS: dict[str, Json] = {
    "no places": {"places": ...},
    "an unknown field": {"lang": "en"},
    "a ref": {"ref": 1},
    "a token that is null": {"token": None},
    "filter categories null": {"categories": None},
    **{f"places: {name}": {"places": places} for name, places in BAD_PLACES.items()},
    **{f"holding: {name}": {"holding": holding} for name, holding in BAD_HOLDINGS.items()},
    **{f"filter: {name}": fields for name, fields in BAD_FILTERS.items()},
}


def without_dots(fields: Json) -> Json:
    """Return the fields whose value is not `...`."""
    return {name: value for name, value in fields.items() if value is not ...}


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("change", BAD_HELLOS.values(), ids=BAD_HELLOS.keys())
def test_session_whose_hello_has_an_invalid_field_is_closed_with_4400(node: Node, keys: Keys, change: Json, fmt: str):
    """The server checks the shape before the token (protocol, section 5)."""
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
def test_session_whose_first_message_is_not_hello_is_closed_with_4400(node: Node, message: Json, fmt: str):
    with upgraded(node, fmt) as wire:
        wire.send(DATA_OPCODE[fmt], encode(fmt, message))
        assert wire.close_code() == 4400


@pytest.mark.parametrize("fmt", FORMATS)
def test_session_that_sends_a_second_hello_is_closed_with_4400(node: Node, join: Join, fmt: str):
    session = join(node, fmt=fmt)
    session.wire.send(DATA_OPCODE[fmt], good_hello(node, fmt))
    assert session.wire.close_code() == 4400


@pytest.mark.parametrize("fmt", FORMATS)
def test_session_whose_hello_has_no_valid_token_is_closed_with_4401(node: Node, keys: Keys, fmt: str):
    """The token is missing, empty or bad (protocol, sections 5 and 6)."""
    for name, token in {"missing": ..., "empty": "", **keys.bad_tokens()}.items():
        hello = without_dots({"type": "hello", "places": [], "token": token})
        with upgraded(node, fmt) as wire:
            wire.send(DATA_OPCODE[fmt], encode(fmt, hello))
            assert wire.close_code() == 4401, name


@pytest.mark.parametrize("scope", [None, "", "alerts:publish alerts:manage alerts:test", "alerts:receive2"])
def test_session_whose_token_lacks_the_receive_scope_is_closed_with_4403(node: Node, keys: Keys, scope: str | None):
    hello = {"type": "hello", "places": [], "token": keys.token(scope=scope)}
    with upgraded(node, "json") as wire:
        wire.send(TEXT, encode("json", hello))
        assert wire.close_code() == 4403


# ---- later messages ----------------------------------------------------------------------------------------------


BAD_REFS: dict[str, Any] = {
    "empty": "",
    "2^53": 2**53,
    "a float": 1.5,
    "a boolean": True,
}
BAD_MESSAGES: dict[str, Json] = {
    "move: nothing": {"type": "move"},
    "move: an unknown field": {"type": "move", "places": [], "to": 1},
    "filter: an unknown field": {"type": "filter", "min_severity": "minor", "places": []},
    "token: nothing": {"type": "token"},
    "token: null": {"type": "token", "token": None},
    "token: an unknown field": {"type": "token", "token": "x", "sub": "phone"},
    "ack: nothing": {"type": "ack"},
    "ack: an invalid id": {"type": "ack", "id": "a b", "revision": 1},
    "ack: revision 0": {"type": "ack", "id": "a", "revision": 0},
    "ack: revision is a float": {"type": "ack", "id": "a", "revision": 1.0},
    "ack: revision is a boolean": {"type": "ack", "id": "a", "revision": True},
    "ping: an unknown field": {"type": "ping", "now": 1},
    **{f"move: {name}": {"type": "move", "places": places} for name, places in BAD_PLACES.items()},
    **{f"filter: {name}": {"type": "filter", **fields} for name, fields in BAD_FILTERS.items()},
    **{f"ref: {name}": {"type": "ping", "ref": ref} for name, ref in BAD_REFS.items()},
}
NO_REF = ("ref", "ack")


@pytest.mark.parametrize("fmt", FORMATS)
def test_invalid_field_is_answered_with_an_error_and_the_session_continues(node: Node, join: Join, fmt: str):
    """The `error` has the code `bad-field` and the message's `ref`, if it has one (protocol, section 5)."""
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
def test_unknown_message_type_is_answered_with_an_error_and_the_session_continues(
    node: Node, join: Join, kind: str, fmt: str
):
    """The `error` has the code `unknown-type`, whatever fields the message has (protocol, section 5)."""
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


def test_json_value_that_no_field_accepts_is_answered_with_bad_field(node: Node, join: Join):
    """Over HTTP these values get 422; here they get `bad-field` (protocol, section 5)."""
    session = join(node)
    for text in STRANGE_NUMBERS:
        session.wire.send(TEXT, text.encode())
        answer = session.take()
        assert (answer["type"], answer["code"]) == ("error", "bad-field"), text[:80]
    assert session.ask("ping")["type"] == "pong"


def test_msgpack_integers_and_floats_are_accepted_and_infinity_is_not(node: Node, join: Join):
    """A field that expects a number accepts any integer or finite float (protocol, section 5)."""
    session = join(node, fmt="msgpack")
    for lat in (1, -1, 1.5, 0, -0.0):
        session.move({"lat": lat, "lng": 1, "accuracy_m": 5})
    session.wire.send(BINARY, b"\x82\xa4type\xa4move\xa6places\x91\x82\xa3lat\xca\x3f\x80\x00\x00\xa3lng\x01")
    assert session.take()["type"] == "ok", "a 32-bit float was refused"
    session.say({"type": "move", "places": [{"lat": float("inf"), "lng": 1}]})
    answer = session.take()
    assert (answer["type"], answer["code"]) == ("error", "bad-field")


@pytest.mark.parametrize("ref", ["x", "x" * 64, "é\u4e16\U0001f30d", 0, 1, 2**31, 2**53 - 1])
@pytest.mark.parametrize("fmt", FORMATS)
def test_ref_of_a_message_is_returned_unchanged(node: Node, join: Join, ref: str | int, fmt: str):
    """A `ref` is a string of 1 to 64 characters or an integer from 0 to 2^53-1 (protocol, section 5)."""
    session = join(node, fmt=fmt)
    session.say({"type": "ping", "ref": ref})
    answer = session.take()
    assert (answer["type"], answer["ref"], type(answer["ref"])) == ("pong", ref, type(ref))
    session.say({"type": "move", "places": [], "ref": ref})
    assert session.take() == {"type": "ok", "live": 0, "ref": ref}


def test_invalid_move_or_filter_message_changes_nothing(node: Node, join: Join):
    """If one of several places is invalid, the session keeps all its old places (protocol, section 5)."""
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


def test_session_that_sends_an_invalid_new_token_is_closed(node: Node, join: Join, keys: Keys):
    """A bad token and a token of another `sub` get 4401; a token without the scope to receive gets 4403."""
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
def test_ack_of_an_unknown_alert_is_accepted_without_an_answer(node: Node, join: Join, fmt: str):
    session = join(node, fmt=fmt)
    session.ack(new_id(), 1)
    session.ack("x" * 128, 2**31 - 1)
    session.say({"type": "ping"})
    assert session.take()["type"] == "pong"


# ---- valid sessions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", FORMATS)
def test_welcome_has_the_heartbeat_retry_times_and_a_unique_session_id(node: Node, join: Join, fmt: str):
    first, second = join(node, fmt=fmt), join(node, fmt=fmt)
    welcome = first.welcome
    assert welcome["live"] == 0
    assert welcome["heartbeat_s"] == 25
    assert 0 < welcome["retry"]["min_ms"] < welcome["retry"]["max_ms"]
    assert welcome["now"].endswith("Z")
    assert welcome["token_expires_at"].endswith("Z")
    assert first.welcome["session"] != second.welcome["session"]


@pytest.mark.parametrize("protocol", [JSON, MSGPACK])
def test_ordinary_websocket_library_receives_an_alert(node: Node, keys: Keys, protocol: str):
    """The protocol needs only RFC 6455: the client is the `websockets` library with its default settings."""
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


def test_hello_with_eight_places_of_every_kind_is_accepted(node: Node, join: Join):
    """The places include the limits of all ranges (protocol, section 5)."""
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


def test_hello_of_the_largest_size_is_accepted(node: Node, join: Join):
    """The `hello` names 256 alerts and filters by 64 categories (protocol, section 5)."""
    holding = {f"{'h' * 124}.{i:03}": 2**31 - 1 for i in range(256)}
    categories = [f"c_{i}" for i in range(64)]
    session = join(node, holding=holding, categories=categories, min_severity="minor")
    assert session.welcome["live"] == 0


def test_node_still_serves_after_all_refused_messages(node: Node):
    node.assert_serving()


def test_two_hundred_connections_with_invalid_messages_do_not_disturb_a_subscriber(node: Node, join: Join):
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
