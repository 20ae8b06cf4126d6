"""Dispatch files: told by their columns, grouped into incidents, stripped, and refused in one line."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
from support.real_data import dispatch as real

from client_demo.desk.feed_format import FeedError, Incident
from client_demo.desk.feeds import SAMPLE, read_feed
from client_demo.python.times import format_time


def written(folder: Path, text: str, name: str = "feed.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_an_incident_has_no_field_for_an_address_a_caller_or_a_unit():
    """What is not kept can't be published."""
    assert [field.name for field in fields(Incident)] == ["feed", "nature", "occurred_at", "lat", "lng", "means"]


def test_the_sample_groups_unit_rows_into_incidents():
    """Several rows with one number are one incident, at the time of its first row."""
    feed = read_feed(SAMPLE)
    assert feed.rows > len(feed.incidents) >= 40
    first = feed.incidents[0]
    assert (first.feed, first.nature) == ("sample", "Structure fire")
    assert format_time(first.occurred_at) == "2025-03-14T18:00:34.000Z"


def test_nothing_of_an_address_or_a_unit_survives_reading():
    """Neither of the sample's columns shows in what was read."""
    rows = [line.rsplit(",", 2) for line in SAMPLE.read_text(encoding="utf-8").splitlines()[1:]]
    kept = repr(read_feed(SAMPLE).incidents)
    for _, address, unit in rows:
        assert address not in kept
        assert unit not in kept


def test_a_feed_may_be_json(tmp_path):
    """The same columns as a list of records."""
    record = {"incident": 7, "reported_at": "2025-01-02T03:04:05Z", "nature": "Arson", "lat": 32.7, "lng": -96.8}
    (incident,) = read_feed(written(tmp_path, json.dumps([record, record]), "feed.json")).incidents
    assert (incident.nature, incident.lat, incident.lng) == ("Arson", 32.7, -96.8)


@pytest.mark.parametrize(("lat", "lng"), [("", ""), ("32.7", ""), ("0", "0"), ("91", "5"), ("nan", "5"), ("x", "5")])
def test_half_a_place_or_none_is_no_place(tmp_path, lat, lng):
    """Zeros are what feeds write for "unknown"."""
    header = "incident,reported_at,nature,lat,lng"
    text = f"{header}\n1,2025-01-02T03:04:05Z,Arson,{lat},{lng}\n2,2025-01-02T03:04:05Z,Arson,1,2\n"
    first, second = read_feed(written(tmp_path, text)).incidents
    assert (first.lat, first.lng) == (None, None)
    assert (second.lat, second.lng) == (1, 2)


def test_rows_without_a_number_are_one_incident_if_alike_and_within_the_hour(tmp_path):
    """Montgomery County gives none: two services sent to one fire are one fire."""
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
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path, text, why):
    """The line says why."""
    with pytest.raises(FeedError, match=why) as refusal:
        read_feed(written(tmp_path, text))
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path):
    """Not with a traceback."""
    with pytest.raises(FeedError, match="can't be read"):
        read_feed(tmp_path / "absent.csv")
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(FeedError, match="not UTF-8"):
        read_feed(tmp_path / "image.csv")


def test_the_real_fire_calls_of_san_francisco():
    """1,000 unit rows, 961 incidents, all of them with a place."""
    feed = read_feed(real("sf_fire_calls.csv"))
    assert (feed.rows, len(feed.incidents)) == (1000, 961)
    assert all(incident.lat is not None and incident.occurred_at is not None for incident in feed.incidents)
    assert sum(incident.nature == "Structure Fire" for incident in feed.incidents) == 173


def test_the_real_911_calls_of_montgomery_county():
    """Titles without their service: `EMS: BUILDING FIRE` is a building fire."""
    feed = read_feed(real("montgomery_pa_911.csv"))
    assert feed.rows == 3000
    natures = {incident.nature for incident in feed.incidents}
    assert {"BUILDING FIRE", "VEHICLE ACCIDENT", "S/B AT HELICOPTER LANDING"} <= natures
    assert not any(": " in nature or nature.endswith("-") for nature in natures)


def test_the_real_active_calls_of_dallas_have_no_coordinates():
    """It says so, and why that can't be helped."""
    with pytest.raises(FeedError, match="give no coordinates"):
        read_feed(real("dallas_active_calls.csv"))


def test_the_real_code_list_is_no_feed():
    """It lists kinds of incidents, not incidents."""
    with pytest.raises(FeedError, match="a list of records is needed"):
        read_feed(real("pulsepoint_incident_types.json"))
