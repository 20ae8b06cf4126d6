"""`growth`: how the cost of a session and of a process grows with the number of live alerts that are far away.

There is one node for each number of live alerts. Ten alerts contain the place of the sessions that are measured; the
others are circles of 500 m spread over a continent, none of them near. The alerts are in the log before the node
starts, and all end at the same time. A crowd of 1,000 sessions is spread over the continent; about one in a hundred of
them is inside an alert.

Measures the time until the node has read its log, and the memory of the node. Measures the CPU of the node for one
session that connects, says hello, gets the ten alerts and disconnects; for each message `move`, `filter` and `token` of
a session; while nothing happens; and for reading, decoding, applying and matching each new log entry whose alert is
sent to no session. When all alerts end, measures the most CPU that the node uses while a client waits for a pong, which
shows for how long the event loop was blocked. In a hub (the part of a node that knows the sessions and sends alerts to
them) with the same alerts, measures the cost of sending a slow client the alerts that it has missed, and the longest
sweep. (A sweep is the periodic call that removes ended alerts.)

Leaves out: the cost of an alert that concerns a session (see `fanout`).
"""

import asyncio
import math
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench import places, processes, screen, stats
from bench.clients.phone import Phone, frame
from bench.peers.geocast import Geocast, GeocastOnRedis
from bench.places import CENTRE
from bench.results import Result, Table, number
from bench.rounds import gather
from bench.runs import Bench, Place
from geocast.alertlog import AlertLog, codec
from geocast.alertlog.redis_streams import RedisStreamsLog
from geocast.alertlog.sqlite.log import SqliteLog
from geocast.clock import Now, SystemClock
from geocast.matching.filters import EVERYTHING
from geocast.model.alert import AcceptedTerms, Alert, Approval, Circle, KnownShape, Revision
from geocast.stream.hub import Hub, Rights
from geocast.wire.frames import JSON

NEAR = 10  # alerts that contain the place of the measured sessions
CROWD, CROWD_M = 1_000, 2_000_000.0
AT_ONCE = 1_000  # appends in progress at the same time
PATIENCE_S = 120.0
RADIUS_M = 500.0
FOREIGN, FOREIGN_S = 5_000, 6.0  # number of entries appended while the node runs, and the seconds for that
GOAL_RATIO, GOAL_BYTES, GOAL_FOREIGN_US, GOAL_IDLE, GOAL_HELD_MS, GOAL_START_S = 1.05, 1024, 100, 0.3, 5.0, 10
DOINGS = ("visit", "move", "filter", "token")
BURST = 250  # messages sent on one connection; a node refuses more than 300 at once (F7)
VISITS = 100  # per round


# ---- making alerts and filling the log ---------------------------------------------------------------------------


def alert_of(name: str, area: Sequence[KnownShape], ends_at: int) -> Revision:
    """Return an alert as a publisher sends it, which is live at once and ends at `ends_at` (ms since 1970)."""
    now_ms = time.time_ns() // 1_000_000
    alert = Alert(
        id=name,
        category="robbery",
        headline="Robbery reported near you",
        description="Stay away from the area, keep doors closed and call if you see something.",
        severity="severe",
        status="actual",
        occurred_at=now_ms,
        expires_at=ends_at,
        area=tuple(area),
        approval=Approval("bench", now_ms),
    )
    return Revision(alert, 1, "desk", now_ms, AcceptedTerms("Robbery", 3_600_000, 9))


def _alerts(count: int, ends_at: int, first: int = 0) -> list[Revision]:
    """Return alerts numbered from `first`.

    Alerts with a number below 10 contain the centre, and the others are far away from it.
    """
    dice = random.Random(first + 1)
    found = []
    for at in range(first, first + count):
        where = CENTRE if at < NEAR else far_away(dice)
        found.append(alert_of(f"growth-{at:07d}", [Circle(*where, RADIUS_M)], ends_at))
    return found


