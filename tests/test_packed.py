"""A revision in few bytes is the revision."""

import pytest
from fakes import a_revision

from geocast.alert import Circle, OtherShape, Polygon
from geocast.packed import pack, unpack

AREAS = {
    "one": (Circle(32.7767, -96.797, 800.0),),
    "none": (),
    "polygons": (
        Polygon(((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)), 20.0),
        Polygon(((-180.0, 0.5), (1.0, 0.0), (1.0, 1.0), (5.0, 1.0), (-180.0, 0.5))),
    ),
    "others": (
        OtherShape({"type": "polygon", "coordinates": [[[0.5, 1], [2, 3]]], "7": None}),
        Circle(-90.0, 180.0, 20_100_000.0),
        OtherShape({"type": "cells", "cells": ["8926cb19c93ffff"], 7: b"x"}),
    ),
}


@pytest.mark.parametrize("area", AREAS)
@pytest.mark.parametrize("description", [None, "", "Naïve\n\U0001f6a8"])
def test_what_is_packed_comes_back(area, description):
    """Every member of it: it may be sent yet, matched, or stand beside a later revision."""
    revision = a_revision("a-1", 2**31 - 1, area=AREAS[area], description=description, status="exercise")
    assert unpack("a-1", pack(revision)) == revision


def test_it_takes_a_third_of_what_the_objects_take():
    """Most of it is text."""
    assert len(pack(a_revision(description="x" * 200))) < 450
