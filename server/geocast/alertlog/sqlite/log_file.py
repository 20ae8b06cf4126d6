"""Functions that create, recognize and repair the file of a log in SQLite.

All of them block until the disk has answered.

Rule 1  A file is written, renamed or repaired only if it is new or empty, or is known to be a log. Any other file at
        this path belongs to another program, and the path is a mistake in the settings.
        Example: `--log /var/lib/app/users.db` names the database of another program. The node refuses to start and does
        not change the file.
Rule 2  A problem that may pass (a full disk, another process's lock, an I/O error) raises LogUnavailable, and the
        caller may try again. A problem that only an operator can solve (no such folder, a folder instead of a file, no
        permission, another program's file, a file of a later release) raises ConfigError.
Rule 3  If SQLite can't read a file any more, the file is repaired without deleting a byte of it. Its readable rows are
        copied into a new file beside it, which is named `.mending`, and `.mended` when it is complete. Then the old
        file is renamed, and the new file takes its place.
        Example: the node dies after the old file was renamed and before the new file took its place. The next start
        finds the `.mended` file and puts it in place. If the node dies earlier, only a `.mending` file is left, and the
        repair begins again.

A file is known to be a log if its header has our `application_id`, or if its schema is that of a log (older files have
no such id). If neither can be read any more, the companion file `.lock` decides: whenever a log is opened, its inode is
written there.
"""

import contextlib
import errno
import fcntl
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TypeAlias

from ...model.errors import ConfigError, LogUnavailable
from .. import codec

logger = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 2.0  # how long to wait for another process that is writing to the file or opening it
LOOK_AGAIN_S = 0.02  # the time between two attempts to acquire the lock
VERSION = 1  # raised only by a release after which older releases must not write to the file any more (LogG6)
APPLICATION_ID = 0x67636C67  # "gclg"
COLUMNS = "position, id, revision, ends_at, payload, checksum"


def is_of_kind(kind: str, table: str = "entry") -> str:
    """Return an SQL condition that is true for call entries of this kind.

    The condition compares the first bytes of the entry.
    """
    head = codec.begins(kind)
    return f"substr({table}.payload, 2, {len(head)}) = x'{head.hex()}'"


_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS entry (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    id       TEXT    NOT NULL,
    revision INTEGER NOT NULL,
    ends_at  INTEGER NOT NULL,
    payload  BLOB    NOT NULL,
    checksum INTEGER NOT NULL,
    UNIQUE (id, revision)
) STRICT;
CREATE INDEX IF NOT EXISTS entry_ends_at_id ON entry (ends_at, id);
DROP INDEX IF EXISTS entry_ends_at; -- releases before this one made it; the one above serves all that it did
CREATE INDEX IF NOT EXISTS entry_with_a_place ON entry (id) WHERE {is_of_kind("call")};
CREATE TABLE IF NOT EXISTS delivery ( -- without more columns, because release 0.1.0 inserts rows of three values
    id    TEXT PRIMARY KEY,
    sent  INTEGER NOT NULL,
    acked INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS delivery_more (
    id       TEXT PRIMARY KEY,
    declined INTEGER NOT NULL,
    pushed   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""
_MAGIC = b"SQLite format 3\0"
_HEADER = 100  # bytes
_ID_AT = slice(68, 72)  # the application id in the header (SQLite's file format, 1.3)
_PAGE = 65_536  # the largest size of a page in bytes; the schema is in the first page
_IN_SCHEMA = b"CREATE TABLE entry ("
_NO_LOG = "is not an alert log; it was not changed"
_NO_FILE = "is not a regular file"
_CORRUPT = "is corrupt: a node would save what can be read into a new file, and keep the old one beside it"
_COMPANIONS = ("", "-wal", "-shm")
Identity: TypeAlias = "tuple[tuple[int, int] | None, ...]"

_PASSING_ERRNOS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT),
}
# SQLITE_CANTOPEN counts as an error that may pass. Its permanent causes have been ruled out before, because the file
# was opened without SQLite first.
_PASSING_CODES = {
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR),
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_CANTOPEN),
}


