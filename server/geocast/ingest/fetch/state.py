"""The outcomes of the entries of all feeds, in memory and in one SQLite file (rule FE4).

An entry is stored before its message is posted, and its outcome afterwards. So a process that was killed knows which
entries it has to try again. What memory says counts: if the file can't be written, for example because the disk is
full, the process goes on, and each later `save` writes everything that is not in the file yet. After a restart, the
messages whose outcome is missing in the file are posted again, and the node answers that it knows them.

    FE4  Outcomes, and the validators of a feed (`ETag`, `Last-Modified`), are stored in one transaction with the
         entries that they are about. An entry is forgotten KEPT_MS after it left its feed.
"""

import errno
import sqlite3
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Any

from ...model.errors import ConfigError, StoreUnavailable
from ...storage.sqlite import Database, FileKind, describe
from ...storage.write_behind import WriteBehind
from .documents import ListedEntry

KEPT_MS = 7 * 24 * 3600 * 1000
BY_CONFIGURATION = ("host-not-allowed", "sender-not-allowed")  # refusals that another configuration may turn around
MAX_TRACKED = 50_000  # the most entries of one feed that are kept; the first that left are forgotten earlier
MAX_WAITING_BYTES = 64 * 1024 * 1024  # of the messages of one feed that wait for the node

_SCHEMA = """
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
"""
_KIND = FileKind("fetch", "--state", 0x67636665, 1, _SCHEMA)  # "gcfe"


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


_PUT = f"INSERT OR REPLACE INTO entry VALUES ({', '.join('?' * len(fields(TrackedEntry)))})"  # noqa: S608


class FetchState(WriteBehind[tuple[str, bytes], tuple[str, tuple[Any, ...]]]):
    """The entries of all feeds. A note is a statement with its values, about a feed and the digest of an entry.

    If the file can't be written, `error` says why, and what memory says counts until it can be.
    """

    AT_ONCE = sys.maxsize  # so that the validators of a feed are never without its entries

    def __init__(self, path: Path) -> None:
        super().__init__("--state")
        self._entries: dict[str, dict[bytes, TrackedEntry]] = {}
        self._validators: dict[str, Validators] = {}
        self._db = Database(path, _KIND)
        self.ahead = Counter[str]()  # by feed: bytes of the messages that its reader has fetched and not posted yet

    async def start(self) -> None:
        """Open or create the file, and read it.

        If the disk is full or fails, `error` says so, and it is tried again with each write; until then the messages
        of all entries are posted again. Raise ConfigError if the file can't be used, or if another process uses it.
        """
        try:
            await self._open()
        except ConfigError as error:
            cause = error.__cause__
            if cause is None or not _is_of_the_disk(cause):
                raise
            self.failed(describe(cause))

    async def stop(self) -> None:
        """Try once more to write what was noted, then close the file."""
        await self.finish()
        await self._db.close()

    async def _open(self) -> None:
        """Open the file, and add to memory what is not known there."""
        entries, validators = await self._db.open(_read)
        for entry in entries:
            self._entries.setdefault(entry.feed, {}).setdefault(entry.digest, entry)
        self._validators = validators | self._validators

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
            self._set_validators(feed, validators)
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
        """Take note that an entry has changed. It is written soon."""
        if entry.outcome:
            entry.message = entry.charset = None
        self.note({(entry.feed, entry.digest): (_PUT, astuple(entry))})

    def _set_validators(self, feed: str, validators: Validators) -> None:
        self._validators[feed] = validators
        self.note({(feed, b""): ("INSERT OR REPLACE INTO feed VALUES (?, ?, ?, ?)", (feed, *astuple(validators)))})

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
                self._set_validators(name, Validators())

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
        key = entry.feed, entry.digest
        self.note({key: ("DELETE FROM entry WHERE feed = ? AND digest = ?", key)})

    async def store(self, notes: Mapping[tuple[str, bytes], tuple[str, tuple[Any, ...]]]) -> None:
        """Run these statements in one transaction. Raise StoreUnavailable if that fails."""
        if not self._db.is_open:
            try:
                await self._open()
            except ConfigError as error:
                raise StoreUnavailable(describe(error.__cause__ or error)) from None
        await self._db.write_all(notes.values())


def _read(db: sqlite3.Connection) -> tuple[list[TrackedEntry], dict[str, Validators]]:
    entries = [TrackedEntry(*row) for row in db.execute("SELECT * FROM entry")]
    return entries, {name: Validators(*values) for name, *values in db.execute("SELECT * FROM feed")}


def _is_of_the_disk(error: BaseException) -> bool:
    """Return whether an error says that the disk is full or fails, which may end without any help of the operator."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
