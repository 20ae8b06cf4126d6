"""Devices in a SQLite file: the rules of the port, and traces that are left in the file (rules DevS8, DevS11, WPS1)."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.register_assert_rewrite("push.devicestore.contract")

from push.devicestore.contract import (  # noqa: E402 (its asserts are rewritten)
    BATCH,
    Contract,
    SharedContract,
    all_of,
    assert_has,
    device,
    digest,
    line,
    put,
)

from geocast.model.errors import ConfigError, StoreUnavailable  # noqa: E402
from geocast.push.devicestore import State  # noqa: E402
from geocast.push.devicestore.sqlite import SqliteDevices  # noqa: E402
from geocast.push.encryption import Keyring  # noqa: E402


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Make batches small: otherwise a test would need hundreds of devices, each with a sync, to fill one."""
    monkeypatch.setattr("geocast.push.devicestore.sqlite.BATCH", BATCH)


class TestSqliteDevices(Contract):
    """The rules of the port on a file of a single process."""

    def new(self, tmp_path):
        return SqliteDevices(tmp_path / "devices.db")


class TestSqliteDevicesOfSeveral(SharedContract):
    """The rules of the port on a file that several workers of a supervisor share; shards have no leases (DevS7)."""

    def new(self, tmp_path):
        self.path = tmp_path / "devices.db"
        return self.other(None)

    def other(self, store):
        return SqliteDevices(self.path, alone=False)


async def test_devices_and_delivery_records_survive_restart(tmp_path):
    """Writes are on stable storage (rules DevS1, DevS5)."""
    for expected in ([], [(device("a"), line("a", "x"))]):
        store = SqliteDevices(tmp_path / "devices.db")
        await store.start()
        await assert_has(store, *expected)
        if not expected:
            await put(store, device("a"))
            await store.note([line("a", "x")])
        await store.stop()


async def test_second_process_is_refused_until_the_first_closes_the_file(tmp_path):
    """The file is locked (rule DevS11)."""
    store = SqliteDevices(tmp_path / "devices.db")
    await store.start()
    other = SqliteDevices(tmp_path / "devices.db")
    with pytest.raises(ConfigError, match="another process has it"):
        await other.start()
    await store.stop()
    await other.start()
    await other.stop()


@pytest.mark.parametrize("made", ["CREATE TABLE entry (id)", "PRAGMA application_id = 1; CREATE TABLE x (id)"])
async def test_file_of_another_program_is_refused(tmp_path, made):
    """Above all the alert log is refused (rule K1)."""
    path = tmp_path / "devices.db"
    with sqlite3.connect(path) as db:
        db.executescript(made)
    db.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="another program's"):
        await SqliteDevices(path).start()
    assert path.read_bytes() == before


async def test_invalid_database_file_and_missing_folder_are_refused(tmp_path):
    """The error is one line (rule K1)."""
    path = tmp_path / "devices.db"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(ConfigError, match=r"devices\.db: SQLITE_NOTADB$"):
        await SqliteDevices(path).start()
    with pytest.raises(ConfigError, match=r"No such file or directory$"):
        await SqliteDevices(tmp_path / "nowhere" / "devices.db").start()


async def test_full_disk_raises_store_unavailable_and_leaves_nothing_half_written(tmp_path):
    """Writes work again when there is room (rule DevS8)."""
    store = SqliteDevices(tmp_path / "devices.db", max_pages=20)
    await store.start()
    await put(store, device("a"))
    with pytest.raises(StoreUnavailable, match="SQLITE_FULL"):
        await store.put(device("b", endpoint="at-a", sealed=bytes(100_000)), None)
    assert set(await all_of(store)) == {digest("a")}
    await put(store, device("c"))
    assert set(await all_of(store)) == {digest("a"), digest("c")}
    await store.stop()


