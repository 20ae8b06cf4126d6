"""Successful publication at the API: alerts, revisions, repeats and dry runs."""

import math
from collections import Counter
from collections.abc import Callable

import pytest
from end_to_end.kit.alerts import (
    CATEGORIES,
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


def test_publication_is_answered_with_201_and_location(node: Node):
    """The answer has the fields `{id, revision, issued_at, expires_at, area}` (section 4)."""
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


def test_omitted_fields_get_their_defaults(node: Node):
    """`status` is actual, and `expires_at` is `occurred_at` plus the category's `max_age_s` (section 2)."""
    body = alert(ground())
    node.publish(body)
    shown = node.state(body["id"])["alert"]
    assert shown["status"] == "actual"
    assert (moment(shown["expires_at"]) - moment(shown["occurred_at"])).total_seconds() == 3_600
    assert "description" not in shown


@pytest.mark.parametrize("fmt", FORMATS)
def test_subscriber_gets_exactly_the_fields_of_the_contract(node: Node, join: Join, fmt: str):
    """The fields never include `approval` or `threat`; `area` is always a list, and floats have 64 bits (section 2)."""
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
def test_all_subscribers_get_the_same_bytes(node: Node, join: Join, fmt: str):
    """Frames are the same for early and late subscribers (section 2)."""
    spot = ground()
    early = [join(node, place(spot), fmt=fmt) for _ in range(2)]
    alert_id = node.publish(alert(spot))["id"]
    for session in early:
        session.listen(alert_id, 1)
    late = join(node, place(spot), place(spot, accuracy_m=9), fmt=fmt)
    late.listen(alert_id, 1)
    assert len({session.frames[0] for session in (*early, late)}) == 1


# the end of the time as sent, and as shown in the answer; tests/model/test_times.py has more cases
@pytest.mark.parametrize(("sent", "shown"), [("Z", ".000Z"), (".123999999Z", ".123Z"), (".25-00:00", ".250Z")])
def test_times_are_truncated_to_milliseconds_and_shown_in_utc(node: Node, sent: str, shown: str):
    """Up to 9 digits are accepted and truncated, not rounded; `-00:00` is UTC (section 2)."""
    second = stamp(seconds=-60)[:19]
    body = alert(ground(), occurred_at=second + sent)
    node.publish(body)
    assert node.state(body["id"])["alert"]["occurred_at"] == second + shown


def test_times_may_have_any_utc_offset(node: Node):
    """The offset is written as `±hh:mm` (section 2)."""
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
def test_field_values_at_their_limits_are_accepted(node: Node, fields: Callable[[], Json]):
    """Lengths count code points, and nothing is trimmed (sections 2 and 3)."""
    body = alert(ground(), **fields())
    node.publish(body)
    shown = node.state(body["id"])["alert"]
    for field in body.keys() & {"headline", "description", "id", "severity"}:
        assert shown[field] == body[field]


@pytest.mark.parametrize("radius", [100, 100.0, 20_000, 2e4])
def test_smallest_and_largest_radius_are_accepted(node: Node, radius: float):
    """Bounds are inclusive (section 3)."""
    spot = ground()
    node.publish(alert(spot, area=circle(spot, radius)))


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_category_of_the_default_policy_is_accepted(node: Node, category: str):
    """The protocol lists the categories (section 3)."""
    node.publish(alert(ground(), category=category))


@pytest.mark.parametrize("spot", [(90, 0), (-90, 17), (0, 180), (0, -180), (90, 180), (-0.0, -0.0)])
def test_extreme_coordinates_are_accepted(node: Node, spot: tuple[float, float]):
    """`lat` and `lng` may have their bounds as values (section 2)."""
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
def test_published_circle_equals_the_one_computed_by_the_documented_formula(
    node: Node, spot: tuple[float, float], radius: float
):
    """The expected circle is computed here with H3 and a haversine (section 2, "The published circle")."""
    area = node.publish(alert(spot, status="test", area=circle(spot, radius)))["area"]
    expected = published(*spot, radius)
    assert [set(shape) for shape in area] == [{"type", "lat", "lng", "radius_m"}]
    assert area[0]["type"] == "circle"
    assert (area[0]["lat"], area[0]["lng"]) == pytest.approx((expected["lat"], expected["lng"]), abs=1e-9)
    assert area[0]["radius_m"] == expected["radius_m"]


@pytest.mark.parametrize("bearing", range(0, 360, 45))
def test_published_circle_contains_the_requested_circle(node: Node, bearing: int):
    """A published circle is never smaller than the request (section 2)."""
    spot = beyond(ground(), bearing, 137)
    shape = node.publish(alert(spot, area=circle(spot, 250)))["area"][0]
    assert distance(spot, (shape["lat"], shape["lng"])) + 250 <= shape["radius_m"]
    assert shape["radius_m"] % 10 == 0
    assert shape["radius_m"] < EARTH_RADIUS_M


def test_all_points_of_a_cell_get_the_same_published_circle(node: Node):
    """The circle does not show where in the cell the incident was (section 2)."""
    home = published(*ground(), 300)
    areas = [
        node.publish(alert(spot, area=circle(spot, 300)))["area"]
        for spot in (beyond((home["lat"], home["lng"]), bearing, 60) for bearing in range(0, 360, 60))
    ]
    assert all(area == areas[0] for area in areas)
    assert areas[0][0]["lat"] == pytest.approx(home["lat"], abs=1e-9)


def test_revisions_keep_the_published_circle_of_an_unchanged_request(node: Node):
    """The resolution is that of revision 1 (section 2)."""
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
    """Return an alert in the middle of a cell, so that a point one metre away is in the same cell."""
    home = published(*ground(), 800)
    return alert((home["lat"], home["lng"]))


@pytest.mark.parametrize("change", SAME.values(), ids=SAME.keys())
def test_repeated_alert_gets_the_first_answer_and_sends_nothing(node: Node, join: Join, change: Callable[[Json], Json]):
    """Contents are compared in their accepted form (section 4, "Same content")."""
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
def test_different_content_under_a_known_id_conflicts(node: Node, change: Json):
    """The answer is 409 `id-conflict`, and the alert is unchanged (section 4)."""
    body = alert(ground())
    node.publish(body)
    before = node.state(body["id"])["alert"]
    answer = node.post("/v1/alerts", body | change)
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/id-conflict")
    assert node.state(body["id"])["alert"] == before


def test_different_area_or_approval_under_a_known_id_conflicts(node: Node):
    """`area` is compared as published, and `approval` is part of the content (section 4)."""
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


def test_same_alert_from_another_publisher_counts_as_a_repeat(node: Node, keys: Keys):
    """A publisher's `sub` is not part of the content (section 4)."""
    body = alert(ground())
    first = node.publish(body)
    again = node.post("/v1/alerts", body, keys.token(sub="desk-two", scope=DESK_SCOPE))
    assert (again.status_code, again.json()) == (200, first)
    assert node.state(body["id"])["alert"]["source"] == "desk-one"


def test_same_revision_or_cancel_from_another_publisher_counts_as_a_repeat(node: Node, keys: Keys):
    """Equal content is recognized before 403 `not-yours` and 410 (section 4, "Order of decisions")."""
    body, other = alert(ground()), keys.token(sub="desk-two", scope=DESK_SCOPE)
    node.publish(body)
    path = f"/v1/alerts/{body['id']}"
    for step in ((f"{path}/revisions", revision_of(body, 2)), (f"{path}/cancel", cancel_body(3))):
        first = node.post(*step)
        again = node.post(*step, other)
        assert (first.status_code, again.status_code) == (201, 200)
        assert again.json() == first.json()


def test_source_of_an_alert_is_the_publisher_of_its_newest_revision(node: Node, keys: Keys):
    """A manager's revision names the manager as `source` (section 2)."""
    body = alert(ground())
    node.publish(body)
    node.revise(revision_of(body, 2), keys.token(sub="desk-two"))
    assert node.state(body["id"])["alert"]["source"] == "desk-two"


def test_ids_are_case_sensitive_and_may_be_escaped_in_a_path(node: Node):
    """A colon in a path may be written as %3A (section 2, `id`)."""
    lower = alert(ground(), id=new_id("case:"))
    upper = alert(ground(), id=lower["id"].upper())
    node.publish(lower)
    node.publish(upper)
    escaped = node.get(f"/v1/alerts/{lower['id'].replace(':', '%3A')}")
    assert escaped.json()["alert"]["id"] == lower["id"]


def test_hundred_simultaneous_posts_of_one_alert_publish_it_once(node: Node, join: Join):
    """One post gets 201 and the others get 200, all with the same answer.

    Subscribers are sent one message (section 4).
    """
    spot = ground()
    body = alert(spot)
    session = join(node, place(spot))
    answers = node.at_once("/v1/alerts", [body] * 100)
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 99}
    assert len({answer.text for answer in answers}) == 1
    session.listen(body["id"], 1)
    session.catch_up()
    assert session.heard(body["id"]) == [1]


