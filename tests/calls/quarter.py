"""A call hub with its responders, a log and a clock, for tests that are easy to read."""

import dataclasses
import functools
import json

from support.fakes import NOON_MS, FakeClock, FakeRights, messages

from geocast.calls.aeds import NO_AEDS
from geocast.calls.decrypted_chain import opened, sealed
from geocast.calls.encryption import make_call_key, parse_call_keys
from geocast.calls.hub import CallHub
from geocast.model.alert import Circle
from geocast.model.call import (
    Acceptance,
    CallTerms,
    Ending,
    ExactPlace,
    Nothing,
    Opening,
    Person,
    Reason,
    Release,
    Report,
    Widening,
)
from geocast.model.times import format_time

NEAR = Circle(47.678, 8.83, 210.0)
PLACE = ExactPlace(47.6780089, 8.8311129, "residence", "Dorfstrasse 4, Ossingen", "Door code 4711")
METRE = 1 / 111_195  # in degrees of latitude
HALF_HOUR_MS = 1_800_000
TERMS = CallTerms("Cardiac arrest", ["cpr", "medic"], [100, 300, 500], 7, ["cpr", "aed"], 30, 3_600, 800, 9)


def with_terms(**changes):
    """Return the terms of a call with these changes."""
    return dataclasses.replace(TERMS, **changes)


def new_keys(kid="one"):
    """Return a new set with one key for calls."""
    return parse_call_keys(json.dumps({"keys": [make_call_key(kid)]}).encode(), "here")


def opener(keys):
    """Return the function that decrypts entries with these keys."""
    return functools.partial(opened, keys)


def all_of(thing, seen=None):
    """Return everything that an object contains, as text."""
    seen = set() if seen is None else seen
    if id(thing) in seen or callable(thing):
        return ""
    seen.add(id(thing))
    if isinstance(thing, dict):
        return " ".join(all_of(each, seen) for pair in thing.items() for each in pair)
    if isinstance(thing, (list, tuple, set, frozenset)) or type(thing).__name__ == "deque":
        return " ".join(all_of(each, seen) for each in thing)
    names = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    if type(thing).__module__.startswith("geocast.calls"):
        held = [getattr(thing, name, None) for name in names] + list(getattr(thing, "__dict__", {}).values())
        return " ".join(all_of(each, seen) for each in held)
    return repr(thing)


class Quarter:
    """A call hub and its responders, each some metres north of `near`, with a log of its own.

    Requests to the log are only recorded in `asked`, and are carried out when a test says so. Frames arrive as soon as
    they are written.
    """

    def __init__(self, aeds=NO_AEDS, keys=None, clock=None):
        self.clock = clock or FakeClock()
        self.keys = keys or new_keys()
        self.asked, self.took, self.order = [], [], []
        self.numbers = {}
        self.hub = CallHub(64, opener(self.keys), self.asked.append, aeds, lambda *took: self.took.append(took))
        self.slow = set()
        self._rows = 0

    # ---- responders ----------------------------------------------------------------------------------------------

    def join(self, metres=0, sub="r-1", quals=("cpr",), *, may_test=False, holding=None, here=True, wire=0, issuer=""):
        """Add a session, on duty this many metres north of `near`."""
        row, self._rows = self._rows, self._rows + 1
        self.hub.set_rights(row, FakeRights(may_test, sub=sub, quals=frozenset(quals), issuer=issuer))
        self.hub.move(row, self.place(metres) if here else None)
        self.hub.take_holding(row, holding or {}, self.clock.now())
        return FakeResponder(self, row, wire)

    @staticmethod
    def place(metres, reach_m=0.0):
        """Return the place this many metres north of `near`."""
        return NEAR.lat + metres * METRE, NEAR.lng, reach_m

    # ---- entries of the log --------------------------------------------------------------------------------------

    def entry(self, body, secret, call_id="c-1", number=None, keys=None):
        """Return the next entry of a call, encrypted."""
        number = number or self.numbers.get(call_id, 0) + 1
        self.numbers[call_id] = max(number, self.numbers.get(call_id, 0))
        return sealed(keys or self.keys, call_id, number, NOON_MS + HALF_HOUR_MS, body, secret)

    def read(self, body, secret, call_id="c-1", **how):
        """Give the hub the next entry of a call, write everything, and return the entry."""
        entry = self.entry(body, secret, call_id, **how)
        self.take(entry)
        return entry

    def take(self, *entries):
        """Give the hub these entries, and write everything."""
        for entry in entries:
            self.hub.take(entry, self.clock.now())
        self.run()

    def opening(self, terms=TERMS, **changes):
        """Return the body of a call that is opened now."""
        now = self.clock.now().wall_ms
        fields = {
            "category": "cardiac_arrest",
            "headline": "Adult, not breathing",
            "status": "actual",
            "source": "cad-3",
            "occurred_at": NOON_MS,
            "issued_at": now,
            "expires_at": NOON_MS + HALF_HOUR_MS,
            "near": NEAR,
            "terms": terms,
        }
        return Opening(**(fields | changes))

    def open(self, call_id="c-1", terms=TERMS, place=PLACE, **changes):
        """Open a call, or correct its content."""
        return self.read(self.opening(terms, **changes), place, call_id)

    def widen(self, ring=1, call_id="c-1"):
        """Widen the radius of the call to the next wave."""
        return self.read(Widening(ring, self.clock.now().wall_ms), Nothing(), call_id)

    def accept(self, sub, seat=1, role="cpr", call_id="c-1", aed=None, **how):
        """Store a seat of a responder."""
        return self.read(Acceptance(seat, role, self.clock.now().wall_ms, None, aed), Person(sub), call_id, **how)

    def release(self, sub, seat=1, call_id="c-1"):
        """Store the release of a responder's seat."""
        return self.read(Release(seat, self.clock.now().wall_ms), Person(sub), call_id)

    def report(self, sub, seat=1, call_id="c-1"):
        """Store a report that a responder has arrived."""
        return self.read(Report(seat, "arrived", self.clock.now().wall_ms), Person(sub), call_id)

    def end(self, call_id="c-1", source="cad-3", terms=TERMS, **changes):
        """End the call."""
        ending = Ending(source, self.clock.now().wall_ms, self.opening(terms, **changes))
        return self.read(ending, Reason("The crew is there."), call_id)

    # ---- writing to sessions -------------------------------------------------------------------------------------

    def run(self, slice_=256):
        """Write to all sessions that the hub has marked, as the stream's hub does."""
        while self.hub.busy:
            for row, calls in self.hub.take_noted(slice_):
                if row not in self.slow and row in FakeResponder.of(self):
                    FakeResponder.of(self)[row].write(
                        self.hub.frames(row, FakeResponder.of(self)[row].wire, self.clock.now(), calls)
                    )


