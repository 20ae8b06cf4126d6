"""Accepted alerts, in the form in which the log keeps them and all later stages see them.

No class here holds an exact place. `wire/requests` turns a request into an `Alert` and drops the exact place there.
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
MAX_TEXTS = 8  # languages of one alert (rule LA1)

ID_PATTERN = "[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
_ID = re.compile(ID_PATTERN)
# The version of the rules by which circles are published now. Version 1 has rules B1 to B3, version 2 adds B11 and B12.
RULES = 2
FINEST_RESOLUTION = 15  # the finest resolution of H3
MAX_FORM_BYTES = 20 * 1024  # a polygon of 500 corners takes 12 KiB of it (rule AP1)
MAX_SIGNATURES = 8  # signatures of one form (rule AP1)


def is_id(text: str) -> bool:
    """Return whether `text` matches the grammar of alert ids, which a publisher's `sub` must match as well."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Circle:
    """A published circle: centre in degrees, radius in metres. Its centre is not the exact place of the incident."""

    lat: float
    lng: float
    radius_m: float

    def to_map(self) -> dict[str, Any]:
        """Return the shape as it is stored and sent to subscribers."""
        return {"type": "circle", "lat": self.lat, "lng": self.lng, "radius_m": self.radius_m}


@dataclass(frozen=True, slots=True)
class Polygon:
    """A published polygon: a ring, and everything within `buffer_m` metres of that ring (rule B7).

    `ring` lists the corners as (longitude, latitude) in degrees, counter-clockwise. The last corner equals the first.
    The edges are arcs of great circles.
    """

    ring: tuple[tuple[float, float], ...]
    buffer_m: float = 0.0

    def to_map(self) -> dict[str, Any]:
        """Return the shape as it is stored and sent: a GeoJSON geometry (RFC 7946), with `buffer_m` unless it is 0."""
        found: dict[str, Any] = {"type": "Polygon", "coordinates": [[list(corner) for corner in self.ring]]}
        return found | ({"buffer_m": self.buffer_m} if self.buffer_m else {})


@dataclass(frozen=True, slots=True)
class OtherShape:
    """A shape of a type that only a later release knows (protocol, rules G2 and G4).

    This release matches nobody with such a shape, and sends it unchanged.
    """

    members: Mapping[str, Any]  # all members, `type` included; both MessagePack and JSON can represent them

    def to_map(self) -> dict[str, Any]:
        """Return the members unchanged, as they are stored and sent."""
        return dict(self.members)


Shape = Circle | Polygon | OtherShape
KnownShape = Circle | Polygon


@dataclass(frozen=True, slots=True)
class Approval:
    """The reviewer who decided to publish, and the time of that decision. Stored in the log, never sent."""

    reviewer: str
    approved_at: int


@dataclass(frozen=True, slots=True)
class Signature:
    """A reviewer's signature of a form: a detached JWS (RFC 7515, appendix F). Both members are base64url."""

    protected: str
    signature: str

    def to_map(self) -> dict[str, str]:
        """Return the signature as publishers and the node send it."""
        return {"protected": self.protected, "signature": self.signature}


@dataclass(frozen=True, slots=True)
class ApprovalProof:
    """The proof that an entry was approved: a form with the entry's content, and signatures of that text (rules AP)."""

    form: str
    signatures: tuple[Signature, ...]

    def to_map(self) -> dict[str, Any]:
        """Return the proof as publishers and the node send it."""
        return {"form": self.form, "signatures": [each.to_map() for each in self.signatures]}

    def same_form(self, other: "ApprovalProof") -> bool:
        """Return whether both forms have equal JSON values (rule AP8).

        Both forms were parsed as strict JSON before, so parsing cannot fail here.
        """
        return self.form == other.form or bool(json.loads(self.form) == json.loads(other.form))


@dataclass(frozen=True, slots=True)
class Confirm:
    """The facts that a person has confirmed about a request which the policy would otherwise refuse (rule A21).

    `area_km2` is the confirmed area. `text` lists kinds of words that look like personal data, and that the person has
    confirmed to be harmless.
    """

    area_km2: float | None = None
    text: tuple[str, ...] = ()

    def in_order(self) -> "Confirm":
        """Return the accepted form, in which the kinds are sorted: the order of a request does not matter."""
        return Confirm(self.area_km2, tuple(sorted(self.text)))


NOTHING_CONFIRMED = Confirm()


@dataclass(frozen=True, slots=True)
class AcceptedTerms:
    """The parts of the policy that an alert was accepted under, and the version of the rules for its circles.

    Each revision keeps its terms. If a publisher repeats a request after the policy has changed, the request is checked
    under the terms of its first acceptance. For example, the operator shortens the default age of a category between
    the first request and its repetition: the repetition still gets the first expiry, and so counts as the same content.
    """

    title: str  # in an alert with texts, the first text's title, for releases that do not know texts
    default_age_ms: int  # an alert without an expiry of its own ends this long after its incident
    location_resolution: int
    rules: int = RULES
    simplify_m: int = 0  # how far a polygon may be simplified, in metres (rule B8)


