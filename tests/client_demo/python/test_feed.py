"""Tests of the Python client that follows the feed, against a real HTTP server, and of its decisions without I/O."""

import asyncio
import contextlib
import gzip
import socket

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from support.fake_nodes import FAR, GUARD_S, HOME, FakeNode, alert

from client_demo.conformance.scripted_feed import FEED_PATH, SAYS_WHO, ScriptedFeed
from client_demo.python import client as client_module
from client_demo.python import feed as feed_module
from client_demo.python.client import Client, ClientError
from client_demo.python.feed import Listing
from client_demo.python.geo import Place
from client_demo.python.holdings import Holdings
from client_demo.python.times import own_ms, wall_ms
from client_demo.web.server import serving

NO_FILTER = {"categories": None, "min_severity": None, "languages": None}
CANCEL = {"type": "cancel", "id": "a", "revision": 2, "reason": "Over."}


def document(*alerts, cancelled=()):
    return {"features": [{"type": "Feature", "properties": each} for each in alerts], "cancelled": list(cancelled)}


def due(listing, places=(HOME,), holdings=None, **filter_):
    """Return the ids of the alerts, or the cancels, that a listing has for a client."""
    found = listing.messages(holdings or Holdings(places), {**NO_FILTER, **filter_})
    return [message["alert"]["id"] if message["type"] == "alert" else message for message in found]


class Play:
    """A client that follows a scripted feed, and what it has reported."""

    def __init__(self, feed, url, **options):
        self.feed, self.changes, self.lines = feed, [], []
        self._changed, self._said = asyncio.Event(), asyncio.Event()
        usual = {"source": "feed", "feed": f"http://{url}{FEED_PATH}", "feed_every_s": 0.1, "draw": lambda: 0.0}
        usual |= {"on_change": self._take, "on_status": self._say}
        self.client = Client(options.pop("stream", ""), options.pop("places", [HOME]), **{**usual, **options})

    def _take(self, change):
        self.changes.append((change.kind.value, change.alert["id"], change.alert["revision"]))
        self._changed.set()

    def _say(self, line):
        self.lines.append(line)
        self._said.set()

    async def until_line(self, text):
        """Wait until a status line contains this text."""
        while not any(text in line for line in self.lines):
            self._said.clear()
            await self._said.wait()

    async def until(self, count):
        """Wait until there were so many changes, and return them."""
        while len(self.changes) < count:
            self._changed.clear()
            await self._changed.wait()
        return self.changes


@contextlib.asynccontextmanager
async def following(**options):
    """Run a client that follows a scripted feed."""
    feed = ScriptedFeed(wait_s=GUARD_S)
    async with asyncio.timeout(GUARD_S), feed.serve("127.0.0.1", 0) as url:
        play = Play(feed, url, **options)
        task = asyncio.ensure_future(play.client.run())
        try:
            await play.client.caught_up()
            yield play
        finally:
            play.client.stop()
            await asyncio.gather(task)


# ---- decisions without I/O ----


def test_listing_yields_only_what_concerns_the_places_most_severe_first():
    extreme = {**alert("extreme", at=FAR), "severity": "extreme"}
    listing = Listing(document(alert("home"), alert("far", at=FAR), extreme))
    assert due(listing) == ["home"]
    assert due(listing, [HOME, FAR]) == ["extreme", "home", "far"]
    assert due(listing, []) == []


def test_filter_never_suppresses_an_extreme_alert():
    """The filter is decided on the device, as the server does (rules R1 and R7)."""
    extreme = {**alert("extreme"), "severity": "extreme"}
    listing = Listing(document(alert("severe"), extreme))
    assert due(listing, min_severity="extreme") == ["extreme"]
    assert due(listing, categories=["arson"]) == ["extreme"]
    assert due(listing, categories=["fire_structure"], min_severity="severe") == ["extreme", "severe"]


