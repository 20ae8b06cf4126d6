"""The private side when all goes well: publishing, and publishing again."""

import math
from collections import Counter
from collections.abc import Callable

import pytest
from end_to_end.kit.alerts import (
    TWELVE,
    Json,
    alert,
    approval,
    cancel_body,
    circle,
    ground,
    new_id,
    place,
    revision_of,
)
from end_to_end.kit.earth import EARTH_RADIUS_M, beyond, distance, published
from end_to_end.kit.keys import DESK_SCOPE, Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import FORMATS, Session
from end_to_end.kit.times import moment, now, stamp
from end_to_end.kit.wire import PATIENCE

Join = Callable[..., Session]

SENT = {
    *("id", "revision", "category", "title", "headline", "description", "severity", "status"),
    *("source", "occurred_at", "issued_at", "expires_at", "area"),
}


# ---- the answers -------------------------------------------------------------------------------------------------


def test_the_answer_to_a_publisher(node: Node):
    """Section 4: 201 `{id, revision, issued_at, expires_at, area}` and `Location`."""
    before = now()
    body = alert(ground())
    answer = node.post("/v1/alerts", body)
    assert answer.status_code == 201
    assert answer.headers["content-type"].split(";")[0] == "application/json"
    assert answer.headers["location"].endswith(f"/v1/alerts/{body['id']}")
    told = answer.json()
    assert set(told) == {"id", "revision", "issued_at", "expires_at", "area"}
    assert (told["id"], told["revision"]) == (body["id"], 1)
    assert before.replace(microsecond=0) <= moment(told["issued_at"]) <= now()
    assert moment(told["expires_at"]) > now()
    assert node.get(answer.headers["location"]).status_code == 200


def test_what_is_left_out_is_filled_in(node: Node):
    """Section 2: `status` is actual; `expires_at` is `occurred_at` and the category's `max_age_s`."""
    body = alert(ground())
    node.publish(body)
    shown = node.state(body["id"])["alert"]
    assert shown["status"] == "actual"
    assert (moment(shown["expires_at"]) - moment(shown["occurred_at"])).total_seconds() == 3_600
    assert "description" not in shown


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_subscriber_is_sent_what_the_contract_lists_and_no_more(node: Node, join: Join, fmt: str):
    """Section 2: never `approval` or `threat`; `area` always a list; floats are float 64."""
    spot = ground()
    text = "Two lines,\nand a world: \u4e16\u754c \U0001f30d <b>&amp;"
    body = alert(spot, description=text, headline="É" * 140, severity="severe")
    told = node.publish(body)
    session = join(node, place(spot), fmt=fmt)
    session.listen(body["id"], 1)
    shown = session.received[0]["alert"]
    assert set(session.received[0]) == {"type", "alert"}
    assert set(shown) == SENT
    assert shown == node.state(body["id"])["alert"]
    for name in ("id", "category", "headline", "description", "severity", "occurred_at"):
        assert shown[name] == body[name]
    for name in ("issued_at", "expires_at", "area", "revision"):
        assert shown[name] == told[name]
    assert shown["source"] == "desk-one"
    assert shown["title"]
    assert isinstance(shown["area"], list)
    if fmt == "msgpack":
        assert all(type(shown["area"][0][name]) is float for name in ("lat", "lng", "radius_m"))


@pytest.mark.parametrize("fmt", FORMATS)
def test_everybody_is_sent_the_same_bytes(node: Node, join: Join, fmt: str):
    """Section 2: frames are the same for everybody, early or late."""
    spot = ground()
    early = [join(node, place(spot), fmt=fmt) for _ in range(2)]
    alert_id = node.publish(alert(spot))["id"]
    for session in early:
        session.listen(alert_id, 1)
    late = join(node, place(spot), place(spot, accuracy_m=9), fmt=fmt)
    late.listen(alert_id, 1)
    assert len({session.frames[0] for session in (*early, late)}) == 1


# ends of times as sent, and as shown; tests/test_clock.py has more
@pytest.mark.parametrize(("sent", "shown"), [("Z", ".000Z"), (".123999999Z", ".123Z"), (".25-00:00", ".250Z")])
def test_times_are_cut_off_at_milliseconds_and_shown_in_utc(node: Node, sent: str, shown: str):
    """Section 2: up to 9 digits, cut off at the door, not rounded; `-00:00` is UTC."""
    second = stamp(seconds=-60)[:19]
    body = alert(ground(), occurred_at=second + sent)
    node.publish(body)
    assert node.state(body["id"])["alert"]["occurred_at"] == second + shown


