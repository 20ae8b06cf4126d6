"""The stream server: reading the log with a wrong wall clock, sizes of batches, and background tasks."""

import asyncio
import logging
from types import SimpleNamespace

import pytest
from support.fakes import HOUR_MS, NOON_MS, FakeClock, a_cancel, a_revision

from geocast.alertlog import TrustAll
from geocast.alertlog.memory import MemoryLog
from geocast.auth.tokens import TokenVerifier
from geocast.clock import STEP_S
from geocast.config import Settings
from geocast.metrics import Metrics
from geocast.model.alert import Untrusted
from geocast.model.errors import LogUnavailable
from geocast.model.server_address import Address
from geocast.stream import live_alerts, log_reader, server
from geocast.stream.hub import LOOK_S
from geocast.stream.server import (
    EXPECTED_S,
    NEW_ROWS,
    ROWS_WHILE_ASKED,
    STUCK_S,
    TICK_S,
    YIELD_S,
    YIELDING_ROWS,
    Pump,
    StreamServer,
)


class Reading:
    """A stream server that follows a log in memory, with a clock of the test's."""

    def __init__(self, *there):
        self.clock, self.log, self.there = FakeClock(), MemoryLog(), there

    async def __aenter__(self):
        for entry in self.there:
            await self.log.append(entry)
        settings = Settings(stream=Address("127.0.0.1", 1), api=Address("127.0.0.1", 2), log="memory:", max_sessions=4)
        self.metrics = Metrics()
        self.delivery = StreamServer(settings, TokenVerifier({}, required=False), self.clock, self.log, self.metrics)
        self.metrics.watch(self.delivery.metrics)
        self._task = asyncio.ensure_future(self.delivery._reader.read_for_ever())
        await self.delivery._reader.caught_up.wait()
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def live(self):
        """Return the ids and numbers of the alerts that are live."""
        return {f"{a.id}/{a.number}" for a in self.delivery._hub.fanout.live if not a.ended(self.clock.now())}

    async def reads(self, entry):
        """Append an entry, and wait until it has been read and applied."""
        await self.log.append(entry)
        for _ in range(30):  # turns of the loop; no time passes
            await asyncio.sleep(0)
        assert self.delivery._reader.position == await self.log.tail()


async def until(what):
    """Wait until a condition holds."""
    while not what():  # noqa: ASYNC110 (what is waited for sets no event)
        await asyncio.sleep(0)


def run(main):
    asyncio.run(asyncio.wait_for(main(), 30))


LONG = {"expires_at": NOON_MS + 3 * HOUR_MS}
MORE = a_revision("more", **LONG)


def test_alerts_skipped_at_start_by_a_wrong_clock_are_read_after_its_correction():
    """The alerts are read in order, with cancels and revisions. Alerts that have really ended are not read (R1, R3)."""

    async def main():
        there = [
            a_revision("over", expires_at=NOON_MS - 1),
            a_revision("short", expires_at=NOON_MS + 1000),
            a_revision("revised"),
            a_revision("cancelled"),
            a_revision("revised", 2),
            a_cancel("cancelled"),
            a_revision("long", **LONG),
        ]
        reading = Reading(*there)
        reading.clock.wall_ms += 2 * HOUR_MS
        async with reading:
            assert reading.live() == {"long/1"}
            reading.clock.wall_ms -= 2 * HOUR_MS
            await reading.reads(MORE)
            assert reading.live() == {"short/1", "revised/2", "cancelled/2", "long/1", "more/1"}

    run(main)


def test_deadline_computed_at_start_by_a_wrong_clock_is_corrected_with_the_clock():
    """An alert that was live all the time ends when it should (R3)."""

    async def main():
        reading = Reading(a_revision("left-out"), a_revision("long", **LONG))
        reading.clock.wall_ms += 2 * HOUR_MS
        async with reading:
            reading.clock.wall_ms -= 2 * HOUR_MS
            await reading.reads(MORE)
            reading.clock.advance(3 * 3600 - 1)
            assert reading.live() == {"long/1", "more/1"}
            reading.clock.advance(1)
            assert reading.live() == set()

    run(main)


def test_alerts_read_while_the_clock_is_ahead_are_live_after_its_correction():
    """There are more of these alerts than are kept in memory (R1)."""

    async def main():
        reading = Reading()
        reading.clock.wall_ms += 2 * HOUR_MS
        async with reading:
            for n in range(5):
                await reading.reads(a_revision(f"a-{n}"))
            assert reading.live() == set()
            reading.clock.wall_ms -= 2 * HOUR_MS
            await reading.reads(MORE)
            assert reading.live() == {"more/1", *(f"a-{n}/1" for n in range(5))}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_alerts, "MAX_DOUBTED", 2)
        run(main)