def test_held_alert_gets_its_revision_and_its_cancel_wherever_it_is():
    """A missing alert yields nothing, and nor does a cancel of an unknown alert (rules R1, R4, C3)."""
    holdings = Holdings([HOME])
    holdings.take_alert(alert("a"), own_ms())
    moved = Listing(document(alert("a", 2, at=FAR), cancelled=[{**CANCEL, "id": "other"}]))
    assert due(moved, holdings=holdings, categories=[]) == ["a"]
    assert due(Listing(document(alert("a"))), holdings=holdings) == []
    assert due(Listing(document()), holdings=holdings) == []
    assert due(Listing(document(cancelled=[CANCEL])), holdings=holdings) == [CANCEL]


def test_shape_of_unknown_type_contains_nobody_in_the_feed():
    """Nobody has decided before the device (rule G4)."""
    strange = {**alert("strange"), "area": [{"type": "blob"}]}
    both = {**alert("both"), "area": [{"type": "blob"}, *alert()["area"]]}
    assert due(Listing(document(strange, both))) == ["both"]


def test_cells_and_accuracies_reach_as_on_the_stream():
    beside = Place.at(HOME.lat + 0.0135, HOME.lng)  # 1.5 km north of a circle of 1 km
    cell = Place.in_cell("8726cb19dffffff")
    listing = Listing(document(alert("a"), alert("cell", at=cell)))
    assert due(listing, [beside]) == []
    assert due(listing, [Place.at(beside.lat, beside.lng, 600)]) == ["a"]
    assert "cell" in due(listing, [cell])


@pytest.mark.parametrize(
    ("wanted", "headline"), [(["fr", "de"], "Hochwasser"), (["de-CH"], "Hochwasser"), (["fr"], "Flood")]
)
def test_alert_in_several_languages_is_taken_in_the_wanted_one(wanted, headline):
    """The device chooses as a server does (rule LA3)."""
    texts = [
        {"language": "en", "headline": "Flood", "instruction": "Go."},
        {"language": "de-AT", "headline": "Hochwasser"},
    ]
    listing = Listing(document({**alert(), **texts[0], "texts": texts}))
    [message] = listing.messages(Holdings([HOME]), {**NO_FILTER, "languages": wanted})
    assert message["alert"]["headline"] == headline
    assert ("instruction" in message["alert"]) == (headline == "Flood")
    assert "texts" not in message["alert"]


@pytest.mark.parametrize(
    "broken", [None, {"id": "b"}, {**alert("b"), "area": [7]}, {**alert("b"), "expires_at": "soon"}]
)
def test_unusable_alert_is_counted_and_takes_nothing_with_it(broken):
    listing = Listing(document(broken, alert("a")))
    assert (listing.faults, due(listing)) == (1, ["a"])


@pytest.mark.parametrize("broken", [{}, {"features": 7}, {"features": None}])
def test_document_that_is_no_collection_is_refused(broken):
    with pytest.raises((KeyError, TypeError)):
        Listing(broken)


def test_unchanged_revision_is_not_prepared_again():
    first = Listing(document(alert("a"), alert("b")))
    second = Listing(document(alert("a"), alert("b", 2)), first)
    assert second.listed["a"] is first.listed["a"]
    assert second.listed["b"] is not first.listed["b"]


@pytest.mark.parametrize(
    "options",
    [
        {"source": "secret"},
        {"feed": None},
        {"feed": "wss://secret/v1"},
        {"feed": "http://node/v1/alerts.geojson?secret"},
        {"feed_every_s": 0.01},
        {"verify": object()},
    ],
)
def test_options_that_do_not_fit_are_refused_without_repeating_them(options):
    with pytest.raises(ValueError, match=r"source|feed") as caught:
        Client("", [HOME], **{"source": "feed", "feed": "http://node/v1/alerts.geojson", **options})
    assert "secret" not in str(caught.value)


# ---- following a feed ----


