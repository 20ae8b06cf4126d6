"""A correct client, and for each duty of the protocol some clients that violate it."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import msgpack
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from client_demo.conformance.scenarios import NEVER_CODES
from client_demo.python.calls import CallChange, CallKind, Calls
from client_demo.python.client import Client, ClientError, Ending
from client_demo.python.geo import Place
from client_demo.python.holdings import SHOWN, Change, Holdings
from client_demo.python.link import first_to_end
from client_demo.python.reconnect import After, Backoff
from client_demo.python.times import own_ms, wall_ms

HOME = Place.at(32.7767, -96.797, here=True)
Run = Callable[[str], Coroutine[Any, Any, object]]


def a_client(kind: type[Client] = Client, **options: Any) -> Run:
    """Return a coroutine function of the URL that runs a client at HOME.

    The client uses a new token whenever it needs one, and accepts every call.
    """

    async def run(url: str) -> None:
        tokens = itertools.count(1)
        usual = {"token": lambda: f"token-{next(tokens)}", "on_status": lambda line: None, "languages": ["en"]}
        usual |= {"on_call": lambda change: go(client, change), "locate": lambda: HOME}
        client = kind(url, [HOME], **{**usual, **options})
        with contextlib.suppress(ClientError):  # the client does not reconnect
            await client.run()

    return run


class Reports:
    """What a client of the feed reports to the kit: its places, the alerts that it holds, and each that it shows."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._due: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def report(self, client: Client, change: Change | None = None) -> None:
        """Report the present state, and a change that is shown to the person."""
        holding = {alert["id"]: alert["revision"] for alert in client.holdings}
        state = {"places": [place.to_map() for place in client.holdings.places], "holding": holding}
        if change is not None and change.kind in SHOWN:
            state["shown"] = {"id": change.alert["id"], "revision": change.alert["revision"]}
        self._due.put_nowait(state)

    async def send(self) -> None:
        """Send the reports in order. Never returns."""
        async with httpx.AsyncClient(trust_env=False) as http:
            while True:
                await http.post(self._url, json=await self._due.get())


def a_feed_client(kind: type[Client] = Client, **options: Any) -> Callable[[str, str], Coroutine[Any, Any, object]]:
    """Return a coroutine function of the two URLs of the kit's feed that runs a client at HOME."""

    async def run(url: str, report_url: str) -> None:
        reports = Reports(report_url)
        usual = {"source": "feed", "feed": url, "feed_every_s": 0.1, "on_status": lambda line: None}
        usual["draw"] = lambda: 0.0  # asks again 1 s after an error
        client = kind("", [HOME], **usual, on_change=lambda change: reports.report(client, change), **options)
        reports.report(client)
        await first_to_end(client.run(), reports.send())

    return run


def go(client: Client, change: CallChange) -> None:
    """Accept every call, and report the arrival for every task."""
    if change.kind is CallKind.CALL:
        client.accept(change.id, 120)
    elif change.kind is CallKind.TASK:
        client.report(change.id, "arrived")


class Talkative(Client):
    """A client that sends a field that the protocol does not have."""

    def _hello(self):
        return super()._hello() | {"city": "Dallas"}


class Forgetful(Client):
    """A client that sends no `holding`."""

    def _hello(self):
        hello = super()._hello()
        hello.pop("holding", None)
        return hello


class Choosy(Client):
    """A client that disconnects when it receives a message of an unknown type."""

    def _take(self, message):
        if message["type"] not in ("alert", "cancel", "pong", "ok", "error"):
            self.interrupt()
        super()._take(message)


class Stubborn(Client):
    """A client that disconnects when it receives a cancel of an alert that it does not hold."""

    def _take(self, message):
        if message["type"] == "cancel" and message["id"] not in {alert["id"] for alert in self.holdings}:
            self.interrupt()
        super()._take(message)


class Eager(Client):
    """A client that acknowledges every alert, wherever it is."""

    def _take(self, message):
        if message["type"] == "alert":
            self.ack(message["alert"]["id"], message["alert"]["revision"])
        super()._take(message)


class OnlyCircles(Holdings):
    """Holdings that show no alert whose first shape is not a circle."""

    def take_alert(self, alert, own):
        return super().take_alert(alert, own) if alert["area"][0]["type"] == "circle" else []


def seeing(changed: Callable[[dict[str, Any]], dict[str, Any]]) -> Run:
    """Return a client that replaces each polygon by `changed(polygon)`."""

    class Seeing(Holdings):
        def take_alert(self, alert, own):
            area = [changed(shape) if shape["type"] == "Polygon" else shape for shape in alert["area"]]
            return super().take_alert({**alert, "area": area}, own)

    return a_client(holding(Seeing))


