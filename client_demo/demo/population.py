"""Makes the simulated subscribers, a city of people around the places of incidents.

The functions do no I/O. The same seed gives the same city.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import h3

from client_demo.python.geo import Place, offset
from client_demo.python.wire import WireName

Point = tuple[float, float]  # degrees

SEED = 911
NEAR_SHARE, NEAR_M = (
    0.6,
    900.0,
)  # the fraction of subscribers near an incident, and the standard deviation of their distance; others are anywhere
OUTSKIRTS_M = 3000.0
STEPS, STEP_M = 12, 500.0  # number of a walker's places, and their mean distance

# The kinds of places that subscribers send, and the percentage of subscribers with each kind.
KINDS = {"a point": 45, "a point and its accuracy": 15, "an H3 cell only": 15, "two places": 10, "on the move": 15}


@dataclass(frozen=True, slots=True)
class Simulated:
    """One simulated subscriber: the format of its messages, and its steps.

    A step is a list of places where the subscriber is at the same time. A subscriber with a single step does not move.
    A responder also has a token, and an `answer` to calls: what it says, and after how many seconds (see `crowd`).
    """

    kind: str
    wire: WireName
    steps: list[list[Place]]
    sub: str = ""
    token: str | None = None
    answer: dict[str, Any] | None = None

    def to_map(self) -> dict[str, Any]:
        """Return the subscriber as a JSON-compatible dict, to be handed to the process that simulates it."""
        steps = [[place.to_map() for place in places] for places in self.steps]
        return {"wire": self.wire, "steps": steps, "token": self.token, "answer": self.answer}


def city(count: int, incidents: Sequence[Point], seed: int = SEED) -> list[Simulated]:
    """Return `count` subscribers, some of them near these incidents and the others anywhere between the incidents."""
    dice = random.Random(seed)
    lats, lngs = [lat for lat, _ in incidents], [lng for _, lng in incidents]
    corners = (
        offset(min(lats), min(lngs), -OUTSKIRTS_M, -OUTSKIRTS_M),
        offset(max(lats), max(lngs), OUTSKIRTS_M, OUTSKIRTS_M),
    )

    def somewhere() -> Point:
        if dice.random() < NEAR_SHARE:
            return offset(*dice.choice(incidents), dice.gauss(0, NEAR_M), dice.gauss(0, NEAR_M))
        (south, west), (north, east) = corners
        return dice.uniform(south, north), dice.uniform(west, east)

    kinds = dice.choices(list(KINDS), list(KINDS.values()), k=count)
    wires: tuple[WireName, WireName] = ("json", "msgpack")
    return [Simulated(kind, wires[n % 2], _steps(kind, somewhere(), somewhere(), dice)) for n, kind in enumerate(kinds)]


def _steps(kind: str, home: Point, work: Point, dice: random.Random) -> list[list[Place]]:
    match kind:
        case "a point and its accuracy":
            return [[Place.at(*home, round(dice.uniform(5, 600), 1))]]
        case "an H3 cell only":
            return [[Place.in_cell(h3.latlng_to_cell(*home, dice.choice((7, 8, 8, 9, 9, 10))))]]
        case "two places":
            return [[Place.at(*home), Place.at(*work)]]
        case "on the move":
            return _walk(home, dice)
    return [[Place.at(*home)]]


def _walk(start: Point, dice: random.Random) -> list[list[Place]]:
    """Return the places of a subscriber who walks roughly along a line, and so enters and leaves areas."""
    north, east = dice.gauss(0, 1), dice.gauss(0, 1)
    accuracy_m = dice.choice((0.0, 0.0, 20.0, 150.0))
    here, steps = start, []
    for _ in range(STEPS):
        steps.append([Place.at(*here, accuracy_m)])
        here = offset(*here, STEP_M * (north + dice.gauss(0, 0.5)), STEP_M * (east + dice.gauss(0, 0.5)))
    return steps
