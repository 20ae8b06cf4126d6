"""The entries of a call for help in the log. All entries of a call together are its chain.

An entry of the kind `call` begins the chain. Later entries of this kind replace the content of the call. Nothing
follows the entry of the kind `end`. Each entry has two parts:

- the *body*, in plain text: a process with access to the log can read it, but can't change it unnoticed;
- the *secret*, encrypted: a place, a person or a reason (rule RZ3).

Both are MessagePack maps whose keys are the names of the fields here. Keys that this release does not know are ignored
(rule G4).

A *seat* is a place among the responders who go to a call. Times are in ms since 1970.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

import msgpack
from pydantic import TypeAdapter, ValidationError

from .alert import OtherKind

Kind = Literal["call", "widen", "claim", "release", "report", "end"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Role = Literal["cpr", "aed"]
SeatState = Literal["going", "aed", "arrived"]
PlaceKind = Literal["public", "residence"]

MOVED: tuple[Kind, ...] = ("claim", "end")  # the kinds of entries whose number may grow after their encryption


@dataclass(frozen=True, slots=True)
class CallEntry(OtherKind):
    """An entry of a call, as it is stored.

    Code that only knows alerts treats it as an entry of an unknown kind.

    `ends_at` equals the call's `expires_at` in all entries of a call. `sealed_as` is 0, unless the entry was encrypted
    under another number than its present one. This happens if the log has lost a `claim` or an `end` and puts it back
    under a higher number (rules RV7 and RZ3). Then `sealed_as` is the first number.
    """

    kind: Kind
    plain: bytes  # the body
    sealed: bytes  # the encrypted secret, which every entry has
    sealed_as: int = 0


@dataclass(frozen=True, slots=True)
class Near:
    """The approximate place that is shown to the people who are called, in degrees and metres (rule RZ6)."""

    lat: float
    lng: float
    radius_m: float


@dataclass(frozen=True, slots=True)
class CallTerms:
    """The parts of the policy that a call keeps from its opening to its end (rule RO3).

    `quals` lists the qualifications that count for the call's kind of place. Fields that end in `_m` are in metres,
    those in `_s` in seconds.
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
    """The body of a `call`: its content without the exact place.

    `source` is the dispatcher who opened the call. `by` is the dispatcher who sent this content; None if that was
    `source`. `issuer` and `by_issuer` are the issuers of their tokens (rule HD5). `replaces` is the number of the
    previous content; 0 in the first.
    """

    category: str
    headline: str
    status: str
    source: str
    occurred_at: int
    issued_at: int
    expires_at: int
    near: Near
    terms: CallTerms
    replaces: int = 0
    by: str | None = None
    issuer: str = ""
    by_issuer: str = ""


@dataclass(frozen=True, slots=True)
class Widening:
    """The body of a `widen`: the new search radius, as an index of `rings_m`."""

    ring: int
    at: int


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The body of a `claim`: the seat that a person gets, and its role (rule RV1).

    A seat is a place among the responders who go to the call. `aed` is the id of the defibrillator to fetch, or None.
    """

    seat: int
    role: Role
    at: int
    eta_s: int | None = None
    aed: str | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """The body of a `release`: the seat that a person gives back. A seat is a place among the responders who go."""

    seat: int
    at: int


@dataclass(frozen=True, slots=True)
class Report:
    """The body of a `report`: the progress of the person who has a seat among the responders who go."""

    seat: int
    state: SeatState
    at: int


@dataclass(frozen=True, slots=True)
class Ending:
    """The body of an `end`.

    `source` is the dispatcher who ended the call; None if the call expired. `call` is the body of the last content,
    which remains readable after the older entries were deleted (rule RZ4).
    """

    source: str | None
    at: int
    call: Opening
    issuer: str = ""


Body = Opening | Widening | Acceptance | Release | Report | Ending


# ---- secrets, the encrypted parts of entries -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ExactPlace:
    """The exact place where help is needed: degrees, the kind of place, and directions in words."""

    lat: float
    lng: float
    kind: PlaceKind
    address: str | None = None
    access: str | None = None

    def to_map(self) -> dict[str, Any]:
        """Return the `place` of a `task` message. Fields that are None are left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Person:
    """A responder: the `sub` of the token, and its issuer (rule HD5).

    Entries that were written before rule HD5 have an empty issuer, which stands for the node's own key set.
    """

    sub: str
    issuer: str = ""


@dataclass(frozen=True, slots=True)
class Reason:
    """The reason why a call was ended, for the audit; None if the call expired."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Nothing:
    """An empty secret. It is encrypted like the others, so that every entry has a secret."""


Secret = ExactPlace | Person | Reason | Nothing

_BODIES: Mapping[Kind, type[Body]] = {
    "call": Opening,
    "widen": Widening,
    "claim": Acceptance,
    "release": Release,
    "report": Report,
    "end": Ending,
}
_SECRETS: Mapping[Kind, type[Secret]] = {
    "call": ExactPlace,
    "widen": Nothing,
    "claim": Person,
    "release": Person,
    "report": Person,
    "end": Reason,
}
_KIND_OF = {body: kind for kind, body in _BODIES.items()}
_READERS: Mapping[type[Any], TypeAdapter[Any]] = {
    each: TypeAdapter(each) for each in (*_BODIES.values(), *_SECRETS.values())
}


def kind_of(body: Body) -> Kind:
    """Return the kind of entry to which a body belongs."""
    return _KIND_OF[type(body)]


def packed(part: Body | Secret) -> bytes:
    """Return a body or a secret as bytes, which `body_of` or `secret_of` can read."""
    found: bytes = msgpack.packb(asdict(part))
    return found


def body_of(entry: CallEntry) -> Body:
    """Return the body of an entry. Raise ValueError if its bytes are not a body of its kind."""
    return cast(Body, _read(_BODIES[entry.kind], entry.plain))


def secret_of(kind: Kind, opened: bytes) -> Secret:
    """Return the secret of an entry of this kind from its decrypted bytes.

    Raise ValueError if they are not such a secret.
    """
    return cast(Secret, _read(_SECRETS[kind], opened))


def _read(wanted: type[Body] | type[Secret], data: bytes) -> Body | Secret:
    try:
        members = msgpack.unpackb(data, strict_map_key=False)
        read: Body | Secret = _READERS[wanted].validate_python(members)
    except ValidationError:
        raise ValueError(f"not a body or a secret: {wanted.__name__}") from None
    # msgpack raises exceptions of its own classes, so a shorter list of exceptions is not possible.
    except Exception as error:
        raise ValueError(f"not a body or a secret: {type(error).__name__}") from None
    return read
