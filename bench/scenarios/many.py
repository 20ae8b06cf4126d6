"""`many`: as many sessions as a machine can carry, in several stream processes, kept connected for a while.

A stream process is a process of the node that serves sessions. Each session has a place in the index and has sent an
EdDSA token of its own. While the sessions are connected, they answer the node's pings, some of them move, and alerts
for all of them are published, one at a time; the last alert is cancelled. The stream processes share one core, and the
receivers use the others. (On a machine with more cores, more stream processes would run at the same time.)

Measures the time until all are connected and the CPU for each connect; how much the resident memory of the node's
processes grows for each session; how much memory the node, the receivers and the kernel take together (MemAvailable);
dropped sessions, and whether pings and moves were answered; the time from publishing until the first session, the
nearest 100, the nearest 100 for each process, and the last have an alert; and the CPU for each delivery.

Leaves out: a network, TLS, and fragmentation over a long time. A hundred receivers on one core can't all stay awake:
when no message has come, they sleep for NAP_MS, so they record messages up to that much late.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from bench import machine, places, processes, screen, stats
from bench.clients.crowd import Crowd
from bench.peers import Geocast
from bench.results import Result, Table, number
from bench.rounds import NEAREST, Audience, geocast_alone, ms_since, one_round
from bench.runs import Bench, Place

SPREAD_M = 14_000.0
PER_WORKER = 18_000  # less than the limit of 20,000 descriptors, because the kernel spreads connections unevenly
INFLIGHT = 2_048  # handshakes in progress at once: many, so that each process finds several when it wakes up
NAP_MS = 5.0
SETTLE_S = 3.0
SAMPLES = 300  # number of samples that are kept for the plot
SAY_S = 30.0  # time between two lines about the progress, if the output is not a terminal
GOAL_LAST_MS, GOAL_NEAREST_MS, GOAL_GIB = 10_000, 100, 18


def measure(place: Place, sessions: int, rounds: int, hold_s: float, moves: int, heartbeat_s: int) -> dict[str, Any]:
    """Connect all sessions, and keep them connected for `hold_s` seconds.

    Meanwhile, publish alerts and make sessions move. Return the measurements.
    """
    workers = max(2, -(-sessions // PER_WORKER))
    where = places.around(sessions, SPREAD_M)
    unused = machine.available_bytes()
    with ExitStack() as stack:
        node = stack.enter_context(geocast_alone(place, workers=workers, heartbeat_s=heartbeat_s))
        before, available = node.rss_bytes(), machine.available_bytes()
        joining, cores = node.joining_and_moving(where), place.cores.clients
        cpu, begun = node.cpu_s(), time.monotonic()
        crowd = stack.enter_context(
            Crowd(node.port, joining, place.home, cores, expected=rounds + 2, inflight=INFLIGHT, nap_ms=NAP_MS)
        )
        stack.callback(node.kill)
        watch = stack.enter_context(_watching(node, crowd))
        with screen.progress("connecting", sessions) as show:
            crowd.wait_ready(show)
        connect_s, connect_us = time.monotonic() - begun, (node.cpu_s() - cpu) / sessions * 1e6
        joined_s = (np.sort(crowd.ready_ns()) / 1e9 - begun).clip(0)
        audience = Audience(node, crowd, where, connect_us, connect_s, 0.0, sessions)
        time.sleep(SETTLE_S)
        after, left = node.rss_bytes(), machine.available_bytes()
        found = _hold(audience, watch, workers, rounds, hold_s, moves)
        least = min(machine.available_bytes(), *(each[2] for each in watch.samples))
    return found | {
        "workers": workers,
        "rss_before_bytes": before,
        "rss_bytes_per_session": (after - before) / sessions,
        "rss_bytes": after,
        "machine_bytes_per_session": (available - left) / sessions,
        "machine_bytes": unused - least,
        "connect_s": connect_s,
        "connect_cpu_us": connect_us,
        "joined_by_s": np.percentile(joined_s, range(101)).round(1).tolist(),
        "watched_from_s": watch.begun - begun,
        "samples": watch.samples[:: max(1, len(watch.samples) // SAMPLES)],
    }


# ---- measurements while sessions are connected -------------------------------------------------------------------


class _Watch:
    """A sampler that records the sessions, memory and CPU once a second, and tells sessions to move."""

    def __init__(self, node: Geocast, crowd: Crowd) -> None:
        self.samples: list[tuple[float, int, int, float, int]] = []  # s, ready sessions, bytes available, CPU s, pongs
        self.moves, self.moves_begin, self.moves_s = 0, 0.0, 1.0
        self._node, self._crowd, self.begun, self._said = node, crowd, time.monotonic(), 0.0

    def look(self) -> None:
        """Take a sample, and tell the sessions that are due to move to do so."""
        now, counters = time.monotonic(), self._crowd.counters()
        since = now - self.begun
        left = machine.available_bytes()
        self.samples.append((round(since, 1), counters.ready, left, round(self._node.cpu_s(), 2), counters.pongs))
        if self.moves:
            self._crowd.ask(round(self.moves * min(1.0, (now - self.moves_begin) / self.moves_s)))
        if since - self._said >= SAY_S and not screen.console.is_terminal:
            self._said = since
            screen.say(f"{since:.0f} s: {counters.ready:,} sessions connected, {counters.closed:,} dropped, "
                       f"{left / 2**30:.1f} GiB of memory free, {counters.pongs:,} pings answered")  # fmt: skip


@contextmanager
def _watching(node: Geocast, crowd: Crowd) -> Iterator[_Watch]:
    watch = _Watch(node, crowd)
    with processes.repeating(watch.look, 1.0):
        yield watch


def _hold(audience: Audience, watch: _Watch, workers: int, rounds: int, hold_s: float, moves: int) -> dict[str, Any]:
    """Keep the sessions connected for `hold_s` seconds, and return the measurements.

    Meanwhile, alerts are published at even intervals.
    """
    node, crowd = audience.system, audience.crowd
    assert isinstance(node, Geocast)
    nearest = audience.places.nearest(NEAREST * workers)
    before, cpu, begun = crowd.counters(), node.cpu_s(), time.monotonic()
    watch.moves_begin, watch.moves_s, watch.moves = begun, max(1.0, hold_s * 0.9), moves
    found, near_ms = [], []
    with screen.progress("held, s", round(hold_s)) as show:
        for done in range(rounds):
            _rest_until(begun + hold_s * (done + 0.5) / (rounds + 1), begun, show)
            each = one_round(audience, nearest[:NEAREST])
            found.append(each)
            near_ms.append(each.until(nearest))
        _rest_until(begun + hold_s * (rounds + 0.5) / (rounds + 1), begun, show)
        cancel_ms = _cancel(audience, found[-1].number)
        _rest_until(begun + hold_s, begun, show)
    crowd.wait(lambda now: now.said <= now.oks, "all sessions that moved have an answer", 30.0)
    after, held_s = crowd.counters(), time.monotonic() - begun
    return {
        "held_s": held_s,
        "held_cpu": (node.cpu_s() - cpu) / held_s,
        "first_ms": [each.first_ms for each in found],
        "nearest_ms": [each.nearest_ms for each in found],
        "last_ms": [each.last_ms for each in found],
        "cpu_us": [each.cpu_us for each in found],
        "waited": [each.waited for each in found],
        "told_by_ms": np.percentile(found[-1].latencies_ms, range(101)).round(1).tolist(),
        "near_each_ms": near_ms,
        "cancel_ms": cancel_ms,
        "missing": audience.missing,
        "dropped": after.closed,
        "failed": after.failed,
        "sessions_of_node": node.metrics()["geocast_sessions"],
        "pongs": after.pongs - before.pongs,
        "moved": after.said,
        "moves_answered": after.oks,
    }


def _rest_until(due: float, begun: float, show: Any) -> None:
    """Sleep until the monotonic clock reaches `due`, and keep the progress bar up to date."""
    while (now := time.monotonic()) < due:
        show(round(now - begun))
        time.sleep(min(1.0, due - now))


def _cancel(audience: Audience, number: int) -> float:
    """Cancel an alert; return the time in ms until the last session has been sent the cancellation."""
    assert isinstance(audience.system, Geocast)
    start = time.monotonic_ns()
    audience.system.cancel(number)
    return float(ms_since(start, audience.listen(1)["when_ns"]).max())


# ---- table and plot ----------------------------------------------------------------------------------------------


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each measured value."""
    found, sessions, heartbeat_s = result.found, result.parameters["sessions"], result.parameters["heartbeat_s"]
    each_ms = stats.median(found["near_each_ms"])
    rows = [
        ["stream processes, all on one core", str(found["workers"]), ""],
        ["seconds until all were connected", number(found["connect_s"]), ""],
        ["CPU for each connect, µs", number(found["connect_cpu_us"]), ""],
        ["resident KiB for each session, of all processes", number(found["rss_bytes_per_session"] / 1024), ""],
        ["KiB of the machine for each session and its client", number(found["machine_bytes_per_session"] / 1024), ""],
        ["GiB of the machine for the whole run, at most", number(found["machine_bytes"] / 2**30), f"≤ {GOAL_GIB}"],
        ["seconds for which all stayed connected", number(found["held_s"]), ""],
        ["… sessions dropped meanwhile, or before", f"{found['dropped']:,}", "0"],
        [f"… pings answered; a ping follows {heartbeat_s} s of silence", f"{found['pongs']:,}", ""],
        ["… moves that were answered", f"{found['moves_answered']:,} of {found['moved']:,}", "all"],
        ["… CPU of the node, deliveries included, % of a core", number(found["held_cpu"] * 100), ""],
        ["publish → the first, ms", number(stats.median(found["first_ms"])), ""],
        [f"publish → the nearest {NEAREST}, ms", number(stats.median(found["nearest_ms"])), ""],
        [f"publish → the nearest {NEAREST} × {found['workers']}, ms", number(each_ms), f"≤ {GOAL_NEAREST_MS}"],
        ["publish → the last, ms", number(stats.median(found["last_ms"])), f"≤ {GOAL_LAST_MS:,}"],
        ["cancel → the last, ms", number(found["cancel_ms"]), ""],
        ["CPU for each delivery, µs", number(stats.median(found["cpu_us"])), ""],
        ["messages that never came", f"{found['missing']:,}", "0"],
    ]
    notes = [f"Receivers without a message sleep for {NAP_MS:g} ms, so they record messages up to that much late."]
    return Table(f"many: {sessions:,} sessions, all in the area", ("", "", "goal"), rows, notes)