class FakeResponder:
    """The session of a responder, which records the messages that it is sent."""

    @staticmethod
    def of(quarter):
        """Return all sessions of a hub, indexed by row number."""
        return quarter.__dict__.setdefault("phones", {})

    def __init__(self, quarter, row, wire):
        self.quarter, self.row, self.wire = quarter, row, wire
        self.sent, self._seen = [], 0
        self.of(quarter)[row] = self
        self.settle()

    def write(self, frames):
        """Record all frames of one write."""
        if frames:
            self.quarter.order.append(self.row)
            self.sent.append([message for data in frames for message in messages(data)])

    def settle(self):
        """Send the pending messages, as the stream's hub does after `hello`, `move`, `token` and `drained`."""
        self.write(self.quarter.hub.frames(self.row, self.wire, self.quarter.clock.now()))

    def move(self, metres):
        """Move the session; None takes it off duty."""
        self.quarter.hub.move(self.row, None if metres is None else self.quarter.place(metres))
        self.settle()

    def token(self, sub="r-1", quals=("cpr",), *, may_test=False):
        """Give the session another token."""
        self.quarter.hub.set_rights(self.row, FakeRights(may_test, sub=sub, quals=frozenset(quals)))
        self.settle()

    def accept(self, call_id="c-1", eta_s=None):
        """Accept a call; return the requests to the log that this causes."""
        before = len(self.quarter.asked)
        self.quarter.hub.accept(self.row, call_id, eta_s, self.quarter.clock.now())
        self.quarter.run()
        return self.quarter.asked[before:]

    def decline(self, call_id="c-1"):
        """Decline a call; return the requests to the log that this causes."""
        before = len(self.quarter.asked)
        self.quarter.hub.decline(self.row, call_id)
        self.quarter.run()
        return self.quarter.asked[before:]

    def leave(self):
        """Close the connection."""
        self.quarter.hub.leave(self.row)
        del self.of(self.quarter)[self.row]

    def messages(self):
        """Return the messages that were sent since the last call."""
        new = [message for write in self.sent[self._seen :] for message in write]
        self._seen = len(self.sent)
        return new

    def received(self):
        """Return the new messages in short: "c-1/2" (call), "c-1:4 seat 2" (task), "-c-1 full" (standdown)."""
        return [_short(message) for message in self.messages()]


def _short(message):
    match message["type"]:
        case "call":
            return f"{message['call']['id']}/{message['call']['revision']}"
        case "task":
            return f"{message['id']}:{message['revision']} seat {message['seat']}"
        case "standdown":
            return f"-{message['id']} {message['reason']}"
    return message["type"]


NOON = format_time(NOON_MS)
