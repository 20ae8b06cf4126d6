"""Areas and texts that a person must confirm (protocol, A21, P23, P24), and how much a shape covers."""

import dataclasses
import math

import msgpack
import numpy as np
import pytest
import spherely
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import DALLAS, a_cancel, a_revision
from support.publisher import PublisherHarness, a_policy, slugs

from geocast import policy
from geocast.alertlog import codec
from geocast.geometry.sphere import EARTH_RADIUS_M
from geocast.model.alert import NOTHING_CONFIRMED, Circle, Confirm, OtherShape, Polygon
from geocast.model.errors import ConfigError
from geocast.policy import Policy
from geocast.policy.confirmation import covered_km2, unconfirmed_area, unconfirmed_texts
from geocast.policy.pii import KINDS, NEVER
from geocast.stream.compact_revision import pack, unpack
from geocast.wire.requests import Confirmable

CIRCLE = {"type": "circle", "lat": DALLAS[0], "lng": DALLAS[1], "radius_m": 20_000}
TWO = [CIRCLE, CIRCLE]  # 2 x 1,280 km²
ADDRESS = "Fire at 1204 Main Street"
SQUARE = ((-96.81, 32.77), (-96.78, 32.77), (-96.78, 32.79), (-96.81, 32.79), (-96.81, 32.77))


@pytest.fixture
def desk():
    """A desk with an empty log and the built-in policy, where areas over 2,000 km² need confirmation."""
    return PublisherHarness()


def details(answer):
    """Return pointer, detail and other fields of each violation."""
    return [(each.pointer, each.detail, dict(each.members)) for each in answer[1].violations]


def loaded(tmp_path, text):
    """Load a policy file with this text at its top, and one category."""
    path = tmp_path / "policy.toml"
    path.write_text(f'name = "p"\n{text}\n[categories]\nrobbery = {{ title = "R" }}\n', "utf-8")
    return policy.load(path)


# ---- the area of shapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("radius_m", "km2"),
    [(1_020.0, 3.3), (20_000.0, 1_256.7), (5_000_000.0, 74_590_492.6), (math.pi * EARTH_RADIUS_M, 510_065_621.8)],
)
def test_area_of_a_circle_equals_that_of_a_spherical_cap(radius_m, km2):
    """2πR²(1 − cos(radius/R)), rounded up to one decimal, and never more than the whole sphere (rule P23)."""
    cap = 2 * math.pi * EARTH_RADIUS_M**2 * (1 - math.cos(radius_m / EARTH_RADIUS_M)) / 1e6
    assert covered_km2([Circle(0.0, 0.0, radius_m)]) == pytest.approx(km2, abs=0.11)
    assert 0 <= covered_km2([Circle(0.0, 0.0, radius_m)]) - cap < 0.11
    assert covered_km2([Circle(0.0, 0.0, 2 * radius_m)]) <= 510_065_621.8


def test_area_of_several_shapes_is_the_sum_of_their_areas():
    """Overlaps count twice, and shapes that this release does not know count as nothing (rules P23, G4)."""
    circle = Circle(*DALLAS, 20_000.0)
    assert covered_km2([circle, circle]) == pytest.approx(2 * 1_256.63, abs=0.1)
    assert covered_km2([circle, OtherShape({"type": "ellipse"})]) == covered_km2([circle])
    assert covered_km2([]) == 0


