"""Tests of dispatch files: recognized by their columns, grouped into incidents, stripped, and refused in one line."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
from support.real_data import dispatch as real

from client_demo.desk.feed_format import FeedError, Incident
from client_demo.desk.feeds import SAMPLE, feed_text, read_feed, read_records
from client_demo.python.times import format_time


def written(folder: Path, text: str, name: str = "feed.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_incident_has_no_field_for_address_caller_or_unit():
    """Data that is not stored cannot be published."""
    assert [field.name for field in fields(Incident)] == ["feed", "nature", "occurred_at", "lat", "lng", "means"]


def test_sample_rows_with_one_number_are_one_incident():
    """The incident has the time of its first row."""
    feed = read_feed(SAMPLE)
    assert feed.rows > len(feed.incidents) >= 40
    first = feed.incidents[0]
    assert (first.feed, first.nature) == ("sample", "Structure fire")
    assert format_time(first.occurred_at) == "2025-03-14T18:00:34.000Z"


def test_sample_incidents_of_one_nature_differ_in_their_district():
    """Three vehicle break-ins without it would look alike on the desk."""
    records = read_records(SAMPLE.name, feed_text(SAMPLE))
    assert records.format.told.district == "district"
    districts = [group.rows[0]["district"] for group in records.groups if group.incident.nature == "Vehicle break-in"]
    assert len(districts) == len(set(districts)) >= 3


def test_address_and_unit_are_not_kept():
    rows = [line.rsplit(",", 2) for line in SAMPLE.read_text(encoding="utf-8").splitlines()[1:]]
    kept = repr(read_feed(SAMPLE).incidents)
    for _, address, unit in rows:
        assert address not in kept
        assert unit not in kept


def test_json_feed_is_read(tmp_path):
    """A JSON feed is a list of records with the same columns."""
    record = {"incident": 7, "reported_at": "2025-01-02T03:04:05Z", "nature": "Arson", "lat": 32.7, "lng": -96.8}
    (incident,) = read_feed(written(tmp_path, json.dumps([record, record]), "feed.json")).incidents
    assert (incident.nature, incident.lat, incident.lng) == ("Arson", 32.7, -96.8)


@pytest.mark.parametrize(("lat", "lng"), [("", ""), ("32.7", ""), ("0", "0"), ("91", "5"), ("nan", "5"), ("x", "5")])
def test_incomplete_or_invalid_place_is_no_place(tmp_path, lat, lng):
    """Some feeds write zeros for an unknown place."""
    header = "incident,reported_at,nature,lat,lng"
    text = f"{header}\n1,2025-01-02T03:04:05Z,Arson,{lat},{lng}\n2,2025-01-02T03:04:05Z,Arson,1,2\n"
    first, second = read_feed(written(tmp_path, text)).incidents
    assert (first.lat, first.lng) == (None, None)
    assert (second.lat, second.lng) == (1, 2)


def test_similar_rows_without_a_number_within_an_hour_are_one_incident(tmp_path):
    """Montgomery County gives no numbers: two services sent to one fire are one incident."""
    rows = [
        "40.1,-75.1,EMS: BUILDING FIRE,2016-04-06 13:00:00,ABINGTON",
        "40.1,-75.1,Fire: BUILDING FIRE,2016-04-06 13:01:00,ABINGTON",
        "40.1,-75.1,Fire: BUILDING FIRE,2016-04-06 15:00:00,ABINGTON",
        "40.1,-75.1,Traffic: VEHICLE FIRE -,2016-04-06 13:00:30,ABINGTON",
    ]
    feed = read_feed(written(tmp_path, "\n".join(["lat,lng,title,timeStamp,twp", *rows])))
    assert [incident.nature for incident in feed.incidents] == ["BUILDING FIRE", "VEHICLE FIRE", "BUILDING FIRE"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no records"),
        ("a,b\n1,2\n", "no feed that is known here"),
        ('{"AA": "Auto Aid"}', "a list of records is needed"),
        ("[1, 2]", "a list of records is needed"),
        ("[{", "neither CSV nor JSON"),
        (
            "incident,reported_at,nature,lat,lng\n1,2025-01-02T03:04:05Z,Arson,,\n",
            "none of its 1 records has coordinates",
        ),
    ],
)
def test_unusable_file_is_refused_in_one_line(tmp_path, text, why):
    """The line gives the reason."""
    with pytest.raises(FeedError, match=why) as refusal:
        read_feed(written(tmp_path, text))
    assert "\n" not in str(refusal.value)


def test_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(FeedError, match="can't be read"):
        read_feed(tmp_path / "absent.csv")
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(FeedError, match="not UTF-8"):
        read_feed(tmp_path / "image.csv")


def test_san_francisco_fire_calls_are_read():
    """The file has 1,000 unit rows and 961 incidents, all with a place."""
    feed = read_feed(real("sf_fire_calls.csv"))
    assert (feed.rows, len(feed.incidents)) == (1000, 961)
    assert all(incident.lat is not None and incident.occurred_at is not None for incident in feed.incidents)
    assert sum(incident.nature == "Structure Fire" for incident in feed.incidents) == 173


def test_montgomery_county_911_calls_are_read():
    """The service is removed from a title: `EMS: BUILDING FIRE` becomes `BUILDING FIRE`."""
    feed = read_feed(real("montgomery_pa_911.csv"))
    assert feed.rows == 3000
    natures = {incident.nature for incident in feed.incidents}
    assert {"BUILDING FIRE", "VEHICLE ACCIDENT", "S/B AT HELICOPTER LANDING"} <= natures
    assert not any(": " in nature or nature.endswith("-") for nature in natures)


def test_dallas_active_calls_are_refused_without_coordinates():
    """The error says that the feed has no coordinates."""
    with pytest.raises(FeedError, match="give no coordinates"):
        read_feed(real("dallas_active_calls.csv"))


def test_pulsepoint_code_list_is_refused():
    """The file lists kinds of incidents, not incidents."""
    with pytest.raises(FeedError, match="a list of records is needed"):
        read_feed(real("pulsepoint_incident_types.json"))
