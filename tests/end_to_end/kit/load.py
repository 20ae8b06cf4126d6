"""Desks that publish and clients that listen while faults happen, recorded in a `History`.

A `RecordedDesk` behaves as the contract requires of a publisher: it repeats every unanswered request at any node, and
changes an alert only when it knows the result of the previous request. A `RecordedPhone` behaves as the contract
requires of a client: it reconnects with the list of its held alerts. Neither knows which fault is in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import httpx
from end_to_end.kit.alerts import (
    SEVERITIES,
    Json,
    alert,
    approval,
    cancel_body,
    circle,
    ground,
    new_id,
    place,
    revision_of,
)
from end_to_end.kit.earth import Point, beyond, published_area
from end_to_end.kit.history import SLACK_S, Came, Final, History, Operation, Visit
from end_to_end.kit.keys import PHONE_SCOPE, bearer
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import FORMATS
from end_to_end.kit.times import moment, stamp
from end_to_end.kit.wire import ABNORMAL, decode, encode
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

TOWN_M = 3_000
HEAL_S = 150.0  # the limit for recovery from all faults
OPEN_S = 5.0  # the limit for a connection, and for its welcome
ANSWER_S = 8.0  # the limit for the answer to a POST
BELL_S = HEAL_S + 30
PULSE_S = 0.05
BY_THE_CLOCK = {410, 422}  # statuses that a node with a wrong clock may answer
LIVE_PER_DESK = 15  # few enough to list all live alerts in `holding`


class World:
    """The nodes, the town, and all clients and desks. `dice` makes all random decisions."""

    def __init__(self, nodes: list[Node], dice: random.Random) -> None:
        self.nodes, self.dice = nodes, dice
        self.history = History()
        self.town = ground()
        self.phones: list[RecordedPhone] = []
        self.desks: list[RecordedDesk] = []
        self.refusals: list[str] = []  # unexpected refusals of valid requests
        self.slowest: dict[int, float] = {}  # status -> the longest wait for it, in seconds
        self.ends: Counter[str] = Counter()  # close codes, and errors in connecting, of the connections
        self._tasks: dict[str, asyncio.Task[None]] = {}
        token = nodes[0].keys.token
        later = int(time.time()) + 30 * 86_400  # long enough for nodes whose clock is days ahead
        self.phone_token = token(sub="phone", scope=PHONE_SCOPE, exp=later)
        self.desk_token = token(exp=later)
        self.open = asyncio.Event()  # while cleared, no desk begins anything
        self.open.set()
        self.asking = 0  # the number of requests under way
        self.pulse: deque[float] = deque(maxlen=100)  # times at which this process ran

    def somewhere(self) -> Point:
        """Return a random point in town."""
        return beyond(self.town, self.dice.uniform(0, 360), self.dice.uniform(0, TOWN_M))

    # -- clients and desks

    def add_phone(self, name: str, habit: Habit) -> RecordedPhone:
        """Add a client with a habit, and start it."""
        phone = RecordedPhone(name, self, habit)
        self.phones.append(phone)
        self.start(name, phone.live())
        return phone

    def add_desk(self, name: str) -> None:
        """Add a publisher, and start it."""
        self.desks.append(RecordedDesk(self))
        self.start(name, self.desks[-1].work())

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Start a task that runs until `stop`; `assert_well` reports an error in it."""
        self._tasks[name] = asyncio.ensure_future(work)
        if "pulse" not in self._tasks:
            self._tasks["pulse"] = asyncio.ensure_future(self._beat())

    async def _beat(self) -> None:
        while True:
            self.pulse.append(time.monotonic())
            await asyncio.sleep(PULSE_S)

    def late_s(self) -> float:
        """Return how many seconds a message that is read now may have waited.

        Other processes share the machine with this one.
        """
        return time.monotonic() - self.pulse[-2] if len(self.pulse) > 1 else 0.0

    async def stop(self, *names: str) -> None:
        """Stop the tasks with these names, or all tasks."""
        tasks = [self._tasks.pop(name) for name in names or list(self._tasks)]
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    def assert_well(self) -> None:
        """Raise `AssertionError` if any task has failed."""
        for name, task in self._tasks.items():
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise AssertionError(f"{name}: {error!r}") from error

    # -- questions to the nodes

    async def read_states(self) -> bool:
        """Ask every node for its live alerts; return whether all nodes have answered."""
        states: dict[str, dict[str, int | None]] = {}
        self.history.asked_at = time.time()
        async with httpx.AsyncClient(timeout=ANSWER_S, trust_env=False, headers=bearer(self.desk_token)) as api:
            for node in self.nodes:
                with contextlib.suppress(httpx.TransportError):
                    answer = await api.get(f"{node.api.base_url}/v1/alerts")
                    if answer.status_code == 200:
                        states[str(node.api.base_url)] = {a["id"]: a["revision"] for a in answer.json()["alerts"]}
        self.history.states = states
        return len(states) == len(self.nodes)

    async def all_ready(self) -> bool:
        """Return whether every node answers that it is ready."""
        async with httpx.AsyncClient(timeout=ANSWER_S, trust_env=False) as api:
            try:
                answers = [await api.get(f"{node.api.base_url}/readyz") for node in self.nodes]
            except httpx.TransportError:
                return False
        return all(answer.status_code == 200 for answer in answers)

    def read_phones(self) -> None:
        """Record the final state of every client."""
        self.history.finals = [phone.final() for phone in self.phones]


