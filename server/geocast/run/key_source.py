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
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.core import Metric

from .. import tasks
from ..auth.jwks_client import fetch_keys
from ..auth.jwks_refresh import NewerKeys
from ..metrics import counters, gauge
from ..model.errors import ConfigError
from ..model.server_address import KeyUrl
from .process import Process
from .runtime_config import RuntimeConfig

logger = logging.getLogger(__name__)

AGAIN_S = 30.0  # least time between two fetches for unknown keys; longest time from a failed fetch to another one


@dataclass(eq=False)
class KeySource(tasks.Part):
    """Fetches the key set from `url` every `every_s` seconds, and on demand.

    A connection or request that needs newer keys uses `newer` to wait for them.

    The function `have` returns the key set in use, as the bytes that were fetched. `changed` is called with a fetched
    set that differs from it. `settled` is called when a fetch brings no new set: the set is the same, or the fetch
    fails, or was requested too soon after the last one.
    """

    url: KeyUrl
    every_s: float
    have: Callable[[], bytes]
    changed: Callable[[bytes], None]
    settled: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.newer = NewerKeys(self.ask)
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
            pause_s = self.every_s * random.uniform(0.8, 0.95)  # noqa: S311
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
            found = await fetch_keys(self.url)
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
        if found == self.have():
            self._settle()
        else:
            self.changed(found)

    def _settle(self) -> None:
        self.newer.settle()
        self.settled()

    def named_tasks(self) -> dict[str, tasks.Work]:
        """Return the task that fetches the keys."""
        return {"keys": self.run}

    def metrics(self) -> Iterator[Metric]:
        """Yield metrics for Prometheus: the number of fetches by result, and the time of the last successful fetch."""
        yield counters("key_fetches", "Times that the keys at a URL were fetched", "result", self._results.items())
        yield gauge("keys_fetched_timestamp_seconds", "When the keys at a URL were last fetched", self._good_at)


def source_of(
    in_force: RuntimeConfig, changed: Callable[[bytes], None], settled: Callable[[], None] = lambda: None
) -> KeySource | None:
    """Return a KeySource if the value of `--keys` is a URL, otherwise None.

    The functions `changed` and `settled` are passed on to the KeySource.
    """
    url = in_force.settings.keys
    if not isinstance(url, KeyUrl):
        return None
    source = KeySource(url, in_force.settings.keys_refresh_s, lambda: in_force.keys, changed, settled)
    in_force.watch(source.newer.settle)
    return source


async def read_own_files(process: Process, in_force: RuntimeConfig) -> NewerKeys | None:
    """Have a process itself read its files again at SIGHUP, and fetch its keys if they are at a URL.

    Return None if the keys are not at a URL.
    """
    source = source_of(in_force, in_force.take_keys)

    async def reload() -> None:
        in_force.reload()
        if source is not None:
            source.fetch_now()

    if source is not None:
        await process.add(source)
    await process.reload_by(reload)
    return None if source is None else source.newer
