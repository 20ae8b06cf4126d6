"""The rules of every alert log for entries of other releases (LogG1 to LogG4) and for calls (LogC1 to LogC4)."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

from alertlog.chains import EXPIRES_MS, a_call, a_claim, a_release, a_report, a_widening, an_end
from alertlog.later import MULTIPOLYGON, a_tombstone, of_another_kind, with_area, with_members
from alertlog.reading import ENDS_MS, entries, live, read, read_on, with_logs
from support.fakes import NOON_MS, a_cancel, a_revision

from geocast.alertlog import PLACE_MS, RETENTION_MS, Counts, under_revision
from geocast.model.alert import OtherKind


@with_logs
class KindsContract:
    """The rules for entries that are neither revisions nor cancels of alerts.

    `LogContract` says how a log is opened.
    """

    # ---- entries of other releases -----------------------------------------------------------------------------

    def passed_over_without_a_word(self, log):
        """Return whether no entry was set aside, counted or logged."""
        return log.quarantined == 0 and not [r for r in self._caplog.records if r.name.startswith("geocast.alertlog")]

    async def test_entries_of_unknown_kinds_are_skipped_silently(self, log):
        """Such entries have positions, and followers continue after them (LogG1)."""
        async with aclosing(log.follow(0)) as follower:
            assert await read_on(follower) == []
            await log.append(a_revision())
            for later in (of_another_kind(revision=2), of_another_kind("call"), of_another_kind("call", 2, "dawn")):
                await self.write(log, later)
            tail = await log.tail()
            await log.append(a_revision("a-2"))
            found = []
            while len(found) < 2:
                found += await read_on(follower)
        assert [entry for _, entry in found] == await entries(log) == [a_revision(), a_revision("a-2")]
        assert found[0].position < tail < found[1].position == await log.tail()
        assert await read(log, tail) == found[1:]
        assert list(await live(log, NOON_MS)) == [a_revision(), a_revision("a-2")]
        assert self.passed_over_without_a_word(log)

    async def test_log_with_only_unknown_kinds_of_entries_is_read_to_its_end(self, log):
        """Only an empty batch means that the end was reached (LogG1, LogF2)."""
        self.patch("BATCH", 3)
        for number in range(1, 11):
            await self.write(log, of_another_kind(revision=number))
        assert await read(log) == []
        await log.append(a_revision("a-2"))
        assert await entries(log) == [a_revision("a-2")]

    async def test_new_alert_cannot_use_id_that_has_entries_of_unknown_kind(self, log):
        """`history` returns the number of the unknown entry (LogG4), and no alert is live (LogG1)."""
        await self.write(log, of_another_kind("call", ends_at=ENDS_MS + 7))
        assert list(await log.history("call")) == [OtherKind("call", 1, ENDS_MS + 7)]
        assert not await log.append(a_revision("call"))
        assert await entries(log) == list(await live(log, NOON_MS)) == []

    async def test_revision_and_cancel_are_numbered_after_entry_of_unknown_kind(self, log):
        """Only the number of an entry of unknown kind counts (LogG2, LogG4, LogA1)."""
        await log.append(a_revision())
        await self.write(log, of_another_kind(revision=2))
        assert not await log.append(a_revision(revision=2))
        assert not await log.append(a_cancel(revision=2))
        assert await log.append(a_revision(revision=3))
        await self.write(log, of_another_kind(revision=4))
        assert list(await live(log, NOON_MS)) == [a_revision(revision=3)]
        assert await log.append(a_cancel(revision=5))
        assert list(await live(log, NOON_MS)) == []
        numbers = [2, 4]
        assert list(await log.history("a-1")) == [
            a_revision() if n == 1 else OtherKind("a-1", n, ENDS_MS) if n in numbers else known
            for n, known in enumerate([a_revision(), None, a_revision(revision=3), None, a_cancel(revision=5)], 1)
        ]

    async def test_alert_stays_cancelled_after_entries_of_unknown_kinds(self, log):
        """No revision or cancel follows a cancel, with or without entries of unknown kinds in between (LogG2)."""
        for entry in (a_revision(), a_cancel()):
            await log.append(entry)
        await self.write(log, of_another_kind(revision=3))
        for entry in (a_revision(revision=4), a_cancel(revision=4), a_revision(revision=3)):
            assert not await log.append(entry)
        assert list(await live(log, NOON_MS)) == []
        assert len(await log.history("a-1")) == 3

    async def test_cancel_can_be_first_entry_of_alert(self, log):
        """The log accepts any kind as the first entry of an alert (LogG2).

        A tombstone (a cancel without an alert) is purged like any entry (CP13).
        """
        await self.write(log, a_tombstone())
        assert not await log.append(a_revision())
        assert not await log.append(a_revision(revision=2))
        assert await log.append(a_cancel("a-2", 1))
        tombstone = a_cancel(revision=1, into="a-9")
        assert await entries(log) == [tombstone, a_cancel("a-2", 1)]
        assert list(await log.history("a-1")) == [tombstone]
        assert list(await live(log, NOON_MS)) == []
        assert await log.purge(ENDS_MS + RETENTION_MS) == 0
        assert await log.purge(ENDS_MS + RETENTION_MS + 1000) == 2
        assert self.passed_over_without_a_word(log)

    async def test_unknown_area_shape_is_stored_and_returned_unchanged(self, log):
        """`history`, `live` and `follow` return the shape, whether it is alone or among circles (LogG3)."""
        circle = {"type": "circle", "lat": 32.0, "lng": -96.0, "radius_m": 500.0}
        for alert_id, area in (("mixed", [circle, MULTIPOLYGON, {"type": "everywhere"}]), ("alone", [MULTIPOLYGON])):
            await self.write(log, with_area(*area, alert_id=alert_id))
            for [entry] in (await log.history(alert_id), (await live(log, NOON_MS))[-1:], (await entries(log))[-1:]):
                assert [shape.to_map() for shape in entry.alert.area] == area
                assert len(entry.alert.circles) == len(area) // 3
            assert await log.append(a_revision(alert_id, 2))
        assert self.passed_over_without_a_word(log)

    async def test_unknown_fields_in_any_part_of_entry_are_ignored(self, log):
        """Unknown fields may be in the entry, its approval, its terms or its circles (LogG3)."""
        for entry in (a_revision(), a_cancel()):
            await self.write(log, with_members(entry))
        assert await entries(log) == list(await log.history("a-1")) == [a_revision(), a_cancel()]
        assert self.passed_over_without_a_word(log)

    async def test_alert_is_kept_until_its_entries_of_unknown_kinds_have_ended(self, log):
        """The end times of these entries count, and they are purged with the alert (LogG1, LogR1)."""
        await log.append(a_revision())
        await self.write(log, of_another_kind(revision=2, ends_at=ENDS_MS + 1000))
        await self.write(log, of_another_kind("call"))
        assert await log.purge(ENDS_MS + RETENTION_MS + 1000) == 1
        assert list(await log.history("call")) == []
        assert len(await log.history("a-1")) == 2
        assert await log.purge(ENDS_MS + RETENTION_MS + 1001) == 2
        assert list(await log.history("a-1")) == await entries(log) == []

    # ---- entries of calls --------------------------------------------------------------------------------------

    async def test_call_entries_are_stored_and_read_unchanged(self, log):
        """Entries of calls are returned among those of alerts, in order, and none of them is a live alert (LogC1)."""
        chain = [a_call(), a_widening(), a_claim(3), a_report(4), a_call(5), a_release(6), an_end(7)]
        for entry in (*chain[:3], a_revision(), *chain[3:]):
            assert await log.append(entry)
        assert list(await log.history("c-1")) == chain
        assert await entries(log) == [*chain[:3], a_revision(), *chain[3:]]
        assert list(await live(log)) == [a_revision()]
        assert self.passed_over_without_a_word(log)

    async def test_follower_that_skips_ended_alerts_still_gets_ended_call_entries(self, log):
        """An entry that gives a seat may have ended while its call was extended, so it must be read.

        Ended alerts are skipped as usual (LogC1).
        """
        chain = [a_call(), a_claim(), a_call(3, ends_at=EXPIRES_MS + 9)]
        for entry in (*chain, a_revision(), a_call(1, "past")):
            await log.append(entry)
        given = [entry for _, entry in await read(log, 0, EXPIRES_MS + 5)]
        assert given == [*chain, *await log.history("past")]

    async def test_call_entry_that_skips_a_number_or_follows_the_end_is_refused(self, log):
        """The rules for alerts apply to calls (LogA1, LogC1)."""
        for entry, stored in [
            (a_call(2), False),
            (a_call(), True),
            (a_call(), False),
            (a_widening(3), False),
            (a_claim(2), True),
            (a_claim(2), False),
            (an_end(3), True),
            (an_end(4), False),
            (an_end(3), False),
            (a_call(4), False),
            (a_claim(4), False),
        ]:
            assert await log.append(entry) is stored

    async def test_only_one_of_concurrent_seat_claims_with_same_number_is_stored(self, log):
        """Exactly one of the claims gets the number (LogA2, RV2)."""
        await log.append(a_call())
        rivals = [a_claim(2) for _ in range(30)]
        stored = await asyncio.gather(*map(log.append, rivals))
        assert sum(stored) == 1
        assert (await log.history("c-1"))[-1] == rivals[stored.index(True)]

    async def test_one_id_cannot_have_both_alert_and_call_entries(self, log):
        """Alerts and calls share one set of ids; entries of unknown kinds do not change this (LogC1, RY1)."""
        await log.append(a_call())
        await log.append(a_revision())
        for number in (2, 3):
            for entry in (a_revision("c-1", number), a_cancel("c-1", number), a_call(number, "a-1")):
                assert not await log.append(entry)
            await self.write(log, of_another_kind("c-1", number))
            await self.write(log, of_another_kind("a-1", number))
        assert not await log.append(a_cancel("c-1", 4))
        assert not await log.append(an_end(4, "a-1"))
        assert await log.append(an_end(4))
        assert await log.append(a_cancel("a-1", 4))

    async def test_list_of_open_calls_omits_ended_and_expired_calls(self, log):
        """Calls are listed in the order of their first entries, and the latest end time of a call counts (LogC3)."""
        assert list(await log.open_calls(NOON_MS)) == []
        for entry in (
            a_call(1, "c-2"),
            a_revision(),
            a_call(1, "c-1", ends_at=NOON_MS + 1),
            a_call(1, "c-3"),
            a_call(2, "c-2"),
            a_claim(2, call_id="c-1", ends_at=NOON_MS + 5),
            an_end(2, "c-3"),
        ):
            assert await log.append(entry)
        await self.write(log, of_another_kind("vigil"))
        assert list(await log.open_calls(NOON_MS)) == ["c-2", "c-1"]
        assert list(await log.open_calls(NOON_MS + 4)) == ["c-2", "c-1"]
        assert list(await log.open_calls(NOON_MS + 5)) == ["c-2"]
        assert await log.append(an_end(3, "c-2"))
        assert list(await log.open_calls(NOON_MS)) == ["c-1"]

    async def test_place_of_call_is_deleted_ten_minutes_after_call_ends(self, log):
        """Only the entries with the place are deleted.

        Readers no longer get them, and no entry can follow the end (LogC4, RZ4).
        """
        await log.append(a_call(1, "open"))
        chain = [a_call(), a_claim(), a_call(3), an_end(4, at=NOON_MS + 1)]
        for entry in chain:
            await log.append(entry)
        await log.append(a_revision())
        assert await log.purge(NOON_MS + PLACE_MS) == 0
        assert list(await log.history("c-1")) == chain
        assert await log.purge(NOON_MS + PLACE_MS + 1) == 2
        assert list(await log.history("c-1")) == [chain[1], chain[3]]
        assert [(entry.id, entry.revision) for entry in await entries(log)] == [
            *(("open", 1), ("c-1", 2), ("c-1", 4), ("a-1", 1))
        ]
        for entry in (a_call(), a_call(3), a_call(5), a_claim(5), a_revision("c-1"), a_revision("c-1", 5)):
            assert not await log.append(entry)
        assert list(await log.open_calls(NOON_MS)) == ["open"]
        assert await log.purge(NOON_MS + PLACE_MS + 1) == 0

    async def test_remaining_call_entries_are_purged_a_day_after_expiry(self, log):
        """All entries of a call are purged together, even if nobody ended the call (LogC4, LogR1)."""
        for entry in (a_call(), an_end(2), a_call(1, "open"), a_claim(2, call_id="open")):
            await log.append(entry)
        await log.append(a_call(1, "later", ends_at=EXPIRES_MS + 60_000))
        now, later = (under_revision(each, 2) for each in ("c-1", "later"))
        resting = under_revision("c-1", 0)
        await log.add_counts({"c-1": Counts(9, 6, 2), resting: Counts(1), now: Counts(2), later: Counts(3)})
        assert await log.purge(EXPIRES_MS + RETENTION_MS) == 1
        assert list(map(len, [await log.history("c-1"), await log.history("open")])) == [1, 2]
        assert await log.purge(EXPIRES_MS + RETENTION_MS + 1) == 3
        assert list(await log.history("c-1")) == []
        assert [each.id for each in await entries(log)] == list(await log.open_calls(NOON_MS)) == ["later"]
        assert await log.counts("c-1") == await log.counts(now) == await log.counts(resting) == Counts()
        assert await log.counts(later) == Counts(3)
        assert await log.append(a_call())

    async def test_place_of_call_is_purged_even_if_time_of_its_end_is_unreadable(self, log):
        """Somebody who can write to the log may store an `end` with any bytes; then the expiry counts (LogC4)."""
        await log.append(a_call())
        await log.append(replace(an_end(2), plain=b"\xc1"))
        assert await log.purge(EXPIRES_MS + PLACE_MS - 1) == 0
        assert await log.purge(EXPIRES_MS + PLACE_MS) == 1

    async def test_decline_counts_of_a_call_are_summed(self, log):
        """Declines are counted besides sent and acknowledged frames (RN3)."""
        await log.add_counts({"c-1": Counts(3, 1, 1), "c-2": Counts(1)})
        await log.add_counts({"c-1": Counts(0, 0, 2)})
        assert await log.counts("c-1") == Counts(3, 1, 3)
        assert await log.counts("c-2") == Counts(1, 0, 0)

    async def test_undamaged_log_quarantines_no_entries(self, log):
        """`quarantined` counts only entries that can't be read (LogR2)."""
        await log.append(a_revision())
        await read(log)
        assert log.quarantined == 0