def test_times_may_be_in_any_zone(node: Node):
    """Section 2: `±hh:mm`."""
    body = alert(ground(), occurred_at=f"{stamp(seconds=-60, hours=5.75)[:-1]}+05:45")
    node.publish(body)
    shown = node.state(body["id"])["alert"]["occurred_at"]
    assert abs((moment(shown) - now()).total_seconds() + 60) < PATIENCE


EDGES: dict[str, Callable[[], Json]] = {
    "a headline of 140": lambda: {"headline": "\U0001f30d" * 140},
    "a description of 1000": lambda: {"description": "\U0001f30d" * 1_000},
    "an id of 128": lambda: {"id": f"{new_id()}{'z' * 128}"[:128]},
    "a reviewer of 128": lambda: {"approval": approval(reviewer="r" * 128)},
    "approved when it happened": lambda: {
        "occurred_at": (at := stamp(seconds=-9)),
        "approval": approval(approved_at=at),
    },
    "a clock a little ahead": lambda: {
        "occurred_at": (at := stamp(seconds=50)),
        "approval": approval(approved_at=at),
    },
    "almost too old": lambda: {"occurred_at": stamp(seconds=-3_500)},
    "an end as late as can be": lambda: {
        "occurred_at": (at := now()).isoformat(timespec="milliseconds"),
        "approval": approval(approved_at=stamp(at)),
        "expires_at": stamp(at, seconds=3_600),
    },
}


@pytest.mark.parametrize("fields", EDGES.values(), ids=EDGES.keys())
def test_the_bounds_are_inclusive(node: Node, fields: Callable[[], Json]):
    """Sections 2 and 3: lengths count code points, and nothing is trimmed."""
    body = alert(ground(), **fields())
    node.publish(body)
    shown = node.state(body["id"])["alert"]
    for field in body.keys() & {"headline", "description", "id", "severity"}:
        assert shown[field] == body[field]


@pytest.mark.parametrize("radius", [100, 100.0, 20_000, 2e4])
def test_the_least_and_the_greatest_radius_are_allowed(node: Node, radius: float):
    """Section 3: bounds are inclusive."""
    spot = ground()
    node.publish(alert(spot, area=circle(spot, radius)))


@pytest.mark.parametrize("category", TWELVE)
def test_each_category_of_the_default_policy_can_be_alerted(node: Node, category: str):
    """Section 3: the default has twelve."""
    node.publish(alert(ground(), category=category))


@pytest.mark.parametrize("spot", [(90, 0), (-90, 17), (0, 180), (0, -180), (90, 180), (-0.0, -0.0)])
def test_the_ends_of_the_globe_are_on_it(node: Node, spot: tuple[float, float]):
    """Section 2: `lat` and `lng` up to their bounds."""
    body = alert(spot, area=circle(spot, 100), status="test")
    node.publish(body)


# ---- the published circle ----------------------------------------------------------------------------------------


CIRCLES = [
    ((32.7767, -96.797), 800),
    ((32.77671, -96.79699), 800),
    ((51.5, 0.0), 100),
    ((-33.8688, 151.2093), 20_000),
    ((64.7, 179.99999), 333.3),
    ((-89.99, 45.0), 1_234.5),
    ((10.447, 58.157), 500),
]


@pytest.mark.parametrize(("spot", "radius"), CIRCLES)
def test_the_published_circle_is_the_one_that_the_contract_describes(
    node: Node, spot: tuple[float, float], radius: float
):
    """Section 2, "The published circle", computed here with H3 and an own haversine."""
    area = node.publish(alert(spot, status="test", area=circle(spot, radius)))["area"]
    expected = published(*spot, radius)
    assert [set(shape) for shape in area] == [{"type", "lat", "lng", "radius_m"}]
    assert area[0]["type"] == "circle"
    assert (area[0]["lat"], area[0]["lng"]) == pytest.approx((expected["lat"], expected["lng"]), abs=1e-9)
    assert area[0]["radius_m"] == expected["radius_m"]


@pytest.mark.parametrize("bearing", range(0, 360, 45))
def test_the_published_circle_contains_the_requested_one(node: Node, bearing: int):
    """Section 2: always."""
    spot = beyond(ground(), bearing, 137)
    shape = node.publish(alert(spot, area=circle(spot, 250)))["area"][0]
    assert distance(spot, (shape["lat"], shape["lng"])) + 250 <= shape["radius_m"]
    assert shape["radius_m"] % 10 == 0
    assert shape["radius_m"] < EARTH_RADIUS_M