async def test_client_of_the_feed_reports_the_events_of_the_stream():
    """Late alert, revision that leaves, tombstone, and an alert that is missing from the document."""
    async with following() as play:
        for key in ("a", "b", "c"):
            await play.feed.put(alert(key))
        await play.feed.put(alert("far", at=FAR))
        await play.feed.put(alert("b", 2, at=FAR))
        await play.feed.cancel(CANCEL)
        await play.feed.omit("c")
        await play.feed.asked(GUARD_S)
        new = [("new", key, 1) for key in ("a", "b", "c")]
        assert await play.until(5) == [*new, ("no_longer_here", "b", 2), ("cancelled", "a", 1)]
        assert {each["id"] for each in play.client.holdings} == {"b", "c"}
        await play.client.move([FAR])
        assert sorted((await play.until(8))[5:]) == [
            ("back_here", "b", 2),
            ("new", "far", 1),
            ("no_longer_here", "c", 1),
        ]


async def test_requests_of_the_feed_say_nothing_about_the_person():
    """They are conditional, have no query, token or cookie, and nobody is told of an `ack`."""
    async with following(token=lambda: "secret") as play:
        await play.feed.put(alert())
        await play.until(1)
        play.client.ack("a", 1)
        await play.feed.asked(GUARD_S)
        last = play.feed.requests[-1]
        assert "if-none-match" in last.headers
        assert not last.url.query
        assert not {name for name in SAYS_WHO if name in last.headers}
        assert "secret" not in str(last.headers)
        assert play.client.late_s == pytest.approx(6.1)


async def test_cookie_of_a_server_is_not_sent_back():
    """Otherwise the server could tell the requests of one client from those of others (rule 1 of the module)."""
    cookies, asked = [], asyncio.Event()

    async def answer(request):
        cookies.append(request.headers.get("cookie"))
        if len(cookies) > 1:
            asked.set()
        return Response(b'{"features": []}', headers={"Set-Cookie": "who=you; Path=/"})

    async with asyncio.timeout(GUARD_S), serving(Starlette(routes=[Route("/f", answer)])) as url:
        client = Client("", [HOME], source="feed", feed=f"{url}/f", feed_every_s=0.1, on_status=len)
        task = asyncio.ensure_future(client.run())
        await asked.wait()
        client.stop()
        await task
    assert set(cookies) == {None}


async def test_check_asks_at_once():
    async with following(feed_every_s=600.0) as play:
        count = len(play.feed.requests)
        play.client.check()
        assert await play.feed.asked(GUARD_S)
        assert len(play.feed.requests) == count + 1


async def test_client_follows_the_clock_of_the_feed():
    """A `Date` that agrees to the second changes nothing; one that does not corrects the clock (rule C2)."""
    async with following() as play:
        ahead = play.client.holdings.server_ms(own_ms()) - wall_ms()
        assert abs(ahead) < 50
        play.feed.skew_ms = 3_600_000
        await play.feed.put(alert("a", lasts_ms=3_590_000))
        await play.feed.put(alert("b", lasts_ms=3_700_000))
        await play.feed.asked(GUARD_S)
        assert await play.until(1) == [("new", "b", 1)]
        play.feed.skew_ms = 0
        assert await play.until(2) == [("new", "b", 1), ("new", "a", 1)]


async def test_fetch_ends_after_one_document():
    feed = ScriptedFeed(wait_s=GUARD_S)
    async with asyncio.timeout(GUARD_S), feed.serve("127.0.0.1", 0) as url:
        play = Play(feed, url)
        await play.client.fetch()
        assert len(feed.requests) == 1


@pytest.mark.parametrize("status", [404, 429, 503])
async def test_failing_feed_is_asked_again(status):
    async with following() as play:
        play.feed.failure = status
        play.client.check()
        await play.feed.asked(GUARD_S)
        play.client.check()
        await play.feed.asked(GUARD_S)
        play.feed.failure = 0
        play.client.check()
        await play.feed.put(alert())
        assert await play.until(1) == [("new", "a", 1)]
        assert any(f"status {status}" in line for line in play.lines)


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'{"features": 7}', b"[" * 100_000, b"\xff"])
async def test_answer_that_is_no_document_is_reported(body):
    line = await first_line(lambda: Response(body))
    assert "can't be read (no GeoJSON)" in line


