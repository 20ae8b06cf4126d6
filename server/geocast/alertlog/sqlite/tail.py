"""A reader of a log in a SQLite file, for programs that never write to the log (`alertlog/tail.py`).

Reading a write-ahead log requires the companion files `-wal` and `-shm`, which exist while a node runs. The program may
have no right to write to the log or its companions. So this reader never creates, repairs or locks a file.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from ...model.errors import ConfigError, LogUnavailable
from .. import BATCH
from ..tail import RawEntry
from . import log_file
from .log_file import APPLICATION_ID, COLUMNS
from .rows import Row, entry_of, select, unavailable

LOOK_S = 0.25  # the time between two checks for new entries
_NEXT = f"SELECT {COLUMNS} FROM entry WHERE position > ? ORDER BY position LIMIT {BATCH}"


class SqliteTail:
    """Reads the entries of a log in a SQLite file, without writing to the file."""

    def __init__(self, path: Path) -> None:
        """Prepare to read the file at `path`, which need not exist yet."""
        self.name = str(path.absolute())
        self._path = path

    async def is_there(self) -> bool:
        """Return whether there is a file with something in it at the log's path."""
        return log_file.is_there(self._path)

    async def start(self) -> None:
        """Check that the file at the path is a log, if there is a file. Raise ConfigError if it is something else."""
        with contextlib.suppress(LogUnavailable):
            self._open().close()

    async def stop(self) -> None:
        """Do nothing: no connection is open between two calls of `follow`."""

    async def follow(self) -> AsyncGenerator[Sequence[RawEntry], None]:
        """Yield all entries of the log in batches, and then each new entry, without end."""
        with contextlib.closing(self._open()) as db:
            opened, after = log_file.identity(self._path)[0], 0
            while True:
                rows = select(db, _NEXT, after)
                if rows:
                    after = rows[-1][0]
                yield list(map(_raw_entry, rows))
                if len(rows) < BATCH:
                    if log_file.identity(self._path)[0] != opened:
                        raise LogUnavailable("its file was deleted or replaced")
                    await asyncio.sleep(LOOK_S)

    def _open(self) -> sqlite3.Connection:
        """Return a read-only connection to the file.

        Raise ConfigError if the file is not a log, and LogUnavailable if it can't be read.
        """
        if not self._path.exists():
            raise LogUnavailable("there is no file yet")
        with unavailable():
            db = sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            mark = select(db, "PRAGMA application_id")[0][0]
            if not select(db, "SELECT name FROM sqlite_master LIMIT 1"):
                raise LogUnavailable("there is no log in the file yet")
            columns = {row[1] for row in select(db, "PRAGMA table_info(entry)")}
            if mark not in (0, APPLICATION_ID) or not columns.issuperset(COLUMNS.split(", ")):
                raise ConfigError(f"log {self._path}: is not an alert log")
        except BaseException:
            db.close()
            raise
        return db


def _raw_entry(row: Row) -> RawEntry:
    position, alert_id, revision, _, payload, _ = row
    entry = None
    with contextlib.suppress(ValueError):
        entry = entry_of(row)
    return RawEntry(0, position, alert_id, revision, payload, entry)
