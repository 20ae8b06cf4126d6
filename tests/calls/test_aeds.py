"""Defibrillators: which records of a file are used, which are near, which is fetched, and what is sent."""

import json
import logging
import math
import random

import msgpack
import pytest
from support import real_data

from geocast.calls import aeds
from geocast.calls.aeds import NO_AEDS, Aed, Aeds, fetch_of, read_aeds
from geocast.model.errors import ConfigError

SPOT = {"lat": 47.5, "lon": 8.5}
TAGS = {"emergency": "defibrillator", "opening_hours": "24/7"}


def element(number=7, tags=(), **more):
    """Return an element of Overpass that is open at all hours, with these changes."""
    return {"type": "node", "id": number, **SPOT, "tags": {**TAGS, **dict(tags)}, **more}


def feature(name="a-7", coordinates=(8.5, 47.5), **properties):
    """Return a feature of GeoJSON."""
    geometry = {"type": "Point", "coordinates": coordinates}
    return {"type": "Feature", "id": name, "geometry": geometry, "properties": {**TAGS, **properties}}


def written(tmp_path, content):
    """Write a file with these elements, features, or other content."""
    path = tmp_path / "aeds.json"
    if isinstance(content, list):
        of_geojson = content and content[0].get("type") == "Feature"
        content = {"type": "FeatureCollection", "features": content} if of_geojson else {"elements": content}
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def only(tmp_path, record):
    """Return the one defibrillator of a file with this record."""
    [found] = read_aeds(written(tmp_path, [record])).near(47.5, 8.5, 100)
    return found


def left_out(tmp_path, caplog, *records):
    """Read a file with these records and a valid one. Return the logged reasons for skipped records, each once."""
    caplog.set_level(logging.INFO)
    good = feature("good") if records[0].get("type") == "Feature" else element(99)
    path = written(tmp_path, [*records, good])
    found = read_aeds(path)
    assert (len(found), found.unusable) == (1, len(records))
    return [line.removeprefix(f"aeds {path}: ") for line in caplog.messages]


def refused(tmp_path, content):
    """Return the error text for a file that can't be used."""
    path = written(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        read_aeds(path)
    return str(caught.value).removeprefix(f"aeds {path}: ")


# ---- records that are used and skipped -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hours", "is_open"),
    [
        ("24/7", True),
        (" 24/7 ", True),
        (None, None),
        ("", None),
        ("24/7; PH off", None),
        ("Mo-Su 00:00-24:00", None),
        ("Mo-Fr 08:00-18:00; Sa 09:00-12:00; PH off", None),
        ('24/7 "ring the bell"', None),
        ("sunrise-sunset", None),
        ("unknown", None),
        ("closed on Sundays", None),
        ("Jan-Mar off", None),
        (247, None),
    ],
)
def test_defibrillator_is_known_to_be_open_only_if_its_hours_are_24_7(tmp_path, hours, is_open):
    """With other opening hours, the record is used, but `open` is None (RI1)."""
    found = only(tmp_path, element(tags={"opening_hours": hours}))
    assert found.open is is_open
    assert found.to_map(with_code=False)["open"] is is_open


@pytest.mark.parametrize("hours", ["off", "closed", "24/7 off", "24/7 closed", 'closed "repair"', 'Off "moved"', "OFF"])
def test_closed_defibrillator_is_left_out(tmp_path, caplog, hours):
    """OpenStreetMap has several notations for "never open" (RI1)."""
    assert left_out(tmp_path, caplog, element(tags={"opening_hours": hours})) == [
        "1 record(s) skipped (number 0): is closed according to its opening_hours"
    ]


@pytest.mark.parametrize("access", [None, "yes", "permissive", "customers", "PUB", "7/24", "unknown", "privately", 1])
def test_defibrillator_with_access_other_than_no_or_private_is_used(tmp_path, access):
    """Mappers write many values of `access` (RI1)."""
    assert only(tmp_path, element(tags={"access": access})).id == "node/7"


@pytest.mark.parametrize("access", ["no", "private", "Private", " no ", False])
def test_private_defibrillator_is_left_out(tmp_path, caplog, access):
    """No warning is logged, because correct files have such records (RI1)."""
    said = left_out(tmp_path, caplog, feature(access=access))
    assert said == ["1 record(s) skipped (number 0): its access is no or private"]
    assert {record.levelno for record in caplog.records} == {logging.INFO}


