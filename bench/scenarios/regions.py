"""`regions`: three regions with oceans between them, on one machine.

Each region is a network namespace with a Redis, a Sentinel, a node and a session. Round trips between regions take as
long as the options say, and 0.1 % of the packets are lost (see `bench/oceans.py`). The primary is in region a; the
nodes in b and c read the replica in their own region (`--log-follow replica`).

Three parts. First, alerts are published in region a, one by one: the time from the request, and from the 201, until the
session in each region has the alert, beside the round trip; and the time that publishing takes in each region. (The 201
may come later than the alert, because the node waits up to 0.1 s for the answer of each Sentinel.) Then the oceans are
cut between all regions: publishers in b and c get 503, the sessions stay connected, and when the oceans are mended,
they have to be told what they missed. Last, the region of the primary dies, and publishing goes on elsewhere.

Leaves out: bandwidth, and all load. Everything shares the machine's cores.
"""

import http.client
import json
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import click
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from bench import oceans, processes, screen, stats
from bench.clients.websocket import PATH, SUBPROTOCOL
from bench.oceans import Oceans
from bench.peers.base import alert_id, next_number
from bench.peers.geocast import Geocast
from bench.places import CENTRE
from bench.results import Result, Table, number
from bench.runs import Bench, Place

REGIONS = ("a", "b", "c")
LOSS = 0.001
REDIS, SENTINEL, STREAM, API = 6379, 26379, 8765, 8766
PASSWORD = "of-this-run-alone"  # only the namespaces can reach these servers
PATIENCE_S = 60.0
SETTLE_S = 12.0  # so that Sentinels may vote again: they do so at most once in twice their failover-timeout
SENTINEL_CONF = """\
bind 0.0.0.0
protected-mode no
sentinel announce-ip {here}
sentinel monitor geocast {primary} 6379 2
sentinel auth-pass geocast {password}
sentinel down-after-milliseconds geocast 2000
sentinel failover-timeout geocast 5000
"""


class _Session(threading.Thread):
    """A session in one region. It records when it was told each alert, and whether it was closed."""

    def __init__(self, address: str, hello: str) -> None:
        super().__init__(daemon=True)
        self.told_ns: dict[str, int] = {}
        self.closed = False
        self._url = f"ws://{address}:{STREAM}{PATH}"
        self._hello = hello
        self._welcomed = threading.Event()
        self.start()
        self._welcomed.wait(PATIENCE_S)

    def run(self) -> None:
        with suppress(ConnectionClosed), connect(self._url, subprotocols=[SUBPROTOCOL], compression=None) as session:
            session.send(self._hello)
            session.recv()
            self._welcomed.set()
            for text in session:
                message = json.loads(text)
                if message["type"] == "alert":
                    self.told_ns[message["alert"]["id"]] = time.monotonic_ns()
        self.closed = True


