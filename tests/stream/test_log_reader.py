"""The reader of the log: which entries of alerts and of calls it passes on."""

import asyncio

import pytest
from alertlog.chains import EXPIRES_MS, a_call, a_claim, an_end
from support.fakes import NOON_MS, FakeClock, a_cancel, a_revision

from geocast.alertlog.memory import MemoryLog
from geocast.stream.live_alerts import LiveAlerts
from geocast.stream.log_reader import LogHealth, LogReader

ALERT = [a_revision(), a_cancel()]
CALL = [a_call(), a_claim(2), an_end(3)]


def read(clock, *entries, **calls):
    """Return a reader of a log with these entries, and the list of the entries of alerts that it applies."""
    log, live, alerts = MemoryLog(), LiveAlerts(1), []

    def apply(entry):
        alerts.append(entry)
        live.apply(entry, clock.now())

    reader = LogReader(log, clock, live, apply, LogHealth(log, clock), **calls)
    for entry in entries:
        log.take(entry)
    return reader, alerts


def run(reader, *then):
    """Read to the end; then run these steps one after the other, with a check of the clock after each."""

    async def main():
        reading = asyncio.create_task(reader.read_for_ever())
        await asyncio.wait_for(reader.caught_up.wait(), 60)
        for step in then:
            step()
            await reader._reread_if_clock_was_ahead()
        reading.cancel()

    asyncio.run(main())


def test_log_entries_of_calls_are_passed_to_the_callback():
    """Each is passed once, in order, and no entry of an alert (LogC1)."""
    calls = []
    reader, alerts = read(FakeClock(), CALL[0], ALERT[0], *CALL[1:], ALERT[1], calls=calls.append)
    run(reader)
    assert calls == CALL
    assert alerts == ALERT
    assert (reader.applied, reader.position) == (5, 5)


def test_log_entries_of_calls_are_skipped_without_a_callback():
    """The public feed reads so (LogC1)."""
    reader, alerts = read(FakeClock(), CALL[0], ALERT[0], *CALL[1:], ALERT[1])
    run(reader)
    assert alerts == ALERT


@pytest.mark.parametrize(
    "then", [a_revision(revision=2, expires_at=NOON_MS + 600_000), a_cancel(ends_at=NOON_MS + 600_000)]
)
def test_alert_that_its_last_entry_has_ended_is_not_live_after_a_restart(then):
    """Its first revision would end 15 minutes later (rule E1)."""
    clock = FakeClock(wall_ms=NOON_MS + 900_000)
    reader, _ = read(clock, a_revision(), then)
    run(reader)
    alert = reader._live.find("a-1", clock.now())
    assert alert is None or alert.ended(clock.now()) or alert.cancel is not None


def test_call_that_expired_by_a_wrong_wall_clock_is_read_again_after_correction():
    """The wall clock was ahead when the log was read."""
    clock, calls = FakeClock(wall_ms=EXPIRES_MS + 1), []
    reader, _ = read(clock, *CALL[:2], calls=calls.append)

    def set_right():
        assert calls == CALL[:2]
        clock.wall_ms = NOON_MS

    run(reader, set_right)
    assert calls == CALL[:2] * 2
