"""H3 in Rust (h3o) against the cells, the published circles and the covers of geocast, which use H3 in C.

`make checked` tries a million places, `make test` fewer.
"""

import os

import numpy as np
import pytest
import shapely
from checked.tool import Tool

from geocast.geometry.sphere import EARTH_RADIUS_M, cell_of, cell_place, cover, publish_circle

TOOL = Tool("h3ronpy", "cells, disks, centres, borders and covers", pypi=("h3ronpy",))
COUNT = 1_000_000 if "GEOCAST_CHECKED" in os.environ else 20_000
BORDER_M = 1e-6  # H3's two implementations round differently, so a point this close to a border may be on either side
RESOLUTIONS = (5, 7, 9, 12, 15)


def places(count, seed):
    """Return latitudes and longitudes: half anywhere, and half at the poles, the antimeridian and the pentagons."""
    import h3.api.basic_int as h3

    random = np.random.default_rng(seed)
    lat, lng = np.degrees(np.arcsin(random.uniform(-1, 1, count))), random.uniform(-180, 180, count)
    polar, dated, odd = np.array_split(np.arange(count // 2), 3)
    lat[polar] = np.copysign(90 - 10 ** random.uniform(-9, 1, len(polar)), random.uniform(-1, 1, len(polar)))
    lng[dated] = np.copysign(180 - 10 ** random.uniform(-12, 0, len(dated)), random.uniform(-1, 1, len(dated)))
    centres = np.array([h3.cell_to_latlng(cell) for cell in h3.get_pentagons(0)])[random.integers(0, 12, len(odd))]
    lat[odd] = centres[:, 0] + random.normal(0, 0.2, len(odd))
    lng[odd] = centres[:, 1] + random.normal(0, 0.2, len(odd))
    lat[:4], lng[:4] = (90, -90, 0, 0), (0, 123.4, 180, -180)
    return lat, np.clip(lng, -180, 180)


def in_rust(lat, lng, resolution):
    """Return the cells of places according to h3o."""
    from h3ronpy.vector import coordinates_to_cells

    return np.asarray(coordinates_to_cells(lat, np.where(lng == 180, -180.0, lng), resolution)).astype(np.int64)


def vectors(lat, lng):
    """Return places as unit vectors, in rows."""
    phi, theta = np.radians(lat), np.radians(lng)
    return np.stack([np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)], axis=-1)


def metres(a, b):
    """Return the distances between unit vectors in metres, by the arc tangent of cross and dot product."""
    return EARTH_RADIUS_M * np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(axis=-1))


def rounding_m(points):
    """Return how far H3 in C may be wrong at each place, in metres.

    Its arc sine of a latitude loses digits near the poles: it is a millimetre off at 60 m, and a centimetre at 6 m.
    """
    return BORDER_M + 6e-2 / np.maximum(EARTH_RADIUS_M * np.hypot(points[:, 0], points[:, 1]), 0.5)


def corners(cells):
    """Return the corners of cells according to h3o, as unit vectors, and for each the number of its cell."""
    from h3ronpy.vector import cells_to_wkb_polygons

    polygons = shapely.from_wkb(np.asarray(cells_to_wkb_polygons(cells.astype(np.uint64)).to_pylist(), dtype=object))
    points, owner = shapely.get_coordinates(polygons, return_index=True)
    return vectors(points[:, 1], points[:, 0]), owner


