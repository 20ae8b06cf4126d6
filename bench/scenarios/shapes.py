"""`shapes`: the cost of a session when each of many live alerts has eight shapes: circles, or polygons (rings).

Three nodes have the same number of live alerts. On the first node each alert has one circle, on the second eight
circles, and on the third eight rings of 62 corners. (That is 496 corners in all; an area may have at most 500.) Ten
alerts have a shape that contains the place of the measured sessions. All other shapes are spread over a continent; each
has a radius of 500 m. The alerts are in the log before a node starts.

Measures the time until a node has read its log, and the memory of the node. Measures the CPU time of the node for one
session that connects, says hello, gets the ten alerts and disconnects, and for each message `move`, `filter` and
`token` of a session. The nodes run at once and are measured in turns.
"""

import math
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from bench import places, screen
from bench.places import CENTRE
from bench.results import Result, Table, number
from bench.runs import Bench, Place
from bench.scenarios.growth import DOINGS, NEAR, RADIUS_M, Doings, Filled, alert_of, far_away
from geocast.model.alert import Circle, KnownShape, Polygon, Revision

EACH = 8
CORNERS = 62
LIFE_MS = 3_600_000

Make = Callable[[float, float], KnownShape]


def _circle(lat: float, lng: float) -> KnownShape:
    return Circle(lat, lng, RADIUS_M)


def _ring(lat: float, lng: float) -> KnownShape:
    """Return a ring in the shape of a star: every second corner is nearer to the middle than the corners beside it."""
    turn = np.append(np.arange(CORNERS), 0) * 2 * math.pi / CORNERS
    far_m = RADIUS_M * np.where(np.arange(CORNERS + 1) % 2, 0.8, 1.0)
    far_m[-1] = far_m[0]
    lats, lngs = places.offset(lat, lng, far_m * np.sin(turn), far_m * np.cos(turn))
    return Polygon(tuple(zip(lngs.round(6).tolist(), lats.round(6).tolist(), strict=True)))


KINDS: dict[str, tuple[int, Make]] = {
    "one circle": (1, _circle),
    "eight circles": (EACH, _circle),
    "eight rings": (EACH, _ring),
}


def _alerts(kind: str, count: int) -> list[Revision]:
    dice = random.Random(count)
    shapes, make = KINDS[kind]
    ends_at = time.time_ns() // 1_000_000 + LIFE_MS
    found = []
    for at in range(count):
        spots = [far_away(dice) for _ in range(shapes)]
        spots[-1] = CENTRE if at < NEAR else spots[-1]
        found.append(alert_of(f"shapes-{at:07d}", [make(*spot) for spot in spots], ends_at))
    return found


def measure(place: Place, alerts: int, rounds: int) -> dict[str, Any]:
    """Run one node for each kind of shape, all of them at the same time, and measure them in turns."""
    found: dict[str, Any] = {}
    doings = {}
    with ExitStack() as stack:
        for kind in KINDS:
            node = Filled(place.home, place.cores.server)
            node.alerts = _alerts(kind, alerts)
            stack.enter_context(node)
            found[kind] = {"start_s": node.start_s, "rss_bytes": node.rss_bytes()}
            doings[kind] = Doings(node)
        with screen.progress("rounds", 1 + rounds) as show:
            for done in range(1 + rounds):
                for each in doings.values():
                    each.round()
                show(1 + done)
        return {"kinds": {kind: it | doings[kind].found() for kind, it in found.items()}}


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each measured value and one column for each kind of shape."""
    kinds = result.found["kinds"]
    one, *others = kinds.values()
    titles = ("connect, hello and leave, CPU µs", "move, CPU µs", "filter, CPU µs", "token, CPU µs")
    measures = dict(
        zip((*DOINGS, "start_s", "rss_bytes"), (*titles, "time until ready, s", "RSS of the node"), strict=True)
    )
    rows = [
        [title, *(_shown(key, it[key]) for it in kinds.values()), *(number(it[key] / one[key]) for it in others)]
        for key, title in measures.items()
    ]
    columns = ("", *kinds, *(f"{kind} ÷ one circle" for kind in list(kinds)[1:]))
    title = f"shapes: {result.parameters['alerts']:,} live alerts of several shapes, {NEAR} of them near"
    return Table(title, columns, rows)


def _shown(key: str, value: float) -> str:
    return f"{value / 2**20:.0f} MiB" if key == "rss_bytes" else number(value)


def plot(result: Result, figure: Any) -> None:
    """Plot the cost of a session's actions for each kind of shape."""
    kinds = result.found["kinds"]
    axes = figure.subplots()
    width = 0.8 / len(kinds)
    for at, (kind, it) in enumerate(kinds.items()):
        axes.bar(np.arange(len(DOINGS)) + at * width, [it[doing] for doing in DOINGS], width, label=kind)
    axes.set_xticks(np.arange(len(DOINGS)) + width, DOINGS)
    axes.set(ylabel="CPU of the node, µs")
    axes.legend()
    figure.suptitle(table(result).title)


BENCH = Bench(
    "shapes",
    "the cost of a session when live alerts have eight circles or eight rings each.",
    measure,
    table,
    plot,
    {"alerts": 500, "rounds": 2},
)
