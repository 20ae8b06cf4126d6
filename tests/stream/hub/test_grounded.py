"""A flight is grounded as soon as its alert is superseded, cancelled or over: nothing old is sent."""

import pytest
from stream.hub.town import HALF_HOUR_S
from support.fakes import DALLAS, a_cancel, a_revision

from geocast.alertlog import Counts
from geocast.model.alert import Circle


def test_a_revision_that_is_superseded_before_it_is_written_is_not_sent(town):
    """Rule 1, R2: and makes nobody a recipient."""
    peer = town.join(0)
    town.publish(a_revision(), a_revision(revision=2), a_revision(revision=3, area=(Circle(0.0, 0.0, 100.0),)))
    assert peer.received() == ["welcome"]
    assert town.finished == ["a-1/3"]


def test_a_flight_is_grounded_by_a_new_revision(town, small_slices):
    """Rule 1, R2: who was not reached yet gets the new one only, who was gets both, in rising order."""
    peers = town.crowd(6)
    town.deliver(a_revision())
    town.turn()
    town.publish(a_revision(revision=2))
    assert [peer.received() for peer in peers] == [["a-1/1", "a-1/2"]] * 2 + [["a-1/2"]] * 4
    assert town.finished == ["a-1/2"]
    assert town.hub.take_counts() == {"a-1": Counts(8, 0)}


def test_a_flight_is_grounded_by_a_cancel(town, small_slices):
    """Rule 1, R4: who was reached gets the cancel; the others hear nothing of it."""
    peers = town.crowd(6)
    town.deliver(a_revision())
    town.turn()
    town.publish(a_cancel())
    assert [peer.received() for peer in peers] == [["a-1/1", "-a-1/2"]] * 2 + [[]] * 4


@pytest.mark.parametrize("which", ["wall", "monotonic"])
def test_a_flight_is_grounded_by_the_end(town, small_slices, which):
    """Rule 1, E1: nothing is sent after `expires_at`, by no path; either clock will do."""
    peers = town.crowd(6)
    town.deliver(a_revision())
    town.turn()
    if which == "wall":
        town.clock.wall_ms += HALF_HOUR_S * 1000
    else:
        town.clock.monotonic += HALF_HOUR_S
    town.run()
    town.move(peers[5], 1)
    town.hub.on_drained(peers[4].row, town.clock.now())
    assert [peer.received() for peer in peers] == [["a-1/1"]] * 2 + [[]] * 3 + [["ok"]]
    assert town.finished == []


def test_what_has_ended_stays_ended_wherever_the_wall_clock_goes(town):
    """Rule 1, E1: a clock that is set back sends nothing that the monotonic one has ended."""
    [peer] = town.crowd(1)
    town.deliver(a_revision())
    town.clock.monotonic += HALF_HOUR_S
    town.sweep()
    town.clock.wall_ms -= HALF_HOUR_S * 1000
    town.run()
    assert peer.received() == ["<ping>"]


def test_a_flight_that_left_somebody_out_begins_anew(town, small_slices):
    """Rule 1, R2: the wall clock was ahead for a moment; whoever came then is sent it, and nobody twice."""
    peers = town.crowd(6)
    town.deliver(a_revision())
    town.turn()
    town.clock.wall_ms += HALF_HOUR_S * 1000
    late = town.join(6)
    town.clock.wall_ms -= HALF_HOUR_S * 1000
    town.sweep()
    town.run()
    assert [peer.received() for peer in peers] == [["a-1/1"]] * 6
    assert late.received() == ["welcome", "a-1/1"]


def test_what_ends_while_it_waits_is_not_sent(town, small_slices):
    """Rule 1, section 3: the flight that has no bit yet too; and those behind it are not kept waiting."""
    peers = town.crowd(4)
    town.deliver(a_revision("a"), a_revision("b", expires_at=a_revision().issued_at + 1000), a_revision("c"))
    town.clock.advance(1)
    town.run()
    assert [sorted(peer.received()) for peer in peers] == [["a/1", "c/1"]] * 4


def test_a_cancel_is_not_sent_after_the_end(town, small_slices):
    """E1: nothing is sent after `expires_at`."""
    peers = town.crowd(4)
    town.publish(a_revision())
    town.deliver(a_cancel())
    town.turn()
    town.clock.advance(HALF_HOUR_S)
    town.run()
    assert [peer.received() for peer in peers] == [["a-1/1", "-a-1/2"]] * 2 + [["a-1/1"]] * 2


def test_a_bit_that_is_given_back_sends_nothing_old(town, small_slices):
    """Rule 1: a flight's bit may be the next one's; what was owed under it is not."""
    peers = town.crowd(4)
    town.deliver(a_revision("a"))
    town.turn()
    town.deliver(a_cancel("a"))
    town.publish(a_revision("b"))
    assert [peer.received() for peer in peers] == [["a/1", "-a/2", "b/1"]] * 2 + [["b/1"]] * 2


def test_a_bit_that_another_flight_takes_over_owes_nobody_anything(town, small_slices):
    """Rule 1: who was still to be sent what was grounded is not sent what flies under its bit now."""
    peers = town.crowd(6)
    town.deliver(a_revision("a"))
    town.turn()
    town.publish(a_cancel("a"))
    town.deliver(a_revision("b", area=(Circle(*DALLAS, 3.5),)))
    town.turn()
    town.deliver(a_revision("c", severity="extreme"))
    town.run()
    assert [peer.received() for peer in peers] == [["a/1", "-a/2", "b/1", "c/1"]] * 2 + [["c/1", "b/1"]] * 2 + [
        ["c/1"]
    ] * 2
