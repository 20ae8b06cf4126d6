"""Checks of every message and answer in a test run against the documents docs/asyncapi.json and `/openapi.json`.

The published schemas of the server's output are open, because the protocol may grow. The checks close the schemas: all
output of a release must be described in the documents of the same release.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema_rs import Draft202012Validator

ASYNCAPI = Path(__file__).resolve().parents[2] / "docs" / "asyncapi.json"
FROM_CLIENTS = ("hello", "move", "filter", "token", "ack", "accept", "decline", "report", "ping", "try")
FROM_SERVERS = ("welcome", "alert", "cancel", "call", "task", "standdown", "ok", "pong", "error")


def closed(schema: Any) -> Any:
    """Return a copy of a schema in which maps have only the listed fields and shapes only the known types."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if "properties" in found and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    if found.get("title") == "OtherShapeOut":
        return {"not": {}}
    return found


@cache
def asyncapi() -> dict[str, Any]:
    """Return the stream's AsyncAPI document."""
    return json.loads(ASYNCAPI.read_text("utf-8"))


@cache
def message_validator(kind: str, *, strictly: bool = True) -> Draft202012Validator:
    """Return a validator for one type of message; `strictly` closes the schema."""
    components = asyncapi()["components"]
    payload = components["messages"][kind]["payload"]
    schemas = closed(components["schemas"]) if strictly else components["schemas"]
    return Draft202012Validator({**payload, "components": {"schemas": schemas}})


def check_server_message(message: dict[str, Any]) -> None:
    """Fail unless the server may send this message."""
    assert message["type"] in FROM_SERVERS, f"no server may send {message}"
    message_validator(message["type"]).validate(message)


def check_client_message(message: dict[str, Any]) -> None:
    """Fail unless a client may send this message."""
    assert message["type"] in FROM_CLIENTS, f"no client may send {message}"
    message_validator(message["type"]).validate(message)


class ApiAnswers:
    """A checker of an api's answers against its own OpenAPI document."""

    def __init__(self, document: dict[str, Any]) -> None:
        schemas = closed(document["components"]["schemas"])
        self._paths = [
            (re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), item, {"components": {"schemas": schemas}})
            for path, item in document["paths"].items()
        ]
        self._validators: dict[str, Draft202012Validator] = {}

    def check(self, method: str, path: str, status: int, media_type: str, body: bytes) -> None:
        """Fail unless the document allows this answer. A path that the document does not list passes."""
        for pattern, item, components in self._paths:
            if pattern.fullmatch(path) and method.lower() in item:
                response = item[method.lower()]["responses"].get(str(status))
                assert response is not None, f"{method} {path}: {status} is not in the OpenAPI document"
                content = response["content"].get(media_type)
                assert content is not None, f"{method} {path}: {status} as {media_type} is not in the document"
                if "$ref" in content["schema"]:
                    self._validator(content["schema"]["$ref"], components).validate(json.loads(body))
                return

    def _validator(self, reference: str, components: dict[str, Any]) -> Draft202012Validator:
        if reference not in self._validators:
            self._validators[reference] = Draft202012Validator({"$ref": reference, **components})
        return self._validators[reference]
