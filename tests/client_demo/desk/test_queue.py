"""Tests of the desk's queue: one item per incident, its proposal, its decisions, and what cannot be approved."""

import json

import pytest

from client_demo.desk.feeds import read_records
from client_demo.desk.queue import (
    MOST_ITEMS,
    Item,
    Queue,
    accept,
    may_live,
    observe,
    read_form,
    refuse,
    sighting,
)
from client_demo.desk.triage import Policy
from client_demo.python.times import format_time
from client_demo.staff_page.decisions import Conflict, NotAllowed, Trouble

NOW = 1_800_000_000_000
HOUR = 3_600_000
POLICY = Policy.from_map(
    {
        "name": "for these tests",
        "categories": {
            "fire_structure": {"title": "Structure fire", "max_age_s": 3600, "min_radius_m": 100, "max_radius_m": 5000},
            "burglary": {"title": "Burglary", "max_age_s": 600, "min_radius_m": 100, "max_radius_m": 5000},
        },
        "never": {"assault": "Assault"},
    }
)
ANSWER = {"id": "x", "revision": 1, "area": [], "issued_at": format_time(NOW), "expires_at": format_time(NOW + HOUR)}


def sample(*rows):
    """Return records of the sample's format from (number, age in ms, nature, lat, lng)."""
    lines = ["incident,reported_at,nature,lat,lng,address,unit"]
    for number, age_ms, nature, lat, lng in rows:
        at = "" if age_ms is None else format_time(NOW - age_ms)[:19] + "Z"
        lines.append(f'{number},{at},"{nature}",{lat},{lng},1200 Block of Elm St,Engine 3')
    return read_records("feed.csv", "\n".join(lines))


def montgomery(*rows):
    """Return records without numbers from (minutes after noon, title)."""
    lines = ["lat,lng,desc,title,timeStamp,twp,addr"]
    lines += [
        f"40.1,-75.1,ELM ST; ABINGTON; Station 358;,{title},2016-04-06 12:{minute:02}:00,ABINGTON,ELM ST"
        for minute, title in rows
    ]
    return read_records("feed.csv", "\n".join(lines))


def sightings(records):
    return [sighting(group, records, group.incident.occurred_at) for group in records.groups]


def queue_of(*rows):
    queue = Queue(POLICY, "actual")
    for seen in sightings(sample(*rows)):
        queue.take(seen)
    return queue


def one(nature="Structure fire", age_ms=60_000, lat=32.71234567, lng=-96.81234567):
    queue = queue_of(("A", age_ms, nature, lat, lng))
    (item,) = queue
    return queue, item


def form_of(queue, item, **changes):
    return read_form({**queue.proposal(item), **changes})


def approve(queue, item, by="ann", version=None, now=NOW, **changes):
    return queue.approve(item, version or item.version, form_of(queue, item, **changes), by, now)


def live():
    queue, item = one()
    approve(queue, item)
    accept(item, ANSWER)
    return queue, item


# ---- grouping --------------------------------------------------------------------------------------------------


def test_rows_and_editions_of_one_incident_are_one_item():
    """A further unit is a further row of the item; its time and place stay the same."""
    queue = queue_of(("A", 60_000, "Structure fire", 32.7, -96.8), ("B", 50_000, "Arson", 32.7, -96.8))
    (item, other) = queue
    later = sample(("A", 60_000, "Structure fire", 32.7, -96.8), ("A", 10_000, "Structure fire", 32.8, -96.8))
    assert queue.take(sightings(later)[0]) is item
    assert item.sighting.row_count == 2
    assert (item.sighting.incident.lat, item.sighting.incident.occurred_at) == (32.7, NOW - 60_000)
    assert queue.take(sightings(later)[0]) is None
    assert [each.id for each in queue] == [item.id, other.id]


def test_similar_rows_without_a_number_are_one_item_in_every_edition():
    """Rows within the hour count, also when a later edition lacks the first row."""
    queue = Queue(POLICY, "actual")
    (first,) = sightings(montgomery((0, "EMS: BUILDING FIRE"), (40, "Fire: BUILDING FIRE")))
    item = queue.take(first)
    (later,) = sightings(montgomery((40, "Fire: BUILDING FIRE"), (59, "EMS: BUILDING FIRE")))
    assert queue.take(later) is item
    assert len(list(queue)) == 1


def test_full_queue_drops_the_oldest_undecided_item():
    """Decided items stay."""
    queue = queue_of(*((str(n), n * 1000, "Structure fire", 32.7, -96.8) for n in range(MOST_ITEMS + 2)))
    oldest = max(queue, key=lambda item: NOW - item.sighting.incident.occurred_at)
    queue.set_aside(oldest, oldest.version, "dismiss", "ann", NOW)
    assert len(queue.trim()) == 1
    assert queue.get(oldest.id) is oldest


