"""`idle`: what an idle node uses, without sessions and with sessions that are only kept alive.

Measures the CPU of all processes of a node until it is ready. Then, while nothing happens, measures the CPU and the
memory without sessions, and the CPU with sessions. The measurement with sessions lasts as long as a heartbeat, so that
each session is pinged once and answers. Memory is PSS: memory that several processes share is divided among them.

Leaves out: the kernel's work for a packet that comes in over a network, and TLS.
"""

import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import places, processes
from bench.peers.geocast import Geocast, GeocastOnRedis
from bench.results import Result, Table, number
from bench.rounds import gather
from bench.runs import Bench, Place

SPREAD_M = 14_000.0
SETTLE_S = 3.0
HEARTBEAT_S = 25.0
REST_S = 10.0  # duration of the measurement without sessions
GOAL_REST, GOAL_EACH_REST = 10.0, 0.2  # % of a core, for 40 processes together and for one
GOAL_SESSIONS = 1.5  # % of a core, for 15,000 sessions of one process
GOAL_PSS_MIB, GOAL_READY_S = 15.0, 0.3  # for each further stream process


def measure(place: Place, workers: tuple[int, ...], sessions: int, redis: bool) -> dict[str, Any]:
    """Measure an idle node, once for each number of stream processes (processes that serve sessions).

    With `redis`, nodes whose logs are in Redis are measured as well, without sessions.
    """
    nodes = {str(count): _node(place, count, sessions) for count in workers}
    missing = {}
    for count in workers if redis else ():
        try:
            nodes[str(count)]["redis_percent"] = _resting_on_redis(place, count)
        except processes.Unavailable as reason:
            missing["redis"] = reason.format_message()
    return {"nodes": nodes, "missing": missing}


def _resting_on_redis(place: Place, workers: int) -> float:
    with GeocastOnRedis(place.home, place.cores.server, workers=workers) as node:
        time.sleep(SETTLE_S)
        return _percent(node, REST_S)


def _node(place: Place, workers: int, sessions: int) -> dict[str, float]:
    with ExitStack() as stack:
        begun = time.monotonic()
        node = stack.enter_context(Geocast(place.home, place.cores.server, workers=workers))
        found = {"ready_s": time.monotonic() - begun, "ready_cpu_s": node.cpu_s()}
        streams = _streams(node)
        found["ready_cpu_each_s"] = statistics.median(processes.cpu_s([pid]) for pid in streams)
        time.sleep(SETTLE_S)
        found["rest_percent"] = _percent(node, REST_S)
        pss = {pid: _pss_mib(pid) for pid in node.pids()}
        found |= {"pss_mib": sum(pss.values()), "pss_each_mib": statistics.median(pss[pid] for pid in streams)}
        crowd = gather(stack, place, node, places.around(sessions, SPREAD_M), 1)
        time.sleep(SETTLE_S)
        pongs = crowd.crowd.counters().pongs
        found["sessions_percent"] = _percent(node, HEARTBEAT_S)
        found["pongs"] = crowd.crowd.counters().pongs - pongs
    return found


def _streams(node: Geocast) -> list[int]:
    """Return the ids of the stream processes, which serve sessions."""
    there = node.pids()
    named = [pid for pid in there if Path(f"/proc/{pid}/comm").read_text().startswith("stream-")]
    return named or there


def _percent(node: Geocast, seconds: float) -> float:
    """Return the CPU that all processes of the node use in the next `seconds` seconds, as a percentage of a core."""
    cpu, begun = node.cpu_s(), time.monotonic()
    time.sleep(seconds)
    return (node.cpu_s() - cpu) / (time.monotonic() - begun) * 100


def _pss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


_ROWS = (
    (
        "without sessions, % of a core, all processes",
        "rest_percent",
        f"≤ {GOAL_REST:g} of 40, ≤ {GOAL_EACH_REST:g} of 1",
    ),
    ("… with the log in Redis, without the CPU of Redis", "redis_percent", "as above"),
    ("with sessions, % of a core, all processes", "sessions_percent", f"≤ {GOAL_SESSIONS:g} of 1"),
    ("… pings answered meanwhile", "pongs", ""),
    ("CPU until ready, s: a stream process", "ready_cpu_each_s", f"≤ {GOAL_READY_S:g} (further ones)"),
    ("… all processes", "ready_cpu_s", ""),
    ("time until ready, s, on one core", "ready_s", ""),
    ("PSS without sessions, MiB: a stream process", "pss_each_mib", f"≤ {GOAL_PSS_MIB:g} (further ones)"),
    ("… all processes", "pss_mib", ""),
)


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each measured value and one column for each node."""
    nodes = result.found["nodes"]
    rows = [[title, *(number(it.get(key)) for it in nodes.values()), goal] for title, key, goal in _ROWS]
    notes = [f"{name} is left out: {reason}." for name, reason in result.found.get("missing", {}).items()]
    columns = ("", *(f"--workers {name}" for name in nodes), "goal")
    return Table(f"idle: nothing happens; {result.parameters['sessions']:,} sessions", columns, rows, notes)


def plot(result: Result, figure: Any) -> None:
    """Plot the CPU and the memory of a node over the number of its processes."""
    nodes = result.found["nodes"]
    many = [int(name) for name in nodes]
    cpu, memory = figure.subplots(1, 2)
    for key, label in (("rest_percent", "without sessions"), ("sessions_percent", "with them")):
        cpu.plot(many, [it[key] for it in nodes.values()], "o-", label=label)
    cpu.set(xlabel="--workers", ylabel="% of a core, all processes", ylim=(0, None))
    cpu.legend()
    memory.plot(many, [it["pss_mib"] for it in nodes.values()], "o-")
    memory.set(xlabel="--workers", ylabel="PSS of all processes, MiB", ylim=(0, None))
    figure.suptitle(table(result).title)


BENCH = Bench(
    "idle",
    "what an idle node uses, without sessions and with sessions that are only kept alive.",
    measure,
    table,
    plot,
    {"workers": (1, 10), "sessions": 2_000, "redis": True},
)
