"""What can go wrong, as data.

    GeocastError
    ├── ConfigError        the node can't start as configured: one line, exit status 2
    ├── Malformed          bytes that are not one strict JSON or MessagePack map
    ├── LogUnavailable     the alert log can't take or give entries now; the outcome of an append is unknown
    └── Problem            an answer of the api: RFC 9457, `type` is /problems/<slug>

A problem names fields, limits and what was expected; it never repeats a value that was refused.
"""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


class GeocastError(Exception):
    """Base of all errors that geocast raises on purpose."""


class ConfigError(GeocastError):
    """The node can't start as it is configured."""


class Malformed(GeocastError):  # noqa: N818 (the word of the protocol)
    """Bytes that are not one strict JSON object or MessagePack map."""


class LogUnavailable(GeocastError):  # noqa: N818
    """The alert log is out of reach or full. An append that raised this may have been stored."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule: problem slug, JSON Pointer (RFC 6901) to the field, and a sentence for people."""

    slug: str
    pointer: str
    detail: str


# slug -> (status, title, explanation). The one list of problem types: `GET /problems/<slug>` serves it.
PROBLEMS: dict[str, tuple[int, str, str]] = {
    "category-not-alertable": (422, "Category may not be alerted", "The policy lists what may be published; see GET /v1/policy. Everything else is refused."),
    "not-community": (422, "Concerns only an individual", "Only a threat to the community may be published: `threat` must be `community`."),
    "not-approved": (422, "Approval does not fit", "`approval.approved_at` must not be before `occurred_at`, nor in the future (60 s of clock skew are allowed)."),
    "stale": (422, "Incident too old", "An incident may be published until it is older than its category's `max_age_s`."),
    "not-yet": (422, "Incident in the future", "`occurred_at` may be ahead of the server's clock by 60 s at most."),
    "expiry-out-of-range": (422, "Expiry out of range", "`expires_at`, left out or not, must be in the future (by the category's `min_life_s`), at most `occurred_at` + its `max_age_s`, and in a revision not earlier than the current one's. To end an alert early, cancel it."),
    "radius-out-of-range": (422, "Radius out of range", "Each requested radius must lie within the category's `min_radius_m` and `max_radius_m`."),
    "missing-field": (422, "Field missing", "A field that is needed was not sent."),
    "unknown-field": (422, "Unknown field", "Only the documented fields may be sent, so that nothing about a person or a place can slip in."),
    "invalid-value": (422, "Invalid value", "A field has the wrong type, or lies outside its documented range or grammar."),
    "id-mismatch": (422, "Id differs from the path", "The `id` in the body is optional; when it is there it must be the one in the path."),
    "occurred-at-changed": (422, "occurred_at changed", "A revision must keep the `occurred_at` of revision 1."),
    "status-changed": (422, "status changed", "A revision must keep the `status` of revision 1."),
    "id-conflict": (409, "Id already taken", "An alert with this id and other content has been published. Revise it, or use another id."),
    "revision-conflict": (409, "Revision conflict", "`revision` must be the current one + 1, and may be repeated only with the same content. `current` tells the current one."),
    "unknown-alert": (404, "Unknown alert", "No alert with this id is known. An ended alert stays known for 24 h."),
    "alert-ended": (410, "Alert has ended", "The alert was cancelled or has expired: it can't be revised or cancelled any more."),
    "not-yours": (403, "Another publisher's alert", "Only the publisher of an alert, or a token with the scope alerts:manage, may revise or cancel it."),
    "malformed-json": (400, "Malformed JSON", "The body must be one strict JSON object (RFC 8259) in UTF-8: no NaN, Infinity or duplicate keys, no byte-order mark, nesting of 32 at most."),
    "bad-request": (400, "Not an HTTP request", "What came is no request by RFC 9112: a Host is needed, one length at most, and each part in its grammar."),
    "unauthorized": (401, "Unauthorized", "A valid bearer token is needed: Authorization: Bearer <JWT>."),
    "insufficient-scope": (403, "Insufficient scope", "The token lacks the scope that this call needs, or its `sub` can't be shown as the source of an alert."),
    "not-found": (404, "Not found", "There is nothing at this path."),
    "method-not-allowed": (405, "Method not allowed", "This path does not take this method."),
    "request-timeout": (408, "Request incomplete", "The head of a request must be complete 10 s after its first byte, or after the connection was accepted."),
    "too-large": (413, "Too large", "A body may have 64 KiB at most, and 2,000 chunks."),
    "unsupported-media-type": (415, "Unsupported media type", "The body must be sent as application/json."),
    "too-many-requests": (429, "Too many requests", "Too many requests are under way. Repeat the same request after the time in Retry-After."),
    "head-too-large": (431, "Head too large", "The request line and the header fields may have 32 KiB together."),
    "internal": (500, "Internal error", "The server failed. The outcome is unknown: repeat the same request, it is safe."),
    "log-unavailable": (503, "Log unavailable", "The alert log can't store or read now. The outcome is unknown: repeat the same request, it is safe."),
    "too-many-connections": (503, "Too many connections", "The api listener has as many connections as it takes. Repeat the same request after the time in Retry-After."),
    "draining": (503, "Draining", "This node is going away. Repeat the same request, it is safe."),
}  # fmt: skip


@dataclass(slots=True)
class Problem(GeocastError):  # noqa: N818
    """An answer that is not a success: the slug decides status and title (`PROBLEMS`)."""

    slug: str
    detail: str = ""
    violations: Sequence[Violation] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The HTTP status of this kind of problem."""
        return PROBLEMS[self.slug][0]

    @classmethod
    def of(cls, violations: Sequence[Violation]) -> "Problem":
        """The 422 that lists every violation; its type is the first one's."""
        return cls(violations[0].slug, violations[0].detail, violations)

    def body(self) -> dict[str, Any]:
        """The members of the problem document (RFC 9457, section 3)."""
        status, title, explanation = PROBLEMS[self.slug]
        body: dict[str, Any] = {
            "type": f"/problems/{self.slug}",
            "title": title,
            "status": status,
            "detail": self.detail or explanation,
            **self.extra,
        }
        if self.violations:
            body["errors"] = [
                {"type": f"/problems/{v.slug}", "pointer": v.pointer, "detail": v.detail} for v in self.violations
            ]
        return body


def trace(error: BaseException) -> str:
    """Where an unexpected error came from, for the log: its type and the lines of code, not its own words.

    Those may repeat what was sent.
    """
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"
