"""What a call's chain in the log is made of.

A `call` opens it, and again brings new content; nothing follows its `end`. Each entry has two parts: the *body*, which
whoever has the log may read but not alter, and the *secret*, which is sealed (RZ3): a place, a person, a reason. Both
are MessagePack maps with the names of the fields here. Members that this release does not know are passed over (G4).
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

MOVED: tuple[Kind, ...] = ("claim", "end")  # those that may stand under a higher number than they were sealed for


@dataclass(frozen=True, slots=True)
class CallEntry(OtherKind):
    """An entry of a call, as the log holds it. To whatever knows alerts only it is one of another kind.

    `ends_at` is the call's `expires_at` in all entries of a chain. `sealed_as`: the number for which it was sealed,
    where that is not its own: of a `claim` or an `end` that was put back (RV7, RZ3); else 0.
    """

    kind: Kind
    plain: bytes  # the body
    sealed: bytes  # the secret; there is always one
    sealed_as: int = 0


@dataclass(frozen=True, slots=True)
class Near:
    """The circle that the ring shows: degrees and metres (RZ6)."""

    lat: float
    lng: float
    radius_m: float


@dataclass(frozen=True, slots=True)
class CallTerms:
    """What of the policy a call keeps from the moment it was opened (RO3). `quals`: those for its kind of place."""

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


# ---- bodies; times are in ms since 1970 ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opening:
    """Of a `call`: its content, but for the place.

    `source` is who has opened the call, and `by` who has sent this content, if that is somebody else. `issuer` and
    `by_issuer` are the issuers of their tokens (rule HD5). `replaces`: the number of the content before it; 0 of the
    first.
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
    """Of a `widen`: the ring in force from now on, as an index of `rings_m`."""

    ring: int
    at: int


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Of a `claim`: the seat that is taken (RV1), its role, and the id of the defibrillator to fetch, if any."""

    seat: int
    role: Role
    at: int
    eta_s: int | None = None
    aed: str | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """Of a `release`: the seat that is given back."""

    seat: int
    at: int


@dataclass(frozen=True, slots=True)
class Report:
    """Of a `report`: how far the holder of a seat is."""

    seat: int
    state: SeatState
    at: int


@dataclass(frozen=True, slots=True)
class Ending:
    """Of an `end`: who has ended it; nobody, if it expired. `call` is the body of its last content (RZ4)."""

    source: str | None
    at: int
    call: Opening
    issuer: str = ""


Body = Opening | Widening | Acceptance | Release | Report | Ending


# ---- secrets -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ExactPlace:
    """Where help is needed: degrees, the kind of place, and in words how to get there."""

    lat: float
    lng: float
    kind: PlaceKind
    address: str | None = None
    access: str | None = None

    def to_map(self) -> dict[str, Any]:
        """The `place` of a `task`: as it came in, without what was left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Person:
    """A responder: the `sub` of the token, and its issuer (rule HD5).

    Entries of releases without rule HD5 have no `issuer`. They belong to the key set itself, whose name is empty.
    """

    sub: str
    issuer: str = ""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a call was ended, for the audit; None if it expired."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Nothing:
    """There is nothing to hide, and that is sealed too."""


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
    """The kind of the entry that has this body."""
    return _KIND_OF[type(body)]


def packed(part: Body | Secret) -> bytes:
    """A part of an entry as bytes; `body_of` and `secret_of` read them."""
    found: bytes = msgpack.packb(asdict(part))
    return found


def body_of(entry: CallEntry) -> Body:
    """The body of an entry. Raises ValueError if it is none."""
    return cast(Body, _read(_BODIES[entry.kind], entry.plain))


def secret_of(kind: Kind, opened: bytes) -> Secret:
    """The secret of an entry of this kind, which was opened. Raises ValueError if it is none."""
    return cast(Secret, _read(_SECRETS[kind], opened))


def _read(wanted: type[Body] | type[Secret], data: bytes) -> Body | Secret:
    try:
        members = msgpack.unpackb(data, strict_map_key=False)
        read: Body | Secret = _READERS[wanted].validate_python(members)
    except ValidationError:
        raise ValueError(f"not a body or a secret: {wanted.__name__}") from None
    # msgpack raises classes of its own.
    except Exception as error:
        raise ValueError(f"not a body or a secret: {type(error).__name__}") from None
    return read
