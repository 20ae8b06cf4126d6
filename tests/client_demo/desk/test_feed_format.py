"""Tests of feed formats: a short TOML file describes a feed, and each error in it is reported in one line."""

import csv
import json
import re
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cpu import cpu_limit
from support.real_data import dispatch

from client_demo.desk.feed_format import (
    ADDRESS,
    CASE,
    FOLDER,
    MOST_PATTERNS,
    PLACE,
    FeedError,
    PlaceColumns,
    Time,
    known_formats,
    lacking,
    read_format,
)
from client_demo.desk.feeds import MOST_CHARACTERS, SAMPLE, feed_text, read_records
from client_demo.python.times import format_time

ROOT = Path(__file__).parents[3]
TIME = 'time = { column = "at", format = "%Y-%m-%d %H:%M", zone = "Europe/Berlin" }'
PLAIN = f'title = "A city"\nnature = "what"\n{TIME}\n'
CATEGORIES = '[categories]\n"Fire" = "fire_structure"\n'
REAL = ("dallas_active_calls.csv", "montgomery_pa_911.csv", "sf_fire_calls.csv")


def described(folder, text):
    path = folder / "my-city.toml"
    path.write_text(text, encoding="utf-8")
    return read_format(path)


def meaning(folder, **natures):
    lines = "\n".join(f"{json.dumps(nature)} = {json.dumps(key)}" for nature, key in natures.items())
    return described(folder, f"{PLAIN}[categories]\n{lines}\n").means


# ---- known feeds -------------------------------------------------------------------------------------------------


def test_each_known_feed_is_recognized_by_its_columns():
    """No other known feed has all of its columns."""
    kinds = known_formats()
    assert {kind.name for kind in kinds} == {path.stem for path in FOLDER.glob("*.toml")}
    assert len(kinds) == 4
    for kind in kinds:
        assert [other.name for other in kinds if lacking(other, set(kind.needed)) is None] == [kind.name]


@pytest.mark.parametrize("name", REAL)
def test_real_feed_is_read_alike_with_and_without_a_description(name):
    """Each incident has a time, and each row belongs to one incident."""
    text = feed_text(dispatch(name))
    found = read_records(name, text)
    described = read_records("any.csv", text, found.format)
    assert [group.incident for group in found.groups] == [group.incident for group in described.groups]
    rows = list(csv.DictReader(StringIO(text)))
    assert sorted(map(str, rows)) == sorted(str(row) for group in found.groups for row in group.rows)
    assert found.empty == 0
    for group in found.groups:
        assert group.incident.nature in str(group.rows[0][found.format.told.nature.column])
        assert group.incident.occurred_at is not None


def test_real_places_equal_the_numbers_of_the_record():
    """Both forms are read: two columns, and one column with both numbers."""
    for name in ("montgomery_pa_911.csv", "sf_fire_calls.csv"):
        for group in read_records(name, feed_text(dispatch(name))).groups:
            written = str([group.rows[0].get(column) for column in ("lat", "lng", "Location")])
            if group.incident.lat is not None:
                numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*", written)]
                assert numbers == [group.incident.lat, group.incident.lng]


# ---- the documented example --------------------------------------------------------------------------------------


def test_documented_example_has_ten_lines_and_works(tmp_path):
    """The example describes the records printed beside it."""
    text = (ROOT / "docs" / "guide" / "review-desk.md").read_text("utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (records,) = re.findall(r"```csv\n(.*?)```", text, re.DOTALL)
    assert len(example.splitlines()) <= 10
    kind = described(tmp_path, example)
    found = read_records("calls.csv", records, kind)
    first, second = (group.incident for group in found.groups)
    assert (first.means, format_time(first.occurred_at)) == ("fire_structure", "2026-03-14T23:05:00.000Z")
    assert (first.lat, first.lng) == (39.79, -89.65)
    assert len(found.groups[0].rows) == 2
    assert second.means == "robbery"
    assert kind.private["block"] == ADDRESS


# ---- natures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nature", "means"),
    [
        ("STRUCTURE FIRE", "fire_structure"),
        ("Structure Fire", "fire_structure"),
        ("STRUCTURE FIRE, 2 ALARMS", "fire_minor"),
        ("ARMED ROBBERY", "robbery"),
        ("ROBBERY", "robbery"),
        ("ROBBERY ALARM", "robbery"),
        ("BURG 1", "burglary"),
        ("BURG X", "theft"),
        ("A*B", "arson"),
        ("AXB", "assault"),
        ("Structure", ""),
        ("", ""),
    ],
)
def test_nature_gets_the_category_of_its_first_matching_entry(tmp_path, nature, means):
    """Exact words come before patterns, and patterns are tried in order; case does not matter."""
    table = {
        "STRUCTURE FIRE*": "fire_minor",
        "Structure fire": "fire_structure",
        "*ROBBERY*": "robbery",
        "BURG [0-9]": "burglary",
        "BURG ?": "theft",
        "A*": "assault",
        "A*B": "arson",
    }
    assert meaning(tmp_path, **table)(nature) == means