def test_every_point_of_a_cell_is_published_alike(node: Node):
    """Section 2: nothing tells where in the cell the incident was."""
    home = published(*ground(), 300)
    areas = [
        node.publish(alert(spot, area=circle(spot, 300)))["area"]
        for spot in (beyond((home["lat"], home["lng"]), bearing, 60) for bearing in range(0, 360, 60))
    ]
    assert all(area == areas[0] for area in areas)
    assert areas[0][0]["lat"] == pytest.approx(home["lat"], abs=1e-9)


def test_the_published_circle_keeps_the_resolution_of_revision_1(node: Node):
    """Section 2: the same circle asked for again is published the same in each revision."""
    body = alert(ground())
    first = node.publish(body)
    again = node.revise(revision_of(body, 2, category="shots_fired"))
    assert again["area"] == first["area"]


# ---- idempotency -------------------------------------------------------------------------------------------------


SAME: dict[str, Callable[[Json], Json]] = {
    "itself": lambda body: body,
    "the fields in another order": lambda body: dict(reversed(body.items())),
    "the default status": lambda body: body | {"status": "actual"},
    "a list of one shape": lambda body: body | {"area": [body["area"]]},
    "a radius as a float": lambda body: body | {"area": body["area"] | {"radius_m": 800.0}},
    "a time in another zone": lambda body: body | {"occurred_at": body["occurred_at"][:-1] + "-00:00"},
    "more digits of a time": lambda body: body | {"occurred_at": body["occurred_at"][:-1] + "999Z"},
    "a centre in the same cell": lambda body: (
        body | {"area": circle(beyond((body["area"]["lat"], body["area"]["lng"]), 77, 1))}
    ),
}
OTHER: dict[str, Json] = {
    "headline": {"headline": "Burglary nearby "},
    "description": {"description": "More"},
    "an empty description": {"description": ""},
    "severity": {"severity": "severe"},
    "status": {"status": "exercise"},
    "category": {"category": "robbery"},
    "the threat": {"threat": "individual"},
}


def centred_alert() -> Json:
    """An alert in the middle of a cell, so that a metre more is still the same cell."""
    home = published(*ground(), 800)
    return alert((home["lat"], home["lng"]))


@pytest.mark.parametrize("change", SAME.values(), ids=SAME.keys())
def test_the_same_content_gets_the_first_answer(node: Node, join: Join, change: Callable[[Json], Json]):
    """Section 4, "Same content": equal in accepted form; and nothing is sent again."""
    body = centred_alert()
    first = node.post("/v1/alerts", body)
    session = join(node, place((body["area"]["lat"], body["area"]["lng"])))
    session.listen(body["id"], 1)
    again = node.post("/v1/alerts", change(body))
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    session.catch_up()
    assert session.heard(body["id"]) == [1]


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER.keys())
def test_other_content_under_a_known_id_conflicts(node: Node, change: Json):
    """Section 4: 409 `id-conflict`; the alert stays as it was."""
    body = alert(ground())
    node.publish(body)
    before = node.state(body["id"])["alert"]
    answer = node.post("/v1/alerts", body | change)
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/id-conflict")
    assert node.state(body["id"])["alert"] == before


def test_another_area_or_approval_conflicts(node: Node):
    """Section 4: `area` is compared as published; `approval` is included."""
    body = centred_alert()
    node.publish(body)
    changes = [
        {"area": [body["area"]] * 2},
        {"area": body["area"] | {"radius_m": 1_800}},
        {"approval": body["approval"] | {"reviewer": "somebody"}},
        {"approval": body["approval"] | {"approved_at": stamp()}},
    ]
    for change in changes:
        assert node.post("/v1/alerts", body | change).status_code == 409


def test_the_sub_of_a_publisher_is_no_content(node: Node, keys: Keys):
    """Section 4: the same alert from another desk is the same alert."""
    body = alert(ground())
    first = node.publish(body)
    again = node.post("/v1/alerts", body, keys.token(sub="desk-two", scope=DESK_SCOPE))
    assert (again.status_code, again.json()) == (200, first)
    assert node.state(body["id"])["alert"]["source"] == "desk-one"


