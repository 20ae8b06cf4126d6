"""The document in which the stream describes itself: AsyncAPI 3.0, beside the api's OpenAPI.

The schemas of clients' messages are made of the models that `session.py` validates with, so that the document can't
differ from the code. They are closed: a client sends nothing that is not named (G3). The schemas of the server's
messages are open, because the protocol grows (G1). `python -m geocast.net.asyncapi` prints the document.

The docstrings of the models stand in the document as descriptions.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from .. import __version__, closing
from ..fields import Id, RevisionNumber
from ..frames import WIRES
from ..hub import SILENCE_S
from ..session import HEARTBEAT_S, MESSAGES, Ref
from .documents import AlertOut, TimeOut, schemas_of
from .websocket import BURST, HELLO_S, MAX_HELLO_BYTES, MAX_MESSAGE_BYTES, PATH, RATE_PER_S

PONG_S = 10  # W9: how long a client that sends `ping` waits for an answer

_Live = Annotated[int, Field(ge=0, description="How many messages follow at once: cancels, then the most severe.")]


class RetryOut(BaseModel):
    """The window over which to spread a reconnect (W5)."""

    min_ms: Annotated[int, Field(ge=0)]
    max_ms: Annotated[int, Field(ge=0)]


class Welcome(BaseModel):
    """The session is open: the answer to `hello` (M11)."""

    type: Literal["welcome"]
    session: Annotated[str, Field(min_length=1)]
    now: TimeOut
    live: _Live
    heartbeat_s: Annotated[float, Field(gt=0)]
    retry: RetryOut
    token_expires_at: TimeOut = ""


class AlertMessage(BaseModel):
    """A revision of an alert (M12)."""

    type: Literal["alert"]
    alert: AlertOut


class CancelMessage(BaseModel):
    """An alert that this session was sent, or says it holds, is over (M13)."""

    type: Literal["cancel"]
    id: Id
    revision: RevisionNumber
    reason: Annotated[str, Field(min_length=1, max_length=280)]
    cancelled_at: TimeOut


class Ok(BaseModel):
    """The answer to `move`, `filter` and `token` (M14)."""

    type: Literal["ok"]
    ref: Ref = 0
    live: _Live


class Pong(BaseModel):
    """The answer to `ping`, with the server's clock (M15)."""

    type: Literal["pong"]
    ref: Ref = 0
    now: TimeOut


class Error(BaseModel):
    """Nothing of the message was applied; the session goes on (M16)."""

    type: Literal["error"]
    code: Annotated[str, Field(examples=["unknown-type", "bad-field"])]
    detail: str
    ref: Ref = 0


_ANSWERS: dict[str, type[BaseModel]] = {
    "welcome": Welcome,
    "alert": AlertMessage,
    "cancel": CancelMessage,
    "ok": Ok,
    "pong": Pong,
    "error": Error,
}
# The messages that may answer one of a client's. An `ack` has no answer.
_REPLIES = {
    "hello": ["welcome"],
    "move": ["ok", "error"],
    "filter": ["ok", "error"],
    "token": ["ok", "error"],
    "ping": ["pong", "error"],
}
_POINT = {"lat": 32.78, "lng": -96.8, "accuracy_m": 25}
_EXAMPLES: dict[str, dict[str, Any]] = {
    "hello": {"places": [_POINT, {"cell": "8926cb19c93ffff"}], "holding": {"desk-7.e3b0c442": 1}},
    "move": {"ref": 7, "places": [_POINT]},
    "filter": {"ref": 8, "categories": None, "min_severity": "severe"},
    "token": {"ref": "t1", "token": "eyJhbGciOiJFZERTQSIs…"},
    "ack": {"id": "desk-7.e3b0c442", "revision": 2},
    "ping": {"ref": 9},
    "welcome": {
        "session": "K3v0Zq9d",
        "now": "2031-05-01T12:00:00.125Z",
        "live": 1,
        "heartbeat_s": HEARTBEAT_S,
        "retry": {"min_ms": 1000, "max_ms": 30_000},
    },
    "alert": {
        "alert": {
            "id": "desk-7.e3b0c442",
            "revision": 1,
            "category": "fire_structure",
            "title": "Structure fire",
            "headline": "Building on fire. Keep windows closed and stay away.",
            "severity": "severe",
            "status": "actual",
            "source": "desk-7",
            "occurred_at": "2031-05-01T11:58:20.000Z",
            "issued_at": "2031-05-01T11:59:06.482Z",
            "expires_at": "2031-05-01T12:45:00.000Z",
            "area": [{"type": "circle", "lat": 32.77651106192115, "lng": -96.79535520104106, "radius_m": 1020.0}],
        },
    },
    "cancel": {
        "id": "desk-7.e3b0c442",
        "revision": 3,
        "reason": "The fire is out.",
        "cancelled_at": "2031-05-01T12:20:01.003Z",
    },
    "ok": {"ref": 7, "live": 0},
    "pong": {"ref": 9, "now": "2031-05-01T12:00:25.402Z"},
    "error": {"ref": 8, "code": "bad-field", "detail": "must be one of extreme, severe, moderate, minor"},
}
_DESCRIPTION = f"""\
One WebSocket, for one subscriber. `docs/protocol.md` is the contract; this document is its form.

- **Formats.** Each message is one map. `{WIRES[0].subprotocol}`: JSON in text frames. `{WIRES[1].subprotocol}`: the
  same map as MessagePack in binary frames. No extension is negotiated; a URL with a query string is refused.
- **Order.** `hello` comes first, within {HELLO_S:g} s, and once. Directly behind a `welcome` or an `ok` come as many
  `alert` and `cancel` messages as its `live` says.
- **Growing.** Clients skip messages and fields that they don't know. Clients send nothing that is not named here.
- **Limits.** A `hello` has at most {MAX_HELLO_BYTES} bytes, any other message {MAX_MESSAGE_BYTES}. A client sends at
  most {RATE_PER_S:g} messages a second on average, and {BURST} in a burst.
- **Heartbeat.** The server pings (RFC 6455) a connection to which nothing was written for `heartbeat_s`, and drops one
  from which no byte came for {SILENCE_S:g} s more than that. A client that can't see pings sends `ping` after
  `heartbeat_s` without a message, and takes the connection for dead {PONG_S} s later.
- **Close codes** are in `x-close-codes` of the channel, with what a client does after each.
"""


