"""Random walks through two processes that read one log, compared with a simple model of the rules (`rules.py`)."""

from calls import rules
from calls.quarter import METRE, NEAR, PLACE, TERMS, Quarter
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.fakes import FakeClock, FakeRights

from geocast.model.alert import Circle
from geocast.model.call import Acceptance, Ending, Nothing, Person, Reason, Release, Widening

IDS = ("c-1", "c-2")
SUBS = ("r-1", "r-2", "r-3")
WALK_TERMS = TERMS.__class__(
    "Cardiac arrest", sorted(rules.QUALS), list(rules.RINGS_M), 7, ["cpr"] * rules.SEATS, 30, rules.REST_S, 800, 9
)
subs = st.sampled_from(SUBS)
ids = st.sampled_from(IDS)
metres = st.sampled_from([None, 0, 250, 400, 600, 700, 1_200])
quals = st.sampled_from([(), ("cpr",), ("medic", "x"), ("x",)])
processes = st.integers(0, 1)


class Calls(RuleBasedStateMachine):
    """Two processes, their sessions, and what the rules say about each session."""

    def __init__(self):
        super().__init__()
        self.clock = FakeClock()
        self.quarters = [Quarter(clock=self.clock)]
        self.quarters.append(Quarter(clock=self.clock, keys=self.quarters[0].keys))
        self.log = []  # (entry, id, number, kind, told, when it was appended)
        self.read = [0, 0]
        self.known = [{}, {}]  # of each process: the calls as the rules have them
        self.whole = {}  # the same of who has read all
        self.links = {}  # phone -> (process, Link)
        self.numbers = {}  # of seats, by call and sub
        self.excused = set()  # phones and calls that did not ring because of RQ7, and need not when that ends

    # ---- entries of the log ------------------------------------------------------------------------------------

    def append(self, call_id, kind, told, body, secret):
        """Append an entry and apply it to the model."""
        number = sum(each[1] == call_id for each in self.log) + 1
        entry = self.quarters[0].entry(body, secret, call_id, number)
        self.log.append((entry, call_id, number, kind, told, self.clock.monotonic))
        self._apply(self.whole, *self.log[-1][1:])

    def _apply(self, calls, call_id, number, kind, told, at_s):
        if kind == "call" and call_id not in calls:
            calls[call_id] = rules.Call(call_id, self.statuses[call_id])
        calls[call_id].read(number, kind, told, at_s)

    @initialize(tests=st.booleans())
    def which_are_tests(self, tests):
        """Make one of the calls an exercise, or none."""
        self.statuses = {"c-1": "exercise" if tests else "actual", "c-2": "actual"}

    @rule(call_id=ids, where=st.sampled_from([0, 500]))
    def content(self, call_id, where):
        """Open or correct a call."""
        if call_id in self.whole and self.whole[call_id].ended_s is not None:
            return
        near = Circle(NEAR.lat + where * METRE, NEAR.lng, 210.0)
        body = self.quarters[0].opening(WALK_TERMS, near=near, status=self.statuses[call_id])
        self.append(call_id, "call", (near.lat, near.lng, near.radius_m), body, PLACE)

    @rule(call_id=ids)
    def widen(self, call_id):
        """Widen the radius of a call to the next wave."""
        call = self._open(call_id)
        if call and not call.full and call.ring < 2:
            self.append(call_id, "widen", call.ring + 1, Widening(call.ring + 1, 0), Nothing())

    @rule(call_id=ids, sub=subs)
    def accept(self, call_id, sub):
        """Give somebody the lowest free seat."""
        call = self._open(call_id)
        if call and not call.full and sub not in call.seats:
            taken = {self.numbers[call_id, other] for other in call.seats}
            number = self.numbers[call_id, sub] = min({1, 2} - taken)
            self.append(call_id, "claim", sub, Acceptance(number, "cpr", 0), Person(sub))

    @rule(call_id=ids, sub=subs)
    def release(self, call_id, sub):
        """Release somebody's seat."""
        call = self._open(call_id)
        if call and sub in call.seats:
            self.append(call_id, "release", sub, Release(self.numbers[call_id, sub], 0), Person(sub))

    @rule(call_id=ids)
    def end(self, call_id):
        """End a call."""
        if self._open(call_id):
            body = Ending("cad-3", self.clock.wall_ms, self.quarters[0].opening(WALK_TERMS))
            self.append(call_id, "end", None, body, Reason())

    def _open(self, call_id):
        call = self.whole.get(call_id)
        return call if call is not None and call.ended_s is None else None

    @rule(process=processes, count=st.integers(1, 3))
    def catch_up(self, process, count):
        """Let a process read entries that it has not read yet."""
        for entry, *told in self.log[self.read[process] :][:count]:
            self.read[process] += 1
            self._apply(self.known[process], *told)
            if told[2] == "end":
                holders = self.known[process][told[0]].seats
                for own, link in self.links.values():
                    if own == process and link.sub in holders and link.quals & rules.QUALS:  # HD5
                        link.held.add(told[0])
            self.quarters[process].hub.take(entry, self.clock.now())
        self.send(process)

    @rule(process=processes)
    def read_again(self, process):
        """Let a process read everything again, as after a loss of entries."""
        for entry, *_ in self.log[: self.read[process]]:
            self.quarters[process].hub.take(entry, self.clock.now())
        self.send(process)

    # ---- changes of connections --------------------------------------------------------------------------------

    @rule(process=processes, sub=subs, quals=quals, may_test=st.booleans(), at=metres)
    def join(self, process, sub, quals, may_test, at):
        """Add a session."""
        if len(self.links) < 8:
            quarter = self.quarters[process]
            link = rules.Link(sub, set(quals), may_test, None if at is None else quarter.place(at))
            phone = quarter.join(at or 0, sub, quals, may_test=may_test, here=at is not None)
            self.links[phone] = process, link
            self.judge(phone)

    @precondition(lambda self: self.links)
    @rule(data=st.data(), at=metres, reach_m=st.sampled_from([0.0, 300.0, 2_000.0]))
    def move(self, data, at, reach_m):
        """Move a session, or take it off duty."""
        phone = self.one(data)
        here = None if at is None else phone.quarter.place(at, reach_m)
        self.links[phone][1].here = here
        phone.quarter.hub.move(phone.row, here)
        self.settle(phone)

    @precondition(lambda self: self.links)
    @rule(data=st.data(), quals=quals, may_test=st.booleans())
    def token(self, data, quals, may_test):
        """Give a session another token."""
        phone = self.one(data)
        link = self.links[phone][1]
        link.quals, link.may_test = set(quals), may_test
        phone.quarter.hub.set_rights(phone.row, _rights(link))
        self.settle(phone)

    @precondition(lambda self: self.links)
    @rule(data=st.data(), call_id=ids)
    def decline(self, data, call_id):
        """Decline a call. A seat stays taken, because this model does not ask the log."""
        phone = self.one(data)
        process, link = self.links[phone]
        call = self.known[process].get(call_id)
        if call and call.ended_s is None and (call.status == "actual" or link.may_test):
            link.declined.add(call_id)
        phone.decline(call_id)
        self.judge(phone)

    @precondition(lambda self: self.links)
    @rule(data=st.data(), slow=st.booleans())
    def slowness(self, data, slow):
        """Make a session slow, or let it catch up."""
        phone = self.one(data)
        if slow:
            phone.quarter.slow.add(phone.row)
        elif phone.row in phone.quarter.slow:
            phone.quarter.slow.discard(phone.row)
            self.settle(phone)

    @precondition(lambda self: self.links)
    @rule(data=st.data())
    def leave(self, data):
        """Close a connection."""
        phone = self.one(data)
        phone.quarter.slow.discard(phone.row)
        phone.leave()
        del self.links[phone]

    @rule(seconds=st.sampled_from([1, 300, 601]))
    def time_passes(self, seconds):
        """Advance the clock, so that exclusions end; this sends nothing (RQ7)."""
        if self.clock.monotonic < 2_000:
            self.clock.advance(seconds)
            for quarter in self.quarters:
                quarter.hub.sweep(self.clock.now())
                quarter.run()

    def one(self, data):
        """Return one of the sessions, chosen at random."""
        return data.draw(st.sampled_from(sorted(self.links, key=lambda phone: (self.links[phone][0], phone.row))))

    # ---- checks of sent messages -------------------------------------------------------------------------------

    def settle(self, phone):
        """Send a session its pending messages, unless it is slow."""
        if phone.row not in phone.quarter.slow:
            self.excused -= {(phone, call_id) for call_id in IDS}
            phone.settle()
        self.judge(phone)

    def send(self, process):
        """Write to all sessions that the hub has marked."""
        self.quarters[process].run()
        for phone, (own, _) in self.links.items():
            if own == process:
                self.judge(phone)

    def judge(self, phone):
        """Check that each message was due at that moment, and that none is missing."""
        process, link = self.links[phone]
        calls = self.known[process]
        for message in phone.messages():
            told = _delivery(message)
            call = calls[told[0]]
            assert rules.due(call, link, calls, self.clock.monotonic) == told[1:], (told, link)
            link.sent.setdefault(call.id, []).append(told[1:])

    @invariant()
    def nobody_lacks_anything(self):
        """Check that sessions that are not slow have been sent everything that is due (RJ2, RJ5, RJ6).

        Sessions whose exclusion has just ended are not checked (RQ7).
        """
        for phone, (process, link) in self.links.items():
            calls, now_s = self.known[process], self.clock.monotonic
            if rules.busy(link.sub, calls, now_s):
                self.excused |= {(phone, call_id) for call_id in calls}
            for call in calls.values() if phone.row not in phone.quarter.slow else ():
                missing = rules.due(call, link, calls, now_s)
                waits = (phone, call.id) in self.excused and missing == ("call", call.revision)
                assert missing is None or waits, (call, link, missing)


def _rights(link):
    return FakeRights(link.may_test, sub=link.sub, quals=frozenset(link.quals))


def _delivery(message):
    match message["type"]:
        case "call":
            return message["call"]["id"], "call", message["call"]["revision"]
        case "task":
            return message["id"], "task", message["revision"]
    return message["id"], message["type"], message["reason"]


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=40, stateful_step_count=50, deadline=None)
