"""The scheduler of push requests: which device is sent which alert, and when (rules WPO1 to WPO3, HD2).

The *fan-out* (`stream.fanout`) finds the recipients of each alert; every device is one *row* of it. A *flight* is one
alert on its way to its recipients, and the fan-out sends it in *turns*: to a limited number of rows at a time.

    the fan-out offers alerts to devices ──> a device takes the most urgent one, or declines all and waits
        ──> the journal records "maybe sent" ──> encrypt, send ──> answer ──> offer what the device lacks by then

`device_state` has the states of a device. A *gate* is a limit on requests under way, with a queue of waiting devices:
the limit of one host (`ServiceLimit`), or a set of slots for all hosts (`Slots`).

Rule 1  Each device has at most one request under way. The device's row is paused during the request, and after a
        failure: the fan-out offers a paused row nothing. When the row is resumed, the alerts that the device lacks are
        computed again, if the fan-out has skipped the row or the device has declined an alert. There is no queue of
        messages.
Rule 2  When the fan-out offers an alert to a device, the device takes or declines it at once. So an alert that the
        fan-out records as sent was sent, is under way, or may have been sent. If a request fails, that record is undone
        (`retract`).
Rule 3  The fan-out takes turns only while one of the SLOTS is free. If a device's host is at its limit or closed, the
        device waits without a slot; the device that lacks the most urgent alert comes first. So a host that hangs
        delays no other host, and an extreme alert waits only for a slot. A device takes one of the SPARE_SLOTS instead
        if its host is not known to work (`service_limits`), or if its owner already has OF_ONE requests under way (rule
        HD2).
Rule 4  A device is sent the most severe of the alerts that it lacks first. Among alerts of the same severity, cancels
        come first.
Rule 5  Right before a request is sent, it is checked again: its entry must still be the current one of the alert, and
        the alert must not end within the next second (rule E1). Nobody waits for an answer beyond the alert's end.
Rule 6  A waiting device is in the queue of one gate: that of its host, or that of a set of slots. When a request ends,
        its host and the SPARE_SLOTS move as many waiting devices as they have free places to the queue of SLOTS. From
        that queue, the most urgent device is tried next.
Rule 7  No request starts for a device whose shard (subset of the devices) another process may have taken (`shards`).
        The device waits until this process is certain to hold the shard.

Example for Rules 1 and 2: alerts A (severe) and B (minor) are offered to an idle device at once. The device takes A and
declines B, and the fan-out records both. The service answers 201: the row is resumed, B is computed again, offered and
taken. If the answer had been 503, A would have been retracted, and the device would be offered A and B again after the
pause.

Example for Rule 3: a host that is allowed by a `*.name` hangs, and 5,000 devices at that host lack an extreme alert.
Two of them have a request under way, in spare slots; all others wait in the queue of that host. A device at another
host that lacks a minor alert still finds 256 free slots.

Example for Rule 5: a request waits for the disk while revision 7 is recorded as "maybe sent". Meanwhile revision 8
arrives. The request ends without being sent, revision 7 is retracted, and the device is offered revision 8.

Example for Rule 6: a host with 200 requests under way answers one of them. The host's gate moves its most urgent
waiting device to the queue of SLOTS. If an extreme alert for another device takes the last slot first, the moved device
stays in that queue, and the next turn that finds a free slot tries it.

Example for Rule 7: Redis is unreachable, so this process can't renew its lease of a shard. Two seconds before the lease
ends, devices of the shard stop taking alerts, because another process may take the shard when it ends. The outcomes of
requests under way are still recorded.

Everything runs in one thread: nothing else changes the fan-out between two `await`s.
"""

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import failpoints
from ..clock import Clock, Now
from ..egress.outcomes import PostOutcome, PostResponse
from ..metrics import report_caught
from ..model.alert import SEVERITY_RANK, Severity
from ..model.languages import choice
from ..stream.delivery_flags import Rows
from ..stream.fanout import FanOut
from ..stream.live_alerts import CURRENT, RECIPIENT, LiveAlert
from ..wire.frames import encode_json
from . import messages
from .addresses import Endpoint, Services
from .client import Push, PushClient
from .delivery_journal import DeliveryJournal
from .device_state import DeviceEvent, DeviceState
from .devices import Admission, Device, Owed, Times, Urgency
from .devicestore import DeliveryRecord, State, StoredDevice
from .encryption import Keyring, Record
from .messages import BODY_BYTES, SMALL_BODY_BYTES, PushMessage
from .service_limits import Gate, ServiceLimit, Slots, wait_s
from .shards import Shards
from .webpush import Vapid, encrypt

SLOTS, SPARE_SLOTS = 256, 64  # limits on requests under way in a process: to known hosts; to all others
OF_ONE = 2  # limit on the slots of each kind for the devices of one owner
MARKS = 5  # when so many stored records say that a host has accepted a push, no more are needed
LOOKED_THROUGH = 1_000  # limit on the waiting devices that are searched for one to test a closed host with
TURN_S = 0.001  # after this time in `_run`, other tasks of the event loop run
TRIES = 3  # after so many failures to make a push of an entry, a device waits for the alert's next one
LATE_S = 1.0  # pause of a device whose request can't start for a reason other than a gate


