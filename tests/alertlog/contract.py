"""What every alert log keeps: the rules of `geocast.alertlog` as tests: LogA1 to LogA5, LogF1 to LogF3, LogL1, LogL2,
LogR1 and LogR2; `contract_of_kinds.py` has LogG1 to LogG4, and LogC1 to LogC4.

A backend's test file makes a class of its own from `LogContract` (and `DurableContract`, if it is more than memory) and
says how to open one. What only one backend can be made to do (a full disk, a broken row) is tested in its own file.
"""

import abc
import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest
from alertlog.chains import EXPIRES_MS, a_call, a_claim, a_widening, an_end
from alertlog.contract_of_kinds import KindsContract
from alertlog.later import of_another_kind
from alertlog.reading import ENDS_MS, PATIENCE_S, entries, live, read, read_on, with_logs
from support.fakes import NOON_MS, a_cancel, a_revision, a_warning

from geocast.alertlog import DECODE_AT_ONCE, LOOKS, RETENTION_MS, Counts, Cursor, codec
from geocast.model.alert import OtherKind


@with_logs
class LogContract(KindsContract, abc.ABC):
    """The rules that every backend of the log follows."""

    modules = ()  # where the backend is: its constants are changed by some tests
    most_large = 11  # the most entries of 9 KB in a batch of 20 KB: a log in memory has no bytes to count

    @abc.abstractmethod
    def new(self, tmp_path):
        """Return a log that is not open yet. If the log is durable, the same path gives the same log."""

    @abc.abstractmethod
    async def write(self, log, later):
        """Store an entry in `log` as a later release would, by another process if possible."""

    @pytest.fixture(autouse=True)
    def _patches(self, request, monkeypatch, caplog):
        self._monkeypatch = monkeypatch
        self._caplog = caplog
        if "trusted_time" not in request.function.__name__:
            request.getfixturevalue("time_passes_for_all")

    def without_time_outs(self):
        """Disable all time-outs that wake a follower of this log."""
        for name in ("HEARTBEAT_S", "POLL_S"):
            self.patch(name, 3600.0)

    def patch(self, name, value):
        """Change a constant of the backend, if it has a constant of this name."""
        for module in self.modules:
            if hasattr(module, name):
                self._monkeypatch.setattr(module, name, value)

    # ---- appending entries -----------------------------------------------------------------------------------

    async def test_append_that_skips_or_repeats_a_number_is_refused(self, log):
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

    async def test_append_after_cancel_is_refused(self, log):
        """Neither a revision nor another cancel follows a cancel (LogA1)."""
        for entry in (a_revision(), a_cancel()):
            assert await log.append(entry)
        for entry in (a_revision(revision=3), a_cancel(revision=3), a_cancel(revision=2), a_revision(revision=1)):
            assert not await log.append(entry)
        assert list(await log.history("a-1")) == [a_revision(), a_cancel()]

    async def test_each_alert_numbers_its_entries_independently(self, log):
        """Each id has its own numbers, and ids differ by case (LogA1)."""
        for alert_id in ("a-1", "A-1", "a-2", "a-1:x"):
            assert await log.append(a_revision(alert_id))
        assert await log.append(a_revision("A-1", 2))
        assert [len(await log.history(i)) for i in ("a-1", "A-1", "a-2", "a", "")] == [1, 2, 1, 0, 0]

    async def test_only_one_of_concurrent_appends_with_same_number_is_stored(self, log):
        """Exactly one append returns True, and its entry is stored (LogA2)."""
        for number in (1, 2, 3):
            rivals = [a_revision(revision=number, headline=f"H{n}") for n in range(50)]
            stored = await asyncio.gather(*(log.append(rival) for rival in rivals))
            assert sum(stored) == 1
            assert (await log.history("a-1"))[-1] == rivals[stored.index(True)]
        assert len(await entries(log)) == 3

    async def test_only_one_of_concurrent_revision_and_cancel_with_same_number_is_stored(self, log):
        """The rule also holds for entries of different kinds (LogA2)."""
        for n in range(20):
            await log.append(a_revision(f"a-{n}"))
            rivals = [a_revision(f"a-{n}", 2), a_cancel(f"a-{n}", 2)]
            stored = await asyncio.gather(*(log.append(rival) for rival in rivals))
            assert sorted(stored) == [False, True]
            assert (await log.history(f"a-{n}"))[-1] == rivals[stored.index(True)]

    async def test_append_whose_caller_is_cancelled_is_stored_completely_or_not_at_all(self, log):
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

    async def test_stored_entry_is_read_unchanged_by_all_readers(self, log):
        """`history`, `live` and `follow` return every field of the entry (LogA4)."""
        revision = a_revision(description="Zwei Zeilen.\nÜber 😀.", severity="extreme", status="exercise", source="d:7")
        assert await log.append(revision)
        assert list(await log.history("a-1")) == list(await live(log, NOON_MS)) == await entries(log) == [revision]
        assert await log.append(a_cancel(reason="é"))
        assert (await log.history("a-1"))[-1] == (await entries(log))[-1] == a_cancel(reason="é")

    async def test_entry_of_maximum_size_is_stored(self, log):
        """An official warning in many languages may take 64 KiB (LogA5)."""
        warning = a_warning("en-CA", "fr-CA", "iu")
        padding = codec.MAX_ENTRY_BYTES - len(codec.encode(warning))
        [*texts, last] = warning.alert.texts
        description = f"{last.description}{'x' * (padding - 2)}"  # a longer text has a longer head
        largest = a_warning("en-CA", "fr-CA", texts=(*texts, replace(last, description=description)))
        assert codec.fits(largest)
        assert not codec.fits(a_warning(texts=(*texts, replace(last, description=f"{description}xx"))))
        assert await log.append(largest)
        assert list(await log.history("a-1")) == list(await live(log, NOON_MS)) == await entries(log) == [largest]

    # ---- lists of live alerts --------------------------------------------------------------------------------

    async def test_list_of_live_alerts_omits_cancelled_and_expired_ones(self, log):
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

    async def test_page_of_live_alerts_lists_revisions_in_order_of_append(self, log):
        """The current revisions are in the order in which they were appended (`AlertLog.live`)."""
        for entry in (a_revision("a"), a_revision("b"), a_revision("c"), a_revision("a", 2)):
            await log.append(entry)
        assert [(entry.id, entry.revision) for entry in await live(log, NOON_MS)] == [("b", 1), ("c", 1), ("a", 2)]

    async def live_for(self, log, **ends):
        """Append an alert for each name; its value is the number of milliseconds for which the alert is live."""
        for alert_id, ends_in_ms in ends.items():
            assert await log.append(a_revision(alert_id, expires_at=NOON_MS + ends_in_ms))

    async def walk(self, log, limit=1, **meanwhile):
        """Return the alert ids of each page.

        `meanwhile` maps a page number to the entries that are appended after that page.
        """
        found, after = [], None
        while not found or after is not None:
            page = await log.live(NOON_MS, after, limit)
            for entry in meanwhile.get(f"behind_{len(found)}", ()):
                assert await log.append(entry)
            found.append([entry.id for entry in page.revisions])
            after = page.after
        return found

    async def test_pages_of_live_alerts_are_ordered_by_end_time(self, log):
        """Alerts are ordered by their latest end and then by id; within a page, in the order of the log (LogL1)."""
        await self.live_for(log, e=5, b=3, B=3, a=3, d=4, f=1)
        assert await self.walk(log) == [["f"], ["B"], ["a"], ["b"], ["d"], ["e"]]
        assert await self.walk(log, 2) == [["B", "f"], ["b", "a"], ["e", "d"]]
        assert await self.walk(log, 5) == [["b", "B", "a", "d", "f"], ["e"]]
        assert await self.walk(log, 6) == [["e", "b", "B", "a", "d", "f"]]
        assert (await log.live(NOON_MS + 1, Cursor(0, "z"), 3)).after == (NOON_MS + 3, "b")

    async def test_live_alerts_with_equal_end_times_are_ordered_by_bytes_of_their_ids(self, log):
        """The locale does not matter, and a cursor may name an alert that no longer exists (LogL1)."""
        ids = ["a", "Z", "a-1", "a.1", "a:1", "a_1", "0", "A1", "a1", "aa", "a" * 128]
        await self.live_for(log, **dict.fromkeys(ids, 3))
        assert await self.walk(log) == [[alert_id] for alert_id in sorted(ids)]
        for gone in ("", "a", "a-", "a-0", "a-1", "a-1a", "z"):
            behind = await log.live(NOON_MS, Cursor(NOON_MS + 3, gone))
            assert {entry.id for entry in behind.revisions} == {each for each in ids if each > gone}

    async def test_empty_page_of_live_alerts_has_no_next_page(self, log):
        """A page is empty in an empty log, after the last alert, and if no alert is live (LogL1)."""
        assert await log.live(NOON_MS) == ([], None)
        await self.live_for(log, a=3)
        assert await log.live(NOON_MS + 3) == ([], None)
        assert await log.live(NOON_MS, Cursor(NOON_MS + 3, "a")) == ([], None)

    async def test_revision_with_earlier_end_time_does_not_move_alert_to_earlier_page(self, log):
        """The latest end time of an alert's entries counts.

        So a reader of the pages does not miss the alert (LogL1).
        """
        await self.live_for(log, a=1, b=2, c=3)
        sooner = a_revision("c", 2, expires_at=NOON_MS + 1)
        assert await self.walk(log, behind_1=[sooner]) == [["a"], ["b"], ["c"]]
        assert await log.live(NOON_MS + 1, Cursor(NOON_MS + 2, "b")) == ([], None)

    async def test_reader_of_all_pages_gets_every_alert_that_stays_live(self, log):
        """Other alerts are added, revised and cancelled while the pages are read.

        Only alerts that were extended appear twice (LogL1).
        """
        await self.live_for(log, a=2, b=4, c=6, d=8)
        same = [a_revision("a", 2, expires_at=NOON_MS + 2), a_revision("c", 2, expires_at=NOON_MS + 6)]
        later = [a_revision("a", 3, expires_at=NOON_MS + 7), a_revision("d", 2, expires_at=NOON_MS + 9)]
        new = [a_revision("before", expires_at=NOON_MS + 3), a_revision("behind", expires_at=NOON_MS + 10)]
        over = [a_cancel("c", 3)]
        found = await self.walk(log, behind_0=same, behind_1=[*later, *new], behind_2=over)
        assert found == [["a"], ["b"], ["c"], ["a"], ["d"], ["behind"]]

    async def test_page_of_live_alerts_skips_cancelled_ones_until_it_is_full(self, log):
        """Live alerts that follow take the places of cancelled ones (LogL2)."""
        ids = [f"a-{n:02}" for n in range(12)]
        await self.live_for(log, **dict.fromkeys(ids, 1_800_000))
        for alert_id in ids[:5] + ids[6:9] + ids[10:]:
            assert await log.append(a_cancel(alert_id))
        assert await self.walk(log, 2) == [["a-05", "a-09"]]
        assert await self.walk(log, 1) == [["a-05"], ["a-09"]]

    async def test_one_page_of_live_alerts_searches_limited_number_of_alerts(self, log):
        """The page then has few alerts or none, and its cursor says where the next page begins (LogL2)."""
        ids = [f"a-{n:02}" for n in range(LOOKS + 2)]
        await self.live_for(log, **dict.fromkeys(ids, 1_800_000))
        for alert_id in ids[:-1]:
            assert await log.append(a_cancel(alert_id))
        assert await self.walk(log, 1) == [[], [ids[-1]]]

    async def test_alert_stays_live_after_entries_of_unknown_kinds(self, log):
        """The last revision or cancel decides whether an alert is live (LogG1, LogG2)."""
        await self.live_for(log, a=3, b=3, c=3)
        for later in (of_another_kind("a", 2), of_another_kind("a", 3), of_another_kind("b", 2), of_another_kind("d")):
            await self.write(log, later)
        assert await log.append(a_cancel("b", 3))
        await self.write(log, of_another_kind("b", 4))
        assert await self.walk(log) == [["c"], ["a"]]
        assert await self.walk(log, 10) == [["a", "c"]]

    # ---- following the log -----------------------------------------------------------------------------------

    async def test_position_of_last_entry_is_0_in_empty_log(self, log):
        """In a log with entries, `tail` returns the position of the last entry."""
        assert await log.tail() == 0
        await log.append(a_revision())
        [(position, _)] = await read(log)
        assert await log.tail() == position > 0

    async def test_follower_gets_every_entry_once_in_order_of_position(self, log):
        """A follower can begin at any position (LogF1)."""
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

    async def test_follower_gets_entries_appended_while_it_reads(self, log):
        """Each entry is given once, however many are appended at once (LogF1)."""
        async with aclosing(log.follow(0)) as follower:
            assert await read_on(follower) == []
            seen = []
            for batch in range(5):
                await asyncio.gather(*(log.append(a_revision(f"a-{batch}-{n}")) for n in range(20)))
                while len(seen) < 20 * (batch + 1):
                    seen += await read_on(follower)
            assert seen == await read(log)

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

    async def test_follower_reads_long_log_in_batches(self, log):
        """A batch has at most BATCH entries (LogF1), and an empty batch comes only at the end (LogF2)."""
        self.patch("BATCH", 50)
        await asyncio.gather(*(log.append(a_revision(f"a-{n}")) for n in range(101)))
        sizes = []
        async with aclosing(log.follow(0)) as follower:
            async for batch in follower:
                sizes.append(len(batch))
                if not batch:
                    break
        assert sizes == [50, 50, 1, 0]

    async def test_batch_of_large_entries_is_limited_by_bytes(self, log):
        """A batch has at most a few MB, which even a slow connection transfers in time (LogF1)."""
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

    async def test_full_batch_at_end_of_log_is_followed_by_empty_batch(self, log):
        """An empty batch comes whenever the end is reached (LogF2)."""
        self.patch("BATCH", 50)
        await asyncio.gather(*(log.append(a_revision(f"a-{n}")) for n in range(50)))
        assert len(await read(log)) == 50

    async def test_follower_can_skip_entries_that_ended_before_given_time(self, log):
        """Entries that ended before `ended_before_ms` are skipped (`AlertLog.follow`)."""
        for n in range(4):
            await log.append(a_revision(f"a-{n}", expires_at=ENDS_MS + n))
        await log.append(a_cancel("a-0", ends_at=ENDS_MS))
        found = await read(log, 0, ENDS_MS + 2)
        assert [entry.id for _, entry in found] == ["a-2", "a-3"]
        assert [entry.id for _, entry in await read(log, found[0].position, ENDS_MS + 2)] == ["a-3"]
        assert await read(log, 0, ENDS_MS + 9) == []

    async def test_follower_gets_ended_entries_that_follow_one_which_has_not_ended(self, log):
        """Without them, the revision before would count as the current one (`AlertLog.follow`)."""
        short = ENDS_MS - 2
        await log.append(a_revision("over", expires_at=short))
        await log.append(a_revision("cut", expires_at=ENDS_MS))
        await log.append(a_revision("cut", 2, expires_at=short))
        await log.append(a_cancel("cut", 3, ends_at=short))
        found = await read(log, 0, ENDS_MS - 1)
        assert [(entry.id, entry.revision) for _, entry in found] == [("cut", 1), ("cut", 2), ("cut", 3)]
        assert await read(log, found[0].position, ENDS_MS - 1) == found[1:]

    async def test_follower_that_skips_ended_entries_gets_every_entry_appended_later(self, log):
        """Only entries older than the follower are skipped, since the follower's clock may be ahead."""
        await log.append(a_revision("old", expires_at=NOON_MS + 1))
        async with aclosing(log.follow(0, ENDS_MS)) as follower:
            assert await read_on(follower) == []
            await log.append(a_revision("older", expires_at=NOON_MS + 1))
            await log.append(a_revision("new"))
            found = []
            while len(found) < 2:
                found += await read_on(follower)
            assert [entry.id for _, entry in found] == ["older", "new"]

    async def test_follower_with_earlier_ended_before_ms_gets_entries_that_first_follower_skipped(self, log):
        """`follow` can be called again with an earlier `ended_before_ms` while another follower runs."""
        await self._asks_again(log, live=1)

    async def test_next_follower_gets_skipped_entries_if_last_one_got_none(self, log):
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

    async def test_follower_of_quiet_log_gets_empty_batches_regularly(self, log):
        """Empty batches come at least once a second, so a quiet log can be told from a broken connection (LogF2)."""
        async with aclosing(log.follow(0)) as follower:
            for _ in range(2):
                assert await read_on(follower) == []

    async def test_waiting_follower_gets_appended_entry_at_once(self, log):
        """The follower does not wait for its next heartbeat (LogF2)."""
        self.without_time_outs()
        async with aclosing(log.follow(0)) as follower:
            assert await read_on(follower) == []
            waiting = asyncio.ensure_future(read_on(follower))
            await asyncio.sleep(0)
            await log.append(a_revision())
            assert [entry for _, entry in await waiting] == [a_revision()]

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

    async def test_waking_followers_without_new_entries_changes_nothing(self, log):
        """`nudge` makes followers read the log at once, even if there is no new entry."""
        log.nudge()
        await log.append(a_revision())
        log.nudge()
        assert len(await read(log)) == 1

    # ---- purging of ended alerts -----------------------------------------------------------------------------

    async def test_alert_is_kept_for_a_day_after_its_end(self, log):
        """After RETENTION_MS the alert is purged; `purge` returns the number of deleted entries (LogR1, DP16)."""
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

    async def test_all_revisions_of_alert_are_purged_together(self, log):
        """An old revision is kept as long as a later one (LogR1)."""
        await log.append(a_revision())
        await log.append(a_revision(revision=2, expires_at=ENDS_MS + 1000))
        assert await log.purge(ENDS_MS + RETENTION_MS + 1000) == 0
        assert len(await log.history("a-1")) == 2
        assert await log.purge(ENDS_MS + RETENTION_MS + 1001) == 2
        assert list(await log.history("a-1")) == await entries(log) == []

    async def test_reused_id_of_purged_alert_gets_higher_position(self, log):
        """No entry gets a position below one that was returned before (LogF1, LogR1)."""
        await log.append(a_revision())
        before = await log.tail()
        assert await log.purge(ENDS_MS + RETENTION_MS + 1) == 1
        assert await log.append(a_revision(headline="again"))
        [(position, entry)] = await read(log, before)
        assert position > before
        assert entry.alert.headline == "again"

    async def test_one_purge_deletes_any_number_of_alerts(self, log):
        """One call purges all alerts that are due, in as many steps as needed (LogR1)."""
        self.patch("PURGE_BATCH", 50)
        await asyncio.gather(*(log.append(a_revision(f"a-{n}")) for n in range(120)))
        await asyncio.gather(*(log.append(a_revision(f"b-{n}", expires_at=ENDS_MS + 5000)) for n in range(10)))
        assert await log.purge(ENDS_MS + RETENTION_MS + 1) == 120
        assert len(await entries(log)) == 10

    # ---- delivery counts -------------------------------------------------------------------------------------

    async def test_delivery_counts_of_all_nodes_are_summed(self, log):
        """The counts of all nodes are added (section 4 of the protocol)."""
        await log.append(a_revision())
        await log.add_counts({"a-1": Counts(3, 0), "a-2": Counts(1, 1)})
        await log.add_counts({})
        await log.add_counts({"a-1": Counts(0, 2)})
        assert await log.counts("a-1") == Counts(3, 2)
        assert await log.counts("a-2") == Counts(1, 1)
        assert await log.counts("a-3") == Counts(0, 0)

    async def test_concurrently_written_delivery_counts_are_all_summed(self, log):
        """No count is lost (section 4 of the protocol)."""
        await log.append(a_revision())
        await asyncio.gather(*(log.add_counts({"a-1": Counts(1, 2)}) for _ in range(20)))
        assert await log.counts("a-1") == Counts(20, 40)

    async def test_push_counts_are_summed_separately_from_frame_counts(self, log):
        """Other processes count pushes, while nodes count the frames that were sent (H7)."""
        await log.append(a_revision())
        await log.add_counts({"a-1": Counts(3, 1)})
        await log.add_counts({"a-1": Counts(pushed=5), "a-2": Counts(pushed=1)})
        await log.add_counts({"a-1": Counts(1, 0, 0, 2)})
        assert await log.counts("a-1") == Counts(4, 1, 0, 7)
        assert await log.counts("a-2") == Counts(pushed=1)


