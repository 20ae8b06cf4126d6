"""Every answer of the api that is no success, as data: slug, HTTP status, title and explanation (RFC 9457).

`GET /problems/<slug>` serves a type. The table of `docs/protocol.md`, section "Problems", is checked against this
list by a test.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from typing_extensions import TypedDict  # pydantic reads that of `typing` from Python 3.12 on

from ..errors import GeocastError
from .alert import Severity

MAX_ERRORS = 100  # that an answer lists; it says how many there are beyond that (rule HD14)


class ProblemTypeOut(TypedDict):
    """What a problem type means."""

    type: str
    title: str
    status: int
    explanation: str


class _BrokenRule(TypedDict):
    type: str
    pointer: str
    detail: str


class ViolationMembers(TypedDict, total=False):
    """The members of a violation for programs. Which of them a type has, the protocol says (rule H8a)."""

    kind: str
    area_km2: float
    start: int
    end: int
    hold_area_km2: float
    confirmable: bool
    needed: int
    have: int
    min_radius_m: float
    max_radius_m: float
    max_age_s: int
    min_life_s: int
    max_corners: int
    never: bool
    allowed: Sequence[str]
    max_severity: Severity
    swapped: bool


class ViolationOut(_BrokenRule, ViolationMembers):
    """One broken rule: its problem type, a JSON Pointer to the field, a sentence, and members for programs.

    Which members a type has, the protocol says (rule H8a). `start` and `end` count characters from 0, the end excluded.
    """


class _ProblemHead(TypedDict):
    type: str
    title: str
    status: int
    detail: str


class ProblemMembers(TypedDict, total=False):
    """The further members of a problem."""

    errors: list[ViolationOut]
    errors_total: int
    current: int
    retry_after_s: int


class ProblemOut(_ProblemHead, ProblemMembers):
    """A problem (RFC 9457). A 422 has `errors`, a revision conflict `current`, a 429 and a 503 `retry_after_s`.

    `errors_total`: how many errors there are, if not all of them are listed.
    """


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One kind of problem: its name on the wire and status of HTTP, and a title and an explanation for people."""

    slug: str
    status: int
    title: str
    explanation: str

    def to_map(self) -> ProblemTypeOut:
        """As `GET /problems/<slug>` serves it."""
        return {
            "type": f"/problems/{self.slug}",
            "title": self.title,
            "status": self.status,
            "explanation": self.explanation,
        }


