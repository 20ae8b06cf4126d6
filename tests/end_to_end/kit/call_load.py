"""Dispatchers that request calls and responders that answer, recorded in a `CallHistory` while faults happen.

A `RecordedDispatcher` repeats every unanswered request at any node, and changes a call only when it knows the result of
the previous request. A `RecordedResponder` behaves as the contract requires of a client: it reconnects with the list of
calls that it shows, repeats an unanswered `accept`, and forgets a place when it receives a `standdown` (rules RU1 to
RU3).
"""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from end_to_end.kit.alerts import Json, circle, new_id, place
from end_to_end.kit.call_history import Asked, CallFinal, CallHistory, CallVisit, Heard, Said, Terms
from end_to_end.kit.dispatcher import DISPATCH_SCOPE
from end_to_end.kit.earth import Point, published_area
from end_to_end.kit.exact_places import files, found, needles
from end_to_end.kit.history import SLACK_S
from end_to_end.kit.keys import PHONE_SCOPE, bearer
from end_to_end.kit.load import ANSWER_S, BY_THE_CLOCK, HEAL_S, OPEN_S, World
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import FORMATS
from end_to_end.kit.times import moment, stamp
from end_to_end.kit.wire import ABNORMAL, decode, encode
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

CALLS = """
[calls.cardiac_arrest]
title = "Cardiac arrest: CPR needed"
quals = ["cpr", "medic"]
residence_quals = ["medic"]
rings_m = [500, 1500, 6000]
enough = 3
seats = ["cpr", "aed"]
answer_s = 5
rest_s = 0
"""
TERMS = Terms({"public": frozenset({"cpr", "medic"}), "residence": frozenset({"medic"})}, (500, 1_500, 6_000), 2)
QUALS = ("cpr", "medic")
AGAIN_S = 5.0  # an unanswered `accept` is repeated after this time (RU3)
TICK_S = 0.2
OFF_S = 20.0  # seconds after a node's clock was wrong in which the node may still refuse a connection
AT_ONCE = 16  # concurrent reads at a node; half an hour of faults makes more than a thousand calls
OPEN_CALLS = 4  # the most open calls of one dispatcher

_houses = itertools.count(1)


def exact_place(spot: Point, kind: str) -> Json:
    """Return an exact place with an address that no other call has."""
    number = next(_houses)
    return {
        "lat": spot[0],
        "lng": spot[1],
        "kind": kind,
        "address": f"Hinter den Gaerten {number}",
        "access": f"Klingel Obermoser {number}\nSchluesselkasten {number}",
    }


# -- responders


@dataclass(frozen=True)
class Manners:
    """The behaviour of a responder: shares are of all calls or seats, times are in seconds, and 0 means never."""

    accepts: float = 0.0
    declines: float = 0.0
    gives_back: float = 0.0  # share of its seats that it gives back
    moves: float = 0.0  # average seconds between moves to another place
    leaves: float = 0.0  # seconds until it disconnects and reconnects at once
    stays: bool = False  # whether it repeats its place, to be notified after its seat in another call ends (RQ7)


