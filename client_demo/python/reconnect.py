"""Decisions about reconnecting, from the protocol's table "Close codes". Does no I/O and has no clock or randomness.

Rule 1  The code decides, never the text. A code that is not in the table means: within the window.
Rule 2  The delay is random over the whole window ("full jitter"), so that a node's clients return spread out.
Rule 3  The window is 1-30 s until a `welcome` gives another. Each delay that is drawn doubles its upper end, up to 120
        s; a `welcome` resets it. A `retry` is ignored if its upper end is below 100 ms or above an hour, or if it is
        not a valid window: otherwise a client would reconnect without a pause, or never.
Rule 4  "Later" is a delay between the window's upper end and twice that, so that nobody overtakes the other clients.
Rule 5  The server's `Retry-After` is a lower bound.
"""

from collections.abc import Callable
from enum import Enum
from typing import TypeGuard

FIRST_WINDOW_S = (1.0, 30.0)
LEAST_WINDOW_S, LONGEST_WINDOW_S = 0.1, 3600.0  # limits of the upper end that a server may ask for
MAX_WINDOW_S = 120.0
NO_CLOSE_FRAME = 1006


class After(Enum):
    """The action after a connection has ended."""

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

# A handshake that is refused with one of these would be refused again, because the URL or this client is wrong.
HOPELESS_STATUS = {400, 403, 404, 405, 426}


def after_close(code: int) -> After:
    """Return the action after a close with this code."""
    return CLOSE_CODES.get(code, (After.WINDOW, ""))[0]


def after_refusal(status: int, welcomed_before: bool) -> After:
    """Return the action after a handshake that was answered with this HTTP status.

    After a first welcome the URL is known to be right. A proxy in between may then be at fault, and giving up would
    leave somebody without alerts.
    """
    if status in HOPELESS_STATUS and not welcomed_before:
        return After.NEVER
    return After.LATER if status in (429, 503) else After.WINDOW


def meaning(code: int) -> str:
    """Return the meaning of a close code in words."""
    return CLOSE_CODES.get(code, (After.WINDOW, f"closed with code {code}"))[1]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_window(min_ms: float, max_ms: float) -> bool:
    return 0 <= min_ms <= max_ms and LEAST_WINDOW_S * 1000 <= max_ms <= LONGEST_WINDOW_S * 1000


class Backoff:
    """The delays between attempts to connect. `draw` gives floats in [0, 1)."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._window = FIRST_WINDOW_S
        self._min_s, self._max_s = self._window
        self._last: After | None = None

    def welcomed(self, min_ms: object, max_ms: object) -> None:
        """Take the `retry` window of a `welcome`, if it is valid (Rule 3), and reset the delays in any case."""
        if _is_number(min_ms) and _is_number(max_ms) and _is_window(min_ms, max_ms):
            self._window = min_ms / 1000, max_ms / 1000
        self._min_s, self._max_s = self._window
        if self._last is After.NEW_TOKEN:
            self._last = None  # the new token worked, so after the next 4401 a token is fetched at once again

    def delay_s(self, after: After, retry_after_s: float = 0.0) -> float:
        """Return the seconds to wait, and double the window's upper end for the next time."""
        again, self._last = after is self._last, after
        if not again and after in (After.AT_ONCE, After.NEW_TOKEN):
            return retry_after_s
        low, high = self._min_s, self._max_s
        self._max_s = max(high, min(2 * high, MAX_WINDOW_S))
        if after in (After.LATER, After.AT_ONCE):
            low, high = min(high, MAX_WINDOW_S / 2), self._max_s
        return max(retry_after_s, low + (high - low) * self._draw())