CATEGORY_NOT_ALERTABLE = ProblemType(
    "category-not-alertable",
    422,
    "Category may not be alerted",
    "The policy lists what may be published; see GET /v1/policy. Everything else is refused.",
)
CATEGORY_NOT_CALLABLE = ProblemType(
    "category-not-callable",
    422,
    "No calls of this category",
    "The policy lists for what responders may be called; see `calls` in GET /v1/policy. Everything else is refused.",
)
NOT_COMMUNITY = ProblemType(
    "not-community",
    422,
    "Concerns only an individual",
    "Only a threat to the community may be published: `threat` must be `community`.",
)
NOT_APPROVED = ProblemType(
    "not-approved",
    422,
    "Approval does not fit",
    "`approval.approved_at` must not be before `occurred_at`, nor in the future (60 s of clock skew are allowed). "
    "Signatures have to be good, recent, and of a form that says what the request comes to: ask for it by a dry run.",
)
APPROVALS_NEEDED = ProblemType(
    "approvals-needed",
    422,
    "More reviewers have to approve",
    "Alerts of this category are signed by reviewers: by `needed` different ones, of whom the publisher is none. "
    "Something that is confirmed takes two.",
)
STALE = ProblemType(
    "stale",
    422,
    "Incident too old",
    "An incident may be published until it is older than its category's `max_age_s`.",
)
NOT_YET = ProblemType(
    "not-yet",
    422,
    "Incident in the future",
    "`occurred_at` may be ahead of the server's clock by 60 s at most.",
)
EXPIRY_OUT_OF_RANGE = ProblemType(
    "expiry-out-of-range",
    422,
    "Expiry out of range",
    "`expires_at`, left out or not, must be in the future (by the category's `min_life_s`), at most "
    "`occurred_at` + its `max_age_s`, and in a revision not earlier than the current one's. To end an alert "
    "early, cancel it.",
)
RADIUS_OUT_OF_RANGE = ProblemType(
    "radius-out-of-range",
    422,
    "Radius out of range",
    "Each requested radius must lie within the category's `min_radius_m` and `max_radius_m`. That of a polygon "
    "is the distance from the middle of its corners to the farthest of them.",
)
SHAPE_NOT_ALLOWED = ProblemType(
    "shape-not-allowed",
    422,
    "Shape not allowed",
    "Polygons are taken only in categories that the policy says `polygons` of: a polygon around an address gives it "
    "away.",
)
AREA_TOO_COMPLEX = ProblemType(
    "area-too-complex",
    422,
    "Area too complex",
    "The published area must have at most 500 corners. Draw it with fewer, or have the policy allow to simplify it "
    "(`simplify_m`). An area is refused, too, if the work on it would take too long.",
)
NOT_GRANTED = ProblemType(
    "not-granted",
    422,
    "Not granted to this publisher",
    "Whoever runs the node has bounded what each publisher may publish: which categories and statuses, up to which "
    "severity. Another publisher may be allowed more.",
)
OUTSIDE_JURISDICTION = ProblemType(
    "outside-jurisdiction",
    422,
    "Outside of the jurisdiction",
    "The centre of each circle and each corner of a polygon must lie in the area for which this publisher may publish.",
)
AREA_UNCONFIRMED = ProblemType(
    "area-unconfirmed",
    422,
    "Area not confirmed",
    "An area that covers more than the category's `hold_area_km2` is published only if `confirm.area_km2`, which a "
    "person has typed, is at least as much. A kilometre that was typed for a metre looks like this.",
)
TEXT_UNCONFIRMED = ProblemType(
    "text-unconfirmed",
    422,
    "Text not confirmed",
    "A text reads like something that gives a person away. Reword it; or have a person confirm that it does not, by "
    "its kind in `confirm.text`. Coordinates and numbers of documents can't be confirmed.",
)
MISSING_FIELD = ProblemType("missing-field", 422, "Field missing", "A field that is needed was not sent.")
UNKNOWN_FIELD = ProblemType(
    "unknown-field",
    422,
    "Unknown field",
    "Only the documented fields may be sent, so that nothing about a person or a place can slip in.",
)
INVALID_VALUE = ProblemType(
    "invalid-value",
    422,
    "Invalid value",
    "A field has the wrong type, or lies outside its documented range or grammar.",
)
ENDPOINT_NOT_ALLOWED = ProblemType(
    "endpoint-not-allowed",
    422,
    "Endpoint not allowed",
    "A device is woken through the push services that the operator names (--push-services), by https.",
)
ID_MISMATCH = ProblemType(
    "id-mismatch",
    422,
    "Id differs from the path",
    "The `id` in the body is optional; when it is there it must be the one in the path.",
)
OCCURRED_AT_CHANGED = ProblemType(
    "occurred-at-changed",
    422,
    "occurred_at changed",
    "A revision must keep the `occurred_at` of revision 1.",
)
STATUS_CHANGED = ProblemType(
    "status-changed",
    422,
    "status changed",
    "A revision must keep the `status` of revision 1.",
)
CATEGORY_CHANGED = ProblemType(
    "category-changed",
    422,
    "category changed",
    "New content of a call must keep its `category`.",
)
KIND_CHANGED = ProblemType(
    "kind-changed",
    422,
    "place.kind changed",
    "New content of a call must keep the kind of its place, which decides who is called there.",
)
ID_CONFLICT = ProblemType(
    "id-conflict",
    409,
    "Id already taken",
    "An alert or a call with this id and other content is known. Revise it, or use another id.",
)
REVISION_CONFLICT = ProblemType(
    "revision-conflict",
    409,
    "Revision conflict",
    "`revision` must be the current one + 1, and may be repeated only with the same content. `current` tells the "
    "current one; of a call the number of its content, which `replaces` must be.",
)
TOO_MANY_DEVICES = ProblemType(
    "too-many-devices",
    409,
    "Too many devices",
    "One `sub` may register 8 devices. Forget one, or all, first (DELETE /v1/devices).",
)
UNKNOWN_ALERT = ProblemType(
    "unknown-alert",
    404,
    "Unknown alert",
    "No alert with this id is known. An ended alert stays known for 24 h.",
)
UNKNOWN_CALL = ProblemType(
    "unknown-call",
    404,
    "Unknown call",
    "No call with this id is known. An ended call stays known for 24 h.",
)
CALL_ENDED = ProblemType(
    "call-ended",
    410,
    "Call has ended",
    "The call was ended or has expired: its content can't be changed any more, and its place may be deleted already.",
)
ALERT_ENDED = ProblemType(
    "alert-ended",
    410,
    "Alert has ended",
    "The alert was cancelled or has expired: it can't be revised or cancelled any more.",
)
NOT_YOURS = ProblemType(
    "not-yours",
    403,
    "Another publisher's alert or call",
    "Only the publisher of an alert, or a token with the scope alerts:manage, may revise or cancel it. A call is its "
    "dispatcher's alike.",
)
MALFORMED_JSON = ProblemType(
    "malformed-json",
    400,
    "Malformed JSON",
    "The body must be one strict JSON object (RFC 8259) in UTF-8: no NaN, Infinity or duplicate keys, no "
    "byte-order mark, nesting of 32 at most.",
)
MALFORMED_XML = ProblemType(
    "malformed-xml",
    400,
    "Malformed XML",
    "The document must be well-formed XML in UTF-8, UTF-16, US-ASCII, ISO-8859-1 or windows-1252, without DOCTYPE, "
    "nested 32 deep at most, with at most 64 attributes and namespaces to an element.",
)
NOT_CAP = ProblemType(
    "not-cap",
    422,
    "Not a CAP message",
    "The document's root must be `alert` in the namespace of CAP 1.2, 1.1 or 1.0.",
)
SENDER_NOT_ALLOWED = ProblemType(
    "sender-not-allowed",
    403,
    "Sender not allowed",
    "The file of --cap-sources lists whose messages this source may bring; this <sender> is not among them.",
)
NO_AREA = ProblemType(
    "no-area",
    422,
    "No area",
    "A message of CAP needs an area that can be placed: a polygon, or a circle with a radius. Codes alone, and points, "
    "are none.",
)
BAD_REQUEST = ProblemType(
    "bad-request",
    400,
    "Not an HTTP request",
    "What came is no request by RFC 9112: a Host is needed, one length at most, and each part in its grammar.",
)
UNAUTHORIZED = ProblemType(
    "unauthorized",
    401,
    "Unauthorized",
    "A valid bearer token is needed: Authorization: Bearer <JWT>.",
)
INSUFFICIENT_SCOPE = ProblemType(
    "insufficient-scope",
    403,
    "Insufficient scope",
    "The token lacks the scope that this call needs, or its `sub` can't be shown as the source of an alert, or is not "
    "among the publishers of this node.",
)
NOT_FOUND = ProblemType("not-found", 404, "Not found", "There is nothing at this path.")
METHOD_NOT_ALLOWED = ProblemType(
    "method-not-allowed",
    405,
    "Method not allowed",
    "This path does not take this method.",
)
REQUEST_TIMEOUT = ProblemType(
    "request-timeout",
    408,
    "Request incomplete",
    "The head of a request must be complete 10 s after its first byte, or after the connection was accepted; its body "
    "10 s later.",
)
TOO_LARGE = ProblemType(
    "too-large",
    413,
    "Too large",
    "A body may have 64 KiB at most (a message of CAP 2 MiB), and 2,000 chunks; an alert with all its languages 64 KiB "
    "in the log.",
)
UNSUPPORTED_MEDIA_TYPE = ProblemType(
    "unsupported-media-type",
    415,
    "Unsupported media type",
    "The body must be sent as application/json; a message of CAP as application/xml, text/xml or application/cap+xml.",
)
TOO_MANY_REQUESTS = ProblemType(
    "too-many-requests",
    429,
    "Too many requests",
    "The subject of the token has its share of what is bounded (requests under way, dry runs, open calls and so on), "
    "or all of it is taken. Repeat the same request after the time in "
    "Retry-After.",
)
RATE_LIMITED = ProblemType(
    "rate-limited",
    429,
    "Too often",
    "This publisher has published, or asked by dry runs, or this subscriber has registered devices, as often as it may "
    "for now. Nothing was stored: repeat the same request after the time in Retry-After. Cancels are never limited.",
)
HEAD_TOO_LARGE = ProblemType(
    "head-too-large",
    431,
    "Head too large",
    "The request line and the header fields may have 32 KiB together.",
)
INTERNAL = ProblemType(
    "internal",
    500,
    "Internal error",
    "The server failed. The outcome is unknown: repeat the same request, it is safe.",
)
LOG_UNAVAILABLE = ProblemType(
    "log-unavailable",
    503,
    "Log unavailable",
    "The alert log can't store or read now. The outcome is unknown: repeat the same request, it is safe.",
)
STORE_UNAVAILABLE = ProblemType(
    "store-unavailable",
    503,
    "Store unavailable",
    "The store of devices can't take anything now. Repeat the same request, it is safe.",
)
FULL = ProblemType(
    "full",
    503,
    "Full",
    "There are as many devices as this process takes.",
)
TOO_MANY_CONNECTIONS = ProblemType(
    "too-many-connections",
    503,
    "Too many connections",
    "The api listener has as many connections as it takes. Repeat the same request after the time in Retry-After.",
)
DRAINING = ProblemType("draining", 503, "Draining", "This node is going away. Repeat the same request, it is safe.")

