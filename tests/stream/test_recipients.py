"""Recipients of live alerts: flags, acknowledgements, `holding`, and what is counted (protocol, R1 to R8 and H7)."""

import numpy as np
import pytest
from stream.rows import HALF_HOUR_S, rows
from support.fakes import a_cancel, a_revision

from geocast.alertlog import Counts
from geocast.stream import live_alerts
from geocast.stream.live_alerts import ACKED, CURRENT, HOLDING_S, RECIPIENT, SENT

# ---- recipients of an alert --------------------------------------------------------------------------------------


def test_session_that_was_sent_an_alert_is_a_recipient_of_its_next_revisions(alerts, clock):
    """A recipient gets each new revision, once (R1, R2)."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent(rows(1, 2))
    alert.mark_sent_to(3)
    assert [alert.flags(row) for row in range(5)] == [0] + [RECIPIENT | CURRENT | SENT] * 3 + [0]
    assert alert.recipients().tolist() == []
    alerts.apply(a_revision(revision=2), clock.now())
    assert alert.recipients().tolist() == [1, 2, 3]
    alert.mark_sent(rows(2))
    assert alert.recipients().tolist() == [1, 3]


def test_cancel_has_to_be_sent_once_to_each_recipient(alerts, clock):
    """After the cancel the sessions are no longer recipients (R4)."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent(rows(1, 2, 3))
    alerts.apply(a_revision(revision=2), clock.now())
    alert.mark_sent(rows(1))
    alerts.apply(a_cancel(revision=3), clock.now())
    assert alert.recipients().tolist() == [1, 2, 3]
    alert.mark_sent(rows(1))
    alert.mark_sent_to(3)
    assert alert.recipients().tolist() == [2]


def test_recipient_that_missed_revisions_has_to_be_sent_the_newest(alerts, clock):
    """A superseded revision is not sent, and its recipients remain recipients (R2)."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent_to(1)
    for number in range(2, 9):
        alerts.apply(a_revision(revision=number), clock.now())
    assert alert.recipients().tolist() == [1]
    alert.mark_sent_to(1)
    assert alert.recipients().tolist() == []


# ---- acknowledgements --------------------------------------------------------------------------------------------


def test_ack_counts_once_and_only_for_a_revision_sent_on_this_connection(alerts, clock):
    """A revision that the client had before does not count (M5)."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent_to(1)
    alert.trust_holding(2, 1)
    for _ in range(3):
        for row in (0, 1, 2):
            alert.acknowledge(row, 1)
    assert alert.counts == Counts(1, 1)
    assert alert.flags(1) & ACKED


@pytest.mark.parametrize("number", [0, 2, 3, -1, 2**31 - 1])
def test_ack_of_a_revision_that_was_not_sent_is_ignored(alerts, clock, number):
    """Clients may name any number (M5)."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent_to(1)
    alert.acknowledge(1, number)
    assert alert.counts.acked == 0


def test_acks_are_counted_for_the_newest_three_revisions(alerts, clock):
    """Pairs of connection and revision are counted; a late ack still counts (H7)."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent_to(1)
    alerts.apply(a_revision(revision=2), clock.now())
    alerts.apply(a_revision(revision=3), clock.now())
    alert.mark_sent_to(1)
    for number in (1, 2, 3, 1, 3):
        alert.acknowledge(1, number)
    assert alert.counts == Counts(2, 2)  # revision 2 was never sent to it


def test_ack_of_an_older_revision_never_counts_for_a_newer_one(alerts, clock):
    """An ack of a revision that is not among the newest three is ignored (H7)."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent_to(1)
    alert.acknowledge(1, 1)
    for number in (2, 3, 4):
        alerts.apply(a_revision(revision=number), clock.now())
        alert.acknowledge(1, number)
        alert.acknowledge(1, 1)
    assert alert.counts == Counts(1, 1)


@pytest.mark.parametrize("jump", [2, 3, 4, 5, 100])
def test_ack_counts_for_the_right_revision_when_numbers_are_skipped(alerts, clock, jump):
    """A node that was behind skips revisions (H7)."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent_to(1)
    alerts.apply(a_revision(revision=1 + jump), clock.now())
    for number in range(2, 2 + jump):
        alert.acknowledge(1, number)
    assert alert.counts.acked == 0
    alert.acknowledge(1, 1)
    assert alert.counts.acked == (1 if jump < 3 else 0)
    assert alert.recipients().tolist() == [1]


