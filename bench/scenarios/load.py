"""`load`: how a running deployment behaves under load, measured from outside over its own protocol, including TLS.

Subscribers join during the ramp-up; then alerts are published at a fixed rate, whether or not the last one has arrived
everywhere. A latency is measured from the time at which an alert was due to be published until a subscriber has it, and
is recorded in an HDR histogram. So a server that stalls can't hide the stall (no coordinated omission). The benchmark
computes which subscribers are inside an area, and counts the messages that are missing.

Alerts have the status `test` unless another is given. Only sessions whose token has the scope `alerts:test` can see
them, so the token in --token must have it. This process affects the result: it can run a few thousand sessions without
distorting the latencies. The result says how late its own event loop was. Run several processes for more sessions.
"""

import asyncio
import contextlib
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import uvloop
from hdrh.histogram import HdrHistogram
from rich.live import Live
from rich.table import Table as Drawn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from bench import places, screen
from bench.clients.websocket import SUBPROTOCOL
from bench.results import Result, Table, number
from bench.runs import Bench, Place
from geocast.geometry.sphere import distance_m

LONGEST_US = 120_000_000
JOIN_S = 60.0  # time to join after the ramp-up
GRACE_S = 5.0  # after the last alert, for messages still under way
TICK_S = 0.25
MAX_RADIUS_M = 20_000.0  # of the default policy
ROUNDED_M = 250.0  # the node may enlarge the published circle by this much
SHOWN = (50.0, 90.0, 99.0, 99.9, 100.0)


@dataclass(frozen=True, slots=True)
class Target:
    """The deployment on which the load is put, and the parameters of the load."""

    url: str
    api_url: str
    token: str | None
    publish_token: str
    sessions: int
    center: tuple[float, float]
    spread_km: float
    rate: float
    seconds: float
    ramp_up: float
    radius_m: float | None
    category: str
    severity: str
    status: str
    lifetime_s: float

    @property
    def radius(self) -> float:
        """The radius of the alerts in m. By default it is large enough for all sessions, if the policy allows that."""
        return self.radius_m or min(self.spread_km * 1000 + ROUNDED_M, MAX_RADIUS_M)


@dataclass(slots=True)
class Tally:
    """The counts and latencies that were recorded so far in the run."""

    joined: int = 0
    accepted: int = 0
    due: int = 0
    expected: int = 0
    received: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    latency: HdrHistogram = field(default_factory=lambda: HdrHistogram(1, LONGEST_US, 3))
    publish: HdrHistogram = field(default_factory=lambda: HdrHistogram(1, LONGEST_US, 3))
    own_lag_ms: float = 0.0


