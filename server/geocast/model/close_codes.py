"""The close codes of WebSocket sessions. Each has a reason, and says whether the client reconnects.

A test compares this list with the table in `docs/protocol.md`, section "Close codes".
"""

from dataclasses import dataclass
from enum import Enum


class Reconnect(Enum):
    """Whether and when a client reconnects after a close. The values are the texts in the protocol's table."""

    NEVER = "no"
    WINDOW = "yes, within the window"
    LATER = "yes, later"
    NEW_TOKEN = "with a new token"  # noqa: S105 (not a password)
    AT_ONCE = "yes, the first time at once"


@dataclass(frozen=True, slots=True)
class Close:
    """A way to end a session: the code and the reason of the close frame, and whether the client reconnects afterwards.

    Codes below 4000 are defined by RFC 6455 (7.4.1) and the IANA registry, codes from 4000 on by this protocol.
    `reason` is a text for people, of at most 123 bytes (the limit of a close frame). Clients only use the code.
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

ALL = tuple(each for each in globals().values() if isinstance(each, Close))


class SessionClosed(Exception):  # noqa: N818 (an outcome, not an error)
    """Raised to end a session while one of its messages is being handled.

    `close` has the close code and the reason.

    The core of the server raises it, because the core has no access to the connection. The connection catches it and
    sends the close frame. `unknown_key` is true if the token in the message was signed with an unknown key, and no part
    of the message was applied. In this case, the caller may fetch newer keys and handle the same message again.
    """

    def __init__(self, close: Close, *, unknown_key: bool = False) -> None:
        super().__init__(close.reason)
        self.close = close
        self.unknown_key = unknown_key
