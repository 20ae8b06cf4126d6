"""A model of a Redis server for the simulator: the commands that geocast uses, and its real scripts in Lua 5.1.

A server keeps the effects of its writes in order, those of a script as one. A replica has the first of them, so a
failover is a new server that begins with these. Clients connect by `SimulatedLoop.create_connection`; what they send
and what they get takes a while, and may be lost with the connection.
"""

import asyncio
import functools
import hashlib
import itertools
import math
from collections import defaultdict

import hiredis
from lupa import lua51

INFO = (
    "redis_version:7.4.0\r\ncluster_enabled:0\r\naof_enabled:1\r\nmaxmemory:0\r\nused_memory:1\r\n"
    "role:{role}\r\nrun_id:{run_id}\r\nmaster_replid:{run_id}\r\nconnected_slaves:1\r\n"
)


class Failure(Exception):  # noqa: N818 (an answer, not an error)
    """Raised for a command that Redis answers with an error."""


def _score(text):
    """Return a bound of a range of scores, and whether the bound itself is left out."""
    text = text.decode() if isinstance(text, bytes) else str(text)
    return float(text.removeprefix("(")), text.startswith("(")


def _id(text, rest=0):
    time_ms, _, number = text.decode().partition("-")
    return int(time_ms), int(number or rest)


def _text(place):
    return b"%d-%d" % place


def _number(value):
    return b"%d" % value if value == int(value) else repr(value).encode()


class Data:
    """The keys of a server, with a method for each command. Arguments are bytes; a write returns its effect too."""

    def __init__(self):
        self.hashes, self.sorted = defaultdict(dict), defaultdict(dict)
        self.streams, self.tops = defaultdict(dict), defaultdict(lambda: (0, 0))

    # ---- hashes

    def hget(self, key, name):
        return self.hashes[key].get(name)

    def hmget(self, key, *names):
        return [self.hashes[key].get(name) for name in names]

    def hvals(self, key):
        return list(self.hashes[key].values())

    def hlen(self, key):
        return len(self.hashes[key])

    def hset(self, key, *pairs):
        self.hashes[key] |= zip(pairs[::2], pairs[1::2], strict=True)
        return 1

    def hdel(self, key, *names):
        return sum(self.hashes[key].pop(name, None) is not None for name in names)

    def hincrby(self, key, name, more):
        self.hashes[key][name] = b"%d" % (int(self.hashes[key].get(name, 0)) + int(more))
        return int(self.hashes[key][name])

    def delete(self, *keys):
        for key in keys:
            for kind in (self.hashes, self.sorted, self.streams):
                kind.pop(key, None)
        return len(keys)

    unlink = delete

    def exists(self, key):
        return int(any(kind.get(key) for kind in (self.hashes, self.sorted, self.streams)))

    def pexpire(self, _key, _ms):
        return 1

    # ---- sorted sets

    def _in_order(self, key):
        return sorted(self.sorted[key].items(), key=lambda each: (each[1], each[0]))

    def zadd(self, key, *rest):
        flag, (score, member) = rest[0] if len(rest) == 3 else b"", rest[-2:]
        there, score = self.sorted[key].get(member), float(score)
        if there is None or flag == b"" or (flag == b"GT" and score > there):
            self.sorted[key][member] = score
        return int(there is None)

    def zrem(self, key, *members):
        return sum(self.sorted[key].pop(member, None) is not None for member in members)

    def zscore(self, key, member):
        score = self.sorted[key].get(member)
        return None if score is None else _number(score)

    def zcard(self, key):
        return len(self.sorted[key])

    def _between(self, key, low, high):
        (low, above), (high, below) = _score(low), _score(high)
        return [
            (member, score)
            for member, score in self._in_order(key)
            if (score > low if above else score >= low) and (score < high if below else score <= high)
        ]

    def zcount(self, key, low, high):
        return len(self._between(key, low, high))

    def zrange(self, key, low, high, *options):
        if b"BYSCORE" in options:
            found = self._between(key, low, high)
        else:
            found, last = self._in_order(key), int(high)
            found = found[int(low) : None if last == -1 else last + 1]
        if b"LIMIT" in options:
            at = options.index(b"LIMIT")
            found = found[int(options[at + 1]) :][: int(options[at + 2])]
        flat = [(member, _number(score)) if b"WITHSCORES" in options else (member,) for member, score in found]
        return [each for pair in flat for each in pair]

    def zremrangebyscore(self, key, low, high):
        gone = [member for member, _ in self._between(key, low, high)]
        return self.zrem(key, *gone)

    # ---- streams

    def xadd(self, key, place, *fields):
        self.streams[key][_id(place)] = list(fields)
        self.tops[key] = max(self.tops[key], _id(place))
        return place

    def xdel(self, key, *places):
        return sum(self.streams[key].pop(_id(place), None) is not None for place in places)

    def xlen(self, key):
        return len(self.streams[key])

    def xtrim(self, key, _what, least):
        gone = [place for place in self.streams[key] if place < _id(least)]
        return self.xdel(key, *map(_text, gone))

    def xrange(self, key, low, high, *count):
        after = low.startswith(b"(")
        first = (0, 0) if low == b"-" else _id(low.removeprefix(b"("))
        last = (math.inf, 0) if high == b"+" else _id(high, math.inf)
        found = [
            [_text(place), fields]
            for place, fields in sorted(self.streams[key].items())
            if first <= place <= last and not (after and place == first)
        ]
        return found[: int(count[1])] if count else found

    def xrevrange(self, key, high, low, *count):
        found = self.xrange(key, low, high)[::-1]
        return found[: int(count[1])] if count else found


