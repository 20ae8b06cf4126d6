"""No path hands a frame to a transport at or after `expires_at`, whatever the clocks do (protocol, section 3).

A path is a generator: the part before its `yield` happens in time, the part after it may come too late.
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
from geocast.stream.hub import Hub
from geocast.stream.server import Pump
from geocast.stream.session import HEARTBEAT_S, Session
from geocast.wire.frames import JSON, MSGPACK

LIFE_S = 10.0  # of an alert
END_MS = NOON_MS + round(LIFE_S * 1000)
KEY = {"kty": "oct", "kid": "k", "alg": "HS256", "k": "c2VjcmV0" * 8}
HERE, ELSEWHERE = {"lat": DALLAS[0], "lng": DALLAS[1]}, {"lat": 0, "lng": 0}


class SessionPeer(FakePeer):
    """A subscriber's connection with its session. Lies: as FakePeer, but its end is an end."""

    def __init__(self, stage, wire):
        super().__init__(lambda: stage.hub.slowed(self.session.row, stage.clock.now()))
        self.stage = stage
        self.session = Session(self, wire, stage.hub, TokenVerifier({"k": Key(KEY, "HS256")}, required=False))

    def says(self, kind, **fields):
        check_client_message({"type": kind, **fields})
        self.session.receive(self.session.wire.dumps({"type": kind, **fields}), self.stage.clock.now())

    def close(self, close):
        super().close(close)
        self.stage.hub.leave(self.session.row)

    def drain(self):
        """Let the transport send all that was written."""
        self.full = False
        self.stage.hub.on_drained(self.session.row, self.stage.clock.now())


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
        self.hub.deliver(entry, self.clock.now())

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
    """Have each sweep check the deadlines of all sessions; otherwise one sweep in a few does."""
    monkeypatch.setattr(hub, "LOOK_S", 0.0)


@pytest.fixture
def stage(monkeypatch):
    monkeypatch.setattr(fanout, "SLICE", 1)
    return HubHarness()


