"""Alerts drafted from CAP messages: shapes, times, texts, and the rules of the policy (CP21 to CP25)."""

import asyncio
import math

import numpy as np
import pytest
from ingest.cap.issuer import (
    DAY_MS,
    MINUTE_MS,
    RING,
    CapIngestHarness,
    a_cancel,
    a_message,
    an_area,
    an_info,
    code,
    time,
)
from support.fakes import NOON_MS

from geocast import policy
from geocast.geometry.polygon_union import pieces
from geocast.geometry.sphere import unit_vectors
from geocast.geometry.spherical_polygon import SphericalPolygon
from geocast.ingest.cap.zones import Zones
from geocast.model.alert import Circle, Polygon
from geocast.model.problems import Problem

SMALL = policy.parse(
    b"""
name = "small"
[categories.flood]
title = "Flood"
cap = ["event:flood"]
max_radius_m = 50000
max_age_s = 7200
default_age_s = 1800
polygons = true
zero_radius_m = 300
[categories.fire]
title = "Fire"
cap = ["event:fire"]
""",
    None,
)


@pytest.fixture
def room():
    """Return a harness with a policy that has narrow limits."""
    return CapIngestHarness(in_force=SMALL)


def one(answer):
    """Return the one alert of an answer."""
    [revision] = answer.alerts
    return revision.alert


def test_every_field_of_info_is_published(room):
    """Each field has the value that the rules of CAP give it."""
    info = an_info(
        an_area(areaDesc="The\n river"),
        an_area(areaDesc="The lake", polygon=None, circle="32.9,-96.9 2"),
        headline="High water",
        description="It rises.\r\n\r\n\r\nFast.",
        instruction="Go up.",
        onset=time(30),
        web="https://met.example/flood",
        contact="Ana Lopez",
        parameter=code("x", "y"),
    )
    alert = one(room.taken(a_message("m", 0, (), info, status="Exercise", note="n", source="s")))
    assert (alert.category, alert.severity, alert.status) == ("flood", "severe", "exercise")
    assert (alert.urgency, alert.certainty) == ("immediate", "observed")
    assert (alert.occurred_at, alert.onset_at, alert.expires_at) == (
        NOON_MS,
        NOON_MS + 30 * MINUTE_MS,
        NOON_MS + 60 * MINUTE_MS,
    )
    [text] = alert.texts
    assert (text.language, text.title, text.headline, text.area_desc) == (
        "en-US",
        "Flood",
        "High water",
        "The river; The lake",
    )
    assert (text.description, text.instruction, alert.web) == (
        "It rises.\n\nFast.",
        "Go up.",
        "https://met.example/flood",
    )
    assert (alert.headline, alert.description) == (text.headline, text.description)
    assert [type(shape) for shape in alert.area] == [Polygon, Circle]


def test_onset_not_after_sent_time_is_dropped(room):
    """The onset is taken from `onset` or `effective` (cap.md)."""
    assert one(room.taken(a_message("m", 0, (), an_info(onset=time(0))))).onset_at is None
    assert one(room.taken(a_message("n", 0, (), an_info(effective=time(1))))).onset_at == NOON_MS + MINUTE_MS


# ---- times -------------------------------------------------------------------------------------------------------


def test_missing_expiry_gets_default_and_late_expiry_is_shortened(room):
    """Both limits depend on the category, and count from the time at which the message was sent."""
    answer = room.taken(a_message("m", 0, (), an_info(expires=None)))
    assert (one(answer).expires_at, "expiry-default" in answer.notes) == (NOON_MS + 30 * MINUTE_MS, True)
    answer = room.taken(a_message("n", 0, (), an_info(expires=time(600))))
    assert (one(answer).expires_at, "expiry-cut" in answer.notes) == (NOON_MS + 120 * MINUTE_MS, True)


def test_age_limits_count_from_sent_time(room):
    """The rules P4, P5 and P6 set the limits."""
    room.clock.wall_ms = NOON_MS
    assert room.refused(a_message("m", 2)) == [("not-yet", "/alert/sent")]
    assert room.refused(a_message("m", -121))[0] == ("stale", "/alert/sent")
    assert room.refused(a_message("m", -40, (), an_info(expires=None))) == [
        ("expiry-out-of-range", "/alert/info/0/expires")
    ]


def test_future_sent_time_is_reported_even_without_category(room):
    """Rule P5 needs no category (HD14)."""
    room.clock.wall_ms = NOON_MS
    body = a_message("m", 2, (), an_info(event="A parade", category="Other"))
    assert room.refused(body) == [("category-not-alertable", "/alert/info/0/event"), ("not-yet", "/alert/sent")]


