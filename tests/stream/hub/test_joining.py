"""Who joins late, or comes back with what it holds, is told the difference."""

import pytest
from stream.hub.town import FAR_AWAY, HALF_HOUR_S
from support.fakes import a_cancel, a_revision, messages

from geocast.alertlog import Counts
from geocast.matching.filters import Filter
from geocast.model.alert import Circle


def test_what_is_live_follows_the_welcome_in_the_same_write(town):
    """Rule 4, R3: exactly `live` many, nothing between: cancels first, then the most severe first."""
    town.publish(
        a_revision("minor", severity="minor"),
        a_revision("far", area=(Circle(0.0, 0.0, 1000.0),)),
        a_revision("extreme", severity="extreme"),
        a_revision("held", revision=2),
        a_revision("severe"),
        a_revision("over"),
        a_cancel("over"),
        a_revision("unknown"),
        a_cancel("unknown"),
    )
    peer = town.join(holding={"over": 1, "held": 2})
    assert peer.told_by_write() == [["welcome", "-over/2", "extreme/1", "severe/1", "minor/1"]]
    assert messages(peer.writes[0])[0] == {"type": "welcome", "live": 4}
    town.run()
    assert len(peer.writes) == 1


def test_who_joins_before_the_first_turn_is_told_once(town):
    """R2, R3: by its welcome, and not by the fan-out that has yet to start."""
    town.deliver(a_revision())
    peer = town.join(0)
    town.run()
    assert peer.told_by_write() == [["welcome", "a-1/1"]]
    assert town.hub.take_counts() == {"a-1": Counts(1, 0)}


def test_a_late_joiner_is_a_recipient_like_any_other(town):
    """R1, R3: and is counted."""
    town.publish(a_revision())
    peer = town.join(0)
    town.publish(a_revision(revision=2))
    town.hub.acknowledge(peer.row, "a-1", 2, town.clock.now())
    assert peer.received() == ["welcome", "a-1/1", "a-1/2"]
    assert town.hub.take_counts() == {"a-1": Counts(2, 1)}


@pytest.mark.parametrize(
    ("held", "told", "later"),
    [
        (1, ["welcome", "a-1/2"], ["a-1/3", "-a-1/4"]),
        (2, ["welcome"], ["a-1/3", "-a-1/4"]),
        (3, ["welcome"], ["-a-1/4"]),
        (9, ["welcome"], ["-a-1/4"]),
    ],
)
def test_who_comes_back_is_told_the_difference(town, held, told, later):
    """R5: the table of what the node knows against what is held; a recipient from now on, wherever it is."""
    town.publish(a_revision(), a_revision(revision=2))
    peer = town.join(FAR_AWAY, holding={"a-1": held}, wanted=Filter(frozenset()))
    assert peer.received() == told
    town.publish(a_revision(revision=3))
    town.publish(a_cancel(revision=4))
    assert peer.received() == later


def test_who_comes_back_after_the_end_is_told_nothing(town):
    """R5: expired, or unknown: nothing, and no sign of which."""
    town.publish(a_revision())
    town.clock.advance(HALF_HOUR_S)
    peer = town.join(holding={"a-1": 1, "a-2": 1})
    assert peer.received() == ["welcome"]


def test_who_comes_back_after_a_cancel_is_told_once(town):
    """R5: `cancel`, and no recipient from now on."""
    town.publish(a_revision(), a_cancel())
    peer = town.join(holding={"a-1": 1})
    town.move(peer, 1)
    town.hub.slowed(peer.row, town.clock.now())
    town.hub.on_drained(peer.row, town.clock.now())
    assert peer.received() == ["welcome", "-a-1/2", "ok"]


@pytest.mark.parametrize(("held", "told"), [(1, ["a-1/2"]), (2, []), (3, [])])
def test_an_unknown_id_is_judged_when_its_entry_comes(town, held, told):
    """R5: remembered for 30 s, in case the node is behind, and judged by the table then."""
    peer = town.join(FAR_AWAY, holding={"a-1": held})
    peer.take()
    town.clock.advance(29.9)
    town.sweep()
    peer.take()
    town.publish(a_revision(revision=2))
    assert peer.received() == told
    town.publish(a_cancel(revision=4))
    assert peer.received() == ["-a-1/4"]


def test_a_claim_of_a_session_that_has_gone_is_not_the_next_ones(town):
    """Rule 5, R5: the claim was that of another connection."""
    peer = town.join(FAR_AWAY, holding={"a-1": 1})
    town.hub.leave(peer.row)
    town.sweep()
    next_one = town.join(FAR_AWAY)
    assert next_one.row == peer.row
    town.publish(a_revision(revision=2))
    assert next_one.received() == ["welcome"]


def test_a_client_that_comes_back_twice_is_remembered_from_the_second_time(town):
    """R5: 30 s from its last `hello`, though it has the same row as before."""
    first = town.join(FAR_AWAY, holding={"a-1": 1})
    town.hub.leave(first.row)
    town.sweep()
    town.clock.advance(20)
    second = town.join(FAR_AWAY, holding={"a-1": 1})
    assert second.row == first.row
    town.clock.advance(10)
    town.sweep()
    town.publish(a_revision(revision=2))
    assert second.received() == ["welcome", "a-1/2"]
