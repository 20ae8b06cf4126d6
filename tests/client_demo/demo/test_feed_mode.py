"""Tests of the verdict on the demo's phones that follow the feed: each kind of fault is found, and nothing else is."""

import httpx
import pytest

from client_demo.conformance.scripted_feed import FEED_PATH, ScriptedFeed
from client_demo.demo.feed_mode import CANCELLED, LATE_S, FeedPhone, Tap, check_phones
from client_demo.demo.verdict import Published
from client_demo.python.geo import Place

HERE, FAR = (32.79123, -96.79456), (32.9, -96.5)
STEP = int((LATE_S + 1) * 1e9)  # a revision is current for long enough to be seen
NOW = 10 * STEP


def item(revision, spot, key="a", step=STEP):
    """Return a published revision of a circle, or a cancel if `spot` is None."""
    area = spot and [{"type": "circle", "lat": spot[0], "lng": spot[1], "radius_m": 1_000.0}]
    return Published(key, revision, area, revision * step, revision * step + 1, "arson", "text")


def phone(spot=HERE, **last):
    """Return a phone whose last messages about alerts are these."""
    return FeedPhone(Place.at(*spot), last)


STORY = [item(1, HERE), item(2, FAR), item(3, None), item(1, HERE, "b")]


def test_newest_message_on_every_phone_is_good():
    """A phone that was in an earlier revision gets the cancel, too; a phone elsewhere gets nothing."""
    found = check_phones(STORY, [phone(a=CANCELLED, b=1), phone(FAR, a=CANCELLED), phone((0, 0))], NOW)
    assert found.is_good, found
    assert found.line() == "feed-mode: expected=3 told=3 outside=0 places_known_to_server=0 phones=3"


def test_revision_that_was_current_too_shortly_may_be_missed():
    """The phone may ask before and after it (rule 2 of the judge)."""
    brief = [item(1, HERE, step=1000), item(2, None, step=1000), item(1, HERE, "b")]
    assert check_phones(brief, [phone(b=1)], NOW).is_good
    assert check_phones(brief, [phone(a=CANCELLED, b=1)], NOW).is_good


@pytest.mark.parametrize(
    "wrong",
    [phone(a=2, b=1), phone(b=1), phone(a=CANCELLED), phone((0, 0), b=1), phone(a=CANCELLED, b=1, c=1)],
    ids=["not its cancel", "one of two", "the other one of two", "elsewhere", "never published"],
)
def test_each_wrong_phone_is_found(wrong):
    assert not check_phones(STORY, [phone(a=CANCELLED, b=1), wrong], NOW).is_good


@pytest.mark.parametrize("header", [{}, {"X-Place": "32.791"}, {"Cookie": "a=1"}], ids=str)
async def test_tap_finds_a_place_and_requests_that_differ(header):
    phones = [phone(), phone(FAR)]
    feed = ScriptedFeed(wait_s=10)
    async with feed.serve("127.0.0.1", 0) as address:
        tap = Tap(f"http://{address}")
        async with tap.running() as url, httpx.AsyncClient(trust_env=False) as http:
            first = await http.get(f"{url}{FEED_PATH}")
            again = await http.get(f"{url}{FEED_PATH}", headers={"If-None-Match": first.headers["ETag"]})
            assert again.status_code == 304
            assert tap.known(phones) == 0
            await http.get(f"{url}{FEED_PATH}", headers=header)
    assert (tap.known(phones) > 0) == bool(header)
