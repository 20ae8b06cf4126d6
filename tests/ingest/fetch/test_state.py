"""What became of each entry, across restarts, full disks and changed configurations (rule FE4)."""

import asyncio
import sqlite3
import threading

import pytest
from support.fakes import NOON_MS

from geocast import failpoints, tasks
from geocast.ingest.fetch import state as state_module
from geocast.ingest.fetch.documents import ListedEntry
from geocast.ingest.fetch.state import KEPT_MS, FetchState, Validators
from geocast.model.errors import ConfigError

SEEN = Validators("https://met.example/feed", '"1"', "Sat, 31 Jan 2026 12:00:00 GMT")


def entry(name, message=None, link="https://met.example/a", updated_ms=0):
    """Return an entry that a feed lists."""
    return ListedEntry(name.encode(), updated_ms, message, None, link)


@pytest.fixture
def path(tmp_path):
    """Return the path of a state that does not exist yet."""
    return tmp_path / "fetch.db"


class Opened:
    """A state that is open while the block runs."""

    def __init__(self, path):
        self.state = FetchState(path)

    async def __aenter__(self):
        await self.state.start()
        return self.state

    async def __aexit__(self, *_):
        await self.state.stop()


def names(state, feed="met"):
    """Return the names of the entries that wait."""
    return [each.digest.decode() for each in state.waiting(feed)]


async def test_entries_and_validators_are_known_after_a_restart(path):
    """An entry waits until its outcome is stored (rule FE4)."""
    async with Opened(path) as state:
        listed = [entry("a", b"<alert/>"), entry("b"), entry("c", link="")]
        assert state.take_listing("met", listed, SEEN, NOON_MS, NOON_MS) == 3
        done = state.waiting("met")[1]
        done.outcome = "published"
        state.change(done)
        await state.flush()
    async with Opened(path) as state:
        [waits] = state.waiting("met")
        assert (waits.digest, waits.message, waits.listed_ms) == (b"a", b"<alert/>", 0)
        assert state.validators("met") == SEEN
        assert state.take_listing("met", listed, SEEN, NOON_MS + 1, NOON_MS + 1) == 0


def test_conditions_are_only_for_the_same_url():
    """A feed that moved is read whole (rule FE3)."""
    assert dict(SEEN.conditions(SEEN.url)) == {"If-None-Match": '"1"', "If-Modified-Since": SEEN.last_modified}
    assert SEEN.conditions("https://met.example/other") == Validators().conditions("") == []


async def test_entries_that_wait_are_in_the_order_of_their_time(path):
    """The oldest is fetched first (rule FE5)."""
    async with Opened(path) as state:
        state.take_listing("met", [entry("new", updated_ms=3), entry("old", updated_ms=1)], SEEN, NOON_MS, NOON_MS)
        assert names(state) == ["old", "new"]


async def test_entry_is_forgotten_seven_days_after_it_left_its_feed(path):
    """It may come back before that (rule FE4)."""
    async with Opened(path) as state:
        state.take_listing("met", [entry("a", link="")], SEEN, NOON_MS, NOON_MS)
        state.take_listing("met", [], SEEN, NOON_MS, NOON_MS)
        assert state.take_listing("met", [entry("a", link="")], SEEN, NOON_MS + KEPT_MS, NOON_MS + KEPT_MS) == 0
        state.take_listing("met", [], SEEN, NOON_MS + KEPT_MS, NOON_MS + KEPT_MS)
        await state.flush()
        state.take_listing("met", [], SEEN, NOON_MS + 2 * KEPT_MS + 1, NOON_MS + 2 * KEPT_MS + 1)
        await state.flush()
    async with Opened(path) as state:
        assert (
            state.take_listing("met", [entry("a", link="")], SEEN, NOON_MS + 2 * KEPT_MS + 2, NOON_MS + 2 * KEPT_MS + 2)
            == 1
        )


async def test_row_that_can_not_be_written_leaves_no_transaction_open_and_loses_no_other(path):
    """What has failed is undone, whatever the reason was (rule FE4)."""
    tasks.watch_loop()
    async with Opened(path) as state:
        state.take_listing("met", [entry("a", b"<alert/>"), entry("b")], SEEN, NOON_MS, NOON_MS)
        odd = state.waiting("met")[0]
        odd.listed_ms = 1 << 70
        state.change(odd)
        await state.flush()
        assert state.error == "unexpected error"
        odd.listed_ms = 0
        state.change(odd)
        await state.flush()
        assert state.error is None
    async with Opened(path) as state:
        assert names(state) == ["a", "b"]