# ---- proposals -------------------------------------------------------------------------------------------------


def test_proposal_has_fixed_wording_and_a_rounded_place():
    """No word of the record gets into the proposal."""
    queue, item = one()
    form = queue.proposal(item)
    assert (form["category"], form["severity"], form["radius_m"]) == ("fire_structure", "severe", 1000)
    assert (form["lat"], form["lng"]) == (32.71235, -96.81235)
    assert not any(word in json.dumps(form) for word in ("Elm", "1200", "Engine"))


def test_proposal_names_the_district_without_private_parts():
    """A neighbourhood is useful to readers; an address must not be named."""
    queue = Queue(POLICY, "actual")
    item = queue.take(sightings(montgomery((0, "Fire: BUILDING FIRE")))[0])
    assert queue.proposal(item)["description"] == "Reported in Abington."


@pytest.mark.parametrize(
    ("nature", "is_locked", "obstacle"),
    [
        ("Assault", True, "never alerted: Assault"),
        ("Medical, fall", True, "concerns only an individual: a medical call"),
        ("Traffic collision", False, "not on the policy's list: traffic"),
        ("Fireworks", False, 'unknown nature: "Fireworks" is not in the table'),
    ],
)
def test_never_alerted_nature_is_locked_and_others_need_a_category(nature, is_locked, obstacle):
    """The item has the reason as its obstacle."""
    queue, item = one(nature)
    assert (item.category, item.is_locked, item.obstacle) == ("", is_locked, obstacle)
    if is_locked:
        with pytest.raises(NotAllowed, match="not for an alert"):
            approve(queue, item, category="fire_structure", headline="x")
    else:
        assert approve(queue, item, category="fire_structure", headline="A fire")


# ---- refusals by the desk --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "changes", "field", "words"),
    [
        ({"age_ms": HOUR + 1000}, {}, "", "more than an hour ago"),
        ({"age_ms": 700_000}, {"category": "burglary"}, "", "more than 10 minutes ago"),
        ({"age_ms": -120_000}, {}, "", "not happened yet"),
        ({"age_ms": None}, {}, "", "has no time"),
        ({"lat": "", "lng": ""}, {}, "place", "no coordinates"),
        ({}, {"radius_m": None}, "radius_m", "how far"),
        ({}, {"category": "assault"}, "category", "Choose a category"),
        ({}, {"headline": "Fire at 1200 Elm Street"}, "headline", "“1200 Elm Street” reads like an address"),
        ({}, {"description": "3 engines are there"}, "description", "“3 engines” reads like units sent there"),
    ],
)
def test_obstacle_is_reported_at_its_field(given, changes, field, words):
    """The item stays undecided."""
    queue, item = one(**given)
    with pytest.raises(NotAllowed) as refusal:
        approve(queue, item, **changes)
    (trouble,) = refusal.value.troubles
    assert trouble.field == field
    assert words in trouble.text
    assert (item.state, item.pending, item.history) == ("waiting", None, [])


def test_incident_is_stale_one_millisecond_after_its_categorys_limit():
    """Bounds are inclusive, as in the protocol."""
    queue, item = one(age_ms=HOUR)
    assert queue.stale_at(item) == NOW
    with pytest.raises(NotAllowed):
        approve(queue, item, now=NOW + 1)
    assert approve(queue, item, now=NOW)


def test_drawn_polygon_replaces_the_circle():
    """The ring is closed for the node, and the circle's fields are ignored (protocol, rule A16)."""
    queue, item = one()
    ring = [[-96.81, 32.77], [-96.78, 32.77], [-96.78, 32.79]]
    assert approve(queue, item, ring=ring, lat=None, radius_m=None)
    assert item.pending.body["area"] == [{"type": "Polygon", "coordinates": [[*ring, ring[0]]]}]
    assert Item.from_map(json.loads(json.dumps(item.to_map()))).draft["ring"] == ring


@pytest.mark.parametrize("ring", [[], [[-96.81, 32.77]], [[-96.81, 32.77], [-96.78, 32.77]]])
def test_polygon_with_too_few_corners_is_not_approved(ring):
    """The circle's fields do not replace an incomplete polygon."""
    queue, item = one()
    with pytest.raises(NotAllowed) as refusal:
        approve(queue, item, ring=ring)
    assert [trouble.field for trouble in refusal.value.troubles] == ["corners"]


def test_text_that_reads_like_an_address_can_be_confirmed():
    """ "2 men on Elm Street" is no address."""
    queue, item = one()
    assert approve(queue, item, headline="2 men on Elm Street", confirmed=True)