def to_border_m(place, cell):
    """Return the distance in metres from a place (a unit vector) to the border of a cell."""
    ring, _ = corners(np.array([cell]))
    normals = np.cross(ring[:-1], ring[1:])
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return EARTH_RADIUS_M * np.abs(normals @ place).min()


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_cell_of_a_place_is_that_of_rust(resolution, record_property):
    """Only a place on a border may be in another cell, which is then a neighbour."""
    lat, lng = places(COUNT // len(RESOLUTIONS), resolution)
    ours = np.array([cell_of(*place, resolution) for place in zip(lat.tolist(), lng.tolist(), strict=True)])
    theirs = in_rust(lat, lng, resolution)
    points = vectors(lat, lng)
    for number in np.flatnonzero(ours != theirs):
        assert to_border_m(points[number], ours[number]) < BORDER_M, (lat[number], lng[number])
        assert to_border_m(points[number], theirs[number]) < BORDER_M, (lat[number], lng[number])
    assert (ours != theirs).sum() < len(ours) // 1000
    record_property("cases", len(ours))


def test_place_of_a_cell_has_the_centre_and_the_reach_of_rust(record_property):
    """The reach is the distance to the farthest corner (rule B1)."""
    from h3ronpy.vector import cells_to_coordinates

    lat, lng = places(COUNT // 10, 1)
    cells = np.unique(np.concatenate([in_rust(lat, lng, resolution) for resolution in RESOLUTIONS[1:]]))
    ours = np.array([cell_place(cell) for cell in cells.tolist()])
    table = cells_to_coordinates(cells.astype(np.uint64))
    centres = vectors(np.asarray(table["lat"]), np.asarray(table["lng"]))
    assert (metres(vectors(ours[:, 0], ours[:, 1]), centres) < rounding_m(centres)).all()
    points, owner = corners(cells)
    reach = np.zeros(len(cells))
    np.maximum.at(reach, owner, metres(points, centres[owner]))
    assert (np.abs(ours[:, 2] - reach) < 2 * rounding_m(centres)).all()
    record_property("cases", len(cells))


def test_neighbours_of_a_cell_are_those_of_rust(record_property):
    """`publish_area` and `cover` ask for a cell and its neighbours; a pentagon has five."""
    import h3.api.basic_int as h3
    from h3ronpy import grid_disk

    lat, lng = places(COUNT // 10, 2)
    cells = np.unique(in_rust(lat, lng, 7))
    cells = np.concatenate([cells, h3.get_pentagons(7)])
    theirs = grid_disk(cells.astype(np.uint64), 1).to_pylist()
    ours = [sorted(h3.grid_disk(cell, 1)) for cell in cells.tolist()]
    assert ours == [sorted(disk) for disk in theirs]
    assert min(map(len, ours)) == 6
    record_property("cases", len(cells))


def test_cover_of_a_circle_has_the_cell_of_each_place_in_it(record_property):
    """No subscriber inside is missed by the index of places; the cell of each place is that of Rust."""
    random = np.random.default_rng(3)
    circles = 200
    each = COUNT // circles // 10
    for lat, lng in zip(*places(circles, 4), strict=True):
        radius_m = 10 ** random.uniform(1, 5.5)
        bearing, distance = random.uniform(0, 2 * np.pi, each), radius_m * np.sqrt(random.uniform(0, 1, each))
        distance[: each // 2] = radius_m * (1 - 1e-12)  # half of the places are on the edge
        inside = moved(lat, lng, bearing, distance)
        for resolution in (7, 9):
            cells = in_rust(*inside, resolution)
            ranges = np.array(cover(lat, lng, radius_m, resolution))
            at = np.searchsorted(ranges[:, 0], cells, side="right") - 1
            assert (at >= 0).all()
            assert (cells <= ranges[at, 1]).all(), (lat, lng, radius_m, resolution)
    record_property("cases", circles * each * 2)


def test_published_circle_contains_the_requested_one_around_the_centre_of_rust(record_property):
    """Its centre is that of the cell in Rust, and it reaches as far as the requested circle (rules B1 and B2)."""
    from h3ronpy.vector import cells_to_coordinates

    lat, lng = places(COUNT // 10, 5)
    cells = in_rust(lat, lng, 9)
    published = np.array([publish_circle(*place, 500.0, 9) for place in zip(lat.tolist(), lng.tolist(), strict=True)])
    table = cells_to_coordinates(cells.astype(np.uint64))
    centres = vectors(np.asarray(table["lat"]), np.asarray(table["lng"]))
    moved_m = metres(vectors(published[:, 0], published[:, 1]), centres)
    assert (moved_m > rounding_m(centres)).sum() < len(
        cells
    ) // 500  # on a border, H3 in C may have taken the neighbour
    offset_m = metres(vectors(published[:, 0], published[:, 1]), vectors(lat, lng))
    assert (offset_m + 500 <= published[:, 2]).all()
    record_property("cases", len(cells))


def moved(lat, lng, bearing, distance_m):
    """Return the places at these bearings (radians) and distances from one place, in degrees."""
    phi, delta = np.radians(lat), distance_m / EARTH_RADIUS_M
    z = np.clip(np.sin(phi) * np.cos(delta) + np.cos(phi) * np.sin(delta) * np.cos(bearing), -1, 1)
    east = np.arctan2(np.sin(bearing) * np.sin(delta) * np.cos(phi), np.cos(delta) - np.sin(phi) * z)
    return np.degrees(np.arcsin(z)), (lng + np.degrees(east) + 180) % 360 - 180
