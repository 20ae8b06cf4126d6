"""The lines of the journal: which revisions of which live alerts the devices were sent (rules WPS2 to WPS5).

A *line* (`DeliveryRecord`) names an alert by a digest. Digests can't be inverted, so the digests of all live alerts are
kept, for each key of the keyring.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence

from ..clock import Now
from ..stream.live_alerts import CURRENT, RECIPIENT, LiveAlert, LiveAlerts
from .devices import Device
from .devicestore import DeliveryRecord, State, StoredDevice
from .encryption import Keyring


class DeliveryLines:
    """Turns what is known about devices and live alerts into lines of the journal, and back."""

    def __init__(self, live: LiveAlerts, keyring: Keyring) -> None:
        self._live = live
        self._keyring = keyring
        self._digest = functools.lru_cache(1_024)(functools.partial(keyring.digest, "alert"))
        self._ids: Sequence[dict[bytes, str]] = [{} for _ in range(len(keyring))]  # for each key: digest -> alert id
        live.on_let_go = self._forget

    def learn(self, alert_id: str, now: Now) -> None:
        """Compute the digests of an alert, if it is live."""
        if self._live.find(alert_id, now) is not None:
            for key, ids in enumerate(self._ids):
                ids[self._keyring.digest("alert", alert_id, key=key)] = alert_id

    def _forget(self, alert_id: str) -> None:
        for key, ids in enumerate(self._ids):
            ids.pop(self._keyring.digest("alert", alert_id, key=key), None)

    def is_over(self, alert: bytes) -> bool:
        """Return whether the alert with this digest is no longer live."""
        return alert not in self._ids[0]

    def line(self, device: Device, alert: LiveAlert, number: int, state: State | None) -> DeliveryRecord:
        """Return the line that says that a device was sent this revision; with the state None, the line is removed."""
        digest = self._digest(alert.id)
        return DeliveryRecord(device.digest, digest, number, state, alert.ends_at, device.record.secret, device.term)

    def of(self, device: Device, alerts: Iterable[LiveAlert | None]) -> list[DeliveryRecord]:
        """Return the lines of a device: one for each of these alerts that it was sent, or may have been sent.

        A line says SENT if the device has the current revision, and otherwise MAYBE. It also says MAYBE while a request
        for the alert is under way.
        """
        lines = []
        for alert in alerts:
            if alert is not None and (told := alert.flags(device.row)) & RECIPIENT:
                is_on_its_way = device.owed is not None and device.owed.alert is alert
                has_it = told & CURRENT and alert.cancel is None and not is_on_its_way
                lines.append(self.line(device, alert, alert.revision_number, State.SENT if has_it else State.MAYBE))
        return lines

    def of_held(self, device: Device, holding: Iterable[str], now: Now) -> list[DeliveryRecord]:
        """Return the lines of a device for the alerts with these ids, which it says it has (rules R5, WPR10).

        With these lines, the device counts as a recipient of the alerts even after a restart.
        """
        return self.of(device, [self._live.find(alert_id, now) for alert_id in holding])

    def held(
        self, holding: Mapping[str, int], now: Now, device: StoredDevice, told: Sequence[DeliveryRecord]
    ) -> list[DeliveryRecord]:
        """Return the lines to store with a registration, for the alerts that the device says it has.

        A line records which revision of an alert a device was sent. `holding` maps the ids of the alerts to their
        revisions. `told` are the lines that are stored already. If one of them already says what is known about an
        alert, no new line is returned for that alert. A device that has an alert is a recipient, and has to stay one
        even if the process that is responsible for it dies (rules R5, WPR10).

        Example: a phone receives alert A over a WebSocket, then registers for pushes with `holding: {A: 3}`, and the
        responsible process dies before it reads that. The next process finds the line of A in the store, so it sends
        the phone the cancel of A.
        """
        known, lines = {line.alert: line for line in told}, []
        for alert_id, number in holding.items():
            alert = self._live.find(alert_id, now)
            if alert is None:
                continue
            has_it = number >= alert.revision_number and alert.cancel is None
            line = known.get(digest := self._digest(alert_id))
            if line is None or (has_it and (line.number < alert.revision_number or line.state is State.MAYBE)):
                state = State.SENT if has_it else State.MAYBE
                lines.append(
                    DeliveryRecord(device.device, digest, alert.revision_number, state, alert.ends_at, device.secret)
                )
        return lines

    def revisions(self, lines: Iterable[DeliveryRecord]) -> dict[str, int]:
        """Return the revisions that a device has according to its lines, as a dict by alert id.

        Revision 0 means that the device may lack the current revision. The device then counts as a recipient, so it is
        sent the current entry of the alert, or its cancel (rule WPS3).
        """
        ids = self._ids[0]
        found = {ids[line.alert]: line for line in lines if line.alert in ids}
        return {alert_id: line.number if line.state is State.SENT else 0 for alert_id, line in found.items()}

    def renamed(self, lines: Iterable[DeliveryRecord], key: int, device: bytes) -> list[DeliveryRecord]:
        """Return lines that were written with an older key, for the digest that the device has under the first key.

        `key` is the index of the older key. Lines of alerts that are not live are left out.
        """
        ids = self._ids[key]
        return [
            line._replace(device=device, alert=self._digest(ids[line.alert])) for line in lines if line.alert in ids
        ]