class SinglePush(NamedTuple):
    """A message for one device that is not in the log: a reminder, or a test that the device has asked for.

    `topic` is the text from which the Topic is made. `text` takes the size of the body in bytes, and returns the
    message. `until_ms` is the time, in ms since 1970, after which the message is useless. The `severity` decides on the
    Urgency (rule WPT4).
    """

    topic: str
    text: Callable[[int], bytes]
    until_ms: int
    severity: Severity


class PushScheduler:
    """Sends all push requests.

    Each device is a row (an index) of a fan-out, which finds the recipients of each alert.

    A *gate* is a limit on requests under way, with a queue of waiting devices. There is a gate for each push service
    host, and there are sets of *slots* for the requests to all hosts. The module's docstring has the rules.
    """

    def __init__(
        self,
        capacity: int,
        recorder: DeliveryJournal,
        client: PushClient,
        keyring: Keyring,
        shards: Shards,
        services: Services,
        vapid: Vapid,
        clock: Clock,
        chance: Callable[[], float],
        gone: Callable[[Device], Awaitable[None]],
        too_large: Callable[[Device], Awaitable[None]],
        worked: Callable[[Device], Awaitable[None]],
    ) -> None:
        """Create a scheduler for at most `capacity` devices at once.

        The scheduler calls `gone` with a device whose push service answered that the subscription is gone, and
        `too_large` with a device whose service accepts only small bodies. It calls `worked` with a device whose push
        was accepted, so that its stored record can say so. `chance` returns a random number from 0 to 1.

        Callers may set two attributes. `took` is called for each accepted push, with the seconds since the node
        accepted the alert or cancel. `answered` is called with the push service and the status of each answer.
        """
        self.lanes: dict[str, ServiceLimit] = {}  # host:port -> limit, for the hosts of this process's devices
        self.entries = services.entries
        self.outcomes: Counter[str] = Counter()  # requests by outcome
        self.pushed: Counter[str] = Counter()  # number of pushes by alert id, not stored yet (rule H7)
        self.took: Callable[[float], None] = lambda _seconds: None
        self.answered: Callable[[str, str], None] = lambda _service, _status: None
        self.idle = asyncio.Event()  # set while no request is under way
        self.idle.set()
        self.fanout = FanOut(capacity, self)
        self._devices: list[Device | None] = [None] * capacity  # by row (index in the fan-out)
        self._recorder = recorder
        self._client = client
        self._alert_digest = functools.lru_cache(1_024)(functools.partial(keyring.digest, "alert"))
        self._shards = shards
        self._vapid = vapid
        self._clock = clock
        self._chance = chance
        self._gone = gone
        self._too_large = too_large
        self._worked = worked
        self._now = clock.now()  # the time that the fan-out works with, set by `tick`
        self._next: list[Device] = []  # devices that took an alert in this turn; `_run` sends them
        self._slots, self._spare = Slots(SLOTS, OF_ONE), Slots(SPARE_SLOTS, OF_ONE)  # see Rule 3
        self._closed: set[ServiceLimit] = set()  # closed hosts, which are tested with one request at a time
        self._order = count()  # breaks ties in the queues: among devices of equal urgency, the first to come is first
        self._pauses = Times()  # devices and when their pauses end
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._ending = False
        self._freed = asyncio.Event()  # set whenever a request has ended

    # ---- the hosts of push services ------------------------------------------------------------------------------

    @property
    def under_way(self) -> int:
        """The number of push requests under way."""
        return self._slots.under_way + self._spare.under_way

    def _count_at_host(self, device: Device) -> None:
        """Increase the number of devices at the host of this device's endpoint by one.

        If this is the first device at the host, create the limit on requests to the host.
        """
        endpoint = device.endpoint
        lane = self.lanes.get(endpoint.authority)
        if lane is None:
            lane = self.lanes[endpoint.authority] = ServiceLimit(
                endpoint.authority, endpoint.service, named=endpoint.named
            )
        lane.devices += 1
        device.lane, device.served, device.marked = lane, device.record.worked, False
        if device.record.worked:
            self._mark(device)

    def _uncount_at_host(self, lane: ServiceLimit, *, was_marked: bool) -> None:
        """Decrease the number of devices at a host by one.

        If this was the last device at the host, drop the limit on requests to the host.
        """
        lane.devices -= 1
        lane.marked -= was_marked
        if not lane.devices and self.lanes.get(lane.host) is lane:
            del self.lanes[lane.host]
            self._closed.discard(lane)

    def moved(self, device: Device) -> None:
        """Apply the limits of another host to a device, because it has registered with another endpoint.

        If the device is paused, the pause ends, because the failure concerned the old endpoint. If the device is
        waiting, it joins the queue for a free slot. When its turn comes, it waits again if the limit of the new host is
        reached.
        """
        before, was_marked = device.lane, device.marked
        self._count_at_host(device)
        self._uncount_at_host(before, was_marked=was_marked)
        device.failures = 0
        if device.state is DeviceState.PAUSED:
            self.fanout.resume(device.row)
            device.on(DeviceEvent.RESUME)
        elif device.state is DeviceState.WAITING:
            self._put(self._slots, device.urgency, device)

    def _mark(self, device: Device) -> None:
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
        return {each: behind_open[each] / devices[each] if devices[each] else 1.0 for each in self.entries}

    # ---- devices that enter and leave the fan-out ----------------------------------------------------------------

    def enter(self, device: Device, row: int) -> None:
        """Add a device whose row (index) in the fan-out is `row`.

        After this, the caller tells the fan-out which alerts the device already has, and calls `send_owed`.
        """
        self._count_at_host(device)
        device.admission = Admission(device.lane)
        device.row, self._devices[row] = row, device

    def leave(self, device: Device) -> None:
        """Remove a device from the scheduler and the fan-out.

        If the device has a request under way, the request continues and gives back its slot when it ends. Its outcome
        is recorded, but the device is not offered anything more.
        """
        self.fanout.leave(device.row)
        self._devices[device.row] = None
        device.row = -1
        device.on(DeviceEvent.LEAVE)
        self._uncount_at_host(device.lane, was_marked=device.marked)

    # ---- offering alerts to devices ------------------------------------------------------------------------------

    def tick(self) -> Now:
        """Read the clock, and return the time that was read. The fan-out works with this time until the next call."""
        self._now = self._clock.now()
        return self._now

    def resume_due(self) -> None:
        """Resume the devices whose pause is over, and test the closed hosts whose next test is due."""
        now = self.tick()
        self._scheduled = False  # if a call of `_run` has failed, `wake` has to work again
        for lane in list(self._closed):
            self._test_host(lane, now)
        for device in self._pauses.take(now.monotonic):
            if device.state is DeviceState.PAUSED and device.resumes_at <= now.monotonic:
                self._resume(device)

    def send_owed(self, device: Device) -> int:
        """Offer a device the alerts and cancels that it lacks; return their number (rule R8)."""
        self.tick()
        owed = self._offer(device)
        self.wake()
        return owed

    def end(self) -> None:
        """Start no more requests. The event `idle` is set when the requests under way have ended."""
        self._ending = True

    async def ended(self, devices: Sequence[Device], within_s: float) -> None:
        """Wait until none of these devices has a request under way any more, but at most `within_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while any(device.is_busy for device in devices):
                    self._freed.clear()
                    await self._freed.wait()

    def wake(self) -> None:
        """Have the event loop call `_run` in its next iteration, because there may be something to send."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        """Offer alerts to devices, then send the alerts that the devices took.

        Stop offering when nothing is left to offer, no slot is free or TURN_S seconds have passed. All devices that
        took an alert share one write to the journal, so one sync of the disk serves up to 256 requests.
        """
        self._scheduled = False
        now = self._now = self._clock.now()
        until = now.monotonic + TURN_S
        try:
            while self._slots.free() > 0 and not self._ending:
                if not self._step(now):
                    break
                now = self._now = self._clock.now()
                if now.monotonic >= until:
                    self.wake()
                    break
        except Exception as error:
            report_caught("choosing the devices for the new alerts failed", error)
        devices, self._next = self._next, []
        if devices:
            try:
                self._start(self._send(devices), devices)
            except Exception as error:
                self._give_up(devices, error)

    def _step(self, now: Now) -> bool:
        """Take the most urgent step that is possible (Rule 3). Return False if there is nothing to do.

        The step is a turn of the most urgent flight (an alert on its way), or an attempt to send to the most urgent
        device that waits for a slot.

        Example: 10,000 devices that lack a minor alert wait for their host, and an extreme alert is published. Its
        flight is more urgent than the first waiting device, so it gets a turn, and each idle device takes the extreme
        alert. A waiting device is queued again with the new urgency, and gets the extreme alert when it is tried.
        """
        flight, first = self.fanout.most_urgent(), self._first_waiting()
        if flight is not None and (first is None or flight[:2] <= first):
            self.fanout.turn(now, self._slots.free())
        elif first is not None:
            device = self._next_waiting()
            self._resume(device)
            if device.state is not DeviceState.UNDER_WAY:  # it could not start, so let others have its turn
                self._admit(device.lane)
                self._admit(self._spare)
        else:
            return False
        return True

    def take(self, rows: Rows, alerts: Sequence[LiveAlert], texts: Sequence[int]) -> Sequence[Rows]:
        """Offer one alert, the most urgent of these, to the devices in these rows (indices in the fan-out).

        A device can have only one request under way (Rule 1), so all devices decline the other alerts. Return one array
        for each alert: the rows of the devices that took it. So the array is empty for all alerts but one. `texts` has,
        for each alert, the index of the text (language) to send.
        """
        first = min(range(len(alerts)), key=lambda n: _urgency(alerts[n]))
        devices, took = [self._at(row) for row in rows.tolist()], []
        for device in devices:
            try:
                if self._takes(device, alerts[first], texts[first]):
                    took.append(device.row)
            except Exception as error:  # it harms no other device
                self._rest(device, error)
        return [np.array(took if n == first else [], np.int32) for n in range(len(alerts))]

    def drop(self, rows: Rows) -> None:
        """Don't send what these devices have just taken. They are offered what they lack after a pause."""
        for device in self._next:
            if device.row in rows:
                self._give_up([device], RuntimeError("what a device took could not be recorded"))

    def by_age(self, rows: Rows) -> NDArray[np.int64]:
        """Return the indices of these rows in their present order, because the order doesn't matter for devices."""
        return np.arange(len(rows))

    def _at(self, row: int) -> Device:
        device = self._devices[row]
        assert device is not None, "the fan-out hands alerts to rows that have a device"
        return device

    def _resume(self, device: Device) -> None:
        """End the pause of a device, or its waiting, and offer it the alerts that it lacks."""
        try:
            self.fanout.resume(device.row)
            device.on(DeviceEvent.RESUME)
            self._offer(device)
        except Exception as error:  # it harms no other device
            self._rest(device, error)

    def _offer(self, device: Device) -> int:
        """Offer a device the most urgent alert that it lacks; return how many alerts and cancels it lacks.

        The device declines all others for now. The fan-out finds them again when the request has ended (Rule 1).

        Example: a device comes back from a pause of 300 s, and lacks revision 4 of alert A and a cancel of B. Both are
        computed from the current state, so revisions 2 and 3 of A, which came during the pause, are never sent.
        """
        is_free, owed = not device.is_busy, list[LiveAlert]()
        try:
            owed = self.fanout.take_owed_by(device.row, self._now)
            owed.sort(key=_urgency)
            if device.unmade:  # what is not owed any more is forgotten
                device.unmade = {key: device.unmade[key] for key in map(_entry, owed) if key in device.unmade}
            first = next((each for each in owed if device.unmade.get(_entry(each), 0) < TRIES), None)
            for alert in owed:
                if alert is not first:
                    self.fanout.note_declined(device.row, alert)
            if first is not None:
                wanted = self.fanout.filter_of(device.row).languages
                if self._takes(device, first, choice(wanted, first.languages)):
                    self.fanout.note_taken(device.row, [first])
                else:
                    self.fanout.note_declined(device.row, first)
        except Exception as error:
            for alert in owed:
                self.fanout.note_declined(device.row, alert)
            if not is_free:  # the caller tries again
                raise
            self._rest(device, error)
        return len(owed)

    def _rest(self, device: Device, error: Exception) -> None:
        """Pause a device after an unexpected error, so that it is offered what it lacks again.

        If a request was about to start, it does not start.
        """
        if device.is_busy:
            self._give_up([device], error)
            return
        report_caught("offering an alert to a device failed", error)
        self._release(device)
        self._pause(device, self._pause_after_error(device))

    def _takes(self, device: Device, alert: LiveAlert, text: int) -> bool:
        """Start a request that sends an alert's current entry to a device, if a request can start now, and return True.

        Otherwise pause the device or put it into a queue, and return False. `text` is the index of the alert's text
        (language).
        """
        if self._begin(device):
            try:
                recipient = bool(alert.flags(device.row) & RECIPIENT)
                device.owed = Owed(alert, _message(alert, text, signed=device.record.proofs), recipient)
            except Exception as error:
                self._free(device, self._pause_unmade(device, alert, error))
                return False
            self._next.append(device)
            return True
        if not self._shards.may_send(device.shard):
            self._pause(device, LATE_S)  # another process may have the shard (Rule 7)
        elif device.state in (DeviceState.IDLE, DeviceState.WAITING):
            self._wait(device, _urgency(alert))
        return False

    def _begin(self, device: Device) -> bool:
        """Reserve a slot for a request to a device, and count the request against the limit of the device's host.

        Return False if that is not possible now. It is possible if the device is idle or waiting, its host allows
        another request, and a slot is free.
        """
        is_free = device.state in (DeviceState.IDLE, DeviceState.WAITING)
        if not is_free or self._ending or not self._shards.may_send(device.shard):
            return False
        gate, may_go = self._gate(device)
        if not may_go:
            return False
        assert isinstance(gate, Slots)
        device.admission = Admission(device.lane)
        for limit in (device.lane, gate):
            limit.start(device.owner)
            device.admission.counted.append(limit)
        self.idle.clear()
        self.fanout.pause(device.row)
        device.on(DeviceEvent.START)
        return True

    def _release(self, device: Device) -> None:
        """Stop counting the request of a device against the limits. If this raises, it can be repeated."""
        counted = device.admission.counted
        while counted:
            counted[-1].end(device.owner)
            counted.pop()

    def _gate(self, device: Device) -> tuple[Gate, bool]:
        """Return the limit that decides whether a device's next request may start, and True if the request may start.

        If the host allows no more requests, the limit is that of the host. Otherwise it is the set of slots that the
        request would use.
        """
        lane, owner = device.lane, device.owner
        if not lane.has_room(self._now.monotonic, served=device.served):
            return lane, False
        slots = self._slots if lane.known and self._slots.allows(owner) else self._spare
        return slots, slots.free() > 0 and slots.allows(owner)

    def _wait(self, device: Device, how: Urgency) -> None:
        """Put a device into the queue of the limit that keeps its request from starting.

        If the device already waits there for a less urgent alert, it moves forward in the queue.
        """
        gate, _ = self._gate(device)
        is_waiting = device.state is DeviceState.WAITING
        if gate is self._spare and not self._spare.allows(device.owner):
            self._pause(device, LATE_S)  # only its owner's other requests prevent it
        elif not is_waiting or how < device.urgency or device.gate is not gate:
            self._put(gate, min(how, device.urgency) if is_waiting else how, device)

    def _put(self, gate: Gate, how: Urgency, device: Device) -> None:
        """Put a device into the queue of a gate (a limit on requests), with this urgency.

        Older entries of the device may still be in some queues. Code that reads a queue skips the entries for which
        `_waits_so` returns False.
        """
        device.on(DeviceEvent.WAIT)
        device.urgency, device.gate = how, gate
        heappush(gate.waiting, (how, next(self._order), device, None))

    def _admit(self, gate: Gate) -> None:
        """Let the first devices in the queue of a gate (a limit on requests) join the queue for a free slot (Rule 6).

        As many devices join it as the gate allows requests to start. `coming` counts those of them that were not tried
        yet, so that the next call does not let other devices join in their place.
        """
        count = gate.free(self._now.monotonic) - gate.coming if gate.waiting else 0
        while count > 0 and gate.waiting:
            how, order, device, _ = gate.waiting[0]
            still_waits = _waits_so(device, how, gate)
            heappop(gate.waiting)
            if still_waits:
                device.gate = self._slots
                gate.coming += 1
                count -= 1
                heappush(self._slots.waiting, (how, order, device, gate))

    def _test_host(self, lane: ServiceLimit, now: Now) -> None:
        """Test a closed host with one push, if the next test is due.

        A closed host has failed, so no other requests are sent to it. If possible, the request is for a waiting device
        whose last push was accepted, because only the answer to such a device shows whether the host works. If there is
        no such device for GRACE_S seconds, the test uses any device (`service_limits`, Rule 3).
        """
        if lane.is_open:
            self._closed.discard(lane)
        elif lane.has_room(now.monotonic):
            waiting = [each for each in lane.waiting[:LOOKED_THROUGH] if _waits_so(each[2], each[0], lane)]
            if not waiting:
                lane.waiting = [each for each in lane.waiting if _waits_so(each[2], each[0], lane)]
                heapify(lane.waiting)
                return
            how, _, device, _ = min(waiting, key=lambda each: (not each[2].served, each))
            if lane.has_room(now.monotonic, served=device.served):
                self._put(self._slots, how, device)

    def _first_waiting(self) -> Urgency | None:
        """Return the urgency of the first device in the queue for a free slot, or None if the queue is empty.

        A slot lets one request run. Entries at the front of the queue that are no longer valid are removed.
        """
        heap = self._slots.waiting
        while heap and not _waits_so(heap[0][2], heap[0][0], self._slots):
            self._next_waiting()
        return heap[0][0] if heap else None

    def _next_waiting(self) -> Device:
        """Remove the first entry from the queue for a free slot, and return the device of this entry."""
        device: Device
        _, _, device, gate = heappop(self._slots.waiting)
        if gate is not None:
            gate.coming -= 1
        return device

    def waiting(self) -> int:
        """Return how many devices wait because the limit of their host, or that of all hosts, is reached."""
        gates: list[Gate] = [self._slots, self._spare, *self.lanes.values()]
        return sum(_waits_so(device, how, gate) for gate in gates for how, _, device, _ in gate.waiting)

    # ---- sending one request and recording its outcome -----------------------------------------------------------

    async def _send(self, devices: Sequence[Device]) -> None:
        """Record on stable storage that these devices may have been sent their alerts; then start the requests.

        The record comes first, so that it is never missing after a crash (rule WPS2).
        """
        going = [(device, device.owed) for device in devices if device.owed is not None]
        try:
            await self._recorder.before([self._line(device, owed, State.MAYBE) for device, owed in going])
        except Exception as error:  # go on: a push that is sent twice is better than none (rule WPS4)
            report_caught("pushes are sent without being recorded first, because of an error", error)
        failpoints.hit("push-noted")
        for device, owed in going:
            try:
                self._start(self._request(device, owed), [device])
            except Exception as error:
                self._give_up([device], error)

    def _give_up(self, devices: Iterable[Device], error: Exception) -> None:
        """Free devices after an unexpected error before, in or after their requests, and try again later."""
        report_caught("a push request failed or could not start", error)
        for device in devices:
            pause_s = self._pause_after_error(device)
            try:
                if device.owed is not None:
                    self._record_outcome(device, device.owed, device.owed.outcome, pause_s)
                else:
                    self._free(device, pause_s)
            except Exception as again:
                report_caught("the outcome of a push request could not be recorded", again)
                self._free(device, pause_s)

    async def _request(self, device: Device, owed: Owed) -> None:
        """Send the alert that a device took, record the outcome and act on it. Don't send an alert that is out of date.

        Every path ends in `_record_outcome`, so the request always stops counting against the limits. If an unexpected
        exception is raised there, `_task_ended` tries again.

        Example: the journal took 3 s because the disk was busy, and the alert has been cancelled meanwhile. The
        revision is not sent. `_record_outcome` retracts it, and the device is offered the cancel if it is a recipient
        of an earlier revision.
        """
        record = device.record
        try:
            pause_s = await self._push(device, owed, record)
        except Exception as error:
            report_caught("a push request failed unexpectedly", error)
            pause_s = self._pause_after_error(device)
        self._record_outcome(device, owed, owed.outcome, pause_s)
        if owed.outcome is not None:
            await self._act_on_answer(device, record, owed.outcome)

    async def _push(self, device: Device, owed: Owed, record: Record) -> float:
        """Send the alert that a device took, unless it is out of date by now. Note the outcome in `owed`.

        Return for how many seconds to pause the device.
        """
        now = self._clock.now()
        alert = owed.alert
        is_current = device.is_here and owed.message.number == alert.number and not alert.ended(now)
        ttl_s = messages.ttl_s(alert.expires_at, now.wall_ms)
        is_sure = self._shards.may_send(device.shard) and ttl_s >= 1  # otherwise try again after a short pause
        has_moved = device.admission.lane is not device.lane  # to another host
        if not is_current or not is_sure or has_moved:  # Rules 5 and 7
            return LATE_S if is_current and not is_sure else 0.0
        size = SMALL_BODY_BYTES if record.small else BODY_BYTES
        try:
            text = messages.plaintext(owed.message, now.wall_ms, size)
        except Exception as error:
            return self._pause_unmade(device, alert, error)
        answer = await self._answered(device, alert.id, lambda: text, ttl_s, messages.URGENCIES[alert.rank], now)
        owed.outcome = answer.outcome
        if answer.outcome is PostOutcome.SENT:
            accepted_ms = alert.revision.issued_at if alert.cancel is None else alert.cancel.cancelled_at
            if not owed.message.is_cancel:
                self.pushed[alert.id] += 1
            self.took(max(0, self._clock.now().wall_ms - accepted_ms) / 1000)
        return self._pause_s(device, answer, record, ttl_s)

    async def _answered(
        self, device: Device, topic: str, text: Callable[[], bytes], ttl_s: int, how: str, now: Now
    ) -> PostResponse:
        """Encrypt a message, push it to a device, count the answer and return it.

        `topic` is the alert's id, from which the Topic is made; `how` is the Urgency of RFC 8030; `text` is called and
        returns the message.
        """
        record, endpoint = device.record, device.endpoint
        answer = PostResponse(PostOutcome.FAILED, "internal")  # until `send` is called, nothing was sent
        try:
            body = encrypt(text(), record.p256dh, record.auth, SMALL_BODY_BYTES if record.small else BODY_BYTES)
            authorization = self._vapid.header(record.vapid, endpoint.origin, now.wall_ms // 1000)
            tag = messages.topic(record.topic_key, topic)
            push = Push(endpoint, body, ttl_s, how, tag, authorization, device.admission.lane.known)
            answer = PostResponse(PostOutcome.MAYBE, "internal")
            answer = await self._client.send(push, ttl_s)
        except Exception as error:
            report_caught("a push request failed", error)
        self.outcomes[answer.outcome.value] += 1
        try:
            self._note_answer(device, endpoint, answer.outcome, now)
            self.answered(endpoint.service, answer.status)
        except Exception as error:
            report_caught("the answer of a push service could not be noted", error)
        return answer

    def _note_answer(self, device: Device, endpoint: Endpoint, outcome: PostOutcome, began: Now) -> None:
        """Record the outcome of a request for the host, and for the device unless it has another endpoint by now.

        With the first push that a host accepts, it becomes known (trusted). Requests to unknown hosts may only use the
        few SPARE_SLOTS. Devices at the host that wait for one of them stop waiting for it, because they may use the
        regular SLOTS now.
        """
        lane, now = device.admission.lane, self._clock.now().monotonic
        was_known, is_same = lane.known, endpoint is device.endpoint
        served, took_s = device.served and is_same, now - began.monotonic
        lane.record(outcome, device.owner, now, served=served, took_s=took_s)
        if is_same and outcome is not PostOutcome.LARGE:
            device.served = outcome is PostOutcome.SENT
        if not lane.is_open and self.lanes.get(lane.host) is lane:
            self._closed.add(lane)
        if lane.known and not was_known:  # its devices no longer need spare slots
            waiting = [entry for entry in self._spare.waiting if _waits_so(entry[2], entry[0], self._spare)]
            self._spare.waiting = []
            for entry in waiting:
                gate: Gate = lane if entry[2].lane is lane else self._spare
                entry[2].gate = gate
                heappush(gate.waiting, entry)

    def _pause_s(self, device: Device, answer: PostResponse, record: Record, left_s: float) -> float:
        """Return for how many seconds to pause a device after an answer.

        `record` is the device's record at the start of the request. If the device has another endpoint by now, return
        0. `left_s` is the number of seconds until the alert ends.
        """
        if device.record.endpoint != record.endpoint:
            return 0.0  # the failure concerned the old endpoint
        outcome = answer.outcome
        if outcome is PostOutcome.LARGE and device.record.small:
            outcome = PostOutcome.REFUSED  # no smaller body can be made
        device.failures = 0 if outcome in (PostOutcome.SENT, PostOutcome.LARGE) else device.failures + 1
        return wait_s(outcome, device.failures, answer.retry_after_s, left_s, self._chance())

    def _pause_after_error(self, device: Device) -> float:
        """Return for how many seconds to pause a device after an exception that nobody expected."""
        device.failures += 1
        return wait_s(PostOutcome.MAYBE, device.failures, None, float("inf"), self._chance())

    def _pause_unmade(self, device: Device, alert: LiveAlert, error: Exception) -> float:
        """Note that an entry could not become a push; return for how many seconds to pause the device.

        After TRIES failures the entry is set aside for the device, so that it does not delay others (rule HD4).
        """
        report_caught("an alert could not be turned into a push", error)
        failures = device.unmade.get(_entry(alert), 0) + 1
        device.unmade = {**device.unmade, _entry(alert): failures}
        if failures < TRIES:
            return self._pause_after_error(device)
        self.outcomes["unmade"] += 1
        return LATE_S

    def _record_outcome(self, device: Device, owed: Owed, outcome: PostOutcome | None, pause_s: float) -> None:
        """Record the outcome of the request for an alert, then free the device for the next request.

        `outcome` is None if the request was not sent. If `pause_s` is not 0, the device is paused for that many seconds
        first. The *line* is the device's delivery record for the alert.

        - A revision was sent: the line becomes SENT.
        - A cancel was sent: the line is removed, because the device is no longer a recipient.
        - Nothing was sent: the fan-out retracts the entry (Rule 2), and the line is removed, unless the device was a
          recipient before.
        - The entry may have been sent: it is retracted too, but the device counts as a recipient, so it will get the
          cancel of the alert.
        """
        number, is_here = owed.message.number, device.is_here
        if outcome is PostOutcome.SENT:
            self._recorder.after(self._line(device, owed, None if owed.message.is_cancel else State.SENT))
            if is_here and owed.message.is_cancel:  # it may have reported the alert meanwhile
                self.fanout.retract(device.row, owed.alert, number, recipient=False)
        else:
            recipient = owed.recipient or outcome is PostOutcome.MAYBE
            if is_here and not owed.held:
                self.fanout.retract(device.row, owed.alert, number, recipient=recipient)
            self._recorder.after(self._line(device, owed, State.MAYBE if recipient else None))
        self._free(device, pause_s)

    def _free(self, device: Device, pause_s: float) -> None:
        """End a device's request: free its slot, then pause the device, or offer it its next alert.

        Before that, waiting devices join the queue for a free slot and are tried soon, as many as the limits allow. If
        this raises, the request has not ended, and this can be repeated.
        """
        self._now = self._clock.now()
        self._release(device)
        device.on(DeviceEvent.END)
        device.owed = None
        if self.under_way == 0:
            self.idle.set()
        self._freed.set()
        try:
            if device.is_here:
                if pause_s > 0:
                    self._pause(device, pause_s)
                elif self.fanout.resume(device.row):
                    self._offer(device)
        except Exception as error:
            self._rest(device, error)
        try:
            self._admit(device.lane)
            self._admit(self._spare)
            self.wake()
        except Exception as error:  # `sweep` does it again
            report_caught("waiting devices could not be moved forward", error)

    def _pause(self, device: Device, seconds: float) -> None:
        """Pause a device for `seconds` from now if it is idle, waiting or paused.

        Do nothing if it has a request under way: whether to pause it is decided when that request ends.
        """
        if device.state in (DeviceState.IDLE, DeviceState.WAITING, DeviceState.PAUSED):
            device.resumes_at = self._now.monotonic + seconds
            self._pauses.put(device.resumes_at, device)
            device.on(DeviceEvent.PAUSE)
            self.fanout.pause(device.row)

    async def _act_on_answer(self, device: Device, record: Record, outcome: PostOutcome) -> None:
        """Act on an answer that concerns the device itself, not only this one push.

        The answer may say that the subscription is gone or that bodies must be small. If it accepts the push, the host
        is known to work. The answer is ignored if the device has another endpoint by now. `record` is the device's
        record at the start of the request.
        """
        if not device.is_here or device.record.endpoint != record.endpoint:
            return
        lane = device.lane
        if outcome is PostOutcome.SENT and not lane.named and lane.marked < MARKS and not device.marked:
            self._mark(device)
            await self._worked(device)
        elif outcome is PostOutcome.GONE:
            await self._gone(device)
        elif outcome is PostOutcome.LARGE and not record.small:
            await self._too_large(device)

    def send_single(self, device: Device, now: Now, push: SinglePush, came: Callable[[bool], Awaitable[None]]) -> bool:
        """Push a message that is not in the log to an idle device.

        Return False if no request can start now. When the request has ended, `came` is called with True if the service
        accepted the push, otherwise with False.
        """
        if device.state is not DeviceState.IDLE:
            return False
        try:
            if not self._begin(device):
                return False
            self._start(self._request_single(device, now, push, came), [device])
        except Exception as error:
            self._rest(device, error)
            return False
        return True

    async def _request_single(
        self, device: Device, now: Now, push: SinglePush, came: Callable[[bool], Awaitable[None]]
    ) -> None:
        """Push a message that is not in the log, then free the device for other requests.

        Finally, call `came` with True if the service accepted the push, otherwise with False.
        """
        record = device.record
        text = functools.partial(push.text, SMALL_BODY_BYTES if record.small else BODY_BYTES)
        ttl_s = messages.ttl_s(push.until_ms, now.wall_ms)
        urgency = messages.URGENCIES[SEVERITY_RANK[push.severity]]
        try:
            answer = await self._answered(device, push.topic, text, ttl_s, urgency, now)
            pause_s, outcome = self._pause_s(device, answer, record, ttl_s), answer.outcome
        except Exception as error:
            report_caught("a push request failed unexpectedly", error)
            outcome, pause_s = PostOutcome.MAYBE, self._pause_after_error(device)
        self._free(device, pause_s)
        await came(outcome is PostOutcome.SENT)
        await self._act_on_answer(device, record, outcome)

    def lines_of(self, device: Device) -> list[DeliveryRecord]:
        """Return the delivery records of a device: one for each live alert that it was sent, or may have been sent."""
        return [line for alert in self.fanout.live if (line := self._record_of(device, alert)) is not None]

    def held(
        self, holding: Mapping[str, int], device: StoredDevice, told: Sequence[DeliveryRecord]
    ) -> list[DeliveryRecord]:
        """Return the journal lines to store with a registration, for the alerts that the device says it has.

        A line records which revision of an alert a device was sent. `holding` maps the ids of the alerts to their
        revisions. `told` are the lines that are stored already. If one of them already says what is known about an
        alert, no new line is returned for that alert. A device that has an alert is a recipient, and has to stay one
        even if the process that is responsible for it dies (rules R5, WPR10).

        Example: a phone receives alert A over a WebSocket, then registers for pushes with `holding: {A: 3}`, and the
        responsible process dies before it reads that. The next process finds the line of A in the store, so it sends
        the phone the cancel of A.
        """
        known, now = {line.alert: line for line in told}, self.tick()
        lines = []
        for alert_id, number in holding.items():
            alert = self.fanout.live.find(alert_id, now)
            if alert is None:
                continue
            has_it = number >= alert.revision_number and alert.cancel is None
            line = known.get(digest := self._alert_digest(alert_id))
            if line is None or (has_it and (line.number < alert.revision_number or line.state is State.MAYBE)):
                state = State.SENT if has_it else State.MAYBE
                lines.append(
                    DeliveryRecord(device.device, digest, alert.revision_number, state, alert.ends_at, device.secret, 0)
                )
        return lines

    def note_held(self, device: Device, holding: Iterable[str]) -> None:
        """Record in the journal which alerts a device says it has.

        The journal records which alerts the devices were sent. `holding` has the ids of the alerts. With this record,
        the device counts as a recipient of the alerts even after a restart (rules R5, WPR10).
        """
        for alert_id in holding:
            alert = self.fanout.live.find(alert_id, self._now)
            line = None if alert is None else self._record_of(device, alert)
            if line is not None:
                self._recorder.after(line)

    def _record_of(self, device: Device, alert: LiveAlert) -> DeliveryRecord | None:
        """Return the delivery record of a device for an alert, or None if the device is not a recipient of the alert.

        The record says SENT if the device has the current revision, and otherwise MAYBE. It also says MAYBE while a
        request for the alert is under way.
        """
        told = alert.flags(device.row)
        if not told & RECIPIENT:
            return None
        is_on_its_way = device.owed is not None and device.owed.alert is alert
        has_it = told & CURRENT and alert.cancel is None and not is_on_its_way
        state = State.SENT if has_it else State.MAYBE
        return self._line_of(device, alert, alert.revision_number, state)

    def _line(self, device: Device, owed: Owed, state: State | None) -> DeliveryRecord:
        return self._line_of(device, owed.alert, owed.message.number, state)

    def _line_of(self, device: Device, alert: LiveAlert, number: int, state: State | None) -> DeliveryRecord:
        digest = self._alert_digest(alert.id)
        return DeliveryRecord(device.digest, digest, number, state, alert.ends_at, device.record.secret, device.term)

    def _start(self, work: Coroutine[object, object, None], devices: Sequence[Device]) -> None:
        """Start a task for requests to these devices, which have begun."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        begun = [(device, device.admission) for device in devices]
        task.add_done_callback(functools.partial(self._task_ended, begun))

    def _task_ended(self, begun: Sequence[tuple[Device, Admission]], task: asyncio.Task[None]) -> None:
        """Free the devices whose requests a task has begun and has not ended, because of an unexpected error."""
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._give_up(
                [device for device, admission in begun if admission is device.admission and device.is_busy], error
            )


def _waits_so(device: Device, how: Urgency, gate: Gate) -> bool:
    """Return whether an entry in the queue of a gate (a limit on requests) is still valid.

    It is valid if the device still waits at this gate with this urgency. When a device starts a request, leaves or is
    queued again, its old entries stay in the queues but are no longer valid.
    """
    return device.state is DeviceState.WAITING and device.urgency == how and device.gate is gate


def _entry(alert: LiveAlert) -> tuple[str, int]:
    return alert.id, alert.number


def _urgency(alert: LiveAlert) -> Urgency:
    """Return the key by which alerts are sorted: the most severe first; among equals, cancels first (Rule 4)."""
    return -alert.rank, alert.cancel is None


def _message(alert: LiveAlert, text: int, *, signed: bool) -> PushMessage:
    """Return the push message for an alert's current entry.

    `text` is the index of the text (language) to use. `signed` says whether the message contains the proof of the
    approvals.
    """
    return PushMessage(alert.number, alert.cancel is not None, alert.encoded(text, encode_json)[signed])
