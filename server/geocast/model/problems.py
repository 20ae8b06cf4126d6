"""The problem types of the API (RFC 9457). Each has a slug, an HTTP status, a title and an explanation.

Every unsuccessful response has one of these types. `GET /problems/<slug>` describes one type. A test compares this list
with the table in `docs/protocol.md`, section "Problems".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from .alert import Severity
from .errors import GeocastError

MAX_ERRORS = 100  # the largest number of errors in one response; `errors_total` counts all (rule HD14)


class ProblemTypeOut(TypedDict):
    """The description of a problem type."""

    type: str
    title: str
    status: int
    explanation: str


class _BrokenRule(TypedDict):
    type: str
    pointer: str
    detail: str


class ViolationMembers(TypedDict, total=False):
    """The members of a violation (a broken rule) that programs read.

    The protocol lists them by problem type (rule H8a).
    """

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

    The protocol lists the members of each problem type (rule H8a). `start` and `end` are offsets in characters, counted
    from 0; the character at `end` is excluded.
    """


class _ProblemHead(TypedDict):
    type: str
    title: str
    status: int
    detail: str


class ProblemMembers(TypedDict, total=False):
    """The members of a problem that occur only in problems of some types."""

    errors: list[ViolationOut]
    errors_total: int
    current: int
    retry_after_s: int