async def test_gzip_bomb_is_dropped(monkeypatch):
    monkeypatch.setattr(feed_module, "MAX_BYTES", 100_000)
    bomb = gzip.compress(b" " * 10_000_000)
    line = await first_line(lambda: Response(bomb, headers={"Content-Encoding": "gzip"}))
    assert "can't be read" in line


async def first_line(answer):
    """Return the first status line of a client whose feed gives this answer."""

    async def handle(_request):
        return answer()

    lines = asyncio.Queue()
    async with asyncio.timeout(GUARD_S), serving(Starlette(routes=[Route("/f", handle)])) as url:
        client = Client("", [HOME], source="feed", feed=f"{url}/f", on_status=lines.put_nowait)
        task = asyncio.ensure_future(client.run())
        line = await lines.get()
        client.stop()
        await task
    return line


# ---- automatically ----


def closed_port():
    """Return the URL of a stream at a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"ws://127.0.0.1:{listener.getsockname()[1]}/v1/stream"


async def test_auto_follows_the_feed_after_three_failures(monkeypatch):
    monkeypatch.setattr(client_module, "PATIENCE_S", GUARD_S)
    monkeypatch.setattr(client_module.Backoff, "delay_s", lambda *_: 0.0)
    async with following(source="auto", stream=closed_port()) as play:
        assert play.client.late_s == pytest.approx(6.1)
        await play.feed.put(alert())
        assert await play.until(1) == [("new", "a", 1)]
        failed = [line for line in play.lines if "no connection" in line]
        assert len(failed) == 3


async def test_auto_follows_the_feed_after_a_minute_without_a_connection(monkeypatch):
    monkeypatch.setattr(client_module, "PATIENCE_S", 0.05)
    async with following(source="auto", stream=closed_port()) as play:
        assert len([line for line in play.lines if "no connection" in line]) == 1


async def test_auto_returns_to_a_connection_and_repeats_no_event(monkeypatch):
    """The next `hello` lists what came from the feed, too, and the feed is not asked any more."""
    monkeypatch.setattr(client_module, "PATIENCE_S", 0.05)
    monkeypatch.setattr(client_module.Backoff, "delay_s", lambda *_: 0.0)
    gate, listed = asyncio.Event(), asyncio.Event()

    async def refused(session):
        await session.socket.close(1012)

    async def welcomed(session):
        await gate.wait()
        await session.welcome(live=1)
        await session.send(type="alert", alert=alert("b"))
        await session.socket.close(1012)

    async def back(session):
        await session.welcome()
        listed.set()
        await session.stay()

    node = FakeNode(refused, welcomed, back)
    async with node.running() as stream, following(source="auto", stream=stream) as play:
        await play.feed.put(alert())
        await play.until(1)
        gate.set()
        assert await play.until(2) == [("new", "a", 1), ("new", "b", 1)]
        await listed.wait()
        assert node.hellos[-1]["holding"] == {"a": 1, "b": 1}
        await play.until_line("not followed any more")
        assert play.client.late_s is None
        assert not await play.feed.asked(0.5)


async def test_auto_follows_the_feed_when_the_server_refuses_the_client_for_good(monkeypatch):
    monkeypatch.setattr(client_module, "PATIENCE_S", GUARD_S)

    async def refused(session):
        await session.socket.close(4403)

    node = FakeNode(refused)
    async with node.running() as stream, following(source="auto", stream=stream) as play:
        assert len(node.hellos) == 1
        assert play.client.late_s is not None


async def test_socket_source_still_gives_up_when_refused():
    async def refused(session):
        await session.socket.close(4403)

    async with FakeNode(refused).running() as stream:
        with pytest.raises(ClientError):
            await Client(stream, [HOME]).run()
