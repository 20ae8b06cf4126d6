"""The call worker: seats, waves and ends in a log that several processes share."""

import asyncio
import contextlib
import dataclasses

import pytest
from calls.quarter import HALF_HOUR_MS, PLACE, TERMS, Quarter, new_keys
from support.fakes import NOON_MS, FakeClock

from geocast import policy, tasks
from geocast.alertlog import Counts
from geocast.alertlog.memory import MemoryLog
from geocast.calls import worker as module
from geocast.calls.hub import ReleaseRequest
from geocast.calls.live_call import MAX_LIFE_S
from geocast.calls.service import CallService
from geocast.calls.worker import CallWorker
from geocast.metrics import Metrics
from geocast.model.call import Acceptance, Nothing, Person, Widening, body_of
from geocast.model.errors import LogUnavailable

LOOKS = 2_000  # turns of the loop that a test waits for something at most


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """Replace waiting by turns of the event loop, so that only the test's clock decides what is due."""
    for name in ("TICK_S", "REST_S", "RETRY_S", "RETRY_MOST_S", "END_JITTER_S", "RESTORE_S"):
        monkeypatch.setattr(module, name, 0.0)


class SharedLog(MemoryLog):
    """The log in memory of several processes, which can be unavailable (`away`) or lack all entries.

    A request to it while it is unavailable is not carried out, unless only its answer is to be lost. A real log may
    have carried it out.
    """

    away = counts_away = goes = lost = False

    async def append(self, entry):
        """Store an entry, unless the log is unavailable."""
        self._is_there()
        stored = await super().append(entry)
        if self.goes:
            self.goes, self.away = False, True
            self._is_there()
        return stored

    async def history(self, alert_id):
        """Return all entries of a call, unless the log is unavailable."""
        self._is_there()
        return [] if self.lost else await super().history(alert_id)

    async def counts(self, alert_id):
        """Return the stored counts, unless the log is unavailable."""
        if self.away or self.counts_away:
            raise LogUnavailable("away")
        return await super().counts(alert_id)

    async def add_counts(self, counts):
        """Add counts, unless the log is unavailable."""
        self._is_there()
        await super().add_counts(counts)

    def _is_there(self):
        if self.away:
            raise LogUnavailable("away")


class CallCluster:
    """Several processes, each with a call hub, which share a log and a clock."""

    def __init__(self, processes=1):
        self.clock, self.keys, self.log = FakeClock(), new_keys(), SharedLog()
        self.quarters = [Quarter(keys=self.keys, clock=self.clock) for _ in range(processes)]
        self.errands = [self._errands(quarter) for quarter in self.quarters]

    def _errands(self, quarter):
        errands = CallWorker(64, self._in_force, self.log, self._store, self.clock, Metrics())
        quarter.hub, errands.wake = errands.hub, quarter.run
        return errands

    def _in_force(self):
        return CallService(self.log, policy.parse(None, None), self.keys, self.clock), self.keys

    async def _store(self, counts):
        try:
            await self.log.add_counts(counts)
        except LogUnavailable:
            return False
        return True

    @contextlib.asynccontextmanager
    async def running(self):
        """Run the workers of all processes."""
        tasks = [asyncio.ensure_future(work) for each in self.errands for work in (each.run(), self._follow(each))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, errands):
        async for batch in self.log.follow(0):
            for _, entry in batch:
                errands.read(entry)

    async def append(self, body, secret, call_id="c-1"):
        """Append an entry to the log, as another node would."""
        number = len(await self.log.history(call_id)) + 1
        assert await self.log.append(self.quarters[0].entry(body, secret, call_id, number))

    async def open(self, call_id="c-1", **terms):
        """Open a call."""
        await self.append(self.quarters[0].opening(dataclasses.replace(TERMS, **terms)), PLACE, call_id)

    async def seated(self):
        """Return a session that was notified, has a seat and was sent its task."""
        phone = self.quarters[0].join()
        await self.open()
        await self.append(Acceptance(1, "cpr", NOON_MS), Person("r-1"))
        await until(lambda: len(phone.sent) == 2)
        return phone

    async def kinds(self, call_id="c-1"):
        """Return the kinds of the entries of a call."""
        return [entry.kind for entry in await self.log.history(call_id)]