class Load:
    """One run: the sessions that subscribe, and the publisher."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._run = secrets.token_hex(4)
        self._where = places.around(target.sessions, target.spread_km * 1000, center=target.center)
        self._present: set[int] = set()
        self._due: dict[str, float] = {}  # the due time of each alert, by id
        self._tried = 0
        self._all_tried, self._all_came = asyncio.Event(), asyncio.Event()
        self.tally = Tally()

    async def run(self, show: Callable[[], None]) -> None:
        """Connect the sessions, publish the alerts, and wait for the last messages.

        `show` is called repeatedly to update the display.
        """
        sessions = [asyncio.create_task(self._session(at)) for at in range(self._target.sessions)]
        watch = asyncio.create_task(self._watch(show))
        try:
            await asyncio.sleep(self._target.ramp_up)
            await self._wait_for_joins()
            await self._publish_all()
            await self._wait_for_rest()
        finally:
            for task in (watch, *sessions):
                task.cancel()
            await asyncio.gather(watch, *sessions, return_exceptions=True)

    async def _watch(self, show: Callable[[], None]) -> None:
        while True:
            due = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            self.tally.own_lag_ms = max(self.tally.own_lag_ms, (time.monotonic() - due) * 1000)
            show()

    # ---- the sessions that subscribe -----------------------------------------------------------------------------

    async def _session(self, at: int) -> None:
        target = self._target
        await asyncio.sleep(target.ramp_up * at / target.sessions)
        try:
            async with connect(
                target.url, subprotocols=[SUBPROTOCOL], compression=None, proxy=None, open_timeout=30
            ) as connection:
                await self._listen(at, connection)
        except ConnectionClosed as closed:
            self.tally.failures[f"closed {closed.rcvd.code if closed.rcvd else 1006}"] += 1
        except (OSError, InvalidHandshake) as error:
            self.tally.failures[f"connect: {type(error).__name__}"] += 1
        finally:
            if at in self._present:
                self._present.discard(at)
            else:
                self._has_tried()

    async def _listen(self, at: int, connection: ClientConnection) -> None:
        hello: dict[str, Any] = {"type": "hello", "places": [self._where.to_map(at)]}
        if self._target.token:
            hello["token"] = self._target.token
        await connection.send(json.dumps(hello))
        json.loads(await connection.recv())
        self.tally.joined += 1
        self._present.add(at)
        self._has_tried()
        async for text in connection:
            now = time.monotonic()
            message = json.loads(text)
            if message["type"] == "alert" and (due := self._due.get(message["alert"]["id"])) is not None:
                self.tally.received += 1
                self.tally.latency.record_value(_us(now - due))
                if self.tally.received >= self.tally.expected:
                    self._all_came.set()

    def _has_tried(self) -> None:
        """Count one more session as tried: it has either joined or failed to join."""
        self._tried += 1
        if self._tried == self._target.sessions:
            self._all_tried.set()

    async def _wait_for_joins(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_tried.wait(), JOIN_S)

    # ---- publishing ----------------------------------------------------------------------------------------------

    async def _publish_all(self) -> None:
        target, start = self._target, time.monotonic() + 0.05
        headers = {"Authorization": f"Bearer {target.publish_token}"}
        limits = httpx.Limits(max_connections=256)
        async with (
            httpx.AsyncClient(
                base_url=target.api_url, headers=headers, limits=limits, timeout=30, trust_env=False
            ) as api,
            asyncio.TaskGroup() as group,
        ):
            for at in range(max(1, round(target.rate * target.seconds))):
                due = start + at / target.rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                group.create_task(self._publish(api, at, due))

    async def _publish(self, api: httpx.AsyncClient, at: int, due: float) -> None:
        alert_id = f"load-{self._run}-{at}"
        self._due[alert_id] = due
        self.tally.due += 1
        try:
            answer = await api.post("/v1/alerts", json=self._body(alert_id))
        except httpx.HTTPError as error:
            self.tally.failures[f"publish: {type(error).__name__}"] += 1
            return
        if answer.status_code not in (200, 201):
            self.tally.failures[f"publish: {_problem(answer)}"] += 1
            return
        self.tally.accepted += 1
        self.tally.publish.record_value(_us(time.monotonic() - due))
        self.tally.expected += self._inside(answer.json()["area"])
        self._all_came.clear()

    def _body(self, alert_id: str) -> dict[str, Any]:
        target, now = self._target, datetime.now(UTC)
        area = {"type": "circle", "lat": target.center[0], "lng": target.center[1], "radius_m": target.radius}
        return {
            "id": alert_id,
            "category": target.category,
            "headline": "Load test: this is not a real alert",
            "severity": target.severity,
            "status": target.status,
            "threat": "community",
            "occurred_at": now.isoformat(timespec="milliseconds"),
            "expires_at": (now + timedelta(seconds=target.lifetime_s)).isoformat(timespec="milliseconds"),
            "area": area,
            "approval": {"reviewer": "load", "approved_at": now.isoformat(timespec="milliseconds")},
        }

    def _inside(self, area: list[dict[str, Any]]) -> int:
        """Return how many of the connected sessions are inside an area, given as a list of published circles."""
        return sum(any(_holds(circle, self._where.to_map(at)) for circle in area) for at in self._present)

    async def _wait_for_rest(self) -> None:
        if self.tally.received < self.tally.expected:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_came.wait(), GRACE_S)


def _holds(circle: dict[str, Any], place: dict[str, float]) -> bool:
    reach_m: float = circle["radius_m"]
    return distance_m(circle["lat"], circle["lng"], place["lat"], place["lng"]) <= reach_m


def _problem(answer: httpx.Response) -> str:
    try:
        return f"{answer.status_code} {answer.json()['type'].removeprefix('/problems/')}"
    except (ValueError, KeyError, TypeError):
        return str(answer.status_code)


def _us(seconds: float) -> int:
    return min(max(1, round(seconds * 1e6)), LONGEST_US)


# ---- the measurement and its display -----------------------------------------------------------------------------


def measure(_place: Place, publish_token: str, token: str | None, **options: Any) -> dict[str, Any]:
    """Run the load, showing its progress in a live table; return the counts and the percentiles."""
    load = Load(Target(token=token, publish_token=publish_token, **options))
    with Live(console=screen.console, refresh_per_second=4) as live:
        uvloop.run(load.run(lambda: live.update(_drawn(load.tally))))
        live.update(_drawn(load.tally))
    tally = load.tally
    return {
        "joined": tally.joined,
        "due": tally.due,
        "accepted": tally.accepted,
        "expected": tally.expected,
        "received": tally.received,
        "failures": dict(tally.failures),
        "own_lag_ms": tally.own_lag_ms,
        "latency_ms": _percentiles(tally.latency),
        "publish_ms": _percentiles(tally.publish),
    }


def _percentiles(histogram: HdrHistogram) -> dict[str, float]:
    return {f"{percent:g}": histogram.get_value_at_percentile(percent) / 1000 for percent in SHOWN}


def _drawn(tally: Tally) -> Drawn:
    heads = ("sessions", "published", "accepted", "received", "of", "failures")
    drawn = Drawn(*heads, *(f"p{each:g} ms" for each in SHOWN))
    drawn.add_row(
        *map(str, (tally.joined, tally.due, tally.accepted, tally.received, tally.expected)),
        str(sum(tally.failures.values())),
        *(number(value) for value in _percentiles(tally.latency).values()),
    )
    return drawn


def table(result: Result) -> Table:
    """Return the result as a table of the latencies, with notes about missing messages and failures."""
    found = result.found
    rows = [
        [name, *(number(value) for value in found[key].values())]
        for name, key in (("due → received, ms", "latency_ms"), ("due → 201, ms", "publish_ms"))
    ]
    notes = [
        f"{found['received']:,} of {found['expected']:,} messages came.",
        f"{found['accepted']} of {found['due']} alerts were accepted.",
        f"{found['joined']:,} of {result.parameters['sessions']:,} sessions joined.",
        f"The event loop of the benchmark itself was at most {number(found['own_lag_ms'])} ms late.",
        *(f"{count} × {what}" for what, count in found["failures"].items()),
    ]
    return Table(f"load: {result.parameters['url']}", ("", *(f"p{each:g}" for each in SHOWN)), rows, notes)


def plot(result: Result, figure: Any) -> None:
    """Plot the percentiles of both latencies."""
    axes = figure.subplots()
    for name, key in (("due → received", "latency_ms"), ("due → 201", "publish_ms")):
        axes.plot([f"p{percent}" for percent in result.found[key]], list(result.found[key].values()), "o-", label=name)
    axes.set(ylabel="ms", ylim=(0, None))
    axes.legend()
    figure.suptitle(table(result).title)


BENCH = Bench(
    "load", "a running deployment under load, measured from outside.", measure, table, plot, {}, own_server=False
)
