"""The server's side of the protocol: connections, received messages, and a clock that may be wrong.

    server = ScriptedServer(wait_s=20)
    async with server.serve("127.0.0.1", 0) as url:
        talk = await server.client()          # a client has connected and said hello
        await talk.welcome()
        …

Rule 1  Each message of a client is checked against docs/asyncapi.json and the limits, in every scenario.
Rule 2  No verdict depends on guessing how much a client has read. `fence` sends a last alert and waits until the client
        acknowledges that alert: the client has then read everything that was sent before. If a client acknowledges
        nothing, `fence` just waits for a moment.
Rule 3  The text of a close reason contradicts the close code, because clients must decide by the code.
"""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgpack
from jsonschema_rs import Draft202012Validator, ValidationError
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, NegotiationError
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from client_demo.python.geo import Place, distance_m, offset
from client_demo.python.link import Pace
from client_demo.python.times import format_time, wall_ms
from client_demo.python.wire import WIRES, Message

ASYNCAPI = Path(__file__).resolve().parents[2] / "docs" / "asyncapi.json"
PATH = "/v1/stream"
TOKEN_PATH = "/token"
MAX_HELLO_BYTES, MAX_MESSAGE_BYTES = 64 * 1024, 16 * 1024  # F6
RATE_PER_S, BURST = 10.0, 300  # F7
HELLO_S = 10.0  # S5
FENCE_S = 3.0  # how long to wait for the acknowledgement of an alert; longer after many alerts
MOMENT_S = 0.5  # how long to wait for a client that acknowledges nothing
LIE = "not allowed, never come back"  # the text of a close reason (Rule 3)
FROM_CLIENTS = ("hello", "move", "filter", "token", "ack", "ping", "accept", "decline", "report", "try")


class Over(Exception):  # noqa: N818 (an outcome)
    """Raised if a scenario can't be continued. Its findings so far are kept."""


@dataclass
class Findings:
    """The findings of one scenario about the duties of a client: the rules of the protocol that a client must follow.

    `wrong` has, for each duty that was checked, its faults; a duty without faults is met. `unseen` has, for the other
    duties, the reason why they could not be checked.
    """

    wrong: dict[str, list[str]] = field(default_factory=dict)
    unseen: dict[str, str] = field(default_factory=dict)

    def met(self, *duties: str) -> None:
        """Record that these duties (rules for clients) were checked. They count as met unless a fault is recorded."""
        for duty in duties:
            self.wrong.setdefault(duty, [])

    def unmet(self, duty: str, detail: str) -> None:
        """Record a fault: the client does not meet this duty (a rule for clients)."""
        details = self.wrong.setdefault(duty, [])
        if detail not in details:
            details.append(detail)

    def check(self, duty: str, holds: bool, detail: str) -> None:
        """Record that the duty is met if `holds`; otherwise, record the fault `detail`."""
        if holds:
            self.met(duty)
        else:
            self.unmet(duty, detail)

    def not_seen(self, duty: str, why: str) -> None:
        """Record why it could not be checked whether the client follows a rule (a duty)."""
        self.unseen.setdefault(duty, why)


@cache
def validators() -> dict[str, Draft202012Validator]:
    """Return a validator for each type of message that a client may send, made from docs/asyncapi.json."""
    components = json.loads(ASYNCAPI.read_text("utf-8"))["components"]
    return {
        kind: Draft202012Validator({**components["messages"][kind]["payload"], "components": components})
        for kind in FROM_CLIENTS
    }


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a duplicate key in a map")
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _parsed(frame: str | bytes) -> Message:
    """Return the message in a frame as a dict. Parsing is strict (L1, F5).

    Raise ValueError, TypeError or another error if the frame is invalid.
    """
    if isinstance(frame, str):
        value = json.loads(frame, object_pairs_hook=_unique, parse_constant=_no_constant)
    else:
        value = msgpack.unpackb(frame, object_pairs_hook=_unique)
    if not isinstance(value, dict):
        raise TypeError("not a map")
    return value


