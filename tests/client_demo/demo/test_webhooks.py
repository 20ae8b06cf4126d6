"""Tests of the verdict on the demo's webhooks: each kind of fault is found, and nothing else is."""

import pytest

from client_demo.demo.verdict import Published
from client_demo.demo.webhooks import check_webhooks
from client_demo.webhook_receiver import Webhook

ACCEPTED, REVISED, CANCELLED, ENDED = "alert.accepted", "alert.revised", "alert.cancelled", "alert.ended"


def item(revision, area=(), key="a"):
    """Return a published revision, or a cancel if `area` is None."""
    return Published(key, revision, area, 1_000_000, 2_000_000, "arson", "text")


def told(kind, revision, key="a"):
    """Return a webhook that came 3 ms after the request of the publisher."""
    event = {"type": kind, "data": {"id": key, "revision": revision}}
    return Webhook("msg_1", event, {}, b"", True, 4_000_000)


STORY = [item(1), item(2), item(3, None), item(1, key="b")]
TOLD = [told(ACCEPTED, 1), told(REVISED, 2), told(CANCELLED, 3), told(ACCEPTED, 1, "b")]


def test_every_entry_once_and_in_order_is_good():
    """Ends are not expected, because nobody publishes them."""
    found = check_webhooks(STORY, [*TOLD, told(ENDED, 1, "b")])
    assert found.is_good
    assert found.line() == "relay: expected=4 got=4 out_of_order=0 forged=0 p50_ms=3.0 last_ms=3.0"


@pytest.mark.parametrize(
    ("came", "got", "out_of_order"),
    [
        (TOLD[:-1], 3, 0),
        ([*TOLD, TOLD[-1]], 3, 1),
        ([TOLD[1], TOLD[0], *TOLD[2:]], 4, 2),
        ([told(REVISED, 1), *TOLD[1:]], 4, 1),
        ([*TOLD[:2], told(REVISED, 3), TOLD[3]], 3, 0),
    ],
    ids=["missing", "twice", "swapped", "wrong type at first", "no cancel"],
)
def test_missing_repeated_or_misplaced_event_is_found(came, got, out_of_order):
    found = check_webhooks(STORY, came)
    assert (found.got, found.out_of_order) == (got, out_of_order)
    assert not found.is_good
    assert not check_webhooks(STORY, TOLD, forged=1).is_good