async def test_cancelled_writing_is_finished_before_another_begins(path, monkeypatch):
    """A reader that ends while it stores an outcome takes nothing from the others (rule FE4)."""
    going, entered = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait(_point):
        loop.call_soon_threadsafe(entered.set)
        going.wait()

    monkeypatch.setattr(failpoints, "hit", wait)
    async with Opened(path) as state:
        state.take_listing("met", [entry("a", b"<alert/>")], SEEN, NOON_MS, NOON_MS)
        first = asyncio.create_task(state.written())
        await entered.wait()
        first.cancel()
        state.take_listing("wmo", [entry("b", b"<alert/>")], SEEN, NOON_MS, NOON_MS)
        second = asyncio.create_task(state.written())
        going.set()
        await asyncio.gather(first, second, return_exceptions=True)
        assert state.error is None
    async with Opened(path) as state:
        assert names(state) + names(state, "wmo") == ["a", "b"]


async def test_changes_are_kept_until_the_file_can_be_written(path):
    """A full disk stops nothing, and nothing of it is lost (rule FE4)."""
    async with Opened(path) as state:
        [pages] = await state._db.do(lambda db: db.execute("PRAGMA page_count").fetchone())
        await state._db.do(lambda db: db.execute(f"PRAGMA max_page_count = {pages}"))
        state.take_listing("met", [entry("a", bytes(100_000)), entry("b")], SEEN, NOON_MS, NOON_MS)
        await state.flush()
        assert state.error == "SQLITE_FULL"
        assert names(state) == ["a", "b"]
        done = state.waiting("met")[0]
        done.outcome = "published"
        state.change(done)
        await state._db.do(lambda db: db.execute("PRAGMA max_page_count = 1000"))
        await state.flush()
        assert state.error is None
    async with Opened(path) as state:
        assert names(state) == ["b"]
        assert state.validators("met") == SEEN


async def test_new_configuration_makes_entries_wait_again_that_the_old_one_refused(path):
    """Their feed is read whole the next time (rules FE1, FE4)."""
    async with Opened(path) as state:
        for feed in ("met", "gone"):
            state.take_listing(feed, [entry("a"), entry("b")], SEEN, NOON_MS, NOON_MS)
        refused, other = state.waiting("met")
        refused.outcome, other.outcome = "sender-not-allowed", "no-area"
        state.change(refused)
        state.change(other)
        await state.flush()
        state.configure({"met"}, NOON_MS)
        assert state.validators("met") == Validators()
        assert state.take_listing("met", [entry("a"), entry("b")], SEEN, NOON_MS, NOON_MS) == 1
        assert all(each.left_ms == NOON_MS for each in state.waiting("gone"))
        await state.flush()
    async with Opened(path) as state:
        assert names(state) == ["a"]


async def test_state_is_for_one_process(path):
    """Two processes need two files (rule FE7)."""
    async with Opened(path):
        with pytest.raises(ConfigError, match="another process has it"):
            await FetchState(path).start()


@pytest.mark.parametrize("version", [0, 2])
async def test_file_of_another_program_or_a_later_version_is_refused(path, version):
    """The file is left as it is."""
    if version:
        async with Opened(path):
            pass
    db = sqlite3.connect(path)
    db.executescript(f"CREATE TABLE other (x); PRAGMA user_version = {version}")
    db.close()
    with pytest.raises(ConfigError, match="later version" if version else "another program"):
        await FetchState(path).start()


async def test_state_in_a_missing_folder_is_refused(tmp_path):
    """The error names the option (rule FE1)."""
    with pytest.raises(ConfigError, match=r"^--state .*: No such file or directory$"):
        await FetchState(tmp_path / "no" / "db").start()


async def test_feed_that_floods_is_limited_in_entries_and_in_waiting_bytes(path, monkeypatch):
    """The entries that left first are forgotten or given up first (rule FE4)."""
    monkeypatch.setattr(state_module, "MAX_TRACKED", 3)
    monkeypatch.setattr(state_module, "MAX_WAITING_BYTES", 20)
    async with Opened(path) as state:
        for number in range(5):
            state.take_listing("met", [entry(str(number), bytes(8))], SEEN, NOON_MS + number, NOON_MS + number)
        assert names(state) == ["2", "3", "4"]
        assert [each.digest for each in state.surplus("met")] == [b"2"]
        await state.flush()
    async with Opened(path) as state:
        assert names(state) == ["2", "3", "4"]