def test_ack_of_the_last_revision_still_counts_after_the_cancel(alerts, clock):
    """Cancels are not counted (H7)."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent_to(1)
    alerts.apply(a_cancel(), clock.now())
    alert.mark_sent_to(1)
    alert.acknowledge(1, 2)
    assert alert.counts == Counts(1, 0)
    alert.acknowledge(1, 1)
    assert alert.counts == Counts(1, 1)


# ---- alerts that a client says it already has --------------------------------------------------------------------


def test_client_with_the_current_revision_needs_nothing_until_the_next(alerts, clock):
    """The client is a recipient from now on (R5b)."""
    alert = alerts.apply(a_revision(revision=2), clock.now())
    alert.trust_holding(1, 2)
    assert alert.recipients().tolist() == []
    alerts.apply(a_revision(revision=3), clock.now())
    assert alert.recipients().tolist() == [1]


def test_client_with_an_older_revision_has_to_be_sent_the_current_one(alerts, clock):
    """The client is a recipient from now on (R5a)."""
    alert = alerts.apply(a_revision(revision=2), clock.now())
    alert.trust_holding(1, 1)
    assert alert.recipients().tolist() == [1]


def test_client_with_a_newer_revision_needs_nothing_until_the_node_catches_up(alerts, clock):
    """The node is behind (R5c)."""
    alert = alerts.apply(a_revision(revision=1), clock.now())
    alert.trust_holding(1, 3)
    assert alert.recipients().tolist() == []
    for number, recipients in [(2, []), (3, []), (4, [1]), (5, [1])]:
        alerts.apply(a_revision(revision=number), clock.now())
        assert alert.recipients().tolist() == recipients
    assert alert._flags.ahead == {}


def test_client_with_a_newer_revision_has_to_be_sent_the_cancel(alerts, clock):
    """The client is a recipient although this node is behind (R4, R5c)."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.trust_holding(1, 3)
    alerts.apply(a_cancel(revision=4), clock.now())
    assert alert.recipients().tolist() == [1]


def test_revisions_that_a_client_already_has_do_not_count_as_sent(alerts, clock):
    """Only revisions that this node has sent are counted (H7)."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.trust_holding(1, 1)
    alert.acknowledge(1, 1)
    assert alerts.take_counts() == {}


# ---- alerts that a client has and the node does not know ---------------------------------------------------------


def test_unknown_alert_named_in_hello_is_remembered_for_30_s(alerts, clock):
    """The node may be behind, and learn of the alert later (R5e)."""
    alerts.holdings.remember(3, 7, {"a-1": 2}, clock.now())
    alerts.holdings.remember(4, 1, {"a-1": 5}, clock.now())
    alerts.holdings.expire(clock.advance(HOLDING_S - 0.001))
    assert sorted(alerts.holdings.take("a-1", 9)) == [(3, 7, 2), (4, 1, 5)]
    assert list(alerts.holdings.take("a-1", 9)) == []


def test_unknown_alert_named_in_hello_is_forgotten_after_30_s(alerts, clock):
    """The node may be behind for that long (R5e)."""
    alerts.holdings.remember(2, 7, {"a-1": 2}, clock.now())
    alerts.holdings.remember(3, 7, {"a-2": 2}, clock.advance(1))
    alerts.holdings.expire(clock.advance(HOLDING_S - 1))
    assert list(alerts.holdings.take("a-1", 9)) == []
    assert list(alerts.holdings.take("a-2", 9)) == [(3, 7, 2)]


def test_revision_named_in_hello_is_remembered_until_the_node_has_read_it(alerts, clock):
    """The alert may end by the node's last revision before the one that extends it comes (R5c)."""
    alerts.holdings.remember(3, 7, {"a-1": 2}, clock.now())
    for number in (1, 2):
        assert alerts.holdings.take("a-1", number) == [(3, 7, 2)]
    assert alerts.holdings.take("a-1", 2) == []


def test_reconnecting_client_with_an_unknown_alert_gets_30_s_of_its_own(alerts, clock):
    """A client that reconnects at once may get its old row (place in the hub's tables) again (R5e)."""
    alerts.holdings.remember(3, 7, {"a-1": 2}, clock.now())
    alerts.holdings.remember(3, 8, {"a-1": 2}, clock.advance(20))
    alerts.holdings.expire(clock.advance(HOLDING_S - 20))
    assert list(alerts.holdings.take("a-1", 9)) == [(3, 8, 2)]


def test_number_of_remembered_unknown_alerts_is_limited(alerts, clock, monkeypatch):
    """Beyond MAX_HOLDINGS no unknown alert is remembered (R5e)."""
    monkeypatch.setattr(live_alerts, "MAX_HOLDINGS", 2)
    for row in range(4):
        alerts.holdings.remember(row, 0, {"a-1": 1}, clock.now())
    assert [row for row, _, _ in alerts.holdings.take("a-1", 9)] == [0, 1]
    alerts.holdings.expire(clock.advance(HOLDING_S))
    alerts.holdings.remember(5, 0, {"a-1": 1}, clock.now())
    assert [row for row, _, _ in alerts.holdings.take("a-1", 9)] == [5]