async def until(condition):
    """Run the loop until a condition holds."""
    for _ in range(LOOKS):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it has not come")


async def settled():
    """Run the loop until nothing more happens."""
    for _ in range(50):
        await asyncio.sleep(0)


def run(main):
    asyncio.run(asyncio.wait_for(main(), 30))


def test_responder_who_accepts_gets_seat_and_task():
    """Two devices of one responder, on two processes, are sent the same task (RV1, RV3)."""

    async def main():
        cluster = CallCluster(2)
        async with cluster.running():
            phone, tablet = cluster.quarters[0].join(), cluster.quarters[1].join(9_000)
            await cluster.open()
            await until(phone.received)
            phone.accept(eta_s=60)
            await until(lambda: tablet.sent)
            assert phone.received() == tablet.received() == ["c-1:2 seat 1"]
            assert body_of((await cluster.log.history("c-1"))[1]).eta_s == 60

    run(main)


def test_only_one_of_two_responders_gets_the_last_seat():
    """Both accept at the same moment, on two processes (RV2)."""

    async def main():
        cluster = CallCluster(2)
        async with cluster.running():
            phones = [quarter.join(0, f"r-{n}") for n, quarter in enumerate(cluster.quarters)]
            await cluster.open(seats=["cpr"])
            for phone in phones:
                await until(phone.received)
            for phone in phones:
                phone.accept()
            for phone in phones:
                await until(lambda phone=phone: len(phone.sent) == 2)
            assert sorted(phone.received() for phone in phones) == [["-c-1 full"], ["c-1:2 seat 1"]]

    run(main)


def test_accept_message_waits_while_the_log_is_unavailable():
    """The accept is retried, and is decided by the state at that time (RV4)."""

    async def main():
        cluster = CallCluster()
        async with cluster.running():
            stays, walks = cluster.quarters[0].join(), cluster.quarters[0].join(0, "r-2")
            gone = cluster.quarters[0].join(0, "r-3")
            await cluster.open()
            await until(lambda: len(cluster.quarters[0].order) == 3)
            cluster.log.away = True
            for phone in (stays, walks, gone):
                phone.accept()
            await settled()
            walks.move(5_000)
            gone.leave()
            cluster.log.away = False
            await until(lambda: stays.received()[1:] or len(stays.sent) == 2)
            await until(lambda: len(walks.sent) == 2)
            assert walks.received() == ["c-1/1", "-c-1 far"]
            assert await cluster.kinds() == ["call", "claim"]

    run(main)


def test_accept_message_waits_until_the_log_has_restored_a_lost_call():
    """A release waits in the same way (RV4, RV5, RV7)."""

    async def main():
        cluster = CallCluster()
        async with cluster.running():
            goes, waits = cluster.quarters[0].join(), cluster.quarters[0].join(0, "r-2")
            await cluster.open()
            await until(lambda: len(cluster.quarters[0].order) == 2)
            goes.accept()
            await until(lambda: len(goes.sent) == 2)
            cluster.log.lost = True
            waits.accept()
            goes.decline()
            await settled()
            assert (waits.received(), goes.received()) == (["c-1/1"], ["c-1/1", "c-1:2 seat 1"])
            cluster.log.lost = False
            await until(lambda: len(waits.sent) == 2 and len(goes.sent) == 3)
            assert goes.received() == ["-c-1 left"]
            assert sorted(await cluster.kinds()) == ["call", "claim", "claim", "release"]

    run(main)


