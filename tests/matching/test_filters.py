"""Filters as arrays: the array expression agrees with the plain rule (protocol, section 5, Messages, and rule R7)."""

import itertools
import random
import sys

import numpy as np
import pytest

from geocast.matching import filters as filters_module
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
def test_filter_requires_category_and_severity_except_for_extreme_alerts(wanted, category, severity, passes):
    """The bound `min_severity` is inclusive (section 5, Messages). An extreme alert passes every filter (rule R7)."""
    assert wanted.passes(category, SEVERITY_RANK[severity]) is passes


def test_joint_result_for_all_filters_agrees_with_each_filter():
    """Hundreds of filters are added and removed, with all categories and severities (rule R7)."""
    pick = random.Random(7)
    filters, in_use = Filters(), {}

    def take():
        categories = None if pick.random() < 0.3 else frozenset(pick.sample(CATEGORIES, pick.randint(0, 3)))
        wanted = Filter(categories, pick.randrange(4))
        if pick.random() < 0.7:  # a unique filter, so that the columns must grow
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
    """Each alert is compared once for all sessions with equal filters."""
    filters = Filters()
    one = filters.take(Filter(frozenset({"robbery", "arson"}), 2))
    assert filters.take(Filter(frozenset(["arson", "robbery"]), 2)) == one
    assert filters.take(Filter(frozenset({"robbery", "arson"}), 1)) != one


def test_number_of_unused_filter_is_given_to_next_filter():
    """So filters that are no longer used take no memory."""
    filters = Filters()
    for rank in range(1, 200):
        number = filters.take(Filter(frozenset({f"c{rank}"}), 0))
        assert number == 1
        assert list(filters.passing(f"c{rank}", 0)) == [True, True]
        filters.give_back(number)
    assert len(filters.passing("x", 0)) == 2


def test_filter_number_that_is_still_in_use_keeps_its_filter():
    """If one session changes its filter, other sessions with the same filter are not affected."""
    filters = Filters()
    number = filters.take(Filter(frozenset({"robbery"})))
    filters.take(Filter(frozenset({"robbery"})))
    filters.give_back(number)
    assert filters.take(Filter(frozenset({"arson"}))) != number
    assert filters[number] == Filter(frozenset({"robbery"}))


def test_filter_number_0_always_passes_everything():
    """A session without a filter gets everything (protocol, section 5, Messages)."""
    filters = Filters()
    for _ in range(3):
        assert filters.take(EVERYTHING) == 0
        filters.give_back(0)
    assert filters[0] == EVERYTHING
    assert all(filters.passing(category, 0)[0] for category in CATEGORIES)


def test_filter_result_does_not_change_when_filters_are_added():
    """A decision that was made stays as it is (rule R8)."""
    filters = Filters()
    passing = filters.passing("robbery", 0)
    filters.take(Filter(frozenset({"arson"})))
    assert passing.dtype == filters.passing("robbery", EXTREME).dtype == np.bool_
    assert passing.tolist() == [True]


def test_each_filter_is_compared_once_with_a_category(monkeypatch):
    """Only a new filter is compared with a category of an earlier alert."""
    filters, compared = Filters(), []
    wants = filters_module._wants
    monkeypatch.setattr(filters_module, "_wants", lambda *given: compared.append(given) or wants(*given))
    robbery, arson = Filter(frozenset({"robbery"})), Filter(frozenset({"arson"}))
    filters.take(robbery)
    for rank in range(3):
        assert filters.passing("robbery", rank).tolist() == [True, True]
    filters.take(arson)
    assert filters.passing("robbery", 0).tolist() == [True, True, False]
    assert compared == [(EVERYTHING, "robbery"), (robbery, "robbery"), (arson, "robbery")]


def test_memory_of_unused_filter_is_released():
    """The categories of a filter may take 6 KB, and its number may be unused for long."""
    categories = frozenset(f"own_{number}" for number in range(64))
    filters = Filters()
    before = sys.getrefcount(categories)
    number = filters.take(Filter(categories))
    filters.give_back(number)
    assert sys.getrefcount(categories) == before