def test_client_that_lists_few_unknown_alerts_is_not_crowded_out_by_those_that_list_many(alerts, clock):
    """Whoever invents alerts displaces only what others have invented (R5e, HD6)."""
    for row in range(400):
        alerts.holdings.remember(row, 0, {f"invented-{row}-{number}": 1 for number in range(256)}, clock.now())
    alerts.holdings.remember(500, 0, {f"a-{number}": 3 for number in range(5)}, clock.now())
    for row in range(600, 1400):
        alerts.holdings.remember(row, 0, {f"invented-{row}-{number}": 1 for number in range(256)}, clock.now())
    assert [alerts.holdings.take(f"a-{number}", 9) for number in range(5)] == [[(500, 0, 3)]] * 5
    assert sum(bool(alerts.holdings.take(f"invented-0-{number}", 9)) for number in range(256)) > 5


def test_what_a_client_has_listed_is_forgotten_when_it_leaves(alerts, clock):
    """Sessions that end at once take no room (R5e)."""
    alerts.holdings.remember(3, 0, {"a-1": 1, "a-2": 1}, clock.now())
    alerts.forget(np.array([3], np.int32))
    assert alerts.holdings.take("a-1", 9) == []


# ---- counts of deliveries and acknowledgements -------------------------------------------------------------------


def test_take_counts_returns_each_delivery_and_ack_once(alerts, clock):
    """Pairs of connection and revision are counted when sent, and when acknowledged (H7)."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent(rows(1, 2, 3))
    alert.acknowledge(2, 1)
    alerts.apply(a_revision("a-2"), clock.now())
    assert alerts.take_counts() == {"a-1": Counts(3, 1)}
    assert alerts.take_counts() == {}
    alert.acknowledge(3, 1)
    assert alerts.take_counts() == {"a-1": Counts(0, 1)}
    assert alerts.acks == 2


def test_take_counts_includes_counts_of_expired_alerts(alerts, clock):
    """Counts may lag, but none is lost (H7)."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent(rows(1, 2))
    alerts.expire(clock.advance(HALF_HOUR_S))
    assert alerts.take_counts() == {"a-1": Counts(2, 0)}
    assert alerts.take_counts() == {}


def test_take_counts_returns_counts_that_were_put_back(alerts, clock):
    """No count is lost while the log can't be used (H7)."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent(rows(1, 2))
    taken = alerts.take_counts()
    alert.mark_sent(rows(3))
    alerts.put_back_counts(taken)
    alerts.put_back_counts({"gone": Counts(5, 1)})
    assert alerts.take_counts() == {"a-1": Counts(3, 0), "gone": Counts(5, 1)}


def test_cancels_do_not_count_as_sent(alerts, clock):
    """Only revisions are counted (H7)."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent(rows(1))
    alerts.apply(a_cancel(), clock.now())
    alert.mark_sent(rows(1))
    assert alerts.take_counts() == {"a-1": Counts(1, 0)}


# ---- deliveries that are retracted -------------------------------------------------------------------------------


def test_retracting_a_delivery_makes_the_session_no_recipient_unless_the_caller_keeps_it(alerts, clock):
    """`retract` is told whether an earlier revision had made the session a recipient (R8)."""
    alert = alerts.apply(a_revision(), clock.now())
    for recipient, flags in ((False, 0), (True, RECIPIENT)):
        alert.mark_sent(rows(1))
        alert.retract(1, 1, recipient=recipient)
        assert alert.flags(1) == flags
    assert alert.lacks(1)


def test_retracting_an_older_revision_leaves_the_newer_one_marked_as_sent(alerts, clock):
    """A session that has the newer revision still counts as having it (R2)."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent(rows(1, 2))
    alerts.apply(a_revision(revision=2), clock.now())
    alert.trust_holding(1, 2)
    alert.retract(1, 1, recipient=True)
    assert alert.flags(1) & (RECIPIENT | CURRENT) == RECIPIENT | CURRENT
    alert.retract(2, 1, recipient=False)
    assert alert.flags(2) & RECIPIENT == 0


def test_retracted_cancel_has_to_be_sent_again(alerts, clock):
    """The session is a recipient again (R4)."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent(rows(1))
    alerts.apply(a_cancel(), clock.now())
    alert.mark_sent(rows(1))
    assert not alert.lacks(1)
    alert.retract(1, 2, recipient=True)
    assert alert.lacks(1)