ALL = (
    CATEGORY_NOT_ALERTABLE,
    CATEGORY_NOT_CALLABLE,
    NOT_COMMUNITY,
    NOT_APPROVED,
    APPROVALS_NEEDED,
    STALE,
    NOT_YET,
    EXPIRY_OUT_OF_RANGE,
    RADIUS_OUT_OF_RANGE,
    SHAPE_NOT_ALLOWED,
    AREA_TOO_COMPLEX,
    NOT_GRANTED,
    OUTSIDE_JURISDICTION,
    AREA_UNCONFIRMED,
    TEXT_UNCONFIRMED,
    MISSING_FIELD,
    UNKNOWN_FIELD,
    INVALID_VALUE,
    ENDPOINT_NOT_ALLOWED,
    ID_MISMATCH,
    OCCURRED_AT_CHANGED,
    STATUS_CHANGED,
    CATEGORY_CHANGED,
    KIND_CHANGED,
    ID_CONFLICT,
    REVISION_CONFLICT,
    TOO_MANY_DEVICES,
    UNKNOWN_ALERT,
    UNKNOWN_CALL,
    ALERT_ENDED,
    CALL_ENDED,
    NOT_YOURS,
    MALFORMED_JSON,
    MALFORMED_XML,
    NOT_CAP,
    SENDER_NOT_ALLOWED,
    NO_AREA,
    BAD_REQUEST,
    UNAUTHORIZED,
    INSUFFICIENT_SCOPE,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    REQUEST_TIMEOUT,
    TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    TOO_MANY_REQUESTS,
    RATE_LIMITED,
    HEAD_TOO_LARGE,
    INTERNAL,
    LOG_UNAVAILABLE,
    STORE_UNAVAILABLE,
    FULL,
    TOO_MANY_CONNECTIONS,
    DRAINING,
)
BY_SLUG = {each.slug: each for each in ALL}


