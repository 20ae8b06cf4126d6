"""The trusted time of a log: no clock alone decides which entries are deleted (LogR1)."""

import dataclasses

import pytest
from alertlog.chains import OPENING, a_call, a_call_entry, a_claim, an_end
from support.fakes import HOUR_MS, NOON_MS, FakeClock, a_cancel, a_revision

from geocast.alertlog.trusted_time import PROVE_S, TrustedTime
from geocast.model.alert import Approval, OtherKind

DAY_MS = 24 * HOUR_MS


def entry(accepted_ms, approved_ms=None):
    """Return a revision with these times of acceptance and approval."""
    approved = accepted_ms if approved_ms is None else approved_ms
    return a_revision(issued_at=accepted_ms, approval=Approval("desk-7", approved))


@pytest.fixture
def clock():
    return FakeClock()


def test_empty_log_has_no_trusted_time(clock):
    """No entry has a time, and there is nothing to delete."""
    assert TrustedTime().at_least([], clock.now()) == 0
    assert TrustedTime().at_least([None, OtherKind("x", 1, NOON_MS)], clock.now()) == 0


@pytest.mark.parametrize("kind", ["revision", "cancel"])
@pytest.mark.parametrize("ahead", ["node", "desk"])
def test_trusted_time_is_earlier_of_acceptance_and_approval_times(clock, kind, ahead):
    """The node's clock or the desk's clock may be ahead."""
    times = (NOON_MS + DAY_MS, NOON_MS) if ahead == "node" else (NOON_MS, NOON_MS + DAY_MS)
    told = a_cancel(cancelled_at=times[0], approval=Approval("d", times[1])) if kind == "cancel" else entry(*times)
    clock.wall_ms += 7 * DAY_MS
    assert TrustedTime().at_least([told], clock.now()) == NOON_MS


def test_trusted_time_of_call_is_earlier_of_node_and_dispatcher_times(clock):
    """An entry that gives a seat has only one party's time, so it does not count."""
    clock.wall_ms += 7 * DAY_MS
    ahead = dataclasses.replace(OPENING, issued_at=NOON_MS + 9 * DAY_MS)
    for told in (a_call(), a_call_entry(ahead, 1), an_end(at=NOON_MS + 9 * DAY_MS)):
        assert TrustedTime().at_least([told], clock.now()) == OPENING.occurred_at
    odd = dataclasses.replace(a_call(), plain=b"\xc1")
    assert TrustedTime().at_least([a_claim(), odd], clock.now()) == 0


def test_trusted_time_advances_by_monotonic_clock(clock):
    """The trusted time advances whatever the wall clock does, and never passes the wall clock."""
    witness, there = TrustedTime(), [entry(NOON_MS)]
    assert witness.at_least(there, clock.now()) == NOON_MS
    clock.advance(3600)
    clock.wall_ms += 7 * DAY_MS
    assert witness.at_least(there, clock.now()) == NOON_MS + HOUR_MS
    clock.wall_ms = NOON_MS + 1
    assert witness.at_least(there, clock.now()) == NOON_MS + 1


def test_trusted_time_advances_although_log_has_become_empty(clock):
    """All entries may be deleted while a process runs."""
    witness = TrustedTime()
    witness.at_least([entry(NOON_MS)], clock.now())
    assert witness.at_least([], clock.advance(60)) == NOON_MS + 60_000


def test_newer_entry_raises_trusted_time_only_after_monotonic_clock_confirms_it(clock):
    """In this test, nothing was published for three days before the start."""
    witness = TrustedTime()
    clock.wall_ms += 3 * DAY_MS
    assert witness.at_least([entry(NOON_MS)], clock.now()) == NOON_MS
    there = [entry(clock.wall_ms), entry(NOON_MS)]
    assert witness.at_least(there, clock.now()) == NOON_MS
    clock.advance(PROVE_S - 1)
    assert witness.at_least(there, clock.now()) == NOON_MS + (PROVE_S - 1) * 1000
    clock.advance(1)
    assert witness.at_least(there, clock.now()) == clock.wall_ms


def test_entry_published_while_clock_was_ahead_does_not_raise_trusted_time(clock):
    """Node and desk are one machine, whose clock is two days ahead for ten minutes, twice."""
    witness = TrustedTime()
    witness.at_least([entry(NOON_MS)], clock.now())
    for _ in range(2):
        clock.wall_ms += 2 * DAY_MS
        there = [entry(clock.wall_ms)]
        for _ in range(10):
            true_ms = clock.advance(60).wall_ms - 2 * DAY_MS
            assert witness.at_least(there, clock.now()) == true_ms
        clock.wall_ms -= 2 * DAY_MS
        for _ in range(24):
            assert witness.at_least(there, clock.advance(3600)) == clock.wall_ms
