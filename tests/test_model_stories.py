"""Particular sequences of events that the random steps of test_model.py reach too rarely, with the same model."""

import pytest
from support.town import CIRCLES, PLACES
from test_model import Geocast, small  # noqa: F401 (a fixture)

HOME, ABROAD = PLACES[:1], PLACES[-1:]


class Story(Geocast):
    """The publisher, node, phones and model of test_model.py, controlled by the test."""

    def comes(self, places, tests=True, **holding):
        self.hello("geocast.v1.json", places, {}, {"tests": tests, "life_s": 7200}, holding)
        return self.phones[-1]

    def goes(self, phone):
        """Disconnect a phone; its row (place in the hub's tables) becomes free."""
        self.leaves(phone)
        self.sweep()

    def waits(self, seconds):
        self.wait(seconds)
        self.sweep()

    def publishes(self, status="actual"):
        alert = {"severity": "severe", "category": "arson", "status": status, "area": tuple(CIRCLES[:1])}
        self.publish_one(600, turns=None, **alert)

    def revises(self):
        self.revise(which=0, changes={}, longer_s=0, turns=None)

    def reads(self):
        """Let the node read one item and send it to all."""
        self.read()
        self.turn_often(1000)
        self.nothing_is_missing()
        self.count(again=False)


@pytest.fixture
def story(small):  # noqa: F811
    """Return a story in which nothing has happened yet."""
    return Story()


def test_unknown_alert_named_in_hello_is_remembered_for_30_s_of_its_own_session(story):
    """An earlier session had the same row (place in the hub's tables) and the same `holding`.

    Its time does not count (Rule 5, the last row of the table).
    """
    story.goes(story.comes(ABROAD, a=1))
    story.waits(20.0)
    phone = story.comes(ABROAD, a=1)
    story.waits(10.0)
    story.publishes()
    story.revises()
    story.reads()
    story.reads()
    assert phone.client.newest == {"a": 2}


def test_unknown_alert_named_in_hello_does_not_count_for_the_next_session(story):
    """A session without `holding` is no recipient (Rule 5, the last row)."""
    story.goes(story.comes(ABROAD, a=1))
    phone = story.comes(ABROAD)
    story.publishes()
    story.revises()
    story.reads()
    story.reads()
    assert phone.client.newest == {}


def test_newer_revision_that_one_client_has_does_not_count_for_the_next_session(story):
    """A client may have a revision from a node that is ahead of this one (Rule 5, "node behind"; Rule 1)."""
    story.publishes()
    story.revises()
    story.reads()
    story.goes(story.comes(HOME, a=2))
    phone = story.comes(HOME)
    story.reads()
    assert phone.client.newest == {"a": 2}


def test_ack_counts_once_and_only_for_a_revision_that_was_sent_and_is_visible(story):
    """Section 5, "Messages", `ack`, and Rule 6 say which acknowledgements count."""
    story.publishes("test")
    story.reads()
    phone, claimant = story.comes(HOME), story.comes(HOME, a=1)
    story.token(which=0, token={"tests": False, "life_s": 7200})
    story.ack(which=0, shown=0, back=0)
    story.count(again=False)
    story.token(which=0, token={"tests": True, "life_s": 7200})
    for which in (0, 0, 1):
        story.ack(which, shown=0, back=0)
    story.revises()
    story.reads()
    story.ack(which=0, shown=0, back=1)
    story.ack(which=0, shown=0, back=0)
    story.count(again=False)
    assert (story.sent, story.acked) == ({"a": 3}, {"a": 2})
    assert (phone.client.newest, claimant.client.newest) == ({"a": 2}, {"a": 2})