class RecordedResponder:
    """A qualified responder with one device."""

    def __init__(
        self,
        name: str,
        world: World,
        sub: str,
        manners: Manners,
        *,
        quals: tuple[str, ...] = QUALS,
        node: int | None = None,
        spot: Point | None = None,
    ) -> None:
        """Create a responder.

        `node`: the number of the node to use; any node if None. `spot`: the first place; a random place if None.
        """
        self.name, self.world, self.sub, self.manners = name, world, sub, manners
        self.quals, self.node, self.spot = frozenset(quals), node, spot
        self.dice = random.Random(world.dice.random())
        self.fmt = self.dice.choice(FORMATS)
        self.here: Json | None = self._somewhere() if spot is None else place(spot, here=True)
        self.shown: dict[str, Json] = {}  # the newest `call` or `task` message of each call
        self.wanted: dict[str, float] = {}  # calls with an unanswered `accept`, and when to repeat it
        self.deaf: set[str] = set()  # the calls that it has declined
        self.answers: dict[str, list[Json]] = {}  # tasks and standdowns, by call
        self.frames: set[bytes] = set()  # all received frames except tasks
        self.welcomed = asyncio.Event()
        self._plans: list[tuple[float, str, str]] = []  # when to send which message about which call
        self._refs = itertools.count(1)

    @property
    def history(self) -> CallHistory:
        return self.world.history.calls

    def want(self, call_id: str) -> None:
        """Accept this call at the next opportunity."""
        self.wanted[call_id] = 0.0

    def settle_down(self) -> None:
        """Accept nothing more, and stay connected."""
        self.manners = Manners(stays=True)
        self._plans.clear()

    def final(self) -> CallFinal:
        """Return what the responder shows now."""
        self._forget()
        return CallFinal(self.name, self.sub, self.quals, self.here, dict(self.shown), set(self.deaf), time.time())

    async def live(self) -> None:
        """Connect and listen; after the connection ends, connect again."""
        while True:
            node = self.world.nodes[self.node] if self.node is not None else self.dice.choice(self.world.nodes)
            try:
                await self._visit(node)
            except ConnectionClosed as closed:
                code = str(closed.rcvd.code if closed.rcvd else ABNORMAL)
                self.world.ends[f"{code} by a wrong clock" if node.was_off(OFF_S) else code] += 1
            except (OSError, TimeoutError, WebSocketException) as error:
                self.world.ends[type(error).__name__] += 1
            self.welcomed.clear()
            await asyncio.sleep(self.dice.uniform(0.05, 0.5))

    def _somewhere(self) -> Json | None:
        if self.dice.random() < 0.1:
            return None
        return place(self.world.somewhere(), here=True, accuracy_m=self.dice.choice((0, 50, 800)))

    def _forget(self) -> None:
        def over(message: Json) -> bool:
            return moment(message.get("call", message)["expires_at"]).timestamp() <= time.time()

        self.shown = {call_id: message for call_id, message in self.shown.items() if not over(message)}

    async def _visit(self, node: Node) -> None:
        async with connect(
            f"ws://127.0.0.1:{node.stream_port}/v1/stream",
            subprotocols=[f"geocast.v1.{self.fmt}"],  # type: ignore[list-item]
            compression=None,
            ping_interval=None,
            open_timeout=OPEN_S,
            close_timeout=1,
            proxy=None,
        ) as socket:
            self._forget()
            holding = {call_id: message.get("call", message)["revision"] for call_id, message in self.shown.items()}
            now = int(time.time())
            token = node.keys.token(sub=self.sub, iat=now, exp=now + 3_600, scope=PHONE_SCOPE, quals=sorted(self.quals))
            await self._say(socket, type="hello", token=token, places=_places(self.here), holding=holding)
            visit = self.history.visit(self.name, self.sub, self.quals, holding)
            visit.events.append(self.here)
            async with asyncio.timeout(OPEN_S):
                welcome = self._read(await socket.recv())
            assert welcome["type"] == "welcome", welcome
            if frozenset(welcome.get("quals", ())) != self.quals:
                assert node.was_off(OFF_S), f"{self.name}: its qualifications do not count: {welcome}"
                return
            self.wanted = dict.fromkeys(self.wanted, 0.0)
            self.welcomed.set()
            await self._listen(socket, visit, node)

    async def _listen(self, socket: ClientConnection, visit: CallVisit, node: Node) -> None:
        going: dict[int, Json | None] = {}
        started = moved = time.monotonic()
        while True:
            await self._do_what_is_due(socket, visit)
            if self.manners.leaves and time.monotonic() > started + self.manners.leaves:
                return
            if not going and self._moves(time.monotonic() - moved):
                moved, ref = time.monotonic(), next(self._refs)
                going[ref] = self.here if self.manners.stays else self._somewhere()
                await self._say(socket, type="move", ref=ref, places=_places(going[ref]))
            try:
                async with asyncio.timeout(TICK_S):
                    message = self._read(await socket.recv())
            except TimeoutError:
                continue
            if message["type"] == "ok":
                self.here = going.pop(message["ref"])
                visit.events.append(self.here)
            elif message["type"] in ("call", "task", "standdown"):
                late_s = self.world.late_s()
                visit.events.append(Heard(message, time.time(), node.was_off(SLACK_S + late_s), late_s))
                self._take(message)
            else:
                assert message["type"] in ("alert", "cancel"), message

    def _moves(self, since_s: float) -> bool:
        """Return whether to send the place again, `since_s` seconds after the last time."""
        every = self.manners.moves * self.dice.uniform(0.5, 1.5)
        return since_s > 0.5 if self.manners.stays else 0 < every < since_s

    def _take(self, message: Json) -> None:
        if message["type"] == "call":
            self._take_ring(message)
            return
        call_id = message["id"]
        self.answers.setdefault(call_id, []).append(message)
        self.wanted.pop(call_id, None)
        if message["type"] == "task":
            self.shown[call_id] = message
            if self.dice.random() < self.manners.gives_back:
                self._plan(self.dice.uniform(0.5, 4), "decline", call_id)
            elif self.manners.accepts:
                self._plan(self.dice.uniform(0.2, 2), "report", call_id)
        elif message["reason"] not in ("far", "held-off"):  # the call is still open to it; only this accept was refused
            self.shown.pop(call_id, None)
            if message["reason"] == "left":  # perhaps declined on another device; this one ignores the call too
                self.deaf.add(call_id)

    def _take_ring(self, message: Json) -> None:
        call_id = message["call"]["id"]
        if call_id in self.deaf:
            return
        self.shown[call_id] = message
        does = self.dice.random()
        if does < self.manners.accepts:
            self._plan(self.dice.uniform(0, 1), "accept", call_id)
        elif does < self.manners.accepts + self.manners.declines:
            self._plan(self.dice.uniform(0, 1), "decline", call_id)

    def _plan(self, after_s: float, what: str, call_id: str) -> None:
        self._plans.append((time.monotonic() + after_s, what, call_id))

    async def _do_what_is_due(self, socket: ClientConnection, visit: CallVisit) -> None:
        now = time.monotonic()
        due = [plan for plan in self._plans if plan[0] <= now]
        self._plans = [plan for plan in self._plans if plan[0] > now]
        for _, what, call_id in due:
            if what == "accept":
                self.want(call_id)
            elif what == "report":
                await self._say(socket, type="report", id=call_id, state="arrived")
            else:
                self.deaf.add(call_id)
                self.wanted.pop(call_id, None)
                self.shown.pop(call_id, None)
                visit.events.append(Said("decline", call_id))
                await self._say(socket, type="decline", id=call_id)
        for call_id, at in list(self.wanted.items()):
            if at <= now:
                self.wanted[call_id] = now + AGAIN_S
                visit.events.append(Said("accept", call_id))
                await self._say(socket, type="accept", id=call_id, eta_s=240)

    async def _say(self, socket: ClientConnection, **message: Any) -> None:
        await socket.send(encode(self.fmt, message), text=self.fmt == "json")

    def _read(self, frame: str | bytes) -> Json:
        data = frame.encode() if isinstance(frame, str) else frame
        message = decode(self.fmt, data)
        if message["type"] != "task":
            self.frames.add(data)
        return message


