"""A log in a SQLite file, only read (`tail`).

A reader of a write-ahead log needs the companions `-wal` and `-shm`, which are there while a node runs, and may lack
the right to write to any of them. Nothing is made, mended or locked.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, LogUnavailable
from . import BATCH, codec, sqlite_file
from .sqlite_file import APPLICATION_ID, COLUMNS
from .tail import RawEntry

LOOK_S = 0.25  # between looks for new entries
_NEXT = f"SELECT {COLUMNS} FROM entry WHERE position > ? ORDER BY position LIMIT {BATCH}"


class SqliteTail:
    """Reads the entries of a log in a file."""

    def __init__(self, path: Path) -> None:
        """`path`: where the file is, or will be."""
        self._path = path

    async def start(self) -> None:
        """Look whether what is there is a log."""
        with contextlib.suppress(LogUnavailable):
            self._open().close()

    async def stop(self) -> None:
        """Nothing is held between two calls of `follow`."""

    async def follow(self) -> AsyncGenerator[Sequence[RawEntry], None]:
        """The entries from the first on, and those to come."""
        with contextlib.closing(self._open()) as db:
            opened, after = sqlite_file.identity(self._path)[0], 0
            while True:
                rows = _ask(db, _NEXT, after)
                if rows:
                    after = rows[-1][0]
                yield [_sight(*row) for row in rows]
                if len(rows) < BATCH:
                    if sqlite_file.identity(self._path)[0] != opened:
                        raise LogUnavailable("its file was deleted or replaced")
                    await asyncio.sleep(LOOK_S)

    def _open(self) -> sqlite3.Connection:
        """A connection that can't write. Raises ConfigError and LogUnavailable."""
        if not self._path.exists():
            raise LogUnavailable("there is no file yet")
        try:
            db = sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
        except sqlite3.Error as error:
            raise LogUnavailable(str(error)) from None
        try:
            mark = _ask(db, "PRAGMA application_id")[0][0]
            if not _ask(db, "SELECT name FROM sqlite_master LIMIT 1"):
                raise LogUnavailable("there is no log in the file yet")
            columns = {row[1] for row in _ask(db, "PRAGMA table_info(entry)")}
            if mark not in (0, APPLICATION_ID) or not columns.issuperset(COLUMNS.split(", ")):
                raise ConfigError(f"log {self._path}: is no alert log")
        except BaseException:
            db.close()
            raise
        return db


def _ask(db: sqlite3.Connection, query: str, *values: int) -> list[Any]:
    try:
        return db.execute(query, values).fetchall()
    except sqlite3.Error as error:
        # The messages of SQLite name conditions, never values.
        raise LogUnavailable(str(error)) from None


def _sight(position: int, alert_id: str, revision: int, ends_at: int, payload: bytes, checksum: int) -> RawEntry:
    try:
        if codec.checksum(alert_id, revision, payload) != checksum:
            raise ValueError("checksum differs")
        entry = codec.decode(payload, alert_id, revision, ends_at)
    except ValueError:
        return RawEntry(0, position, alert_id, revision, payload, None)
    return RawEntry(0, position, alert_id, revision, payload, entry)
