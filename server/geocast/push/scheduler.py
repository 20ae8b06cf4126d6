"""The scheduler of push requests: which device is sent which alert, and when (rules WPO1 to WPO3, HD2).

The *fan-out* (`stream.fanout`) finds the recipients of each alert; every device is one *row* of it. A *flight* is one
alert on its way to its recipients, and the fan-out sends it in *turns*: to a limited number of rows at a time.

    the fan-out offers alerts to devices ──> a device takes the most urgent one, or declines all and waits
        ──> the journal records "maybe sent" ──> encrypt, send ──> answer ──> offer what the device lacks by then

`device_state` has the states of a device. A *gate* is a limit on requests under way, with a queue of waiting devices:
the limit of one host (`ServiceLimit`), or a set of slots for all hosts (`Slots`). `queues` has the gates.

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
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from .. import failpoints
from ..clock import Now
from ..egress.outcomes import PostOutcome
from ..metrics import report_caught
from ..model.languages import choice
from ..stream.delivery_flags import Rows
from ..stream.fanout import FanOut
from ..stream.live_alerts import RECIPIENT, LiveAlert
from ..wire.frames import encode_json
from . import messages
from .delivery_lines import DeliveryLines
from .device_repository import DeviceRepository
from .device_rows import Devices
from .device_state import DeviceEvent, DeviceState
from .devices import Admission, Device, Owed, Times, Urgency
from .devicestore import DeliveryRecord, State
from .encryption import Record
from .means import DeviceMeans
from .messages import PushMessage
from .queues import Queues
from .requests import LATE_S, TRIES, Outgoing, PushRequests, entry_of

MARKS = 5  # when so many stored records say that a host has accepted a push, no more are needed
TURN_S = 0.001  # after this time in `_run`, other tasks of the event loop run


class PushScheduler:
    """Sends all push requests.

    Each device is a row (an index) of a fan-out, which finds the recipients of each alert. The module's docstring has
    the rules.
    """

    def __init__(self, means: DeviceMeans, records: DeviceRepository) -> None:
        """Create a scheduler without devices.

        Callers may set `took`. It is called for each accepted push, with the seconds since the node accepted the alert
        or cancel.
        """
        self.pushed: Counter[str] = Counter()  # number of pushes by alert id, not stored yet (rule H7)
        self.took: Callable[[float], None] = lambda _seconds: None
        self.idle = asyncio.Event()  # set while no request is under way
        self.idle.set()
        capacity = means.capacity + 1  # for the temporary row that `DeviceReader.count_owed` needs
        self.fanout = FanOut(capacity, self)
        self.queues = Queues(means.services.entries)
        self.requests = PushRequests(means, self.queues)
        self.lines = DeliveryLines(self.fanout.live, means.keyring)
        self.devices = Devices(capacity, self.fanout, self.queues, records.recorder)
        self._records = records
        self._shards, self._clock = means.shards, means.clock
        self._now = means.clock.now()  # the time that the fan-out works with, set by `tick`
        self._next: list[Device] = []  # devices that took an alert in this turn; `_run` sends them
        self._pauses = Times()  # devices and when their pauses end
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._ending = False
        self._freed = asyncio.Event()  # set whenever a request has ended

    def tick(self) -> Now:
        """Read the clock, and return the time that was read. The fan-out works with this time until the next call."""
        self._now = self._clock.now()
        return self._now

    def resume_due(self) -> None:
        """Resume the devices whose pause is over, and test the closed hosts whose next test is due."""
        now = self.tick()
        self._scheduled = False  # if a call of `_run` has failed, `wake` has to work again
        self.queues.test_closed(now.monotonic)
        self._pauses.handle(now.monotonic, self._end_pause)

    def _end_pause(self, device: Device) -> None:
        if device.state is DeviceState.PAUSED and device.resumes_at <= self._now.monotonic:
            self._resume(device)

    def moved(self, device: Device) -> None:
        """Apply the limits of another host to a device, because it has registered with another endpoint.

        If the device is paused, the pause ends, because the failure concerned the old endpoint.
        """
        self.queues.move(device)
        device.failures = 0
        if device.state is DeviceState.PAUSED:
            self.fanout.resume(device.row)
            device.on(DeviceEvent.RESUME)

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

    # ---- offering alerts to devices ------------------------------------------------------------------------------

    def _run(self) -> None:
        """Offer alerts to devices, then send the alerts that the devices took.

        Stop offering when nothing is left to offer, no slot is free or TURN_S seconds have passed. All devices that
        took an alert share one write to the journal, so one sync of the disk serves up to 256 requests.
        """
        self._scheduled = False
        until = self.tick().monotonic + TURN_S
        try:
            while self.queues.slots.free() > 0 and not self._ending and self._step(self._now):
                if self.tick().monotonic >= until:
                    self.wake()
                    break
        except Exception as error:
            report_caught("choosing the devices for the new alerts failed", error)
        if self._next:
            self._start(self._send(self._next), self._next)
            self._next = []  # only now: after an error the next call starts them

    def _step(self, now: Now) -> bool:
        """Take the most urgent step that is possible (Rule 3). Return False if there is nothing to do.

        The step is a turn of the most urgent flight (an alert on its way), or an attempt to send to the most urgent
        device that waits for a slot.

        Example: 10,000 devices that lack a minor alert wait for their host, and an extreme alert is published. Its
        flight is more urgent than the first waiting device, so it gets a turn, and each idle device takes the extreme
        alert. A waiting device is queued again with the new urgency, and gets the extreme alert when it is tried.
        """
        flight, first = self.fanout.flights.most_urgent(), self.queues.first()
        if flight is not None and (first is None or flight[:2] <= first):
            self.fanout.turn(now, self.queues.slots.free())
        elif first is not None:
            device = self.queues.pop()
            self._resume(device)
            if device.state is not DeviceState.UNDER_WAY:  # it could not start, so let others have its turn
                self.queues.admit(device.lane, self._now.monotonic)
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
        devices, took = [self.devices.at(row) for row in rows.tolist()], []
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
                device.unmade = {key: device.unmade[key] for key in map(entry_of, owed) if key in device.unmade}
            first = next((each for each in owed if device.unmade.get(entry_of(each), 0) < TRIES), None)
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
        self.queues.release(device)
        self._pause(device, self.requests.pause_after_error(device))

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
                self._free(device, self.requests.pause_unmade(device, alert, error))
                return False
            self._next.append(device)
            return True
        if not self._shards.may_send(device.shard):
            self._pause(device, LATE_S)  # another process may have the shard (Rule 7)
        elif device.state in (DeviceState.IDLE, DeviceState.WAITING) and not self.queues.wait(
            device, _urgency(alert), self._now.monotonic
        ):
            self._pause(device, LATE_S)  # only its owner's other requests prevent it
        return False

    def _begin(self, device: Device) -> bool:
        """Reserve a slot for a request to a device, and count the request against the limit of the device's host.

        Return False if that is not possible now. It is possible if the device is idle or waiting, its host allows
        another request, and a slot is free.
        """
        is_free = device.state in (DeviceState.IDLE, DeviceState.WAITING)
        if not is_free or self._ending or not self._shards.may_send(device.shard):
            return False
        if not self.queues.begin(device, self._now.monotonic):
            return False
        self.idle.clear()
        self.fanout.pause(device.row)
        device.on(DeviceEvent.START)
        return True

    # ---- sending one request and recording its outcome -----------------------------------------------------------

    async def _send(self, devices: Sequence[Device]) -> None:
        """Record on stable storage that these devices may have been sent their alerts; then start the requests.

        The record comes first, so that it is never missing after a crash (rule WPS2).
        """
        going = [(device, device.owed) for device in devices if device.owed is not None]
        try:
            await self._records.recorder.before([self._line(device, owed, State.MAYBE) for device, owed in going])
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
            pause_s = self.requests.pause_after_error(device)
            try:
                if device.owed is not None:
                    self._record_outcome(device, device.owed, pause_s)
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
            pause_s = await self._push(device, owed)
        except Exception as error:
            report_caught("a push request failed unexpectedly", error)
            pause_s = self.requests.pause_after_error(device)
        self._record_outcome(device, owed, pause_s)
        if owed.outcome is not None:
            await self._act_on_answer(device, record, owed.outcome)

    async def _push(self, device: Device, owed: Owed) -> float:
        """Send the alert that a device took, unless it is out of date by now. Note the outcome in `owed`.

        Return for how many seconds to pause the device.
        """
        now, alert = self._clock.now(), owed.alert
        is_current = device.is_here and owed.message.number == alert.number and not alert.ended(now)
        is_in_time = messages.ttl_s(alert.expires_at, now.wall_ms) >= 1
        is_sure = self._shards.may_send(device.shard) and is_in_time  # otherwise try again after a short pause
        has_moved = device.admission.lane is not device.lane  # to another host
        if not is_current or not is_sure or has_moved:  # Rules 5 and 7
            return LATE_S if is_current and not is_sure else 0.0
        text = functools.partial(messages.plaintext, owed.message, now.wall_ms)
        try:
            outgoing = Outgoing(alert.id, text, alert.expires_at, alert.rank)
            owed.outcome, pause_s = await self.requests.send(device, outgoing, now)
        except Exception as error:  # nothing was sent
            return self.requests.pause_unmade(device, alert, error)
        if owed.outcome is PostOutcome.SENT:
            accepted_ms = alert.revision.issued_at if alert.cancel is None else alert.cancel.cancelled_at
            if not owed.message.is_cancel:
                self.pushed[alert.id] += 1
            self.took(max(0, self._clock.now().wall_ms - accepted_ms) / 1000)
        return pause_s

    def _record_outcome(self, device: Device, owed: Owed, pause_s: float) -> None:
        """Record the outcome of the request for an alert, then free the device for the next request.

        If `pause_s` is not 0, the device is paused for that many seconds first. The *line* is the device's delivery
        record for the alert.

        - A revision was sent: the line becomes SENT.
        - A cancel was sent: the line is removed, because the device is no longer a recipient.
        - Nothing was sent: the fan-out retracts the entry (Rule 2), and the line is removed, unless the device was a
          recipient before.
        - The entry may have been sent: it is retracted too, but the device counts as a recipient, so it will get the
          cancel of the alert.
        """
        number, is_here, outcome = owed.message.number, device.is_here, owed.outcome
        if outcome is PostOutcome.SENT:
            self._records.recorder.after(self._line(device, owed, None if owed.message.is_cancel else State.SENT))
            if is_here and owed.message.is_cancel:  # it may have reported the alert meanwhile
                self.fanout.retract(device.row, owed.alert, number, recipient=False)
        else:
            recipient = owed.recipient or outcome is PostOutcome.MAYBE
            if is_here and not owed.held:
                self.fanout.retract(device.row, owed.alert, number, recipient=recipient)
            self._records.recorder.after(self._line(device, owed, State.MAYBE if recipient else None))
        self._free(device, pause_s)

    def _free(self, device: Device, pause_s: float) -> None:
        """End a device's request: free its slot, then pause the device, or offer it its next alert.

        Before that, waiting devices join the queue for a free slot and are tried soon, as many as the limits allow. If
        this raises, the request has not ended, and this can be repeated.
        """
        self._now = self._clock.now()
        self.queues.release(device)
        device.on(DeviceEvent.END)
        device.owed = None
        if self.queues.under_way == 0:
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
            self.queues.admit(device.lane, self._now.monotonic)
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
            self.queues.mark(device)
            await self._records.rewrite(device, worked=True)
        elif outcome is PostOutcome.GONE:
            await self.devices.forget([device], "gone")
        elif outcome is PostOutcome.LARGE and not record.small:
            await self._records.rewrite(device, small=True)

    def send_single(self, device: Device, now: Now, outgoing: Outgoing, taken: Callable[[], Awaitable[None]]) -> None:
        """Push a message that is not in the log to an idle device. Do nothing if no request can start now.

        `taken` is called when the service has accepted the push.
        """
        if device.state is not DeviceState.IDLE:
            return
        try:
            if self._begin(device):
                self._start(self._request_single(device, now, outgoing, taken), [device])
        except Exception as error:
            self._rest(device, error)

    async def _request_single(
        self, device: Device, now: Now, outgoing: Outgoing, taken: Callable[[], Awaitable[None]]
    ) -> None:
        record = device.record
        outcome, pause_s = await self.requests.send(device, outgoing, now)
        self._free(device, pause_s)
        if outcome is PostOutcome.SENT:
            await taken()
        await self._act_on_answer(device, record, outcome)

    def _line(self, device: Device, owed: Owed, state: State | None) -> DeliveryRecord:
        return self.lines.line(device, owed.alert, owed.message.number, state)

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


def _urgency(alert: LiveAlert) -> Urgency:
    """Return the key by which alerts are sorted: the most severe first; among equals, cancels first (Rule 4)."""
    return -alert.rank, alert.cancel is None


def _message(alert: LiveAlert, text: int, *, signed: bool) -> PushMessage:
    """Return the push message for an alert's current entry.

    `text` is the index of the text (language) to use. `signed` says whether the message contains the proof of the
    approvals.
    """
    return PushMessage(alert.number, alert.cancel is not None, alert.encoded(text, encode_json)[signed])
