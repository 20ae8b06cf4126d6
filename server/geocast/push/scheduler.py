"""Which push device is sent what, and when: places at push services, requests and their answers (WPO1 to WPO3, HD2).

    a turn of the fan-out offers alerts to devices ──> a device takes the most urgent one, or declines and waits
        ──> noted that it may be sent ──> encrypted, sent ──> answered ──> the device is offered what it is owed by then

`device_state` has the states of a device.

Rule 1  One request is under way for a device. Its row is paused meanwhile, and after a failure: the fan-out offers it
        nothing. When it is resumed, what it is owed is computed again, if the fan-out has passed it over or it has
        declined something. There is no queue of messages.
Rule 2  A device takes an alert at the moment it is offered, or declines it. So what the fan-out has as sent is what was
        sent, is under way, or may have been sent. A request that fails takes that back (`retract`).
Rule 3  The fan-out is turned only while there is a free slot, of SLOTS. A device whose service has no place, or is
        closed, waits without a slot, and is taken by the most urgent thing that it is owed: so a service that hangs
        holds up no other one, and an extreme alert waits for a slot and for nothing else. A device at a service that
        never took a push takes one of SPARE_SLOTS instead, and so does the request of an owner who has OF_ONE under
        way already (rule HD2).
Rule 4  Of what a device is owed the most severe goes first, and of one severity a cancel.
Rule 5  A request is sent only if, when all before it is done, its entry is still current, has not ended, and has a
        whole second left (E1). It is not waited for beyond the alert's end.
Rule 6  A device waits in the queue of one gate: its service, or the slots. When a request ends, as many devices as its
        gates have places for come to the queue of SLOTS, from which each turn takes the most urgent.
Rule 7  Nothing begins for a device whose shard may be another process's by now (shards.py): it waits until it is sure.

Example for Rules 1 and 2: alerts A (severe) and B (minor) are offered to an idle device at once. It takes A and
declines B, which the fan-out notes. The service answers 201: the row is resumed, B is computed again, offered and
taken. Had the answer been 503, A would be retracted, and after the pause the device would be offered A and B again.

All of it is one thread: between two awaits nothing else changes the fan-out.
"""

import asyncio
import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import count

import numpy as np
from numpy.typing import NDArray

from .. import failpoints
from ..clock import Clock, Now
from ..errors import trace
from ..model.languages import choice
from ..stream.delivery_flags import Rows
from ..stream.fanout import FanOut
from ..stream.live_alerts import CURRENT, RECIPIENT, LiveAlert
from ..wire.frames import encode_json
from . import messages
from .addresses import Endpoint, Services
from .client import Push, PushClient, PushResponse
from .delivery_journal import DeliveryJournal
from .device_state import DeviceEvent, DeviceState
from .devices import Device, Owed, Times, Urgency
from .devicestore import DeliveryRecord, State, StoredDevice
from .encryption import Keyring, Record
from .messages import BODY_BYTES, SMALL_BODY_BYTES, PushMessage
from .service_limits import Gate, PushOutcome, ServiceLimit, Slots, wait_s
from .shards import Shards
from .webpush import Vapid, encrypt

logger = logging.getLogger(__name__)

SLOTS, SPARE_SLOTS = 256, 64  # requests under way in a process: to hosts that have taken pushes; to others
OF_ONE = 2  # slots of either kind for the devices of one owner
MARKS = 5  # devices of a host whose stored records say that it has taken a push
LOOKED_THROUGH = 1_000  # devices that wait for a closed host, to find one that may look whether it is back
TURN_S = 0.001  # when turning has taken so long, the loop gets its turn
LATE_S = 1.0  # a device that is owed something with no whole second left waits for so long

UNDER_WAY = (DeviceState.UNDER_WAY, DeviceState.LEAVING)


