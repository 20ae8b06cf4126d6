"""Reads one feed again and again, and posts its messages to a node (rules FE2 to FE5)."""

import asyncio
import contextlib
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ... import failpoints
from ...clock import Clock
from ...egress.http_times import parse_http_date
from ...model.errors import trace
from ..cap import MAX_CAP_BYTES
from . import timing
from .documents import MessageHead, read_feed, read_head
from .http_client import AT_ONCE, FeedClient, Fetched, FetchFailed, LinkNotAllowed
from .node_client import UNANSWERED, NodeAnswer, NodeClient
from .outcomes import FetchOutcomes
from .settings import WatchedFeed, host_of
from .state import FetchState, TrackedEntry, Validators

logger = logging.getLogger("geocast.fetch.reader")  # so that the name in log lines is that of the process

WINDOW = 50  # the number of messages that are fetched before they are posted in the order of `sent`
ROUND_S = 5.0  # how often entries are looked for that are due, while others are fetched
ORDER_S = 3.0  # the longest time that a message which has been fetched waits for earlier ones
MAX_AHEAD_BYTES = 64 * 1024 * 1024  # of messages of all feeds that are fetched while the node does not take them
LINGER_MS = 3_600_000  # how long a link is tried after its entry has left the feed
SAME_TIME = 3  # after so many failures that a message may have caused itself, others are posted before it
EXPIRED, UNREACHABLE, GIVEN_UP = "expired", "unreachable", "given-up"
AWAY, AWAY_S = ("no-connection", "bad-certificate"), 10.0  # how long a host that can't be reached is left alone
_NEVER = float("inf")
_Lane = tuple[str | None, bool]  # a host, and whether the link has timed out the last time


@dataclass(slots=True)
class _Rounds:
    """The time of the next round, by the monotonic clock, and an event that asks for a round before."""

    at: float = 0.0
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def now(self) -> None:
        """Ask for a round at once."""
        self.at = 0.0
        self.asked.set()


