"""Random warnings of 50 m to 5,000 km, and a judge that finds places of a message outside of what is published (HD10).

The judge shares nothing with the server: it counts on the sphere how often a ring winds around a place, by the bearings
of the ring's corners as seen from the place, and measures distances to arcs in three dimensions.
"""

import itertools
import math

import numpy as np
from ingest.cap.issuer import CapIngestHarness, a_message, an_area, an_info, code
from support import s2

from geocast import policy
from geocast.geometry.polygon_union import pieces
from geocast.ingest.cap.zones import Zones
from geocast.model.alert import Circle

FALLS_SHORT_M = 0.2  # B9
LEAST_M, MOST_M = 50, 5_000_000
PARTS = 64  # an edge of a message is a straight line of longitude and latitude, which as many arcs approximate
ANY_SIZE = policy.parse(
    b"""
name = "any size"
[categories.flood]
title = "Flood"
cap = ["event:flood"]
max_radius_m = 5004000
min_radius_m = 100
max_age_s = 7200
polygons = true
simplify_m = 1000
location_resolution = 12
[categories.fire]
title = "Fire"
cap = ["event:fire"]
max_radius_m = 5004000
min_radius_m = 20000
max_age_s = 7200
polygons = true
simplify_m = 5000
""",
    None,
)


# ---- what is said --------------------------------------------------------------------------------------------


def star(dice, centre, size_m):
    """Return a ragged star."""
    return [s2.a_ring(dice, centre, size_m, int(dice.integers(3, 60)))]


def strip(dice, centre, size_m):
    """Return a winding strip, such as a river or a spit, that is 2 to 400 times as long as wide."""
    turns = np.linspace(0, dice.uniform(0.3, 5), int(dice.integers(2, 25)))
    wide = 1 / dice.uniform(2, 400)
    far = size_m * np.linspace(0.2, 1, len(turns))
    ring = [*s2.around(centre, turns, far * (1 - wide)), *s2.around(centre, turns, far)[::-1]]
    return [_closed(ring)]


def atoll(dice, centre, size_m):
    """Return a ring of land around a lagoon; it is 2 to 200 times as wide as the land."""
    count = int(dice.integers(8, 60))
    bearings = np.arange(count) * 2 * math.pi / count
    far = size_m * dice.uniform(0.7, 1, count)
    inner = far * (1 - 1 / dice.uniform(2, 200))
    return [_closed(s2.around(centre, bearings, each)) for each in (far, inner)]


def lollipop(dice, centre, size_m):
    """Return an islet at the end of a long spit, which touches the islet in a single place."""
    islet = s2.around(centre, np.arange(6) * math.pi / 3, np.full(6, size_m * 0.1))
    away = dice.uniform(0, 2 * math.pi)
    tips = s2.around(centre, np.array([away, away + dice.uniform(1e-4, 0.05)]), np.full(2, size_m))
    ring = np.roll(islet, -int(dice.integers(6)), axis=0)
    return [_closed([*ring, ring[0], *tips])]


def archipelago(dice, centre, size_m):
    """Return many islets, which are much smaller than the distances between them."""
    count = int(dice.integers(2, 90))
    at = s2.around(centre, dice.uniform(0, 2 * math.pi, count), size_m * np.sqrt(dice.uniform(0, 1, count)))
    islet_m = max(size_m / count / dice.uniform(1, 100), 10)
    return [s2.a_ring(dice, (lat, lng), islet_m, int(dice.integers(3, 9))) for lng, lat in at.tolist()]


def keyhole(rings):
    """Return a ring around a lagoon as one ring: along the shore, through a slit, around the lagoon, and back."""
    outer, inner = rings
    return [*outer, *inner[::-1], outer[0]]


def discs(dice, centre, size_m):
    """Return one to thirty circles: centres (lat, lng) and radii."""
    count = int(dice.integers(1, 30))
    if count == 1:
        return [(centre, size_m)]
    at = s2.around(centre, dice.uniform(0, 2 * math.pi, count), 0.7 * size_m * np.sqrt(dice.uniform(0, 1, count)))
    return [((lat, lng), size_m * dice.uniform(0.001, 0.3)) for lng, lat in at.tolist()]


def _closed(points):
    points = [tuple(np.array(point).tolist()) for point in points]
    return [*points, points[0]]


def warning(seed):
    """Return a random message, a harness with the zones it needs, the polygons that it names, and the circles.

    Each polygon is a list of rings; all rings but the first are holes. A circle is a centre (lat, lng) and a radius.
    """
    dice = np.random.default_rng(seed)
    size_m = math.exp(dice.uniform(math.log(LEAST_M), math.log(MOST_M / 1.02)))
    centre = s2.CENTRES[dice.integers(len(s2.CENTRES))] if dice.random() < 0.3 else _anywhere(dice)
    kind = (star, strip, atoll, lollipop, archipelago)[dice.integers(5)]
    rings = kind(dice, centre, size_m)
    polygons = [rings] if kind is atoll else [[ring] for ring in rings]
    event = "Flood" if dice.random() < 0.7 else "Fire"
    circles, zones = [], {}
    is_written = dice.random() < 0.3
    if dice.random() < 0.15:
        said = [f"{lat:.7f},{lng:.7f} {radius_m / 1000:.6f}" for (lat, lng), radius_m in discs(dice, centre, size_m)]
        area, polygons = an_area(circle=said), []
        for text in said:
            middle, radius_km = text.split()
            circles.append((tuple(map(float, middle.split(","))), float(radius_km) * 1000))
    elif is_written:
        rings = [keyhole(rings)] if kind is atoll else rings
        said = [" ".join(f"{lat:.7f},{lng:.7f}" for lng, lat in ring) for ring in rings]
        area = an_area(polygon=said)
        polygons = [[[tuple(float(f"{each:.7f}") for each in corner) for corner in ring]] for ring in rings]
    else:
        zones = {("UGC", str(n)): pieces([np.array(ring).T for ring in each]) for n, each in enumerate(polygons)}
        area = an_area(geocode=[code("UGC", str(n)) for n in range(len(polygons))])
    room = CapIngestHarness(in_force=ANY_SIZE, zones=Zones(zones))
    return a_message("m", 0, (), an_info(area, event=event)), room, polygons, circles


