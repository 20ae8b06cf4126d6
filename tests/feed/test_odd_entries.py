"""Entries of the log with odd values, written by somebody else: one entry harms no other (HD4).

After each odd entry come a good alert and a cancel, which have to be in every document of the feed and in the answers
to weather apps.
"""

import asyncio
import json
import multiprocessing
import pickle
import threading

import msgpack
import pytest
from support.fakes import DALLAS, FakeClock, a_cancel, a_revision
from support.feed_subjects import Impossible

from geocast.alertlog import codec
from geocast.alertlog.memory import MemoryLog
from geocast.feed import cap, drawer
from geocast.feed.drawer import Drawer, Undrawable
from geocast.feed.picture import PictureRequest
from geocast.feed.routes import Feed
from geocast.model.times import MAX_MS
from geocast.stream.log_reader import LogHealth

ISSUER = cap.Issuer("alerts@city.example", {}, "https://alerts.example")
TEXTS = ("\ufffe", "\x00\x1b[2J", "]]><x/>&", "", "\u2028\u202e", "x" * 30_000, "\U0010ffff")
NUMBERS = (-1, 0, 2**40, 2**63 - 1)
TIMES = (0, 1, MAX_MS, -1, MAX_MS + 1)
HUGE = float("1e308")


def a_circle(lat=1.0, lng=1.0, radius_m=1.0):
    """Return a stored circle."""
    return {"type": "circle", "lat": lat, "lng": lng, "radius_m": radius_m}


def a_polygon(*ring, **more):
    """Return a stored polygon."""
    return {"type": "Polygon", "coordinates": [[list(each) for each in ring]], **more}