def a_token(clock, *scopes, life_s=3600):
    return sign(KEY, "phone", [RECEIVE, *scopes], clock.wall_ms // 1000, life_s)


# ---- the paths ---------------------------------------------------------------------------------------------------


def hello(stage):
    """A client that connects late."""
    stage.reads_alert()
    yield
    stage.phone()


def hello_that_holds_an_old_revision(stage):
    """A client that comes back with an old revision."""
    stage.reads_alert()
    stage.reads_alert(revision=2)
    yield
    stage.phone(ELSEWHERE, holding={"a-1": 1})


def hello_that_holds_a_cancelled_alert(stage):
    """A client that comes back after the cancel."""
    stage.reads_alert()
    stage.reads_cancel()
    yield
    stage.phone(ELSEWHERE, holding={"a-1": 1})


def move(stage):
    """A client that walks into the area."""
    phone = stage.phone(ELSEWHERE)
    stage.reads_alert()
    stage.turns()
    yield
    phone.says("move", places=[HERE])


def filter(stage):  # noqa: A001 (the message's name)
    """A client that clears its filter."""
    phone = stage.phone(categories=[])
    stage.reads_alert()
    stage.turns()
    yield
    phone.says("filter", categories=None)


def token(stage):
    """A client that may see tests from now on."""
    phone = stage.phone(token=a_token(stage.clock))
    stage.reads_alert(status="test")
    stage.turns()
    yield
    phone.says("token", token=a_token(stage.clock, TEST, life_s=3 * 3600))


def resume(stage):
    """A slow client whose transport has sent all bytes."""
    phone = stage.phone(wire=MSGPACK)
    phone.full = True
    phone.says("ping")
    stage.reads_alert()
    stage.turns()
    yield
    phone.drain()


def fan_out_before_its_first_slice(stage):
    """An entry that was read, before its first slice."""
    stage.phone()
    stage.reads_alert()
    yield
    stage.turns()


def fan_out_in_the_middle(stage):
    """A flight that has reached some sessions and not the others."""
    for wire in (JSON, MSGPACK, JSON, MSGPACK):
        stage.phone(wire=wire)
    stage.reads_alert()
    stage.turns(2)
    yield
    stage.turns()


def fan_out_of_a_cancel_in_the_middle(stage):
    """A flight of a cancel whose alert expires meanwhile."""
    for _ in range(4):
        stage.phone()
    stage.reads_alert()
    stage.turns()
    stage.reads_cancel()
    stage.turns(2)
    yield
    stage.turns()


def fan_out_that_waits_for_its_turn(stage):
    """Alerts that wait behind a more severe one."""
    for _ in range(4):
        stage.phone()
    stage.reads_alert("long", severity="extreme", expires_at=END_MS + 60_000)
    for number in range(3):
        stage.reads_alert(f"short-{number}", severity="minor")
    stage.turns()
    stage.reads_alert("short-0", 2, severity="minor")
    yield
    stage.turns()


def log_reader(stage):
    """An entry that is read from the log late."""
    stage.phone()
    yield
    stage.reads_alert()
    stage.turns()


def log_reader_at_a_revision(stage):
    """A revision of a known alert that is read late."""
    stage.phone()
    stage.reads_alert()
    stage.turns()
    yield
    stage.reads_alert(revision=2)
    stage.turns()


def log_reader_at_a_cancel(stage):
    """A cancel of a known alert that is read late."""
    stage.phone()
    stage.reads_alert()
    stage.turns()
    yield
    stage.reads_cancel()
    stage.turns()


def holding_of_an_alert_that_is_read_later(stage):
    """A client that holds an alert which this node, being behind, reads only now."""
    stage.phone(ELSEWHERE, holding={"a-1": 1})
    yield
    stage.reads_alert(revision=2)
    stage.turns()


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
def test_each_path_sends_just_before_the_end(path, stage):
    """Section 3: without this the other tests would prove nothing about a path that sends nothing."""
    steps = path(stage)
    next(steps)
    before = stage.received()
    stage.clock.advance(LIFE_S - 0.001)
    next(steps, None)
    assert stage.received() > before


@pytest.mark.parametrize("late_s", [0.0, 0.001, 5.0])
@pytest.mark.parametrize("path", KNOWN_IN_TIME + READ_TOO_LATE, ids=by_name)
def test_no_path_sends_at_the_end_or_later(path, late_s, stage):
    """E1: nothing is sent after `expires_at`, by any path."""
    steps = path(stage)
    next(steps)
    before = stage.received()
    stage.clock.advance(LIFE_S + late_s)
    next(steps, None)
    assert stage.received() == before


@pytest.mark.parametrize("path", KNOWN_IN_TIME, ids=by_name)
def test_no_path_sends_after_the_monotonic_end_when_the_wall_clock_is_set_back(path, stage):
    """E5: the monotonic deadline was computed when the alert was read."""
    steps = path(stage)
    next(steps)
    before = stage.received()
    stage.clock.wall_ms -= HOUR_MS
    stage.clock.advance(LIFE_S)
    next(steps, None)
    assert stage.received() == before


@pytest.mark.parametrize("path", KNOWN_IN_TIME + READ_TOO_LATE, ids=by_name)
def test_no_path_sends_after_the_end_by_the_wall_clock_alone(path, stage):
    """E5: the wall clock was behind when the alert was read, and has been set right."""
    stage.clock.wall_ms -= HOUR_MS // 2
    steps = path(stage)
    next(steps)
    before = stage.received()
    stage.clock.wall_ms = END_MS
    next(steps, None)
    assert stage.received() == before


def test_second_of_two_alerts_is_not_sent_after_its_end(stage):
    """Section 3: what is owed is decided at every slice, for each alert."""
    phones = [stage.phone() for _ in range(3)]
    stage.reads_alert("long", expires_at=END_MS + 60_000)
    stage.reads_alert("short")
    stage.turns(2)
    stage.clock.advance(LIFE_S)
    stage.turns()
    told = [[m["alert"]["id"] for m in phone.take() if m["type"] == "alert"] for phone in phones]
    assert [ids.count("long") for ids in told] == [1, 1, 1]
    assert sum(ids.count("short") for ids in told) < 3


# ---- clocks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [1, -1])
def test_jump_of_the_wall_clock_closes_no_session(hours, stage):
    """Sections 5 and 6: the deadlines of tokens, silence and slowness are monotonic."""
    slow = stage.phone()
    slow.full = True
    slow.says("ping")
    stage.phone(token=a_token(stage.clock, life_s=60))
    stage.phone(wire=MSGPACK)
    stage.clock.wall_ms += hours * HOUR_MS
    for _ in range(29):
        stage.clock.advance(1)
        stage.sweep()
    assert [(phone.closed, phone.aborted) for phone in stage.phones] == [(None, False)] * 3


@pytest.mark.parametrize("hours", [0, 1, -1])
def test_session_ends_at_the_first_sweep_after_its_token_expires(hours, stage):
    """T6: whatever the wall clock says."""
    phone = stage.phone(token=a_token(stage.clock, life_s=20))
    stage.clock.wall_ms += hours * HOUR_MS
    stage.clock.advance(19.999)
    stage.sweep()
    assert phone.closed is None
    stage.clock.advance(0.001)
    stage.sweep()
    assert phone.closed is close_codes.BAD_TOKEN


def test_fresh_token_replaces_the_deadline_by_an_earlier_or_later_one(stage):
    """T6: the last accepted token is the one that counts."""
    later, earlier = (stage.phone(token=a_token(stage.clock, life_s=20)) for _ in range(2))
    later.says("token", token=a_token(stage.clock, life_s=40))
    earlier.says("token", token=a_token(stage.clock, life_s=10))
    stage.clock.advance(15)
    stage.sweep()
    assert (later.closed, earlier.closed) == (None, close_codes.BAD_TOKEN)
    stage.clock.advance(24)
    stage.sweep()
    assert later.closed is None
    stage.clock.advance(1)
    stage.sweep()
    assert later.closed is close_codes.BAD_TOKEN


@pytest.mark.parametrize("hours", [0, 1, -1])
def test_alert_ended_by_the_monotonic_clock_is_forgotten_at_the_next_sweep(hours, stage):
    """Section 3: otherwise its recipients would be sent a late revision of it."""
    stage.phone()
    stage.reads_alert()
    stage.turns()
    stage.clock.wall_ms += hours * HOUR_MS
    stage.clock.advance(LIFE_S)
    stage.sweep()
    assert len(stage.hub.live) == 0


@pytest.mark.parametrize("turns", [0, 1, 100])
def test_wall_clock_ahead_for_a_moment_delays_alerts_and_repeats_none(turns, stage):
    """E1, E5, R2: nothing is sent while the clock is ahead; then newcomers and revisions are sent, once."""
    first = [stage.phone() for _ in range(3)]
    stage.reads_alert("before")
    stage.turns(turns)
    before = stage.received()
    stage.clock.wall_ms += HOUR_MS
    stage.reads_alert("meanwhile")
    later = [stage.phone(), stage.phone(holding={"before": 1, "meanwhile": 1})]
    stage.sweep()
    stage.turns()
    assert stage.received() == before
    stage.clock.wall_ms -= HOUR_MS
    stage.sweep()
    stage.turns()
    stage.phone()
    assert stage.received() == 2 * (len(first) + 1) + 2
    told = [[m["type"] for m in messages(b"".join(phone.writes))] for phone in later]
    assert told == [["welcome", "alert", "alert"], ["welcome"]]


@pytest.mark.parametrize("seen_by", ["hello", "turn"])
def test_wall_clock_ahead_between_two_sweeps_leaves_no_session_out(seen_by, stage):
    """R3: a session that was not sent the alert is sent it, though no sweep has seen the clock ahead."""
    stage.phone()
    stage.reads_alert()
    stage.turns(0 if seen_by == "turn" else 1)
    stage.clock.wall_ms += HOUR_MS
    phone = stage.phone(place=HERE)
    stage.turns(1)
    stage.clock.wall_ms -= HOUR_MS
    stage.sweep()
    stage.turns()
    assert stage.received() == 2
    assert [m["type"] for m in messages(b"".join(phone.writes))] == ["welcome", "alert"]


def test_revision_read_while_the_wall_clock_is_ahead_is_sent_when_it_is_right(stage):
    """R1: to every recipient, with the old deadline plus what the revision adds."""
    stage.phone()
    stage.reads_alert()
    stage.turns()
    stage.clock.wall_ms += HOUR_MS
    stage.reads_alert(revision=2, expires_at=END_MS + 5_000)
    stage.sweep()
    stage.clock.wall_ms -= HOUR_MS
    stage.clock.advance(LIFE_S + 4.999)
    stage.sweep()
    stage.turns()
    assert stage.received() == 2
    stage.clock.advance(0.001)
    stage.phone()
    assert stage.received() == 2


@pytest.mark.parametrize("longer_s", [0, 5])
def test_revision_read_while_the_wall_clock_is_behind_ends_in_time(longer_s, stage):
    """Section 3: the deadline moves by as much as the end does, though the wall clock was set in between."""
    stage.reads_alert()
    stage.clock.wall_ms -= HOUR_MS
    stage.reads_alert(revision=2, expires_at=END_MS + longer_s * 1000)
    stage.clock.advance(LIFE_S + longer_s - 0.001)
    stage.phone()
    assert stage.received() == 1
    stage.clock.advance(0.001)
    stage.phone()
    assert stage.received() == 1


def test_revision_that_prolongs_an_ended_alert_is_sent(stage):
    """Live alerts, Rule 1: the newest revision's end counts."""
    phone = stage.phone()
    stage.reads_alert()
    stage.turns()
    stage.clock.advance(LIFE_S)
    stage.reads_alert(revision=2, expires_at=END_MS + 5_000)
    stage.turns()
    assert [m["alert"]["revision"] for m in phone.take() if m["type"] == "alert"] == [1, 2]


class HastyClock(FakeClock):
    """A clock that goes forward by 2 ms at every reading. Lies: as FakeClock, and time passes only when it is read."""

    def now(self) -> Now:
        self.wall_ms += 2
        self.monotonic += 0.002
        return super().now()


def test_pump_reads_the_clock_for_every_slice(stage):
    """E2: a reading is at most 5 ms old, also in a fan-out that takes longer than its alert lives."""
    for _ in range(12):
        stage.phone()
    stage.received()
    stage.clock = HastyClock()
    stage.hub.deliver(a_revision(expires_at=NOON_MS + 11), FakeClock().now())

    async def fan_out():
        pump = Pump(stage.hub, stage.clock)
        pump.wake()
        await pump.idle.wait()

    asyncio.run(fan_out())
    told = [m for phone in stage.phones for m in phone.take()]
    assert 0 < len(told) <= 5, "a slice of one for each reading; it was read five times before the end, and once at it"


def test_sweep_after_the_end_writes_only_pings(stage):
    """Section 5."""
    phone = stage.phone()
    stage.reads_alert()
    stage.clock.advance(HEARTBEAT_S)
    stage.sweep()
    assert [m["type"] for m in phone.take()] == ["welcome", "<ping>"]
