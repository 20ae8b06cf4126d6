"""What is due for devices at certain times: reminders, the ends of registrations and of rights (rules WPR9, R6).

The *lease* of a device is the time until which its registration is valid.
"""

from ..clock import Now
from ..model.alert import SEVERITY_RANK
from . import messages
from .device_repository import DeviceRepository
from .devices import Device, Times
from .encryption import Record
from .requests import Outgoing
from .scheduler import PushScheduler

RENEW_AGAIN_MS = 60_000  # delay before another attempt to remind a device of its lease


class LeaseWatch:
    """Watches the leases of devices, and the rights of their tokens, which expire."""

    def __init__(self, sending: PushScheduler, records: DeviceRepository) -> None:
        self._sending = sending
        self._records = records
        self._leases, self._rights = Times(), Times()

    def watch(self, device: Device) -> None:
        """Schedule the next check of a device's registration.

        If the device may receive tests, also schedule the time at which it loses that right.
        """
        self._schedule_check(device, device.lease_due_ms)
        if device.record.may_test:
            self._rights.put(device.record.expires_at_ms, device)

    def sweep(self, now: Now) -> None:
        """Withdraw rights that have expired, remind devices whose leases end soon, and forget them when these end."""
        self._rights.handle(now.wall_ms, lambda device: self._set_rights(device, now))
        self._leases.handle(now.wall_ms, lambda device: self._check_lease(device, now))

    def _set_rights(self, device: Device, now: Now) -> None:
        self._sending.fanout.set_rights(device.row, may_test=may_test(device.record, now))

    def _check_lease(self, device: Device, now: Now) -> None:
        """Forget a device whose lease (its registration) has ended; remind it if its lease ends soon (WPR9)."""
        device.looked_at_ms = None
        if device.until_ms <= now.wall_ms:
            self._sending.devices.drop([device], "lease")
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

        async def taken() -> None:
            if device.is_here and device.until_ms == until_ms:
                await self._records.rewrite(device, renewed=True)

        text = messages.renewal(until_ms, now.wall_ms)
        outgoing = Outgoing(messages.RENEW, lambda _body_bytes: text, until_ms, SEVERITY_RANK["minor"])
        self._sending.send_single(device, now, outgoing, taken)


def may_test(record: Record, now: Now) -> bool:
    """Return whether a device with this record may be sent test and exercise alerts (rule R6).

    The right ends when the device's token expires.
    """
    return record.may_test and now.wall_ms < record.expires_at_ms
