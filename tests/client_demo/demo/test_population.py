"""Tests of the simulated city: varied, repeatable, and close enough to the incidents."""

from collections import Counter

from client_demo.demo.population import KINDS, STEPS, city
from client_demo.python.geo import Place, distance_m

INCIDENTS = [(32.7767, -96.797), (32.9, -96.7)]


def test_same_seed_gives_the_same_city():
    assert city(50, INCIDENTS, seed=1) == city(50, INCIDENTS, seed=1)
    assert city(50, INCIDENTS, seed=1) != city(50, INCIDENTS, seed=2)


def test_city_has_all_kinds_and_both_formats():
    """Half of the subscribers use each format, and every kind of place occurs."""
    everybody = city(1000, INCIDENTS)
    assert Counter(one.wire for one in everybody) == {"json": 500, "msgpack": 500}
    assert {one.kind for one in everybody} == set(KINDS)
    by_kind = {kind: next(one for one in everybody if one.kind == kind) for kind in KINDS}
    assert by_kind["an H3 cell only"].steps[0][0].cell is not None
    assert by_kind["a point and its accuracy"].steps[0][0].reach_m > 0
    assert len(by_kind["two places"].steps[0]) == 2
    assert len(by_kind["on the move"].steps) == STEPS


def test_place_survives_conversion_to_map():
    """The processes that simulate subscribers receive maps."""
    for one in city(200, INCIDENTS):
        sent = one.to_map()["steps"]
        assert [[Place.from_map(place) for place in places] for places in sent] == one.steps


def test_many_subscribers_live_near_an_incident():
    """Otherwise hardly any subscriber would receive an alert."""
    homes = [one.steps[0][0] for one in city(500, INCIDENTS)]
    near = sum(min(distance_m(home.lat, home.lng, *where) for where in INCIDENTS) < 3000 for home in homes)
    assert near > 250
