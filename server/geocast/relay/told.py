"""The state of the relay: what each target was told, in one SQLite file (rules WH2, WH6 and WH10).

The file has a row for each target and alert that the target was told, until an hour after the alert's end. If the file
is lost, the live alerts are told again, with the ids that they had before, and targets miss the ends of the others.

It is written behind (`storage/write_behind`), so that a disk that fails delays no event. One process has the file.
"""

import json
import logging
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..storage.sqlite import Database, FileKind
from ..storage.write_behind import WriteBehind

logger = logging.getLogger(__name__)

_SCHEMA = """
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
"""
_KIND = FileKind("relay", "--state", 0x6763776C, 1, _SCHEMA)  # "gcwl"


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


class StateAtStart(NamedTuple):
    """The content of the file when it is opened.

    `told` maps the names of targets and the ids of alerts to what was told. `gone` maps the names of targets that have
    answered 410 to the digests of their URLs.
    """

    told: dict[str, dict[str, Told]]
    gone: dict[str, bytes]


class ToldStore(WriteBehind[tuple[str, ...], tuple[str, tuple[Any, ...]]]):
    """Stores what targets were told. A note is a statement with its values; its key says what it is about."""

    def __init__(self, path: Path, *, max_pages: int | None = None) -> None:
        """Create a store for the file at `path`.

        `max_pages` limits the size of the file, in pages; tests use it to simulate a full disk.
        """
        super().__init__("--state")
        self.set_aside = 0  # number of rows that could not be read at the start
        self._db = Database(path, _KIND, max_pages=max_pages)

    async def start(self) -> StateAtStart:
        """Open or create the file, and return what it has. Raise ConfigError if the file can't be used."""
        return await self._db.open(self._load)

    async def stop(self) -> None:
        """Try once more to write what was noted, then close the file."""
        await self.finish()
        await self._db.close()

    def note_told(self, target: str, alert: str, told: Told | None) -> None:
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

    def _note(self, about: tuple[str, ...], statement: str, *values: Any) -> None:
        self.note({about: (statement, values)})

    async def store(self, notes: Mapping[tuple[str, ...], tuple[str, tuple[Any, ...]]]) -> None:
        """Run these statements in one transaction. Raise StoreUnavailable if that fails."""
        await self._db.write_all(notes.values())

    def _load(self, db: sqlite3.Connection) -> StateAtStart:
        told: dict[str, dict[str, Told]] = defaultdict(dict)
        for target, alert, number, over, ends_at, summary in db.execute("SELECT * FROM told"):
            try:
                told[target][alert] = Told(number, bool(over), ends_at, dict(json.loads(summary)))
            except (TypeError, ValueError):
                self.set_aside += 1
                logger.error("--state: the row of target %s and alert %s can't be read, and is left out", target, alert)
        return StateAtStart(told, dict(db.execute("SELECT target, url FROM gone")))
