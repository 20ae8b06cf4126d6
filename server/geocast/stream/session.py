"""The conversation with one subscriber: parse the client's messages, call the hub, and answer.

    message      before `hello`      after `hello`
    ---------    ----------------    ------------------------------------------------
    hello        welcome             close 4400
    move         close 4400          new places, ok
    filter       close 4400          new filter, ok
    token        close 4400          new rights, ok; a token of another subject: close 4401
    ack          close 4400          counted, no answer
    accept       close 4400          task (go) or standdown (don't go), when the log has the decision; no `ref`
    decline      close 4400          recorded; standdown if the responder had a task
    report       close 4400          recorded, no answer
    ping         close 4400          pong
    try          close 4400          ok and a test alert; or error rate-limited or no-place
    other        close 4400          error unknown-type

This module has no socket and no clock. The table says what happens when a message arrives.

Mistakes are reported in the order of the protocol: first those in the shape of a message, then those in its token. A
message is validated as a whole before any part of it is applied, so a message that is refused changes nothing. Example:
a `filter` with a valid `min_severity` and a malformed category is answered with an `error`, and the whole old filter
stays in use.

Mistakes in `hello`, in the encoding and in tokens close the connection (X1 to X5). Any other mistake is answered with
an `error`, and the session goes on (X6, X7).
"""

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from ..auth.scopes import RECEIVE
from ..auth.tokens import Grant, TokenProof, TokenVerifier
from ..clock import Now
from ..geometry.sphere import cell_from_string, cell_place
from ..matching.filters import EVERYTHING, Filter
from ..matching.place_index import Place
from ..model import close_codes, languages
from ..model.alert import SEVERITY_RANK, Severity
from ..model.close_codes import SessionClosed
from ..model.errors import Malformed
from ..model.times import format_time
from ..wire.fields import Id, Latitude, Longitude, RevisionNumber, StrictModel, broken_fields
from ..wire.frames import Wire
from .hub import Hub, Peer, Rights

# A client that has lost its connection reconnects after a random time between these two. Otherwise all 20,000 clients
# of a node that restarts would reconnect in the same second. Responders reconnect sooner, because a call for help can't
# wait (RQ8).
RETRY_MIN_MS, RETRY_MAX_MS = 1_000, 30_000
RESPONDERS_MIN_MS, RESPONDERS_MAX_MS = 200, 3_000
MAX_ETA_S = 7_200
MAX_REF = 2**53 - 1  # the greatest integer that a JavaScript client represents exactly
MAX_PLACES, MAX_CATEGORIES, MAX_HOLDING = 8, 64, 256  # limits of one session
KEY_PATTERN = "^[A-Za-z0-9._:-]{1,64}$"  # of the `id` in a `try`; the id of the test alert has a prefix before it


# ---- the messages of clients -------------------------------------------------------------------------------------


def _known_cell(text: str) -> str:
    if cell_from_string(text) is None:
        raise PydanticCustomError("cell", "must be a valid H3 cell of resolution 7 to 15, in lower-case hex")
    return text


def _ref(ref: object) -> str | int:
    if isinstance(ref, str) and 1 <= len(ref) <= 64 and _is_encodable(ref):
        return ref
    if isinstance(ref, int) and not isinstance(ref, bool) and 0 <= ref <= MAX_REF:
        return ref
    raise PydanticCustomError("ref", "must be a string of 1 to 64 characters or an integer from 0 to 2^53 - 1")


def _is_encodable(text: str) -> bool:
    """Return whether the text can be encoded as UTF-8 and sent back: it has no lone surrogate."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


class PointPlace(StrictModel):
    """A point in degrees, with its accuracy in metres."""

    lat: Latitude
    lng: Longitude
    accuracy_m: Annotated[float, Field(ge=0, le=2000, allow_inf_nan=False)] = 0.0
    here: bool = False

    def place(self) -> Place:
        """Return the point as a place: latitude, longitude, and the accuracy in metres as its reach."""
        return self.lat, self.lng, self.accuracy_m


# The pattern checks the mode and the resolution of a cell. Not every match is a valid cell; `_known_cell` decides.
_CELL_SCHEMA = {"type": "string", "pattern": "^8[7-9a-f][0-9a-f]{13}$", "examples": ["8926cb19c93ffff"]}


class CellPlace(StrictModel):
    """An H3 cell instead of a point, for subscribers who don't want to reveal their exact place."""

    cell: Annotated[str, AfterValidator(_known_cell), WithJsonSchema(_CELL_SCHEMA)]
    here: bool = False

    def place(self) -> Place:
        """Return the cell as a place: its centre (latitude, longitude), and a reach in metres.

        The reach is the distance from the centre to the farthest corner.
        """
        cell = cell_from_string(self.cell)
        assert cell is not None
        return cell_place(cell)


