"""The hub, with devices for sessions: what a session has and a device has not is left out, and what is told can be
untold.

A device's peer takes what the hub writes, and the hub notes it as sent. Whether a push service takes it is known
later. So what it did not take is *untold*, and an alert can be *flown* again to whoever lacks it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..clock import Now
from ..matching.filters import Filter
from ..model.close_codes import Close
from ..stream.hub import Hub
from ..stream.live_alerts import LiveAlert
from ..stream.session import Place, Rights
from ..wire.frames import Wire

Urgency = tuple[int, bool]  # in which order things are sent, the least first: minus the severity's rank, no cancel


class DeviceHub(Hub):
    """The devices of this process, and the alerts that are being sent to them."""

    def __init__(self, capacity: int) -> None:
        """`capacity`: how many devices there may be at once."""
        super().__init__(capacity)
        self._lost = np.zeros(capacity, np.bool_)  # rows that may lack what no flight has for them any more

    def slowed(self, row: int, now: Now) -> None:
        """A message is on its way to the device, or it waits: what is passed over it until `freed` is noted."""
        self._lost[row] = False
        super().slowed(row, now)

    def lost(self, row: int) -> None:
        """The device lacks something that no flight has for it any more."""
        self._lost[row] = True

    def freed(self, row: int, now: Now) -> None:
        """The message has been taken: send the device what it is owed by now.

        That is worked out only if something was passed over it meanwhile. To do so takes 20 µs (bench push).
        """
        if self._lost[row]:
            self.on_drained(row, now)
        else:
            self._slow[row] = False

    def _miss_all(self, rows: NDArray[Any], words: NDArray[np.uint64]) -> None:
        self._lost[rows] = True
        super()._miss_all(rows, words)

    def most_urgent(self) -> Urgency | None:
        """How urgent the flight is that the next turn sends of; None if there is nothing to send."""
        urgencies = [flight.urgency[:2] for flight in (*self._flying[:1], *self._waiting[:1])]
        return min(urgencies, default=None)

    def fly(self, alert: LiveAlert, now: Now) -> None:
        """Send what is current of an alert to whoever is owed it and lacks it (WPO3)."""
        if not alert.ended(now):
            self._launch(alert, now)

    def retract(self, row: int, alert: LiveAlert, number: int, *, recipient: bool) -> None:
        """The entry with this number was not sent to the device after all, or only maybe.

        `recipient`: whether it is a recipient of the alert all the same, by an older revision, or because it may have
        been sent this one.
        """
        self._lost[row] = True
        alert.retract(row, number, recipient=recipient)
        if recipient:
            self._miss(row, alert)  # it may be owed it wherever its places are

    def hold(self, row: int, holding: Mapping[str, int], now: Now) -> None:
        """The device says that it holds these revisions (R5)."""
        for alert_id, held in holding.items():
            self._trust_holding(row, alert_id, held, now)

    def rewire(self, row: int, wire: Wire) -> None:
        """The device wants what is current with proofs now, or without."""
        self._speaking[self._wire[row]] -= 1
        self._wire[row] = wire.number
        self._speaking[wire.number] += 1

    def _look(self, now: Now) -> None:
        """Nothing: a device sends no byte, is not pinged, and no silence or slowness ends it."""

    def count_owed(
        self,
        wire: Wire,
        places: Sequence[Place],
        wanted: Filter,
        rights: Rights,
        holding: Mapping[str, int],
        now: Now,
    ) -> int:
        """How many alerts and cancels such a device is owed, which another process has."""
        row = self.enter(_NOBODY, wire, places, wanted, rights, holding, now)
        owed = self._owed_now(row, now)
        self.leave(row)
        return len(owed)


class _Nobody:
    """Who is asked for, and told nothing."""

    descriptor = -1

    def write(self, data: bytes) -> None:
        """Nothing."""

    def close(self, close: Close) -> None:
        """Nothing."""

    def abort(self) -> None:
        """Nothing."""


_NOBODY = _Nobody()
