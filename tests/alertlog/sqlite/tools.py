"""Tools for tests of logs in a SQLite file: open, fill and change them."""

import asyncio
import sqlite3
from contextlib import closing, suppress

from alertlog.reading import PATIENCE_S, entries
from support.fakes import a_revision

from geocast.alertlog.sqlite import log as sqlite_log
from geocast.alertlog.sqlite.log import SqliteLog
from geocast.model.errors import LogUnavailable

ENDS_MS = a_revision().ends_at


class Opened:
    """Some logs on one file, which are stopped at the end of the block."""

    def __init__(self, path, count=1, **options):
        self._logs = [SqliteLog(path, **options) for _ in range(count)]

    async def __aenter__(self):
        for log in self._logs:
            await log.start()
        return self._logs if len(self._logs) > 1 else self._logs[0]

    async def __aexit__(self, *_):
        for log in self._logs:
            await log.stop()


def run(main):
    """Run a coroutine function to its end, within a time limit."""

    async def bounded():
        async with asyncio.timeout(PATIENCE_S):
            return await main()

    return asyncio.run(bounded())


def fill(path, count):
    """Store this many alerts, a-0 and so on, at once, and close the file."""

    def insert(db):
        return [sqlite_log._insert(db, a_revision(f"a-{n}")) for n in range(count)]

    async def main():
        async with Opened(path) as log:
            assert all(await log._files.write(insert))

    run(main)


def contents(path):
    """Return the ids in the log, and the number of entries that can't be read."""

    async def main():
        async with Opened(path) as log:
            return [entry.id for entry in await entries(log)], log.quarantined

    return run(main)


def edit(path, *statements):
    """Change the file directly, without the log's knowledge."""
    with closing(sqlite3.connect(path)) as db, db:
        for statement, *values in statements:
            db.execute(statement, values)
        db.commit()


def write(path, *entries):
    """Store entries as a later release does."""
    statement = "INSERT INTO entry (id, revision, ends_at, payload, checksum) VALUES (?, ?, ?, ?, ?)"
    edit(path, *((statement, e.id, e.revision, e.ends_at, e.payload, e.checksum) for e in entries))


async def until(true):
    """Wait until `true()` or `await true()` is true, and fail after a time limit."""
    while True:
        with suppress(LogUnavailable):
            if await true():
                return
        await asyncio.sleep(0.01)
