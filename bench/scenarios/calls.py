"""`calls`: how soon responders are notified of a call for help and told where to go, and what open calls cost others.

A call for help notifies the nearest responders first. Until enough have accepted, its radius is widened step by step;
each step notifies one more group of responders (a wave). A responder who accepts, and is still needed, is assigned to
the call and gets a `task`, which says where to go.

The first measurements use a node with its log in SQLite, and one with its log in Redis. A hundred responders are around
the location of a call and are its first wave; a crowd of other responders is on duty far away. Measured are the time
from the node's 201 response, which accepts a call, until the last responder of the first wave has the call, and until a
responder whom only the last wave reaches has it. Also measured is the time from an `accept` until its `task`, for one
responder, and for the last of four tasks when eight responders accept at once.

Then there are nodes with 0, 100 and 1,000 open calls that are near nobody. The following is measured for each: the CPU
that the node uses for a visit (a session connects, says hello and disconnects) and for a move, by sessions with a
qualification and without; the time to list 1,000 open calls, and how long that blocks the event loop (the most CPU that
the node uses while a client waits for a pong); and the memory for each open call and for each session on duty. Also
measured is the CPU to encrypt and to decrypt a log entry.

Leaves out: several nodes, which would have to agree on when the radius is widened.
"""

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench import places, processes, screen, stats
from bench.clients.phone import Phone, frame
from bench.peers.base import alert_id, next_number
from bench.peers.geocast import Geocast, GeocastOnRedis
from bench.places import CENTRE, Places
from bench.results import Result, Table, number
from bench.rounds import Audience, gather, ms_since
from bench.runs import Bench, Place
from bench.scenarios.growth import BURST, GOAL_HELD_MS, GOAL_RATIO, VISITS, far_away, pongs_ms
from geocast.calls.encryption import make_call_key, parse_call_keys
from geocast.model.call import CallEntry

QUALS = ("cpr",)
RINGS_M = (100, 300, 500, 750, 1_000, 1_500)  # the default of the policy
POLICY = """
name = "bench"
[categories]
robbery = { title = "Robbery" }
[calls.cardiac_arrest]
title = "Cardiac arrest: CPR needed"
quals = ["cpr"]
rest_s = 0
"""
SEATS, AT_ONCE = 4, 8
FIRST_RING, FIRST_RING_M = 100, 50.0
IN_LAST_RING_M = 1_450.0  # a distance that only the last radius reaches, wherever the call is in its cell
LAST_RING_ROUNDS = 5
LISTS = 5
SEALINGS, SEALED_BYTES = 20_000, {"a place": 200, "the most": 16_000}
SETTLE_S, IDLE_S = 5.0, 2.0  # after a thousand calls were opened, the remaining work takes some seconds
REST_S = 0.02  # wait between two rounds
NAP_MS = 0.5  # the receivers sleep this long, so that the client that waits for the 201 has a core
GOAL_RING_MS = {"SQLite": 10, "Redis": 50}
GOAL_TASK_MS, GOAL_LAST_RING_MS = 50, 1_500


# ---- nodes that accept calls -------------------------------------------------------------------------------------


