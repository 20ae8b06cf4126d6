"""The good parties: clients that keep the rules, and record every refusal, loss and delay in a `Tally`.

Their alerts must reach all subscribers in TOWN and nobody else: neither subscribers in FAR nor responders at STATION. A
message about something that no good party has published counts as sent to an outsider.
"""

import asyncio
import hashlib
import itertools
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx
from end_to_end.faults.abuse.listener import PATIENCE_S, Listener, listen
from end_to_end.faults.abuse.services import PushServices
from end_to_end.faults.abuse.tally import Tally
from end_to_end.kit import warnings_of_cap
from end_to_end.kit.alerts import Json, alert, cancel_body, circle, new_id, place, revision_of
from end_to_end.kit.dispatcher import DISPATCH_SCOPE, call_at
from end_to_end.kit.earth import Point, beyond
from end_to_end.kit.keys import DESK_SCOPE, PHONE_SCOPE, Keys, bearer
from end_to_end.kit.push import cell
from end_to_end.kit.responder import qualified

TOWN: Point = (47.0, 8.0)
FAR: Point = (46.0, 20.0)
STATION: Point = (48.0, 5.0)
HAMLET: Point = (50.0, 11.0)
SOURCE = "met"
INSIDE_OF_10 = 8
PROBES, PING_EVERY_S = 6, 0.15  # below the ten messages a second that a session may send
RESPONDERS, SEATS = 5, 2

Key = tuple[str, int | str]
"""The id of an alert or a call, and a revision or another kind of message, such as "cancel"."""


@dataclass
class Awaited:
    """A message that each listener must get once: the listeners still waiting, and when the last one got it."""

    left: set[object]
    inside: frozenset[object]
    done: asyncio.Event = field(default_factory=asyncio.Event)
    last: float = 0.0


class Deliveries:
    """The messages that are expected, the listeners who should get each, and the messages that came."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._awaited: dict[Key, Awaited] = {}

    def expect(self, key: Key, inside: Iterable[object]) -> Awaited:
        """Expect each of `inside` to get this message once."""
        found = frozenset(inside)
        self._awaited[key] = Awaited(set(found), found)
        return self._awaited[key]

    def received(self, who: object, key: Key) -> None:
        """Record that `who` got a message; count it as wrong if `who` should not get it, or not again."""
        awaited = self._awaited.get(key)
        if awaited is None:
            self.tally.outside("something that no good party has published")
        elif who not in awaited.inside:
            self.tally.outside("somebody who is not inside")
        elif who not in awaited.left:
            if not (isinstance(who, tuple) and who[0] == "device"):  # a slow push service gets a push again
                self.tally.outside("somebody was sent the same twice")
        else:
            awaited.left.discard(who)
            if not awaited.left:
                awaited.last = time.monotonic()
                awaited.done.set()

    async def all_received(self, awaited: Awaited, kind: str, since: float) -> bool:
        """Wait until every listener has the message; record the seconds from `since` to the last one, or the loss."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await awaited.done.wait()
        except TimeoutError:
            self.tally.lost(kind, f"{len(awaited.left)} of {len(awaited.inside)} did not get it")
            return False
        self.tally.took[kind].append(awaited.last - since)
        return True


@dataclass
class Ports:
    """The ports of a node."""

    stream: int
    api: int
    feed: int