_WRITES = {
    "HSET", "HDEL", "HINCRBY", "DEL", "UNLINK", "PEXPIRE", "ZADD", "ZREM", "ZREMRANGEBYSCORE", "XADD", "XDEL", "XTRIM",
}  # fmt: skip
_METHODS = {"DEL": "delete"}


class Server:
    """A Redis server, which is a primary until it is replaced.

    `replicated` is the number of effects that its replica has, `synced` whether its disk works.
    """

    def __init__(self, world, effects=()):
        self.world, self.loop, self.rng = world, world.loop, world.rng
        self.run_id = f"{world.rng.getrandbits(160):040x}"
        self.ahead_ms = 0
        self.role, self.disk_works, self.has_replica, self.is_silent = "master", True, True, False
        self.data, self.effects, self.replicated = Data(), list(effects), len(effects)
        self._of_one = []  # the effects of the present command
        for effect in itertools.chain(*effects):
            self._do(*effect)
        self._of_one.clear()
        self.lines, self._changed = [], asyncio.Event()

    def time_ms(self):
        """Return the time of this server."""
        return self.world.now_ms + self.ahead_ms

    def _do(self, name, *arguments):
        if name in _WRITES:
            if name == "XADD" and arguments[1] == b"*":
                top = self.data.tops[arguments[0]]
                place = max((self.time_ms(), 0), (top[0], top[1] + 1))
                arguments = (arguments[0], _text(place), *arguments[2:])
            self._of_one.append((name, *arguments))
        return getattr(self.data, _METHODS.get(name, name.lower()))(*arguments)

    def replicate(self):
        """Let the replica have everything."""
        self.replicated = len(self.effects)
        self._wake()

    def _wake(self):
        self._changed.set()
        self._changed = asyncio.Event()

    # ---- scripts

    def _call(self, *arguments):
        """Do what a script calls (`redis.call`)."""
        name, *rest = (_number(each) if isinstance(each, int | float) else each for each in arguments)
        name = name.decode()
        if name == "TIME":
            return _to_lua([b"%d" % (self.time_ms() // 1000), b"%d" % (self.time_ms() % 1000 * 1000)])
        return _to_lua(self._do(name, *rest))

    def _eval(self, script, keys, *arguments):
        lua = _runtime()
        lua.globals()[b"redis"][b"call"] = self._call
        answer = _function(script)(lua.table_from(arguments[: int(keys)]), lua.table_from(arguments[int(keys) :]))
        return _of_lua(answer)

    def _wrote(self, line):
        self.effects.append(tuple(self._of_one))
        self._of_one.clear()
        line.offset = len(self.effects)
        self._wake()
        self.loop.call_later(self.rng.choice((0.001, 0.001, 0.01, 0.3)), self._replicate_to, len(self.effects))

    def _replicate_to(self, count):
        if self.has_replica:
            self.replicated = max(self.replicated, min(count, len(self.effects)))
            self._wake()

    # ---- commands

    async def answer(self, command, line):
        """Return the answer to a command. Raise Failure."""
        name, *arguments = command
        name = name.decode().upper()
        if name in ("WAITAOF", "WAIT"):
            return await self._wait(line, name, *map(int, arguments))
        if name == "XREAD":
            return await self._xread(line, arguments)
        if self.role != "master" and name in {*_WRITES, "EVAL"}:
            raise Failure("READONLY You can't write against a read only replica.")
        if name == "INFO":
            return INFO.format(role=self.role, run_id=self.run_id).encode()
        if name == "CONFIG":
            return [b"appendfsync", b"always"]
        answer = self._eval(*arguments) if name == "EVAL" else self._do(name, *arguments)
        if self._of_one:
            self._wrote(line)
        return answer

    async def _wait(self, line, name, *arguments):
        replicas, within_ms = arguments[-2:]
        wanted, deadline = line.offset, self.loop.time() + within_ms / 1000

        def done():
            local = int(self.disk_works and self.role == "master")
            return local, int(self.replicated >= wanted)

        while True:
            local, others = done()
            enough = others >= replicas and (name == "WAIT" or local >= arguments[0])
            if enough or not await self._wake_before(deadline):
                return done()[1] if name == "WAIT" else list(done())

    async def _xread(self, line, arguments):
        options = dict(itertools.pairwise(arguments[: arguments.index(b"STREAMS")]))
        key, after = arguments[-2:]
        count, block_ms = int(options[b"COUNT"]), int(options.get(b"BLOCK", 0))
        deadline = self.loop.time() + block_ms / 1000
        while True:
            found = self.data.xrange(key, b"(" + after, b"+", b"COUNT", b"%d" % count)
            if found or not block_ms or not await self._wake_before(deadline):
                return [[key, found]] if found else None

    async def _wake_before(self, deadline):
        if self.loop.time() >= deadline:
            return False
        try:
            async with asyncio.timeout_at(deadline):
                await self._changed.wait()
        except TimeoutError:
            return True  # look once more
        return True

    # ---- connections

    def cut(self, owner=None):
        """Cut all connections, or those of one process."""
        for line in list(self.lines):
            if owner in (None, line.owner):
                line.lose()


class Line(asyncio.Transport):
    """A client's connection to a server, and the server's side of it."""

    def __init__(self, server, protocol, owner):
        super().__init__()
        self.server, self.offset, self.owner = server, 0, owner
        self._protocol, self._loop, self._rng = protocol, server.loop, server.rng
        self._is_open, self._reader = True, hiredis.Reader()
        self._sent, self._waiting, self._answers = [], [], []
        self._due_s = self._back_s = 0.0
        self._work = None
        server.lines.append(self)

    # ---- what the client calls

    def write(self, data):
        """Send bytes, which arrive after a while and in order."""
        if self._is_open:
            self._due_s = self._after(self._due_s)
            self._sent.append(bytes(data))
            self._loop.call_at(self._due_s, self._arrived)

    def writelines(self, parts):
        """Send several pieces."""
        self.write(b"".join(parts))

    def is_closing(self):
        """Return whether the connection has ended."""
        return not self._is_open

    def close(self):
        """End the connection."""
        self.lose(None)

    abort = close

    def get_extra_info(self, _name, default=None):
        """Return nothing: there is no socket."""
        return default

    def can_write_eof(self):
        """Return False."""
        return False

    def pause_reading(self):
        """Do nothing: a client reads all that comes."""

    resume_reading = pause_reading

    # ---- the server's side

    def _after(self, earlier_s):
        return max(earlier_s, self._loop.time() + self._rng.choice((0.0, 0.0002, 0.001, 0.02)))

    def lose(self, error=ConnectionResetError):
        """End the connection, with whatever is on its way."""
        if self._is_open:
            self._is_open = False
            self.server.lines.remove(self)
            if self._work is not None:
                self._work.cancel()
            self._loop.call_soon(self._protocol.connection_lost, error and error("reset"))

    def _arrived(self):
        data = self._sent.pop(0)
        if not self._is_open or self.server.is_silent:
            return
        self._reader.feed(data)
        while (command := self._reader.gets()) is not False:
            self._waiting.append(command)
        if self._work is None and self._waiting:
            self._work = self._loop.create_task(self._serve())

    async def _serve(self):
        while self._waiting:
            command = self._waiting.pop(0)
            try:
                answer = _encoded(await self.server.answer(command, self))
            except Failure as failure:
                answer = f"-{failure}\r\n".encode()
            except Exception as error:
                self.server.world.fail(f"{command[0].decode()}: {error!r}")
                return
            self._back_s = self._after(self._back_s)
            self._answers.append(answer)
            self._loop.call_at(self._back_s, self._answered)
        self._work = None

    def _answered(self):
        answer = self._answers.pop(0)
        if self._is_open and not self.server.is_silent:
            self._protocol.data_received(answer)


def _encoded(answer):
    if answer is None:
        return b"$-1\r\n"
    if isinstance(answer, int):
        return b":%d\r\n" % answer
    if isinstance(answer, bytes):
        return b"$%d\r\n%s\r\n" % (len(answer), answer)
    return b"*%d\r\n%s" % (len(answer), b"".join(map(_encoded, answer)))


# ---- Lua -----------------------------------------------------------------------------------------------------------


@functools.cache
def _runtime():
    lua = lua51.LuaRuntime(encoding=None)
    redis = lua.table()
    redis[b"sha1hex"] = lambda text: hashlib.sha1(text).hexdigest().encode()
    lua.globals()[b"redis"] = redis
    return lua


@functools.cache
def _function(script):
    head, _, rest = script.partition(b"\n")
    body = rest if head.startswith(b"#!") else script
    return _runtime().execute(b"return function(KEYS, ARGV)\n" + body + b"\nend")


def _to_lua(value):
    """Convert an answer as Redis does for a script: nothing is false."""
    if value is None:
        return False
    return _runtime().table_from([_to_lua(each) for each in value]) if isinstance(value, list) else value


def _of_lua(value):
    """Convert the result of a script as Redis does: a list ends at the first nil, and numbers lose their fractions."""
    if value is None or value is False:
        return None
    if value is True:
        return 1
    if isinstance(value, int | float):
        return int(value)
    if isinstance(value, bytes):
        return value
    found = []
    while (each := value[len(found) + 1]) is not None:
        found.append(_of_lua(each))
    return found
