"""The interface through which the stream's hub uses calls, and its implementation for a process without calls."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from ..clock import Now
from ..model.call import SeatState
from .eligibility import Here
from .messages import in_each_format, standdown_message
from .responders import ResponderRights


class Calls(Protocol):
    """The interface through which the stream's hub uses the calls of this process.

    A row is the number of a session in the stream's hub.
    """

    @property
    def busy(self) -> bool:
        """Whether there may be messages about calls that sessions should get and were not sent yet."""
        ...

    def set_rights(self, row: int, rights: ResponderRights) -> None:
        """Set the rights of a session, as its current token grants them."""
        ...

    def move(self, row: int, here: Here | None) -> None:
        """Set the location of a session, as its client has sent it (RQ4).

        None means that the client no longer shares its location. The session is then off duty, and gets no calls.
        """
        ...

    def take_holding(self, row: int, holding: Mapping[str, int], now: Now) -> None:
        """Process `holding` of a new session: the calls that it says it already has, as call id -> revision (RJ8)."""
        ...

    def leave(self, row: int) -> None:
        """Forget a session that has ended."""
        ...

    def accept(self, row: int, call_id: str, eta_s: int | None, now: Now) -> None:
        """Process an `accept` (M18), a responder's request to go.

        The answer is a message that `frames` returns, either soon or after the log has decided.
        """
        ...

    def decline(self, row: int, call_id: str) -> None:
        """Process a `decline` (M19): the responder is not going, or is no longer going."""
        ...

    def report(self, row: int, call_id: str, state: SeatState, now: Now) -> None:
        """Process a `report` (M20): the progress of a responder."""
        ...

    def acknowledge(self, row: int, call_id: str, revision: int) -> None:
        """Record that the session's client has shown the user this revision of a call (M5)."""
        ...

    def take_noted(self, count: int) -> Sequence[tuple[int, Iterable[Any]]]:
        """Return up to `count` sessions for which there may be messages about calls, and forget them.

        The result is a list of pairs: the row (number) of a session, and the calls. `frames` returns the messages.
        """
        ...

    def frames(self, row: int, wire: int, now: Now, calls: Iterable[Any] | None = None) -> list[bytes]:
        """Return the messages about calls that a session should get now, and count them as sent.

        If `calls` is None, consider all calls. The messages are frames in the wire format with the number `wire`.
        """
        ...

    def rest_until(self, row: int, now: Now) -> int | None:
        """Return the time until which a session's person is not called again, after helping at a call (RQ7).

        It is in ms since 1970, or None if there is no such time.
        """
        ...

    def sweep(self, now: Now) -> None:
        """Do everything that depends only on the passing of time, such as forgetting expired calls."""
        ...


class NoCalls(Calls):
    """Implements `Calls` for a process without calls.

    It answers every `accept` with `over` (M18), and sends nothing else.
    """

    @property
    def busy(self) -> bool:
        return False

    def __init__(self) -> None:
        self._refused: dict[int, list[str]] = {}  # by row: the calls whose `accept` still has to be answered

    def set_rights(self, row: int, rights: ResponderRights) -> None:
        pass

    def move(self, row: int, here: Here | None) -> None:
        pass

    def take_holding(self, row: int, holding: Mapping[str, int], now: Now) -> None:
        pass

    def leave(self, row: int) -> None:
        self._refused.pop(row, None)

    def accept(self, row: int, call_id: str, eta_s: int | None, now: Now) -> None:  # noqa: ARG002
        self._refused.setdefault(row, []).append(call_id)

    def decline(self, row: int, call_id: str) -> None:
        pass

    def report(self, row: int, call_id: str, state: SeatState, now: Now) -> None:
        pass

    def acknowledge(self, row: int, call_id: str, revision: int) -> None:
        pass

    def take_noted(self, count: int) -> Sequence[tuple[int, Iterable[Any]]]:  # noqa: ARG002
        return ()

    def frames(self, row: int, wire: int, now: Now, calls: Iterable[Any] | None = None) -> list[bytes]:  # noqa: ARG002
        return [in_each_format(standdown_message(each, "over"))[wire] for each in self._refused.pop(row, ())]

    def rest_until(self, row: int, now: Now) -> int | None:
        pass

    def sweep(self, now: Now) -> None:
        pass
