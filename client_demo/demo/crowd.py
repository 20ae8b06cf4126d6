"""A process that runs simulated subscribers (`python -m client_demo.demo.crowd`), controlled by the demo.

Commands come as JSON lines on stdin, and are carried out one after the other. Each is answered by one line on stdout.

    connect  {url, subscribers}      connect these subscribers; lines {"connected": n} report the progress
    freeze                           stop all moves, and wait until every move that was sent has its `ok`
    thaw                             let the moving subscribers move again
    settle   {id, revision, area}    wait at most 2 s until all who should get this revision have it (`area` is null for
                                     a cancellation)
    tunnel   {ids, most}             drop connections of some subscribers who have one of these alerts, without a close
                                     frame
    emerge                           reconnect those subscribers; they say in `holding` which alerts they have
    arrivals                         return the deliveries since the last such command, and the number of subscribers,
                                     both by H3 cell
    search   {needles}               from now on, search every frame for these bytes (the needles), each given as hex
    hesitate {seconds}               from now on, accept calls this much later
    stood    {id}                    wait at most 2 s until all who were called got a standdown at the end of the call
    report                           return the record of each subscriber, a list of events
    forget                           delete the records (used when the demo goes on after its verdict)

The events of a record, in the order in which they happened, each with the time in ns of the monotonic clock:

    ["hello", at, step, held]  got `welcome`. `step` is the number of the list of places where it was, and `held` are
                               the alerts that it already had (id -> revision)
    ["move", at, step]         a move was sent          ["ok", at, step]              and took effect
    ["alert", at, id, revision]                         ["cancel", at, id, revision]
    ["lost", at]               the connection ended
    ["call", at, id, revision]                          ["task", at, id, seat]
    ["standdown", at, id, reason]
    ["place", at, type]        a frame of this type contained one of the needles

A subscriber that has an `answer` is a responder. After `after_s` seconds, it answers each call with the message in
`says`, which is accept, decline or empty (no answer). If it gets a task, it reports after `there_s` seconds that it has
arrived.

The process does little work, on purpose: on a small machine it shares the cores with the node, and its own work while
frames arrive would add to the measured latency. If many subscribers receive the same bytes, they are decoded once.
"""

import asyncio
import contextlib
import gc
import json
import logging
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import h3
import uvloop
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI, parse_uri

from client_demo.python.geo import Place, is_inside
from client_demo.python.wire import WIRES, Message

AT_ONCE = 64  # handshakes at a time: more would only wait in the listener's backlog
CONNECT_S = 10.0
ANSWER_S = 5.0  # the longest wait for the answer to a move
SETTLE_S = 2.0
BEFORE_COUNTING_S = 0.1  # so that counting does not delay frames that are just arriving
MOVE_EVERY_S, TICK_S = 2.0, 0.05
MAP_RESOLUTION = 9  # H3 cells of about 350 m across
MAX_LINE = 1 << 26
COUNTED = ("alert", "cancel", "call", "task", "standdown")  # the messages that `live` in `welcome` and `ok` counts

# The WebSocket library gets this silent logger, because logging each frame would cause most of the load.
_quiet = logging.getLogger("client_demo.demo.crowd.frames")
_quiet.setLevel(logging.ERROR)


