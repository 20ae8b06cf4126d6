"""Accepted alerts, in the form in which they are stored in the log and used by all later stages.

No class here has an exact place: when `wire/requests` turns a request into an `Alert`, it drops the exact place. Times
are in milliseconds since 1970 (UTC), angles in degrees, lengths in metres.
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
MAX_TEXTS = 8  # the largest number of languages of one alert (rule LA1)

ID_PATTERN = "[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
_ID = re.compile(ID_PATTERN)
# Begins the id of each test alert that a subscriber has asked for. No publisher may use such an id (rule TR4).
OWN_TEST_PREFIX = "try:"
# The current version of the rules for published circles. Version 1 has rules B1 to B3, version 2 adds B11 and B12.
RULES = 2
FINEST_RESOLUTION = 15  # the finest resolution of H3
MAX_FORM_BYTES = 20 * 1024  # a polygon of 500 corners takes 12 KiB (rule AP1)
MAX_SIGNATURES = 8  # the largest number of signatures of one form (rule AP1)


def is_id(text: str) -> bool:
    """Return whether `text` has the form of an alert id. The `sub` of a publisher's token must have the same form."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Circle:
    """A published circle: its centre in degrees and its radius in metres.

    The centre is not the exact place of the incident.
    """

    lat: float
    lng: float
    radius_m: float

    def to_map(self) -> dict[str, Any]:
        """Return the circle in the JSON form in which it is stored and sent to subscribers."""
        return {"type": "circle", "lat": self.lat, "lng": self.lng, "radius_m": self.radius_m}


@dataclass(frozen=True, slots=True)
class Polygon:
    """A published polygon: the inside of a ring, and everything within `buffer_m` metres of the ring (rule B7).

    `ring` lists the corners as (longitude, latitude) in degrees, counter-clockwise. The last corner equals the first.
    The edges are arcs of great circles.
    """

    ring: tuple[tuple[float, float], ...]
    buffer_m: float = 0.0

    def to_map(self) -> dict[str, Any]:
        """Return the polygon in the JSON form in which it is stored and sent to subscribers.

        This is a GeoJSON geometry (RFC 7946), with the member `buffer_m` unless it is 0.
        """
        found: dict[str, Any] = {"type": "Polygon", "coordinates": [[list(corner) for corner in self.ring]]}
        return found | ({"buffer_m": self.buffer_m} if self.buffer_m else {})


@dataclass(frozen=True, slots=True)
class OtherShape:
    """A shape whose type was introduced by a later release and is unknown to this one (rules G2 and G4).

    This release stores and sends such a shape unchanged. It treats every place as outside of the shape.
    """

    members: Mapping[str, Any]  # all members, `type` included; both MessagePack and JSON can represent them

    def to_map(self) -> dict[str, Any]:
        """Return the members of the shape unchanged, which is how they are stored and sent to subscribers."""
        return dict(self.members)


Shape = Circle | Polygon | OtherShape
KnownShape = Circle | Polygon


@dataclass(frozen=True, slots=True)
class Approval:
    """Says which reviewer decided to publish an alert, and when.

    Approvals are stored in the log, and never sent to subscribers.
    """

    reviewer: str
    approved_at: int


@dataclass(frozen=True, slots=True)
class Signature:
    """A reviewer's signature of an approval form (the exact text that reviewers sign).

    It is a detached JWS (RFC 7515, appendix F). Both members are base64url.
    """

    protected: str
    signature: str

    def to_map(self) -> dict[str, str]:
        """Return the signature as JSON, in the form in which publishers and nodes send it."""
        return {"protected": self.protected, "signature": self.signature}


@dataclass(frozen=True, slots=True)
class ApprovalProof:
    """The proof that reviewers approved a log entry: the text that they signed, and their signatures (rules AP).

    The text, called a form, has the content of the entry.
    """

    form: str
    signatures: tuple[Signature, ...]

    def to_map(self) -> dict[str, Any]:
        """Return the proof as JSON, in the form in which publishers and nodes send it."""
        return {"form": self.form, "signatures": [each.to_map() for each in self.signatures]}

    def same_form(self, other: "ApprovalProof") -> bool:
        """Return whether the texts that reviewers signed for two proofs are equal as JSON values (rule AP8).

        Both texts were parsed as strict JSON when the proofs were made, so parsing can't fail here.
        """
        return self.form == other.form or bool(json.loads(self.form) == json.loads(other.form))


@dataclass(frozen=True, slots=True)
class Confirm:
    """The statements that a person has confirmed about a request that the policy would otherwise refuse (rule A21).

    `area_km2` is the confirmed size of the area; None if no size is confirmed. `text` lists kinds (such as "phone") of
    words that look like personal data in the texts, but that the person has confirmed to be harmless.
    """

    area_km2: float | None = None
    text: tuple[str, ...] = ()

    def in_order(self) -> "Confirm":
        """Return the confirmation in the form in which it is stored: with the kinds of words in `text` sorted.

        Their order in a request has no meaning.
        """
        return Confirm(self.area_km2, tuple(sorted(self.text)))


NOTHING_CONFIRMED = Confirm()