def opened(path: Path) -> tuple[sqlite3.Connection, int]:
    """Open the log at `path`, and create or repair its file if necessary.

    Return a connection and the number of rows that could not be read. Raise ConfigError or LogUnavailable if the log
    can't be opened (Rule 2).
    """
    try:
        _refuse_special_files(path)
        if (head := _head(path)) and not _may_be_a_log(head) and not _remembered(path):
            raise ConfigError(_NO_LOG)
        # Several processes may start at once. The lock lets one of them at a time check and repair the file.
        with _lock(path) as lock:
            # Try to open the file without SQLite first: the operating system's error says why it can't be opened.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o644))
            db, lost = _create_or_repair(path)
            try:
                _remember(path, lock)
            except OSError:
                db.close()
                raise
            return db, lost
    except (OSError, ValueError, sqlite3.Error) as error:  # ValueError: the path has no file name
        raise reason_of(error) from None


def is_there(path: Path) -> bool:
    """Return whether something is at the path, and not only an empty file."""
    try:
        return path.stat().st_size > 0 or not path.is_file()
    except FileNotFoundError:
        return False
    except OSError:
        return True  # opening it says why it can't be used


def examined(path: Path) -> str:
    """Return a description of what is at `path`. Nothing is created, changed or locked.

    If `opened` could not use the path, raise ConfigError or LogUnavailable (Rule 2). Also raise LogUnavailable if
    `opened` would have to repair the file.
    """
    try:
        _refuse_special_files(path)
        if (head := _head(path)) and not _may_be_a_log(head) and not _remembered(path):
            raise ConfigError(_NO_LOG)
        _refuse_unwritable_paths(path)
        if not any(head):
            return "a file can be made there"
        _examine_the_database(path)
        return "a log that this release can use"
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:
            raise reason_of(error) from None
        if not _bears_the_mark(path) and not _remembered(path):
            raise ConfigError(_NO_LOG) from None
        raise LogUnavailable(_CORRUPT) from None
    except (OSError, ValueError) as error:
        raise reason_of(error) from None


def _refuse_unwritable_paths(path: Path) -> None:
    folder = path.resolve().parent
    folder.stat()  # if there is no such folder, the operating system's error is the clearest
    for each in (folder, *(_companion(path, suffix) for suffix in (*_COMPANIONS, ".lock"))):
        wanted = os.W_OK | (os.X_OK if each is folder else os.R_OK)
        if each.exists() and not os.access(each, wanted, effective_ids=True):
            raise ConfigError(f"no permission to write to {each}")


def _examine_the_database(path: Path) -> None:
    """Raise ConfigError if the file belongs to another program, and sqlite3.DatabaseError if it is corrupt.

    (For a corrupt file the class is DatabaseError itself, not a subclass.) With `immutable=1`, SQLite creates no
    companion files and takes no locks, but ignores the write-ahead log. So the pages are checked only if there is no
    write-ahead log, that is, while no process has the file open.
    """
    if not _head(path).startswith(_MAGIC):
        raise sqlite3.DatabaseError("no database")
    wal = _companion(path, "-wal")
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        _refuse_foreign_databases(db)
        at_rest = not wal.exists() or wal.stat().st_size == 0
        if at_rest and db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("corrupt")