# -- clients


@dataclass(frozen=True)
class Habit:
    """The behaviour of a client: times are in seconds, and 0 means never."""

    moves: float = 0.0  # average seconds between moves to another place
    leaves: float = 0.0  # seconds until it disconnects and reconnects at once
    sleeps: bool = False  # whether it disconnects soon and does not reconnect until `awake` is set
    node: int | None = None  # the number of the node that it uses; any node if None


class RecordedPhone:
    """A client that remembers the alerts it holds and reconnects."""

    def __init__(self, name: str, world: World, habit: Habit) -> None:
        self.name, self.world, self.habit = name, world, habit
        self.dice = random.Random(world.dice.random())
        self.fmt = self.dice.choice(FORMATS)
        self.held: dict[str, tuple[int, float]] = {}  # id -> (revision, end)
        self.over: dict[str, None] = {}  # ids of cancelled alerts, which a node that is behind may still send
        self.places = self._places()
        self.welcomed = asyncio.Event()
        self.awake = asyncio.Event()
        self._refs = itertools.count(1)

    def _places(self) -> list[Json]:
        count = self.dice.choice((1, 1, 1, 2))
        return [place(self.world.somewhere(), accuracy_m=self.dice.choice((0, 50, 300))) for _ in range(count)]

    def final(self) -> Final:
        """Return the client's state now."""
        self._drop_expired()
        held = {alert_id: revision for alert_id, (revision, _) in self.held.items()}
        return Final(self.name, self.places, held, time.time())

    def _drop_expired(self) -> None:
        self.held = {key: held for key, held in self.held.items() if held[1] > time.time()}

    async def live(self) -> None:
        """Connect and listen; after the connection ends, connect again."""
        while True:
            try:
                await self._call()
            except ConnectionClosed as closed:
                self.world.ends[str(closed.rcvd.code if closed.rcvd else ABNORMAL)] += 1
            except (OSError, TimeoutError, WebSocketException) as error:
                self.world.ends[type(error).__name__] += 1
            self.welcomed.clear()
            if self.habit.sleeps:
                await self.awake.wait()
            await asyncio.sleep(self.dice.uniform(0.05, 0.5))

    def settle_down(self) -> None:
        """Wake up, and stay connected at the same place."""
        self.habit = Habit(node=self.habit.node)
        self.awake.set()

    async def _call(self) -> None:
        nodes = self.world.nodes
        node = nodes[self.habit.node] if self.habit.node is not None else self.dice.choice(nodes)
        async with connect(
            f"ws://127.0.0.1:{node.stream_port}/v1/stream",
            subprotocols=[f"geocast.v1.{self.fmt}"],  # type: ignore[list-item]
            compression=None,
            ping_interval=None,
            open_timeout=OPEN_S,
            close_timeout=1,
            proxy=None,
        ) as socket:
            self._drop_expired()
            holding = {alert_id: revision for alert_id, (revision, _) in self.held.items()}
            await self._say(socket, type="hello", token=self.world.phone_token, places=self.places, holding=holding)
            visit = self.world.history.visit(self.name, holding)
            visit.events.append(self.places)
            async with asyncio.timeout(OPEN_S):
                welcome = self._read(await socket.recv())
            assert welcome["type"] == "welcome", welcome
            self.welcomed.set()
            await self._listen(socket, visit, node)

    async def _listen(self, socket: ClientConnection, visit: Visit, node: Node) -> None:
        going: dict[int, list[Json]] = {}
        started = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(self.habit.moves * self.dice.uniform(0.5, 1.5) or 0.5):
                    message = self._read(await socket.recv())
            except TimeoutError:
                leaves = 1.0 if self.habit.sleeps else self.habit.leaves
                if leaves and time.monotonic() > started + leaves:
                    return
                if self.habit.moves:
                    ref = next(self._refs)
                    going[ref] = self._places()
                    await self._say(socket, type="move", ref=ref, places=going[ref])
                continue
            if message["type"] == "ok":
                self.places = going.pop(message["ref"])
                visit.events.append(self.places)
            else:
                late_s = self.world.late_s()
                self._take(message, visit, node.behind_s(SLACK_S + late_s) + late_s)

    def _take(self, message: Json, visit: Visit, behind: float) -> None:
        assert message["type"] != "error", message
        if message["type"] == "cancel":
            visit.events.append(Came(message["id"], message["revision"], time.time(), True, behind))
            self.held.pop(message["id"], None)
            self.over[message["id"]] = None
        elif message["type"] == "alert":
            shown = message["alert"]
            visit.events.append(Came(shown["id"], shown["revision"], time.time(), behind=behind))
            ends = moment(shown["expires_at"]).timestamp()
            if shown["id"] not in self.over and shown["revision"] > self.held.get(shown["id"], (0, 0.0))[0]:
                self.held[shown["id"]] = shown["revision"], ends

    async def _say(self, socket: ClientConnection, **message: Any) -> None:
        await socket.send(encode(self.fmt, message), text=self.fmt == "json")

    def _read(self, frame: str | bytes) -> Json:
        return decode(self.fmt, frame.encode() if isinstance(frame, str) else frame)