def test_waiting_accept_message_is_answered_when_the_call_ends():
    """The clocks end the call while the log is unavailable (RJ9)."""

    async def main():
        cluster = CallCluster()
        async with cluster.running():
            phone = cluster.quarters[0].join()
            await cluster.open()
            await until(phone.received)
            cluster.log.away = True
            phone.accept()
            await settled()
            cluster.clock.advance(HALF_HOUR_MS / 1000)
            await until(lambda: len(phone.sent) == 2)
            assert phone.received() == ["-c-1 over"]

    run(main)


def test_release_of_seat_and_progress_report_are_stored_when_the_log_is_back():
    """Both are retried until they succeed (M19, M20)."""

    async def main():
        cluster = CallCluster()
        async with cluster.running():
            phone = await cluster.seated()
            cluster.log.away = True
            cluster.errands[0].hub.report(phone.row, "c-1", "arrived", cluster.clock.now())
            await settled()
            cluster.log.away = False
            await until(lambda: cluster.quarters[0].hub.calls.get("c-1").state.number == 3)
            phone.decline()
            await until(lambda: len(phone.sent) == 3)
            assert phone.received()[2:] == ["-c-1 left"]
            assert await cluster.kinds() == ["call", "claim", "report", "release"]

    run(main)


def test_only_last_of_several_waiting_progress_reports_is_stored():
    """If an earlier report were stored first, the last one would come too soon to count (M20)."""

    async def main():
        cluster = CallCluster()
        async with cluster.running():
            phone = cluster.quarters[0].join()
            await cluster.open(rings_m=[100])
            await until(phone.received)
            phone.accept()
            await until(phone.received)
            cluster.log.away = True
            for state in ("aed", "arrived"):
                cluster.quarters[0].hub.report(phone.row, "c-1", state, cluster.clock.now())
                await settled()
                cluster.clock.advance(6)
            cluster.log.away = False
            await settled()
            assert await cluster.kinds() == ["call", "claim", "report"]
            assert body_of((await cluster.log.history("c-1"))[2]).state == "arrived"
            cluster.clock.advance(6)
            cluster.quarters[0].hub.report(phone.row, "c-1", "aed", cluster.clock.now())
            await settled()
            assert await cluster.kinds() == ["call", "claim", "report", "report"]

    run(main)


def test_repeated_decline_releases_the_seat_once():
    """This holds while the log is unavailable, too. An old decline does not release a new seat (M19)."""

    async def main():
        cluster = CallCluster()
        async with cluster.running():
            phone = await cluster.seated()
            before = len(cluster.errands[0]._under_way)
            cluster.log.away = True
            for _ in range(100):
                phone.decline()
            assert len(cluster.errands[0]._under_way) <= before + 1
            cluster.log.away = False
            await until(lambda: len(phone.sent) == 3)
            assert await cluster.kinds() == ["call", "claim", "release"]
            phone.accept()
            await until(lambda: len(phone.sent) == 4)
            phone.decline()
            await until(lambda: len(phone.sent) == 5)
            assert await cluster.kinds() == ["call", "claim", "release", "claim", "release"]

    run(main)


def test_retried_release_does_not_release_seat_accepted_later():
    """It was unknown whether the release was stored, and the responder has accepted again since (RV5)."""

    async def main():
        cluster = CallCluster()
        async with cluster.running():
            phone = await cluster.seated()
            cluster.log.goes = True
            phone.decline()
            await until(lambda: len(phone.sent) == 3)
            assert phone.received()[2:] == ["-c-1 left"]
            again = cluster.quarters[0].entry(Acceptance(1, "cpr", NOON_MS + 1), Person("r-1"), number=4)
            assert await MemoryLog.append(cluster.log, again)
            await until(lambda: len(phone.sent) == 4)
            cluster.log.away = False
            await settled()
            assert await cluster.kinds() == ["call", "claim", "release", "claim"]

    run(main)


async def rings(cluster):
    """Return the stored waves, after each process has had time to try one."""
    cluster.clock.advance(0.35)
    await settled()
    return [body_of(entry).ring for entry in await cluster.log.history("c-1") if entry.kind == "widen"]


