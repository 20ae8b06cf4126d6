"""The queues of devices that wait for a place at their host, or for a slot (Rules 3 and 6 of `scheduler`).

A *gate* is a limit on requests under way, with a queue of waiting devices. There is a gate for each push service host
(a *lane*), and there are two sets of *slots* for the requests to all hosts (`service_limits`).
"""

from collections import Counter
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from itertools import count

from ..egress.outcomes import PostOutcome
from .addresses import Endpoint
from .device_state import DeviceEvent, DeviceState
from .devices import Admission, Device, Urgency
from .service_limits import Gate, ServiceLimit, Slots

SLOTS, SPARE_SLOTS = 256, 64  # limits on requests under way in a process: to known hosts; to all others
OF_ONE = 2  # limit on the slots of each kind for the devices of one owner
LOOKED_THROUGH = 1_000  # limit on the waiting devices that are searched for one to test a closed host with


class Queues:
    """Counts the requests under way at hosts and in slots, and keeps the devices that wait for them in order."""

    def __init__(self, entries: Sequence[str]) -> None:
        """Create empty queues. `entries` are the entries of `--push-services`."""
        self.lanes: dict[str, ServiceLimit] = {}  # host:port -> limit, for the hosts of this process's devices
        self.slots, self.spare = Slots(SLOTS, OF_ONE), Slots(SPARE_SLOTS, OF_ONE)  # see Rule 3
        self._entries = entries
        self._closed: set[ServiceLimit] = set()  # closed hosts, which are tested with one request at a time
        self._order = count()  # breaks ties in the queues: among devices of equal urgency, the first to come is first

    @property
    def under_way(self) -> int:
        """The number of push requests under way."""
        return self.slots.under_way + self.spare.under_way

    def waiting(self) -> int:
        """Return how many devices wait because the limit of their host, or that of all hosts, is reached."""
        gates: list[Gate] = [self.slots, self.spare, *self.lanes.values()]
        return sum(_waits_so(device, how, gate) for gate in gates for how, _, device, _ in gate.waiting)

    # ---- the hosts of push services ------------------------------------------------------------------------------

    def enter(self, device: Device) -> None:
        """Count a device at the host of its endpoint.

        If this is the first device at the host, create the limit on requests to the host.
        """
        endpoint = device.endpoint
        lane = self.lanes.get(endpoint.authority)
        if lane is None:
            lane = ServiceLimit(endpoint.authority, endpoint.service, named=endpoint.named)
            self.lanes[endpoint.authority] = lane
        lane.devices += 1
        device.lane, device.served, device.marked = lane, device.record.worked, False
        if device.record.worked:
            self.mark(device)

    def leave(self, lane: ServiceLimit, *, was_marked: bool) -> None:
        """Decrease the number of devices at a host by one.

        If this was the last device at the host, drop the limit on requests to the host.
        """
        lane.devices -= 1
        lane.marked -= was_marked
        if not lane.devices and self.lanes.get(lane.host) is lane:
            del self.lanes[lane.host]
            self._closed.discard(lane)

    def move(self, device: Device) -> None:
        """Apply the limits of another host to a device, because it has registered with another endpoint.

        If the device is waiting, it joins the queue for a free slot. When its turn comes, it waits again if the limit
        of the new host is reached.
        """
        before, was_marked = device.lane, device.marked
        self.enter(device)
        self.leave(before, was_marked=was_marked)
        if device.state is DeviceState.WAITING:
            self._put(self.slots, device.urgency, device)

    def mark(self, device: Device) -> None:
        """Count a device as one whose host has accepted a push, as its stored record says.

        Trust the host from now on.
        """
        device.marked, device.lane.marked = True, device.lane.marked + 1
        device.lane.known = True

    def open_shares(self) -> dict[str, float]:
        """Return, for each entry of `--push-services`, the fraction (0 to 1) of its devices that can be sent pushes.

        A device can't be sent pushes while its host is closed because of too many failures. Only devices at hosts that
        have accepted a push before count. The fraction is 1 for an entry without such devices.
        """
        devices, behind_open = Counter[str](), Counter[str]()
        for lane in self.lanes.values():
            if lane.known:
                devices[lane.service] += lane.devices
                behind_open[lane.service] += lane.devices if lane.is_open else 0
        return {each: behind_open[each] / devices[each] if devices[each] else 1.0 for each in self._entries}

    # ---- starting and ending a request ---------------------------------------------------------------------------

    def begin(self, device: Device, now_s: float) -> bool:
        """Count a request to a device against the limit of its host and against a set of slots.

        Return False if the limits allow no request to the device now.
        """
        gate, may_go = self._gate(device, now_s)
        if not may_go:
            return False
        assert isinstance(gate, Slots)
        device.admission = Admission(device.lane)
        for limit in (device.lane, gate):
            limit.start(device.owner)
            device.admission.counted.append(limit)
        return True

    def release(self, device: Device) -> None:
        """Stop counting the request of a device against the limits. If this raises, it can be repeated."""
        counted = device.admission.counted
        while counted:
            counted[-1].end(device.owner)
            counted.pop()

    def record(self, device: Device, endpoint: Endpoint, outcome: PostOutcome, now_s: float, took_s: float) -> None:
        """Record the outcome of a request for the host, and for the device unless it has another endpoint by now.

        `endpoint` is the endpoint to which the request was sent, and `took_s` is how many seconds it took.

        With the first push that a host accepts, it becomes known (trusted). Requests to unknown hosts may only use the
        few SPARE_SLOTS. Devices at the host that wait for one of them stop waiting for it, because they may use the
        regular SLOTS now.
        """
        lane, is_same = device.admission.lane, endpoint is device.endpoint
        was_known = lane.known
        lane.record(outcome, device.owner, now_s, served=device.served and is_same, took_s=took_s)
        if is_same and outcome is not PostOutcome.LARGE:
            device.served = outcome is PostOutcome.SENT
        if not lane.is_open and self.lanes.get(lane.host) is lane:
            self._closed.add(lane)
        if lane.known and not was_known:  # its devices no longer need spare slots
            waiting = [entry for entry in self.spare.waiting if _waits_so(entry[2], entry[0], self.spare)]
            self.spare.waiting = []
            for entry in waiting:
                gate: Gate = lane if entry[2].lane is lane else self.spare
                entry[2].gate = gate
                heappush(gate.waiting, entry)

    def _gate(self, device: Device, now_s: float) -> tuple[Gate, bool]:
        """Return the limit that decides whether a device's next request may start, and True if the request may start.

        If the host allows no more requests, the limit is that of the host. Otherwise it is the set of slots that the
        request would use.
        """
        lane, owner = device.lane, device.owner
        if not lane.has_room(now_s, served=device.served):
            return lane, False
        slots = self.slots if lane.known and self.slots.allows(owner) else self.spare
        return slots, slots.free() > 0 and slots.allows(owner)

    # ---- waiting -------------------------------------------------------------------------------------------------

    def wait(self, device: Device, how: Urgency, now_s: float) -> bool:
        """Put a device into the queue of the limit that keeps its request from starting.

        If the device already waits there for a less urgent alert, it moves forward in the queue. Return False if only
        its owner's other requests keep the request from starting, so that there is no queue for it.
        """
        gate, _ = self._gate(device, now_s)
        if gate is self.spare and not self.spare.allows(device.owner):
            return False
        is_waiting = device.state is DeviceState.WAITING
        if not is_waiting or how < device.urgency or device.gate is not gate:
            self._put(gate, min(how, device.urgency) if is_waiting else how, device)
        return True

    def _put(self, gate: Gate, how: Urgency, device: Device) -> None:
        """Put a device into the queue of a gate (a limit on requests), with this urgency.

        Older entries of the device may still be in some queues. Code that reads a queue skips the entries for which
        `_waits_so` returns False.
        """
        device.on(DeviceEvent.WAIT)
        device.urgency, device.gate = how, gate
        heappush(gate.waiting, (how, next(self._order), device, None))

    def admit(self, lane: ServiceLimit, now_s: float) -> None:
        """Let the first devices that wait for a host, and for spare slots, join the queue for a free slot (Rule 6).

        As many devices join it as the gate allows requests to start. `coming` counts those of them that were not tried
        yet, so that the next call does not let other devices join in their place.
        """
        gate: Gate
        for gate in (lane, self.spare):
            count = gate.free(now_s) - gate.coming if gate.waiting else 0
            while count > 0 and gate.waiting:
                how, order, device, _ = gate.waiting[0]
                still_waits = _waits_so(device, how, gate)
                heappop(gate.waiting)
                if still_waits:
                    device.gate = self.slots
                    gate.coming += 1
                    count -= 1
                    heappush(self.slots.waiting, (how, order, device, gate))

    def test_closed(self, now_s: float) -> None:
        """Test each closed host with one push, if its next test is due.

        A closed host has failed, so no other requests are sent to it. If possible, the request is for a waiting device
        whose last push was accepted, because only the answer to such a device shows whether the host works. If there is
        no such device for GRACE_S seconds, the test uses any device (`service_limits`, Rule 3).
        """
        for lane in list(self._closed):
            if lane.is_open:
                self._closed.discard(lane)
            elif lane.has_room(now_s):
                waiting = [each for each in lane.waiting[:LOOKED_THROUGH] if _waits_so(each[2], each[0], lane)]
                if not waiting:
                    lane.waiting = [each for each in lane.waiting if _waits_so(each[2], each[0], lane)]
                    heapify(lane.waiting)
                    continue
                how, _, device, _ = min(waiting, key=lambda each: (not each[2].served, each))
                if lane.has_room(now_s, served=device.served):
                    self._put(self.slots, how, device)

    def first(self) -> Urgency | None:
        """Return the urgency of the first device in the queue for a free slot, or None if the queue is empty.

        A slot lets one request run. Entries at the front of the queue that are no longer valid are removed.
        """
        heap = self.slots.waiting
        while heap and not _waits_so(heap[0][2], heap[0][0], self.slots):
            self.pop()
        return heap[0][0] if heap else None

    def pop(self) -> Device:
        """Remove the first entry from the queue for a free slot, and return the device of this entry."""
        device: Device
        _, _, device, gate = heappop(self.slots.waiting)
        if gate is not None:
            gate.coming -= 1
        return device


def _waits_so(device: Device, how: Urgency, gate: Gate) -> bool:
    """Return whether an entry in the queue of a gate (a limit on requests) is still valid.

    It is valid if the device still waits at this gate with this urgency. When a device starts a request, leaves or is
    queued again, its old entries stay in the queues but are no longer valid.
    """
    return device.state is DeviceState.WAITING and device.urgency == how and device.gate is gate
