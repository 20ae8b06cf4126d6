"""The AsyncAPI 3.0 document that describes the stream, as the OpenAPI document describes the HTTP API.

The schemas of clients' messages come from the models with which `stream/session.py` validates them, so the document
can't differ from the code. These schemas are closed: clients may send only the fields that are listed (rule G3). The
schemas of the server's messages are open, because later releases may add fields (rule G1). The docstrings of the models
are the descriptions in the document.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from geocast import __version__
from geocast.calls.aeds import MOST
from geocast.calls.eligibility import Reason
from geocast.calls.messages import CallOut
from geocast.model import close_codes
from geocast.model.alert import Status
from geocast.model.call import PlaceKind, Role
from geocast.model.languages import MAX_WANTED
from geocast.model.qualifications import MAX_QUALS
from geocast.stream.connection import BURST, HELLO_S, MAX_HELLO_BYTES, MAX_MESSAGE_BYTES, PATH, RATE_PER_S
from geocast.stream.hub import HEARTBEAT_S, SILENCE_S
from geocast.stream.session import MESSAGES, Ref
from geocast.wire.fields import Id, Latitude, Longitude, Phone, RevisionNumber
from geocast.wire.frames import JSON, MSGPACK, WIRES
from geocast.wire.output import AlertOut, LanguageOut, TimeOut

from .schemas import REF, schemas_of

PONG_S = 10  # how long a client waits for the answer to its `ping` (rule W9)

Qual = Annotated[str, Field(pattern="^[a-z0-9_]{1,32}$")]
Base64Url = Annotated[str, Field(pattern="^[A-Za-z0-9_-]+$", max_length=1_024)]
_LIVE = "Number of messages that follow at once: first those about calls, then cancels, then alerts by severity."
_REST = "Until when this person is not called to anybody else, because they have just helped."
_WAIT = "Only with the code `rate-limited`: the number of seconds after which a `try` is accepted again."
_Live = Annotated[int, Field(ge=0, description=_LIVE)]


class RetryOut(BaseModel):
    """A range in ms, within which a client chooses a random delay before it reconnects (W5)."""

    min_ms: Annotated[int, Field(ge=0)]
    max_ms: Annotated[int, Field(ge=0)]


class Welcome(BaseModel):
    """The answer to `hello`: the session is open (M11)."""

    type: Literal["welcome"]
    session: Annotated[str, Field(min_length=1)]
    now: TimeOut
    live: _Live
    heartbeat_s: Annotated[float, Field(gt=0)]
    retry: RetryOut
    languages: Annotated[list[LanguageOut], Field(max_length=MAX_WANTED)]
    token_expires_at: TimeOut = ""
    quals: Annotated[list[Qual], Field(min_length=1, max_length=MAX_QUALS)] = []
    rest_until: Annotated[TimeOut, Field(description=_REST)] = ""


class SignatureOut(BaseModel):
    """A reviewer's signature over the text `form`: a JWS with detached content (RFC 7515, appendix F)."""

    protected: Base64Url
    signature: Base64Url


class ProofOut(BaseModel):
    """The exact text that reviewers have signed, and their signatures (F9)."""

    form: Annotated[str, Field(min_length=1)]
    signatures: Annotated[list[SignatureOut], Field(min_length=1, max_length=8)]


class ProvedAlertOut(BaseModel):
    """The fields of an alert that are sent in addition to its `proof` (F9). All other fields are in the signed text."""

    id: Id
    revision: RevisionNumber
    issued_at: TimeOut


_NO_PROOF = ProofOut.model_construct(form="", signatures=[])


class AlertMessage(BaseModel):
    """A revision of an alert (M12). On a stream with reviewers' signatures, `proof` may have the content (F9)."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"required": ["proof"]},
            "then": {"properties": {"alert": {"$ref": REF.format(model="ProvedAlertOut")}}},
            "else": {"properties": {"alert": {"$ref": REF.format(model="AlertOut")}}},
        }
    )

    type: Literal["alert"]
    alert: AlertOut | ProvedAlertOut
    proof: ProofOut = _NO_PROOF


class CancelMessage(BaseModel):
    """The end of an alert that this session received or listed in `holding` (M13). `proof` may have the reason (F9)."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["reason"]}, {"required": ["proof"]}]})

    type: Literal["cancel"]
    id: Id
    revision: RevisionNumber
    reason: Annotated[str, Field(min_length=1, max_length=280)] = ""
    cancelled_at: TimeOut
    proof: ProofOut = _NO_PROOF


class CallMessage(BaseModel):
    """A call for help near the responder (M21). All responders get the same text; each client computes its distance."""

    type: Literal["call"]
    call: CallOut


class ExactPlaceOut(BaseModel):
    """The place where help is needed, in degrees, and how to get in."""

    lat: Latitude
    lng: Longitude
    kind: PlaceKind
    address: Annotated[str, Field(min_length=1, max_length=200)] = ""
    access: Annotated[str, Field(min_length=1, max_length=500)] = ""
    callback_phone: Phone = ""


