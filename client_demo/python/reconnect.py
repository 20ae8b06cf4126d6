"""Decides whether and when a client reconnects, according to the protocol's table "Close codes".

It does no I/O, and has neither a clock nor randomness of its own.

Rule 1  The close code decides, never the text of the close reason. After a code that is not in the table, a client
        reconnects within the window (see Rule 3).
Rule 2  The delay is random over the whole window ("full jitter"), so that a node's clients don't return all at once.
Rule 3  The window is the range of possible delays: 1 to 30 s, until the `retry` of a `welcome` gives another. Each
        delay that is chosen doubles the upper end of the window, up to 120 s; a `welcome` resets it. A `retry` is
        ignored if it is not a valid window, or if its upper end is below 100 ms or above an hour. Otherwise a client
        would reconnect without a pause, or never.
        As long as nothing has ever answered at the URL, the window is 0.5 to 1 s and both ends double, until the upper
        end reaches 30 s: a client that was started before its server is there soon after it.
Rule 4  If the table says "later", the delay is between the upper end of the window and twice that, so that the client
        does not overtake others.
Rule 5  The delay is at least the server's `Retry-After`.
"""

from collections.abc import Callable
from enum import Enum
from typing import TypeGuard

FIRST_WINDOW_S = (1.0, 30.0)
LEAST_WINDOW_S, LONGEST_WINDOW_S = 0.1, 3600.0  # limits for the upper end of a window that a server asks for
MAX_WINDOW_S = 120.0
FIRST_WAIT_S = 1.0
NO_CLOSE_FRAME = 1006


class After(Enum):
    """The action that a client takes after a connection has ended."""

    NEVER = "do not reconnect"
    WINDOW = "reconnect within the window"
    LATER = "reconnect later"
    NEW_TOKEN = "reconnect with a new token"
    AT_ONCE = "reconnect at once, the first time"


CLOSE_CODES: dict[int, tuple[After, str]] = {
    1000: (After.WINDOW, "closed"),
    1001: (After.WINDOW, "the node is going away"),
    1002: (After.NEVER, "the server found our framing broken"),
    1003: (After.NEVER, "the server found our frames of the wrong type for this format"),
    NO_CLOSE_FRAME: (After.WINDOW, "the connection was lost"),
    1007: (After.NEVER, "the server found our text not to be UTF-8"),
    1009: (After.NEVER, "the server found our message too long"),
    1011: (After.WINDOW, "the server failed"),
    1012: (After.WINDOW, "the node is draining"),
    1013: (After.LATER, "the server is overloaded"),
    4400: (After.NEVER, "the server found our message malformed"),
    4401: (After.NEW_TOKEN, "the token is missing, invalid or expired"),
    4403: (After.NEVER, "this token may not receive alerts"),
    4408: (After.WINDOW, "our hello came too late"),
    4420: (After.AT_ONCE, "we read too slowly"),
    4429: (After.LATER, "we sent too many messages"),
}

# After a refusal with one of these statuses, another handshake would be refused, too: the URL or this client is wrong.
HOPELESS_STATUS = {400, 403, 404, 405, 426}


def after_close(code: int) -> After:
    """Return what to do after a connection was closed with this code."""
    return CLOSE_CODES.get(code, (After.WINDOW, ""))[0]


def after_refusal(status: int, welcomed_before: bool) -> After:
    """Return what to do after the server has answered the WebSocket handshake with this HTTP status.

    `welcomed_before` says whether the server has ever sent a `welcome` at this URL. If so, the URL is known to be
    right, and a proxy in between may be at fault. In this case the client always reconnects, because giving up would
    leave somebody without alerts.
    """
    if status in HOPELESS_STATUS and not welcomed_before:
        return After.NEVER
    return After.LATER if status in (429, 503) else After.WINDOW


def meaning(code: int) -> str:
    """Return what a close code means, in words."""
    return CLOSE_CODES.get(code, (After.WINDOW, f"closed with code {code}"))[1]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_window(min_ms: float, max_ms: float) -> bool:
    return 0 <= min_ms <= max_ms and LEAST_WINDOW_S * 1000 <= max_ms <= LONGEST_WINDOW_S * 1000


class Backoff:
    """Computes the delays between attempts to connect. `draw` returns random floats in [0, 1)."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._window = FIRST_WINDOW_S
        self._min_s, self._max_s = self._window
        self._last: After | None = None
        self._first_s = FIRST_WAIT_S  # upper end of the window while nothing has ever answered

    def welcomed(self, min_ms: object, max_ms: object) -> None:
        """Reset the delays after a `welcome`. If its member `retry` is valid, use it as the new window (Rule 3)."""
        if _is_number(min_ms) and _is_number(max_ms) and _is_window(min_ms, max_ms):
            self._window = min_ms / 1000, max_ms / 1000
        self._min_s, self._max_s = self._window
        self._first_s = FIRST_WINDOW_S[1]
        if self._last is After.NEW_TOKEN:
            self._last = None  # the new token worked, so after the next 4401 a token is fetched at once again

    def delay_s(self, after: After, retry_after_s: float = 0.0, answered: bool = True) -> float:
        """Return the number of seconds to wait before the next attempt to connect.

        The window for the delay after that is then longer: its upper end is doubled. `after` is what must be done after
        the end of the last connection, and `retry_after_s` the least number of seconds that the server has asked for.
        `answered` is False if nothing answered at the URL.
        """
        if answered:
            self._first_s = FIRST_WINDOW_S[1]
        if self._first_s < FIRST_WINDOW_S[1]:
            most_s, self._first_s = self._first_s, 2 * self._first_s
            return most_s * (1 + self._draw()) / 2
        again, self._last = after is self._last, after
        if not again and after in (After.AT_ONCE, After.NEW_TOKEN):
            return retry_after_s
        low, high = self._min_s, self._max_s
        self._max_s = max(high, min(2 * high, MAX_WINDOW_S))
        if after in (After.LATER, After.AT_ONCE):
            low, high = min(high, MAX_WINDOW_S / 2), self._max_s
        return max(retry_after_s, low + (high - low) * self._draw())
