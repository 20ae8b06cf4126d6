"""Devices in a Redis, for any number of processes on any number of machines.

A Redis that can keep an alert log can keep devices, and is reached in the same way (`storage/redis`). The
scripts in `lua/` do the work; `prelude.lua` describes the keys. The rules DevS1 to DevS12 are in the docstring of
`devicestore`; this is how they are kept:

DevS1 to DevS6   Each call is one script. WAITAOF follows on the same connection and waits until the write is synced to
                 disk on the primary, and on as many replicas as were configured.
DevS7            A term is a lease of a shard, and its number is the number of the lease (`leases`).
DevS8            Every wait for Redis ends after some time. While Redis is unreachable, each further call waits again.
DevS9            HSCAN reads the devices shard by shard, after their lines, which only the holder of the shard writes.
DevS10           XREAD reads a stream of changes. Each change has a number, one more than the change before it. If a
                 number is missing, or the data in Redis is no longer the same data set, `follow` yields None.
DevS11           This rule does not apply: any number of processes may use the store.
DevS12           The holder of a shard has its devices in memory. `follow` and renewals of leases notice that Redis may
                 have lost data: the data set is another one (each has a number, its *life*), or has fewer changes or
                 writes than were confirmed, or another server answers. In the last case perhaps nothing is lost, but
                 storing the devices again does no harm.

Example for DevS12: 1,000 writes were confirmed, the primary fails, and the replica that takes over has seen 998. The
next renewal finds 998 writes, or another server, and sets `lost`. Each process stores the devices of its shards again.
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
from ...model.errors import ConfigError, LogUnavailable, StoreUnavailable
from ...storage.redis import target
from ...storage.redis.admission import SECTIONS, admit, ask_sync_mode, refuse_never_syncing
from ...storage.redis.durable import run_durably
from ...storage.redis.primary import ANSWER_S, Primary, Reader, Unfit
from ...storage.redis.scripts import read_script
from ..leases import LEASE_S, Leased
from . import Change, DeliveryRecord, Found, Limits, Put, PutResult, RegistrationKey, StoredDevice, read_line, shard_of

BATCH = 200  # number of devices per HSCAN: some 0.4 MB
FOLLOWED = 1_000  # limit on the changes per XREAD
BLOCK_MS = 1_000  # how long an XREAD waits for changes, in ms
AGAIN_S = 0.5  # pause of `follow` after Redis was unreachable
KEEPS = "devices"

_script = partial(read_script, Path(__file__).parent / "lua")
_OPEN, _PUT, _NOTE, _RESTORE = map(_script, ("open", "put", "note", "restore"))
_ANY = ""  # stands for "no limit"
# These scripts free memory or keep a process's lease alive, so they may run even when Redis is out of memory.
_FORGET, _PURGE, _LEASE, _RELEASE = (
    _script(name, " flags=allow-oom") for name in ("forget", "purge", "lease", "release")
)


class RedisDevices:
    """A store of devices in Redis. The module's docstring says how the rules of `DeviceStore` are kept."""

    def __init__(self, url: str, *, replicas: int = 0) -> None:
        """Create a store in the Redis server at `url`, which has the same format as the URL of the option `--log`.

        Raise ConfigError if the URL is invalid. A write counts as done when the primary and `replicas` replicas have
        synced it.
        """
        where = target.parse(url, "--devices")
        self._name = str(where)
        self._keys = f"{{{where.prefix}}}:push:"
        self._primary = Primary(where)
        self._replicas = replicas
        self.lost = False  # whether Redis may have lost data (DevS12)
        self._writer = secrets.token_bytes(8)
        self._server: object = None  # the server that answered last
        self._life = b""  # the number of the data set there; it becomes greater if Redis starts with no data
        self._writes = 0  # number of confirmed writes to that data set
        self._seen: tuple[bytes | None, int] | None = None  # (data set, number) of the last change that was read

    # ---- start and stop --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Check that Redis is configured suitably for storing devices. Raise ConfigError if it is not.

        If Redis is unreachable, return without checking; the other methods wait until it is back.
        """
        try:
            await self._check_server()
            refuse_never_syncing(await ask_sync_mode(self._primary))
            life, changes = await self._primary.call("EVAL", _OPEN, 1, self._keys)
            self._life, self._seen = life, (life, changes)
        except Unfit as error:
            await self._primary.close()
            raise ConfigError(f"--devices {self._name}: {error}") from None
        except LogUnavailable:
            return

    async def stop(self) -> None:
        """Close the connections to Redis."""
        await self._primary.close()

    # ---- finding and storing devices -------------------------------------------------------------------------

    async def load(self, shards: Collection[int]) -> AsyncIterator[Sequence[Found]]:
        """Yield the devices of these shards (subsets of the devices) in batches (DevS9).

        Each device comes with its delivery records (which alerts it was sent).
        """
        for shard in list(shards):
            told = await self._stored_lines(shard)
            given: set[bytes] = set()  # digests of devices that were yielded; HSCAN may return a device twice
            async for part in self._scan(f"devices:{shard}"):
                fresh = [_device(device, value) for device, value in part.items() if device not in given]
                given |= part.keys()
                if fresh:
                    yield [(each, _lines(each, told.get(each.device, {}))) for each in fresh]

    async def find(self, device: bytes) -> Found | None:
        """Return the device with this digest and its delivery records (which alerts it was sent), or None."""
        shard = shard_of(device)
        value, alerts = await self._ask(
            ("HGET", self._key(f"devices:{shard}"), device), ("ZRANGE", self._key(f"alerts:{shard}"), 0, -1)
        )
        if value is None:
            return None
        values = await self._ask(*[("HGET", self._hash_of(shard, alert), device) for alert in alerts]) if alerts else []
        told = {alert: line for alert, line in zip(alerts, values, strict=True) if line is not None}
        return _device(device, value), _lines(_device(device, value), told)

    async def knowing(self, secret: bytes) -> StoredDevice | None:
        """Return the device that has a secret with this SHA-256, or None if there is no such device."""
        [device] = await self._ask(("HGET", self._key("secrets"), secret))
        found = await self._stored([device]) if device is not None else []
        return next((each for each in found if each.secret == secret), None)

    async def owned(self, owner: bytes) -> Sequence[StoredDevice]:
        """Return all devices that belong to the owner with this digest."""
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
        told = [part for line in lines for part in (line.alert, _packed(line), line.ends_at_ms)]
        arguments = (device.device, _value(device), before, note, *(limits or (_ANY, _ANY)), *told)
        came, replaced = await self._write(_PUT, self._writer, *arguments)
        return Put(PutResult(came.decode()), tuple(replaced))

    async def forget(self, devices: Collection[RegistrationKey]) -> None:
        """Delete these registrations, with the delivery records of their devices (DevS3).

        If a device has registered again meanwhile, its newer registration stays.
        """
        if devices:
            await self._write(_FORGET, self._writer, *[part for each in devices for part in each])

    # ---- records of what was sent to each device -------------------------------------------------------------

    async def note(self, lines: Sequence[DeliveryRecord]) -> Collection[int]:
        """Write delivery records: which revisions of alerts devices were sent (DevS5, DevS6).

        Return the shards (subsets of the devices) whose records were refused, because another process has taken the
        shard (DevS7).
        """
        parts = [
            part
            for line in lines
            for part in (line.device, line.secret, line.term, line.alert, _packed(line), line.ends_at_ms)
        ]
        [refused] = await self._write(_NOTE, *parts)
        return frozenset(refused)

    async def restore(self, devices: Sequence[tuple[StoredDevice, int]]) -> Collection[int]:
        """Store devices again that may have been lost, each with the number of its shard's lease (DevS12).

        A shard is a subset of the devices, which one process at a time leases. Return the shards whose devices were
        refused, because another process has leased the shard since.
        """
        parts = [part for device, term in devices for part in (term, device.device, _value(device))]
        [refused] = await self._write(_RESTORE, *parts)
        return frozenset(refused)

    async def purge(self, shards: Collection[int], now_ms: int, is_over: Callable[[bytes], bool]) -> int:
        """Remove the delivery records of alerts whose end has passed and for which `is_over` returns True.

        `is_over` is called with the digest of an alert. Return how many records were removed.
        """
        shards = list(shards)
        asked = [("ZRANGE", self._key(f"alerts:{shard}"), "-inf", now_ms, "BYSCORE") for shard in shards]
        ended = await self._ask(*asked) if asked else []
        found = [(shard, alert) for shard, alerts in zip(shards, ended, strict=True) for alert in alerts]
        over = [part for shard, alert in found if is_over(alert) for part in (shard, alert)]
        if not over:
            return 0
        [gone] = await self._write(_PURGE, now_ms, *over)
        return int(gone)

    # ---- changes by other processes, and leases of shards ----------------------------------------------------

    async def follow(self) -> AsyncIterator[Sequence[Change] | None]:
        """Yield the changes that other processes make, forever; yield None if some were lost (DevS10)."""
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
        """Renew this process's leases, and return the leases that it has now (rule WPN1).

        A lease gives a process a shard (a subset of the devices) for a limited time. `held` maps each shard that the
        process holds to the number of its lease. If `may_take`, take free shards too. Raise StoreUnavailable if Redis
        can't be used.
        """
        parts = [part for each in held.items() for part in each]
        with _unavailable():
            server = await self._check_server()
            is_another = self._server is not None and server != self._server
            known = self._life, self._writes
            arguments = (process, int(LEASE_S * 1000), int(may_take and not is_another), *known, *parts)
            # Wait until replicas have the renewal, too. Otherwise this process could renew its leases at an old primary
            # that no other process can reach.
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
        """Free shards (subsets of the devices), so that other processes can take them.

        `held` maps each of them to the number of its lease. If `leaving`, this process is about to exit. Raise
        StoreUnavailable if Redis can't be used.
        """
        parts = [part for each in held.items() for part in each]
        with _unavailable():
            await self._primary.call("EVAL", _RELEASE, 1, self._keys, process, int(leaving), *parts)

    # ---- commands to Redis ---------------------------------------------------------------------------------------

    async def _check_server(self) -> object:
        """Check the Redis server and return an object that identifies it.

        Raise Unfit if the server can't be used as it is configured, and LogUnavailable if it can't be reached.
        """
        await self._primary.look()
        return admit(await self._primary.call("INFO", *SECTIONS), volatile=False, keeps=KEEPS)

    async def _write(self, script: str, *arguments: Any) -> list[Any]:
        """Run a script that writes, wait until its writes are durable, and return the script's result."""
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
        """Yield the fields of a hash and their values, in batches."""
        cursor = 0
        while True:
            [[cursor, part]] = await self._ask(("HSCAN", self._key(name), cursor, "COUNT", BATCH))
            yield part
            if cursor == 0:
                return

    async def _stored_lines(self, shard: int) -> dict[bytes, dict[bytes, bytes]]:
        """Return the stored delivery records of the devices of a shard.

        The result is a dict of dicts: device -> alert -> packed `DeliveryRecord`.
        """
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
        """Yield the changes that one connection delivers; return when changes are missing.

        Raise LogUnavailable if the connection fails.
        """
        now = await self._last_change(reader)
        self._check_for_loss(now)
        if self._seen is None or self.lost:
            self._seen = now
            yield None
        is_behind = False  # whether there were more changes than XREAD returned
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
            self._check_for_loss(now)
            if self.lost or (is_behind and not came):
                self._seen = None
                return
            is_behind = now[1] > last

    def _check_for_loss(self, now: tuple[bytes | None, int]) -> None:
        """Set `lost` if the store no longer has changes that this process has already read from it."""
        self.lost = self.lost or (self._seen is not None and (now[0] != self._seen[0] or now[1] < self._seen[1]))

    async def _last_change(self, reader: Reader) -> tuple[bytes | None, int]:
        life, changes = await reader.ask("HMGET", self._key("meta"), "life", "changes")
        return life, int(changes or 0)

    def _key(self, name: str | bytes) -> bytes:
        return self._keys.encode() + (name.encode() if isinstance(name, str) else name)

    def _hash_of(self, shard: int, alert: bytes) -> bytes:
        return self._key(b"told:%d:%b" % (shard, alert))


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except LogUnavailable as error:
        raise StoreUnavailable(str(error)) from None


