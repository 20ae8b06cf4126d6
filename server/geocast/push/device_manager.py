"""Who can be woken: the devices of the shards that this process holds, how they come and go, and what time alone does
to them (WPR9, WPS5, WPN1, WPN2).

    a shard is taken ──> its devices, from the store ──> `devices`, rows of the hub ──> scheduler.py
    a device was put or forgotten, by any process ──> read again
    a shard is let go ──> rows and devices are gone from here; the store has them

Rule 1  What is in force here of a device is what the store had when it was last read. Whoever changes one changes the
        store, and then it is read again: here, or by whoever has its shard. So of two changes the later one counts.
Rule 2  One is read and taken in after the other. One that is read while its shard is loaded is read once more after
        that: a batch may be older.
Rule 3  What is to be forgotten is forgotten here at once, and in the store as soon as that can be; if the store has
        something newer of it, that comes back by a change.

All of it is one thread: between two awaits nothing else changes the hub.
"""

import asyncio
import contextlib
import functools
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..alertlog import Counts
from ..clock import Clock, Now
from ..errors import StoreUnavailable, trace
from ..geometry.sphere import cell_place
from ..matching.filters import Filter
from ..model import languages
from ..model.alert import SEVERITY_RANK, Entry, Untrusted
from ..stream.live_alerts import LiveAlerts
from ..stream.session import Place
from .addresses import Services
from .client import PushClient
from .delivery_journal import DeliveryJournal
from .device_repository import Change, DeviceRepository, OpenedDevice
from .devices import Device, Devices, Times
from .devicestore import (
    DeliveryRecord,
    DeviceStore,
    Found,
    Limits,
    PutResult,
    RegistrationKey,
    State,
    StoredDevice,
    shard_of,
)
from .encryption import Keyring, Record
from .scheduler import PushScheduler
from .shards import Shards
from .webpush import Vapid

logger = logging.getLogger(__name__)

RENEW_AGAIN_MS = 60_000  # … or so much later, if it was busy, or its service did not take it
LOADED = 200  # devices that are taken in before the loop gets its turn
RESTORED = 200  # that are put back into the store at once
RECHECKED = 500  # … and judged anew after a reload
LET_GO_S = 10.0  # that requests have to end when a shard is let go
AGAIN_S = 1.0  # after the store was out of reach


class Changed(NamedTuple):
    """What came of a change; None: nothing was to be put. What was there before, and how many pushes follow."""

    result: PutResult | None
    before: OpenedDevice | None
    live: int