class PushScheduler:
    """The devices as rows of a fan-out, and all that is on its way to them. The module tells how it works."""

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
        """`capacity`: how many devices there may be at once.

        `gone` is called with a device whose service says so, `too_large` with one whose service takes small bodies,
        and `worked` with one that is to be marked in the store: its host has taken a push.

        `took` (set it) is called with how long after the acceptance of its entry, in seconds, each push was taken;
        `answered` with the service and the status of each answer.
        """
        self.lanes: dict[str, ServiceLimit] = {}  # by host and port; of those hosts that devices of this process have
        self.entries = services.entries
        self.outcomes: Counter[str] = Counter()  # of requests
        self.pushed: Counter[str] = Counter()  # (device, revision) pairs that were taken, by alert; not stored yet (H7)
        self.took: Callable[[float], None] = lambda _seconds: None
        self.answered: Callable[[str, str], None] = lambda _service, _status: None
        self.idle = asyncio.Event()  # nothing is under way
        self.idle.set()
        self.fanout = FanOut(capacity, self)
        self._devices: list[Device | None] = [None] * capacity  # by row
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
        self._now = clock.now()  # of what the fan-out is doing
        self._next: list[Device] = []  # whose messages go out with the next slice
        self._slots, self._spare = Slots(SLOTS, OF_ONE), Slots(SPARE_SLOTS, OF_ONE)
        self._closed: set[ServiceLimit] = set()
        self._order = count()
        self._pauses = Times()
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._ending = False
        self._freed = asyncio.Event()  # set when a request has ended

    # ---- hosts ---------------------------------------------------------------------------------------------------

    @property
    def under_way(self) -> int:
        """How many requests are under way."""
        return self._slots.under_way + self._spare.under_way

    def _join(self, device: Device) -> None:
        """Count a device, which is new here, at the host of its endpoint."""
        endpoint = device.endpoint
        lane = self.lanes.get(endpoint.authority)
        if lane is None:
            lane = self.lanes[endpoint.authority] = ServiceLimit(
                endpoint.authority, endpoint.service, named=endpoint.named
            )
        lane.devices += 1
        device.lane, device.served = lane, device.record.worked
        if device.record.worked:
            self._mark(device)

    def _part(self, device: Device) -> None:
        """Count a device at its host no more. A host without devices is forgotten."""
        lane = device.lane
        lane.devices -= 1
        lane.marked -= device.marked
        device.marked = False
        if not lane.devices and self.lanes.get(lane.host) is lane:
            del self.lanes[lane.host]
            self._closed.discard(lane)

    def moved(self, device: Device) -> None:
        """Count a device at the host of its new endpoint. It may wait for that one; a pause was for the old one."""
        self._part(device)
        self._join(device)
        device.failures = 0
        if device.state is DeviceState.PAUSED:
            device.on(DeviceEvent.RESUME)
            self.fanout.resume(device.row)
        elif device.state is DeviceState.WAITING:
            self._put(self._slots, device.urgency, device)

    def _mark(self, device: Device) -> None:
        """The host of a device has taken a push, by the device's record."""
        device.marked, device.lane.marked = True, device.lane.marked + 1
        device.lane.known = True

    def open_shares(self) -> dict[str, float]:
        """Return for each entry of the list which part of its devices have a host that takes pushes."""
        devices, behind_open = Counter[str](), Counter[str]()
        for lane in self.lanes.values():
            if lane.known:
                devices[lane.service] += lane.devices
                behind_open[lane.service] += lane.devices if lane.is_open else 0
        return {each: behind_open[each] / devices[each] if devices[each] else 1.0 for each in self.entries}

    # ---- rows ----------------------------------------------------------------------------------------------------

    def enter(self, device: Device, row: int) -> None:
        """Take in a device at this row of the fan-out. `send_owed` has to follow."""
        device.row, self._devices[row] = row, device
        self._join(device)

    def leave(self, device: Device) -> None:
        """Forget a device, which has a row here."""
        device.on(DeviceEvent.LEAVE)
        self._part(device)
        self.fanout.leave(device.row)
        self._devices[device.row] = None
        device.row = -1

    # ---- who is sent what ----------------------------------------------------------------------------------------

    def tick(self) -> Now:
        """Note the time: it is that of all that the fan-out does until the next tick."""
        self._now = self._clock.now()
        return self._now

    def resume_due(self) -> None:
        """Resume the devices whose pause is over, and look at closed services."""
        now = self.tick()
        for lane in list(self._closed):
            self._look(lane, now)
        for device in self._pauses.take(now.monotonic):
            if device.state is DeviceState.PAUSED and device.resumes_at <= now.monotonic:
                self._resume(device)

    def send_owed(self, device: Device) -> int:
        """Offer a device what it is owed by what it is now; return how many pushes that are (R8)."""
        self.tick()
        owed = self._offer(device)
        self.wake()
        return owed

    def end(self) -> None:
        """Begin no more requests. `idle` is set when those that are under way have come to an end."""
        self._ending = True

    async def ended(self, devices: Sequence[Device], within_s: float) -> None:
        """Wait until no request is under way for any of these, for so long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while any(device.state in UNDER_WAY for device in devices):
                    self._freed.clear()
                    await self._freed.wait()

    def wake(self) -> None:
        """Go on at the loop's next turn: there may be something to send."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
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
            logger.error("a turn of the fan-out failed: %s", trace(error))
        devices, self._next = self._next, []
        if devices:
            self._start(self._send(devices))

    def _step(self, now: Now) -> bool:
        """Do the most urgent thing that can be done (Rule 3); return False if there is none."""
        flight, first = self.fanout.most_urgent(), self._first_waiting()
        if flight is not None and (first is None or flight[:2] <= first):
            self.fanout.turn(now, self._slots.free())
        elif first is not None:
            device = self._next_waiting()
            self._resume(device)
            if device.state is not DeviceState.UNDER_WAY:  # its place is another one's
                self._admit(device.lane)
                self._admit(self._spare)
        else:
            return False
        return True

    def take(self, rows: Rows, alerts: Sequence[LiveAlert], texts: Sequence[int]) -> Sequence[Rows]:
        """Offer the devices of these rows the most urgent of these alerts; return the rows that took it."""
        first = min(range(len(alerts)), key=lambda n: _urgency(alerts[n]))
        took = [row for row in rows.tolist() if self._takes(self._at(row), alerts[first], texts[first])]
        return [np.array(took if n == first else [], np.int32) for n in range(len(alerts))]

    def by_age(self, rows: Rows) -> NDArray[np.int64]:
        """Return the rows' own order."""
        return np.arange(len(rows))

    def _at(self, row: int) -> Device:
        device = self._devices[row]
        assert device is not None, "the fan-out hands alerts to rows that have a device"
        return device

    def _resume(self, device: Device) -> None:
        """Have a device idle again, and offer it what it is owed."""
        device.on(DeviceEvent.RESUME)
        self.fanout.resume(device.row)
        self._offer(device)

    def _offer(self, device: Device) -> int:
        """Offer a device the most urgent of what it is owed; return how many alerts and cancels it is owed."""
        owed = sorted(self.fanout.take_owed_by(device.row, self._now), key=_urgency)
        wanted = self.fanout.filter_of(device.row).languages
        for n, alert in enumerate(owed):
            if n == 0 and self._takes(device, alert, choice(wanted, alert.languages)):
                self.fanout.note_taken(device.row, [alert])
            else:
                self.fanout.note_declined(device.row, alert)
        return len(owed)

    def _takes(self, device: Device, alert: LiveAlert, text: int) -> bool:
        """Have a device take what is current of an alert, if a request for it can begin; else it waits."""
        if self._begins(device):
            recipient = bool(alert.flags(device.row) & RECIPIENT)
            device.owed = Owed(alert, _message(alert, text, signed=device.record.proofs), recipient)
            self._next.append(device)
            return True
        if not self._shards.may_send(device.shard):
            self._pause(device, LATE_S)  # Rule 7
        elif device.state in (DeviceState.IDLE, DeviceState.WAITING):
            self._wait(device, _urgency(alert))
        return False

    def _begins(self, device: Device) -> bool:
        """Take a slot and a place at its service for a device, if it is free and there are both."""
        is_free = device.state in (DeviceState.IDLE, DeviceState.WAITING)
        if not is_free or self._ending or not self._shards.may_send(device.shard):
            return False
        gate, may_go = self._gate(device)
        if not may_go:
            return False
        assert isinstance(gate, Slots)
        device.lane.start()
        gate.start(device.owner)
        self.idle.clear()
        self.fanout.pause(device.row)
        device.place = device.lane, gate
        device.on(DeviceEvent.START)
        return True

    def _gate(self, device: Device) -> tuple[Gate, bool]:
        """Return the slots that the device's request may take, and True; or what it lacks a place of, and False."""
        lane, owner = device.lane, device.owner
        if not lane.has_room(self._now.monotonic, served=device.served):
            return lane, False
        slots = self._slots if lane.known and self._slots.allows(owner) else self._spare
        return slots, slots.free() > 0 and slots.allows(owner)

    def _wait(self, device: Device, how: Urgency) -> None:
        """Have a device wait for the place that it lacks."""
        gate, _ = self._gate(device)
        is_waiting = device.state is DeviceState.WAITING
        if gate is self._spare and not self._spare.allows(device.owner):
            self._pause(device, LATE_S)  # it waits for its owner's own devices, and holds up nobody behind it
        elif not is_waiting or how < device.urgency or device.gate is not gate:
            self._put(gate, min(how, device.urgency) if is_waiting else how, device)

    def _put(self, gate: Gate, how: Urgency, device: Device) -> None:
        device.on(DeviceEvent.WAIT)
        device.urgency, device.gate = how, gate
        heappush(gate.waiting, (how, next(self._order), device, None))

    def _admit(self, gate: Gate) -> None:
        """Have as many of the devices that wait at a gate tried as there are places (Rule 6)."""
        count = gate.free(self._now.monotonic) - gate.coming if gate.waiting else 0
        while count > 0 and gate.waiting:
            how, order, device, _ = heappop(gate.waiting)
            if _waits_so(device, how, gate):
                device.gate = self._slots
                gate.coming += 1
                count -= 1
                heappush(self._slots.waiting, (how, order, device, gate))

    def _look(self, lane: ServiceLimit, now: Now) -> None:
        """Have a device tried at a closed host if it is time, one whose last push was taken if any is found."""
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
        """Return how urgent the first of those is that are to be tried."""
        heap = self._slots.waiting
        while heap and not _waits_so(heap[0][2], heap[0][0], self._slots):
            self._next_waiting()
        return heap[0][0] if heap else None

    def _next_waiting(self) -> Device:
        """Take the first of those that are to be tried out of their queue."""
        device: Device
        _, _, device, gate = heappop(self._slots.waiting)
        if gate is not None:
            gate.coming -= 1
        return device

    def waiting(self) -> int:
        """Return how many devices wait for their hosts, or for a slot."""
        gates: list[Gate] = [self._slots, self._spare, *self.lanes.values()]
        return sum(_waits_so(device, how, gate) for gate in gates for how, _, device, _ in gate.waiting)

    # ---- a request -----------------------------------------------------------------------------------------------

    async def _send(self, devices: Sequence[Device]) -> None:
        """Note what may be sent to these, and only then send it (WPS2)."""
        going = [(device, device.owed) for device in devices if device.owed is not None]
        try:
            await self._recorder.before([self._line(device, owed, State.MAYBE) for device, owed in going])
        except Exception as error:  # twice is better than never, and no slot may be lost (WPS4)
            logger.error("what may be sent could not be noted: %s", trace(error))
        failpoints.hit("push-noted")
        for device, owed in going:
            self._start(self._request(device, owed))

    async def _request(self, device: Device, owed: Owed) -> None:
        now = self._clock.now()
        alert, (lane, _) = owed.alert, device.place
        is_current = device.is_here and owed.message.number == alert.number and not alert.ended(now)
        ttl_s = messages.ttl_s(alert.expires_at, now.wall_ms)
        is_sure = self._shards.may_send(device.shard) and ttl_s >= 1
        if not is_current or not is_sure or lane is not device.lane:  # Rules 5 and 7; or it has moved to another host
            lane.withdraw()
            self._noted(device, owed, None, pause_s=LATE_S if is_current and not is_sure else 0.0)
            return
        record = device.record
        size = SMALL_BODY_BYTES if record.small else BODY_BYTES
        text = functools.partial(messages.plaintext, owed.message, now.wall_ms, size)
        answer = await self._answered(device, alert.id, text, ttl_s, messages.URGENCIES[alert.rank], now)
        if answer.outcome is PushOutcome.SENT:
            accepted_ms = alert.revision.issued_at if alert.cancel is None else alert.cancel.cancelled_at
            self.took(max(0, self._clock.now().wall_ms - accepted_ms) / 1000)
            if not owed.message.is_cancel:
                self.pushed[alert.id] += 1
        pause_s = self._pause_s(device, answer, record, ttl_s)
        self._noted(device, owed, answer.outcome, pause_s)
        await self._consequences(device, record, answer.outcome)

    async def _answered(
        self, device: Device, topic: str, text: Callable[[], bytes], ttl_s: int, how: str, now: Now
    ) -> PushResponse:
        """The answer to a push of this text to a device; it is counted. It never raises, so no slot is lost."""
        record, endpoint = device.record, device.endpoint
        try:
            body = encrypt(text(), record.p256dh, record.auth, SMALL_BODY_BYTES if record.small else BODY_BYTES)
            authorization = self._vapid.header(record.vapid, endpoint.origin, now.wall_ms // 1000)
            tag = messages.topic(record.topic_key, topic)
            push = Push(endpoint, body, ttl_s, how, tag, authorization, device.place[0].known)
            answer = await self._client.send(push, ttl_s)
        except Exception as error:
            logger.error("a push failed: %s", trace(error))
            answer = PushResponse(PushOutcome.REFUSED, "internal")
        self._note_answer(device, endpoint, answer.outcome, now)
        self.outcomes[answer.outcome.value] += 1
        self.answered(endpoint.service, answer.status)
        return answer

    def _note_answer(self, device: Device, endpoint: Endpoint, outcome: PushOutcome, began: Now) -> None:
        """Note what came of a request for its lane, and for the device if it has still that endpoint."""
        lane, now = device.place[0], self._clock.now().monotonic
        was_known, is_same = lane.known, endpoint is device.endpoint
        served, took_s = device.served and is_same, now - began.monotonic
        lane.end(outcome, device.owner, now, served=served, took_s=took_s)
        if is_same and outcome is not PushOutcome.LARGE:
            device.served = outcome is PushOutcome.SENT
        if not lane.is_open and self.lanes.get(lane.host) is lane:
            self._closed.add(lane)
        if lane.known and not was_known:  # those of its devices that wait for a spare slot do not need one any more
            waiting, self._spare.waiting = self._spare.waiting, []
            for entry in waiting:
                if not _waits_so(entry[2], entry[0], self._spare):
                    continue
                gate: Gate = lane if entry[2].lane is lane else self._spare
                entry[2].gate = gate
                heappush(gate.waiting, entry)

    def _pause_s(self, device: Device, answer: PushResponse, record: Record, left_s: float) -> float:
        """For how long a device waits after an answer to what it was sent by this record."""
        if device.record.endpoint != record.endpoint:
            return 0.0  # it failed where it is no more
        outcome = answer.outcome
        if outcome is PushOutcome.LARGE and device.record.small:
            outcome = PushOutcome.REFUSED  # it is as small as it can be
        device.failures = 0 if outcome in (PushOutcome.SENT, PushOutcome.LARGE) else device.failures + 1
        return wait_s(outcome, device.failures, answer.retry_after_s, left_s, self._chance())

    def _noted(self, device: Device, owed: Owed, outcome: PushOutcome | None, pause_s: float) -> None:
        """Note what came of a message; None: it was not sent. Then the device goes on, after a pause."""
        device.owed = None
        number, is_here = owed.message.number, device.is_here
        if outcome is PushOutcome.SENT:
            self._recorder.after(self._line(device, owed, None if owed.message.is_cancel else State.SENT))
            if is_here and owed.message.is_cancel:  # it may have said meanwhile that it holds what is called off
                self.fanout.retract(device.row, owed.alert, number, recipient=False)
        else:
            recipient = owed.recipient or outcome is PushOutcome.MAYBE
            if is_here and not owed.held:
                self.fanout.retract(device.row, owed.alert, number, recipient=recipient)
            self._recorder.after(self._line(device, owed, State.MAYBE if recipient else None))
        self._free(device, pause_s)

    def _free(self, device: Device, pause_s: float) -> None:
        """The request of a device is over."""
        self._now = self._clock.now()
        device.on(DeviceEvent.END)
        lane, slots = device.place
        slots.end(device.owner)
        self._admit(lane)
        self._admit(self._spare)
        if self.under_way == 0:
            self.idle.set()
        self._freed.set()
        if device.is_here:
            if pause_s > 0:
                self._pause(device, pause_s)
            elif self.fanout.resume(device.row):
                self._offer(device)
        self.wake()

    def _pause(self, device: Device, seconds: float) -> None:
        """Send a device nothing for so long. If a request of it is under way, its end decides."""
        if device.state in (DeviceState.IDLE, DeviceState.WAITING):
            self.fanout.pause(device.row)
            device.on(DeviceEvent.PAUSE)
            device.resumes_at = self._now.monotonic + seconds
            self._pauses.put(device.resumes_at, device)

    async def _consequences(self, device: Device, record: Record, outcome: PushOutcome) -> None:
        """What an answer says of the device itself."""
        if not device.is_here or device.record.endpoint != record.endpoint:
            return
        lane = device.lane
        if outcome is PushOutcome.SENT and not lane.named and lane.marked < MARKS and not device.marked:
            self._mark(device)
            await self._worked(device)
        elif outcome is PushOutcome.GONE:
            await self._gone(device)
        elif outcome is PushOutcome.LARGE and not record.small:
            await self._too_large(device)

    def renew(self, device: Device, now: Now, until_ms: int, came: Callable[[bool], Awaitable[None]]) -> bool:
        """Tell a device until when its lease lasts, if it is free; `came` is called with whether that was taken."""
        if device.state is not DeviceState.IDLE or not self._begins(device):
            return False
        self._start(self._request_renewal(device, now, until_ms, came))
        return True

    async def _request_renewal(
        self, device: Device, now: Now, until_ms: int, came: Callable[[bool], Awaitable[None]]
    ) -> None:
        record = device.record
        text = functools.partial(messages.renewal, until_ms, now.wall_ms)
        ttl_s = messages.ttl_s(until_ms, now.wall_ms)
        answer = await self._answered(device, messages.RENEW, text, ttl_s, messages.URGENCIES[0], now)
        self._free(device, self._pause_s(device, answer, record, ttl_s))
        await came(answer.outcome is PushOutcome.SENT)
        await self._consequences(device, record, answer.outcome)

    def lines_of(self, device: Device) -> list[DeliveryRecord]:
        """All that a device was told, or maybe, as it is known here."""
        return [line for alert in self.fanout.live if (line := self._known(device, alert)) is not None]

    def held(
        self, holding: Mapping[str, int], device: StoredDevice, told: Sequence[DeliveryRecord]
    ) -> list[DeliveryRecord]:
        """What a device that is to be stored holds, where its lines do not say so: it is a recipient, whoever has its
        shard, and dies (R5, WPR10).
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
        """Have noted what a device says that it holds: it is a recipient after a restart, too (R5, WPR10)."""
        for alert_id in holding:
            alert = self.fanout.live.find(alert_id, self._now)
            line = None if alert is None else self._known(device, alert)
            if line is not None:
                self._recorder.after(line)

    def _known(self, device: Device, alert: LiveAlert) -> DeliveryRecord | None:
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

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _waits_so(device: Device, how: Urgency, gate: Gate) -> bool:
    """Return whether a device still waits as it did when it was put into the queue of a gate."""
    return device.state is DeviceState.WAITING and device.urgency == how and device.gate is gate


def _urgency(alert: LiveAlert) -> Urgency:
    return -alert.rank, alert.cancel is None


def _message(alert: LiveAlert, text: int, *, signed: bool) -> PushMessage:
    """Return the message that tells of what is current. It is encoded when a device needs it for the first time."""
    payloads = alert.encoded.get(text)
    if payloads is None:
        payloads = alert.encoded[text] = encode_json(alert.current, text)
    return PushMessage(alert.number, alert.cancel is not None, payloads[signed])