def far_away(dice: random.Random) -> tuple[float, float]:
    """Return a random place on the continent, in degrees, that is at least 50 km away from the centre."""
    while True:
        lat, lng = dice.uniform(25, 49), dice.uniform(-124, -67)
        if abs(lat - CENTRE[0]) > 0.5 or abs(lng - CENTRE[1]) > 0.5:
            return lat, lng


def _append(url: str, alerts: Sequence[Revision]) -> None:
    """Append alerts to the log at this URL."""
    asyncio.run(_append_to(_log(url), alerts))


def _log(url: str) -> AlertLog:
    return SqliteLog(Path(url.removeprefix("sqlite:"))) if url.startswith("sqlite:") else RedisStreamsLog(url)


async def _append_to(log: AlertLog, alerts: Sequence[Revision]) -> None:
    await log.start()
    try:
        for start in range(0, len(alerts), AT_ONCE):
            await asyncio.gather(*map(log.append, alerts[start : start + AT_ONCE]))
    finally:
        await log.stop()


class Filled(Geocast):
    """A node of geocast whose log already contains alerts when the node starts."""

    alerts: Sequence[Revision] = ()
    start_s = 0.0

    def start(self) -> None:
        """Append the alerts to the log, start the node, and wait until the node has read its log."""
        _append(self.log(), self.alerts)
        start = time.monotonic()
        super().start()
        processes.wait_until(self._has_read_all, "geocast has read its log", PATIENCE_S)
        self.start_s = time.monotonic() - start

    def _has_read_all(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.control_port}/readyz", timeout=5).close()
        except (OSError, urllib.error.URLError):
            return False
        return True


class _FilledOnRedis(GeocastOnRedis, Filled):
    """Like Filled, but with the log in Redis."""

    def take_sample(self) -> Any:
        """Do nothing: this benchmark needs no sample, and a sample would be one more alert."""


# ---- the cost of a session, measured from outside ----------------------------------------------------------------


def _phone(node: Geocast, hello: bytes, live: int) -> Phone:
    """Return a session that has joined the node and has then received `live` alerts."""
    phone = Phone(node.port, hello)
    for _ in range(live):
        phone.hear("alert")
    return phone


def _hello(node: Geocast) -> bytes:
    at = {"lat": CENTRE[0], "lng": CENTRE[1], "accuracy_m": 10}
    return frame(type="hello", token=node.token("phone"), places=[at])


class Doings:
    """Repeats some actions of a session, and measures the CPU time that the node spends on each.

    The actions are a visit (connect, get the nearby alerts, disconnect), and sending a message `move`, `filter` or
    `token`.
    """

    def __init__(self, node: Geocast) -> None:
        self._node, self._hello, burst = node, _hello(node), range(BURST)
        self._said = {
            "move": [
                frame(type="move", places=[{"lat": CENTRE[0] + at / 1e6, "lng": CENTRE[1], "accuracy_m": 10}])
                for at in burst
            ],
            "filter": [frame(type="filter", min_severity=("minor", "moderate")[at % 2]) for at in burst],
            "token": [frame(type="token", token=node.token("phone")) for _ in burst],
        }
        self._took: dict[str, list[float]] = {name: [] for name in DOINGS}

    def round(self) -> None:
        """Do each action many times, and record the average CPU time that the node spent on it."""
        node, took = self._node, self._took
        cpu = node.cpu_s()
        for _ in range(VISITS):
            _phone(node, self._hello, NEAR).close()
        took["visit"].append((node.cpu_s() - cpu) / VISITS * 1e6)
        for name, frames in self._said.items():
            phone = _phone(node, self._hello, NEAR)
            cpu = node.cpu_s()
            for each in frames:
                phone.ask(each)
            took[name].append((node.cpu_s() - cpu) / len(frames) * 1e6)
            phone.close()

    def found(self) -> dict[str, float]:
        """Return the CPU time of the node in µs for each action: the median of all rounds except the first."""
        return {name: stats.median(each[1:]) for name, each in self._took.items()}