def its_box(shape: dict[str, Any]) -> dict[str, Any]:
    """Return a polygon shape with its ring replaced by the ring's bounding box."""
    lngs, lats = zip(*shape["coordinates"][0], strict=True)
    west, east, south, north = min(lngs), max(lngs), min(lats), max(lats)
    return shape | {"coordinates": [[[west, south], [east, south], [east, north], [west, north], [west, south]]]}


class OnlyActual(Holdings):
    """Holdings that show no tests and no exercises."""

    def take_alert(self, alert, own):
        return super().take_alert(alert, own) if alert["status"] == "actual" else []


class LatestWins(Holdings):
    """Holdings that treat the revision that arrives last as the newest."""

    def take_alert(self, alert, own):
        if held := self._held.get(alert["id"]):
            held.revision = 0
        return super().take_alert(alert, own)


class Hoarder(Holdings):
    """Holdings that keep alerts beyond their end."""

    def expire(self, own):
        return []

    def take_alert(self, alert, own):
        return super().take_alert(alert, own - 10**9)


class Forgets(Holdings):
    """Holdings that forget an alert as soon as it has ended by the server's clock, as clients did before C2a."""

    def take_alert(self, alert, own):
        return super().take_alert({key: value for key, value in alert.items() if key != "issued_at"}, own)


class OwnTime(Holdings):
    """Holdings that trust the machine's clock instead of the server's."""

    def set_clock(self, server_now_ms, own):
        super().set_clock(wall_ms(), own_ms())


class Unbounded(Holdings):
    """Holdings that list all alerts that they hold, without a limit."""

    def holding(self, own, limit=256):
        return {key: held.revision for key, held in self._held.items()}, []


class FirstOnes(Holdings):
    """Holdings that list the 256 alerts that end first, instead of those that end last."""

    def holding(self, own, limit=256):
        first = sorted(self._held, key=lambda key: self._held[key].expires_at)[:256]
        return {key: self._held[key].revision for key in first}, []


def holding(kind: type[Holdings]) -> type[Client]:
    """Return a client class with holdings of this kind."""

    class Made(Client):
        def __init__(self, url, places, **options):
            super().__init__(url, places, **options)
            self.holdings = kind(places)

    return Made


class Forward(Client):
    """A client that sends `here` to every server, even to one that has no calls."""

    def __init__(self, url, places, **options):
        super().__init__(url, places, **options)
        self._says_here = True


class CallsLast(Client):
    """A client that lists calls in `holding` only if alerts leave space for them."""

    def _holding(self):
        alerts, _ = self.holdings.holding(own_ms())
        return {**alerts, **self.calls.holding(256 - len(alerts))}


class Twice(Client):
    """A client that acknowledges a call each time it arrives."""

    def _take(self, message):
        if message["type"] == "call":
            self.ack(message["call"]["id"], message["call"]["revision"])
        super()._take(message)


class Boastful(Client):
    """A client that reports its arrival before it has a seat."""

    def _take(self, message):
        super()._take(message)
        if message["type"] == "call":
            self._link.say({"type": "report", "id": message["call"]["id"], "state": "arrived"})


class Once(Calls):
    """Calls that send every answer only once."""

    def due(self, own):
        found = super().due(own)
        for answer in self._answers.values():
            answer.left = 0
        return found

    def connected(self, own):
        pass


class Insistent(Calls):
    """Calls that keep sending an answer after a standdown."""

    def take_standdown(self, message):
        answer = self._answers.get(message["id"])
        found = super().take_standdown(message)
        if answer is not None:
            self._answers[message["id"]] = answer
        return found


class Quick(Calls):
    """Calls that send their reports again and again."""

    def due(self, own):
        reports = [{"type": "report", "id": task["id"], "state": "arrived"} for task in self.tasks()]
        return super().due(own) + reports


class Keeps(Calls):
    """Calls that keep a task after a standdown."""

    def take_standdown(self, message):
        return []


class Outlasts(Calls):
    """Calls that keep a task after its end."""

    def expire(self, own, now):
        return []


def calling(kind: type[Calls]) -> type[Client]:
    """Return a client class with calls of this kind."""

    class Made(Client):
        def __init__(self, url, places, **options):
            super().__init__(url, places, **options)
            self.calls = kind()

    return Made


class Hasty(Backoff):
    """A back-off that reconnects at once in every case."""

    def delay_s(self, after, retry_after_s=0.0, answered=True):
        return 0.0


class Steady(Backoff):
    """A back-off that does not wait longer after repeated failures."""

    def delay_s(self, after, retry_after_s=0.0, answered=True):
        window = self._min_s, self._max_s
        delay = super().delay_s(after, retry_after_s, answered)
        self._min_s, self._max_s = window
        return delay


class Narrow(Backoff):
    """A back-off that draws delays only from the upper half of the window ("equal jitter")."""

    def delay_s(self, after, retry_after_s=0.0, answered=True):
        return (super().delay_s(after, retry_after_s, answered) + self._min_s + (self._max_s - self._min_s)) / 2