def _places(here: Json | None) -> list[Json]:
    return [] if here is None else [here]


# -- dispatchers


@dataclass
class Kept:
    """A call of a dispatcher: its newest body, the number of its content, and the last request."""

    asked: Asked
    body: Json
    path: str
    request: Json
    content: int = 1
    waits: bool = True


@dataclass
class RecordedDispatcher:
    """A dispatcher that opens, corrects and ends calls; nobody else changes them."""

    world: World
    calls: dict[str, Kept] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.world.dice.random())
        later = int(time.time()) + 30 * 86_400  # long enough for nodes whose clock is days ahead
        token = self.world.nodes[0].keys.token(sub="cad-3", scope=DISPATCH_SCOPE, exp=later)
        self.api = httpx.AsyncClient(timeout=ANSWER_S, trust_env=False, headers=bearer(token))
        self.answers: list[bytes] = []  # bodies of the answers to its requests
        self.reads: list[bytes] = []  # bodies of the states of its calls

    async def work(self) -> None:
        """Take steps until cancelled."""
        while True:
            await self.world.open.wait()
            await self.step()
            await asyncio.sleep(self.dice.uniform(0.1, 0.6))

    async def step(self) -> None:
        """Repeat an unanswered request, or change, end or open a call."""
        live = [kept for kept in self.calls.values() if not kept.waits and self._is_open(kept)]
        waiting = [kept for kept in self.calls.values() if kept.waits]
        if waiting and self.dice.random() < 0.5:
            await self.ask(self.dice.choice(waiting))
        elif live and self.dice.random() < len(live) / OPEN_CALLS:
            await (self.end if self.dice.random() < 0.6 else self.correct)(self.dice.choice(live))
        elif len(live) + len(waiting) < OPEN_CALLS:
            await self.open()

    @staticmethod
    def _is_open(kept: Kept) -> bool:
        return kept.asked.ended == float("inf") and kept.asked.ends > time.time() + 2 * SLACK_S

    async def open(self, spot: Point | None = None, kind: str | None = None, *, lasts_s: float | None = None) -> Kept:
        """Open a call and return it; by default one call in ten expires within seconds."""
        short = self.dice.random() < 0.1
        lasts_s = lasts_s or (self.dice.uniform(4, 8) if short else 1_500)
        where = exact_place(spot or self.world.somewhere(), kind or self.dice.choice(("public", "public", "residence")))
        body = {
            "id": new_id("help"),
            "category": "cardiac_arrest",
            "headline": "Adult, not breathing",
            "occurred_at": stamp(seconds=-5),
            "expires_at": stamp(seconds=lasts_s),
            "place": where,
        }
        near = published_area([circle((where["lat"], where["lng"]), 0)])[0]
        asked = self.world.history.calls.open(body["id"], where, near, moment(body["expires_at"]).timestamp())
        kept = self.calls[body["id"]] = Kept(asked, body, "/v1/calls", body)
        await self.ask(kept)
        return kept

    async def correct(self, kept: Kept) -> None:
        """Move a call to a place nearby."""
        spot = self.world.somewhere()
        kept.body = kept.body | {"place": exact_place(spot, kept.asked.kind)}
        kept.asked.places.append(kept.body["place"])
        kept.asked.nears.append(published_area([circle(spot, 0)], [kept.asked.nears[-1]])[0])
        kept.path, kept.waits = f"/v1/calls/{kept.asked.id}/revisions", True
        kept.request = kept.body | {"replaces": kept.content}
        await self.ask(kept)

    async def end(self, kept: Kept) -> None:
        """End a call."""
        kept.path, kept.waits = f"/v1/calls/{kept.asked.id}/end", True
        kept.request = {"reason": "The crew is there."}
        await self.ask(kept)

    async def ask(self, kept: Kept) -> None:
        """Send the current request of a call, now and then to two nodes at once, and note the answers."""
        asked, ends = kept.asked, kept.path.endswith("/end")
        asked.waits = True
        asked.may_have_ended |= ends
        count = 2 if self.dice.random() < 0.15 else 1
        nodes = self.dice.sample(self.world.nodes, min(count, len(self.world.nodes)))
        answers = await asyncio.gather(*(self._post(node, kept) for node in nodes))
        for node, answer in zip(nodes, answers, strict=True):
            if answer is None or answer.status_code >= 500:
                continue
            if answer.status_code in (200, 201):
                kept.waits = asked.waits = False
                asked.opened = True
                if ends:
                    asked.ended = min(asked.ended, time.time())
                else:
                    kept.content = answer.json()["revision"]
            elif answer.status_code in self._too_late() and time.time() > asked.ends:
                kept.waits = False
            elif not (answer.status_code in BY_THE_CLOCK and node.was_off(ANSWER_S + SLACK_S)):
                self.world.refusals.append(f"{asked.id} {kept.path}: {answer.status_code} {answer.text}")

    def _too_late(self) -> set[int]:
        """Return the statuses that a node may answer about an expired call.

        A log that may lose entries may have lost the call for good (Rule 2).
        """
        return BY_THE_CLOCK | ({404} if self.world.history.calls.may_lose else set())

    async def _post(self, node: Node, kept: Kept) -> httpx.Response | None:
        started = time.monotonic()
        self.world.asking += 1
        try:
            answer = await self.api.post(f"{node.api.base_url}{kept.path}", json=kept.request)
        except httpx.TransportError:
            return None
        finally:
            self.world.asking -= 1
        self.answers.append(answer.content)
        took, status = time.monotonic() - started, answer.status_code
        self.world.slowest[status] = max(took, self.world.slowest.get(status, 0.0))
        return answer

    async def repeat_until_answered(self) -> None:
        """Repeat the requests of all calls until each is answered."""
        for kept in self.calls.values():
            deadline = time.monotonic() + HEAL_S
            while kept.waits:
                await self.ask(kept)
                assert time.monotonic() < deadline, f"no answer: {kept.asked}, {self.world.refusals[-1:]}"
                await asyncio.sleep(0.2)

    async def states(self) -> dict[str, dict[str, Json | None]]:
        """Return each node's state of each call, leaving out nodes that did not answer in time."""
        said: dict[str, dict[str, Json | None]] = {}
        turns = asyncio.Semaphore(AT_ONCE)
        for node in self.world.nodes:
            name = str(node.api.base_url)
            with contextlib.suppress(httpx.TransportError):
                answers = await asyncio.gather(*(self._get(f"{name}/v1/calls/{each}", turns) for each in self.calls))
                self.reads += [answer.content for answer in answers]
                if all(answer.status_code in (200, 404) for answer in answers):
                    maps = [answer.json() if answer.status_code == 200 else None for answer in answers]
                    said[name] = dict(zip(self.calls, maps, strict=True))
        return said

    async def _get(self, url: str, turns: asyncio.Semaphore) -> httpx.Response:
        async with turns:
            return await self.api.get(url)