PLACES = [
    {"lat": None, "lon": None},
    {"lat": "47.5", "lon": "8.5"},
    {"lat": 47.5, "lon": None},
    {"lat": 90.01, "lon": 8.5},
    {"lat": 47.5, "lon": 180.5},
    {"lat": True, "lon": 8.5},
    {"lat": [47.5], "lon": 8.5},
    {"lat": 10**400, "lon": 8.5},
]


@pytest.mark.parametrize("spot", PLACES, ids=str)
def test_defibrillator_record_without_valid_coordinates_is_left_out(tmp_path, caplog, spot):
    """Missing and impossible coordinates are treated alike (RI1, RI4)."""
    said = left_out(tmp_path, caplog, {**element(), **spot})
    assert said == [
        "1 record(s) skipped (number 0): must have coordinates: a latitude of -90 to 90, a longitude of -180 to 180"
    ]


@pytest.mark.parametrize(
    "geometry",
    [
        None,
        {"type": "Point"},
        {"type": "Point", "coordinates": [8.5]},
        {"type": "Point", "coordinates": {"lng": 8.5, "lat": 47.5}},
        {"type": "LineString", "coordinates": [[8.5, 47.5], [8.6, 47.5]]},
        {"type": "Point", "coordinates": [47.5, 98.5]},
    ],
)
def test_geojson_feature_without_a_point_is_left_out(tmp_path, caplog, geometry):
    """A feature with swapped coordinates is skipped as well, if the swap can be seen (RI1)."""
    [said] = left_out(tmp_path, caplog, {**feature(), "geometry": geometry})
    assert "must have coordinates" in said


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (element(tags={"emergency": "phone"}), "is not tagged emergency=defibrillator"),
        ({"type": "node", "id": 8, **SPOT}, "is not tagged emergency=defibrillator"),  # it draws a way
        ({**element(), "tags": {"disused:emergency": "defibrillator"}}, "is not tagged emergency=defibrillator"),
        ({**element(), "tags": ["emergency"]}, "must be an object, and its tags"),
        ({**element(), "id": None}, "must have an id"),
        ({**element(), "type": "changeset"}, "must have an id"),
        ({**element(), "id": True}, "must have an id"),
        (element(99), "an earlier record has the same id"),
        (feature(emergency="fire_hydrant"), "is not tagged emergency=defibrillator"),
        (feature(name="with blanks in it"), "must have an id"),
        (feature(name=None), "must have an id"),
        (feature(name="x" * 129), "must have an id"),
        ({**feature(), "properties": 5}, "must be an object, and its tags"),
        ({**feature(), "geometry": [8.5, 47.5]}, "must be an object, and its tags"),
    ],
)
def test_malformed_record_is_left_out_and_its_number_is_logged(tmp_path, caplog, record, why):
    """Numbers start at 0, the other records are used, and no content is logged (RI4)."""
    good = feature("good") if record.get("type") == "Feature" else element(99)
    path = written(tmp_path, [good, record])
    found = read_aeds(path)
    assert (len(found), found.unusable) == (1, 1)
    [line] = caplog.messages
    assert line.startswith(f"aeds {path}: 1 record(s) skipped (number 1): {why}")


def test_records_with_the_same_fault_are_logged_in_one_line(tmp_path, caplog):
    """The line has the count and the numbers of the first records (RI4)."""
    said = left_out(tmp_path, caplog, *[element(None)] * 12, element(tags={"access": "no"}))
    assert said[0].startswith("12 record(s) skipped (number 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …): must have an id")
    assert said[1] == "1 record(s) skipped (number 12): its access is no or private"


