"""Devices in a Redis: any number of processes, on any number of machines.

A Redis that may keep an alert log may keep devices, and is reached in the same way (`alertlog/redis_streams`). The
scripts in `lua/` do what is told here; `prelude.lua` says with which keys.

DevS1 to DevS6   Each call is one script. Behind it, on the same connection, WAITAOF waits until it is synced here, and
                 on as many replicas as was asked.
DevS7            A term is a lease, and has its number (`leases.py`).
DevS8            Every wait on Redis has an end. Whoever calls again waits for a Redis that is away.
DevS9            By HSCAN, shard by shard; lines first, which nobody writes but who holds the shard.
DevS10           A stream, by XREAD. A change has a number, one more than the one before it: who misses one, or comes to
                 another life of the store, is told so.
DevS11           Does not apply: it can have any number.
DevS12           Whoever holds a shard has all of it in memory. That Redis has lost something is noticed by who follows,
                 and at the next renewal: the store has another life, or has seen fewer changes or writes than were
                 confirmed, or another server answers, which may lack nothing. To put back what is there does no harm.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgpack

from ... import failpoints
from ...alertlog.redis_streams import target
from ...alertlog.redis_streams.connection import ANSWER_S, Primary, Reader, Unfit
from ...alertlog.redis_streams.heartbeat import SECTIONS, admit, ask_sync_mode, refuse_never_syncing
from ...alertlog.redis_streams.scripts import read_script
from ...alertlog.redis_streams.writer import run_durably
from ...errors import ConfigError, LogUnavailable, StoreUnavailable
from ..leases import LEASE_S, Leased
from . import Change, DeliveryRecord, Found, Limits, Put, PutResult, RegistrationKey, State, StoredDevice, shard_of

BATCH = 200  # devices that one HSCAN asks for: some 0.4 MB
FOLLOWED = 1_000  # changes that one XREAD asks for
BLOCK_MS = 1_000  # that it waits for some to come
AGAIN_S = 0.5  # before a follower looks again for a Redis that is away
KEEPS = "devices"

_script = partial(read_script, Path(__file__).parent / "lua")
_OPEN, _PUT, _NOTE, _RESTORE = map(_script, ("open", "put", "note", "restore"))
_ANY = ""  # no limit
# What makes room, or keeps a process in its place, is done in a Redis that is full, too.
_FORGET, _PURGE, _LEASE, _RELEASE = (
    _script(name, " flags=allow-oom") for name in ("forget", "purge", "lease", "release")
)


class RedisDevices:
    """Devices in a Redis. The module tells how it keeps the rules of the port."""

    def __init__(self, url: str, *, replicas: int = 0) -> None:
        """`url`: as of `--log`. `replicas`: on how many a write has to be. Raises ConfigError."""
        where = target.parse(url, "--devices")
        self._name = str(where)
        self._keys = f"{{{where.prefix}}}:push:"
        self._primary = Primary(where)
        self._replicas = replicas
        self.lost = False  # DevS12
        self._writer = secrets.token_bytes(8)
        self._server: object = None  # that answered last …
        self._life = b""  # … the history of the store that it had …
        self._writes = 0  # … and how many writes of that are known to have been done
        self._seen: tuple[bytes | None, int] | None = None  # the last change that was followed: life, number

    # ---- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Look what kind of Redis it is. Raises ConfigError if it can't keep devices.

        One that is away is waited for, by every method.
        """
        try:
            await self._ask_how_it_is()
            refuse_never_syncing(await ask_sync_mode(self._primary))
            life, changes = await self._primary.call("EVAL", _OPEN, 1, self._keys)
            self._life, self._seen = life, (life, changes)
        except Unfit as error:
            await self._primary.close()
            raise ConfigError(f"--devices {self._name}: {error}") from None
        except LogUnavailable:
            return

    async def stop(self) -> None:
        """Close the connections."""
        await self._primary.close()

    # ---- devices ---------------------------------------------------------------------------------------------

    async def load(self, shards: Collection[int]) -> AsyncIterator[Sequence[Found]]:
        """The devices of these shards, some at a time, each with what it was told (DevS9)."""
        for shard in list(shards):
            told = await self._told(shard)
            given: set[bytes] = set()  # HSCAN may give one twice
            async for part in self._scan(f"devices:{shard}"):
                fresh = [_device(device, value) for device, value in part.items() if device not in given]
                given |= part.keys()
                if fresh:
                    yield [(each, _lines(each, told.get(each.device, {}))) for each in fresh]

    async def find(self, device: bytes) -> Found | None:
        """The device with this digest, and what it was told."""
        shard = shard_of(device)
        value, alerts = await self._ask(
            ("HGET", self._key(f"devices:{shard}"), device), ("ZRANGE", self._key(f"alerts:{shard}"), 0, -1)
        )
        if value is None:
            return None
        values = await self._ask(*[("HGET", self._told_of(shard, alert), device) for alert in alerts]) if alerts else []
        told = {alert: line for alert, line in zip(alerts, values, strict=True) if line is not None}
        return _device(device, value), _lines(_device(device, value), told)

    async def knowing(self, secret: bytes) -> StoredDevice | None:
        """The device whose secret has this SHA-256."""
        [device] = await self._ask(("HGET", self._key("secrets"), secret))
        return next(iter(await self._stored([device])), None) if device is not None else None

    async def owned(self, owner: bytes) -> Sequence[StoredDevice]:
        """All devices of an owner, by its digest."""
        [value] = await self._ask(("HGET", self._key("owners"), owner))
        return await self._stored(msgpack.unpackb(value, raw=True)) if value else []

    async def put(
        self,
        device: StoredDevice,
        was: StoredDevice | None,
        *,
        limits: Limits | None = None,
        note: bytes = b"",
        lines: Sequence[DeliveryRecord] = (),
    ) -> Put:
        """Store a device (DevS1, DevS2)."""
        before = b"" if was is None else _value(was)
        told = [part for line in lines for part in (line.alert, _told(line), line.ends_at_ms)]
        arguments = (device.device, _value(device), before, note, *(limits or (_ANY, _ANY)), *told)
        came, replaced = await self._write(_PUT, self._writer, *arguments)
        return Put(PutResult(came.decode()), tuple(replaced))

    async def forget(self, devices: Collection[RegistrationKey]) -> None:
        """Forget devices, as far as they are what is known (DevS3)."""
        if devices:
            await self._write(_FORGET, self._writer, *[part for each in devices for part in each])

    # ---- what they were told -----------------------------------------------------------------------------------

    async def note(self, lines: Sequence[DeliveryRecord]) -> Collection[int]:
        """Write what devices were told (DevS5, DevS6); the shards whose lines are refused (DevS7)."""
        parts = [
            part
            for line in lines
            for part in (line.device, line.secret, line.term, line.alert, _told(line), line.ends_at_ms)
        ]
        [refused] = await self._write(_NOTE, *parts)
        return frozenset(refused)

    async def restore(self, devices: Sequence[tuple[StoredDevice, int]]) -> Collection[int]:
        """Put back devices that may be lost, each by its term (DevS12); the shards that are refused."""
        parts = [part for device, term in devices for part in (term, device.device, _value(device))]
        [refused] = await self._write(_RESTORE, *parts)
        return frozenset(refused)

    async def purge(self, shards: Collection[int], now_ms: int, is_over: Callable[[bytes], bool]) -> int:
        """Take away the lines of alerts whose end has passed and that are over; how many that were."""
        shards = list(shards)
        asked = [("ZRANGE", self._key(f"alerts:{shard}"), "-inf", now_ms, "BYSCORE") for shard in shards]
        ended = await self._ask(*asked) if asked else []
        found = [(shard, alert) for shard, alerts in zip(shards, ended, strict=True) for alert in alerts]
        over = [part for shard, alert in found if is_over(alert) for part in (shard, alert)]
        if not over:
            return 0
        [gone] = await self._write(_PURGE, now_ms, *over)
        return int(gone)

    # ---- what changes, and who has what ------------------------------------------------------------------------

    async def follow(self) -> AsyncIterator[Sequence[Change] | None]:
        """What others change, for ever (DevS10)."""
        while True:
            with contextlib.suppress(LogUnavailable):
                reader = await self._primary.reader()
                try:
                    async for found in self._follow(reader):
                        yield found
                finally:
                    await reader.close()
            await asyncio.sleep(AGAIN_S)

    async def lease(self, process: str, held: Mapping[int, int], *, may_take: bool) -> Leased:
        """Renew the leases of shards, by their numbers, and take others (WPN1). Raises StoreUnavailable."""
        parts = [part for each in held.items() for part in each]
        with _unavailable():
            server = await self._ask_how_it_is()
            is_another = self._server is not None and server != self._server
            known = self._life, self._writes
            arguments = (process, int(LEASE_S * 1000), int(may_take and not is_another), *known, *parts)
            # Durable and confirmed, or an old primary that only this process reaches would renew for it.
            call = ("EVAL", _LEASE, 1, self._keys, *arguments)
            answer = await run_durably(self._primary, call, replicas=self._replicas, volatile=False)
        life, writes, share, crowded, first_ms, *rest = answer
        is_lost = is_another or (known[0] != b"" and (life != known[0] or writes < known[1]))
        self.lost = self.lost or is_lost
        self._server, self._life = server, life
        self._writes = writes if is_lost else max(self._writes, writes)
        numbers = dict(zip(map(int, rest[::2]), map(int, rest[1::2]), strict=True))
        return Leased(numbers, share, bool(crowded), first_ms / 1000 if first_ms >= 0 else None, is_lost)

    async def release(self, process: str, held: Mapping[int, int], *, leaving: bool) -> None:
        """Let go of shards, by their numbers; `leaving`: the process ends. Raises StoreUnavailable."""
        parts = [part for each in held.items() for part in each]
        with _unavailable():
            await self._primary.call("EVAL", _RELEASE, 1, self._keys, process, int(leaving), *parts)

    # ---- Redis ---------------------------------------------------------------------------------------------------

    async def _ask_how_it_is(self) -> object:
        """Who the server is. Raises Unfit, LogUnavailable."""
        await self._primary.look()
        return admit(await self._primary.call("INFO", *SECTIONS), volatile=False, keeps=KEEPS)

    async def _write(self, script: str, *arguments: Any) -> list[Any]:
        """What a script answers, once what it wrote is durable."""
        call = ("EVAL", script, 1, self._keys, *arguments)
        failpoints.hit("push-in-commit")
        with _unavailable():
            done: list[Any] = await run_durably(self._primary, call, replicas=self._replicas, volatile=False)
        life, writes, *answer = done
        if life == self._life:
            self._writes = max(self._writes, writes)
        return answer

    async def _ask(self, *commands: tuple[Any, ...]) -> list[Any]:
        with _unavailable():
            return await self._primary.pipe(commands)

    async def _scan(self, name: str | bytes) -> AsyncIterator[dict[bytes, bytes]]:
        """The fields of a hash and their values, some at a time."""
        cursor = 0
        while True:
            [[cursor, part]] = await self._ask(("HSCAN", self._key(name), cursor, "COUNT", BATCH))
            yield part
            if cursor == 0:
                return

    async def _told(self, shard: int) -> dict[bytes, dict[bytes, bytes]]:
        """What the devices of a shard were told: device -> alert -> a line as it is stored."""
        found: dict[bytes, dict[bytes, bytes]] = {}
        [alerts] = await self._ask(("ZRANGE", self._key(f"alerts:{shard}"), 0, -1))
        for alert in alerts:
            async for part in self._scan(b"told:%d:%b" % (shard, alert)):
                for device, value in part.items():
                    found.setdefault(device, {})[alert] = value
        return found

    async def _stored(self, devices: Sequence[bytes]) -> list[StoredDevice]:
        values = await self._ask(*[("HGET", self._key(f"devices:{shard_of(each)}"), each) for each in devices])
        return [_device(device, value) for device, value in zip(devices, values, strict=True) if value is not None]

    async def _follow(self, reader: Reader) -> AsyncIterator[Sequence[Change] | None]:
        """What comes on one connection; it ends when that is not all there is. Raises LogUnavailable."""
        now = await self._last_change(reader)
        self._see(now)
        if self._seen is None or self.lost:
            self._seen = now
            yield None
        is_behind = False  # there was more than what came
        while True:
            life, last = self._seen
            block = () if is_behind else ("BLOCK", BLOCK_MS)
            call = ("XREAD", "COUNT", FOLLOWED, *block, "STREAMS", self._key("changes"), f"{last}-0")
            answer = await reader.ask(*call, within_s=BLOCK_MS / 1000 + ANSWER_S)
            found: list[Change] = []
            for place, fields in answer[0][1] if answer else ():
                number = int(place.partition(b"-")[0])
                if number != last + 1:
                    self._seen = None
                    return
                last = number
                if fields[b"w"] != self._writer:
                    found.append(Change(fields[b"d"], fields[b"n"]))
            came, self._seen = last > self._seen[1], (life, last)
            if found:
                yield found
            now = self._seen if came else await self._last_change(reader)
            self._see(now)
            if self.lost or (is_behind and not came):
                self._seen = None
                return
            is_behind = now[1] > last

    def _see(self, now: tuple[bytes | None, int]) -> None:
        """Look whether the changes that were followed are there."""
        self.lost = self.lost or (self._seen is not None and (now[0] != self._seen[0] or now[1] < self._seen[1]))

    async def _last_change(self, reader: Reader) -> tuple[bytes | None, int]:
        life, changes = await reader.ask("HMGET", self._key("meta"), "life", "changes")
        return life, int(changes or 0)

    def _key(self, name: str | bytes) -> bytes:
        return self._keys.encode() + (name.encode() if isinstance(name, str) else name)

    def _told_of(self, shard: int, alert: bytes) -> bytes:
        return self._key(b"told:%d:%b" % (shard, alert))


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except LogUnavailable as error:
        raise StoreUnavailable(str(error)) from None


def _value(device: StoredDevice) -> bytes:
    value: bytes = msgpack.packb(device[1:], use_bin_type=False)  # Lua's MessagePack has one kind of strings
    return value


def _device(device: bytes, value: bytes) -> StoredDevice:
    return StoredDevice(device, *msgpack.unpackb(value, raw=True))


def _told(line: DeliveryRecord) -> bytes:
    """A line as it is stored; nothing, if it is to be taken away."""
    value: bytes = b"" if line.state is None else msgpack.packb((line.number, int(line.state), line.ends_at_ms))
    return value


def _lines(device: StoredDevice, told: Mapping[bytes, bytes]) -> list[DeliveryRecord]:
    """What a device was told: alert -> a line as it is stored."""
    found = []
    for alert, value in told.items():
        number, state, ends_at_ms = msgpack.unpackb(value)
        found.append(DeliveryRecord(device.device, alert, number, State(state), ends_at_ms, device.secret))
    return found
