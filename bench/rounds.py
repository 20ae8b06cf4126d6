"""Steps that all benchmarks of a fan-out share.

A fan-out is the sending of one alert to many sessions. The functions here start servers, connect a crowd of sessions,
publish alerts, and measure when each session gets them.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

from bench import processes, screen
from bench.clients.crowd import Crowd
from bench.peers import PEERS, Geocast, System
from bench.peers.base import Payload, Peer, next_number
from bench.places import Places
from bench.runs import Place

NEAREST = 100
PATIENCE_S = 60.0
SETTLE_S = 0.005  # wait after the last message, so that the CPU for the work after it is counted, too
REST_S = 0.05  # wait between two rounds
IDLE_S = 0.5
PUBLISHERS = 8


@dataclass(slots=True)
class Audience:
    """A server under measurement, and the crowd of sessions connected to it."""

    system: System
    crowd: Crowd
    places: Places
    connect_cpu_us: float
    connect_s: float
    idle_cpu: float  # fraction of a core that the server uses while nothing happens
    hearing: int  # sessions that get an alert: those inside the area, or all if the server can't match by place
    heard: int = 0  # messages received so far
    missing: int = 0  # messages that should have come and did not

    @property
    def wanted(self) -> int:
        """The number of sessions inside the area, for which an alert is meant."""
        return int(np.count_nonzero(self.places.inside))

    def listen(self, alerts: int) -> Any:
        """Wait until the sessions inside the area have received the next `alerts` alerts.

        Return the records, one for each message to a session inside the area, as a numpy array.
        """
        due = self.heard + alerts * self.hearing
        self.heard = self.crowd.wait_records(due)
        self.missing += max(0, due - self.heard)
        records = self.crowd.take()
        return records[self.places.inside[records["connection"]]]


@dataclass(frozen=True, slots=True)
class Round:
    """The measurements for one alert that was published while no other alert was being sent.

    Times are in ms, counted from just before the alert was published.
    """

    number: int
    cpu_us: float  # CPU of the server for each message to a session inside the area
    first_ms: float
    nearest_ms: float  # time until the last of the nearest 100 sessions has the alert
    last_ms: float
    latencies_ms: Any
    connections: Any  # for each latency, the index of the connection
    waited: float  # fraction of the time until the last message in which other programs had the server's core

    def until(self, connections: Any) -> float:
        """Return the time in ms until the last of these connections (a list of indices) had received the alert."""
        return float(self.latencies_ms[np.isin(self.connections, connections)].max())


def one_round(audience: Audience, nearest: Any, **options: Any) -> Round:
    """Publish one alert, wait until each session that should get it has received it, and return the measurements.

    `nearest` contains the indices of the sessions that are nearest to the centre of the alert.
    """
    number = next_number()
    cpu, waited, start = audience.system.cpu_s(), audience.system.waited_s(), time.monotonic_ns()
    audience.system.publish(number, **options)
    records = audience.listen(1)
    time.sleep(SETTLE_S)
    cpu = audience.system.cpu_s() - cpu - audience.idle_cpu * SETTLE_S
    waited = audience.system.waited_s() - waited
    time.sleep(REST_S)
    latencies, connections = ms_since(start, records["when_ns"]), records["connection"]
    return Round(
        number,
        cpu / len(records) * 1e6,
        float(latencies.min()),
        float(latencies[np.isin(connections, nearest)].max()),
        float(latencies.max()),
        latencies,
        connections,
        waited * 1000 / float(latencies.max()),
    )


def in_turns(audiences: Sequence[Audience], nearest: Any, rounds: int, what: str) -> dict[str, list[Round]]:
    """Run `rounds` rounds for each server, with the servers taking turns, and return the rounds by server.

    In a round, one alert is published while no other is being sent. One more round at the beginning warms each server
    up. `what` is the text beside the progress.
    """
    for audience in audiences:
        one_round(audience, nearest)
    found: dict[str, list[Round]] = {audience.system.name: [] for audience in audiences}
    with screen.progress(what, rounds) as show:
        for done in range(rounds):
            for audience in audiences:
                found[audience.system.name].append(one_round(audience, nearest))
            show(done + 1)
    return found


def ms_since(start_ns: Any, when_ns: Any) -> Any:
    """Return the milliseconds from `start_ns` to each entry of `when_ns`."""
    return (when_ns.astype(np.int64) - start_ns) / 1e6


@dataclass(frozen=True, slots=True)
class Stretch:
    """The measurements for many alerts, published at a steady rate or at full speed.

    A latency is in ms since the time at which the alert should have been published, so that delays of the publisher
    count as well (no coordinated omission).
    """

    alerts: int
    deliveries: int
    seconds: float  # from the first publication to the last message
    cpu_us: float
    latencies_ms: Any


def stretch(audience: Audience, alerts: int, rate: float | None) -> Stretch:
    """Publish alerts at `rate` alerts per second, or at full speed if `rate` is None; return the measurements.

    The function returns when all messages have been received.
    """
    numbers = [next_number() for _ in range(alerts)]
    cpu, start = audience.system.cpu_s(), time.monotonic_ns() + 50_000_000
    due = [start + round(at * 1e9 / rate) if rate else start for at in range(alerts)]
    with ThreadPoolExecutor(PUBLISHERS) as pool:
        list(pool.map(_publish_at, [audience.system] * alerts, numbers, due))
    records = audience.listen(alerts)
    records = records[records["number"] >= numbers[0]]
    time.sleep(SETTLE_S)
    cpu = audience.system.cpu_s() - cpu - audience.idle_cpu * SETTLE_S
    latencies = ms_since(np.array(due)[records["number"] - numbers[0]], records["when_ns"])
    seconds = float(ms_since(start, records["when_ns"]).max()) / 1000
    return Stretch(alerts, len(records), seconds, cpu / len(records) * 1e6, latencies)


def _publish_at(system: System, number: int, due_ns: int) -> None:
    time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
    system.publish(number)


# ---- starting servers and connecting sessions --------------------------------------------------------------------


def gather(stack: ExitStack, place: Place, system: System, places: Places, expected: int, **options: Any) -> Audience:
    """Connect one session for each place to a running server, and wait until all have joined.

    `expected` and `options` are passed to Crowd.
    """
    joining = system.joining(places)
    cpu, start = system.cpu_s(), time.monotonic()
    cores = place.cores.clients
    crowd = stack.enter_context(Crowd(system.port, joining, place.home, cores, expected=expected, **options))
    with screen.progress(f"{system.name}: connecting", len(places)) as show:
        crowd.wait_ready(show=show)
    seconds = time.monotonic() - start
    cpu_us = (system.cpu_s() - cpu) / len(places) * 1e6
    matches = isinstance(system, Geocast)
    hearing = int(np.count_nonzero(places.inside)) if matches else len(places)
    return Audience(system, crowd, places, cpu_us, seconds, _idle_cpu(system), hearing)


def _idle_cpu(system: System) -> float:
    time.sleep(REST_S)
    cpu, start = system.cpu_s(), time.monotonic()
    time.sleep(IDLE_S)
    return (system.cpu_s() - cpu) / (time.monotonic() - start)


@contextmanager
def geocast_alone(place: Place, **options: Any) -> Iterator[Geocast]:
    """Run one node of geocast during the `with` block, after adjusting its alerts to the requested size."""
    with Geocast(place.home, place.cores.server, **options) as node:
        node.take_sample()
        yield node


def start_peers(
    stack: ExitStack, place: Place, names: Sequence[str], payload: Payload
) -> tuple[list[System], dict[str, str]]:
    """Start the peers (servers to compare geocast with) that are named in `names`.

    Return the running peers, and a dict with the reason for each peer that is not available on this machine.
    """
    running: list[System] = []
    missing: dict[str, str] = {}
    for name in names:
        peer = PEERS[name](place.home, place.cores.server)
        if isinstance(peer, Peer):
            peer.payload = payload
        try:
            running.append(stack.enter_context(peer))
        except processes.Unavailable as reason:
            missing[name] = reason.format_message()
            screen.say(f"[yellow]{name} is left out: {missing[name]}[/yellow]")
    return running, missing


def peer_names(text: str) -> list[str]:
    """Parse a list of peer names such as `raw,nats`. Raise BadParameter if a name is unknown."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in PEERS:
            raise click.BadParameter(f"{name}: choose from {', '.join(PEERS)}")
    return names