# ---- files of defibrillators ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON (line 1)"),
        (b'{"elements": [\n{"type": }]}', "is not JSON (line 2)"),
        (b'{"elements": [{"lat": NaN}]}', "is not readable JSON"),
        (b"[" * 100_000, "is not readable JSON"),
        (b'{"elements": [' + b"1" * 5_000 + b"]}", "is not readable JSON"),
        ("größe".encode("latin-1"), "is not in UTF-8"),
        (b"<osm/>", "is not JSON (line 1)"),
        (b"[]", "must be a FeatureCollection (GeoJSON), or have `elements` (Overpass JSON)"),
        (b"{}", "must be a FeatureCollection (GeoJSON), or have `elements` (Overpass JSON)"),
        ({"type": "Feature"}, "must be a FeatureCollection (GeoJSON), or have `elements` (Overpass JSON)"),
        ({"type": "FeatureCollection"}, "must be a FeatureCollection (GeoJSON), or have `elements` (Overpass JSON)"),
        ({"elements": {}}, "must be a FeatureCollection (GeoJSON), or have `elements` (Overpass JSON)"),
        ({"elements": []}, "has no defibrillator that can be used, of 0 records"),
        ([element(tags={"access": "no"})], "has no defibrillator that can be used, of 1 records"),
    ],
)
def test_unusable_file_raises_config_error(tmp_path, content, said):
    """The text names the file and what was expected (RI4, K1)."""
    assert refused(tmp_path, content) == said


def test_missing_file_raises_config_error(tmp_path):
    """The text names the file and the error of the operating system (K1)."""
    with pytest.raises(ConfigError, match="No such file"):
        read_aeds(tmp_path / "nowhere.json")


def test_incomplete_overpass_answer_raises_config_error(tmp_path):
    """If a query times out, Overpass returns a part that looks like a complete file (RI4)."""
    remark = 'runtime error: Query timed out in "query" at line 3 after 26 seconds.'
    assert "is incomplete" in refused(tmp_path, {"elements": [element()], "remark": remark})


def test_geojson_and_overpass_give_the_same_defibrillators(tmp_path):
    """In GeoJSON, tags are properties, or are in one property (RI1, RI3)."""
    tags = {"defibrillator:location": "Foyer", "level": "-1", "indoor": "yes", "defibrillator:code": "2580"}
    wanted = Aed("node/7", 47.5, 8.5, "Foyer", "-1", True, True, "2580")
    for record in (
        element(tags=tags),
        feature("node/7", **tags),
        feature("node/7", (8.5, 47.5, 431.0), tags=tags | TAGS),
        {**feature(**tags, **{"@id": "node/7"}), "id": "node/7"},
    ):
        assert only(tmp_path, record) == wanted
    by_property = feature(**tags, **{"@id": "node/7"})
    del by_property["id"]
    assert only(tmp_path, by_property) == wanted


def test_overpass_way_uses_its_center_and_numeric_geojson_id_is_accepted(tmp_path):
    """Overpass adds a `center` to ways, and GeoJSON ids may be numbers (RI1)."""
    way = {"type": "way", "id": 5, "center": SPOT, "nodes": [1, 2], "tags": TAGS}
    assert only(tmp_path, way).id == "way/5"
    assert only(tmp_path, feature(12)).id == "12"


# ---- fields that are sent ------------------------------------------------------------------------------------


def test_dict_of_a_defibrillator_has_the_documented_fields(tmp_path):
    """Only the responder who fetches it is sent the code. Unknown fields are omitted, except `open` (RI3)."""
    tags = {"defibrillator:location": "Foyer", "name": "Town hall", "level": 2, "indoor": "no"}
    found = only(tmp_path, element(tags={**tags, "defibrillator:code": "C19#"}))
    told = {"id": "node/7", "lat": 47.5, "lng": 8.5, "where": "Foyer", "level": "2", "indoor": False, "open": True}
    assert found.to_map(with_code=False) == told
    assert found.to_map(with_code=True) == {**told, "code": "C19#"}
    bare = only(tmp_path, element(tags={"opening_hours": None}))
    assert bare.to_map(with_code=True) == {"id": "node/7", "lat": 47.5, "lng": 8.5, "open": None}


