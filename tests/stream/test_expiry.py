"""No path (way of sending) hands a frame to a transport at or after `expires_at` (protocol, section 3).

This holds whatever the clocks do. A path is a generator: the part before its `yield` happens in time, the part after it
may come too late.
"""

import asyncio

import pytest
from support.fakes import DALLAS, HOUR_MS, NOON_MS, FakeClock, FakePeer, a_cancel, a_revision, messages
from support.schemas import check_client_message

from geocast.auth.scopes import RECEIVE, TEST
from geocast.auth.tokens import Key, TokenVerifier, sign
from geocast.clock import Now
from geocast.model import close_codes
from geocast.stream import fanout, hub
from geocast.stream.hub import HEARTBEAT_S, Hub
from geocast.stream.server import Pump
from geocast.stream.session import Session
from geocast.wire.frames import JSON, MSGPACK

LIFE_S = 10.0  # of an alert
END_MS = NOON_MS + round(LIFE_S * 1000)
KEY = {"kty": "oct", "kid": "k", "alg": "HS256", "k": "c2VjcmV0" * 8}
HERE, ELSEWHERE = {"lat": DALLAS[0], "lng": DALLAS[1]}, {"lat": 0, "lng": 0}


class SessionPeer(FakePeer):
    """A subscriber's connection with its session. Lies: as FakePeer, but its end is an end."""

    def __init__(self, harness, wire):
        super().__init__(lambda: harness.hub.slowed(self.session.row, harness.clock.now()))
        self.harness = harness
        self.session = Session(self, wire, harness.hub, TokenVerifier({"k": Key(KEY, "HS256")}, required=False))

    def says(self, kind, **fields):
        check_client_message({"type": kind, **fields})
        self.session.receive(self.session.wire.dumps({"type": kind, **fields}), self.harness.clock.now())

    def close(self, close):
        super().close(close)
        self.harness.hub.leave(self.session.row)

    def drain(self):
        """Let the transport send all that was written."""
        self.full = False
        self.harness.hub.on_drained(self.session.row, self.harness.clock.now())


class HubHarness:
    """A hub, a clock, and phones."""

    def __init__(self):
        self.clock, self.hub, self.phones = FakeClock(), Hub(16), []

    def phone(self, place=HERE, wire=JSON, **fields):
        phone = SessionPeer(self, wire)
        self.phones.append(phone)
        phone.says("hello", places=[place], **fields)
        return phone

    def reads(self, entry):
        """Have the node read an entry of the log."""
        self.hub.fanout.deliver(entry, self.clock.now())

    def reads_alert(self, alert_id="a-1", revision=1, **changes):
        self.reads(a_revision(alert_id, revision, **{"expires_at": END_MS} | changes))

    def reads_cancel(self, revision=2):
        self.reads(a_cancel(revision=revision, ends_at=END_MS))

    def turns(self, count=100):
        for _ in range(count):
            self.hub.turn(self.clock.now())

    def sweep(self):
        self.hub.sweep(self.clock.now())

    def received(self):
        """Return how many alerts and cancels were handed to transports since the start."""
        self.told_so_far = getattr(self, "told_so_far", 0) + sum(
            message["type"] in ("alert", "cancel") for phone in self.phones for message in phone.take()
        )
        return self.told_so_far


@pytest.fixture(autouse=True)
def look_at_every_sweep(monkeypatch):
    """Have each sweep (periodic check) test the deadlines of all sessions; normally only one sweep in a few does."""
    monkeypatch.setattr(hub, "LOOK_S", 0.0)


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.setattr(fanout, "SLICE", 1)
    return HubHarness()


