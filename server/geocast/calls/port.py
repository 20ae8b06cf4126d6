"""The port between the stream's hub and calls, and its implementation for a process without calls."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from ..clock import Now
from ..model.call import SeatState
from .eligibility import Here
from .messages import in_each_format, standdown_message
from .responders import ResponderRights


class Calls(Protocol):
    """The calls of this process. A row is a session's number in the hub."""

    @property
    def busy(self) -> bool:
        """Whether any row may be owed something."""
        ...

    def set_rights(self, row: int, rights: ResponderRights) -> None:
        """Set what the token of the session says."""
        ...

    def move(self, row: int, here: Here | None) -> None:
        """Set where the session says that it is; None takes the session off duty (RQ4)."""
        ...

    def take_holding(self, row: int, holding: Mapping[str, int], now: Now) -> None:
        """Take the `holding` of a new session: the revision that it has of each call (RJ8)."""
        ...

    def leave(self, row: int) -> None:
        """Forget a session that is over."""
        ...

    def accept(self, row: int, call_id: str, eta_s: int | None, now: Now) -> None:
        """Take the session's `accept` (M18). `frames` has the answer, now or when the log has decided."""
        ...

    def decline(self, row: int, call_id: str) -> None:
        """Take the session's `decline` (M19)."""
        ...

    def report(self, row: int, call_id: str, state: SeatState, now: Now) -> None:
        """Take the session's `report` (M20)."""
        ...

    def acknowledge(self, row: int, call_id: str, revision: int) -> None:
        """Count that the session has shown this revision of a call (M5)."""
        ...

    def take_noted(self, count: int) -> Sequence[tuple[int, Iterable[Any]]]:
        """Take out at most `count` rows that may be owed something, each with the calls in question."""
        ...

    def frames(self, row: int, wire: int, now: Now, calls: Iterable[Any] | None = None) -> list[bytes]:
        """Return what the session is owed of these calls, or of all, as frames of this wire, and count it as sent."""
        ...

    def sweep(self, now: Now) -> None:
        """Do all that depends on time alone."""
        ...


class NoCalls(Calls):
    """A process without calls: every `accept` is answered by `over` (M18), and nothing else is ever owed."""

    @property
    def busy(self) -> bool:
        return False

    def __init__(self) -> None:
        self._refused: dict[int, list[str]] = {}  # by row: the accepted calls that are still to be answered

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

    def sweep(self, now: Now) -> None:
        pass