def test_one_of_a_hundred_different_alerts_posted_at_once_under_one_id_is_published(node: Node):
    """The others get 409, and the published alert stays unchanged (section 4)."""
    body = alert(ground())
    bodies = [body | {"headline": f"Version {i}"} for i in range(100)]
    answers = node.at_once("/v1/alerts", bodies)
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 99}
    (winner,) = [i for i, answer in enumerate(answers) if answer.status_code == 201]
    assert node.state(body["id"])["alert"]["headline"] == f"Version {winner}"


def test_repeated_requests_get_their_first_answer_after_later_changes(node: Node):
    """Each number is answered with 200 and its first answer, even after a revision and a cancel (section 4)."""
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


def test_id_stays_known_after_the_alert_has_ended(node: Node):
    """A repeat is answered with 200, different content with 409 (section 4)."""
    body, first = node.publish_brief(alert(ground()))
    node.wait_for_end(body["id"])
    again = node.post("/v1/alerts", body)
    assert (again.status_code, again.json()) == (200, first)
    assert node.post("/v1/alerts", body | {"headline": "Other"}).status_code == 409


def test_only_one_of_many_simultaneous_revisions_is_accepted(node: Node, join: Join):
    """The others get 409 `revision-conflict` with `current` (section 4)."""
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


def test_only_one_of_many_simultaneous_cancels_is_accepted(node: Node):
    """A cancel gets a revision number of its own (section 4)."""
    for _ in range(10):
        body = alert(ground())
        node.publish(body)
        path = f"/v1/alerts/{body['id']}"
        cancels = node.at_once(f"{path}/cancel", [cancel_body(2, reason=f"By {i}") for i in range(3)])
        assert Counter(answer.status_code for answer in cancels) == {201: 1, 410: 2}
        assert node.post(f"{path}/revisions", revision_of(body, 2)).status_code == 410


# ---- confirmation by a person ------------------------------------------------------------------------------------


def test_text_that_reveals_an_address_is_published_after_confirmation(node: Node, join: Join):
    """The refusal names the kind and position without repeating the text (rules P24 and A21).

    After the confirmation the alert is sent as written.
    """
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


def test_dry_run_of_an_alert_stores_and_sends_nothing(node: Node, join: Join):
    """The answer has `reach`, but no `revision` and `issued_at` (section 4)."""
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


def test_dry_run_of_a_known_id_is_answered_like_the_real_request(node: Node):
    """With the same content it is accepted, and with different content it conflicts (section 4)."""
    body = alert(ground())
    node.publish(body)
    assert node.post("/v1/alerts", body, dry_run="true").status_code == 200
    assert node.post("/v1/alerts", body | {"headline": "Other"}, dry_run="true").status_code == 409


def test_dry_run_of_a_revision_stores_nothing(node: Node):
    """The answer has the area that would be published after the current revision (section 4; rule B11)."""
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
def test_dry_run_is_refused_like_the_real_request(node: Node, change: Json, status: int, slug: str):
    """The refusals are those of section 4."""
    answer = node.post("/v1/alerts", alert(ground()) | change, dry_run="true")
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
