"""The alert: what was accepted, as the log keeps it and everybody downstream sees it.

Nothing here knows an exact place: `requests` makes an `Alert` of what was asked for, and there the exact place ends.
Times are in milliseconds since 1970 (UTC), angles in degrees, lengths in metres.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

SEVERITIES = ("minor", "moderate", "severe", "extreme")  # the words of CAP 1.2, <severity>; in ascending order
SEVERITY_RANK = {name: rank for rank, name in enumerate(SEVERITIES)}
EXTREME = SEVERITY_RANK["extreme"]

Severity = Literal["extreme", "severe", "moderate", "minor"]
Status = Literal["actual", "exercise", "test"]
Urgency = Literal["immediate", "expected", "future", "past", "unknown"]  # CAP 1.2, <urgency>
Certainty = Literal["observed", "likely", "possible", "unlikely", "unknown"]  # CAP 1.2, <certainty>
TimeMs = Annotated[int, "milliseconds since 1970 (UTC)"]
MAX_TEXTS = 8  # languages of one alert (LA1)

ID_PATTERN = "[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
_ID = re.compile(ID_PATTERN)
# The rules of the published circle by which an alert is accepted now: 1 is B1 to B3 alone, 2 has B11 and B12 besides.
RULES = 2
FINEST_RESOLUTION = 15  # of H3
MAX_FORM_BYTES = 20 * 1024  # AP1; 500 corners of a polygon are 12 KiB
MAX_SIGNATURES = 8  # AP1


def is_id(text: str) -> bool:
    """Whether `text` matches the grammar of an alert's id, which a publisher's `sub` has to match too."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Circle:
    """A published circle: the only thing that anybody downstream ever sees of where an incident was."""

    lat: float
    lng: float
    radius_m: float

    def to_map(self) -> dict[str, Any]:
        """The shape as it is sent to subscribers and stored."""
        return {"type": "circle", "lat": self.lat, "lng": self.lng, "radius_m": self.radius_m}


@dataclass(frozen=True, slots=True)
class Polygon:
    """A published polygon (B7): edges are arcs of great circles, and it reaches `buffer_m` beyond its ring.

    `ring` has longitude and latitude of each corner, counter-clockwise, the last equal to the first.
    """

    ring: tuple[tuple[float, float], ...]
    buffer_m: float = 0.0

    def to_map(self) -> dict[str, Any]:
        """The shape as it is sent to subscribers and stored: a GeoJSON geometry (RFC 7946), and its buffer if any."""
        found: dict[str, Any] = {"type": "Polygon", "coordinates": [[list(corner) for corner in self.ring]]}
        return found | ({"buffer_m": self.buffer_m} if self.buffer_m else {})


@dataclass(frozen=True, slots=True)
class OtherShape:
    """A shape of a type that a later release publishes and this one does not know (protocol, G2, G4).

    As far as this release can tell nobody is inside of it. It is sent as it came.
    """

    members: Mapping[str, Any]  # as MessagePack and JSON both can have them, `type` included

    def to_map(self) -> dict[str, Any]:
        """The shape as it came, which is how it is sent and stored."""
        return dict(self.members)


Shape = Circle | Polygon | OtherShape
KnownShape = Circle | Polygon


@dataclass(frozen=True, slots=True)
class Approval:
    """Who decided to publish, and when. It is kept in the log and sent to nobody."""

    reviewer: str
    approved_at: int


@dataclass(frozen=True, slots=True)
class Signature:
    """A reviewer's signature of a form: a detached JWS (RFC 7515, appendix F), both members in base64url."""

    protected: str
    signature: str

    def to_map(self) -> dict[str, str]:
        """As it is sent, to the node and to clients."""
        return {"protected": self.protected, "signature": self.signature}


@dataclass(frozen=True, slots=True)
class ApprovalProof:
    """That an entry was approved: the form, which says by value what it is, and who has signed that very text (AP)."""

    form: str
    signatures: tuple[Signature, ...]

    def to_map(self) -> dict[str, Any]:
        """As it is sent, to the node and to clients."""
        return {"form": self.form, "signatures": [each.to_map() for each in self.signatures]}

    def same_form(self, other: "ApprovalProof") -> bool:
        """Whether both forms say the same by value (AP8). Both have been read before: each is strict JSON."""
        return self.form == other.form or bool(json.loads(self.form) == json.loads(other.form))


@dataclass(frozen=True, slots=True)
class Confirm:
    """What of a request was held, and a person has confirmed (A21): how much it covers in km², kinds of words."""

    area_km2: float | None = None
    text: tuple[str, ...] = ()

    def in_order(self) -> "Confirm":
        """The same in accepted form: it does not matter in which order kinds were named."""
        return Confirm(self.area_km2, tuple(sorted(self.text)))


NOTHING_CONFIRMED = Confirm()


@dataclass(frozen=True, slots=True)
class AcceptedTerms:
    """What of the policy went into an accepted alert, and by which rules its circles were published.

    The terms are kept with each revision, so that a request which is repeated after the policy has changed is judged by
    the terms under which it was first accepted.
    """

    title: str  # of an alert with texts the first one's, for releases that know no texts
    default_age_ms: int  # how long after its incident an alert ends that says nothing else
    location_resolution: int
    rules: int = RULES
    simplify_m: int = 0  # B8