class Calling(Geocast):
    """A node that accepts calls for help.

    If `quals` is not empty, its sessions are responders on duty with these skills.
    """

    def __init__(self, home: Path, cpus: Any) -> None:
        super().__init__(home, cpus)
        keys = json.loads((self.home / "keys.jwks").read_text())
        keys["keys"][0]["quals"] = list(QUALS)
        sealing = self.home / "call-keys.jwks"
        sealing.write_text(json.dumps({"keys": [make_call_key()]}))
        sealing.chmod(0o600)
        (self.home / "keys.jwks").write_text(json.dumps(keys))
        (self.home / "policy.toml").write_text(POLICY)
        self._options += ["--policy", str(self.home / "policy.toml"), "--call-keys", str(sealing), "--share", "1"]
        self.quals: Sequence[str] = QUALS
        desk = self.token("cad", ["calls:dispatch", "alerts:manage"])
        self.dispatching = {"Authorization": f"Bearer {desk}", "Content-Type": "application/json"}

    def hello(self, sub: str, where: Mapping[str, float]) -> dict[str, Any]:
        """Return the `hello` message of a session as a dict."""
        place = {**where, "here": True} if self.quals else where
        return {"type": "hello", "token": self.token(sub, quals=self.quals), "places": [place]}

    def _hello(self, places: Places, at: int) -> dict[str, Any]:
        return self.hello(f"phone-{at}", places.to_map(at))

    def phone(self, sub: str, lat: float, lng: float) -> Phone:
        """Return a session that has connected to the node and said that it is at a place."""
        return Phone(self.port, frame(**self.hello(sub, {"lat": lat, "lng": lng})))

    def open(self, lat: float, lng: float) -> str:
        """Open a call for help and return its id."""
        call = {
            "id": alert_id(next_number()),
            "category": "cardiac_arrest",
            "headline": "Adult, not breathing. Bystander does compressions.",
            "occurred_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "place": {"lat": lat, "lng": lng, "kind": "public", "address": "12 Elm Street", "access": "Back door."},
        }
        self._dispatch("/v1/calls", call)
        return str(call["id"])

    def end(self, call_id: str) -> None:
        """End a call for help, as the dispatcher who opened it."""
        self._dispatch(f"/v1/calls/{call_id}/end", {"reason": "measured"})

    def _dispatch(self, path: str, body: Mapping[str, Any]) -> None:
        status, answer = self._poster.post(path, json.dumps(body).encode(), self.dispatching)
        if status != 201:
            raise click.ClickException(f"the call was refused with {status}: {answer[:300]!r}")

    def open_calls(self) -> int:
        """Request the list of open calls; return its length."""
        connection = http.client.HTTPConnection("127.0.0.1", self.control_port, timeout=60)
        connection.request("GET", "/v1/calls", headers=self.dispatching)
        answer = connection.getresponse()
        found = json.loads(answer.read())
        connection.close()
        return len(found["calls"])


class _OnRedis(GeocastOnRedis, Calling):
    """Like Calling, but with the log in Redis."""

    def take_sample(self) -> Any:
        """Do nothing: this benchmark needs no sample."""


STORES: dict[str, type[Calling]] = {"SQLite": Calling, "Redis": _OnRedis}


# ---- how soon responders get calls and tasks -----------------------------------------------------------------------


