"""The command `geocast ledger`: follows the alert log and writes a ledger of it, until SIGTERM or SIGINT."""

import asyncio
import logging
from pathlib import Path

from .. import __version__, tasks
from ..alertlog.tail import LogTail
from ..approvals.reviewers import Reviewers
from ..ledger.files import Ledger
from ..ledger.recording import LedgerRecorder
from .backends import entries_of, opened_tail
from .process import Process

logger = logging.getLogger(__name__)


async def write(log: str, folder: Path, reviewers: Reviewers | None) -> str:
    """Follow the alert log and write a ledger into `folder`, until SIGTERM or SIGINT.

    Return the ledger's head (the number and the hash of its last record) as text.

    If `reviewers` is None, no signatures are checked. Raise ConfigError if the value of `log` is not valid or the log
    can't be opened, and OSError if the ledger can't be written.
    """
    async with Process() as process:
        tail = await process.enter(opened_tail(log))
        with Ledger(folder, process.clock) as ledger:
            ledger.write({"what": "started", "version": __version__})
            text = "the ledger now follows the log %s; the ledger's last record (number:SHA-256) is %s"
            logger.info(text, tail.name, ledger.head)
            following = asyncio.ensure_future(_follow(tail, LedgerRecorder(ledger.write, ledger.known, reviewers)))
            await tasks.first_of(float("inf"), following, process.stop.asked.wait())
            if following.done():
                await following
            return str(ledger.head)


async def _follow(tail: LogTail, recorder: LedgerRecorder) -> None:
    """Write the entries of the log to the ledger, forever.

    A record is written without an await, so this coroutine can't be cancelled in the middle of a record.
    """
    async for batch in entries_of(tail):
        for raw in batch:
            if recorder.take(raw):
                logger.warning("the log has an entry that can't be trusted, at position %d", raw.position)
            await asyncio.sleep(0)  # let the loop handle a signal
