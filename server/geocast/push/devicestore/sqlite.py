"""Devices in one SQLite file, for one process, or for all processes of one supervisor.

The rules DevS1 to DevS12 are in the docstring of `devicestore`; this is how they are kept:

DevS1 to DevS6, DevS8   Each call is one WAL transaction with `synchronous=FULL`: COMMIT returns after the fsync.
                        Deleted rows are overwritten (`secure_delete`).
DevS7                   No line is ever refused: a process keeps its shards until it dies, and the next process with
                        its number starts only then.
DevS9                   Devices are read in the order of the primary key, so a batch starts where the last one ended.
DevS10                  A table has the last CHANGES changes, and is read every FOLLOW_S. A process that uses the file
                        alone writes no changes.
DevS8                   Nobody waits longer than ANSWER_S for the disk, except for a load. What was not begun by then is
                        not done; what was begun is done when the disk works again.
DevS11                  A file beside the database is locked. The kernel releases the lock when the last holder dies.

The rest is in `storage/sqlite`.
"""

import asyncio
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path
from typing import IO, TypeVar

from ...storage.sqlite import Database, FileKind, locked
from . import Change, DeliveryRecord, Found, Limits, Put, PutResult, RegistrationKey, StoredDevice, read_line, shard_of

BATCH = 500  # number of devices in a batch of `load`
CHANGES = 10_000  # limit on the changes that are kept for other processes
FOLLOW_S = 0.05  # pause between checks for changes by other processes
ANSWER_S = 2.0  # the longest wait for the disk

_SCHEMA = """
CREATE TABLE IF NOT EXISTS device (
    device   BLOB    PRIMARY KEY NOT NULL,
    owner    BLOB    NOT NULL,
    endpoint BLOB    NOT NULL UNIQUE,
    secret   BLOB    NOT NULL,
    until_ms INTEGER NOT NULL,
    sealed   BLOB    NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS device_owner ON device (owner);
CREATE UNIQUE INDEX IF NOT EXISTS device_secret ON device (secret, device);
CREATE TABLE IF NOT EXISTS told (
    device     BLOB    NOT NULL,
    alert      BLOB    NOT NULL,
    number     INTEGER NOT NULL,
    state      INTEGER NOT NULL,
    ends_at_ms INTEGER NOT NULL,
    PRIMARY KEY (device, alert)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS told_alert ON told (alert, ends_at_ms);
CREATE TABLE IF NOT EXISTS change (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    writer INTEGER NOT NULL,
    device BLOB    NOT NULL,
    note   BLOB    NOT NULL
) STRICT;
"""
_KIND = FileKind("push", "--devices", 0x67637064, 1, _SCHEMA)  # "gcpd"
_DEVICE = "SELECT device, owner, endpoint, secret, until_ms, sealed FROM device WHERE "
_TOLD = "SELECT device, alert, number, state, ends_at_ms FROM told WHERE "
_PUT = """
INSERT INTO device VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (device) DO UPDATE SET owner = excluded.owner,
    endpoint = excluded.endpoint, secret = excluded.secret, until_ms = excluded.until_ms, sealed = excluded.sealed
"""
_FORGET = "DELETE FROM device WHERE device = ? AND secret = ? AND endpoint = ? AND until_ms = ? RETURNING device"
_IS_THERE = "EXISTS (SELECT 1 FROM device WHERE secret = ?6 AND device = ?1)"  # one index has both columns
_NOTE = f"INSERT OR REPLACE INTO told SELECT ?1, ?2, ?3, ?4, ?5 WHERE {_IS_THERE}"
_UNNOTE = f"DELETE FROM told WHERE device = ?1 AND alert = ?2 AND {_IS_THERE}"  # noqa: S608

_T = TypeVar("_T")