def test_confirmation_goes_to_the_node_and_stops_the_question():
    """Only confirmed kinds are sent; other kinds are still questioned (protocol, rule A21)."""
    queue, item = one()
    confirm = {"area_km2": None, "text": ["address"]}
    with pytest.raises(NotAllowed) as refusal:
        approve(queue, item, headline="Fire at 1204 Main Street, case 26-12345", confirm=confirm)
    assert [trouble.text for trouble in refusal.value.troubles] == [
        "“case 26-12345” reads like a case number. Take it out, or say that it is none."
    ]
    assert approve(queue, item, headline="Fire at 1204 Main Street", confirm=confirm)
    assert item.pending.body["confirm"] == {"text": ["address"]}


def test_unneeded_confirmation_is_not_sent():
    """The node would refuse an unneeded confirmation (protocol, rule A21)."""
    queue, item = one()
    assert approve(queue, item)
    assert "confirm" not in item.pending.body


def test_cancel_reason_can_be_confirmed():
    """The confirmation covers the cancel's reason (protocol, rule A21)."""
    queue, item = live()
    assert queue.cancel(item, item.version, "Out, at 1204 Main Street", False, "ann", NOW, {"text": ["address"]})
    assert item.pending.body["confirm"] == {"text": ["address"]}


def test_question_of_the_node_is_not_repeated_by_the_desk():
    """The desk compares questions by field and kind."""
    queue, item = one()
    form = form_of(queue, item, headline="Fire at 1204 Main Street", description="Engine 12")
    asked = {("headline", "address"), ("description", "address")}
    assert [each.field for each in queue.troubles(item, form, NOW, asked)] == ["description"]


@pytest.mark.parametrize(
    "changes",
    [
        {"confirm": 5},
        {"confirm": {"text": "address"}},
        {"confirm": {"text": [5]}},
        {"confirm": {"text": ["name"] * 17}},
        {"confirm": {"area_km2": "5"}},
        {"headline": 7},
        {"headline": "\ud800"},
        {"lat": "1"},
        {"radius_m": True},
        {"lng": float("nan")},
        {"lat": 1e300},
        {"ring": {}},
        {"ring": [[1]]},
        {"ring": [[1, 2, 3]]},
        {"ring": [{"lat": 1, "lng": 2}]},
        {"ring": [[1, True]]},
        {"ring": [["1", 2]]},
        {"ring": [[1, float("nan")]]},
        {"ring": [[1, 2]] * 2_500},
    ],
)
def test_form_with_wrong_types_raises_valueerror(changes):
    """The desk's page never sends a form with wrong types."""
    with pytest.raises(ValueError, match="expected"):
        read_form(changes)


# ---- decisions -------------------------------------------------------------------------------------------------


def test_approval_is_a_complete_request_by_a_named_reviewer():
    """The request is stored before it is sent."""
    queue, item = one()
    approve(queue, item, by="ann")
    assert item.pending.body == {
        "id": item.alert_id,
        "category": "fire_structure",
        "headline": "Building on fire in this area. Keep windows closed and stay away.",
        "severity": "severe",
        "status": "actual",
        "threat": "community",
        "occurred_at": format_time(NOW - 60_000),
        "area": [{"type": "circle", "lat": 32.71235, "lng": -96.81235, "radius_m": 1000}],
        "approval": {"reviewer": "ann", "approved_at": format_time(NOW)},
    }


def test_repeated_decision_changes_nothing():
    """Decisions are repeated by a double click, or after a lost response."""
    queue, item = one()
    assert approve(queue, item, version=1)
    body = item.pending.body
    assert not approve(queue, item, version=1, now=NOW + 5000)
    accept(item, ANSWER)
    assert not approve(queue, item, version=1, now=NOW + 9000)
    assert (item.state, len(item.history), body["approval"]["approved_at"]) == ("live", 1, format_time(NOW))


@pytest.mark.parametrize("changes", [{"by": "ben"}, {"headline": "Other words"}])
def test_second_reviewer_gets_a_conflict_with_the_first(changes):
    """The second decision comes from another reviewer, or has other words for an old version."""
    queue, item = one()
    approve(queue, item, version=1)
    for _ in range(2):
        with pytest.raises(Conflict, match=r"ann was first: approved at \d\d:\d\d:\d\d UTC"):
            approve(queue, item, version=1, **changes)
        if item.pending:
            accept(item, ANSWER)


def test_refused_approval_leaves_the_item_waiting_with_reasons():
    """The item can be decided again, with the same alert id."""
    queue, item = one()
    approve(queue, item)
    alert_id = item.pending.body["id"]
    refuse(item, [Trouble("headline", "too long")])
    assert (item.state, item.pending, item.troubles) == ("waiting", None, [Trouble("headline", "too long")])
    approve(queue, item)
    assert item.pending.body["id"] == alert_id
    assert item.troubles == []