def test_a_repeated_revision_or_cancel_from_another_desk_is_a_repeat(node: Node, keys: Keys):
    """Section 4, "Order of decisions": the same content comes before 403 `not-yours` and 410."""
    body, other = alert(ground()), keys.token(sub="desk-two", scope=DESK_SCOPE)
    node.publish(body)
    path = f"/v1/alerts/{body['id']}"
    for step in ((f"{path}/revisions", revision_of(body, 2)), (f"{path}/cancel", cancel_body(3))):
        first = node.post(*step)
        again = node.post(*step, other)
        assert (first.status_code, again.status_code) == (201, 200)
        assert again.json() == first.json()


def test_the_source_is_the_publisher_of_this_revision(node: Node, keys: Keys):
    """Section 2, `source`: a manager's revision is told as the manager's."""
    body = alert(ground())
    node.publish(body)
    node.revise(revision_of(body, 2), keys.token(sub="desk-two"))
    assert node.state(body["id"])["alert"]["source"] == "desk-two"


def test_ids_differ_by_case_and_may_be_escaped_in_a_path(node: Node):
    """Section 2, `id`: case-sensitive; a colon in a path may be written %3A."""
    lower = alert(ground(), id=new_id("case:"))
    upper = alert(ground(), id=lower["id"].upper())
    node.publish(lower)
    node.publish(upper)
    escaped = node.get(f"/v1/alerts/{lower['id'].replace(':', '%3A')}")
    assert escaped.json()["alert"]["id"] == lower["id"]


def test_a_hundred_posts_of_one_alert_at_once_are_one_alert(node: Node, join: Join):
    """Section 4: one 201, the rest 200, all with the same answer; and one frame."""
    spot = ground()
    body = alert(spot)
    session = join(node, place(spot))
    answers = node.at_once("/v1/alerts", [body] * 100)
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 99}
    assert len({answer.text for answer in answers}) == 1
    session.listen(body["id"], 1)
    session.catch_up()
    assert session.heard(body["id"]) == [1]


def test_of_a_hundred_contents_for_one_id_one_wins(node: Node):
    """Section 4: the rest conflict, and the winner is what stays."""
    body = alert(ground())
    bodies = [body | {"headline": f"Version {i}"} for i in range(100)]
    answers = node.at_once("/v1/alerts", bodies)
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 99}
    (winner,) = [i for i, answer in enumerate(answers) if answer.status_code == 201]
    assert node.state(body["id"])["alert"]["headline"] == f"Version {winner}"


def test_the_first_answer_stands_whatever_has_happened_since(node: Node):
    """Section 4: 200 with the first answer after a revision and after a cancel, for each number."""
    body = alert(ground())
    path = f"/v1/alerts/{body['id']}"
    steps = [
        ("/v1/alerts", body),
        (f"{path}/revisions", revision_of(body, 2)),
        (f"{path}/cancel", cancel_body(3)),
    ]
    first = [node.post(*step) for step in steps]
    again = [node.post(*step) for step in steps]
    assert [answer.status_code for answer in first] == [201, 201, 201]
    assert [answer.status_code for answer in again] == [200, 200, 200]
    assert [answer.json() for answer in again] == [answer.json() for answer in first]
    assert set(first[2].json()) == {"id", "revision", "cancelled_at"}


def test_an_id_after_its_end_stays_known(node: Node):
    """Section 4: an ended alert stays known; its repeat is 200, another content 409."""
    body, first = node.publish_brief(alert(ground()))
    node.wait_for_end(body["id"])
    again = node.post("/v1/alerts", body)
    assert (again.status_code, again.json()) == (200, first)
    assert node.post("/v1/alerts", body | {"headline": "Other"}).status_code == 409


def test_of_concurrent_revisions_exactly_one_wins(node: Node, join: Join):
    """Section 4: the others get 409 `revision-conflict`, with `current`."""
    spot = ground()
    body = alert(spot)
    node.publish(body)
    session = join(node, place(spot))
    session.listen(body["id"], 1)
    path = f"/v1/alerts/{body['id']}/revisions"
    for number in (2, 3, 4):
        bodies = [revision_of(body, number, headline=f"By writer {i}") for i in range(20)]
        answers = node.at_once(path, bodies)
        assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 19}
        losers = [answer.json() for answer in answers if answer.status_code == 409]
        assert {(loser["type"], loser["current"]) for loser in losers} == {("/problems/revision-conflict", number)}
    session.listen(body["id"], 4)
    assert session.heard(body["id"]) == sorted(set(session.heard(body["id"])))