def _value(device: StoredDevice) -> bytes:
    """Return the stored form of a device, or of one that is damaged just what is stored."""
    if not device.secret:
        return device.sealed
    value: bytes = msgpack.packb(device[1:], use_bin_type=False)  # Lua's MessagePack has only one kind of string
    return value


def _device(device: bytes, value: bytes) -> StoredDevice:
    with contextlib.suppress(TypeError, ValueError, msgpack.UnpackException):
        stored = StoredDevice(device, *msgpack.unpackb(value, raw=True))
        if _value(stored) == value:
            return stored
    return StoredDevice(device, b"", b"", b"", 0, value)  # damaged: no key opens it (DevS13), and `put` replaces it


def _packed(line: DeliveryRecord) -> bytes:
    """Return the stored form of a delivery record, or empty bytes if the record is to be removed."""
    value: bytes = b"" if line.state is None else msgpack.packb((line.number, int(line.state), line.ends_at_ms))
    return value


def _lines(device: StoredDevice, told: Mapping[bytes, bytes]) -> list[DeliveryRecord]:
    """Return the delivery records of a device, decoded. `told` maps the digest of each alert to the packed record."""
    return [read_line(device.device, alert, device.secret, _values(value)) for alert, value in told.items()]


def _values(packed: bytes) -> Sequence[Any]:
    try:
        values: Sequence[Any] = msgpack.unpackb(packed)
    except (ValueError, msgpack.UnpackException):
        return ()
    return values
