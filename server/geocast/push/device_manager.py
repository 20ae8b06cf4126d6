"""The devices of this process: loading, changing, renewing and removing them (rules WPR9, WPS5, WPN1, WPN2).

Devices are divided into 64 shards, and each shard belongs to one process at a time. The fan-out decides who is sent
which alert; each device of this process has a row (an index) in it. The *lease* of a device is the time until which its
registration is valid.

    a shard is taken ──> its devices, from the store ──> `devices`, rows of the fan-out ──> `scheduler`
    a process put or forgot a device ──> the owner of its shard reads the device again
    a shard is let go ──> rows and devices leave this process; the store has them

Rule 1  This process uses a device in the state that it last read from the store. A change is written to the store
        first; then the owner of the device's shard, which may be this or another process, reads the device again. So if
        there are two changes, the later one wins.
Rule 2  Devices are read from the store and applied here one at a time. If a device is read while its shard is being
        loaded, it is read again after the load, because the data in a batch of the load may be older.
Rule 3  A device that is to be forgotten leaves this process at once, and is removed from the store as soon as the store
        can be written. If the store has a newer registration of the device, that registration stays, and comes back to
        this process as a change.

Example for Rule 1: a phone sends two PUTs, which reach processes A and B; B owns the shard. A stores its change and
announces it; B stores its own and reads the device. When the announcement reaches B, B reads the device again. Each
read returns the newest state of the store, so the order of announcements doesn't matter.

Example for Rule 2: the load of shard 5 reads a batch with device D. Before the batch is applied, D registers another
place. D is read, is not in this process yet, and is added with the new place; the load then skips the D of its batch.
If the load had added D first, the read would apply the new place. The read at the end covers all other orders.

Example for Rule 3: the lease of a device ends while this process can't reach Redis. The device is sent nothing more,
and every `sweep` tries to forget it in the store. Meanwhile the device registers again, through another process. The
store then does not forget it, because the end of its lease is not the one that this process names, and the change
brings it back.

Everything runs in one thread: nothing else changes the fan-out between two `await`s.
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
from ..geometry.sphere import cell_place
from ..matching.filters import Filter
from ..metrics import report_caught
from ..model import languages
from ..model.alert import SEVERITY_RANK, Entry, Untrusted
from ..model.errors import StoreUnavailable, trace
from ..stream.live_alerts import LiveAlerts
from ..stream.own_tests import OwnTests, split_request
from ..stream.session import Place
from . import messages
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
from .own_tests import DeviceTests
from .scheduler import PushScheduler, SinglePush
from .shards import Shards
from .webpush import Vapid

logger = logging.getLogger(__name__)

RENEW_AGAIN_MS = 60_000  # delay before another attempt to remind a device of its lease
LOADED = 200  # number of devices that are added before other tasks of the event loop run
RESTORED = 200  # number of devices in one write that stores them again
RECHECKED = 500  # number of devices whose tokens are checked, or whose lines are written, at once
LAUNCHED = 200  # number of live alerts that are launched at once: up to 2 ms
NAMED = 20  # limit on the log lines about devices of the store that can't be used
LET_GO_S = 10.0  # longest wait for requests under way when a shard is let go
AGAIN_S = 1.0  # pause after the store was unreachable


class Changed(NamedTuple):
    """The result of `DeviceManager.put`.

    `result` is the store's result, or None if there was nothing to store. `before` is the device before the change, or
    None if it was not in the store. `live` is the number of pushes that the device will be sent now.
    """

    result: PutResult | None
    before: OpenedDevice | None
    live: int


class DeviceManager:
    """Loads the devices of this process, applies changes to them and removes them; `PushScheduler` sends the pushes.

    The *lease* of a device is the time until which its registration is valid. A *shard* is a subset of the devices,
    which belongs to one process at a time. The module's docstring has the rules.
    """

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
        own_tests: OwnTests | None = None,
    ) -> None:
        """Create a manager without devices, for at most `capacity` devices.

        `own_tests` makes the test alerts that devices ask for; if it is None, it uses the built-in policy.

        `stands` is called with a device's record. It returns whether the token with which the device registered is
        still valid, or None if this process does not know the key that signed the token. `recheck` forgets the device
        if the result is False or None. When a single device is read from the store, the device is forgotten only if the
        result is False.
        """
        self.devices = Devices()
        self.recorder = DeliveryJournal(store, shards)
        self.records = DeviceRepository(store, self.recorder, keyring)
        self.sending = PushScheduler(
            capacity + 1,  # one more, for the temporary row that `count_owed` needs
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
        self.own_tests = own_tests or OwnTests()
        self._device_tests = DeviceTests(self.sending, self.devices.find, self.own_tests, clock)
        self.forgotten: Counter[str] = Counter()  # number of devices forgotten, by reason
        self.set_aside = 0  # number of stored devices that this process can't use as they are; they stay in the store
        self._named = 0  # number of these that the log names
        self._may_lack = False  # whether changes of other processes may have been missed
        self.has_taken = asyncio.Event()  # set when the first shards have been loaded
        self._capacity = capacity
        self._store = store
        self._shards = shards
        self._keyring = keyring
        self._services = services
        self._vapid = vapid
        self._clock = clock
        self._stands = stands
        self._leases, self._tests = Times(), Times()
        self._to_forget: set[RegistrationKey] = set()  # registrations that the store could not forget yet (Rule 3)
        # Devices to read again, because of an error, and what they said they have. A write that failed may be done.
        self._unsure: dict[bytes, Mapping[str, int]] = {}
        self._retrying: asyncio.Task[None] | None = None  # deals with `_to_forget` and `_unsure`
        self._turn = asyncio.Lock()  # held while one device is read and applied (Rule 2)
        self._reading: set[bytes] | None = None  # digests of devices that were read during a load (Rule 2)
        # For each key: digest -> id of live alert. The store names alerts only by digests, which can't be inverted.
        self._ids: Sequence[dict[bytes, str]] = [{} for _ in range(len(keyring))]
        self.live.on_let_go = self._forget_digests

    @property
    def live(self) -> LiveAlerts:
        """The live alerts (neither cancelled nor expired) that this process knows."""
        return self.fanout.live

    # ---- entries of the alert log, and work that is due ----------------------------------------------------------

    def deliver(self, entry: Entry | Untrusted) -> None:
        """Process an entry (a revision or a cancel) of the alert log: push it to the devices that it concerns."""
        now = self.sending.tick()
        self.fanout.deliver(entry, now)
        if self.live.find(entry.id, now) is not None:
            for key, ids in enumerate(self._ids):
                ids[self._keyring.digest("alert", entry.id, key=key)] = entry.id
        self.sending.wake()

    def _forget_digests(self, alert_id: str) -> None:
        for key, ids in enumerate(self._ids):
            ids.pop(self._keyring.digest("alert", alert_id, key=key), None)

    async def sweep(self) -> None:
        """Do all work that is due by now.

        Call this several times a second. Forget alerts that have ended, resume devices whose pause is over, withdraw
        the right to receive tests from devices whose tokens have expired, send the tests that devices have asked for,
        remind devices whose registrations end soon, forget devices whose registrations have ended, and start to retry
        failed writes. Nothing here waits for the store.
        """
        now = self.sending.tick()
        self.fanout.sweep(now)
        self.live.take_counts()  # drop these counts of offers: `pushed` counts what services accepted
        self.sending.resume_due()
        self._device_tests.send_due()
        self._tests.handle(now.wall_ms, lambda device: self._set_rights(device, now))
        self._leases.handle(now.wall_ms, lambda device: self._check_lease(device, now))
        self.sending.wake()
        if (self._to_forget or self._unsure) and (self._retrying is None or self._retrying.done()):
            self._retrying = asyncio.get_running_loop().create_task(self._retry())
        self.recorder.flush_soon()

    async def write_out(self) -> None:
        """Retry the writes to the device store that failed earlier, for a limited time.

        First delete the devices that could not be deleted. Then read the devices whose stored state is uncertain
        because a write failed. Then write the lines of the journal (which alerts the devices were sent).
        """
        await self._retry()
        await self.recorder.flush()

    async def _retry(self) -> None:
        try:
            await self._forget_in_store()
            for digest, holding in list(self._unsure.items()):
                await self.read(digest, holding)
                if self._unsure.get(digest) is holding:
                    del self._unsure[digest]
        except StoreUnavailable:
            pass
        except Exception as error:
            report_caught("device store: what failed earlier has failed again", error)

    async def store_counts(self, store: Callable[[Mapping[str, Counts]], Awaitable[bool]]) -> None:
        """Pass to `store` how many pushes of each alert were accepted.

        If `store` returns False, keep the numbers (H7).

        The journal of the alerts that devices were sent is written first. So a push is recorded in the device store
        before it is counted. If the process is killed and the push is repeated, it still counts once.

        Example: the services have accepted 100 pushes, these are in the journal, and the process is killed before it
        counts them. The next process doesn't send them again, so they are never counted. The count is too low, but
        never too high.
        """
        taken = self.sending.pushed.copy()
        await self.recorder.flush()
        self.sending.pushed -= taken
        if not await store({alert_id: Counts(pushed=pushes) for alert_id, pushes in taken.items()}):
            self.sending.pushed.update(taken)

    def _set_rights(self, device: Device, now: Now) -> None:
        self.fanout.set_rights(device.row, may_test=_may_test(device.record, now))

    def _check_lease(self, device: Device, now: Now) -> None:
        """Forget a device whose lease (its registration) has ended; remind it if its lease ends soon (WPR9)."""
        device.looked_at_ms = None
        if device.until_ms <= now.wall_ms:
            self._drop([device], "lease")
        elif device.lease_due_ms <= now.wall_ms:
            self._remind(device, now)
        else:
            self._schedule_check(device, device.lease_due_ms)

    def _schedule_check(self, device: Device, at_ms: int) -> None:
        """Schedule a check of a device's lease (its registration) at `at_ms`, in ms since 1970.

        Do nothing if a check is already scheduled for an earlier time. So a device that registers often is in `_leases`
        only once or a few times.
        """
        if device.looked_at_ms is None or at_ms < device.looked_at_ms:
            device.looked_at_ms = at_ms
            self._leases.put(at_ms, device)

    def _remind(self, device: Device, now: Now) -> None:
        """Push one reminder that the device's lease (its registration) is about to end (rule WPR9).

        A minute later it is checked whether the push service has accepted the reminder.
        """
        until_ms = device.until_ms
        self._schedule_check(device, min(until_ms, now.wall_ms + RENEW_AGAIN_MS))

        async def note_renewal(was_taken: bool) -> None:
            if was_taken and device.is_here and device.until_ms == until_ms:
                await self._rewrite(device, lambda record: replace(record, renewed=True))

        text = messages.renewal(until_ms, now.wall_ms)
        push = SinglePush(messages.RENEW, lambda _body_bytes: text, until_ms, "minor")
        self.sending.send_single(device, now, push, note_renewal)

    async def _rewrite(self, device: Device, rewrite: Callable[[Record], Record]) -> None:
        """Change the record of a device, in this process and in the store.

        `rewrite` is called with the old record and returns the new one. If the store can't be used, the change is lost
        when this process ends; but the next process that has the device will learn the same from the answer to its
        first push. If the store has a newer registration of the device, the stored record is left unchanged.
        """
        device.record = rewrite(device.record)
        known = device.known

        def change(kept: OpenedDevice | None) -> tuple[Record, int] | None:
            if kept is None or kept.stored.known != known:
                return None  # the device has registered again meanwhile
            return rewrite(kept.record), known.until_ms

        with contextlib.suppress(StoreUnavailable):
            await self.records.change(device.digest, change)

    # ---- loading and removing the devices of shards --------------------------------------------------------------

    async def take(self, terms: Mapping[int, int]) -> None:
        """Load the devices of new shards (subsets of the devices), and push them what they lack (rules WPS5, WPO3).

        `terms` maps each shard to the number of its term. The caller has read the alert log to its end, so an alert
        that has been cancelled meanwhile is never sent. Raise StoreUnavailable if the store can't be used; then this
        process keeps none of these devices.

        Example: the previous owner died while pushes were under way. The store says MAYBE for these pushes, so their
        devices are recipients that may lack the current revision: they are sent it again, or the cancel if the alert
        was cancelled.
        """
        reading = self._reading = set()  # `read` adds the devices that it reads from now on
        self._leave_shards(terms)  # if an error has kept devices here when the shards were let go
        try:
            async for batch in self._store.load(terms):
                for start in range(0, len(batch), LOADED):
                    async with self._turn:
                        for found in batch[start : start + LOADED]:
                            try:
                                await self._add_loaded(found, terms, reading)
                            except StoreUnavailable:
                                raise
                            except Exception as error:
                                self._try_again(found[0].device, {}, error)
                    await asyncio.sleep(0)
            self._reading = None
            for digest in reading:
                await self.read(digest)
            await self.recheck()
        except BaseException:  # even if this task is being cancelled
            self._leave_shards(terms)
            raise
        finally:
            self._reading = None
        self.has_taken.set()
        try:
            await self._launch_all()
        except Exception as error:
            report_caught("sending all live alerts to new devices failed; trying again", error)
            await self._launch_all()

    async def _add_loaded(self, found: Found, terms: Mapping[int, int], again: set[bytes]) -> None:
        """Add a device that was loaded, unless this process has it already or has lost its shard meanwhile.

        If the device was encrypted with an older key, it is stored again with the first key instead. That changes its
        digest and maybe its shard (the subset of the devices that it belongs to). So its new digest is added to
        `again`, and the caller reads the device under this digest after the load. If another process owns the new
        shard, the store announces the change to that process.

        Example: the operator puts a new key first in the file and restarts. Device D moves from shard 3 to shard 40,
        together with its delivery records (which alerts it was sent), so the owner of shard 40 sends D nothing twice.
        """
        stored, lines = found
        shard = shard_of(stored.device)
        # If the device is here already, it is newer than the batch (Rule 2). If the shard has another term than at the
        # start of the load, this process has lost the shard meanwhile.
        if self.devices.find(stored.device) is not None or self._shards.terms.get(shard) != terms[shard]:
            return
        try:
            record, key = self._keyring.open(stored.sealed, stored.device, stored.until_ms)
        except ValueError:
            self._set_aside(stored.device, "no key decrypts it")
            return
        if key > 0:  # encrypted with an older key
            renamed = self.records.sealed(record, stored.until_ms)
            told = self._ids[key]  # digest by the old key -> alert id; lines of other alerts are dropped
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
        """Remove the devices of these shards (subsets of the devices) from this process.

        Wait up to LET_GO_S seconds for requests under way, and write their outcomes to the store before returning. So
        the next owner of the shards reads SENT rather than MAYBE.
        """
        await self.sending.ended(self._leave_shards(shards), LET_GO_S)
        await self.recorder.flush()
        self._leave_shards(shards)  # again: some devices may have registered during the wait

    def _leave_shards(self, shards: Collection[int]) -> list[Device]:
        left = [device for device in self.devices if device.shard in shards]
        for device in left:
            try:
                self._leave(device)
            except Exception as error:  # it harms no other device
                report_caught("a device could not leave this process", error)
        return left

    async def _launch_all(self) -> None:
        """Start sending every live alert to the devices that lack it (rule WPO3).

        The most urgent alert is sent to all these devices first, then the next one. If each device were sent all its
        alerts before the next device, the last devices would get the urgent alert late. Other tasks of the event loop
        run between slices, so the most severe alerts are started first.
        """
        alerts = list(self.live)
        for rank in sorted(SEVERITY_RANK.values(), reverse=True):
            for start in range(0, len(alerts), LAUNCHED):
                now = self.sending.tick()
                for alert in alerts[start : start + LAUNCHED]:
                    if alert.rank == rank and not alert.ended(now):
                        self.fanout.launch(alert, now)
                self.sending.wake()
                await asyncio.sleep(0)

    # ---- reading and applying one device -------------------------------------------------------------------------

    async def read(self, digest: bytes, holding: Mapping[str, int] | None = None) -> int | None:
        """Read a device from the store and apply its state here; return how many pushes it will now be sent.

        Return None if the device does not belong to this process. `holding` maps the ids of the alerts that the device
        says it has to their revisions. Raise StoreUnavailable if the store can't be used.
        """
        if shard_of(digest) not in self._shards.terms:
            return None
        async with self._turn:
            if self._reading is not None:
                self._reading.add(digest)
            return self._apply(digest, await self.records.find(digest), holding or {})

    async def count_owed(self, digest: bytes, holding: Mapping[str, int]) -> int:
        """Return how many pushes a device of another process will be sent.

        The answer to a registration contains this number, whichever process received the request (rule WPN2). `holding`
        maps the ids of the alerts that the device says it has to their revisions. To count them, the device is entered
        into this process's fan-out for a moment. So the same code decides as in the process that sends.

        Raise StoreUnavailable if the store can't be used.
        """
        kept = await self.records.find(digest)
        if kept is None:
            return 0
        holding, asked = split_request(holding)
        record, now = kept.record, self.sending.tick()
        told = self._held_revisions(kept.lines)
        told |= {alert_id: max(held, told.get(alert_id, 0)) for alert_id, held in holding.items()}
        row = self.fanout.enter(_places(record), _filter(record), may_test=_may_test(record, now))
        self.fanout.trust_holding(row, told, now)
        owed = self.fanout.take_owed_by(row, now)
        self.fanout.leave(row)
        return len(owed) + (asked is not None)

    def _apply(self, digest: bytes, kept: OpenedDevice | None, holding: Mapping[str, int]) -> int | None:
        """Add, change or remove a device in this process, so that it agrees with the store.

        Return how many pushes the device will now be sent, or None if it does not belong to this process. `kept` is the
        stored device, or None if it is not in the store. `holding` may have a request for an own test. If the secret of
        a device has changed, the device was forgotten and has registered again, so the alerts that it was sent earlier
        no longer count.

        Example: the owner of a device deletes it and registers it again through another process, and this process reads
        it only once, after both changes. The new secret shows that the device must start afresh.
        """
        told, (holding, asked) = holding, split_request(holding)
        device = self.devices.find(digest)
        if device is not None and (kept is None or kept.record.secret != device.record.secret):
            self._leave(device)  # it was forgotten, and may have registered again
            device = None
        if kept is None or shard_of(digest) not in self._shards.terms:
            return None
        if self._stands(kept.record) is False:  # its token was revoked before it was read
            if device is not None:
                self._leave(device)
            self.forgotten["revoked"] += 1
            self._to_forget.add(kept.stored.known)
            return 0
        try:
            if device is None:
                device = self._enter(kept, holding)
            else:
                self._change(device, kept, holding)
        except Exception as error:
            if device is not None:
                self._leave(device)
            self._try_again(digest, told, error)
            return None
        if device is None:
            return None
        owed = self.sending.send_owed(device)
        if asked is None:
            return owed
        self._device_tests.ask(device, asked)  # after the alerts that the device lacks
        return owed + 1

    def _enter(self, kept: OpenedDevice, holding: Mapping[str, int]) -> Device | None:
        """Add a device, so that it can be offered alerts. Return None if it can't be used or its lease has ended.

        The lease is the time for which the registration is valid. A device can't be used if its push service is no
        longer allowed, if the VAPID key of its subscription is gone, or if this process has as many devices as it may
        have. It stays in the store, because the operator may change that.
        """
        stored, record = kept.stored, kept.record
        endpoint = self._services.allowed(record.endpoint)
        if endpoint is None or not self._vapid.has(record.vapid) or len(self.devices) >= self._capacity:
            self.set_aside += 1
            return None
        if any(line.is_odd for line in kept.lines):
            self._set_aside(stored.device, "a delivery record can't be read, and counts as maybe sent")
        if stored.until_ms <= self._clock.now().wall_ms:
            self._to_forget.add(stored.known)
            return None
        term = self._shards.terms[shard_of(stored.device)]
        device = Device(stored.device, record, endpoint, stored.endpoint, stored.until_ms, term)
        now = self.sending.tick()
        row = self.fanout.enter(_places(record), _filter(record), may_test=_may_test(record, now))
        try:
            self.sending.enter(device, row)
            self.fanout.trust_holding(row, self._held_revisions(kept.lines), now)
            self.fanout.trust_holding(row, holding, now)
            self.sending.note_held(device, holding)
            self.devices.add(device)
            self._watch(device)
        except BaseException:
            if device.is_here:
                self._leave(device)
            else:
                self.fanout.leave(row)
            raise
        return device

    def _try_again(self, digest: bytes, holding: Mapping[str, int], error: Exception) -> None:
        """Set a device aside after an unexpected error, and have `sweep` read it once more."""
        if digest not in self._unsure:
            self._set_aside(digest, trace(error))
            self._unsure[digest] = holding

    def _set_aside(self, digest: bytes, why: str) -> None:
        """Count and name a stored device that can't be used as it is, or not without loss. It stays in the store.

        The log names the first NAMED of a process.
        """
        self.set_aside += 1
        if self._named < NAMED:
            self._named += 1
            logger.error("device store: device %s: %s", digest.hex(), why)

    def _held_revisions(self, lines: Iterable[DeliveryRecord]) -> dict[str, int]:
        """Return the revisions that a device has, as a dict by alert id.

        They come from its delivery records (which alerts it was sent).

        Revision 0 means that the device may lack the current revision. The device then counts as a recipient, so it is
        sent the current entry of the alert, or its cancel (rule WPS3).
        """
        ids = self._ids[0]
        found = {ids[line.alert]: line for line in lines if line.alert in ids}
        return {alert_id: line.number if line.state is State.SENT else 0 for alert_id, line in found.items()}

    def _change(self, device: Device, kept: OpenedDevice, holding: Mapping[str, int]) -> None:
        """Apply a new registration to a device of this process.

        `holding` maps the ids of the alerts that the device says it has to their revisions. If one of these alerts is
        being sent to the device right now and the request fails, the device still has the alert. So `device.owed`,
        which describes the request, records that.
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

    # ---- registrations, and changes by other processes -----------------------------------------------------------

    async def put(
        self, digest: bytes, change: Change, limits: Limits | None = None, holding: Mapping[str, int] | None = None
    ) -> Changed:
        """Change a device in the store; then apply the change in the process that owns the device's shard.

        The arguments are those of `DeviceRepository.change`. Other devices with the same endpoint are forgotten (rule
        WPR8). Raise StoreUnavailable if the store can't be used.
        """
        held = functools.partial(self.sending.held, holding or {})
        changing = {digest: holding or {}}
        with self._reread_if_it_fails(changing):
            put, before = await self.records.change(digest, change, limits, holding, held)
            if put is None or put.result is not PutResult.STORED:
                return Changed(None if put is None else put.result, before, 0)
            changing.update({each: {} for each in put.replaced})
            for each in put.replaced:  # they had the same endpoint (rule WPR8)
                self.forgotten["replaced"] += 1
                await self.read(each)
            live = await self.read(digest, holding)
        if live is None:  # another process has the device's shard, and reads the change soon
            live = await self.count_owed(digest, holding or {})
        return Changed(put.result, before, live)

    async def forget_asked(self, devices: Sequence[RegistrationKey]) -> None:
        """Forget devices because their owner has asked for it, even if other processes have them (rule WPN2).

        Raise StoreUnavailable if the store can't be used.
        """
        with self._reread_if_it_fails({known.device: {} for known in devices}):
            await self.records.forget(devices)
            for known in devices:
                self.forgotten["asked"] += 1
                await self.read(known.device)

    @contextlib.contextmanager
    def _reread_if_it_fails(self, changing: Mapping[bytes, Mapping[str, int]]) -> Iterator[None]:
        """Return a context manager. If its block raises an exception, `sweep` will read these devices again.

        `changing` has, for the digest of each device, the alerts that the device says it has. The store may have done
        the write although an exception was raised. Example: the connection to Redis breaks after the script ran and
        before the answer arrived. The client gets a 503, but the store has the new registration, so this process must
        use it.
        """
        try:
            yield
        except BaseException:
            self._unsure.update(changing)
            raise

    async def follow(self) -> None:
        """Apply the changes that other processes make to devices of this process, forever (rule WPN2).

        After an error, changes may have been missed, so all devices are read again.
        """
        while True:
            try:
                if self._may_lack:
                    await self._read_all()
                self._may_lack = True  # until the store says otherwise, if this is called again after an error
                async for changes in self._store.follow():
                    if changes is None:
                        await self._read_all()
                        continue
                    for each in changes:
                        if shard_of(each.device) in self._shards.terms:
                            holding = self.records.holding(each)
                            with self._reread_if_it_fails({each.device: holding}):
                                await self.read(each.device, holding)
            except StoreUnavailable:
                await asyncio.sleep(AGAIN_S)

    async def _read_all(self) -> None:
        """Read all devices again, because changes were missed or the store lost data.

        If the store lost data, store the devices of this process again first. Apply only devices that differ from the
        store. Finally, write the delivery records of the devices (which alerts they were sent) again.
        """
        logger.warning("device store: updates were missed; reading all devices of this process again")
        if self._store.lost:
            await self._put_back()
        digests = {device.digest for device in self.devices}
        async for batch in self._store.load(self._shards.terms):
            for stored, _ in batch:
                # After the loop, these are the devices that differ here and in the store, or that only one of the two
                # has.
                (digests.discard if self._is_up_to_date(stored) else digests.add)(stored.device)
        for digest in digests:
            await self.read(digest)
        devices = list(self.devices)
        for start in range(0, len(devices), RECHECKED):
            part = [device for device in devices[start : start + RECHECKED] if device.is_here]
            await self.recorder.before([line for device in part for line in self.sending.lines_of(device)])

    def _is_up_to_date(self, stored: StoredDevice) -> bool:
        """Return whether this process has a device exactly as it is stored.

        Return False if no key can decrypt the stored record.
        """
        device = self.devices.find(stored.device)
        if device is None or device.until_ms != stored.until_ms:
            return False
        with contextlib.suppress(ValueError):
            record, _ = self._keyring.open(stored.sealed, stored.device, stored.until_ms)
            return record == device.record
        return False

    async def _put_back(self) -> None:
        """Store the devices of this process again, because the store may have lost them (rule DevS12).

        The store refuses devices of a shard that another process has taken meanwhile, and keeps registrations that are
        newer.
        """
        devices = list(self.devices)
        for start in range(0, len(devices), RESTORED):
            part = [each for each in devices[start : start + RESTORED] if each.is_here]
            rows = [(self.records.sealed(each.record, each.until_ms), each.term) for each in part]
            self._shards.refused(await self._store.restore(rows))
        self._store.lost = False

    async def forget(self, devices: Sequence[Device], why: str) -> None:
        """Forget devices: remove them from this process, and from the store with their delivery records (WPR9).

        `why` is the reason under which metrics count them. If the store can't be used, the deletion is retried later
        (Rule 3); the devices are sent nothing from now on in any case.
        """
        self._drop(devices, why)
        await self._forget_in_store()

    def _drop(self, devices: Sequence[Device], why: str) -> None:
        """Remove devices from this process. They are deleted from the store later."""
        self._to_forget.update([device.known for device in devices if device.is_here])
        for device in devices:
            self._leave(device, why)

    async def _forget_in_store(self) -> None:
        """Delete devices from the store, including those that could not be deleted before."""
        gone = list(self._to_forget)
        for known in gone:  # those that an error has kept here
            device = self.devices.find(known.device)
            if device is not None and device.known == known:
                self._leave(device)
        if gone:
            with contextlib.suppress(StoreUnavailable):
                await self.records.forget(gone)
                self._to_forget.difference_update(gone)

    def _leave(self, device: Device, why: str | None = None) -> None:
        """Remove a device from this process.

        `why` is the reason if the device is forgotten, or None if it only moves to another process.
        """
        if device.is_here:
            self.sending.leave(device)
            if why is not None:
                self.forgotten[why] += 1
        self.devices.remove(device)

    async def recheck(self) -> None:
        """Forget the devices whose tokens are no longer valid (rule BA3). Other tasks run between batches.

        Call this after the token keys or revocations were reloaded, and after shards were loaded.
        """
        devices = list(self.devices)
        for start in range(0, len(devices), RECHECKED):
            part = [each for each in devices[start : start + RECHECKED] if each.is_here]
            await self.forget([each for each in part if not self._stands(each.record)], "revoked")
            await asyncio.sleep(0)

    def what_is_over(self) -> Callable[[bytes], bool]:
        """Return a function that takes the digest of an alert's id and returns whether the alert is no longer live.

        The store calls the function to find out which records of deliveries can be removed.
        """
        return lambda alert: alert not in self._ids[0]

    def _watch(self, device: Device) -> None:
        """Schedule the next check of a device's registration.

        If the device may receive tests, also schedule the time at which it loses that right.
        """
        self._schedule_check(device, device.lease_due_ms)
        if device.record.may_test:
            self._tests.put(device.record.expires_at_ms, device)


def _places(record: Record) -> list[Place]:
    """Return the places of a device's record in the form that the fan-out uses.

    Each place is the centre and the extent of an H3 cell.
    """
    return [cell_place(int(cell, 16)) for cell in record.cells]


def _filter(record: Record) -> Filter:
    categories = None if record.categories is None else frozenset(record.categories)
    return Filter(categories, SEVERITY_RANK[record.min_severity], languages.understood(record.languages))


def _may_test(record: Record, now: Now) -> bool:
    """Return whether a device with this record may be sent test and exercise alerts (rule R6).

    The right ends when the device's token expires.
    """
    return record.may_test and now.wall_ms < record.expires_at_ms