def test_radius_widens_according_to_counts_of_all_processes():
    """Each process has notified too few responders, but both together have notified enough (RN2, RN3)."""

    async def main():
        cluster = CallCluster(2)
        async with cluster.running():
            near = [quarter.join(0, f"r-{n}") for n, quarter in enumerate(cluster.quarters)]
            await cluster.open(enough=2)
            for phone in near:
                await until(phone.received)
            assert await rings(cluster) == []
            near[0].decline()
            assert await rings(cluster) == [1]
            assert await rings(cluster) == [1, 2]
            assert await rings(cluster) == [1, 2]

    run(main)


def test_radius_widens_according_to_own_counts_if_stored_ones_are_unreadable():
    """Two processes have notified one session each, and two would be enough (RN3)."""

    async def main():
        cluster = CallCluster(2)
        async with cluster.running():
            near = [quarter.join(0, f"r-{n}") for n, quarter in enumerate(cluster.quarters)]
            await cluster.open(enough=2)
            for phone in near:
                await until(phone.received)
            assert await rings(cluster) == []
            cluster.log.counts_away = True
            assert await rings(cluster) == [1]

    run(main)


def test_search_radius_does_not_grow_once_a_call_has_enough_responders_or_has_reached_its_last_radius():
    """A call widens only while a seat is free (RN2)."""

    async def main():
        cluster = CallCluster()
        async with cluster.running():
            await cluster.open(seats=["cpr"])
            await cluster.append(Acceptance(1, "cpr", NOON_MS), Person("r-1"))
            assert await rings(cluster) == []
            await cluster.open("c-2", rings_m=[100])
            await cluster.append(Widening(0, NOON_MS), Nothing(), "c-2")
            cluster.clock.advance(60)
            await settled()
            assert await cluster.kinds("c-2") == ["call", "widen"]

    run(main)


def test_expired_call_is_ended_once_in_the_log():
    """One of all processes stores the end, without a source, when both clocks have passed the expiry (RZ4)."""

    async def main():
        cluster = CallCluster(3)
        async with cluster.running():
            await cluster.open(rings_m=[100])
            await settled()
            cluster.clock.wall_ms += HALF_HOUR_MS
            await settled()
            assert await cluster.kinds() == ["call"]
            cluster.clock.wall_ms -= HALF_HOUR_MS
            cluster.clock.advance(HALF_HOUR_MS / 1000)
            await until(lambda: cluster.quarters[0].hub.calls.get("c-1").summary.over)
            *_, end = await cluster.log.history("c-1")
            assert await cluster.kinds() == ["call", "end"]
            assert body_of(end).source is None

    run(main)


def test_worker_restores_seat_that_the_log_lost():
    """Another responder had the number and the seat. The first one gets seat 0 (RV7)."""

    async def main():
        cluster = CallCluster(2)
        async with cluster.running():
            phone = cluster.quarters[0].join()
            await cluster.open()
            await until(phone.received)
            lost = cluster.quarters[0].entry(Acceptance(1, "cpr", NOON_MS), Person("r-1"), number=2)
            for errands in cluster.errands:
                errands.read(lost)
            await cluster.append(Acceptance(1, "cpr", NOON_MS), Person("r-2"))
            await until(lambda: len(phone.sent) == 3)
            assert phone.received() == ["c-1:2 seat 1", "c-1:3 seat 0"]
            assert await cluster.kinds() == ["call", "claim", "claim"]
            assert cluster.errands[0].hub.calls["c-1"].lost == {}

    run(main)


