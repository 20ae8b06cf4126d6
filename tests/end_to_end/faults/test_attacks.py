"""Attacks on an address and on who is there, on a real node, by those who may ask: subscribers and publishers.

`test_observers.py` asks what the published areas give away to somebody who reckons. Here the areas are what a node
sends and says, and the attacker has connections and tokens.
"""

import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import h3
import pytest
from end_to_end.kit.alerts import Json, alert, circle, ground, new_id, place, revision_of
from end_to_end.kit.earth import Point, beyond, distance, published
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import Session

Join = Callable[..., Session]
RADIUS_M = 800.0
BEARINGS, HALVINGS = 625, 16  # 10,000 probes
AT_A_TIME = 8


def addresses(spot: Point, count: int) -> list[Point]:
    """Places all over the cell that a spot is in."""
    cell = h3.latlng_to_cell(*spot, 9)
    centre, draw, found = h3.cell_to_latlng(cell), random.Random(7), []
    while len(found) < count:
        point = beyond(centre, draw.uniform(0, 360), 250 * draw.random() ** 0.5)
        if h3.latlng_to_cell(*point, 9) == cell:
            found.append(point)
    return found


# -- where it was


def heard_at(node: Node, spot: Point) -> set[str]:
    """The ids that a subscriber is told who says that it is there."""
    with node.join(place(spot)) as probe:
        return {message["alert"]["id"] for message in probe.batch}


def the_edge(node: Node, centre: Point, bearing: float, ids: set[str]) -> tuple[float, int]:
    """How far from a point the alerts end in a direction, and how many probes told of some of them and not of all."""
    near, far, odd = 0.0, 2_000.0, 0
    for _ in range(HALVINGS):
        middle = (near + far) / 2
        heard = heard_at(node, beyond(centre, bearing, middle)) & ids
        near, far = (middle, far) if heard else (near, middle)
        odd += heard not in (set(), ids)
    return near, odd


@pytest.mark.slow
@pytest.mark.timeout(1800)  # 13 s of CPU, of which a machine that is busy with other tests may give a twentieth
def test_ten_thousand_probes_tell_eight_addresses_of_a_cell_not_apart(node: Node):
    """B1, B4, TH2, TH3: whoever looks for the edge from all sides finds the published circle, the same each time."""
    spots = addresses(ground(), 8)
    ids = {node.publish(alert(spot, area=circle(spot, RADIUS_M)))["id"] for spot in spots}
    shape = published(*spots[0], RADIUS_M)
    centre = (shape["lat"], shape["lng"])
    bearings = [360 * n / BEARINGS for n in range(BEARINGS)]
    with ThreadPoolExecutor(AT_A_TIME) as attackers:
        edges = list(attackers.map(lambda bearing: the_edge(node, centre, bearing, ids), bearings))
    assert not sum(odd for _, odd in edges)
    assert all(abs(found - shape["radius_m"]) < 1 for found, _ in edges)


# -- sixteen circles, a hundred revisions


def sixteen_round(spot: Point) -> list[Json]:
    """Circles round a place, as one would ask for to draw something like its street."""
    return [circle(spot, RADIUS_M), *(circle(beyond(spot, 24 * n, 90 + 170 * (n % 2)), RADIUS_M) for n in range(15))]


def test_sixteen_circles_fit_nine_tenths_of_the_cell(node: Node):
    """B12: what a node would publish for them is nearly everywhere in the cell the same."""
    areas = []
    for spot in addresses(ground(), 200):
        answer = node.post("/v1/alerts", alert(spot, area=sixteen_round(spot)), dry_run="true")
        assert answer.status_code == 200, answer.text
        areas.append(answer.json()["area"])
    assert max(areas.count(area) for area in areas) > 0.9 * len(areas)


def by_the_border(spot: Point) -> Point:
    """A place in the middle of an edge of the cell that a spot is in."""
    one, other, *_ = h3.cell_to_boundary(h3.latlng_to_cell(*spot, 9))
    return (one[0] + other[0]) / 2, (one[1] + other[1]) / 2


def corrected(node: Node, spots: Iterable[Point]) -> list[Json]:
    """The areas that subscribers see of an alert that is corrected to each of these places."""
    first, *others = spots
    body = alert(first, id=new_id(), area=circle(first, RADIUS_M))
    areas = [node.publish(body)["area"]]
    for number, spot in enumerate(others, 2):
        areas.append(node.revise(revision_of(body, number, area=circle(spot, RADIUS_M)))["area"])
    return areas


def test_a_hundred_corrections_across_a_border_show_one_crossing(node: Node):
    """B11: the published centre stays, and the circle grows once; on which side of the border is not seen again."""
    middle, draw = by_the_border(ground()), random.Random(11)
    spots = [beyond(middle, draw.uniform(0, 360), draw.uniform(0, 100)) for _ in range(100)]
    assert len({h3.latlng_to_cell(*spot, 9) for spot in spots}) > 1
    areas = corrected(node, spots)
    assert len({(area[0]["lat"], area[0]["lng"]) for area in areas}) == 1
    radii = [area[0]["radius_m"] for area in areas]
    assert radii == sorted(radii)
    assert len(set(radii)) == 2
    for spot, [shape] in zip(spots, areas, strict=True):
        assert distance(spot, (shape["lat"], shape["lng"])) + RADIUS_M <= shape["radius_m"]


# -- who is there


def test_counts_tell_nothing_under_twenty(node: Node, join: Join):
    """H11, DP5: however many are inside, a publisher reads 0, until they are a crowd of 20."""
    bodies = {}
    for count in (1, 2, 10, 19, 20, 21):
        spot = ground()
        for _ in range(count):
            join(node, place(spot))
        bodies[count] = alert(spot, area=circle(spot, 100))
        node.publish(bodies[count])
    for count, body in bodies.items():
        node.wait_for_counts(body["id"], sent=count, acked=0)
    read = {count: node.state(body["id"], node.desk)["delivery"]["sent"] for count, body in bodies.items()}
    assert read == {1: 0, 2: 0, 10: 0, 19: 0, 20: 20, 21: 20}