@dataclass(frozen=True, slots=True)
class AlertText:
    """What an alert says in one language, which is a tag of RFC 5646 as the issuer wrote it ("de-AT")."""

    language: str
    title: str
    headline: str
    description: str | None = None
    instruction: str | None = None  # what people are to do
    area_desc: str | None = None  # the area in words


@dataclass(frozen=True, slots=True)
class Alert:
    """The content of one revision in accepted form: defaults filled in, times as numbers, the area as published.

    What stands behind `confirm` no publisher can send (A12): it is in alerts of official warnings. Of an alert with
    `texts`, the issuer's first of which comes first, `headline` and `description` are the first one's.

    The order of the members is that in which they are stored (see `members`).
    """

    id: str
    category: str
    headline: str
    description: str | None
    severity: Severity
    status: Status
    occurred_at: TimeMs
    expires_at: TimeMs
    area: tuple[Shape, ...]
    approval: Approval
    confirm: Confirm = NOTHING_CONFIRMED
    texts: tuple[AlertText, ...] = ()  # up to MAX_TEXTS, each in another language
    urgency: Urgency | None = None
    certainty: Certainty | None = None
    onset_at: TimeMs | None = None  # when what it warns of is expected to begin
    web: str | None = None  # where more is to be read

    @property
    def languages(self) -> list[str] | None:
        """The languages of the texts, in the issuer's order; None if the alert has no texts."""
        return [each.language for each in self.texts] or None

    @property
    def circles(self) -> tuple[Circle, ...]:
        """The circles of the area."""
        return tuple(shape for shape in self.area if isinstance(shape, Circle))

    @property
    def shapes(self) -> tuple[KnownShape, ...]:
        """The shapes of the area that a place can be inside of: those that this release knows."""
        return tuple(shape for shape in self.area if not isinstance(shape, OtherShape))


# The members that only official warnings have: no publisher can send them (A12), and no reviewer signs them.
OF_WARNINGS = ("texts", "urgency", "certainty", "onset_at", "web")


@dataclass(frozen=True, slots=True)
class Origin:
    """The message of CAP that an alert was made of: what names it, and of how many alerts it was the message.

    When it was sent is the alert's `approval.approved_at`.
    """

    sender: str
    identifier: str
    blocks: int = 1


@dataclass(frozen=True, slots=True)
class Revision:
    """An accepted revision, as the log holds it: the alert, the revision's number, who published it and when.

    `origin`: of an alert from CAP, the message that made this revision. `issuer`: that of the publisher's token, which
    with `source` says whose the alert is (rule HD5). It is sent to nobody.
    """

    alert: Alert
    revision: int
    source: str
    issued_at: TimeMs
    terms: AcceptedTerms
    origin: Origin | None = None
    proof: ApprovalProof | None = None
    issuer: str = ""

    @property
    def id(self) -> str:
        """The alert's id, which all its entries share."""
        return self.alert.id

    @property
    def ends_at(self) -> int:
        """When this entry stops to matter: the alert's expiry, as a cancel has it too."""
        return self.alert.expires_at

    def same_content(self, other: "Entry") -> bool:
        """Whether `other` says the same (H5, AP8). Who has said or signed it, and when, doesn't count."""
        if not isinstance(other, Revision) or self.revision != other.revision:
            return False
        if self.proof is None or other.proof is None:
            return self.proof is other.proof and self.alert == other.alert
        return self.proof.same_form(other.proof)


@dataclass(frozen=True, slots=True)
class Cancel:
    """An accepted cancel. It takes the alert's next number; `ends_at` is the expiry of the revision that it cancels.

    `into`: the id of what stands in its place now, of an alert from CAP that was replaced; then it ends no sooner than
    that can. Entry 1 of an id may be a cancel, too: a *tombstone*, which says of a message of CAP that it was heard of,
    and made no alert of its own. It tells nobody anything.
    """

    id: str
    revision: int
    reason: str
    approval: Approval
    source: str
    cancelled_at: int
    ends_at: int
    confirm: Confirm = NOTHING_CONFIRMED
    into: str = ""
    proof: ApprovalProof | None = None
    issuer: str = ""  # as of a revision

    @property
    def is_tombstone(self) -> bool:
        """Whether there is nothing that it could cancel."""
        return self.revision == 1

    def same_content(self, other: "Entry") -> bool:
        """Whether `other` says the same (H5, AP8). Who has said or signed it, and when, doesn't count."""
        if not isinstance(other, Cancel):
            return False
        if self.proof is None or other.proof is None:
            who = replace(other, source=self.source, issuer=self.issuer)
            return self == replace(who, cancelled_at=self.cancelled_at, ends_at=self.ends_at)
        return self.revision == other.revision and self.proof.same_form(other.proof)


Entry = Revision | Cancel


@dataclass(frozen=True, slots=True)
class OtherKind:
    """An entry of a kind that a later release writes and this one does not know (protocol, G4).

    It takes a number of its alert, and it keeps the alert from being forgotten until `ends_at` (ms). What it says is
    not for this release: it is in `history` alone, so that its number is known to be taken.
    """

    id: str
    revision: int
    ends_at: int


@dataclass(frozen=True, slots=True)
class Untrusted(OtherKind):
    """An entry that this process does not believe, since it is not approved as it would have to be (NC3).

    Its number is taken, as that of an entry of another kind is, and it is sent to nobody. Unlike one it is not put
    back. `said` is what it says, if it has its own form or none. By that it counts in its chain (HD1), and can be taken
    back (HD7).
    """

    said: Entry | None = field(default=None, compare=False, repr=False)
