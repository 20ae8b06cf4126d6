"""Filters as columns: the array expression says what the plain rule says (section 5, messages and rule 7)."""

import itertools
import random
import sys

import numpy as np
import pytest

from geocast.matching.filters import EVERYTHING, Filter, Filters
from geocast.model.alert import EXTREME, SEVERITIES, SEVERITY_RANK

CATEGORIES = ["robbery", "arson", "hostage", "unheard_of"]


@pytest.mark.parametrize(
    ("wanted", "category", "severity", "passes"),
    [
        (EVERYTHING, "robbery", "minor", True),
        (Filter(frozenset({"robbery"})), "robbery", "minor", True),
        (Filter(frozenset({"robbery"})), "arson", "severe", False),
        (Filter(frozenset()), "robbery", "severe", False),
        (Filter(None, SEVERITY_RANK["severe"]), "arson", "severe", True),
        (Filter(None, SEVERITY_RANK["severe"]), "arson", "moderate", False),
        (Filter(None, EXTREME), "arson", "severe", False),
        (Filter(frozenset({"robbery"}), SEVERITY_RANK["severe"]), "robbery", "moderate", False),
        (Filter(frozenset({"robbery"}), SEVERITY_RANK["severe"]), "arson", "severe", False),
        (Filter(frozenset({"robbery"}), SEVERITY_RANK["severe"]), "robbery", "severe", True),
        (Filter(frozenset({"no_such_thing"})), "robbery", "severe", False),
        (Filter(frozenset(), EXTREME), "robbery", "extreme", True),
        (Filter(frozenset({"arson"}), EXTREME), "robbery", "extreme", True),
    ],
)
def test_both_have_to_pass_and_extreme_always_does(wanted, category, severity, passes):
    """Section 5, messages: both have to pass, `min_severity` is inclusive; R7: never holds back `extreme`."""
    assert wanted.passes(category, SEVERITY_RANK[severity]) is passes


def test_columns_say_what_the_rule_says():
    """R7: for every filter, category and severity, of hundreds of filters that come and go."""
    pick = random.Random(7)
    filters, in_use = Filters(), {}

    def take():
        categories = None if pick.random() < 0.3 else frozenset(pick.sample(CATEGORIES, pick.randint(0, 3)))
        wanted = Filter(categories, pick.randrange(4))
        if pick.random() < 0.7:  # one of its own, so that numbers have to grow
            wanted = Filter((wanted.categories or frozenset()) | {f"own_{pick.randrange(10**9)}"}, wanted.min_rank)
        number = filters.take(wanted)
        assert in_use.setdefault(number, (wanted, []))[0] == wanted
        in_use[number][1].append(number)

    for step in range(600):
        if in_use and pick.random() < 0.35:
            number = pick.choice(list(in_use))
            filters.give_back(number)
            in_use[number][1].pop()
            if not in_use[number][1]:
                del in_use[number]
        else:
            take()
        if step % 60 == 0 or step == 599:
            for category, rank in itertools.product(CATEGORIES, range(len(SEVERITIES))):
                passing = filters.passing(category, rank)
                for number, (wanted, _) in in_use.items():
                    assert passing[number] == wanted.passes(category, rank)
                    assert filters[number] == wanted
    assert len(in_use) > 128


def test_equal_filters_share_a_number():
    """Section 5, messages: what sessions want is compared once for all that want the same."""
    filters = Filters()
    one = filters.take(Filter(frozenset({"robbery", "arson"}), 2))
    assert filters.take(Filter(frozenset(["arson", "robbery"]), 2)) == one
    assert filters.take(Filter(frozenset({"robbery", "arson"}), 1)) != one


def test_a_number_is_given_out_again_when_nobody_uses_it():
    """Section 5, messages: filters that come and go take no memory."""
    filters = Filters()
    for rank in range(1, 200):
        number = filters.take(Filter(frozenset({f"c{rank}"}), 0))
        assert number == 1
        assert list(filters.passing(f"c{rank}", 0)) == [True, True]
        filters.give_back(number)
    assert len(filters.passing("x", 0)) == 2


def test_a_number_stays_as_long_as_somebody_uses_it():
    """Section 5, messages: one session's change of filter is no other's."""
    filters = Filters()
    number = filters.take(Filter(frozenset({"robbery"})))
    filters.take(Filter(frozenset({"robbery"})))
    filters.give_back(number)
    assert filters.take(Filter(frozenset({"arson"}))) != number
    assert filters[number] == Filter(frozenset({"robbery"}))


def test_number_0_lets_everything_pass_for_ever():
    """Section 5, messages: no filter means everything."""
    filters = Filters()
    for _ in range(3):
        assert filters.take(EVERYTHING) == 0
        filters.give_back(0)
    assert filters[0] == EVERYTHING
    assert all(filters.passing(category, 0)[0] for category in CATEGORIES)


def test_the_answer_is_not_a_view_that_changes():
    """R8: what was judged stays judged."""
    filters = Filters()
    passing = filters.passing("robbery", 0)
    filters.take(Filter(frozenset({"arson"})))
    assert passing.dtype == np.bool_
    assert passing.tolist() == [True]


def test_a_filter_that_nobody_uses_is_let_go_of():
    """Its categories may take 6 KB, and its number may wait long for another."""
    categories = frozenset(f"own_{number}" for number in range(64))
    filters = Filters()
    before = sys.getrefcount(categories)
    number = filters.take(Filter(categories))
    filters.give_back(number)
    assert sys.getrefcount(categories) == before
