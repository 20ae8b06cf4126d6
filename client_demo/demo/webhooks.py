"""The demo's webhooks: `geocast relay` posts to a receiver, which must be told everything once and in order."""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from client_demo.webhook_receiver import Webhook, WebhookReceiver

from .processes import Node, RelayProcess
from .verdict import Published, percentile

SETTLE_S = 5.0  # how long the verdict waits for the last event
POLL_S = 0.02
SECRET_FILE = "webhook.secret"
TARGETS = """
[targets.sign]
url           = "{url}"
secret_file   = "webhook.secret"
allow_http    = true
allow_private = true
statuses      = ["actual", "exercise", "test"]
"""


@dataclass(slots=True)
class RelayVerdict:
    """The verdict on the webhooks.

    `expected` is the number of revisions and cancellations that were published, and `got` the number of those that the
    receiver was told exactly once. `out_of_order` counts events that came after a later one of the same alert, or that
    have the wrong type. `forged` counts requests without a valid signature.
    """

    expected: int = 0
    got: int = 0
    out_of_order: int = 0
    forged: int = 0
    took_ms: list[float] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether the receiver was told everything once and in order."""
        return self.got == self.expected > 0 and not self.out_of_order and not self.forged

    def line(self) -> str:
        """Return the verdict as one line for programs."""
        p50_ms, last_ms = (percentile(self.took_ms, share) for share in (0.5, 1.0))
        counts = f"expected={self.expected} got={self.got} out_of_order={self.out_of_order} forged={self.forged}"
        return f"relay: {counts} p50_ms={p50_ms:.1f} last_ms={last_ms:.1f}"


def check_webhooks(published: Sequence[Published], told: Sequence[Webhook], forged: int = 0) -> RelayVerdict:
    """Judge the webhooks that a receiver was sent, in the order in which they came; return the verdict."""
    found = RelayVerdict(len(published), forged=forged)
    came: dict[tuple[str, int], list[Webhook]] = defaultdict(list)
    newest: dict[str, int] = {}
    for each in told:
        kind, alert_id, number = each.event["type"], each.event["data"]["id"], each.event["data"]["revision"]
        if kind == "alert.ended":
            continue
        came[alert_id, number].append(each)
        first = alert_id not in newest
        found.out_of_order += number <= newest.get(alert_id, 0) or (kind == "alert.accepted") != first
        newest[alert_id] = max(number, newest.get(alert_id, 0))
    for item in published:
        events = came[item.key]
        wanted = ("alert.cancelled",) if item.area is None else ("alert.accepted", "alert.revised")
        if len(events) == 1 and events[0].event["type"] in wanted:
            found.got += 1
            found.took_ms.append((events[0].at_ns - item.sent) / 1e6)
    return found


class Webhooks:
    """The relay of the demo, and the receiver to which it posts."""

    def __init__(self, relay: RelayProcess, receiver: WebhookReceiver) -> None:
        self._relay, self._receiver = relay, receiver

    async def watch(self) -> None:
        """Wait until the relay ends, and raise ProcessError, because it should not end before the demo."""
        await self._relay.watch()

    async def verdict(self, published: Sequence[Published]) -> RelayVerdict:
        """Wait until the receiver was told everything that was published, for at most SETTLE_S; then judge it."""
        until = time.monotonic() + SETTLE_S
        while True:
            found = check_webhooks(published, self._receiver.taken(), self._receiver.forged)
            if found.is_good or time.monotonic() >= until:
                return found
            await asyncio.sleep(POLL_S)


@contextlib.asynccontextmanager
async def webhooks(node: Node, folder: Path) -> AsyncIterator[Webhooks]:
    """Run a receiver, and `geocast relay` for the node, while the block runs."""
    relay = RelayProcess(folder, node)
    await relay.make_secret(SECRET_FILE)
    with WebhookReceiver((folder / SECRET_FILE).read_text().strip()) as receiver:
        (folder / "targets.toml").write_text(TARGETS.format(url=receiver.url))
        try:
            await relay.start()
            yield Webhooks(relay, receiver)
        finally:
            await relay.stop()
