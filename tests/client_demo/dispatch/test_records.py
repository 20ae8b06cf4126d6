"""Which dispatch records are calls for help: real ones of a county, and a few that were written for this."""

import csv
import io

import pytest
from support.real_data import dispatch

from client_demo.desk.feeds import feed_text, read_records
from client_demo.dispatch.records import MOST_RECORDS, calls_for_help

COLUMNS = ("incident", "reported_at", "nature", "lat", "lng", "address", "unit")
CALLS = ["cardiac_arrest"]


def feed(*rows):
    """A feed with these natures, places and addresses, a second apart."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for number, (nature, lat, lng, address) in enumerate(rows):
        at = f"2031-05-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}Z"
        writer.writerow([f"N-{number}", at, nature, lat, lng, address, "Medic 1"])
    return read_records("feed.csv", text.getvalue())


def the_one(*row):
    """What becomes of the only record of a feed; None if it means no call."""
    return next(iter(calls_for_help(feed(row), CALLS)), None)


def test_of_a_countys_records_the_cardiac_arrests_are_calls_and_the_one_without_a_location_is_not():
    """RY6: all twelve, whoever was sent; a cardiac emergency is none, and no record says what kind of place it is."""
    path = dispatch("montgomery_pa_911.csv")
    found = calls_for_help(read_records(path.name, feed_text(path)), CALLS)
    assert len(found) == 12
    assert {record.nature for record in found} == {"CARDIAC ARREST"}
    assert any("BARTMAN" in record.address for record in found)  # the one that is titled `Fire:`
    (nowhere,) = [record for record in found if record.obstacle]
    assert nowhere.address.startswith("NO LOCATION")
    assert nowhere.lat is not None  # the middle of the county
    assert all(record.lat and record.lng and record.address and not record.status for record in found)
    assert [record.recorded_at for record in found] == sorted((record.recorded_at for record in found), reverse=True)


@pytest.mark.parametrize(("nature", "status"), [("TEST", "test"), ("TRNG", "exercise"), ("Training", "exercise")])
def test_what_says_that_it_is_a_drill_is_one(nature, status):
    """Whoever opens a call from it has to choose what for."""
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
def test_a_record_without_a_place_says_what_stands_in_the_way(row, obstacle):
    """It is shown all the same."""
    assert obstacle in the_one(*row).obstacle


@pytest.mark.parametrize("nature", ["Cardiac emergency", "Cardiac arrest?", "Medical, fall", ""])
def test_nothing_else_means_a_call(nature):
    """Nothing is guessed."""
    assert the_one(nature, 1.0, 2.0, "Copper Gate") is None


def test_a_category_that_the_policy_does_not_have_means_no_call():
    """RO1: the node would refuse it."""
    assert not calls_for_help(feed(("Cardiac arrest", 1.0, 2.0, "")), ["choking"])


def test_of_many_the_newest_are_shown():
    """The list is bounded."""
    rows = [("Cardiac arrest", 1.0 + n / 1000, 2.0, f"Street {n}") for n in range(MOST_RECORDS + 5)]
    found = calls_for_help(feed(*rows), CALLS)
    assert len(found) == MOST_RECORDS
    assert found[0].address == f"Street {MOST_RECORDS + 4}"