@with_logs
class DurableContract(LogContract):
    """The rules of backends whose entries outlive the process."""

    most_large = 3  # the third entry exceeds the batch

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

    async def test_event_loop_runs_while_a_batch_is_decoded_and_verified(self, log):
        """A thousand signed entries would hold it for 0.2 s; between two turns, few are decoded."""
        decoded, most = 0, 0
        decode = codec.decode

        def counted(*given):
            nonlocal decoded
            decoded += 1
            return decode(*given)

        async def watch():
            nonlocal decoded, most
            while True:
                decoded = 0
                await asyncio.sleep(0)
                most = max(most, decoded)

        await asyncio.gather(*(log.append(a_revision(f"a-{n}")) for n in range(200)))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(codec, "decode", counted)
            watching = asyncio.ensure_future(watch())
            assert len(await entries(log)) == 200
            watching.cancel()
        assert 0 < most <= DECODE_AT_ONCE

    def test_entries_positions_and_counts_are_unchanged_after_log_is_reopened(self, tmp_path):
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

    def test_positions_are_not_reused_after_all_entries_are_purged(self, tmp_path):
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

    def test_entries_accepted_before_stop_are_stored(self, tmp_path):
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

    async def test_purge_uses_earlier_of_clock_and_trusted_time(self, log):
        """A process whose clock is days ahead deletes nothing early (LogR1)."""
        await log.append(a_revision())
        assert await log.purge(NOON_MS + 10 * RETENTION_MS) == 0
        assert await entries(log) == [a_revision()]

    async def test_older_release_without_calls_skips_call_entries(self, log):
        """The entries are skipped without a log message (LogG1, LogG4).

        The test simulates an older release by a shorter list of kinds.
        """
        chain = [a_call(), a_widening(), a_claim(3), an_end(4)]
        for entry in (*chain, a_revision()):
            await log.append(entry)
        self._monkeypatch.setattr(codec, "KINDS", ("revision", "cancel"))
        assert await entries(log) == list(await live(log)) == [a_revision()]
        assert list(await log.history("c-1")) == [OtherKind("c-1", n, EXPIRES_MS) for n in (1, 2, 3, 4)]
        assert not await log.append(a_revision("c-1"))
        assert self.passed_over_without_a_word(log)