AnyPlace = Annotated[
    Annotated[PointPlace, Tag("a point")] | Annotated[CellPlace, Tag("a cell")],
    Discriminator(lambda value: "a cell" if isinstance(value, dict) and "cell" in value else "a point"),
]


def _one_here(places: list[PointPlace | CellPlace]) -> list[PointPlace | CellPlace]:
    if sum(place.here for place in places) > 1:
        raise PydanticCustomError("here", "at most one place may be the one where the subscriber is now (`here`)")
    return places


Places = Annotated[list[AnyPlace], Field(max_length=MAX_PLACES), AfterValidator(_one_here)]
Languages = Annotated[
    list[Annotated[str, Field(pattern=languages.PATTERN, examples=["de-AT"])]], Field(max_length=languages.MAX_WANTED)
]
Categories = Annotated[list[Annotated[str, Field(pattern="^[a-z0-9_]{1,64}$")]], Field(max_length=MAX_CATEGORIES)]
_RefSchema = Annotated[str, Field(min_length=1, max_length=64)] | Annotated[int, Field(ge=0, le=MAX_REF)]
Ref = Annotated[str | int, PlainValidator(_ref, json_schema_input_type=_RefSchema)]


class Message(StrictModel):
    """Base class of the messages from clients, without the field `type`.

    Where a field has a default, that value means "left out" (see `model_fields_set`).
    """


class Answered(Message):
    """Base class of messages that may carry a `ref`, which the server repeats in its answer (F3)."""

    ref: Ref = 0

    def answer(self, kind: str) -> dict[str, Any]:
        """Return an answer to this message as a dict with this `type`.

        The answer repeats the `ref` of the message, if it has one.
        """
        return {"type": kind, "ref": self.ref} if "ref" in self.model_fields_set else {"type": kind}


class Hello(Message):
    """The first message on a connection. A client sends it exactly once."""

    token: str = ""
    places: Places
    # A factory for an empty container is called for each message; a container itself would be copied, which takes 3 µs.
    holding: Annotated[dict[Id, RevisionNumber], Field(max_length=MAX_HOLDING, default_factory=dict)]
    categories: Categories = Field(default_factory=list)
    min_severity: Severity = "minor"
    languages: Languages = Field(default_factory=list)


class Move(Answered):
    """A message with all places of the subscriber. They replace all places of earlier messages."""

    places: Places


class FilterBy(Answered):
    """A filter change: null clears a field, an omitted field stays the same. At least one field must be given."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [name]} for name in ("categories", "min_severity", "languages")]}
    )

    categories: Categories | None = None
    min_severity: Severity | None = None
    languages: Languages | None = None


class Refresh(Answered):
    """A new token for the session, with the same issuer and `sub` as the old one."""

    token: str


class Ack(Message):
    """The client's acknowledgement that it has shown this revision."""

    id: Id
    revision: RevisionNumber


class Accept(Message):
    """A responder's acceptance of a call, with the seconds until arrival. The answer is `task` or `standdown`."""

    id: Id
    eta_s: Annotated[int, Field(ge=0, le=MAX_ETA_S)] = 0


class Decline(Message):
    """A responder's refusal of a call, so that another responder can go instead. It may follow an earlier `accept`."""

    id: Id


class Progress(Message):
    """A responder's report during a call: the responder has a defibrillator, or has arrived."""

    id: Id
    state: Literal["aed", "arrived"]


class Ping(Answered):
    """A ping as a message of its own, because scripts in browsers can't see the pings of the WebSocket protocol."""


class Try(Answered):
    """A request for one test alert to this session alone. The alert's id is `try:` and then this `id`."""

    id: Annotated[str, Field(pattern=KEY_PATTERN, examples=["k3Hq9wZ2"])]


MESSAGES: dict[str, type[Message]] = {
    "hello": Hello,
    "move": Move,
    "filter": FilterBy,
    "token": Refresh,
    "ack": Ack,
    "accept": Accept,
    "decline": Decline,
    "report": Progress,
    "ping": Ping,
    "try": Try,
}
_REF: TypeAdapter[str | int] = TypeAdapter(Ref)


