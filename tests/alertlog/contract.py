"""The contract of all alert logs: the rules of `geocast.alertlog` as tests: LogA1 to LogA5, LogF1 to LogF3, LogL1,
LogL2, LogR1, LogR2, LogG1 to LogG4, and LogC1 to LogC4.

The test file of a backend derives a class from `LogContract` (and `DurableContract`, if the backend is durable), which
says how to open a log. Conditions that need one backend (a full disk, a damaged row) are tested in its own file.
"""

import abc
import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest
from alertlog.chains import EXPIRES_MS, a_call, a_claim, a_release, a_report, a_widening, an_end
from alertlog.later import MULTIPOLYGON, a_tombstone, of_another_kind, with_area, with_members
from support.fakes import NOON_MS, a_cancel, a_revision, a_warning

from geocast.alertlog import LOOKS, PAGE, PLACE_MS, RETENTION_MS, Counts, Cursor, codec, under_revision
from geocast.model.alert import OtherKind

ENDS_MS = a_revision().ends_at
PATIENCE_S = 30  # how long a test waits for something that has to happen


def with_log(test):
    """Make a test of a coroutine that takes an open log."""

    def run(self, tmp_path):
        async def main():
            log = self.new(tmp_path)
            await log.start()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await test(self, log)
            finally:
                await log.stop()

        asyncio.run(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def read_on(follower):
    """Return the entries that a follower gives until it has reached the end."""
    found = []
    async for batch in follower:
        found += batch
        if not batch:
            return found
    raise AssertionError("a follower never ends")


async def read(log, after=0, ended_before_ms=0):
    """Return all entries after a position, by a new follower."""
    async with aclosing(log.follow(after, ended_before_ms)) as follower:
        return await read_on(follower)


async def entries(log):
    """Return all entries, in order."""
    return [entry for _, entry in await read(log)]


async def pages(log, now_ms=NOON_MS, limit=PAGE):
    """Return the live alerts, page by page."""
    found, after = [], None
    while not found or after is not None:
        page = await log.live(now_ms, after, limit)
        found.append(page.revisions)
        assert after is None or page.after is None or page.after > after
        after = page.after
    return found


async def live(log, now_ms=NOON_MS):
    """Return all live alerts, from one page."""
    [found] = await pages(log, now_ms)
    return found


class LogContract(abc.ABC):
    """The rules that every backend keeps."""

    modules = ()  # the modules of the backend, whose constants some tests change
    most_large = 11  # entries of 9 KB in a batch of 20 KB: a log in memory has no bytes to count

    @abc.abstractmethod
    def new(self, tmp_path):
        """Return a log that is not open yet. With the same path it is the same log, if it is durable."""

    @abc.abstractmethod
    async def write(self, log, later):
        """Store an entry in `log` as a later release does, by another process if possible."""

    @pytest.fixture(autouse=True)
    def _patches(self, monkeypatch, caplog):
        self._monkeypatch = monkeypatch
        self._caplog = caplog

    def without_time_outs(self):
        """Disable all time-outs that wake a follower of this log."""
        for name in ("HEARTBEAT_S", "POLL_S"):
            self.patch(name, 3600.0)

    def patch(self, name, value):
        """Change a constant of the backend, if it has a constant of this name."""
        for module in self.modules:
            if hasattr(module, name):
                self._monkeypatch.setattr(module, name, value)

    # ---- append ----------------------------------------------------------------------------------------------

    @with_log
    async def test_append_with_gap_in_numbers_is_refused(self, log):
        """The numbers are 1, 2, 3 …; an entry with another number is not stored (LogA1)."""
        for entry, stored in [
            (a_revision(revision=2), False),
            (a_cancel(revision=2), False),
            (a_revision(), True),
            (a_revision(), False),
            (a_revision(headline="x"), False),
            (a_revision(revision=3), False),
            (a_revision(revision=2), True),
            (a_revision(revision=1), False),
            (a_cancel(revision=2), False),
            (a_cancel(revision=4), False),
            (a_cancel(revision=3), True),
        ]:
            assert await log.append(entry) is stored
        assert list(await log.history("a-1")) == [a_revision(), a_revision(revision=2), a_cancel(revision=3)]
        assert await entries(log) == list(await log.history("a-1"))

    @with_log
    async def test_append_after_cancel_is_refused(self, log):
        """Neither a revision nor another cancel follows a cancel (LogA1)."""
        for entry in (a_revision(), a_cancel()):
            assert await log.append(entry)
        for entry in (a_revision(revision=3), a_cancel(revision=3), a_cancel(revision=2), a_revision(revision=1)):
            assert not await log.append(entry)
        assert list(await log.history("a-1")) == [a_revision(), a_cancel()]

    @with_log
    async def test_alerts_have_independent_numbers(self, log):
        """Each id has its own numbers, and ids differ by case (LogA1)."""
        for alert_id in ("a-1", "A-1", "a-2", "a-1:x"):
            assert await log.append(a_revision(alert_id))
        assert await log.append(a_revision("A-1", 2))
        assert [len(await log.history(i)) for i in ("a-1", "A-1", "a-2", "a", "")] == [1, 2, 1, 0, 0]

    @with_log
    async def test_concurrent_appends_of_one_number_store_one(self, log):
        """Exactly one append returns True, and its entry is stored (LogA2)."""
        for number in (1, 2, 3):
            rivals = [a_revision(revision=number, headline=f"H{n}") for n in range(50)]
            stored = await asyncio.gather(*(log.append(rival) for rival in rivals))
            assert sum(stored) == 1
            assert (await log.history("a-1"))[-1] == rivals[stored.index(True)]
        assert len(await entries(log)) == 3

    @with_log
    async def test_concurrent_revision_and_cancel_of_one_number_store_one(self, log):
        """The rule holds for entries of different kinds, too (LogA2)."""
        for n in range(20):
            await log.append(a_revision(f"a-{n}"))
            rivals = [a_revision(f"a-{n}", 2), a_cancel(f"a-{n}", 2)]
            stored = await asyncio.gather(*(log.append(rival) for rival in rivals))
            assert sorted(stored) == [False, True]
            assert (await log.history(f"a-{n}"))[-1] == rivals[stored.index(True)]

    @with_log
    async def test_append_of_cancelled_caller_is_stored_wholly_or_not_at_all(self, log):
        """If the entry is stored, followers get it like any other (LogA3)."""
        appends = [asyncio.ensure_future(log.append(a_revision(f"a-{n}"))) for n in range(20)]
        await asyncio.sleep(0)
        for append in appends:
            append.cancel()
        await asyncio.gather(*appends, return_exceptions=True)
        await log.append(a_revision("last"))
        followed = await entries(log)
        for n in range(20):
            known = list(await log.history(f"a-{n}"))
            assert known == [entry for entry in followed if entry.id == f"a-{n}"]
            assert await log.append(a_revision(f"a-{n}")) is (not known)

    @with_log
    async def test_stored_entry_is_read_unchanged_by_all_readers(self, log):
        """`history`, `live` and `follow` give every field (LogA4)."""
        revision = a_revision(description="Zwei Zeilen.\nÜber 😀.", severity="extreme", status="exercise", source="d:7")
        assert await log.append(revision)
        assert list(await log.history("a-1")) == list(await live(log, NOON_MS)) == await entries(log) == [revision]
        assert await log.append(a_cancel(reason="é"))
        assert (await log.history("a-1"))[-1] == (await entries(log))[-1] == a_cancel(reason="é")

    @with_log
    async def test_largest_entry_is_stored(self, log):
        """An official warning with all its languages has 64 KiB (LogA5)."""
        warning = a_warning("en-CA", "fr-CA", "iu")
        padding = codec.MAX_ENTRY_BYTES - len(codec.encode(warning))
        [*texts, last] = warning.alert.texts
        description = f"{last.description}{'x' * (padding - 2)}"  # a longer text has a longer head
        largest = a_warning("en-CA", "fr-CA", texts=(*texts, replace(last, description=description)))
        assert codec.fits(largest)
        assert not codec.fits(a_warning(texts=(*texts, replace(last, description=f"{description}xx"))))
        assert await log.append(largest)
        assert list(await log.history("a-1")) == list(await live(log, NOON_MS)) == await entries(log) == [largest]

    # ---- live ------------------------------------------------------------------------------------------------

    @with_log
    async def test_live_leaves_out_cancelled_and_expired_alerts(self, log):
        """A live alert is accepted, not cancelled, and `now < expires_at` (section 1 of the protocol)."""
        for entry in (
            a_revision("short", expires_at=NOON_MS + 1000),
            a_revision("revised"),
            a_revision("cancelled"),
            a_revision("revised", 2, expires_at=ENDS_MS + 1000),
            a_cancel("cancelled"),
        ):
            assert await log.append(entry)
        for now_ms, alive in [
            (NOON_MS + 999, {"short/1", "revised/2"}),
            (NOON_MS + 1000, {"revised/2"}),
            (ENDS_MS, {"revised/2"}),
            (ENDS_MS + 1000, set()),
        ]:
            assert {f"{entry.id}/{entry.revision}" for entry in await live(log, now_ms)} == alive

    @with_log
    async def test_live_page_is_in_order_of_log(self, log):
        """The current revisions are in the order in which they were appended (`AlertLog.live`)."""
        for entry in (a_revision("a"), a_revision("b"), a_revision("c"), a_revision("a", 2)):
            await log.append(entry)
        assert [(entry.id, entry.revision) for entry in await live(log, NOON_MS)] == [("b", 1), ("c", 1), ("a", 2)]

    async def live_for(self, log, **ends):
        """Append an alert for each name, which is live for this many ms."""
        for alert_id, ends_in_ms in ends.items():
            assert await log.append(a_revision(alert_id, expires_at=NOON_MS + ends_in_ms))

    async def walk(self, log, limit=1, **meanwhile):
        """Return the alerts of each page. `meanwhile` has, by the number of a page, what is appended after it."""
        found, after = [], None
        while not found or after is not None:
            page = await log.live(NOON_MS, after, limit)
            for entry in meanwhile.get(f"behind_{len(found)}", ()):
                assert await log.append(entry)
            found.append([entry.id for entry in page.revisions])
            after = page.after
        return found

    @with_log
    async def test_live_pages_are_ordered_by_end(self, log):
        """Alerts are ordered by their latest end and then by id; within a page, in the order of the log (LogL1)."""
        await self.live_for(log, e=5, b=3, B=3, a=3, d=4, f=1)
        assert await self.walk(log) == [["f"], ["B"], ["a"], ["b"], ["d"], ["e"]]
        assert await self.walk(log, 2) == [["B", "f"], ["b", "a"], ["e", "d"]]
        assert await self.walk(log, 5) == [["b", "B", "a", "d", "f"], ["e"]]
        assert await self.walk(log, 6) == [["e", "b", "B", "a", "d", "f"]]
        assert (await log.live(NOON_MS + 1, Cursor(0, "z"), 3)).after == (NOON_MS + 3, "b")

    @with_log
    async def test_live_orders_equal_ends_by_bytes_of_ids(self, log):
        """The locale does not matter, and a page can begin after an alert that is gone (LogL1)."""
        ids = ["a", "Z", "a-1", "a.1", "a:1", "a_1", "0", "A1", "a1", "aa", "a" * 128]
        await self.live_for(log, **dict.fromkeys(ids, 3))
        assert await self.walk(log) == [[alert_id] for alert_id in sorted(ids)]
        for gone in ("", "a", "a-", "a-0", "a-1", "a-1a", "z"):
            behind = await log.live(NOON_MS, Cursor(NOON_MS + 3, gone))
            assert {entry.id for entry in behind.revisions} == {each for each in ids if each > gone}

    @with_log
    async def test_live_page_without_alerts_is_last(self, log):
        """So it is in an empty log, after the last alert, and if nothing is live (LogL1)."""
        assert await log.live(NOON_MS) == ([], None)
        await self.live_for(log, a=3)
        assert await log.live(NOON_MS + 3) == ([], None)
        assert await log.live(NOON_MS, Cursor(NOON_MS + 3, "a")) == ([], None)

    @with_log
    async def test_revision_with_earlier_end_moves_no_alert(self, log):
        """The latest end of all entries counts, so a reader of the pages does not miss the alert (LogL1)."""
        await self.live_for(log, a=1, b=2, c=3)
        sooner = a_revision("c", 2, expires_at=NOON_MS + 1)
        assert await self.walk(log, behind_1=[sooner]) == [["a"], ["b"], ["c"]]
        assert await log.live(NOON_MS + 1, Cursor(NOON_MS + 2, "b")) == ([], None)

    @with_log
    async def test_reader_of_all_pages_gets_every_alert_that_stays_live(self, log):
        """Others are added, revised and cancelled meanwhile. Only extended alerts come twice (LogL1)."""
        await self.live_for(log, a=2, b=4, c=6, d=8)
        same = [a_revision("a", 2, expires_at=NOON_MS + 2), a_revision("c", 2, expires_at=NOON_MS + 6)]
        later = [a_revision("a", 3, expires_at=NOON_MS + 7), a_revision("d", 2, expires_at=NOON_MS + 9)]
        new = [a_revision("before", expires_at=NOON_MS + 3), a_revision("behind", expires_at=NOON_MS + 10)]
        over = [a_cancel("c", 3)]
        found = await self.walk(log, behind_0=same, behind_1=[*later, *new], behind_2=over)
        assert found == [["a"], ["b"], ["c"], ["a"], ["d"], ["behind"]]

    @with_log
    async def test_live_page_is_full_despite_cancelled_alerts(self, log):
        """Cancelled alerts are looked at, and others take their places (LogL2)."""
        ids = [f"a-{n:02}" for n in range(12)]
        await self.live_for(log, **dict.fromkeys(ids, 1_800_000))
        for alert_id in ids[:5] + ids[6:9] + ids[10:]:
            assert await log.append(a_cancel(alert_id))
        assert await self.walk(log, 2) == [["a-05", "a-09"]]
        assert await self.walk(log, 1) == [["a-05"], ["a-09"]]

    @with_log
    async def test_live_page_looks_at_limited_number_of_alerts(self, log):
        """The page then has few alerts or none, and says where the next one begins (LogL2)."""
        ids = [f"a-{n:02}" for n in range(LOOKS + 2)]
        await self.live_for(log, **dict.fromkeys(ids, 1_800_000))
        for alert_id in ids[:-1]:
            assert await log.append(a_cancel(alert_id))
        assert await self.walk(log, 1) == [[], [ids[-1]]]

    @with_log
    async def test_live_finds_revision_below_entries_of_other_kinds(self, log):
        """The last revision or cancel counts (LogG1, LogG2)."""
        await self.live_for(log, a=3, b=3, c=3)
        for later in (of_another_kind("a", 2), of_another_kind("a", 3), of_another_kind("b", 2), of_another_kind("d")):
            await self.write(log, later)
        assert await log.append(a_cancel("b", 3))
        await self.write(log, of_another_kind("b", 4))
        assert await self.walk(log) == [["c"], ["a"]]
        assert await self.walk(log, 10) == [["a", "c"]]

    # ---- follow ----------------------------------------------------------------------------------------------

    @with_log
    async def test_tail_of_empty_log_is_0(self, log):
        """Otherwise `tail` is the position of the last entry."""
        assert await log.tail() == 0
        await log.append(a_revision())
        [(position, _)] = await read(log)
        assert await log.tail() == position > 0

    @with_log
    async def test_follower_gets_every_entry_once_in_rising_order(self, log):
        """It can begin at any position (LogF1)."""
        appended = [a_revision(f"a-{n % 7}", 1 + n // 7) for n in range(70)]
        for entry in appended:
            assert await log.append(entry)
        found = await read(log)
        assert [entry for _, entry in found] == appended
        positions = [position for position, _ in found]
        assert positions == sorted(set(positions))
        for start in (0, 1, 35, 68, 69):
            assert await read(log, positions[start]) == found[start + 1 :]
        assert await read(log, positions[-1] + 1000) == []

    @with_log
    async def test_follower_gets_entries_appended_meanwhile(self, log):
        """Each entry is given once, however many are appended at once (LogF1)."""
        async with aclosing(log.follow(0)) as follower:
            assert await read_on(follower) == []
            seen = []
            for batch in range(5):
                await asyncio.gather(*(log.append(a_revision(f"a-{batch}-{n}")) for n in range(20)))
                while len(seen) < 20 * (batch + 1):
                    seen += await read_on(follower)
            assert seen == await read(log)

    @with_log
    async def test_two_followers_get_all_entries_independently(self, log):
        """Each follower gets every entry after its own start (LogF1)."""
        await log.append(a_revision("a-1"))
        tail = await log.tail()
        async with aclosing(log.follow(0)) as early, aclosing(log.follow(tail)) as late:
            assert [entry.id for _, entry in await read_on(early)] == ["a-1"]
            assert await read_on(late) == []
            await log.append(a_revision("a-2"))
            for follower in (early, late):
                found = []
                while not found:
                    found = await read_on(follower)
                assert [entry.id for _, entry in found] == ["a-2"]

    @with_log
    async def test_long_log_is_followed_in_batches(self, log):
        """A batch has at most BATCH entries (LogF1), and an empty one comes only at the end (LogF2)."""
        self.patch("BATCH", 50)
        await asyncio.gather(*(log.append(a_revision(f"a-{n}")) for n in range(101)))
        sizes = []
        async with aclosing(log.follow(0)) as follower:
            async for batch in follower:
                sizes.append(len(batch))
                if not batch:
                    break
        assert sizes == [50, 50, 1, 0]

    @with_log
    async def test_batch_of_large_entries_is_limited_by_bytes(self, log):
        """A reader has a few MB at a time, which a slow connection transfers in time (LogF1)."""
        self.patch("BATCH_BYTES", 20_000)
        self.patch("READ_AT_ONCE", 2)
        large = [a_revision(f"a-{n}", description="x" * 9_000) for n in range(11)]
        await asyncio.gather(*map(log.append, large))
        sizes, given = [], []
        async with aclosing(log.follow(0)) as follower:
            async for batch in follower:
                sizes.append(len(batch))
                given += [entry.id for _, entry in batch]
                if not batch:
                    break
        assert sorted(given) == sorted(each.id for each in large)
        assert max(sizes) <= self.most_large
        await log.append(a_revision("b"))
        assert [entry.id for _, entry in await read(log, after=await log.tail() - 1)] == ["b"]

    @with_log
    async def test_full_batch_at_end_is_followed_by_empty_one(self, log):
        """An empty batch comes whenever the end is reached (LogF2)."""
        self.patch("BATCH", 50)
        await asyncio.gather(*(log.append(a_revision(f"a-{n}")) for n in range(50)))
        assert len(await read(log)) == 50

    @with_log
    async def test_follower_can_leave_out_ended_entries(self, log):
        """Entries that ended before `ended_before_ms` are left out (`AlertLog.follow`)."""
        for n in range(4):
            await log.append(a_revision(f"a-{n}", expires_at=ENDS_MS + n))
        await log.append(a_cancel("a-0", ends_at=ENDS_MS))
        found = await read(log, 0, ENDS_MS + 2)
        assert [entry.id for _, entry in found] == ["a-2", "a-3"]
        assert [entry.id for _, entry in await read(log, found[0].position, ENDS_MS + 2)] == ["a-3"]
        assert await read(log, 0, ENDS_MS + 9) == []

    @with_log
    async def test_follower_that_leaves_out_ended_entries_gets_all_new_ones(self, log):
        """Only entries that were there at its start are left out, since its clock may be ahead."""
        await log.append(a_revision("old", expires_at=NOON_MS + 1))
        async with aclosing(log.follow(0, ENDS_MS)) as follower:
            assert await read_on(follower) == []
            await log.append(a_revision("older", expires_at=NOON_MS + 1))
            await log.append(a_revision("new"))
            found = []
            while len(found) < 2:
                found += await read_on(follower)
            assert [entry.id for _, entry in found] == ["older", "new"]

    @with_log
    async def test_left_out_entries_are_given_to_follower_with_earlier_time(self, log):
        """`follow` can be called again with an earlier time, beside another follower."""
        await self._asks_again(log, live=1)

    @with_log
    async def test_left_out_entries_are_given_after_reading_without_entries(self, log):
        """Position 0 is the start of the log, wherever the last follower stopped."""
        await self._asks_again(log, live=0)

    @staticmethod
    async def _asks_again(log, live):
        await log.append(a_revision("left-out", expires_at=NOON_MS + 1))
        for n in range(live):
            await log.append(a_revision(f"a-{n}"))
        assert len(await read(log, 0, NOON_MS + 2)) == live
        async with aclosing(log.follow(0, NOON_MS + 2)) as follower:
            assert len(await read_on(follower)) == live
            assert [entry.id for _, entry in await read(log, 0, NOON_MS + 1)] == ["left-out", "a-0"][: 1 + live]
            await log.append(a_revision("new"))
            found = []
            while not found:
                found = await read_on(follower)
            assert [entry.id for _, entry in found] == ["new"]

    @with_log
    async def test_follower_gets_empty_batches_regularly(self, log):
        """They come at least once a second, so a quiet log differs from a broken connection (LogF2)."""
        async with aclosing(log.follow(0)) as follower:
            for _ in range(2):
                assert await read_on(follower) == []

    @with_log
    async def test_follower_wakes_after_append(self, log):
        """It does not wait for its next heartbeat (LogF2)."""
        self.without_time_outs()
        async with aclosing(log.follow(0)) as follower:
            assert await read_on(follower) == []
            waiting = asyncio.ensure_future(read_on(follower))
            await asyncio.sleep(0)
            await log.append(a_revision())
            assert [entry for _, entry in await waiting] == [a_revision()]

    @with_log
    async def test_follower_can_be_closed_at_any_time(self, log):
        """Another follower can begin where it stopped (LogF3)."""
        for n in range(5):
            await log.append(a_revision(f"a-{n}"))
        async with aclosing(log.follow(0)) as follower:
            first = await anext(follower)
        async with aclosing(log.follow(0)) as follower:
            waiting = asyncio.ensure_future(read_on(follower))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        assert await read(log, first[1].position) == list(first[2:])

    @with_log
    async def test_nudge_without_new_entries_changes_nothing(self, log):
        """`nudge` makes `follow` look at once, and there may be no new entry."""
        log.nudge()
        await log.append(a_revision())
        log.nudge()
        assert len(await read(log)) == 1

    # ---- retention -------------------------------------------------------------------------------------------

    @with_log
    async def test_alert_is_kept_for_a_day_after_its_end(self, log):
        """It is kept for RETENTION_MS and then purged; `purge` returns the number of entries (LogR1, DP16)."""
        await log.append(a_revision())
        await log.append(a_cancel())
        await log.append(a_revision("later", expires_at=ENDS_MS + 1))
        await log.add_counts({"a-1": Counts(3, 2), "later": Counts(1, 1)})
        assert await log.purge(ENDS_MS + RETENTION_MS) == 0
        assert len(await log.history("a-1")) == 2
        assert await log.purge(ENDS_MS + RETENTION_MS + 1) == 2
        assert list(await log.history("a-1")) == []
        assert await log.counts("a-1") == Counts(0, 0)
        assert await log.counts("later") == Counts(1, 1)
        assert await entries(log) == [a_revision("later", expires_at=ENDS_MS + 1)]
        assert await log.purge(ENDS_MS + RETENTION_MS + 1) == 0

    @with_log
    async def test_alert_is_purged_as_whole(self, log):
        """An old revision is kept as long as a later one (LogR1)."""
        await log.append(a_revision())
        await log.append(a_revision(revision=2, expires_at=ENDS_MS + 1000))
        assert await log.purge(ENDS_MS + RETENTION_MS + 1000) == 0
        assert len(await log.history("a-1")) == 2
        assert await log.purge(ENDS_MS + RETENTION_MS + 1001) == 2
        assert list(await log.history("a-1")) == await entries(log) == []

    @with_log
    async def test_id_of_purged_alert_can_be_used_again_at_higher_position(self, log):
        """No entry appears below a position that was given (LogF1, LogR1)."""
        await log.append(a_revision())
        before = await log.tail()
        assert await log.purge(ENDS_MS + RETENTION_MS + 1) == 1
        assert await log.append(a_revision(headline="again"))
        [(position, entry)] = await read(log, before)
        assert position > before
        assert entry.alert.headline == "again"

    @with_log
    async def test_any_number_of_alerts_is_purged_at_once(self, log):
        """One call purges all of them, in any number of steps (LogR1)."""
        self.patch("PURGE_BATCH", 50)
        await asyncio.gather(*(log.append(a_revision(f"a-{n}")) for n in range(120)))
        await asyncio.gather(*(log.append(a_revision(f"b-{n}", expires_at=ENDS_MS + 5000)) for n in range(10)))
        assert await log.purge(ENDS_MS + RETENTION_MS + 1) == 120
        assert len(await entries(log)) == 10

    # ---- counts ----------------------------------------------------------------------------------------------

    @with_log
    async def test_counts_add_up(self, log):
        """The counts of all nodes are added (section 4 of the protocol)."""
        await log.append(a_revision())
        await log.add_counts({"a-1": Counts(3, 0), "a-2": Counts(1, 1)})
        await log.add_counts({})
        await log.add_counts({"a-1": Counts(0, 2)})
        assert await log.counts("a-1") == Counts(3, 2)
        assert await log.counts("a-2") == Counts(1, 1)
        assert await log.counts("a-3") == Counts(0, 0)

    @with_log
    async def test_concurrent_counts_add_up(self, log):
        """No count is lost (section 4 of the protocol)."""
        await log.append(a_revision())
        await asyncio.gather(*(log.add_counts({"a-1": Counts(1, 2)}) for _ in range(20)))
        assert await log.counts("a-1") == Counts(20, 40)

    @with_log
    async def test_counts_of_pushes_add_up(self, log):
        """They are added beside the counts of frames that were sent, by other processes (H7)."""
        await log.append(a_revision())
        await log.add_counts({"a-1": Counts(3, 1)})
        await log.add_counts({"a-1": Counts(pushed=5), "a-2": Counts(pushed=1)})
        await log.add_counts({"a-1": Counts(1, 0, 0, 2)})
        assert await log.counts("a-1") == Counts(4, 1, 0, 7)
        assert await log.counts("a-2") == Counts(pushed=1)

    # ---- other releases ----------------------------------------------------------------------------------------

    def passed_over_without_a_word(self, log):
        """Return whether no entry was set aside, counted or logged."""
        return log.quarantined == 0 and not [r for r in self._caplog.records if r.name.startswith("geocast.alertlog")]

    @with_log
    async def test_entries_of_other_kinds_are_skipped_silently(self, log):
        """They have positions, and followers continue after them (LogG1)."""
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

    @with_log
    async def test_log_of_other_kinds_alone_is_read_to_its_end(self, log):
        """Only an empty batch says that the end was reached (LogG1, LogF2)."""
        self.patch("BATCH", 3)
        for number in range(1, 11):
            await self.write(log, of_another_kind(revision=number))
        assert await read(log) == []
        await log.append(a_revision("a-2"))
        assert await entries(log) == [a_revision("a-2")]

    @with_log
    async def test_id_with_other_kinds_alone_is_taken(self, log):
        """`history` gives the number (LogG4), and nothing is live (LogG1)."""
        await self.write(log, of_another_kind("call", ends_at=ENDS_MS + 7))
        assert list(await log.history("call")) == [OtherKind("call", 1, ENDS_MS + 7)]
        assert not await log.append(a_revision("call"))
        assert await entries(log) == list(await live(log, NOON_MS)) == []

    @with_log
    async def test_revision_and_cancel_take_next_number_after_other_kind(self, log):
        """An entry of another kind counts by its number alone (LogG2, LogG4, LogA1)."""
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

    @with_log
    async def test_cancel_ends_alert_despite_later_entries_of_other_kinds(self, log):
        """Nothing of this release follows a cancel, with or without other kinds in between (LogG2)."""
        for entry in (a_revision(), a_cancel()):
            await log.append(entry)
        await self.write(log, of_another_kind(revision=3))
        for entry in (a_revision(revision=4), a_cancel(revision=4), a_revision(revision=3)):
            assert not await log.append(entry)
        assert list(await live(log, NOON_MS)) == []
        assert len(await log.history("a-1")) == 3

    @with_log
    async def test_cancel_can_be_first_entry(self, log):
        """The log does not check with what an alert begins (LogG2). A tombstone is purged like any entry (CP13)."""
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

    @with_log
    async def test_unknown_shape_is_passed_on_unchanged(self, log):
        """`history`, `live` and `follow` give it, alone and among circles (LogG3)."""
        circle = {"type": "circle", "lat": 32.0, "lng": -96.0, "radius_m": 500.0}
        for alert_id, area in (("mixed", [circle, MULTIPOLYGON, {"type": "everywhere"}]), ("alone", [MULTIPOLYGON])):
            await self.write(log, with_area(*area, alert_id=alert_id))
            for [entry] in (await log.history(alert_id), (await live(log, NOON_MS))[-1:], (await entries(log))[-1:]):
                assert [shape.to_map() for shape in entry.alert.area] == area
                assert len(entry.alert.circles) == len(area) // 3
            assert await log.append(a_revision(alert_id, 2))
        assert self.passed_over_without_a_word(log)

    @with_log
    async def test_unknown_members_are_ignored_everywhere(self, log):
        """They may be in the entry, its approval, its terms or its circles (LogG3)."""
        for entry in (a_revision(), a_cancel()):
            await self.write(log, with_members(entry))
        assert await entries(log) == list(await log.history("a-1")) == [a_revision(), a_cancel()]
        assert self.passed_over_without_a_word(log)

    @with_log
    async def test_alert_is_kept_until_its_entries_of_other_kinds_ended(self, log):
        """The ends of these entries count, and they are purged with the alert (LogG1, LogR1)."""
        await log.append(a_revision())
        await self.write(log, of_another_kind(revision=2, ends_at=ENDS_MS + 1000))
        await self.write(log, of_another_kind("call"))
        assert await log.purge(ENDS_MS + RETENTION_MS + 1000) == 1
        assert list(await log.history("call")) == []
        assert len(await log.history("a-1")) == 2
        assert await log.purge(ENDS_MS + RETENTION_MS + 1001) == 2
        assert list(await log.history("a-1")) == await entries(log) == []

    # ---- calls -------------------------------------------------------------------------------------------------

    @with_log
    async def test_call_entries_are_stored_and_followed_unchanged(self, log):
        """Entries of all kinds are given among those of alerts, in order, and none is live (LogC1)."""
        chain = [a_call(), a_widening(), a_claim(3), a_report(4), a_call(5), a_release(6), an_end(7)]
        for entry in (*chain[:3], a_revision(), *chain[3:]):
            assert await log.append(entry)
        assert list(await log.history("c-1")) == chain
        assert await entries(log) == [*chain[:3], a_revision(), *chain[3:]]
        assert list(await live(log)) == [a_revision()]
        assert self.passed_over_without_a_word(log)

    @with_log
    async def test_follower_gets_ended_call_entries(self, log):
        """An ended claim may say who has a seat in a call that was extended. Alerts are left out as before (LogC1)."""
        chain = [a_call(), a_claim(), a_call(3, ends_at=EXPIRES_MS + 9)]
        for entry in (*chain, a_revision(), a_call(1, "past")):
            await log.append(entry)
        given = [entry for _, entry in await read(log, 0, EXPIRES_MS + 5)]
        assert given == [*chain, *await log.history("past")]

    @with_log
    async def test_call_append_with_gap_or_after_end_is_refused(self, log):
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

    @with_log
    async def test_concurrent_claims_of_one_number_store_one(self, log):
        """As many claims succeed as there are numbers, in the order of the log (LogA2, RV2)."""
        await log.append(a_call())
        rivals = [a_claim(2) for _ in range(30)]
        stored = await asyncio.gather(*map(log.append, rivals))
        assert sum(stored) == 1
        assert (await log.history("c-1"))[-1] == rivals[stored.index(True)]

    @with_log
    async def test_chain_refuses_mix_of_alert_and_call_entries(self, log):
        """Alerts and calls share their ids; entries of unknown kinds change nothing (LogC1, RY1)."""
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

    @with_log
    async def test_open_calls_leaves_out_ended_and_expired_calls(self, log):
        """Calls are in the order of their first entries, and the latest end counts (LogC3)."""
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

    @with_log
    async def test_place_of_call_is_deleted_ten_minutes_after_its_end(self, log):
        """Only the entries with the place are deleted.

        Nobody gets them any more, and nothing follows the end (LogC4, RZ4).
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

    @with_log
    async def test_rest_of_call_is_purged_like_alert(self, log):
        """It is purged as a whole, a day after its expiry, even if nobody ended it (LogC4, LogR1)."""
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

    @with_log
    async def test_end_without_readable_time_lets_place_be_purged(self, log):
        """A writer of the log can store an `end` with any bytes; then the expiry counts (LogC4)."""
        await log.append(a_call())
        await log.append(replace(an_end(2), plain=b"\xc1"))
        assert await log.purge(EXPIRES_MS + PLACE_MS - 1) == 0
        assert await log.purge(EXPIRES_MS + PLACE_MS) == 1

    @with_log
    async def test_counts_of_declined_calls_add_up(self, log):
        """They are added beside the counts of sent and acknowledged frames (RN3)."""
        await log.add_counts({"c-1": Counts(3, 1, 1), "c-2": Counts(1)})
        await log.add_counts({"c-1": Counts(0, 0, 2)})
        assert await log.counts("c-1") == Counts(3, 1, 3)
        assert await log.counts("c-2") == Counts(1, 0, 0)

    @with_log
    async def test_undamaged_log_sets_nothing_aside(self, log):
        """`quarantined` counts only entries that can't be read (LogR2)."""
        await log.append(a_revision())
        await read(log)
        assert log.quarantined == 0


class DurableContract(LogContract):
    """The rules of backends that keep entries after their process."""

    def reopened(self, tmp_path, before, after):
        """Run a coroutine with the log, close it, and run another one with the same log opened again."""

        async def main():
            for body in (before, after):
                log = self.new(tmp_path)
                await log.start()
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        await body(log)
                finally:
                    await log.stop()

        asyncio.run(main())

    def test_stored_entries_are_there_after_reopening(self, tmp_path):
        """Entries, positions and counts are the same (LogA3)."""
        kept = []

        async def before(log):
            for entry in (a_revision(), a_revision("a-2"), a_revision(revision=2), a_cancel("a-2")):
                await log.append(entry)
            await log.add_counts({"a-1": Counts(5, 4)})
            kept.append(await read(log))

        async def after(log):
            assert await read(log) == kept[0]
            assert await log.tail() == kept[0][-1].position
            assert await log.counts("a-1") == Counts(5, 4)
            assert not await log.append(a_revision(revision=2, headline="x"))
            assert await log.append(a_revision(revision=3))
            assert [entry.revision for _, entry in await read(log, kept[0][-1].position)] == [3]

        self.reopened(tmp_path, before, after)

    def test_positions_are_not_reused_after_purge_of_all(self, tmp_path):
        """Positions rise even if the log was empty in between (LogF1)."""
        tail = []

        async def before(log):
            await log.append(a_revision())
            tail.append(await log.tail())
            await log.purge(ENDS_MS + RETENTION_MS + 1)

        async def after(log):
            await log.append(a_revision())
            assert await log.tail() > tail[0]

        self.reopened(tmp_path, before, after)

    def test_stop_stores_accepted_entries(self, tmp_path):
        """`stop` stores the entries that were accepted before."""
        appends = []

        async def before(log):
            appends.extend(asyncio.ensure_future(log.append(a_revision(f"a-{n}"))) for n in range(20))
            await asyncio.sleep(0)

        async def after(log):
            stored = [await append for append in appends]
            assert all(stored)
            assert len(await entries(log)) == 20

        self.reopened(tmp_path, before, after)

    @with_log
    async def test_release_without_calls_skips_their_entries(self, log):
        """It skips them silently (LogG1, LogG4). Such a release is played by this one with a shorter list of kinds."""
        chain = [a_call(), a_widening(), a_claim(3), an_end(4)]
        for entry in (*chain, a_revision()):
            await log.append(entry)
        self._monkeypatch.setattr(codec, "KINDS", ("revision", "cancel"))
        assert await entries(log) == list(await live(log)) == [a_revision()]
        assert list(await log.history("c-1")) == [OtherKind("c-1", n, EXPIRES_MS) for n in (1, 2, 3, 4)]
        assert not await log.append(a_revision("c-1"))
        assert self.passed_over_without_a_word(log)