def test_revision_and_cancel_have_consecutive_numbers():
    queue, item = live()
    queue.approve(
        item, item.version, form_of(queue, item, radius_m=500), "ben", NOW + 2 * HOUR
    )  # age is not checked for a revision
    assert (item.pending.what, item.pending.body["revision"]) == ("revise", 2)
    accept(item, ANSWER | {"revision": 2})
    assert item.form["radius_m"] == 500
    queue.cancel(item, item.version, "False alarm", False, "ann", NOW)
    assert item.pending.body == {
        "revision": 3,
        "reason": "False alarm",
        "approval": {"reviewer": "ann", "approved_at": format_time(NOW)},
    }
    accept(item, {"revision": 3})
    assert (item.state, item.form["radius_m"]) == ("cancelled", 500)


@pytest.mark.parametrize(("reason", "words"), [(" ", "Say why"), ("Was at 12 Elm St", "reads like an address")])
def test_cancel_needs_a_reason_without_private_parts(reason, words):
    """All recipients of the alert read the reason."""
    queue, item = live()
    with pytest.raises(NotAllowed, match=words):
        queue.cancel(item, item.version, reason, False, "ann", NOW)


def test_item_is_dismissed_and_reopened():
    """The item's history names the person for each decision."""
    queue, item = one()
    assert queue.set_aside(item, 1, "dismiss", "ann", NOW)
    assert not queue.set_aside(item, 1, "dismiss", "ann", NOW)
    with pytest.raises(Conflict, match="ann was first: dismissed"):
        approve(queue, item, by="ben")
    queue.set_aside(item, item.version, "reopen", "ben", NOW)
    assert (item.state, [decision.by for decision in item.history]) == ("waiting", ["ann", "ben"])


def test_item_follows_the_alert_at_the_node():
    """The item takes delivery counts, the end, and revisions made elsewhere."""
    _, item = live()
    alert = {"revision": 1, "area": [], "issued_at": "", "expires_at": ""}
    seen = {"state": "live", "alert": alert, "delivery": {"sent": 3, "acked": 2, "pushed": 1}}
    assert observe(item, seen)
    assert not observe(item, seen)
    assert item.delivery == {"sent": 3, "acked": 2, "pushed": 1}
    rounded = {"sent": 20, "acked": 0, "pushed": 0, "rounded": True}
    assert observe(item, {**seen, "delivery": rounded | {"more": 1}})
    assert item.delivery == rounded, "protocol, H11"
    assert observe(item, {"state": "live", "alert": alert})
    assert item.delivery is None
    version = item.version
    assert observe(item, {**seen, "state": "expired", "alert": alert | {"revision": 2}})
    assert (item.state, item.revision, item.version) == ("expired", 2, version + 1)


def test_alert_reported_expired_before_its_end_may_be_live_again():
    """The node's clock was wrong for a moment; later it reports "live", and the alert can be revised again."""
    _, item = live()
    alert = {"revision": 1, "area": [], "issued_at": format_time(NOW), "expires_at": format_time(NOW + 60_000)}
    observe(item, {"state": "live", "alert": alert | {"revision": 2}})
    observe(item, {"state": "expired", "alert": alert | {"revision": 2}})
    assert may_live(item, NOW)
    assert not may_live(item, NOW + 60_000)
    observe(item, {"state": "live", "alert": alert | {"revision": 2}})
    assert item.state == "live"
    observe(item, {"state": "cancelled", "alert": alert | {"revision": 2}})
    assert not may_live(item, NOW)


def test_item_survives_json():
    queue, item = one()
    approve(queue, item)
    refuse(item, [Trouble("headline", "too long", "invalid-value")])
    approve(queue, item)
    assert Item.from_map(json.loads(json.dumps(item.to_map()))) == item


# ---- drafts ----------------------------------------------------------------------------------------------------


def test_draft_is_kept_until_the_node_accepts():
    """The draft stays while it is sent, after a refusal, and over a restart."""
    queue, item = live()
    assert item.draft is None
    approve(queue, item, headline="Careful words")
    assert item.draft["headline"] == "Careful words"
    refuse(item, [Trouble("category", "It would end too early.")])
    assert Item.from_map(json.loads(json.dumps(item.to_map()))).draft["headline"] == "Careful words"
    assert item.form["headline"] != "Careful words"
    approve(queue, item, headline="Other words")
    accept(item, {**ANSWER, "revision": 2})
    assert item.draft is None


def test_reason_of_a_refused_cancel_is_kept():
    """The draft of a cancel is its reason."""
    queue, item = live()
    queue.cancel(item, item.version, "It was a barbecue", True, "ann", NOW)
    refuse(item, [Trouble("", "Not now.")])
    assert item.draft == {"reason": "It was a barbecue"}
