"""`many`: all the sessions that a machine carries, in several stream processes, and one alert that concerns them all.

Each session has a place in the index and showed an EdDSA token of its own. The stream processes share one core, the
receivers the others: a machine with more cores has more stream processes at work at once.

Measures: resident memory of the node's processes for each session, above what they had before; what the kernel took
for both ends, receivers included (MemAvailable); CPU for each connect; then some alerts, one at a time: publish ->
received by the first, by the nearest 100, by the last, and CPU for each delivery.

Leaves out: a network, TLS, what a long life fragments.
"""

import time
from contextlib import ExitStack
from typing import Any

from bench import machine, places, screen, stats
from bench.results import Result, Table, number
from bench.rounds import NEAREST, gather, geocast_alone, one_round
from bench.runs import Bench, Place, plot_rounds

SPREAD_M = 14_000.0
PER_WORKER = 15_000  # of 20,000 descriptors: the kernel spreads connections by a hash, not evenly
SETTLE_S = 3.0


def measure(place: Place, sessions: int, rounds: int) -> dict[str, Any]:
    """Connect all, then publish."""
    workers = max(2, -(-sessions // PER_WORKER))
    where = places.around(sessions, SPREAD_M)
    with ExitStack() as stack:
        node = stack.enter_context(geocast_alone(place, workers=workers))
        before, available = node.rss_bytes(), machine.available_bytes()
        crowd = gather(stack, place, node, where, rounds + 1)
        time.sleep(SETTLE_S)
        after, left = node.rss_bytes(), machine.available_bytes()
        nearest = where.nearest(NEAREST)
        found = []
        with screen.progress("one alert at a time", rounds) as show:
            for done in range(rounds):
                found.append(one_round(crowd, nearest))
                show(done + 1)
    return {
        "workers": workers,
        "rss_before_bytes": before,
        "rss_bytes_per_session": (after - before) / sessions,
        "rss_bytes": after,
        "machine_bytes_per_session": (available - left) / sessions,
        "connect_s": crowd.connect_s,
        "connect_cpu_us": crowd.connect_cpu_us,
        "first_ms": [each.first_ms for each in found],
        "nearest_ms": [each.nearest_ms for each in found],
        "last_ms": [each.last_ms for each in found],
        "cpu_us": [each.cpu_us for each in found],
        "waited": [each.waited for each in found],
        "missing": crowd.missing,
    }


def table(result: Result) -> Table:
    """One row for each measure."""
    found = result.found
    rows = [
        ["stream processes", str(found["workers"])],
        ["resident KiB for each session, of all processes", number(found["rss_bytes_per_session"] / 1024)],
        ["resident MiB, of all processes", number(found["rss_bytes"] / 2**20)],
        [
            "KiB of the machine for each session, both ends and the receivers",
            number(found["machine_bytes_per_session"] / 1024),
        ],
        ["seconds until all were in", number(found["connect_s"])],
        ["CPU for each connect, µs", number(found["connect_cpu_us"])],
        ["publish → the first, ms", number(stats.median(found["first_ms"]))],
        [f"publish → the nearest {NEAREST}, ms", number(stats.median(found["nearest_ms"]))],
        ["publish → the last, ms", number(stats.median(found["last_ms"]))],
        ["CPU for each delivery, µs", number(stats.median(found["cpu_us"]))],
        ["messages that never came", f"{found['missing']:,}"],
    ]
    return Table(f"many: {result.parameters['sessions']:,} sessions, all in the area", ("", ""), rows)


def plot(result: Result, figure: Any) -> None:
    """Each round."""
    plot_rounds(figure, result.found, ("first_ms", "nearest_ms", "last_ms"), table(result).title)


BENCH = Bench(
    "many",
    "all the sessions that a machine carries, in several stream processes, and an alert for all of them.",
    measure,
    table,
    plot,
    {"sessions": 20_000, "rounds": 3},
)