def test_skipped_alert_that_ends_last_is_read_after_the_clock_is_corrected():
    """`missed_until` includes the end of an alert that was not kept in memory (live alerts, Rule 4)."""

    async def main():
        async with Reading() as reading:
            reading.clock.wall_ms += 2 * HOUR_MS
            for alert_id in ("taken", "missed"):
                await reading.reads(a_revision(alert_id))
            reading.clock.wall_ms -= 2 * HOUR_MS
            await reading.reads(MORE)
            assert reading.live() == {"taken/1", "missed/1", "more/1"}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_alerts, "MAX_DOUBTED", 1)
        run(main)


class OnlyFirst(TrustAll):
    """A verifier that believes first revisions and nothing else."""

    def verify(self, entry, stands_under, place):
        return entry if entry.revision == 1 else Untrusted(*stands_under, entry.ends_at, entry)


def test_skipped_alert_is_read_although_an_unverified_revision_follows_it():
    """A revision that fails verification may name any end, and must not hide the alert before it.

    The fault runs found this case (LogJ1).
    """

    async def main():
        reading = Reading()
        reading.log.verifier = OnlyFirst()
        async with reading:
            reading.clock.wall_ms += 2 * HOUR_MS
            for entry in (a_revision("taken"), a_revision("missed"), a_revision("missed", 2, **LONG)):
                await reading.reads(entry)
            reading.clock.wall_ms -= 2 * HOUR_MS
            await reading.reads(MORE)
            assert reading.live() == {"taken/1", "missed/1", "more/1"}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_alerts, "MAX_DOUBTED", 1)
        run(main)


class Approved(TrustAll):
    """A verifier that believes everything, needs the chain, and may be changed."""

    needs_chain = True


class LogThatFails(MemoryLog):
    """A log that fails while `away` is set, when the history of one alert is asked for."""

    away = False

    async def history(self, alert_id):
        if self.away and alert_id == "revised":
            raise LogUnavailable("no answer")
        return await super().history(alert_id)


def log_that_fails(reading):
    """Give a reader a log that may fail, and that has only a part of one chain."""
    reading.log = LogThatFails(Approved())
    reading.there = (a_revision("revised", expires_at=NOON_MS - 1), a_revision("revised", 2), a_revision("whole"))
    return reading


def test_skipped_alerts_are_read_again_after_the_log_failed_during_reading(monkeypatch):
    """A failover may interrupt the reading.

    The fault runs found that clients were then sent old revisions at the next reading (R1).
    """

    monkeypatch.setattr(log_reader, "RETRY_S", 0)

    async def main():
        reading = log_that_fails(Reading())
        reading.clock.wall_ms += 2 * HOUR_MS
        async with reading:
            assert reading.live() == set()
            reading.log.away = True
            reading.clock.wall_ms -= 2 * HOUR_MS
            await reading.log.append(MORE)
            await until(lambda: reading.live() == {"more/1"})
            reading.log.away = False
            await until(lambda: reading.live() == {"revised/2", "whole/1", "more/1"})

    run(main)


def test_entries_are_verified_again_after_a_log_failure_if_the_verifier_has_changed(monkeypatch):
    """Entries that failed verification are verified again, even if the log fails at first (NC3)."""

    monkeypatch.setattr(log_reader, "RETRY_S", 0)

    async def main():
        reading = log_that_fails(Reading())
        reading.log.verifier.verify_revision = lambda revision, _behind: revision.id == "more"
        async with reading:
            assert reading.live() == set()
            reading.log.away = True
            del reading.log.verifier.verify_revision
            reading.log.verifier.version += 1
            await reading.log.append(MORE)
            await until(lambda: reading.live() == {"more/1"})
            reading.log.away = False
            await until(lambda: reading.live() == {"revised/2", "whole/1", "more/1"})

    run(main)


def test_expired_alert_stays_expired_when_the_log_is_read_again():
    """A clock that is set back does not revive an alert whose end this process has seen (E1)."""

    async def main():
        reading = Reading(a_revision(), a_revision(revision=2, expires_at=NOON_MS + 2_000_000))
        reading.clock.wall_ms = NOON_MS + 1_900_000
        async with reading:
            assert reading.live() == {"a-1/2"}
            reading.clock.advance(100)
            reading.delivery._hub.sweep(reading.clock.now())
            reading.clock.wall_ms = NOON_MS
            await reading.reads(MORE)
            assert reading.live() == {"more/1"}

    run(main)


def test_expired_alert_stays_expired_after_a_failover_with_the_clock_set_back():
    """A failover of Redis begins a new epoch, in which the log is read again. The fault runs found this case (E1)."""

    async def main():
        async with Reading(a_revision()) as reading:
            reading.clock.advance(2_000)
            reading.delivery._hub.sweep(reading.clock.now())
            await reading.delivery._reader._apply_all([(1, a_revision())])
            reading.clock.wall_ms -= 48 * HOUR_MS
            reading.delivery._hub.sweep(reading.clock.now())
            assert reading.live() == set()

    run(main)