def _foreign(node: Geocast, count: int, ends_at: int) -> dict[str, float]:
    """Measure the node at rest, and then while log entries come whose alerts have to be sent to no session.

    Return the fraction of a core that the node uses at rest, and the CPU time in µs for one of these entries.
    """
    alerts = _alerts(FOREIGN, ends_at, first=count + NEAR)
    idle = _spent_s(node, time.monotonic() + FOREIGN_S, 0)
    due = node.metrics()["geocast_log_applied_total"] + FOREIGN
    end = time.monotonic() + FOREIGN_S
    appending = threading.Thread(target=_append, args=(node.log(), alerts))
    appending.start()
    spent = _spent_s(node, end, due)
    appending.join()
    return {"idle_cpu": idle / FOREIGN_S, "foreign_us": (spent - idle) / FOREIGN * 1e6}


def _spent_s(node: Geocast, until: float, applied: float) -> float:
    """Wait until the monotonic clock reaches `until` and the node has applied `applied` log entries.

    Return the CPU time that the node used meanwhile, in seconds.
    """
    cpu = node.cpu_s()
    time.sleep(max(0.0, until - time.monotonic()))
    while node.metrics()["geocast_log_applied_total"] < applied:
        time.sleep(0.2)
    return node.cpu_s() - cpu


def pongs_ms(node: Geocast, going_on: Callable[[], object]) -> dict[str, dict[str, float]]:
    """Ping the node repeatedly while `going_on()` is true.

    Return statistics in ms: `took` is the time from a ping to its pong, and `spent` is the CPU time that the node used
    between them.
    """
    took, spent = [], []
    ping, hello = frame(type="ping"), frame(type="hello", token=node.token("pinger"), places=[])
    while going_on():
        phone = _phone(node, hello, 0)
        for _ in range(BURST):
            cpu, start = node.cpu_s(), time.perf_counter()
            phone.ask(ping)
            took.append((time.perf_counter() - start) * 1000)
            spent.append((node.cpu_s() - cpu) * 1000)
            time.sleep(0.001)
            if not going_on():
                break
        phone.close()
    return {"took": stats.summary(took), "spent": stats.summary(spent)}


def _before(until_s: float) -> Callable[[], bool]:
    return lambda: time.time() < until_s


# ---- costs inside a hub --------------------------------------------------------------------------------------------


class _Nobody:
    """A connection that discards everything that is sent on it."""

    descriptor = -1

    def write(self, data: bytes) -> None:
        """Discard the data."""

    def close(self, _close: Any) -> None:
        """Do nothing: there is no connection to close."""

    def abort(self) -> None:
        """Do nothing: there is no connection to abort."""