def reason_of(error: Exception) -> ConfigError | LogUnavailable:
    """Return LogUnavailable for an error that may pass, and ConfigError for any other error (Rule 2).

    `error` comes from the operating system or from SQLite. The caller raises the returned error in its place.
    """
    # SQLite's error messages describe conditions such as "database or disk is full". They never contain stored values,
    # so they can be logged.
    reason = str(getattr(error, "strerror", None) or error)
    if isinstance(error, sqlite3.Error):
        passing = getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING_CODES
    else:
        passing = getattr(error, "errno", None) in _PASSING_ERRNOS
    return LogUnavailable(reason) if passing else ConfigError(reason)


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection to the file at `path`.

    It syncs every commit, and overwrites deleted data with zeros. Raise sqlite3.Error if the file can't be opened.
    """
    db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")  # the default depends on how SQLite was built (DP16)
    except sqlite3.Error:
        db.close()
        raise
    return db


def connect_twice(path: Path) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """Return two connections to the file at `path`.

    If the second can't be opened, close the first and raise sqlite3.Error.
    """
    one = connect(path)
    try:
        return one, connect(path)
    except sqlite3.Error:
        one.close()
        raise


def identity(path: Path) -> Identity:
    """Return the identities of the file at `path` and its companions `-wal` and `-shm`: each a pair (device, inode).

    For a file that can't be found, the result has None instead of the pair. The numbers stay the same while a
    connection is open: SQLite removes the companions only when the last connection is closed.
    """
    return tuple(_identity(_companion(path, suffix)) for suffix in _COMPANIONS)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[IO[str]]:
    """Lock the companion file `.lock` for the body of a `with` statement, and yield the file.

    Raise LogUnavailable if another process holds the lock for longer than BUSY_TIMEOUT_S seconds.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    with _companion(path, ".lock").open("a+", encoding="utf-8") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LogUnavailable("another process is opening it") from None
                time.sleep(LOOK_AGAIN_S)
        yield lock


