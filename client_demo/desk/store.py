"""The stored state of the desk: items with decisions, and the sign-in keys of reviewers, in one SQLite file.

The file contains rows of the feed, which have addresses, and the sign-in keys. So only its owner may read it.
"""

import json
import os
import secrets
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from .queue import Item

KEPT_MS = 7 * 86_400_000  # how long items are kept after their last decision


class StoreError(Exception):
    """Raised if the file can't be used. The text is one line for the user."""


class Store:
    """The stored state, in the SQLite file `path`, which only one service may use at a time.

    Raise StoreError if the file can't be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise StoreError(f"{path} can't be used: {error.strerror}") from None
        self._db = sqlite3.connect(path, timeout=1, isolation_level=None)
        try:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("BEGIN IMMEDIATE")  # takes the lock, which EXCLUSIVE keeps
            self._db.execute("CREATE TABLE IF NOT EXISTS items (id TEXT PRIMARY KEY, decided_at INTEGER, item TEXT)")
            self._db.execute("CREATE TABLE IF NOT EXISTS reviewers (name TEXT PRIMARY KEY, key TEXT)")
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._db.close()
            reason = "another desk is using it" if "locked" in str(error) else str(error)
            raise StoreError(f"{path} can't be used: {reason}") from None

    def close(self) -> None:
        """Close the database file."""
        self._db.close()

    def items(self, now_ms: int) -> list[Item]:
        """Return the items whose last decision is at most 7 days old. Delete all older items."""
        self._db.execute("DELETE FROM items WHERE decided_at < ?", (now_ms - KEPT_MS,))
        rows = self._db.execute("SELECT item FROM items ORDER BY rowid").fetchall()
        try:
            return [Item.from_map(json.loads(text)) for (text,) in rows]
        except (ValueError, TypeError, KeyError):
            raise StoreError(f"{self._path} was written by another version of the desk") from None

    def save(self, item: Item) -> None:
        """Store an item. It is on the disk when this method returns. Raise StoreError if it can't be stored."""
        row = item.id, item.history[-1].at, json.dumps(item.to_map())
        try:
            self._db.execute("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", row)
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} can't be written: {error}") from None

    def keys(self, names: Iterable[str]) -> dict[str, str]:
        """Return the sign-in key of each of these reviewers: the stored one, or a new one.

        Delete the keys of all other reviewers.
        """
        known = dict(self._db.execute("SELECT name, key FROM reviewers").fetchall())
        keys = {name: known.get(name) or secrets.token_urlsafe(24) for name in names}
        self._db.execute("DELETE FROM reviewers")
        self._db.executemany("INSERT INTO reviewers VALUES (?, ?)", keys.items())
        return keys
