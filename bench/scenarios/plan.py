"""`plan`: what a deployment of a given size needs, and what ends first.

Measures nothing. Works out processes, cores, memory, Redis servers and bandwidth from the results of other benches, and
how long an alert to all subscribers of a region takes to the last of them. Each coefficient is named in a note below
the table, with its bench and its date.

The assumptions: sessions are spread evenly over regions and processes; all processes of a region read Redis replicas in
this region (`--log-follow`), and at most half of a core of a Redis server is used; cores are half idle at the mean
rate of alerts, and at most eight processes share one. Leaves out: the network between a node and its subscribers,
proxies, and machines that fail.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import results
from bench.results import Result, Table, number
from bench.runs import Bench, Place

PER_PROCESS = 13_000  # sessions of a process: 77 processes for a million (ADR 7)
PER_CORE = 8  # the most processes that share a core
HALF = 0.5  # the part of a core that may be in use at the mean rate of alerts
HEAD_BYTES = 60  # of TCP and IP, with options, for a frame of its own
ROWS = (1e4, 1e5, 1e6, 1e7, 1e8, 1e9)


@dataclass(frozen=True, slots=True)
class Costs:
    """The coefficients, in seconds of CPU and bytes."""

    delivery_s: float
    kept_s: float  # to keep a session alive for a second
    entry_s: float  # of an entry that concerns no session of the process
    connect_s: float
    session_bytes: float
    process_bytes: float
    frame_bytes: float
    append_s: float  # of the primary, without readers
    reader_s: float  # of the server that is read, for each append and reader
    beat_s: float  # of the primary, for each process and second
    entry_bytes: float


def costs(folder: Path = results.FOLDER) -> tuple[Costs, list[str]]:
    """Return the coefficients from the results in `folder`, and a note for each with its bench and date."""
    found = {
        name: Result.load(folder / f"{name}.json") for name in ("many", "growth", "storm", "idle", "fanout", "readers")
    }
    many, growth = found["many"].found, found["growth"].found["counts"]
    nodes = found["idle"].found["nodes"]
    stretches = found["readers"].found["stretches"]
    top = max(it["rate"] for it in stretches)
    rest, busy = ([it for it in stretches if it["rate"] == rate] for rate in (0, top))
    grown = [{key: b[key] - r[key] for key in ("cpu_share", "bytes_per_s")} for b, r in zip(busy, rest, strict=True)]
    direct = [0 if it["replicas"] else it["readers"] for it in rest]
    beat_s, _ = _least_squares([[it["logs"] for it in rest], direct], [it["cpu_share"] for it in rest])
    append_s, reader_s = _least_squares([[1] * len(rest), direct], [it["cpu_share"] / top for it in grown])
    sent = [it["bytes_per_s"] / top / readers for it, readers in zip(grown, direct, strict=True) if readers]
    value = Costs(
        delivery_s=many["cpu_us"][0] / 1e6,
        kept_s=many["held_cpu"] / many["sessions_of_node"],
        entry_s=max(it["foreign_us"] for it in growth.values()) / 1e6,
        connect_s=found["storm"].found["connect_cpu_us"] / 1e6,
        session_bytes=many["machine_bytes_per_session"],
        process_bytes=nodes[max(nodes, key=int)]["pss_each_mib"] * 2**20,
        frame_bytes=found["fanout"].found["payload_bytes"],
        append_s=append_s,
        reader_s=reader_s,
        beat_s=beat_s,
        entry_bytes=float(np.median(sent)),
    )
    said = {
        "many": f"{value.delivery_s * 1e6:.1f} µs for a delivery, {value.kept_s * 1e6:.2f} µs a second to keep a "
        f"session, {value.session_bytes:,.0f} bytes for a session, its client and the kernel's buffers",
        "growth": f"{value.entry_s * 1e6:.0f} µs for an entry that concerns nobody",
        "storm": f"{value.connect_s * 1e6:.0f} µs for a connect",
        "idle": f"{value.process_bytes / 2**20:.1f} MiB for a process",
        "fanout": f"{value.frame_bytes:.0f} bytes in a frame",
        "readers": f"{value.append_s * 1e6:.0f} µs of the primary for an append and {value.reader_s * 1e6:.1f} µs for "
        f"each reader of the server, at {top} appends a second; {value.beat_s * 1e6:.0f} µs of the primary a second "
        f"for each process; {value.entry_bytes:.0f} bytes for an entry and a reader",
    }
    return value, [f"`{name}` ({found[name].when[:10]}): {text}." for name, text in said.items()]


def _least_squares(causes: list[list[float]], effects: list[float]) -> tuple[float, float]:
    """Return what a unit of each of the two causes costs, so that their sums are closest to the effects."""
    one, other = np.linalg.lstsq(np.array(causes).T, np.array(effects), rcond=None)[0]
    return float(max(one, 1e-9)), float(max(other, 1e-9))


def needs(sessions: float, alerts_per_s: float, recipients: float, regions: int, cost: Costs) -> dict[str, Any]:
    """Return what a deployment needs: numbers of everything, the use of its parts, and what ends first."""
    processes = max(regions, math.ceil(sessions / PER_PROCESS))
    in_region = math.ceil(processes / regions)
    told_s = alerts_per_s * min(recipients, sessions)  # deliveries a second
    load = told_s * cost.delivery_s + sessions * cost.kept_s + processes * alerts_per_s * cost.entry_s
    cores = max(math.ceil(processes / PER_CORE), math.ceil(load / HALF))
    most_readers = max(1.0, (HALF / alerts_per_s - cost.append_s) / cost.reader_s)
    replicas = regions * math.ceil(in_region / most_readers)
    beats, appends = processes * cost.beat_s, alerts_per_s * (cost.append_s + replicas * cost.reader_s)
    alone = alerts_per_s * (cost.append_s + processes * cost.reader_s) + beats
    largest = sessions / regions  # an alert to everybody in one region
    return {
        "sessions": sessions,
        "processes": processes,
        "cores": cores,
        "memory_gib": (sessions * cost.session_bytes + processes * cost.process_bytes) / 2**30,
        "redis_servers": 3 + replicas,
        "primary": beats + appends,
        "primary_alone": alone,
        "beats": beats,
        "between_mb_s": alerts_per_s * cost.entry_bytes * replicas / 1e6,
        "phones_gbit_s": told_s * (cost.frame_bytes + HEAD_BYTES) * 8 / 1e9,
        "last_s": largest * cost.delivery_s / (cores / regions),
        "back_s": largest * cost.connect_s / (cores / regions),
    }


def limits(alerts_per_s: float, machine_gib: float, cost: Costs) -> dict[str, float]:
    """Return the largest number of sessions of each part, in the order in which they end."""
    appends = alerts_per_s * cost.append_s
    each = 1 / PER_PROCESS  # processes for a session
    found = {
        f"one machine ({machine_gib:g} GiB)": machine_gib * 2**30 / (cost.session_bytes + each * cost.process_bytes),
        "one primary that all processes read": (HALF - appends) / (each * (alerts_per_s * cost.reader_s + cost.beat_s)),
        "the heartbeats of all processes on one primary": (HALF - appends) / (each * cost.beat_s),
    }
    return dict(sorted(((name, max(0.0, value)) for name, value in found.items()), key=lambda pair: pair[1]))


def measure(
    _: Place, sessions: float, alerts_per_s: float, recipients: float, regions: int, machine_gib: float
) -> dict[str, Any]:
    """Work out a plan for this number of sessions, and for each number in ROWS."""
    cost, notes = costs()
    sizes = sorted({*ROWS, sessions})
    return {
        "costs": asdict(cost),
        "notes": notes,
        "rows": [needs(each, alerts_per_s, recipients, regions, cost) for each in sizes],
        "limits": limits(alerts_per_s, machine_gib, cost),
    }


def _ends(row: Mapping[str, Any], found: dict[str, float]) -> str:
    """Return the last part that has ended at this size."""
    return next((name for name in reversed(found) if row["sessions"] > found[name]), "–")


def table(result: Result) -> Table:
    """Return the plan as a table, with one row for each number of sessions."""
    asked, found = result.parameters, result.found
    rows = [
        [
            f"{it['sessions']:,.0f}",
            *(number(it[key]) for key in ("processes", "cores", "memory_gib", "redis_servers")),
            f"{it['primary']:.1%}",
            f"{it['primary_alone']:.0%}",
            *(number(it[key]) for key in ("between_mb_s", "phones_gbit_s", "last_s", "back_s")),
            _ends(it, found["limits"]),
        ]
        for it in found["rows"]
    ]
    columns = (
        *("sessions", "processes", "cores", "memory GiB", "Redis servers", "core of the primary", "… without replicas"),
        *("MB/s between regions", "Gbit/s to phones", "s to the last phone", "s until all are back", "what has ended"),
    )
    title = (
        f"plan: {asked['alerts_per_s']:g} alerts a second to {asked['recipients']:,.0f} sessions each, "
        f"{asked['regions']} regions"
    )
    ends = [f"{name} ends at {number(value)} sessions." for name, value in found["limits"].items()]
    return Table(title, columns, rows, [*ends, *found["notes"]])


def plot(result: Result, figure: Any) -> None:
    """Plot what is needed, and the use of the primary's core, over the number of sessions."""
    parts, primary = figure.subplots(1, 2)
    rows = result.found["rows"]
    sizes = [it["sessions"] for it in rows]
    for key in ("processes", "cores", "memory_gib", "redis_servers"):
        parts.plot(sizes, [it[key] for it in rows], "o-", label=key.replace("_gib", ", GiB").replace("_", " "))
    for key, name in (
        ("primary_alone", "all processes read it"),
        ("primary", "they read replicas"),
        ("beats", "of these, heartbeats"),
    ):
        primary.plot(sizes, [it[key] * 100 for it in rows], "o-", label=name)
    primary.axhline(HALF * 100, color="grey", linestyle=":")
    parts.set(xlabel="sessions", xscale="log", yscale="log")
    primary.set(xlabel="sessions", ylabel="core of the primary, %", xscale="log", yscale="log")
    parts.legend()
    primary.legend()
    figure.suptitle(table(result).title)


BENCH = Bench(
    "plan",
    "what a deployment of a given size needs, from the results of the other benches.",
    measure,
    table,
    plot,
    {"sessions": 100e6, "alerts_per_s": 25.0, "recipients": 5_000.0, "regions": 5, "machine_gib": 64.0},
    own_server=False,
)
