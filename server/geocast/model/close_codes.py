"""Every way a session ends, as data: the close code, what a person reads, and what a client does next.

The table of `docs/protocol.md`, section "Close codes", is checked against this one by a test.
"""

from dataclasses import dataclass
from enum import Enum


class Reconnect(Enum):
    """What a client does after a close. The value is the text of the protocol's table."""

    NEVER = "no"
    WINDOW = "yes, within the window"
    LATER = "yes, later"
    NEW_TOKEN = "with a new token"  # noqa: S105 (not a password)
    AT_ONCE = "yes, the first time at once"


@dataclass(frozen=True, slots=True)
class Close:
    """One way to end a session: the code and the reason of the close frame, and what the client does next.

    Codes below 4000 are those of RFC 6455 (7.4.1) and the IANA registry; from 4000 on they are this protocol's own.
    `reason` is for people and at most 123 bytes long, as a close frame allows; clients go by the code alone.
    """

    code: int
    reason: str
    reconnect: Reconnect


GOING_AWAY = Close(1001, "going away", Reconnect.WINDOW)
PROTOCOL_ERROR = Close(1002, "broken framing", Reconnect.NEVER)
WRONG_FRAME_TYPE = Close(1003, "wrong frame type for this subprotocol", Reconnect.NEVER)
BAD_UTF8 = Close(1007, "text is not UTF-8", Reconnect.NEVER)
TOO_LONG = Close(1009, "message too long", Reconnect.NEVER)
INTERNAL = Close(1011, "internal error", Reconnect.WINDOW)
DRAINING = Close(1012, "node is draining", Reconnect.WINDOW)
OVERLOADED = Close(1013, "overloaded", Reconnect.LATER)
MALFORMED = Close(4400, "malformed message", Reconnect.NEVER)
BAD_TOKEN = Close(4401, "token missing, invalid or expired", Reconnect.NEW_TOKEN)
NOT_ALLOWED = Close(4403, "not allowed", Reconnect.NEVER)
NO_HELLO = Close(4408, "no hello in time", Reconnect.WINDOW)
SLOW = Close(4420, "slow: bytes unsent for too long", Reconnect.AT_ONCE)
TOO_MANY = Close(4429, "too many messages", Reconnect.LATER)

ALL = (
    GOING_AWAY,
    PROTOCOL_ERROR,
    WRONG_FRAME_TYPE,
    BAD_UTF8,
    TOO_LONG,
    INTERNAL,
    DRAINING,
    OVERLOADED,
    MALFORMED,
    BAD_TOKEN,
    NOT_ALLOWED,
    NO_HELLO,
    SLOW,
    TOO_MANY,
)


class SessionClosed(Exception):  # noqa: N818 (an outcome, not a fault of ours)
    """Ends the session whose message is being taken; `close` says how.

    The core raises it, since it knows no connection; the connection catches it and writes the close frame. Of a message
    with a token whose key is not known (`unknown_key`) nothing was applied: it may be taken again when there are newer
    keys.
    """

    def __init__(self, close: Close, *, unknown_key: bool = False) -> None:
        super().__init__(close.reason)
        self.close = close
        self.unknown_key = unknown_key
