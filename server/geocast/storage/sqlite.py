"""The SQLite files of `geocast push`, `geocast fetch` and `geocast relay`.

Each of these processes has a file of its own, with an application id of its own. A file beside it is locked while the
process runs; the kernel releases the lock when the process dies. The alert log, which several processes share, has
other rules (`alertlog/sqlite`).
"""

import asyncio
import contextlib
import fcntl
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from .. import failpoints
from ..model.errors import ConfigError, StoreUnavailable

BUSY_S = 2.0  # the longest wait for a lock of the database, which another process or a backup may have
_LOOK_S = 0.0005  # pause between attempts to get the lock

_T = TypeVar("_T")


class FileKind(NamedTuple):
    """The kind of a file: the program's `name`, the `option` that names the file, and what the file has."""

    name: str
    option: str
    application_id: int
    version: int
    schema: str


class Database:
    """An SQLite file, and the one thread that uses it.

    The thread does one operation at a time, while the event loop goes on. A write is one WAL transaction with
    `synchronous=FULL`: COMMIT returns after the fsync. A hung disk therefore holds up `close`, but nothing else.
    """

    def __init__(self, path: Path, kind: FileKind, *, alone: bool = True, max_pages: int | None = None) -> None:
        """Create the object for the file at `path`; `open` opens it.

        If `alone` is true, no other process uses the file; otherwise somebody else has locked it. `max_pages` limits
        the size of the file, in pages; tests use it to simulate a full disk.
        """
        self.is_open = False
        self._path, self._kind, self._alone, self._max_pages = path, kind, alone, max_pages
        self._thread = ThreadPoolExecutor(1, kind.name)
        self._lock: IO[bytes] | None = None
        self._db: sqlite3.Connection  # set by `open`

    async def open(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        """Open or create the file, and return what `read` reads from it.

        Raise ConfigError if the file belongs to another program or to a later release of this one, if another process
        uses it, or, with the error as the cause, if the disk refuses. After that, it can be tried again.
        """
        try:
            if self._alone and str(self._path) != ":memory:":  # SQLite's name for a database without a file
                self._lock = locked(self._path, self._kind.option)
            found = await self._run(lambda: self._connect(read))
        except (OSError, sqlite3.Error, ValueError) as error:
            self._unlock()
            raise ConfigError(f"{self._kind.option} {self._path}: {describe(error)}") from error
        except ConfigError:
            self._unlock()
            raise
        self.is_open = True
        return found

    async def close(self) -> None:
        """Finish the operations that are under way, then close the file."""
        if self.is_open:
            self.is_open = False
            await self._run(self._db.close)
        self._thread.shutdown()
        self._unlock()

    async def do(self, work: Callable[[sqlite3.Connection], _T], within_s: float | None = None) -> _T:
        """Return what `work` returns.

        Raise StoreUnavailable if SQLite fails, or if there is no result after `within_s` seconds. What was not begun by
        then is not done; what was begun is done when the disk works again.
        """
        try:
            async with asyncio.timeout(within_s):
                return await self._run(lambda: work(self._db))
        except TimeoutError:
            raise StoreUnavailable("the disk does not answer") from None
        except sqlite3.Error as error:
            raise StoreUnavailable(describe(error)) from None

    async def write(self, work: Callable[[sqlite3.Connection], _T], within_s: float | None = None) -> _T:
        """Do `work` in one transaction, and return its result after the sync to disk. Raise what `do` raises."""

        def transaction(db: sqlite3.Connection) -> _T:
            _begin(db)
            with committing(db):
                result = work(db)
                failpoints.hit(f"{self._kind.name}-in-commit")
                return result

        return await self.do(transaction, within_s)

    async def write_all(self, statements: Iterable[tuple[str, tuple[Any, ...]]]) -> None:
        """Run statements, each with its values, in one transaction. Raise what `do` raises."""

        def work(db: sqlite3.Connection) -> None:
            for statement, values in statements:
                db.execute(statement, values)

        await self.write(work)

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _connect(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        option, kind = self._kind.option, self._kind
        db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            [mark], [version] = (db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version"))
            if mark != kind.application_id and db.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise ConfigError(f"{option}: the file is another program's, or the alert log; give a file of its own")
            if version > kind.version:
                raise ConfigError(f"{option}: the file was made by a later version of geocast")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            if self._max_pages is not None:
                db.execute(f"PRAGMA max_page_count = {self._max_pages:d}")
            marks = f"PRAGMA application_id = {kind.application_id:d}; PRAGMA user_version = {kind.version:d};"
            db.executescript(f"{kind.schema}; {marks}")
            found = read(db)
        except BaseException:
            db.close()
            raise
        self._db = db
        return found

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


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


def _begin(db: sqlite3.Connection) -> None:
    """Begin a transaction.

    If another process is writing, wait at most BUSY_S for it. SQLite can wait by itself, but it checks less and less
    often: with four processes, a write took 110 ms that way instead of 70 ms.
    """
    until = time.monotonic() + BUSY_S
    db.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                    raise
            time.sleep(_LOOK_S)
    finally:
        db.execute(f"PRAGMA busy_timeout = {BUSY_S * 1000:.0f}")


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


def describe(error: BaseException) -> str:
    """Describe an error in a few words, which do not contain the data that was being written."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(getattr(error, "sqlite_errorname", None) or type(error).__name__)
