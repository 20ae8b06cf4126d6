"""The demo's sleeping phones, which are woken by pushes.

The phones register with `geocast push`, and get their pushes from a push service that simulates those of browsers. Half
of the phones read each push at once. The others sleep until the end, and then read the pushes that are still stored.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h3
import httpx

from client_demo.push_service import Phone, PushService, make_certificate
from client_demo.python.devices import Devices, new_device_id
from client_demo.python.geo import Place, is_inside, offset

from .population import Point
from .processes import Node, PushProcess
from .push_verdict import Sleeper
from .verdict import Published

PHONES = 48
RESOLUTION = 8
SEED = 1042
NEAR_M = 900.0  # standard deviation of the phones' distance from an incident
PATIENCE_S = 10.0  # seconds for which a registration is repeated
SETTLE_S = 2.0  # the same as in `crowd`
LATE_S = 5.0
LIFE_S = 3600


@dataclass
class _Sleeper:
    """A sleeping phone.

    `ids` are the alerts that it must be sent, and `owed` is the number of pushes expected so far.
    """

    phone: Phone
    places: list[Place]
    slept: bool
    ids: set[str] = field(default_factory=set)
    owed: int = 0
    taken_ms: list[float] = field(default_factory=list)

    def owes(self, item: Published) -> bool:
        """Return whether the phone must be sent a push about this revision or cancellation.

        Once an alert has reached one of the phone's places, the phone must be sent all later revisions, too.
        """
        if item.area is not None and is_inside(item.area, self.places):
            self.ids.add(item.id)
        return item.id in self.ids

    def record(self) -> Sleeper:
        """Return what the verdict needs to know about the phone, including the messages that it has read."""
        told = [
            (message["alert"]["id"], message["alert"]["revision"])
            if message["type"] == "alert"
            else (message["id"], message["revision"])
            for message in self.phone.told
            if message["type"] in ("alert", "cancel")
        ]
        return Sleeper(self.places, self.slept, told, self.taken_ms)


class Sleepers:
    """The sleeping phones, and their push service. Every other phone sleeps until `wake` is called."""

    def __init__(self, node: Node, push: PushProcess, service: PushService) -> None:
        self.push = push
        self._node, self._service = node, service
        self._all: list[_Sleeper] = []
        self._starting: asyncio.Task[None] | None = None

    def start(self, origins: Sequence[str]) -> None:
        """Start the process `geocast push` in the background. Pages of these origins may register with it, too."""
        self._starting = asyncio.create_task(self.push.start(origins))

    async def stop(self) -> None:
        """Stop the process `geocast push`."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await self.push.stop()

    async def watch(self) -> None:
        """Wait until `geocast push` ends, and raise ProcessError, because it should not end before `stop`.

        Also raise ProcessError if it could not be started.
        """
        if self._starting is not None:
            await self._starting
        await self.push.watch()

    async def register(self, incidents: Sequence[Point]) -> str:
        """Register phones around the places of incidents, and return a line of text about the registrations.

        Raise ProcessError if `geocast push` could not be started, and PublishError if it refuses a registration.
        """
        assert self._starting is not None
        await self._starting
        began, dice = time.monotonic(), random.Random(SEED)
        for number in range(PHONES):
            near = incidents[:2] if number % 4 < 2 else incidents  # alerts for the first two are always published
            spot = offset(*dice.choice(near), dice.gauss(0, NEAR_M), dice.gauss(0, NEAR_M))
            place, slept = Place.in_cell(h3.latlng_to_cell(*spot, RESOLUTION)), number % 2 == 1
            self._all.append(_Sleeper(self._service.phone(asleep=slept), [place], slept))
        await asyncio.gather(*(self._register(one) for one in self._all))
        took_s = time.monotonic() - began
        return f"{PHONES} sleeping phones registered in {took_s:.1f} s; half of them sleep until the end"

    async def _register(self, one: _Sleeper) -> None:
        token = self._node.issuer.token(one.phone.name, ["alerts:receive"], LIFE_S)
        # The connection is not encrypted, so the client need not read all certificates, which would take seconds.
        plain = httpx.AsyncHTTPTransport(verify=False)
        async with Devices(self.push.url, token, patience_s=PATIENCE_S, transport=plain) as devices:
            await devices.register(new_device_id(), one.phone.subscription(), one.places, resolution=RESOLUTION)

    async def settle(self, item: Published) -> None:
        """Wait, for at most 2 s, until the push service has received all pushes for a revision or cancellation."""
        sent_at = time.time() - (time.monotonic_ns() - item.sent) / 1e9
        due = [one for one in self._all if one.owes(item)]
        for one in due:
            one.owed += 1
        await self._until_pushed(due, SETTLE_S)
        for one in due:
            if not _lacks(one):
                one.taken_ms.append(1000 * (one.phone.requests[one.owed - 1].at - sent_at))

    async def _until_pushed(self, these: Sequence[_Sleeper], most_s: float) -> None:
        with contextlib.suppress(AssertionError):
            await asyncio.to_thread(self._service.until, lambda: not any(map(_lacks, these)), most_s)

    async def wake(self) -> list[Sleeper]:
        """Wait a few seconds for pushes that are late, wake all phones, and return their records."""
        await self._until_pushed(self._all, LATE_S)
        for one in self._all:
            one.phone.wake()
        return [one.record() for one in self._all]

    @property
    def faults(self) -> list[str]:
        """The faults that the push service has found in pushes, each as a line of text."""
        return [f"the push service found a fault: {what}" for what in sorted(set(self._service.wrong))]

    def forget(self) -> None:
        """Delete the records of the phones. In a demo that runs for hours, they would fill the memory."""
        for one in self._all:
            one.phone.told.clear()
            one.phone.requests.clear()
            one.taken_ms.clear()
            one.owed = 0


def _lacks(one: _Sleeper) -> bool:
    return len(one.phone.requests) < one.owed


@contextlib.asynccontextmanager
async def sleeping(node: Node, folder: Path) -> AsyncIterator[Sleepers]:
    """Run the push service for the duration of an `async with` block. At its end, stop `geocast push`."""
    certificate = make_certificate(folder / "push-ca.pem")
    with PushService(certificate) as service:
        sleepers = Sleepers(node, PushProcess(folder, node, f"localhost:{service.port}", certificate.crt), service)
        try:
            yield sleepers
        finally:
            await sleepers.stop()
