"""The stream's AsyncAPI document: current, whole, and as strict as the parser."""

import copy
import json
import re

import pytest
from jsonschema_rs import Draft7Validator, Draft202012Validator
from jsonschema_rs import meta as metaschema
from support.schemas import ASYNCAPI, FROM_CLIENTS, FROM_SERVERS, asyncapi, message_validator

from geocast.api import asyncapi as module
from geocast.model import close_codes
from geocast.stream import session

MESSAGES = asyncapi()["components"]["messages"]
SCHEMAS = asyncapi()["components"]["schemas"]


def resolved(reference):
    """What a reference inside the document stands for."""
    found = asyncapi()
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def test_the_document_in_docs_is_the_one_that_a_node_serves():
    """`make asyncapi` renews it."""
    assert ASYNCAPI.read_text("utf-8") == module.text()


def test_every_reference_leads_somewhere():
    """AsyncAPI 3.0, Reference Object."""
    references = re.findall(r'"\$ref": "([^"]+)"', ASYNCAPI.read_text("utf-8"))
    assert references
    assert all(resolved(reference) for reference in references)


def test_every_message_of_the_contract_is_there_and_no_other():
    """M1 to M6, M11 to M16, M18 to M23."""
    assert set(MESSAGES) == {*FROM_CLIENTS, *FROM_SERVERS}
    assert set(FROM_CLIENTS) == set(session.MESSAGES)
    assert set(asyncapi()["channels"]["stream"]["messages"]) == set(MESSAGES)


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_schema_is_json_schema(name):
    """AsyncAPI's own dialect is a superset of Draft 7; pydantic writes 2020-12. These are both."""
    metaschema.validate(SCHEMAS[name] | {"$schema": "http://json-schema.org/draft-07/schema#"})
    metaschema.validate(SCHEMAS[name] | {"$schema": "https://json-schema.org/draft/2020-12/schema"})


@pytest.mark.parametrize("kind", [*FROM_CLIENTS, *FROM_SERVERS])
def test_the_examples_are_good_in_both_drafts(kind):
    """An example is what people copy."""
    components = {"components": {"schemas": SCHEMAS}}
    for example in MESSAGES[kind]["examples"]:
        for draft in (Draft7Validator, Draft202012Validator):
            # Draft 7 looks at nothing beside a reference.
            draft({"allOf": [MESSAGES[kind]["payload"]], **components}).validate(example["payload"])


UNASKED = {"alert", "cancel", "call", "task", "standdown"}


def test_each_question_has_its_answers():
    """Operations are the node's: it receives what clients send, and replies."""
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


def test_the_close_codes_are_those_of_the_code():
    """Section 5, close codes."""
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
def test_the_servers_messages_may_grow(kind):
    """G1: further fields are no mistake of the server; in the tests' own closed form they are."""
    message_validator(kind).validate(SERVER_MESSAGES[kind])
    grown = SERVER_MESSAGES[kind] | {"mood": "good"}
    message_validator(kind, strictly=False).validate(grown)
    assert not message_validator(kind).is_valid(grown)


def test_shapes_may_be_added_and_known_ones_stay_as_they_are():
    """G1: an area with a polygon is no mistake of the server, one with half a circle is."""
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
def test_what_the_parser_refuses_the_schema_refuses(message):
    """The schemas of clients' messages are closed, and made of the models that parse them."""
    with pytest.raises(session._Refused):
        session._parse(message["type"], {key: value for key, value in message.items() if key != "type"})
    assert not message_validator(message["type"]).is_valid(message)
