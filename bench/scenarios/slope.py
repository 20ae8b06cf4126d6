"""`slope`: what an alert costs, and what each of its deliveries costs, with geocast and with a bare send loop.

For each number of sessions there are a node and a send loop, which take turns to send one alert to all sessions. A
straight line through the CPU that an alert takes gives two figures. The *slope* is the CPU of one more delivery. The
*intercept* is what remains for an alert without any delivery: HTTP, token, policy, fsync, reading the log and matching.
The intercept is measured directly, too: alerts are published whose area contains no session.

Leaves out the same as `fanout`.
"""

from contextlib import ExitStack
from typing import Any

import numpy as np

from bench import places, stats
from bench.peers.base import next_number
from bench.results import Result, Table, number
from bench.rounds import NEAREST, gather, geocast_alone, in_turns, start_peers
from bench.runs import Bench, Place

SPREAD_M = 14_000.0
FAR_M = 100.0  # the radius of an alert that contains no session
GOAL = 1.0


def measure(place: Place, sizes: tuple[int, ...], rounds: int, alone: int) -> dict[str, Any]:
    """Measure one number of sessions after the other, and then `alone` alerts that nobody is sent."""
    found = [_size(place, sessions, rounds) for sessions in sizes]
    return {
        "sizes": found,
        "lines": {
            name: _line([(each["sessions"], each["cpu_us"][name]) for each in found]) for name in found[0]["cpu_us"]
        },
        "alone_us": _alone(place, alone),
    }


def _size(place: Place, sessions: int, rounds: int) -> dict[str, Any]:
    """Return the CPU that an alert to this number of sessions takes, in µs, by round and server."""
    where = places.around(sessions, SPREAD_M)
    with ExitStack() as stack:
        node = stack.enter_context(geocast_alone(place))
        peers, missing = start_peers(stack, place, ("raw",), node.take_sample())
        assert not missing, missing
        audiences = [gather(stack, place, system, where, rounds + 1) for system in (node, *peers)]
        found = in_turns(audiences, where.nearest(NEAREST), rounds, f"{sessions:,} sessions")
        return {
            "sessions": sessions,
            "cpu_us": {name: [each.cpu_us * sessions for each in of] for name, of in found.items()},
        }


def _line(points: list[tuple[int, list[float]]]) -> dict[str, float]:
    """Return the slope and the intercept, in µs, of the line through the medians."""
    slope, intercept = np.polyfit([at for at, _ in points], [stats.median(of) for _, of in points], 1)
    return {"slope_us": float(slope), "intercept_us": float(intercept)}


def _alone(place: Place, alerts: int) -> float:
    """Return the CPU in µs that a node takes for an alert whose area contains no session."""
    with geocast_alone(place) as node:
        before = node.cpu_s()
        for _ in range(alerts):
            node.publish(next_number(), radius_m=FAR_M)
        return (node.cpu_s() - before) / alerts * 1e6


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each number of sessions, and one for the line."""
    names = list(result.found["lines"])
    rows = []
    for each in result.found["sizes"]:
        medians = [stats.median(each["cpu_us"][name]) / each["sessions"] for name in names]
        rows.append(
            [f"{each['sessions']:,} sessions: µs/delivery", *map(number, medians), number(medians[0] / medians[1])]
        )
    for what in ("slope_us", "intercept_us"):
        values = [result.found["lines"][name][what] for name in names]
        ratio = number(values[0] / values[1]) if what == "slope_us" else ""
        rows.append([what.replace("_us", ", µs"), *map(number, values), ratio])
    rows.append(["an alert to nobody, µs", number(result.found["alone_us"]), "", ""])
    return Table(f"slope: a delivery and an alert apart (goal: slope ≤ {GOAL} × raw)", ("", *names, "÷"), rows, [])


def plot(result: Result, figure: Any) -> None:
    """Plot the CPU of an alert over the number of sessions, with the lines."""
    axes = figure.subplots()
    sizes = [each["sessions"] for each in result.found["sizes"]]
    for name, line in result.found["lines"].items():
        medians = [stats.median(each["cpu_us"][name]) / 1000 for each in result.found["sizes"]]
        [drawn] = axes.plot(sizes, medians, "o", label=f"{name}: {number(line['slope_us'])} µs a delivery")
        ends = np.array([0, max(sizes)])
        axes.plot(ends, (line["intercept_us"] + line["slope_us"] * ends) / 1000, color=drawn.get_color())
    axes.set(xlabel="sessions in the area", ylabel="CPU of the server for an alert, ms", xlim=(0, None), ylim=(0, None))
    axes.legend()
    figure.suptitle(table(result).title)


BENCH = Bench(
    "slope",
    "what an alert costs, and what each of its deliveries costs, compared with a bare send loop.",
    measure,
    table,
    plot,
    {"sizes": (500, 1_000, 2_000), "rounds": 5, "alone": 50},
)