@dataclass(frozen=True, slots=True)
class AcceptedTerms:
    """The values of the policy under which an alert was accepted, and the version of the rules for published circles.

    They are stored with each revision. If a publisher repeats a request after the policy has changed, the request is
    checked under the values of its first acceptance. For example, the operator shortens the default age of a category
    after a request was accepted. If the request is then repeated, it still gets the same expiry as at first, and so has
    the same content.
    """

    title: str  # if the alert has texts, the title of the first one, for releases that do not know texts
    default_age_ms: int  # if a request has no expiry, its alert ends this long after the incident
    location_resolution: int
    rules: int = RULES
    simplify_m: int = 0  # how far a polygon may be simplified, in metres (rule B8)


@dataclass(frozen=True, slots=True)
class AlertText:
    """The words of an alert in one language.

    `language` is a tag of RFC 5646, such as "de-AT", as written by the issuer.
    """

    language: str
    title: str
    headline: str
    description: str | None = None
    instruction: str | None = None  # what people should do
    area_desc: str | None = None  # the area in words


@dataclass(frozen=True, slots=True)
class Alert:
    """The content of one revision as it was accepted: with defaults filled in, and with the published area.

    The fields in OF_WARNINGS are only used by official warnings: publishers can't send them (rule A12). `texts` has
    the alert's words in several languages, in the issuer's order. If there are texts, `headline` and `description`
    equal those of the first text. Times are in ms since 1970.

    The fields are declared in the order in which they are stored (see `members`).
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
        """The languages of the texts in the issuer's order; None if the alert has no texts."""
        return [each.language for each in self.texts] or None

    @property
    def circles(self) -> tuple[Circle, ...]:
        """The shapes of the area that are circles."""
        return tuple(shape for shape in self.area if isinstance(shape, Circle))

    @property
    def shapes(self) -> tuple[KnownShape, ...]:
        """The shapes of the area whose type this release knows, so that it can test whether a place is inside."""
        return tuple(shape for shape in self.area if not isinstance(shape, OtherShape))


# The members that only official warnings have. Publishers can't send them (rule A12), and reviewers don't sign them.
OF_WARNINGS = ("texts", "urgency", "certainty", "onset_at", "web")


@dataclass(frozen=True, slots=True)
class Origin:
    """Identifies the CAP message from which an alert was made, by the message's sender and identifier.

    `blocks` is the number of alerts that were made from the message. The time at which the message was sent is stored
    as the alert's `approval.approved_at`.
    """

    sender: str
    identifier: str
    blocks: int = 1


@dataclass(frozen=True, slots=True)
class Revision:
    """An accepted revision as it is stored: the alert, the revision's number, its publisher, and when it was accepted.

    `origin` is the CAP message from which this revision was made; None if a publisher sent it. `issuer` is the issuer
    of the publisher's token, and is never sent to subscribers. `source` (the publisher) and `issuer` together say who
    owns the alert (rule HD5).
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
        """The alert's id. All revisions of an alert have the same id."""
        return self.alert.id

    @property
    def ends_at(self) -> int:
        """The time when the alert expires according to this revision, in ms since 1970."""
        return self.alert.expires_at

    def same_content(self, other: "Entry") -> bool:
        """Return whether `other` is a revision with the same content (rules H5 and AP8).

        The publishers, the signatures and the times of acceptance are not compared.
        """
        if not isinstance(other, Revision) or self.revision != other.revision:
            return False
        if self.proof is None or other.proof is None:
            return self.proof is other.proof and self.alert == other.alert
        return self.proof.same_form(other.proof)


@dataclass(frozen=True, slots=True)
class Cancel:
    """A log entry that cancels an alert, as it is stored.

    `revision` is the next number after the alert's last revision, and `ends_at` is the expiry of that last revision.

    If another alert from CAP has replaced the cancelled alert, `into` is the id of the replacement; otherwise it is
    empty. With a replacement, `ends_at` is not earlier than the latest possible expiry of the replacement.

    A cancel can also be entry 1 of an id. Such a *tombstone* says that a CAP message is known, but has made no alert of
    its own, for example because a cancel of the message arrived first. A tombstone is sent to nobody.
    """

    id: str
    revision: int
    reason: str
    approval: Approval
    source: str
    cancelled_at: TimeMs
    ends_at: TimeMs
    confirm: Confirm = NOTHING_CONFIRMED
    into: str = ""
    proof: ApprovalProof | None = None
    issuer: str = ""  # the issuer of the publisher's token, as in `Revision`

    @property
    def is_tombstone(self) -> bool:
        """Whether this is the first entry of its id, so that there is no revision to cancel."""
        return self.revision == 1

    def same_content(self, other: "Entry") -> bool:
        """Return whether `other` is a cancel with the same content (rules H5 and AP8).

        The publishers, the signatures and the times of acceptance are not compared.
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
    """A log entry of a kind that this release does not know, because a later release has added it (protocol, rule G4).

    Its content is ignored. Only its number in the alert's history counts, and `ends_at`: the time until which the alert
    is remembered, in ms since 1970.
    """

    id: str
    revision: int
    ends_at: TimeMs


@dataclass(frozen=True, slots=True)
class Untrusted(OtherKind):
    """An entry without the approval by reviewers that this process requires (rule NC3).

    It is sent to nobody. Like an entry of an unknown kind, it has a number in the alert's history. But if the log loses
    it, it is not put back.

    `said` is what the entry says, according to its approval form (the text that reviewers sign); or, if it has no form,
    the entry as it was read. `said` is None if the form can't be read or belongs to another entry. An entry that has
    `said` counts when later entries of the alert are checked (rule HD1), and publishers can still cancel it (rule HD7).
    """

    said: Entry | None = field(default=None, compare=False, repr=False)
