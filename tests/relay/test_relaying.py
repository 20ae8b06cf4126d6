"""From the log to the targets: a relay in this process, a log in memory, and receivers that answer over HTTP (WH1 to
WH5, WH10 and WH11).

The clock stands still; tests move it. Waits after failures are short.
"""

import asyncio
import contextlib
import inspect
import itertools
from dataclasses import replace

import pytest
from support.fakes import HOUR_MS, NOON_MS, FakeClock, a_cancel, a_revision

from client_demo.webhook_receiver import HANG, RESET, WebhookReceiver
from geocast import tasks
from geocast.alertlog.memory import MemoryLog
from geocast.relay import line
from geocast.relay.relaying import GRACE_S, Relay
from geocast.relay.targets import load_targets
from geocast.relay.told import ToldStore
from geocast.stream.log_reader import LogHealth, LogReader
from geocast.tasks import every, running

PATIENCE_S = 30.0
ACCEPTED, REVISED, CANCELLED, ENDED = "alert.accepted", "alert.revised", "alert.cancelled", "alert.ended"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    """Make waits after failures, and waits for answers, short."""
    monkeypatch.setattr(line, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(line, "LAST_WAIT_S", 0.05)


@pytest.fixture
def receiver():
    """Run a receiver."""
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture
def other():
    """Run another receiver."""
    with WebhookReceiver() as receiver:
        yield receiver


class RelayBench:
    """A relay with its log, its clock and the folder of its files."""

    def __init__(self, folder):
        self.folder, self.clock, self.log = folder, FakeClock(), MemoryLog()
        self.relay, self.posts = None, []

    def targets(self, **receivers):
        """Return targets: for each name a receiver, or a receiver and lines of the table."""
        text = ""
        for name, found in receivers.items():
            receiver, *lines = found if isinstance(found, tuple) else (found,)
            text += f'[targets.{name}]\nurl = "{receiver.url}"\nunsigned = true\nallow_http = true\n'
            text += "\n".join(["allow_private = true", *lines, ""])
        (self.folder / "targets.toml").write_text(text)
        return load_targets(self.folder / "targets.toml")

    @contextlib.asynccontextmanager
    async def running(self, **receivers):
        """Run a relay with these targets until the block ends."""
        store = ToldStore(self.folder / "relay.db")
        told, gone = await store.start()
        self.relay = Relay(self.clock, store, posted=self.note)
        keeper = LogHealth(self.log, self.clock)
        self.reader = LogReader(self.log, self.clock, self.relay.live, self.relay.apply, keeper)
        async with running(log_reader=self.reader.read_for_ever, state=every(store.PROBE_S, store.probe)):
            await self.reader.caught_up.wait()
            await self.relay.start(self.targets(**receivers), told, gone)
            yield self.relay
            for each in self.relay.lines.values():
                await each.close()
        await store.stop()

    def note(self, *post):
        """Note a request: the target's name and the status."""
        self.posts.append(post)

    async def append(self, *entries):
        """Append entries to the log."""
        for entry in entries:
            assert await self.log.append(entry)

    async def idle(self):
        """Wait until the log was read to its end, and no target is owed anything."""
        end, relay = await self.log.tail(), self.relay
        await until(
            lambda: self.reader.position >= end and not any(each.pending_alerts for each in relay.lines.values())
        )

    def pass_time(self, seconds):
        """Move the clock, and let the relay see which alerts have ended."""
        self.clock.advance(seconds)
        self.relay.sweep()


async def until(holds):
    """Wait until a condition is true."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 (it is asked of many things)
            await asyncio.sleep(0.002)


@pytest.fixture
def bench(tmp_path):
    """Return a bench."""
    return RelayBench(tmp_path)


def revisions(count, alert_id="a-1", **changes):
    """Return the first revisions of an alert."""
    return [a_revision(alert_id, number, **changes) for number in range(1, count + 1)]


# ---- who is told what ------------------------------------------------------------------------------------------------


def test_target_gets_each_revision_and_the_cancel_in_order(bench, receiver):
    """The first event is `alert.accepted`; each has another id (WH2, WH3)."""

    async def main():
        async with bench.running(siren=receiver):
            for entry in (*revisions(3), a_cancel(revision=4)):
                await bench.append(entry)
                await until(lambda entry=entry: receiver.requests and receiver.kinds("a-1")[-1][1] == entry.revision)
            await bench.idle()

    asyncio.run(main())
    assert receiver.kinds("a-1") == [(ACCEPTED, 1), (REVISED, 2), (REVISED, 3), (CANCELLED, 4)]
    assert len({each.id for each in receiver.requests}) == 4


def test_alert_that_expires_is_ended_once(bench, receiver, other):
    """A target that was not told the alert is not told its end (WH4)."""

    async def main():
        async with bench.running(siren=receiver, sign=(other, 'categories = ["flood"]')):
            await bench.append(a_revision())
            await until(receiver.taken)
            bench.pass_time(1_799)
            await bench.idle()
            bench.pass_time(2)
            await until(lambda: len(receiver.taken()) == 2)
            bench.pass_time(60)
            await bench.idle()

    asyncio.run(main())
    assert receiver.kinds("a-1") == [(ACCEPTED, 1), (ENDED, 1)]
    assert other.requests == []


def test_told_target_gets_a_revision_that_no_longer_matches_and_the_cancel(bench, receiver):
    """`matches` is false then. A revision that matches for the first time is `alert.accepted` (WH1)."""

    async def main():
        async with bench.running(siren=(receiver, 'min_severity = "severe"')):
            for severity, number in (("minor", 1), ("severe", 2), ("minor", 3)):
                await bench.append(a_revision(revision=number, severity=severity))
                await bench.idle()
            await bench.append(a_cancel(revision=4), a_revision("b", severity="minor"), a_cancel("b"))
            await bench.idle()

    asyncio.run(main())
    assert receiver.kinds("a-1") == [(ACCEPTED, 2), (REVISED, 3), (CANCELLED, 4)]
    assert [each.event["data"]["matches"] for each in receiver.taken()] == [True, False, False]
    assert receiver.taken("b") == []


def test_tests_and_exercises_are_only_for_targets_that_ask_for_them(bench, receiver, other):
    """No siren sounds for `status: test` (WH1)."""

    async def main():
        async with bench.running(siren=receiver, lab=(other, 'statuses = ["test", "exercise"]')):
            await bench.append(a_revision("t", status="test"), a_revision("e", status="exercise"), a_revision("a"))
            await until(lambda: receiver.taken() and len(other.taken()) == 2)
            await bench.idle()

    asyncio.run(main())
    assert [each.event["data"]["id"] for each in receiver.requests] == ["a"]
    assert {each.event["data"]["status"] for each in other.requests} == {"test", "exercise"}


def test_alert_that_has_ended_before_the_target_could_be_told_is_never_sent(bench, receiver):
    """A target that fails until after the end gets nothing afterwards; the alert counts as missed (WH4)."""
    receiver.always = 503

    async def main():
        async with bench.running(siren=receiver, closed=dead()) as relay:
            await bench.append(a_revision())
            await until(lambda: len(receiver.requests) >= 2)
            await until(lambda: relay.lines["closed"].failures >= 2)
            bench.pass_time(1_801)
            receiver.always = 200
            await bench.idle()
            return {name: each.missed for name, each in relay.lines.items()}

    missed = asyncio.run(main())
    assert receiver.kinds("a-1") == [(ENDED, 1)]  # it may have been told by a request that was answered with 503
    assert missed == {"siren": 0, "closed": 1}


def dead():
    """Return something with the URL of a port at which nothing listens."""
    with WebhookReceiver() as gone:
        pass
    return gone


def test_cancel_is_not_sent_to_a_target_that_could_not_be_connected_to(bench):
    """Nothing has reached the target, so it needs no cancel (WH4)."""

    async def main():
        async with bench.running(closed=dead()) as relay:
            await bench.append(a_revision())
            await until(lambda: relay.lines["closed"].failures >= 2)
            assert relay.lines["closed"].told == {}
            await bench.append(a_cancel())
            await bench.idle()

    asyncio.run(main())


# ---- targets that fail -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [500, 503, 429, 302, 404, 408, RESET])
def test_event_is_repeated_with_the_same_id_until_the_target_takes_it(bench, receiver, trouble):
    """The body is the same as well (WH2, WH5)."""
    receiver.answers = [trouble] * 3

    async def main():
        async with bench.running(siren=receiver):
            await bench.append(a_revision())
            await bench.idle()

    asyncio.run(main())
    assert [each.taken for each in receiver.requests] == [False, False, False, True]
    assert len({(each.id, each.body) for each in receiver.requests}) == 1


def test_event_is_repeated_if_the_timer_fires_before_the_end_of_the_wait(bench, receiver, monkeypatch):
    """Timers of uvloop may fire a fraction of a millisecond early (WH5)."""
    receiver.answers = [500]

    async def main():
        loop = asyncio.get_running_loop()
        later = loop.call_later
        monkeypatch.setattr(loop, "call_later", lambda seconds, *call: later(seconds * 0.5, *call))
        async with bench.running(siren=receiver):
            await bench.append(*revisions(1))
            await until(lambda: len(receiver.requests) == 2)
            assert receiver.taken("a-1")

    asyncio.run(main())


EXCEPT = ("adopt", "close", "finish")  # these are not called for an alert
METHODS = [
    (owner, name)
    for owner, names in (
        (line.TargetLine, vars(line.TargetLine)),
        (ToldStore, ("note_told", "written")),
        (line, ("event",)),
    )
    for name in sorted(names)
    if inspect.isfunction(getattr(owner, name)) and not name.startswith("__") and name not in EXCEPT
]


@pytest.mark.parametrize("call", [0, 4])
@pytest.mark.parametrize(("owner", "name"), METHODS)
def test_exception_in_any_method_keeps_nothing_from_a_target(bench, receiver, monkeypatch, owner, name, call):
    """It raises once, at one of its first calls; five requests fail besides."""
    calls = itertools.count(-1 if name == "pump" else 0)  # the first one is in `start`, which is repeated as a whole
    original = getattr(owner, name)

    def failing(*args):
        if next(calls) == call:
            raise ZeroDivisionError
        return original(*args)

    monkeypatch.setattr(owner, name, failing)

    async def main():
        receiver.answers = [500, 204, 500, 500, 204, 500, 500]
        async with bench.running(siren=receiver), running(sweep=every(0.002, lambda: bench.pass_time(0.5))):
            short = a_revision("short", expires_at=bench.clock.wall_ms + 60_000)
            await bench.append(a_revision(), short, *revisions(2, "b"))
            await until(lambda: receiver.taken("a-1") and receiver.taken("short"))
            await bench.append(a_revision(revision=2), a_cancel(revision=3), a_revision("c"), a_cancel("c"))
            await until(lambda: receiver.kinds("a-1")[-1] == (CANCELLED, 3))
            await until(lambda: receiver.taken("b") and receiver.kinds("b")[-1][1] == 2)
            await until(lambda: receiver.kinds("short")[-1] == (ENDED, 1))
            await bench.idle()
        assert bench.relay.lines["siren"].under_way == 0

    asyncio.run(main())


def test_after_a_failure_only_the_newest_revision_is_posted(bench, receiver):
    """It is `alert.accepted`, because the target has taken none before (WH3)."""
    receiver.always = 500

    async def main():
        async with bench.running(siren=receiver):
            await bench.append(a_revision())
            await until(lambda: receiver.requests)
            await bench.append(*revisions(4)[1:])
            await until(lambda: bench.reader.applied == 4)
            receiver.always = 200
            await bench.idle()

    asyncio.run(main())
    assert receiver.kinds("a-1") == [(ACCEPTED, 4)]


def test_refused_alert_holds_up_no_other_alert_and_its_cancel_is_sent_at_once(bench, receiver, monkeypatch):
    """The alert waits by itself; its cancel does not wait (WH3, WH5)."""
    monkeypatch.setattr(line, "FIRST_WAIT_S", 3_600.0)
    monkeypatch.setattr(line, "LAST_WAIT_S", 3_600.0)
    receiver.answers = [400]

    async def main():
        async with bench.running(siren=receiver):
            await bench.append(a_revision("bad"))
            await until(lambda: receiver.requests)
            await bench.append(*(a_revision(f"good-{n}") for n in range(10)), a_cancel("bad"))
            await bench.idle()

    asyncio.run(main())
    assert receiver.kinds("bad") == [(CANCELLED, 2)]
    assert len(receiver.taken()) == 11


def test_target_that_hangs_holds_up_no_other_target(bench, receiver, other):
    """It has at most LANES requests under way, and its own connections (WH5)."""
    receiver.always = HANG

    async def main():
        async with bench.running(stuck=receiver, sign=other) as relay:
            await bench.append(*(a_revision(f"a-{n}") for n in range(50)))
            await until(lambda: len(other.taken()) == 50)
            assert len(receiver.requests) == relay.lines["stuck"].under_way == line.LANES

    asyncio.run(main())


def test_failing_target_is_tested_by_one_request_and_recovers_at_once(bench, receiver):
    """When it takes an event again, everything that it is owed follows without further waits (WH5)."""
    receiver.always = 503

    async def main():
        async with bench.running(siren=receiver) as relay:
            await bench.append(*(a_revision(f"a-{n}") for n in range(30)))
            siren = relay.lines["siren"]
            await until(lambda: siren.failures > 5)
            assert siren.under_way <= 1
            receiver.always = 200
            await bench.idle()
            assert siren.failures == 0

    asyncio.run(main())
    assert len({each.event["data"]["id"] for each in receiver.taken()}) == 30


def test_retry_after_is_obeyed(bench, receiver, other):
    """The target gets nothing until then, even if it asks for longer than the waits grow (WH5)."""
    receiver.answers = [(503, {"Retry-After": "3600"})]

    async def main():
        async with bench.running(siren=receiver, sign=other) as relay:
            await bench.append(a_revision("a"))
            await until(lambda: relay.lines["siren"].failures)
            wait_s = relay.lines["siren"]._not_before - asyncio.get_running_loop().time()
            await bench.append(a_revision("b"))
            await until(lambda: len(other.taken()) == 2)
            return wait_s

    assert 590 < asyncio.run(main()) <= 600
    assert len(receiver.requests) == 1


def test_events_are_given_up_an_hour_after_the_end(bench, receiver):
    """Until then the end is posted; then the target is owed nothing (WH5)."""

    async def main():
        async with bench.running(siren=receiver) as relay:
            await bench.append(a_revision())
            await until(receiver.taken)
            receiver.always = 500
            bench.pass_time(1_801)
            await until(lambda: receiver.requests[-1].event["type"] == ENDED)
            bench.pass_time(GRACE_S - 60)
            assert relay.lines["siren"].pending_alerts == 1
            bench.pass_time(61)
            await until(lambda: not relay.lines["siren"].pending_alerts)
            assert relay.lines["siren"].told == {}
            return relay.lines["siren"].missed

    assert asyncio.run(main()) == 1


def test_target_that_answers_410_gets_nothing_until_a_reload(bench, receiver):
    """Not after a restart either; a new URL also revives it (WH10)."""
    receiver.answers = [410]

    async def main():
        async with bench.running(siren=receiver) as relay:
            await bench.append(a_revision())
            await until(lambda: relay.lines["siren"].gone)
        async with bench.running(siren=receiver) as relay:
            assert relay.lines["siren"].gone
            await bench.append(a_revision("b"))
            await until(lambda: relay.lines["siren"].pending_alerts == 2)
            assert len(receiver.requests) == 1
            await relay.adopt(bench.targets(siren=receiver))
            await bench.idle()
            assert not relay.lines["siren"].gone

    asyncio.run(main())
    assert len(receiver.taken()) == 2


# ---- restarts, clocks and reloads ------------------------------------------------------------------------------------


def test_restarted_relay_sends_only_what_targets_lack(bench, receiver):
    """Revisions that came meanwhile are one event; an alert that has ended meanwhile gets its end (WH2, WH4)."""

    async def main():
        async with bench.running(siren=receiver) as relay:
            await bench.append(a_revision("kept"), a_revision("revised"), a_revision("cancelled"))
            await bench.append(a_revision("ended", expires_at=NOON_MS + 60_000))
            await until(lambda: len(receiver.taken()) == 4)
            await bench.idle()
        await bench.append(a_revision("unseen", expires_at=NOON_MS + 60_000))
        await bench.append(*revisions(3, "revised")[1:], a_cancel("cancelled"), a_revision("new"))
        bench.clock.advance(61)
        receiver.requests.clear()
        async with bench.running(siren=receiver) as relay:
            relay.sweep()
            await until(lambda: len(receiver.taken()) == 4)
            await bench.idle()

    asyncio.run(main())
    found = {
        each.event["data"]["id"]: (each.event["type"], each.event["data"]["revision"]) for each in receiver.taken()
    }
    assert found == {
        "revised": (REVISED, 3),
        "cancelled": (CANCELLED, 2),
        "new": (ACCEPTED, 1),
        "ended": (ENDED, 1),
    }


def test_end_after_a_refused_cancel_and_a_restart_has_a_number_that_does_not_fall(bench, receiver):
    """The target may have read the cancel that it refused (WH3)."""

    async def main():
        async with bench.running(siren=receiver):
            await bench.append(*revisions(2, expires_at=NOON_MS + 60_000))
            await bench.idle()
            receiver.answers += [400] * 100
            await bench.append(a_cancel("a-1", 3))
            await until(lambda: receiver.requests[-1].event["type"] == CANCELLED)
            await until(lambda: not any(line.under_way for line in bench.relay.lines.values()))
        bench.clock.advance(61)
        receiver.answers.clear()
        async with bench.running(siren=receiver) as relay:
            relay.sweep()
            await bench.idle()

    asyncio.run(main())
    posted = [(each.event["type"], each.event["data"]["revision"]) for each in receiver.requests]
    assert posted[-1] == (ENDED, 3)
    assert [number for _, number in posted] == sorted(number for _, number in posted)


def test_lost_state_repeats_the_same_ids(bench, receiver):
    """A receiver that knows the ids does nothing twice (WH2)."""

    async def main():
        async with bench.running(siren=receiver):
            await bench.append(*(a_revision(f"a-{n}") for n in range(5)))
            await bench.idle()
        for path in bench.folder.glob("relay.db*"):
            path.unlink()
        async with bench.running(siren=receiver):
            await until(lambda: len(receiver.taken()) == 10)

    asyncio.run(main())
    first, again = receiver.taken()[:5], receiver.taken()[5:]
    assert {(each.id, each.body) for each in first} == {(each.id, each.body) for each in again}


def test_wall_clock_ahead_sends_no_end_and_nothing_twice(bench, receiver):
    """An alert that only the wall clock ends is not ended; what came meanwhile follows when it is right (WH4)."""

    async def main():
        async with bench.running(siren=receiver) as relay:
            await bench.append(a_revision("a"))
            await until(receiver.taken)
            bench.clock.wall_ms += HOUR_MS
            relay.sweep()
            await bench.append(a_revision("b"))
            await until(lambda: bench.reader.applied == 2)
            relay.sweep()
            assert len(receiver.requests) == 1
            bench.clock.wall_ms -= HOUR_MS
            relay.sweep()
            await until(lambda: len(receiver.taken()) == 2)
            await bench.idle()

    asyncio.run(main())
    assert receiver.kinds("a") == receiver.kinds("b") == [(ACCEPTED, 1)]


def test_reload_tells_new_targets_what_is_live_and_forgets_none(bench, receiver, other):
    """A target that asks for more is told more; one that is removed and comes back is told nothing twice (WH11)."""

    async def main():
        flood, everything = (receiver, 'categories = ["flood"]'), (receiver,)
        async with bench.running(siren=flood, sign=other) as relay:
            await bench.append(a_revision("a", category="flood"), a_revision("b"), a_revision("c"), a_cancel("c"))
            await until(lambda: receiver.taken() and len(other.kinds("a") + other.kinds("b")) == 2)
            await bench.idle()
            await relay.adopt(bench.targets(siren=everything))
            await bench.idle()
            assert receiver.kinds("b") == [(ACCEPTED, 1)]
            count = len(other.requests)
            await bench.append(a_revision("b", 2))
            await bench.idle()
            assert len(other.requests) == count
            await relay.adopt(bench.targets(siren=everything, sign=other))
            await bench.idle()

    asyncio.run(main())
    assert receiver.kinds("a") == other.kinds("a") == [(ACCEPTED, 1)]
    assert receiver.kinds("b") == other.kinds("b") == [(ACCEPTED, 1), (REVISED, 2)]
    assert receiver.kinds("c") == []


def test_target_that_comes_back_is_told_what_has_ended_meanwhile(bench, receiver, other):
    """It was told the alert before it was removed from the file (WH4, WH11)."""

    async def main():
        async with bench.running(siren=receiver, sign=other) as relay:
            await bench.append(a_revision())
            await until(receiver.taken)
            await bench.idle()
            await relay.adopt(bench.targets(sign=other))
            bench.pass_time(1_801)
            await until(lambda: len(other.taken()) == 2)
            await relay.adopt(bench.targets(siren=receiver, sign=other))
            await until(lambda: len(receiver.taken()) == 2)
            await bench.idle()

    asyncio.run(main())
    assert receiver.kinds("a-1") == other.kinds("a-1") == [(ACCEPTED, 1), (ENDED, 1)]


def test_extended_alert_is_ended_at_its_new_end(bench, receiver):
    """A revision that ends earlier is ended earlier (WH4)."""

    async def main():
        async with bench.running(siren=receiver):
            await bench.append(a_revision("long"), a_revision("short"))
            await bench.append(a_revision("long", 2, expires_at=NOON_MS + HOUR_MS))
            await bench.append(a_revision("short", 2, expires_at=NOON_MS + 60_000))
            await until(lambda: len(receiver.taken()) == 4)
            bench.pass_time(61)
            await until(lambda: receiver.kinds("short")[-1] == (ENDED, 2))
            bench.pass_time(1_800)
            await bench.idle()
            assert receiver.kinds("long")[-1] == (REVISED, 2)
            bench.pass_time(1_800)
            await until(lambda: receiver.kinds("long")[-1] == (ENDED, 2))

    asyncio.run(main())


def test_private_address_is_refused_unless_the_target_allows_it(bench, receiver):
    """No request is made, and the reason is a metric (WH7)."""

    async def main():
        async with bench.running(siren=receiver) as relay:
            target = replace(relay.lines["siren"].target, allow_private=False, text="changed")
            await relay.adopt({"siren": target})
            await bench.append(a_revision())
            await until(lambda: ("siren", "no connection") in bench.posts)

    asyncio.run(main())
    assert receiver.requests == []


@pytest.mark.parametrize(("name", "error"), [("_post", OSError), ("_post", KeyError), ("_answered", KeyError)])
def test_unexpected_exception_of_a_request_is_counted_and_the_event_arrives(bench, receiver, monkeypatch, name, error):
    """It is counted in `geocast_task_failures_total`, like that of a callback."""
    whole, left = getattr(line.TargetLine, name), [error]

    def fails(*arguments):
        if left:
            raise left.pop()
        return whole(*arguments)

    async def main():
        tasks.watch_loop()
        counted = tasks.failures["callback"]
        async with bench.running(siren=receiver):
            await bench.append(a_revision())
            await bench.idle()
            assert tasks.failures["callback"] - counted == 1

    monkeypatch.setattr(line.TargetLine, name, fails)
    asyncio.run(main())
    assert set(receiver.kinds("a-1")) == {(ACCEPTED, 1)}