class Subscriber(asyncio.Protocol):
    """One simulated subscriber, which has at most one connection at a time."""

    __slots__ = (
        "_answer",
        "_asked",
        "_behind",
        "_crowd",
        "_events",
        "_leaving",
        "_socket",
        "_steps",
        "_token",
        "_transport",
        "_wire",
        "held",
        "ready",
        "step",
    )

    def __init__(
        self,
        crowd: "Crowd",
        wire: str,
        steps: Sequence[Sequence[dict[str, Any]]],
        token: str | None = None,
        answer: dict[str, Any] | None = None,
    ) -> None:
        self._crowd, self._wire = crowd, WIRES["json" if wire == "json" else "msgpack"]
        self._steps = [[Place.from_map(place) for place in places] for places in steps]
        self._token, self._answer = token, answer
        self._events: list[tuple[Any, ...]] = []
        self._asked: int | None = None  # the step of the unanswered move
        self._behind = 0  # number of announced messages that have not come yet
        self._leaving = False
        self._transport: asyncio.Transport | None = None
        self.step = 0
        self.held: dict[str, int] = {}

    @property
    def is_connected(self) -> bool:
        """Whether the subscriber is connected and has received the messages that its welcome announced."""
        return self._transport is not None and not self._leaving and self.ready.done()

    @property
    def is_mover(self) -> bool:
        """Whether the subscriber ever moves, because it has more than one step (list of places)."""
        return len(self._steps) > 1

    @property
    def is_responder(self) -> bool:
        """Whether the subscriber is a responder, who is called to people in need."""
        return self._answer is not None

    @property
    def is_moving(self) -> bool:
        """Whether the subscriber has sent a `move` message that the node has not answered yet."""
        return self._asked is not None

    @property
    def places(self) -> list[Place]:
        """The subscriber's present places. While a `move` is not answered, these are the places that it had before."""
        return self._steps[self.step]

    def record(self) -> list[tuple[Any, ...]]:
        """Return the events recorded so far, oldest first."""
        return self._events

    async def connect(self, host: str, port: int) -> None:
        """Connect or reconnect; wait for the `welcome`, and for the messages that it announces."""
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        await loop.create_connection(lambda: self, host, port)
        await self.ready

    def move(self) -> None:
        """Send a `move` to the next list of places, or from the last list to the first.

        Do nothing while an earlier `move` is not answered.
        """
        if self._asked is not None or not self.is_connected:
            return
        self._asked = (self.step + 1) % len(self._steps)
        places = [place.to_map() for place in self._steps[self._asked]]
        self._note("move", self._asked)
        self._send({"type": "move", "ref": self._asked, "places": places})

    def vanish(self) -> None:
        """Drop the connection without a close frame, as if the network were lost."""
        assert self._transport is not None
        self._leaving = True
        self._transport.abort()

    # ---- the methods that asyncio calls ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the WebSocket handshake."""
        self._transport = cast(asyncio.Transport, transport)
        self._leaving, self._asked, self._behind = False, None, 0
        self._socket = ClientProtocol(
            self._crowd.uri, subprotocols=[Subprotocol(self._wire.subprotocol)], logger=_quiet
        )
        self._socket.send_request(self._socket.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Handle received data, and record the time at which it arrived."""
        at = time.monotonic_ns()
        self._socket.receive_data(data)
        for event in self._socket.events_received():
            if isinstance(event, Response):
                self._shake_hands()
            elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY):
                frame = bytes(event.data)
                message = self._crowd.decode(self._wire.decode, frame)
                if self._crowd.has_needle(frame):
                    self._events.append(("place", at, message["type"]))
                self._take(message, at)
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        """Record that the connection has ended. Count a fault, unless `vanish` has ended it on purpose."""
        self._transport = None
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(str(error or self._socket.handshake_exc or "closed")))
            return
        self._note("lost")
        if not self._leaving:
            self._crowd.faults[f"a connection was closed with {self._socket.close_code}"] += 1
        if self._asked is not None:
            self._asked = None
            self._crowd.answered()

    # ---- sending and handling messages -----------------------------------------------------------------------

    def _shake_hands(self) -> None:
        if self._socket.handshake_exc is not None:
            assert self._transport is not None
            self._transport.close()
            return
        hello: Message = {"type": "hello", "places": [place.to_map() for place in self.places]}
        optional = {"holding": self.held, "token": self._token}
        self._send(hello | {name: value for name, value in optional.items() if value})

    def _take(self, message: Message, at: int) -> None:
        what = message["type"]
        if self._behind and what not in COUNTED:
            self._crowd.faults[f"{what} came before all announced messages"] += 1
        match what:
            case "alert":
                alert = message["alert"]
                self._hold(at, alert["id"], alert["revision"])
            case "cancel":
                self.held.pop(message["id"], None)
                self._arrived("cancel", at, message["id"], message["revision"])
            case "call" | "task" | "standdown":
                self._called(what, at, message)
            case "ok":
                self.step = message["ref"]
                self._events.append(("ok", at, self.step))
                self._announced(message["live"])
            case "welcome":
                self._events.append(("hello", at, self.step, dict(self.held)))
                self._announced(message["live"])
            case "error":
                self._crowd.faults[f"a move was refused: {message['code']}"] += 1

    def _called(self, what: str, at: int, message: Message) -> None:
        call_id = message["call"]["id"] if what == "call" else message["id"]
        answer = self._answer or {}
        says = answer.get("says", "")
        match what:
            case "call":
                self._events.append((what, at, call_id, message["call"]["revision"]))
                if says:
                    more_s = self._crowd.hesitates_s if says == "accept" else 0.0
                    self._later(answer["after_s"] + more_s, {"type": says, "id": call_id})
                if says != "decline":
                    self._crowd.owes(call_id, self)
            case "task":
                self._events.append((what, at, call_id, message["seat"]))
                self._later(answer.get("there_s", 0.0), {"type": "report", "id": call_id, "state": "arrived"})
                self._crowd.owes(call_id, self)
            case _:
                self._events.append((what, at, call_id, message["reason"]))
                if message["reason"] == "over":
                    self._crowd.stood_down(call_id, self)
        self._counted()

    def _later(self, seconds: float, message: Message) -> None:
        asyncio.get_running_loop().call_later(seconds, self._send_if_connected, message)

    def _send_if_connected(self, message: Message) -> None:
        if self.is_connected:
            self._send(message)

    def _announced(self, messages: int) -> None:
        self._behind = messages
        if not messages:
            self._caught_up()

    def _caught_up(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)
        elif self._asked is not None:
            self._asked = None
            self._crowd.answered()

    def _hold(self, at: int, alert_id: str, revision: int) -> None:
        self.held[alert_id] = max(revision, self.held.get(alert_id, 0))
        self._arrived("alert", at, alert_id, revision)

    def _arrived(self, what: str, at: int, alert_id: str, revision: int) -> None:
        self._events.append((what, at, alert_id, revision))
        self._crowd.arrived(self, at, alert_id, revision)
        self._counted()

    def _counted(self) -> None:
        """Count a received message as one of those whose number the last `welcome` or `ok` announced."""
        if self._behind:
            self._behind -= 1
            if not self._behind:
                self._caught_up()

    def _note(self, what: str, *rest: object) -> None:
        self._events.append((what, time.monotonic_ns(), *rest))

    def _send(self, message: Message) -> None:
        payload = self._wire.encode(message)
        if isinstance(payload, str):
            self._socket.send_text(payload.encode())
        else:
            self._socket.send_binary(payload)
        self._flush()

    def _flush(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        for data in self._socket.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()


class Crowd:
    """All subscribers that this process simulates, and a method for each command."""

    def __init__(self) -> None:
        self.uri: WebSocketURI
        self.faults: Counter[str] = Counter()
        self._all: list[Subscriber] = []
        self._movers: list[Subscriber] = []
        self._tunnel: list[Subscriber] = []
        self._got: Counter[tuple[str, int]] = Counter()
        self._awaited: tuple[str, int] | None = None
        self._missing: set[Subscriber] = set()
        self._settled, self._still = asyncio.Event(), asyncio.Event()
        self._walking: asyncio.Task[None] | None = None
        self._decoded: dict[bytes, Message] = {}
        self._areas: dict[tuple[str, int], list[Any]] = {}  # (id, revision) -> the received areas, one for each format
        self._arrivals: list[tuple[list[Place], int, str, int]] = []  # places, time (ns), id, revision
        self._needles: list[bytes] = []
        self._searched = 0  # number of searched frames
        self.hesitates_s = 0.0  # how much later than `after_s` calls are accepted
        self._owed: dict[str, set[Subscriber]] = {}  # call -> subscribers that still lack its standdown
        self._all_stood = asyncio.Event()

    # ---- the methods that subscribers call -------------------------------------------------------------------

    def decode(self, decode: Callable[[str | bytes], Message], data: bytes) -> Message:
        """Return the message in a frame.

        Frames with an `alert` or a `cancel` are the same for many subscribers, so they are decoded only once.
        """
        known = self._decoded.get(data)
        if known is None:
            known = decode(data)
            if known["type"] in ("alert", "cancel"):
                self._decoded[data] = known
            if known["type"] == "alert":
                alert = known["alert"]
                self._areas.setdefault((alert["id"], alert["revision"]), []).append(alert["area"])
        return known

    def arrived(self, subscriber: Subscriber, at: int, alert_id: str, revision: int) -> None:
        """Record that a subscriber received this revision of an alert at the time `at` (ns)."""
        key = alert_id, revision
        self._got[key] += 1
        self._arrivals.append((subscriber.places, at, alert_id, revision))
        if key == self._awaited:
            self._missing.discard(subscriber)
            if not self._missing:
                self._settled.set()

    def has_needle(self, frame: bytes) -> bool:
        """Return whether the frame contains one of the byte strings that the command `search` has set."""
        if not self._needles:
            return False
        self._searched += 1
        return any(needle in frame for needle in self._needles)

    def owes(self, call_id: str, subscriber: Subscriber) -> None:
        """Record that a subscriber must receive a standdown at the end of a call."""
        self._owed.setdefault(call_id, set()).add(subscriber)

    def stood_down(self, call_id: str, subscriber: Subscriber) -> None:
        """Record that a subscriber has received its standdown at the end of a call."""
        self._owed.get(call_id, set()).discard(subscriber)
        self._all_stood.set()

    def answered(self) -> None:
        """Wake the command `freeze` if every `move` has been answered."""
        if self._walking is None and not any(mover.is_moving for mover in self._movers):
            self._still.set()

    # ---- the commands of the demo ----------------------------------------------------------------------------

    async def connect(self, url: str, subscribers: Sequence[dict[str, Any]]) -> Message:
        """Connect all subscribers. In the answer, `order` lists the numbers of those that are connected."""
        self.uri = parse_uri(url)
        everybody = [Subscriber(self, **subscriber) for subscriber in subscribers]
        gate = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._connect(subscriber, gate) for subscriber in everybody))
        self._all = [subscriber for subscriber in everybody if subscriber.is_connected]
        self._movers = [subscriber for subscriber in self._all if subscriber.is_mover]
        gc.collect()
        gc.freeze()  # a full garbage collection of all these objects would show as latency
        return {"order": [number for number, subscriber in enumerate(everybody) if subscriber.is_connected]}

    async def _connect(self, subscriber: Subscriber, gate: asyncio.Semaphore) -> None:
        async with gate:
            try:
                async with asyncio.timeout(CONNECT_S):
                    await subscriber.connect(self.uri.host, self.uri.port)
            except (OSError, TimeoutError) as error:
                self.faults[f"could not connect: {str(error) or 'no answer'}"] += 1
                return
        self._all.append(subscriber)
        if len(self._all) % 100 == 0:
            _say({"connected": len(self._all)})

    async def freeze(self) -> Message:
        """Stop all moves, and wait until every `move` is answered."""
        if self._walking is not None:
            self._walking.cancel()
            self._walking = None
        self._still.clear()
        moving = [mover for mover in self._movers if mover.is_moving]
        if moving:
            try:
                async with asyncio.timeout(ANSWER_S):
                    await self._still.wait()
            except TimeoutError:
                self.faults["a move was not answered"] += sum(mover.is_moving for mover in moving)
        return {}

    async def thaw(self) -> Message:
        """Let the subscribers that move continue to do so."""
        self._walking = self._walking or asyncio.create_task(self._walk())
        return {}

    async def _walk(self) -> None:
        share = max(1, round(len(self._movers) * TICK_S / MOVE_EVERY_S))
        while True:
            for mover in random.sample(self._movers, min(share, len(self._movers))):
                mover.move()
            await asyncio.sleep(TICK_S)

    async def settle(self, id: str, revision: int, area: list[Any] | None) -> Message:  # noqa: A002 (the field's name)
        """Wait, for at most 2 s, until all subscribers that should have a revision have received it.

        Return how many have received it, and how many have not.
        """
        await asyncio.sleep(BEFORE_COUNTING_S)
        self._awaited = id, revision
        self._missing = {one for one in self._all if one.is_connected and _lacks(one, id, revision, area)}
        self._settled.clear()
        if self._missing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_S):
                    await self._settled.wait()
        if any(sent != area for sent in self._areas.get((id, revision), [])):
            self.faults["an alert was sent with another area than in the publisher's answer"] += 1
        return {"got": self._got[id, revision], "missing": len(self._missing)}

    async def tunnel(self, ids: Sequence[str], most: int) -> Message:
        """Drop the connections of some subscribers that have received one of these alerts, as if in a tunnel.

        The answer says how many connections were dropped.
        """
        for alert_id in ids:
            stay = [one for one in self._all if not one.is_mover and not one.is_responder]
            holders = [one for one in stay if one.is_connected and alert_id in one.held]
            self._tunnel += holders[: most // len(ids)]
            for one in holders[: most // len(ids)]:
                one.vanish()
        return {"gone": len(self._tunnel)}

    async def emerge(self) -> Message:
        """Reconnect the subscribers whose connections `tunnel` has dropped.

        The answer says, among other things, how many messages these subscribers are sent after reconnecting.
        """
        gate = asyncio.Semaphore(AT_ONCE)
        back, self._tunnel = self._tunnel, []
        held = [dict(one.held) for one in back]
        known = [len(one.record()) for one in back]
        await asyncio.gather(*(self._connect_again(one, gate) for one in back))
        news = [
            (what, revision, revision <= holding.get(alert_id, 0))
            for one, holding, length in zip(back, held, known, strict=True)
            for what, _, alert_id, revision in one.record()[length + 1 :]  # the first new event is the hello
        ]
        return {
            "back": sum(one.is_connected for one in back),
            "held": sum(map(len, held)),
            "cancels": sum(what == "cancel" for what, _, _ in news),
            "revisions": sum(what == "alert" and revision > 1 for what, revision, _ in news),
            "new": sum(what == "alert" and revision == 1 for what, revision, _ in news),
            "again": sum(again for _, _, again in news),
        }

    async def _connect_again(self, subscriber: Subscriber, gate: asyncio.Semaphore) -> None:
        async with gate:
            try:
                async with asyncio.timeout(CONNECT_S):
                    await subscriber.connect(self.uri.host, self.uri.port)
            except (OSError, TimeoutError) as error:
                self.faults[f"could not reconnect: {str(error) or 'no answer'}"] += 1

    async def arrivals(self) -> Message:
        """Return the deliveries since the last call of this method, and the number of subscribers, both by H3 cell.

        A row of `told` is for one revision and one cell: id, revision, cell, number of deliveries, and the times of the
        first and the last delivery (ns). The deliveries are counted here and not when frames arrive, because counting
        then would add to the measured latency.
        """
        fresh, self._arrivals = self._arrivals, []
        told: dict[tuple[str, int], dict[str, list[int]]] = {}
        for places, at, alert_id, revision in fresh:
            areas = self._areas.get((alert_id, revision))
            cell = _cell(next((place for place in places if areas and is_inside(areas[0], [place])), places[0]))
            seen = told.setdefault((alert_id, revision), {}).setdefault(cell, [0, at, at])
            seen[0] += 1
            seen[2] = at
        people = Counter(_cell(one.places[0]) for one in self._all if one.is_connected)
        rows = [[*key, cell, *seen] for key, cells in told.items() for cell, seen in cells.items()]
        return {"told": rows, "people": people}

    async def search(self, needles: Sequence[str]) -> Message:
        """Search every frame for these byte strings from now on. An empty list ends the search."""
        self._needles = [bytes.fromhex(needle) for needle in needles]
        return {}

    async def hesitate(self, seconds: float) -> Message:
        """From now on, let responders accept calls this many seconds later, so that somebody else can be first."""
        self.hesitates_s = seconds
        return {}

    async def stood(self, id: str) -> Message:  # noqa: A002 (the field's name)
        """Wait, for at most 2 s, until all subscribers that must receive a `standdown` have received it.

        Return how many have not, and the number of frames that were searched so far.
        """
        owed = self._owed.get(id, set())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                while owed:
                    self._all_stood.clear()
                    await self._all_stood.wait()
        return {"missing": len(owed), "frames": self._searched}

    async def forget(self) -> Message:
        """Delete all records. In a demo that runs for hours, they would fill the memory."""
        for one in self._all:
            one.record().clear()
        self._owed = {call_id: who for call_id, who in self._owed.items() if who}
        return {}

    async def report(self) -> Message:
        """Return the records of all subscribers, and how often each kind of fault has happened."""
        return {"records": [one.record() for one in self._all], "faults": dict(self.faults)}


def _cell(place: Place) -> str:
    return str(h3.latlng_to_cell(place.lat, place.lng, MAP_RESOLUTION))


def _lacks(one: Subscriber, alert_id: str, revision: int, area: list[Any] | None) -> bool:
    held = one.held.get(alert_id, 0)
    if area is None:
        return held > 0
    return held < revision and (held > 0 or is_inside(area, one.places))


def _say(line: Message) -> None:
    sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
    sys.stdout.flush()


async def _obey() -> None:
    """Carry out commands until stdin is closed, which also happens when the demo dies."""
    lines = asyncio.StreamReader(limit=MAX_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    crowd = Crowd()
    while line := await lines.readline():
        command = json.loads(line)
        _say({"done": command["do"], **await getattr(crowd, command["do"])(**command["with"])})


def main() -> None:
    """Run as a child process of the demo, until stdin is closed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(_obey())


if __name__ == "__main__":
    main()
