"""What a responder asks for who says `accept`, and why a seat may be refused (RV4)."""

from typing import Literal, NamedTuple, get_args

from ..clock import Now
from ..geometry.sphere import limit_chord2, unit_vector
from ..model.call import Person
from .state import CallState

Refusal = Literal["over", "held-off", "full", "far"]
Reason = Literal["full", "over", "left", "far", "held-off"]  # of a `standdown`
REASONS: tuple[Reason, ...] = get_args(Reason)
MAX_REACH_M = 500.0  # RQ5: of how far off a place may be, what counts for calls

Here = tuple[float, float, float]  # where a responder is: latitude and longitude in degrees, reach in metres


class SeatRequest(NamedTuple):
    """A claim to a seat: who makes it, by which qualifications that count, from where (None: off duty).

    `busy`: by RQ7, because of another call. `eta_s`: in how many seconds the responder says to be there.
    """

    call_id: str
    person: Person
    quals: frozenset[str]
    may_test: bool
    here: Here | None
    busy: bool
    eta_s: int | None = None


def refusal(call: CallState | None, seat_request: SeatRequest, now: Now) -> Refusal | None:
    """The first reason why this responder, who holds no seat of the call, can't have one (RV4); None if it can."""
    if call is None or call.end is not None or now.wall_ms >= call.opening.expires_at:
        return "over"
    if not is_wanted(call, seat_request.quals) or not may_see(call, seat_request.may_test):
        return "over"
    if seat_request.busy:
        return "held-off"
    if call.full:
        return "full"
    return None if seat_request.here is not None and is_near(call, seat_request.here) else "far"


def is_wanted(call: CallState, quals: frozenset[str]) -> bool:
    """Whether one of these qualifications is one that the call asks for."""
    return not quals.isdisjoint(call.opening.terms.quals)


def may_see(call: CallState, may_test: bool) -> bool:
    """Whether the call exists for a session that may see tests, or may not (R6)."""
    return may_test or call.opening.status == "actual"


def is_near(call: CallState, here: Here) -> bool:
    """Whether a place is within the ring in force (D2), by the formula of `sphere`, Rule 1."""
    lat, lng, reach_m = here
    near = call.opening.near
    centre, point = unit_vector(near.lat, near.lng), unit_vector(lat, lng)
    away = sum((a - b) ** 2 for a, b in zip(point, centre, strict=True))
    return away <= limit_chord2(call.reach_m + min(reach_m, MAX_REACH_M))