class _Refused(Exception):  # noqa: N818
    """Raised for a message that is answered with an `error` and changes nothing (X6, X7, TR5, TR6).

    `more` has further members of the `error`.
    """

    def __init__(
        self, code: Literal["unknown-type", "bad-field", "rate-limited", "no-place"], detail: str, **more: int
    ) -> None:
        super().__init__(code)
        self.members = {"code": code, "detail": detail, **more}


# ---- the conversation with one client ----------------------------------------------------------------------------


class Session:
    """The conversation with one subscriber over one connection, after the handshake.

    `row` is the session's number in the hub. It is -1 until `hello` has been accepted, and again after the connection
    has left the hub.
    """

    __slots__ = ("_hub", "_peer", "_proof", "_tokens", "row", "wire")

    def __init__(self, peer: Peer, wire: Wire, hub: Hub, tokens: TokenVerifier) -> None:
        self._peer = peer
        self.wire = wire
        self.row = -1
        self._hub = hub
        self._tokens = tokens
        self._proof: TokenProof | None = None  # of the last token; a new token needs the same subject (M4, HD5)

    def may_stay(self) -> bool:
        """Return whether the session's token is still valid under the current keys and revocations (BA3).

        Return True if the session has no token.
        """
        return self._proof is None or self._tokens.still_valid(self._proof)

    def receive(self, payload: bytes, now: Now) -> None:
        """Handle the payload of one message from the client.

        Raise SessionClosed if the message has a mistake that ends the session (X2 to X5).
        """
        try:
            fields = self.wire.loads(payload)
        except UnicodeDecodeError:
            raise SessionClosed(close_codes.BAD_UTF8) from None
        except Malformed:
            raise SessionClosed(close_codes.MALFORMED) from None
        kind = fields.pop("type", None)
        # `hello` must be the first message, and no other message may be a `hello` (X3).
        if not isinstance(kind, str) or (kind == "hello") == (self.row >= 0):
            raise SessionClosed(close_codes.MALFORMED)
        try:
            self._take(_parse(kind, fields), now)
        except _Refused as refused:
            if kind == "hello":
                raise SessionClosed(close_codes.MALFORMED) from None
            self._hub.reply(self.row, {"type": "error"} | refused.members | _ref_of(fields), now)

    def _take(self, message: Message, now: Now) -> None:
        """Apply a valid message, and answer it.

        For `move`, `filter` and `token`, the change is made before `ok` is written (R8).
        """
        match message:
            case Hello():
                self._hello(message, now)
            case Move():
                self._hub.move(self.row, [p.place() for p in message.places], _here(message.places))
                self._hub.reply_with_owed(self.row, message.answer("ok"), now)
            case FilterBy():
                self._hub.fanout.set_filter(self.row, _changed(self._hub.fanout.filter_of(self.row), message))
                self._hub.reply_with_owed(self.row, message.answer("ok"), now)
            case Refresh():
                self._hub.set_rights(self.row, Rights(self._grant(message.token, now), now))
                self._hub.reply_with_owed(self.row, message.answer("ok"), now)
            case Ack():
                self._hub.acknowledge(self.row, message.id, message.revision, now)
            case Accept():
                eta_s = message.eta_s if "eta_s" in message.model_fields_set else None
                self._hub.accept(self.row, message.id, eta_s, now)
            case Decline():
                self._hub.calls.decline(self.row, message.id)
            case Progress():
                self._hub.calls.report(self.row, message.id, message.state, now)
            case Ping():
                self._hub.reply(self.row, message.answer("pong") | {"now": format_time(now.wall_ms)}, now)
            case Try():
                self._send_own_test(message, now)

    def _send_own_test(self, asked: Try, now: Now) -> None:
        """Send the test alert that the client has asked for, around the first of its places (TR2).

        Raise _Refused if the session has no place, so that no alert would reach it (TR6), or if its subject has had a
        test within the last hour (TR5).
        """
        place, tests = self._hub.fanout.first_place(self.row), self._hub.own_tests
        if tests is None:
            raise _Refused("unknown-type", "this process sends no tests")
        if place is None:
            raise _Refused("no-place", "this session has no place, so no alert would reach it")
        if wait_s := tests.wait_s(None if self._proof is None else self._proof.subject, now):
            raise _Refused("rate-limited", f"the next test is allowed in {wait_s} s", retry_after_s=wait_s)
        self._hub.reply_with_own_test(self.row, asked.answer("ok"), tests.alert(asked.id, place, now), now)

    def _hello(self, hello: Hello, now: Now) -> None:
        """Check the token, register the session in the hub, and send `welcome`, followed by the live alerts.

        The token is checked before the hub is called, so a session that is refused leaves nothing there. `enter` and
        `reply_with_owed` get the same `now`, so that no alert starts or ends between the two calls.
        """
        grant = None
        if "token" in hello.model_fields_set or self._tokens.required:
            grant = self._grant(hello.token, now)
        wanted = _changed(EVERYTHING, hello)
        places = [p.place() for p in hello.places]
        self.row = self._hub.enter(
            self._peer, self.wire, places, wanted, Rights(grant, now), hello.holding, now, _here(hello.places)
        )
        welcome = {
            "type": "welcome",
            "session": secrets.token_urlsafe(12),
            "now": format_time(now.wall_ms),
            "heartbeat_s": self._hub.heartbeat_s,
            "retry": {"min_ms": RETRY_MIN_MS, "max_ms": RETRY_MAX_MS},
            "languages": list(wanted.languages),
        }
        if grant is not None and grant.quals:
            welcome["quals"] = sorted(grant.quals)
            if rest_until := self._hub.calls.rest_until(self.row, now):
                welcome["rest_until"] = format_time(rest_until)
            welcome["retry"] = {"min_ms": RESPONDERS_MIN_MS, "max_ms": RESPONDERS_MAX_MS}
        if grant is not None:
            welcome["token_expires_at"] = format_time(grant.expires_at)
        self._hub.reply_with_owed(self.row, welcome, now)

    def _grant(self, token: str, now: Now) -> Grant:
        """Verify the token, make it the session's token, and return what it grants (T6).

        Raise SessionClosed if the token is not valid, has another subject than the session's last token (M4), or lacks
        the scope to receive alerts. `unknown_key` of the exception says that the token may become valid when newer keys
        are fetched, so the connection may try once more.
        """
        grant = self._tokens.check(token, now)
        if grant is None or (self._proof is not None and self._proof.subject != grant.subject):
            raise SessionClosed(close_codes.BAD_TOKEN, unknown_key=not self._tokens.knows_key_of(token))
        if RECEIVE not in grant.scopes:
            raise SessionClosed(close_codes.NOT_ALLOWED)
        self._proof = grant.proof
        return grant


