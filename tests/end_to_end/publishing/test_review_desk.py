"""The review desk's service on a real node: its items, the reviewers' decisions, and publication exactly once."""

import json
import sqlite3
from pathlib import Path

import pytest
from end_to_end.kit.alerts import ground, place
from end_to_end.kit.desk import DeskProcess, row, write_feed
from end_to_end.kit.node import Node
from end_to_end.kit.times import wait_until
from support.real_data import dispatch

MAP = Path(__file__).parents[3] / "client_demo" / "web" / "node_modules" / "maplibre-gl"
pytestmark = pytest.mark.skipif(
    not MAP.is_dir(), reason="no npm packages in client_demo/web (`make test` installs them where npm can be reached)"
)


@pytest.fixture
def spot():
    """A place of this test's own."""
    return ground()


def records(spot):
    """Return records of five incidents: a new fire, an old fire, an assault, a medical call and an arson.

    The new fire, A, has two units, and the arson has no place.
    """
    return [
        row("A", "Structure fire", spot),
        row("A", "Structure fire", spot, 50, unit="Ladder 4"),
        row("OLD", "Structure fire", spot, 3700),
        row("NEVER", "Assault", spot),
        row("ILL", "Medical, fall", spot),
        row("NOWHERE", "Arson", None),
    ]


@pytest.fixture(scope="module")
def looker(node, tmp_path_factory):
    """A page of a desk that several tests read, and at which none decides anything."""
    home = tmp_path_factory.mktemp("desk")
    feed = write_feed(home / "feed.csv", records(ground()))
    with DeskProcess(home, node, feed, "--as-recorded") as process, process.page() as page:
        yield page


@pytest.fixture
def desk(node, tmp_path, spot):
    """A desk of this test's own."""
    feed = write_feed(tmp_path / "feed.csv", records(spot))
    with DeskProcess(tmp_path, node, feed, "--as-recorded") as process:
        yield process


@pytest.fixture
def ann(desk):
    """The page of the reviewer Ann."""
    with desk.page("ann") as page:
        yield page


@pytest.fixture
def ben(desk):
    """The page of the reviewer Ben."""
    with desk.page("ben") as page:
        yield page


def heard(phone, alert_id, what):
    """Wait until a revision, or the `cancel`, of an alert has arrived, and return it."""
    phone.listen(alert_id, what)
    message = phone.received[-1]
    return message.get("alert", message)


# ---- from a row of the feed to a subscriber --------------------------------------------------------------------


def test_approved_incident_reaches_a_subscriber_inside_and_is_counted(ann, node, spot, join):
    """The alert has the reviewer's words, and nothing else of the record."""
    phone = join(node, place(spot))
    item = ann.item("A")
    assert item["row_count"] == 2
    preview = ann.do(item, "preview", form={**item["proposal"], "radius_m": 500}).json()
    assert preview["troubles"] == []
    answer = ann.approve(item, radius_m=500, headline="A shed is on fire").json()["item"]
    assert (answer["state"], answer["revision"]) == ("live", 1)
    assert answer["published"]["area"] == preview["area"]
    message = heard(phone, answer["alert_id"], 1)
    assert message["headline"] == "A shed is on fire"
    assert message["area"] == preview["area"]
    assert not any(word in json.dumps(message) for word in ("Elm", "Engine", "1200", "ann"))
    phone.ack(answer["alert_id"], 1)
    assert ann.wait_for("A", lambda item: item["delivery"] == {"sent": 1, "acked": 1, "pushed": 0})


def test_live_alert_is_revised_and_cancelled_by_different_reviewers(ann, ben, node, spot, join):
    phone = join(node, place(spot))
    item = ann.approve(ann.item("A")).json()["item"]
    heard(phone, item["alert_id"], 1)
    form = {**item["form"], "headline": "It is out", "lat": item["form"]["lat"] + 0.002}
    preview = ben.do(item, "preview", form=form).json()
    assert preview["troubles"] == []
    item = ben.approve(item, headline="It is out", lat=form["lat"]).json()["item"]
    assert item["published"]["area"] == preview["area"]
    assert heard(phone, item["alert_id"], 2)["headline"] == "It is out"
    answer = ann.do(item, "cancel", reason="It was a barbecue").json()["item"]
    assert heard(phone, item["alert_id"], "cancel")["reason"] == "It was a barbecue"
    assert [(each["what"], each["by"]) for each in answer["history"]] == [
        ("publish", "ann"),
        ("revise", "ben"),
        ("cancel", "ann"),
    ]
    assert answer["state"] == "cancelled"
    assert ann.do(answer, "cancel", reason="again").status_code == 409