def test_steps_of_the_wall_clock_are_logged_and_counted(caplog):
    """Operators see one line and a metric."""
    caplog.set_level(logging.WARNING)

    async def main():
        async with Reading(a_revision()) as reading:
            for step_ms in (0, STEP_S * 999, 2 * HOUR_MS, -2 * HOUR_MS):
                reading.clock.advance(0.05)
                reading.clock.wall_ms += step_ms
                reading.delivery._watch_the_clock()
            shown = reading.metrics.render().decode()
            assert "geocast_clock_steps_total 2.0" in shown
            assert "geocast_withheld_alerts 0.0" in shown

    run(main)
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "the wall clock was set forward by 7200.0 s",
        "the wall clock was set back by 7200.0 s",
    ]


def test_idle_process_checks_rarely_unless_expired_alerts_are_left(monkeypatch):
    """With two checks a second, 100,000 expired alerts would stay in memory for minutes (live alerts, Rule 5)."""
    monkeypatch.setattr(live_alerts, "AT_ONCE", 2)

    async def main():
        spent = [a_revision(f"a-{n}", expires_at=NOON_MS + 1000) for n in range(3)]
        async with Reading(*spent) as node:
            delivery = node.delivery
            await delivery._pump.idle.wait()
            assert delivery._pause_s() == LOOK_S
            node.clock.advance(2)
            delivery._stream.sweep()
            assert delivery._pause_s() == TICK_S
            delivery._stream.sweep()
            assert delivery._pause_s() == LOOK_S

    run(main)


def test_batches_are_small_after_a_publication_until_its_entry_is_read():
    """The published entry may be more urgent than the alert that is being sent.

    Batches stay small for at most EXPECTED_S.
    """

    async def main():
        async with Reading() as reading:
            expect, is_hurried = reading.delivery.expect, reading.delivery._pump._asked
            assert not is_hurried()
            expect()
            assert is_hurried()
            await reading.reads(MORE)
            assert not is_hurried()
            expect()
            reading.clock.advance(EXPECTED_S)
            assert not is_hurried()

    run(main)


def test_batches_stay_large_if_the_published_entry_was_read_already():
    """The reader of a SQLite log may be faster than the publication's answer.

    Small batches would then slow down the fan-out of the published entry.
    """

    async def main():
        async with Reading() as reading:
            expect, is_hurried = reading.delivery.expect, reading.delivery._pump._asked
            await reading.reads(MORE)
            expect(MORE)
            assert not is_hurried()
            expect(a_revision("more", 2, **LONG))
            assert is_hurried()

    run(main)


class Turns:
    """Stands in for a hub that always has something left to send. It records the number of rows of each turn."""

    def __init__(self, count):
        self.rows, self._count, self.calls = [], count, SimpleNamespace(busy=False)

    def turn(self, _now, rows):
        self.rows.append(rows)
        return len(self.rows) < self._count


def test_little_is_sent_while_a_request_is_under_way_except_when_there_is_something_new(monkeypatch):
    """With pauses at first, so that an extreme alert is soon accepted; it is then sent without a pause."""
    monkeypatch.setattr(server, "YIELDING_S", 3600)

    async def main():
        clock, turns, is_asked = FakeClock(), Turns(9), False
        pump = Pump(turns, clock, lambda: is_asked)
        monkeypatch.setattr(server, "SLICE_S", 0.0)
        pump.wake()
        await until(lambda: len(turns.rows) == 2)
        is_asked = True
        await until(lambda: len(turns.rows) == 3)
        for _ in range(9):
            await asyncio.sleep(0)
        assert turns.rows == [None, None, YIELDING_ROWS]  # then a pause of an hour, which `wake` ends
        pump.wake()
        await until(lambda: len(turns.rows) == 5)
        clock.advance(2 * YIELD_S)
        pump.wake()
        await asyncio.wait_for(pump.idle.wait(), 30)
        assert turns.rows[3:] == [NEW_ROWS, YIELDING_ROWS, NEW_ROWS, *[ROWS_WHILE_ASKED] * 3]

    run(main)


def test_calls_for_help_are_sent_without_pauses_while_a_request_is_under_way(monkeypatch):
    """Their sessions are few, and nothing is more urgent."""
    monkeypatch.setattr(server, "YIELDING_S", 3600)

    async def main():
        turns = Turns(4)
        turns.calls.busy = True
        pump = Pump(turns, FakeClock(), lambda: True)
        pump.wake()
        await asyncio.wait_for(pump.idle.wait(), 30)
        assert turns.rows == [None] * 4

    run(main)


class Odd(Exception):  # noqa: N818 (an exception that nobody expects)
    """An unexpected exception."""


