"""`urgent`: how soon the nearest sessions get an alert, and how soon an `extreme` alert overtakes a `minor` one.

Measures geocast alone, because the other servers send in the order of their lists. The first measured time is that from
publishing an alert until the nearest 100 of all sessions have it. The second: when a fifth of the sessions have a minor
alert that goes to all, an extreme alert is published, and the time until 100 sessions have the extreme alert is
measured. Meanwhile, the metrics of the server tell how late the timers of its event loop were.
"""

import time
from contextlib import ExitStack
from typing import Any

import numpy as np

from bench import places, screen, stats
from bench.peers.base import next_number
from bench.results import Result, Table, number
from bench.rounds import NEAREST, PATIENCE_S, Audience, gather, geocast_alone, ms_since, one_round
from bench.runs import Bench, Place, plot_rounds

SPREAD_M = 14_000.0
LAG = "geocast_loop_lag_seconds"


def measure(place: Place, sessions: int, rounds: int) -> dict[str, Any]:
    """Publish alerts one at a time; then publish extreme alerts while minor ones are being sent."""
    where = places.around(sessions, SPREAD_M)
    with ExitStack() as stack:
        node = stack.enter_context(geocast_alone(place))
        audience = gather(stack, place, node, where, 3 * rounds + 1)
        nearest = where.nearest(NEAREST)
        one_round(audience, nearest)
        before, waited, start = node.metrics(), node.waited_s(), time.monotonic()
        with screen.progress("extreme during minor", rounds) as show:
            alone = [one_round(audience, nearest) for _ in range(rounds)]
            found = []
            for done in range(rounds):
                found.append(_overtake(audience))
                show(done + 1)
        after, waited = node.metrics(), (node.waited_s() - waited) / (time.monotonic() - start)
    return {
        "nearest_ms": [each.nearest_ms for each in alone],
        "first_ms": [each.first_ms for each in alone],
        "last_ms": [each.last_ms for each in alone],
        "extreme_first_100_ms": [each[0] for each in found],
        "extreme_last_ms": [each[1] for each in found],
        "minor_last_ms": [each[2] for each in found],
        "loop_lag": _lags(before, after),
        "waited": waited,
    }


def _overtake(audience: Audience) -> tuple[float, float, float]:
    """Publish a minor alert and, while it is being sent, an extreme one.

    Return three times in ms: until the first 100 sessions have the extreme alert, until the last has it, and until the
    last has the minor alert.
    """
    minor, extreme = next_number(), next_number()
    start = time.monotonic_ns()
    audience.system.publish(minor, severity="minor")
    fifth = audience.heard + len(audience.places) // 5
    audience.crowd.wait(lambda counters: counters.records >= fifth, "a fifth has the minor alert", PATIENCE_S)
    middle = time.monotonic_ns()
    audience.system.publish(extreme, severity="extreme")
    records = audience.listen(2)
    of_extreme = np.sort(ms_since(middle, records["when_ns"][records["number"] == extreme]))
    of_minor = ms_since(start, records["when_ns"][records["number"] == minor])
    return float(of_extreme[NEAREST - 1]), float(of_extreme[-1]), float(of_minor.max())


def _lags(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """For each upper bound in seconds, return the fraction of the event loop's timers that were at most that late."""
    buckets = {name: after[name] - before.get(name, 0) for name in after if name.startswith(f"{LAG}_bucket")}
    total = max(buckets.values(), default=0)
    return {name.split('le="')[1].split('"')[0]: count / total for name, count in buckets.items()} if total else {}


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each measured value."""
    found = result.found
    goals = {"nearest_ms": "≤ 10", "extreme_first_100_ms": "≤ 10"}
    names = {
        "first_ms": "alone: to the first",
        "nearest_ms": f"alone: to the nearest {NEAREST}",
        "last_ms": "alone: to the last",
        "extreme_first_100_ms": f"extreme during minor: to its first {NEAREST}",
        "extreme_last_ms": "extreme during minor: to its last",
        "minor_last_ms": "extreme during minor: the minor one to its last",
    }
    rows = [
        [text, number(stats.median(found[key])), number(max(found[key])), goals.get(key, "")]
        for key, text in names.items()
    ]
    lag = next((f"{share:.1%}" for limit, share in found["loop_lag"].items() if float(limit) == 0.005), "–")
    rows.append(["timers of the event loop at most 5 ms late", lag, "", "≥ 99.9 %"])
    rows.append(["time that others had the server's core", f"{found['waited']:.0%}", "", ""])
    title = f"urgent: {result.parameters['sessions']:,} sessions, all in the area"
    return Table(title, ("", "median ms", "max ms", "goal"), rows)


def plot(result: Result, figure: Any) -> None:
    """Plot the measured times of each round."""
    keys = ("nearest_ms", "extreme_first_100_ms", "last_ms", "minor_last_ms")
    plot_rounds(figure, result.found, keys, table(result).title)


BENCH = Bench(
    "urgent",
    "how soon the nearest sessions get an alert, and how soon an extreme alert overtakes a minor one.",
    measure,
    table,
    plot,
    {"sessions": 5_000, "rounds": 5},
)