class _Region:
    """A region: its Redis, its Sentinel and its node."""

    def __init__(self, name: str, net: Oceans, home: Path) -> None:
        self.name = name
        self.address = net.address(name)
        self._within = net.within(name)
        self._home = home / f"region-{name}"
        self._home.mkdir()
        self.running: list[Any] = []

    def start_redis(self, place: Place, primary: str) -> None:
        """Start the Redis of this region, and wait until it has what the primary has."""
        home = self._home / "redis"
        home.mkdir()
        options = ["--bind", "0.0.0.0", "--port", REDIS, "--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        options += ["--requirepass", PASSWORD, "--masterauth", PASSWORD, "--repl-diskless-sync-delay", 0]
        options += [] if primary == self.address else ["--replicaof", f"{primary} {REDIS}"]
        self._start(place, home, processes.find_program("redis-server"), *options)
        up = "role:master" if primary == self.address else "master_link_status:up"
        processes.wait_until(lambda: up in self._redis("INFO", "replication"), f"the Redis of {self.name}", PATIENCE_S)

    def start_sentinel(self, place: Place, primary: str) -> None:
        """Start the Sentinel of this region."""
        home = self._home / "sentinel"
        home.mkdir()
        conf = SENTINEL_CONF.format(here=self.address, primary=primary, password=PASSWORD)
        (home / "sentinel.conf").write_text(conf)
        self._start(place, home, processes.find_program("redis-server"), "sentinel.conf", "--sentinel")

    def knows_all(self) -> bool:
        """Return whether the Sentinel of this region has found all servers and Sentinels."""
        said = self._redis("SENTINEL", "MASTER", "geocast", port=SENTINEL).split()
        found = dict(zip(said[::2], said[1::2], strict=False))
        return (found.get("num-slaves"), found.get("num-other-sentinels")) == ("2", "2")

    def primary(self) -> str:
        """Return the address of the primary that this region's Sentinel knows."""
        return self._redis("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "geocast", port=SENTINEL).split()[0]

    def start_node(self, place: Place, desk: Geocast, sentinels: Sequence[str]) -> None:
        """Start the node of this region."""
        hosts = ",".join(f"{each}:{SENTINEL}" for each in sentinels)
        home = self._home / "node"
        home.mkdir()
        self._start(
            place,
            home,
            *(sys.executable, "-m", "geocast", "serve", "--keys", desk.home / "keys.jwks"),
            *("--stream", f"{self.address}:{STREAM}", "--api", f"{self.address}:{API}"),
            *("--log", f"redis+sentinel://:{PASSWORD}@{hosts}/geocast"),
            *("--log-follow", "primary" if self.name == REGIONS[0] else "replica"),
        )

    def state(self) -> dict[str, Any]:
        """Return the answer to `/readyz`; an empty dict if the node does not answer."""
        try:
            return dict(json.loads(self._ask("GET", "/readyz")[1]))
        except OSError:
            return {}

    def publish(self, desk: Geocast, at: int) -> int:
        """Publish alert number `at` here, and return the status of the answer; 0 if there is none."""
        try:
            return self._ask("POST", "/v1/alerts", desk.body(at), desk.headers)[0]
        except OSError:
            return 0

    def die(self) -> None:
        """Kill everything in this region."""
        for process in self.running:
            process.kill()
        for process in self.running:
            process.wait()

    def _ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.address, API, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _redis(self, *words: str, port: int = REDIS) -> str:
        secret = ["-a", PASSWORD, "--no-auth-warning"] if port == REDIS else []
        command = [processes.find_program("redis-cli"), "-h", self.address, "-p", str(port), *secret, *words]
        return processes.output_of(command)

    def _start(self, place: Place, home: Path, *command: object) -> None:
        cores = place.cores.server | place.cores.clients
        self.running.append(processes.start([*self._within, *command], cores, home / "output.txt", cwd=home))


def measure(place: Place, rounds: int, cut_s: float, near_ms: int, far_ms: int) -> dict[str, Any]:
    """Run the three parts (see the module's docstring)."""
    if reason := oceans.missing():
        raise click.ClickException(f"regions need network namespaces: {reason}")
    a, b, c = REGIONS
    trips_s = {(a, b): near_ms / 1e3, (a, c): far_ms / 1e3, (b, c): far_ms / 1e3}
    desk = Geocast(place.home, place.cores.server)
    with ExitStack() as stack:
        net = stack.enter_context(Oceans(trips_s, LOSS))
        regions = [_Region(name, net, place.home) for name in REGIONS]
        for region in regions:
            stack.callback(region.die)
            region.start_redis(place, regions[0].address)
        for region in regions:
            region.start_sentinel(place, regions[0].address)
        for region in regions:
            processes.wait_until(region.knows_all, "each Sentinel knows all servers", PATIENCE_S, 0.1)
            region.start_node(place, desk, [each.address for each in regions])
        for region in regions:
            own = "primary" if region.name == a else f"{region.address}:{REDIS}"
            processes.wait_until(
                lambda region=region, own=own: list(region.state().get("reads", ())) == [own],  # type: ignore[misc]
                f"the node of {region.name} reads {own}",
                PATIENCE_S,
            )
        place_of = {"lat": CENTRE[0], "lng": CENTRE[1]}
        hellos = [{"type": "hello", "token": desk.token(each), "places": [place_of]} for each in REGIONS]
        sessions = [_Session(r.address, json.dumps(hello)) for r, hello in zip(regions, hellos, strict=True)]
        found: dict[str, Any] = _told(desk, regions, sessions, rounds)
        found["published"] = _published(desk, regions, rounds)
        screen.say(f"the oceans are cut for {cut_s:g} s")
        found["cut"] = _cut(desk, net, regions, sessions, cut_s)
        screen.say("the region of the primary dies")
        found["dead"] = _dead(desk, net, regions, sessions)
    return found


def _told(
    desk: Geocast, regions: Sequence[_Region], sessions: Sequence[_Session], rounds: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Publish in region a, and return how soon each region was told: after the request, and after the 201."""
    took_ms: dict[str, list[tuple[float, float]]] = {name: [] for name in REGIONS}
    with screen.progress("alerts", rounds) as show:
        for done in range(rounds):
            at, asked_ns = next_number(), time.monotonic_ns()
            assert regions[0].publish(desk, at) == 201
            accepted_ns = time.monotonic_ns()
            _wait(sessions, [at], "all regions are told")
            for name, session in zip(REGIONS, sessions, strict=True):
                told_ns = session.told_ns[alert_id(at)]
                took_ms[name].append(((told_ns - asked_ns) / 1e6, max(0.0, (told_ns - accepted_ns) / 1e6)))
            show(done + 1)
    return {
        what: {name: stats.summary([pair[at] for pair in each]) for name, each in took_ms.items()}
        for at, what in enumerate(("told", "told_after_201"))
    }


def _published(desk: Geocast, regions: Sequence[_Region], rounds: int) -> dict[str, dict[str, float]]:
    """Publish in each region, and return how long the requests took."""
    found = {}
    for region in regions:
        took_ms = []
        for _ in range(max(1, rounds // 5)):
            started = time.monotonic()
            assert region.publish(desk, next_number()) == 201
            took_ms.append((time.monotonic() - started) * 1e3)
        found[region.name] = stats.summary(took_ms)
    return found


def _cut(
    desk: Geocast, net: Oceans, regions: Sequence[_Region], sessions: Sequence[_Session], cut_s: float
) -> dict[str, Any]:
    """Cut all oceans; return the answers to publishers, and how soon the sessions know all after the mend."""
    net.cut(*REGIONS)
    started = time.monotonic()
    statuses: dict[str, list[int]] = {name: [] for name in REGIONS}
    missed = []
    while time.monotonic() - started < cut_s:
        for region in regions:
            at = next_number()
            statuses[region.name].append(region.publish(desk, at))
            missed += [at] if statuses[region.name][-1] == 201 else []
        time.sleep(0.5)
    net.mend()
    mended_ns = time.monotonic_ns()
    _wait(sessions, missed, "all regions know what was published meanwhile")
    last_ns = {
        name: max((session.told_ns[alert_id(at)] for at in missed), default=mended_ns)
        for name, session in zip(REGIONS, sessions, strict=True)
    }
    return {
        "statuses": {
            name: {str(each): those.count(each) for each in sorted(set(those))} for name, those in statuses.items()
        },
        "missed": len(missed),
        "told_after_s": {name: max(0.0, (each - mended_ns) / 1e9) for name, each in last_ns.items()},
        "closed": sum(session.closed for session in sessions),
    }


def _dead(desk: Geocast, net: Oceans, regions: Sequence[_Region], sessions: Sequence[_Session]) -> dict[str, Any]:
    """Kill the region of the primary; return how soon an alert is accepted and told in the others.

    After a cut, the primary may be in another region than before.
    """
    for region in regions:
        processes.wait_until(lambda region=region: region.state().get("status") == "ready", "ready", PATIENCE_S)  # type: ignore[misc]
    time.sleep(SETTLE_S)
    primary = regions[0].primary()
    dead = next(each for each in regions if each.address == primary)
    left = [each for each in regions if each is not dead]
    theirs = [session for region, session in zip(regions, sessions, strict=True) if region is not dead]
    net.cut(dead.name)
    dead.die()
    started = time.monotonic()
    at = next_number()
    processes.wait_until(lambda: left[0].publish(desk, at) in (200, 201), "an alert is accepted", PATIENCE_S, 0.1)
    accepted_s = time.monotonic() - started
    _wait(theirs, [at], "the other regions are told")
    told_s = time.monotonic() - started
    closed = sum(session.closed for session in theirs)
    return {"region": dead.name, "accepted_s": accepted_s, "told_s": told_s, "closed": closed}


def _wait(sessions: Sequence[_Session], numbers: Sequence[int], what: str) -> None:
    ids = {alert_id(at) for at in numbers}
    processes.wait_until(lambda: all(ids <= each.told_ns.keys() for each in sessions), what, 2 * PATIENCE_S, 0.001)


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each figure and one column for each region."""
    asked, found = result.parameters, result.found
    trips = {"a": 0, "b": asked["near_ms"], "c": asked["far_ms"]}
    cut, dead = found["cut"], found["dead"]
    rows = [
        ["round trip to the primary, ms", *(str(trips[name]) for name in REGIONS)],
        *(
            [f"{what}, {of} ms", *(number(found[key][name][of]) for name in REGIONS)]
            for key, what in (
                ("told", "a request in a → told"),
                ("told_after_201", "its 201 → told"),
                ("published", "a request in the region → its 201"),
            )
            for of in ("p50", "p99")
        ),
        [
            f"oceans cut for {asked['cut_s']:g} s: answers",
            *(", ".join(f"{n} × {status}" for status, n in cut["statuses"][name].items()) for name in REGIONS),
        ],
        ["… mended → told everything, s", *(number(cut["told_after_s"][name]) for name in REGIONS)],
    ]
    soon = [number(dead[key]) for key in ("accepted_s", "told_s")]
    notes = [
        f"Region {dead['region']} dies with the primary: accepted elsewhere after {soon[0]} s, told after {soon[1]} s.",
        f"Sessions closed: {cut['closed']} in the cut, {dead['closed']} in the regions that are left.",
    ]
    return Table("regions: one log in three regions, its primary in a", ("", *REGIONS), rows, notes)


def plot(result: Result, figure: Any) -> None:
    """Plot the time until each region is told, beside half of the round trip."""
    asked, told, axes = result.parameters, result.found["told"], figure.subplots()
    halves = [0, asked["near_ms"] / 2, asked["far_ms"] / 2]
    for at, (label, values) in enumerate(
        {
            "half of the round trip": halves,
            "request in a → told, p50": [told[name]["p50"] for name in REGIONS],
            "request in a → told, p99": [told[name]["p99"] for name in REGIONS],
        }.items()
    ):
        axes.bar([place + 0.27 * at for place in range(len(REGIONS))], values, 0.27, label=label)
    axes.set_xticks([place + 0.27 for place in range(len(REGIONS))], [f"region {name}" for name in REGIONS])
    axes.set(ylabel="ms")
    axes.legend()
    figure.suptitle(table(result).title)


BENCH = Bench(
    "regions",
    "three regions with oceans between them, on one machine.",
    measure,
    table,
    plot,
    {"rounds": 20, "cut_s": 5.0, "near_ms": 40, "far_ms": 150},
)
