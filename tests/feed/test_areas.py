"""The requests of weather apps: which alerts are in a box, in which order, and their messages (rules FA1 to FA4)."""

import asyncio
import random
import uuid
from decimal import Decimal

import pytest
from lxml import etree
from support.fakes import DALLAS, NOON_MS, FakeClock, a_cancel, a_revision

from geocast.alertlog.memory import MemoryLog
from geocast.feed import areas, cap
from geocast.feed.areas import Areas, uuid_of
from geocast.model import problems
from geocast.model.alert import Circle, OtherShape, Polygon
from geocast.model.problems import Problem
from geocast.stream.live_alerts import LiveAlerts

ISSUER = cap.Issuer("alerts@city.example", {}, "https://alerts.example")
LAT, LNG = DALLAS


class Feed:
    """The live alerts of a feed, with a log, a clock and the object that answers weather apps."""

    def __init__(self):
        self.clock = FakeClock()
        self.log = MemoryLog()
        self.live = LiveAlerts(1, places=False)
        self.areas = Areas(self.live, self.log, self.clock, ISSUER)

    async def accept(self, *entries):
        """Append entries to the log, and apply them as the feed does."""
        for entry in entries:
            await self.log.append(entry)
            self.live.apply(entry, self.clock.now())
            self.areas.take(self.live.find(entry.id, self.clock.now()))

    async def inside(self, south, north, west, east):
        """Ask for a box."""
        names = ("min_lat", "max_lat", "min_lon", "max_lon")
        return await self.areas.inside([*zip(names, map(repr, (south, north, west, east)), strict=True)])

    async def near(self, lat=LAT, lng=LNG, half=0.001):
        """Ask for the box that apps make around a place."""
        return await self.inside(lat - half, lat + half, lng - half, lng + half)


async def is_not_found(feed, name):
    """Check that the feed has no message with this UUID."""
    with pytest.raises(Problem) as refused:
        await feed.areas.message(name)
    assert refused.value.type is problems.NOT_FOUND


def square(lat, lng, half, buffer_m=0.0):
    """Return a square polygon."""
    ring = [(lng - half, lat - half), (lng + half, lat - half), (lng + half, lat + half), (lng - half, lat + half)]
    return Polygon((*ring, ring[0]), buffer_m)


async def test_alerts_whose_areas_meet_the_box_are_listed_the_nearest_first():
    """FA2: by the distance from the middle of the box to the centre of the nearest shape."""
    feed = Feed()
    await feed.accept(
        a_revision("far", area=(Circle(LAT + 0.05, LNG, 8_000.0),)),
        a_revision("near", area=(Circle(LAT + 0.001, LNG, 500.0),)),
        a_revision("beside", area=(Circle(LAT + 0.05, LNG, 3_000.0), OtherShape({"type": "blob"}))),
        a_revision("ring", area=(square(LAT, LNG + 0.2, 0.25),)),
        a_revision("two", area=(Circle(0.0, 0.0, 10.0), Circle(LAT + 0.01, LNG, 2_000.0))),
    )
    assert await feed.near() == [uuid_of(each, 1) for each in ("near", "two", "far", "ring")]


async def test_only_live_actual_alerts_are_listed():
    """FA2: no tests, no cancelled alerts, and nothing after its end (E1)."""
    feed = Feed()
    await feed.accept(
        a_revision("test", status="test"),
        a_revision("cancelled"),
        a_cancel("cancelled"),
        a_revision("short", expires_at=NOON_MS + 1_000),
        a_revision("long"),
        a_revision("long", 2),
    )
    assert sorted(await feed.near()) == sorted([uuid_of("short", 1), uuid_of("long", 2)])
    feed.clock.advance(1)
    assert await feed.near() == [uuid_of("long", 2)]


async def test_polygon_is_tested_exactly_and_not_by_its_box():
    """FA1: the box around the triangle meets the box of the place, the triangle does not."""
    feed = Feed()
    ring = ((LNG, LAT), (LNG + 1, LAT), (LNG + 1, LAT + 1), (LNG, LAT))
    await feed.accept(a_revision("triangle", area=(Polygon(ring),)))
    assert await feed.near(LAT + 0.8, LNG + 0.2) == []
    assert await feed.near(LAT + 0.5, LNG + 0.5) == [uuid_of("triangle", 1)]
    assert await feed.inside(-90.0, 90.0, -180.0, 180.0) == [uuid_of("triangle", 1)]
    assert await feed.inside(LAT + 0.3, LAT + 0.31, LNG - 5, LNG + 5) == [uuid_of("triangle", 1)]


