"""`feed`: how long the public feed blocks its event loop while many polygons become live and the feed is read.

The feed of a node runs on an event loop of its own; another process draws the shapes of its alerts. Alerts
with polygons of 500 corners are appended to the log all at once; the polygons are 20 km across in one run and 40° in
another. Meanwhile a timer fires every millisecond, and a reader requests the two documents of the feed (GeoJSON and
Atom).

Measures the longest delay of the timer, and the most CPU that the thread of the loop used between two ticks. A delay
may be caused by other programs of the machine; a run without any alert shows how large such delays are. Also measures
the longest time until a request was answered, and the time until all alerts were drawn.
"""

import asyncio
import json
import math
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import numpy as np
import uvloop

from bench import screen
from bench.results import Result, Table, number
from bench.runs import Bench, Place
from bench.scenarios.growth import alert_of
from geocast.alertlog.memory import MemoryLog
from geocast.clock import SystemClock
from geocast.feed.cap import Issuer
from geocast.feed.drawer import Drawer
from geocast.feed.routes import Feed
from geocast.model.alert import Polygon, Revision
from geocast.stream.log_reader import LogHealth
from geocast.tasks import running

CORNERS = 500
LIFE_MS = 3_600_000
TICK_S = 0.001
KINDS = {"nothing": 0.0, "20 km across": 0.1, "40° across": 20.0}  # distance of the corners from the middle, in degrees
PATIENCE_S = 600.0


def _alerts(kind: str, count: int) -> list[Revision]:
    """Return `count` alerts with ragged polygons, whose middle is at 45° N.

    The corners of a polygon are at random distances from its middle.
    """
    dice, far, ends_at = random.Random(count), KINDS[kind], time.time_ns() // 1_000_000 + LIFE_MS
    found = []
    for at in range(count):
        ring = []
        for turn in (k * 2 * math.pi / CORNERS for k in range(CORNERS)):
            out = far * dice.uniform(0.8, 1.0)
            ring.append((round(10 + out * math.cos(turn), 6), round(45 + out * math.sin(turn), 6)))
        found.append(alert_of(f"feed-{at:07d}", [Polygon((*ring, ring[0]))], ends_at))
    return found


async def _again(awaited: Callable[[], Awaitable[object]], found: list[tuple[float, float]]) -> None:
    """Call and await `awaited()` forever.

    For each call, append a pair to `found`: the duration, and the CPU time of this thread, both in ms.
    """
    while True:
        start, cpu = time.perf_counter(), time.thread_time()
        await awaited()
        found.append(((time.perf_counter() - start) * 1000, (time.thread_time() - cpu) * 1000))


async def _measured(kind: str, count: int, reads_s: float) -> dict[str, Any]:
    clock, log = SystemClock(), MemoryLog()
    revisions = _alerts(kind, count if KINDS[kind] else 0)
    drawer, turns, answers = Drawer(), list[tuple[float, float]](), list[tuple[float, float]]()
    feed = Feed(Issuer("bench@example", {}, "https://alerts.example"), log, clock, LogHealth(log, clock), drawer)

    async def read() -> None:
        await asyncio.gather(feed.geojson.body(), feed.atom.body())
        await asyncio.sleep(reads_s)

    async with (
        aclosing(drawer),
        running(log_reader=feed.reader.read_for_ever, drawing=feed.draw_for_ever),
    ):
        await log.append(alert_of("first", [Polygon(((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)))], 2**45))
        await asyncio.wait_for(feed.gallery.complete.wait(), PATIENCE_S)
        await _until(lambda: len(feed.gallery.pictures) == 1)
        async with running(
            ticks=lambda: _again(lambda: asyncio.sleep(TICK_S), turns), reads=lambda: _again(read, answers)
        ):
            start = time.perf_counter()
            for at, each in enumerate(revisions):
                await log.append(each)
                if at % 20 == 0:
                    await asyncio.sleep(0)  # because appending to the log in memory never waits
            await _until(lambda: len(feed.gallery.pictures) > len(revisions))
            drawn_s = time.perf_counter() - start
            await asyncio.sleep(3)
        body = await feed.geojson.body()
    assert len(json.loads(body.content)["features"]) == len(revisions) + 1
    return {
        "stall_ms": [each - 1000 * TICK_S for each, _ in turns],
        "cpu_ms": max(cpu for _, cpu in turns),
        "answer_ms": [each - 1000 * reads_s for each, _ in answers],
        "drawn_s": drawn_s,
        "bytes": len(body.content),
    }


async def _until(done: Callable[[], bool]) -> None:
    for _ in range(round(PATIENCE_S * 100)):
        if done():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


def measure(_place: Place, alerts: int, reads_s: float) -> dict[str, Any]:
    """Measure one kind of polygon after the other."""
    found: dict[str, Any] = {}
    with screen.progress("kinds", len(KINDS)) as show:
        for done, kind in enumerate(KINDS, start=1):
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                found[kind] = runner.run(_measured(kind, alerts, reads_s))
            show(done)
    return {"kinds": found}


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each kind of polygon."""
    rows = [
        [
            kind,
            number(max(it["stall_ms"])),
            number(it["cpu_ms"]),
            number(float(np.percentile(it["stall_ms"], 99))),
            number(max(it["answer_ms"])),
            number(it["drawn_s"]),
            f"{it['bytes'] / 2**20:.1f} MiB",
        ]
        for kind, it in result.found["kinds"].items()
    ]
    columns = (
        "",
        "longest stall ms (≤ 20)",
        "most CPU ms",
        "p99 ms",
        "longest answer ms",
        "all drawn after s",
        "GeoJSON",
    )
    return Table(f"feed: {result.parameters['alerts']:,} polygons of {CORNERS} corners become live", columns, rows)


def plot(result: Result, figure: Any) -> None:
    """Plot how late the timer fired, over the time of the run."""
    axes = figure.subplots()
    for kind, it in result.found["kinds"].items():
        axes.plot(it["stall_ms"], label=kind)
    axes.set(xlabel="turn of the timer", ylabel="late, ms")
    axes.legend()
    figure.suptitle(table(result).title)


BENCH = Bench(
    "feed",
    "how long the public feed blocks its event loop while many polygons become live.",
    measure,
    table,
    plot,
    {"alerts": 200, "reads_s": 0.5},
    own_server=False,
)