def _here(places: list[PointPlace | CellPlace]) -> int | None:
    """Return the index of the place marked as the subscriber's present location (`here`), or None if there is none."""
    return next((number for number, place in enumerate(places) if place.here), None)


def _parse(kind: str, fields: dict[str, Any]) -> Message:
    """Validate all fields of a message, and return the message.

    Raise _Refused for the first mistake, so that no part of an invalid message is applied.
    """
    model = MESSAGES.get(kind)
    if model is None:
        raise _Refused("unknown-type", "this type of message is not known")
    try:
        message = model.model_validate(fields)
    except ValidationError as error:
        first = broken_fields(error)[0]
        raise _Refused("bad-field", f"{first.pointer or '/'}: {first.detail}") from None
    if isinstance(message, FilterBy) and not message.model_fields_set - {"ref"}:
        raise _Refused("bad-field", "/: categories, min_severity or languages is needed")
    return message


def _ref_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dict with the `ref` of a refused message, or an empty dict if the `ref` is missing or malformed."""
    try:
        return {"ref": _REF.validate_python(fields["ref"])}
    except (KeyError, ValidationError):
        return {}


def _changed(old: Filter, by: Hello | FilterBy) -> Filter:
    """Return the filter `old`, changed as the message says: fields with a value replace the old ones.

    A field that is null is cleared, and a field that is left out stays as it is.
    """
    given = by.model_fields_set
    categories, min_rank, tags = old
    if "categories" in given:
        categories = None if by.categories is None else frozenset(by.categories)
    if "min_severity" in given:
        min_rank = 0 if by.min_severity is None else SEVERITY_RANK[by.min_severity]
    if "languages" in given:
        tags = languages.understood(by.languages or ())
    return Filter(categories, min_rank, tags)
