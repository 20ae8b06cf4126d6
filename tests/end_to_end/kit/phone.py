"""The Python client connected to a real node, on its own thread so that tests read as a sequence of steps."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from end_to_end.kit.alerts import Json
from end_to_end.kit.earth import Point
from end_to_end.kit.times import wait_until

from client_demo.python import Client, Place, Verifier


class Phone:
    """A subscriber's client and everything that it has reported.

    Entering the context waits for the first welcome; leaving it stops the client. The client reconnects without delay.
    """

    def __init__(self, url: str, spot: Point, token: str | Callable[[], str], verify: Verifier | None = None) -> None:
        self.changes: list[tuple[str, Json, str | None]] = []  # kind, alert, reason
        self.dropped: list[str] = []  # the verifier's reasons for dropping messages
        self.statuses: list[str] = []
        self.client = Client(
            url,
            [Place.at(*spot)],
            token=token if callable(token) else lambda: token,
            verify=verify,
            draw=lambda: 0.0,
            on_change=lambda change: self.changes.append((str(change.kind), dict(change.alert), change.reason)),
            on_status=self.statuses.append,
            on_untrusted=lambda untrusted: self.dropped.append(untrusted.reason),
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self.client.run()))

    def __enter__(self) -> Phone:
        self._thread.start()
        try:
            self._wait_for_welcome(1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self.client.stop)
        self._thread.join()
        self._loop.close()

    def reconnect(self) -> None:
        """Drop the connection, and wait for the welcome on the next one."""
        before = self._welcomes()
        self._loop.call_soon_threadsafe(self.client.interrupt)
        self._wait_for_welcome(before + 1)

    def _welcomes(self) -> int:
        return sum(status.startswith("connected") for status in self.statuses)

    def _wait_for_welcome(self, count: int) -> None:
        wait_until(lambda: self._welcomes() >= count, lambda: f"welcome {count} arrives; {self.statuses}")

    def kinds(self) -> list[tuple[str, int]]:
        """Return the kind and the alert's revision of each reported change, in order."""
        return [(kind, alert["revision"]) for kind, alert, _ in self.changes]

    def wait_for_kinds(self, *kinds: tuple[str, int]) -> None:
        """Wait until the client has reported exactly these kinds of changes, of these revisions."""
        wait_until(lambda: self.kinds() == [*kinds], lambda: f"{kinds} are reported; {self.kinds()}, {self.statuses}")

    def held(self) -> dict[str, int]:
        """Return id -> revision of the held alerts, shown or not."""
        return {alert["id"]: alert["revision"] for alert in list(self.client.holdings)}

    def wait_for_held(self, *ids: str) -> None:
        """Wait until the client holds exactly these alerts."""
        wait_until(lambda: self.held().keys() == set(ids), lambda: f"{ids} are held; {self.held()}, {self.statuses}")
