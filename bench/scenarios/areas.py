"""`areas`: the CPU of one message or request whose polygons are as hard to process as possible.

Measures two things: how much CPU it takes to parse a CAP message and to decide, under the policy for official warnings,
which alerts follow from it; and how much CPU it takes to parse and check a publisher's request. The API does both in a
thread. Nothing is stored, and no other thread is working. The CPU must not exceed LIMIT_S (rule HD3).
"""

import asyncio
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import screen
from bench.hard_rings import Ring, closed, coast, said, zigzag
from bench.results import Result, Table
from bench.runs import Bench, Place
from geocast import policy
from geocast.alertlog.memory import MemoryLog
from geocast.auth.tokens import Requester
from geocast.clock import SystemClock
from geocast.ingest.cap.service import CapIngest
from geocast.ingest.cap.sources import CapSource, CapSources
from geocast.ingest.publish import Publishing
from geocast.model.problems import Problem
from geocast.model.times import format_time

LIMIT_S = 1.0  # of CPU (rule HD3)
_SOURCE = CapSource("met", "the bench", frozenset({"*"}), None, None)
_POLICY = policy.load(Path("builtin:public-warning"))


def _towns(count: int, apart_deg: float, corners: int) -> list[Ring]:
    at = [(8 + n % 30 * apart_deg, 35 + n // 30 * apart_deg) for n in range(count)]
    return [coast(corners, n, lat, lng, 0.04) for n, (lng, lat) in enumerate(at)]


def _star(points: int, radius_deg: float) -> Ring:
    turn = np.arange(points) * (points // 2) * 2 * math.pi / points
    return closed(np.column_stack([10 + radius_deg * np.cos(turn), 50 + radius_deg * np.sin(turn)]))


def _random(corners: int) -> Ring:
    return closed(np.random.default_rng(1).uniform(0, 0.1, (corners, 2)) + np.array([10, 40]))


MESSAGES: dict[str, Callable[[], list[Ring]]] = {
    "a coast of 7,000 corners, 40 islets": lambda: [
        coast(7_000),
        *(coast(30, n, 20, n / 50, 0.002) for n in range(40)),
    ],
    "a coast of 41,000 corners": lambda: [coast(41_000)],
    "a zigzag of 40,000 corners": lambda: [zigzag(40_000)],
    "16 zigzags of 2,900 corners": lambda: [zigzag(2_900, lng=10 + n) for n in range(16)],
    "60 zigzags of 750 corners": lambda: [zigzag(750, lng=10 + n) for n in range(60)],
    "45,000 corners at random": lambda: [_random(45_000)],
    "a star of 499 corners, 2° across": lambda: [_star(499, 1)],
    "a star of 499 corners, 20° across": lambda: [_star(499, 10)],
    "150 towns, far apart": lambda: _towns(150, 0.5, 30),
    "600 towns, far apart": lambda: _towns(600, 0.5, 30),
    "900 towns, side by side": lambda: _towns(900, 0.08, 30),
}
REQUESTS: dict[str, Callable[[], list[Ring]]] = {
    "a zigzag of 2,400 corners": lambda: [zigzag(2_400)],
    "a zigzag of 2,400 long edges": lambda: [zigzag(2_400, 0.28)],
    "16 zigzags of 140 corners": lambda: [zigzag(140, 1.0, lng=10 + n) for n in range(16)],
}


def measure(_place: Place, rounds: int) -> dict[str, Any]:
    """Process each message and request `rounds` times."""
    cases = [(f"CAP: {name}", _message(make())) for name, make in MESSAGES.items()]
    cases += [(f"request: {name}", _request(make())) for name, make in REQUESTS.items()]
    found: dict[str, Any] = {}
    with screen.progress("cases", len(cases)) as show:
        for done, (name, work) in enumerate(cases, start=1):
            times, outcome = [], ""
            for _ in range(rounds):
                start = time.process_time()
                try:
                    outcome = work()
                except Problem as problem:
                    outcome = ", ".join(sorted({each.slug for each in problem.violations}))
                times.append(time.process_time() - start)
            found[name] = {"least_s": min(times), "most_s": max(times), "outcome": outcome}
            show(done)
    return {"cases": found}


def _message(rings: list[Ring]) -> Callable[[], str]:
    now = time.time_ns() // 1_000_000
    sent, expires = (format_time(now + ms)[:19] + "-00:00" for ms in (-1_000, 3_600_000))
    polygons = "".join(f"<polygon>{said(ring)}</polygon>" for ring in rings)
    body = (
        '<alert xmlns="urn:oasis:names:tc:emergency:cap:1.2"><identifier>m</identifier><sender>met@example.org</sender>'
        f"<sent>{sent}</sent><status>Actual</status><msgType>Alert</msgType><scope>Public</scope><info>"
        "<category>Met</category><event>Flood</event><urgency>Immediate</urgency><severity>Severe</severity>"
        f"<certainty>Observed</certainty><expires>{expires}</expires><area><areaDesc>x</areaDesc>{polygons}</area>"
        "</info></alert>"
    ).encode()
    taking = CapIngest(MemoryLog(), _POLICY, CapSources({"met": _SOURCE}), SystemClock())
    return lambda: asyncio.run(taking.take(body, None, _SOURCE, dry_run=True)).outcome


def _request(rings: list[Ring]) -> Callable[[], str]:
    now = format_time(time.time_ns() // 1_000_000 - 1_000)
    body = {
        "id": "a",
        "category": "flood",
        "headline": "Flood",
        "severity": "severe",
        "threat": "community",
        "occurred_at": now,
        "area": [{"type": "Polygon", "coordinates": [[list(corner) for corner in ring]]} for ring in rings],
        "approval": {"reviewer": "bench", "approved_at": now},
    }
    body = json.loads(json.dumps(body))
    publishing = Publishing(MemoryLog(), _POLICY, SystemClock())

    def ask() -> str:
        asyncio.run(publishing.publish(body, Requester("bench"), dry_run=True))
        return "published"

    return ask


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each tested message or request."""
    rows = [
        [name, f"{case['least_s']:.2f}", f"{case['most_s']:.2f}", case["outcome"]]
        for name, case in result.found["cases"].items()
    ]
    title = f"areas: CPU of one message or request, goal {LIMIT_S:g} s"
    return Table(title, ("", "least, s", "most, s", "outcome"), rows)


def plot(result: Result, figure: Any) -> None:
    """Plot the least CPU time of each message and request, and the limit as a line."""
    cases = result.found["cases"]
    axes = figure.subplots()
    axes.barh(list(cases), [case["least_s"] for case in cases.values()])
    axes.axvline(LIMIT_S, color="red")
    axes.set(xlabel="CPU, s")
    figure.suptitle(table(result).title)


BENCH = Bench(
    "areas",
    "the CPU of one message or request with the hardest polygons.",
    measure,
    table,
    plot,
    {"rounds": 1},
    own_server=False,
)