def _client_schemas() -> dict[str, Any]:
    """The schemas of `session.MESSAGES` by the name of the model, with the `type` in front, which the models lack."""
    found = schemas_of(*MESSAGES.values())
    for kind, model in MESSAGES.items():
        schema = found[model.__name__]
        schema["properties"] = {"type": {"type": "string", "const": kind}, **schema["properties"]}
        schema["required"] = ["type", *schema.get("required", [])]
    return found


def _message(kind: str, model: type[BaseModel]) -> dict[str, Any]:
    message: dict[str, Any] = {
        "name": kind,
        "summary": model.__doc__,
        "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
    }
    if "ref" in model.model_fields:
        message["correlationId"] = {"location": "$message.payload#/ref"}
    if kind in _EXAMPLES:
        message["examples"] = [{"payload": {"type": kind, **_EXAMPLES[kind]}}]
    return message


def _to_channel(kinds: list[str]) -> list[dict[str, str]]:
    return [{"$ref": f"#/channels/stream/messages/{kind}"} for kind in kinds]


_CHANNEL = {"$ref": "#/channels/stream"}


def _operations() -> dict[str, Any]:
    """The operations of the node: it receives what clients send, and replies; and it sends alerts and cancels."""
    operations: dict[str, Any] = {}
    for kind in MESSAGES:
        operations[kind] = {"action": "receive", "channel": _CHANNEL, "messages": _to_channel([kind])}
        if kind in _REPLIES:
            operations[kind]["reply"] = {"channel": _CHANNEL, "messages": _to_channel(_REPLIES[kind])}
    for kind in ("alert", "cancel"):
        operations[kind] = {"action": "send", "channel": _CHANNEL, "messages": _to_channel([kind])}
    return operations


def document() -> dict[str, Any]:
    """The AsyncAPI 3.0 document of the stream listener."""
    messages = {kind: _message(kind, model) for kind, model in {**MESSAGES, **_ANSWERS}.items()}
    subprotocols = [wire.subprotocol for wire in WIRES]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "geocast stream",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "node": {"host": "127.0.0.1:8765", "protocol": "ws", "description": "A node, where --stream says"},
            "public": {
                "host": "{host}",
                "protocol": "wss",
                "description": "A node behind a proxy that speaks TLS",
                "variables": {"host": {"default": "alerts.example"}},
            },
        },
        "channels": {
            "stream": {
                "address": PATH,
                "title": "One subscriber's session",
                "messages": {kind: {"$ref": f"#/components/messages/{kind}"} for kind in messages},
                "bindings": {
                    "ws": {
                        "method": "GET",
                        "headers": {
                            "type": "object",
                            "required": ["Sec-WebSocket-Protocol"],
                            "properties": {
                                "Sec-WebSocket-Protocol": {
                                    "type": "string",
                                    "description": "The server takes the first that it knows, in the client's order.",
                                    "examples": subprotocols,
                                }
                            },
                        },
                        "bindingVersion": "0.1.0",
                    }
                },
                "x-subprotocols": subprotocols,
                "x-heartbeat": {"heartbeat_s": HEARTBEAT_S, "pong_s": PONG_S, "silence_s": HEARTBEAT_S + SILENCE_S},
                "x-close-codes": [
                    {"code": close.code, "reason": close.reason, "reconnect": close.reconnect.value}
                    for close in closing.ALL
                ],
            }
        },
        "operations": _operations(),
        "components": {"messages": messages, "schemas": _client_schemas() | schemas_of(*_ANSWERS.values())},
    }


def text() -> str:
    """The document as JSON, byte for byte as it lies in docs/asyncapi.json."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