@given(nature=st.text(max_size=30))
def test_nature_without_an_entry_has_no_category(nature):
    (sample,) = (kind for kind in known_formats() if kind.name == "sample")
    listed = {each.casefold(): key for each, key in sample.told.categories.items()}
    assert sample.means(nature) == listed.get(nature.casefold(), "")


def test_many_patterns_on_a_long_nature_take_little_time(tmp_path):
    """The time grows with the length of the text only, whatever the pattern is."""
    table = {"*a" * 40 + f"*{n}": "robbery" for n in range(MOST_PATTERNS)}
    means = meaning(tmp_path, **table)
    with cpu_limit(2.0):
        assert means("a" * MOST_CHARACTERS) == ""


# ---- times and places --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "zone", "text", "time"),
    [
        ("%m/%d/%Y %I:%M %p", "America/Chicago", "07/04/2026 01:30 PM", "2026-07-04T18:30:00.000Z"),
        ("%m/%d/%Y %I:%M %p", "America/Chicago", "12/24/2026 01:30 PM", "2026-12-24T19:30:00.000Z"),
        ("%d.%m.%Y %H:%M", "Europe/Berlin", "04.07.2026 20:30", "2026-07-04T18:30:00.000Z"),
        ("%Y%m%d%H%M%S%z", "", "20260704133000-0500", "2026-07-04T18:30:00.000Z"),
        ("iso", "America/Chicago", "2026-07-04T13:30:00.000", "2026-07-04T18:30:00.000Z"),
        ("iso", "America/Chicago", "2026-07-04T18:30:00Z", "2026-07-04T18:30:00.000Z"),
        ("unix_s", "", "1783189800", "2026-07-04T18:30:00.000Z"),
        ("unix_ms", "", 1783189800000, "2026-07-04T18:30:00.000Z"),
        *((form, "UTC", text, None) for form in ("iso", "unix_s", "%Y-%m-%d") for text in ("", "x", "nan", "9" * 400)),
    ],
)
def test_time_is_read_in_its_form_and_zone(form, zone, text, time):
    """Daylight saving time is respected; a text in another form gives no time."""
    at = Time(column="at", format=form, zone=zone).of({"at": text})
    assert (at if at is None else format_time(at)) == time


@pytest.mark.parametrize(
    ("order", "text", "where"),
    [
        ("lat lng", "(37.7, -122.4)", (37.7, -122.4)),
        ("lat lng", "37.7,-122.4", (37.7, -122.4)),
        ("lng lat", "POINT (-122.4 37.7)", (37.7, -122.4)),
        ("lng lat", str({"type": "Point", "coordinates": [-122.4, 37.7]}), (37.7, -122.4)),
        ("lat lng", "10 Block of 5 St", None),
        ("lat lng", "POINT (-122.4 37.7)", None),
        ("lat lng", "(0, 0)", None),
        ("lat lng", "(37.7, )", None),
        ("lat lng", "", None),
        ("lat lng", None, None),
    ],
)
def test_one_column_may_hold_latitude_and_longitude(order, text, where):
    """Any other text in the column, such as an address, gives no place."""
    assert PlaceColumns(column="at", order=order).of({"at": text}) == where


def test_number_and_place_are_private_without_being_listed(tmp_path):
    more = 'number = "case"\nplace = { lat = "y", lng = "x" }\nprivate = { address = "street" }\n'
    kind = described(tmp_path, PLAIN + more + CATEGORIES)
    assert kind.private == {"case": CASE, "y": PLACE, "x": PLACE, "street": ADDRESS}


