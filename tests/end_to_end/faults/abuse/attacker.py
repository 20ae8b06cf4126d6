"""An attacker in a process of its own: its input, its abilities and its limits.

An attacker sends requests to loopback addresses only. Every loop ends when time is up or its count is used up. An alarm
kills the process if a loop does not end. The process runs at a low priority. So a delay that the good parties (clients
that keep the rules) notice comes from the node's work and not from the attacker's.
"""

import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from end_to_end.faults.abuse.listener import Listener, ignored, listen
from end_to_end.kit.alerts import Json, alert, circle, place
from end_to_end.kit.earth import Point
from end_to_end.kit.keys import DESK_SCOPE, PHONE_SCOPE, Keys, bearer

LOCAL = "127.0.0.1"
NICE = 10
MAX_REQUESTS = 200_000  # by one attacker, of all kinds together
ANSWER_S = 30.0
BEHIND_S = 45  # after this time beyond its end an attacker is killed


@dataclass
class Target:
    """The ports and addresses of the deployment, and the keys for making tokens."""

    stream: int
    api: int
    feed: int
    push: int
    log: str
    key: str
    other_key: str
    reviewers: list[Json]
    cap_secret: str
    push_port: int
    push_host: str
    responder: str


class Attacker:
    """The tools for an attack: bounded loops, counted requests, and connections that are closed at the end."""

    def __init__(self, target: Target, seconds: float, seed: int) -> None:
        self.target = target
        self.dice = random.Random(seed)
        self.seed = seed
        self.said: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self._seconds, self.until = seconds, 0.0
        self._requests = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._listeners: list[Listener] = []
        self._keys = Keys()
        self._keys.private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(target.key))
        limits = httpx.Limits(max_connections=None)
        self._http = httpx.AsyncClient(timeout=ANSWER_S, trust_env=False, limits=limits)
        self.api, self.feed, self.push = (f"http://{LOCAL}:{port}" for port in (target.api, target.feed, target.push))
        self.spot: Point = (-30.0 - self.dice.uniform(0, 20), 20 + self.dice.uniform(0, 100))

    async def begin(self) -> None:
        """Start the clock of the attack and report `begun`."""
        await self._http.get(f"{self.api}/healthz")  # so that the first counted request need not load modules
        self.until = time.monotonic() + self._seconds
        print("begun", flush=True)

    # -- tokens

    def token(self, sub: str, scope: str = PHONE_SCOPE, **claims: Any) -> str:
        """Return a token of the usual issuer."""
        return self._keys.token(sub=sub, scope=scope, **claims)

    def other_token(self, sub: str) -> str:
        """Return a subscriber's token from the issuer that must not grant qualifications."""
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(self.target.other_key))
        now = int(time.time())
        claims = self._keys.claims(sub=sub, scope=PHONE_SCOPE, iat=now, exp=now + 3_600, quals=["cpr"])
        return self._keys.signed(claims, key=key, kid="other")

    def forged_token(self) -> str:
        """Return a publisher's token signed with an unknown key."""
        return self._keys.signed(self._keys.claims(), key=Ed25519PrivateKey.generate())

    @property
    def desk(self) -> str:
        """A publisher's token, newly made."""
        return self.token("desk-evil", DESK_SCOPE)

    def body(self, name: str, **fields: Any) -> Json:
        """Return an alert of this attacker, around its own spot unless an area is given."""
        return alert(self.spot, id=f"evil-{self.seed}-{name}", **({"area": circle(self.spot, 500)} | fields))

    # -- repeating an action for a time

    def goes_on(self) -> bool:
        """Return whether time and requests are left."""
        return time.monotonic() < self.until and self._requests < MAX_REQUESTS

    async def again(self, work: Callable[[int], Awaitable[Any]], *, at_once: int = 1, most: int = MAX_REQUESTS) -> None:
        """Call `work` repeatedly in `at_once` parallel loops, until time is up or `work` was called `most` times."""
        numbers = iter(range(most))

        async def one() -> None:
            for number in numbers:
                if not self.goes_on():
                    return
                await work(number)
                await asyncio.sleep(0)

        await asyncio.gather(*(one() for _ in range(at_once)))

    async def wait(self) -> None:
        """Wait until the time of the attack has passed."""
        await asyncio.sleep(max(0.0, self.until - time.monotonic()))

    # -- sending requests and opening connections

    async def ask(
        self, kind: str, method: str, url: str, token: str | None = None, **more: Any
    ) -> httpx.Response | None:
        """Send a request and count the status of the answer; return None if there is no answer."""
        self._requests += 1
        headers = bearer(token) | more.pop("headers", {})
        try:
            answer = await self._http.request(method, url, headers=headers, **more)
        except httpx.HTTPError as error:
            self.said[f"{kind} {type(error).__name__}"] += 1
            return None
        self.said[f"{kind} {answer.status_code}"] += 1
        self.wrong["429 without Retry-After"] += int(answer.status_code == 429 and "retry-after" not in answer.headers)
        return answer

    def note(self, what: str, answer: httpx.Response | None, *, from_status: int = 0, below: int = 600) -> None:
        """Count `what` as wrong if the status is at least `from_status` and less than `below`."""
        self.wrong[what] += int(answer is not None and from_status <= answer.status_code < below)

    async def post(self, kind: str, path: str, body: Any, token: str | None = None, **query: str) -> Any:
        """POST a JSON body to the API, with the publisher's token unless another is given."""
        return await self.ask(kind, "POST", f"{self.api}{path}", token or self.desk, json=body, params=query)

    async def cap(self, kind: str, message: str | bytes) -> httpx.Response | None:
        """Send a CAP message as the aggregator does."""
        body = message.encode() if isinstance(message, str) else message
        headers = {"CAP-Webhook-Auth": self.target.cap_secret, "Content-Type": "application/xml"}
        return await self.ask(kind, "POST", f"{self.api}/v1/cap", content=body, headers=headers)

    async def hold(self, kind: str, port: int, data: bytes, *, reads: bool = True) -> None:
        """Open a connection, send `data`, and keep the connection until the node closes it or time is up."""
        self._requests += 1
        try:
            reader, writer = await asyncio.open_connection(LOCAL, port)
        except OSError as error:
            self.said[f"{kind} {type(error).__name__}"] += 1
            await asyncio.sleep(0.05)
            return
        self._writers.append(writer)
        try:
            writer.write(data)
            async with asyncio.timeout(max(0.0, self.until - time.monotonic())):
                answer = await reader.read(1 << 16) if reads else await asyncio.sleep(3_600, b"")
            self.said[f"{kind} {answer[:12].decode('latin-1') or 'closed'}"] += 1
        except (TimeoutError, OSError) as error:
            self.said[f"{kind} {type(error).__name__}"] += 1
        finally:
            writer.transport.abort()
            self._writers.remove(writer)

    async def ask_again(self, kind: str, port: int, request: Callable[[], bytes]) -> None:
        """Send requests on one connection, each as soon as the last one is answered, and count the answers."""
        try:
            reader, writer = await asyncio.open_connection(LOCAL, port)
            self._writers.append(writer)
            async with asyncio.timeout(self._seconds + ANSWER_S):
                while self.goes_on():
                    self._requests += 1
                    writer.write(request())
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                    await reader.readexactly(int(head.partition("content-length: ")[2].split()[0]))
                    status = head.split()[1]
                    self.said[f"{kind} {status}"] += 1
                    self.wrong["503 without Retry-After"] += int(status == "503" and "\r\nretry-after: " not in head)
        except (TimeoutError, OSError, EOFError) as error:
            self.said[f"{kind} {type(error).__name__}"] += 1
            await asyncio.sleep(0.05)

    async def listen(
        self, token: str, *places: Json, on_message: Callable[[Listener, Json], None] = ignored, **hello: Any
    ) -> Listener | None:
        """Join the stream; return None if the node refuses."""
        self._requests += 1
        try:
            listener = await listen(self.target.stream, {"token": token, "places": list(places), **hello}, on_message)
        except (OSError, TimeoutError) as error:
            self.said[f"hello {error or type(error).__name__}"] += 1
            return None
        self.said["hello welcome"] += 1
        self._listeners.append(listener)
        return listener

    async def watch(self) -> tuple[list[str], Callable[[], Awaitable[None]]]:
        """Subscribe at the attacker's own spot.

        Return the growing list of messages, and a function that waits until everything published so far has arrived.
        """
        heard: list[str] = []
        came = asyncio.Event()

        def hear(_listener: Listener, message: Json) -> None:
            heard.append(named(message))
            came.set()

        await self.listen(self.token("watcher"), place(self.spot), on_message=hear)

        async def settled() -> None:
            marker = self.body(f"marker-{self.dice.random()}".replace(".", "-"))
            await self.post("marker", "/v1/alerts", marker)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    while f"{marker['id']} 1" not in heard:
                        came.clear()
                        await came.wait()

        return heard, settled

    async def close(self) -> None:
        """Close all connections."""
        for listener in self._listeners:
            listener.leave()
        for writer in self._writers:
            writer.transport.abort()
        await self._http.aclose()


def named(message: Json) -> str:
    """Return a message as "id revision" or "id type", for example "a-1 2" or "a-1 cancel"."""
    if message["type"] == "alert":
        return f"{message['alert']['id']} {message['alert']['revision']}"
    return f"{message.get('id', '')} {message['type']}"


def main(attacks: dict[str, Callable[[Attacker], Awaitable[None]]]) -> None:
    """Read one order per line from standard input, run each attack, and print one report per line; all in JSON."""
    os.nice(NICE)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def run(order: Json) -> Attacker:
        attacker = Attacker(Target(**order["target"]), order["seconds"], order["seed"])
        await attacker.begin()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(order["seconds"] + BEHIND_S - 10):
                    await attacks[order["attack"]](attacker)
        finally:
            await attacker.close()
        return attacker

    for line in sys.stdin:
        order = json.loads(line)
        signal.alarm(int(order["seconds"]) + BEHIND_S)
        attacker = asyncio.run(run(order))
        signal.alarm(0)
        print(json.dumps({"said": attacker.said, "wrong": attacker.wrong}), flush=True)
