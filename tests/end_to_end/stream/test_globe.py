"""Fifty alerts and two thousand places over the whole globe: each place gets exactly the alerts that contain it.

The test computes distances by itself; only the published area is taken from the server's answer.
"""

import contextlib
import random
from collections.abc import Callable, Iterator

import h3
import pytest
from end_to_end.kit.alerts import Json, alert, circle, place
from end_to_end.kit.earth import Point, beyond, cell_reach, inside, published
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import FORMATS, Session, kept_alive

SEED = 20_240_611
ALERTS = 50
PLACES = 2_000
RADII = (100, 101, 250, 800, 1_609.344, 5_000, 12_345.678, 20_000)
NASTY_SPOTS: tuple[Point, ...] = (
    (90, 0),
    (89.999, 77),
    (89.9, -135),
    (-90, 180),
    (-89.995, 12),
    (0, 180),
    (0, -180),
    (16.5, 179.9999),
    (-16.5, -179.9995),
    (64.7, 180),
    (-44, -179.97),
    (0, 0),
    (51.477, 0.0001),
)


def centres(dice: random.Random) -> list[Point]:
    """Return the centres of the alerts: poles, the antimeridian, all twelve pentagons of H3, and random points."""
    pentagons = [h3.cell_to_latlng(cell) for cell in sorted(h3.get_pentagons(9))]
    near = [beyond(spot, dice.uniform(0, 360), dice.uniform(0, 300)) for spot in pentagons]
    known = [*NASTY_SPOTS, *near]
    return known + [anywhere(dice) for _ in range(ALERTS - len(known))]


def anywhere(dice: random.Random) -> Point:
    """Return a random point of the globe."""
    return beyond((90, 0), dice.uniform(-180, 180), dice.uniform(0, 20_015_000))


def alerts_at(dice: random.Random, spots: list[Point]) -> list[Json]:
    """Return one alert for each spot; every fourth has several circles."""
    return [alert(spot, area=area_at(dice, spot, 1 + 3 * (i % 4 == 0))) for i, spot in enumerate(spots)]


def area_at(dice: random.Random, spot: Point, count: int) -> list[Json]:
    """Return `count` circles around a spot; the first is centred on the spot."""
    near = [beyond(spot, dice.uniform(0, 360), dice.uniform(0, 30_000)) for _ in range(count - 1)]
    return [circle(centre, dice.choice(RADII)) for centre in (spot, *near)]


def places_for(dice: random.Random, bodies: list[Json]) -> list[Json]:
    """Return places inside, outside and within metres of the edge of each alert, and a few random ones."""
    around = [place_near(dice, dice.choice(body["area"])) for body in bodies for _ in range(36)]
    lonely = [place(anywhere(dice)) for _ in range(PLACES - len(around) - 4)]
    corners = [place(spot) for spot in ((90, 0), (90, 180), (-90, -33), (0, -180))]
    return around + lonely + corners


def place_near(dice: random.Random, requested: Json) -> Json:
    """Return a place of any kind, often within centimetres or metres of the edge of the published circle."""
    shape = published(requested["lat"], requested["lng"], requested["radius_m"])
    gap = dice.choice((-20, -1, -0.05, 0.05, 1, 20, dice.uniform(-shape["radius_m"], shape["radius_m"])))
    bearing = dice.uniform(0, 360)
    accuracy = dice.choice((0, 5, 65.5, 2_000))

    def at(reach: float) -> Point:
        return beyond((shape["lat"], shape["lng"]), bearing, shape["radius_m"] + reach + gap)

    if dice.random() < 0.3:
        return cell_at(dice, at)
    return place(at(accuracy), accuracy_m=accuracy) if accuracy else place(at(0))


def cell_at(dice: random.Random, at: Callable[[float], Point]) -> Json:
    """Return a cell whose reach, added to its distance, matters for the outcome."""
    resolution = dice.randint(7, 15)
    reach = cell_reach(h3.latlng_to_cell(*at(0), resolution))
    return {"cell": h3.latlng_to_cell(*at(reach), resolution)}


@pytest.fixture(scope="module")
def globe(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start a node of its own, so that no other alert is on the globe."""
    with Node(tmp_path_factory.mktemp("globe"), keys) as node:
        yield node


@pytest.mark.slow
def test_each_of_two_thousand_places_gets_exactly_the_alerts_that_contain_it(globe: Node):
    """Distances are exact at poles, antimeridian and pentagons, in both formats (protocol, section 2, "Distance")."""
    dice = random.Random(SEED)
    bodies = alerts_at(dice, centres(dice))
    sessions: list[Session] = []
    with contextlib.ExitStack() as left:
        left.callback(lambda: [session.drop() for session in sessions])
        left.enter_context(kept_alive(sessions))
        token = globe.keys.token(sub="phone", scope="alerts:receive")
        for i, spot in enumerate(places_for(dice, bodies)):
            sessions.append(globe.join(spot, fmt=FORMATS[i % 2], token=token))
        for body in bodies:
            globe.publish(body)
        assert (len(bodies), len(sessions)) == (ALERTS, PLACES)
        assert_exact(globe, sessions)


def assert_exact(globe: Node, sessions: list[Session]) -> None:
    """Assert that every session got each alert that contains one of its places once, and no other alert."""
    areas = dict(globe.areas)
    due = [{name: inside(session.places, area) for name, area in areas.items()} for session in sessions]
    for session, verdicts in zip(sessions, due, strict=True):
        for name in (name for name, verdict in verdicts.items() if verdict):
            session.listen(name, 1)
    globe.settle()
    for session, verdicts in zip(sessions, due, strict=True):
        session.move(*session.places)
        told = [name for name, _ in session.everything()]
        assert len(told) == len(set(told)), "an alert was sent twice"
        assert [name for name in told if verdicts[name] is False] == [], "an alert was sent to a place outside"
    assert sum(verdict is True for verdicts in due for verdict in verdicts.values()) > 500, (
        "too few places were inside an area"
    )
