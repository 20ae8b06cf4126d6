"""Who was told which live alert, who has acknowledged it or says that it holds it, and what is counted of that.

Rules are those of section 5 of the protocol (R1 to R8).
"""

import pytest
from stream.rows import HALF_HOUR_S, rows
from support.fakes import a_cancel, a_revision

from geocast.alertlog import Counts
from geocast.stream import live_alerts
from geocast.stream.live_alerts import ACKED, CURRENT, HOLDING_S, RECIPIENT, SENT

# ---- who was told what -------------------------------------------------------------------------------------------


def test_who_was_sent_a_revision_is_a_recipient_and_has_it(alerts, clock):
    """R1, R2: a recipient gets each new revision, once."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent(rows(1, 2))
    alert.mark_sent_to(3)
    assert [alert.flags(row) for row in range(5)] == [0] + [RECIPIENT | CURRENT | SENT] * 3 + [0]
    assert alert.recipients().tolist() == []
    alerts.apply(a_revision(revision=2), clock.now())
    assert alert.recipients().tolist() == [1, 2, 3]
    alert.mark_sent(rows(2))
    assert alert.recipients().tolist() == [1, 3]


def test_a_cancel_goes_to_recipients_whatever_they_have(alerts, clock):
    """R4: to recipients, who then are none any more."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent(rows(1, 2, 3))
    alerts.apply(a_revision(revision=2), clock.now())
    alert.mark_sent(rows(1))
    alerts.apply(a_cancel(revision=3), clock.now())
    assert alert.recipients().tolist() == [1, 2, 3]
    alert.mark_sent(rows(1))
    alert.mark_sent_to(3)
    assert alert.recipients().tolist() == [2]


def test_a_recipient_may_skip_revisions(alerts, clock):
    """R2: a revision that is superseded before it is written is not sent; its recipients are still recipients."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent_to(1)
    for number in range(2, 9):
        alerts.apply(a_revision(revision=number), clock.now())
    assert alert.recipients().tolist() == [1]
    alert.mark_sent_to(1)
    assert alert.recipients().tolist() == []


# ---- acknowledgements --------------------------------------------------------------------------------------------


def test_an_acknowledgement_counts_once_and_only_for_what_was_sent(alerts, clock):
    """M5: counts once, and only for what was sent on this connection."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent_to(1)
    alert.trust_holding(2, 1)
    for _ in range(3):
        for row in (0, 1, 2):
            alert.acknowledge(row, 1)
    assert (alert.sent, alert.acked) == (1, 1)
    assert alert.flags(1) & ACKED


@pytest.mark.parametrize("number", [0, 2, 3, -1, 2**31 - 1])
def test_a_revision_that_was_not_sent_is_not_acknowledged(alerts, clock, number):
    """M5: else nothing happens."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent_to(1)
    alert.acknowledge(1, number)
    assert alert.acked == 0


def test_acknowledgements_are_told_apart_for_three_revisions(alerts, clock):
    """H7: (connection, revision) pairs; an ack that comes late still counts."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent_to(1)
    alerts.apply(a_revision(revision=2), clock.now())
    alerts.apply(a_revision(revision=3), clock.now())
    alert.mark_sent_to(1)
    for number in (1, 2, 3, 1, 3):
        alert.acknowledge(1, number)
    assert (alert.sent, alert.acked) == (2, 2)  # revision 2 was never sent to it


def test_an_acknowledgement_of_long_ago_is_forgotten(alerts, clock):
    """H7: three revisions are told apart, and an older one is never taken for a newer."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent_to(1)
    alert.acknowledge(1, 1)
    for number in (2, 3, 4):
        alerts.apply(a_revision(revision=number), clock.now())
        alert.acknowledge(1, number)
        alert.acknowledge(1, 1)
    assert (alert.sent, alert.acked) == (1, 1)


@pytest.mark.parametrize("jump", [2, 3, 4, 5, 100])
def test_generations_follow_the_numbers_and_not_the_entries(alerts, clock, jump):
    """H7: a node that was behind takes several steps at once."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent_to(1)
    alerts.apply(a_revision(revision=1 + jump), clock.now())
    for number in range(2, 2 + jump):
        alert.acknowledge(1, number)
    assert alert.acked == 0
    alert.acknowledge(1, 1)
    assert alert.acked == (1 if jump < 3 else 0)
    assert alert.recipients().tolist() == [1]