def _anywhere(dice):
    return math.degrees(math.asin(dice.uniform(-1, 1))), dice.uniform(-180, 180)


# ---- the judge -----------------------------------------------------------------------------------------------


def vectors(points):
    """Return places (lng, lat) in degrees as unit vectors, one in each row."""
    lng, lat = np.radians(points).T
    return np.column_stack([np.cos(lat) * np.cos(lng), np.cos(lat) * np.sin(lng), np.sin(lat)])


def windings(ring, at):
    """Return how often a closed ring winds around each place. All are unit vectors, one in each row."""
    east = np.cross([0.0, 0.0, 1.0], at)
    east /= np.linalg.norm(east, axis=1)[:, np.newaxis]
    bearing = np.arctan2(east @ ring.T, np.cross(at, east) @ ring.T)
    turn = (np.diff(bearing, axis=1) + math.pi) % (2 * math.pi) - math.pi
    return np.round(turn.sum(axis=1) / (2 * math.pi)).astype(int)


def away_m(ring, at):
    """Return the distance in metres from each place to the nearest arc of a ring."""
    found = np.full(len(at), np.inf)
    for start, end in itertools.pairwise(ring):
        normal = np.cross(start, end)
        normal /= np.linalg.norm(normal)
        beside = (at @ np.cross(normal, start) >= 0) & (at @ np.cross(end, normal) >= 0)
        to_ends = [np.arctan2(np.linalg.norm(np.cross(at, each), axis=1), at @ each) for each in (start, end)]
        across = np.abs(np.arcsin(np.clip(at @ normal, -1, 1)))
        found = np.minimum(found, np.where(beside, across, np.minimum(*to_ends)))
    return found * s2.EARTH_RADIUS_M


def places(dice, rings, count=40):
    """Return places of a polygon of a message: corners, points of its edges, and points inside."""
    lines = [_straight(np.array(ring)) for ring in rings]
    arcs = [vectors(line) for line in lines]
    edge = np.concatenate(lines)
    near = edge[dice.integers(len(edge), size=(2, 4 * count))]
    tried = [dice.uniform(edge.min(axis=0), edge.max(axis=0), (4 * count, 2)), near.mean(axis=0)]
    found = [_land(vectors(np.vstack(tried)), arcs)]
    for number, (line, arc) in enumerate(zip(lines, arcs, strict=True)):
        which = [*range(0, min(len(line), PARTS * count), PARTS), *dice.integers(len(line), size=count)]
        found.append(_land(arc[which], arcs, on=number))
    return np.vstack(found)


def places_of_circle(dice, centre, radius_m, count=40):
    """Return places of a circle of a message: at its edge and inside."""
    far = radius_m * np.concatenate([np.ones(count), np.sqrt(dice.uniform(0, 1, count))])
    return vectors(s2.around(centre, dice.uniform(0, 2 * math.pi, 2 * count), far))


def _land(at, arcs, on=None):
    """Return the places that are in a polygon with holes. All of them are on the ring number `on`, if it is given."""
    inside = [
        np.full(len(at), number == 0) if number == on else windings(ring, at) != 0 for number, ring in enumerate(arcs)
    ]
    return at[inside[0] & ~np.any(inside[1:], axis=0)]


def _straight(ring):
    """Return points of the straight lines of longitude and latitude between the corners of a ring."""
    way = np.diff(ring, axis=0)
    way[:, 0] = (way[:, 0] + 180) % 360 - 180
    share = np.arange(PARTS).reshape(-1, 1, 1) / PARTS
    points = (ring[:-1] + share * way).transpose(1, 0, 2).reshape(-1, 2)
    return np.vstack([points, points[:1]])


def shortfalls_m(area, at):
    """Return by how many metres each place is outside of a published area; 0 if it is inside."""
    found = np.full(len(at), np.inf)
    for shape in area:
        if isinstance(shape, Circle):
            middle = vectors(np.array([[shape.lng, shape.lat]]))[0]
            away = np.arctan2(np.linalg.norm(np.cross(at, middle), axis=1), at @ middle) * s2.EARTH_RADIUS_M
            short = away - shape.radius_m
        else:
            ring = vectors(np.array(shape.ring))
            short = np.where(windings(ring, at) != 0, 0, away_m(ring, at) - shape.buffer_m)
        found = np.minimum(found, short)
    return np.maximum(found, 0)


def worst_m(seed):
    """Return the number of places tried for a random warning, and by how much the worst of them is outside."""
    message, room, polygons, circles = warning(seed)
    [revision] = room.taken(message).alerts
    dice = np.random.default_rng([seed, 1])
    few = 40 if len(polygons) + len(circles) < 9 else 8
    at = np.vstack(
        [places(dice, rings, few) for rings in polygons] + [places_of_circle(dice, *each, few) for each in circles]
    )
    return len(at), float(shortfalls_m(revision.alert.area, at).max())