AREAS = [
    [],
    *(
        [a_circle(**{name: value})]
        for name in ("lat", "lng", "radius_m")
        for value in (HUGE, -HUGE, float("nan"), -1.0)
    ),
    [a_circle(radius_m=float("inf"))],
    [a_circle(lat="1", lng=True)],
    [a_polygon(*[(0.0, 0.0)] * 4)],
    [a_polygon((0.0, 0.0), (180.0, 0.0), (0.0, 90.0), (0.0, 0.0))],
    [a_polygon((0.0, 1000.0), (HUGE, 2.0), (-3.0, -HUGE), (0.0, 1000.0))],
    [a_polygon((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (5.0, 5.0))],
    [a_polygon((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0), buffer_m=each) for each in (-1.0, HUGE)],
    [{"type": "\ufffe", "coordinates": {"x": [None, []]}}],
    [a_circle()] * 3_000,
]
ODD = [
    *(
        {name: value}
        for name in ("category", "headline", "description", "source", "status", "threat", "issuer", "web", "urgency")
        for value in TEXTS
    ),
    *({name: value} for name in ("issued_at", "occurred_at", "onset_at") for value in TIMES),
    *({"expires_at": value} for value in (MAX_MS, MAX_MS + 1)),
    *({"revision": value} for value in NUMBERS),
    *({"area": value} for value in AREAS),
    *({"terms": [text, 1, 9]} for text in TEXTS),
    *({"terms": ["x", number, resolution]} for number in NUMBERS for resolution in (0, 15, 16)),
    *({"approval": [text, 0]} for text in TEXTS),
    *({"texts": [{"language": text, "title": text}, {"language": "en", "title": text}]} for text in TEXTS),
    *({"origin": [text, text, 2**40]} for text in TEXTS),
]


def odd_entries(good=a_revision):
    """Return what `codec.decode` makes of a good entry with each of the odd values; without those that it refuses.

    `good` returns a good entry with an id.
    """
    found = []
    for number, changes in enumerate([*ODD, *({"id": text} for text in TEXTS)]):
        alert_id = changes.get("id", f"odd-{number}")
        fields = msgpack.unpackb(codec.encode(good(alert_id))) | changes
        try:
            entry = codec.decode(msgpack.packb(fields), alert_id, fields["revision"], fields["expires_at"])
        except ValueError:
            continue
        found.append(entry)
    return found


class Reading:
    """A feed with areas that reads a log, and draws in this process or another."""

    def __init__(self, draw):
        self.log, self.clock = MemoryLog(), FakeClock()
        keeper = LogHealth(self.log, self.clock)
        self.feed = Feed(ISSUER, self.log, self.clock, keeper, draw, areas=True)

    def apply(self, *entries):
        """Give the feed entries, as the reader of the log does: one that raises does not stop it."""
        for entry in entries:
            try:
                self.feed._apply(entry)
            except Exception as error:
                pytest.fail(f"{type(error).__name__} for {entry!r:.300}")

    async def drawn(self):
        """Wait until everything in the queue was tried."""
        self.feed.gallery.started()
        await self.feed.gallery.complete.wait()
        self.feed.gallery.complete.clear()

    async def ids(self):
        """Return the ids in the GeoJSON document, and those of its tombstones."""
        document = json.loads((await self.feed.geojson.body()).content)
        return {each["id"] for each in document["features"]}, {each["id"] for each in document["cancelled"]}


def answers_to(*requests):
    """Return what the drawer's process answers to these requests."""
    asked, ask = multiprocessing.Pipe(duplex=False)
    read, answers = multiprocessing.Pipe(duplex=False)
    serving = threading.Thread(target=drawer.serve, args=(asked, answers))
    serving.start()
    found = []
    for request in requests:
        ask.send(request)
        found.append(read.recv())
    ask.close()
    serving.join()
    for each in (asked, read, answers):
        each.close()
    return found


async def draw_here(request):
    """Draw as the drawer's process does, from and to bytes."""
    [picture] = answers_to(request)
    if picture is None:
        raise Undrawable
    return picture


def test_some_odd_values_are_in_entries_and_others_are_refused():
    """Numbers that JSON lacks can't be sent to clients (`codec.decode`)."""
    entries = odd_entries()
    assert len(ODD) / 2 < len(entries) < len(ODD)
    assert any("\ufffe" in entry.alert.category for entry in entries)
    assert "nan" not in repr([entry.alert.area for entry in entries])


async def test_good_alert_and_cancel_after_each_odd_entry_are_in_every_document():
    """In the GeoJSON document, the Atom feed, the CAP messages, and the answers to apps (HD4)."""
    reading = Reading(draw_here)
    drawing = asyncio.ensure_future(reading.feed.gallery.draw_for_ever())
    lat, lng = DALLAS
    box = [("min_lat", str(lat)), ("max_lat", str(lat)), ("min_lon", str(lng)), ("max_lon", str(lng))]
    areas = reading.feed.areas
    try:
        for number, odd in enumerate(odd_entries()):
            good, gone = f"good-{number}", f"gone-{number}"
            reading.apply(a_revision(gone), odd, a_revision(good), a_cancel(gone))
            await reading.drawn()
            assert reading.feed.gallery.pictures[good].entry
            assert reading.feed.gallery.pictures[gone].number == 2
        live, cancelled = await reading.ids()
        assert {f"good-{n}" for n in range(number + 1)} <= live
        assert {f"gone-{n}" for n in range(number + 1)} <= cancelled
        assert b"good-0" in (await reading.feed.atom.body()).content
        found = await areas.inside(box)
        assert {name for name, (alert_id, _) in areas._names.items() if alert_id.startswith("good-")} <= {*found}
        assert len(reading.feed.gallery.left_out) == 0
    finally:
        drawing.cancel()


async def test_alert_that_cannot_be_drawn_at_all_is_left_out_counted_and_named(caplog):
    """Its neighbours are shown, and the feed becomes complete (HD4)."""

    async def draw(request):
        if request.revision.id == "bad":
            raise Undrawable
        return await draw_here(request)

    reading = Reading(draw)
    drawing = asyncio.ensure_future(reading.feed.gallery.draw_for_ever())
    try:
        reading.apply(a_revision("bad"), a_revision("good"))
        await reading.drawn()
        assert (await reading.ids())[0] == {"good"}
        [gauge] = [each for each in reading.feed.metrics() if each.name == "geocast_feed_alerts_left_out"]
        assert [each.value for each in gauge.samples] == [1]
        assert "leaves out alert 'bad'" in caplog.text
    finally:
        drawing.cancel()


async def test_alert_whose_cancel_cannot_be_drawn_is_not_shown_as_live():
    """Neither in the GeoJSON document nor in the Atom feed (PF4)."""

    async def draw(request):
        if request.cancel is not None:
            raise Undrawable
        return await draw_here(request)

    reading = Reading(draw)
    drawing = asyncio.ensure_future(reading.feed.gallery.draw_for_ever())
    try:
        reading.apply(a_revision("a-1"))
        await reading.drawn()
        assert b"a-1" in (await reading.feed.atom.body()).content
        reading.apply(a_cancel("a-1"))
        await reading.drawn()
        reading.clock.advance(2)
        assert await reading.ids() == (set(), set())
        assert b"a-1" not in (await reading.feed.atom.body()).content
    finally:
        drawing.cancel()


async def test_alert_that_was_left_out_is_tried_again_later(monkeypatch):
    """The failure may have had another reason, such as a lack of memory."""
    monkeypatch.setattr("geocast.feed.gallery.AGAIN_S", 0)
    failures = [Undrawable(), Undrawable()]

    async def draw(request):
        if failures:
            raise failures.pop()
        drawn.set()
        return await draw_here(request)

    drawn = asyncio.Event()
    reading = Reading(draw)
    drawing = asyncio.ensure_future(reading.feed.gallery.draw_for_ever())
    try:
        reading.apply(a_revision("a-1"))
        await drawn.wait()
        await reading.drawn()
        assert reading.feed.gallery.pictures.keys() == {"a-1"}
        assert not reading.feed.gallery.left_out
    finally:
        drawing.cancel()


class Hopeless(Impossible):
    """A subject that can't be drawn at all."""

    def draw(self):
        """Raise."""
        raise ZeroDivisionError


def test_drawer_answers_that_alert_cannot_be_drawn_and_draws_the_next():
    """It does not end, and leaves no traceback of its own (HD4)."""
    found = answers_to(*(kind(a_revision(), None, ISSUER) for kind in (Hopeless, PictureRequest)))
    assert found[0] is None
    assert found[1].number == 1


def test_drawer_whose_node_was_killed_ends_without_a_traceback(capfd):
    """Both in the middle of a request and before an answer."""

    async def scenario():
        process = await Drawer()._running()
        process.stdin.write(b"\x00\x00\x10\x00half a request")
        process.stdin.close()
        assert await process.wait() == 0
        process = await Drawer()._running()
        process._transport.get_pipe_transport(1).close()  # nobody reads the answers
        await asyncio.sleep(0)  # the pipe is closed in the next turn of the loop
        request = pickle.dumps(PictureRequest(a_revision(), None, ISSUER))
        process.stdin.write(len(request).to_bytes(4, "big") + request)
        assert await process.wait() == 0

    asyncio.run(scenario())
    assert "Traceback" not in capfd.readouterr().err