class DeviceManager:
    """The devices of this process. The module tells how it works; `scheduler` has what is on its way to them."""

    def __init__(
        self,
        capacity: int,
        store: DeviceStore,
        shards: Shards,
        client: PushClient,
        keyring: Keyring,
        services: Services,
        vapid: Vapid,
        clock: Clock,
        chance: Callable[[], float] = random.random,
        stands: Callable[[Record], bool | None] = lambda _record: True,
    ) -> None:
        """`capacity`: how many devices there may be here; `stands` says whether the token of one is still good.

        None: its key is not known here, which after a reload is no good either.
        """
        self.devices = Devices()
        self.recorder = DeliveryJournal(store, shards)
        self.records = DeviceRepository(store, self.recorder, keyring)
        self.sending = PushScheduler(
            capacity + 1,  # and a row for `count_owed`
            self.recorder,
            client,
            keyring,
            shards,
            services,
            vapid,
            clock,
            chance,
            gone=lambda device: self.forget([device], "gone"),
            too_large=lambda device: self._rewrite(device, lambda record: replace(record, small=True)),
            worked=lambda device: self._rewrite(device, lambda record: replace(record, worked=True)),
        )
        self.fanout = self.sending.fanout
        self.forgotten: Counter[str] = Counter()  # devices, by why
        self.set_aside = 0  # devices of the store that can't be used
        self.has_taken = asyncio.Event()  # the first shards are loaded
        self._capacity = capacity
        self._store = store
        self._shards = shards
        self._keyring = keyring
        self._services = services
        self._vapid = vapid
        self._clock = clock
        self._stands = stands
        self._leases, self._tests = Times(), Times()
        self._to_forget: set[RegistrationKey] = set()  # that the store would not forget yet
        self._unsure: set[bytes] = set()  # devices of which the store may have what is not in force here
        self._turn = asyncio.Lock()  # Rule 2
        self._reading: set[bytes] | None = None  # what was read while shards are loaded
        self._ids: Sequence[Mapping[bytes, str]] | None = None  # of live alerts, by digest, for each key

    @property
    def live(self) -> LiveAlerts:
        """The live alerts of this process."""
        return self.fanout.live

    # ---- the log, and time ---------------------------------------------------------------------------------------

    def deliver(self, entry: Entry | Untrusted) -> None:
        """Take an entry of the log."""
        self._ids = None
        self.fanout.deliver(entry, self.sending.tick())
        self.sending.wake()

    async def sweep(self) -> None:
        """Do all that depends on time alone. Call it some times a second."""
        now = self.sending.tick()
        self.fanout.sweep(now)
        self.live.take_counts()  # what devices took is not what services have taken
        self.sending.resume_due()
        for device in self._tests.take(now.wall_ms):
            self.fanout.set_rights(device.row, may_test=_may_test(device.record, now))
        over = self._look_at_leases(now)
        self.sending.wake()
        await self.forget(over, "lease")
        await self.write_out()

    async def write_out(self) -> None:
        """Have the store know what is known here. What it can't take now it is given again."""
        if self._to_forget:
            await self._forget_in_store(())
        with contextlib.suppress(StoreUnavailable):
            for digest in list(self._unsure):
                await self.read(digest)
                self._unsure.discard(digest)
        await self.recorder.flush()

    async def store_counts(self, store: Callable[[Mapping[str, Counts]], Awaitable[bool]]) -> None:
        """Have what services took stored by `store`, which says whether it could be (H7).

        What was sent is in the store of devices before it is counted: so what comes twice after a kill counts once.
        """
        taken, self.sending.pushed = self.sending.pushed, Counter()
        await self.recorder.flush()
        if not await store({alert_id: Counts(pushed=pushes) for alert_id, pushes in taken.items()}):
            self.sending.pushed.update(taken)

    def _look_at_leases(self, now: Now) -> list[Device]:
        """The devices whose lease is over; those whose lease ends soon are told so."""
        over = []
        for device in self._leases.take(now.wall_ms):
            device.looked_at_ms = None
            if device.until_ms <= now.wall_ms:
                over.append(device)
            elif device.lease_due_ms <= now.wall_ms:
                self._renew(device, now)
            else:
                self._look_at(device, device.lease_due_ms)
        return over

    def _look_at(self, device: Device, at_ms: int) -> None:
        """Look at its lease then, or earlier: however often it registers, it is in `_leases` once, or a few times."""
        if device.looked_at_ms is None or at_ms < device.looked_at_ms:
            device.looked_at_ms = at_ms
            self._leases.put(at_ms, device)

    def _renew(self, device: Device, now: Now) -> None:
        """Tell a device that its lease ends soon, once; if it is busy, a minute later (WPR9)."""
        until_ms = device.until_ms

        async def note_renewal(was_taken: bool) -> None:
            if was_taken and device.is_here and device.until_ms == until_ms:
                await self._rewrite(device, lambda record: replace(record, renewed=True))
                self._look_at(device, device.lease_due_ms)
            else:
                self._look_at(device, now.wall_ms + RENEW_AGAIN_MS)

        if not self.sending.renew(device, now, until_ms, note_renewal):
            self._look_at(device, now.wall_ms + RENEW_AGAIN_MS)

    async def _rewrite(self, device: Device, rewrite: Callable[[Record], Record]) -> None:
        """Have something else known of a device. If the store is away, it is until the next start."""
        device.record = rewrite(device.record)
        known = device.known

        def change(kept: OpenedDevice | None) -> tuple[Record, int] | None:
            if kept is None or kept.stored.known != known:
                return None  # it is another one by now
            return rewrite(kept.record), known.until_ms

        with contextlib.suppress(StoreUnavailable):
            await self.records.change(device.digest, change)

    # ---- shards --------------------------------------------------------------------------------------------------

    async def take(self, terms: Mapping[int, int]) -> None:
        """Take in the devices of these shards, and tell them what they lack (WPS5, WPO3). Raises StoreUnavailable."""
        reading = self._reading = set()
        try:
            async for batch in self._store.load(terms):
                for start in range(0, len(batch), LOADED):
                    async with self._turn:
                        for found in batch[start : start + LOADED]:
                            await self._take_in(found, terms, reading)
                    await asyncio.sleep(0)
            self._reading = None
            for digest in reading:
                await self.read(digest)
            await self.recheck()
        except BaseException:
            self._leave_shards(terms)
            raise
        finally:
            self._reading = None
        self.has_taken.set()
        self._fly_all()

    async def _take_in(self, found: Found, terms: Mapping[int, int], again: set[bytes]) -> None:
        stored, lines = found
        shard = shard_of(stored.device)
        if self.devices.find(stored.device) is not None or self._shards.terms.get(shard) != terms[shard]:
            return
        try:
            record, key = self._keyring.open(stored.sealed, stored.device, stored.until_ms)
        except ValueError:
            self.set_aside += 1
            return
        if key > 0:  # by an older key: written anew by the first, which may have put it into another shard
            renamed = self.records.sealed(record, stored.until_ms)
            told = self._known_ids()[key]
            renamed_lines = [
                line._replace(device=renamed.device, alert=self._keyring.digest("alert", told[line.alert]))
                for line in lines
                if line.alert in told
            ]
            await self.recorder.rename(stored, renamed, renamed_lines)
            again.add(renamed.device)
            return
        self._enter(OpenedDevice(stored, record, lines), {})

    async def let_go(self, shards: Collection[int]) -> None:
        """Have the devices of these shards no more. What is under way gets some time to be answered and noted."""
        await self.sending.ended(self._leave_shards(shards), LET_GO_S)
        await self.recorder.flush()
        self._leave_shards(shards)  # who has registered meanwhile: whoever has the shard next reads it from the store

    def _leave_shards(self, shards: Collection[int]) -> list[Device]:
        left = [device for device in self.devices if device.shard in shards]
        for device in left:
            self._leave(device)
        return left

    def _fly_all(self) -> None:
        """Send every live alert to whoever lacks it (WPO3)."""
        now = self.sending.tick()
        for alert in list(self.live):
            if not alert.ended(now):
                self.fanout.launch(alert, now)
        self.sending.wake()

    # ---- one device ----------------------------------------------------------------------------------------------

    async def read(self, digest: bytes, holding: Mapping[str, int] | None = None) -> int | None:
        """Have in force what the store has of a device; how many pushes follow. None: it is not here.

        `holding`: what it says that it holds. Raises StoreUnavailable.
        """
        if shard_of(digest) not in self._shards.terms:
            return None
        async with self._turn:
            if self._reading is not None:
                self._reading.add(digest)
            return self._apply(digest, await self.records.find(digest), holding or {})

    async def count_owed(self, digest: bytes, holding: Mapping[str, int]) -> int:
        """How many pushes follow for a device that another process has. Raises StoreUnavailable."""
        kept = await self.records.find(digest)
        if kept is None:
            return 0
        record, now = kept.record, self.sending.tick()
        told = self._told(kept.lines)
        told |= {alert_id: max(held, told.get(alert_id, 0)) for alert_id, held in holding.items()}
        row = self.fanout.enter(_places(record), _filter(record), may_test=_may_test(record, now))
        self.fanout.trust_holding(row, told, now)
        owed = self.fanout.take_owed_by(row, now)
        self.fanout.leave(row)
        return len(owed)

    def _apply(self, digest: bytes, kept: OpenedDevice | None, holding: Mapping[str, int]) -> int | None:
        device = self.devices.find(digest)
        if device is not None and (kept is None or kept.record.secret != device.record.secret):
            self._leave(device)  # forgotten; it may be back already
            device = None
        if kept is None or shard_of(digest) not in self._shards.terms:
            return None
        if self._stands(kept.record) is False:  # it was taken before a revocation that `recheck` has been through with
            if device is not None:
                self._leave(device)
            self.forgotten["revoked"] += 1
            self._to_forget.add(kept.stored.known)
            return 0
        if device is None:
            device = self._enter(kept, holding)
        else:
            self._change(device, kept, holding)
        return None if device is None else self.sending.send_owed(device)

    def _enter(self, kept: OpenedDevice, holding: Mapping[str, int]) -> Device | None:
        """Take a device in; what it is owed is to be sent. None: it can't be used, or is over."""
        stored, record = kept.stored, kept.record
        endpoint = self._services.allowed(record.endpoint)
        if endpoint is None or not self._vapid.has(record.vapid) or len(self.devices) >= self._capacity:
            self.set_aside += 1
            return None
        if stored.until_ms <= self._clock.now().wall_ms:
            self._to_forget.add(stored.known)
            return None
        term = self._shards.terms[shard_of(stored.device)]
        device = Device(stored.device, record, endpoint, stored.endpoint, stored.until_ms, term)
        now = self.sending.tick()
        row = self.fanout.enter(_places(record), _filter(record), may_test=_may_test(record, now))
        self.sending.enter(device, row)
        self.fanout.trust_holding(row, self._told(kept.lines), now)
        self.fanout.trust_holding(row, holding, now)
        self.sending.note_held(device, holding)
        self.devices.add(device)
        self._watch(device)
        return device

    def _told(self, lines: Iterable[DeliveryRecord]) -> dict[str, int]:
        """What a device was told, as what it holds; 0: it is a recipient, and lacks what is current."""
        ids = self._known_ids()[0]
        found = {ids[line.alert]: line for line in lines if line.alert in ids}
        return {alert_id: line.number if line.state is State.SENT else 0 for alert_id, line in found.items()}

    def _known_ids(self) -> Sequence[Mapping[bytes, str]]:
        if self._ids is None:
            self._ids = [
                {self._keyring.digest("alert", alert.id, key=key): alert.id for alert in self.live}
                for key in range(len(self._keyring))
            ]
        return self._ids

    def _change(self, device: Device, kept: OpenedDevice, holding: Mapping[str, int]) -> None:
        before, record, now = device.record, kept.record, self.sending.tick()
        device.record, device.until_ms = record, kept.stored.until_ms
        self.fanout.move(device.row, _places(record))
        self.fanout.set_filter(device.row, _filter(record))
        self.fanout.set_rights(device.row, may_test=_may_test(record, now))
        self.fanout.trust_holding(device.row, holding, now)
        self.sending.note_held(device, holding)
        if device.owed is not None and (held := holding.get(device.owed.alert.id)) is not None:
            device.owed.recipient = True
            device.owed.held = held >= device.owed.message.number
        endpoint = self._services.allowed(record.endpoint)
        if endpoint is not None and record.endpoint != before.endpoint:
            device.endpoint, device.endpoint_digest = endpoint, kept.stored.endpoint
            self.sending.moved(device)
        self._watch(device)

    # ---- what is asked of us -------------------------------------------------------------------------------------

    async def put(
        self, digest: bytes, change: Change, limits: Limits | None = None, holding: Mapping[str, int] | None = None
    ) -> Changed:
        """Change what the store has of a device, and have that in force, here or elsewhere. Raises StoreUnavailable.

        It is as `DeviceRepository.change` says; `holding`: what the device says that it holds.
        """
        held = functools.partial(self.sending.held, holding or {})
        changing = {digest}
        with self._in_force_later(changing):
            put, before = await self.records.change(digest, change, limits, holding, held)
            if put is None or put.result is not PutResult.STORED:
                return Changed(None if put is None else put.result, before, 0)
            changing.update(put.replaced)
            for each in put.replaced:  # WPR8
                self.forgotten["replaced"] += 1
                await self.read(each)
            live = await self.read(digest, holding)
        if live is None:
            live = await self.count_owed(digest, holding or {})
        return Changed(put.result, before, live)

    async def forget_asked(self, devices: Sequence[RegistrationKey]) -> None:
        """Forget devices of the store, wherever they are (WPN2). Raises StoreUnavailable."""
        with self._in_force_later({known.device for known in devices}):
            await self.records.forget(devices)
            for known in devices:
                self.forgotten["asked"] += 1
                await self.read(known.device)

    @contextlib.contextmanager
    def _in_force_later(self, digests: Collection[bytes]) -> Iterator[None]:
        """If the block fails, the store may have done what it was asked all the same: `sweep` reads these then."""
        try:
            yield
        except BaseException:
            self._unsure.update(digests)
            raise

    async def follow(self) -> None:
        """Have in force what others change, for ever (WPN2)."""
        may_lack = False
        while True:
            try:
                if may_lack:
                    await self._read_all()
                    may_lack = False
                async for changes in self._store.follow():
                    if changes is None:
                        await self._read_all()
                        continue
                    for each in changes:
                        if shard_of(each.device) in self._shards.terms:
                            await self.read(each.device, self.records.holding(each))
            except StoreUnavailable:
                may_lack = True
                await asyncio.sleep(AGAIN_S)
            except Exception as error:
                logger.error("changes of devices could not be followed: %s", trace(error))
                may_lack = True
                await asyncio.sleep(AGAIN_S)

    async def _read_all(self) -> None:
        """Some changes were not told, or the store has lost some: read all again, and note what we know was told."""
        logger.warning("changes of devices were missed; reading all again")
        if self._store.lost:
            await self._put_back()
        digests = {device.digest for device in self.devices}
        async for batch in self._store.load(self._shards.terms):
            for stored, _ in batch:
                (digests.discard if self._is_in_force(stored) else digests.add)(stored.device)
        for digest in digests:
            await self.read(digest)
        devices = list(self.devices)
        for start in range(0, len(devices), RECHECKED):
            part = [device for device in devices[start : start + RECHECKED] if device.is_here]
            await self.recorder.before([line for device in part for line in self.sending.lines_of(device)])

    def _is_in_force(self, stored: StoredDevice) -> bool:
        """Whether a device is here as the store has it; one that no key opens is not."""
        device = self.devices.find(stored.device)
        if device is None or device.until_ms != stored.until_ms:
            return False
        with contextlib.suppress(ValueError):
            record, _ = self._keyring.open(stored.sealed, stored.device, stored.until_ms)
            return record == device.record
        return False

    async def _put_back(self) -> None:
        """The store may lack devices that it had: it is given those that are here (DevS12)."""
        devices = list(self.devices)
        for start in range(0, len(devices), RESTORED):
            part = [each for each in devices[start : start + RESTORED] if each.is_here]
            rows = [(self.records.sealed(each.record, each.until_ms), each.term) for each in part]
            self._shards.refused(await self._store.restore(rows))
        self._store.lost = False

    async def forget(self, devices: Sequence[Device], why: str) -> None:
        """Forget devices: row, record and what they were told (WPR9). If the store is away it is told so later."""
        known = [device.known for device in devices if device.is_here]
        for device in devices:
            self._leave(device, why)
        await self._forget_in_store(known)

    async def _forget_in_store(self, devices: Collection[RegistrationKey]) -> None:
        self._to_forget.update(devices)
        gone = list(self._to_forget)
        if gone:
            with contextlib.suppress(StoreUnavailable):
                await self.records.forget(gone)
                self._to_forget.difference_update(gone)

    def _leave(self, device: Device, why: str | None = None) -> None:
        """A device is not here any more. `why`: it is forgotten, and another process will not count it."""
        if device.is_here:
            if why is not None:
                self.forgotten[why] += 1
            self.devices.remove(device)
            self.sending.leave(device)

    async def recheck(self) -> None:
        """Forget the devices whose tokens are good no more (BA3); the loop gets its turns meanwhile."""
        devices = list(self.devices)
        for start in range(0, len(devices), RECHECKED):
            part = [each for each in devices[start : start + RECHECKED] if each.is_here]
            await self.forget([each for each in part if not self._stands(each.record)], "revoked")
            await asyncio.sleep(0)

    def what_is_over(self) -> Callable[[bytes], bool]:
        """Says of a digest whether it is of no alert that is known here now."""

        @functools.cache
        def known() -> frozenset[bytes]:
            return frozenset(self._keyring.digest("alert", each.id) for each in self.live)

        return lambda alert: alert not in known()

    def _watch(self, device: Device) -> None:
        """Note when something is due for the device."""
        self._look_at(device, device.lease_due_ms)
        if device.record.may_test:
            self._tests.put(device.record.expires_at_ms, device)


def _places(record: Record) -> list[Place]:
    return [cell_place(int(cell, 16)) for cell in record.cells]


def _filter(record: Record) -> Filter:
    categories = None if record.categories is None else frozenset(record.categories)
    return Filter(categories, SEVERITY_RANK[record.min_severity], languages.understood(record.languages))


def _may_test(record: Record, now: Now) -> bool:
    """Return whether tests and exercises exist for a device: until its token ends (R6)."""
    return record.may_test and now.wall_ms < record.expires_at_ms