class Parties:
    """All good parties of one deployment."""

    def __init__(
        self,
        nodes: list[Ports],
        push_port: int,
        services: PushServices,
        keys: Keys,
        *,
        subscribers: int,
        devices: int,
    ) -> None:
        self._nodes, self._push, self._services, self._keys = nodes, f"http://127.0.0.1:{push_port}", services, keys
        self._counts = subscribers, devices
        self.deliveries = Deliveries()
        self._crowd: dict[int, Listener] = {}
        self._responders: dict[int, Listener] = {}
        self._probes: list[Listener] = []
        self._desk = keys.token(sub="desk-good", scope=DESK_SCOPE)
        self._dispatcher = keys.token(sub="cad-good", scope=DISPATCH_SCOPE)
        self._phone = keys.token(sub="phone-good", scope=PHONE_SCOPE)
        self._numbers = itertools.count()
        self._registrations = itertools.count()  # in turn: an owner may register 20 times a minute, 60 times an hour
        self._going: set[asyncio.Task[None]] = set()
        self._works = False

    @property
    def _tally(self) -> Tally:
        return self.deliveries.tally

    @property
    def _inside(self) -> list[object]:
        return [n for n in self._crowd if n % 10 < INSIDE_OF_10]

    # -- when a client was connected

    async def arrive(self) -> None:
        """Connect everybody who is not connected; on the first call, register the devices."""
        if not self._services.phones_by_name:
            self._kept = httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False)
            no_kept = httpx.Limits(max_keepalive_connections=0)
            self._fresh = httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False, limits=no_kept)
            await self._register_all()
        turns = asyncio.Semaphore(32)
        missing = [n for n in range(self._counts[0]) if n not in self._crowd or self._crowd[n].ended.done()]
        await asyncio.gather(*(self._join(n, turns) for n in missing))
        for n in range(RESPONDERS):
            if n not in self._responders or self._responders[n].ended.done():
                await self._report_for_duty(n)
        self._probes = [each for each in self._probes if not each.ended.done()]
        while len(self._probes) < PROBES:
            hello = {"token": self._phone, "places": []}
            self._probes.append(await listen(self._node(len(self._probes)).stream, hello))

    def _node(self, number: int) -> Ports:
        return self._nodes[number % len(self._nodes)]

    async def _join(self, number: int, turns: asyncio.Semaphore) -> None:
        centre = TOWN if number % 10 < INSIDE_OF_10 else FAR
        spot = beyond(centre, number * 37 % 360, number * 13 % 900)
        async with turns:
            hello = {"token": self._phone, "places": [place(spot)]}
            self._crowd[number] = await listen(self._node(number).stream, hello, lambda _, m: self._hear(number, m))

    def _hear(self, number: object, message: Json) -> None:
        if message["type"] == "alert":
            self.deliveries.received(number, (message["alert"]["id"], message["alert"]["revision"]))
        elif message["type"] == "cancel":
            self.deliveries.received(number, (message["id"], "cancel"))

    async def _report_for_duty(self, number: int) -> None:
        token = qualified(self._keys, f"responder-{number}", "cpr")
        hello = {"token": token, "places": [place(beyond(STATION, number * 72, 100), here=True)]}

        def on_message(_listener: Listener, message: Json) -> None:
            self._hear(("responder", number), message)
            if message["type"] == "call":
                self.deliveries.received(number, (message["call"]["id"], "call"))
            elif message["type"] == "task":
                self.deliveries.received(number, (message["id"], "task"))
            elif message["type"] == "standdown" and message["reason"] == "over":
                self.deliveries.received(number, (message["id"], "over"))

        self._responders[number] = await listen(self._node(number).stream, hello, on_message)

    async def _register_all(self) -> None:
        turns = asyncio.Semaphore(16)

        async def register(number: int) -> None:
            async with turns:
                await self._register(number)

        loop = asyncio.get_running_loop()
        for number in range(self._counts[1]):
            self._services.add(number, lambda n, m: loop.call_soon_threadsafe(self._hear, ("device", n), m))
        await asyncio.gather(*(register(number) for number in range(self._counts[1])))

    async def _register(self, number: int) -> None:
        phone = self._services.phones_by_name[number]
        body = {"subscription": phone.subscription(), "places": [{"cell": cell(HAMLET)}]}
        token = self._keys.token(sub=f"owner-{number}", scope=PHONE_SCOPE)
        await self._ask("register", "PUT", f"{self._push}/v1/devices/good-device-{number:06}", token, body)

    async def leave(self) -> None:
        """Close all connections."""
        listeners = (*self._crowd.values(), *self._responders.values(), *self._probes)
        for listener in listeners:
            listener.leave()
        await asyncio.gather(*(listener.ended for listener in listeners))
        await self._kept.aclose()
        await self._fresh.aclose()

    # -- one round of an attack

    async def begin(self) -> None:
        """Start all activities with an empty tally."""
        await self.arrive()
        self.deliveries.tally = Tally()
        for listener in self._probes:
            listener.pongs.clear()
        self._works = True
        for work in (
            self._publish_often(),
            self._warn_often(),
            self._wake_often(),
            self._dispatch_often(),
            self._every(PING_EVERY_S, self._ping),
            self._every(0.25, self._come_and_go),
            self._every(0.5, self._register_again),
            self._every(0.25, self._read_feed),
        ):
            self._start(work)

    async def end(self) -> Tally:
        """Start nothing more, wait until everything in progress has ended, and return the tally."""
        self._works = False
        while self._going:
            await asyncio.gather(*self._going)
        if any(0 < listener.ping() > PATIENCE_S for listener in self._probes):
            self._tally.lost("ping")
        listeners = (*self._crowd.values(), *self._responders.values(), *self._probes)
        for listener in listeners:
            if listener.ended.done():
                self._tally.lost("session", f"ended with {listener.code}")
        for what in self._services.wrong:
            self._tally.lost("push", what)
        self._services.wrong.clear()
        return self._tally

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._going.add(task)
        task.add_done_callback(self._going.discard)

    async def _every(self, seconds: float, work: Any) -> None:
        """Start `work` at this interval, without waiting for the last one to end."""
        while self._works:
            self._start(work())
            await asyncio.sleep(seconds)

    async def _ask(
        self, kind: str, method: str, url: str, token: str | None, body: Any = None, **more: Any
    ) -> httpx.Response | None:
        """Send a request that must succeed, alternately on a kept connection and on a new one."""
        client = self._fresh if next(self._numbers) % 2 else self._kept
        started = time.monotonic()
        sent = {"content": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        try:
            answer = await client.request(method, url, headers=bearer(token) | more.pop("headers", {}), **sent, **more)
        except httpx.HTTPError as error:
            self._tally.refused(kind, type(error).__name__)
            return None
        if answer.status_code not in (200, 201):
            problem = answer.json().get("type", "") if "json" in answer.headers.get("content-type", "") else ""
            self._tally.refused(kind, f"{answer.status_code} {problem}")
            return None
        self._tally.took[kind].append(time.monotonic() - started)
        return answer

    # -- publishers

    def _api(self) -> str:
        return f"http://127.0.0.1:{self._node(next(self._numbers)).api}"

    async def _publish_often(self) -> None:
        for number in itertools.count():
            if not self._works:
                return
            self._start(self._life_of_an_alert(number))
            await asyncio.sleep(0.5)

    async def _life_of_an_alert(self, number: int) -> None:
        """Publish, revise, read and cancel an alert; every third one is a polygon, with a dry run first."""
        is_polygon = number % 3 == 1
        area = ring(TOWN, 2_000, 60) if is_polygon else circle(TOWN, 1_500)
        body = alert(TOWN, id=new_id("good"), area=area)
        if is_polygon:
            dry = {"dry_run": "true"}
            await self._ask("dry run", "POST", f"{self._api()}/v1/alerts", self._desk, body, params=dry)
        kind = "publish polygon" if is_polygon else "publish"
        if not await self._post_and_wait(kind, "delivery", "/v1/alerts", body, (body["id"], 1), self._inside):
            return
        if number % 2:
            revised = revision_of(body, 2)
            path = f"/v1/alerts/{body['id']}/revisions"
            if not await self._post_and_wait("revise", "delivery", path, revised, (body["id"], 2), self._inside):
                return
            await self._ask("read", "GET", f"{self._api()}/v1/alerts/{body['id']}", self._desk)
        last = cancel_body(3 if number % 2 else 2)
        await self._post_and_wait(
            "cancel", "delivery", f"/v1/alerts/{body['id']}/cancel", last, (body["id"], "cancel"), self._inside
        )

    async def _post_and_wait(
        self, kind: str, delivery: str, path: str, body: Json, key: Key, inside: Iterable[object]
    ) -> httpx.Response | None:
        """POST something, and wait until everybody inside has the message."""
        awaited, started = self.deliveries.expect(key, inside), time.monotonic()
        answer = await self._ask(kind, "POST", f"{self._api()}{path}", self._desk, body)
        return answer if answer and await self.deliveries.all_received(awaited, delivery, started) else None

    async def _wake_often(self) -> None:
        devices = [("device", number) for number in range(self._counts[1])]
        while self._works:
            body = alert(HAMLET, id=new_id("wake"), area=circle(HAMLET, 1_000))
            if await self._post_and_wait("publish", "push delivery", "/v1/alerts", body, (body["id"], 1), devices):
                path = f"/v1/alerts/{body['id']}/cancel"
                await self._post_and_wait(
                    "cancel", "push delivery", path, cancel_body(2), (body["id"], "cancel"), devices
                )
            await asyncio.sleep(1)

    async def _warn_often(self) -> None:
        while self._works:
            name = new_id("warning")
            alert_id = cap_id(SOURCE, warnings_of_cap.SENDER, name)
            for key, message in (
                (1, warnings_of_cap.warning(name, TOWN, "en", event="Flood")),
                ("cancel", warnings_of_cap.cancel(f"{name}-off", name)),
            ):
                awaited, started = self.deliveries.expect((alert_id, key), self._inside), time.monotonic()
                headers = {"CAP-Webhook-Auth": warnings_of_cap.SECRET, "Content-Type": "application/xml"}
                url = f"{self._api()}/v1/cap"
                answer = await self._ask("CAP", "POST", url, None, message.encode(), headers=headers)
                if not answer or not await self.deliveries.all_received(awaited, "CAP delivery", started):
                    break
            await asyncio.sleep(0.7)

    # -- calls

    async def _dispatch_often(self) -> None:
        while self._works:
            await self._call_for_help()
            await asyncio.sleep(0.3)

    async def _call_for_help(self) -> None:
        """Open a call, notify all responders, let as many accept as there are seats, and end the call."""
        call_id, started = new_id("help"), time.monotonic()
        called = self.deliveries.expect((call_id, "call"), self._responders)
        tasks = self.deliveries.expect((call_id, "task"), range(SEATS))
        over = self.deliveries.expect((call_id, "over"), self._responders)
        body = call_at(STATION, call_id)
        if not await self._ask("dispatch", "POST", f"{self._api()}/v1/calls", self._dispatcher, body):
            return
        if await self.deliveries.all_received(called, "call delivery", started):
            accepted = time.monotonic()
            for number in range(SEATS):
                self._responders[number].say("accept", id=call_id, eta_s=60)
            await self.deliveries.all_received(tasks, "task delivery", accepted)
        url = f"{self._api()}/v1/calls/{call_id}/end"
        ended = time.monotonic()
        if await self._ask("end", "POST", url, self._dispatcher, {"reason": "The crew is there."}):
            await self.deliveries.all_received(over, "stand-down delivery", ended)

    # -- subscribers, devices, the public

    async def _ping(self) -> None:
        for listener in self._probes:
            listener.ping()
            self._tally.took["ping"] += listener.pongs
            listener.pongs.clear()

    async def _come_and_go(self) -> None:
        started = time.monotonic()
        hello = {"token": self._phone, "places": [place(FAR)]}
        try:
            listener = await listen(self._node(next(self._numbers)).stream, hello)
        except (OSError, TimeoutError) as error:
            self._tally.refused("hello", error or type(error).__name__)
            return
        self._tally.took["hello"].append(time.monotonic() - started)
        listener.leave()

    async def _register_again(self) -> None:
        await self._register(next(self._registrations) % self._counts[1])

    async def _read_feed(self) -> None:
        port = self._node(next(self._numbers)).feed
        await self._ask("feed", "GET", f"http://127.0.0.1:{port}/v1/alerts.geojson", None)


def ring(spot: Point, radius_m: float, corners: int) -> Json:
    """Return a GeoJSON polygon with this many corners around a spot."""
    points = [beyond(spot, -360 * n / corners, radius_m * (1 if n % 2 else 0.95)) for n in range(corners)]
    return {"type": "Polygon", "coordinates": [[[lng, lat] for lat, lng in (*points, points[0])]]}


def cap_id(source: str, sender: str, identifier: str) -> str:
    """Return the id of the alert that a first CAP message makes."""
    return "cap." + hashlib.sha256(f"{source}\n{sender}\n{identifier}".encode()).hexdigest()[:32]