def backing_off(kind: type[Backoff]) -> type[Client]:
    """Return a client class with a back-off of this kind."""

    class Made(Client):
        def __init__(self, url, places, **options):
            super().__init__(url, places, **options)
            self._backoff = kind(self._backoff._draw)

    return Made


class Persistent(Client):
    """A client that reconnects within the window, whatever the close code means, and with the same token."""

    def _closed(self, closed):
        return Ending(After.WINDOW, "closed")


class Believer(Client):
    """A client that decides by the text of the close reason."""

    def _closed(self, closed):
        found = super()._closed(closed)
        reason = closed.rcvd.reason if closed.rcvd else ""
        return Ending(After.NEVER, reason) if "never come back" in reason else found


class Tongue(Client):
    """A client that never sends its languages after the `hello`."""

    def _offer_languages(self, link, welcome):
        pass


class Mute(ClientConnection):
    """A WebSocket that does not answer pings."""

    def __init__(self, protocol, **options):
        super().__init__(protocol, **options)
        send_frame = protocol.send_frame
        protocol.send_frame = lambda frame: None if frame.opcode == 0xA else send_frame(frame)


HELLO = json.dumps({"type": "hello", "places": [{"lat": 32.7767, "lng": -96.797}]})
PING = json.dumps({"type": "ping"})


def saying(*frames: str | bytes, impatient_s: float | None = None, wire: str = "json", **options: Any) -> Run:
    """Return a client that sends these frames and then waits.

    After `impatient_s` or a close it reconnects and repeats.
    """

    async def run(url: str) -> None:
        while True:
            with contextlib.suppress(OSError, WebSocketException):
                protocols = [Subprotocol(f"geocast.v1.{wire}")]
                async with connect(url, subprotocols=protocols, ping_interval=None, proxy=None, **options) as socket:
                    for frame in frames:
                        await socket.send(frame)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(socket.wait_closed(), impatient_s)

    return run


async def connect_plainly(url: str) -> None:
    """Open a WebSocket that offers no subprotocol."""
    with contextlib.suppress(WebSocketException):
        async with connect(url, proxy=None):
            pass


def with_query(run: Run) -> Run:
    """Return a client with its token in the URL."""
    return lambda url: run(f"{url}?token=secret")


class Touchy(Client):
    """Leaves a server that has sent an odd message."""

    def _drop(self, what):
        super()._drop(what)
        self.interrupt()


class GivesUp(Client):
    """Never comes back after its `hello` was refused."""

    def _closed(self, closed):
        ending = super()._closed(closed)
        return Ending(After.NEVER, ending.why) if closed.rcvd and closed.rcvd.code in (4400, 1009) else ending


