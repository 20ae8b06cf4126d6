"""`match`: finding the subscribers inside a circle or a polygon, among places distributed like the world's population.

Compares the index of the server (geocast.matching.place_index.PlaceIndex) with GEOSEARCH of a real Redis, and with a
brute force in numpy that tests every place, on the same points. Measures matches, inserts, moves and removals, and the
longest call of each kind. Every answer of the index is compared with the answer of the brute force: both use the same
formula, so they must be equal. Polygons of 250 corners are matched among these places, and among as many places in one
region. Each polygon is compared with the circle around it.

For Redis, the table has the time inside the server (INFO latencystats), which leaves out the socket and the client, and
the time of the whole call as a client sees it. Redis keeps 52 bits of each point (0.6 m), and has another earth radius,
to which radii are scaled. So its answers may differ; the differences are counted, but are no error. Redis and the index
have a core each.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

import numpy as np

from bench import places, processes, screen, stats
from bench.peers.redis import EARTH_RADIUS_M as REDIS_RADIUS_M
from bench.peers.redis import Redis
from bench.results import Result, Table, number
from bench.runs import Bench, Place
from geocast.geometry.sphere import EARTH_RADIUS_M, chord2, limit_chord2, unit_vector, unit_vectors
from geocast.geometry.spherical_polygon import SphericalPolygon
from geocast.matching.place_index import PlaceIndex
from geocast.model.alert import Circle, Polygon

RADII_M = (100.0, 1_000.0, 10_000.0, 50_000.0, 100_000.0, 500_000.0)
POLYGONS_M = (100_000.0, 2_000_000.0)  # sizes of the polygons among places distributed by population
REGION_M, IN_REGION_M = 100_000.0, (1_000.0, 10_000.0, 50_000.0)  # radius of the region, and sizes of polygons in it
CORNERS = 250
SEED = 7
MOVE_M = 100.0
_S = TypeVar("_S", bound=Circle | Polygon)
CHANGES = ("insert", "move_near", "move_away", "remove")


def measure(place: Place, count: int, queries: int, moves: int, redis: bool) -> dict[str, Any]:
    """Fill the index and Redis with the same places; then match shapes, and move and remove places."""
    lat, lng = places.by_population(count)
    vectors = unit_vectors(lat, lng)
    index = PlaceIndex()
    slots, insert = _insert(index, lat, lng)
    found: dict[str, Any] = {"insert": insert, "radii": {}, "missing": {}}
    centres = np.random.default_rng(SEED).integers(0, count, queries)
    with ExitStack() as stack:
        peer = _start_redis(stack, place, lat, lng, found["missing"]) if redis else None
        with screen.progress("radii", len(RADII_M)) as show:
            for done, radius_m in enumerate(RADII_M, start=1):
                circles = [Circle(float(lat[at]), float(lng[at]), radius_m) for at in centres]
                found["radii"][f"{radius_m:g}"] = _ask_all(index, vectors, peer, circles)
                show(done)
        found["polygons"] = _polygons(index, lat, lng, POLYGONS_M, queries) | _in_region(count, queries)
        found |= _change(index, slots, lat, lng, moves)
        if peer:
            found["redis_move_us"] = _redis_moves(peer, lat, lng, moves)
    return found


def _insert(index: PlaceIndex, lat: Any, lng: Any) -> tuple[list[int], dict[str, float]]:
    rows = range(len(lat))
    with screen.progress("inserting", len(lat)) as show:
        slots, took = [], np.empty(len(lat))
        for row, la, ln in zip(rows, lat.tolist(), lng.tolist(), strict=True):
            start = time.perf_counter_ns()
            slots.append(index.add(row, la, ln, 0.0))
            took[row] = time.perf_counter_ns() - start
            if not row % 10_000:
                show(row)
        show(len(lat))
    return slots, _changes(took)


def _changes(took_ns: Any) -> dict[str, float]:
    """Return the statistics of calls (such as moves of a place) from their durations.

    They are the mean in µs, the calls per second, and the p99.9 and the maximum in µs.
    """
    mean = float(took_ns.mean()) / 1000
    return {"us": mean, "per_s": 1e6 / mean, "p999_us": float(np.percentile(took_ns, 99.9)) / 1000} | {
        "longest_us": float(took_ns.max()) / 1000
    }


def _start_redis(stack: ExitStack, place: Place, lat: Any, lng: Any, missing: dict[str, str]) -> Redis | None:
    try:
        peer = stack.enter_context(Redis(place.home, place.cores.server))
    except processes.Unavailable as reason:
        missing["redis"] = reason.format_message()
        return None
    with screen.progress("inserting into Redis", len(lat)) as show:
        for done in peer.add(lat, lng):
            show(done)
    return peer


# ---- matching circles --------------------------------------------------------------------------------------------


def _ask_all(index: PlaceIndex, vectors: Any, peer: Redis | None, circles: Sequence[Circle]) -> dict[str, Any]:
    """Match the same circles with the index, with brute force and with Redis.

    Return the times, and the number of wrong answers of the index.
    """
    ours, ours_us = _timed(circles, lambda circle: index.match([circle])[0])
    brute, brute_us = _timed(circles, lambda circle: _brute_force(vectors, circle))
    wrong = sum(not np.array_equal(a, b) for a, b in zip(ours, brute, strict=True))
    found: dict[str, Any] = {
        "inside": stats.median([len(rows) for rows in brute]),
        "index_us": stats.summary(ours_us),
        "brute_us": stats.summary(brute_us),
        "wrong": wrong,
    }
    return found | (_ask_redis(peer, circles, brute) if peer else {})


def _timed(shapes: Sequence[_S], ask: Callable[[_S], Any]) -> tuple[list[Any], list[float]]:
    answers, took_us = [], []
    ask(shapes[0])  # to warm up
    for shape in shapes:
        start = time.perf_counter_ns()
        answers.append(ask(shape))
        took_us.append((time.perf_counter_ns() - start) / 1000)
    return answers, took_us


def _brute_force(vectors: Any, circle: Circle) -> Any:
    """Return the places inside a circle, found by applying the formula of the index to every place."""
    x, y, z = vectors
    return np.flatnonzero(chord2(x, y, z, unit_vector(circle.lat, circle.lng)) <= limit_chord2(circle.radius_m))


def _ask_redis(peer: Redis, circles: Sequence[Circle], brute: Sequence[Any]) -> dict[str, Any]:
    scale = REDIS_RADIUS_M / EARTH_RADIUS_M
    peer.reset()
    answers, took_us = _timed(circles, lambda circle: peer.search(circle.lat, circle.lng, circle.radius_m * scale))
    server_us = peer.server_us("geosearch")
    differ = sum(
        len(np.setxor1d(np.array(names, dtype=np.int64), rows)) for names, rows in zip(answers, brute, strict=True)
    )
    return {"redis_server_us": server_us, "redis_call_us": stats.median(took_us), "redis_differs": differ}


# ---- matching polygons -------------------------------------------------------------------------------------------


def _in_region(count: int, queries: int) -> dict[str, Any]:
    region = places.around(count, REGION_M, seed=SEED)
    index = PlaceIndex()
    _insert(index, region.lat, region.lng)
    found = _polygons(index, region.lat, region.lng, IN_REGION_M, queries)
    return {f"{name}, one region": it for name, it in found.items()}


def _polygons(index: PlaceIndex, lat: Any, lng: Any, sizes_m: Sequence[float], queries: int) -> dict[str, Any]:
    """Match polygons around some of the places, and the circles around these polygons; return the results by size.

    To check the answers, a brute force tests every place.
    """
    found, points = {}, np.array(unit_vectors(lat, lng))
    dice = np.random.default_rng(SEED)
    for size_m in sizes_m:
        polygons = [polygon(dice, lat[at], lng[at], size_m) for at in dice.integers(0, len(lat), queries)]
        rings = [SphericalPolygon(each.ring, each.buffer_m) for each in polygons]
        circles = [Circle(ring.lat, ring.lng, ring.radius_m) for ring in rings]
        ours, ours_us, circle_us = _by_turns(index, polygons, circles)
        wrong = sum(not np.array_equal(rows, _each_asked(ring, points)) for rows, ring in zip(ours, rings, strict=True))
        found[f"polygon, {size_m / 1000:g} km"] = {
            "inside": stats.median([len(rows) for rows in ours]),
            "index_us": stats.summary(ours_us),
            "circle_us": stats.summary(circle_us),
            "wrong": wrong,
        }
    return found


def _by_turns(
    index: PlaceIndex, polygons: Sequence[Polygon], circles: Sequence[Circle]
) -> tuple[list[Any], list[float], list[float]]:
    """Match each polygon, and the circle around it.

    Return the places inside each polygon, the time in µs for each polygon, and the time in µs for each circle. In every
    other pair the circle comes first, because the second shape of a pair finds the same places in the processor's
    caches.
    """
    pairs = [pair if at % 2 else pair[::-1] for at, pair in enumerate(zip(polygons, circles, strict=True))]
    shapes: list[Polygon | Circle] = [shape for pair in pairs for shape in pair]
    answers, took_us = _timed(shapes, lambda shape: index.match([shape])[0])
    asked = list(zip(shapes, answers, took_us, strict=True))
    ours = [(answer, us) for shape, answer, us in asked if isinstance(shape, Polygon)]
    circles_us = [us for shape, _, us in asked if isinstance(shape, Circle)]
    return [answer for answer, _ in ours], [us for _, us in ours], circles_us


def polygon(dice: Any, lat: float, lng: float, size_m: float) -> Polygon:
    """Return a polygon of CORNERS corners, as ragged as a coast.

    A large polygon has a buffer around it, as polygons with long edges do.
    """
    turn = np.arange(CORNERS) * 2 * math.pi / CORNERS
    waves = sum(np.sin(n * turn + dice.random() * 7) / n for n in (1, 2, 3, 5, 8, 13, 21, 34, 55))
    far = size_m * (0.8 + 0.1 * waves)
    y, x = places.offset(lat, lng, far * np.sin(turn), far * np.cos(turn))
    corners = list(zip(((x + 180) % 360 - 180).round(6).tolist(), np.clip(y, -90, 90).round(6).tolist(), strict=True))
    return Polygon((*corners, corners[0]), 20.0 if size_m > 10_000 else 0.0)


def _each_asked(ring: SphericalPolygon, points: Any) -> Any:
    """Return the places inside a polygon, found by testing every place in the circle around the polygon."""
    near = np.flatnonzero(chord2(points[0], points[1], points[2], ring.centre) <= limit_chord2(ring.radius_m))
    parts = np.array_split(near, max(1, len(near) // 1_000))
    return np.concatenate([part[ring.contains_all(points[:, part], np.zeros(len(part)))] for part in parts])


# ---- inserts, moves and removals ---------------------------------------------------------------------------------


def _change(index: PlaceIndex, slots: list[int], lat: Any, lng: Any, moves: int) -> dict[str, Any]:
    """Move places by about 100 m, then to another city, then remove them; return the costs of each step."""
    dice = np.random.default_rng(SEED)
    which = dice.choice(len(slots), moves, replace=False).tolist()
    near = places.offset(lat[which], lng[which], dice.normal(0, MOVE_M, moves), dice.normal(0, MOVE_M, moves))
    away = dice.choice(len(slots), moves).tolist()
    return {
        "move_near": _move(index, [slots[at] for at in which], *near),
        "move_away": _move(index, [slots[at] for at in which], lat[away], lng[away]),
        "remove": _remove(index, [slots[at] for at in which]),
    }


def _move(index: PlaceIndex, slots: list[int], lat: Any, lng: Any) -> dict[str, float]:
    took = np.empty(len(slots))
    for at, (slot, la, ln) in enumerate(zip(slots, lat.tolist(), lng.tolist(), strict=True)):
        start = time.perf_counter_ns()
        index.move(slot, la, ln, 0.0)
        took[at] = time.perf_counter_ns() - start
    return _changes(took)


def _remove(index: PlaceIndex, slots: list[int]) -> dict[str, float]:
    took = np.empty(len(slots))
    for at, slot in enumerate(slots):
        start = time.perf_counter_ns()
        index.remove(slot)
        took[at] = time.perf_counter_ns() - start
    return _changes(took)


def _redis_moves(peer: Redis, lat: Any, lng: Any, moves: int) -> float:
    """Return the median time in µs that Redis itself takes to move one place with GEOADD."""
    peer.reset()
    for at in range(min(moves, 20_000)):
        peer.move(at, float(lat[at]) + 0.001, float(lng[at]))
    return peer.server_us("geoadd")


# ---- table and plot ----------------------------------------------------------------------------------------------


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each radius of circles and one for each size of polygons."""
    found = result.found
    rows = []
    for radius, it in found["radii"].items():
        ours, redis = it["index_us"]["p50"], it.get("redis_server_us")
        rows.append(
            [
                f"{float(radius) / 1000:g} km",
                *(number(value) for value in (it["inside"], ours, it["index_us"]["max"], redis)),
                number(redis / ours if redis else None),
                number(it.get("redis_call_us")),
                *(number(value) for value in (it["brute_us"]["p50"], it["brute_us"]["p50"] / ours)),
                str(it["wrong"]),
                "",
            ]
        )
    for name, it in found.get("polygons", {}).items():
        ours, circle = it["index_us"]["p50"], it["circle_us"]["p50"]
        own = [name, number(it["inside"]), number(ours), number(it["index_us"]["max"])]
        rows.append([*own, *[""] * 5, str(it["wrong"]), number(ours / circle)])
    columns = (
        "radius",
        "inside",
        "index µs",
        "max µs",
        "Redis µs",
        "÷ index",
        "as called µs",
        "brute µs",
        "÷ index",
        "wrong",
        "÷ circle",
    )
    return Table(f"match: {result.parameters['count']:,} places by population", columns, rows, _notes(found))