# ---- refused approvals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "changes", "field", "words"),
    [
        ("A", {"radius_m": 50}, "radius_m", "The radius must be 100 to 20,000 m for this category."),
        ("A", {"headline": "x" * 141}, "headline", "The headline needs 1 to 140 characters"),
        ("A", {"headline": ""}, "headline", "The headline needs 1 to 140 characters"),
        ("A", {"severity": "dire"}, "severity", "Choose a severity."),
        ("A", {"lat": 91}, "place", "a latitude of -90 to 90"),
        ("A", {"headline": "Fire at 1200 Elm St"}, "headline", "reads like a"),
        ("A", {"description": "Three engines are there"}, "description", "reads like units"),
        ("OLD", {}, "", "more than an hour ago"),
        ("NEVER", {"category": "fire_structure", "headline": "x"}, "category", "never alerted: Assault"),
        ("ILL", {"category": "fire_structure", "headline": "x"}, "category", "only an individual: a medical call"),
        ("NOWHERE", {}, "place", "no coordinates"),
    ],
)
def test_refusal_is_shown_beside_its_field_and_publishes_nothing(looker, node, number, changes, field, words):
    item, live = looker.item(number), node.live()
    form = {**item["proposal"], **changes}
    for answer in (looker.do(item, "preview", form=form), looker.do(item, "approve", form=form)):
        told = answer.json()["troubles"]
        assert [trouble for trouble in told if trouble["field"] == field and words in trouble["text"]], told
    assert answer.status_code == 422
    assert node.live() <= live
    assert looker.item(number)["state"] == "waiting"


