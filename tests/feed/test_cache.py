"""Bodies of the feed: what is in one, how long it is kept, when another is made (PF1, PF2)."""

import asyncio
import json

import pytest
from support.fakes import NOON_MS, FakeClock, a_cancel, a_revision

from geocast.feed import atom, cache, cap
from geocast.feed.gallery import Gallery
from geocast.feed.picture import PictureRequest
from geocast.stream.live_alerts import LiveAlerts

SITE = atom.Site("https://alerts.example", "alerts@city.example")


async def drawn(alert):
    """The picture of an alert, at once."""
    return PictureRequest(alert.revision, alert.cancel, SITE, cap.Issuer("alerts@city.example", {})).draw()


class FeedHarness:
    """Live alerts, a clock, and both kinds of bodies."""

    def __init__(self):
        self.clock = FakeClock()
        self.live = LiveAlerts(1)
        self.gallery = Gallery(self.live, self.clock, drawn)
        self.geojson = cache.features(self.gallery, self.live, self.clock)
        self.atom = cache.entries(self.gallery, self.live, self.clock, SITE)

    def reads(self, *entries):
        """These come in, and are drawn."""
        for entry in entries:
            self.live.apply(entry, self.clock.now())
            asyncio.run(self.gallery._draw_one(entry.id))

    def body(self, kept):
        """The body of this kind now."""
        return asyncio.run(kept.body())

    def ids(self):
        """The ids of the features, in order."""
        return [each["id"] for each in json.loads(self.body(self.geojson).content)["features"]]


@pytest.fixture
def stage():
    """Nothing live, at noon."""
    return FeedHarness()


def test_alerts_are_told_the_newest_first(stage):
    """PF1."""
    stage.reads(a_revision("old"), a_revision("new", issued_at=NOON_MS + 5))
    assert stage.ids() == ["new", "old"]


def test_a_feed_without_alerts_may_be_kept_as_long_as_any(stage):
    """PF2."""
    assert stage.ids() == []
    headers = stage.body(stage.atom).headers(stage.clock.now())
    assert headers["Cache-Control"] == "public, max-age=5, must-revalidate"


def test_tests_and_exercises_are_told_to_nobody(stage):
    """PF1."""
    stage.reads(a_revision("t", status="test"), a_revision("e", status="exercise"), a_revision("a"))
    assert stage.ids() == ["a"]
    assert stage.body(stage.atom).content.count(b"<entry") == 1


def test_a_cancel_stays_in_the_atom_feed_until_the_alert_would_have_ended(stage):
    """PF1: and is in no GeoJSON."""
    stage.reads(a_revision(), a_cancel())
    assert stage.ids() == []
    assert b"Cancelled: " in stage.body(stage.atom).content
    stage.clock.advance(1800)
    assert b"<entry" not in stage.body(stage.atom).content


def test_a_body_serves_for_a_second(stage):
    """PF2: it is made at most once a second, and then with what is new."""
    first = stage.body(stage.geojson)
    stage.reads(a_revision())
    stage.clock.advance(0.9)
    assert stage.body(stage.geojson) is first
    stage.clock.advance(0.1)
    assert stage.ids() == ["a-1"]


def test_a_body_is_kept_no_longer_than_the_first_of_its_alerts_lives(stage):
    """PF2, E1: a cache is told so, and we keep to it ourselves."""
    stage.reads(a_revision(), a_revision("short", expires_at=NOON_MS + 2500))
    told = stage.body(stage.geojson)
    assert told.headers(stage.clock.now())["Cache-Control"] == "public, max-age=2, must-revalidate"
    stage.clock.advance(1.9)
    assert set(stage.ids()) == {"a-1", "short"}
    stage.clock.advance(0.6)
    assert stage.ids() == ["a-1"], "not even for the rest of the second"


def test_nothing_that_either_clock_has_ended_is_told(stage):
    """PF2, E1."""
    stage.reads(a_revision())
    stage.clock.wall_ms += 1_800_000
    assert stage.ids() == []


def test_a_tag_changes_with_the_content_and_with_nothing_else(stage):
    """PF2: so does Last-Modified."""
    stage.reads(a_revision())
    first = stage.body(stage.atom)
    stage.clock.advance(10)
    again = stage.body(stage.atom)
    assert again is not first
    assert (again.tag, again.changed_ms) == (first.tag, first.changed_ms)
    stage.reads(a_revision(revision=2))
    stage.clock.advance(10)
    other = stage.body(stage.atom)
    assert other.tag != first.tag
    assert other.headers(stage.clock.now())["Last-Modified"].endswith("12:00:20 GMT")


def test_many_who_ask_at_once_are_served_by_one_body(stage, monkeypatch):
    """PF2: the same bytes for all."""

    async def ask():
        return await asyncio.gather(*(stage.geojson.body() for _ in range(50)))

    stage.reads(*(a_revision(f"a-{n}") for n in range(120)))
    told = asyncio.run(ask())
    assert len({id(each.content) for each in told}) == 1
