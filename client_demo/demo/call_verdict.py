"""The judge of the demo's call: who had to be called, who was sent the place, and whether nobody else was. No I/O.

The judgement follows call-rules.md with an independent haversine, and knows nothing about a node's implementation. Its
input are the events that `crowd` recorded for each phone; times are in ns of one monotonic clock.

Rule 1  Responders do not move during a call. A responder had to be called, once, if qualified, on duty, and within the
        last search radius (RJ1, RN4); nobody else may have been called. Within 1 cm of the edge either answer is right.
Rule 2  Each seat is held by a different responder, who was called and had accepted. Exactly the holders of seats, by
        the node's own state, were sent the place (RV1, RV2). A page that a person has open may also hold a seat; it is
        not one of the phones.
Rule 3  Every frame of every phone is searched for the place: its address, how to get in, and its two numbers in both
        formats. The place may be only in the `task` of a responder with a seat. It must be found there, because
        otherwise the search would prove nothing (RZ2).
Rule 4  Everybody who was called and has not declined, and everybody with a seat, got a standdown at the end (RJ7).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from client_demo.python.geo import EDGE_M, Place, distance_m

from .verdict import Event, percentile

MAX_REACH_M = 500.0  # limit of a `here` place's reach (RQ5)
FINDING = "place"  # the event that a frame contained the place


@dataclass(frozen=True, slots=True)
class Called:
    """A call that was opened and ended.

    Responders need one of `quals`. `near` is the circle that was sent, `ring_m` the last search radius beyond it,
    `holders` are those who hold one of `seats` by the node's state; `sent` is in ns.
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
    """A simulated phone: its owner, the qualifications that count, its place on duty, and its answer to a call.

    `here` is None when the owner is off duty.
    """

    sub: str
    quals: frozenset[str]
    here: Place | None
    says: str
    events: Sequence[Event]


@dataclass(slots=True)
class CallVerdict:
    """The verdict.

    `others` counts phones that had the place in a frame without a seat, `frames` the searched frames.
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
        """Whether all required responders were called, seats were taken, and nobody else learned anything."""
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
    """Judge the records of every phone."""
    found = CallVerdict(called.seats, frames)
    known: set[str] = set()
    for phone in phones:
        known.add(phone.sub)
        _check(found, called, phone)
    if len(set(called.holders)) != len(called.holders):
        found.faults.append("somebody holds two seats")
    found.taken += sum(holder not in known for holder in called.holders)  # a page that a person has open
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
    """Return how far within the last search radius the phone is, in metres; -inf if it must not be called."""
    if phone.here is None or not phone.quals & called.quals:
        return float("-inf")
    reach_m = min(phone.here.reach_m, MAX_REACH_M)
    away_m = distance_m(phone.here.lat, phone.here.lng, called.near["lat"], called.near["lng"])
    return float(called.near["radius_m"] + called.ring_m + reach_m - away_m)
