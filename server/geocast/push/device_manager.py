"""The devices of this process: loading them, applying changes, leases, and leaving (rules WPR9, WPS5, WPN1, WPN2).

    a shard is taken ──> its devices, from the store ──> `devices`, rows of the fan-out ──> `scheduler`
    a process put or forgot a device ──> the owner of its shard reads the device again
    a shard is let go ──> rows and devices leave this process; the store has them

Rule 1  This process uses a device as the store had it when it was read last. A change goes to the store first, and then
        the device is read again: here, or by the process that has its shard. So of two changes the later one counts.
Rule 2  Devices are read and applied one at a time. A device that is read while its shard is being loaded is read again
        when that is done, because a batch of the load may be older than the read.
Rule 3  A device that is to be forgotten leaves this process at once, and the store as soon as the store can be written.
        If the store has a newer registration of the device, that registration comes back by a change.

Example for Rule 1: a phone sends two PUTs, which reach processes A and B; B has the shard. A stores its change and
announces it; B stores its own and reads the device. When the announcement reaches B, B reads the device again. Both
reads give what the store had by then, so the order of announcements doesn't matter.

Example for Rule 2: the load of shard 5 reads a batch with device D. Before the batch is applied, D registers another
place. D is read, is not here yet, and is added with the new place, so the load skips the D of its batch. If the load
had added D first, the read would apply the new place. The read at the end covers all other orders.

Example for Rule 3: the lease of a device ends while Redis is unreachable from here. The device is sent nothing more,
and every `sweep` tries to forget it in the store. Meanwhile the device registers again, by another process. The store
then does not forget it, because its lease is not the one that this process names, and the change brings it back.

Everything runs in one thread: between two awaits nothing else changes the fan-out.
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

RENEW_AGAIN_MS = 60_000  # delay before a device that was busy, or whose service failed, is reminded of its lease again
LOADED = 200  # devices that are added before other tasks of the event loop run
RESTORED = 200  # devices in one write that puts them back into the store
RECHECKED = 500  # devices whose tokens are checked, or whose lines are noted, at once
LET_GO_S = 10.0  # longest wait for requests under way when a shard is let go
AGAIN_S = 1.0  # pause after the store was unreachable


class Changed(NamedTuple):
    """The result of a change.

    `result` is None if there was nothing to put; `before` is the device as it was; `live` is the number of pushes that
    follow.
    """

    result: PutResult | None
    before: OpenedDevice | None
    live: int


class DeviceManager:
    """The devices of this process. The module's docstring has the rules; `scheduler` sends the pushes."""

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
        """Create a manager without devices, for at most `capacity` devices.

        `stands` returns whether the token that a record was made with is still valid, or None if its key is unknown
        here. `recheck` forgets devices in both cases; a single read forgets only devices whose token is invalid.
        """
        self.devices = Devices()
        self.recorder = DeliveryJournal(store, shards)
        self.records = DeviceRepository(store, self.recorder, keyring)
        self.sending = PushScheduler(
            capacity + 1,  # one more, for the row that `count_owed` needs
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
        self.forgotten: Counter[str] = Counter()  # devices by reason
        self.set_aside = 0  # devices of the store that can't be used here; they stay in the store
        self.has_taken = asyncio.Event()  # set when the first shards are loaded
        self._capacity = capacity
        self._store = store
        self._shards = shards
        self._keyring = keyring
        self._services = services
        self._vapid = vapid
        self._clock = clock
        self._stands = stands
        self._leases, self._tests = Times(), Times()
        self._to_forget: set[RegistrationKey] = set()  # devices that the store could not forget yet (Rule 3)
        self._unsure: set[bytes] = set()  # devices to read again: a write failed, but may have been done
        self._turn = asyncio.Lock()  # one device is read and applied at a time (Rule 2)
        self._reading: set[bytes] | None = None  # devices that were read during a load (Rule 2)
        self._ids: Sequence[Mapping[bytes, str]] | None = None  # for each key: digest -> id of live alerts

    @property
    def live(self) -> LiveAlerts:
        """The live alerts of this process."""
        return self.fanout.live

    # ---- the log, and time ---------------------------------------------------------------------------------------

    def deliver(self, entry: Entry | Untrusted) -> None:
        """Apply an entry of the log, and push it to the devices that are owed it."""
        self._ids = None
        self.fanout.deliver(entry, self.sending.tick())
        self.sending.wake()

    async def sweep(self) -> None:
        """Do everything that depends on time alone. Call this several times a second.

        That is: forget alerts that have ended, resume devices after pauses, withdraw the right to tests when tokens
        end, remind devices of the end of their leases, forget those whose leases have ended, and retry failed writes.
        """
        now = self.sending.tick()
        self.fanout.sweep(now)
        self.live.take_counts()  # dropped: `pushed` counts what services took, not what devices were handed
        self.sending.resume_due()
        for device in self._tests.take(now.wall_ms):
            self.fanout.set_rights(device.row, may_test=_may_test(device.record, now))
        over = self._look_at_leases(now)
        self.sending.wake()
        await self.forget(over, "lease")
        await self.write_out()

    async def write_out(self) -> None:
        """Write to the store what could not be written before, and read the devices of writes that failed.

        In order: devices to forget, devices whose stored state is uncertain, and lines of the journal.
        """
        if self._to_forget:
            await self._forget_in_store(())
        with contextlib.suppress(StoreUnavailable):
            for digest in list(self._unsure):
                await self.read(digest)
                self._unsure.discard(digest)
        await self.recorder.flush()

    async def store_counts(self, store: Callable[[Mapping[str, Counts]], Awaitable[bool]]) -> None:
        """Pass the number of pushes of each alert to `store`, and keep the numbers if it returns False (rule H7).

        The journal is flushed first. So a push is in the store of devices before it is counted, and a push that is
        repeated after a kill counts once.

        Example: 100 pushes were taken, their lines are flushed, and the process is killed before the count. The next
        process doesn't send them again, so they are never counted. The count is too low, but not too high.
        """
        taken, self.sending.pushed = self.sending.pushed, Counter()
        await self.recorder.flush()
        if not await store({alert_id: Counts(pushed=pushes) for alert_id, pushes in taken.items()}):
            self.sending.pushed.update(taken)

    def _look_at_leases(self, now: Now) -> list[Device]:
        """Return the devices whose lease has ended; push a reminder to those whose lease ends soon (rule WPR9)."""
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
        """Have `_look_at_leases` check a device at `at_ms`, in ms since 1970.

        Nothing is added if an earlier check is scheduled already: so a device that registers often is in `_leases` once
        or a few times.
        """
        if device.looked_at_ms is None or at_ms < device.looked_at_ms:
            device.looked_at_ms = at_ms
            self._leases.put(at_ms, device)

    def _renew(self, device: Device, now: Now) -> None:
        """Push a reminder once that the lease ends; try again a minute later if the device is busy (rule WPR9)."""
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
        """Change what is known of a device, here and in the store.

        If the store is unreachable, the change lasts until this process ends: the next one learns the same from the
        next push. If the store has another registration of the device by now, that one stays as it is.
        """
        device.record = rewrite(device.record)
        known = device.known

        def change(kept: OpenedDevice | None) -> tuple[Record, int] | None:
            if kept is None or kept.stored.known != known:
                return None  # it registered again meanwhile
            return rewrite(kept.record), known.until_ms

        with contextlib.suppress(StoreUnavailable):
            await self.records.change(device.digest, change)

    # ---- shards --------------------------------------------------------------------------------------------------

    async def take(self, terms: Mapping[int, int]) -> None:
        """Load the devices of these shards, and push the alerts that they lack (rules WPS5, WPO3).

        The caller has read the log to its end, so an alert that was cancelled meanwhile is never sent. Raise
        StoreUnavailable if the store fails; then none of these devices stays here.

        Example: the last owner died while pushes were under way. Their lines say MAYBE, so their devices are recipients
        that lack the current revision: they are sent it again, or the cancel if the alert was cancelled.
        """
        reading = self._reading = set()  # `read` adds the devices that it reads from now on
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
        except BaseException:  # also if this task is cancelled
            self._leave_shards(terms)
            raise
        finally:
            self._reading = None
        self.has_taken.set()
        self._fly_all()

    async def _take_in(self, found: Found, terms: Mapping[int, int], again: set[bytes]) -> None:
        """Add a device that was loaded, unless it is here already or its shard was lost meanwhile.

        A device that was sealed with an older key is stored again with the first one. That changes its digest and maybe
        its shard, so it is read again by its new digest (`again`). If another process has the new shard, that process
        is told by the change in the store.

        Example: the operator puts a new key in front and restarts. Device D moves from shard 3 to shard 40, with its
        lines for all live alerts, so the new owner sends D nothing twice.
        """
        stored, lines = found
        shard = shard_of(stored.device)
        # A device that is here is newer than the batch (Rule 2). A shard with another term was lost meanwhile.
        if self.devices.find(stored.device) is not None or self._shards.terms.get(shard) != terms[shard]:
            return
        try:
            record, key = self._keyring.open(stored.sealed, stored.device, stored.until_ms)
        except ValueError:
            self.set_aside += 1
            return
        if key > 0:  # sealed with an older key
            renamed = self.records.sealed(record, stored.until_ms)
            told = self._known_ids()[key]  # digests of alerts by the old key; lines of other alerts are dropped
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
        """Remove the devices of these shards, after waiting at most LET_GO_S for their requests under way.

        Their outcomes are flushed before this returns, so the next owner of the shards reads SENT rather than MAYBE.
        """
        await self.sending.ended(self._leave_shards(shards), LET_GO_S)
        await self.recorder.flush()
        self._leave_shards(shards)  # devices that registered during the wait; the next owner of the shard loads them

    def _leave_shards(self, shards: Collection[int]) -> list[Device]:
        left = [device for device in self.devices if device.shard in shards]
        for device in left:
            self._leave(device)
        return left

    def _fly_all(self) -> None:
        """Launch every live alert, to the devices that lack it (rule WPO3).

        The devices that were just added are not offered their alerts one by one: flights send them in order of urgency.
        """
        now = self.sending.tick()
        for alert in list(self.live):
            if not alert.ended(now):
                self.fanout.launch(alert, now)
        self.sending.wake()

    # ---- one device ----------------------------------------------------------------------------------------------

    async def read(self, digest: bytes, holding: Mapping[str, int] | None = None) -> int | None:
        """Read a device from the store and apply what the store has; return how many pushes follow.

        Return None if the device is not in this process. `holding` maps the ids of the alerts that the device says it
        has to their revisions. Raise StoreUnavailable if the store fails.
        """
        if shard_of(digest) not in self._shards.terms:
            return None
        async with self._turn:
            if self._reading is not None:
                self._reading.add(digest)
            return self._apply(digest, await self.records.find(digest), holding or {})

    async def count_owed(self, digest: bytes, holding: Mapping[str, int]) -> int:
        """Return how many pushes follow for a device of another process. Raise StoreUnavailable if the store fails.

        The answer to a registration says this number, whichever process took the registration (rule WPN2). The device
        gets a row of the fan-out for the moment of counting, so the same code decides as in the process that sends.
        """
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
        """Make this process have a device as the store has it; return how many pushes follow, None if it is not here.

        `kept` is None if the store does not have the device. Another secret means that the device was forgotten and has
        registered again, so it starts without what it was sent before.

        Example: the owner of a device deletes it and registers it again at another process, and this process reads it
        only once, after both changes. By the secret it knows that the device must not keep its old lines.
        """
        device = self.devices.find(digest)
        if device is not None and (kept is None or kept.record.secret != device.record.secret):
            self._leave(device)  # forgotten; it may be back already
            device = None
        if kept is None or shard_of(digest) not in self._shards.terms:
            return None
        if self._stands(kept.record) is False:  # stored before a revocation, and read after `recheck` ran
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
        """Add a device, to be offered what it is owed next. Return None if it can't be used or its lease has ended.

        A device can't be used if its push service is not allowed any more, if our key for its subscription is gone, or
        if there is no capacity. It stays in the store, because the operator may undo such a change.
        """
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
        """Return what a device holds by its lines: alert id -> revision.

        The revision is 0 if the device may lack the current one. It is then a recipient, so it is sent the current
        entry of the alert, or its cancel (rule WPS3).
        """
        ids = self._known_ids()[0]
        found = {ids[line.alert]: line for line in lines if line.alert in ids}
        return {alert_id: line.number if line.state is State.SENT else 0 for alert_id, line in found.items()}

    def _known_ids(self) -> Sequence[Mapping[bytes, str]]:
        """Return, for each key of the keyring, the ids of the live alerts by their digests under that key.

        Lines name alerts by digests only, which can't be inverted. So this process computes the digests of all alerts
        that it knows, and computes them again when the log has a new entry.
        """
        if self._ids is None:
            self._ids = [
                {self._keyring.digest("alert", alert.id, key=key): alert.id for alert in self.live}
                for key in range(len(self._keyring))
            ]
        return self._ids

    def _change(self, device: Device, kept: OpenedDevice, holding: Mapping[str, int]) -> None:
        """Apply a new registration to a device that is here.

        If the device reports the alert of its request under way, a failure of that request must not undo the report:
        `Owed` records it until the request ends.
        """
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

    # ---- requests and changes ------------------------------------------------------------------------------------

    async def put(
        self, digest: bytes, change: Change, limits: Limits | None = None, holding: Mapping[str, int] | None = None
    ) -> Changed:
        """Change a device in the store and apply the change, here or where the device is. Raise StoreUnavailable.

        The arguments are those of `DeviceRepository.change`. Devices that lost their endpoint to this one are forgotten
        (rule WPR8).
        """
        held = functools.partial(self.sending.held, holding or {})
        changing = {digest}
        with self._in_force_later(changing):
            put, before = await self.records.change(digest, change, limits, holding, held)
            if put is None or put.result is not PutResult.STORED:
                return Changed(None if put is None else put.result, before, 0)
            changing.update(put.replaced)
            for each in put.replaced:  # they had the same endpoint (rule WPR8)
                self.forgotten["replaced"] += 1
                await self.read(each)
            live = await self.read(digest, holding)
        if live is None:  # another process has the device's shard, and reads the change soon
            live = await self.count_owed(digest, holding or {})
        return Changed(put.result, before, live)

    async def forget_asked(self, devices: Sequence[RegistrationKey]) -> None:
        """Forget devices on request, whichever process has them (rule WPN2). Raise StoreUnavailable."""
        with self._in_force_later({known.device for known in devices}):
            await self.records.forget(devices)
            for known in devices:
                self.forgotten["asked"] += 1
                await self.read(known.device)

    @contextlib.contextmanager
    def _in_force_later(self, digests: Collection[bytes]) -> Iterator[None]:
        """If the block fails, have `sweep` read these devices again: the store may have done the write all the same.

        Example: the connection to Redis breaks after the script ran and before the answer. The client gets a 503, but
        the store has the new registration, so this process must use it.
        """
        try:
            yield
        except BaseException:
            self._unsure.update(digests)
            raise

    async def follow(self) -> None:
        """Apply the changes that other processes make, forever (rule WPN2).

        After an error, changes may have been missed, so all devices are read again.
        """
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
                logger.error("changes of devices could not be followed: %s; trying again", trace(error))
                may_lack = True
                await asyncio.sleep(AGAIN_S)

    async def _read_all(self) -> None:
        """Read all devices again, because changes were missed or the store lost data; note again what they were sent.

        Only devices that differ from the store are applied. If the store lost data, it is first given what is here.
        """
        logger.warning("changes of devices were missed; reading all devices again")
        if self._store.lost:
            await self._put_back()
        digests = {device.digest for device in self.devices}
        async for batch in self._store.load(self._shards.terms):
            for stored, _ in batch:
                # Left over are devices that differ, and those that only this process or only the store has.
                (digests.discard if self._is_in_force(stored) else digests.add)(stored.device)
        for digest in digests:
            await self.read(digest)
        devices = list(self.devices)
        for start in range(0, len(devices), RECHECKED):
            part = [device for device in devices[start : start + RECHECKED] if device.is_here]
            await self.recorder.before([line for device in part for line in self.sending.lines_of(device)])

    def _is_in_force(self, stored: StoredDevice) -> bool:
        """Return whether this process has a device as the store has it. False if no key opens the record."""
        device = self.devices.find(stored.device)
        if device is None or device.until_ms != stored.until_ms:
            return False
        with contextlib.suppress(ValueError):
            record, _ = self._keyring.open(stored.sealed, stored.device, stored.until_ms)
            return record == device.record
        return False

    async def _put_back(self) -> None:
        """Store the devices of this process again, because the store may lack them (rule DevS12).

        The store refuses a shard that another process has taken meanwhile, and keeps registrations that are newer.
        """
        devices = list(self.devices)
        for start in range(0, len(devices), RESTORED):
            part = [each for each in devices[start : start + RESTORED] if each.is_here]
            rows = [(self.records.sealed(each.record, each.until_ms), each.term) for each in part]
            self._shards.refused(await self._store.restore(rows))
        self._store.lost = False

    async def forget(self, devices: Sequence[Device], why: str) -> None:
        """Forget devices: their rows here, their records and what they were sent (rule WPR9).

        `why` is the reason that metrics count. If the store is unreachable, it forgets them later (Rule 3): the device
        is sent nothing from now on, whenever that is.
        """
        known = [device.known for device in devices if device.is_here]
        for device in devices:
            self._leave(device, why)
        await self._forget_in_store(known)

    async def _forget_in_store(self, devices: Collection[RegistrationKey]) -> None:
        """Forget devices in the store, together with those that the store could not forget before."""
        self._to_forget.update(devices)
        gone = list(self._to_forget)
        if gone:
            with contextlib.suppress(StoreUnavailable):
                await self.records.forget(gone)
                self._to_forget.difference_update(gone)

    def _leave(self, device: Device, why: str | None = None) -> None:
        """Remove a device from this process. `why`: the reason if it is forgotten; None if it only moves elsewhere."""
        if device.is_here:
            if why is not None:
                self.forgotten[why] += 1
            self.devices.remove(device)
            self.sending.leave(device)

    async def recheck(self) -> None:
        """Forget the devices whose tokens are not valid any more (rule BA3). Other tasks run between batches.

        This runs after a reload of keys or revocations, and after shards were loaded.
        """
        devices = list(self.devices)
        for start in range(0, len(devices), RECHECKED):
            part = [each for each in devices[start : start + RECHECKED] if each.is_here]
            await self.forget([each for each in part if not self._stands(each.record)], "revoked")
            await asyncio.sleep(0)

    def what_is_over(self) -> Callable[[bytes], bool]:
        """Return a function of a digest: whether no alert that was live at its first call has that digest.

        The store calls it to find lines that can be removed. It is lazy, so the digests of all live alerts are computed
        only when the store has lines of alerts whose end has passed.
        """

        @functools.cache
        def known() -> frozenset[bytes]:
            return frozenset(self._keyring.digest("alert", each.id) for each in self.live)

        return lambda alert: alert not in known()

    def _watch(self, device: Device) -> None:
        """Schedule the next check of a device's lease, and the end of its right to tests."""
        self._look_at(device, device.lease_due_ms)
        if device.record.may_test:
            self._tests.put(device.record.expires_at_ms, device)


def _places(record: Record) -> list[Place]:
    """Return the centre and the extent of each cell of a record, as places of the fan-out."""
    return [cell_place(int(cell, 16)) for cell in record.cells]


def _filter(record: Record) -> Filter:
    categories = None if record.categories is None else frozenset(record.categories)
    return Filter(categories, SEVERITY_RANK[record.min_severity], languages.understood(record.languages))


def _may_test(record: Record, now: Now) -> bool:
    """Return whether a device is sent tests and exercises: only until its token ends (rule R6)."""
    return record.may_test and now.wall_ms < record.expires_at_ms