async def read_calls(
    world: World, dispatchers: Sequence[RecordedDispatcher], responders: Sequence[RecordedResponder]
) -> bool:
    """Record every node's state of every call and what every responder shows; return whether all nodes answered."""
    asked_at, finals = time.time(), [responder.final() for responder in responders]
    states: dict[str, dict[str, Json | None]] = {str(node.api.base_url): {} for node in world.nodes}
    for dispatcher in dispatchers:
        said = await dispatcher.states()
        if len(said) < len(world.nodes):
            return False
        for node, theirs in said.items():
            states[node] |= theirs
    history = world.history.calls
    history.asked_at, history.finals, history.states = asked_at, finals, states
    return True


def leaks(history: CallHistory, responders: Sequence[RecordedResponder], folders: Sequence[Path]) -> list[str]:
    """Return a sentence for each frame, other than `task`, and each file that contains an exact place."""
    wanted = {needle for asked in history.asked.values() for where in asked.places for needle in needles(where)}
    # Responders get the same bytes, so the union of their sets is much smaller than all frames.
    frames = b"\0".join(set().union(*(responder.frames for responder in responders)))
    in_frames = [f"a frame other than a task has {needle!r}" for needle in found(frames, wanted)]
    return in_frames + [
        f"{path.name} has {needle!r}" for path, content in files(*folders) for needle in found(content, wanted)
    ]