def test_name_of_defibrillator_is_used_if_its_location_is_missing(tmp_path):
    """The name then says where the defibrillator is (RI3)."""
    assert only(tmp_path, element(tags={"name": "Town hall"})).where == "Town hall"
    assert only(tmp_path, element(tags={"name": "Town hall", "defibrillator:location": " "})).where == "Town hall"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("one\ntwo\t three\u00a0", "one two three"),
        ("\u202egnorw\u0000", "gnorw"),
        ("half \ud800 a pair", "half a pair"),
        ("x" * 300, "x" * 255),
        ("\u200b\u200b", None),
        (["Foyer"], None),
        ("Left. At night ring +41 (0)32 358-09.80 first", "Left. At night ring … first"),
        ("Halle 3, 2. Stock, seit 2019", "Halle 3, 2. Stock, seit 2019"),
    ],
)
def test_location_text_of_defibrillator_is_one_printable_line(tmp_path, given, told):
    """It has no control characters, lone surrogates or telephone numbers, and at most 255 characters (RI3)."""
    found = only(tmp_path, element(tags={"defibrillator:location": given}))
    assert found.where == told
    assert msgpack.unpackb(msgpack.packb(found.to_map(with_code=True)))["id"] == "node/7"


def test_code_or_level_that_is_too_long_is_dropped(tmp_path):
    """The limit is 32 characters (RI3)."""
    found = only(tmp_path, element(tags={"defibrillator:code": "1" * 33, "level": "y" * 33, "indoor": "wall"}))
    assert (found.code, found.level, found.indoor) == (None, None, None)


# ---- nearby defibrillators, and the one to fetch -------------------------------------------------------------


def at(name, lat, lng, is_open=True, code=None):
    """Return a defibrillator at this place."""
    return Aed(name, lat, lng, None, None, None, is_open or None, code)


def test_search_returns_three_defibrillators_with_open_ones_first():
    """Those with unknown hours come after those that are open, however near they are (RI1, RI2)."""
    north = [at(f"n{n}", 47.0 + n / 1000, 8.0) for n in range(1, 6)]
    unsure = at("unsure", 47.0, 8.0, is_open=False)
    there = Aeds([*reversed(north), unsure])
    assert [aed.id for aed in there.near(47.0, 8.0, 800)] == ["n1", "n2", "n3"]
    assert [aed.id for aed in there.near(47.0, 8.0, 240)] == ["n1", "n2", "unsure"]
    assert [aed.id for aed in there.near(47.0, 8.0, 0)] == ["unsure"]
    assert there.near(48.0, 8.0, 800) == []


@pytest.mark.parametrize("spot", [(90.0, 0.0), (-90.0, 77.0), (0.0, 180.0), (0.0, -180.0), (65.0, 179.9999)])
def test_search_works_across_the_antimeridian_and_at_the_poles(spot):
    """The search needs no special cases there (RI2)."""
    lat, lng = spot
    there = Aeds(
        [at("here", lat - math.copysign(0.002, lat), lng), at("beyond", lat, lng - 360 if lng > 0 else 179.999)]
    )
    found = {aed.id for aed in there.near(lat, lng, 300)}
    assert "here" in found
    assert ("beyond" in found) == (abs(lat) == 90 or abs(lng) > 179)


def test_search_returns_nothing_if_no_defibrillator_is_within_range():
    """A node without a file of defibrillators has none to search (RI2)."""
    assert len(NO_AEDS) == 0
    assert NO_AEDS.near(47.0, 8.0, 5_000) == []
    assert fetch_of([], (47.0, 8.0), (47.1, 8.0), ()) is None


def test_defibrillator_with_the_shortest_detour_is_chosen_to_be_fetched():
    """The way leads from the responder past the defibrillator to the patient.

    One that somebody else fetches is not chosen (RI2).
    """
    patient, responder = (47.000, 8.0), (47.006, 8.0)
    beyond, near, on_the_way = at("beyond", 46.999, 8.0), at("near", 47.0005, 8.004), at("on the way", 47.005, 8.0)
    three = [beyond, near, on_the_way]
    assert fetch_of(three, responder, patient, ()) == 2
    assert fetch_of(three, responder, patient, {"on the way"}) == 0
    assert fetch_of(three, responder, patient, {"on the way", "beyond"}) == 1
    assert fetch_of(three, responder, patient, {"on the way", "beyond", "near"}) is None


# ---- real defibrillators -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swiss():
    """1,550 defibrillators of Switzerland from Overpass: the path of the file, and its elements."""
    path = real_data.aed("switzerland_osm_aed")
    return path, json.loads(path.read_text("utf-8"))["elements"]


def haversine_m(lat1, lng1, lat2, lng2):
    """Return the distance by another formula than the server's, on the same sphere."""
    p1, p2, half = math.radians(lat1), math.radians(lat2), math.radians(lng2 - lng1) / 2
    a = math.sin((p2 - p1) / 2) ** 2 + math.cos(p1) * math.cos(p2) * math.sin(half) ** 2
    return 2 * 6_371_007.180918475 * math.asin(math.sqrt(a))


