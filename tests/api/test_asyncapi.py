"""Tests of the stream's AsyncAPI document: it is current, complete, and as strict as the parser."""

import copy
import json
import re

import pytest
from jsonschema_rs import Draft7Validator, Draft202012Validator
from jsonschema_rs import meta as metaschema
from support.schemas import ASYNCAPI, FROM_CLIENTS, FROM_SERVERS, asyncapi, message_validator

from docs.interfaces.__main__ import files
from geocast.model import close_codes
from geocast.stream import session

MESSAGES = asyncapi()["components"]["messages"]
SCHEMAS = asyncapi()["components"]["schemas"]


def resolved(reference):
    """Return the part of the document that a reference points to."""
    found = asyncapi()
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_stored_document_is_what_the_code_says(path):
    """`make interfaces` updates the stored files."""
    assert path.read_text("utf-8") == files()[path]


def test_every_reference_in_the_document_resolves():
    references = re.findall(r'"\$ref": "([^"]+)"', ASYNCAPI.read_text("utf-8"))
    assert references
    assert all(resolved(reference) for reference in references)


def test_document_has_exactly_the_messages_of_the_protocol():
    """The document has the messages of M1 to M6, M11 to M16 and M18 to M23, and no others."""
    assert set(MESSAGES) == {*FROM_CLIENTS, *FROM_SERVERS}
    assert set(FROM_CLIENTS) == set(session.MESSAGES)
    assert set(asyncapi()["channels"]["stream"]["messages"]) == set(MESSAGES)


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_schema_is_valid_in_both_json_schema_drafts(name):
    """AsyncAPI's dialect is a superset of Draft 7 and pydantic writes 2020-12, so each schema must be valid in both."""
    metaschema.validate(SCHEMAS[name] | {"$schema": "http://json-schema.org/draft-07/schema#"})
    metaschema.validate(SCHEMAS[name] | {"$schema": "https://json-schema.org/draft/2020-12/schema"})


@pytest.mark.parametrize("kind", [*FROM_CLIENTS, *FROM_SERVERS])
def test_every_example_is_valid_in_both_json_schema_drafts(kind):
    components = {"components": {"schemas": SCHEMAS}}
    for example in MESSAGES[kind]["examples"]:
        for draft in (Draft7Validator, Draft202012Validator):
            # Draft 7 ignores the keywords beside `$ref`.
            draft({"allOf": [MESSAGES[kind]["payload"]], **components}).validate(example["payload"])


UNASKED = {"alert", "cancel", "call", "task", "standdown"}


def test_each_client_message_lists_its_replies():
    """Operations are described from the node's side: it receives what clients send, and replies."""
    operations = asyncapi()["operations"]

    def replies(kind):
        return {ref["$ref"].rpartition("/")[2] for ref in operations[kind].get("reply", {}).get("messages", [])}

    assert {kind for kind in operations if operations[kind]["action"] == "receive"} == set(FROM_CLIENTS)
    assert {kind for kind in operations if operations[kind]["action"] == "send"} == UNASKED
    assert replies("hello") == {"welcome"}
    assert replies("move") == replies("filter") == replies("token") == {"ok", "error"}
    assert replies("ping") == {"pong", "error"}
    assert replies("accept") == {"task", "standdown", "error"}
    assert replies("decline") == {"standdown", "error"}
    assert replies("ack") == replies("report") == set()


def test_document_lists_all_close_codes():
    assert asyncapi()["channels"]["stream"]["x-close-codes"] == [
        {"code": close.code, "reason": close.reason, "reconnect": close.reconnect.value} for close in close_codes.ALL
    ]


SERVER_MESSAGES = {
    "ok": {"type": "ok", "live": 0},
    "pong": {"type": "pong", "now": "2031-05-01T12:00:25.402Z"},
    "alert": {
        "type": "alert",
        "alert": {
            "id": "a",
            "revision": 1,
            "category": "robbery",
            "title": "Robbery",
            "headline": "Robbery",
            "severity": "severe",
            "status": "actual",
            "source": "desk",
            "occurred_at": "2031-05-01T11:58:20.000Z",
            "issued_at": "2031-05-01T11:59:06.482Z",
            "expires_at": "2031-05-01T12:45:00.000Z",
            "area": [{"type": "circle", "lat": 32.7, "lng": -96.7, "radius_m": 1020.0}],
        },
    },
}


@pytest.mark.parametrize("kind", SERVER_MESSAGES)
def test_server_message_with_unknown_field_is_valid(kind):
    """Unknown fields are valid in the published schemas (G1), and invalid in the stricter ones of our tests."""
    message_validator(kind).validate(SERVER_MESSAGES[kind])
    grown = SERVER_MESSAGES[kind] | {"mood": "good"}
    message_validator(kind, strictly=False).validate(grown)
    assert not message_validator(kind).is_valid(grown)


def test_area_with_unknown_shape_is_valid_and_incomplete_circle_is_not():
    """Shapes of a new type may be added, but known types keep their fields (G1)."""
    message = copy.deepcopy(SERVER_MESSAGES["alert"])
    area = message["alert"]["area"]
    validator = message_validator("alert", strictly=False)
    area.append({"type": "polygon", "points": [[1, 2]]})
    assert validator.is_valid(message)
    assert not message_validator("alert").is_valid(message)
    area.append({"type": "circle", "lat": 1})
    assert not validator.is_valid(message)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "hello"},
        {"type": "hello", "places": [], "city": "Dallas"},
        {"type": "hello", "places": [{"lat": 91, "lng": 0}]},
        {"type": "hello", "places": [{"lat": 1, "lng": 2, "cell": "8926cb19c93ffff"}]},
        {"type": "hello", "places": [{"cell": "8926CB19C93FFFF"}]},
        {"type": "hello", "places": [{"cell": "8626cb19fffffff"}]},
        {"type": "hello", "places": [{"lat": 1, "lng": 2}] * 9},
        {"type": "hello", "places": [], "holding": {"a b": 1}},
        {"type": "hello", "places": [], "holding": {"a": 0}},
        {"type": "hello", "places": [], "holding": {f"a{n}": 1 for n in range(257)}},
        {"type": "hello", "places": [], "min_severity": None},
        {"type": "move", "places": [], "ref": ""},
        {"type": "move", "places": [], "ref": 2**53},
        {"type": "move", "places": [], "ref": True},
        {"type": "filter"},
        {"type": "filter", "ref": 1},
        {"type": "filter", "categories": ["UPPER"]},
        {"type": "token"},
        {"type": "ack", "id": "a", "revision": 2**31},
        {"type": "ack", "id": "a", "revision": 1, "ref": 1},
        {"type": "ping", "now": "2031-05-01T12:00:00.000Z"},
    ],
    ids=json.dumps,
)
def test_schema_refuses_messages_that_the_parser_refuses(message):
    """The schemas of clients' messages are closed, and made from the models that parse the messages."""
    with pytest.raises(session._Refused):
        session._parse(message["type"], {key: value for key, value in message.items() if key != "type"})
    assert not message_validator(message["type"]).is_valid(message)
