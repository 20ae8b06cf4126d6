"""The set of keys at a URL, fetched again and again for as long as a process of the node runs (`--keys https://…`).

Rule 1  The last good set stays in force, whatever the server does. Only what it publishes takes a key away.
Rule 2  It is fetched every `every_s`, which is how long a key that was withdrawn may still be good; at once when the
        operator says so (SIGHUP); and for somebody who shows an unknown key, but only once in AGAIN_S.
Rule 3  One fetch at a time. After one that failed the next follows within AGAIN_S.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterator

from prometheus_client.core import Metric

from ..auth.jwks_client import fetch_keys
from ..auth.jwks_refresh import NewerKeys
from ..config import KeyUrl, Settings
from ..errors import ConfigError, trace
from ..metrics import counters, gauge
from .runtime_config import RuntimeConfig

logger = logging.getLogger(__name__)

AGAIN_S = 30.0  # between fetches that strangers bring about; from one that failed to the next


class KeySource:
    """Fetches the set. Who waits for newer keys in this process waits with `newer`."""

    def __init__(
        self,
        url: KeyUrl,
        every_s: float,
        have: Callable[[], bytes],
        changed: Callable[[bytes], None],
        settled: Callable[[], None] = lambda: None,
    ) -> None:
        """`have` gives the set in force, as `fetch_keys` gave it, and `changed` is called with one that is another.

        `settled` is called when there is none, or none can be had now.
        """
        self.newer = NewerKeys(self.ask)
        self._url = url
        self._every_s = every_s
        self._have = have
        self._changed = changed
        self._settled = settled
        self._wanted = asyncio.Event()
        self._is_fetching = False
        self._asked_at = -AGAIN_S  # when a stranger last brought a fetch about, by the monotonic clock
        self._results = {"ok": 0, "failed": 0}
        self._good_at = time.time()  # it was fetched at the start of the node
        self._is_failing = False

    def fetch_now(self) -> None:
        """Fetch it as soon as may be: the operator says so."""
        self._wanted.set()

    def ask(self) -> None:
        """Fetch it, unless that was asked for lately: somebody has shown an unknown key (Rule 2)."""
        now = time.monotonic()
        if self._is_fetching or self._wanted.is_set():
            return  # its end settles it
        if now - self._asked_at < AGAIN_S:
            self._settle()
            return
        self._asked_at = now
        self._wanted.set()

    async def run(self) -> None:
        """Fetch it again and again (Rule 2), until cancelled."""
        while True:
            # A little earlier than it has to be, and not all nodes at the same moment.
            pause_s = self._every_s * random.uniform(0.8, 0.95)  # noqa: S311
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(AGAIN_S, pause_s) if self._is_failing else pause_s):
                    await self._wanted.wait()
            self._wanted.clear()
            self._is_fetching = True
            try:
                await self._fetch()
            except Exception as error:
                logger.error("the keys could not be fetched: %s", trace(error))
                self._settle()
            self._is_fetching = False

    async def _fetch(self) -> None:
        try:
            found = await fetch_keys(self._url)
        except ConfigError as error:
            self._results["failed"] += 1
            if not self._is_failing:
                logger.error("the keys in force stay, for they can't be fetched: %s", error)
            self._is_failing = True
            self._settle()
            return
        self._results["ok"] += 1
        self._good_at = time.time()
        if self._is_failing:
            logger.warning("the keys can be fetched again")
        self._is_failing = False
        if found == self._have():
            self._settle()
        else:
            self._changed(found)

    def _settle(self) -> None:
        self.newer.settle()
        self._settled()

    def metrics(self) -> Iterator[Metric]:
        """How it goes, for Prometheus."""
        yield counters("key_fetches", "Times that the keys at a URL were fetched", "result", self._results.items())
        yield gauge("keys_fetched_timestamp_seconds", "When the keys at a URL were last fetched", self._good_at)


def source_of(
    settings: Settings,
    in_force: RuntimeConfig,
    changed: Callable[[bytes], None],
    settled: Callable[[], None] = lambda: None,
) -> KeySource | None:
    """What fetches the keys, if they are at a URL."""
    if not isinstance(settings.keys, KeyUrl):
        return None
    return KeySource(settings.keys, settings.keys_refresh_s, lambda: in_force.keys, changed, settled)
