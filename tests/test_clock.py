"""Tests of both clocks."""

import datetime as dt

from geocast.clock import Now, SystemClock


def test_deadline_is_a_time_of_the_monotonic_clock():
    """A change of the wall clock does not move the deadline (protocol, section 3)."""
    assert Now(1_000, 50.0).deadline(3_500) == 52.5
    assert Now(1_000, 50.0).deadline(0) == 49.0


def test_system_clock_reads_the_wall_clock_and_the_monotonic_clock():
    """`now` in a welcome is the server's clock, in UTC (protocol, section 5)."""
    before = dt.datetime.now(dt.UTC)
    first, second = SystemClock().now(), SystemClock().now()
    assert first.wall_ms >= int(before.timestamp() * 1000)
    assert second.monotonic >= first.monotonic
