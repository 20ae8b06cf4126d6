"""Own tests of push devices: the test alerts that devices have asked for, until push services accept them (rule TR8).

They are in no journal and in no store, so a test that was not sent yet is lost when the process ends or another process
takes the device's shard.
"""

from ..clock import Clock, Now
from ..geometry.sphere import cell_place
from ..model.alert import SEVERITY_RANK
from ..stream.own_tests import OwnTests
from ..wire.frames import encode_json
from . import messages
from .devices import Device
from .messages import PushMessage
from .requests import Outgoing
from .scheduler import PushScheduler


class DeviceTests:
    """The own tests that devices of this process have asked for and that no push service has accepted yet."""

    def __init__(self, sending: PushScheduler, tests: OwnTests, clock: Clock) -> None:
        self._sending = sending
        self._tests = tests
        self._clock = clock
        self._asked: dict[bytes, Outgoing] = {}  # by the device's digest: the newest test that it has asked for

    def ask(self, device: Device, key: str) -> None:
        """Send an own test to a device, as soon as a request to it can start. `key` is the id of its request.

        Do nothing if the device has no place any more, because it has registered again meanwhile.
        """
        if cells := device.record.cells:
            now = self._clock.now()
            alert = self._tests.alert(key, cell_place(int(cells[0], 16)), now)
            message = PushMessage(alert.revision, is_cancel=False, payload=encode_json(alert)[0])
            self._asked[device.digest] = Outgoing(
                alert.id,
                lambda body_bytes: messages.plaintext(message, self._clock.now().wall_ms, body_bytes),
                alert.ends_at,
                SEVERITY_RANK[alert.alert.severity],
            )
            self.send_due()

    def send_due(self) -> None:
        """Start the requests that can start now. Forget tests that have ended. Call this several times a second."""
        now = self._clock.now()
        for digest, test in list(self._asked.items()):
            device = self._sending.devices.find(digest)
            if device is None or messages.ttl_s(test.until_ms, now.wall_ms) < 1:
                del self._asked[digest]
            else:
                self._send(device, test, now)

    def _send(self, device: Device, test: Outgoing, now: Now) -> None:
        async def taken() -> None:
            if self._asked.get(device.digest) is test:
                del self._asked[device.digest]

        self._sending.send_single(device, now, test, taken)
