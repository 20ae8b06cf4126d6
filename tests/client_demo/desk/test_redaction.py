"""Tests of redaction: private columns, repetitions of their values, and private patterns are removed."""

import csv

import pytest
from support.cpu import cpu_limit
from support.real_data import dispatch as real

from client_demo.desk.feed_format import ADDRESS, CASE, PHONE, PLACE, UNITS
from client_demo.desk.feeds import SAMPLE, feed_text, read_records
from client_demo.desk.redaction import kept, questions, struck


def told(cells):
    """Return the text of a record that remains after redaction."""
    return " ".join(part.text for cell in cells for part in cell.parts if part.why is None)


@pytest.mark.parametrize(
    ("text", "what", "why"),
    [
        ("Fire at 2000 Block of California St, stay away", "2000 Block of California St", ADDRESS),
        ("Fire at 1420 Elm Street", "1420 Elm Street", ADDRESS),
        ("near 12B N Oak Ave.", "12B N Oak Ave.", ADDRESS),
        ("in apartment 4B", "apartment 4B", ADDRESS),
        ("3 engines are there", "3 engines", UNITS),
        ("Two police cars and a dog", "Two police cars", UNITS),
        ("several fire trucks", "several fire trucks", UNITS),
        ("Engine 31 is there", "Engine 31", UNITS),
        ("Station:STA88", "Station:STA88", UNITS),
        ("call 415-555-0199 now", "415-555-0199", PHONE),
        ("call (415) 555-0199 now", "(415) 555-0199", PHONE),
        ("see case 18-0052973", "case 18-0052973", CASE),
        ("number 18-0052973", "18-0052973", CASE),
    ],
)
def test_private_text_is_questioned_and_removed(text, what, why):
    """The question says what the text reads like."""
    assert [(part.text, part.why) for part in questions(text)] == [(what, why)]
    assert what not in kept(text)


@pytest.mark.parametrize(
    "text",
    [
        "Building on fire in this area. Keep windows closed and stay away.",
        "Keep 100 m away",
        "5th Street is closed",
        "I-95 is closed",
        "2 people are hurt",
        "Call 911",
        "Ladder trucks block the road",
        "Since 14:30, on 2031-05-01",
    ],
)
def test_harmless_words_are_left_alone(text):
    """Reviewers would ignore a desk that questions everything."""
    assert list(questions(text)) == []
    assert kept(text) == text.strip(" .") or kept(text) == text


def test_private_column_is_removed_everywhere_in_the_record():
    """The column's value is not removed inside a longer word."""
    row = {
        "addr": "COTTMAN AVE",
        "desc": "COTTMAN AVE; CHELTENHAM; Station 358;",
        "note": "COTTMAN AVENUES",
        "empty": "",
    }
    cells = struck(row, {"addr": ADDRESS})
    assert [cell.column for cell in cells] == ["addr", "desc", "note"]
    assert [tuple(part) for part in cells[0].parts] == [("COTTMAN AVE", ADDRESS)]
    assert told(cells) == "; CHELTENHAM;  ; COTTMAN AVENUES"


def test_crossing_is_removed_from_records_but_allowed_in_alerts():
    """ "Main St and Elm St" is an address in a feed; in an alert a person decides."""
    assert kept("ALBA RD & NORTH HILLS AVE; UPPER DUBLIN") == "UPPER DUBLIN"
    assert list(questions("Keep away from the corner of Alba Rd & North Hills Ave")) == []


@pytest.mark.parametrize(
    "text", ["a " * 5000, "1 a " * 3000, "9" * 10_000, "one " * 4000, "1 " + "a." * 5000, "case" + " " * 20_000]
)
def test_long_texts_take_little_time(text):
    """Slow patterns could block the desk; `tests/test_patterns.py` looks for more such texts."""
    with cpu_limit(3.0):
        list(questions(text))
        kept(text)


def test_nothing_private_of_the_sample_is_left():
    """The address, unit, case number and exact place of every row are removed."""
    records = read_records(SAMPLE.name, feed_text(SAMPLE))
    with SAMPLE.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            left = told(struck(row, records.format.private))
            private = {row[name] for name in ("address", "unit", "incident", "lat", "lng")} - {""}
            assert not any(value in left for value in private)


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("sf_fire_calls.csv", ("Address", "CallNumber", "IncidentNumber", "RowID", "Location")),
        ("montgomery_pa_911.csv", ("addr", "lat", "lng")),
        ("dallas_active_calls.csv", ("location", "incident_number")),
    ],
)
def test_nothing_private_of_real_records_is_left(name, columns):
    """Free text that repeats the address is covered as well."""
    path = real(name)
    records = read_records(name, feed_text(path))
    for group in records.groups:
        for row in group.rows:
            left = told(struck(row, records.format.private)).casefold()
            for column in columns:
                value = row[column].strip().casefold()
                assert len(value) < 4 or f" {value} " not in f" {left} ", (column, records.format.private.get(column))


def test_every_private_column_has_a_label():
    """The label is shown beside the removed part."""
    records = read_records(SAMPLE.name, feed_text(SAMPLE))
    assert set(records.format.private.values()) == {ADDRESS, UNITS, CASE, PLACE}