# -- publishers


@dataclass
class Kept:
    """An alert of a desk: its newest body, and the last request about it."""

    body: Json
    operation: Operation
    path: str
    request: Json
    waits: bool = True  # whether the request is unanswered
    tries: int = 0
    last_in_log: int | None = None  # the number of the alert's last entry, from the last 409
    answers: deque[str] = field(default_factory=lambda: deque(maxlen=60))  # what nodes have answered about the alert

    @property
    def live(self) -> bool:
        return not self.operation.cancels and self.operation.ends > time.time() + 60


@dataclass
class RecordedDesk:
    """A publisher; nobody else changes its alerts."""

    world: World
    alerts: dict[str, Kept] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.world.dice.random())
        self.api = httpx.AsyncClient(timeout=ANSWER_S, trust_env=False, headers=bearer(self.world.desk_token))

    async def work(self) -> None:
        """Take steps until cancelled."""
        while True:
            await self.world.open.wait()
            await self.step()
            await asyncio.sleep(self.dice.uniform(0.02, 0.3))

    async def step(self) -> None:
        """Repeat an unanswered request, or publish, revise or cancel an alert."""
        self.alerts = {key: kept for key, kept in self.alerts.items() if kept.live or kept.waits}
        waiting = [kept for kept in self.alerts.values() if kept.waits]
        free = [kept for kept in self.alerts.values() if kept.live and not kept.waits]
        if waiting and self.dice.random() < 0.4:
            return await self.ask(self.dice.choice(waiting))
        if free and self.dice.random() < len(free) / LIVE_PER_DESK:
            chosen = self.dice.choice(free)
            return await (self.cancel if self.dice.random() < 0.5 else self.revise)(chosen)
        if len(self.alerts) < 2 * LIVE_PER_DESK:
            return await self.publish()
        return None

    async def publish(self) -> None:
        """Publish a new alert; one alert in ten ends within seconds."""
        short = self.dice.random() < 0.1
        body = alert(
            self.world.town,
            id=new_id("fault"),
            severity=self.dice.choice(SEVERITIES),
            area=self._area(),
            expires_at=stamp(seconds=self.dice.uniform(3, 6)) if short else stamp(minutes=50),
            occurred_at=stamp(seconds=-5),
            approval=approval(approved_at=stamp()),
        )
        await self._begin(body, 1, "/v1/alerts", body)

    async def ring(self) -> str:
        """Publish a short alert to everybody in town, wait until it is accepted, and return its id."""
        body = alert(
            self.world.town,
            id=new_id("bell"),
            area=[circle(self.world.town, 3 * TOWN_M)],
            expires_at=stamp(seconds=BELL_S),
        )
        await self._begin(body, 1, "/v1/alerts", body)
        await self.repeat_until_answered(unknown=0)
        return str(body["id"])

    async def revise(self, kept: Kept) -> None:
        """Publish the next revision of an alert, half of the time with another area."""
        number = kept.operation.revision + 1
        changes = {"area": self._area()} if self.dice.random() < 0.5 else {}
        request = revision_of(kept.body, number, severity=self.dice.choice(SEVERITIES), **changes)
        body = {name: value for name, value in request.items() if name != "revision"}
        await self._begin(body, number, f"/v1/alerts/{body['id']}/revisions", request)

    async def cancel(self, kept: Kept) -> None:
        """Cancel an alert."""
        number = kept.operation.revision + 1
        request = cancel_body(number, approval=approval(approved_at=stamp()))
        await self._begin(kept.body, number, f"/v1/alerts/{kept.body['id']}/cancel", request, cancels=True)

    def _area(self) -> list[Json]:
        count = self.dice.choice((1, 1, 2))
        return [circle(self.world.somewhere(), self.dice.choice((300, 800, 2_000))) for _ in range(count)]

    async def _begin(self, body: Json, number: int, path: str, request: Json, *, cancels: bool = False) -> None:
        ends = moment(body["expires_at"]).timestamp()
        before = self.alerts.get(body["id"])
        area = None if cancels else published_area(body["area"], before.operation.area if before else None)
        operation = self.world.history.invoke(body["id"], number, area, ends)
        self.alerts[body["id"]] = kept = Kept(body, operation, path, request)
        if before:
            kept.answers = before.answers
        await self.ask(kept)

    async def ask(self, kept: Kept) -> None:
        """Send the current request of an alert, now and then to two nodes at once, and note the answers."""
        count = 2 if self.dice.random() < 0.15 else 1
        nodes = self.dice.sample(self.world.nodes, min(count, len(self.world.nodes)))
        kept.tries += 1
        statuses = await asyncio.gather(*(self._post(node, kept) for node in nodes))
        if {200, 201} & set(statuses):
            kept.operation.acknowledge(time.time())
            kept.waits = False
        # A node with a wrong clock may refuse an alert as too old or ended; the request is repeated then.
        refused = [
            status
            for node, status in zip(nodes, statuses, strict=True)
            if status is not None
            and 400 <= status < 500
            and not (status in BY_THE_CLOCK and node.was_off(ANSWER_S + SLACK_S))
        ]
        if not refused:
            return
        ended = set(refused) == {422} and time.time() > kept.operation.ends  # whether all attempts came too late
        if ended:
            kept.waits = False
        else:
            name = f"{kept.operation.id} {'cancel ' * kept.operation.cancels}{kept.operation.revision}"
            self.world.refusals.append(f"{name}, try {kept.tries}: {statuses}")

    async def _post(self, node: Node, kept: Kept) -> int | None:
        started = time.monotonic()
        self.world.asking += 1
        try:
            answer = await self.api.post(f"{node.api.base_url}{kept.path}", json=kept.request)
        except httpx.TransportError:
            return None
        finally:
            self.world.asking -= 1
        took, status = time.monotonic() - started, answer.status_code
        problem = answer.json() if status >= 400 and "json" in answer.headers.get("content-type", "") else {}
        kept.last_in_log = problem.get("current")
        detail = problem.get("detail", "")
        said = f"node {self.world.nodes.index(node)}, revision {kept.operation.revision}: {status} {detail}"
        if not (kept.answers and kept.answers[-1].endswith(said)):
            kept.answers.append(f"{stamp()} {said}")
        self.world.slowest[status] = max(took, self.world.slowest.get(status, 0.0))
        return status

    async def repeat_until_answered(self, unknown: float) -> None:
        """Repeat unanswered requests until they are answered, except for the share `unknown` of them."""
        for kept in self.alerts.values():
            if kept.waits and self.dice.random() >= unknown:
                deadline = time.monotonic() + HEAL_S
                while kept.waits:
                    await self.ask(kept)
                    if time.monotonic() >= deadline and self.may_be_lost(kept):
                        break
                    assert time.monotonic() < deadline, "\n".join((f"no answer: {kept.operation}", *kept.answers))
                    await asyncio.sleep(0.2)

    def may_be_lost(self, kept: Kept) -> bool:
        """Return whether the log has lost an acknowledged entry of the alert and may have; record the loss."""
        last = kept.last_in_log
        if not self.world.history.calls.may_lose or last is None or last >= kept.operation.revision - 1:
            return False
        self.world.history.log_has_lost(kept.operation.id, last)
        return True


async def eventually(holds: Callable[[], Coroutine[Any, Any, bool]], within_s: float) -> float | None:
    """Poll until `holds` is true; return the seconds that it took, or None after `within_s` seconds."""
    started = time.monotonic()
    while time.monotonic() < started + within_s:
        if await holds():
            return time.monotonic() - started
        await asyncio.sleep(0.1)
    return None