BROKEN: dict[str, tuple[str, str, Run]] = {
    "has its token in the URL": ("handshake", "basics", with_query(a_client())),
    "offers no subprotocol": ("handshake", "basics", connect_plainly),
    "sends a ping before the hello": ("hello", "basics", saying(PING, HELLO)),
    "sends two hellos": ("hello", "basics", saying(HELLO, HELLO)),
    "sends an unknown field": ("form", "basics", a_client(Talkative)),
    "sends NaN": ("form", "basics", saying(HELLO.replace("32.7767", "NaN"))),
    "sends a duplicate key": ("form", "basics", saying(HELLO, '{"type":"ping","type":"ping"}')),
    "sends bytes instead of a string": (
        "form",
        "basics",
        saying(msgpack.packb({"type": "hello", "token": b"t"}), wire="msgpack"),
    ),
    "sends a message that is not a map": ("form", "basics", saying(HELLO, "[1]")),
    "sends text frames in the MessagePack format": ("form", "basics", saying(HELLO, wire="msgpack")),
    "sends a place as a list": ("form", "basics", saying('{"type":"hello","places":[[1,2]],"holding":[]}')),
    "sends an unknown type of message": ("form", "basics", saying(HELLO, '{"type":"chat"}')),
    "sends 400 pings": ("pace", "basics", saying(HELLO, *[PING] * 400)),
    "sends no pongs": ("pong", "basics", saying(HELLO, create_connection=Mute)),
    "disconnects after an unknown message": ("unknown", "basics", a_client(Choosy)),
    "shows only circles": ("unknown", "basics", a_client(holding(OnlyCircles))),
    "disconnects after a cancel of an unknown alert": ("unknown-cancel", "basics", a_client(Stubborn)),
    "treats the last received revision as the newest": ("revisions", "revisions", a_client(holding(LatestWins))),
    "never drops ended alerts": ("expiry", "clock", a_client(holding(Hoarder))),
    "trusts its own clock": ("clock", "clock", a_client(holding(OwnTime))),
    "shows alerts that the server's clock has ended": ("wrong-clock", "wrong-clock", a_client(Eager)),
    "acknowledges everything": ("inside", "inside", a_client(Eager)),
    "uses the bounding box of a polygon": ("polygons", "polygons", seeing(its_box)),
    "ignores the buffer of a polygon": ("polygons", "polygons", seeing(lambda shape: shape | {"buffer_m": 0.0})),
    "leaves after an odd message": ("odd", "odd", a_client(Touchy)),
    "gives up when its hello is refused": ("refused-holding", "refused-holding", a_client(GivesUp)),
    "shows no test": ("own-test", "own-test", a_client(holding(OnlyActual))),
    "forgets a test when it reconnects": ("own-test", "own-test", a_client(Forgetful)),
    "sends no holding": ("holding", "revisions", a_client(Forgetful)),
    "lists all held alerts": ("at-most-256", "many", a_client(holding(Unbounded))),
    "lists the alerts that end first": ("at-most-256", "many", a_client(holding(FirstOnes))),
    "disconnects although its ping was answered": ("ping", "silence", saying(HELLO, PING, impatient_s=0.3)),
    "never gives up a dead connection": ("dead", "silence", a_client(pong_s=1e6)),
    "always draws the same delay": ("window", "window", a_client(draw=lambda: 0.5)),
    "draws delays from half of the window": ("window", "window", a_client(backing_off(Narrow))),
    "always reconnects at once": ("window", "window", a_client(backing_off(Hasty))),
    "decides by the close reason": ("window", "window", a_client(Believer)),
    "never waits longer": ("backoff", "backoff", a_client(backing_off(Steady))),
    **{f"reconnects after {c}": ("no-return", f"no-return-{c}", a_client(Persistent)) for c in NEVER_CODES},
    "sends its languages again after a refusal": ("languages", "languages", a_client(Persistent, draw=lambda: 0.0)),
    "never sends its languages after a refusal": ("languages", "languages", a_client(Tongue)),
    "sends here to every server": ("on-duty", "duty", a_client(Forward)),
    "sends no fresh position": ("near", "called", a_client(locate=None)),
    "sends each accept only once": ("accept", "called", a_client(calling(Once))),
    "repeats an accept after a standdown": ("accept", "called", a_client(calling(Insistent))),
    "acknowledges a call twice": ("called", "called", a_client(Twice)),
    "keeps a task after its standdown": ("let-go", "tasked", a_client(calling(Keeps))),
    "keeps a task after its end": ("let-go", "tasked", a_client(calling(Outlasts))),
    "lists alerts before calls": ("calls-first", "crowded", a_client(CallsLast)),
    "reports without a seat": ("report", "tasked", a_client(Boastful)),
    "reports all the time": ("report", "tasked", a_client(calling(Quick))),
    "sends a refused token again": ("new-token", "new-token", a_client(Persistent, token=lambda: "mine")),
    "reconnects at once to an overloaded server": ("later", "later", a_client(backing_off(Hasty))),
    "waits after the first 4420": ("at-once", "at-once", a_client(Persistent)),
    "reconnects at once after every 4420": ("at-once", "at-once", a_client(backing_off(Hasty))),
    "reconnects after 4420 without holding": ("at-once", "at-once", a_client(Forgetful)),
}


class Impatient(Client):
    """A client of the feed that takes an alert for over when it is missing from the document."""

    def _take_feed(self):
        super()._take_feed()
        missing = [alert["id"] for alert in self.holdings if alert["id"] not in self._feed.listing.listed]
        for key in missing:
            cancel = {"type": "cancel", "id": key, "revision": 2**31 - 1}
            self._handle(cancel)


class Unconditional(Client):
    """A client of the feed that always asks for the whole document."""

    def _heard_feed(self, least_ms, most_ms):
        super()._heard_feed(least_ms, most_ms)
        self._feed._tag = ""


class ShowsAll(Client):
    """A client of the feed that treats a shape of unknown type as containing its places."""

    def _take_feed(self):
        for listed in self._feed.listing.listed.values():
            if listed.alert["area"][0]["type"] == "blob":
                self._handle({"type": "alert", "alert": listed.alert})
        super()._take_feed()


class Undead(Client):
    """A client of the feed that ignores tombstones."""

    def _take_feed(self):
        self._feed.listing._cancels = []
        super()._take_feed()


BROKEN_OF_THE_FEED: dict[str, tuple[str, Callable[[str, str], Coroutine[Any, Any, object]]]] = {
    "asks for the whole document each time": ("feed", a_feed_client(Unconditional)),
    "drops alerts that are missing": ("tombstones", a_feed_client(Impatient)),
    "ignores tombstones": ("tombstones", a_feed_client(Undead)),
    "shows shapes of unknown type": ("unknown", a_feed_client(ShowsAll)),
}
