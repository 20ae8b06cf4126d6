"""Rates of publishers: limits for every window of a minute and of an hour."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocast.model.problems import Problem
from geocast.policy.publishers.bounds import Rate
from geocast.policy.publishers.rates import Rates

RATES = (Rate(3, 60), Rate(5, 3600))


def test_rate_holds_in_every_window_of_60_seconds():
    """A full rate at the end of one minute leaves nothing for the start of the next (rule PG2)."""
    rates = Rates()
    assert [rates.take("a", RATES, now) for now in (0.0, 50.0, 59.0)] == [0, 0, 0]
    assert rates.take("a", RATES, 59.5) == 0.5
    assert rates.take("a", RATES, 60.0) == 0
    assert rates.take("a", RATES, 61.0) == 49
    assert rates.take("b", RATES, 61.0) == 0


def test_take_returns_the_longer_wait_of_two_rates():
    """The rates of the minute and of the hour both apply (rule PG2)."""
    rates = Rates()
    for now in (0.0, 100.0, 200.0, 300.0, 301.0):
        assert rates.take("a", RATES, now) == 0
    assert rates.take("a", RATES, 400.0) == 3200
    assert rates.take("a", RATES, 3599.0) == 1
    assert rates.take("a", RATES, 3600.0) == 0


def test_request_that_is_given_back_does_not_count_towards_the_rate():
    """Nothing was published, because another request got the revision number (rule PG2)."""
    rates = Rates()
    for _ in range(10):
        assert rates.take("a", RATES, 1.0) == 0
        rates.give_back("a", 1.0)
    rates.give_back("nobody", 1.0)
    assert rates.take("a", RATES, 1.0) == 0


def test_publisher_without_a_request_for_an_hour_is_forgotten():
    """Memory therefore depends only on recent publishers (rule PG2)."""
    rates = Rates()
    for number in range(1000):
        rates.take(number, RATES, float(number))
    rates.take("a", RATES, 5000.0)
    assert set(rates._taken) == {"a"}


@given(st.lists(st.floats(0, 200), max_size=60), st.integers(1, 5), st.integers(1, 8))
def test_request_has_to_wait_exactly_when_a_rate_is_reached(steps, per_minute, per_hour):
    """A model counts the requests of each window (rule PG2)."""
    rates, limits = Rates(), (Rate(per_minute, 60), Rate(per_hour, 3600))
    now, taken = 0.0, []
    for step in steps:
        now += step
        wait = rates.take("a", limits, now)
        room = all(sum(at > now - rate.within_s for at in taken) < rate.number for rate in limits)
        assert (wait == 0) == room
        if not wait:
            taken.append(now)


def test_request_over_the_rate_is_refused_with_the_seconds_to_wait():
    """The number of seconds is rounded up, and nothing is recorded (rule PG2)."""
    rates = Rates()
    rates.claim("a", (Rate(1, 60),), 0.0)
    for now_s, after_s in ((0.5, 60), (59.0, 1)):
        with pytest.raises(Problem) as refused:
            rates.claim("a", (Rate(1, 60),), now_s)
        assert (refused.value.slug, refused.value.headers) == ("rate-limited", {"Retry-After": str(after_s)})
        assert refused.value.detail == f"The next one is allowed in {after_s} s. Nothing was stored."
    rates.claim("a", (Rate(1, 60),), 60.0)
