"""Fake nodes for tests of clients: FakeNode plays scripts on the stream, and FakeApi returns prepared answers."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine

import httpx
import msgpack
from support.schemas import check_client_message
from websockets.asyncio.server import ServerConnection, serve

from client_demo.python.client import Client
from client_demo.python.geo import Place
from client_demo.python.publisher import Publisher
from client_demo.python.times import format_time, wall_ms

GUARD_S = 60.0  # a test that takes longer is considered hung
HOME, FAR = Place.at(32.7767, -96.797), Place.at(33.5, -97.5)
SUBPROTOCOLS = ["geocast.v1.json", "geocast.v1.msgpack", "geocast.v1.json.signed", "geocast.v1.msgpack.signed"]

Script = Callable[["Session"], Coroutine[None, None, None]]


class Session:
    """One connection of the fake node, with messages as maps."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self._is_text = "json" in socket.subprotocol

    async def read(self):
        frame = await self.socket.recv()
        assert isinstance(frame, str) == self._is_text
        message = json.loads(frame) if self._is_text else msgpack.unpackb(frame)
        check_client_message(message)
        return message

    async def send(self, **message):
        await self.socket.send(json.dumps(message) if self._is_text else msgpack.packb(message))

    async def welcome(self, **more):
        fields = {"session": "s", "now": format_time(wall_ms()), "live": 0, "heartbeat_s": 25}
        await self.send(type="welcome", **{**fields, "retry": {"min_ms": 0, "max_ms": 100}, **more})

    async def stay(self):
        """Read until the client closes the connection."""
        async for _ in self.socket:
            pass


class FakeNode:
    """A stream listener that plays one script for each connection, and the last script for all further ones.

    Unlike a real node it decides nothing by itself, has no limits, and welcomes clients only when a script does.
    """

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self.hellos: list[dict] = []
        self.faults: list[BaseException] = []

    async def _handle(self, socket: ServerConnection) -> None:
        session = Session(socket)
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        try:
            self.hellos.append(await session.read())
            await script(session)
        except AssertionError as fault:
            self.faults.append(fault)

    @contextlib.asynccontextmanager
    async def running(self, **options):
        async with serve(self._handle, "127.0.0.1", 0, subprotocols=SUBPROTOCOLS, **options) as server:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/stream"
        assert not self.faults, self.faults


def alert(key="a", revision=1, at=HOME, lasts_ms=3_600_000):
    return {
        "id": key,
        "revision": revision,
        "category": "fire_structure",
        "headline": "Building on fire",
        "severity": "severe",
        "expires_at": format_time(wall_ms() + lasts_ms),
        "area": [{"type": "circle", "lat": at.lat, "lng": at.lng, "radius_m": 1000.0}],
    }


def quick(url, places=(HOME,), **options):
    """Return a client that reconnects without waiting."""
    return Client(url, list(places), **{"draw": lambda: 0.0, "on_status": lambda line: None, **options})


class FakeApi:
    """An api that returns prepared answers in turn, and repeats the last one; it raises answers that are exceptions.

    There is no network and no real clock, and waiting takes no time.
    """

    def __init__(self, *answers, client=Publisher):
        self._answers, self._client = list(answers), client
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []
        self.reasons: list[str] = []  # why requests were sent again

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def call(self, work):
        """Run `work` with a client of the fake api and return its result."""

        async def run():
            async with self._client(
                "http://127.0.0.1:8766",
                "secret",
                transport=httpx.MockTransport(self._answer),
                sleep=self._sleep,
                clock=lambda: sum(self.waits),
                on_retry=self.reasons.append,
            ) as publisher:
                return await work(publisher)

        return asyncio.run(run())


def answer(status, body=None, **headers):
    return httpx.Response(status, json={} if body is None else body, headers=headers)