class Talk:
    """One connection of the client, from its `hello` on, with the messages that the client has sent."""

    def __init__(self, server: "ScriptedServer", socket: ServerConnection, arrived_at: float) -> None:
        self.server, self.arrived_at = server, arrived_at
        self.hello: Message = {}
        self.said: list[Message] = []  # messages after the hello
        self.said_at: list[float] = []  # their times, by the monotonic clock
        self.answers_pings = True  # whether `ping` messages are answered; the library answers WebSocket pings
        self._socket = socket
        self._is_text = socket.subprotocol == WIRES["json"].subprotocol
        self._wire = next(wire for wire in WIRES.values() if wire.subprotocol == socket.subprotocol)
        self._heard = asyncio.Event()
        self._pace = Pace(RATE_PER_S, BURST)

    # ---- messages from the client ----------------------------------------------------------------------------------

    async def greet(self) -> bool:
        """Wait for the client's `hello`, and return whether it arrived."""
        findings = self.server.findings
        try:
            async with asyncio.timeout(HELLO_S):
                message = self._read(await self._socket.recv())
        except (TimeoutError, ConnectionClosed):
            findings.unmet("hello", f"no hello within {HELLO_S:g} s of the handshake")
            return False
        findings.check("hello", message.get("type") == "hello", "the first message is not a hello")
        self.hello = message
        return message.get("type") == "hello"

    async def listen(self) -> None:
        """Receive messages until the connection ends, and answer them as a server does."""
        with contextlib.suppress(ConnectionClosed):
            async for frame in self._socket:
                message = self._read(frame)
                if message.get("type") == "hello":
                    self.server.findings.unmet("hello", "a second hello on one connection")
                self.said.append(message)
                self.said_at.append(time.monotonic())
                self._heard.set()
                await self._answer(message)

    def _read(self, frame: str | bytes) -> Message:
        """Return the message in a frame.

        If it is invalid, record the faults, and return {} or a dict with only its type.
        """
        findings, size = self.server.findings, len(frame.encode() if isinstance(frame, str) else frame)
        findings.met("form", "pace")
        if self._pace.wait_s(time.monotonic()) > 0:
            findings.unmet("pace", f"more than {BURST} messages in a burst, and {RATE_PER_S:g} a second after it")
        if isinstance(frame, str) != self._is_text:
            findings.unmet("form", f"a {'text' if isinstance(frame, str) else 'binary'} frame: wrong for this format")
            return {}
        try:
            message = _parsed(frame)
        except Exception as error:  # msgpack may raise any error
            findings.unmet("form", f"a frame that is not a message: {error or type(error).__name__}")
            return {}
        kind = message.get("type")
        limit = MAX_HELLO_BYTES if kind == "hello" else MAX_MESSAGE_BYTES
        if size > limit:
            findings.unmet("form", f"a message of {size} bytes; at most {limit} are allowed")
        if not isinstance(kind, str) or kind not in validators():
            findings.unmet("form", "a message of a type that the contract does not name")
            return {}
        try:
            validators()[kind].validate(message)
        except ValidationError as error:
            where = "/".join(str(part) for part in error.instance_path)
            findings.unmet("form", f"{kind}: {'/' + where if where else 'the message'}: {error.message}")
            return {"type": kind}
        except ValueError as error:  # the message has a type that JSON lacks
            findings.unmet("form", f"{kind}: {error}")
            return {"type": kind}
        return message

    async def _answer(self, message: Message) -> None:
        ref = {"ref": message["ref"]} if "ref" in message else {}
        match message.get("type"):
            case "move" | "filter" | "token":
                await self.say({"type": "ok", "live": 0, **ref})
            case "try":
                await self.say({"type": "ok", "live": 1, **ref})
                await self.own_test(message["id"])
            case "ping" if self.answers_pings:
                await self.say({"type": "pong", "now": self.server.now(), **ref})

    async def heard(self, wanted: Callable[[Message], bool], within_s: float) -> Message | None:
        """Return the client's first message that satisfies `wanted`, or None if there is none in time.

        Messages that have arrived already are tried first. If none of them satisfies it, wait for at most `within_s`
        seconds.
        """
        await self._wait(lambda: any(map(wanted, self.said)), within_s)
        return next(filter(wanted, self.said), None)

    async def _wait(self, is_done: Callable[[], bool], within_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not is_done():
                    self._heard.clear()
                    await self._heard.wait()

    async def heard_often(self, wanted: Callable[[Message], bool], count: int, within_s: float) -> list[float]:
        """Wait until `count` messages satisfy `wanted`, or until `within_s` seconds have passed.

        Return the arrival times of the messages that satisfy it.
        """
        await self._wait(lambda: sum(map(wanted, self.said)) >= count, within_s)
        return [at for message, at in zip(self.said, self.said_at, strict=True) if wanted(message)]

    def acks(self) -> Counter[tuple[str, int]]:
        """Return how often the client acknowledged each revision on this connection, by (id, revision)."""
        return Counter((m["id"], m["revision"]) for m in self.said if m.get("type") == "ack" and "id" in m)

    # ---- messages from the server ----------------------------------------------------------------------------------

    async def say(self, message: Mapping[str, Any]) -> None:
        """Send one message. Do nothing if the connection is closed."""
        with contextlib.suppress(ConnectionClosed):
            await self._socket.send(self._wire.encode(message))

    async def say_frame(self, frame: str | bytes) -> None:
        """Send one frame that need not be a message. Do nothing if the connection is closed."""
        with contextlib.suppress(ConnectionClosed):
            await self._socket.send(frame)

    @property
    def is_text(self) -> bool:
        """Whether this client speaks JSON, not MessagePack."""
        return self._is_text

    async def welcome(self, min_ms: int = 100, max_ms: int = 300, heartbeat_s: float = 25, **more: Any) -> None:
        """Send a `welcome`. A client that is to reconnect must wait for a random time from `min_ms` to `max_ms`."""
        fields = {"session": "kit", "now": self.server.now(), "live": 0, "heartbeat_s": heartbeat_s}
        expiry = {"token_expires_at": self.server.now(36_000)} if "token" in self.hello else {}
        await self.say({"type": "welcome", **fields, "retry": {"min_ms": min_ms, "max_ms": max_ms}, **expiry, **more})

    async def alert(
        self, alert_id: str, revision: int = 1, *, inside: bool = True, lasts_s: float = 600, **more: Any
    ) -> None:
        """Send an alert whose area contains the client's first place or, if not `inside`, no place of the client."""
        await self.say({"type": "alert", "alert": self.alert_content(alert_id, revision, inside, lasts_s) | more})

    def alert_content(self, alert_id: str, revision: int = 1, inside: bool = True, lasts_s: float = 600) -> Message:
        """Return the content of such an alert."""
        lat, lng = self._centre() if inside else self._elsewhere()
        return {
            "id": alert_id,
            "revision": revision,
            "category": "robbery",
            "title": "Robbery",
            "headline": f"Conformance kit: {alert_id}, revision {revision}",
            "severity": "severe",
            "status": "actual",
            "source": "kit",
            "occurred_at": self.server.now(-60),
            "issued_at": self.server.now(-1),
            "expires_at": self.server.now(lasts_s),
            "area": [{"type": "circle", "lat": lat, "lng": lng, "radius_m": 5000.0}],
        }

    async def own_test(self, key: str, *, lasts_s: float = 300) -> None:
        """Send the test alert that a client has asked for with this id."""
        await self.alert(f"try:{key}", lasts_s=lasts_s, status="test", source="geocast")

    async def polygon(
        self,
        alert_id: str,
        ring_km: Sequence[tuple[float, float]],
        revision: int = 1,
        *,
        buffer_m: float = 0.0,
        inside: bool = True,
    ) -> None:
        """Send an alert with a polygon near the client's first place or, if not `inside`, far from all its places.

        `ring_km` has the polygon's corners, in km to the east and north of a point, counter-clockwise; the first corner
        is not repeated at the end. The point is the client's first place or, if not `inside`, a point far away.
        """
        lat, lng = self._centre() if inside else self._elsewhere()
        ring = [offset(lat, lng, 1000 * north, 1000 * east)[::-1] for east, north in (*ring_km, ring_km[0])]
        corners = [[round(degrees, 6) for degrees in corner] for corner in ring]
        buffer = {"buffer_m": buffer_m} if buffer_m else {}
        await self.alert(alert_id, revision, area=[{"type": "Polygon", "coordinates": [corners], **buffer}])

    async def cancel(self, alert_id: str, revision: int) -> None:
        """Send a `cancel` message, which says that the alert with this id is cancelled."""
        fields = {"id": alert_id, "revision": revision, "reason": "Over.", "cancelled_at": self.server.now()}
        await self.say({"type": "cancel", **fields})

    async def call(self, call_id: str, revision: int = 1, *, lasts_s: float = 600, **more: Any) -> None:
        """Send a call for help whose location is near the first of the client's places."""
        lat, lng = self._centre()
        content = {
            "id": call_id,
            "revision": revision,
            "category": "cardiac_arrest",
            "title": "Cardiac arrest",
            "headline": f"Conformance kit: {call_id}, revision {revision}",
            "status": "actual",
            "source": "kit",
            "occurred_at": self.server.now(-60),
            "issued_at": self.server.now(-1),
            "expires_at": self.server.now(lasts_s),
            "answer_s": 30,
            "near": {"type": "circle", "lat": lat, "lng": lng, "radius_m": 210.0},
        }
        await self.say({"type": "call", "call": {**content, **more}})

    async def task(self, call_id: str, revision: int = 2, *, lasts_s: float = 600) -> None:
        """Send a `task` message, in which the patient is exactly at the first of the client's places."""
        lat, lng = self._centre()
        place = {"lat": lat, "lng": lng, "kind": "public", "address": "Kit 1", "access": "Door code 4711."}
        fields = {"seat": 1, "role": "cpr", "place": place, "aeds": [], "status": "actual"}
        expiry = {"expires_at": self.server.now(lasts_s)}
        await self.say({"type": "task", "id": call_id, "revision": revision, **fields, **expiry})

    async def standdown(self, call_id: str, reason: str) -> None:
        """Send a `standdown` message, which ends this call for the client."""
        await self.say({"type": "standdown", "id": call_id, "reason": reason})

    async def fence(self, within_s: float = FENCE_S) -> bool:
        """Wait until the client has read all messages sent so far (Rule 2).

        Return whether the client acknowledges alerts.
        """
        self.server.fences += 1
        alert_id = f"fence-{self.server.fences}"  # a new id each time, because the client may still have the last alert
        await self.alert(alert_id)
        if await self.heard(lambda message: message.get("id") == alert_id, within_s):
            return True
        await asyncio.sleep(MOMENT_S)
        return False

    async def pings(self, within_s: float) -> bool:
        """Send a WebSocket ping, and return whether the client answers within `within_s` seconds."""
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(within_s):
                await (await self._socket.ping())
                return True
        return False

    def is_open(self) -> bool:
        """Return whether the client is still connected."""
        return self._socket.close_code is None

    async def stays(self, seconds: float, answer_s: float) -> bool:
        """Return whether the client is still connected after this number of seconds.

        At the end of this time, the client is pinged, and then has another moment to close the connection. Without
        that, a client might never have the chance to close it, if the machine was paused in the meantime.
        """
        await self._ends(seconds)
        await self.pings(answer_s)
        await self._ends(MOMENT_S)
        return self.is_open()

    async def _ends(self, within_s: float) -> None:
        """Wait until the connection has ended, for at most `within_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._socket.wait_closed()

    async def close(self, code: int) -> float:
        """Close the connection with this code; 1006 stands for an end without a close frame.

        Return the time of the close by the monotonic clock, in seconds.
        """
        at = time.monotonic()
        if code == 1006:
            self._socket.transport.abort()
        else:
            await self._socket.close(code, LIE)
        return at

    def freeze(self) -> None:
        """Stop reading and answering the client's messages, without closing the connection."""
        self.answers_pings = False
        self._socket.transport.pause_reading()

    # ---- places ----------------------------------------------------------------------------------------------------

    def _places(self) -> list[Place]:
        try:
            places = [Place.from_map(place) for place in self.hello["places"]]
        except (KeyError, TypeError, ValueError):
            places = []
        if not places:
            raise Over("the client has no place, or its hello is malformed")
        return places

    def is_in_one_spot(self) -> bool:
        """Return whether all places of the client are within 2 km of the first."""
        first, *others = self._places()
        return all(distance_m(first.lat, first.lng, other.lat, other.lng) < 2_000 for other in others)

    def _centre(self) -> tuple[float, float]:
        place = self._places()[0]
        return place.lat, place.lng

    def _elsewhere(self) -> tuple[float, float]:
        """Return a point that is far from all places of the client: the farthest point of a grid around the world."""
        spots = [(float(lat), float(lng)) for lat in range(-60, 90, 30) for lng in range(-180, 180, 45)]
        return max(spots, key=lambda spot: min(distance_m(spot[0], spot[1], p.lat, p.lng) for p in self._places()))


@dataclass(eq=False)
class Arrival:
    """A client's request to open the stream: its time, and the connection (`talk`).

    The result of `talk` is None if the request was refused, or if no `hello` arrived.
    """

    at: float
    talk: "asyncio.Future[Talk | None]"


class ScriptedServer:
    """A server of the stream that does what the current scenario tells it to do."""

    def __init__(self, wait_s: float) -> None:
        self.findings = Findings()
        self.wait_s = wait_s  # how long to wait for a first connection
        self.skew_ms = 0  # how far the server's clock is ahead of this machine's
        self.refuse = 0  # number of handshakes still to be answered with 502
        self.tokens = 0  # number of tokens that were fetched
        self.fences = 0  # number of alerts that `fence` has sent
        self.came = False  # whether a client has requested the stream
        self._arrivals: asyncio.Queue[Arrival] = asyncio.Queue()
        self._by_socket: dict[ServerConnection, Arrival] = {}

    def now(self, later_s: float = 0) -> str:
        """Return the time that the server's clock will show `later_s` seconds from now.

        The clock may be wrong on purpose.
        """
        return format_time(wall_ms() + self.skew_ms + round(later_s * 1000))

    def begin(self, findings: Findings) -> None:
        """Begin a new scenario, whose findings are recorded in `findings`. All connections are dropped."""
        self.findings, self.skew_ms, self.refuse = findings, 0, 0
        self._arrivals = asyncio.Queue()
        for socket in self._by_socket:
            socket.transport.abort()

    # ---- connections -----------------------------------------------------------------------------------------------

    async def arrival(self, within_s: float) -> Arrival | None:
        """Return the next request of a client to open the stream; None if no request comes in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, within_s)):
                return await self._arrivals.get()
        return None

    async def client(self) -> Talk:
        """Return the first connection of a client in this scenario.

        Raise Over if no client connects and sends a `hello`.
        """
        talk = await self.back(time.monotonic(), self.wait_s)
        if talk is None:
            why = f"no client connected and said hello within {self.wait_s:g} s"
            self.findings.unmet("handshake", why)
            raise Over(why)
        return talk

    async def back(self, since: float, within_s: float) -> Talk | None:
        """Return the next connection, if a client reconnects within `within_s` seconds after `since` and says hello.

        Return None if no client does.
        """
        arrival = await self.arrival(since + within_s - time.monotonic())
        if arrival is None:
            return None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HELLO_S + 1):
                return await arrival.talk
        return None

    # ---- the server ------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def serve(self, host: str, port: int) -> AsyncIterator[str]:
        """Run the server for the duration of an `async with` block; yield its address as `host:port`."""
        async with serve(
            self._handle,
            host,
            port,
            process_request=self._request,
            select_subprotocol=_select,
            compression=None,
            ping_interval=None,
            close_timeout=2.0,
        ) as listener:
            name, bound = listener.sockets[0].getsockname()[:2]
            yield f"{f'[{name}]' if ':' in name else name}:{bound}"
            for socket in self._by_socket:
                socket.transport.abort()

    def _request(self, socket: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if path == TOKEN_PATH:
            self.tokens += 1
            return Response(200, "OK", Headers([("Content-Length", "7")]), b"%07d" % self.tokens)
        findings, offered = self.findings, ",".join(request.headers.get_all("Sec-WebSocket-Protocol"))
        findings.check("handshake", path == PATH, f"requests another path than {PATH}")
        if "?" in request.path:
            findings.unmet("handshake", "the URL has a query; it must contain no token")
        known = _known(part.strip() for part in offered.split(","))
        if not known:
            findings.unmet("handshake", "offers no subprotocol of geocast")
        self.came = True
        arrival = Arrival(time.monotonic(), asyncio.get_running_loop().create_future())
        self._arrivals.put_nowait(arrival)
        refusal = None
        if path != PATH:
            refusal = HTTPStatus.NOT_FOUND
        elif "?" in request.path or not known:
            refusal = HTTPStatus.BAD_REQUEST
        elif self.refuse > 0:
            self.refuse -= 1
            refusal = HTTPStatus.BAD_GATEWAY
        if refusal is not None:
            arrival.talk.set_result(None)
            return socket.respond(refusal, "refused by the scenario\n")
        self._by_socket[socket] = arrival
        return None

    async def _handle(self, socket: ServerConnection) -> None:
        arrival = self._by_socket[socket]
        talk = Talk(self, socket, arrival.at)
        try:
            came = await talk.greet()
            arrival.talk.set_result(talk if came else None)
            if came:
                await talk.listen()
        finally:
            del self._by_socket[socket]


def _known(offered: Iterable[str]) -> list[str]:
    return [name for name in offered if any(name == wire.subprotocol for wire in WIRES.values())]


def _select(_socket: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol:
    """Return the first of the client's subprotocols that this server knows (S1)."""
    known = _known(offered)
    if not known:
        raise NegotiationError("no subprotocol of geocast")
    return Subprotocol(known[0])