async def test_odd_rows_are_read_as_maybe_sent_and_as_a_device_that_no_key_opens(tmp_path):
    """They harm no other row (rule DevS13)."""
    path = tmp_path / "devices.db"
    store = SqliteDevices(path)
    await store.start()
    await put(store, device("a"), device("b"))
    await store.note([line("a", "x"), line("a", "y"), line("b", "x")])
    with sqlite3.connect(path) as db:
        db.execute("UPDATE told SET state = 9 WHERE device = ? AND alert = ?", (digest("a"), digest("x")))
        db.execute("UPDATE device SET until_ms = -5 WHERE device = ?", (digest("b"),))
    db.close()
    odd = line("a", "x", number=0, state=State.MAYBE, ends_at_ms=0)
    await assert_has(store, (device("a"), odd, line("a", "y")), (device("b", until_ms=-5), line("b", "x")))
    with pytest.raises(ValueError, match="no key"):
        Keyring([bytes(32)]).open(b"", digest("b"), -5)
    await store.stop()


async def test_store_whose_disk_hangs_is_unavailable_until_the_disk_works(tmp_path, monkeypatch):
    """What nobody waits for any more is not begun, and what was begun is done (rule DevS8)."""
    monkeypatch.setattr("geocast.push.devicestore.sqlite.ANSWER_S", 0.01)
    store, works = SqliteDevices(tmp_path / "devices.db"), threading.Event()
    await store.start()
    hanging = store._db._thread.submit(works.wait)
    with pytest.raises(StoreUnavailable, match="the disk does not answer"):
        await store.put(device("a"), None)
    works.set()
    await asyncio.wrap_future(hanging)
    monkeypatch.setattr("geocast.push.devicestore.sqlite.ANSWER_S", None)
    await put(store, device("b"))
    await assert_has(store, (device("b"),))
    await store.stop()


PROGRAM = """
import asyncio, pathlib, sys
from push.devicestore.contract import device, line
from geocast.push.devicestore.sqlite import SqliteDevices

async def main():
    store = SqliteDevices(pathlib.Path(sys.argv[1]))
    await store.start()
    await store.put(device("b", endpoint="at-a"), None)

asyncio.run(main())
"""


async def test_kill_before_commit_leaves_the_store_unchanged(tmp_path):
    """The fail point is `push-in-commit` (rule DevS8)."""
    path = tmp_path / "devices.db"
    store = SqliteDevices(path)
    await store.start()
    await put(store, device("a"))
    await store.note([line("a", "x")])
    await store.stop()
    environment = os.environ | {"GEOCAST_FAILPOINT": "push-in-commit", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = [sys.executable, "-c", PROGRAM, str(path)]
    done = await asyncio.to_thread(subprocess.run, run, env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    store = SqliteDevices(path)
    await store.start()
    await assert_has(store, (device("a"), line("a", "x")))
    await store.stop()


def files(folder):
    """Return the files that the store has left."""
    return list(Path(folder).iterdir())


async def test_forgotten_device_leaves_no_trace_in_the_database_files(tmp_path):
    """Deleted rows are overwritten, and the log of changes ends with the store (rules WPS1, WPR9)."""
    secret = b"what-was-known-of-it" * 20
    store = SqliteDevices(tmp_path / "devices.db")
    await store.start()
    await put(store, device("a", sealed=secret))
    await store.forget([device("a").known])
    await store.stop()
    assert not any(secret[:40] in path.read_bytes() for path in files(tmp_path))


async def test_follow_yields_none_if_its_reader_falls_behind(tmp_path, monkeypatch):
    """Some changes of other processes are no longer kept (rule DevS10)."""
    monkeypatch.setattr("geocast.push.devicestore.sqlite.CHANGES", 3)
    store, other = (SqliteDevices(tmp_path / "devices.db", alone=False) for _ in range(2))
    await store.start()
    await other.start()
    await put(other, *(device(f"{number}") for number in range(5)))
    following = store.follow()
    assert await anext(following) is None
    await put(other, device("a"))
    assert await anext(following) == [(digest("a"), b"")]
    await following.aclose()
    await store.stop()
    await other.stop()
