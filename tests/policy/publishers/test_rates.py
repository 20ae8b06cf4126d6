"""How often: any minute and any hour, against a list of all times."""

from hypothesis import given
from hypothesis import strategies as st

from geocast.policy.publishers.bounds import Rate
from geocast.policy.publishers.rates import Rates

RATES = (Rate(3, 60), Rate(5, 3600))


def test_so_many_in_any_minute():
    """PG2: not so many at once and as many again a moment later."""
    rates = Rates()
    assert [rates.take("a", RATES, now) for now in (0.0, 50.0, 59.0)] == [0, 0, 0]
    assert rates.take("a", RATES, 59.5) == 0.5
    assert rates.take("a", RATES, 60.0) == 0
    assert rates.take("a", RATES, 61.0) == 49
    assert rates.take("b", RATES, 61.0) == 0


def test_so_many_in_any_hour():
    """PG2: the longer wait is told."""
    rates = Rates()
    for now in (0.0, 100.0, 200.0, 300.0, 301.0):
        assert rates.take("a", RATES, now) == 0
    assert rates.take("a", RATES, 400.0) == 3200
    assert rates.take("a", RATES, 3599.0) == 1
    assert rates.take("a", RATES, 3600.0) == 0


def test_what_is_given_back_does_not_count():
    """PG2: a number that was taken by somebody else was not published."""
    rates = Rates()
    for _ in range(10):
        assert rates.take("a", RATES, 1.0) == 0
        rates.give_back("a", 1.0)
    rates.give_back("nobody", 1.0)
    assert rates.take("a", RATES, 1.0) == 0


def test_who_has_not_been_here_for_an_hour_is_forgotten():
    """PG2: memory is bounded by who publishes, not by who ever has."""
    rates = Rates()
    for number in range(1000):
        rates.take(number, RATES, float(number))
    rates.take("a", RATES, 5000.0)
    assert set(rates._taken) == {"a"}


@given(st.lists(st.floats(0, 200), max_size=60), st.integers(1, 5), st.integers(1, 8))
def test_no_stretch_has_more_and_none_waits_for_nothing(steps, per_minute, per_hour):
    """PG2: checked by counting."""
    rates, limits = Rates(), (Rate(per_minute, 60), Rate(per_hour, 3600))
    now, taken = 0.0, []
    for step in steps:
        now += step
        wait = rates.take("a", limits, now)
        room = all(sum(at > now - rate.within_s for at in taken) < rate.number for rate in limits)
        assert (wait == 0) == room
        if not wait:
            taken.append(now)