class AedOut(BaseModel):
    """A defibrillator.

    `open` is null if its opening hours are unknown. Only the responder who fetches the defibrillator gets the `code`.
    """

    id: Annotated[str, Field(min_length=1)]
    lat: Latitude
    lng: Longitude
    open: bool | None
    where: str = ""
    level: str = ""
    indoor: bool = False
    code: str = ""


class TaskMessage(BaseModel):
    """The task of a responder who was accepted for a call (M22).

    `fetch` is the index, in `aeds`, of the AED to bring.
    """

    type: Literal["task"]
    id: Id
    revision: RevisionNumber
    seat: Annotated[int, Field(ge=0)]
    role: Role
    place: ExactPlaceOut
    aeds: Annotated[list[AedOut], Field(max_length=MOST)]
    fetch: Annotated[int, Field(ge=0, lt=MOST)] = 0
    status: Status
    expires_at: TimeOut


class StanddownMessage(BaseModel):
    """The message that ends a call or task for this responder, or refuses the responder's offer to go (M23)."""

    type: Literal["standdown"]
    id: Id
    reason: Reason
    rest_until: Annotated[TimeOut, Field(description=_REST)] = ""


class Ok(BaseModel):
    """The answer to `move`, `filter` and `token` (M14), and to `try`, which the test alert follows (TR1)."""

    type: Literal["ok"]
    ref: Ref = 0
    live: _Live


class Pong(BaseModel):
    """The answer to `ping`, with the time of the server's clock (M15)."""

    type: Literal["pong"]
    ref: Ref = 0
    now: TimeOut


class Error(BaseModel):
    """The answer to a message that can't be applied. The session continues (M16)."""

    type: Literal["error"]
    code: Annotated[str, Field(examples=["unknown-type", "bad-field", "rate-limited", "no-place"])]
    detail: str
    ref: Ref = 0
    retry_after_s: Annotated[int, Field(ge=1, description=_WAIT)] = 1


