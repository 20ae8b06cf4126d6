"""`memory`: the resident memory for each idle, subscribed session, of geocast and of other servers.

At first 100 sessions connect, then many more. Some seconds after the last one has connected, measures by how much the
resident memory of all processes of the server has grown since the first 100, divided by the number of later sessions.
Also measures the CPU for each later session that connects. A session of geocast has a place in the index and has sent a
token; a session of another server has a subscription.

Leaves out: the kernel's memory (about 4 KB for each socket of any server), and fragmentation over a long time.
"""

import time
from contextlib import ExitStack
from typing import Any

from bench import places, stats
from bench.peers import System
from bench.results import Result, Table, number
from bench.rounds import gather, geocast_alone, start_peers
from bench.runs import Bench, Place

FIRST = 100
SPREAD_M = 14_000.0


def measure(place: Place, sessions: int, vs: tuple[str, ...], settle_s: float) -> dict[str, Any]:
    """Measure one server after the other."""
    with geocast_alone(place) as node:
        payload = node.take_sample()
        found = {node.name: _grow(place, node, sessions, settle_s)}
    missing: dict[str, str] = {}
    for name in vs:
        with ExitStack() as stack:
            peers, absent = start_peers(stack, place, [name], payload)
            missing |= absent
            found |= {peer.name: _grow(place, peer, sessions, settle_s) for peer in peers}
    return {"systems": found, "missing": missing}


def _grow(place: Place, system: System, sessions: int, settle_s: float) -> dict[str, float]:
    with ExitStack() as stack:
        gather(stack, place, system, places.around(FIRST, SPREAD_M), 1)
        time.sleep(settle_s)
        before = system.rss_bytes()
        crowd = gather(stack, place, system, places.around(sessions, SPREAD_M), 1)
        time.sleep(settle_s)
        after = system.rss_bytes()
    return {
        "before_bytes": before,
        "after_bytes": after,
        "bytes_per_session": (after - before) / sessions,
        "connect_cpu_us": crowd.connect_cpu_us,
        "connect_s": crowd.connect_s,
    }


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each server."""
    systems = result.found["systems"]
    ours = systems["geocast"]["bytes_per_session"]
    rows = [
        [
            name,
            number(it["bytes_per_session"] / 1024),
            number(stats.ratio(ours, it["bytes_per_session"])),
            number(it["before_bytes"] / 2**20),
            number(it["connect_cpu_us"]),
        ]
        for name, it in systems.items()
    ]
    columns = ("", "KiB/session", "geocast ÷ it", f"MiB with {FIRST} sessions", "connect CPU µs")
    notes = [f"geocast loses in memory to {name}." for name, it in systems.items() if it["bytes_per_session"] < ours]
    notes += [f"{name} is left out: {reason}." for name, reason in result.found["missing"].items()]
    return Table(f"memory: {result.parameters['sessions']:,} idle sessions (goal ≤ 2.5 KiB)", columns, rows, notes)


def plot(result: Result, figure: Any) -> None:
    """Plot the memory of a session as one bar for each server."""
    systems = result.found["systems"]
    axes = figure.subplots()
    axes.barh(list(systems), [it["bytes_per_session"] / 1024 for it in systems.values()])
    axes.set(xlabel="resident KiB for each idle session")
    figure.suptitle(table(result).title)


BENCH = Bench(
    "memory",
    "the resident memory for each idle, subscribed session.",
    measure,
    table,
    plot,
    {"sessions": 3_000, "vs": ("websockets", "uws", "nchan", "nats"), "settle_s": 1.0},
)
