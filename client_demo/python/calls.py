"""Keeps the calls for help of a responder, with their tasks and the responder's answers. No I/O.

There is no clock here: callers pass the time.

A responder who accepts a call gets a seat (a place among those who go) and a `task`, which says where to go.

Rule 1  A `call` is replaced by a `call` with a higher revision, and a `task` by a `task` with a higher revision. Any
        other revision is ignored.
Rule 2  An answer is repeated until the server has received it. An `accept` is sent again every 5 s and at once on each
        new connection, until a `task` or a `standdown` answers it or the call is over (RU3). The `decline` of a seat is
        repeated in the same way. If the client does not know of a seat, a `decline` is sent three times on each
        connection.
Rule 3  A person who has declined is not asked again: when the call comes again, it is declined again (RU1).
Rule 4  The exact place is kept only as long as the seat. The task is deleted at `standdown` and at `expires_at`. The
        latter is checked by two clocks, and the first to reach it counts: the client's own clock, which nobody sets,
        and this clock corrected by the server's `now`. After that no method returns the place. It is never stored in a
        file (RU2).
Rule 5  After a standdown, a call stays over unless a higher revision comes, because a node that is behind may send the
        call again. Example: node A has sent `standdown`, the client reconnects to node B, and B has not read the end
        of the call yet.
Rule 6  The server counts one report in 5 s, so the next report waits 6 s. Reports are not answered, so the last one is
        sent again on each new connection (RU3).
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, get_args

from .holdings import ID, check_texts, listed
from .times import parse_time
from .wire import Message

AGAIN_MS = 5_000  # pause before an answer is repeated (protocol, RU3)
REPORT_MS = 6_000  # pause between two reports: the server allows one in 5 s (M20), and the second may travel faster
MAX_LIFE_MS = 7_200_000  # a call is open for two hours at most: protocol, `max_age_s`
MAX_ETA_S = 7_200
MAX_REMEMBERED = 1_024  # ids kept for Rules 3 and 5, of at most 128 characters each
DECLINES = 3  # how often a decline is sent on each connection if no seat is known

State = Literal["aed", "arrived"]


class CallKind(StrEnum):
    """What has happened to a call for help, from the point of view of one responder."""

    CALL = "call"  # the call is new, its content has changed, or a seat is free again
    TASK = "task"  # this responder has a seat, and the task says where to go
    STANDDOWN = "standdown"  # the call is over, for this responder or for all


@dataclass(frozen=True, slots=True)
class CallChange:
    """One change to show to a responder.

    `call` and `task` are the call and the task after the change, each None if there is none. After a STANDDOWN there is
    no task: remove the exact place from the screen, and from notifications, too. `reason` is the reason that the server
    gave, or "expired" if the call has reached its end, about which the server sends no message.
    """

    kind: CallKind
    id: str
    call: Mapping[str, Any] | None = None
    task: Mapping[str, Any] | None = field(default=None, repr=False)  # keeps places out of log lines (RU2)
    reason: str | None = None


@dataclass(slots=True)
class _Held:
    expires_at: int  # ms since 1970, the server's time
    keep_until: int  # by the client's own clock, in ms
    call: Mapping[str, Any] | None = None
    task: Mapping[str, Any] | None = None
    report: State | None = None
    report_at: int | None = None  # when to send it, by the client's own clock; None after it was sent
    next_report_at: int = 0

    @property
    def revision(self) -> int:
        return max(_revision(self.call), _revision(self.task))


@dataclass(slots=True)
class _Answer:
    message: Message
    at: int  # when to send it (again), by the client's own clock
    until: int  # by the client's own clock, in ms
    left: int | None = None  # how many more times on this connection; None: until answered


def _checked(call_id: object) -> str:
    if not isinstance(call_id, str) or ID.fullmatch(call_id) is None:
        raise ValueError("id: 1 to 128 letters, digits and ._:- are needed, as a call's id has them")
    return call_id


def _revision(said: Mapping[str, Any] | None) -> int:
    return 0 if said is None else int(said["revision"])


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


class Calls:
    """Keeps the calls for help of one responder, with the tasks and the responder's answers.

    In all methods, `own_ms` is the time of the client's own clock, and `now_ms` the server's time at the same moment,
    both in ms.
    """

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._answers: dict[str, _Answer] = {}
        self._once: list[Message] = []  # declines of calls in which this responder has no seat
        self._declined: OrderedDict[str, None] = OrderedDict()
        self._over: OrderedDict[str, int] = OrderedDict()  # id -> the last revision that was received

    def __len__(self) -> int:
        return len(self._held)

    def call(self, call_id: str) -> Mapping[str, Any] | None:
        """Return the newest received revision of a call; None if the call is unknown or over."""
        held = self._held.get(call_id)
        return None if held is None else held.call

    def task(self, call_id: str) -> Mapping[str, Any] | None:
        """Return this responder's task in a call, which says where to go.

        Return None if the responder has no seat (place among those who go).
        """
        held = self._held.get(call_id)
        return None if held is None else held.task

    def tasks(self) -> list[Mapping[str, Any]]:
        """Return all tasks of this responder. There is usually at most one."""
        return [held.task for held in self._held.values() if held.task is not None]

    def ringing(self) -> list[Mapping[str, Any]]:
        """Return the calls for which this responder has no task (yet)."""
        return [held.call for held in self._held.values() if held.call is not None and held.task is None]

    def unanswered(self, call_id: str) -> bool:
        """Return whether the server has not yet answered an `accept`, or a `decline` that gave a seat back."""
        return call_id in self._answers

    # ---- messages from the server; incomplete ones raise one of the errors ODD ----------------------

    def take_call(self, call: Mapping[str, Any], own_ms: int, now_ms: int) -> list[CallChange]:
        """Store the call in a `call` message, and return the changes to show."""
        (key, revision), expires_at = listed(call), parse_time(call["expires_at"])
        check_texts(call)
        keep_until = own_ms + min(MAX_LIFE_MS, max(0, expires_at - parse_time(call["issued_at"])))
        if key in self._declined:
            self._once.append({"type": "decline", "id": key})
            return []
        held = self._held.get(key)
        known = _revision(held.call) if held is not None else self._over.get(key, 0)
        if revision <= known or expires_at <= now_ms or keep_until <= own_ms:
            return []
        if held is None:
            held = self._held[key] = _Held(expires_at, keep_until)
        held.call, held.expires_at, held.keep_until = call, expires_at, keep_until
        return [self._change(CallKind.CALL, key)]

    def take_task(self, task: Mapping[str, Any], own_ms: int, now_ms: int) -> list[CallChange]:
        """Store the task in a `task` message, and return the changes to show.

        The server sends the task to all devices of a person, not only to the device on which the person has accepted.
        """
        key, revision = listed(task)
        expires_at, place = parse_time(task["expires_at"]), task["place"]
        if not isinstance(place, Mapping):
            raise TypeError("place is no map")
        answer = self._answers.get(key)
        if answer is not None and answer.message["type"] == "decline":
            answer.left = None  # give the seat back: the task may have been sent before the decline came
            return []
        held = self._held.get(key)
        if expires_at <= now_ms or (held is None and revision <= self._over.get(key, 0)):
            return []
        self._answers.pop(key, None)
        self._declined.pop(key, None)
        if held is None:
            held = self._held[key] = _Held(expires_at, own_ms + MAX_LIFE_MS)
        if revision <= _revision(held.task):
            return []
        held.task, held.expires_at = task, expires_at
        return [self._change(CallKind.TASK, key)]

    def take_standdown(self, message: Mapping[str, Any]) -> list[CallChange]:
        """Remove the call of a `standdown` message, and return the changes to show.

        If the responder neither has the call nor has answered it, nothing changes.
        """
        key, reason = _text(message["id"], "id"), _text(message["reason"], "reason")
        held, answer = self._held.pop(key, None), self._answers.pop(key, None)
        if held is None and answer is None:
            return []
        if held is not None and reason == "over":
            _remember(self._over, key, held.revision)
        return [CallChange(CallKind.STANDDOWN, key, None if held is None else held.call, None, reason)]

    # ---- the person's answers, which `due` returns for sending ----------------------------------------------------

    def accept(self, call_id: str, eta_s: int | None, own_ms: int) -> None:
        """Accept a call. `eta_s` is the time until the responder arrives, in seconds; None if it is unknown.

        Raise ValueError if `eta_s` is out of range, or if the id is malformed.
        """
        _checked(call_id)
        if eta_s is not None and (isinstance(eta_s, bool) or not 0 <= eta_s <= MAX_ETA_S):
            raise ValueError(f"eta_s: 0 to {MAX_ETA_S} seconds are needed")
        eta = {} if eta_s is None else {"eta_s": round(eta_s)}
        self._declined.pop(call_id, None)
        self._over.pop(call_id, None)
        self._answers[call_id] = _Answer({"type": "accept", "id": call_id, **eta}, own_ms, self._until(call_id, own_ms))

    def decline(self, call_id: str, own_ms: int) -> None:
        """Decline a call, and remove it.

        If the call was accepted before, this gives the seat back. Raise ValueError if the id is malformed.
        """
        until, message = self._until(call_id, own_ms), {"type": "decline", "id": _checked(call_id)}
        held, answer = self._held.pop(call_id, None), self._answers.pop(call_id, None)
        _remember(self._declined, call_id, None)
        if held is not None and held.task is not None:
            self._answers[call_id] = _Answer(message, own_ms, until)
        elif answer is not None:
            self._answers[call_id] = _Answer(message, own_ms, until, DECLINES)
        else:
            self._once.append(message)

    def report(self, call_id: str, state: State, own_ms: int) -> None:
        """Report the responder's progress: `aed` (I have a defibrillator) or `arrived`.

        Raise ValueError if the responder has no task in this call, or if `state` is something else.
        """
        held = self._held.get(call_id)
        if state not in get_args(State):
            raise ValueError(f"state: one of {', '.join(get_args(State))} is needed")
        if held is None or held.task is None:
            raise ValueError("report: there is no task of this id; only the holder of a seat can report")
        held.report, held.report_at = state, max(own_ms, held.next_report_at)

    # ---- time ----------------------------------------------------------------------------------------------------

    def connected(self, own_ms: int) -> None:
        """Schedule all answers and reports for sending on a new connection (Rules 2 and 6).

        Declines by a responder who has no seat are not sent again: if the server sends the call again, `take_call`
        declines it again (Rule 3).
        """
        self._once.clear()
        for answer in self._answers.values():
            answer.at, answer.left = own_ms, None if answer.left is None else DECLINES
        for held in self._held.values():
            held.report_at = None if held.report is None else max(own_ms, held.next_report_at)

    def due(self, own_ms: int) -> list[Message]:
        """Return the messages to send now, and record that they are sent."""
        messages, self._once = self._once, []
        for answer in self._answers.values():
            if answer.at <= own_ms and answer.left != 0:
                messages.append(answer.message)
                answer.at, answer.left = own_ms + AGAIN_MS, None if answer.left is None else answer.left - 1
        for key, held in self._held.items():
            if held.report_at is not None and held.report_at <= own_ms:
                messages.append({"type": "report", "id": key, "state": held.report})
                held.report_at, held.next_report_at = None, own_ms + REPORT_MS
        return messages

    def next_due(self) -> int | None:
        """Return the time at which `due` will have a message to send; None if no message waits.

        The time is that of the client's own clock, in ms.
        """
        if self._once:
            return 0
        answers = [answer.at for answer in self._answers.values() if answer.left != 0]
        reports = [held.report_at for held in self._held.values() if held.report_at is not None]
        return min(answers + reports, default=None)

    def next_expiry(self, ahead_ms: int) -> int | None:
        """Return the time at which `expire` must be called next; None if nothing can expire.

        The time is that of the client's own clock, in ms. `ahead_ms` is the server's clock minus the client's own
        clock.
        """
        held = [min(each.expires_at - ahead_ms, each.keep_until) for each in self._held.values()]
        return min(held + [answer.until for answer in self._answers.values()], default=None)

    def expire(self, own_ms: int, now_ms: int) -> list[CallChange]:
        """Remove the calls that are over by at least one of the two clocks, and return the changes (Rule 4).

        The responder's answers to these calls are removed, too.
        """
        for key in [key for key, answer in self._answers.items() if answer.until <= own_ms]:
            del self._answers[key]
        over = [key for key, each in self._held.items() if each.expires_at <= now_ms or each.keep_until <= own_ms]
        changes = []
        for key in over:
            self._answers.pop(key, None)
            changes.append(CallChange(CallKind.STANDDOWN, key, self._held.pop(key).call, None, "expired"))
        return changes

    def holding(self, limit: int) -> dict[str, int]:
        """Return the calls to list in the `holding` of a `hello`: a dict from id to highest received revision (RU3).

        It has at most `limit` entries: calls with a task come first, then the other calls, those that end last first.
        """
        first = sorted(self._held, key=lambda key: (self._held[key].task is None, -self._held[key].expires_at))
        return {key: self._held[key].revision for key in first[:limit]}

    # ---- helpers -------------------------------------------------------------------------------------------------

    def _change(self, kind: CallKind, key: str) -> CallChange:
        held = self._held[key]
        return CallChange(kind, key, held.call, held.task)

    def _until(self, key: str, own_ms: int) -> int:
        held = self._held.get(key)
        return own_ms + MAX_LIFE_MS if held is None else held.keep_until


def _remember(known: OrderedDict[str, Any], key: str, value: Any) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > MAX_REMEMBERED:
        known.popitem(last=False)