def plot(result: Result, figure: Any) -> None:
    """Plot the sessions and the CPU over the run.

    A second plot shows the percentage of sessions that have an alert, over the time since it was published.
    """
    found, thousands = result.found, result.parameters["sessions"] / 1000
    seconds, ready, _, cpu_s, _ = np.array(found["samples"]).T
    seconds = (seconds + found["watched_from_s"]) / 60
    run, told = figure.subplots(1, 2, width_ratios=(2, 1))
    joined = np.array(found["joined_by_s"]) / 60
    held = seconds > joined[-1]
    run.plot(
        [*joined, *seconds[held]], [*np.linspace(0, thousands, 101), *ready[held] / 1000], label="sessions, thousands"
    )
    run.set(xlabel="minutes", ylabel="sessions, thousands", ylim=(0, None), xlim=(0, None))
    core = run.twinx()
    used = 100 / 60 * np.diff(cpu_s) / np.diff(seconds)
    core.plot(seconds[1:], used, "C1", lw=0.8, label="CPU of the node, % of its core")
    core.set(ylim=(0, 105))
    figure.legend(loc="outside lower center", ncols=3)
    told.plot(np.array(found["told_by_ms"]) / 1000, range(101))
    told.set(xlabel="s after the publish", ylabel="% of the sessions that have the alert", xlim=(0, None))
    figure.suptitle(table(result).title)


BENCH = Bench(
    "many",
    "as many sessions as a machine can carry, in several stream processes, and alerts for all of them.",
    measure,
    table,
    plot,
    {"sessions": 20_000, "rounds": 3, "hold_s": 30.0, "moves": 400, "heartbeat_s": 25},
)
