"""The outcomes of the entries of all feeds, in memory and in one SQLite file (rule FE4).

An entry is stored before its message is posted, and its outcome afterwards. So a process that was killed knows which
entries it has to try again. What memory says counts: if the file can't be written, for example because the disk is
full, the process goes on, and each later `save` writes everything that is not in the file yet. After a restart, the
messages whose outcome is missing in the file are posted again, and the node answers that it knows them.

    FE4  Outcomes, and the validators of a feed (`ETag`, `Last-Modified`), are stored in one transaction with the
         entries that they are about. An entry is forgotten KEPT_MS after it left its feed.
"""

import asyncio
import errno
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import IO, Any

from ... import failpoints
from ...model.errors import ConfigError
from ...sqlite_files import committing, describe, locked, opening
from .documents import ListedEntry

APPLICATION_ID = 0x67636665  # "gcfe"
VERSION = 1
KEPT_MS = 7 * 24 * 3600 * 1000
BY_CONFIGURATION = ("host-not-allowed", "sender-not-allowed")  # refusals that another configuration may turn around
MAX_TRACKED = 50_000  # the most entries of one feed that are kept; the first that left are forgotten earlier
MAX_WAITING_BYTES = 64 * 1024 * 1024  # of the messages of one feed that wait for the node
_BUSY_S = 2.0

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS entry (
    feed       TEXT    NOT NULL,
    digest     BLOB    NOT NULL,
    link       TEXT    NOT NULL,
    updated_ms INTEGER NOT NULL,
    listed_ms  INTEGER NOT NULL,
    left_ms    INTEGER,
    message    BLOB,
    charset    TEXT,
    identifier TEXT    NOT NULL,
    outcome    TEXT    NOT NULL,
    done_ms    INTEGER,
    PRIMARY KEY (feed, digest)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS feed (
    name          TEXT PRIMARY KEY NOT NULL,
    url           TEXT NOT NULL,
    etag          TEXT NOT NULL,
    last_modified TEXT NOT NULL
) STRICT;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""


@dataclass(slots=True)
class TrackedEntry:
    """An entry of a feed, and what became of it. `outcome` is "" until that is known. Times are in ms since 1970.

    `listed_ms` is 0 if the entry was there at the first reading, because nobody knows since when. `message` is kept
    only while the entry waits to be posted.
    """

    feed: str
    digest: bytes
    link: str
    updated_ms: int
    listed_ms: int
    left_ms: int | None = None
    message: bytes | None = field(default=None, repr=False)
    charset: str | None = None
    identifier: str = ""
    outcome: str = ""
    done_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Validators:
    """The values by which a server says whether the document at a URL has changed; "" if it gave none."""

    url: str = ""
    etag: str = ""
    last_modified: str = ""

    def conditions(self, url: str) -> list[tuple[str, str]]:
        """Return the header fields that make a request for `url` conditional."""
        known = (("If-None-Match", self.etag), ("If-Modified-Since", self.last_modified))
        return [each for each in known if each[1] and url == self.url]


class FetchState:
    """The entries of all feeds. `error` says why the file could not be written the last time, or is None."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, dict[bytes, TrackedEntry]] = {}
        self._validators: dict[str, Validators] = {}
        self._changed: dict[tuple[str, bytes], TrackedEntry] = {}
        self._changed_feeds: set[str] = set()
        self._gone: set[tuple[str, bytes]] = set()
        self._writing = asyncio.Lock()
        self._file: IO[bytes] | None = None
        self._db: sqlite3.Connection | None = None
        self.error: str | None = None
        self.ahead = Counter[str]()  # by feed: bytes of the messages that its reader has fetched and not posted yet

    def open(self) -> None:
        """Open or create the file, and read it.

        If the disk is full or fails, `error` says so, and `save` tries again; until then the messages of all entries
        are posted again. Raise ConfigError if the file can't be used, or if another process uses it.
        """
        try:
            self._file = locked(self._path, "--state")
            self._connect()
        except (OSError, sqlite3.Error) as error:
            if not _is_of_the_disk(error):
                self.close()
                raise ConfigError(f"--state {self._path}: {describe(error)}") from None
            self.error = describe(error)
        except ConfigError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file, and let others use it."""
        if self._db is not None:
            self._db.close()
        if self._file is not None:
            self._file.close()

    def _connect(self) -> None:
        """Open the database, and add to memory what is not known there."""
        advice = "; geocast fetch needs one of its own"
        with opening(self._path, APPLICATION_ID, VERSION, _SCHEMA, "--state", advice=advice, busy_s=_BUSY_S) as db:
            entries = [TrackedEntry(*row) for row in db.execute("SELECT * FROM entry")]
            validators = {name: Validators(*values) for name, *values in db.execute("SELECT * FROM feed")}
        for entry in entries:
            self._entries.setdefault(entry.feed, {}).setdefault(entry.digest, entry)
        self._validators = validators | self._validators
        self._db = db

    # ---- reading and changing what is known ------------------------------------------------------------------------

    def validators(self, feed: str) -> Validators:
        """Return the validators of a feed's last answer."""
        return self._validators.get(feed, Validators())

    def waiting(self, feed: str) -> list[TrackedEntry]:
        """Return the entries of a feed whose outcome is not known, the oldest first."""
        waiting = [each for each in self._entries.get(feed, {}).values() if not each.outcome]
        return sorted(waiting, key=lambda each: (each.updated_ms, each.listed_ms))

    def take_listing(
        self, feed: str, listed: Iterable[ListedEntry], validators: Validators, now_ms: int, listed_ms: int
    ) -> int:
        """Take note of the entries that a feed has now, and since when. Return how many of them are new."""
        listed_ms = listed_ms if feed in self._validators else 0
        known, new, present = self._entries.setdefault(feed, {}), 0, set[bytes]()
        for each in listed:
            present.add(each.digest)
            entry = known.get(each.digest)
            if entry is None:
                new += 1
                entry = TrackedEntry(
                    feed, each.digest, each.link, each.updated_ms, listed_ms, message=each.message, charset=each.charset
                )
                if each.message is None and not each.link:
                    entry.outcome, entry.done_ms = "no-message", now_ms
                known[each.digest] = entry
                self.change(entry)
            elif entry.left_ms is not None:
                entry.left_ms = None
                self.change(entry)
        self._leave(known.values(), present, now_ms)
        if self._validators.get(feed) != validators:
            self._validators[feed] = validators
            self._changed_feeds.add(feed)
        return new

    def surplus(self, feed: str) -> list[TrackedEntry]:
        """Return entries to give up, so that the messages of a feed that wait have at most MAX_WAITING_BYTES.

        The oldest entries that have left the feed are given up first.
        """
        waiting = sorted(self.waiting(feed), key=lambda each: (each.left_ms is None, each.left_ms, each.updated_ms))
        size, found = sum(len(each.message or b"") for each in waiting), []
        for entry in waiting:
            if size > MAX_WAITING_BYTES:
                size -= len(entry.message or b"")
                found.append(entry)
        return found

    def change(self, entry: TrackedEntry) -> None:
        """Take note that an entry has changed. `save` writes it."""
        if entry.outcome:
            entry.message = entry.charset = None
        self._changed[entry.feed, entry.digest] = entry
        self._gone.discard((entry.feed, entry.digest))

    def configure(self, feeds: Collection[str], now_ms: int) -> None:
        """Adapt to a new configuration with these feeds.

        Entries of other feeds have left. Entries that were refused because of the old configuration are forgotten, so
        that the next reading of their feed finds them as new.
        """
        for name, known in self._entries.items():
            if name not in feeds:
                self._leave(known.values(), set(), now_ms)
            elif refused := [each for each in known.values() if each.outcome in BY_CONFIGURATION]:
                for entry in refused:
                    self._forget(entry)
                self._validators[name] = Validators()
                self._changed_feeds.add(name)

    def _leave(self, entries: Collection[TrackedEntry], present: Collection[bytes], now_ms: int) -> None:
        """Note which entries are no longer present, and forget those that left long ago, or are too many."""
        for entry in [each for each in entries if each.digest not in present]:
            if entry.left_ms is None:
                entry.left_ms = now_ms
                self.change(entry)
            elif now_ms - entry.left_ms > KEPT_MS:
                self._forget(entry)
        left = sorted((each for each in entries if each.left_ms is not None), key=lambda each: each.left_ms or 0)
        for entry in left[: max(0, len(entries) - MAX_TRACKED)]:
            self._forget(entry)

    def _forget(self, entry: TrackedEntry) -> None:
        del self._entries[entry.feed][entry.digest]
        self._changed.pop((entry.feed, entry.digest), None)
        self._gone.add((entry.feed, entry.digest))

    # ---- the file ----------------------------------------------------------------------------------------------------

    async def save(self) -> None:
        """Write all changes to the file. If that fails, `error` says why, and the next call writes them."""
        async with self._writing:
            changed, feeds, gone = list(self._changed.items()), list(self._changed_feeds), list(self._gone)
            if not (changed or feeds or gone):
                return
            rows = [astuple(entry) for _, entry in changed]
            validators = [(name, *astuple(self._validators[name])) for name in feeds]
            self._changed, self._changed_feeds, self._gone = {}, set(), set()
            try:
                if self._db is None:
                    self._connect()
                writing = asyncio.ensure_future(asyncio.to_thread(self._write, rows, validators, gone))
                try:
                    await asyncio.shield(writing)
                finally:  # also if this task is cancelled: nobody else may use the connection meanwhile
                    await asyncio.wait({writing})
                self.error = None
            except BaseException as error:
                self._changed = dict(changed) | self._changed
                self._changed_feeds |= set(feeds)
                self._gone |= set(gone) - self._changed.keys()
                if not isinstance(error, (sqlite3.Error, ConfigError)):
                    raise
                self.error = describe(error)

    def _write(
        self, rows: list[tuple[Any, ...]], validators: list[tuple[str, ...]], gone: list[tuple[Any, ...]]
    ) -> None:
        """Write everything in one transaction."""
        assert self._db is not None, "`save` has opened it"
        marks = ", ".join("?" * len(fields(TrackedEntry)))
        self._db.execute("BEGIN IMMEDIATE")
        with committing(self._db):
            self._db.executemany("DELETE FROM entry WHERE feed = ? AND digest = ?", gone)
            self._db.executemany(f"INSERT OR REPLACE INTO entry VALUES ({marks})", rows)  # noqa: S608
            self._db.executemany("INSERT OR REPLACE INTO feed VALUES (?, ?, ?, ?)", validators)
            failpoints.hit("fetch-in-commit")


def _is_of_the_disk(error: Exception) -> bool:
    """Return whether an error says that the disk is full or fails, which may end without any help of the operator."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
