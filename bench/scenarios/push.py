"""`push`: the cost of waking a phone by Web Push, the time until phones are woken, and what is lost by a kill.

A node runs together with one process of `geocast push`, which has a core of its own and keeps its devices in SQLite.
Two push services run on the other core: they use TLS, keep connections open and answer 201 to every push at once. Each
device has a key of its own, and an H3 cell of resolution 9 that is inside every alert.

Measures the total CPU of the process for each push; the time from when the node accepts an alert until the services
have received the first 100 pushes, and until they have received the last; and the time from when the node accepts an
extreme alert, published while a minor one is being sent to all devices, until the services have received its first
push. The last of these is measured again while one of the services accepts requests and answers none. With many
devices, measures the CPU and the time until the process is ready, and its memory. Finally, the process is killed and
restarted while an alert is being sent, and again while the cancellation of that alert is being sent; the devices that
miss a push or get it twice are counted.

Leaves out: the network to a real service and the time in which the service answers. (With 200 requests at once, a
service that takes 50 ms gets at most 4,000 pushes a second.) A node does not depend on push; `fanout` measures the cost
of a node.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import numpy as np

from bench import places, processes, screen, stats
from bench.peers.base import next_number
from bench.peers.geocast import Geocast
from bench.peers.geocast_push import GeocastPush, Population
from bench.peers.push_service import PushServices, push_services
from bench.results import Result, Table, number
from bench.rounds import ms_since
from bench.runs import Bench, Place

SPREAD_M = 14_000.0
SOON = 100
PATIENCE_S = 120.0
SETTLE_S = 0.3  # wait after the last push, until its result is stored
URGENT_ROUNDS = 3
MIDDLE = 0.2  # the benchmark interferes when this fraction of the pushes has been sent
HANGING = 1  # number of the service that hangs

GOAL_CPU_US, GOAL_SOON_MS, GOAL_LAST_MS, GOAL_URGENT_MS = 300, 150, 4_000, 250
GOAL_READY_S, GOAL_KIB, GOAL_TWICE = 20, 2.5, 512


@contextmanager
def _running(place: Place, population: Population) -> Iterator[tuple[Geocast, GeocastPush]]:
    """Run a node, and a push process with the devices of the population, during the `with` block.

    The push process has the server's core; the node uses the clients' cores.
    """
    with Geocast(place.home, place.cores.clients) as node, GeocastPush(node, population, place.cores.server) as push:
        yield node, push


def _population(place: Place, services: PushServices, size: int) -> Population:
    with screen.progress("devices", size) as show:
        return Population(place.home, services, places.around(size, SPREAD_M), show)


def _published(node: Geocast, severity: str = "severe") -> tuple[int, int]:
    """Publish an alert for all devices.

    Return its number, and the monotonic time in ns at which the node accepted it.
    """
    alert = next_number()
    node.publish(alert, severity=severity)
    return alert, time.monotonic_ns()


def _wait_for(services: PushServices, count: int) -> None:
    """Wait until the push services have received `count` pushes since the last call of `take`."""
    processes.wait_until(lambda: services.count() >= count, f"{count:,} pushes", PATIENCE_S)


# ---- alerts to all devices -----------------------------------------------------------------------------------------


def _fanouts(place: Place, population: Population, rounds: int) -> dict[str, Any]:
    """Publish alerts to all devices, one after the other, and return the measurements.

    The first alert, during which connections are opened, is reported separately.
    """
    services, size = population.services, population.size
    cpu_us, soon_ms, last_ms, waited, took = [], [], [], 0.0, 0.0
    with _running(place, population) as (node, push), screen.progress("alerts to all", 1 + rounds) as show:
        for done in range(1 + rounds):
            cpu, others, start = push.cpu_s(), push.waited_s(), time.monotonic()
            _, accepted_ns = _published(node)
            _wait_for(services, size)
            time.sleep(SETTLE_S)
            when_ms = np.sort(ms_since(accepted_ns, np.array([each.when_ns for each in services.take()])))
            soon_ms.append(float(when_ms[min(SOON, size) - 1]))
            last_ms.append(float(when_ms[-1]))
            if done:
                cpu_us.append((push.cpu_s() - cpu) / size * 1e6)
                waited += push.waited_s() - others
                took += time.monotonic() - start
            show(done + 1)
        urgent = {"urgent_ms": stats.summary(_urgent_ms(node, services, size))}
        services.hang(HANGING, hangs=True)
        urgent["hanging_ms"] = stats.summary(_urgent_ms(node, services, (size + 1) // 2))
        services.hang(HANGING, hangs=False)
    return {
        "cpu_us": stats.median(cpu_us),
        "cold": {"soon_ms": soon_ms[0], "last_ms": last_ms[0]},
        "soon_ms": stats.summary(soon_ms[1:]),
        "last_ms": stats.summary(last_ms[1:]),
        "waited": waited / took,
        **urgent,
    }


def _urgent_ms(node: Geocast, services: PushServices, reached: int) -> list[float]:
    """Publish extreme alerts while minor ones are being sent to all phones.

    Return, for each extreme alert, the time in ms from the node's 201 response to the first push of the alert.
    `reached` is the number of phones whose push service answers.
    """
    found = []
    for _ in range(URGENT_ROUNDS):
        services.take()
        _published(node, "minor")
        _wait_for(services, int(reached * MIDDLE))
        _, accepted_ns = _published(node, "extreme")
        _wait_for(services, 2 * reached)
        extreme = [each for each in services.take() if each.urgency == "high"]
        found.append(float(ms_since(accepted_ns, np.array([extreme[0].when_ns]))[0]))
    return found


# ---- killing the process -------------------------------------------------------------------------------------------


def _killed(place: Place, population: Population) -> dict[str, int]:
    """Kill and restart the push process while an alert is being sent, and again while its cancellation is being sent.

    Return how many devices missed a message, and how many got it twice.
    """
    services, size = population.services, population.size
    with _running(place, population) as (node, push):
        numbers: list[int] = []
        told = _told_in_spite(push, services, size, lambda: numbers.append(_published(node)[0]))
        cancelled = _told_in_spite(push, services, size, lambda: node.cancel(numbers[0]))
    return {
        "missed": size - len(told),
        "twice": _twice(told),
        "without_cancel": len(told.keys() - cancelled.keys()),
        "cancel_twice": _twice(cancelled),
    }


def _told_in_spite(
    push: GeocastPush, services: PushServices, size: int, publish: Callable[[], object]
) -> Counter[tuple[int, bytes]]:
    """Publish a message, and kill and restart the push process while the message is being sent.

    Return how often each phone got each message.
    """
    services.take()
    publish()
    _wait_for(services, int(size * MIDDLE))
    push.kill()
    push.start()
    told: Counter[tuple[int, bytes]] = Counter()

    def all_are_told() -> bool:
        told.update((each.phone, each.topic) for each in services.take())
        return len(told) >= size

    try:
        processes.wait_until(all_are_told, "all devices have the push", PATIENCE_S, 0.2)
    except click.ClickException:
        screen.say("some devices never got the push")
    time.sleep(SETTLE_S)
    all_are_told()
    return told


def _twice(told: Counter[tuple[int, bytes]]) -> int:
    return sum(times > 1 for times in told.values())


# ---- start and memory with many devices ----------------------------------------------------------------------------


def _many(place: Place, services: PushServices, size: int) -> dict[str, float]:
    """Start a push process with `size` devices.

    Return how long the start takes, the CPU time that it uses, and the memory for each device.
    """
    nobody, everybody = _population(place, services, 0), _population(place, services, size)
    with Geocast(place.home, place.cores.clients) as node:
        with GeocastPush(node, nobody, place.cores.server) as push:
            time.sleep(SETTLE_S)
            alone = push.rss_bytes()
        push, start = GeocastPush(node, everybody, place.cores.server), time.monotonic()
        with push:
            ready_s, cpu_s, waited_s = time.monotonic() - start, push.cpu_s(), push.waited_s()
            time.sleep(SETTLE_S)
            kib = (push.rss_bytes() - alone) / size / 1024
    return {
        "ready_s": ready_s,
        "ready_cpu_s": cpu_s,
        "waited": waited_s / ready_s,
        "kib": kib,
        "alone_mib": alone / 2**20,
    }


# ---- the measurement -----------------------------------------------------------------------------------------------


def measure(place: Place, devices: int, rounds: int, many: int) -> dict[str, Any]:
    """Measure alerts to all devices, then kills of the push process, then its start with many devices."""
    with push_services(place.home) as services:
        population = _population(place, services, devices)
        found = _fanouts(place, population, rounds)
        return found | {"killed": _killed(place, population), "many": _many(place, services, many)}


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each figure, with its goal."""
    found, devices, many = result.found, result.parameters["devices"], result.parameters["many"]
    killed, of_many = found["killed"], found["many"]
    rows = [
        ["total CPU of a push, µs", number(found["cpu_us"]), f"≤ {GOAL_CPU_US}"],
        ["… pushes per second and core", number(1e6 / found["cpu_us"]), ""],
        *(
            [title, number(found[key][of]), goal]
            for title, key, of, goal in (
                (f"201 → the first {SOON} handed over, p50 ms", "soon_ms", "p50", ""),
                ("… p99 ms", "soon_ms", "p99", f"≤ {GOAL_SOON_MS}"),
                (f"201 → the last of {devices:,} handed over, p50 ms", "last_ms", "p50", ""),
                ("… max ms", "last_ms", "max", f"≤ {GOAL_LAST_MS:,}"),
                (
                    "extreme during minor: 201 → the first handed over, max ms",
                    "urgent_ms",
                    "max",
                    f"≤ {GOAL_URGENT_MS}",
                ),
                ("… of one service while the other hangs, max ms", "hanging_ms", "max", f"≤ {GOAL_URGENT_MS}"),
            )
        ),
        [f"before connections are open: 201 → the first {SOON}, ms", number(found["cold"]["soon_ms"]), ""],
        ["… 201 → the last, ms", number(found["cold"]["last_ms"]), ""],
        [f"time until ready with {many:,} devices, s", number(of_many["ready_s"]), f"≤ {GOAL_READY_S}"],
        ["… CPU s", number(of_many["ready_cpu_s"]), ""],
        ["… memory of each device, KiB", number(of_many["kib"]), f"≤ {GOAL_KIB}"],
        ["memory of the process without devices, MiB", number(of_many["alone_mib"]), ""],
        [f"killed during an alert to {devices:,}: devices without it", str(killed["missed"]), "0"],
        ["… devices that got it twice", str(killed["twice"]), f"≤ {GOAL_TWICE}"],
        ["killed again during its cancel: devices without the cancel", str(killed["without_cancel"]), "0"],
        ["… devices that got the cancel twice", str(killed["cancel_twice"]), f"≤ {GOAL_TWICE}"],
    ]
    waited = (
        f"Other programs had the server's core for {found['waited']:.0%} of the time in alerts to all, and "
        f"{of_many['waited']:.0%} at the start."
    )
    return Table(f"push: {devices:,} devices, two push services", ("", "", "goal"), rows, [waited])


def plot(result: Result, figure: Any) -> None:
    """Plot the measured times until phones are woken, each beside its goal."""
    found, axes = result.found, figure.subplots()
    waits = {
        f"first {SOON}": (found["soon_ms"]["p99"], GOAL_SOON_MS),
        "last": (found["last_ms"]["max"], GOAL_LAST_MS),
        "extreme during minor": (found["urgent_ms"]["max"], GOAL_URGENT_MS),
        "… one service hangs": (found["hanging_ms"]["max"], GOAL_URGENT_MS),
    }
    for at, of in enumerate(("measured", "goal")):
        axes.bar(np.arange(len(waits)) + 0.4 * at, [each[at] for each in waits.values()], 0.4, label=of)
    axes.set_xticks(np.arange(len(waits)) + 0.2, list(waits))
    axes.set(ylabel="201 → handed over, ms", yscale="log")
    axes.legend()
    figure.suptitle(table(result).title)


BENCH = Bench(
    "push",
    "the cost of waking a phone by Web Push, the time until phones are woken, and what is lost by a kill.",
    measure,
    table,
    plot,
    {"devices": 2_000, "rounds": 5, "many": 10_000},
)
