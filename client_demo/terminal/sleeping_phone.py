"""`listen --push`: a sleeping phone, and the push service that wakes it, both on this machine.

The phone works like an app that gets its pushes through UnifiedPush. It registers cells, reads the pushes, and shows
one notification for each. It has no permanent connection. It only opens a short one to fetch an alert that did not fit
into a push.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.text import Text

from client_demo.console import plain
from client_demo.push_service import Certificate, PushService, make_certificate
from client_demo.python.api import Answer, PublishError
from client_demo.python.client import Client
from client_demo.python.devices import RESOLUTION, Devices, new_device_id
from client_demo.python.link import ClientError
from client_demo.python.notices import Notice, Notices, Taken
from client_demo.python.times import own_ms, wall_ms
from client_demo.python.wire import Message

from .command import WRONG_INPUT, fail

DAYS = 30  # validity of a certificate
PATIENCE_S = 10.0  # how long a request is repeated
FORGET_S = 2.0
FETCH_S = 20.0


def certificate_at(path: Path) -> Certificate:
    """Return the push service's certificate and key. Create them if they are missing; exit if that fails."""
    files = Certificate(path, path.with_suffix(".key"))
    try:
        if not path.exists():
            make_certificate(path, DAYS)
        if not files.key.exists():
            fail(f"{path} can't be used: its key {files.key} is missing", WRONG_INPUT)
    except OSError as error:
        fail(f"{path} can't be written: {error.strerror}", WRONG_INPUT)
    return files


def notice_line(notice: Notice, *, is_new: bool) -> Text:
    """Return a notification as one line of text."""
    place, sound = "shown" if is_new else "replaced", "heard" if notice.sound else "silent"
    line = Text(f"{place:9}{sound:7}", style="bold").append("stays  " if notice.stays else "")
    line.append(plain(notice.title), style="bold" if notice.sound else "")
    return line.append("".join(f"  {plain(part)}" for part in notice.body.split("\n") if part))


@dataclass
class SleepingPhone:
    """One simulated phone that sleeps and is woken by pushes.

    `say` prints a line about the phone, `show` prints a line about a notification, and `make_client` returns a client
    that can fetch alerts.
    """

    url: str
    token: Callable[[], str]
    notices: Notices
    more: Mapping[str, Any]  # more members of the registration: `categories` and so on
    make_client: Callable[[], Client]
    say: Callable[[str], None]
    show: Callable[[Text], None]
    device_id: str = field(default_factory=new_device_id)

    async def run(self, certificate: Certificate, port: int) -> None:
        """Register the phone, and show notifications for its pushes until cancelled.

        Raise PublishError if the registration fails, and OSError if the port is taken.
        """
        pushed: asyncio.Queue[Message] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        with PushService(certificate, port=port) as service:
            here = f"localhost:{service.port}"
            self.say(
                f"a push service at https://{here}: `geocast push` takes it by --push-services {here} "
                f"--push-private localhost --push-ca {certificate.crt}"
            )
            phone = service.phone(on_told=lambda message: loop.call_soon_threadsafe(pushed.put_nowait, message))
            try:
                await self._register(phone.subscription())
                while True:
                    await self._take(await pushed.get(), phone.subscription())
            finally:
                await self._forget()

    async def _register(self, subscription: Mapping[str, Any]) -> Answer:
        async with Devices(self.url, self.token(), patience_s=PATIENCE_S) as devices:
            resolution = min(RESOLUTION, (await devices.offer())["cells"][1])
            holding, _ = self.notices.holdings.holding(own_ms())
            answer = await devices.register(
                self.device_id,
                subscription,
                self.notices.holdings.places,
                resolution=resolution,
                holding=holding,
                **self.more,
            )
        self.say(f"registered until {answer['until']}, with cells of resolution {resolution}; {answer['live']} to come")
        return answer

    async def _forget(self) -> None:
        with contextlib.suppress(PublishError, TimeoutError):
            async with asyncio.timeout(FORGET_S), Devices(self.url, self.token(), patience_s=0) as devices:
                await devices.forget(self.device_id)

    async def _take(self, message: Message, subscription: Mapping[str, Any]) -> None:
        before = self.notices.open
        taken = self.notices.take(message, own_ms())
        self._show(taken, before)
        if message["type"] == "renew":
            await self._register(subscription)
        elif not taken.whole:
            await self._fetch()

    def _show(self, taken: Taken, before: Sequence[str]) -> None:
        for tag in taken.closed:
            self.show(Text(f"closed   {plain(tag)}", style="dim"))
        self.show(notice_line(taken.notice, is_new=taken.notice.tag not in before))

    async def _fetch(self) -> None:
        """Fetch an alert that did not fit into its push, over one short connection."""
        client = self.make_client()
        client.holdings = self.notices.holdings
        try:
            async with asyncio.timeout(FETCH_S):
                await client.fetch()
        except (ClientError, TimeoutError) as error:
            self.say(f"the rest could not be fetched: {error or 'no answer'}")


def start_clock(notices: Notices) -> None:
    """Use the machine's clock as the time, until a connection gives the time of the server."""
    notices.holdings.set_clock(wall_ms(), own_ms())
