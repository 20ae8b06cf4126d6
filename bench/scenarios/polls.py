"""`polls`: how many requests for the public feed, answered with 304 (Not Modified), one core of a node can answer.

Clients that decide on the device ask for the GeoJSON document again and again, each over a connection of its own, with
the `ETag` that they have. Here they ask without a pause, so that the node is busy all the time. Measures the answers
for each second of the node's CPU time, and how many clients this core could serve that ask every 30 s.

Leaves out: a cache in front of the feed, which would answer nearly all of these requests.
"""

import asyncio
import time
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench import processes, screen
from bench.peers import Geocast
from bench.peers.base import next_number
from bench.results import Result, Table, number
from bench.runs import Bench, Place

PATH = "/v1/alerts.geojson"
EVERY_S = 30  # the pause of a client between two requests


class GeocastWithFeed(Geocast):
    """One node of geocast with a public feed."""

    def __init__(self, home: Path, cpus: Iterable[int]) -> None:
        super().__init__(home, cpus)
        (self.feed_port,) = processes.free_ports(1)

    def command(self) -> Sequence[str | Path]:
        """Return the command `geocast serve` with the options of the feed."""
        feed = ("--feed", f"127.0.0.1:{self.feed_port}", "--feed-url", "https://alerts.example")
        return [*super().command(), *feed, "--feed-sender", "bench@example"]

    def listed(self) -> tuple[int, str]:
        """Return the number of alerts in the feed's document, and its tag."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.feed_port}{PATH}", timeout=10) as answer:
            return answer.read().count(b'"type":"Feature"'), answer.headers["ETag"]


async def _client(port: int, tag: str, end: float) -> int:
    """Ask without a pause until `end`, and return the number of answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request, count = f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nIf-None-Match: {tag}\r\n\r\n".encode(), 0
    try:
        while time.perf_counter() < end:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 304 "), head
            count += 1
    finally:
        writer.close()
    return count


async def _ask(port: int, tag: str, clients: int, seconds: float) -> int:
    end = time.perf_counter() + seconds
    return sum(await asyncio.gather(*(_client(port, tag, end) for _ in range(clients))))


def measure(place: Place, alerts: int, clients: int, seconds: float) -> dict[str, Any]:
    """Publish the alerts, and ask for their document."""
    with GeocastWithFeed(place.home, place.cores.server) as node:
        node.take_sample()
        processes.wait_until(lambda: node.metrics().get("geocast_feed_alerts") is not None, "the feed is there")
        for _ in range(alerts):
            node.publish(next_number(), lifetime_s=600)
        processes.wait_until(lambda: node.listed()[0] >= alerts, "all alerts are drawn")
        time.sleep(1.5)  # the document is made at most once a second
        _, tag = node.listed()
        screen.say(f"{clients} clients ask for {seconds:g} s")
        cpu_s, start = node.cpu_s(), time.perf_counter()
        answers = asyncio.run(_ask(node.feed_port, tag, clients, seconds))
        took_s, cpu_s = time.perf_counter() - start, node.cpu_s() - cpu_s
    return {"answers": answers, "cpu_us": cpu_s / answers * 1e6, "busy": cpu_s / took_s}


def table(result: Result) -> Table:
    """Return the result as a table with one row."""
    cpu_us = result.found["cpu_us"]
    row = [number(1e6 / cpu_us), number(cpu_us), number(1e6 / cpu_us * EVERY_S), number(result.found["busy"])]
    columns = ("304 answers / s of CPU", "CPU µs each", f"clients that ask every {EVERY_S} s", "cores in use")
    return Table("polls: conditional requests for the public feed", columns, [row], [])


def plot(result: Result, figure: Any) -> None:
    """Plot the answers for each second of CPU time, beside the requests of 100,000 clients."""
    axes = figure.subplots()
    axes.bar(["one core answers", "100,000 clients ask"], [1e6 / result.found["cpu_us"], 100_000 / EVERY_S])
    axes.set(ylabel="requests a second")
    figure.suptitle(table(result).title)


BENCH = Bench(
    "polls",
    "how many requests for an unchanged public feed one core answers with 304.",
    measure,
    table,
    plot,
    {"alerts": 20, "seconds": 1.0},
)