@dataclass(frozen=True, slots=True)
class AlertText:
    """The words of an alert in one language. `language` is a tag of RFC 5646 as the issuer wrote it ("de-AT")."""

    language: str
    title: str
    headline: str
    description: str | None = None
    instruction: str | None = None  # what people should do
    area_desc: str | None = None  # the area in words


@dataclass(frozen=True, slots=True)
class Alert:
    """The content of one revision in accepted form: defaults filled in, times as numbers, the area as published.

    Only official warnings have the members in OF_WARNINGS: publishers cannot send them (rule A12). `texts` keeps the
    issuer's order. In an alert with texts, `headline` and `description` equal those of the first text.

    The members are declared in the order in which they are stored (see `members`).
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
    texts: tuple[AlertText, ...] = ()  # at most MAX_TEXTS, each in a different language
    urgency: Urgency | None = None
    certainty: Certainty | None = None
    onset_at: TimeMs | None = None  # when the event is expected to begin
    web: str | None = None  # the address of a page with more information

    @property
    def languages(self) -> list[str] | None:
        """The languages of the texts in the issuer's order, or None if the alert has no texts."""
        return [each.language for each in self.texts] or None

    @property
    def circles(self) -> tuple[Circle, ...]:
        """The circles of the area."""
        return tuple(shape for shape in self.area if isinstance(shape, Circle))

    @property
    def shapes(self) -> tuple[KnownShape, ...]:
        """The shapes of the area that this release knows, so that it can tell whether a place is inside."""
        return tuple(shape for shape in self.area if not isinstance(shape, OtherShape))


# The members that only official warnings have. Publishers cannot send them (rule A12), and reviewers do not sign them.
OF_WARNINGS = ("texts", "urgency", "certainty", "onset_at", "web")


@dataclass(frozen=True, slots=True)
class Origin:
    """The CAP message that an alert was made from: its sender, its identifier, and how many alerts it became.

    The alert's `approval.approved_at` holds the time at which the message was sent.
    """

    sender: str
    identifier: str
    blocks: int = 1


@dataclass(frozen=True, slots=True)
class Revision:
    """An accepted revision, as the log holds it: the alert, the revision's number, its publisher and its time.

    `origin` is the CAP message that this revision was made from, or None if a publisher sent it. `issuer` is the issuer
    of the publisher's token: `source` and `issuer` together say who owns the alert (rule HD5). `issuer` is never sent.
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
        """The alert's id, which all entries of the alert share."""
        return self.alert.id

    @property
    def ends_at(self) -> int:
        """The time from which this entry no longer matters: the alert's expiry."""
        return self.alert.expires_at

    def same_content(self, other: "Entry") -> bool:
        """Return whether `other` has the same content (rules H5 and AP8).

        The publisher, the signatures and the times of both do not count.
        """
        if not isinstance(other, Revision) or self.revision != other.revision:
            return False
        if self.proof is None or other.proof is None:
            return self.proof is other.proof and self.alert == other.alert
        return self.proof.same_form(other.proof)


@dataclass(frozen=True, slots=True)
class Cancel:
    """An accepted cancel. It takes the alert's next number; `ends_at` is the expiry of the revision that it cancels.

    `into` is the id of the replacement if another alert from CAP has replaced this one, else empty. `ends_at` is then
    not earlier than the latest possible expiry of the replacement.

    A cancel can also be entry 1 of an id. Such a *tombstone* says that a CAP message is known but has made no alert of
    its own, for example because a cancel of the message arrived first. A tombstone is sent to nobody.
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
    issuer: str = ""  # as in a revision

    @property
    def is_tombstone(self) -> bool:
        """Whether this is entry 1 of its id, so that there is no revision to cancel."""
        return self.revision == 1

    def same_content(self, other: "Entry") -> bool:
        """Return whether `other` has the same content (rules H5 and AP8).

        The publisher, the signatures and the times of both do not count.
        """
        if not isinstance(other, Cancel):
            return False
        if self.proof is None or other.proof is None:
            who = replace(other, source=self.source, issuer=self.issuer)
            return self == replace(who, cancelled_at=self.cancelled_at, ends_at=self.ends_at)
        return self.revision == other.revision and self.proof.same_form(other.proof)


Entry = Revision | Cancel


@dataclass(frozen=True, slots=True)
class OtherKind:
    """An entry of a kind that only a later release knows (protocol, rule G4).

    The entry keeps its number in the alert's history, and the alert is not forgotten before `ends_at` (ms). Its content
    is ignored.
    """

    id: str
    revision: int
    ends_at: int


@dataclass(frozen=True, slots=True)
class Untrusted(OtherKind):
    """An entry without the approval that this process requires (rule NC3). It is sent to nobody.

    The entry keeps its number in the alert's history, like an entry of an unknown kind. Unlike such an entry, it is not
    put back after the log has lost it.

    `said` is the entry as its form says it, or as it was read if it has no form. It is None if the form cannot be read
    or belongs to another entry. With `said` the entry counts in the chain of its alert (rule HD1), and publishers can
    still cancel it (rule HD7).
    """

    said: Entry | None = field(default=None, compare=False, repr=False)