def _inside(count: int, cores: set[int], pipe: Connection) -> None:
    os.sched_setaffinity(0, cores)
    clock, hub, nobody = SystemClock(), Hub(20_000), _Nobody()
    row = hub.enter(nobody, JSON, [(*CENTRE, 10.0)], EVERYTHING, Rights(None, clock.now()), {}, clock.now())
    hub.reply_with_owed(row, {"type": "welcome"}, clock.now())
    entries = [codec.encode(alert) for alert in _alerts(count, time.time_ns() // 1_000_000 + 3_600_000)]
    before, start = processes.rss_bytes([os.getpid()]), time.process_time()
    for data in entries:
        entry = codec.decode(data, "", 1, 0)
        assert isinstance(entry, Revision)
        hub.fanout.deliver(entry, clock.now())
        while hub.turn(clock.now()):
            pass
    spent_s = time.process_time() - start
    found = {"apply_us": spent_s / count * 1e6, "bytes": (processes.rss_bytes([os.getpid()]) - before) / count}
    times = 2_000
    start = time.process_time()
    for _ in range(times):
        hub.slowed(row, clock.now())
        hub.on_drained(row, clock.now())
    found["recovered_us"] = (time.process_time() - start) / times * 1e6
    hub.leave(row)
    found["let_go_ms"] = _let_go_ms(hub, clock.now())
    pipe.send(found)


def _let_go_ms(hub: Hub, now: Now) -> float:
    """Sweep a hub until it has removed all ended alerts; return the duration of the longest sweep in ms."""
    later, longest = Now(now.wall_ms + 2 * 3_600_000, now.monotonic + 7_200), 0.0
    while len(hub.fanout.live):
        start = time.perf_counter()
        hub.sweep(later)
        longest = max(longest, time.perf_counter() - start)
    return longest * 1000


def _in_a_hub(place: Place, count: int) -> dict[str, float]:
    with processes.beside(_inside, count, set(place.cores.server)) as pipe:
        found: dict[str, float] = pipe.recv()
        return found


# ---- the measurement -----------------------------------------------------------------------------------------------


def measure(place: Place, alerts: tuple[int, ...], rounds: int, redis: bool) -> dict[str, Any]:
    """Measure, for each number of live alerts, first a hub without a node and then a node.

    The nodes run at the same time and are measured in turns.
    """
    found: dict[str, Any] = {"counts": {}, "missing": {}}
    for count in alerts:
        it = found["counts"][str(count)] = _in_a_hub(place, count)
        if redis:
            try:
                it |= _redis(place, count)
            except processes.Unavailable as reason:
                found["missing"]["redis"] = reason.format_message()
    with ExitStack() as stack:
        for count, it in zip(alerts, _from_outside(stack, place, alerts, rounds), strict=True):
            found["counts"][str(count)] |= it
    return found


def _from_outside(stack: ExitStack, place: Place, counts: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    # Filling and reading a log takes about 100 µs for each alert. A round takes about a second for each node.
    ends_s = math.ceil(time.time() + 30 + sum(counts) / 4_000 + len(counts) * (25 + 3 * rounds))
    ends = [ends_s + sum(5 + count / 4_000 for count in counts[:at]) for at in range(len(counts))]
    nodes, found = [], list[dict[str, Any]]()
    for count, end in zip(counts, ends, strict=True):
        node = Filled(place.home, place.cores.server)
        node.alerts = _alerts(count, int(end * 1000))
        stack.enter_context(node)
        found.append({"start_s": node.start_s, "start_cpu_s": node.cpu_s(), "rss_bytes": node.rss_bytes()})
        gather(stack, place, node, places.around(CROWD, CROWD_M), 100)
        nodes.append(node)
    _by_turns(nodes, found, rounds)
    for node, count, end, it in zip(nodes, counts, ends, found, strict=True):
        it.update(_foreign(node, count, int(end * 1000)))
        it["quiet_ms"] = pongs_ms(node, _before(time.time() + 3))
    if time.time() > ends[0]:
        screen.say("[yellow]alerts ended before the measurements were complete, because the machine is busy[/yellow]")
    for node, count, end, it in zip(nodes, counts, ends, found, strict=True):
        time.sleep(max(0.0, end - 1 - time.time()))
        it["ending_ms"] = pongs_ms(node, _before(end + 3 + count / 4_000))
        it["left"] = node.metrics()["geocast_live_alerts"]
    return found


def _by_turns(nodes: Sequence[Geocast], found: Sequence[dict[str, Any]], rounds: int) -> None:
    doings = [Doings(node) for node in nodes]
    with screen.progress("rounds", 1 + rounds) as show:
        for done in range(1 + rounds):
            for each in doings:
                each.round()
            show(1 + done)
    for each, it in zip(doings, found, strict=True):
        it.update(each.found())


def _redis(place: Place, count: int) -> dict[str, float]:
    node = _FilledOnRedis(place.home, place.cores.server)
    node.alerts = _alerts(count, time.time_ns() // 1_000_000 + 3_600_000)
    with node:
        return {"redis_start_s": node.start_s, "redis_start_cpu_s": node.cpu_s()}


# ---- table and plot ----------------------------------------------------------------------------------------------

_ROWS = (
    ("connect, hello and leave, CPU µs", "visit", f"≤ {GOAL_RATIO} ×"),
    ("move, CPU µs", "move", f"≤ {GOAL_RATIO} ×"),
    ("filter, CPU µs", "filter", f"≤ {GOAL_RATIO} ×"),
    ("token, CPU µs", "token", f"≤ {GOAL_RATIO} ×"),
    ("a slow session recovers, CPU µs (in a hub)", "recovered_us", f"≤ {GOAL_RATIO} ×"),
    ("an entry that concerns nobody, CPU µs", "foreign_us", f"≤ {GOAL_FOREIGN_US}"),
    ("… decoded, applied, matched (in a hub)", "apply_us", ""),
    (f"at rest with {CROWD:,} sessions, % of a core", "idle_%", f"≤ {GOAL_IDLE}"),
    ("time until ready, s (SQLite)", "start_s", f"≤ {GOAL_START_S}"),
    ("time until ready, s (Redis)", "redis_start_s", f"≤ {GOAL_START_S}"),
    ("longest sweep when all alerts have ended, ms of the wall clock (in a hub)", "let_go_ms", f"≤ {GOAL_HELD_MS:g}"),
    ("RSS of the node, MiB", "rss_mib", ""),
)


def _value(it: dict[str, Any], key: str) -> float | None:
    if key == "rss_mib":
        return float(it["rss_bytes"]) / 2**20
    return 100 * float(it["idle_cpu"]) if key == "idle_%" and "idle_cpu" in it else it.get(key)


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each measured value and one column for each number of alerts."""
    counts = result.found["counts"]
    names, few = list(counts), next(iter(counts.values()))
    rows = []
    for title, key, goal in _ROWS:
        values = [_value(it, key) for it in counts.values()]
        ratio = stats.ratio(values[-1], values[0]) if "×" in goal and values[0] and values[-1] else None
        rows.append([title, *map(number, values), number(ratio) if ratio else "", goal])
    most, last = int(names[-1]), counts[names[-1]]
    bytes_each = (last["rss_bytes"] - few["rss_bytes"]) / (most - int(names[0])) if most > int(names[0]) else None
    rows.append(["bytes for each live alert, of the node", *[""] * (len(names) - 1), number(bytes_each), "",
                 f"≤ {GOAL_BYTES:,}"])  # fmt: skip
    for title, key, what, goal in (
        ("CPU of the node while a client waits for a pong, ms, at most: at rest", "quiet_ms", "spent", ""),
        ("… while all alerts end", "ending_ms", "spent", f"≤ {GOAL_HELD_MS:g}"),
        ("longest wait for a pong, ms: at rest", "quiet_ms", "took", ""),
        ("… while all alerts end", "ending_ms", "took", ""),
    ):
        rows.append([title, *(number(it[key][what]["max"]) for it in counts.values()), "", goal])
    columns = ("", *(f"{int(name):,} live" for name in names), "last ÷ first", "goal")
    return Table(f"growth: live alerts, {NEAR} of them near", columns, rows, _notes(result))


def _notes(result: Result) -> list[str]:
    left = {name: it["left"] for name, it in result.found["counts"].items() if it["left"]}
    notes = [f"{name} live: {number(it)} alerts had ended and were not removed yet." for name, it in left.items()]
    notes.append("Where a wait is longer than the CPU of the node, other programs had the core.")
    return notes + [f"{name} is left out: {reason}." for name, reason in result.found["missing"].items()]


def plot(result: Result, figure: Any) -> None:
    """Plot the cost of a session's actions, and the memory of the node, over the number of live alerts."""
    counts = result.found["counts"]
    many = [int(name) for name in counts]
    cost, memory = figure.subplots(1, 2)
    for doing in DOINGS:
        cost.plot(many, [it[doing] for it in counts.values()], "o-", label=doing)
    cost.set(xlabel="live alerts", ylabel="CPU of the node, µs", xscale="log", ylim=(0, None))
    cost.legend()
    memory.plot(many, [it["rss_bytes"] / 2**20 for it in counts.values()], "o-")
    memory.set(xlabel="live alerts", ylabel="RSS of the node, MiB", ylim=(0, None))
    figure.suptitle(table(result).title)


BENCH = Bench(
    "growth",
    "how the cost of a session and of a process grows with the number of live alerts.",
    measure,
    table,
    plot,
    {"alerts": (10, 10_000), "rounds": 2, "redis": True},
)