# ---- shapes ------------------------------------------------------------------------------------------------------


def test_shapes_of_all_areas_are_published_together(room):
    """Equal shapes are published once (CP22)."""
    info = an_info(an_area(), an_area(), an_area(polygon=[RING.replace("32", "33"), RING]))
    assert len(one(room.taken(a_message("m", 0, (), info))).area) == 2


def test_published_circle_covers_circle_given_in_kilometres(room):
    """A circle larger than the policy allows is refused (CP23, B1, B2)."""
    [circle] = one(room.taken(a_message("m", 0, (), an_info(an_area(circle="32.7,-96.8 1.5"))))).area
    assert 1_500 < circle.radius_m < 1_750
    assert room.refused(a_message("n", 0, (), an_info(an_area(circle="32.7,-96.8 25000")))) == [
        ("radius-out-of-range", "/alert/info/0/area/0")
    ]


def test_point_without_other_shape_is_published_only_if_policy_has_radius_for_it(room):
    """A point next to another shape is ignored (CP23)."""
    point = an_area(circle="32.7,-96.8 0")
    answer = room.taken(a_message("m", 0, (), an_info(point)))
    assert 300 < one(answer).area[0].radius_m < 600
    assert "zero-radius" in answer.notes
    answer = room.taken(a_message("n", 0, (), an_info(point, an_area())))
    assert ("point-passed-over" in answer.notes, len(one(answer).area)) == (True, 1)
    assert room.refused(a_message("o", 0, (), an_info(point, event="Fire"))) == [("no-area", "/alert/info/0/area")]


def test_areas_with_only_codes_are_omitted_and_counted(room):
    """Other areas of the message are published (CP24)."""
    coded = an_area(geocode=code("UGC", "TXC113"))
    answer = room.taken(a_message("m", 0, (), an_info(coded, an_area(), coded)))
    assert (answer.areas_left_out, "area-partial" in answer.notes) == (2, True)


def square(lng, lat, size=0.2):
    """Return the pieces of a zone: a square from this corner, in degrees."""
    return pieces([np.array([[lng, lng + size, lng + size, lng, lng], [lat, lat, lat + size, lat + size, lat]])])


def test_adjacent_zones_found_by_area_codes_are_joined():
    """A polygon in the same message stays separate. Unknown codes are omitted and counted (CP24, CZ2)."""
    room = CapIngestHarness(
        zones=Zones({("UGC", "A"): square(10, 50), ("UGC", "B"): square(10.2, 50), ("UGC", "C"): square(30, 0)})
    )
    known, other = an_area(geocode=[code("UGC", "A"), code("UGC", "B")]), an_area(geocode=code("UGC", "C"))
    unknown = an_area(geocode=code("UGC", "D"))
    answer = room.taken(a_message("m", 0, (), an_info(known, unknown, an_area(), other)))
    assert len(one(answer).area) == 4 - 1
    assert answer.areas_left_out == 1
    assert room.refused(a_message("n", 0, (), an_info(unknown))) == [("no-area", "/alert/info/0/area")]


def test_area_with_partly_known_codes_is_published_and_counted_as_incomplete():
    """The known part of the area gets the warning (CP24)."""
    room = CapIngestHarness(zones=Zones({("UGC", "A"): square(10, 50), ("FIPS6", "1"): square(10, 50)}))
    half = an_area(geocode=[code("UGC", "A"), code("UGC", "X")])
    assert room.taken(a_message("m", 0, (), an_info(half))).areas_left_out == 1
    whole = an_area(geocode=[code("UGC", "A"), code("UGC", "X"), code("FIPS6", "1")])
    assert room.taken(a_message("n", 0, (), an_info(whole))).areas_left_out == 0


def test_point_is_ignored_if_its_area_also_has_a_zone():
    """Issuers add the centre of a place that they name by a code (CP23, CP24)."""
    room = CapIngestHarness(zones=Zones({("UGC", "A"): square(10, 50)}))
    answer = room.taken(
        a_message("m", 0, (), an_info(an_area(circle="50,10 0", geocode=code("UGC", "A")), event="Earthquake"))
    )
    assert [type(shape) for shape in one(answer).area] == [Polygon]
    assert "point-passed-over" in answer.notes
    assert "zero-radius" not in answer.notes


