"""The state of the relay: what each target was told, in one SQLite file (rules WH2, WH6 and WH10).

The file has a row for each target and alert that the target was told, until an hour after the alert's end. If the file
is lost, the live alerts are told again, with the ids that they had before, and targets miss the ends of the others.

Rule 1  A write never holds up the event loop. One thread writes, and one transaction has everything that was noted
        since the last one. So one sync of the disk serves many events.
Rule 2  What could not be written is kept, and written with what is noted later. A later note about a row replaces an
        earlier one.
Rule 3  One process has the file. Its lock is a file beside it, which the kernel frees when the process dies.
"""

import asyncio
import contextlib
import json
import logging
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .. import failpoints
from ..model.errors import ConfigError
from ..sqlite_files import committing, describe, locked, opening

logger = logging.getLogger(__name__)

APPLICATION_ID = 0x6763776C  # "gcwl"
VERSION = 1
PATIENCE_S = 1.0  # the longest time for which an event waits for the disk (rule WH6)
AGAIN_S = 0.5  # from a failed write to the next attempt

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS told (
    target  TEXT    NOT NULL,
    alert   TEXT    NOT NULL,
    number  INTEGER NOT NULL,
    over    INTEGER NOT NULL,
    ends_at INTEGER NOT NULL,
    summary TEXT    NOT NULL,
    PRIMARY KEY (target, alert)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gone (target TEXT PRIMARY KEY, url BLOB NOT NULL) STRICT, WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""


@dataclass(slots=True)
class Told:
    """A record of what a target was told about an alert. It exists if the target was told the alert, or may have been.

    `number` is the number of the last entry that the target has taken, or 0 if it has taken none. `over` is True if the
    target has taken the cancel or the end. `ends_at` and `summary` are those of the newest revision that was posted.
    """

    number: int
    over: bool
    ends_at: int
    summary: Mapping[str, Any]


class ToldStore:
    """Stores what targets were told. `error` says why the last write failed; it is None if it succeeded."""

    def __init__(self, path: Path, *, max_pages: int | None = None) -> None:
        """Create a store for the file at `path`.

        `max_pages` limits the size of the file, in pages; tests use it to simulate a full disk.
        """
        self.error: str | None = None
        self.set_aside = 0  # number of rows that could not be read at the start
        self._path, self._max_pages = path, max_pages
        self._thread = ThreadPoolExecutor(1, "told")
        self._lock: IO[bytes] | None = None
        self._db: sqlite3.Connection  # set by `start`
        self._noted: dict[
            tuple[str, ...], tuple[str, tuple[Any, ...]]
        ] = {}  # statements to run, by what they are about
        self._writing = 0  # number of statements that are being run
        self._some = asyncio.Event()
        self._written: asyncio.Future[None] | None = None  # the end of the next attempt to write

    @property
    def unrecorded(self) -> int:
        """The number of rows that are not on the disk yet."""
        return len(self._noted) + self._writing

    async def start(self) -> tuple[dict[str, dict[str, Told]], dict[str, bytes]]:
        """Open or create the file, and return what it has.

        The first result maps the names of targets and the ids of alerts to what was told. The second maps the names of
        targets that have answered 410 to the digests of their URLs. Raise ConfigError if the file can't be used.
        """
        try:
            self._lock = locked(self._path, "--state")
            self._db = await self._run(self._open)
            found: tuple[dict[str, dict[str, Told]], dict[str, bytes]] = await self._run(self._load)
        except (OSError, sqlite3.Error, ValueError) as error:
            self._close()
            raise ConfigError(f"--state {self._path}: {describe(error)}") from None
        except ConfigError:
            self._close()
            raise
        return found

    async def stop(self) -> None:
        """Try once more to write what was noted, then close the file."""
        with contextlib.suppress(sqlite3.Error):
            await self._write()
        await self._run(self._db.close)
        self._thread.shutdown()
        self._close()

    def note(self, target: str, alert: str, told: Told | None) -> None:
        """Note what a target was told about an alert; None if it was not told the alert. It is written soon."""
        if told is None:
            self._note(("told", target, alert), "DELETE FROM told WHERE target = ? AND alert = ?", target, alert)
        else:
            row = (target, alert, told.number, told.over, told.ends_at, json.dumps(told.summary))
            self._note(("told", target, alert), "INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?, ?, ?)", *row)

    def note_gone(self, target: str, url: bytes | None) -> None:
        """Note that a target has answered 410. `url` is the digest of its URL; None if it is told alerts again."""
        if url is None:
            self._note(("gone", target), "DELETE FROM gone WHERE target = ?", target)
        else:
            self._note(("gone", target), "INSERT OR REPLACE INTO gone VALUES (?, ?)", target, url)

    def purge(self, ended_before: int) -> None:
        """Note that the rows of alerts that ended before this time, in ms since 1970, are no longer needed."""
        self._note(("purge",), "DELETE FROM told WHERE ends_at < ?", ended_before)

    async def written(self) -> None:
        """Wait until everything that was noted is on the disk or could not be written, for at most PATIENCE_S.

        Don't wait if the last write failed.
        """
        if self.error is not None:
            return
        if self._written is None:
            self._written = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._written], timeout=PATIENCE_S)

    def _note(self, about: tuple[str, ...], statement: str, *values: Any) -> None:
        self._noted.pop(about, None)  # so that the statements run in the order of the last notes
        self._noted[about] = statement, values
        self._some.set()

    async def write_for_ever(self) -> None:
        """Write what is noted. Never returns."""
        while True:
            await self._some.wait()
            try:
                await self._write()
            except Exception as error:
                if self.error is None:
                    logger.error("--state can't be written (%s); events are sent nevertheless", describe(error))
                self.error = describe(error)
                self._some.set()  # also if this is called again
                if not isinstance(error, sqlite3.Error):
                    raise
                await asyncio.sleep(AGAIN_S)
            else:
                if self.error is not None:
                    logger.warning("--state can be written again")
                self.error = None

    async def _write(self) -> None:
        self._some.clear()
        noted, self._noted = self._noted, {}
        written, self._written = self._written, None
        self._writing = len(noted)
        try:
            await self._run(lambda: self._in_one_transaction(noted))
        except BaseException:
            self._noted = noted | self._noted
            raise
        finally:
            self._writing = 0
            if written is not None and not written.done():
                written.set_result(None)

    def _in_one_transaction(self, noted: Mapping[tuple[str, ...], tuple[str, tuple[Any, ...]]]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        with committing(self._db):
            for statement, values in noted.values():
                self._db.execute(statement, values)
            failpoints.hit("relay-in-commit")

    async def _run(self, work: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _open(self) -> sqlite3.Connection:
        with opening(self._path, APPLICATION_ID, VERSION, _SCHEMA, "--state", max_pages=self._max_pages) as db:
            return db

    def _load(self) -> tuple[dict[str, dict[str, Told]], dict[str, bytes]]:
        told: dict[str, dict[str, Told]] = defaultdict(dict)
        for target, alert, number, over, ends_at, summary in self._db.execute("SELECT * FROM told"):
            try:
                told[target][alert] = Told(number, bool(over), ends_at, dict(json.loads(summary)))
            except (TypeError, ValueError):
                self.set_aside += 1
                logger.error("--state: the row of target %s and alert %s can't be read, and is left out", target, alert)
        return told, dict(self._db.execute("SELECT target, url FROM gone"))

    def _close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None
