"""The gallery: which alerts are drawn, in which order, and what happens if drawing fails (HD4)."""

import asyncio

import pytest
from support.fakes import FakeClock, a_cancel, a_revision
from support.feed_subjects import Deadly, Endless, Impossible

from geocast.alertlog import TrustAll
from geocast.feed import cap
from geocast.feed import drawer as drawer_module
from geocast.feed import routes as net_feed
from geocast.feed.drawer import Drawer
from geocast.feed.gallery import Gallery
from geocast.feed.picture import PictureRequest
from geocast.stream.live_alerts import LiveAlerts

ISSUER = cap.Issuer("alerts@city.example", {}, "https://alerts.example")


class Studio:
    """Live alerts and their gallery, in which each drawing waits for the test's permission."""

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
        return PictureRequest(alert.revision, alert.cancel, ISSUER).draw()

    def reads(self, *entries):
        """Apply these entries, and queue their alerts."""
        for entry in entries:
            self.live.apply(entry, self.clock.now())
            self.gallery.want(entry.id)

    async def let_draw(self, count):
        """Let the gallery draw this number of alerts."""
        for _ in range(count):
            self.free.release()
            for _ in range(5):
                await asyncio.sleep(0)


def run(scenario):
    """Run a scenario with a studio whose gallery is at work."""

    async def whole():
        studio = Studio()
        at_work = asyncio.ensure_future(studio.gallery.draw_for_ever())
        try:
            await scenario(studio)
        finally:
            at_work.cancel()

    asyncio.run(whole())


def test_revision_replaced_while_waiting_is_not_drawn():
    """Every other revision is drawn exactly once (rule HD4)."""

    async def scenario(studio):
        studio.reads(a_revision("a"), a_revision("b"), a_revision("b", revision=2))
        await studio.let_draw(5)
        assert studio.drawn == [("a", 1), ("b", 2)]

    run(scenario)


def test_cancel_is_drawn_before_new_alerts():
    """Any change of an alert that is already in the feed comes first (rule HD4)."""

    async def scenario(studio):
        studio.reads(a_revision("a"))
        await studio.let_draw(1)
        studio.reads(*(a_revision(f"new-{n}") for n in range(5)), a_cancel("a"))
        await studio.let_draw(3)
        assert [each for each, _ in studio.drawn].index("a", 1) <= 2

    run(scenario)


def test_revision_arriving_during_drawing_is_drawn_next():
    """In the end the gallery has the picture of the new revision (rule HD4)."""

    async def scenario(studio):
        studio.reads(a_revision("a"))
        await asyncio.sleep(0)
        studio.reads(a_revision("a", revision=2))
        await studio.let_draw(3)
        assert studio.gallery.pictures["a"].number == 2

    run(scenario)


def test_alert_whose_status_is_test_is_not_drawn():
    """The feed shows actual alerts only (rule PF1)."""

    async def scenario(studio):
        studio.reads(a_revision("t", status="test"), a_revision("a"))
        await studio.let_draw(2)
        assert studio.gallery.pictures.keys() == {"a"}

    run(scenario)


def test_unverified_revision_is_not_drawn():
    """A verified revision may still come under the same number (rules HD1, HD4)."""

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
    """A verifier that refuses one headline, and accepts everything else."""

    needs_chain = True

    def verify_revision(self, entry, behind):
        """Return whether the revision has another headline than the refused one."""
        return entry.alert.headline != "forged"


def test_gallery_is_complete_when_all_initial_alerts_are_drawn():
    """A node that starts must not serve only some of its alerts. Later alerts don't delay it (rule HD4)."""

    async def scenario(studio):
        studio.reads(a_revision("a"), a_revision("b"))
        studio.gallery.started()
        studio.reads(a_revision("later"))
        await studio.let_draw(1)
        assert not studio.gallery.complete.is_set()
        await studio.let_draw(1)
        assert studio.gallery.complete.is_set()

    run(scenario)


def test_alert_is_drawn_later_if_drawing_process_cannot_start(monkeypatch):
    """The drawing is retried (rule HD4)."""
    monkeypatch.setattr("geocast.feed.gallery.RETRY_S", 0)

    async def scenario(studio):
        studio.errors.append(OSError())
        studio.reads(a_revision("a"))
        await studio.let_draw(4)
        assert studio.gallery.pictures.keys() == {"a"}

    run(scenario)


# ---- the drawing process -------------------------------------------------------------------------------------------


def drawn(*subjects):
    """Return the pictures of these requests, drawn by one drawer process."""

    async def scenario():
        drawer = Drawer()
        try:
            return [await drawer(each) for each in subjects]
        finally:
            await drawer.aclose()

    return asyncio.run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Deadly, Endless, Impossible])
def test_alert_that_cannot_be_drawn_is_shown_without_geometry(kind, monkeypatch):
    """Its feature still has the exact area, and the next alert is drawn as usual (rule HD4)."""
    monkeypatch.setattr(drawer_module, "PATIENCE_S", 3.0)
    bad, good = drawn(kind(a_revision("bad"), None, ISSUER), PictureRequest(a_revision("good"), None, ISSUER))
    assert b'"geometry":null' in bad.feature
    assert b'"area"' in bad.feature
    assert b'"geometry":{"type":"Polygon"' in good.feature


def test_picture_drawn_in_other_process_equals_one_drawn_in_this_process():
    """Both pictures have the same bytes (rules PF1, PF4, PF5)."""
    subjects = [
        PictureRequest(a_revision(), None, ISSUER),
        PictureRequest(a_revision(), a_cancel(), ISSUER),
    ]
    assert drawn(*subjects) == [each.draw() for each in subjects]


def test_every_feed_connection_can_have_a_request_in_progress():
    """Connections that don't read are closed in favour of new ones, so they can't use up all requests (rule HD6)."""
    assert net_feed.MAX_CONNECTIONS <= net_feed.MAX_REQUESTS