def digits(number: float) -> str:
    """Return a number for a sentence, without an exponent: 3000000, 250.5."""
    return f"{number:.15g}"


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule: problem type, JSON Pointer (RFC 6901) to the field, and a sentence for people.

    `members`: what the answer says of it besides, for programs.
    """

    type: ProblemType
    pointer: str
    detail: str
    members: ViolationMembers = field(default_factory=ViolationMembers)

    @property
    def slug(self) -> str:
        """The slug of its problem type."""
        return self.type.slug


@dataclass(slots=True)
class Problem(GeocastError):  # noqa: N818
    """An answer that is not a success. Its type decides the status and the title.

    `detail` is for people; without it the type's explanation stands there. `extra` has further members of the document,
    and `headers` those of the answer.
    """

    type: ProblemType
    detail: str = ""
    violations: Sequence[Violation] = ()
    extra: ProblemMembers = field(default_factory=ProblemMembers)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The HTTP status of this kind of problem."""
        return self.type.status

    @property
    def slug(self) -> str:
        """The slug of its problem type."""
        return self.type.slug

    @classmethod
    def later(cls, kind: ProblemType, retry_after_s: int, detail: str = "") -> "Problem":
        """Return a problem that ends by itself: the header Retry-After and a member say in how many seconds."""
        return cls(kind, detail, (), {"retry_after_s": retry_after_s}, {"Retry-After": str(retry_after_s)})

    @classmethod
    def of(cls, violations: Sequence[Violation]) -> "Problem":
        """The 422 that lists every violation; its type is the first one's."""
        return cls(violations[0].type, violations[0].detail, violations)

    def body(self) -> ProblemOut:
        """The members of the problem document (RFC 9457, section 3)."""
        body: ProblemOut = {
            "type": f"/problems/{self.slug}",
            "title": self.type.title,
            "status": self.status,
            "detail": self.detail or self.type.explanation,
            **self.extra,
        }
        if self.violations:
            body["errors"] = [
                {"type": f"/problems/{v.slug}", "pointer": v.pointer, "detail": v.detail, **v.members}
                for v in self.violations[:MAX_ERRORS]
            ]
        if len(self.violations) > MAX_ERRORS:
            body["errors_total"] = len(self.violations)
        return body
