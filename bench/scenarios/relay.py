"""`relay`: the cost of a webhook, and the time until targets have an alert, while one target hangs.

A node runs together with one process of `geocast relay`, which has a core of its own and keeps its state in SQLite. The
targets run on the other core: they keep connections open and answer 204 to every event at once, but the last of them
accepts requests and answers none. Events are signed by HMAC and sent without TLS.

First, alerts are published one by one, each when all targets that work have the one before: this measures the time from
when the node accepts an alert until the first and the last of these targets have received it. Then many alerts are
published as fast as the node accepts them: this measures the CPU of the relay for each webhook, and the time from the
last accepted alert until the targets have them all.

Leaves out: TLS (see `push`), the network to a real target, and the time in which it answers.
"""

import time
from typing import Any

import numpy as np

from bench import processes, screen, stats
from bench.peers.base import next_number
from bench.peers.geocast import Geocast
from bench.peers.geocast_relay import GeocastRelay
from bench.peers.webhook_receivers import WebhookReceivers, webhook_receivers
from bench.results import Result, Table, number
from bench.rounds import ms_since
from bench.runs import Bench, Place

HANGING = 1
PATIENCE_S = 120.0
SETTLE_S = 0.5  # wait after the last webhook, until its result is stored
GOAL_CPU_US, GOAL_LAST_MS, GOAL_BEHIND_MS = 500, 100, 1_000


def measure(place: Place, alerts: int, targets: int, rounds: int) -> dict[str, Any]:
    """Measure alerts one by one, and then many alerts at once."""
    working = targets - HANGING
    with (
        webhook_receivers(targets, HANGING) as receivers,
        Geocast(place.home, place.cores.clients) as node,
        GeocastRelay(node, receivers.ports, place.cores.server) as relay,
    ):
        first_ms, last_ms = [], []
        with screen.progress("alerts one by one", rounds) as show:
            for done in range(rounds):
                node.publish(next_number())
                accepted_ns = time.monotonic_ns()
                _wait_for(receivers, (done + 1) * working)
                when_ms = ms_since(accepted_ns, np.array([each.when_ns for each in receivers.take()[done * working :]]))
                first_ms.append(float(when_ms.min()))
                last_ms.append(float(when_ms.max()))
                show(done + 1)
        cpu_s = relay.cpu_s()
        started_ns = time.monotonic_ns()
        for _ in range(alerts):
            node.publish(next_number())
        accepted_ns = time.monotonic_ns()
        _wait_for(receivers, (rounds + alerts) * working)
        came_ns = receivers.take()[-1].when_ns
        time.sleep(SETTLE_S)
        return {
            "first_ms": stats.summary(first_ms),
            "last_ms": stats.summary(last_ms),
            "cpu_us": (relay.cpu_s() - cpu_s) / (alerts * working) * 1e6,
            "publishing_s": (accepted_ns - started_ns) / 1e9,
            "behind_ms": max(0.0, (came_ns - accepted_ns) / 1e6),
            "missing": (rounds + alerts) * working - len({each[1:] for each in receivers.take()}),
            "twice": receivers.count() - (rounds + alerts) * working,
            "mib": relay.rss_bytes() / 2**20,
        }


def _wait_for(receivers: WebhookReceivers, count: int) -> None:
    processes.wait_until(lambda: receivers.count() >= count, f"{count:,} webhooks", PATIENCE_S, 0.002)


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each figure, with its goal."""
    found, parameters = result.found, result.parameters
    alerts, targets = parameters["alerts"], parameters["targets"]
    rows = [
        ["201 → the first target has it, p50 ms", number(found["first_ms"]["p50"]), ""],
        ["201 → the last working target has it, p50 ms", number(found["last_ms"]["p50"]), ""],
        ["… p99 ms", number(found["last_ms"]["p99"]), f"≤ {GOAL_LAST_MS}"],
        ["CPU of a webhook, µs", number(found["cpu_us"]), f"≤ {GOAL_CPU_US}"],
        [f"publishing {alerts:,} alerts, s", number(found["publishing_s"]), ""],
        ["… last 201 → the last webhook, ms", number(found["behind_ms"]), f"≤ {GOAL_BEHIND_MS:,}"],
        ["webhooks that are missing", str(found["missing"]), "0"],
        ["… that came twice", str(found["twice"]), "0"],
        ["memory of the process, MiB", number(found["mib"]), ""],
    ]
    return Table(f"relay: {alerts:,} alerts, {targets} targets of which one hangs", ("", "", "goal"), rows)


def plot(result: Result, figure: Any) -> None:
    """Plot the measured times, each beside its goal."""
    found, axes = result.found, figure.subplots()
    waits = {
        "last target, p99": (found["last_ms"]["p99"], GOAL_LAST_MS),
        "behind": (found["behind_ms"], GOAL_BEHIND_MS),
    }
    for at, of in enumerate(("measured", "goal")):
        axes.bar(np.arange(len(waits)) + 0.4 * at, [each[at] for each in waits.values()], 0.4, label=of)
    axes.set_xticks(np.arange(len(waits)) + 0.2, list(waits))
    axes.set(ylabel="ms", yscale="log")
    axes.legend()
    figure.suptitle(table(result).title)


BENCH = Bench(
    "relay",
    "the cost of a webhook, and the time until targets have an alert, while one target hangs.",
    measure,
    table,
    plot,
    {"alerts": 200, "targets": 10, "rounds": 20},
)
