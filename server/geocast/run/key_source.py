"""The key set (JWKS) at a URL, which is fetched regularly while a process of the node runs (`--keys https://…`).

Rule 1  The last valid set stays in use even while the server fails. A key is dropped only if a fetched set lacks it.
        Example: the server is down for a day. All tokens of known keys are accepted during that day.
Rule 2  The set is fetched every `every_s`, which is how long a withdrawn key may still be accepted. It is fetched at
        once when the operator asks for it (SIGHUP). It is also fetched when a token with an unknown key arrives, at
        most once in AGAIN_S.
        Example: somebody sends 1,000 tokens with invented key ids a second. The server sees a fetch every 30 s.
Rule 3  Only one fetch runs at a time. After a failure, the set is fetched again within AGAIN_S.
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

AGAIN_S = 30.0  # least time between two fetches for unknown keys; longest time from a failed fetch to another one


class KeySource:
    """The task that fetches the key set. Connections and requests that need newer keys wait with `newer`."""

    def __init__(
        self,
        url: KeyUrl,
        every_s: float,
        have: Callable[[], bytes],
        changed: Callable[[bytes], None],
        settled: Callable[[], None] = lambda: None,
    ) -> None:
        """Create a source that fetches `url` every `every_s` seconds once `run` is running.

        `have` returns the set that is in use, as `fetch_keys` returned it. `changed` is called with a fetched set that
        differs from it. `settled` is called if a fetch returns the same set, fails, or is not due yet.
        """
        self.newer = NewerKeys(self.ask)
        self._url = url
        self._every_s = every_s
        self._have = have
        self._changed = changed
        self._settled = settled
        self._wanted = asyncio.Event()
        self._is_fetching = False
        self._asked_at = -AGAIN_S  # the monotonic time of the last fetch for an unknown key
        self._results = {"ok": 0, "failed": 0}
        self._good_at = time.time()  # the set was fetched when the node started
        self._is_failing = False

    def fetch_now(self) -> None:
        """Fetch the set as soon as possible, because the operator has asked for it."""
        self._wanted.set()

    def ask(self) -> None:
        """Fetch the set because a token with an unknown key has arrived.

        Do nothing if a fetch for that reason was made recently (Rule 2).
        """
        now = time.monotonic()
        if self._is_fetching or self._wanted.is_set():
            return  # when that fetch ends, it calls `_settle` or `changed`
        if now - self._asked_at < AGAIN_S:
            self._settle()
            return
        self._asked_at = now
        self._wanted.set()

    async def run(self) -> None:
        """Fetch the set regularly and on demand (Rule 2), until cancelled."""
        while True:
            # Fetch a little earlier than necessary, at a random time, so that not all nodes fetch at the same moment.
            pause_s = self._every_s * random.uniform(0.8, 0.95)  # noqa: S311
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(AGAIN_S, pause_s) if self._is_failing else pause_s):
                    await self._wanted.wait()
            self._wanted.clear()
            self._is_fetching = True
            try:
                await self._fetch()
            except Exception as error:
                logger.error("signing keys: fetching hit an unexpected error and will be tried again: %s", trace(error))
                self._settle()
            self._is_fetching = False

    async def _fetch(self) -> None:
        try:
            found = await fetch_keys(self._url)
        except ConfigError as error:
            self._results["failed"] += 1
            if not self._is_failing:
                logger.error("signing keys: they can't be fetched, so the present ones stay valid: %s", error)
            self._is_failing = True
            self._settle()
            return
        self._results["ok"] += 1
        self._good_at = time.time()
        if self._is_failing:
            logger.warning("signing keys: fetching works again")
        self._is_failing = False
        if found == self._have():
            self._settle()
        else:
            self._changed(found)

    def _settle(self) -> None:
        self.newer.settle()
        self._settled()

    def metrics(self) -> Iterator[Metric]:
        """Yield the number of fetches by result, and the time of the last successful one, for Prometheus."""
        yield counters("key_fetches", "Times that the keys at a URL were fetched", "result", self._results.items())
        yield gauge("keys_fetched_timestamp_seconds", "When the keys at a URL were last fetched", self._good_at)


def source_of(
    settings: Settings,
    in_force: RuntimeConfig,
    changed: Callable[[bytes], None],
    settled: Callable[[], None] = lambda: None,
) -> KeySource | None:
    """Return a KeySource if `--keys` is a URL, otherwise None."""
    if not isinstance(settings.keys, KeyUrl):
        return None
    return KeySource(settings.keys, settings.keys_refresh_s, lambda: in_force.keys, changed, settled)
