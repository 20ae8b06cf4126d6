"""Functions for the SQLite files of `geocast push`, `geocast fetch` and `geocast relay`.

Each of these processes has a file of its own, with an application id of its own. A file beside it is locked while the
process runs; the kernel releases the lock when the process dies. The alert log, which several processes share, has
other rules (`alertlog/sqlite_file`).
"""

import fcntl
import sqlite3
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


def refuse_others(
    db: sqlite3.Connection, application_id: int, own_version: int, option: str, advice: str = ADVICE
) -> None:
    """Raise ConfigError if the database belongs to another program or to a later release of this one.

    `advice` ends the error text for another program's file.
    """
    [mark], [version] = (db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version"))
    if mark != application_id and db.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise ConfigError(f"{option}: the file is another program's{advice}")
    if version > own_version:
        raise ConfigError(f"{option}: the file was made by a later version of geocast")


def describe(error: Exception) -> str:
    """Describe an error in a few words, which do not contain the data that was being written."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(getattr(error, "sqlite_errorname", None) or type(error).__name__)
