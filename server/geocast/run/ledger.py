"""The command `geocast ledger`: follows the alert log and writes a ledger of it, until SIGTERM or SIGINT."""

import asyncio
import contextlib
import logging
import signal
from pathlib import Path

from .. import __version__, tasks
from ..alertlog.sqlite_tail import SqliteTail
from ..alertlog.tail import LogTail, refuse_missing
from ..approvals.reviewers import Reviewers
from ..clock import SystemClock
from ..config import REDIS_SCHEMES
from ..ledger.files import Ledger
from ..ledger.recording import LedgerRecorder
from ..model.errors import ConfigError, LogUnavailable

logger = logging.getLogger(__name__)

AGAIN_S = 1.0  # from a failure to read the log to the next attempt


def observer_of(log: str) -> LogTail:
    """Return an object that follows the alert log named by `--log`.

    Raise ConfigError if the value of `--log` is not valid.
    """
    scheme, _, rest = log.partition(":")
    if scheme in REDIS_SCHEMES:
        from ..alertlog.redis_streams.tail import RedisTail

        return RedisTail(log)
    if scheme == "sqlite" and rest:
        return SqliteTail(Path(rest))
    raise ConfigError("--log: expected sqlite:PATH, or a URL of Redis (redis://HOST:PORT)")


async def write(log: str, folder: Path, reviewers: Reviewers | None) -> str:
    """Follow the alert log and write a ledger into `folder`, until SIGTERM or SIGINT.

    Return the ledger's head (the number and the hash of its last record) as text.

    If `reviewers` is None, no signatures are checked. Raise ConfigError if the value of `log` is not valid or the log
    can't be opened, and OSError if the ledger can't be written.
    """
    tasks.watch_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    observer = observer_of(log)
    try:
        await observer.start()
        await refuse_missing(observer)
        with Ledger(folder, SystemClock()) as ledger:
            ledger.write({"what": "started", "version": __version__})
            text = "the ledger now follows the log %s; the ledger's last record (number:SHA-256) is %s"
            logger.info(text, observer.name, ledger.head)
            following = asyncio.ensure_future(_follow(observer, LedgerRecorder(ledger.write, ledger.known, reviewers)))
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait([following, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in (following, stopping):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
            return str(ledger.head)
    finally:
        await observer.stop()


async def _follow(observer: LogTail, recorder: LedgerRecorder) -> None:
    """Write the entries of the log to the ledger, forever.

    If the log can't be read, try again after AGAIN_S seconds. A record is written without an await, so this coroutine
    can't be cancelled in the middle of a record.
    """
    trouble = ""
    while True:
        try:
            async with contextlib.aclosing(observer.follow()) as batches:
                async for batch in batches:
                    if trouble:
                        logger.warning("reading the log works again")
                        trouble = ""
                    for sight in batch:
                        if recorder.take(sight):
                            logger.warning("the log has an entry that can't be trusted, at position %d", sight.position)
                        await asyncio.sleep(0)  # let the loop handle a signal
        except LogUnavailable as error:
            if str(error) != trouble:
                logger.warning("the log can't be read: %s; trying again", error)
            trouble = str(error)
        await asyncio.sleep(AGAIN_S)
