"""Places, circles and polygons for runs of the model. Each place is more than 1 cm away from every border."""

import math

import h3.api.basic_int as h3
from support.fakes import DALLAS
from support.model import EARTH_RADIUS_M, Polygon, haversine_m


def beyond(lat, lng, bearing, metres):
    """Return the point at a distance of `metres` in the direction `bearing`, in degrees."""
    phi, angle, theta = math.radians(lat), metres / EARTH_RADIUS_M, math.radians(bearing)
    to = math.asin(math.sin(phi) * math.cos(angle) + math.cos(phi) * math.sin(angle) * math.cos(theta))
    east = math.sin(theta) * math.sin(angle) * math.cos(phi)
    by = math.degrees(math.atan2(east, math.cos(angle) - math.sin(phi) * math.sin(to)))
    return math.degrees(to), (lng + by + 540) % 360 - 180


def point(lat, lng, accuracy_m=None):
    """Return a place in the form that a client sends and in the form that the rules use."""
    sent = {"lat": lat, "lng": lng} | ({} if accuracy_m is None else {"accuracy_m": accuracy_m})
    return sent, (lat, lng, accuracy_m or 0.0)


def cell(lat, lng, resolution):
    """Return the cell around a point, in the same two forms."""
    number = h3.latlng_to_cell(lat, lng, resolution)
    centre = h3.cell_to_latlng(number)
    return {"cell": f"{number:x}"}, (*centre, max(haversine_m(*centre, *p) for p in h3.cell_to_boundary(number)))


CENTRES = [DALLAS, (89.9995, 30.0), (-17.0, 179.9999)]
RADII = [300.0, 1000.0]
CIRCLES = [(*centre, radius) for centre in CENTRES for radius in RADII]
CIRCLES += [(*beyond(*DALLAS, 90, 1500), 600.0), (*DALLAS, 2_000_000.0)]


def star(lat, lng, size_m, buffer_m=0.0):
    """Return a polygon around a point: seven corners, every second one nearer to it."""
    spots = [beyond(lat, lng, -n * 360 / 7, size_m * (0.6 if n % 2 else 1)) for n in range(7)]
    ring = [(round(east, 6), round(north, 6)) for north, east in spots]
    return Polygon((*ring, ring[0]), buffer_m)


POLYGONS = [star(*centre, 1100.0, buffer_m) for centre in CENTRES for buffer_m in (0.0, 20.0)]
POLYGONS += [star(*beyond(*DALLAS, 90, 900), 1100.0), star(*DALLAS, 1_500_000.0, 20.0)]
PLACES = [
    place
    for centre in CENTRES
    for place in (
        point(*centre),
        *(point(*beyond(*centre, 77, radius + off)) for radius in RADII for off in (-0.02, 0.02)),
        *(point(*beyond(*centre, 200, 340), accuracy_m) for accuracy_m in (39.98, 40.02)),
        point(*beyond(*centre, 310, 5000), 2000),
        cell(*beyond(*centre, 90, 1200), 9),
        cell(*beyond(*centre, 300, 2600), 7),
    )
]
for _, (*where, reach) in PLACES:
    for *middle, radius_m in CIRCLES:
        assert abs(haversine_m(*where, *middle) - reach - radius_m) > 0.01, "within 1 cm either answer is right"
    for polygon in POLYGONS:
        assert abs(polygon.away_m(*where) - reach - polygon.buffer_m) > 0.01, "within 1 cm either answer is right"