@pytest.mark.parametrize(
    "ring",
    [
        SQUARE,
        ((179.0, -10.0), (-179.0, -10.0), (-179.0, 10.0), (179.0, 10.0), (179.0, -10.0)),
        ((0.0, 60.0), (120.0, 60.0), (-120.0, 60.0), (0.0, 60.0)),
        ((0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (5.0, 1.0), (0.0, 10.0), (0.0, 0.0)),
    ],
    ids=["square", "antimeridian", "pole", "not convex"],
)
def test_area_of_a_polygon_equals_the_area_that_s2_computes(ring):
    """The area inside the ring on the sphere, in either direction of the ring (rule P23)."""
    expected = spherely.area(spherely.create_polygon(list(ring)), radius=EARTH_RADIUS_M) / 1e6
    assert covered_km2([Polygon(ring)]) == pytest.approx(expected, abs=0.2)
    assert covered_km2([Polygon(ring[::-1])]) == covered_km2([Polygon(ring)])


@given(st.floats(10, 500_000), st.floats(10, 100_000))
def test_area_of_polygon_includes_its_buffer(radius_m, buffer_m):
    """A ring of many corners with a buffer has nearly the area of the wider circle (rule P23)."""
    turn = np.linspace(0, 2 * math.pi, 400, endpoint=False)
    angle = radius_m / EARTH_RADIUS_M  # around the pole
    ring = [(math.degrees(each) - 180, 90 - math.degrees(angle)) for each in turn]
    both = Polygon((*ring, ring[0]), buffer_m)
    assert covered_km2([both]) == pytest.approx(
        covered_km2([Circle(90.0, 0.0, radius_m + buffer_m)]), rel=1e-3, abs=0.2
    )


# ---- confirmation of large areas -----------------------------------------------------------------------------


def test_large_area_without_confirmation_is_refused(desk):
    """The answer gives the size both in its text and in fields of its own (rule P23)."""
    answer = desk.publish(area=TWO)
    assert slugs(answer) == (422, "area-unconfirmed", [("area-unconfirmed", "/area")])
    [(_, detail, members)] = details(answer)
    assert detail == f"covers {members['area_km2']} km2; more than 2000 has to be confirmed"
    assert members == {"kind": "area", "area_km2": pytest.approx(2 * 1_280, abs=40), "hold_area_km2": 2000}
    assert not desk.history()


def test_alert_with_confirmed_area_is_published_and_area_is_part_of_its_content(desk):
    """The confirmed size must be at least the covered one (rules P23, A21, H5)."""
    [(_, _, members)] = details(desk.publish(area=TWO))
    covers = members["area_km2"]
    low = desk.publish(area=TWO, confirm={"area_km2": covers - 0.1})
    assert details(low)[0][1].endswith("has to be confirmed, but only a smaller area is")
    status, entry = desk.publish(area=TWO, confirm={"area_km2": covers})
    assert (status, entry.alert.confirm) == (201, Confirm(covers))
    assert desk.publish(area=TWO, confirm={"area_km2": covers})[0] == 200
    assert slugs(desk.publish(area=TWO, confirm={"area_km2": covers + 1}))[:2] == (409, "id-conflict")
    assert slugs(desk.publish(area=TWO))[:2] == (409, "id-conflict")


def test_unneeded_confirmation_is_refused(desk):
    """Otherwise a desk could send confirmations with every request (rule A21)."""
    many = {"area_km2": 1e9, "text": ["name", "address"]}
    assert slugs(desk.publish(confirm=many)) == (
        422,
        "invalid-value",
        [
            ("invalid-value", "/confirm/area_km2"),
            ("invalid-value", "/confirm/text/0"),
            ("invalid-value", "/confirm/text/1"),
        ],
    )
    assert desk.publish(confirm={})[0] == 201
    assert desk.publish()[0] == 200
    desk.use(a_policy())
    assert slugs(desk.publish(id="a-2", area=TWO, confirm={"area_km2": 1e9}))[2] == [
        ("invalid-value", "/confirm/area_km2")
    ]
    assert desk.publish(id="a-2", area=TWO)[0] == 201


def test_large_area_of_a_revision_has_to_be_confirmed(desk):
    """The published circles depend on those of the current revision (rules P23, B11)."""
    assert desk.publish()[0] == 201
    assert slugs(desk.revise(area=TWO))[2] == [("area-unconfirmed", "/area")]
    assert desk.revise(area=TWO, confirm={"area_km2": 3_000})[0] == 201


def test_large_polygons_without_confirmation_are_refused():
    """18.8 km² in a category where 10 are allowed (rule P23)."""
    desk = PublisherHarness(in_force=a_policy(polygons=True, hold_area_km2=10))
    polygon = {"type": "Polygon", "coordinates": [[list(corner) for corner in SQUARE]]}
    held = desk.publish(area=[polygon] * 3)
    assert details(held)[0][2] == {"kind": "area", "area_km2": pytest.approx(18.8, abs=0.3), "hold_area_km2": 10}
    assert desk.publish(area=[polygon] * 3, confirm={"area_km2": 100})[0] == 201


# ---- confirmation of revealing texts -------------------------------------------------------------------------


def test_error_about_a_revealing_text_has_its_kind_and_position(desk):
    """Every place is listed, and no word is repeated (rules P24, H9)."""
    answer = desk.publish(headline="Fire at 1204 Main Street", description="Engine 12 and 4 units\nat 88 Alder Rd.")
    assert details(answer) == [
        (
            "/headline",
            "reads like a street address (characters 9 to 24)",
            {"kind": "address", "start": 8, "end": 24, "confirmable": True},
        ),
        (
            "/description",
            "reads like units that were sent, or how many (characters 1 to 9)",
            {"kind": "units", "start": 0, "end": 9, "confirmable": True},
        ),
        (
            "/description",
            "reads like units that were sent, or how many (characters 15 to 21)",
            {"kind": "units", "start": 14, "end": 21, "confirmable": True},
        ),
        (
            "/description",
            "reads like a street address (characters 26 to 36)",
            {"kind": "address", "start": 25, "end": 36, "confirmable": True},
        ),
    ]
    assert slugs(answer)[:2] == (422, "text-unconfirmed")
    assert not any(word in str(answer[1].body()) for word in ("1204", "Main", "Alder", "Engine"))


def test_revealing_text_is_published_if_all_its_kinds_are_confirmed(desk):
    """The order of the kinds does not matter (rules P24, A21)."""
    texts = {"headline": ADDRESS, "description": "Call (415) 555-2671."}
    assert slugs(desk.publish(**texts, confirm={"text": ["address"]}))[2] == [("text-unconfirmed", "/description")]
    status, entry = desk.publish(**texts, confirm={"text": ["phone", "address"]})
    assert (status, entry.alert.confirm) == (201, Confirm(None, ("address", "phone")))
    assert entry.alert.headline == ADDRESS
    assert desk.publish(**texts, confirm={"text": ["address", "phone"]})[0] == 200


@pytest.mark.parametrize(("words", "kind"), [("32.7767, -96.797", "coordinates"), ("123-45-6789", "document")])
def test_text_with_coordinates_or_document_numbers_cannot_be_confirmed(words, kind, desk):
    """The text has to be changed (rule P24)."""
    [(_, detail, _)] = details(desk.publish(headline=f"See {words}"))
    assert detail.endswith("which can't be confirmed")
    answer = slugs(desk.publish(headline=f"See {words}", confirm={"text": [kind]}))
    assert answer[2] == [("invalid-value", "/confirm/text/0")]


def test_cancel_with_a_revealing_reason_is_refused(desk):
    """A reason goes to everybody who had the alert (rules P24, A21)."""
    desk.publish()
    assert slugs(desk.cancel(reason=ADDRESS))[2] == [("text-unconfirmed", "/reason")]
    assert slugs(desk.cancel(reason="over", confirm={"area_km2": 5}))[2] == [("invalid-value", "/confirm/area_km2")]
    status, entry = desk.cancel(reason=ADDRESS, confirm={"text": ["address"]})
    assert (status, entry.confirm) == (201, Confirm(None, ("address",)))
    assert desk.cancel(reason=ADDRESS, confirm={"text": ["address"]})[0] == 200
    assert desk.cancel(reason=ADDRESS)[0] == 410


def test_missing_confirmations_are_listed_with_other_violations(desk):
    """Violations of section 2 come first, the others in the order of the tables (rules P9, H8)."""
    held = {"area": TWO, "headline": ADDRESS, "approval": {"reviewer": "desk-7", "approved_at": "2041-05-01T12:00:00Z"}}
    found = [
        ("not-approved", "/approval/approved_at"),
        ("area-unconfirmed", "/area"),
        ("text-unconfirmed", "/headline"),
    ]
    assert slugs(desk.publish(**held))[2] == found
    assert slugs(desk.publish(**held, severity="bad"))[2] == [("invalid-value", "/severity"), *found]
    wrong = desk.publish(**held, confirm={"text": ["name"]})
    assert slugs(wrong)[2] == [("invalid-value", "/confirm/text/0"), *found]


def test_invalid_field_is_not_checked_for_confirmation(desk):
    """If the text or its confirmation is invalid, neither is compared with the other (rule P9)."""
    assert slugs(desk.publish(headline=ADDRESS, confirm={"text": "address"}))[2] == [("invalid-value", "/confirm/text")]
    assert slugs(desk.publish(headline="", confirm={"text": ["address"]}))[2] == [("invalid-value", "/headline")]
    assert slugs(desk.cancel(reason=ADDRESS, approval=None))[2] == [
        ("invalid-value", "/approval"),
        ("text-unconfirmed", "/reason"),
    ]


def test_repeated_request_is_accepted_although_a_new_policy_would_refuse_it(desk):
    """Step 6 of the order of decisions comes before step 9 (section 4)."""
    desk.use(a_policy())
    assert desk.publish(area=TWO)[0] == 201
    desk.use(a_policy(hold_area_km2=10))
    assert desk.publish(area=TWO)[0] == 200


def test_alert_is_not_stored_if_the_text_detector_fails(desk, monkeypatch):
    """The error is answered with status 500, and nothing is sent (rule TX4)."""
    monkeypatch.setattr("geocast.policy.pii.PiiDetector.find", lambda self, text: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        desk.publish()
    assert not desk.history()


@pytest.mark.parametrize(
    ("confirm", "pointer"),
    [
        (None, "/confirm"),
        ([], "/confirm"),
        ({"area_km2": 0}, "/confirm/area_km2"),
        ({"area_km2": True}, "/confirm/area_km2"),
        ({"area_km2": 10**400}, "/confirm/area_km2"),
        ({"text": []}, "/confirm/text"),
        ({"text": ["name", "name"]}, "/confirm/text"),
        ({"text": ["people"]}, "/confirm/text/0"),
    ],
    ids=str,
)
def test_malformed_confirmation_is_refused(confirm, pointer, desk):
    """`area_km2` is a number above 0, and `text` has each kind that can be confirmed at most once (rule A21)."""
    answer = slugs(desk.publish(confirm=confirm))
    assert answer[2][0] == ("invalid-value", pointer)
    assert slugs(desk.publish(confirm={"all": True}))[2] == [("unknown-field", "/confirm/all")]


def test_confirmable_kinds_equal_those_of_the_text_detector():
    """The two lists must be equal (rules A21, P24)."""
    assert set(Confirmable.__args__) == KINDS.keys() - NEVER


# ---- stored confirmations -------------------------------------------------------------------------------------


def test_confirmation_is_stored_in_the_log_entry():
    """An entry without a confirmation has the same bytes as in older releases (rule A21)."""
    confirm = Confirm(20_512.0, ("address", "name"))
    plain = a_revision()
    entry = dataclasses.replace(plain, alert=dataclasses.replace(plain.alert, confirm=confirm))
    cancel = dataclasses.replace(a_cancel(), confirm=confirm)
    for each in (entry, cancel):
        assert codec.decode(codec.encode(each), each.id, each.revision, each.ends_at) == each
    assert unpack(entry.id, pack(entry)) == entry
    for each in (plain, a_cancel()):
        assert "confirm" not in msgpack.unpackb(codec.encode(each))
        assert codec.decode(codec.encode(each), each.id, each.revision, each.ends_at) == each
    later = msgpack.packb(msgpack.unpackb(codec.encode(entry)) | {"confirm": {"what": 1}})
    assert codec.decode(later, entry.id, entry.revision, entry.ends_at).alert.confirm == NOTHING_CONFIRMED


# ---- settings of the policy ----------------------------------------------------------------------------------


def test_policy_configures_the_text_detector(tmp_path):
    """A policy may have its own patterns, allowed literals and a region for telephone numbers.

    It may also turn the detector off (rule TX2).
    """
    own = loaded(
        tmp_path,
        'text_region = "CH"\ntext_allow = ["www.city.example"]\ntext_patterns = { units = [\'\\bRTW \\d+\\b\', "x*"] }',
    )
    desk = PublisherHarness(in_force=own)
    answer = desk.publish(headline="RTW 3, 044 668 18 00", description="See www.city.example")
    assert [members["kind"] for _, _, members in details(answer)] == ["units", "phone"]
    assert PublisherHarness(in_force=loaded(tmp_path, 'text = "off"')).publish(headline=ADDRESS)[0] == 201


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('text = "on"', "text: "),
        ('text_region = "UK"', "text_region: is not a region"),
        ('text_region = "us"', "text_region: is not a region"),
        ('text_allow = [""]', "text_allow.0: "),
        ("text_patterns = { units = ['a('] }", "text_patterns.units.0: is not a regular expression: "),
        ("text_patterns = { units = ['" + "a" * 201 + "'] }", "text_patterns.units.0: "),
        ("text_patterns = { units = [" + "'a'," * 51 + "] }", "text_patterns.units: "),
        ("text_patterns = { unit = ['a'] }", "text_patterns: entry 1: its name must be one of address, units"),
    ],
)
def test_invalid_settings_of_the_text_detector_are_refused(tmp_path, text, key):
    """The error at the start names the key (rules TX2, K1)."""
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert key in str(caught.value)