class SqliteDevices:
    """A store of devices in one SQLite file. The module's docstring says how the rules of `DeviceStore` are kept."""

    lost = False  # nothing to report: the file is read at the start, even if it was restored from a backup

    def __init__(self, path: Path, *, alone: bool = True, max_pages: int | None = None) -> None:
        """Create a store for the file at `path`.

        If `alone` is true, no other process uses the file. Otherwise a supervisor holds the lock, and its processes
        share the file. `max_pages` limits the size of the file, in pages; tests use it to simulate a full disk.
        """
        self._alone = alone
        self._writer = secrets.randbits(62)
        self._position = 0  # the number of the last change that was read
        self._db = Database(path, _KIND, alone=alone, max_pages=max_pages)

    async def start(self) -> None:
        """Open or create the file. Raise ConfigError if that fails or if another process uses the file."""
        self._position = await self._db.open(_opened)

    async def stop(self) -> None:
        """Finish the operations that are under way, then close the file."""
        await self._db.close()

    async def load(self, shards: Collection[int]) -> AsyncIterator[Sequence[Found]]:
        after = b""
        while True:
            found = await self._db.do(lambda db, after=after: _batch(db, after, shards))  # type: ignore[misc]
            if not found:
                return
            yield found
            after = found[-1][0].device

    async def find(self, device: bytes) -> Found | None:
        def work(db: sqlite3.Connection) -> Found | None:
            found = _devices(db, "device = ?", device)
            return (found[0], _lines(db, found[0])) if found else None

        return await self._do(work)

    async def knowing(self, secret: bytes) -> StoredDevice | None:
        found = await self._do(lambda db: _devices(db, "secret = ?", secret))
        return found[0] if found else None

    async def owned(self, owner: bytes) -> Sequence[StoredDevice]:
        return await self._do(lambda db: _devices(db, "owner = ?", owner))

    async def put(
        self,
        device: StoredDevice,
        was: StoredDevice | None,
        *,
        limits: Limits | None = None,
        note: bytes = b"",
        lines: Sequence[DeliveryRecord] = (),
    ) -> Put:
        def work(db: sqlite3.Connection) -> Put:
            before = _devices(db, "device = ?", device.device)
            if before != ([] if was is None else [was]):
                return Put(PutResult.CHANGED)
            others = _devices(db, "endpoint = ? AND device <> ?", device.endpoint, device.device)
            replaced = [each.known for each in others]
            if (
                was is None
                and limits is not None
                and (came := _exceeded_limit(db, device, limits, len(replaced))) is not None
            ):
                return Put(came)
            gone = _forget(db, [*replaced, *(each.known for each in before if each.secret != device.secret)])
            db.execute(_PUT, device)
            for line in lines:
                db.execute(_NOTE, line[:6])
            self._announce(db, [*((each, b"") for each in gone), (device.device, note)])
            return Put(PutResult.STORED, tuple(each.device for each in replaced))

        return await self._write(work)

    async def forget(self, devices: Collection[RegistrationKey]) -> None:
        await self._write(lambda db: self._announce(db, [(device, b"") for device in _forget(db, devices)]))

    async def note(self, lines: Sequence[DeliveryRecord]) -> Collection[int]:
        def work(db: sqlite3.Connection) -> None:
            if not lines:
                db.execute(f"PRAGMA user_version = {_KIND.version}")  # writes a page, though nothing changes
            for line in lines:
                db.execute(_UNNOTE if line.state is None else _NOTE, line[:6])

        await self._write(work)
        return ()

    async def restore(self, _devices: Sequence[tuple[StoredDevice, int]]) -> Collection[int]:
        return ()

    async def purge(self, _shards: Collection[int], now_ms: int, is_over: Callable[[bytes], bool]) -> int:
        ended = "SELECT DISTINCT alert FROM told WHERE ends_at_ms <= ?"
        alerts = [alert for (alert,) in await self._do(lambda db: db.execute(ended, (now_ms,)).fetchall())]
        over = [(alert, now_ms) for alert in alerts if is_over(alert)]
        delete = "DELETE FROM told WHERE alert = ? AND ends_at_ms <= ?"
        return await self._write(lambda db: db.executemany(delete, over).rowcount) if over else 0

    async def follow(self) -> AsyncIterator[Sequence[Change] | None]:
        while not self._alone:
            await asyncio.sleep(FOLLOW_S)
            found, is_whole = await self._do(self._new_changes)
            if found or not is_whole:
                yield found if is_whole else None
        await asyncio.Event().wait()

    # ---- changes that other processes read -----------------------------------------------------------------------

    def _announce(self, db: sqlite3.Connection, changes: Collection[tuple[bytes, bytes]]) -> None:
        """Record changes, so that other processes learn of them.

        Each change is a pair: the digest of a device that was stored or deleted, and the note that the caller gave
        about this change, or b"".
        """
        if not self._alone and changes:
            rows = [(self._writer, *each) for each in changes]
            db.executemany("INSERT INTO change (writer, device, note) VALUES (?, ?, ?)", rows)
            db.execute("DELETE FROM change WHERE number <= (SELECT max(number) FROM change) - ?", (CHANGES,))

    def _new_changes(self, db: sqlite3.Connection) -> tuple[list[Change], bool]:
        """Return the changes that other processes made since the last call.

        The second result is True if no change is missing.
        """
        query = "SELECT number, writer, device, note FROM change WHERE number > ? ORDER BY number"
        rows = db.execute(query, (self._position,)).fetchall()
        is_whole = not rows or rows[0][0] == self._position + 1
        self._position = rows[-1][0] if rows else self._position
        return [Change(device, note) for _, writer, device, note in rows if writer != self._writer], is_whole

    async def _write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        return await self._db.write(work, ANSWER_S)

    async def _do(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        return await self._db.do(work, ANSWER_S)


def lock_devices(path: Path) -> IO[bytes]:
    """Lock the database of devices at this path, and return the open lock file (see `storage.sqlite.locked`)."""
    return locked(path, _KIND.option)


def _opened(db: sqlite3.Connection) -> int:
    """Prepare a connection that was opened, and return the number of the last change."""
    db.execute("PRAGMA secure_delete = ON")
    [position] = db.execute("SELECT coalesce(max(number), 0) FROM change").fetchone()
    return int(position)


def _exceeded_limit(db: sqlite3.Connection, device: StoredDevice, limits: Limits, replaced: int) -> PutResult | None:
    """Return the limit that a new device would exceed, or None.

    `replaced` is the number of devices that the new device replaces, which no longer count.
    """
    owned = "SELECT count(*) FROM device WHERE owner = ? AND endpoint <> ?"
    if db.execute(owned, (device.owner, device.endpoint)).fetchone()[0] >= limits.owned:
        return PutResult.TOO_MANY
    # The greatest rowid is a quick upper bound of the number of devices. Count the devices only if the bound is not low
    # enough.
    for how_many in ("coalesce(max(rowid), 0)", "count(*)"):
        if db.execute(f"SELECT {how_many} FROM device").fetchone()[0] - replaced < limits.devices:  # noqa: S608
            return None
    return PutResult.FULL


def _forget(db: sqlite3.Connection, devices: Collection[RegistrationKey]) -> list[bytes]:
    """Delete these registrations if they are still stored; return the digests of the deleted devices."""
    gone = [device for known in devices for (device,) in db.execute(_FORGET, known)]
    db.executemany("DELETE FROM told WHERE device = ?", [(device,) for device in gone])
    return gone


def _devices(db: sqlite3.Connection, which: str, *values: bytes) -> list[StoredDevice]:
    return [StoredDevice(*row) for row in db.execute(_DEVICE + which, values)]


def _lines(db: sqlite3.Connection, device: StoredDevice) -> list[DeliveryRecord]:
    return [_line(row, device.secret) for row in db.execute(_TOLD + "device = ?", (device.device,))]


def _line(row: tuple[bytes, bytes, int, int, int], secret: bytes) -> DeliveryRecord:
    device, alert, *values = row
    return read_line(device, alert, secret, values)


def _batch(db: sqlite3.Connection, after: bytes, shards: Collection[int]) -> list[Found]:
    """Return the next devices of these shards, each with its delivery records (which alerts it was sent).

    At most BATCH devices are returned, in the order of their digests, starting after the digest `after`.
    """
    first = [bytes([each]) for each in range(256) if shard_of(bytes([each])) in shards]
    ordered = f"{_DEVICE}device > ? AND substr(device, 1, 1) IN ({', '.join('?' * len(first))}) ORDER BY device LIMIT ?"
    devices = [StoredDevice(*row) for row in db.execute(ordered, (after, *first, BATCH))]
    found = {each.device: (each, list[DeliveryRecord]()) for each in devices}
    if devices:
        for row in db.execute(_TOLD + "device > ? AND device <= ?", (after, devices[-1].device)):
            if row[0] in found:
                found[row[0]][1].append(_line(row, found[row[0]][0].secret))
    return list(found.values())