def test_of_a_revision_and_a_cancel_at_once_one_wins(node: Node):
    """Section 4: a cancel takes a number like a revision."""
    for _ in range(10):
        body = alert(ground())
        node.publish(body)
        path = f"/v1/alerts/{body['id']}"
        cancels = node.at_once(f"{path}/cancel", [cancel_body(2, reason=f"By {i}") for i in range(3)])
        assert Counter(answer.status_code for answer in cancels) == {201: 1, 410: 2}
        assert node.post(f"{path}/revisions", revision_of(body, 2)).status_code == 410


# ---- what a person has to confirm --------------------------------------------------------------------------------


def test_what_is_held_goes_out_when_a_person_has_confirmed_it(node: Node, join: Join):
    """P24, A21: refused with what was found and where, in no words of the text's; then sent as written."""
    spot = ground()
    session = join(node, place(spot))
    body = alert(spot, headline="Fire at 1204 Main Street")
    answer = node.post("/v1/alerts", body)
    assert answer.status_code == 422
    assert "Main" not in answer.text
    [error] = answer.json()["errors"]
    assert (error["pointer"], error["kind"], error["start"], error["end"]) == ("/headline", "address", 8, 24)
    told = node.publish(body | {"confirm": {"text": ["address"]}})
    assert node.post("/v1/alerts", body | {"confirm": {"text": ["address"]}}).status_code == 200
    session.catch_up()
    [message] = session.received
    assert (message["alert"]["id"], message["alert"]["headline"]) == (told["id"], body["headline"])
    assert "confirm" not in message["alert"]
    assert 'geocast_held_total{kind="address"}' in node.get("/metrics").text


# ---- dry run -----------------------------------------------------------------------------------------------------


def test_a_dry_run_answers_and_stores_nothing(node: Node, join: Join):
    """Section 4: 200 with `reach`, without `revision` and `issued_at`; nothing is stored, nothing sent."""
    spot = ground()
    body = alert(spot)
    session = join(node, place(spot))
    answer = node.post("/v1/alerts", body, dry_run="true")
    assert answer.status_code == 200
    assert set(answer.json()) == {"id", "expires_at", "area", "reach", "approvals"}
    found = answer.json()
    assert found.pop("approvals") == 0
    [circle], reach = found["area"], found.pop("reach")
    assert reach == {"area_km2": pytest.approx(math.pi * circle["radius_m"] ** 2 / 1e6, abs=0.1)}
    assert node.get(f"/v1/alerts/{body['id']}").status_code == 404
    session.catch_up()
    assert session.everything() == []
    told = node.publish(body)
    assert told.items() >= found.items()
    session.listen(body["id"], 1)


def test_a_dry_run_of_a_known_id_answers_like_the_real_thing(node: Node):
    """Section 4: the same content is fine, another conflicts."""
    body = alert(ground())
    node.publish(body)
    assert node.post("/v1/alerts", body, dry_run="true").status_code == 200
    assert node.post("/v1/alerts", body | {"headline": "Other"}, dry_run="true").status_code == 409


def test_a_dry_run_of_a_revision_answers_and_stores_nothing(node: Node):
    """Section 4: where it would be published, behind the current revision (B11)."""
    body = alert(ground())
    first = node.publish(body)
    path = f"/v1/alerts/{body['id']}/revisions"
    area = body["area"] | {"lat": body["area"]["lat"] + 0.002}
    revision = body | {"revision": 2, "area": area}
    answer = node.post(path, revision, dry_run="true")
    assert answer.status_code == 200
    found = answer.json()
    assert found.pop("reach")["area_km2"] > 0
    assert found.pop("approvals") == 0
    assert set(found) == {"id", "expires_at", "area"}
    assert node.get(f"/v1/alerts/{body['id']}").json()["alert"]["revision"] == 1
    assert found["area"][0]["lng"] == first["area"][0]["lng"]
    assert node.post(path, revision).json().items() >= found.items()


DRY_REFUSALS = [
    ({"threat": "individual"}, 422, "not-community"),
    ({"headline": ""}, 422, "invalid-value"),
    ({"category": "assault"}, 422, "category-not-alertable"),
]


@pytest.mark.parametrize(("change", "status", "slug"), DRY_REFUSALS)
def test_a_dry_run_is_refused_like_the_real_thing(node: Node, change: Json, status: int, slug: str):
    """Section 4: or the refusal."""
    answer = node.post("/v1/alerts", alert(ground()) | change, dry_run="true")
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
