"""Tests of which dispatch records are calls for help, with real records of a county and a few invented ones."""

import csv
import io

import pytest
from support.real_data import dispatch

from client_demo.desk.feeds import feed_text, read_records
from client_demo.dispatch.records import MOST_RECORDS, area_of, calls_for_help

COLUMNS = ("incident", "reported_at", "nature", "lat", "lng", "address", "unit")
CALLS = ["cardiac_arrest"]


def feed(*rows):
    """Return a feed with these natures, places and addresses, one second apart."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for number, (nature, lat, lng, address) in enumerate(rows):
        at = f"2031-05-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}Z"
        writer.writerow([f"N-{number}", at, nature, lat, lng, address, "Medic 1"])
    return read_records("feed.csv", text.getvalue())


def the_one(*row):
    """Return the call read from a feed of one record, or None."""
    return next(iter(calls_for_help(feed(row), CALLS)), None)


def test_countys_cardiac_arrests_are_calls_except_without_a_location():
    """All twelve are found for any service.

    A cardiac emergency is no call, and no record has a kind of place (rule RY6).
    """
    path = dispatch("montgomery_pa_911.csv")
    found = calls_for_help(read_records(path.name, feed_text(path)), CALLS)
    assert len(found) == 12
    assert {record.nature for record in found} == {"CARDIAC ARREST"}
    assert any("BARTMAN" in record.address for record in found)  # this record's title starts with `Fire:`
    (nowhere,) = [record for record in found if record.obstacle]
    assert nowhere.address.startswith("NO LOCATION")
    assert nowhere.lat is not None  # the centre of the county
    assert all(record.lat and record.lng and record.address and not record.status for record in found)
    assert [record.recorded_at for record in found] == sorted((record.recorded_at for record in found), reverse=True)


@pytest.mark.parametrize(("nature", "status"), [("TEST", "test"), ("TRNG", "exercise"), ("Training", "exercise")])
def test_drill_record_has_its_status_and_no_category(nature, status):
    """The dispatcher has to choose the category."""
    record = the_one(nature, 1.0, 2.0, "")
    assert (record.status, record.category, record.obstacle) == (status, "", "")


@pytest.mark.parametrize(
    ("row", "obstacle"),
    [
        (("Cardiac arrest", "", "", "Copper Gate"), "no coordinates"),
        (("Cardiac arrest", "0", "0", "Copper Gate"), "no coordinates"),
        (("Cardiac arrest", "91", "2", "Copper Gate"), "no coordinates"),
        (("Cardiac arrest", "1", "2", "no location given"), "no location"),
    ],
)
def test_record_without_a_place_has_an_obstacle(row, obstacle):
    """The record is shown all the same."""
    assert obstacle in the_one(*row).obstacle


@pytest.mark.parametrize("nature", ["Cardiac emergency", "Cardiac arrest?", "Medical, fall", ""])
def test_other_nature_is_no_call(nature):
    assert the_one(nature, 1.0, 2.0, "Copper Gate") is None


def test_category_missing_from_the_policy_is_no_call():
    """The node would refuse such a call (rule RO1)."""
    assert not calls_for_help(feed(("Cardiac arrest", 1.0, 2.0, "")), ["choking"])


def test_newest_records_are_shown_up_to_a_limit():
    rows = [("Cardiac arrest", 1.0 + n / 1000, 2.0, f"Street {n}") for n in range(MOST_RECORDS + 5)]
    found = calls_for_help(feed(*rows), CALLS)
    assert len(found) == MOST_RECORDS
    assert found[0].address == f"Street {MOST_RECORDS + 4}"


def test_area_of_a_feed_leaves_out_the_outermost_places():
    """One wrong place among many does not make the map show the world."""
    around = [("Fire", 40.0 + n / 1000, -75.0 - n / 1000, "") for n in range(100)]
    south_west, north_east = area_of(feed(("Fire", -40.0, 75.0, ""), ("Fire", "", "", ""), *around))
    assert 40 <= south_west["lat"] < north_east["lat"] <= 40.1
    assert -75.1 <= south_west["lng"] < north_east["lng"] <= -75


def test_area_of_a_feed_without_places_is_empty():
    assert area_of(feed(("Fire", "", "", ""))) == []
