"""Functions for the SQLite files of `geocast push`, `geocast fetch` and `geocast relay`.

Each of these processes has a file of its own, with an application id of its own. A file beside it is locked while the
process runs; the kernel releases the lock when the process dies. The alert log, which several processes share, has
other rules (`alertlog/sqlite_file`).
"""

import contextlib
import fcntl
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .model.errors import ConfigError

ADVICE = ", or the alert log; give a file of its own"


def locked(path: Path, option: str) -> IO[bytes]:
    """Lock the database at this path and return the open lock file.

    Raise OSError if the lock file can't be opened, and ConfigError if another process has the lock.
    """
    lock = path.with_name(f"{path.name}.lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise ConfigError(f"{option} {path}: another process has it") from None
    return lock


@contextlib.contextmanager
def opening(
    path: Path,
    application_id: int,
    own_version: int,
    schema: str,
    option: str,
    *,
    advice: str = ADVICE,
    busy_s: float = 5.0,
    max_pages: int | None = None,
) -> Iterator[sqlite3.Connection]:
    """Open or create the database at this path, and close it again if the block raises.

    `advice` ends the error text for another program's file. `busy_s` is the longest wait for a lock. `max_pages` limits
    the size of the file; tests use it to simulate a full disk. Raise ConfigError if the database belongs to another
    program or to a later release of this one.
    """
    db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        [mark], [version] = (db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version"))
        if mark != application_id and db.execute("SELECT 1 FROM sqlite_master").fetchone():
            raise ConfigError(f"{option}: the file is another program's{advice}")
        if version > own_version:
            raise ConfigError(f"{option}: the file was made by a later version of geocast")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        if max_pages is not None:
            db.execute(f"PRAGMA max_page_count = {max_pages:d}")
        db.executescript(schema)
        yield db
    except BaseException:
        db.close()
        raise


@contextlib.contextmanager
def committing(db: sqlite3.Connection) -> Iterator[None]:
    """Commit the transaction that has begun after the block, or roll it back if the block raises."""
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def describe(error: Exception) -> str:
    """Describe an error in a few words, which do not contain the data that was being written."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(getattr(error, "sqlite_errorname", None) or type(error).__name__)
