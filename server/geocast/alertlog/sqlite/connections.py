"""The connections of a process to the file of a log: one in the thread that writes, two that read.

The thread "log-reader" has one of those that read. The event loop has the other one, `watcher`, on which it reads
`data_version` and small batches. Before each use of a connection, `check` has to be called.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ...model.errors import ConfigError, LogUnavailable, trace
from ...storage.sqlite import committing
from . import log_file
from .rows import select, unavailable

logger = logging.getLogger(__name__)

RETRY_S = 0.25  # the time between two attempts to open the file

_T = TypeVar("_T")


class Connections:
    """Opens the file of a log, and runs queries and transactions on it."""

    def __init__(self, path: Path, max_pages: int | None) -> None:
        """Prepare to open the file at `path`. `max_pages` limits its size in pages, if it is not None."""
        self.path = path
        self.lost = 0  # how many rows could not be read when the file was repaired
        self.write_failed = False  # whether the last transaction failed
        self.watcher: sqlite3.Connection  # this connection and the next two are set while `_problem` is None
        self._reader: sqlite3.Connection
        self._writer: sqlite3.Connection
        self._max_pages = max_pages
        self._problem: str | None = "it is not open"  # why the log can't be used; None if it can
        self._identity: log_file.Identity = ()  # the identity of the files that are open
        self._opening: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._writer_thread = ThreadPoolExecutor(1, "log-writer")
        self._reader_thread = ThreadPoolExecutor(1, "log-reader")

    async def start(self) -> None:
        """Open or create the file, and repair a corrupt one.

        Raise ConfigError if only an operator can solve the problem. A problem that may pass, such as a full disk, is
        not raised. Instead, opening is tried again every RETRY_S seconds, and all other methods raise LogUnavailable
        until this succeeds.
        """
        try:
            await self._open()
        except ConfigError as error:
            raise ConfigError(f"log {self.path}: {error}") from None
        except LogUnavailable as error:
            logger.warning("log %s can't be opened (%s); trying again", self.path, error)
            self._problem = str(error)
            self._opening = asyncio.get_running_loop().create_task(self._open_for_ever())

    async def stop(self) -> None:
        """Close the connections, after the work that the threads have been given."""
        self._stopping.set()
        if self._opening is not None:
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._problem is None:
            await self.in_writer(sqlite3.Connection.close)
            await self._in(self._reader_thread, self._reader.close)
            self.watcher.close()
        self._writer_thread.shutdown()
        self._reader_thread.shutdown()

    async def _open(self) -> None:
        """Open three connections to the file. Raise ConfigError or LogUnavailable if one can't be opened."""
        writer, lost = await self._in(self._writer_thread, lambda: log_file.opened(self.path))
        self.lost += lost
        try:
            reader, watcher = await self._in(self._reader_thread, lambda: log_file.connect_twice(self.path))
            if self._max_pages is not None:
                limit = f"PRAGMA max_page_count = {self._max_pages:d}"
                await self._in(self._writer_thread, lambda: writer.execute(limit).close())
        except sqlite3.Error as error:
            await self._in(self._writer_thread, writer.close)
            raise log_file.reason_of(error) from None
        self._writer, self._reader, self.watcher = writer, reader, watcher
        # From now on `check` compares the files at the path with the files that were opened here.
        self._identity = log_file.identity(self.path)
        self._problem = None

    async def _open_for_ever(self) -> None:
        """Try to open the file every RETRY_S seconds, until this succeeds or the log is stopped.

        Log each new reason for a failure once.
        """
        while self._problem is not None and not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S):
                    await self._stopping.wait()
            try:
                await self._open()
            except (ConfigError, LogUnavailable) as error:
                if str(error) != self._problem:
                    logger.warning("log %s still can't be opened (now because of: %s); trying again", self.path, error)
                self._problem = str(error)
            except Exception as error:
                self._problem = type(error).__name__
                logger.error(
                    "log %s can't be opened because of an unexpected error: %s; trying again", self.path, trace(error)
                )

    def check(self) -> None:
        """Raise LogUnavailable if the log's file is not open, or if the file was deleted or replaced.

        The same applies if the file `-wal` or `-shm` beside it was deleted or replaced. A call makes three stat(2)
        system calls, which take a few microseconds.
        """
        if self._problem is not None:
            raise LogUnavailable(self._problem)
        if log_file.identity(self.path) != self._identity:
            raise LogUnavailable("its file, -wal or -shm was deleted or replaced; put it back, or start the node again")

    async def write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `work` in one transaction, wait until the transaction is synced, and return the result of `work`.

        `work` must not return a cursor: if another thread freed the cursor, its statement would be reset while the
        writer thread may be using it.
        """
        self.check()
        try:
            result = await self.in_writer(lambda db: transact(db, work))
        except LogUnavailable:
            self.write_failed = True
            raise
        self.write_failed = False
        return result

    async def in_writer(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `work` on the connection that writes, without a transaction, and return its result."""
        return await self._in(self._writer_thread, lambda: work(self._writer))

    async def read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `work` in the thread that reads, and return its result."""
        self.check()
        return await self._in(self._reader_thread, lambda: work(self._reader))

    async def select(self, query: str, *values: str | int) -> list[Any]:
        """Run a query in the thread that reads, and return its rows. Raise LogUnavailable if the file can't be read."""
        return await self.read(lambda db: select(db, query, *values))

    @staticmethod
    async def _in(thread: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(thread, work)


def transact(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], _T]) -> _T:
    """Run `work` in one transaction and return its result. If SQLite fails, roll back and raise LogUnavailable.

    BEGIN IMMEDIATE acquires the write lock at once. With a plain BEGIN two processes could read the same last number,
    and one of them would then fail with "database is locked" although it could have waited.
    """
    with unavailable():
        db.execute("BEGIN IMMEDIATE")
        with committing(db):
            return work(db)
