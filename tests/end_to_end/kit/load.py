"""Desks that publish and clients that listen, while things break; all that they do and see goes into a `History`.

A `RecordedDesk` does what the contract asks of a publisher: it repeats what it has no answer to, at any node, and goes
on with an alert only when it knows how the last step ended. A `RecordedPhone` does what the contract asks of a client:
it comes back with what it holds. Neither knows what is broken at the moment.
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
HEAL_S = 150.0  # for everything to be well again: a bound on failure
OPEN_S = 5.0  # for a connection, and for its welcome
ANSWER_S = 8.0  # for a POST
BELL_S = HEAL_S + 30
PULSE_S = 0.05
BY_THE_CLOCK = {410, 422}  # what a node may answer because its clock is wrong
LIVE_PER_DESK = 15  # so that all that is live can be listed in `holding`


class World:
    """The nodes, the town, and everybody in it. `dice` decides all that is random."""

    def __init__(self, nodes: list[Node], dice: random.Random) -> None:
        self.nodes, self.dice = nodes, dice
        self.history = History()
        self.town = ground()
        self.phones: list[RecordedPhone] = []
        self.desks: list[RecordedDesk] = []
        self.refusals: list[str] = []  # of requests that the contract allows, and a rewound log does not
        self.slowest: dict[int, float] = {}  # status -> the longest that anybody waited for it, in seconds
        self.ends: Counter[str] = Counter()  # of connections: close codes, and errors in connecting
        self._tasks: dict[str, asyncio.Task[None]] = {}
        token = nodes[0].keys.token
        later = int(time.time()) + 30 * 86_400  # for nodes whose clock is days ahead, too
        self.phone_token = token(sub="phone", scope=PHONE_SCOPE, exp=later)
        self.desk_token = token(exp=later)
        self.open = asyncio.Event()  # cleared, no desk begins anything
        self.open.set()
        self.asking = 0  # requests under way
        self.pulse: deque[float] = deque(maxlen=100)  # when this process had its turn

    def somewhere(self) -> Point:
        """A spot in town."""
        return beyond(self.town, self.dice.uniform(0, 360), self.dice.uniform(0, TOWN_M))

    # -- who is there

    def add_phone(self, name: str, habit: Habit) -> RecordedPhone:
        """A client that does as it is used to, from now on."""
        phone = RecordedPhone(name, self, habit)
        self.phones.append(phone)
        self.start(name, phone.live())
        return phone

    def add_desk(self, name: str) -> None:
        """A publisher."""
        self.desks.append(RecordedDesk(self))
        self.start(name, self.desks[-1].work())

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Do something until told to stop. An error in it fails the test."""
        self._tasks[name] = asyncio.ensure_future(work)
        if "pulse" not in self._tasks:
            self._tasks["pulse"] = asyncio.ensure_future(self._beat())

    async def _beat(self) -> None:
        while True:
            self.pulse.append(time.monotonic())
            await asyncio.sleep(PULSE_S)

    def late_s(self) -> float:
        """For how long what is read now may have waited: this process does not have the machine for itself."""
        return time.monotonic() - self.pulse[-2] if len(self.pulse) > 1 else 0.0

    async def stop(self, *names: str) -> None:
        """Stop what was started under these names, or everything."""
        tasks = [self._tasks.pop(name) for name in names or list(self._tasks)]
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    def assert_well(self) -> None:
        """Nobody has come upon something that no fault explains."""
        for name, task in self._tasks.items():
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise AssertionError(f"{name}: {error!r}") from error

    # -- asking the nodes

    async def read_states(self) -> bool:
        """Ask every node what is live; whether all have answered."""
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
        """Whether every node says that it is ready."""
        async with httpx.AsyncClient(timeout=ANSWER_S, trust_env=False) as api:
            try:
                answers = [await api.get(f"{node.api.base_url}/readyz") for node in self.nodes]
            except httpx.TransportError:
                return False
        return all(answer.status_code == 200 for answer in answers)

    def read_phones(self) -> None:
        """Every client's last read."""
        self.history.finals = [phone.final() for phone in self.phones]


# -- clients


@dataclass(frozen=True)
class Habit:
    """What a client does of itself: times in seconds, 0 for never."""

    moves: float = 0.0  # every so often, to somewhere else
    leaves: float = 0.0  # after so long, to come back at once
    sleeps: bool = False  # leaves soon, and does not come back until it is woken
    node: int | None = None  # the node that it prefers; any, if None