async def test_box_across_the_antimeridian_is_understood_in_both_forms():
    """FA1: with min_lon greater than max_lon, and with a longitude beyond 180, as apps compute it near 180."""
    feed = Feed()
    await feed.accept(a_revision("fiji", area=(Circle(-17.0, 179.999, 300.0),)))
    for west, east in ((179.99, -179.99), (179.998, 180.0005), (-180.002, -179.5)):
        assert await feed.inside(-17.01, -16.99, west, east) == [uuid_of("fiji", 1)]
    assert await feed.inside(-17.01, -16.99, -179.9, 179.9) == []


async def test_box_is_widened_to_a_grid_before_it_is_used():
    """FA3: two places in the same cell of 0.01° get the same answer, and the app decides exactly."""
    feed = Feed()
    await feed.accept(a_revision("a-1", area=(Circle(50.0001, 8.0001, 5.0),)))
    assert await feed.inside(50.0080, 50.0082, 8.0080, 8.0082) == [uuid_of("a-1", 1)]
    assert await feed.inside(50.0101, 50.0102, 8.0080, 8.0082) == []


@pytest.mark.parametrize("middle", [0, 20, -96, 180])
def test_box_is_widened_to_the_nearest_lines_of_the_grid_on_every_meridian(middle):
    """FA3: rounding errors do not widen it by one part more, as they did near the antimeridian."""
    dice = random.Random(1)
    for _ in range(2_000):
        lat = Decimal(dice.randrange(-80_000, 80_000)) / 1000
        lng = middle + Decimal(dice.randrange(-500, 500)) / 1000
        half = Decimal(dice.randrange(1, 200)) / 1000
        box = areas._widened(areas._box_of(said_box(lat - half, lat + half, lng - half, lng + half)))
        sides = (lng + half).scaleb(2).__ceil__() - (lng - half).scaleb(2).__floor__()
        assert box.width == pytest.approx(sides / 100, abs=1e-9)
        assert box.south == pytest.approx((lat - half).scaleb(2).__floor__() / 100, abs=1e-9)
        assert box.north == pytest.approx((lat + half).scaleb(2).__ceil__() / 100, abs=1e-9)


def said_box(south, north, west, east):
    """Return the parameters of a request, with longitudes between -180 and 180."""
    west, east = (each - 360 if each > 180 else each for each in (west, east))
    names = ("min_lat", "max_lat", "min_lon", "max_lon")
    return [*zip(names, map(str, (south, north, west, east)), strict=True)]


async def test_revision_with_a_huge_number_costs_no_more_than_others():
    """Somebody wrote it into the log by mistake."""
    feed = Feed()
    feed.live.apply(a_revision("odd", 2**40), feed.clock.now())
    feed.areas.take(feed.live.find("odd", feed.clock.now()))
    assert await feed.near() == [uuid_of("odd", 2**40)]


async def test_blocks_of_many_alerts_are_listed_in_one_order():
    """FA2: the nearest first, whatever block of columns an alert is in."""
    feed = Feed()
    count = areas.AT_ONCE + 10
    order = random.Random(2).sample(range(count), count)
    for n in order:
        feed.live.apply(a_revision(f"a-{n}", area=(Circle(LAT + n * 1e-6, LNG, 800.0),)), feed.clock.now())
        feed.areas.take(feed.live.find(f"a-{n}", feed.clock.now()))
    assert await feed.near(LAT - 0.004, LNG, 0.001) == [uuid_of(f"a-{n}", 1) for n in range(count)]