def test_records_without_a_number_are_grouped_by_nature(tmp_path):
    """JSON's null is not the number "None", and a missing column is an empty one."""
    kind = described(tmp_path, f'{PLAIN}number = "case"\n{CATEGORIES}')
    rows = [
        {"what": "Fire", "at": "2026-01-01 10:00", "case": "7"},
        {"what": "Flood", "at": "2026-01-01 10:01", "case": None},
        {"what": "Fire", "at": "2026-01-01 10:02"},
        {"remark": "no incident"},
    ]
    found = read_records("calls.json", json.dumps(rows), kind)
    assert [(group.incident.nature, group.is_numbered) for group in found.groups] == [
        ("Fire", True),
        ("Flood", False),
        ("Fire", False),
    ]
    assert found.empty == 1


# ---- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("title = ", "is not TOML"),
        ("", "title: is missing; nature: is missing; time: is missing (and 1 more)"),
        (PLAIN + 'natur = "x"\n' + CATEGORIES, 'there is no key "natur": did you mean "nature"?'),
        (PLAIN + "xyz = 1\n" + CATEGORIES, 'there is no key "xyz": expected one of title, nature, time'),
        (
            PLAIN.replace("format", "formt") + CATEGORIES,
            'time.format: is missing; there is no key "time.formt": did you mean "format"?',
        ),
        (PLAIN.replace('"what"', "7") + CATEGORIES, "nature: expected a table"),
        (PLAIN.replace('"A city"', "7") + CATEGORIES, "title: expected a text"),
        (PLAIN.replace('"A city"', '""') + CATEGORIES, "title: expected a text that is not empty"),
        (PLAIN.replace("%Y-%m-%d %H:%M", "%H:%M") + CATEGORIES, "time.format: expected"),
        (PLAIN.replace("%H:%M", "%I:%M") + CATEGORIES, "(%I needs %p)"),
        (PLAIN.replace("%H:%M", "%Q") + CATEGORIES, "time.format: expected"),
        (PLAIN.replace("Europe/Berlin", "Europe/Berln") + CATEGORIES, "time.zone: expected a time zone of the IANA"),
        (PLAIN.replace("Europe/Berlin", "Europe/Berln") + CATEGORIES, '"Europe/Berlin"'),
        (PLAIN.replace("Europe/Berlin", "Europe") + CATEGORIES, "time.zone: expected a time zone"),
        (PLAIN.replace("Europe/Berlin", "../etc/passwd") + CATEGORIES, "time.zone: expected a time zone"),
        (PLAIN.replace(', zone = "Europe/Berlin"', "") + CATEGORIES, "time: zone is missing"),
        (PLAIN + 'place = { lat = "y" }\n' + CATEGORIES, "place: expected lat and lng"),
        (PLAIN + 'place = { column = "p" }\n' + CATEGORIES, "place: expected lat and lng"),
        (PLAIN + 'private = { address = "what" }\n' + CATEGORIES, "nature is told, so its column can't be private"),
        (
            PLAIN + 'private = { adress = "x" }\n' + CATEGORIES,
            'there is no key "private.adress": did you mean "address"?',
        ),
        (PLAIN + '[categories]\n"Fire" = "Fire!"\n', "categories.Fire: expected the key of a category"),
        (PLAIN + '[categories]\n"Fire" = "a"\n"FIRE" = "b"\n', "categories: expected each nature once"),
        (PLAIN + "[categories]\n" + "".join(f'"{n}*" = "a"\n' for n in range(101)), "categories: expected at most 100"),
    ],
)
def test_error_in_a_description_is_one_line(tmp_path, text, line):
    """The line names the file, the key and the expected value."""
    with pytest.raises(FeedError) as refusal:
        described(tmp_path, text)
    assert line in str(refusal.value)
    assert str(tmp_path / "my-city.toml") in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_missing_or_binary_description_is_refused(tmp_path):
    with pytest.raises(FeedError, match="can't be read"):
        read_format(tmp_path / "absent.toml")
    (tmp_path / "image.toml").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(FeedError, match="not TOML"):
        read_format(tmp_path / "image.toml")


def test_missing_column_is_reported_with_the_nearest_one(tmp_path):
    """The error also names the key that refers to the column."""
    kind = described(tmp_path, PLAIN.replace('"what"', '"natur"') + CATEGORIES)
    with pytest.raises(
        FeedError, match=r'sample_feed.csv has no column "natur", which nature names: did you mean "nature"'
    ):
        read_records(SAMPLE.name, feed_text(SAMPLE), kind)
    with pytest.raises(FeedError, match='has no column "at", which time names: did you mean "lat"'):
        read_records(SAMPLE.name, feed_text(SAMPLE).replace("incident,", "natur,", 1), kind)
