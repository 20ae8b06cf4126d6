"""The entries of a call for help in the log. All entries of a call together are its chain.

An entry of the kind `call` begins the chain. Later entries of this kind replace the content of the call. Nothing
follows the entry of the kind `end`. Each entry has two parts:

- the *body*, in plain text: a process with access to the log can read it, but can't change it unnoticed;
- the *secret*, encrypted: a place, a person or a reason (rule RZ3).

Both are MessagePack maps whose keys are the names of the fields here. Keys that this release does not know are ignored
(rule G4).

A *seat* is the assignment of one responder to a call. Times are in ms since 1970.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import msgpack
from pydantic import TypeAdapter, ValidationError

from .alert import Circle, OtherKind

Kind = Literal["call", "widen", "claim", "release", "report", "end"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Role = Literal["cpr", "aed"]
SeatState = Literal["going", "aed", "arrived"]
PlaceKind = Literal["public", "residence"]

MOVED: tuple[Kind, ...] = ("claim", "end")  # kinds of entries that may get a higher number after they were encrypted


@dataclass(frozen=True, slots=True)
class CallEntry(OtherKind):
    """A log entry of a call for help, as it is stored.

    Code that only knows alerts treats it as an entry of an unknown kind.

    `ends_at` equals the call's `expires_at` in all entries of a call. `sealed_as` is 0 if the entry was encrypted under
    its present number. But if the log loses a `claim` or an `end`, the entry is put back under a higher number (rules
    RV7 and RZ3); then `sealed_as` is the number under which it was encrypted.
    """

    kind: Kind
    plain: bytes  # the body
    sealed: bytes  # the encrypted secret, which every entry has
    sealed_as: int = 0


@dataclass(frozen=True, slots=True)
class CallTerms:
    """The values of the policy that apply to a call from its opening to its end (rule RO3).

    They stay the same even if the policy changes. `quals` lists the qualifications of responders that count for the
    call's kind of place. Fields that end in `_m` are in metres, those in `_s` in seconds.
    """

    title: str
    quals: list[str]
    rings_m: list[int]
    enough: int
    seats: list[Role]
    answer_s: int
    rest_s: int
    aed_m: int
    location_resolution: int
    max_age_s: int = 1_800


# ---- bodies, the public parts of entries ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opening:
    """The public part of an entry `call`: the content of the call without the exact place.

    `source` is the dispatcher who opened the call. `by` is the dispatcher who sent this content; None if both are the
    same. `issuer` and `by_issuer` are the issuers of the two dispatchers' tokens (rule HD5). `replaces` is the number
    of the entry with the previous content; 0 if this is the first content. `near` is the approximate location, which is
    shown to the responders who are notified (rule RZ6).
    """

    category: str
    headline: str
    status: str
    source: str
    occurred_at: int
    issued_at: int
    expires_at: int
    near: Circle
    terms: CallTerms
    replaces: int = 0
    by: str | None = None
    issuer: str = ""
    by_issuer: str = ""


@dataclass(frozen=True, slots=True)
class Widening:
    """The public part of an entry `widen`, which says to which radius the search was widened, and when.

    `ring` is the index of the new radius in `rings_m` of the call's terms. `at` is in ms since 1970.
    """

    ring: int
    at: int


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The public part of an entry `claim`: a person accepts the call, and gets a seat and a role (rule RV1).

    A seat is the person's assignment to the call. `aed` is the id of the defibrillator to fetch, or None.
    """

    seat: int
    role: Role
    at: int
    eta_s: int | None = None
    aed: str | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """The public part of an entry `release`: a person gives up a seat (the person's assignment to the call)."""

    seat: int
    at: int


@dataclass(frozen=True, slots=True)
class Report:
    """The public part of an entry `report`: the progress of a responder who is assigned to the call.

    `seat` is the number of the person's assignment. `state` is the progress, for instance that the person has arrived.
    """

    seat: int
    state: SeatState
    at: int


@dataclass(frozen=True, slots=True)
class Ending:
    """The public part of an entry `end`, with which a call ends.

    `source` is the dispatcher who ended the call; None if the call expired. `call` is the final content of the call. It
    is repeated here so that it stays readable after the older entries are deleted (rule RZ4).
    """

    source: str | None
    at: int
    call: Opening
    issuer: str = ""


Body = Opening | Widening | Acceptance | Release | Report | Ending


# ---- secrets, the encrypted parts of entries -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ExactPlace:
    """The exact place where help is needed: coordinates in degrees, the kind of place, and directions in words.

    `callback_phone` is the telephone number at which responders can reach the dispatcher.
    """

    lat: float
    lng: float
    kind: PlaceKind
    address: str | None = None
    access: str | None = None
    callback_phone: str | None = None

    def to_map(self) -> dict[str, Any]:
        """Return the member `place` of the message `task`. Fields that are None are left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Person:
    """A person who may respond, identified by the `sub` and the issuer of the person's token (rule HD5).

    An empty issuer, as in entries from before rule HD5, means that the token is verified with the node's own keys.
    """

    sub: str
    issuer: str = ""


@dataclass(frozen=True, slots=True)
class Reason:
    """The reason that a dispatcher gave for ending a call, kept for audits; None if the call expired."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Nothing:
    """The secret of entries that have nothing to hide. It is empty, but is encrypted like any other secret."""


Secret = ExactPlace | Person | Reason | Nothing

_PARTS: Mapping[Kind, tuple[type[Body], type[Secret]]] = {
    "call": (Opening, ExactPlace),
    "widen": (Widening, Nothing),
    "claim": (Acceptance, Person),
    "release": (Release, Person),
    "report": (Report, Person),
    "end": (Ending, Reason),
}
_KIND_OF = {body: kind for kind, (body, _) in _PARTS.items()}
_READERS = {part: TypeAdapter[Any](part) for parts in _PARTS.values() for part in parts}


def kind_of(body: Body) -> Kind:
    """Return the kind of entry (such as "claim") to which this public part of an entry (the body) belongs."""
    return _KIND_OF[type(body)]


def packed(part: Body | Secret) -> bytes:
    """Return the public or the secret part of an entry as bytes, for storing.

    `body_of` and `secret_of` read such bytes.
    """
    found: bytes = msgpack.packb(asdict(part))
    return found


def body_of(entry: CallEntry) -> Body:
    """Return the public part (body) of an entry, decoded from its bytes.

    Raise ValueError if the bytes do not have the form that belongs to the entry's kind.
    """
    body: Body = _read(_PARTS[entry.kind][0], entry.plain)
    return body


def secret_of(kind: Kind, opened: bytes) -> Secret:
    """Return the secret of an entry, decoded from its decrypted bytes `opened`.

    Raise ValueError if the bytes do not have the form that belongs to `kind`, the kind of the entry.
    """
    secret: Secret = _read(_PARTS[kind][1], opened)
    return secret


def _read(wanted: type[Body] | type[Secret], data: bytes) -> Any:
    try:
        return _READERS[wanted].validate_python(msgpack.unpackb(data, strict_map_key=False))
    except ValidationError:
        raise ValueError(f"not a body or a secret: {wanted.__name__}") from None
    # msgpack raises exceptions of its own classes, so a shorter list of exceptions is not possible.
    except Exception as error:
        raise ValueError(f"not a body or a secret: {type(error).__name__}") from None
