"""Requests for a seat (a responder's assignment to a call), and the reasons to refuse one (RV4)."""

from typing import Literal, NamedTuple

from ..clock import Now
from ..geometry.sphere import limit_chord2, unit_vector
from ..model.call import Person
from .state import CallState

Refusal = Literal["over", "held-off", "full", "far"]
Reason = Literal["full", "over", "left", "far", "held-off"]  # why a `standdown` is sent
MAX_REACH_M = 500.0  # largest uncertainty of a location that counts for calls (RQ5)

Here = tuple[float, float, float]  # where a responder is: latitude and longitude in degrees, uncertainty in metres


class SeatRequest(NamedTuple):
    """A request for a seat, which is a person's assignment to a call. It is made after a session has sent `accept`.

    `quals` are those qualifications of the session that count for calls. `here` is the session's location, or None if
    the session is off duty. `busy` says whether the person is excluded because of another call (RQ7). `eta_s` is the
    number of seconds until the responder's arrival, as estimated by the responder.
    """

    call_id: str
    person: Person
    quals: frozenset[str]
    may_test: bool
    here: Here | None
    busy: bool
    eta_s: int | None = None


def refusal(call: CallState, seat_request: SeatRequest, now: Now) -> Refusal | None:
    """Return the first reason why a person can't have a seat, which means an assignment to a call (RV4).

    Return None if the person can have a seat. Must not be called for a person who has a seat of this call already.
    """
    if not call.is_open(now):
        return "over"
    if not is_wanted(call, seat_request.quals) or not may_see(call, seat_request.may_test):
        return "over"
    if seat_request.busy:
        return "held-off"
    if call.full:
        return "full"
    return None if seat_request.here is not None and is_near(call, seat_request.here) else "far"


def is_wanted(call: CallState, quals: frozenset[str]) -> bool:
    """Return whether at least one of these qualifications is among those that the call asks for."""
    return not quals.isdisjoint(call.opening.terms.quals)


def may_see(call: CallState, may_test: bool) -> bool:
    """Return whether a session may see this call. Only some sessions may see tests and exercises (R6)."""
    return may_test or call.opening.status == "actual"


def is_near(call: CallState, here: Here) -> bool:
    """Return whether a responder's location `here` is within the current radius of the call (D2).

    The distance is computed by the formula in Rule 1 of the module `geometry.sphere`.
    """

    lat, lng, reach_m = here
    near = call.opening.near
    centre, point = unit_vector(near.lat, near.lng), unit_vector(lat, lng)
    away = sum((a - b) ** 2 for a, b in zip(point, centre, strict=True))
    return away <= limit_chord2(call.reach_m + min(reach_m, MAX_REACH_M))
