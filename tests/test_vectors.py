"""Tests that the vectors for client authors are up to date, and that the server agrees with them."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from client_demo.conformance import device_vectors, make_vectors
from geocast.geometry.sphere import cell_from_string, cell_place, chord2, limit_chord2, unit_vector, unit_vectors
from geocast.matching.alert_index import AlertIndex
from geocast.matching.place_index import PlaceIndex
from geocast.model import close_codes
from geocast.model.alert import Circle, Polygon
from geocast.model.close_codes import Reconnect

VECTORS = Path(make_vectors.__file__).with_name("vectors")


@cache
def vectors(name):
    """Return the content of one file."""
    return json.loads((VECTORS / f"{name}.json").read_text("utf-8"))


def cases(name):
    """Return the cases of one file as parameters of a test."""
    return [pytest.param(case, id=case["why"]) for case in vectors(name)["cases"]]


@pytest.mark.parametrize("name", sorted(make_vectors.FILES.keys() - {"device"}))
def test_vector_file_equals_the_output_of_make_vectors(name):
    """`python -m client_demo.conformance.make_vectors` renews the files."""
    assert (VECTORS / f"{name}.json").read_text("utf-8") == make_vectors.text(make_vectors.FILES[name]())


def test_sample_of_the_device_vectors_equals_the_output_of_make_vectors():
    """The whole file takes half a minute of CPU. Each area has a seed of its own, so some can be made alone."""
    found = vectors("device")["cases"]
    assert len(found) == device_vectors.AREAS + len(device_vectors.strange())
    assert sum(len(case["places"]) for case in found) >= 10_000
    assert found[device_vectors.AREAS :] == device_vectors.strange()
    for number in (0, 6, 9, 44, 51, 82):
        assert found[number] == device_vectors.case(number)


@pytest.mark.parametrize("case", cases("device"))
def test_server_matches_places_as_in_the_device_vectors(case):
    """A device that decides alone and a node agree about each place (rules D1 to D6, M7, M8 and G4)."""
    index = PlaceIndex(capacity=128)
    for row, place in enumerate(case["places"]):
        index.add(row, *server_place(device_vectors.as_json(place)))
    wanted = [row for row, side in enumerate(case["inside"]) if side == "1"]
    assert sorted(index.match(shapes_of(case["area"]))[0].tolist()) == wanted


def server_place(place):
    """Return a place in the server's form: latitude, longitude, reach."""
    if "cell" in place:
        return cell_place(cell_from_string(place["cell"]))
    return place["lat"], place["lng"], place.get("accuracy_m", 0.0)


def shapes_of(area):
    """Return an area in the server's form. A shape of an unknown type is left out (rule G4)."""
    return [
        Circle(shape["lat"], shape["lng"], shape["radius_m"])
        if shape["type"] == "circle"
        else Polygon(tuple(map(tuple, shape["coordinates"][0])), shape.get("buffer_m", 0.0))
        for shape in area
        if shape["type"] in ("circle", "Polygon")
    ]


@pytest.mark.parametrize("case", [case for case in cases("inside") if "clients_only" not in case.values[0]])
def test_server_matches_places_with_circles_as_in_the_test_vectors(case):
    """The formula is the one that the server matches with (rules D1 to D3, M7 and M8)."""
    inside = False
    for lat, lng, reach_m in map(server_place, case["places"]):
        x, y, z = unit_vectors(np.array([lat], float), np.array([lng], float))
        for shape in case["area"]:
            squared = chord2(x, y, z, unit_vector(shape["lat"], shape["lng"]))[0]
            inside |= bool(squared <= limit_chord2(shape["radius_m"] + reach_m))
    assert inside == case["inside"]
    if "cell_place" in case:
        lat, lng, reach_m = server_place(case["places"][0])
        assert (lat, lng) == (case["cell_place"]["lat"], case["cell_place"]["lng"])
        assert reach_m == pytest.approx(case["cell_place"]["reach_m"], abs=1e-5)


@pytest.mark.parametrize("case", cases("polygons"))
def test_server_matches_places_with_polygons_as_in_the_test_vectors(case):
    """Both indexes agree: the index of places, and the index of live areas for new sessions (rules D4 and D5)."""
    areas: AlertIndex = AlertIndex()
    shapes = shapes_of(case["area"])
    areas.add("it", shapes)
    index = PlaceIndex(capacity=4)
    held = []
    for lat, lng, reach_m in map(server_place, case["places"]):
        index.add(0, lat, lng, reach_m)
        held += areas.containing(unit_vector(lat, lng), reach_m)
    assert bool(held) == case["inside"]
    assert index.match(shapes)[0].tolist() == [0] * case["inside"]


AFTER_CLOSE = {
    Reconnect.NEVER: lambda step: step["delay_ms"] is None,
    Reconnect.WINDOW: lambda step: step["delay_ms"] == [2_000, 9_000],
    Reconnect.LATER: lambda step: step["delay_ms"] == [2_000, None],
    Reconnect.NEW_TOKEN: lambda step: step.get("new_token", False),
    Reconnect.AT_ONCE: lambda step: step["delay_ms"] == [0, 0],
}


@pytest.mark.parametrize("close", close_codes.ALL, ids=lambda close: str(close.code))
def test_every_close_code_has_a_test_vector(close):
    """The vector tells clients to reconnect in the same way (rules W1 to W7)."""
    first = [case["steps"][1] for case in vectors("reconnect")["cases"] if case["steps"][1].get("closed") == close.code]
    assert any(AFTER_CLOSE[close.reconnect](step) for step in first)