class RecordedPhone:
    """A client: what it holds, and how it comes back."""

    def __init__(self, name: str, world: World, habit: Habit) -> None:
        self.name, self.world, self.habit = name, world, habit
        self.dice = random.Random(world.dice.random())
        self.fmt = self.dice.choice(FORMATS)
        self.held: dict[str, tuple[int, float]] = {}  # id -> revision, when it ends
        self.over: dict[str, None] = {}  # cancelled: a node that is behind may still send them
        self.places = self._places()
        self.welcomed = asyncio.Event()
        self.awake = asyncio.Event()
        self._refs = itertools.count(1)

    def _places(self) -> list[Json]:
        count = self.dice.choice((1, 1, 1, 2))
        return [place(self.world.somewhere(), accuracy_m=self.dice.choice((0, 50, 300))) for _ in range(count)]

    def final(self) -> Final:
        """What it holds now."""
        self._drop_expired()
        held = {alert_id: revision for alert_id, (revision, _) in self.held.items()}
        return Final(self.name, self.places, held, time.time())

    def _drop_expired(self) -> None:
        self.held = {key: held for key, held in self.held.items() if held[1] > time.time()}

    async def live(self) -> None:
        """Connect, listen, leave or lose the connection, come back."""
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
        """Wake up, stay where it is, and connected."""
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
    """An alert of a desk: its newest body, and what it asked for last."""

    body: Json
    operation: Operation
    path: str
    request: Json
    waits: bool = True  # for the answer to that
    tries: int = 0

    @property
    def live(self) -> bool:
        return not self.operation.cancels and self.operation.ends > time.time() + 60


@dataclass
class RecordedDesk:
    """A publisher, the only one that writes its alerts."""

    world: World
    alerts: dict[str, Kept] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.world.dice.random())
        self.api = httpx.AsyncClient(timeout=ANSWER_S, trust_env=False, headers=bearer(self.world.desk_token))

    async def work(self) -> None:
        """One step after the other."""
        while True:
            await self.world.open.wait()
            await self.step()
            await asyncio.sleep(self.dice.uniform(0.02, 0.3))

    async def step(self) -> None:
        """Repeat what has no answer, or do something new."""
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
        """A new alert; one in ten ends within seconds."""
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
        """A short alert to everybody in town, which is accepted when this returns; its id."""
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
        """The next revision, perhaps of another area."""
        number = kept.operation.revision + 1
        changes = {"area": self._area()} if self.dice.random() < 0.5 else {}
        request = revision_of(kept.body, number, severity=self.dice.choice(SEVERITIES), **changes)
        body = {name: value for name, value in request.items() if name != "revision"}
        await self._begin(body, number, f"/v1/alerts/{body['id']}/revisions", request)

    async def cancel(self, kept: Kept) -> None:
        """The end."""
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
        await self.ask(kept)

    async def ask(self, kept: Kept) -> None:
        """Send the request, now and then to two nodes at once, and take what is answered."""
        count = 2 if self.dice.random() < 0.15 else 1
        nodes = self.dice.sample(self.world.nodes, min(count, len(self.world.nodes)))
        kept.tries += 1
        statuses = await asyncio.gather(*(self._post(node, kept) for node in nodes))
        if {200, 201} & set(statuses):
            kept.operation.acknowledge(time.time())
            kept.waits = False
        # By a clock that is wrong an alert is too old or has ended. That is no answer: it is asked for again.
        refused = [
            status
            for node, status in zip(nodes, statuses, strict=True)
            if status is not None
            and 400 <= status < 500
            and not (status in BY_THE_CLOCK and node.was_off(ANSWER_S + SLACK_S))
        ]
        if not refused:
            return
        ended = set(refused) == {422} and time.time() > kept.operation.ends  # it came too late, and so was the repeat
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
        self.world.slowest[status] = max(took, self.world.slowest.get(status, 0.0))
        return status

    async def repeat_until_answered(self, unknown: float) -> None:
        """Repeat what has no answer, but for a share of it that nobody will ever know of."""
        for kept in self.alerts.values():
            if kept.waits and self.dice.random() >= unknown:
                deadline = time.monotonic() + HEAL_S
                while kept.waits:
                    await self.ask(kept)
                    assert time.monotonic() < deadline, f"no answer: {kept.operation}, {self.world.refusals[-1:]}"
                    await asyncio.sleep(0.2)


async def eventually(holds: Callable[[], Coroutine[Any, Any, bool]], within_s: float) -> float | None:
    """Poll until something is true: how long it took in seconds, or None if it did not come true in time."""
    started = time.monotonic()
    while time.monotonic() < started + within_s:
        if await holds():
            return time.monotonic() - started
        await asyncio.sleep(0.1)
    return None
