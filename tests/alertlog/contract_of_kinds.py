"""What every alert log keeps of entries of other releases (LogG1 to LogG4) and of calls (LogC1 to LogC4)."""

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
    """The rules of entries that are no revisions and cancels of alerts. `LogContract` has how a log is opened."""

    # ---- other releases ----------------------------------------------------------------------------------------

    def passed_over_without_a_word(self, log):
        """Whether nothing was set aside, counted or said."""
        return log.quarantined == 0 and not [r for r in self._caplog.records if r.name.startswith("geocast.alertlog")]

    async def test_entries_of_other_kinds_are_passed_over_without_a_word(self, log):
        """LogG1: whatever is around them; they have a position, and followers go on behind them."""
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

    async def test_a_log_of_nothing_but_other_kinds_is_read_to_its_end(self, log):
        """LogG1, LogF2: an empty batch says that the end was reached, and nothing else does."""
        self.patch("BATCH", 3)
        for number in range(1, 11):
            await self.write(log, of_another_kind(revision=number))
        assert await read(log) == []
        await log.append(a_revision("a-2"))
        assert await entries(log) == [a_revision("a-2")]

    async def test_an_id_that_has_other_kinds_only_is_taken(self, log):
        """LogG4: `history` knows the number; LogG1: nothing of it is live."""
        await self.write(log, of_another_kind("call", ends_at=ENDS_MS + 7))
        assert list(await log.history("call")) == [OtherKind("call", 1, ENDS_MS + 7)]
        assert not await log.append(a_revision("call"))
        assert await entries(log) == list(await live(log, NOON_MS)) == []

    async def test_a_revision_and_a_cancel_take_the_number_behind_another_kind(self, log):
        """LogG2, LogG4, LogA1: it counts by its number alone."""
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

    async def test_a_cancel_is_the_end_whatever_stands_behind_it(self, log):
        """LogG2: nothing that this release writes follows a cancel, with another kind between them or without."""
        for entry in (a_revision(), a_cancel()):
            await log.append(entry)
        await self.write(log, of_another_kind(revision=3))
        for entry in (a_revision(revision=4), a_cancel(revision=4), a_revision(revision=3)):
            assert not await log.append(entry)
        assert list(await live(log, NOON_MS)) == []
        assert len(await log.history("a-1")) == 3

    async def test_a_cancel_may_be_the_first(self, log):
        """LogG2, CP13: what may begin an alert is not the log's to judge. A tombstone is forgotten as any entry is."""
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

    async def test_an_unknown_shape_is_given_on_as_it_came(self, log):
        """LogG3: alone, and among circles; by `history`, `live` and `follow`."""
        circle = {"type": "circle", "lat": 32.0, "lng": -96.0, "radius_m": 500.0}
        for alert_id, area in (("mixed", [circle, MULTIPOLYGON, {"type": "everywhere"}]), ("alone", [MULTIPOLYGON])):
            await self.write(log, with_area(*area, alert_id=alert_id))
            for [entry] in (await log.history(alert_id), (await live(log, NOON_MS))[-1:], (await entries(log))[-1:]):
                assert [shape.to_map() for shape in entry.alert.area] == area
                assert len(entry.alert.circles) == len(area) // 3
            assert await log.append(a_revision(alert_id, 2))
        assert self.passed_over_without_a_word(log)

    async def test_unknown_members_are_passed_over_wherever_they_are(self, log):
        """LogG3: in the entry, its approval, its terms, its circles."""
        for entry in (a_revision(), a_cancel()):
            await self.write(log, with_members(entry))
        assert await entries(log) == list(await log.history("a-1")) == [a_revision(), a_cancel()]
        assert self.passed_over_without_a_word(log)

    async def test_an_alert_stays_known_until_its_entries_of_other_kinds_have_ended(self, log):
        """LogG1, LogR1: their end counts, and so do they."""
        await log.append(a_revision())
        await self.write(log, of_another_kind(revision=2, ends_at=ENDS_MS + 1000))
        await self.write(log, of_another_kind("call"))
        assert await log.purge(ENDS_MS + RETENTION_MS + 1000) == 1
        assert list(await log.history("call")) == []
        assert len(await log.history("a-1")) == 2
        assert await log.purge(ENDS_MS + RETENTION_MS + 1001) == 2
        assert list(await log.history("a-1")) == await entries(log) == []

    # ---- calls -------------------------------------------------------------------------------------------------

    async def test_a_call_is_stored_and_followed_as_it_was_appended(self, log):
        """LogC1: entries of all kinds; they are followed among those of alerts, in order, and none of it is live."""
        chain = [a_call(), a_widening(), a_claim(3), a_report(4), a_call(5), a_release(6), an_end(7)]
        for entry in (*chain[:3], a_revision(), *chain[3:]):
            assert await log.append(entry)
        assert list(await log.history("c-1")) == chain
        assert await entries(log) == [*chain[:3], a_revision(), *chain[3:]]
        assert list(await live(log)) == [a_revision()]
        assert self.passed_over_without_a_word(log)

    async def test_of_a_call_nothing_is_left_out(self, log):
        """LogC1: claims that stand before an end was put off tell who holds a seat. Of alerts it is as ever."""
        chain = [a_call(), a_claim(), a_call(3, ends_at=EXPIRES_MS + 9)]
        for entry in (*chain, a_revision(), a_call(1, "past")):
            await log.append(entry)
        given = [entry for _, entry in await read(log, 0, EXPIRES_MS + 5)]
        assert given == [*chain, *await log.history("past")]

    async def test_numbers_of_a_call_run_without_a_gap_and_nothing_follows_its_end(self, log):
        """LogA1, LogC1."""
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

    async def test_of_concurrent_claims_of_one_number_one_is_stored(self, log):
        """LogA2, RV2: as many succeed as there are numbers, in the log's order."""
        await log.append(a_call())
        rivals = [a_claim(2) for _ in range(30)]
        stored = await asyncio.gather(*map(log.append, rivals))
        assert sum(stored) == 1
        assert (await log.history("c-1"))[-1] == rivals[stored.index(True)]

    async def test_no_chain_takes_entries_of_an_alert_and_of_a_call(self, log):
        """LogC1, RY1: they share one space of ids; entries of unknown kinds make no difference."""
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

    async def test_open_calls_have_no_end_and_have_not_expired(self, log):
        """LogC3: in the order in which they were opened; the latest end of their entries counts."""
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

    async def test_the_place_of_a_call_is_deleted_ten_minutes_after_its_end(self, log):
        """LogC4, RZ4: the entries that hold it, and no other; nothing may follow, and they are given to nobody."""
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

    async def test_what_is_left_of_a_call_is_forgotten_as_an_alert_is(self, log):
        """LogC4, LogR1: as a whole, a day after it would have expired; one that nobody has ended, too."""
        for entry in (a_call(), an_end(2), a_call(1, "open"), a_claim(2, call_id="open")):
            await log.append(entry)
        await log.append(a_call(1, "later", ends_at=EXPIRES_MS + 60_000))
        now, later = (under_revision(each, 2) for each in ("c-1", "later"))
        await log.add_counts({"c-1": Counts(9, 6, 2), now: Counts(2), later: Counts(3)})
        assert await log.purge(EXPIRES_MS + RETENTION_MS) == 1
        assert list(map(len, [await log.history("c-1"), await log.history("open")])) == [1, 2]
        assert await log.purge(EXPIRES_MS + RETENTION_MS + 1) == 3
        assert list(await log.history("c-1")) == []
        assert [each.id for each in await entries(log)] == list(await log.open_calls(NOON_MS)) == ["later"]
        assert await log.counts("c-1") == await log.counts(now) == Counts()
        assert await log.counts(later) == Counts(3)
        assert await log.append(a_call())

    async def test_an_end_that_tells_no_time_keeps_no_place_for_good(self, log):
        """LogC4: who has the log can write anything under a seal that is no seal; then the expiry counts."""
        await log.append(a_call())
        await log.append(replace(an_end(2), plain=b"\xc1"))
        assert await log.purge(EXPIRES_MS + PLACE_MS - 1) == 0
        assert await log.purge(EXPIRES_MS + PLACE_MS) == 1

    async def test_counts_of_those_who_declined_add_up(self, log):
        """RN3: beside those that were rung, and those that saw it."""
        await log.add_counts({"c-1": Counts(3, 1, 1), "c-2": Counts(1)})
        await log.add_counts({"c-1": Counts(0, 0, 2)})
        assert await log.counts("c-1") == Counts(3, 1, 3)
        assert await log.counts("c-2") == Counts(1, 0, 0)

    async def test_a_good_log_sets_nothing_aside(self, log):
        """LogR2: `quarantined` counts what can't be read."""
        await log.append(a_revision())
        await read(log)
        assert log.quarantined == 0
