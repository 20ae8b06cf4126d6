"""The answers to a dispatcher: the result of a request, and the state of a call. They never contain the place (RZ2)."""

from typing import Annotated, Literal, NotRequired, cast

from pydantic import Field
from typing_extensions import TypedDict

from ..alertlog import Counts
from ..clock import Now
from ..model.call import CallEntry, Ending, Opening, Role, SeatState
from ..model.times import format_time
from ..wire.output import CircleOut, TimeOut
from .messages import CallOut, call_map
from .state import CallState, Seat

Number = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class CallAcceptedOut(TypedDict):
    """The answer to a request that opened a call or gave it new content.

    `headline` is "replaced" if responders are shown the category's title instead of the headline in the request.
    """

    id: str
    revision: Number
    issued_at: TimeOut
    expires_at: TimeOut
    near: CircleOut
    headline: NotRequired[Literal["replaced"]]


class CallEndedOut(TypedDict):
    """The answer to a request to end a call."""

    id: str
    revision: Number
    ended_at: TimeOut


class SeatOut(TypedDict):
    """A responder's seat (the responder's assignment to a call).

    `seat` is its number. It is 0 for an additional seat, which exceeds the number of responders that the call needs
    (RV7).
    """

    seat: Count
    role: Role
    responder: str
    state: SeatState
    accepted_at: TimeOut
    changed_at: NotRequired[TimeOut]
    eta_s: NotRequired[Count]
    aed: NotRequired[str]


class LeftOut(TypedDict):
    """A responder who accepted the call, but has given it up since. The responder knows the exact place (RZ8)."""

    responder: str
    accepted_at: TimeOut
    left_at: TimeOut


StateWord = Literal["ringing", "full", "ended", "expired"]


class CallStateOut(TypedDict):
    """The state of a call, as its dispatcher sees it.

    It has the search radius in metres and the assigned responders. It also has three numbers of sessions: those that
    were notified (`rung`), those that have seen the call, and those that have declined it. Nobody who was sent nothing
    is counted (DP30). `content` is the number that a request for new content must send as `replaces`.
    """

    state: StateWord
    content: Number
    call: CallOut
    ring_m: Number
    rung: Count
    seen: Count
    declined: Count
    seats: list[SeatOut]
    left: NotRequired[list[LeftOut]]


class CallsOut(TypedDict):
    """The open calls of a dispatcher, in the order in which they were opened."""

    calls: list[CallStateOut]


def content_answer(entry: CallEntry, opening: Opening, asked: str) -> CallAcceptedOut:
    """Return the answer to a request that opened a call or gave it new content.

    `entry` is the log entry in which the content was stored, and `asked` is the headline in the request (RY3).
    """
    answer: CallAcceptedOut = {
        "id": entry.id,
        "revision": entry.revision,
        "issued_at": format_time(opening.issued_at),
        "expires_at": format_time(opening.expires_at),
        "near": cast(CircleOut, opening.near.to_map()),
    }
    if opening.headline != asked:
        answer["headline"] = "replaced"
    return answer


def end_answer(entry: CallEntry, ending: Ending) -> CallEndedOut:
    """Return the answer to a request to end a call. `entry` is the log entry that ended the call."""
    return {"id": entry.id, "revision": entry.revision, "ended_at": format_time(ending.at)}


def state_map(call: CallState, counts: Counts, now: Now) -> CallStateOut:
    """Return the state of a call as JSON: counts of sessions, and who is assigned, but no locations of people (RZ7)."""
    shown: CallStateOut = {
        "state": _word(call, now),
        "content": call.content,
        "call": call_map(call),
        "ring_m": call.radius_m,
        "rung": counts.sent,
        "seen": counts.acked,
        "declined": counts.declined,
        "seats": [_seat_map(seat) for seat in sorted(call.seats.values(), key=_in_order)],
    }
    if call.left:  # these people know the place (RZ8)
        shown["left"] = [
            {"responder": person.sub, "accepted_at": format_time(each.accepted_at), "left_at": format_time(each.at)}
            for person, each in call.left.items()
        ]
    return shown


def _word(call: CallState, now: Now) -> StateWord:
    if call.end is not None and call.end.source is not None:
        return "ended"
    if not call.is_open(now):
        return "expired"
    return "full" if call.full else "ringing"


def _in_order(seat: Seat) -> tuple[bool, int, int]:
    """Return the sort key of a responder: by the number of the seat, with additional seats (number 0) last (RV7)."""

    return seat.number == 0, seat.number, seat.entry_number


def _seat_map(seat: Seat) -> SeatOut:
    shown = {
        "seat": seat.number,
        "role": seat.role,
        "responder": seat.person.sub,
        "state": seat.state,
        "accepted_at": format_time(seat.accepted_at),
        "changed_at": None if seat.changed_at is None else format_time(seat.changed_at),
        "eta_s": seat.eta_s,
        "aed": seat.aed,
    }
    return cast(SeatOut, {name: value for name, value in shown.items() if value is not None})
