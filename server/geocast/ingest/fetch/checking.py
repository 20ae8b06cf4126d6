"""`geocast fetch --check`: reads each feed once, and asks the node what it would do with each message (rule FE1)."""

from collections import Counter
from dataclasses import dataclass, field

from ...clock import Clock
from ..cap import MAX_CAP_BYTES
from .documents import ListedEntry, read_feed, read_head
from .http_client import FeedClient, FetchFailed, HostQueues
from .node_client import ACCEPTED, NodeAnswer, NodeClient
from .settings import WatchedFeed

MAX_CHECKED = 100  # the number of entries of a feed whose message is looked at
TAKEN = (*ACCEPTED, "repeated", "noted")
_HEAD = ("feed", "entries", "CAP", "accepted", "why not")


@dataclass(slots=True)
class CheckedFeed:
    """The findings of the check of one feed. `reasons` count the entries that would not be accepted, by the reason."""

    name: str
    trouble: str = ""
    entries: int = 0
    cap: int = 0
    accepted: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def row(self) -> tuple[str, ...]:
        """The feed's row of the table."""
        why = self.trouble or ", ".join(f"{word} {count}" for word, count in self.reasons.most_common())
        return (self.name, str(self.entries), str(self.cap), str(self.accepted), why)


async def check_feed(feed: WatchedFeed, node: NodeClient, queues: HostQueues, clock: Clock) -> CheckedFeed:
    """Read a feed, and ask the node by dry runs what it would do. Nothing is stored."""
    found, client = CheckedFeed(feed.name), FeedClient(feed, queues, clock)
    try:
        # Something that is no message shows whether the node takes messages with this token at all.
        refusal = _refusal(await node.post(b"", None, feed.token_file, dry_run=True))
        listed = await read_feed(await client.get(feed.url, feed.max_bytes))
        found.entries = len(listed)
        for entry in () if refusal else listed[:MAX_CHECKED]:
            outcome = await _outcome(entry, feed, client, node, clock, found)
            if outcome in TAKEN:
                found.accepted += 1
            else:
                found.reasons[outcome] += 1
        found.trouble = refusal or found.trouble
        if len(listed) > MAX_CHECKED:
            found.reasons["not-checked"] = len(listed) - MAX_CHECKED
    except FetchFailed as error:
        found.trouble = error.reason
    finally:
        await client.close()
    return found


async def _outcome(
    entry: ListedEntry, feed: WatchedFeed, client: FeedClient, node: NodeClient, clock: Clock, found: CheckedFeed
) -> str:
    message, charset = entry.message, entry.charset
    try:
        if message is None:
            if not entry.link:
                return "no-message"
            answer = await client.get(entry.link, MAX_CAP_BYTES)
            message, charset = answer.body, answer.charset
        await read_head(message, charset, clock.now().wall_ms)
    except FetchFailed as error:
        return error.reason
    found.cap += 1
    judged = await node.post(message, charset, feed.token_file, dry_run=True)
    found.trouble = found.trouble or _refusal(judged)
    return judged.outcome


def _refusal(answer: NodeAnswer) -> str:
    """Return why the node can't decide about any message now; "" if it can."""
    if answer.is_final:
        return ""
    return ": ".join(filter(None, ("the node does not take messages", answer.outcome, answer.detail)))


def table(feeds: list[CheckedFeed]) -> str:
    """Return a table with a row for each feed."""
    rows = [_HEAD, *(each.row for each in feeds)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEAD))]
    lines = ("  ".join(map(str.ljust, row, widths)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