def test_eight_private_defibrillators_of_a_real_file_are_skipped(swiss, caplog):
    """The file has seven values of `access`, and two of them exclude eight records (RI1, RI4)."""
    path, elements = swiss
    caplog.set_level(logging.INFO)
    found = read_aeds(path)
    private = [n for n, each in enumerate(elements) if each["tags"].get("access") in ("no", "private")]
    assert (len(found), found.unusable, len(private)) == (len(elements) - 8, 8, 8)
    assert caplog.messages == [
        f"aeds {path}: 8 record(s) skipped (number {', '.join(map(str, private))}): its access is no or private"
    ]


def test_search_result_equals_that_of_a_search_of_all_real_defibrillators(swiss):
    """2,000 places in and between towns, compared with a search by haversine (RI1, RI2)."""
    path, elements = swiss
    found, dice = read_aeds(path), random.Random(8)
    usable = [
        (f"node/{e['id']}", e["lat"], e["lon"]) for e in elements if e["tags"].get("access") not in ("no", "private")
    ]
    hits = 0
    for _ in range(2_000):
        _, lat, lng = dice.choice(usable)
        lat, lng, within_m = lat + dice.gauss(0, 0.01), lng + dice.gauss(0, 0.01), dice.uniform(0, 5_000)
        close = [each for each in usable if abs(each[1] - lat) < 0.05]  # 5.5 km and more are out of reach
        distances = sorted((haversine_m(lat, lng, each[1], each[2]), each[0]) for each in close)
        wanted = [name for metres, name in distances if metres <= within_m][:3]
        assert [aed.id for aed in found.near(lat, lng, within_m)] == wanted
        hits += len(wanted)
    assert hits > 2_000


def test_other_tags_of_real_defibrillators_are_never_sent(swiss, tmp_path):
    """Changing all other tags changes nothing that is sent, and no telephone number is sent (RI3)."""
    path, elements = swiss
    told = {"emergency", "access", "opening_hours", "defibrillator:location", "name", "level", "indoor"}
    other = [
        {**each, "tags": {k: v if k in told else f"SECRET-{v}" for k, v in each["tags"].items()}} for each in elements
    ]
    changed = sum(a != b for a, b in zip(elements, other, strict=True))
    assert changed > 1_500
    everywhere = [aed.to_map(with_code=True) for aed in read_aeds(path)]
    assert everywhere == [aed.to_map(with_code=True) for aed in read_aeds(written(tmp_path, other))]
    assert set().union(*everywhere) == {"id", "lat", "lng", "where", "level", "indoor", "open"}
    numbers = {digits_of(each["tags"].get("phone", "")) for each in elements} - {""}
    assert len(numbers) > 300
    sent = [digits_of(aed.get("where", ""), None) for aed in everywhere]
    assert [number for number in numbers for digits in sent if number in digits] == []


def digits_of(text, last=9):
    """Return the digits of a text.

    By default only the last nine are returned, since telephone numbers have several notations.
    """
    digits = "".join(filter(str.isdigit, text))
    return digits if last is None else digits[-last:] * (len(digits) >= last)


def test_search_among_a_hundred_thousand_defibrillators_finds_the_nearest():
    """The result equals that of a search of all defibrillators (RI2)."""
    dice = random.Random(3)
    many = [at(str(n), dice.uniform(36, 70), dice.uniform(-10, 40)) for n in range(100_000)]
    there = Aeds(many)
    for each in dice.sample(many, 20):
        lat, lng = each.lat + 0.005, each.lng
        near = ((haversine_m(lat, lng, a.lat, a.lng), a.id) for a in many if abs(a.lat - lat) < 0.06)
        wanted = [name for metres, name in sorted(near) if metres <= 5_000][:3]
        assert [aed.id for aed in there.near(lat, lng, 5_000)] == wanted


def test_defibrillators_with_the_longest_texts_fit_into_a_task():
    """This holds whatever the file contains."""
    assert aeds.MOST * 4 * (aeds.MAX_WHERE + 2 * aeds.MAX_SHORT + 128) < 16 * 1024
