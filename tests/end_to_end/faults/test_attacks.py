"""Attacks on a real node that try to find the address of an alert, or whether somebody is there.

The attackers are subscribers and publishers with valid tokens. `test_observers.py` asks what published areas reveal by
calculation alone; here the attackers use what a node sends and answers.
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
    """Return `count` random places in the H3 cell that contains `spot`."""
    cell = h3.latlng_to_cell(*spot, 9)
    centre, draw, found = h3.cell_to_latlng(cell), random.Random(7), []
    while len(found) < count:
        point = beyond(centre, draw.uniform(0, 360), 250 * draw.random() ** 0.5)
        if h3.latlng_to_cell(*point, 9) == cell:
            found.append(point)
    return found


# -- locating an incident's address


def heard_at(node: Node, spot: Point) -> set[str]:
    """Return the ids of the alerts that a subscriber at `spot` receives."""
    with node.join(place(spot)) as probe:
        return {message["alert"]["id"] for message in probe.batch}


def edge_of_alerts(node: Node, centre: Point, bearing: float, ids: set[str]) -> tuple[float, int]:
    """Return the distance in m to the edge of the alerts, and the number of probes that got only some of them."""
    near, far, odd = 0.0, 2_000.0, 0
    for _ in range(HALVINGS):
        middle = (near + far) / 2
        heard = heard_at(node, beyond(centre, bearing, middle)) & ids
        near, far = (middle, far) if heard else (near, middle)
        odd += heard not in (set(), ids)
    return near, odd


@pytest.mark.slow
@pytest.mark.timeout(1800)  # needs 13 s of CPU, and a machine busy with other tests may give only a twentieth of it
def test_ten_thousand_probes_cannot_tell_addresses_in_one_cell_apart(node: Node):
    """Probes for the edge from all sides find the published circle, the same for each address (B1, B4, TH2, TH3)."""
    spots = addresses(ground(), 8)
    ids = {node.publish(alert(spot, area=circle(spot, RADIUS_M)))["id"] for spot in spots}
    shape = published(*spots[0], RADIUS_M)
    centre = (shape["lat"], shape["lng"])
    bearings = [360 * n / BEARINGS for n in range(BEARINGS)]
    with ThreadPoolExecutor(AT_A_TIME) as attackers:
        edges = list(attackers.map(lambda bearing: edge_of_alerts(node, centre, bearing, ids), bearings))
    assert not sum(odd for _, odd in edges)
    assert all(abs(found - shape["radius_m"]) < 1 for found, _ in edges)


# -- many circles, and many corrections of one circle


def sixteen_circles(spot: Point) -> list[Json]:
    """Return sixteen circles close around a place, which could trace something like its street."""
    return [circle(spot, RADIUS_M), *(circle(beyond(spot, 24 * n, 90 + 170 * (n % 2)), RADIUS_M) for n in range(15))]


def test_sixteen_published_circles_are_the_same_for_most_incidents_in_a_cell(node: Node):
    """The published area is the same for more than nine tenths of the places in a cell (B12)."""
    areas = []
    for spot in addresses(ground(), 200):
        answer = node.post("/v1/alerts", alert(spot, area=sixteen_circles(spot)), dry_run="true")
        assert answer.status_code == 200, answer.text
        areas.append(answer.json()["area"])
    assert max(areas.count(area) for area in areas) > 0.9 * len(areas)


def by_the_border(spot: Point) -> Point:
    """Return the middle of an edge of the H3 cell that contains `spot`."""
    one, other, *_ = h3.cell_to_boundary(h3.latlng_to_cell(*spot, 9))
    return (one[0] + other[0]) / 2, (one[1] + other[1]) / 2


def corrected(node: Node, spots: Iterable[Point]) -> list[Json]:
    """Publish an alert at the first place and correct it to each of the others; return the published areas."""
    first, *others = spots
    body = alert(first, id=new_id(), area=circle(first, RADIUS_M))
    areas = [node.publish(body)["area"]]
    for number, spot in enumerate(others, 2):
        areas.append(node.revise(revision_of(body, number, area=circle(spot, RADIUS_M)))["area"])
    return areas


def test_hundred_corrections_across_a_cell_border_reveal_only_one_crossing(node: Node):
    """The published centre stays and the circle grows only once, so later crossings do not show (B11)."""
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


# -- detecting a lone subscriber


def test_delivery_counts_are_shown_as_zero_below_twenty_recipients(node: Node, join: Join):
    """A publisher reads 0 until at least 20 subscribers are inside (H11, DP5)."""
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


def test_session_that_is_sent_nothing_is_in_no_count(node: Node, join: Join):
    """Exact counts are those of a witness, whether or not somebody is there who is not to be told (DP30, H12)."""
    spot = ground()
    witness = join(node, place(spot))
    join(node, place(spot), min_severity="extreme")
    loud, test = (alert(spot, area=circle(spot, 100), **more) for more in ({"severity": "minor"}, {"status": "test"}))
    for body in (test, loud):
        node.publish(body)
    assert witness.take()["alert"]["id"] == loud["id"]
    node.wait_for_counts(loud["id"], sent=1, acked=0)
    node.wait_for_counts(test["id"], sent=0, acked=0)