@dataclass(eq=False, repr=False)
class FeedReader:
    """Reads one feed, and posts its messages in the order of `sent`."""

    feed: WatchedFeed
    client: FeedClient
    node: NodeClient
    state: FetchState
    outcomes: FetchOutcomes
    clock: Clock

    def __post_init__(self) -> None:
        self.health = self.outcomes.watch(self.feed)
        self._reading, self._posting = _Rounds(), _Rounds()
        self._node_at = 0.0  # when the node is tried again
        self._links_at = 0.0  # when links are tried again, after messages that wait have taken too much memory
        self._only_ends = False  # until then, messages that only end alerts are posted
        self._node_failures = 0
        self._was_late = False
        self._host_at: defaultdict[str | None, float] = defaultdict(float)  # by host: when its links are tried again
        self._due_at: defaultdict[bytes, float] = defaultdict(float)  # by digest: when an entry is tried again
        self._tries: Counter[bytes] = Counter()  # by digest: failures that the entry itself may have caused
        self._heads: dict[bytes, MessageHead] = {}  # by digest: of the messages that wait for the node

    async def run(self) -> None:
        """Read the feed and post its messages, until the task is cancelled. Neither waits for the other."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(self.read, self._reading))
            group.create_task(self._repeat(self.post, self._posting))

    async def _repeat(self, work: Callable[[], Awaitable[object]], rounds: _Rounds) -> None:
        while True:
            rounds.asked.clear()
            try:
                if self._now() >= rounds.at:
                    await work()
            except Exception:
                pause_s = timing.after_failure(self.feed.interval_s, 1, None, 0.0)
                logger.error("feed %s: an unexpected error; trying again in %d s", self.feed.name, pause_s)
                rounds.at = self._now() + pause_s
                raise
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rounds.at - self._now()):
                    await rounds.asked.wait()

    async def close(self) -> None:
        """Close the connections to the feed and to the hosts of its messages."""
        self.state.ahead.pop(self.feed.name, None)
        await self.client.close()

    def read_now(self) -> None:
        """Make `run` read the feed at once, and try everything again that waits."""
        self._node_at = 0.0
        self._due_at.clear()
        self._host_at.clear()
        self._reading.now()
        self._posting.now()

    # ---- reading ---------------------------------------------------------------------------------------------------

    async def read(self) -> bool:
        """Read the feed once, and take note of its entries. Return whether that succeeded."""
        name, interval_s = self.feed.name, self.feed.interval_s
        known = self.state.validators(name)
        self._report_late()
        try:
            answer = await self.client.get(self.feed.url, self.feed.max_bytes, known.conditions(self.feed.url))
            if answer.status == 200:
                listed = await read_feed(answer)
        except FetchFailed as error:
            self._failed(error)
            return False
        if self.health.trouble:
            logger.warning("feed %s can be read again", name)
        self.health.succeeded_at, self.health.failures, self.health.trouble = self._now(), 0, ""
        self._reading.at = self._now() + timing.after_success(interval_s, answer.headers, timing.chance())
        if answer.status == 304:
            self.outcomes.read(name, "not-modified")
        else:
            validators = Validators(
                self.feed.url, answer.headers.get("etag", ""), answer.headers.get("last-modified", "")
            )
            self.outcomes.read(name, "read")
            new = self.state.take_listing(name, listed, validators, self.clock.now().wall_ms, self._listed_ms(answer))
            for entry in self.state.surplus(name):
                self._done(entry, GIVEN_UP)
            if new:
                self.health.changed_at = self._now()
                self._posting.now()
                logger.info("feed %s: %d new of %d entries", name, new, len(listed))
        await self.state.written()
        failpoints.hit("fetch-listed")
        return True

    def _failed(self, error: FetchFailed) -> None:
        health, name, reason = self.health, self.feed.name, error.reason
        health.failures += 1
        pause_s = self._pause_s(health.failures, error.retry_after_s)
        self._reading.at = self._now() + pause_s
        self.outcomes.read(name, "failed")
        if reason != health.trouble:
            logger.warning("feed %s can't be read: %s; trying again in %.0f s", name, reason, pause_s)
        health.trouble = reason

    def _listed_ms(self, answer: Fetched) -> int:
        """Return when the feed got its new entries: when it was last modified, if that is plausible, or now."""
        now_ms = self.clock.now().wall_ms
        modified_ms = parse_http_date(answer.headers.get("last-modified")) or now_ms
        return modified_ms if now_ms - 2_000 * self.feed.interval_s < modified_ms < now_ms else now_ms

    def _report_late(self) -> None:
        late = self.health.late(self._now())
        if late and not self._was_late:
            logger.warning("feed %s: %s", self.feed.name, late)
        self._was_late = bool(late)

    # ---- posting ---------------------------------------------------------------------------------------------------

    async def post(self) -> int:
        """Fetch and post the messages that are due. Return how many entries still wait.

        Up to AT_ONCE links of each host are fetched at a time, of which one may be a link that timed out.
        """
        self._posting.at = _NEVER
        fetching: dict[asyncio.Task[None], tuple[_Lane, TrackedEntry]] = {}
        try:
            while await self._fetch_and_post(fetching):
                pass
        finally:
            for task in fetching:
                task.cancel()
            await asyncio.gather(*fetching, return_exceptions=True)
        waiting = self.state.waiting(self.feed.name)
        self.health.waiting = len(waiting)
        gone = {*self._due_at, *self._heads, *self.health.unread} - {each.digest for each in waiting}
        for digest in gone:
            self._due_at.pop(digest, None)
            self._tries.pop(digest, None)
            self._heads.pop(digest, None)
            self.health.unread.pop(digest, None)
        self._posting.at = min(self._posting.at, *map(self._due, waiting), _NEVER)
        return len(waiting)

    async def _fetch_and_post(self, fetching: dict[asyncio.Task[None], tuple[_Lane, TrackedEntry]]) -> bool:
        """Fetch and post what is due now. Return whether there may be more."""
        self._posting.asked.clear()
        lanes: defaultdict[_Lane, deque[TrackedEntry]] = defaultdict(deque)
        ready, under_way, now = list[TrackedEntry](), {each.digest for _, each in fetching.values()}, self._now()
        for entry in self.state.waiting(self.feed.name):
            if entry.digest in self._heads:
                ready.append(entry)
            elif entry.digest not in under_way and self._due(entry) <= now:
                lanes[self._lane(entry)].append(entry)
        loop = asyncio.get_running_loop()
        asked = asyncio.create_task(self._posting.asked.wait())
        try:
            post_at, round_at = loop.time(), loop.time() + ROUND_S
            while True:
                self._start(lanes, ready, fetching)
                postable = [each for each in ready if self._is_postable(each)]
                in_order = len(postable) >= WINDOW or all(is_slow for (_, is_slow), _ in fetching.values())
                if postable and (in_order or loop.time() >= post_at):
                    await self._post_in_order(postable)
                    await self.state.written()
                    ready = [each for each in ready if not each.outcome]
                    post_at = loop.time() + ORDER_S
                    continue
                if asked.done() or not fetching or loop.time() >= round_at:
                    return asked.done() or bool(fetching)
                wait_s = max(0.0, min(round_at, post_at if postable else round_at) - loop.time())
                done, _ = await asyncio.wait({asked, *fetching}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                if done and not postable:
                    post_at = loop.time() + ORDER_S
                for task in fetching.keys() & done:
                    _, entry = fetching.pop(task)
                    task.result()
                    if entry.digest in self._heads and not entry.outcome:
                        ready.append(entry)
        finally:
            asked.cancel()

    def _start(
        self,
        lanes: dict[_Lane, deque[TrackedEntry]],
        ready: list[TrackedEntry],
        fetching: dict[asyncio.Task[None], tuple[_Lane, TrackedEntry]],
    ) -> None:
        """Begin to fetch messages, up to the limit of each host, and unless those that wait take too much memory."""
        ahead, own = self.state.ahead, sum(len(each.message or b"") for each in ready)
        ahead[self.feed.name] = own
        if own > max(MAX_AHEAD_BYTES // len(ahead), MAX_AHEAD_BYTES - ahead.total() + own):
            self._links_at = self._now() + ROUND_S
            return
        busy = Counter(lane for lane, _ in fetching.values())
        for lane, entries in lanes.items():
            while entries and busy[lane] < (1 if lane[1] else AT_ONCE):
                busy[lane] += 1
                entry = entries.popleft()
                fetching[asyncio.create_task(self._fetch(entry))] = lane, entry

    def _lane(self, entry: TrackedEntry) -> _Lane:
        host = host_of(entry.link) if entry.message is None else None
        return host, host is not None and self.client.queues.is_slow(host, entry.link)

    def _due(self, entry: TrackedEntry) -> float:
        if entry.digest in self._heads:
            may_pass = self._only_ends and self._heads[entry.digest].ends
            return max(self._due_at[entry.digest], 0.0 if may_pass else self._node_at)
        link_at = max(self._links_at, self._host_at[host_of(entry.link)]) if entry.message is None else 0.0
        return max(self._due_at[entry.digest], link_at)

    def _is_postable(self, entry: TrackedEntry) -> bool:
        return self._due(entry) <= self._now()

    async def _fetch(self, entry: TrackedEntry) -> None:
        """Fetch the message of an entry, unless it is known, and read its head.

        Only what the table of the feed says about its link is final; whatever the link answers, it is tried again.
        """
        now_ms = self.clock.now().wall_ms
        message, charset = entry.message, entry.charset
        try:
            if message is None:
                if self._now() < self._due(entry):  # the host has just failed
                    return
                answer = await self.client.get(entry.link, MAX_CAP_BYTES)
                message, charset = answer.body, answer.charset
                failpoints.hit("fetch-linked")
            head = await read_head(message, charset, now_ms)
        except FetchFailed as error:
            if isinstance(error, LinkNotAllowed) or not entry.link:
                self._done(entry, error.reason)
                return
            pause_s = self._not_now(entry, error.reason, error.retry_after_s)
            if error.retry_after_s is not None:
                self._host_at[host_of(entry.link)] = self._now() + pause_s
            elif error.reason in AWAY:
                self._host_at[host_of(entry.link)] = self._now() + AWAY_S
        except Exception as error:  # one entry must not stop the others
            logger.error("feed %s: an unexpected error of an entry: %s", self.feed.name, trace(error))
            self._not_now(entry, "internal", None)
        else:
            entry.message, entry.charset, entry.identifier = message, charset, head.identifier
            self._heads[entry.digest] = head
            self._tries.pop(entry.digest, None)
            self.health.unread.pop(entry.digest, None)

    def _not_now(self, entry: TrackedEntry, reason: str, retry_after_s: float | None) -> float:
        """Try the link of an entry again later, or give up if the entry left the feed long ago.

        Return the seconds until the next attempt.
        """
        if entry.left_ms is not None and self.clock.now().wall_ms - entry.left_ms > LINGER_MS:
            self._done(entry, UNREACHABLE)
            return 0.0
        since, _ = self.health.unread.get(entry.digest, (self._now(), ""))
        self.health.unread[entry.digest] = since, reason
        self._tries[entry.digest] += 1
        pause_s = self._pause_s(self._tries[entry.digest], retry_after_s)
        self._due_at[entry.digest] = self._now() + pause_s
        return pause_s

    async def _post_in_order(self, entries: list[TrackedEntry]) -> None:
        """Post messages in the order of `sent`, as long as the node accepts them."""
        for entry in sorted(entries, key=lambda each: self._heads[each.digest].sent_ms):
            if not self._is_postable(entry):
                self._keep(entry)
                continue
            assert entry.message is not None, "`_fetch` has fetched it"
            answer = await self.node.post(entry.message, entry.charset, self.feed.token_file)
            failpoints.hit("fetch-posted")
            if not answer.is_final:
                self._stuck(entry, answer)
                self._keep(entry)
                continue
            if self._node_at <= self._now():
                self._node_failures, self.health.stuck = 0, ""
            if answer.is_accepted and entry.listed_ms:
                self.outcomes.accepted(self.feed.name, self._heads[entry.digest].sent_ms, entry.listed_ms)
            self._done(entry, answer.outcome)

    def _keep(self, entry: TrackedEntry) -> None:
        """Store a message for later, since its feed or its link may then be gone, unless it has expired."""
        if self._heads[entry.digest].until_ms <= self.clock.now().wall_ms:
            self._done(entry, EXPIRED)
        else:
            self.state.change(entry)

    def _stuck(self, entry: TrackedEntry, answer: NodeAnswer) -> None:
        self._node_failures += 1
        # Cancels have no rate. But if one is refused so, all messages have to wait.
        self._only_ends = answer.is_limited and not self._heads[entry.digest].ends
        self._node_at = self._now() + timing.node_pause(self._node_failures, answer.retry_after_s)
        if answer.outcome == UNANSWERED or answer.outcome == "internal":  # perhaps because of this message
            self._tries[entry.digest] += 1
            if (failures := self._tries[entry.digest] - SAME_TIME) > 0:
                self._due_at[entry.digest] = self._now() + self._pause_s(failures, None)
        if not self.health.stuck:
            self.health.stuck_since = self._now()
        if answer.outcome != self.health.stuck:
            logger.warning("feed %s: the node does not take messages now: %s", self.feed.name, answer.outcome)
        self.health.stuck = answer.outcome

    def _done(self, entry: TrackedEntry, outcome: str) -> None:
        """Store the outcome of an entry."""
        entry.outcome, entry.done_ms = outcome, self.clock.now().wall_ms
        self.state.change(entry)
        self.outcomes.done(self.feed.name, outcome)
        logger.info("feed %s: the outcome of an entry is %s", self.feed.name, outcome)

    def _pause_s(self, failures: int, retry_after_s: float | None) -> float:
        return timing.after_failure(self.feed.interval_s, failures, retry_after_s, timing.chance())

    def _now(self) -> float:
        return self.clock.now().monotonic