def test_a_cancel_does_not_move_the_generations(alerts, clock):
    """H7: cancels don't count; an ack of the last revision does."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent_to(1)
    alerts.apply(a_cancel(), clock.now())
    alert.mark_sent_to(1)
    alert.acknowledge(1, 2)
    assert (alert.sent, alert.acked) == (1, 0)
    alert.acknowledge(1, 1)
    assert (alert.sent, alert.acked) == (1, 1)


# ---- holding -----------------------------------------------------------------------------------------------------


def test_who_holds_the_current_revision_is_sent_nothing(alerts, clock):
    """R5: current = held: nothing, and a recipient from now on."""
    alert = alerts.apply(a_revision(revision=2), clock.now())
    alert.trust_holding(1, 2)
    assert alert.recipients().tolist() == []
    alerts.apply(a_revision(revision=3), clock.now())
    assert alert.recipients().tolist() == [1]


def test_who_holds_an_older_revision_is_sent_the_current_one(alerts, clock):
    """R5: current > held: the current revision."""
    alert = alerts.apply(a_revision(revision=2), clock.now())
    alert.trust_holding(1, 1)
    assert alert.recipients().tolist() == [1]


def test_who_is_ahead_of_the_node_is_sent_nothing_until_it_has_caught_up(alerts, clock):
    """R5: current < held (node behind): nothing, and a recipient from now on."""
    alert = alerts.apply(a_revision(revision=1), clock.now())
    alert.trust_holding(1, 3)
    assert alert.recipients().tolist() == []
    for number, recipients in [(2, []), (3, []), (4, [1]), (5, [1])]:
        alerts.apply(a_revision(revision=number), clock.now())
        assert alert.recipients().tolist() == recipients
    assert alert._flags.ahead == {}


def test_who_is_ahead_is_told_of_the_cancel(alerts, clock):
    """R4, R5: a recipient, wherever it is in the count."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.trust_holding(1, 3)
    alerts.apply(a_cancel(revision=4), clock.now())
    assert alert.recipients().tolist() == [1]


