"""Sessions that connect late are sent the live alerts; those that return with `holding`, only what they have missed."""

import pytest
from stream.hub.town import FAR_AWAY, HALF_HOUR_S
from support.fakes import a_cancel, a_revision, messages

from geocast.alertlog import Counts
from geocast.matching.filters import Filter
from geocast.model.alert import Circle, Untrusted


def test_live_alerts_follow_the_welcome_in_the_same_write(town):
    """Exactly `live` messages follow: cancels first, then the most severe first (M17, R3)."""
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


def test_session_that_joins_before_the_fan_out_starts_is_sent_the_alert_once(town):
    """The alert follows the welcome, and the fan-out that starts later does not send the alert again (R2, R3)."""
    town.deliver(a_revision())
    peer = town.join(0)
    town.run()
    assert peer.told_by_write() == [["welcome", "a-1/1"]]
    assert town.hub.fanout.live.take_counts() == {"a-1": Counts(1, 0)}


def test_session_that_joins_late_is_sent_later_revisions_and_counted(town):
    """A session that was sent an alert after its welcome is a recipient like any other (R1, R3)."""
    town.publish(a_revision())
    peer = town.join(0)
    town.publish(a_revision(revision=2))
    town.hub.acknowledge(peer.row, "a-1", 2, town.clock.now())
    assert peer.received() == ["welcome", "a-1/1", "a-1/2"]
    assert town.hub.fanout.live.take_counts() == {"a-1": Counts(2, 1)}


@pytest.mark.parametrize(
    ("held", "told", "later"),
    [
        (1, ["welcome", "a-1/2"], ["a-1/3", "-a-1/4"]),
        (2, ["welcome"], ["a-1/3", "-a-1/4"]),
        (3, ["welcome"], ["-a-1/4"]),
        (9, ["welcome"], ["-a-1/4"]),
    ],
)
def test_returning_session_is_sent_the_revision_or_cancel_that_it_missed(town, held, told, later):
    """The revision that the client has is compared with the current one.

    From then on the session is a recipient (R5).
    """
    town.publish(a_revision(), a_revision(revision=2))
    peer = town.join(FAR_AWAY, holding={"a-1": held}, wanted=Filter(frozenset()))
    assert peer.received() == told
    town.publish(a_revision(revision=3))
    town.publish(a_cancel(revision=4))
    assert peer.received() == later


def test_returning_session_is_sent_nothing_of_an_expired_alert(town):
    """For the client, expired and unknown alerts look the same (R5e)."""
    town.publish(a_revision())
    town.clock.advance(HALF_HOUR_S)
    peer = town.join(holding={"a-1": 1, "a-2": 1})
    assert peer.received() == ["welcome"]


def test_returning_session_is_sent_the_cancel_once(town):
    """After the `cancel` the session is no longer a recipient (R5d)."""
    town.publish(a_revision(), a_cancel())
    peer = town.join(holding={"a-1": 1})
    town.move(peer, 1)
    town.hub.slowed(peer.row, town.clock.now())
    town.hub.on_drained(peer.row, town.clock.now())
    assert peer.received() == ["welcome", "-a-1/2", "ok"]


@pytest.mark.parametrize(("held", "told"), [(1, ["a-1/2"]), (2, []), (3, [])])
def test_session_with_an_alert_that_the_node_learns_later_is_sent_updates(town, held, told):
    """The node remembers the unknown id for 30 s, since the node may be behind (R5e)."""
    peer = town.join(FAR_AWAY, holding={"a-1": held})
    peer.take()
    town.clock.advance(29.9)
    town.sweep()
    peer.take()
    town.publish(a_revision(revision=2))
    assert peer.received() == told
    town.publish(a_cancel(revision=4))
    assert peer.received() == ["-a-1/4"]


def test_unknown_alert_named_in_hello_does_not_count_for_the_next_session(town):
    """The next session with the same row (place in the hub's tables) is another client (R5)."""
    peer = town.join(FAR_AWAY, holding={"a-1": 1})
    town.hub.leave(peer.row)
    town.sweep()
    next_one = town.join(FAR_AWAY)
    assert next_one.row == peer.row
    town.publish(a_revision(revision=2))
    assert next_one.received() == ["welcome"]


def test_unknown_alert_named_in_hello_is_remembered_for_30_s_from_the_last_hello(town):
    """The 30 s begin with the last `hello`.

    It makes no difference that the client gets the same row (place in the hub's tables) again (R5e).
    """
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


def test_returning_session_is_sent_the_cancel_although_the_alert_ended_here_before_the_node_caught_up(town):
    """The node knew only a revision that ended earlier than the one that the client has (R5c)."""
    town.publish(a_revision())
    town.clock.advance(HALF_HOUR_S - 5)
    peer = town.join(FAR_AWAY, holding={"a-1": 2})
    town.clock.advance(5)
    town.hub.sweep(town.clock.now())
    later = town.clock.now().wall_ms + 600_000
    town.publish(a_revision(revision=2, expires_at=later), a_cancel(revision=3, ends_at=later))
    assert peer.received() == ["welcome", "-a-1/3"]


def test_session_is_not_sent_what_it_holds_when_the_alert_is_believed_later(town):
    """Revisions that are believed only after the hello come again from the first on (Rule 9).

    The simulator found this case.
    """
    revisions = a_revision(), a_revision(revision=2)
    town.publish(*(Untrusted(entry.id, entry.revision, entry.ends_at, entry) for entry in revisions))
    peer = town.join(holding={"a-1": 2})
    town.publish(*revisions)
    assert peer.told_by_write() == [["welcome"]]