@pytest.mark.slow
def test_zones_are_merged_if_alert_would_have_too_many_shapes():
    """Places between two merged zones stay outside (HD10)."""
    far = {("UGC", str(n)): square(n * 1.0, 0, 0.1) for n in range(70)}
    area = an_area(geocode=[code("UGC", str(n)) for n in range(70)])
    answer = CapIngestHarness(zones=Zones(far)).taken(a_message("m", 0, (), an_info(area)))
    assert "united" in answer.notes
    shapes = one(answer).area
    assert len(shapes) == 64
    inside = [(n + x, y) for n in range(70) for x, y in ((1e-4, 1e-4), (0.0999, 0.0999), (0.05, 0.05))]
    assert all(holding(shapes, lng, lat) for lng, lat in inside)
    between = [(n + 0.5, y) for n in range(69) for y in (-0.01, 0.11)]
    assert not any(holding(shapes, lng, lat) for lng, lat in between)


def holding(shapes, lng, lat):
    """Return whether a place is in at least one of the polygons."""
    place = tuple(float(each) for each in np.array(unit_vectors(np.array(lat), np.array(lng))))
    return any(SphericalPolygon(shape.ring, shape.buffer_m).contains(place, 0.0) for shape in shapes)


def test_error_for_unknown_codes_names_their_lists_but_no_code(room):
    """No value of the message is repeated (CP24, H9)."""
    area = an_area(geocode=[code("UGC", "TXC113"), code("<x/>?", "y"), code("p" * 61, "q")])
    with pytest.raises(Problem) as caught:
        room.taken(a_message("m", 0, (), an_info(area)))
    [violation] = caught.value.violations
    assert "(UGC)" in violation.detail
    assert "TXC113" not in violation.detail


def test_self_crossing_ring_is_filled(room):
    """Both halves of a bow tie are inside (CP22, D4)."""
    answer = room.taken(a_message("m", 0, (), an_info(an_area(polygon="32.7,-96.8 32.8,-96.7 32.8,-96.8 32.7,-96.7"))))
    assert {"ring-crossed", "ring-closed"} <= answer.notes
    [shape] = one(answer).area
    ring = SphericalPolygon(shape.ring, shape.buffer_m)
    places = np.array(unit_vectors(np.array([32.79, 32.71, 32.75, 32.75]), np.array([-96.75, -96.75, -96.79, -96.71])))
    inside = ring.contains_all(places, np.zeros(4))
    assert inside.tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    "ring",
    [
        "85,0 85,120 85,-120 85,0",  # around the north pole
        "-85,0 -85,120 -85,-120 -85,0",
        "10,179.9 10,180.085 11,180.085 11,179.9 10,179.9",  # across 180°, as real issuers write such rings
        "10,179.9 10,-179.915 11,-179.915 11,179.9 10,179.9",
    ],
)
def test_rings_around_poles_and_across_antimeridian_are_published(ring):
    """These rings are valid (CP22, A17)."""
    answer = CapIngestHarness().taken(a_message("m", 0, (), an_info(an_area(polygon=ring))))
    assert answer.outcome == "published"
    assert ("lng-wrapped" in answer.notes) == ("180.085" in ring)


def test_ring_of_41_000_corners_is_simplified():
    """The published ring has at most 500 corners, and its buffer makes up for the difference (B8, P12)."""
    corners = []
    for n in range(41_000):
        turn = n / 41_000 * 2 * math.pi
        reach = 0.5 + 0.0005 * math.sin(600 * turn)
        corners.append(f"{40 + reach * math.sin(turn):.5f},{-100 + reach * math.cos(turn):.5f}")
    answer = CapIngestHarness().taken(a_message("m", 0, (), an_info(an_area(polygon=" ".join(corners)))))
    [shape] = one(answer).area
    assert len(shape.ring) <= 501
    assert shape.buffer_m >= 60
    assert {"simplified", "ring-closed"} <= answer.notes


def test_shapes_are_merged_if_alert_would_have_too_many(room):
    """An alert may have 64 shapes (P12, HD10)."""
    rings = [RING.replace("32.", f"{n}.") for n in range(65)]
    few = room.taken(a_message("m", 0, (), an_info(an_area(polygon=rings[:64]))))
    assert (len(one(few).area), "united" in few.notes) == (64, False)
    more = room.taken(a_message("n", 0, (), an_info(an_area(polygon=rings, circle=["-40,10 30", "-41,10 30"]))))
    assert (len(one(more).area), "united" in more.notes) == (64, True)
    for n in range(65):
        assert holding(one(more).area, -96.75, n + 0.75)
    assert holding(one(more).area, 10, -40.26)


def test_polygon_is_refused_unless_category_allows_polygons(room):
    """The pointer of the violation names the area (P11)."""
    assert room.refused(a_message("m", 0, (), an_info(event="Fire"))) == [("shape-not-allowed", "/alert/info/0/area/0")]


