"""The polygon that a target asks for, and alerts whose area meets it (WH1)."""

import numpy as np
import pytest
import shapely

from geocast.model.alert import Circle, Polygon
from geocast.relay.region import Region

# A square of 22 km around 10°N 20°E; one degree of latitude has 111 km.
SQUARE = [(19.9, 9.9), (20.1, 9.9), (20.1, 10.1), (19.9, 10.1)]


def polygon(*corners, buffer_m=0.0):
    """Return a published polygon with these corners."""
    return Polygon((*corners, corners[0]), buffer_m)


@pytest.mark.parametrize(
    ("shape", "meets"),
    [
        (Circle(10.0, 20.0, 10), True),
        (Circle(10.2, 20.0, 11_500), True),
        (Circle(10.2, 20.0, 10_500), False),
        (Circle(10.0, 20.0, 1_000_000), True),
        (polygon((19.95, 9.95), (20.05, 9.95), (20.0, 10.05)), True),
        (polygon((10, 0), (30, 0), (30, 20), (10, 20)), True),
        (polygon((19.0, 9.99), (21.0, 9.99), (21.0, 10.01), (19.0, 10.01)), True),
        (polygon((20.15, 9.95), (20.3, 9.95), (20.3, 10.05)), False),
        (polygon((20.15, 9.95), (20.3, 9.95), (20.3, 10.05), buffer_m=6_000), True),
        (polygon((20.15, 9.95), (20.3, 9.95), (20.3, 10.05), buffer_m=5_000), False),
        (polygon((-160.1, -10.1), (-159.9, -10.1), (-159.9, -9.9), (-160.1, -9.9)), False),
    ],
    ids=[
        *("inside", "reaches", "short", "covers", "within", "around", "a band without a corner inside", "beside"),
        *("by its buffer", "buffer too short", "at the antipodes"),
    ],
)
def test_area_meets_the_region_exactly(shape, meets):
    """The distance to a circle and to a buffer counts, and edges that cross without a corner inside (WH1)."""
    assert Region(SQUARE).meets([shape]) is meets
    assert Region(SQUARE[::-1]).meets([Circle(-50.0, 0.0, 10), shape]) is meets


def test_region_across_the_antimeridian_or_around_a_pole_meets_what_it_contains():
    """Neither meridians nor poles are special (WH1)."""
    fiji = Region([(177, -20), (-178, -20), (-178, -15), (177, -15)])
    assert fiji.meets([Circle(-17, 179.9, 1)])
    assert fiji.meets([polygon((-179.9, -17), (-179.8, -17), (-179.8, -16.9))])
    assert not fiji.meets([Circle(-17, 0, 1)])
    arctic = Region([(0, 80), (90, 80), (180, 80), (-90, 80)])
    assert arctic.meets([Circle(90, 0, 1)])
    assert arctic.meets([polygon((10, 89), (20, 89), (20, 88))])
    assert not arctic.meets([Circle(-90, 0, 1)])


def test_small_polygons_meet_as_on_a_plane():
    """Near the equator, within 100 m, the sphere is a plane: shapely decides the same for 300 random pairs (WH1)."""
    dice = np.random.default_rng(1)
    found = set()
    for _ in range(300):
        one, other = dice.uniform(-0.0005, 0.0005, (2, 3, 2)) + dice.uniform(-0.0004, 0.0004, (2, 1, 2))
        flat, flat_other = shapely.Polygon(one), shapely.Polygon(other)
        if min(flat.area, flat_other.area) < 1e-9 or 0 < flat.distance(flat_other) < 1e-8:
            continue
        meets = Region([tuple(each) for each in one]).meets([polygon(*map(tuple, other))])
        assert meets == flat.intersects(flat_other)
        found.add(meets)
    assert found == {True, False}


@pytest.mark.parametrize(
    ("corners", "why"),
    [
        ([], "3 to 200 corners"),
        ([(0, 0), (1, 1)], "3 to 200 corners"),
        ([(x / 10, 0) for x in range(100)] + [(x / 10, 1) for x in range(101)], "3 to 200 corners"),
        ([(0, 0), (1, 91), (2, 0)], "from -90 to 90"),
        ([(0, 0), (181, 0), (2, 1)], "from -180 to 180"),
        ([(0, 0), (120, 0), (-120, 0)], "less than 60°"),
        ([(0, 0), (1, 0), (2, 0)], "an area"),
        ([(0, 0), (float("nan"), 0), (2, 0)], "from -180 to 180"),
    ],
)
def test_polygon_that_can_not_be_matched_is_refused(corners, why):
    """The error says what is expected (WH1)."""
    with pytest.raises(ValueError, match=why):
        Region(corners)
