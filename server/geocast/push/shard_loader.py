"""Loading the devices of the shards that this process has taken, and removing those of shards that it lets go.

Rule 2 of `device_manager` says what happens if a device changes during a load.
"""

import asyncio
from collections.abc import Collection, Mapping

from ..metrics import report_caught
from ..model.alert import SEVERITY_RANK
from ..model.errors import StoreUnavailable
from .device_reader import DeviceReader
from .devices import Device
from .devicestore import Found, shard_of

LOADED = 200  # number of devices that are added before other tasks of the event loop run
LAUNCHED = 200  # number of live alerts that are launched at once: up to 2 ms
LET_GO_S = 10.0  # longest wait for requests under way when a shard is let go


class ShardLoader:
    """Loads and removes the devices of this process's shards: an implementation of `ShardOwner`."""

    def __init__(self, reader: DeviceReader) -> None:
        self.has_taken = asyncio.Event()  # set when the first shards have been loaded
        self._reader, self._sending = reader, reader.sending
        self._store, self._shards = reader.means.store, reader.means.shards

    async def take(self, terms: Mapping[int, int]) -> None:
        """Load the devices of new shards (subsets of the devices), and push them what they lack (rules WPS5, WPO3).

        `terms` maps each shard to the number of its term. The caller has read the alert log to its end, so an alert
        that has been cancelled meanwhile is never sent. Raise StoreUnavailable if the store can't be used; then this
        process keeps none of these devices.

        Example: the previous owner died while pushes were under way. The store says MAYBE for these pushes, so their
        devices are recipients that may lack the current revision: they are sent it again, or the cancel if the alert
        was cancelled.
        """
        reading = self._reader.reading = set()  # `read` adds the devices that it reads from now on
        self._leave_shards(terms)  # if an error has kept devices here when the shards were let go
        try:
            async for batch in self._store.load(terms):
                for start in range(0, len(batch), LOADED):
                    async with self._reader.turn:
                        for found in batch[start : start + LOADED]:
                            try:
                                await self._add_loaded(found, terms, reading)
                            except StoreUnavailable:
                                raise
                            except Exception as error:
                                self._reader.try_again(found[0].device, {}, error)
                    await asyncio.sleep(0)
            self._reader.reading = None
            for digest in reading:
                await self._reader.read(digest)
            await self._reader.recheck()
        except BaseException:  # even if this task is being cancelled
            self._leave_shards(terms)
            raise
        finally:
            self._reader.reading = None
        self.has_taken.set()
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
        if self._sending.devices.find(stored.device) is not None or self._shards.terms.get(shard) != terms[shard]:
            return
        kept = self._reader.records.opened(stored, lines)
        if kept is None:
            self._reader.name(stored.device, "no key decrypts it")
        elif kept.key > 0:  # encrypted with an older key
            renamed = self._reader.records.sealed(kept.record, stored.until_ms)
            renamed_lines = self._sending.lines.renamed(lines, kept.key, renamed.device)
            recorder = self._reader.records.recorder
            await recorder.watched(self._store.put(renamed, None, lines=renamed_lines))
            await recorder.forget([stored.known])
            again.add(renamed.device)
        else:
            self._reader.enter(kept, {})

    async def let_go(self, shards: Collection[int]) -> None:
        """Remove the devices of these shards (subsets of the devices) from this process.

        Wait up to LET_GO_S seconds for requests under way, and write their outcomes to the store before returning. So
        the next owner of the shards reads SENT rather than MAYBE.
        """
        await self._sending.ended(self._leave_shards(shards), LET_GO_S)
        await self._reader.records.recorder.flush()
        self._leave_shards(shards)  # again: some devices may have registered during the wait

    def _leave_shards(self, shards: Collection[int]) -> list[Device]:
        left = [device for device in self._sending.devices if device.shard in shards]
        for device in left:
            try:
                self._sending.devices.leave(device)
            except Exception as error:  # it harms no other device
                report_caught("a device could not leave this process", error)
        return left

    async def _launch_all(self) -> None:
        """Start sending every live alert to the devices that lack it (rule WPO3).

        The most urgent alert is sent to all these devices first, then the next one. If each device were sent all its
        alerts before the next device, the last devices would get the urgent alert late. Other tasks of the event loop
        run between slices, so the most severe alerts are started first.
        """
        alerts = list(self._sending.fanout.live)
        for rank in sorted(SEVERITY_RANK.values(), reverse=True):
            for start in range(0, len(alerts), LAUNCHED):
                now = self._sending.tick()
                for alert in alerts[start : start + LAUNCHED]:
                    if alert.rank == rank and not alert.ended(now):
                        self._sending.fanout.launch(alert, now)
                self._sending.wake()
                await asyncio.sleep(0)