class ProblemOut(_ProblemHead, ProblemMembers):
    """A problem (RFC 9457).

    A 422 has `errors`, a revision conflict has `current`, a 429 or 503 has `retry_after_s`. `errors_total` is the
    number of all errors. It is present only if `errors` does not list all of them.
    """


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A kind of problem: its name in the API (slug), its HTTP status, and a title and an explanation for people."""

    slug: str
    title: str
    explanation: str
    status: int = 422  # a broken rule

    def to_map(self) -> ProblemTypeOut:
        """Return the description of the problem type, which is the answer to `GET /problems/<slug>`."""
        return {
            "type": f"/problems/{self.slug}",
            "title": self.title,
            "status": self.status,
            "explanation": self.explanation,
        }


CATEGORY_NOT_ALERTABLE = ProblemType(
    "category-not-alertable",
    "Category may not be alerted",
    "The policy lists the categories that may be published; see GET /v1/policy. All others are refused.",
)
CATEGORY_NOT_CALLABLE = ProblemType(
    "category-not-callable",
    "No calls of this category",
    "The policy lists the categories in which responders may be called; see `calls` in GET /v1/policy. All others are "
    "refused.",
)
NOT_COMMUNITY = ProblemType(
    "not-community",
    "Concerns only an individual",
    "Only a threat to the community may be published: `threat` must be `community`.",
)
NOT_APPROVED = ProblemType(
    "not-approved",
    "Approval does not fit",
    "`approval.approved_at` must not be before `occurred_at`, nor in the future (60 s of clock skew are allowed). "
    "Signatures must be valid and recent, and must sign the form of the request, which a dry run returns.",
)
APPROVALS_NEEDED = ProblemType(
    "approvals-needed",
    "More reviewers must approve",
    "Alerts of this category must be signed by `needed` different reviewers. The publisher's own signature does not "
    "count. A request with a confirmation needs two reviewers.",
)
STALE = ProblemType(
    "stale",
    "Incident too old",
    "An incident may only be published while its age is at most its category's `max_age_s`.",
)
NOT_YET = ProblemType(
    "not-yet", "Incident in the future", "`occurred_at` may be at most 60 s ahead of the server's clock."
)
EXPIRY_OUT_OF_RANGE = ProblemType(
    "expiry-out-of-range",
    "Expiry out of range",
    "`expires_at`, or the default that replaces a missing one, must be at least the category's `min_life_s` from now "
    "and at most `max_age_s` after `occurred_at`. A revision must not end earlier than the current revision. To end an "
    "alert early, cancel it.",
)
RADIUS_OUT_OF_RANGE = ProblemType(
    "radius-out-of-range",
    "Radius out of range",
    "Each requested radius must lie between the category's `min_radius_m` and `max_radius_m`. The radius of a polygon "
    "is the distance from the middle of its corners to the farthest corner.",
)
SHAPE_NOT_ALLOWED = ProblemType(
    "shape-not-allowed",
    "Shape not allowed",
    "Polygons are only allowed in categories whose policy has `polygons`, because a small polygon around an address "
    "reveals the address.",
)
AREA_TOO_COMPLEX = ProblemType(
    "area-too-complex",
    "Area too complex",
    "The published area must have at most 500 corners. Draw it with fewer corners, or have the operator allow "
    "simplification in the policy (`simplify_m`). An area that would take too long to compute is refused as well.",
)
NOT_GRANTED = ProblemType(
    "not-granted",
    "Not granted to this publisher",
    "The operator of the node limits what each publisher may publish: the categories, the statuses and the highest "
    "severity. Other publishers may have other limits.",
)
OUTSIDE_JURISDICTION = ProblemType(
    "outside-jurisdiction",
    "Outside the jurisdiction",
    "The centre of each circle and each corner of each polygon must lie in the area where this publisher may publish.",
)
AREA_UNCONFIRMED = ProblemType(
    "area-unconfirmed",
    "Area not confirmed",
    "An area larger than the category's `hold_area_km2` is only published if a person has typed its size: "
    "`confirm.area_km2` must be at least the size of the area. This catches mistakes such as kilometres for metres.",
)
TEXT_UNCONFIRMED = ProblemType(
    "text-unconfirmed",
    "Text not confirmed",
    "A text contains words that look like personal data. Reword the text, or have a person confirm that these words "
    "are harmless by naming their kind in `confirm.text`. Coordinates and document numbers cannot be confirmed.",
)
MISSING_FIELD = ProblemType("missing-field", "Field missing", "A required field was not sent.")
UNKNOWN_FIELD = ProblemType(
    "unknown-field",
    "Unknown field",
    "Only the documented fields may be sent, so that no data about a person or a place is sent by mistake.",
)
INVALID_VALUE = ProblemType(
    "invalid-value",
    "Invalid value",
    "The value of a field has the wrong type, or is outside the documented range or grammar.",
)
ENDPOINT_NOT_ALLOWED = ProblemType(
    "endpoint-not-allowed",
    "Endpoint not allowed",
    "The endpoint of a device must be an https address of a push service that the operator allows (--push-services).",
)
ID_MISMATCH = ProblemType(
    "id-mismatch",
    "Id differs from the path",
    "The `id` in the body is optional. If it is there, it must equal the id in the path.",
)
OCCURRED_AT_CHANGED = ProblemType(
    "occurred-at-changed", "occurred_at changed", "A revision must keep the `occurred_at` of revision 1."
)
STATUS_CHANGED = ProblemType("status-changed", "status changed", "A revision must keep the `status` of revision 1.")
CATEGORY_CHANGED = ProblemType(
    "category-changed", "category changed", "New content of a call must keep its `category`."
)
KIND_CHANGED = ProblemType(
    "kind-changed",
    "place.kind changed",
    "New content of a call must keep the kind of its place, because that kind decides which people are called.",
)
ID_CONFLICT = ProblemType(
    "id-conflict",
    "Id already taken",
    "An alert or a call with this id and different content exists. Revise it, or use another id.",
    status=409,
)
REVISION_CONFLICT = ProblemType(
    "revision-conflict",
    "Revision conflict",
    "`revision` must be the current revision + 1, and may only be repeated with the same content. The member `current` "
    "is the current revision. For a call it is the number of the current content, which `replaces` must equal.",
    status=409,
)
TOO_MANY_DEVICES = ProblemType(
    "too-many-devices",
    "Too many devices",
    "One `sub` may register at most 8 devices. Delete one of them, or all, first (DELETE /v1/devices).",
    status=409,
)
UNKNOWN_ALERT = ProblemType(
    "unknown-alert", "Unknown alert", "No alert with this id is known. An ended alert stays known for 24 h.", status=404
)
UNKNOWN_CALL = ProblemType(
    "unknown-call", "Unknown call", "No call with this id is known. An ended call stays known for 24 h.", status=404
)
ALERT_ENDED = ProblemType(
    "alert-ended",
    "Alert has ended",
    "The alert was cancelled or has expired. It can't be revised or cancelled any more.",
    status=410,
)
CALL_ENDED = ProblemType(
    "call-ended",
    "Call has ended",
    "The call was ended or has expired. Its content can't be changed any more, and its place may already be deleted.",
    status=410,
)
NOT_YOURS = ProblemType(
    "not-yours",
    "Another publisher's alert or call",
    "Only the publisher of an alert, or a token with the scope alerts:manage, may revise or cancel the alert. In the "
    "same way, a call belongs to its dispatcher.",
    status=403,
)
MALFORMED_JSON = ProblemType(
    "malformed-json",
    "Malformed JSON",
    "The body must be one strict JSON object (RFC 8259) in UTF-8, without NaN, Infinity, duplicate keys or a "
    "byte-order mark, nested at most 32 levels deep.",
    status=400,
)
MALFORMED_XML = ProblemType(
    "malformed-xml",
    "Malformed XML",
    "The document must be well-formed XML in UTF-8, UTF-16, US-ASCII, ISO-8859-1 or windows-1252, without DOCTYPE, "
    "nested at most 32 levels deep, with at most 64 attributes and namespaces per element.",
    status=400,
)
NOT_CAP = ProblemType(
    "not-cap", "Not a CAP message", "The document's root must be `alert` in the namespace of CAP 1.2, 1.1 or 1.0."
)
SENDER_NOT_ALLOWED = ProblemType(
    "sender-not-allowed",
    "Sender not allowed",
    "The file of --cap-sources lists the senders whose messages this source may submit. This <sender> is not listed.",
    status=403,
)
NO_AREA = ProblemType(
    "no-area",
    "No area",
    "A CAP message needs an area with a known shape: a polygon, or a circle with a radius. Codes alone and points are "
    "not enough.",
)
BAD_REQUEST = ProblemType(
    "bad-request",
    "Not an HTTP request",
    "The bytes are not a valid request (RFC 9112). A request needs a Host, at most one length, and valid grammar.",
    status=400,
)
UNAUTHORIZED = ProblemType(
    "unauthorized", "Unauthorized", "A valid bearer token is needed: Authorization: Bearer <JWT>.", status=401
)
INSUFFICIENT_SCOPE = ProblemType(
    "insufficient-scope",
    "Insufficient scope",
    "The token lacks the scope that this request needs, or its `sub` can't be the source of an alert, or its `sub` is "
    "not one of this node's publishers.",
    status=403,
)
NOT_FOUND = ProblemType("not-found", "Not found", "There is nothing at this path.", status=404)
METHOD_NOT_ALLOWED = ProblemType(
    "method-not-allowed", "Method not allowed", "This path does not support this method.", status=405
)
REQUEST_TIMEOUT = ProblemType(
    "request-timeout",
    "Request incomplete",
    "The head of a request must be complete within 10 s of its first byte, or of the start of the connection. The body "
    "must be complete within another 10 s.",
    status=408,
)
TOO_LARGE = ProblemType(
    "too-large",
    "Too large",
    "A body may have at most 64 KiB (a CAP message 2 MiB) and 2,000 chunks. An alert with all its languages may take "
    "at most 64 KiB in the log.",
    status=413,
)
UNSUPPORTED_MEDIA_TYPE = ProblemType(
    "unsupported-media-type",
    "Unsupported media type",
    "The body must be sent as application/json, or a CAP message as application/xml, text/xml or application/cap+xml.",
    status=415,
)
TOO_MANY_REQUESTS = ProblemType(
    "too-many-requests",
    "Too many requests",
    "A limit on simultaneous work is reached (requests in progress, dry runs, open calls and so on), either for this "
    "token's subject or for the whole node. Repeat the same request after the time in Retry-After.",
    status=429,
)
RATE_LIMITED = ProblemType(
    "rate-limited",
    "Too often",
    "This publisher has sent too many alerts or dry runs, or this subscriber has registered devices too often. Nothing "
    "was stored: repeat the same request after the time in Retry-After. Cancels are never limited.",
    status=429,
)
HEAD_TOO_LARGE = ProblemType(
    "head-too-large",
    "Head too large",
    "The request line and the header fields together may have at most 32 KiB.",
    status=431,
)
INTERNAL = ProblemType(
    "internal",
    "Internal error",
    "The server failed. The outcome is unknown. It is safe to repeat the same request.",
    status=500,
)
LOG_UNAVAILABLE = ProblemType(
    "log-unavailable",
    "Log unavailable",
    "The alert log can't be read or written now. The outcome is unknown. It is safe to repeat the same request.",
    status=503,
)
STORE_UNAVAILABLE = ProblemType(
    "store-unavailable",
    "Store unavailable",
    "The device store can't be read or written now. It is safe to repeat the same request.",
    status=503,
)
FULL = ProblemType("full", "Full", "This process has reached its maximum number of devices.", status=503)
TOO_MANY_CONNECTIONS = ProblemType(
    "too-many-connections",
    "Too many connections",
    "The API has reached its maximum number of connections. Repeat the same request after the time in Retry-After.",
    status=503,
)
BUSY = ProblemType(
    "busy",
    "Busy",
    "Requests of this kind take all the time that they may. Repeat the same request after the time in Retry-After.",
    status=503,
)
DRAINING = ProblemType(
    "draining", "Draining", "This node is shutting down. It is safe to repeat the same request.", status=503
)

ALL = tuple(each for each in globals().values() if isinstance(each, ProblemType))
BY_SLUG = {each.slug: each for each in ALL}


def digits(number: float) -> str:
    """Return a number as a text in decimal notation, without an exponent: "3000000" or "250.5"."""
    return f"{number:.15g}"


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule: the problem type, a JSON Pointer (RFC 6901) to the field, and a sentence for people.

    `members` has the additional members for programs that the violation has in a response.
    """

    type: ProblemType
    pointer: str
    detail: str
    members: ViolationMembers = field(default_factory=ViolationMembers)

    @property
    def slug(self) -> str:
        """The slug (the name in the API) of the problem type."""
        return self.type.slug