def test_neighbourhood_policy_needs_confirmation_above_2000_km2():
    """The bounds of radii differ by a factor of 200, so P7 refuses a kilometre typed for a metre (rule P23)."""
    built_in = policy.load(None)
    assert {each.hold_area_km2 for each in built_in.categories.values()} == {2_000}
    assert built_in.warnings() == []


def test_policy_with_radius_limits_too_far_apart_gives_a_warning():
    """`max_radius_m` is 1,000 times `min_radius_m` or more (section 3)."""
    assert a_policy(min_radius_m=20, max_radius_m=19_999).warnings() == []
    [warning] = a_policy(min_radius_m=20, max_radius_m=20_000).warnings()
    assert warning.startswith("policy p: robbery: max_radius_m is 1000 times")


def test_policy_that_has_been_used_equals_a_fresh_one():
    """A reload compares the old policy with the new one to see whether anything has changed (rule BA2)."""
    used, fresh = Policy.model_validate(a_policy().model_dump()), a_policy()
    assert used.pii is not None
    assert used == fresh


def test_error_about_an_unneeded_confirmation_says_that_nothing_needs_it():
    """Neither the area nor a text has what was confirmed (rule A21)."""
    [area] = unconfirmed_area(5.0, 10.0, Confirm(area_km2=7.0))
    assert (area.pointer, area.detail) == ("/confirm/area_km2", "must be left out: this area needs no confirmation")
    [text] = unconfirmed_texts(None, [("/headline", "A fire")], Confirm(text=("name",)))
    assert (text.pointer, text.detail) == ("/confirm/text/0", "must be left out: no text reads like this")