def test_ring_as_wide_as_half_the_earth_is_refused():
    """The corners are too far from the middle of the ring (A18)."""
    wide = "0,0 0,100 60,50 -60,50 0,0"
    assert CapIngestHarness().refused(a_message("m", 0, (), an_info(an_area(polygon=wide)))) == [
        ("invalid-value", "/alert/info/0/area/0")
    ]


# ---- rules of the policy -----------------------------------------------------------------------------------------


def test_all_policy_violations_of_all_infos_are_listed(room):
    """The message is refused as a whole (CP25)."""
    infos = an_info(event="Snow"), an_info(event="Fire", expires=time(90)), an_info()
    assert room.refused(a_message("m", 0, (), *infos)) == [
        ("category-not-alertable", "/alert/info/0/event"),
        ("shape-not-allowed", "/alert/info/1/area/0"),
    ]
    assert room.live() == {}


def test_messages_need_no_confirmation_of_texts_or_areas(room):
    """A message can't confirm anything, so P23 and P24 are not checked (CP25)."""
    info = an_info(headline="Call 555-0100, or Mr Smith at 12 Main Street")
    assert room.taken(a_message("m", 0, (), info)).outcome == "published"


def test_message_in_category_that_needs_signatures_is_refused():
    """A CAP message has no signatures of reviewers (AP7)."""
    categories = {key: each.model_copy(update={"approvals": 1}) for key, each in SMALL.categories.items()}
    room = CapIngestHarness(in_force=SMALL.model_copy(update={"categories": categories, "audience": "x"}))
    assert room.refused(a_message("m", 0, (), an_info())) == [("approvals-needed", "/alert/info/0/event")]


@pytest.mark.parametrize("asks", ["approvals", "cancel_approvals"])
def test_message_about_alert_that_needs_signatures_is_refused(asks):
    """The policy did not ask for signatures when the alert was published.

    The category of the new message does not matter (HD1).
    """
    log = CapIngestHarness().log
    CapIngestHarness(log, in_force=SMALL).taken(a_message("m", 0, (), an_info()))
    [before] = asyncio.run(log.live(NOON_MS)).revisions
    categories = {**SMALL.categories, before.alert.category: SMALL.categories[before.alert.category].model_copy()}
    categories[before.alert.category] = categories[before.alert.category].model_copy(update={asks: 1})
    room = CapIngestHarness(log, in_force=SMALL.model_copy(update={"categories": categories, "audience": "x"}))
    eased = a_message("n", 1, ("m",), an_info(an_area(circle="32.7,-96.8 1"), event="Fire"))
    over = a_cancel("n", 1, ("m",))
    refused = room.refused(over if asks == "cancel_approvals" else eased)
    assert [slug for slug, _ in refused] == ["approvals-needed"]
    assert room.history(before.id) == [before]


def test_unknown_severity_gets_default_of_category(room):
    """The category's `unknown_severity` is used (P14)."""
    for n, severity in enumerate(("Unknown", None)):
        answer = room.taken(a_message(f"m-{n}", 0, (), an_info(severity=severity)))
        assert (one(answer).severity, "severity-default" in answer.notes) == ("moderate", True)


# ---- texts -------------------------------------------------------------------------------------------------------


def test_long_texts_are_cut_and_noted(room):
    """The limits are those of the policy (CP21, P15)."""
    info = an_info(
        an_area(areaDesc="place " * 60),
        event="Flood",
        headline="word " * 60,
        description="Sentence. " * 300,
        instruction="Go up. " * 300,
    )
    answer = room.taken(a_message("m", 0, (), info))
    [text] = one(answer).texts
    lengths = [len(each) for each in (text.headline, text.description, text.instruction, text.area_desc)]
    assert all(length <= limit for length, limit in zip(lengths, (250, 2_000, 1_500, 280), strict=True))
    assert "text-cut" in answer.notes


def test_enveloped_signature_is_ignored(room):
    """Unknown elements are ignored (CP4), and a missing signature is noted."""
    signature = '<Signature xmlns="http://www.w3.org/2000/09/xmldsig#"><SignedInfo/></Signature></alert>'
    plain = room.taken(a_message("m"))
    signed = room.taken(a_message("m").replace(b"</alert>", signature.encode()))
    assert (plain.outcome, signed.outcome, signed.alerts) == ("published", "repeated", plain.alerts)
    assert plain.notes - signed.notes == {"unsigned"}


def test_built_in_policy_lets_alert_last_one_day():
    """The built-in policy has a `default_age_s` of one day (P17)."""
    answer = CapIngestHarness().taken(a_message("m", 0, (), an_info(expires=None)))
    assert one(answer).expires_at == NOON_MS + DAY_MS