@dataclass(slots=True)
class Problem(GeocastError):  # noqa: N818
    """Raised if a request is refused or fails. It becomes an unsuccessful HTTP response.

    Its type decides the status and the title of the response.

    `detail` is a sentence for people. If it is empty, the response has the type's explanation instead. `extra` has
    further members of the problem document, and `headers` further header fields of the response.

    `violations` has the first MAX_ERRORS broken rules, `total` is the number of all, and `types` has their types. A
    message may break tens of thousands of rules; to free such a number of objects would stop the event loop for 40 ms.
    """

    type: ProblemType
    detail: str = ""
    violations: Sequence[Violation] = ()
    extra: ProblemMembers = field(default_factory=ProblemMembers)
    headers: dict[str, str] = field(default_factory=dict)
    total: int = 0
    types: frozenset[ProblemType] = frozenset()

    @property
    def status(self) -> int:
        """The HTTP status of the problem type."""
        return self.type.status

    @property
    def slug(self) -> str:
        """The slug (the name in the API) of the problem type."""
        return self.type.slug

    @classmethod
    def later(cls, kind: ProblemType, retry_after_s: int, detail: str = "") -> "Problem":
        """Return a temporary problem: the client may repeat the request after `retry_after_s` seconds."""
        return cls(kind, detail, (), {"retry_after_s": retry_after_s}, {"Retry-After": str(retry_after_s)})

    @classmethod
    def of(cls, violations: Sequence[Violation]) -> "Problem":
        """Return a problem with the status 422 that lists these violations.

        Its type is the type of the first violation.
        """
        first, types = violations[0], frozenset(each.type for each in violations)
        return cls(first.type, first.detail, tuple(violations[:MAX_ERRORS]), total=len(violations), types=types)

    def body(self) -> ProblemOut:
        """Return the problem document: the JSON body of the response (RFC 9457, section 3)."""
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
                for v in self.violations
            ]
        if self.total > len(self.violations):
            body["errors_total"] = self.total
        return body