def test_undecrypted_entry_is_counted_logged_and_decrypted_with_its_key(caplog):
    """The log line has the id of the call, the number and the position (HD8, RZ5)."""

    async def main():
        cluster = CallCluster()
        async with cluster.running():
            phone, other = cluster.quarters[0].join(), new_keys("second")
            entry = cluster.quarters[0].entry(cluster.quarters[0].opening(), PLACE, keys=other)
            await cluster.log.append(entry)
            errands = cluster.errands[0]
            await until(errands.degraded)
            assert (errands.degraded(), errands.hub.failed) == (1, 1)
            errands.read(dataclasses.replace(entry, id="c-2\nforged", sealed=b"x"), 7)
            first, second = (record.getMessage() for record in caplog.records)
            assert first.startswith("call c-1: entry 1, at position ")
            assert second.startswith("call with an id of another form: entry 1, at position 7 of the log")
            cluster.keys = other
            errands.adopt()
            assert phone.received() == ["c-1/1"]
            assert errands.degraded() == 1
            cluster.clock.advance(MAX_LIFE_S)
            assert errands.degraded() == 0

    run(main)


def test_request_with_unexpected_error_is_tried_again(monkeypatch, caplog):
    """The error is logged without its text, and the responder gets the seat without another `accept`."""

    async def main():
        tasks.watch_loop()
        cluster = CallCluster()
        async with cluster.running():
            phone = cluster.quarters[0].join()
            await cluster.open()
            await until(phone.received)

            async def failing(_):
                raise RuntimeError(PLACE.address)

            with monkeypatch.context() as patched:
                patched.setattr(cluster.errands[0]._service, "accept", failing)
                phone.accept()
                await until(lambda: "a request to the log for a call failed; trying again: RuntimeError" in caplog.text)
            assert "Dorfstrasse" not in caplog.text
            await until(lambda: len(phone.sent) == 2)
            assert phone.received() == ["c-1:2 seat 1"]

    run(main)


def test_delivery_counts_are_kept_while_the_log_is_unavailable():
    """The counts are stored when the log is available again (RN3, H7)."""

    async def main():
        cluster = CallCluster()
        async with cluster.running():
            cluster.log.away = True
            phone = cluster.quarters[0].join()
            await MemoryLog.append(cluster.log, cluster.quarters[0].entry(cluster.quarters[0].opening(), PLACE))
            await until(phone.received)
            await settled()
            cluster.log.away = False
            await settled()
            assert await cluster.log.counts("c-1") == Counts(sent=1)

    run(main)


def test_last_delivery_counts_are_stored_at_shutdown(monkeypatch):
    """A process that shuts down first stores the counts of what its responders have answered (H7)."""
    monkeypatch.setattr(module, "REST_S", 60.0)  # between two looks

    async def main():
        cluster = CallCluster()
        async with cluster.running():
            phone = cluster.quarters[0].join()
            await cluster.open(rings_m=[100])
            await until(phone.received)
            await settled()
            cluster.errands[0].hub.acknowledge(phone.row, "c-1", 1)
            phone.decline()
        assert await cluster.log.counts("c-1") == Counts(1, 1, 1)

    run(main)


def test_retries_for_a_lost_call_stop_after_maximum_lifetime_of_a_call():
    """This process never read the call, so it does not know when the call ends (Rule 1 of `calls.worker`)."""

    async def main():
        cluster = CallCluster()
        release = ReleaseRequest("c-9", Person("r-1"))
        cluster.errands[0]._handle(release)
        await settled()
        assert release in cluster.errands[0]._under_way
        cluster.clock.advance(MAX_LIFE_S)
        await settled()
        assert release not in cluster.errands[0]._under_way

    run(main)


@pytest.mark.parametrize("turns", range(5))
def test_worker_stops_if_cancelled_while_an_entry_arrives(turns, monkeypatch):
    """A node that shuts down cancels its worker once, and waits for it to end."""
    monkeypatch.setattr(module, "REST_S", 60.0)

    async def main():
        each = CallCluster().errands[0]
        task = asyncio.ensure_future(each.run())
        await settled()
        each._stirred.set()
        for _ in range(turns):  # of the loop, between the entry and the cancellation
            await asyncio.sleep(0)
        task.cancel()
        await settled()
        assert task.cancelled()

    asyncio.run(main())
