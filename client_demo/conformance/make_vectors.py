"""Generates the test vectors: `python -m client_demo.conformance.make_vectors`.

It needs only mpmath, h3 and cryptography. Cases within 1 cm of an edge are left out, because there both "inside" and
"outside" are right (D3).
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import h3
from mpmath import mp, mpf

from .approval_vectors import approvals
from .call_vectors import calls, near, stamp
from .device_vectors import device
from .exact import Json, cell_place, margin_m, walk
from .polygon_vectors import polygons
from .push_vectors import notices

VECTORS = Path(__file__).with_name("vectors")
EDGE_M = mpf("0.01")

# ---- inside or outside ---------------------------------------------------------------------------------------------


def circle(lat: float, lng: float, radius_m: float) -> Json:
    """Return a circle as a JSON object, in the format of a shape of an area."""
    return {"type": "circle", "lat": lat, "lng": lng, "radius_m": radius_m}


CENTRES = {
    "Dallas": (32.7767, -96.797),
    "on the equator, at the prime meridian": (0.0, 0.0),
    "just west of the antimeridian": (-17.0, 179.999),
    "just east of the antimeridian": (64.5, -179.9995),
    "on the antimeridian, written as 180": (10.0, 180.0),
    "on the antimeridian, written as -180": (10.0, -180.0),
    "at the north pole": (90.0, 0.0),
    "at the south pole, written with a longitude": (-90.0, 123.0),
    "200 m from the north pole": (89.9982, 45.0),
    "in the south": (-54.8, -68.3),
}
RADII_M = (110.0, 1020.0, 20_180.0, 2_000_000.0)
OFFSETS_M = (mpf("-100"), mpf("-1"), mpf("-0.02"), mpf("0.02"), mpf("1"), mpf("100"))


def points() -> Iterator[tuple[str, list[Json], list[Json]]]:
    """Yield cases with points near the edges of circles.

    The points are inside and outside, from centimetres to 100 m away from the edge.
    """
    dice = random.Random(1)
    for where, (lat, lng) in CENTRES.items():
        for radius_m in RADII_M:
            for offset in OFFSETS_M:
                accuracy_m = dice.choice([0, 0, 5, 37.5, 2000])
                spot = walk(lat, lng, dice.uniform(0, 360), mpf(radius_m) + accuracy_m + offset)
                place: Json = {"lat": spot[0], "lng": spot[1]}
                if accuracy_m:
                    place["accuracy_m"] = accuracy_m
                side = "outside" if offset > 0 else "inside"
                why = f"a circle {where}; a point {mp.nstr(abs(offset), 3)} m {side} the edge"
                yield (
                    why + (f", {accuracy_m} m of accuracy counted" if accuracy_m else ""),
                    [place],
                    [circle(lat, lng, radius_m)],
                )


def cells() -> Iterator[tuple[str, list[Json], list[Json]]]:
    """Yield cases with H3 cells as places, among them pentagons and distorted hexagons.

    The reach of such a place is the distance from the cell's centre to its farthest corner.
    """
    dice = random.Random(2)
    named = [
        (f"an ordinary cell of resolution {r}", h3.latlng_to_cell(dice.uniform(-70, 70), dice.uniform(-180, 180), r))
        for r in range(7, 16)
    ]
    for resolution in (7, 9, 12, 15):
        named += [(f"a pentagon of resolution {resolution}", p) for p in h3.get_pentagons(resolution)[::4]]
        pentagon = h3.get_pentagons(resolution)[3]
        neighbour = max(set(h3.grid_disk(pentagon, 1)) - {pentagon})
        named.append((f"a neighbour of a pentagon, resolution {resolution}", neighbour))
    # A hexagon that crosses an edge of the icosahedron has more than six points in its boundary.
    found = (h3.latlng_to_cell(dice.uniform(-70, 70), dice.uniform(-180, 180), 7) for _ in range(100_000))
    crossing = [c for c in (next(found) for _ in range(20_000)) if len(h3.cell_to_boundary(c)) > 6][:3]
    named += [("a cell across an edge of the icosahedron", cell) for cell in crossing]
    named.append(("a cell at the north pole", h3.latlng_to_cell(90, 0, 8)))
    named.append(("a cell on the antimeridian", h3.latlng_to_cell(-17, 180, 8)))
    for what, cell in named:
        lat, lng, reach = cell_place(cell)
        for offset in (mpf("-0.5"), mpf("-0.02"), mpf("0.02"), mpf("0.5")):
            radius_m = dice.choice(RADII_M[:3])
            centre = walk(lat, lng, dice.uniform(0, 360), mpf(radius_m) + reach + offset)
            side = "outside" if offset > 0 else "inside"
            yield f"{what}, {mp.nstr(abs(offset), 3)} m {side}", [{"cell": cell}], [circle(*centre, radius_m)]


def others() -> Iterator[tuple[str, list[Json], list[Json]]]:
    """Yield cases with several places, several shapes, and very large circles."""
    dallas, tokyo = {"lat": 32.7767, "lng": -96.797}, {"lat": 35.68, "lng": 139.76}
    at_dallas, at_tokyo = circle(32.78, -96.8, 1020.0), circle(35.68, 139.76, 110.0)
    yield "without a place the answer is outside", [], [at_dallas]
    yield "one of two places is inside", [tokyo, dallas], [at_dallas]
    yield "a place is inside one of two shapes", [dallas], [at_tokyo, at_dallas]
    yield "no place is in any of the shapes", [{"lat": 0, "lng": 0}, {"lat": 1, "lng": 1}], [at_tokyo, at_dallas]
    yield "longitudes 180 and -180 are the same meridian", [{"lat": 10, "lng": -180}], [circle(10.0, 180.0, 110.0)]
    yield "at a pole the longitude does not matter", [{"lat": 90, "lng": 17}], [circle(90.0, -120.0, 110.0)]
    yield "a circle of a hemisphere, inside", [{"lat": 0, "lng": 89}], [circle(0.0, 0.0, 10_000_000.0)]
    yield "a circle of a hemisphere, outside", [{"lat": 0, "lng": 91}], [circle(0.0, 0.0, 10_000_000.0)]
    yield "a circle of the whole earth", [{"lat": -32, "lng": 83}], [circle(32.0, -97.0, 20_100_000.0)]


def inside() -> Json:
    """Return the content of the file `inside.json`."""
    cases = []
    for why, places, area in [*points(), *cells(), *others()]:
        margins = [margin_m(place, shape) for place in places for shape in area]
        if any(abs(margin) <= EDGE_M for margin in margins):
            continue
        best = max(margins, default=None)
        case = {"why": why, "places": places, "area": area, "inside": best is not None and best > 0}
        if best is not None:
            case["margin_m"] = round(float(best), 4)
        if places and "cell" in places[0]:
            lat, lng, reach = cell_place(places[0]["cell"])
            case["cell_place"] = {"lat": lat, "lng": lng, "reach_m": round(float(reach), 6)}
        cases.append(case)
    strange = {"type": "polygon", "points": [[1, 2], [3, 4], [5, 6]]}
    for why, area in (
        ("a shape of unknown type: the alert is shown", [strange]),
        ("a shape of unknown type, and a circle elsewhere", [circle(0.0, 0.0, 110.0), strange]),
    ):
        places = [{"lat": 32.7767, "lng": -96.797}]
        cases.append({"why": why, "rule": "G2", "places": places, "area": area, "inside": True, "clients_only": True})
    return {
        "about": "Whether one of the places is inside the area (D1 to D3, M7, M8). margin_m: metres inside the best "
        "circle, negative outside. cell_place: the point and the reach of a cell. No case is within 1 cm of an edge.",
        "cases": cases,
    }


# ---- expiry and the clock ------------------------------------------------------------------------------------------


def clock() -> Json:
    """Return the content of the file `clock.json`."""
    cases = []
    clocks = {0: "right", 3_600_000: "an hour behind", -3_600_000: "an hour ahead", -1: "1 ms ahead"}
    for skew_ms, what in clocks.items():
        for left_ms in (-1, 0, 1, 60_000):
            own_at_welcome, waited_ms = 5_000_000, 90_000
            server_then = skew_ms + waited_ms  # ms after noon
            cases.append(
                {
                    "why": f"the client's clock is {what}; by the server's clock {left_ms} ms are left",
                    "readings": [{"own_ms": own_at_welcome, "now": stamp(skew_ms)}],
                    "expires_at": stamp(server_then + left_ms),
                    "own_ms": own_at_welcome + waited_ms,
                    "live": left_ms > 0,
                    "left_ms": left_ms,
                }
            )
    for left_ms in (-1, 1):
        cases += [
            {
                "why": f"a later `now`, of a `pong`, replaces the first one; {left_ms} ms are left",
                "readings": [{"own_ms": 1_000, "now": stamp(0)}, {"own_ms": 61_000, "now": stamp(62_500)}],
                "expires_at": stamp(63_500 + left_ms),
                "own_ms": 62_000,
                "live": left_ms > 0,
                "left_ms": left_ms,
            }
        ]
    return {
        "about": "Whether an alert is live by the client's own clock, corrected by the server's `now` (C2). readings: "
        "the client's own clock, in ms since any moment, when a `welcome` or `pong` with this `now` came. live: "
        "whether the server's time is before expires_at.",
        "cases": cases,
    }


# ---- alerts that are kept while a clock is wrong -------------------------------------------------------------------

MINUTE_MS, HOUR_MS = 60_000, 3_600_000


def kept() -> Json:
    """Return the content of the file `kept.json`, about alerts that a client keeps while a clock is wrong.

    The client's own clock is right, and starts at 0 at noon; the server's clock may be `ahead_ms` ahead.
    """
    place = {"lat": 32.7767, "lng": -96.797}

    def at(own_ms: int, event: Json, shown: dict[str, int], kept: dict[str, int] | None = None) -> Json:
        return {"own_ms": own_ms, **event, "shown": shown, "holding": {**shown, **(kept or {})}}

    def now(own_ms: int, ahead_ms: int = 0) -> Json:
        return {"now": stamp(own_ms + ahead_ms)}

    def alert(key: str = "a", revision: int = 1, *, issued_ms: int = 0, ends_ms: int = 30 * MINUTE_MS) -> Json:
        content = {"id": key, "revision": revision, "category": "robbery", "title": "Robbery", "headline": "Robbery"}
        times = {"occurred_at": stamp(issued_ms - 1), "issued_at": stamp(issued_ms), "expires_at": stamp(ends_ms)}
        more = {"severity": "severe", "status": "actual", "source": "desk-7", **times}
        return {"message": {"type": "alert", "alert": {**content, **more, "area": [circle(32.78, -96.8, 1020.0)]}}}

    cancel = {"type": "cancel", "id": "a", "revision": 2, "reason": "Over.", "cancelled_at": stamp(20_000)}
    ahead = 2 * HOUR_MS
    stories = {
        "the server's clock is ahead for a while: the alert is hidden meanwhile, and then shown again": [
            at(0, now(0), {}),
            at(1_000, alert(), {"a": 1}),
            at(10_000, now(10_000, ahead), {}, {"a": 1}),
            at(35_000, now(35_000), {"a": 1}),
            at(30 * MINUTE_MS, {}, {}, {"a": 1}),
            at(30 * MINUTE_MS + 1_000, {}, {}),
        ],
        "an alert comes while the last `now` is wrong": [
            at(0, now(0, ahead), {}),
            at(1_000, alert(), {}, {"a": 1}),
            at(2_000, now(2_000), {"a": 1}),
        ],
        "an alert is kept for its longest possible life, counted from its arrival": [
            at(0, now(0), {}),
            at(10_000, alert(issued_ms=-20_000, ends_ms=MINUTE_MS), {"a": 1}),
            at(MINUTE_MS - 1, {}, {"a": 1}),
            at(MINUTE_MS, {}, {}, {"a": 1}),
            at(89_999, now(89_999, ahead), {}, {"a": 1}),
            at(90_000, {}, {}),
            at(90_001, now(90_001, -HOUR_MS), {}),
        ],
        "an alert that was issued at its end is over by both clocks on arrival": [
            at(0, now(0), {}),
            at(1_000, alert(ends_ms=0), {}),
            at(2_000, now(2_000, -HOUR_MS), {}),
        ],
        "an alert that is live by the server's clock is kept, even beyond its longest possible life": [
            at(0, now(0), {}),
            at(0, alert(ends_ms=MINUTE_MS), {"a": 1}),
            at(30_000, now(30_000, -HOUR_MS), {"a": 1}),
            at(10 * MINUTE_MS, {}, {"a": 1}),
            at(11 * MINUTE_MS, now(11 * MINUTE_MS), {}),
        ],
        "a hidden alert is cancelled": [
            at(0, now(0), {}),
            at(0, alert(), {"a": 1}),
            at(10_000, now(10_000, ahead), {}, {"a": 1}),
            at(20_000, {"message": cancel}, {}),
            at(30_000, now(30_000), {}),
        ],
        "a hidden alert is revised": [
            at(0, now(0), {}),
            at(0, alert(), {"a": 1}),
            at(10_000, now(10_000, ahead), {}, {"a": 1}),
            at(20_000, alert(revision=2, issued_ms=20_000), {}, {"a": 2}),
            at(30_000, now(30_000), {"a": 2}),
        ],
        "a hidden alert gets a revision that is live by the server's clock": [
            at(0, now(0), {}),
            at(0, alert(), {"a": 1}),
            at(10_000, now(10_000, ahead), {}, {"a": 1}),
            at(20_000, alert(revision=2, issued_ms=20_000, ends_ms=3 * HOUR_MS), {"a": 2}),
        ],
    }
    return {
        "about": "The alerts that are shown while the server's `now` is wrong and after it is corrected (C2), and "
        "those that are kept and listed in `holding` by a client that keeps alerts which only the server's clock has "
        "ended (C2a). Each step happens at own_ms by the client's own clock, which nobody sets: a `now` (of a "
        "`welcome` or `pong`) comes, or a message, or time has passed. Afterwards the alerts in `shown` are shown, and "
        "a `hello` would list those in `holding`. The client is at `place` all the time.",
        "place": place,
        "cases": [{"why": why, "steps": steps} for why, steps in stories.items()],
    }


# ---- the content of `holding` --------------------------------------------------------------------------------------


def holding() -> Json:
    """Return the content of the file `holding.json`."""
    dice = random.Random(3)

    def held(key: str, revision: int, ends_ms: int) -> Json:
        return {"id": key, "revision": revision, "expires_at": stamp(ends_ms)}

    def crowd(count: int) -> list[Json]:
        ends = dice.sample(range(1, 3_600_000), count)
        return [held(f"a{n}", 1 + n % 3, ms) for n, ms in enumerate(ends)]

    sets = {
        "nothing is held": [],
        "held alerts are listed with their revisions": [held("a", 1, 60_000), held("b", 7, 61_000)],
        "ended alerts are not listed": [held("a", 1, -1), held("b", 1, 0), held("c", 1, 1)],
        "256 alerts are listed": crowd(256),
        "of 257 alerts all except the one that ends first are listed": crowd(257),
        "of 400 alerts the 256 that end last are listed": crowd(400),
        "ended alerts do not count towards the limit": [*crowd(256), held("ended", 1, -5)],
    }
    cases = []
    for why, alerts in sets.items():
        live = {a["id"]: a for a in alerts if a["expires_at"] > stamp(0)}  # times of one format can be compared as text
        last = sorted(live, key=lambda key: live[key]["expires_at"])[-256:]
        cases.append(
            {
                "why": why,
                "now": stamp(0),
                "held": alerts,
                "holding": {key: live[key]["revision"] for key in sorted(last)},
                "dropped": sorted(live.keys() - set(last)),
            }
        )
    return {
        "about": "Which of the held alerts are listed in `holding` at `now`, the server's time (C5). Live alerts that "
        "are not listed are dropped first. No two alerts end at the same time. Ended alerts came long ago, so they are "
        "over by all clocks (C2a).",
        "cases": cases,
    }


# ---- revisions and cancellations -----------------------------------------------------------------------------------


def revisions() -> Json:
    """Return the content of the file `revisions.json`."""
    shape = [circle(32.78, -96.8, 1020.0)]
    place = {"lat": 32.7767, "lng": -96.797}

    def alert(revision: int, key: str = "a", ends_ms: int = 1_800_000, issued_ms: int = -1_000) -> Json:
        content = {"id": key, "revision": revision, "category": "robbery", "title": "Robbery", "headline": "Robbery"}
        times = {"occurred_at": stamp(-60_000), "issued_at": stamp(issued_ms), "expires_at": stamp(ends_ms)}
        more = {"severity": "severe", "status": "actual", "source": "desk-7", **times, "area": shape}
        return {"type": "alert", "alert": {**content, **more}}

    def cancel(revision: int, key: str = "a") -> Json:
        return {"type": "cancel", "id": key, "revision": revision, "reason": "Over.", "cancelled_at": stamp(0)}

    stories: dict[str, list[tuple[Json, str, dict[str, int]]]] = {
        "a higher revision replaces a lower one": [(alert(1), "shown", {"a": 1}), (alert(2), "shown", {"a": 2})],
        "revision numbers may be skipped": [(alert(1), "shown", {"a": 1}), (alert(5), "shown", {"a": 5})],
        "the same and a lower revision are ignored": [
            (alert(3), "shown", {"a": 3}),
            (alert(3), "nothing", {"a": 3}),
            (alert(2), "nothing", {"a": 3}),
        ],
        "revisions are compared as numbers: 10 is higher than 9": [
            (alert(9), "shown", {"a": 9}),
            (alert(10), "shown", {"a": 10}),
        ],
        "a cancel ends the alert": [(alert(1), "shown", {"a": 1}), (cancel(2), "cancelled", {})],
        "a cancel of an alert that is not held has no effect": [
            (alert(1), "shown", {"a": 1}),
            (cancel(2, "b"), "nothing", {"a": 1}),
        ],
        "ids that differ in case are different ids": [
            (alert(1, "a"), "shown", {"a": 1}),
            (alert(1, "A"), "shown", {"a": 1, "A": 1}),
            (cancel(2, "A"), "cancelled", {"a": 1}),
        ],
        "an alert that has ended on arrival is not shown": [(alert(1, ends_ms=0, issued_ms=0), "nothing", {})],
        "a revision may end later": [
            (alert(1, ends_ms=1_000), "shown", {"a": 1}),
            (alert(2, ends_ms=9_000), "shown", {"a": 2}),
        ],
    }
    return {
        "about": "The effects of messages on the held alerts (C1 to C3). The client is at `place` and reads the "
        "messages at `now`, the server's time. effect: shown, cancelled or nothing; held: id -> revision afterwards.",
        "now": stamp(0),
        "place": place,
        "cases": [
            {"why": why, "steps": [{"message": m, "effect": effect, "held": held} for m, effect, held in story]}
            for why, story in stories.items()
        ],
    }


# ---- reconnecting --------------------------------------------------------------------------------------------------

NEVER = (1002, 1003, 1007, 1009, 4400, 4403)
WINDOW = (1001, 1006, 1011, 1012, 4408, 1005, 3000, 4999)
LATER = (1013, 4429)


def reconnect() -> Json:
    """Return the content of the file `reconnect.json`."""

    def welcome(low: object, high: object) -> Json:
        return {"welcome": {"retry": {"min_ms": low, "max_ms": high}}}

    def closed(code: int, low: int | None, high: int | None = None, *, new_token: bool = False) -> Json:
        step: Json = {"closed": code, "delay_ms": None if low is None else [low, high]}
        return {**step, "new_token": True} if new_token else step

    def odd(low: object, high: object) -> list[Json]:
        return [welcome(2_000, 9_000), welcome(low, high), closed(1012, 2_000, 9_000)]

    stories = {
        **{f"{c}: do not reconnect": [welcome(2_000, 9_000), closed(c, None)] for c in NEVER},
        **{f"{c}: within the window": [welcome(2_000, 9_000), closed(c, 2_000, 9_000)] for c in WINDOW},
        **{f"{c}: later; no upper bound": [welcome(2_000, 9_000), closed(c, 2_000)] for c in LATER},
        "4401: reconnect with a new token": [welcome(2_000, 9_000), closed(4401, 0, 9_000, new_token=True)],
        "4420: at once the first time, later the second time": [
            welcome(2_000, 9_000),
            closed(4420, 0, 0),
            welcome(2_000, 9_000),
            closed(4420, 2_000),
        ],
        "before the first welcome: 1 to 30 s, doubled after each failure, up to 120 s": [
            closed(1006, 1_000, 30_000),
            closed(1006, 1_000, 60_000),
            closed(1006, 1_000, 120_000),
            closed(1006, 1_000, 120_000),
        ],
        "the upper end doubles after each failed attempt, the lower one stays": [
            welcome(500, 8_000),
            closed(1012, 500, 8_000),
            closed(1006, 500, 16_000),
            closed(1006, 500, 32_000),
            closed(1006, 500, 64_000),
            closed(1006, 500, 120_000),
            closed(1006, 500, 120_000),
        ],
        "a welcome gives a new window": [
            welcome(500, 8_000),
            closed(1012, 500, 8_000),
            closed(1006, 500, 16_000),
            welcome(3_000, 4_000),
            closed(1012, 3_000, 4_000),
        ],
        "a `retry` of 0 is ignored, because clients without a pause would overload failing nodes": odd(0, 0),
        "a `retry` of ages is ignored, because clients would never return": odd(1_000, 1e300),
        "a `retry` with reversed ends is ignored": odd(9_000, 2_000),
        "a `retry` of strings is ignored": odd("2000", "9000"),
    }
    return {
        "about": "The delay before reconnecting after a close (W1 to W7), in ms, drawn at random from the whole range "
        "delay_ms. null: do not reconnect; an upper end of null: no limit. Code 1006: the connection ended without a "
        "close frame, or none could be made.",
        "cases": [{"why": why, "steps": steps} for why, steps in stories.items()],
    }


FILES = {
    "inside": inside,
    "polygons": polygons,
    "device": device,
    "clock": clock,
    "kept": kept,
    "holding": holding,
    "revisions": revisions,
    "reconnect": reconnect,
    "approvals": approvals,
    "near": near,
    "calls": calls,
    "notices": notices,
}


def text(vectors: Json) -> str:
    """Return test vectors as JSON text with one case on each line, so that a diff shows which cases have changed."""
    head = {key: value for key, value in vectors.items() if key != "cases"}
    lines = ",\n  ".join(json.dumps(case, ensure_ascii=False) for case in vectors["cases"])
    return json.dumps(head, ensure_ascii=False, indent=1)[:-2] + f',\n "cases": [\n  {lines}\n ]\n}}\n'


def main() -> None:
    """Write all files of test vectors."""
    for name, make in FILES.items():
        (VECTORS / f"{name}.json").write_text(text(make()), "utf-8")


if __name__ == "__main__":
    main()
