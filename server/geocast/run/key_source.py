"""Fetch the set of signing keys (JWKS) from a URL, regularly while the node runs (`--keys https://…`).

Rule 1  The last valid set stays in use even while the server fails. A key is dropped only if a fetched set lacks it.
        Example: the server is down for a day. All tokens of known keys are accepted during that day.
Rule 2  The set is fetched every `every_s` seconds, which is how long a withdrawn key may still be accepted. It is
        fetched at once when the operator asks for it (SIGHUP). It is also fetched when a token with an unknown key
        arrives; such tokens cause one fetch at most every AGAIN_S seconds.
        Example: somebody sends 1,000 tokens with invented key ids every second. The set is fetched every 30 s.
Rule 3  Only one fetch runs at a time. After a failure, the set is fetched again within AGAIN_S seconds.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import Metric

from .. import tasks
from ..auth.jwks_client import fetch_keys
from ..auth.jwks_refresh import NewerKeys
from ..config import FollowerSettings
from ..metrics import counters, gauge
from ..model.errors import ConfigError
from ..model.server_address import KeyUrl
from ..tasks import Work
from .runtime_config import RuntimeConfig

logger = logging.getLogger(__name__)

AGAIN_S = 30.0  # least time between two fetches for unknown keys; longest time from a failed fetch to another one


class KeySource:
    """Fetches the key set from a URL, regularly and on demand.

    A connection or request that needs newer keys uses `newer` to wait for them.
    """

    def __init__(
        self,
        url: KeyUrl,
        every_s: float,
        have: Callable[[], bytes],
        changed: Callable[[bytes], None],
        settled: Callable[[], None] = lambda: None,
    ) -> None:
        """Create a source for the key set at `url`.

        While the coroutine `run` is running, the set is fetched every `every_s` seconds.

        The function `have` returns the key set in use, as the bytes that were fetched. `changed` is called with a
        fetched set that differs from it. `settled` is called when a fetch brings no new set: the set is the same, or
        the fetch fails, or was requested too soon after the last one.
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
        """Fetch the key set as soon as possible. Call this when the operator asks for it."""
        self._wanted.set()

    def ask(self) -> None:
        """Fetch the key set soon.

        Call this when a token with an unknown key has arrived. If the last fetch for this reason was less than AGAIN_S
        seconds ago, only call `settled` (Rule 2).
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
        """Fetch the key set regularly and on demand (Rule 2), until the task is cancelled."""
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
            except Exception:
                self._wanted.set()
                self._settle()
                raise
            finally:
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
        """Yield metrics for Prometheus: the number of fetches by result, and the time of the last successful fetch."""
        yield counters("key_fetches", "Times that the keys at a URL were fetched", "result", self._results.items())
        yield gauge("keys_fetched_timestamp_seconds", "When the keys at a URL were last fetched", self._good_at)


def of_source(source: KeySource | None) -> dict[str, Work]:
    """Return the task that fetches the keys, by name; nothing if there is no source."""
    return {} if source is None else {"keys": source.run}


def source_of(
    settings: FollowerSettings,
    in_force: RuntimeConfig,
    changed: Callable[[bytes], None],
    settled: Callable[[], None] = lambda: None,
) -> KeySource | None:
    """Return a KeySource if the value of `--keys` is a URL, otherwise None.

    The functions `changed` and `settled` are passed on to the KeySource.
    """
    if not isinstance(settings.keys, KeyUrl):
        return None
    source = KeySource(settings.keys, settings.keys_refresh_s, lambda: in_force.keys, changed, settled)
    in_force.watch(source.newer.settle)
    return source


class OwnConfig(tasks.Part):
    """The configuration of a process that reads its files itself, and fetches its keys itself if they are at a URL."""

    def __init__(self, settings: FollowerSettings, in_force: RuntimeConfig) -> None:
        """Create the part. `newer_keys` is None if the keys are not at a URL."""
        self._in_force = in_force
        self._source = source_of(settings, in_force, in_force.take_keys)
        self.newer_keys = None if self._source is None else self._source.newer

    def named_tasks(self) -> dict[str, Work]:
        """Return the task that fetches the keys."""
        return of_source(self._source)

    def metrics(self) -> Iterable[Metric]:
        """Return the metrics of the source of keys."""
        return () if self._source is None else self._source.metrics()

    async def reload(self) -> None:
        """Read all files again, and use all of them or none. Never raise an exception."""
        self._in_force.reload()
        if self._source is not None:
            self._source.fetch_now()
