"""`ingest`: how many alerts a second a node accepts, if it stores each durably in SQLite before it answers.

Several publishers send POST /v1/alerts at once; each sends its next alert when the last one has been answered with 201.
Nobody is subscribed. Measures the alerts accepted per second, the p50 and p99 of the time until the 201, and the
server's CPU for each alert. The time of an fsync depends on the disk, so it is measured as well.

Leaves out: the cost of delivering an alert (see `fanout`).
"""

import asyncio
import os
import time
from typing import Any

from bench import screen, stats
from bench.clients.http import AsyncPoster
from bench.peers import Geocast
from bench.peers.base import next_number
from bench.results import Result, Table, number
from bench.rounds import geocast_alone
from bench.runs import Bench, Place

FSYNCS = 50


def measure(place: Place, concurrency: tuple[int, ...], seconds: float) -> dict[str, Any]:
    """Publish for `seconds` seconds with each number of publishers, each time to a new node."""
    found: dict[str, Any] = {}
    with screen.progress("publishers at once", len(concurrency)) as show:
        for done, publishers in enumerate(concurrency, start=1):
            with geocast_alone(place) as node:
                found[str(publishers)] = _stretch(node, publishers, seconds)
            show(done)
    return {"by_concurrency": found, "fsync_ms": _fsync_ms(place)}


def _stretch(node: Geocast, publishers: int, seconds: float) -> dict[str, Any]:
    cpu = node.cpu_s()
    took_ms, elapsed_s = asyncio.run(_publish(node, publishers, seconds))
    cpu = node.cpu_s() - cpu
    return {
        "alerts_per_s": len(took_ms) / elapsed_s,
        "cpu_us": cpu / max(1, len(took_ms)) * 1e6,
        "latency_ms": stats.summary(took_ms),
        "live": node.metrics().get("geocast_live_alerts", 0.0),
    }


async def _publish(node: Geocast, publishers: int, seconds: float) -> tuple[list[float], float]:
    """Run the publishers. Return the duration of each request in ms, and the duration of the whole run in seconds."""
    start = time.perf_counter()
    end = start + seconds
    took = await asyncio.gather(*(_publisher(node, end) for _ in range(publishers)))
    return [value for each in took for value in each], time.perf_counter() - start


async def _publisher(node: Geocast, end: float) -> list[float]:
    poster, took_ms = await AsyncPoster.connect(node.control_port), []
    try:
        while (start := time.perf_counter()) < end:
            status = await poster.post("/v1/alerts", node.body(next_number(), lifetime_s=10), node.headers)
            assert status == 201, status
            took_ms.append((time.perf_counter() - start) * 1000)
    finally:
        poster.close()
    return took_ms


def _fsync_ms(place: Place) -> dict[str, float]:
    """Return the time in ms that it takes to append 4 KiB to a file in the folder of the run, and to sync the file."""
    took = []
    with (place.home / "fsync").open("wb") as file:
        for _ in range(FSYNCS):
            start = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            took.append((time.perf_counter() - start) * 1000)
    return stats.summary(took)


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each tested number of concurrent publishers."""
    rows = [
        [
            publishers,
            number(it["alerts_per_s"]),
            *(number(it["latency_ms"][key]) for key in ("p50", "p99", "max")),
            number(it["cpu_us"]),
            number(it["live"]),
        ]
        for publishers, it in result.found["by_concurrency"].items()
    ]
    fsync = result.found["fsync_ms"]
    notes = [f"fsync of 4 KiB on this disk: p50 {number(fsync['p50'])} ms, p99 {number(fsync['p99'])} ms."]
    columns = ("publishers at once", "alerts/s", "p50 ms", "p99 ms", "max ms", "CPU µs/alert", "live at the end")
    return Table("ingest: durable alerts, SQLite", columns, rows, notes)


def plot(result: Result, figure: Any) -> None:
    """Plot the rate and the latency over the number of publishers."""
    found = result.found["by_concurrency"]
    rate, latency = figure.subplots(1, 2)
    rate.plot(list(found), [it["alerts_per_s"] for it in found.values()], "o-")
    rate.set(xlabel="publishers at once", ylabel="alerts accepted a second", ylim=(0, None))
    for key in ("p50", "p99"):
        latency.plot(list(found), [it["latency_ms"][key] for it in found.values()], "o-", label=key)
    latency.set(xlabel="publishers at once", ylabel="ms until 201", ylim=(0, None))
    latency.legend()
    figure.suptitle(table(result).title)


BENCH = Bench(
    "ingest",
    "how many alerts a second a node accepts, if each is durable before it is answered.",
    measure,
    table,
    plot,
    {"concurrency": (1, 8, 64), "seconds": 2.0},
)
