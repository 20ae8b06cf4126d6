"""`slow`: how clients that don't read affect the other clients.

There are two runs, in which the same alerts are sent at the same rate to the same crowd. In the first run the crowd is
alone. In the second run misbehaving sessions are connected as well: 1 % of the number of sessions never read, another
1 % read 1 KB a second, and one session pings without reading. All sessions are inside the area of every alert.

Measures, in both runs, the p50 and p99 of the time from when an alert was due until a session of the crowd received it;
the growth of the server's resident memory; and the sessions that the server counts as slow or has closed. (It closes
slow sessions with the code 4420 after 30 s.)
"""

import base64
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench import places, processes, screen, stats
from bench.clients import misbehaving
from bench.peers import Geocast
from bench.results import Result, Table, number
from bench.rounds import gather, geocast_alone, stretch
from bench.runs import Bench, Place

SPREAD_M = 14_000.0
SAMPLE_S = 0.05


def measure(place: Place, sessions: int, percent: float, payload: int, rate: float, seconds: float) -> dict[str, Any]:
    """Measure the crowd alone, then together with misbehaving sessions."""
    bad = max(1, round(sessions * percent / 100))
    alerts = max(1, round(rate * seconds))
    found = {}
    for name, counts in (("alone", None), ("beside slow ones", (bad, bad, 1))):
        screen.say(f"{name}: {alerts} alerts, {rate:g} a second")
        with ExitStack() as stack:
            node = stack.enter_context(geocast_alone(place, payload_bytes=payload))
            audience = gather(stack, place, node, places.around(sessions, SPREAD_M), alerts + 1)
            if counts:
                stack.enter_context(_misbehaving(place, node, counts))
            memory = stack.enter_context(_watched_memory(node))
            done = stretch(audience, alerts, rate)
            metrics, missing, dropped = node.metrics(), audience.missing, audience.crowd.counters().closed
        found[name] = {
            "latency_ms": stats.summary(done.latencies_ms),
            "cpu_us": done.cpu_us,
            "missing": missing,
            "dropped": dropped,
            "rss_before": memory[0],
            "rss_most": max(memory),
            "slow_sessions": metrics.get("geocast_slow_sessions", 0.0),
            "unsent_bytes": metrics.get("geocast_unsent_bytes", 0.0),
            "closes": {name: value for name, value in metrics.items() if name.startswith("geocast_closes_total")},
        }
    return {"runs": found, "slow": bad}


@contextmanager
def _misbehaving(place: Place, node: Geocast, counts: tuple[int, int, int]) -> Iterator[None]:
    joining = node.joining(places.around(sum(counts), SPREAD_M, seed=1))
    openings, output = place.home / "misbehaving.json", place.home / "misbehaving.txt"
    texts = {"request": _text(joining.request), "hellos": [_text(hello) for hello in joining.first]}
    openings.write_text(json.dumps(texts))
    script = Path(misbehaving.__file__)
    command = [sys.executable, "-P", script, str(node.port), openings, *map(str, counts)]
    process = processes.start(command, place.cores.clients, output)
    try:
        processes.wait_until(lambda: "ready" in output.read_text(), "misbehaving sessions have joined")
        yield
    finally:
        processes.stop(process)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@contextmanager
def _watched_memory(node: Geocast) -> Iterator[list[int]]:
    """Yield a list, to which the server's resident memory in bytes is appended repeatedly during the `with` block.

    The list has at least one value.
    """
    found = [node.rss_bytes()]
    with processes.repeating(lambda: found.append(node.rss_bytes()), SAMPLE_S):
        yield found


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each run."""
    runs = result.found["runs"]
    rows = [
        [
            name,
            *(number(it["latency_ms"][key]) for key in ("p50", "p99", "max")),
            number((it["rss_most"] - it["rss_before"]) / 2**20),
            number(it["unsent_bytes"] / 1024),
            str(it["missing"]),
            str(it["dropped"]),
            str(int(it["slow_sessions"])),
            str(int(sum(it["closes"].values()))),
            number(it["cpu_us"]),
        ]
        for name, it in runs.items()
    ]
    alone, beside = runs.values()
    change = beside["latency_ms"]["p99"] / alone["latency_ms"]["p99"] - 1
    columns = (
        "",
        "p50 ms",
        "p99 ms",
        "max ms",
        "memory grew MiB",
        "unsent KiB",
        "missing",
        "dropped",
        "slow",
        "closed",
        "CPU µs/delivery",
    )
    title = f"slow: {result.parameters['sessions']:,} sessions beside 2 × {result.found['slow']} slow ones"
    return Table(
        title,
        columns,
        rows,
        [f"The slow ones change the p99 of the others by {change:+.0%} (goal: within 10 %)."],
    )


def plot(result: Result, figure: Any) -> None:
    """Plot the percentiles of the latency, and the growth of memory, of both runs."""
    runs = result.found["runs"]
    latency, memory = figure.subplots(1, 2)
    for name, it in runs.items():
        latency.plot(list(it["latency_ms"]), list(it["latency_ms"].values()), "o-", label=name)
    latency.set(ylabel="publish → received, ms", ylim=(0, None))
    latency.legend()
    memory.bar(list(runs), [(it["rss_most"] - it["rss_before"]) / 2**20 for it in runs.values()])
    memory.set(ylabel="growth of resident memory, MiB")
    figure.suptitle(table(result).title)


BENCH = Bench(
    "slow",
    "how clients that don't read affect the other clients.",
    measure,
    table,
    plot,
    {"sessions": 1_000, "percent": 1.0, "payload": 1_300, "rate": 20.0, "seconds": 10.0},
)