def test_limit_of_the_publisher_is_shown_beside_the_field_it_concerns(tmp_path, spot):
    """The limit is shown before the approval, and a rate limit is shown as a waiting time (rules P21, P22 and PG2)."""
    border = [[spot[1] + east, spot[0] + north] for east, north in ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))]
    (tmp_path / "here.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [border]}))
    bounds = 'categories = ["fire_structure"]\nmax_severity = "severe"\njurisdiction = "here.geojson"\nper_minute = 1\n'
    (tmp_path / "publishers.toml").write_text(f'[publishers."*"]\n{bounds}')
    feed = write_feed(tmp_path / "feed.csv", [row("A", "Structure fire", spot), row("B", "Structure fire", spot)])
    with (
        Node(tmp_path, None, "--publishers", "publishers.toml") as node,
        DeskProcess(tmp_path, node, feed, "--as-recorded") as process,
        process.page() as page,
    ):
        item = page.item("A")
        away = {"category": "arson", "severity": "extreme", "lat": spot[0] + 5}
        told = page.do(item, "preview", form={**item["proposal"], **away}).json()["troubles"]
        assert [(each["field"], each["text"]) for each in told] == [
            ("category", "This desk may not publish alerts of this category."),
            ("severity", "This desk may not publish anything as severe. Severe is the most."),
            ("place", "This is outside of the area for which this desk may publish."),
        ]
        assert page.approve(item).json()["item"]["state"] == "live"
        page.approve(page.item("B"))
        waiting = page.wait_for("B", lambda item: item["troubles"])
        assert "as often as it may for now. Try again in " in waiting["troubles"][0]["text"]
        assert waiting["state"] == "waiting"


def test_reviewer_can_place_an_incident_without_coordinates(ann, node, spot, join):
    phone = join(node, place(spot))
    item = ann.approve(ann.item("NOWHERE"), lat=spot[0], lng=spot[1]).json()["item"]
    heard(phone, item["alert_id"], 1)


# ---- one publication, by one reviewer --------------------------------------------------------------------------


def test_double_click_on_approve_publishes_once(ann, node):
    """The second answer is the same as the first."""
    item = ann.item("A")
    first, second = ann.approve(item), ann.approve(item)
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json()["item"]["alert_id"] == second.json()["item"]["alert_id"]
    assert second.json()["item"]["revision"] == 1
    assert len(second.json()["item"]["history"]) == 1


def test_second_reviewer_sees_who_decided_first(ann, ben):
    """The second reviewer's page shows the decision without a reload."""
    events = ben.events()
    item = ann.item("A")
    next(events)
    ann.approve(item)
    seen = next(data for name, data in events if name == "item" and data["state"] == "live")
    assert seen["history"][0]["by"] == "ann"
    answer = ben.approve(item)
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("ann was first: approved at")
    assert answer.json()["item"]["state"] == "live"
    events.close()


def test_restarted_desk_keeps_decisions_and_finishes_pending_requests(desk, own_node, tmp_path_factory, spot, join):
    """The desk is killed with a request that the node has not answered; later both start again."""
    home = tmp_path_factory.mktemp("desk")
    feed = write_feed(home / "feed.csv", [row("A", "Structure fire", spot), row("B", "Arson", spot)])
    with DeskProcess(home, own_node, feed, "--as-recorded") as process:
        with process.page() as page:
            page.do(page.item("B"), "dismiss")
            own_node.kill()
            answer = page.approve(page.item("A"))
            assert answer.json()["item"]["pending"] == "publish"
        process.kill()
        with sqlite3.connect(home / "desk.db") as state:
            (count,) = state.execute("SELECT count(*) FROM items").fetchone()
        state.close()
        assert count == 2
        own_node.start()
        phone = join(own_node, place(spot))
        link = process.link("ann")
        process.start()
        assert process.link("ann") == link
        with process.page() as page:
            item = page.wait_for("A", lambda item: item["state"] == "live")
            assert heard(phone, item["alert_id"], 1)["category"] == "fire_structure"
            assert page.item("B")["state"] == "dismissed"
            assert [each["by"] for each in item["history"]] == ["ann"]


def test_unreachable_node_is_reported_and_approvals_are_published_later(tmp_path, own_node, spot):
    """An approval is published once when the node is back."""
    feed = write_feed(tmp_path / "feed.csv", [row("A", "Structure fire", spot)])
    with DeskProcess(tmp_path, own_node, feed, "--as-recorded") as process, process.page() as page:
        item = page.item("A")
        own_node.kill()
        preview = page.do(item, "preview", form=item["proposal"]).json()
        assert "does not answer" in preview["troubles"][0]["text"]
        page.approve(item)
        assert "repeated" in page.wait_for("A", lambda item: item["waits"])["waits"]
        own_node.start()
        page.wait_for("A", lambda item: item["state"] == "live")
        assert len(own_node.live()) == 1


# ---- authorization ---------------------------------------------------------------------------------------------


def test_desk_refuses_every_request_without_a_valid_key(desk):
    with desk.page() as page:
        item = page.item("A")
        page.http.cookies.clear()
        assert page.post("/api/sign-in", {"key": "guess"}).status_code == 401
        assert page.http.get("/api/events").status_code == 401
        assert page.approve(item).status_code == 401


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", "http://127.0.0.1:1"])
def test_desk_refuses_decisions_from_other_origins(looker, origin):
    """A changing request must come from the desk's own page, even with the cookie."""
    item = looker.item("A")
    answer = looker.post(f"/api/items/{item['id']}/dismiss", {"version": 1}, Origin=origin)
    assert answer.status_code == 403
    assert looker.item("A")["state"] == "waiting"


def test_cookie_is_hidden_from_scripts_and_token_from_pages(looker, node):
    cookie = looker.post("/api/sign-in", {"key": looker.key}).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert node.desk not in json.dumps(looker.state())
    policy = looker.http.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_desk_refuses_requests_to_another_host_name(looker):
    """The check prevents DNS rebinding."""
    assert looker.http.get("/", headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"version": "1"}', 400),
        (b'{"version": 1, "form": []}', 400),
        (b'{"version": 1, "form": {"headline": "\\ud800"}}', 400),
        (b'{"version": 1, "form": {"lat": NaN}}', 400),
        (b'{"pad": "' + b"x" * 70_000 + b'"}', 413),
        (b"[" * 60_000, 400),
    ],
)
def test_malformed_request_to_the_desk_is_refused_in_one_line(looker, body, status):
    item = looker.item("A")
    answer = looker.http.post(f"/api/items/{item['id']}/approve", content=body)
    assert answer.status_code == status
    assert answer.json()["detail"]
    assert looker.item("A")["state"] == "waiting"


def test_decision_about_a_removed_incident_is_answered_with_404(looker):
    """The page may be outdated."""
    assert looker.post("/api/items/0123/approve", {"version": 1, "form": {}}).status_code == 404


# ---- starting the desk -----------------------------------------------------------------------------------------


