"""Who is sent what of a call (docs/reference/call-rules.md, RQ, RV, RJ), as a naive program: the rules, executable.

It reads plain dicts off a list, looks at one call and one connection at a time, and shares no line with the server: its
distance is a haversine. `due` says the one message that a connection has to be sent now, or None. As the rules leave no
choice, that is both what must be sent and all that may be.
"""

import math
from dataclasses import dataclass, field

EARTH_RADIUS_M = 6_371_007.180918475
SEATS = 2
RINGS_M = (100, 300, 500)
QUALS = {"cpr", "medic"}
REST_S = 600


def haversine_m(lat1, lng1, lat2, lng2):
    """Return the great-circle distance in metres."""
    phi1, phi2 = math.radians(lat1), math.radians(lat2)
    h = math.sin((phi2 - phi1) / 2) ** 2
    h += math.cos(phi1) * math.cos(phi2) * math.sin(math.radians(lng2 - lng1) / 2) ** 2
    return 2 * EARTH_RADIUS_M * math.asin(min(1.0, math.sqrt(h)))


@dataclass
class Call:
    """A call, as far as one process has read its entries."""

    id: str
    status: str = "actual"
    near: tuple = ()
    content: int = 0
    revision: int = 0
    ring: int = 0
    seats: dict = field(default_factory=dict)  # sub -> number of the claim
    ended_s: float | None = None

    @property
    def full(self):
        """Whether no seat is free (RV6)."""
        return len(self.seats) >= SEATS

    def read(self, number, kind, told, at_s):
        """Apply an entry and the time when it was appended; `told` is a place, a wave or a `sub`."""
        if kind == "call":
            self.near, self.content, self.revision = told, number, number
        elif kind == "widen":
            self.ring = told
        elif kind == "claim":
            self.seats[told] = number
        elif kind == "release":
            was_full = self.full
            del self.seats[told]
            self.revision = number if was_full else self.revision
        elif kind == "end":
            self.ended_s = at_s


@dataclass
class Link:
    """A connection: its responder, its place, and what it was sent about each call."""

    sub: str
    quals: set
    may_test: bool
    here: tuple | None
    sent: dict = field(default_factory=dict)  # call id -> messages, in order
    declined: set = field(default_factory=set)
    held: set = field(default_factory=set)  # calls of which it held a seat when the end was read

    def notified(self, call_id):
        """The newest revision of which the connection was notified; 0 if there is none."""
        return max((what for kind, what in self.sent.get(call_id, []) if kind == "call"), default=0)

    def task(self, call_id):
        """The revision of the task that the connection was sent; 0 if there is none."""
        has = 0
        for kind, what in self.sent.get(call_id, []):
            has = what if kind == "task" else 0 if kind == "standdown" else has
        return has

    def stood_down(self, call_id):
        """The last `standdown`, if nothing was sent after it."""
        last = self.sent.get(call_id, [("", "")])[-1]
        return last[1] if last[0] == "standdown" else None


def busy(sub, calls, now_s):
    """Return whether a responder is excluded because of another call (RQ7)."""
    held = [call for call in calls.values() if sub in call.seats and call.status == "actual"]
    return any(call.ended_s is None or now_s < call.ended_s + REST_S for call in held)


def rings_for(call, link, calls, now_s):
    """Return whether a call notifies a connection (RJ1, RQ5)."""
    if call.ended_s is not None or call.full or not link.quals & QUALS or link.here is None:
        return False
    lat, lng, reach_m = link.here
    far_m = haversine_m(lat, lng, *call.near[:2])
    return (
        far_m <= call.near[2] + RINGS_M[call.ring] + min(reach_m, 500)
        and call.id not in link.declined
        and not busy(link.sub, calls, now_s)
    )


def due(call, link, calls, now_s):
    """Return the message that the connection must be sent about a call."""
    if call.status != "actual" and not link.may_test:  # R6
        return None
    rung, task, stood = link.notified(call.id), link.task(call.id), link.stood_down(call.id)
    if call.ended_s is not None:
        told = (rung and call.id not in link.declined) or call.id in link.held  # RJ7
        return ("standdown", "over") if told and stood != "over" else None
    if link.sub in call.seats:  # RJ6, HD5
        if not link.quals & QUALS:
            return None
        wanted = max(call.seats[link.sub], call.content)
        return ("task", wanted) if task < wanted else None
    if task:
        return ("standdown", "left")
    if not link.quals or call.id in link.declined:  # RJ9, RJ1
        return None
    if call.full:  # RJ4
        return ("standdown", "full") if rung and stood != "full" else None
    corrected = 0 < rung < call.content and stood != "full"  # RJ5
    if corrected or (rung < call.revision and rings_for(call, link, calls, now_s)):  # RJ2
        return ("call", call.revision)
    return None
