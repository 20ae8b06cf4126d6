"""Test vectors about calls for help, for `make_vectors`: what the client of a responder computes and sends."""

import random
from datetime import UTC, datetime, timedelta

import h3
from mpmath import mpf

from .exact import Json, cell_place, distance_m, walk

NOON = datetime(2031, 5, 1, 12, tzinfo=UTC)
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
RADIUS_M = 210.0
SPOTS = {
    "in Ossingen": (47.67825933515865, 8.830423174775438),
    "on the equator": (0.0, 0.0),
    "just west of the antimeridian": (-17.0, 179.999),
    "near the north pole": (89.9982, 45.0),
    "at the south pole": (-90.0, 0.0),
}


def stamp(ms: int) -> str:
    """Return the time `ms` milliseconds after noon, in the format of the server."""
    return (NOON + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def circle(lat: float, lng: float) -> Json:
    """Return the circle `near` of a call for help: the approximate place where help is needed."""
    return {"type": "circle", "lat": lat, "lng": lng, "radius_m": RADIUS_M}


def away_m(place: Json, near: Json) -> mpf:
    """Return the distance in metres from a place to the centre of `near`, a call's circle."""
    lat, lng = cell_place(place["cell"])[:2] if "cell" in place else (place["lat"], place["lng"])
    return distance_m(lat, lng, near["lat"], near["lng"])


# ---- distances -----------------------------------------------------------------------------------------------------


def near() -> Json:
    """Return the content of the file `near.json`."""
    dice, asked = random.Random(8), []
    for where, (lat, lng) in SPOTS.items():
        for metres in (0, 3, 121.5, 1500, 20_000):
            spot = walk(lat, lng, dice.uniform(0, 360), mpf(metres))
            place = {"lat": spot[0], "lng": spot[1], "accuracy_m": dice.choice([5, 300]), "here": True}
            asked.append((f"{where}, {metres} m away: the accuracy does not matter", [place], circle(lat, lng)))
        cell = h3.latlng_to_cell(*walk(lat, lng, dice.uniform(0, 360), mpf(900)), 9)
        asked.append((f"{where}, from the centre of a cell", [{"cell": cell, "here": True}], circle(lat, lng)))
    home, here = {"lat": 47.679, "lng": 8.831}, {"lat": 47.6772, "lng": 8.83, "here": True}
    ring = circle(*SPOTS["in Ossingen"])
    asked.append(("from the place that is `here`, although another place is nearer", [home, here], ring))
    asked.append(("from the nearest place if none is `here`", [{"lat": 47.0, "lng": 8.0}, home], ring))
    cases: list[Json] = []
    for why, places, ring in asked:
        counted = [place for place in places if place.get("here")] or places
        metres = float(min(away_m(place, ring) for place in counted))
        cases.append({"why": why, "places": places, "near": ring, "away_m": round(metres, 4)})
    cases.append({"why": "without a place", "places": [], "near": ring, "away_m": None})
    return {
        "about": "The distance to the person in need (RU1). away_m: the metres from the place that is `here`, or else "
        "from the nearest place, to the centre of `near`; null without a place. Half a centimetre more or less is "
        "right.",
        "cases": cases,
    }


# ---- steps and stories ---------------------------------------------------------------------------------------------


def call(revision: int = 1, *, key: str = "c", issued_ms: int = 0, ends_ms: int = 30 * MINUTE_MS) -> Json:
    """Return a step of a case: a `call` message arrives."""
    content = {"id": key, "revision": revision, "category": "cardiac_arrest", "title": "Cardiac arrest: CPR needed"}
    text = {"headline": "Adult, not breathing.", "status": "actual", "source": "cad-3", "answer_s": 30}
    times = {"occurred_at": stamp(-60_000), "issued_at": stamp(issued_ms), "expires_at": stamp(ends_ms)}
    return {"message": {"type": "call", "call": {**content, **text, **times, "near": circle(*SPOTS["in Ossingen"])}}}


def task(revision: int, *, ends_ms: int = 30 * MINUTE_MS) -> Json:
    """Return a step of a case: a `task` message arrives."""
    place = {"lat": 47.6780089, "lng": 8.8311129, "kind": "public"}
    content = {"seat": 1, "role": "cpr", "place": place, "aeds": [], "status": "actual", "expires_at": stamp(ends_ms)}
    return {"message": {"type": "task", "id": "c", "revision": revision, **content}}


def standdown(reason: str) -> Json:
    """Return a step of a case: a `standdown` message arrives."""
    return {"message": {"type": "standdown", "id": "c", "reason": reason}}


def person(kind: str, **fields: object) -> Json:
    """Return a step of a case: the responder gives an answer, which the client must send as a message."""
    return {"person": {"type": kind, "id": "c", **fields}}


def at(
    own_ms: int,
    event: Json | None = None,
    told: str = "",
    held: int = 0,
    place: bool = False,
    says: list[Json] | None = None,
) -> Json:
    """Return a step that happens when the client's clock shows `own_ms`, with the results that are expected after it.

    `event` is what happens. `told` is the change that the client must show, `held` the revision of the call that it
    must then have (0: none), and `place` whether it must then have the exact place. `says` has the messages that the
    client must send; if it is None, the client may send anything.
    """
    after = {"told": told, "holding": {"c": held} if held else {}, "place": place}
    return {"own_ms": own_ms, **(event or {}), **after, **({} if says is None else {"says": says})}


def _stories() -> dict[str, list[Json]]:
    now: Json = {"now": stamp(0)}
    accept, decline = {"type": "accept", "id": "c", "eta_s": 240}, {"type": "decline", "id": "c"}
    going, leaving, again = person("accept", eta_s=240), person("decline"), {"connected": True}
    rings = [at(0, now), at(0, call(), "call", 1)]
    asks = [*rings, at(1_000, going, held=1, says=[accept])]
    goes = [*asks, at(1_200, task(2), "task", 2, True)]
    arrived, has_aed = ({"type": "report", "id": "c", "state": state} for state in ("arrived", "aed"))
    return {
        "a task answers an accept": [*goes, at(20_000, None, held=2, place=True, says=[])],
        "an unanswered accept is repeated after 5 s": [
            *asks,
            at(5_900, None, held=1, says=[]),
            at(6_000, None, held=1, says=[accept]),
            at(11_000, None, held=1, says=[accept]),
            at(11_500, task(4), "task", 4, True),
            at(30_000, None, held=4, place=True, says=[]),
        ],
        "an unanswered accept is repeated after each reconnect": [
            *asks,
            at(1_900, again, held=1, says=[accept]),
            at(2_500, again, held=1, says=[accept]),
            at(2_600, standdown("full"), "standdown"),
            at(3_000, again, says=[]),
        ],
        **{
            f"a standdown answers an accept: {reason}": [
                *asks,
                at(1_200, standdown(reason), "standdown"),
                at(20_000, None, says=[]),
                at(21_000, again, says=[]),
            ]
            for reason in ("full", "over", "far", "held-off")
        },
        "an accept is not repeated after the call's end": [
            at(0, now),
            at(0, call(ends_ms=7_000), "call", 1),
            at(1_000, going, held=1, says=[accept]),
            at(6_000, None, held=1, says=[accept]),
            at(12_000, None, "standdown", says=[]),
        ],
        "a person who has declined is not asked again": [
            *rings,
            at(1_000, leaving, says=[decline]),
            at(2_000, call(7)),
            at(3_000, again),
            at(3_100, call(7)),
        ],
        "a person who has declined may still accept": [
            *rings,
            at(1_000, leaving, says=[decline]),
            at(2_000, going, says=[accept]),
            at(2_100, task(4), "task", 4, True),
        ],
        "giving a seat back deletes its place at once": [
            *goes,
            at(2_000, leaving, says=[decline]),
            at(2_100, standdown("left"), "standdown"),
            at(20_000, None, says=[]),
        ],
        "the decline of a seat is repeated until it is answered": [
            *goes,
            at(2_000, leaving, says=[decline]),
            at(7_000, None, says=[decline]),
            at(8_000, again, says=[decline]),
            at(8_100, task(2)),
            at(8_200, standdown("left"), "standdown"),
            at(20_000, None, says=[]),
        ],
        "another device has accepted": [at(0, now), at(0, task(2), "task", 2, True)],
        "a standdown deletes the place": [*goes, at(9_000, standdown("over"), "standdown")],
        "the end of the call deletes the place": [
            at(0, now),
            at(0, call(ends_ms=9_000), "call", 1),
            at(100, task(2, ends_ms=9_000), "task", 2, True),
            at(8_999, None, held=2, place=True),
            at(9_000, None, "standdown"),
        ],
        "the end counts by the server's clock, an hour ahead": [
            at(0, {"now": stamp(HOUR_MS)}),
            at(0, call(issued_ms=HOUR_MS, ends_ms=HOUR_MS + 9_000), "call", 1),
            at(100, task(2, ends_ms=HOUR_MS + 9_000), "task", 2, True),
            at(8_999, None, held=2, place=True),
            at(9_000, None, "standdown"),
        ],
        "a call that is over on arrival is not reported": [
            at(10_000, {"now": stamp(10_000)}),
            at(10_000, call(ends_ms=10_000)),
            at(10_000, task(2, ends_ms=10_000)),
        ],
        "only a higher revision is reported": [
            at(0, now),
            at(0, call(9), "call", 9),
            at(1, call(9), held=9),
            at(2, call(10), "call", 10),
            at(3, call(9), held=10),
        ],
        "a task with a higher revision is reported again": [
            *goes,
            at(2_000, task(5), "task", 5, True),
            at(2_001, task(5), held=5, place=True),
            at(2_002, task(2), held=5, place=True),
        ],
        "a full call is reported again with a new revision": [
            *rings,
            at(1_000, standdown("full"), "standdown"),
            at(2_000, call(7), "call", 7),
        ],
        "a standdown of a call that is not held has no effect": [at(0, now), at(0, standdown("over"))],
        "reports are at least 5 s apart, as the server ignores others": [
            *goes,
            at(2_000, person("report", state="aed"), held=2, place=True, says=[has_aed]),
            at(3_000, person("report", state="arrived"), held=2, place=True, says=[]),
            at(6_900, None, held=2, place=True, says=[]),
            at(20_000, None, held=2, place=True, says=[arrived]),
            at(30_000, None, held=2, place=True, says=[]),
        ],
    }


def calls() -> Json:
    """Return the content of the file `calls.json`."""
    return {
        "about": "What a responder's client reports to the person, holds, sends and repeats (RU1 to RU3, M18 to M23). "
        "Each step happens at own_ms by the client's own clock: a `now` (of a `welcome` or `pong`) arrives, a message "
        "arrives, the client has a new connection, the person answers, or time has passed. Results of a step: told, "
        "the kind of change that the person is shown (empty for none); holding, what a `hello` would list; place, "
        "whether the place of a task is still held; says, all messages that the client sends, if the rules leave no "
        "choice.",
        "cases": [{"why": why, "steps": steps} for why, steps in _stories().items()],
    }
