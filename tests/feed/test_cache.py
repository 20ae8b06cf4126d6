"""Bodies of the feed: which alerts they have, how long caches may keep them, and when they are rebuilt (PF1, PF2)."""

import asyncio
import json

import pytest
from support.fakes import NOON_MS, FakeClock, a_cancel, a_revision

from geocast.feed import cache, cap
from geocast.feed.gallery import Gallery
from geocast.feed.picture import PictureRequest
from geocast.stream.live_alerts import LiveAlerts

ISSUER = cap.Issuer("alerts@city.example", {}, "https://alerts.example")


async def drawn(alert):
    """Return the picture of an alert, drawn in this process."""
    return PictureRequest(alert.revision, alert.cancel, ISSUER).draw()


class FeedHarness:
    """Live alerts, a fake clock, and the feed's two kinds of bodies."""

    def __init__(self):
        self.clock = FakeClock()
        self.live = LiveAlerts(1)
        self.gallery = Gallery(self.live, self.clock, drawn)
        self.geojson = cache.features(self.gallery, self.clock)
        self.atom = cache.entries(self.gallery, self.clock, ISSUER)

    def reads(self, *entries):
        """Apply these entries, and draw their alerts."""
        for entry in entries:
            self.live.apply(entry, self.clock.now())
            asyncio.run(self.gallery._draw_one(entry.id))

    def body(self, kept):
        """Return the current body of this kind."""
        return asyncio.run(kept.body())

    def ids(self):
        """Return the ids of the features, in order."""
        return [each["id"] for each in json.loads(self.body(self.geojson).content)["features"]]

    def tombstones(self):
        """Return the ids of the tombstones, in order."""
        return [each["id"] for each in json.loads(self.body(self.geojson).content)["cancelled"]]


@pytest.fixture
def stage():
    """A feed without alerts, at noon."""
    return FeedHarness()


def test_feed_lists_newest_alerts_first(stage):
    """Alerts are ordered by their time of issue (rule PF1)."""
    stage.reads(a_revision("old"), a_revision("new", issued_at=NOON_MS + 5))
    assert stage.ids() == ["new", "old"]


def test_empty_feed_may_be_cached_for_five_seconds(stage):
    """The feed has no alert that could end earlier (rule PF2)."""
    assert stage.ids() == []
    headers = stage.body(stage.atom).headers(stage.clock.now())
    assert headers["Cache-Control"] == "public, max-age=5, must-revalidate"


def test_tests_and_exercises_are_not_in_feed(stage):
    """The GeoJSON and the Atom document only have actual alerts (rule PF1)."""
    stage.reads(a_revision("t", status="test"), a_revision("e", status="exercise"), a_revision("a"))
    assert stage.ids() == ["a"]
    assert stage.body(stage.atom).content.count(b"<entry") == 1


def test_cancel_stays_in_both_documents_until_alert_would_have_ended(stage):
    """In the GeoJSON document it is not a feature, but a tombstone (rules PF1, PF6)."""
    stage.reads(a_revision(), a_cancel())
    assert stage.ids() == []
    assert stage.tombstones() == ["a-1"]
    assert b"Cancelled: " in stage.body(stage.atom).content
    stage.clock.advance(1800)
    assert stage.tombstones() == []
    assert b"<entry" not in stage.body(stage.atom).content


def test_cancelled_alert_leaves_the_document_before_its_tombstone_is_drawn(stage):
    """Clients do not treat a missing alert as cancelled (rules HD4, PF6)."""
    stage.reads(a_revision())
    stage.live.apply(a_cancel(), stage.clock.now())
    assert (stage.ids(), stage.tombstones()) == ([], [])


def test_feed_body_is_rebuilt_after_one_second(stage):
    """The new body contains alerts that have arrived since (rule PF2)."""
    first = stage.body(stage.geojson)
    stage.reads(a_revision())
    stage.clock.advance(0.9)
    assert stage.body(stage.geojson) is first
    stage.clock.advance(0.1)
    assert stage.ids() == ["a-1"]


def test_feed_body_is_reused_only_until_first_of_its_alerts_ends(stage):
    """This holds for HTTP caches and for the node itself (rules PF2, E1)."""
    stage.reads(a_revision(), a_revision("short", expires_at=NOON_MS + 2500))
    told = stage.body(stage.geojson)
    assert told.headers(stage.clock.now())["Cache-Control"] == "public, max-age=2, must-revalidate"
    stage.clock.advance(1.9)
    assert set(stage.ids()) == {"a-1", "short"}
    stage.clock.advance(0.6)
    assert stage.ids() == ["a-1"], "not even for the rest of the second"


def test_alert_that_ended_by_wall_clock_is_not_in_feed(stage):
    """An alert ends when either the wall clock or the monotonic clock says so (rules PF2, E1)."""
    stage.reads(a_revision())
    stage.clock.wall_ms += 1_800_000
    assert stage.ids() == []


def test_etag_and_last_modified_change_only_with_content(stage):
    """A new body with the same bytes keeps both (rule PF2)."""
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


def test_concurrent_requests_share_one_feed_body(stage, monkeypatch):
    """50 requests get the same bytes object (rule PF2)."""

    async def ask():
        return await asyncio.gather(*(stage.geojson.body() for _ in range(50)))

    stage.reads(*(a_revision(f"a-{n}") for n in range(120)))
    told = asyncio.run(ask())
    assert len({id(each.content) for each in told}) == 1
