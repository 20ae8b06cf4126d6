"""Stories that the random steps of test_model.py come to too seldom, with the same desk, node, phones and model."""

import pytest
from support.town import CIRCLES, PLACES
from test_model import Geocast, small  # noqa: F401 (a fixture)

HOME, ABROAD = PLACES[:1], PLACES[-1:]


class Story(Geocast):
    """The same desk, node, phones and model, told what to do."""

    def comes(self, places, tests=True, **holding):
        self.hello("geocast.v1.json", places, {}, {"tests": tests, "life_s": 7200}, holding)
        return self.phones[-1]

    def goes(self, phone):
        """It hangs up, and its row is free."""
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
        """The node reads one item and sends it to all."""
        self.read()
        self.turn_often(1000)
        self.nothing_is_missing()
        self.count(again=False)


@pytest.fixture
def story(small):  # noqa: F811
    """A story in which nothing has happened yet."""
    return Story()


def test_a_claim_is_remembered_for_its_own_thirty_seconds(story):
    """Rule 5, the last row: not for those of a session that had the row before and claimed the same."""
    story.goes(story.comes(ABROAD, a=1))
    story.waits(20.0)
    phone = story.comes(ABROAD, a=1)
    story.waits(10.0)
    story.publishes()
    story.revises()
    story.reads()
    story.reads()
    assert phone.client.newest == {"a": 2}


def test_a_claim_is_not_remembered_for_the_next_session_of_the_row(story):
    """Rule 5, the last row: who claims nothing is no recipient."""
    story.goes(story.comes(ABROAD, a=1))
    phone = story.comes(ABROAD)
    story.publishes()
    story.revises()
    story.reads()
    story.reads()
    assert phone.client.newest == {}


def test_what_a_session_holds_from_a_node_ahead_does_not_count_for_the_next_session_of_the_row(story):
    """Rule 5, "node behind"; rule 1."""
    story.publishes()
    story.revises()
    story.reads()
    story.goes(story.comes(HOME, a=2))
    phone = story.comes(HOME)
    story.reads()
    assert phone.client.newest == {"a": 2}


def test_an_acknowledgement_counts_once_and_for_what_was_sent_and_may_be_seen(story):
    """Section 5, "Messages", `ack`; rule 6."""
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