def test_claims_do_not_count_as_sent(alerts, clock):
    """H7: claims by `holding` don't count."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.trust_holding(1, 1)
    alert.acknowledge(1, 1)
    assert alerts.take_counts() == {}


# ---- claims to hold what is unknown ------------------------------------------------------------------------------


def test_a_claim_to_an_unknown_alert_is_remembered(alerts, clock):
    """R5: an unknown id is remembered for 30 s, in case the node is behind."""
    alerts.remember_holding("a-1", 3, 7, 2, clock.now())
    alerts.remember_holding("a-1", 4, 1, 5, clock.now())
    alerts.drop_holdings(clock.advance(HOLDING_S - 0.001))
    assert sorted(alerts.take_holdings("a-1")) == [(3, 7, 2), (4, 1, 5)]
    assert list(alerts.take_holdings("a-1")) == []


def test_a_claim_is_forgotten_after_30_s(alerts, clock):
    """R5: remembered for 30 s."""
    alerts.remember_holding("a-1", 3, 7, 2, clock.now())
    alerts.remember_holding("a-2", 3, 7, 2, clock.advance(1))
    alerts.drop_holdings(clock.advance(HOLDING_S - 1))
    assert list(alerts.take_holdings("a-1")) == []
    assert list(alerts.take_holdings("a-2")) == [(3, 7, 2)]


def test_a_later_claim_from_the_same_row_has_its_own_30_s(alerts, clock):
    """R5: a client that comes back at once may get the row that it had; its new claim is not the old one."""
    alerts.remember_holding("a-1", 3, 7, 2, clock.now())
    alerts.remember_holding("a-1", 3, 8, 2, clock.advance(20))
    alerts.drop_holdings(clock.advance(HOLDING_S - 20))
    assert list(alerts.take_holdings("a-1")) == [(3, 8, 2)]


def test_claims_are_bounded(alerts, clock, monkeypatch):
    """R5: remembered, bounded."""
    monkeypatch.setattr(live_alerts, "MAX_HOLDINGS", 2)
    for row in range(4):
        alerts.remember_holding("a-1", row, 0, 1, clock.now())
    assert [row for row, _, _ in alerts.take_holdings("a-1")] == [0, 1]
    alerts.drop_holdings(clock.advance(HOLDING_S))
    alerts.remember_holding("a-1", 5, 0, 1, clock.now())
    assert [row for row, _, _ in alerts.take_holdings("a-1")] == [5]


# ---- counts ------------------------------------------------------------------------------------------------------


def test_counts_are_taken_once(alerts, clock):
    """H7: (connection, revision) pairs handed over, and those acknowledged."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent(rows(1, 2, 3))
    alert.acknowledge(2, 1)
    alerts.apply(a_revision("a-2"), clock.now())
    assert alerts.take_counts() == {"a-1": Counts(3, 1)}
    assert alerts.take_counts() == {}
    alert.acknowledge(3, 1)
    assert alerts.take_counts() == {"a-1": Counts(0, 1)}
    assert alerts.acks == 2


def test_counts_of_what_has_ended_are_not_lost(alerts, clock):
    """H7: they may lag, and are not lost when an alert ends."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent(rows(1, 2))
    alerts.expire(clock.advance(HALF_HOUR_S))
    assert alerts.take_counts() == {"a-1": Counts(2, 0)}
    assert alerts.take_counts() == {}


def test_counts_that_could_not_be_stored_are_put_back(alerts, clock):
    """H7: a log that is out of reach for a while costs none."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent(rows(1, 2))
    taken = alerts.take_counts()
    alert.mark_sent(rows(3))
    alerts.put_back_counts(taken)
    alerts.put_back_counts({"gone": Counts(5, 1)})
    assert alerts.take_counts() == {"a-1": Counts(3, 0), "gone": Counts(5, 1)}


def test_cancels_do_not_count_as_sent(alerts, clock):
    """H7: cancels don't count."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent(rows(1))
    alerts.apply(a_cancel(), clock.now())
    alert.mark_sent(rows(1))
    assert alerts.take_counts() == {"a-1": Counts(1, 0)}


# ---- what was not sent after all ---------------------------------------------------------------------------------


def test_what_was_not_sent_after_all_is_untold(alerts, clock):
    """R8: who is no recipient by anything else is none."""
    alert = alerts.apply(a_revision(), clock.now())
    for recipient, flags in ((False, 0), (True, RECIPIENT)):
        alert.mark_sent(rows(1))
        alert.retract(1, 1, recipient=recipient)
        assert alert.flags(1) == flags
    assert alert.lacks(1)


def test_a_revision_that_was_superseded_before_it_was_untold_takes_nothing_of_the_next(alerts, clock):
    """R2: who has the next one still has it."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent(rows(1, 2))
    alerts.apply(a_revision(revision=2), clock.now())
    alert.trust_holding(1, 2)
    alert.retract(1, 1, recipient=True)
    assert alert.flags(1) & (RECIPIENT | CURRENT) == RECIPIENT | CURRENT
    alert.retract(2, 1, recipient=False)
    assert alert.flags(2) & RECIPIENT == 0


def test_a_cancel_that_was_not_sent_leaves_a_recipient(alerts, clock):
    """R4."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent(rows(1))
    alerts.apply(a_cancel(), clock.now())
    alert.mark_sent(rows(1))
    assert not alert.lacks(1)
    alert.retract(1, 2, recipient=True)
    assert alert.lacks(1)
