"""What a dispatcher is answered: of what was done, and of how a call stands. Never where it is (RZ2)."""

from typing import Any

from ..alertlog import Counts
from ..clock import Now, format_time
from ..model.call import CallEntry, Ending, Near, Opening
from .messages import call_map
from .state import CallState, Seat


def is_open(call: CallState, now: Now) -> bool:
    """Whether a call has neither been ended nor reached its expiry."""
    return call.end is None and now.wall_ms < call.opening.expires_at


def content_answer(entry: CallEntry, opening: Opening, asked: str) -> dict[str, Any]:
    """Of content that is in the log. `asked`: the headline that was sent (RY3)."""
    answer = {
        "id": entry.id,
        "revision": entry.revision,
        "issued_at": format_time(opening.issued_at),
        "expires_at": format_time(opening.expires_at),
        "near": near_map(opening.near),
    }
    return answer if opening.headline == asked else answer | {"headline": "replaced"}


def end_answer(entry: CallEntry, ending: Ending) -> dict[str, Any]:
    """Of an end that is in the log."""
    return {"id": entry.id, "revision": entry.revision, "ended_at": format_time(ending.at)}


def state_map(call: CallState, counts: Counts, now: Now) -> dict[str, Any]:
    """How a call stands: how many were rung, and who goes (RZ7: from where, nobody is told)."""
    shown = {
        "state": _word(call, now),
        "content": call.content,
        "call": call_map(call),
        "ring_m": call.radius_m,
        "rung": counts.sent,
        "seen": counts.acked,
        "declined": counts.declined,
        "seats": [_seat_map(seat) for seat in sorted(call.seats.values(), key=_in_order)],
    }
    # They were told where it is (RZ8).
    left = [
        {"responder": person.sub, "accepted_at": format_time(each.accepted_at), "left_at": format_time(each.at)}
        for person, each in call.left.items()
    ]
    return shown | {"left": left} if left else shown


def near_map(near: Near) -> dict[str, Any]:
    """The circle that is shown, as a shape of an alert is."""
    return {"type": "circle", "lat": near.lat, "lng": near.lng, "radius_m": near.radius_m}


def _word(call: CallState, now: Now) -> str:
    if call.end is not None and call.end.source is not None:
        return "ended"
    if not is_open(call, now):
        return "expired"
    return "full" if call.full else "ringing"


def _in_order(seat: Seat) -> tuple[bool, int, int]:
    """By their numbers; those beyond the seats that there are come last (RV7)."""
    return seat.number == 0, seat.number, seat.entry_number


def _seat_map(seat: Seat) -> dict[str, Any]:
    found = {
        "seat": seat.number,
        "role": seat.role,
        "responder": seat.person.sub,
        "state": seat.state,
        "accepted_at": format_time(seat.accepted_at),
        "changed_at": None if seat.changed_at is None else format_time(seat.changed_at),
        "eta_s": seat.eta_s,
        "aed": seat.aed,
    }
    return {name: value for name, value in found.items() if value is not None}