def a_token(clock, *scopes, life_s=3600):
    return sign(KEY, "phone", [RECEIVE, *scopes], clock.wall_ms // 1000, life_s)


# ---- the ways of sending an alert --------------------------------------------------------------------------------


def hello(harness):
    """A client that connects late."""
    harness.reads_alert()
    yield
    harness.phone()


def hello_that_holds_an_old_revision(harness):
    """A client that comes back with an old revision."""
    harness.reads_alert()
    harness.reads_alert(revision=2)
    yield
    harness.phone(ELSEWHERE, holding={"a-1": 1})


def hello_that_holds_a_cancelled_alert(harness):
    """A client that comes back after the cancel."""
    harness.reads_alert()
    harness.reads_cancel()
    yield
    harness.phone(ELSEWHERE, holding={"a-1": 1})


def move(harness):
    """A client that walks into the area."""
    phone = harness.phone(ELSEWHERE)
    harness.reads_alert()
    harness.turns()
    yield
    phone.says("move", places=[HERE])


def filter(harness):  # noqa: A001 (the message's name)
    """A client that clears its filter."""
    phone = harness.phone(categories=[])
    harness.reads_alert()
    harness.turns()
    yield
    phone.says("filter", categories=None)


def token(harness):
    """A client that may see tests from now on."""
    phone = harness.phone(token=a_token(harness.clock))
    harness.reads_alert(status="test")
    harness.turns()
    yield
    phone.says("token", token=a_token(harness.clock, TEST, life_s=3 * 3600))


def resume(harness):
    """A slow client whose transport has sent all bytes."""
    phone = harness.phone(wire=MSGPACK)
    phone.full = True
    phone.says("ping")
    harness.reads_alert()
    harness.turns()
    yield
    phone.drain()


def fan_out_before_its_first_slice(harness):
    """An entry that was read from the log and not sent to anybody yet."""
    harness.phone()
    harness.reads_alert()
    yield
    harness.turns()


def fan_out_in_the_middle(harness):
    """A fan-out that has reached some sessions and not the others."""
    for wire in (JSON, MSGPACK, JSON, MSGPACK):
        harness.phone(wire=wire)
    harness.reads_alert()
    harness.turns(2)
    yield
    harness.turns()


def fan_out_of_a_cancel_in_the_middle(harness):
    """A fan-out of a cancel whose alert expires meanwhile."""
    for _ in range(4):
        harness.phone()
    harness.reads_alert()
    harness.turns()
    harness.reads_cancel()
    harness.turns(2)
    yield
    harness.turns()


def fan_out_that_waits_for_its_turn(harness):
    """Alerts that wait behind a more severe one."""
    for _ in range(4):
        harness.phone()
    harness.reads_alert("long", severity="extreme", expires_at=END_MS + 60_000)
    for number in range(3):
        harness.reads_alert(f"short-{number}", severity="minor")
    harness.turns()
    harness.reads_alert("short-0", 2, severity="minor")
    yield
    harness.turns()


def log_reader(harness):
    """An entry that is read from the log late."""
    harness.phone()
    yield
    harness.reads_alert()
    harness.turns()


def log_reader_at_a_revision(harness):
    """A revision of a known alert that is read late."""
    harness.phone()
    harness.reads_alert()
    harness.turns()
    yield
    harness.reads_alert(revision=2)
    harness.turns()


def log_reader_at_a_cancel(harness):
    """A cancel of a known alert that is read late."""
    harness.phone()
    harness.reads_alert()
    harness.turns()
    yield
    harness.reads_cancel()
    harness.turns()


def holding_of_an_alert_that_is_read_later(harness):
    """A client names an alert in `holding` that this node, being behind, reads from the log only later."""
    harness.phone(ELSEWHERE, holding={"a-1": 1})
    yield
    harness.reads_alert(revision=2)
    harness.turns()


KNOWN_IN_TIME = [
    hello,
    hello_that_holds_an_old_revision,
    hello_that_holds_a_cancelled_alert,
    move,
    filter,
    token,
    resume,
    fan_out_before_its_first_slice,
    fan_out_in_the_middle,
    fan_out_of_a_cancel_in_the_middle,
    fan_out_that_waits_for_its_turn,
    log_reader_at_a_revision,
    log_reader_at_a_cancel,
]
READ_TOO_LATE = [log_reader, holding_of_an_alert_that_is_read_later]


def by_name(function):
    return function.__name__


@pytest.mark.parametrize("path", KNOWN_IN_TIME + READ_TOO_LATE, ids=by_name)
def test_each_way_of_sending_sends_an_alert_just_before_its_expiry(path, harness):
    """Without this test, the others would prove nothing about a way that never sends anything (section 3)."""
    steps = path(harness)
    next(steps)
    before = harness.received()
    harness.clock.advance(LIFE_S - 0.001)
    next(steps, None)
    assert harness.received() > before


@pytest.mark.parametrize("late_s", [0.0, 0.001, 5.0])
@pytest.mark.parametrize("path", KNOWN_IN_TIME + READ_TOO_LATE, ids=by_name)
def test_no_way_of_sending_sends_an_alert_at_its_expiry_or_later(path, late_s, harness):
    """Nothing is sent at or after `expires_at` (E1)."""
    steps = path(harness)
    next(steps)
    before = harness.received()
    harness.clock.advance(LIFE_S + late_s)
    next(steps, None)
    assert harness.received() == before


@pytest.mark.parametrize("path", KNOWN_IN_TIME, ids=by_name)
def test_nothing_is_sent_after_the_monotonic_deadline_if_the_wall_clock_is_set_back(path, harness):
    """The monotonic deadline was computed when the alert was read (E5)."""
    steps = path(harness)
    next(steps)
    before = harness.received()
    harness.clock.wall_ms -= HOUR_MS
    harness.clock.advance(LIFE_S)
    next(steps, None)
    assert harness.received() == before


@pytest.mark.parametrize("path", KNOWN_IN_TIME + READ_TOO_LATE, ids=by_name)
def test_nothing_is_sent_after_expiry_by_the_wall_clock_alone(path, harness):
    """The wall clock was behind when the alert was read, and has been set right (E5)."""
    harness.clock.wall_ms -= HOUR_MS // 2
    steps = path(harness)
    next(steps)
    before = harness.received()
    harness.clock.wall_ms = END_MS
    next(steps, None)
    assert harness.received() == before


def test_alert_that_expires_during_its_fan_out_is_not_sent_further(harness):
    """Before each batch of sessions, the fan-out checks for each alert whether it may still be sent (section 3)."""
    phones = [harness.phone() for _ in range(3)]
    harness.reads_alert("long", expires_at=END_MS + 60_000)
    harness.reads_alert("short")
    harness.turns(2)
    harness.clock.advance(LIFE_S)
    harness.turns()
    told = [[m["alert"]["id"] for m in phone.take() if m["type"] == "alert"] for phone in phones]
    assert [ids.count("long") for ids in told] == [1, 1, 1]
    assert sum(ids.count("short") for ids in told) < 3


# ---- wrong clocks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [1, -1])
def test_step_of_the_wall_clock_closes_no_session(hours, harness):
    """The deadlines of tokens, silence and slowness are monotonic (sections 5 and 6)."""
    slow = harness.phone()
    slow.full = True
    slow.says("ping")
    harness.phone(token=a_token(harness.clock, life_s=60))
    harness.phone(wire=MSGPACK)
    harness.clock.wall_ms += hours * HOUR_MS
    for _ in range(29):
        harness.clock.advance(1)
        harness.sweep()
    assert [(phone.closed, phone.aborted) for phone in harness.phones] == [(None, False)] * 3


@pytest.mark.parametrize("hours", [0, 1, -1])
def test_session_ends_at_the_first_periodic_check_after_its_token_expires(hours, harness):
    """The wall clock does not matter (T6)."""
    phone = harness.phone(token=a_token(harness.clock, life_s=20))
    harness.clock.wall_ms += hours * HOUR_MS
    harness.clock.advance(19.999)
    harness.sweep()
    assert phone.closed is None
    harness.clock.advance(0.001)
    harness.sweep()
    assert phone.closed is close_codes.BAD_TOKEN


def test_fresh_token_replaces_the_deadline_by_an_earlier_or_later_one(harness):
    """The last accepted token is the one that counts (T6)."""
    later, earlier = (harness.phone(token=a_token(harness.clock, life_s=20)) for _ in range(2))
    later.says("token", token=a_token(harness.clock, life_s=40))
    earlier.says("token", token=a_token(harness.clock, life_s=10))
    harness.clock.advance(15)
    harness.sweep()
    assert (later.closed, earlier.closed) == (None, close_codes.BAD_TOKEN)
    harness.clock.advance(24)
    harness.sweep()
    assert later.closed is None
    harness.clock.advance(1)
    harness.sweep()
    assert later.closed is close_codes.BAD_TOKEN


@pytest.mark.parametrize("hours", [0, 1, -1])
def test_alert_expired_by_the_monotonic_clock_is_forgotten_at_the_next_check(hours, harness):
    """If the alert were kept, its recipients would be sent a late revision of it (section 3)."""
    harness.phone()
    harness.reads_alert()
    harness.turns()
    harness.clock.wall_ms += hours * HOUR_MS
    harness.clock.advance(LIFE_S)
    harness.sweep()
    assert len(harness.hub.fanout.live) == 0


@pytest.mark.parametrize("turns", [0, 1, 100])
def test_alerts_wait_while_the_wall_clock_is_briefly_ahead_and_none_is_repeated(turns, harness):
    """Nothing is sent while the clock is ahead; then newcomers and revisions are sent, once (E1, E5, R2)."""
    first = [harness.phone() for _ in range(3)]
    harness.reads_alert("before")
    harness.turns(turns)
    before = harness.received()
    harness.clock.wall_ms += HOUR_MS
    harness.reads_alert("meanwhile")
    later = [harness.phone(), harness.phone(holding={"before": 1, "meanwhile": 1})]
    harness.sweep()
    harness.turns()
    assert harness.received() == before
    harness.clock.wall_ms -= HOUR_MS
    harness.sweep()
    harness.turns()
    harness.phone()
    assert harness.received() == 2 * (len(first) + 1) + 2
    told = [[m["type"] for m in messages(b"".join(phone.writes))] for phone in later]
    assert told == [["welcome", "alert", "alert"], ["welcome"]]


@pytest.mark.parametrize("seen_by", ["hello", "turn"])
def test_no_session_misses_an_alert_if_the_wall_clock_is_ahead_between_two_checks(seen_by, harness):
    """The session is sent the alert when the clock is right, although no check saw the wrong clock (R3)."""
    harness.phone()
    harness.reads_alert()
    harness.turns(0 if seen_by == "turn" else 1)
    harness.clock.wall_ms += HOUR_MS
    phone = harness.phone(place=HERE)
    harness.turns(1)
    harness.clock.wall_ms -= HOUR_MS
    harness.sweep()
    harness.turns()
    assert harness.received() == 2
    assert [m["type"] for m in messages(b"".join(phone.writes))] == ["welcome", "alert"]


def test_revision_read_while_the_wall_clock_is_ahead_is_sent_after_correction(harness):
    """Every recipient is sent the revision. Its deadline is the old one plus what the revision adds (R1)."""
    harness.phone()
    harness.reads_alert()
    harness.turns()
    harness.clock.wall_ms += HOUR_MS
    harness.reads_alert(revision=2, expires_at=END_MS + 5_000)
    harness.sweep()
    harness.clock.wall_ms -= HOUR_MS
    harness.clock.advance(LIFE_S + 4.999)
    harness.sweep()
    harness.turns()
    assert harness.received() == 2
    harness.clock.advance(0.001)
    harness.phone()
    assert harness.received() == 2


@pytest.mark.parametrize("longer_s", [0, 5])
def test_revision_read_while_the_wall_clock_is_behind_expires_on_time(longer_s, harness):
    """The deadline moves by as much as the end does, though the wall clock was set in between (section 3)."""
    harness.reads_alert()
    harness.clock.wall_ms -= HOUR_MS
    harness.reads_alert(revision=2, expires_at=END_MS + longer_s * 1000)
    harness.clock.advance(LIFE_S + longer_s - 0.001)
    harness.phone()
    assert harness.received() == 1
    harness.clock.advance(0.001)
    harness.phone()
    assert harness.received() == 1


def test_revision_that_extends_an_expired_alert_is_sent(harness):
    """The end of the newest revision counts (live alerts, Rule 1)."""
    phone = harness.phone()
    harness.reads_alert()
    harness.turns()
    harness.clock.advance(LIFE_S)
    harness.reads_alert(revision=2, expires_at=END_MS + 5_000)
    harness.turns()
    assert [m["alert"]["revision"] for m in phone.take() if m["type"] == "alert"] == [1, 2]


class HastyClock(FakeClock):
    """A clock that goes forward by 2 ms at every reading. Lies: as FakeClock, and time passes only when it is read."""

    def now(self) -> Now:
        self.wall_ms += 2
        self.monotonic += 0.002
        return super().now()


def test_clock_is_read_before_each_batch_of_a_fan_out(harness):
    """The time in use is at most 5 ms old, even in a fan-out that takes longer than its alert lives (E2)."""
    for _ in range(12):
        harness.phone()
    harness.received()
    harness.clock = HastyClock()
    harness.hub.fanout.deliver(a_revision(expires_at=NOON_MS + 11), FakeClock().now())

    async def fan_out():
        pump = Pump(harness.hub, harness.clock)
        pump.wake()
        await pump.idle.wait()

    asyncio.run(fan_out())
    told = [m for phone in harness.phones for m in phone.take()]
    assert 0 < len(told) <= 5, "a slice of one for each reading; it was read five times before the end, and once at it"


def test_periodic_check_after_expiry_sends_only_pings(harness):
    """A heartbeat has no alert in it (section 5)."""
    phone = harness.phone()
    harness.reads_alert()
    harness.clock.advance(HEARTBEAT_S)
    harness.sweep()
    assert [m["type"] for m in phone.take()] == ["welcome", "<ping>"]
