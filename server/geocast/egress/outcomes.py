"""The outcomes of POST requests.

answer                                          outcome
---------------------------------------------   --------
2xx                                             sent
404, 410                                        gone
413                                             large
3xx, any other 4xx                              refused
429, 503                                        busy
any other 5xx                                   failed
no connection, TLS failed                       away: nothing has reached the host
no answer in time, connection lost meanwhile    maybe: the host may have received the request
"""

from enum import Enum
from typing import NamedTuple


class PostOutcome(Enum):
    """The outcome of a request. The table in the module's docstring says which answers have which outcome."""

    SENT = "sent"
    GONE = "gone"
    LARGE = "large"
    REFUSED = "refused"
    BUSY = "busy"
    FAILED = "failed"
    AWAY = "away"
    MAYBE = "maybe"


class PostResponse(NamedTuple):
    """The result of a request.

    `status` is the HTTP status as a string. If no valid answer came, `status` has a few words that say what went wrong.
    Metrics show it. `retry_after_s` is how many seconds the host asked to wait, or None.
    """

    outcome: PostOutcome
    status: str
    retry_after_s: float | None = None


def outcome_of(status: int) -> PostOutcome:
    """Return the outcome of a request to which the host answered with this HTTP status."""
    if 200 <= status < 300:
        return PostOutcome.SENT
    named = {
        404: PostOutcome.GONE,
        410: PostOutcome.GONE,
        413: PostOutcome.LARGE,
        429: PostOutcome.BUSY,
        503: PostOutcome.BUSY,
    }
    return named.get(status, PostOutcome.FAILED if status >= 500 else PostOutcome.REFUSED)