def _answering(place: Place, store: str, sessions: int, rounds: int) -> dict[str, Any]:
    """Return how soon the responders of one node receive calls and tasks.

    A task tells a responder who has accepted a call where to go.
    """
    with STORES[store](place.home, place.cores.server) as node:
        with ExitStack() as stack:
            near = places.around(FIRST_RING, FIRST_RING_M)
            away = places.around(sessions, 14_000.0, center=places.ELSEWHERE)
            crowd = Places(*(np.concatenate([getattr(near, of), getattr(away, of)]) for of in ("lat", "lng", "inside")))
            audience = gather(stack, place, node, crowd, 2 * rounds + 1, nap_ms=NAP_MS)
            waited, start = node.waited_s(), time.monotonic()
            found = _rings(node, audience, rounds)
            found |= {"accept_ms": stats.summary(_accepts_ms(node, rounds))}
            found |= {"at_once_ms": stats.summary(_at_once_ms(node, max(1, rounds // 4)))}
            found |= {"last_ring_ms": _last_ring_ms(node)}
            found["waited"] = (node.waited_s() - waited) / (time.monotonic() - start)
        return found


def _rings(node: Calling, audience: Audience, rounds: int) -> dict[str, Any]:
    """Open calls one after the other, and return the measurements.

    Measured are the time until the node accepts a call (with 201), and the time from then until the last responder of
    the first wave has received the call.
    """
    accepted, last = [], []
    with screen.progress("the first wave", rounds) as show:
        for done in range(rounds):
            start = time.monotonic_ns()
            call_id = node.open(*CENTRE)
            accepted_ns = time.monotonic_ns()
            records = _heard(audience)
            accepted.append((accepted_ns - start) / 1e6)
            last.append(max(0.0, float(ms_since(accepted_ns, records["when_ns"]).max())))
            node.end(call_id)
            _heard(audience)
            time.sleep(REST_S)
            show(done + 1)
    return {"accepted_ms": stats.summary(accepted), "ring_ms": stats.summary(last), "missing": audience.missing}


def _heard(audience: Audience) -> Any:
    """Wait until each responder of the first wave has received one more message; return the records of the messages."""
    due = audience.heard + FIRST_RING
    audience.heard = audience.crowd.wait_records(due)
    audience.missing += max(0, due - audience.heard)
    return audience.crowd.take()


def _accepts_ms(node: Calling, rounds: int) -> list[float]:
    """Return the time in ms from a responder's `accept` to its `task`, one value for each round.

    In each round only one responder accepts.
    """
    found, where = [], places.offset(*CENTRE, 200_000.0, 0.0)
    with node.phone("alone", *where) as phone:
        for _ in range(rounds):
            call_id = node.open(*where)
            phone.hear("call")
            start = time.perf_counter()
            phone.say(frame(type="accept", id=call_id, eta_s=120))
            phone.hear("task")
            found.append((time.perf_counter() - start) * 1000)
            node.end(call_id)
            phone.hear("standdown")
            time.sleep(REST_S)
    return found


def _at_once_ms(node: Calling, rounds: int) -> list[float]:
    """Let more responders accept a call at once than are needed.

    Return the time in ms until the last `task` is received, one value for each round.
    """
    found, where = [], places.offset(*CENTRE, 300_000.0, 0.0)
    for _ in range(rounds):
        with ExitStack() as stack:
            phones = [stack.enter_context(node.phone(f"eager-{at}", *where)) for at in range(AT_ONCE)]
            call_id = node.open(*where)
            for phone in phones:
                phone.hear("call")
            start = time.perf_counter()
            for phone in phones:
                phone.say(frame(type="accept", id=call_id, eta_s=120))
            took = [(phone.hear("task", "standdown")["type"], time.perf_counter() - start) for phone in phones]
            tasks_s = [seconds for kind, seconds in took if kind == "task"]
            assert len(tasks_s) == SEATS, took
            found.append(max(tasks_s) * 1000)
            node.end(call_id)
    return found


def _last_ring_ms(node: Calling) -> dict[str, float]:
    """Return the time in ms until a responder whom only the last wave reaches has a call.

    The time counts from the 201 response, with which the node accepts the call.
    """
    found, where = [], places.offset(*CENTRE, 400_000.0, 0.0)
    with node.phone("far", *places.offset(*where, IN_LAST_RING_M, 0.0)) as phone:
        for _ in range(LAST_RING_ROUNDS):
            call_id = node.open(*where)
            start = time.perf_counter()
            phone.hear("call")
            found.append((time.perf_counter() - start) * 1000)
            node.end(call_id)
            phone.hear("standdown")
    return stats.summary(found)


# ---- the cost of open calls --------------------------------------------------------------------------------------


@contextmanager
def _holding(place: Place, store: str, count: int) -> Iterator[tuple[Calling, dict[str, Any]]]:
    """Yield a node with `count` open calls that are near nobody, and a dict with the measured costs of these calls.

    The calls have reached their widest radius.
    """
    dice = random.Random(count)
    with STORES[store](place.home, place.cores.server) as node:
        before, took = node.rss_bytes(), []
        with screen.progress(f"{store}: opening calls", count) as show:
            for done in range(count):
                start = time.perf_counter()
                node.open(*far_away(dice))
                took.append((time.perf_counter() - start) * 1000)
                show(done + 1)
        widened = count * (len(RINGS_M) - 1)
        processes.wait_until(lambda: _widenings(node) >= widened, "all calls have their widest radius", 60.0, 0.2)
        time.sleep(SETTLE_S)
        found: dict[str, Any] = {"accepted_ms": stats.summary(took[-100:])}
        cpu, start = node.cpu_s(), time.monotonic()
        time.sleep(IDLE_S)
        found["idle"] = (node.cpu_s() - cpu) / (time.monotonic() - start) * 100
        found["bytes_per_call"] = (node.rss_bytes() - before) / count if count else None
        yield node, found


def _widenings(node: Geocast) -> float:
    return node.metrics()["geocast_call_widenings_total"]


def _costs(place: Place, counts: Sequence[int], rounds: int) -> dict[str, Any]:
    """Return the cost of sessions for each number of open calls, and the cost of listing the most calls."""
    found: dict[str, Any] = {}
    took: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        nodes: dict[str, Calling] = {}
        for count in counts:
            nodes[str(count)], found[str(count)] = stack.enter_context(_holding(place, "SQLite", count))
        with screen.progress("visits", 1 + rounds) as show:
            for done in range(1 + rounds):
                for name, node in nodes.items():
                    for what, cpu_us in _visits_us(node).items():
                        took.setdefault(name, {}).setdefault(what, []).append(cpu_us)
                show(done + 1)
        for name, it in took.items():
            found[name] |= {what: stats.median(each[1:]) for what, each in it.items()}
        lists = _listed(nodes[str(counts[-1])], counts[-1])
    return {"open": found, "list": lists}


def _visits_us(node: Calling) -> dict[str, float]:
    """Return the node's CPU time in µs for a visit and for a move, by sessions with a qualification and without.

    A visit is connecting, saying hello and disconnecting.
    """
    found = {}
    for kind, quals in (("with", QUALS), ("without", ())):
        node.quals = quals
        hello = frame(**node.hello("visitor", dict(zip(("lat", "lng"), CENTRE, strict=True))))
        cpu = node.cpu_s()
        for _ in range(VISITS):
            Phone(node.port, hello).close()
        found[f"visit_{kind}"] = (node.cpu_s() - cpu) / VISITS * 1e6
        here = {"here": True} if quals else {}
        moves = [
            frame(type="move", places=[{"lat": CENTRE[0] + at / 1e6, "lng": CENTRE[1], **here}]) for at in range(BURST)
        ]
        with Phone(node.port, hello) as phone:
            cpu = node.cpu_s()
            for move in moves:
                phone.ask(move)
            found[f"move_{kind}"] = (node.cpu_s() - cpu) / BURST * 1e6
    return found


def _listed(node: Calling, count: int) -> dict[str, Any]:
    """List the open calls many times, and measure one listing.

    Return how long it takes, how much CPU time the node spends on it, and how long it blocks the node's event loop.
    """
    took: list[float] = []

    def list_them() -> None:
        for _ in range(LISTS):
            start = time.perf_counter()
            assert node.open_calls() == count
            took.append((time.perf_counter() - start) * 1000)

    cpu = node.cpu_s()
    list_them()
    alone_ms, cpu_ms = stats.median(took), (node.cpu_s() - cpu) / LISTS * 1000
    rest = pongs_ms(node, _for_s(IDLE_S))
    listing = threading.Thread(target=list_them)
    listing.start()
    busy = pongs_ms(node, listing.is_alive)
    listing.join()
    return {"list_ms": alone_ms, "list_cpu_ms": cpu_ms, "rest": rest, "busy": busy}


def _for_s(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end


def _on_redis(place: Place, sessions: int, rounds: int, count: int) -> dict[str, Any]:
    found = _answering(place, "Redis", sessions, rounds)
    with _holding(place, "Redis", count) as (node, opened):
        return found | {"opened_ms": opened["accepted_ms"], "list": _listed(node, count)}


# ---- memory and encryption ---------------------------------------------------------------------------------------


def _memory(place: Place, sessions: int) -> dict[str, float]:
    """Return the resident memory in bytes for each session of a node that accepts calls.

    There is one value for sessions without a qualification, and one for sessions of responders on duty.
    """
    found = {}
    with Calling(place.home, place.cores.server) as node, ExitStack() as stack:
        gather(stack, place, node, places.around(100, 14_000.0), 1)
        for kind, node.quals in (("without a qualification", ()), ("on duty", QUALS)):
            before = node.rss_bytes()
            gather(stack, place, node, places.around(sessions, 14_000.0), 1)
            time.sleep(SETTLE_S)
            found[kind] = (node.rss_bytes() - before) / sessions
    return found


def _sealing_us() -> dict[str, dict[str, float]]:
    """Return the CPU time in µs to encrypt and to decrypt one log entry, for each size of its secret part."""
    keys = parse_call_keys(json.dumps({"keys": [make_call_key()]}).encode(), "bench")
    plain, found = bytes(300), {}
    for what, size in SEALED_BYTES.items():
        secret = bytes(size)
        entry = CallEntry("bench", 1, 0, "call", plain, keys.seal("bench", 1, "call", plain, secret))
        found[what] = {
            "seal": _each_us(partial(keys.seal, "bench", 1, "call", plain, secret)),
            "open": _each_us(partial(keys.open, entry)),
        }
    return found


def _each_us(do: Callable[[], object]) -> float:
    start = time.process_time()
    for _ in range(SEALINGS):
        do()
    return (time.process_time() - start) / SEALINGS * 1e6


# ---- the measurement ---------------------------------------------------------------------------------------------


def measure(place: Place, sessions: int, rounds: int, opened: tuple[int, ...], redis: bool) -> dict[str, Any]:
    """Measure nodes with each kind of log, and then the cost of open calls, the memory, and the cost of encryption."""
    found: dict[str, Any] = {"stores": {"SQLite": _answering(place, "SQLite", sessions, rounds)}, "missing": {}}
    if redis:
        try:
            found["stores"]["Redis"] = _on_redis(place, sessions, rounds, opened[-1])
        except processes.Unavailable as reason:
            found["missing"]["Redis"] = reason.format_message()
    costs = _costs(place, opened, max(2, rounds // 40))
    found["stores"]["SQLite"] |= {"opened_ms": costs["open"][str(opened[-1])]["accepted_ms"], "list": costs["list"]}
    return found | {"open": costs["open"], "session_bytes": _memory(place, sessions), "sealing_us": _sealing_us()}


# ---- table and plot ----------------------------------------------------------------------------------------------


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each measured value and one column for each kind of log.

    Values that do not depend on the kind of log are in the first column.
    """
    stores, opened = result.found["stores"], result.found["open"]
    most = f"{int(list(opened)[-1]):,}"
    rows = [
        [title, *(number(it[key][of]) for it in stores.values()), goal]
        for title, key, of, goal in (
            ("request → 201, p50 ms", "accepted_ms", "p50", ""),
            ("201 → the last of the first wave, p50 ms", "ring_ms", "p50", ""),
            ("… p99 ms", "ring_ms", "p99", " / ".join(f"≤ {ms}" for ms in GOAL_RING_MS.values())),
            ("201 → a responder in the last wave only, max ms", "last_ring_ms", "max", f"≤ {GOAL_LAST_RING_MS:,}"),
            ("accept → task, p50 ms", "accept_ms", "p50", ""),
            ("… p99 ms", "accept_ms", "p99", f"≤ {GOAL_TASK_MS}"),
            (f"{AT_ONCE} responders accept at once → the last of {SEATS} tasks, p50 ms", "at_once_ms", "p50", ""),
            ("… p99 ms", "at_once_ms", "p99", f"≤ {GOAL_TASK_MS}"),
            (f"request → 201 while {most} calls are open, p50 ms", "opened_ms", "p50", ""),
        )
    ]
    rows += [
        [
            title,
            *(number(it["list"][key] if of is None else it["list"][key][of]["max"]) for it in stores.values()),
            goal,
        ]
        for title, key, of, goal in (
            (f"list of {most} open calls, ms", "list_ms", None, ""),
            ("… CPU ms", "list_cpu_ms", None, ""),
            ("… CPU of the node while a client waits for a pong, at most, ms", "busy", "spent", f"≤ {GOAL_HELD_MS:g}"),
            ("… … at rest", "rest", "spent", ""),
            ("… longest wait for a pong, ms", "busy", "took", ""),
            ("… … at rest", "rest", "took", ""),
        )
    ]
    others = [""] * (len(stores) - 1)
    counts = " / ".join(f"{int(name):,}" for name in opened)
    for title, key in (
        ("a responder on duty connects and leaves", "visit_with"),
        ("a session without a qualification connects and leaves", "visit_without"),
        ("a responder on duty moves", "move_with"),
        ("a session without a qualification moves", "move_without"),
    ):
        costs = [it[key] for it in opened.values()]
        rows.append([f"{title}, CPU µs while {counts} calls are open", " / ".join(map(number, costs)), *others,
                     f"≤ {GOAL_RATIO} × (is {number(costs[-1] / costs[0])})"])  # fmt: skip
    idle = " / ".join(number(it["idle"]) for it in opened.values())
    rows.append([f"at rest while {counts} calls are open, % of a core", idle, *others, ""])
    rows.append(["KiB for each open call, of the node", number(list(opened.values())[-1]["bytes_per_call"] / 1024),
                 *others, ""])  # fmt: skip
    rows += [
        [f"KiB for each session, {kind}", number(each / 1024), *others, ""]
        for kind, each in (result.found["session_bytes"].items())
    ]
    rows += [
        [f"encrypt / decrypt {what} ({SEALED_BYTES[what]:,} bytes), CPU µs",
         f"{number(it['seal'])} / {number(it['open'])}", *others, ""]
        for what, it in result.found["sealing_us"].items()
    ]  # fmt: skip
    title = f"calls: {FIRST_RING} responders in the first wave, {result.parameters['sessions']:,} on duty far away"
    return Table(title, ("", *stores, "goal"), rows, _notes(result))


def _notes(result: Result) -> list[str]:
    stores = result.found["stores"]
    waited = ", ".join(f"{name} {it['waited']:.0%}" for name, it in stores.items())
    notes = [f"Time in which others had the server's core: {waited}."]
    notes += [f"{name}: {it['missing']} messages never came." for name, it in stores.items() if it["missing"]]
    return notes + [f"{name} is left out: {reason}." for name, reason in result.found["missing"].items()]


def plot(result: Result, figure: Any) -> None:
    """Plot the waiting times for each kind of log, and the cost of a session over the number of open calls."""
    waits, cost = figure.subplots(1, 2)
    stores, opened = result.found["stores"], result.found["open"]
    measures = {"ring": "ring_ms", "task": "accept_ms", "last of the tasks": "at_once_ms"}
    for at, (name, it) in enumerate(stores.items()):
        p99 = [it[key]["p99"] for key in measures.values()]
        waits.bar(np.arange(len(measures)) + 0.4 * at, p99, 0.4, label=name)
    waits.set_xticks(np.arange(len(measures)) + 0.2 * (len(stores) - 1), list(measures))
    waits.set(ylabel="p99, ms")
    waits.legend()
    many = [int(name) for name in opened]
    for what in ("visit_with", "visit_without", "move_with", "move_without"):
        cost.plot(many, [it[what] for it in opened.values()], "o-", label=what.replace("_", " "))
    cost.set(xlabel="open calls", ylabel="CPU of the node, µs", ylim=(0, None))
    cost.legend()
    figure.suptitle(table(result).title)


BENCH = Bench(
    "calls",
    "how soon responders are notified of a call and told where to go, and what open calls cost others.",
    measure,
    table,
    plot,
    {"sessions": 500, "rounds": 40, "opened": (0, 100), "redis": True},
)
