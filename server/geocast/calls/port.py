"""The interface through which the stream's hub uses calls, with what a process without calls does."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..clock import Now
from ..model.call import SeatState
from .eligibility import Here
from .messages import in_each_format, standdown_message
from .responders import ResponderRights


class Calls:
    """The interface through which the stream's hub uses the calls of this process.

    A row is the number of a session in the stream's hub.

    The methods here are those of a process without calls: it answers every `accept` with `over` (M18), and sends
    nothing else. `hub.CallHub` overrides all of them.
    """

    def __init__(self) -> None:
        self._without_call: dict[int, list[str]] = {}  # by row: the calls whose `accept` still has to be answered

    @property
    def busy(self) -> bool:
        """Whether there may be sessions that should get messages about calls and were not sent them yet."""
        return False

    def set_rights(self, row: int, rights: ResponderRights) -> None:
        """Set the rights of a session to those that its current token grants."""

    def move(self, row: int, here: Here | None) -> None:
        """Set the location of a session to the one that its client has sent (RQ4).

        None means that the client no longer shares its location. The session is then off duty, and is not sent any
        calls.
        """

    def take_holding(self, row: int, holding: Mapping[str, int], now: Now) -> None:
        """Process the field `holding` of a new session: the calls that the client already has (RJ8).

        `holding` is a dict from the id of a call to the revision that the client has.
        """

    def leave(self, row: int) -> None:
        """Forget a session that has ended, and what it was sent about calls.

        The stream's hub calls this again if an unexpected error interrupts it, before another session gets the row.
        """
        self._without_call.pop(row, None)

    def accept(self, row: int, call_id: str, eta_s: int | None, now: Now) -> None:  # noqa: ARG002
        """Process an `accept` (M18), with which a responder offers to help.

        The answer is a message that `frames` returns later: soon if this process can decide, otherwise after the log
        has decided.
        """
        self._without_call.setdefault(row, []).append(call_id)

    def decline(self, row: int, call_id: str) -> None:
        """Process a `decline` (M19): a responder is not coming, or is no longer coming."""

    def report(self, row: int, call_id: str, state: SeatState, now: Now) -> None:
        """Process a `report` (M20): the progress of a responder on the way to a call."""

    def acknowledge(self, row: int, call_id: str, revision: int) -> None:
        """Record that the session's client has shown this revision of a call to its user (M5)."""

    def take_noted(self, count: int) -> Sequence[tuple[int, Iterable[Any]]]:  # noqa: ARG002
        """Return up to `count` sessions that may be owed messages about calls, and forget them.

        The result is a list of pairs: the row (number) of a session, and the calls that the messages are about.
        `frames` returns the messages themselves.
        """
        return ()

    def frames(self, row: int, wire: int, now: Now, calls: Iterable[Any] | None = None) -> list[bytes]:  # noqa: ARG002
        """Return the messages about calls that a session should get now, and record them as sent.

        If `calls` is None, consider all calls. The messages are frames in the wire format with the number `wire`.
        """
        return [in_each_format(standdown_message(each, "over"))[wire] for each in self._without_call.pop(row, ())]

    def rest_until(self, row: int, now: Now) -> int | None:
        """Return the time until which a session's person gets no calls, after having helped at one (RQ7).

        The time is in ms since 1970. Return None if there is no such time.
        """

    def sweep(self, now: Now) -> None:
        """Do everything that depends only on the passing of time, such as forgetting expired calls."""