def failing_times(monkeypatch, where, name, times):
    """Have a method of the hub's live alerts raise for some times."""
    original, left = getattr(where, name), [times]

    def failing(*args):
        if left[0]:
            left[0] -= 1
            raise Odd
        return original(*args)

    monkeypatch.setattr(where, name, failing)


def failed_entries(reading):
    """Return the reasons to be unready, and the number of entries that could not be applied."""
    return reading.delivery.keeper.unready(), reading.delivery.keeper.entries_failed


def test_entry_that_fails_once_is_applied_at_the_second_attempt(monkeypatch, caplog):
    """It costs one line of the log and nothing else."""

    async def main():
        async with Reading() as reading:
            failing_times(monkeypatch, reading.delivery._hub.fanout.live, "apply", 1)
            await reading.reads(a_revision())
            assert reading.live() == {"a-1/1"}
            assert failed_entries(reading) == ([], 0)

    run(main)
    assert caplog.text.count("applying entry 1 of a-1 failed; trying again: Odd") == 1


def test_alert_with_an_entry_that_cannot_be_applied_is_sent_to_nobody_new(monkeypatch):
    """`/readyz` names the entry until a later one supersedes it."""

    async def main():
        async with Reading() as reading:
            await reading.reads(a_revision())
            failing_times(monkeypatch, reading.delivery._hub.fanout.live, "apply", 2)
            await reading.reads(a_revision(revision=2))
            assert reading.live() == set()
            assert failed_entries(reading) == (["entry 2 of a-1 could not be applied"], 1)
            await reading.reads(MORE)
            assert reading.live() == {"more/1"}
            await reading.reads(a_cancel(revision=3))
            assert failed_entries(reading) == ([], 1)

    run(main)


def test_new_keys_do_not_bring_back_an_alert_whose_cancel_could_not_be_applied(monkeypatch):
    """All entries are applied again then, the cancel too."""

    async def main():
        async with Reading() as reading:
            await reading.reads(a_revision())
            failing_times(monkeypatch, reading.delivery._hub.fanout.live, "apply", 2)
            await reading.reads(a_cancel())
            reading.log.verifier.version += 1
            await reading.delivery._reader._verify_live()
            assert reading.live() == set()
            await reading.reads(MORE)
            assert reading.delivery._hub.fanout.live.find("a-1", reading.clock.now()).cancel is not None
            assert failed_entries(reading) == ([], 1)

    run(main)


def test_failed_entry_is_no_longer_a_reason_to_be_unready_when_its_alert_has_ended(monkeypatch):
    """Nobody has to publish a revision then."""

    async def main():
        async with Reading() as reading:
            failing_times(monkeypatch, reading.delivery._hub.fanout.live, "apply", 2)
            await reading.reads(a_revision())
            assert failed_entries(reading)[0] == ["entry 1 of a-1 could not be applied"]
            reading.clock.advance(3600)
            assert failed_entries(reading) == ([], 1)

    run(main)


def test_error_of_the_log_is_cleared_by_whoever_uses_the_log_with_success():
    """Not only by the loop that stores counts; what was read says nothing about what can be written."""

    async def main():
        async with Reading() as reading:
            keeper = reading.delivery.keeper
            keeper.failed("written", LogUnavailable("full"))
            keeper.failed("read", LogUnavailable("away"))
            await reading.reads(a_revision())
            assert keeper.unready() == ["log unreachable: full"]
            await keeper.purge()
            assert keeper.unready() == []

    run(main)


def test_process_in_which_an_alert_is_never_sent_is_not_ready(monkeypatch):
    """Whatever the reason is: here the fan-out is never driven."""

    async def main():
        monkeypatch.setattr(Pump, "wake", lambda _self: None)
        async with Reading() as reading:
            monkeypatch.setattr(reading.delivery._hub.fanout, "_free", [])  # somebody is connected
            await reading.reads(a_revision())
            reading.clock.advance(STUCK_S)
            assert not any("stuck" in each for each in reading.delivery.unready())
            reading.clock.advance(1)
            assert [each for each in reading.delivery.unready() if "sending is stuck" in each]

    run(main)


def test_pump_whose_turns_fail_rests_between_them(monkeypatch):
    """No busy loop: the pause after a failed turn doubles."""

    async def main():
        turns, failed = Turns(2), []

        def turn(*_):
            failed.append(1)
            if len(failed) > 3:
                return False
            raise Odd

        monkeypatch.setattr(turns, "turn", turn)
        pauses = []
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "call_later", lambda pause_s, then: pauses.append(pause_s) or loop.call_soon(then))
        pump = Pump(turns, FakeClock())
        pump.wake()
        await pump.idle.wait()
        assert pauses == [0.01, 0.02, 0.04]

    run(main)