async def test_request_ended_while_columns_are_made_leaves_them_whole(monkeypatch):
    """The next request lists every alert (FA2), and one that comes while an alert is published lists that one."""
    feed = Feed()
    await feed.accept(a_revision("a-1"))
    step = feed.areas._share.step

    async def never():
        await asyncio.Event().wait()

    monkeypatch.setattr(feed.areas._share, "step", never)
    asked = asyncio.ensure_future(feed.near())
    for _ in range(5):
        await asyncio.sleep(0)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)

    async def published():
        monkeypatch.setattr(feed.areas._share, "step", step)
        await feed.accept(a_revision("a-2"))

    monkeypatch.setattr(feed.areas._share, "step", published)
    assert await feed.near() == [uuid_of("a-1", 1)]
    assert sorted(await feed.near()) == sorted([uuid_of("a-1", 1), uuid_of("a-2", 1)])


@pytest.mark.parametrize(
    "query",
    [
        "",
        "min_lat=1&max_lat=2&min_lon=3",
        "min_lat=1&max_lat=2&min_lon=3&max_lon=4&key=x",
        "min_lat=1&min_lat=1&max_lat=2&min_lon=3&max_lon=4",
        "min_lat=2&max_lat=1&min_lon=3&max_lon=4",
        "min_lat=nan&max_lat=2&min_lon=3&max_lon=4",
        "min_lat=1&max_lat=inf&min_lon=3&max_lon=4",
        "min_lat=1&max_lat=2&min_lon=3&max_lon=181.5",
        "min_lat=-91.5&max_lat=2&min_lon=3&max_lon=4",
        "min_lat=1_0&max_lat=12&min_lon=3&max_lon=4",
        "min_lat=1e999&max_lat=12&min_lon=3&max_lon=4",
        "min_lat=&max_lat=12&min_lon=3&max_lon=4",
        "min_lat=١&max_lat=12&min_lon=3&max_lon=4",
        "min_lat=12.3456789&max_lat=12&min_lon=3&max_lon=4",
    ],
)
async def test_anything_but_a_box_is_refused_with_a_reason_that_repeats_no_value(query):
    """FA1 and H9: 400."""
    parameters = [tuple(each.split("=")) for each in query.split("&") if each]
    with pytest.raises(Problem) as refused:
        await Feed().areas.inside(parameters)
    assert refused.value.type is problems.BAD_REQUEST
    assert not [value for _, value in parameters if len(value) > 3 and value in str(refused.value.detail)]


async def test_message_of_a_revision_stays_after_a_revision_and_a_cancel_until_the_alert_would_have_ended():
    """FA4: each revision has a message of its own; the cancel has none, because it is never listed."""
    feed = Feed()
    await feed.accept(a_revision("a-1"), a_revision("a-1", 2), a_cancel("a-1", 3))
    for number, kind in ((1, "Alert"), (2, "Update")):
        root = etree.fromstring(await feed.areas.message(uuid_of("a-1", number).upper()))
        assert root.findtext("{*}identifier") == f"a-1.{number}"
        assert root.findtext("{*}msgType") == kind
    await is_not_found(feed, uuid_of("a-1", 3))
    feed.clock.advance(1_800)
    await is_not_found(feed, uuid_of("a-1", 1))
    feed.areas.forget()
    assert not feed.areas._names
    assert not feed.areas._kept


@pytest.mark.parametrize("name", ["", "x", "area", "0b1fe5b3-4f1c-4d4e-9a0e-6f0d3a1c9e77"])
async def test_unknown_uuid_is_not_found(name):
    """FA4: and nothing is kept about it."""
    feed = Feed()
    await is_not_found(feed, name)
    assert not feed.areas._kept


async def test_message_is_made_once_however_often_it_is_asked_for():
    """Rule 3 of feed/areas.py: strangers can't cause more reads of the log."""
    feed = Feed()
    await feed.accept(a_revision("a-1"))
    reads = []
    history = feed.log.history

    async def counted(alert_id):
        reads.append(alert_id)
        return await history(alert_id)

    feed.log.history = counted
    found = {await feed.areas.message(uuid_of("a-1", 1)) for _ in range(5)}
    assert (len(found), reads, feed.areas.requests) == (1, ["a-1"], {"alert": 5})


def test_uuid_is_of_version_5_and_the_same_everywhere():
    """FA2: it depends on the id and the number alone."""
    found = uuid.UUID(uuid_of("desk-7.e3b0c442", 2))
    assert (found.version, found.variant) == (5, uuid.RFC_4122)
    assert str(found) == "3a54fd78-6733-5b77-8c87-6699a59b84ee"
