"""Judges the demo's call for help: were the right responders called and sent the place, and nobody else? No I/O.

The judge follows call-rules.md with a distance formula of its own (haversine), and uses nothing of a node's code. It
reads the events that `crowd` has recorded for each phone; times are in ns of one monotonic clock. A seat is a place
among the responders who go; a responder who has one is sent a `task` with the exact place of the call.

Rule 1  Responders do not move during a call. A responder had to be called, once, if qualified, on duty, and within the
        last search radius (RJ1, RN4). Nobody else may have been called. If a responder is within 1 cm of the edge of
        the radius, it is right both to call and not to call this responder.
Rule 2  Each seat is held by a different responder, who was called and has accepted. Those who hold seats according to
        the node, and only they, were sent the place (RV1, RV2). A web page that a person has opened may also hold a
        seat, although it is not one of the phones.
Rule 3  Every frame that a phone received is searched for the place: for its address, how to get in, and its coordinates
        as JSON and as MessagePack write them. Only a `task` to a responder with a seat may contain the place. It must
        be found there, because otherwise the search would prove nothing (RZ2).
Rule 4  Everybody who was called and has not declined, and everybody with a seat, got a `standdown` at the end (RJ7).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from client_demo.python.geo import EDGE_M, Place, distance_m

from .verdict import Event, percentile

MAX_REACH_M = 500.0  # the largest allowed reach of a place with `here` (RQ5)
FINDING = "place"  # kind of the event that says that a frame contained the place


@dataclass(frozen=True, slots=True)
class Called:
    """A call for help that was opened and ended.

    Only responders with one of `quals` may be called. `near` is the circle that was sent to them. `ring_m` is the last
    search radius, measured outwards from that circle. `holders` are the responders who have one of the `seats` (the
    places among those who go), according to the node. `sent` is the time of the request in ns.
    """

    id: str
    quals: frozenset[str]
    near: Mapping[str, Any]
    ring_m: float
    seats: int
    holders: Sequence[str]
    sent: int


@dataclass(frozen=True, slots=True)
class ResponderPhone:
    """A simulated phone, as the judge of a call sees it.

    `quals` are those of the owner's qualifications for which the owner may be called, and `here` is the place where the
    owner is on duty, or None when off duty. `says` is the answer to calls, and `events` is the phone's record.
    """

    sub: str
    quals: frozenset[str]
    here: Place | None
    says: str
    events: Sequence[Event]


@dataclass(slots=True)
class CallVerdict:
    """The verdict on a call for help.

    `others` is the number of phones without a seat that were nevertheless sent the exact place. `frames` is the number
    of frames that were searched for the place.
    """

    seats: int
    frames: int
    expected: int = 0
    rung: int = 0
    outside: int = 0
    missed: int = 0
    taken: int = 0
    others: int = 0
    faults: list[str] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    seat_ms: list[float] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether exactly the right responders were called, a seat was taken, and nobody else was sent the place."""
        return self.taken > 0 and not (self.outside or self.missed or self.others or self.faults)

    def line(self) -> str:
        """Return the verdict as one line for programs."""
        first, last = (percentile(self.latencies_ms, share) for share in (0.0, 1.0))
        return (
            f"call: expected={self.expected} rung={self.rung} outside={self.outside} missed={self.missed} "
            f"seats={self.taken}/{self.seats} place_seen_by_others={self.others} frames={self.frames} "
            f"first_ring_ms={first:.1f} last_ring_ms={last:.1f} first_seat_ms={min(self.seat_ms, default=0.0):.1f}"
        )


def check_call(called: Called, phones: Iterable[ResponderPhone], frames: int) -> CallVerdict:
    """Judge a call by the records of all phones; `frames` is the number of searched frames. Return the verdict."""
    found = CallVerdict(called.seats, frames)
    known: set[str] = set()
    for phone in phones:
        known.add(phone.sub)
        _check(found, called, phone)
    if len(set(called.holders)) != len(called.holders):
        found.faults.append("somebody holds two seats")
    found.taken += sum(holder not in known for holder in called.holders)  # such as the page of a real person
    if not frames:
        found.faults.append("no frame was searched for the place")
    return found


def _check(found: CallVerdict, called: Called, phone: ResponderPhone) -> None:
    events = [event for event in phone.events if event[0] in ("call", "task", "standdown") and event[2] == called.id]
    counts = Counter(event[0] for event in events)
    depth_m = _depth_m(called, phone)
    was_rung, holds = counts["call"] > 0, phone.sub in called.holders
    had_to = depth_m > EDGE_M
    found.expected += had_to or (was_rung and depth_m >= -EDGE_M)
    found.rung += was_rung
    found.missed += had_to and not was_rung
    found.outside += was_rung and depth_m < -EDGE_M
    if counts["call"] > 1:
        found.faults.append("somebody was called twice")
    _check_seat(found, called, phone, events, holds=holds, was_rung=was_rung)
    _check_place(found, phone, holds=holds)
    told_over = any(event[0] == "standdown" and event[3] == "over" for event in events)
    if (holds or (was_rung and phone.says != "decline")) and not told_over:
        found.faults.append("somebody got no standdown at the end of the call")
    found.latencies_ms += [(event[1] - called.sent) / 1e6 for event in events if event[0] == "call"]


def _check_seat(
    found: CallVerdict, called: Called, phone: ResponderPhone, events: Sequence[Event], *, holds: bool, was_rung: bool
) -> None:
    tasks = [event for event in events if event[0] == "task"]
    found.taken += holds and bool(tasks)
    if tasks and not holds:
        found.faults.append("somebody got a task but holds no seat")
    if holds and not tasks:
        found.faults.append("somebody holds a seat but got no task")
    if holds and not (was_rung and phone.says == "accept"):
        found.faults.append("somebody holds a seat but has not accepted, or was not called")
    found.seat_ms += [(event[1] - called.sent) / 1e6 for event in tasks[:1]]


def _check_place(found: CallVerdict, phone: ResponderPhone, *, holds: bool) -> None:
    seen = [event[2] for event in phone.events if event[0] == FINDING]
    found.others += bool(seen) and not holds
    if any(what != "task" for what in seen):
        found.faults.append("the place was in a frame other than a task")
    if holds and not seen:
        found.faults.append("the search did not find the place where it must be")


def _depth_m(called: Called, phone: ResponderPhone) -> float:
    """Return how far inside the last search radius the phone is, in metres.

    A negative value means outside; -inf means that the owner is off duty or not qualified.
    """
    if phone.here is None or not phone.quals & called.quals:
        return float("-inf")
    reach_m = min(phone.here.reach_m, MAX_REACH_M)
    away_m = distance_m(phone.here.lat, phone.here.lng, called.near["lat"], called.near["lng"])
    return float(called.near["radius_m"] + called.ring_m + reach_m - away_m)
