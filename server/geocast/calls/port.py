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
        """Whether there may be a message about a call to send to any session."""
        ...

    def set_rights(self, row: int, rights: ResponderRights) -> None:
        """Set the rights that the session's token gives."""
        ...

    def move(self, row: int, here: Here | None) -> None:
        """Set where the session says that it is; None takes the session off duty (RQ4)."""
        ...

    def take_holding(self, row: int, holding: Mapping[str, int], now: Now) -> None:
        """Process `holding`: the revision of each call that a new session says it already has (RJ8)."""
        ...

    def leave(self, row: int) -> None:
        """Forget a session that has ended."""
        ...

    def accept(self, row: int, call_id: str, eta_s: int | None, now: Now) -> None:
        """Process the session's `accept` (M18). `frames` returns the answer, at once or after the log has decided."""
        ...

    def decline(self, row: int, call_id: str) -> None:
        """Process the session's `decline` (M19)."""
        ...

    def report(self, row: int, call_id: str, state: SeatState, now: Now) -> None:
        """Process the session's `report` (M20)."""
        ...

    def acknowledge(self, row: int, call_id: str, revision: int) -> None:
        """Record that the session's client has shown the user this revision of a call (M5)."""
        ...

    def take_noted(self, count: int) -> Sequence[tuple[int, Iterable[Any]]]:
        """Remove and return up to `count` rows (session numbers) for which there may be messages about these calls."""
        ...

    def frames(self, row: int, wire: int, now: Now, calls: Iterable[Any] | None = None) -> list[bytes]:
        """Return the messages that a session should get now about these calls (None: all), and count them as sent.

        They are frames in the format with the number `wire`.
        """
        ...

    def rest_until(self, row: int, now: Now) -> int | None:
        """Return until when the session's person is excluded after a call (RQ7), in ms since 1970; None if not."""
        ...

    def sweep(self, now: Now) -> None:
        """Do everything that depends only on the passing of time."""
        ...


class NoCalls(Calls):
    """The calls of a process without calls.

    Every `accept` is answered with `over` (M18), and nothing else is ever sent.
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
