"""A publisher who tries to find out where a person is, by bisection with alerts on a real node (DP30, H11).

Nineteen sessions of the attacker's own are told every alert, so one more session that counted would turn 0 into 20.
"""

import random
from collections.abc import Callable, Iterator

import httpx
import pytest
from end_to_end.kit.alerts import Json, alert, cancel_body, circle, ground, place, revision_of
from end_to_end.kit.earth import Point, beyond
from end_to_end.kit.keys import DESK_SCOPE, PHONE_SCOPE, Keys, bearer
from end_to_end.kit.node import Node
from end_to_end.kit.push import Push, cell
from end_to_end.kit.subscriber import Session
from support.push_service import PushService

Join = Callable[..., Session]

WITNESSES = 19
PROBES = 8
NOTHING = {"sent": 0, "acked": 0, "pushed": 0, "rounded": True}
ONLY_ROBBERIES = {"categories": ["robbery"]}
POLICY = """
name = "probes"

[categories]
burglary = { title = "Burglary", polygons = true }
robbery = { title = "Robbery" }
"""


@pytest.fixture(scope="module")
def node(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start a node whose policy accepts polygons."""
    home = tmp_path_factory.mktemp("probes")
    (home / "policy.toml").write_text(POLICY)
    with Node(home, keys, "--policy", "policy.toml") as node:
        yield node
        node.assert_no_surprise()


def square(centre: Point, half_m: float) -> Json:
    """Return a polygon around a place, whose sides are about twice `half_m` long."""
    corners = [beyond(centre, bearing, half_m * 2**0.5) for bearing in (45, 315, 225, 135, 45)]
    return {"type": "Polygon", "coordinates": [[[lng, lat] for lat, lng in corners]]}


class Attacker:
    """A publisher who sends requests and reads everything that the node answers, apart from ids and times."""

    def __init__(self, node: Node, **fields: object) -> None:
        """Create a publisher whose alerts have these fields."""
        self._node = node
        self._fields = fields
        self._token = node.keys.token(sub="curious", scope=DESK_SCOPE)

    def series(self, spot: Point, witnesses: int) -> list[Json]:
        """Publish alerts in areas of all sizes around a place, and return what the answers say.

        Each alert is tried without effect, published, narrowed, widened and cancelled. `witnesses` is how often each
        revision is sent to sessions that count.
        """
        dice = random.Random(11)
        bodies, said = list[list[Json]](), list[Json]()
        for number in range(PROBES):
            centre, size = beyond(spot, dice.uniform(0, 360), dice.uniform(0, 150)), dice.uniform(200, 900)
            areas = [square(centre, size), circle(centre, size)]
            body = alert(spot, **self._fields, area=[circle(spot, 300), areas[number % 2]])
            narrow = revision_of(body, 2, area=[circle(spot, 300)])
            bodies.append([body, narrow, revision_of(body, 3, area=[circle(spot, 300), *areas])])
        for number in (1, 2, 3, 4):
            for first, *revisions in bodies:
                path, body = "/v1/alerts", first
                if number > 1:
                    path = f"{path}/{first['id']}/" + ("revisions" if number < 4 else "cancel")
                    body = [*revisions, cancel_body(4)][number - 2]
                said += [self._says(path, body, dry_run="true"), self._says(path, body)]
            if number == 3:
                for first, *_ in bodies:
                    self._node.wait_for_counts(first["id"], sent=3 * witnesses, acked=0)
            said += [shown(self._node.get(f"/v1/alerts/{first['id']}", self._token)) for first, *_ in bodies]
        return said

    def _says(self, path: str, body: Json, **params: str) -> Json:
        return shown(self._node.post(path, body, self._token, **params))


def shown(answer: httpx.Response) -> Json:
    """Return the status and the content of an answer, without ids and times, which differ for each alert."""
    assert answer.status_code in (200, 201), answer.text
    content = {name: value for name, value in answer.json().items() if name != "id" and not name.endswith("_at")}
    return content | {"answer": answer.status_code, "alert": content.get("alert", {}).get("revision")}


def test_places_of_excluded_sessions_change_no_answer_to_a_publisher(node: Node, join: Join, keys: Keys):
    """A series of alerts is answered the same with and without people there whom a filter or the status leaves out."""
    spot, elsewhere = ground(), ground()
    tester, phone = keys.token(scope=f"{PHONE_SCOPE} alerts:test"), keys.token(scope=PHONE_SCOPE)
    for _ in range(WITNESSES):
        join(node, place(spot), token=tester)
    people = [
        join(node, place(spot), token=tester, **ONLY_ROBBERIES),
        join(node, place(spot), token=tester, min_severity="severe"),
        join(node, place(spot), token=phone),
    ]
    attacker = Attacker(node, status="test")
    there = attacker.series(spot, WITNESSES)
    for person in people:
        person.move(place(elsewhere))
        assert person.everything() == []
    assert attacker.series(spot, WITNESSES) == there


def test_place_of_a_lone_included_session_changes_no_answer_to_a_publisher(node: Node, join: Join, keys: Keys):
    """Whatever is published around one person, and however often: all counts are 0 (H11), and the person is told."""
    spot, elsewhere = ground(), ground()
    person = join(node, place(spot), token=keys.token(scope=PHONE_SCOPE), languages=["fr-CA"])
    attacker = Attacker(node)
    there = attacker.series(spot, 1)
    person.catch_up()
    assert len(person.everything()) == PROBES * 4, "three revisions and a cancel of each alert"
    assert [each["delivery"] for each in there if "delivery" in each] == [NOTHING] * PROBES * 4
    person.move(place(elsewhere))
    assert attacker.series(spot, 0) == there


def test_twentieth_session_that_an_alert_is_sent_to_is_counted(node: Node, join: Join, keys: Keys):
    """The nineteen sessions of these tests are as many as possible: with one more, the publisher reads 20."""
    spot = ground()
    for _ in range(WITNESSES + 1):
        join(node, place(spot))
    body = alert(spot)
    node.publish(body)
    node.wait_for_counts(body["id"], sent=20, acked=0)
    assert node.state(body["id"], node.desk)["delivery"] == NOTHING | {"sent": 20}


def test_only_the_publisher_of_an_alert_reads_its_counts(node: Node, join: Join, keys: Keys):
    """Another publisher reads the same for an alert with and without recipients; a subscriber reads nothing."""
    spot, empty = ground(), ground()
    for _ in range(WITNESSES + 1):
        join(node, place(spot))
    crowded, lonely = alert(spot), alert(empty)
    for body in (crowded, lonely):
        node.publish(body)
    node.wait_for_counts(crowded["id"], sent=20, acked=0)
    other = keys.token(sub="other-desk", scope=DESK_SCOPE)
    said = [shown(node.get(f"/v1/alerts/{body['id']}", other)) for body in (crowded, lonely)]
    assert said == [{"state": "live", "answer": 200, "alert": 1}] * 2
    phone = keys.token(sub="phone", scope=PHONE_SCOPE)
    refused = [node.get(f"/v1/alerts/{name}", phone) for name in (crowded["id"], lonely["id"], "no-such-alert")]
    assert {(each.status_code, each.text) for each in refused} == {(403, refused[0].text)}


# ---- devices of `geocast push` --------------------------------------------------------------------------------------


def test_publisher_learns_no_more_than_the_cell_from_pushes(node: Node, service: PushService):
    """Small circles all over a cell are pushed to its twenty devices alike; a device with a filter is not counted."""
    dice, spot = random.Random(5), ground()
    with Push(node, service) as push:
        for _ in range(WITNESSES):
            push.register(service.phone(), cell(spot))
        excluded = service.phone()
        push.register(excluded, cell(spot), **ONLY_ROBBERIES)

        def reads(pushed: int) -> list[Json]:
            bodies = [alert(each, area=circle(each, 100)) for each in within]
            for body in bodies:
                node.publish(body)
            for body in bodies:
                node.wait_for_counts(body["id"], sent=0, acked=0, pushed=pushed)
            return [node.state(body["id"], node.desk)["delivery"] for body in bodies]

        spots = [beyond(spot, dice.uniform(0, 360), dice.uniform(0, 250)) for _ in range(60)]
        within = [each for each in spots if cell(each) == cell(spot)][:PROBES]
        assert len(within) == PROBES
        assert reads(WITNESSES) == [NOTHING] * PROBES
        assert excluded.requests == []
        push.register(service.phone(), cell(spot), holding=dict.fromkeys(node.live(), 1))
        assert reads(20) == [NOTHING | {"pushed": 20}] * PROBES
        push.assert_no_surprise()


def test_stranger_learns_nothing_about_a_device(node: Node, service: PushService):
    """Somebody with a token who knows a device's id gets the answers that an unknown id gets (DP23)."""
    with Push(node, service) as push:
        phone = service.phone()
        known = push.register(phone, cell(ground()))["id"]
        mine = bearer(push.token(sub="stranger"))
        asked = [("GET", ""), ("PUT", "/subscription")]
        said = [
            {
                (answer.status_code, answer.text)
                for each in (known, "unknown-device-id")
                for answer in [push.api.request(method, f"/v1/devices/{each}{rest}", headers=mine, json={})]
            }
            for method, rest in asked
        ]
        assert [len(each) for each in said] == [1, 1]
        assert [status for each in said for status, _ in each] == [404, 401]
