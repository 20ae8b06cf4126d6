"""The state of the relay: what is kept, a full disk, and files that can't be used (WH2, WH6, WH10)."""

import asyncio
import sqlite3

import pytest

from geocast.model.errors import ConfigError
from geocast.relay.told import Told, ToldStore
from geocast.tasks import every, running

ROW = {"revision": 1, "severity": "severe"}


def told(number=1, *, over=False, ends_at=1_000):
    """Return what a target was told."""
    return Told(number, over, ends_at, ROW)


async def read(path):
    """Return what a file has."""
    store = ToldStore(path)
    found = await store.start()
    await store.stop()
    return found


def test_notes_are_read_back_after_a_restart(tmp_path):
    """A later note replaces an earlier one; `purge` forgets alerts that ended before a time (WH6, WH10)."""

    async def main():
        store = ToldStore(tmp_path / "relay.db")
        assert await store.start() == ({}, {})
        async with running(state=every(store.PROBE_S, store.probe)):
            store.note_told("siren", "a", told(0))
            store.note_told("siren", "a", told(2, over=True, ends_at=5_000))
            store.note_told("siren", "b", told())
            store.note_told("sign", "a", told(ends_at=999))
            store.note_told("sign", "c", told())
            store.note_told("sign", "c", None)
            store.note_gone("siren", b"1")
            store.note_gone("sign", b"2")
            await store.written()
            store.note_gone("sign", None)
            store.purge(1_000)
            await store.written()
            assert store.unwritten == 0
        await store.stop()
        expected = {"siren": {"a": told(2, over=True, ends_at=5_000), "b": told()}}
        assert await read(tmp_path / "relay.db") == (expected, {"siren": b"1"})

    asyncio.run(main())


@pytest.mark.parametrize("summary", ["{", "3"])
def test_row_that_cannot_be_read_is_left_out_counted_and_named(tmp_path, caplog, summary):
    """The target is told that alert again, as if the file was lost; all others are read (WH6)."""

    async def main():
        path = tmp_path / "relay.db"
        store = ToldStore(path)
        await store.start()
        store.note_told("siren", "odd", told())
        store.note_told("siren", "b", told())
        await store.stop()
        with sqlite3.connect(path) as db:
            db.execute("UPDATE told SET summary = ? WHERE alert = 'odd'", (summary,))
        db.close()
        store = ToldStore(path)
        assert await store.start() == ({"siren": {"b": told()}}, {})
        await store.stop()
        assert store.set_aside == 1
        assert "the row of target siren and alert odd can't be read" in caplog.text

    asyncio.run(main())


def test_full_disk_delays_no_event_and_nothing_is_lost_when_there_is_room(tmp_path):
    """`written` returns at once while writing fails; what was noted is written later (WH6)."""

    async def main():
        store = ToldStore(tmp_path / "relay.db", max_pages=8)
        await store.start()
        async with running(state=every(store.PROBE_S, store.probe)):
            for number in range(2_000):
                store.note_told("siren", f"alert-{number}", told())
            await store.written()
            assert store.error == "SQLITE_FULL"
            assert store.unwritten == 2_000
            store.note_told("siren", "b", told())
            await asyncio.wait_for(store.written(), 0.1)  # it returns without a write
            await store._db.do(lambda db: db.execute("PRAGMA max_page_count = 1000"))
            await store.flush()
            assert store.error is None
        await store.stop()
        assert len((await read(tmp_path / "relay.db"))[0]["siren"]) == 2_001

    asyncio.run(main())


def test_file_that_is_in_use_or_of_another_program_is_refused(tmp_path):
    """The file stays as it was (WH6)."""

    async def main():
        store = ToldStore(tmp_path / "relay.db")
        await store.start()
        with pytest.raises(ConfigError, match="another process has it"):
            await ToldStore(tmp_path / "relay.db").start()
        await store.stop()
        with sqlite3.connect(tmp_path / "users.db") as db:
            db.execute("CREATE TABLE user (name TEXT)")
        (tmp_path / "text.db").write_text("no database" * 100)
        for name, why in (("users.db", "another program"), ("text.db", "SQLITE_NOTADB"), ("no/x.db", "No such file")):
            with pytest.raises(ConfigError, match=why):
                await ToldStore(tmp_path / name).start()

    asyncio.run(main())
