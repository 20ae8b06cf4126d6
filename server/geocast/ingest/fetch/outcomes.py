"""The metrics of `geocast fetch`, and the reasons why it is unready (rule FE6).

No label and no reason contains text of a feed: only names of feeds, fixed words, and the node's outcomes and slugs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client import Counter, Histogram
from prometheus_client.core import Metric

from ...clock import Clock
from ...metrics import Metrics, gauges
from .settings import WatchedFeed

LINK_GRACE_S = 600.0  # how long a link may fail before the process counts as unready
NODE_GRACE_S = 60.0  # how long messages may wait for the node before the process counts as unready
_DELAY_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1_800, 3_600)


@dataclass(slots=True)
class FeedHealth:
    """How the readings of a feed went, in seconds of the monotonic clock. `trouble` and `stuck` are fixed words.

    `trouble` says why the last reading failed, and `stuck` why the node does not accept the feed's messages; each is ""
    otherwise. `unread` has since when the links of entries fail, and why the last time, by the entry's digest.
    """

    interval_s: int
    succeeded_at: float
    changed_at: float
    failures: int = 0
    trouble: str = ""
    stuck: str = ""
    stuck_since: float = 0.0
    waiting: int = 0
    unread: dict[bytes, tuple[float, str]] = field(default_factory=dict)

    def is_overdue(self, now: float) -> bool:
        """Return whether the feed has failed for too long: more than three intervals and a minute."""
        return bool(self.trouble) and now - self.succeeded_at > 3.0 * self.interval_s + 60.0

    def late(self, now: float) -> str:
        """Return how many links have failed for too long, and why one of them did, or ""."""
        reasons = [reason for since, reason in self.unread.values() if now - since > LINK_GRACE_S]
        return f"{len(reasons)} links fail for more than {LINK_GRACE_S / 60:.0f} min: {reasons[0]}" if reasons else ""


class FetchOutcomes:
    """The metrics of a `geocast fetch` process, and the health of each feed."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        """Create the metrics and register them with `metrics`."""
        self._clock = clock
        self._feeds: dict[str, FeedHealth] = {}
        registry = metrics.registry
        text = "Entries of feeds, by outcome"
        self._entries = Counter("geocast_fetch_entries", text, ["feed", "outcome"], registry=registry)
        text = "Readings of feeds, by result"
        self._reads = Counter("geocast_fetch_reads", text, ["feed", "result"], registry=registry)
        text = "From the issuer's sent to when the feed had the message"
        self._to_listed = Histogram(
            "geocast_fetch_sent_to_listed_seconds", text, ["feed"], buckets=_DELAY_S, registry=registry
        )
        text = "From the issuer's sent to when the node had accepted the message"
        self._to_accepted = Histogram(
            "geocast_fetch_sent_to_accepted_seconds", text, ["feed"], buckets=_DELAY_S, registry=registry
        )
        metrics.watch(self._gauges)

    def watch(self, feed: WatchedFeed) -> FeedHealth:
        """Return the health of a feed, which begins now unless the feed is known already."""
        now = self._clock.now().monotonic
        health = self._feeds.setdefault(feed.name, FeedHealth(feed.interval_s, now, now))
        health.interval_s = feed.interval_s
        for result in ("read", "not-modified", "failed"):
            self._reads.labels(feed.name, result)
        return health

    def forget(self, feed: str) -> None:
        """Forget the health of a feed that is no longer configured."""
        self._feeds.pop(feed, None)

    def read(self, feed: str, result: str) -> None:
        """Count a reading of a feed: `read`, `not-modified` or `failed`."""
        self._reads.labels(feed, result).inc()

    def done(self, feed: str, outcome: str) -> None:
        """Count an entry whose outcome is known."""
        self._entries.labels(feed, outcome).inc()

    def accepted(self, feed: str, sent_ms: int, listed_ms: int) -> None:
        """Measure how long a message took that the node has accepted just now."""
        self._to_listed.labels(feed).observe(max(0, listed_ms - sent_ms) / 1000)
        self._to_accepted.labels(feed).observe(max(0, self._clock.now().wall_ms - sent_ms) / 1000)

    def unready(self) -> list[str]:
        """Return the reasons why the process is not ready: feeds and links that fail, and messages that wait."""
        now = self._clock.now().monotonic
        reasons = []
        for name, feed in self._feeds.items():
            if feed.is_overdue(now):
                reasons.append(f"feed {name} fails for {now - feed.succeeded_at:.0f} s: {feed.trouble}")
            if late := feed.late(now):
                reasons.append(f"feed {name}: {late}")
            if feed.stuck and now - feed.stuck_since > NODE_GRACE_S:
                reasons.append(f"feed {name}: {feed.waiting} messages wait for the node: {feed.stuck}")
        return reasons

    def _gauges(self) -> Iterator[Metric]:
        now, feeds = self._clock.now().monotonic, self._feeds.items()
        text = "Seconds since a feed was last read successfully, also if it had not changed"
        yield gauges("fetch_success_age_seconds", text, "feed", ((name, now - f.succeeded_at) for name, f in feeds))
        text = "Seconds since a feed last had a new entry, or since the start"
        yield gauges("fetch_change_age_seconds", text, "feed", ((name, now - f.changed_at) for name, f in feeds))
        text = "1 if a feed has failed for longer than 3 intervals and a minute"
        yield gauges("fetch_overdue", text, "feed", ((name, f.is_overdue(now)) for name, f in feeds))
        text = "Entries whose message is not posted yet"
        yield gauges("fetch_waiting", text, "feed", ((name, f.waiting) for name, f in feeds))
