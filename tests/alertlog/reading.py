"""How tests of a log read it, and open one for each test of a class."""

import asyncio
import inspect
from contextlib import aclosing

from support.fakes import NOON_MS, a_revision

from geocast.alertlog import PAGE

ENDS_MS = a_revision().ends_at
PATIENCE_S = 30  # how long a test waits for what has to come


def with_log(test):
    """Wrap a coroutine that takes an open log, so that pytest runs it as a test."""

    def run(self, tmp_path):
        async def main():
            log = self.new(tmp_path)
            await log.start()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await test(self, log)
            finally:
                await log.stop()

        asyncio.run(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def with_logs(contract):
    """Pass an open log to each coroutine function among the tests of a class."""
    for name, test in list(vars(contract).items()):
        if name.startswith("test_") and inspect.iscoroutinefunction(test):
            setattr(contract, name, with_log(test))
    return contract


async def read_on(follower):
    """Return the entries that a follower gets until it has reached the end of the log."""
    found = []
    async for batch in follower:
        found += batch
        if not batch:
            return found
    raise AssertionError("a follower never ends")


async def read(log, after=0, ended_before_ms=0):
    """Return all entries after a position, by a new follower."""
    async with aclosing(log.follow(after, ended_before_ms)) as follower:
        return await read_on(follower)


async def entries(log):
    """Return all entries, in order."""
    return [entry for _, entry in await read(log)]


async def pages(log, now_ms=NOON_MS, limit=PAGE):
    """Return the live alerts as a list of pages."""
    found, after = [], None
    while not found or after is not None:
        page = await log.live(now_ms, after, limit)
        found.append(page.revisions)
        assert after is None or page.after is None or page.after > after
        after = page.after
    return found


async def live(log, now_ms=NOON_MS):
    """Return all live alerts, from one page."""
    [found] = await pages(log, now_ms)
    return found
