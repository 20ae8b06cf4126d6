"""Push requests: encrypting a message, sending it, counting the answer, and the pause of the device after it."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from ..clock import Now
from ..egress.outcomes import PostOutcome, PostResponse
from ..metrics import report_caught
from ..stream.live_alerts import LiveAlert
from . import messages
from .client import Push
from .devices import Device
from .encryption import Record
from .means import DeviceMeans
from .queues import Queues
from .service_limits import wait_s
from .webpush import encrypt

TRIES = 3  # after so many failures to make a push of an entry, a device waits for the alert's next one
LATE_S = 1.0  # pause of a device whose request can't start for a reason other than a gate


class Outgoing(NamedTuple):
    """A message for one device: an alert or cancel, a reminder, or a test that the device has asked for.

    `topic` is the text from which the Topic is made. `text` takes the size of the body in bytes, and returns the
    message. `until_ms` is the time, in ms since 1970, after which the message is useless. The `rank` of a severity
    decides on the Urgency (rule WPT4).
    """

    topic: str
    text: Callable[[int], bytes]
    until_ms: int
    rank: int


class PushRequests:
    """Sends push requests, counts the answers, and says how long devices pause.

    Callers may set `answered`. It is called with the push service and the status of each answer.
    """

    def __init__(self, means: DeviceMeans, queues: Queues) -> None:
        self.outcomes: Counter[str] = Counter()  # requests by outcome
        self.answered: Callable[[str, str], None] = lambda _service, _status: None
        self._means, self._queues = means, queues

    async def send(self, device: Device, outgoing: Outgoing, now: Now) -> tuple[PostOutcome, float]:
        """Encrypt a message, push it to a device, and count the answer.

        Return the outcome, and for how many seconds to pause the device. If this raises, nothing was sent.
        """
        record, endpoint = device.record, device.endpoint
        size = messages.SMALL_BODY_BYTES if record.small else messages.BODY_BYTES
        text, ttl_s = outgoing.text(size), messages.ttl_s(outgoing.until_ms, now.wall_ms)
        answer = PostResponse(PostOutcome.FAILED, "internal")  # until `send` is called, nothing was sent
        try:
            body = encrypt(text, record.p256dh, record.auth, size)
            authorization = self._means.vapid.header(record.vapid, endpoint.origin, now.wall_ms // 1000)
            topic, urgency = messages.topic(record.topic_key, outgoing.topic), messages.URGENCIES[outgoing.rank]
            push = Push(endpoint, body, ttl_s, urgency, topic, authorization, device.admission.lane.known)
            answer = PostResponse(PostOutcome.MAYBE, "internal")
            answer = await self._means.client.send(push, ttl_s)
        except Exception as error:
            report_caught("a push request failed", error)
        self.outcomes[answer.outcome.value] += 1
        try:
            ended_s = self._means.clock.now().monotonic
            self._queues.record(device, endpoint, answer.outcome, ended_s, ended_s - now.monotonic)
            self.answered(endpoint.service, answer.status)
        except Exception as error:
            report_caught("the answer of a push service could not be noted", error)
        try:
            pause_s = self._pause_s(device, answer, record, ttl_s)
        except Exception as error:
            report_caught("a push request failed unexpectedly", error)
            pause_s = self.pause_after_error(device)
        return answer.outcome, pause_s

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
        return wait_s(outcome, device.failures, answer.retry_after_s, left_s, self._means.chance())

    def pause_after_error(self, device: Device) -> float:
        """Return for how many seconds to pause a device after an exception that nobody expected."""
        device.failures += 1
        return wait_s(PostOutcome.MAYBE, device.failures, None, float("inf"), self._means.chance())

    def pause_unmade(self, device: Device, alert: LiveAlert, error: Exception) -> float:
        """Note that an entry could not become a push; return for how many seconds to pause the device.

        After TRIES failures the entry is set aside for the device, so that it does not delay others (rule HD4).
        """
        report_caught("an alert could not be turned into a push", error)
        failures = device.unmade.get(entry_of(alert), 0) + 1
        device.unmade = {**device.unmade, entry_of(alert): failures}
        if failures < TRIES:
            return self.pause_after_error(device)
        self.outcomes["unmade"] += 1
        return LATE_S


def entry_of(alert: LiveAlert) -> tuple[str, int]:
    """Return the key of an alert's current entry in `Device.unmade`."""
    return alert.id, alert.number
