"""Reads one feed again and again, and posts its messages to a node (rules FE2 to FE5)."""

import asyncio
import contextlib
import itertools
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator

from ... import failpoints
from ...clock import Clock
from ...egress.http_times import parse_http_date
from ...model.errors import trace
from ..cap import MAX_CAP_BYTES
from . import timing
from .documents import MessageHead, Unreadable, entries_of, head_of
from .http_client import FeedClient, Fetched, FetchFailed, HostNotAllowed
from .node_client import UNANSWERED, NodeAnswer, NodeClient
from .outcomes import FetchOutcomes
from .settings import WatchedFeed, host_of
from .state import FetchState, TrackedEntry, Validators

logger = logging.getLogger("geocast.fetch.reader")  # so that the name in log lines is that of the process

WINDOW = 50  # the number of messages that are fetched before they are posted in the order of `sent`
LINGER_MS = 3_600_000  # how long a link is tried after its entry has left the feed
SAME_TIME = 3  # after so many failures that a message may have caused itself, others are posted before it
EXPIRED, UNREACHABLE, GIVEN_UP = "expired", "unreachable", "given-up"
AWAY, AWAY_S = ("timeout", "no-connection", "bad-certificate"), 10.0  # how long a host that does not answer is left


class FeedReader:
    """Reads one feed, and posts its messages in the order of `sent`."""

    def __init__(
        self,
        feed: WatchedFeed,
        client: FeedClient,
        node: NodeClient,
        state: FetchState,
        outcomes: FetchOutcomes,
        clock: Clock,
    ) -> None:
        self.feed = feed
        self.health = outcomes.watch(feed)
        self._client = client
        self._node = node
        self._state = state
        self._outcomes = outcomes
        self._clock = clock
        self._asked = asyncio.Event()
        self._read_at = self._post_at = 0.0  # times of the monotonic clock
        self._node_failures = 0
        self._host_at: defaultdict[str | None, float] = defaultdict(float)  # by host: when its links are tried again
        self._due_at: defaultdict[bytes, float] = defaultdict(float)  # by digest: when an entry is tried again
        self._tries: Counter[bytes] = Counter()  # by digest: failures that the entry itself may have caused

    async def run(self) -> None:
        """Read the feed and post its messages, until the task is cancelled."""
        while True:
            self._asked.clear()
            try:
                if self._now() >= self._read_at:
                    await self.read()
                if self._now() >= self._post_at:
                    await self.post(until=self._read_at)
            except Exception as error:
                logger.error("feed %s: an unexpected error: %s", self.feed.name, trace(error))
                self._read_at = self._post_at = self._now() + self.feed.interval_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(self._read_at, self._post_at) - self._now()):
                    await self._asked.wait()

    async def close(self) -> None:
        """Close the connections to the feed and to the hosts of its messages."""
        await self._client.close()

    def read_now(self) -> None:
        """Make `run` read the feed at once, and try everything again that waits."""
        self._read_at = self._post_at = 0.0
        self._due_at.clear()
        self._host_at.clear()
        self._asked.set()

    # ---- reading ---------------------------------------------------------------------------------------------------

    async def read(self) -> bool:
        """Read the feed once, and take note of its entries. Return whether that succeeded."""
        name, interval_s = self.feed.name, self.feed.interval_s
        known = self._state.validators(name)
        try:
            conditions = known.conditions(self.feed.url)
            answer = await self._client.get(self.feed.url, self.feed.max_bytes, secret=True, conditions=conditions)
            if answer.status == 200:
                listed = await asyncio.to_thread(entries_of, answer.body, answer.charset, answer.url)
        except (FetchFailed, Unreadable) as error:
            self._failed(error.reason, error.retry_after_s if isinstance(error, FetchFailed) else None)
            return False
        if self.health.trouble:
            logger.warning("feed %s can be read again", name)
        self.health.succeeded_at, self.health.failures, self.health.trouble = self._now(), 0, ""
        self._read_at = self._now() + timing.after_success(interval_s, answer.headers, timing.chance())
        if answer.status == 304:
            self._outcomes.read(name, "not-modified")
        else:
            validators = Validators(
                self.feed.url, answer.headers.get("etag", ""), answer.headers.get("last-modified", "")
            )
            self._outcomes.read(name, "read")
            new = self._state.take_listing(name, listed, validators, self._clock.now().wall_ms, self._listed_ms(answer))
            for entry in self._state.surplus(name):
                self._done(entry, GIVEN_UP)
            if new:
                self.health.changed_at = self._now()
                self._post_at = 0.0
                logger.info("feed %s: %d new of %d entries", name, new, len(listed))
        await self._state.save()
        failpoints.hit("fetch-listed")
        return True

    def _failed(self, reason: str, retry_after_s: float | None) -> None:
        health, name = self.health, self.feed.name
        health.failures += 1
        pause_s = timing.after_failure(self.feed.interval_s, health.failures, retry_after_s, timing.chance())
        self._read_at = self._now() + pause_s
        self._outcomes.read(name, "failed")
        if reason != health.trouble:
            logger.warning("feed %s can't be read: %s; trying again in %.0f s", name, reason, pause_s)
        health.trouble = reason

    def _listed_ms(self, answer: Fetched) -> int:
        """Return when the feed got its new entries: when it was last modified, if that is plausible, or now."""
        now_ms = self._clock.now().wall_ms
        modified_ms = parse_http_date(answer.headers.get("last-modified")) or now_ms
        return modified_ms if now_ms - 2_000 * self.feed.interval_s < modified_ms < now_ms else now_ms

    # ---- posting ---------------------------------------------------------------------------------------------------

    async def post(self, until: float = float("inf")) -> int:
        """Post the messages that are due. Return how many entries still wait.

        At the time `until`, pause after the current window, so that the feed is read in time.
        """
        self._post_at, now = float("inf"), self._now()
        due = [each for each in self._state.waiting(self.feed.name) if self._due(each) <= now]
        for window in _windows(due):
            ready: list[tuple[MessageHead, TrackedEntry]] = []
            for entry in window:
                head = await self._message(entry)
                if head is not None:
                    ready.append((head, entry))
            ready.sort(key=lambda each: each[0].sent_ms)
            accepts = await self._post_in_order(ready)
            await self._state.save()
            if not accepts:
                break
            if self._now() >= until:
                self._post_at = until
                break
        waiting = self._state.waiting(self.feed.name)
        self.health.waiting = len(waiting)
        for digest in self._due_at.keys() - {each.digest for each in waiting}:
            del self._due_at[digest], self._tries[digest]
        if self._post_at == float("inf"):  # the node accepts messages
            self._post_at = min(map(self._due, waiting), default=self._post_at)
        return len(waiting)

    def _due(self, entry: TrackedEntry) -> float:
        return max(self._due_at[entry.digest], self._host_at[host_of(entry.link)] if entry.message is None else 0.0)

    async def _message(self, entry: TrackedEntry) -> MessageHead | None:
        """Fetch the message of an entry, unless it is known. Return None if it can't be posted now or ever."""
        now_ms = self._clock.now().wall_ms
        if entry.message is None:
            if self._now() < self._due(entry):  # the host has just failed
                return None
            try:
                answer = await self._client.get(entry.link, MAX_CAP_BYTES, secret=True)
            except HostNotAllowed as error:
                self._done(entry, error.reason)
                return None
            except FetchFailed as error:
                pause_s = self._not_now(entry, error.retry_after_s)
                if error.retry_after_s is not None:
                    self._host_at[host_of(entry.link)] = self._now() + pause_s
                elif error.reason in AWAY:
                    self._host_at[host_of(entry.link)] = self._now() + AWAY_S
                return None
            entry.message, entry.charset = answer.body, answer.charset
            failpoints.hit("fetch-linked")
        try:
            head = await asyncio.to_thread(head_of, entry.message, entry.charset, now_ms)
        except Unreadable as error:
            if error.reason == "malformed-xml" and entry.link:  # perhaps only a part of the document arrived
                entry.message = entry.charset = None
                self._not_now(entry, None)
            else:
                self._done(entry, error.reason)
            return None
        entry.identifier = head.identifier
        return head

    def _not_now(self, entry: TrackedEntry, retry_after_s: float | None) -> float:
        """Try the link of an entry again later, or give up if the entry left the feed long ago.

        Return the seconds until the next attempt.
        """
        if entry.left_ms is not None and self._clock.now().wall_ms - entry.left_ms > LINGER_MS:
            self._done(entry, UNREACHABLE)
            return 0.0
        self._tries[entry.digest] += 1
        pause_s = timing.after_failure(self.feed.interval_s, self._tries[entry.digest], retry_after_s, timing.chance())
        self._due_at[entry.digest] = self._now() + pause_s
        return pause_s

    async def _post_in_order(self, ready: list[tuple[MessageHead, TrackedEntry]]) -> bool:
        """Post messages one after another. Return False if the node can't accept messages now."""
        for at, (head, entry) in enumerate(ready):
            assert entry.message is not None, "`_message` has fetched it"
            answer = await self._node.post(entry.message, entry.charset, self.feed.token_file)
            failpoints.hit("fetch-posted")
            if answer.is_final:
                self._node_failures, self.health.stuck = 0, ""
                if answer.is_accepted and entry.listed_ms:
                    self._outcomes.accepted(self.feed.name, head.sent_ms, entry.listed_ms)
                self._done(entry, answer.outcome)
                continue
            for later, each in ready[at:]:  # their feed or their link may be gone when the node answers again
                if later.until_ms <= self._clock.now().wall_ms:
                    self._done(each, EXPIRED)
                else:
                    self._state.change(each)
            self._stuck(entry, answer)
            return False
        return True

    def _stuck(self, entry: TrackedEntry, answer: NodeAnswer) -> None:
        self._node_failures += 1
        pause_s = timing.node_pause(self._node_failures, answer.retry_after_s)
        self._post_at = self._now() + pause_s
        if answer.outcome == UNANSWERED or answer.outcome == "internal":  # perhaps because of this message
            self._tries[entry.digest] += 1
            if self._tries[entry.digest] > SAME_TIME:
                self._due_at[entry.digest] = self._now() + timing.after_failure(
                    self.feed.interval_s, self._tries[entry.digest] - SAME_TIME, None, timing.chance()
                )
        if not self.health.stuck:
            self.health.stuck_since = self._now()
        if answer.outcome != self.health.stuck:
            logger.warning("feed %s: the node does not take messages now: %s", self.feed.name, answer.outcome)
        self.health.stuck = answer.outcome

    def _done(self, entry: TrackedEntry, outcome: str) -> None:
        """Store the outcome of an entry."""
        entry.outcome, entry.done_ms = outcome, self._clock.now().wall_ms
        self._state.change(entry)
        self._outcomes.done(self.feed.name, outcome)
        logger.info("feed %s: the outcome of an entry is %s", self.feed.name, outcome)

    def _now(self) -> float:
        return self._clock.now().monotonic


def _windows(entries: list[TrackedEntry]) -> Iterator[list[TrackedEntry]]:
    """Yield groups of up to WINDOW entries, in the given order."""
    rest = iter(entries)
    while window := list(itertools.islice(rest, WINDOW)):
        yield window