def _companion(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


# ---- how a log is recognized ---------------------------------------------------------------------------------------


def _refuse_special_files(path: Path) -> None:
    """Raise ConfigError if `path` leads to a pipe, a socket or a device.

    Reading such a file could block forever, and a process that runs as root could rename it. For a link, its target is
    checked. Directories are not checked here, because the operating system's own error is clear.
    """
    with contextlib.suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise ConfigError(_NO_FILE)


def _head(path: Path) -> bytes:
    """Return the first bytes of the file, which are its header; b"" if there is no file."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        return file.read(_HEADER)
    return b""


def _may_be_a_log(head: bytes) -> bool:
    """Return whether a file that begins with the bytes `head` is an SQLite database, or has no content.

    A file of zeros has no content: a crash may leave a page of zeros.
    """
    return head.startswith(_MAGIC) or not any(head)


def _remembered(path: Path) -> bool:
    """Return whether the file at `path` is the one that was last opened as a log there.

    (Its inode is stored in the companion file `.lock`.)
    """
    with contextlib.suppress(OSError):
        return _companion(path, ".lock").read_text("utf-8") == str(path.stat().st_ino)
    return False


def _remember(path: Path, lock: IO[str]) -> None:
    if not _remembered(path):
        lock.truncate(0)
        lock.write(str(path.stat().st_ino))
        lock.flush()


def _bears_the_mark(path: Path) -> bool:
    """Return whether a file that SQLite can't read was a log.

    A log is recognized by the application id or the schema of a log, in the first page of the file or of its
    write-ahead log.
    """
    found = b""
    for suffix in ("", "-wal"):
        with contextlib.suppress(OSError), _companion(path, suffix).open("rb") as file:
            found += file.read(_PAGE)
    return found[_ID_AT] == APPLICATION_ID.to_bytes(4, "big") or _IN_SCHEMA in found


def _refuse_foreign_databases(db: sqlite3.Connection) -> None:
    """Raise ConfigError if the database belongs to another program, or was made by a later release."""
    mark = db.execute("PRAGMA application_id").fetchone()[0]
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    columns = {row[1] for row in db.execute("PRAGMA table_info(entry)")}
    if mark not in (0, APPLICATION_ID) or (tables and not columns.issuperset(COLUMNS.split(", "))):
        raise ConfigError(_NO_LOG)
    if db.execute("PRAGMA user_version").fetchone()[0] > VERSION:
        raise ConfigError("made by a later version of geocast")


# ---- how the file is created and repaired --------------------------------------------------------------------------


def _create_or_repair(path: Path) -> tuple[sqlite3.Connection, int]:
    """Open, create or repair the file. Return a connection to it, and the number of rows lost."""
    if _companion(path, ".mended").exists():
        _take_over(path)
    try:
        return _create(path), 0
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:
            raise
        if any(_head(path)) and not _bears_the_mark(path) and not _remembered(path):
            raise ConfigError(_NO_LOG) from None
    lost = _mend(path)
    return _create(path), lost


def _create(path: Path) -> sqlite3.Connection:
    """Open the database at `path`, create the tables that are missing, and return the connection.

    If the file is corrupt, raise sqlite3.DatabaseError itself, not a subclass.
    """
    if (head := _head(path)) and not head.startswith(_MAGIC):
        # SQLite must not open such a file, because it would delete the write-ahead log beside it.
        raise sqlite3.DatabaseError("no database")
    db = connect(path)
    try:
        _refuse_foreign_databases(db)
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("corrupt")
        if not head:  # set the id before the write-ahead log is in use, so that it is written to the file itself
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db


def _mend(path: Path) -> int:
    """Copy every readable row into a new file, which then replaces the file at `path` (Rule 3).

    Return the number of rows that could not be read. Raise OSError or sqlite3.Error if the copy can't be made.
    """
    copy = _companion(path, ".mending")
    for suffix in _COMPANIONS:
        _companion(copy, suffix).unlink(missing_ok=True)
    saved = lost = 0
    with contextlib.closing(_create(copy)) as new:
        new.execute("BEGIN IMMEDIATE")
        for row in _rows_of(path):
            try:
                new.execute(f"INSERT INTO entry ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", row)
                saved += 1
            except sqlite3.IntegrityError:
                lost += 1
            except sqlite3.ProgrammingError:  # the row is (), because its page is damaged
                lost += 1
        new.execute("COMMIT")
        new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    copy.rename(_companion(path, ".mended"))
    kept = _take_over(path)
    text = "log %s was corrupt and has been repaired: %d entries were saved, %d were lost; the old file is kept as %s"
    logger.error(text, path, saved, lost, kept.name)
    return lost


def _take_over(path: Path) -> Path:
    """Replace the corrupt file with its repaired copy. Return the path to which the corrupt file was renamed."""
    old = _companion(path, f".corrupt-{time.strftime('%Y%m%dT%H%M%S')}-{time.time_ns() % 10**9:09d}")
    for suffix in _COMPANIONS:
        with contextlib.suppress(FileNotFoundError):
            _companion(path, suffix).rename(_companion(old, suffix))
    _companion(path, ".mended").rename(path)
    return old


def _rows_of(path: Path) -> Iterator[Sequence[object]]:
    """Yield all rows of a damaged file, with () in place of each row that can't be read.

    Each row is read by a separate query, so that a damaged page makes only its own rows unreadable.
    """
    if not _head(path).startswith(_MAGIC):
        return
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        try:
            # The setting is needed for a file that is shorter than its header says. SQLite reads nothing from such a
            # file otherwise.
            db.execute("PRAGMA writable_schema = ON")
            last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entry'").fetchone()[0]
        except (sqlite3.Error, TypeError):
            return
        query = f"SELECT {COLUMNS} FROM entry NOT INDEXED WHERE position = ?"
        first = _first_position(db)
        for position in range(first, last + 1):
            try:
                row = db.execute(query, (position,)).fetchone()
            except sqlite3.Error:
                row = ()
            if row is not None:
                yield row


def _first_position(db: sqlite3.Connection) -> int:
    try:
        return int(db.execute("SELECT min(position) FROM entry").fetchone()[0] or 1)
    except (sqlite3.Error, TypeError):
        return 1