_ANSWERS: dict[str, type[BaseModel]] = {
    "welcome": Welcome,
    "alert": AlertMessage,
    "cancel": CancelMessage,
    "call": CallMessage,
    "task": TaskMessage,
    "standdown": StanddownMessage,
    "ok": Ok,
    "pong": Pong,
    "error": Error,
}
# For each type of message from a client, the messages with which the node may answer. It does not answer `ack` and
# `report`.
_REPLIES = {
    "hello": ["welcome"],
    "move": ["ok", "error"],
    "filter": ["ok", "error"],
    "token": ["ok", "error"],
    "accept": ["task", "standdown", "error"],
    "decline": ["standdown", "error"],
    "ping": ["pong", "error"],
    "try": ["ok", "error"],
}
_POINT = {"lat": 32.78, "lng": -96.8, "accuracy_m": 25}
_EXAMPLES: dict[str, dict[str, Any]] = {
    "hello": {
        "places": [_POINT | {"here": True}, {"cell": "8926cb19c93ffff"}],
        "holding": {"desk-7.e3b0c442": 1},
        "languages": ["fr-CA", "en"],
    },
    "move": {"ref": 7, "places": [_POINT]},
    "filter": {"ref": 8, "categories": None, "min_severity": "severe"},
    "token": {"ref": "t1", "token": "eyJhbGciOiJFZERTQSIs…"},
    "ack": {"id": "desk-7.e3b0c442", "revision": 2},
    "accept": {"id": "cad-3.8f1c02aa", "eta_s": 240},
    "decline": {"id": "cad-3.8f1c02aa"},
    "report": {"id": "cad-3.8f1c02aa", "state": "arrived"},
    "ping": {"ref": 9},
    "try": {"id": "k3Hq9wZ2", "ref": 10},
    "welcome": {
        "session": "K3v0Zq9d",
        "now": "2031-05-01T12:00:00.125Z",
        "live": 1,
        "heartbeat_s": HEARTBEAT_S,
        "retry": {"min_ms": 1000, "max_ms": 30_000},
        "languages": ["fr-ca", "en"],
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
    "call": {
        "call": {
            "id": "cad-3.8f1c02aa",
            "revision": 1,
            "category": "cardiac_arrest",
            "title": "Cardiac arrest: CPR needed",
            "headline": "Adult, not breathing. A bystander does compressions.",
            "status": "actual",
            "source": "cad-3",
            "occurred_at": "2031-05-01T12:00:00.000Z",
            "issued_at": "2031-05-01T12:00:02.118Z",
            "expires_at": "2031-05-01T12:30:00.000Z",
            "answer_s": 30,
            "near": {"type": "circle", "lat": 47.67825933515865, "lng": 8.830423174775438, "radius_m": 210.0},
        },
    },
    "task": {
        "id": "cad-3.8f1c02aa",
        "revision": 4,
        "seat": 2,
        "role": "aed",
        "status": "actual",
        "expires_at": "2031-05-01T12:30:00.000Z",
        "place": {
            "lat": 47.6780089,
            "lng": 8.8311129,
            "kind": "residence",
            "address": "Lindenweg 7, third floor",
            "access": "The key is with the neighbour.",
            "callback_phone": "+41 52 555 01 12",
        },
        "aeds": [
            {"id": "node/1", "lat": 47.6772, "lng": 8.83, "open": True, "where": "Town hall", "code": "2580"},
        ],
        "fetch": 0,
    },
    "standdown": {"id": "cad-3.8f1c02aa", "reason": "full"},
    "ok": {"ref": 7, "live": 0},
    "pong": {"ref": 9, "now": "2031-05-01T12:00:25.402Z"},
    "error": {"ref": 8, "code": "bad-field", "detail": "must be one of extreme, severe, moderate, minor"},
}
_SIGNATURE = {"protected": "eyJhbGciOiJFZDI1NTE5Iiwi", "signature": "w1p9Kx0a"}
_PROVED_EXAMPLES: dict[str, dict[str, Any]] = {
    "alert": {
        "alert": {"id": "desk-7.e3b0c442", "revision": 1, "issued_at": "2031-05-01T11:59:06.482Z"},
        "proof": {"form": '{"v":1,"what":"alert",…}', "signatures": [_SIGNATURE]},
    },
    "cancel": {
        "id": "desk-7.e3b0c442",
        "revision": 3,
        "cancelled_at": "2031-05-01T12:20:01.003Z",
        "proof": {"form": '{"v":1,"what":"cancel",…}', "signatures": [_SIGNATURE]},
    },
}
_DESCRIPTION = f"""\
One WebSocket serves one subscriber. `docs/protocol.md` is the contract; this document describes the messages.

- **Formats.** Each message is one map. `{JSON.subprotocol}`: JSON in text frames. `{MSGPACK.subprotocol}`: the
  same map as MessagePack in binary frames. With the suffix `.signed`, alerts and cancels that reviewers have signed
  are sent in their signed form. No extension is negotiated; a URL with a query string is refused.
- **Order.** A client sends `hello` first, within {HELLO_S:g} s, and only once. A `welcome` or an `ok` is followed by
  as many messages as its `live` says: `standdown`, `task` and `call`, then `cancel` and `alert`.
- **Calls** are for responders with a qualification: `welcome` lists the qualifications that count, and a place may then
  have `here`. A `call` asks for help. The answer to `accept` is a `task` with the exact place, or a `standdown`.
- **Growing.** Clients ignore messages and fields that they don't know, and send only those that are listed here.
- **Limits.** A `hello` has at most {MAX_HELLO_BYTES} bytes, any other message {MAX_MESSAGE_BYTES}. A client sends at
  most {RATE_PER_S:g} messages per second on average, and {BURST} in a burst.
- **Heartbeat.** The server pings (RFC 6455) a connection after `heartbeat_s` without a message to the client, and drops
  the connection if no byte arrives for {SILENCE_S:g} s more. A client that can't see pings sends `ping` after
  `heartbeat_s` without a message, and considers the connection dead {PONG_S} s later.
- **Close codes** are in `x-close-codes` of the channel, with the client's reaction to each.
"""


def _client_schemas() -> dict[str, Any]:
    """Return the JSON Schemas of the messages that clients send, as a dict from model name to schema.

    In each schema, the field `type` is added.
    """
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
    examples = [each[kind] for each in (_EXAMPLES, _PROVED_EXAMPLES) if kind in each]
    if examples:
        message["examples"] = [{"payload": {"type": kind, **example}} for example in examples]
    return message


def _to_channel(kinds: list[str]) -> list[dict[str, str]]:
    return [{"$ref": f"#/channels/stream/messages/{kind}"} for kind in kinds]


_CHANNEL = {"$ref": "#/channels/stream"}


def _operations() -> dict[str, Any]:
    """Return the AsyncAPI operations of the node, as a dict from name to operation.

    The node receives each message of clients and answers it. It also sends alerts and messages about calls, without
    being asked.
    """
    operations: dict[str, Any] = {}
    for kind in MESSAGES:
        operations[kind] = {"action": "receive", "channel": _CHANNEL, "messages": _to_channel([kind])}
        if kind in _REPLIES:
            operations[kind]["reply"] = {"channel": _CHANNEL, "messages": _to_channel(_REPLIES[kind])}
    for kind in ("alert", "cancel", "call", "task", "standdown"):
        operations[kind] = {"action": "send", "channel": _CHANNEL, "messages": _to_channel([kind])}
    return operations


def document() -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document of the stream listener."""
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
            "node": {"host": "127.0.0.1:8765", "protocol": "ws", "description": "A node, at the address of --stream"},
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
                                    "description": "The server selects the first that it knows, in the client's order.",
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
                    for close in close_codes.ALL
                ],
            }
        },
        "operations": _operations(),
        "components": {"messages": messages, "schemas": _client_schemas() | schemas_of(*_ANSWERS.values())},
    }