def test_desk_with_an_unusable_feed_does_not_start(tmp_path, node):
    """The desk prints one line and exits with status 2."""
    cases = [
        (tmp_path / "absent.csv", [], "can't be read"),
        ("https://", [], "has to begin with"),
    ]
    for feed, options, line in cases:
        process = DeskProcess(tmp_path, node, feed, *options)
        with pytest.raises(AssertionError, match=line):
            process.start()
        assert process.process.returncode == 2
        assert "Traceback" not in process.output()


def test_replay_of_old_records_publishes_exercises_by_default(tmp_path, node, spot, join):
    """A replay must not alarm anybody, so only clients with the scope `alerts:test` receive it."""
    feed = write_feed(tmp_path / "feed.csv", [row("A", "Structure fire", spot, 10**6)])
    phone = join(node, place(spot), scope="alerts:receive")
    tester = join(node, place(spot), scope="alerts:receive alerts:test")
    with DeskProcess(tmp_path, node, feed) as process, process.page() as page:
        item = page.approve(page.item("A")).json()["item"]
        assert heard(tester, item["alert_id"], 1)["status"] == "exercise"
        phone.move(place(spot))
        assert phone.received == []


# ---- real records ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "number"),
    [
        ("sf_fire_calls.csv", ("--ahead", "60", "--speed", "60"), "fire_structure"),
        ("montgomery_pa_911.csv", ("--ahead", "400", "--speed", "2000"), "fire_structure"),
        ("dallas_active_calls.csv", ("--ahead", "60"), "burglary"),
    ],
)
def test_real_records_are_grouped_into_incidents_and_an_approved_one_is_published(
    tmp_path, node, spot, join, name, options, number
):
    """The approved alert reaches a subscriber at its place."""
    with DeskProcess(tmp_path, node, dispatch(name), *options, "--status", "actual") as process, process.page() as page:
        items = wait_until(lambda: page.state()["items"], "incidents")
        keys = [json.dumps(item["rows"]) for item in items]
        assert len(keys) == len(set(keys))
        proposed = [item for item in items if item["category"] == number and item["stale_at"] > page.state()["now"]]
        assert proposed
        item = proposed[0]
        where = item["proposal"] if item["proposal"]["lat"] is not None else {"lat": spot[0], "lng": spot[1]}
        phone = join(node, place((where["lat"], where["lng"])))
        live = page.approve(item, lat=where["lat"], lng=where["lng"]).json()["item"]
        assert heard(phone, live["alert_id"], 1)["category"] == number
        assert any(item["locked"] for item in items) or name.startswith("dallas")


# ---- a category with a short life ------------------------------------------------------------------------------

BRIEF = """
name = "brief"
[categories]
fire_structure = { title = "Structure fire" }
burglary = { title = "Burglary", max_age_s = 300 }
"""


@pytest.fixture
def brief(tmp_path, spot):
    """A page of a desk whose node lets burglaries live for five minutes and fires for an hour."""
    (tmp_path / "brief.toml").write_text(BRIEF)
    feed = write_feed(tmp_path / "feed.csv", [row("A", "Structure fire", spot)])
    with (
        Node(tmp_path, None, "--policy", str(tmp_path / "brief.toml")) as node,
        DeskProcess(tmp_path, node, feed, "--as-recorded") as process,
        process.page() as page,
    ):
        yield page


def test_revision_to_a_shorter_lived_category_is_refused_and_stays_a_draft(brief):
    """Clients that have the alert would keep it longer than the revision allows.

    Both the live alert and the draft stay (rule P6).
    """
    live = brief.approve(brief.item("A")).json()["item"]
    form = {**live["form"], "category": "burglary", "headline": "A long and careful headline"}
    preview = brief.do(live, "preview", form=form).json()
    answer = brief.do(live, "approve", form=form)
    assert answer.status_code == 422
    for told in (preview["troubles"], answer.json()["troubles"]):
        assert [trouble["field"] for trouble in told] == ["category"]
        assert "would end too early" in told[0]["text"]
    item = answer.json()["item"]
    assert (item["state"], item["revision"], item["published"]) == ("live", 1, live["published"])
    assert item["draft"] == {**form, "confirmed": False, "confirm": {"area_km2": None, "text": []}}
    again = brief.approve(item, headline="A long and careful headline").json()["item"]
    assert (again["revision"], again["draft"]) == (2, None)