def _notes(found: dict[str, Any]) -> list[str]:
    notes = [
        f"{name}: {number(it['us'])} µs ({number(it['per_s'])} a second), "
        f"p99.9 {number(it['p999_us'])} µs, longest {number(it['longest_us'])} µs."
        for name, it in ((name.replace("_", " "), found[name]) for name in CHANGES)
    ]
    if "redis_move_us" in found:
        differ = sum(it.get("redis_differs", 0) for it in found["radii"].values())
        notes.append(f"A move inside Redis: {number(found['redis_move_us'])} µs.")
        notes.append(f"Places for which the answer of Redis differs: {differ}.")
    wrong = sum(it["wrong"] for part in ("radii", "polygons") for it in found.get(part, {}).values())
    if "polygons" in found:
        notes.append(
            f"Polygons have {CORNERS} corners; ÷ circle: their time divided by that of the circle around each."
        )
    return [*notes, f"Answers of the index that differ from the brute force: {wrong} (has to be 0)."]


def plot(result: Result, figure: Any) -> None:
    """Plot the time of a match over the radius."""
    radii = result.found["radii"]
    km = [float(radius) / 1000 for radius in radii]
    axes = figure.subplots()
    axes.plot(km, [it["index_us"]["p50"] for it in radii.values()], "o-", label="geocast's index")
    axes.plot(km, [it["brute_us"]["p50"] for it in radii.values()], "s--", label="brute force")
    redis = [it.get("redis_server_us", math.nan) for it in radii.values()]
    axes.plot(km, redis, "D-", label="Redis GEOSEARCH (server)")
    axes.set(xlabel="radius, km", ylabel="µs (median)", xscale="log", yscale="log")
    axes.legend()
    figure.suptitle(table(result).title)


BENCH = Bench(
    "match",
    "finding who is inside a circle or a polygon, compared with Redis and brute force; and the cost of moves.",
    measure,
    table,
    plot,
    {"count": 200_000, "queries": 20, "moves": 20_000, "redis": True},
)
