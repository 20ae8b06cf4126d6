"""Which alerts of the feed are drawn, in which order, and what happens when drawing fails (HD4)."""

import asyncio

import pytest
from support.fakes import FakeClock, a_cancel, a_revision
from support.feed_subjects import Deadly, Endless, Impossible

from geocast.alertlog import TrustAll
from geocast.feed import atom, cap
from geocast.feed import drawer as drawer_module
from geocast.feed import routes as net_feed
from geocast.feed.drawer import Drawer
from geocast.feed.gallery import Gallery
from geocast.feed.picture import PictureRequest
from geocast.stream.live_alerts import LiveAlerts

SITE = atom.Site("https://alerts.example", "alerts@city.example")
ISSUER = cap.Issuer("alerts@city.example", {})


class Studio:
    """Live alerts and their gallery, whose drawing waits until it is let go on."""

    def __init__(self):
        self.clock = FakeClock()
        self.live = LiveAlerts(1, places=False)
        self.gallery = Gallery(self.live, self.clock, self._draw)
        self.drawn = []  # (id, number), in order
        self.errors = []  # to be raised next
        self.free = asyncio.Semaphore(0)

    async def _draw(self, alert):
        await self.free.acquire()
        if self.errors:
            raise self.errors.pop()
        self.drawn.append((alert.id, alert.number))
        return PictureRequest(alert.revision, alert.cancel, SITE, ISSUER).draw()

    def reads(self, *entries):
        """These come in."""
        for entry in entries:
            self.live.apply(entry, self.clock.now())
            self.gallery.want(entry.id)

    async def let_draw(self, count):
        """So many alerts are drawn."""
        for _ in range(count):
            self.free.release()
            for _ in range(5):
                await asyncio.sleep(0)


def run(scenario):
    """Run a coroutine of a studio, with its gallery at work."""

    async def whole():
        studio = Studio()
        at_work = asyncio.ensure_future(studio.gallery.draw_for_ever())
        try:
            await scenario(studio)
        finally:
            at_work.cancel()

    asyncio.run(whole())


def test_an_alert_is_drawn_once_for_each_of_its_revisions():
    """HD4: what was superseded while it waited is not drawn."""

    async def scenario(studio):
        studio.reads(a_revision("a"), a_revision("b"), a_revision("b", revision=2))
        await studio.let_draw(5)
        assert studio.drawn == [("a", 1), ("b", 2)]

    run(scenario)


def test_changes_of_alerts_that_the_feed_has_are_drawn_before_new_alerts():
    """HD4: a cancel does not wait for a hundred new polygons."""

    async def scenario(studio):
        studio.reads(a_revision("a"))
        await studio.let_draw(1)
        studio.reads(*(a_revision(f"new-{n}") for n in range(5)), a_cancel("a"))
        await studio.let_draw(3)
        assert [each for each, _ in studio.drawn].index("a", 1) <= 2

    run(scenario)


def test_a_revision_that_comes_while_its_alert_is_drawn_is_drawn_next():
    """HD4."""

    async def scenario(studio):
        studio.reads(a_revision("a"))
        await asyncio.sleep(0)
        studio.reads(a_revision("a", revision=2))
        await studio.let_draw(3)
        assert studio.gallery.pictures["a"].number == 2

    run(scenario)


def test_tests_are_not_drawn():
    """PF1."""

    async def scenario(studio):
        studio.reads(a_revision("t", status="test"), a_revision("a"))
        await studio.let_draw(2)
        assert studio.gallery.pictures.keys() == {"a"}

    run(scenario)


def test_a_revision_that_is_not_believed_is_not_drawn():
    """HD4, HD1: another one, which is believed, may come under its number."""

    async def scenario(studio):
        studio.live.verifier = Sceptic()
        studio.reads(a_revision("a", headline="forged"))
        await studio.let_draw(1)
        assert studio.gallery.pictures == {}
        studio.reads(a_revision("a"))
        await studio.let_draw(1)
        assert b"forged" not in studio.gallery.pictures["a"].feature

    run(scenario)


class Sceptic(TrustAll):
    """Believes all but one headline."""

    needs_chain = True

    def verify_revision(self, entry, behind):
        """Whether a revision is believed."""
        return entry.alert.headline != "forged"


def test_a_gallery_is_complete_when_all_that_was_live_at_the_start_is_drawn():
    """HD4: a node that starts does not serve half of the alerts."""

    async def scenario(studio):
        studio.reads(a_revision("a"), a_revision("b"))
        studio.gallery.started()
        studio.reads(a_revision("later"))
        await studio.let_draw(1)
        assert not studio.gallery.complete.is_set()
        await studio.let_draw(1)
        assert studio.gallery.complete.is_set()

    run(scenario)


def test_an_alert_that_can_not_be_drawn_now_is_drawn_later(monkeypatch):
    """HD4: none is left out because no process could be started."""
    monkeypatch.setattr("geocast.feed.gallery.RETRY_S", 0)

    async def scenario(studio):
        studio.errors.append(OSError())
        studio.reads(a_revision("a"))
        await studio.let_draw(4)
        assert studio.gallery.pictures.keys() == {"a"}

    run(scenario)


# ---- the process that draws ----------------------------------------------------------------------------------------


def drawn(*subjects):
    """Their pictures, by one drawer."""

    async def scenario():
        drawer = Drawer()
        try:
            return [await drawer(each) for each in subjects]
        finally:
            await drawer.aclose()

    return asyncio.run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Deadly, Endless, Impossible])
def test_an_alert_that_nothing_comes_of_is_shown_without_a_geometry(kind, monkeypatch):
    """HD4: it is in the feed all the same, with its exact area, and so is the next one."""
    monkeypatch.setattr(drawer_module, "PATIENCE_S", 3.0)
    bad, good = drawn(
        kind(a_revision("bad"), None, SITE, ISSUER), PictureRequest(a_revision("good"), None, SITE, ISSUER)
    )
    assert b'"geometry":null' in bad.feature
    assert b'"area"' in bad.feature
    assert b'"geometry":{"type":"Polygon"' in good.feature


def test_a_picture_is_the_same_from_the_drawer():
    """PF1, PF4, PF5."""
    subjects = [
        PictureRequest(a_revision(), None, SITE, ISSUER),
        PictureRequest(a_revision(), a_cancel(), SITE, ISSUER),
    ]
    assert drawn(*subjects) == [each.draw() for each in subjects]


def test_every_connection_of_the_feed_may_have_a_request_under_way():
    """HD6: so connections that read nothing, which give way at the door, can't use up the requests of others."""
    assert net_feed.MAX_CONNECTIONS <= net_feed.MAX_REQUESTS
