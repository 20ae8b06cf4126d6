"""Tools for tests of logs in a Redis stream: logs, followers, and a connection to Redis that can fail."""

import asyncio
import dataclasses
import time
from contextlib import aclosing, asynccontextmanager, suppress

from alertlog.reading import PATIENCE_S, live
from support.fakes import a_revision

from geocast.alertlog.redis_streams import RedisStreamsLog
from geocast.alertlog.redis_streams.stored import Stored
from geocast.model.errors import LogUnavailable


async def write(log, *entries):
    """Store entries as a later release does, whose script also stores other kinds after a cancel."""
    stored = [Stored(*entry).arguments("of a later release", more=False) for entry in entries]
    for what, *_ in await log._writer.store(stored, mending=True):
        assert what == b"stored"


@asynccontextmanager
async def opened(url, **options):
    """Yield a started log, which is stopped at the end of the block."""
    log = RedisStreamsLog(url, **options)
    await log.start()
    try:
        yield log
    finally:
        await log.stop()


def run(main):
    """Run a coroutine function to its end, within a time limit."""

    async def bounded():
        async with asyncio.timeout(2 * PATIENCE_S):
            return await main()

    return asyncio.run(bounded())


def lasting(alert_id="a-1", revision=1, **changes):
    """Return a revision that is live for an hour by the clock of this machine."""
    return a_revision(alert_id, revision, expires_at=int(time.time() * 1000) + 3_600_000, **changes)


async def until(true, what):
    """Wait until `true()` or `await true()` is true, and fail after a time limit."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with suppress(LogUnavailable):
            found = true()
            if await found if asyncio.iscoroutine(found) else found:
                return
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        await asyncio.sleep(0.01)


class Following:
    """A follower of a log that runs until it is stopped, as in a node.

    It records (id, revision) of each entry that it gets.
    """

    def __init__(self, log):
        self.given = []
        self.positions = []
        self.failures = []
        self._log = log

    async def __aenter__(self):
        self._task = asyncio.ensure_future(self._follow())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def known(self):
        """The recorded (id, revision) pairs without repetitions."""
        return list(dict.fromkeys(self.given))

    async def _follow(self):
        while True:
            try:
                async with aclosing(self._log.follow(self.positions[-1] if self.positions else 0)) as batches:
                    async for batch in batches:
                        self.given += [(entry.id, entry.revision) for _, entry in batch]
                        self.positions += [position for position, _ in batch]
            except LogUnavailable as error:
                self.failures.append(str(error))
            await asyncio.sleep(0.05)


class Link:
    """A proxy to a Redis that can be led to another Redis, and can lose replies.

    Purpose: an address that moves at a failover, and a network that fails after a command. Lies: it loses one reply, at
    a place of the test's choice.
    """

    def __init__(self, server):
        self.port = server.port
        self.lose_reply_to = None  # bytes of the next request whose reply is lost, with the connection
        self.lost = 0
        self._writers = set()

    async def __aenter__(self):
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_):
        self._listener.close()
        self.cut()
        await self._listener.wait_closed()

    def lead_to(self, server):
        """Forward new connections to `server` from now on."""
        self.port = server.port
        self.cut()

    def cut(self):
        """Close all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader, writer):
        there, away = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers |= {writer, away}
        losing = False

        async def requests():
            nonlocal losing
            while data := await reader.read(1 << 20):
                if self.lose_reply_to is not None and self.lose_reply_to in data:
                    self.lose_reply_to, losing = None, True
                away.write(data)

        async def replies():
            while data := await there.read(1 << 20):
                if losing:
                    self.lost += 1
                    return
                writer.write(data)

        tasks = [asyncio.ensure_future(requests()), asyncio.ensure_future(replies())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for end in (writer, away):
            end.transport.abort()
            self._writers.discard(end)


# ---- outcomes of appends -----------------------------------------------------------------------------------------


async def not_raising(awaitable):
    """Return whether the coroutine ends without LogUnavailable."""
    await awaitable
    return True


# ---- lost and restored entries -----------------------------------------------------------------------------------


async def put_back(log, ids):
    """Wait until these alerts have been restored and are live in the log."""

    async def all_live():
        return {entry.id for entry in await live(log, int(time.time() * 1000))} == set(ids)

    await until(all_live, f"{ids} are live")


def sample_of(log, name):
    """Return the value of one of a log's metrics."""
    return next(sample.value for metric in log.metrics() for sample in metric.samples if sample.name == name)


def lasting_later(later):
    """Return a copy of a later release's entry that lives as long as the entries of `lasting`."""
    return later._replace(ends_at=lasting().ends_at)


def stored_in(server):
    """Return (id, number, kind, ends_at, bytes) of all entries in the stream, in order."""
    found = [fields for _, fields in server.command("XRANGE", "{geocast}:stream", "-", "+")]
    return [(f[b"i"].decode(), int(f[b"r"]), f[b"k"].decode(), int(f[b"x"]), f[b"p"]) for f in found if b"h" not in f]


# ---- entries of calls --------------------------------------------------------------------------------------------


def in_time(entry):
    """Return a copy of a call's entry that ends when the entries of `lasting` do."""
    return dataclasses.replace(entry, ends_at=lasting().ends_at)


async def is_given(following, *wanted):
    """Wait until a follower has got these (id, number) pairs."""
    await until(lambda: set(wanted) <= set(following.given), f"{wanted} are followed")


# ---- a replica in the hands of somebody else -----------------------------------------------------------------------


class Between:
    """Stands before a replica and changes its answers.

    Purpose: a replica that somebody else controls, or that is broken. Lies: `alter` gets each answer to XREAD, as lists
    and bytes, and returns what the reader gets; bytes are sent as they are.
    """

    def __init__(self, server, alter):
        self._port = server.port
        self._alter = alter

    async def __aenter__(self):
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        return self

    async def __aexit__(self, *_):
        self._listener.close()

    async def _serve(self, reader, writer):
        there, away = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, ValueError):
                while True:
                    request = await _resp(reader)
                    away.write(_as_resp(request))
                    answer = await _resp(there)
                    is_read = request[0] == b"XREAD"
                    writer.write(_as_resp(self._alter(answer) if is_read and answer else answer))
        finally:
            for end in (writer, away):
                end.transport.abort()


async def _resp(reader):
    line = await reader.readuntil(b"\r\n")
    if line[:1] == b"$" and line[1:2] != b"-":
        return (await reader.readexactly(int(line[1:]) + 2))[:-2]
    if line[:1] == b"*" and line[1:2] != b"-":
        return [await _resp(reader) for _ in range(int(line[1:]))]
    return None if line[1:2] == b"-" else memoryview(line)


def _as_resp(value):
    match value:
        case memoryview():
            return bytes(value)
        case bytes():
            return b"$%d\r\n%s\r\n" % (len(value), value)
        case None:
            return b"*-1\r\n"
        case _:
            return b"*%d\r\n" % len(value) + b"".join(map(_as_resp, value))


class Withholding:
    """Alters answers to XREAD: leaves out the entries of one alert, and renumbers what follows."""

    def __init__(self, alert_id):
        self._id = alert_id
        self._gone = set()

    def __call__(self, answer):
        [[key, items]] = answer
        kept = []
        for place, fields in items:
            named = dict(zip(fields[::2], fields[1::2], strict=True))
            if named.get(b"i") == self._id.encode():
                self._gone.add(place)
                continue
            named[b"n"] = b"%d" % (int(named[b"n"]) - len(self._gone))
            kept.append([place, [text for field in named.items() for text in field]])
        return [[key, kept]] if kept else None
