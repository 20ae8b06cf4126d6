"""A store of devices that several processes of one test share, with terms of shards. It waits for nothing.

All rules of `geocast.push.devicestore` are kept, except that devices are lost with the object.
"""

import asyncio
from collections import deque

from geocast.push.devicestore import Change, Put, PutResult, shard_of

KEPT = 1_000  # limit on the changes that are kept for `follow`


class _Memory:
    """The stored devices and their delivery records (which alerts they were sent).

    Several `MemoryDevices` can share them.
    """

    def __init__(self):
        self.devices = {}
        self.lines = {}  # device -> alert -> line
        self.terms = {}  # the newest term of each shard that has had one (DevS7)
        self.changes = deque(maxlen=KEPT)  # (id of the store that made it, change)
        self.changed = 0  # the number of changes so far
        self.news = asyncio.Event()  # set and replaced by each change


class MemoryDevices:
    """A store of devices in memory. The methods are those of `DeviceStore`."""

    lost = False  # memory loses nothing before the process ends

    def __init__(self, memory=None):
        self._memory = memory or _Memory()
        self._position = 0

    def other(self):
        """Return another store with the same devices, which behaves like the store of another process."""
        return MemoryDevices(self._memory)

    async def start(self):
        self._position = self._memory.changed

    async def stop(self):
        pass

    async def load(self, shards):
        yield [self._found(each) for each in self._memory.devices.values() if shard_of(each.device) in shards]

    async def find(self, device):
        stored = self._memory.devices.get(device)
        return None if stored is None else self._found(stored)

    def _found(self, device):
        return device, list(self._memory.lines[device.device].values())

    async def knowing(self, secret):
        return next((each for each in self._memory.devices.values() if each.secret == secret), None)

    async def owned(self, owner):
        return [each for each in self._memory.devices.values() if each.owner == owner]

    async def put(self, device, was, *, limits=None, note=b"", lines=()):
        devices = self._memory.devices
        before = devices.get(device.device)
        if before != was:
            return Put(PutResult.CHANGED)
        others = [each for each in devices.values() if each.device != device.device]
        replaced = [each.device for each in others if each.endpoint == device.endpoint]
        if limits is not None and before is None:
            if sum(each.owner == device.owner for each in others if each.device not in replaced) >= limits.owned:
                return Put(PutResult.TOO_MANY)
            if len(others) - len(replaced) >= limits.devices:
                return Put(PutResult.FULL)
        for each in replaced:
            self._remove(each)
        if before is not None and before.secret != device.secret:
            self._remove(device.device)
        devices[device.device] = device
        told = self._memory.lines.setdefault(device.device, {})
        told.update({line.alert: line for line in lines})
        self._announce(Change(device.device, note))
        return Put(PutResult.STORED, tuple(replaced))

    async def forget(self, devices):
        for known in devices:
            stored = self._memory.devices.get(known.device)
            if stored is not None and stored.known == known:
                self._remove(known.device)

    def _remove(self, device):
        del self._memory.devices[device], self._memory.lines[device]
        self._announce(Change(device, b""))

    async def note(self, lines):
        refused = set()
        for line in lines:
            shard = shard_of(line.device)
            if line.term < self._memory.terms.get(shard, 0):
                refused.add(shard)
                continue
            device = self._memory.devices.get(line.device)
            if device is not None and device.secret == line.secret:
                told = self._memory.lines[line.device]
                if line.state is None:
                    told.pop(line.alert, None)
                else:
                    told[line.alert] = line._replace(term=0)
        return refused

    async def restore(self, _devices):
        return ()

    async def purge(self, _shards, now_ms, is_over):
        gone = 0
        for told in self._memory.lines.values():
            for alert in [each.alert for each in told.values() if each.ends_at_ms <= now_ms and is_over(each.alert)]:
                del told[alert]
                gone += 1
        return gone

    def _announce(self, change):
        memory = self._memory
        memory.changes.append((id(self), change))
        memory.changed += 1
        memory.news.set()
        memory.news = asyncio.Event()

    async def follow(self):
        memory = self._memory
        while True:
            missed = memory.changed - self._position
            if missed > len(memory.changes):
                self._position = memory.changed
                yield None
            elif missed:
                self._position = memory.changed
                if found := [change for writer, change in list(memory.changes)[-missed:] if writer != id(self)]:
                    yield found
            else:
                await memory.news.wait()
