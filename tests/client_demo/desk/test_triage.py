"""Tests of triage: which incidents are refused and why, and that only place, time and category get into an alert."""

import csv
import re
import tomllib
from pathlib import Path

import pytest

from client_demo import desk as desk_module
from client_demo.desk.feed_format import Incident, known_formats
from client_demo.desk.feeds import SAMPLE, read_feed
from client_demo.desk.triage import AGE_AFTER_RETIMING_MS, Case, Desk, Policy, Reason, Refusal, read_toml, varied
from client_demo.python.times import format_time

NOW = 1_800_000_000_000
POLICY = Policy.from_map(
    {
        "name": "for these tests",
        "categories": {
            "fire_structure": {"title": "Structure fire", "min_radius_m": 100, "max_radius_m": 600, "max_age_s": 3600},
            "burglary": {"title": "Burglary", "min_radius_m": 5000, "max_radius_m": 20_000, "max_age_s": 60},
            "meteorite": {"title": "Meteorite"},
        },
        "never": {"assault": "Assault", "theft": ""},
    }
)
HEADLINE_MAX = 140
(SAMPLES,) = (kind for kind in known_formats() if kind.name == "sample")


def incident(nature="Structure fire", age_ms=1000, lat=32.7, lng=-96.8):
    return Incident("sample", nature, None if age_ms is None else NOW - age_ms, lat, lng, SAMPLES.means(nature))


def decide(given, *, retime=False):
    return Desk(POLICY, retime=retime).decide(given, NOW)


@pytest.mark.parametrize(
    ("given", "reason", "detail"),
    [
        (incident("Fireworks"), Reason.UNKNOWN_NATURE, '"Fireworks" is not in the table'),
        (incident("Assault"), Reason.NEVER_ALERTED, "Assault"),
        (incident("Shoplifting"), Reason.NEVER_ALERTED, "theft"),
        (incident("Medical, fall"), Reason.INDIVIDUAL, "a medical call"),
        (incident("Traffic collision"), Reason.NOT_LISTED, "traffic"),
        (incident("Shooting"), Reason.NOT_LISTED, "shooting"),
        (incident(lat=None, lng=None), Reason.NO_COORDINATES, "the record has none"),
        (incident(age_ms=3_600_001), Reason.TOO_OLD, "it happened longer ago than its category allows"),
        (
            incident("Burglary, residence", age_ms=60_001),
            Reason.TOO_OLD,
            "it happened longer ago than its category allows",
        ),
        (incident(age_ms=-1000), Reason.TOO_OLD, "it happened longer ago than its category allows"),
        (incident(age_ms=None), Reason.TOO_OLD, "it happened longer ago than its category allows"),
    ],
)
def test_refusal_has_its_reason(given, reason, detail):
    """The node's policy decides, and the desk applies it to this incident."""
    assert decide(given) == Refusal(given, reason, detail)


def test_fresh_incident_keeps_its_time():
    given = incident(age_ms=3_600_000)
    assert decide(given, retime=True) == Case(given, "fire_structure", NOW - 3_600_000, retimed=False)


def test_old_incident_is_retimed_only_on_demand_and_reported():
    old = incident(age_ms=10 * 86_400_000)
    triage = Desk(POLICY, retime=True).triage([old, incident()], NOW)
    assert [case.retimed for case in triage.cases] == [True, False]
    assert triage.retimed().startswith("1 incidents recorded from")
    assert "re-timed" in triage.retimed()
    assert Desk(POLICY, retime=True).triage([incident()], NOW).retimed() == ""


def test_alert_is_a_complete_request():
    """The alert has only required fields, and its approval is not earlier than the incident."""
    desk = Desk(POLICY, retime=True)
    alert = desk.write(desk.decide(incident(age_ms=10**10), NOW), NOW + 5000)
    assert alert["occurred_at"] == format_time(NOW + 5000 - AGE_AFTER_RETIMING_MS)
    assert alert["approval"] == {"reviewer": "desk-1", "approved_at": format_time(NOW + 5000)}
    assert alert["threat"] == "community"
    assert alert["area"] == [{"type": "circle", "lat": 32.7, "lng": -96.8, "radius_m": 600}]
    assert set(alert) == {
        *("id", "category", "headline", "severity", "threat", "occurred_at", "area", "approval"),
    }


def test_radius_keeps_within_the_policy():
    """The policy of this test allows at least 5 km for a burglary."""
    desk = Desk(POLICY, retime=True)
    alert = desk.write(desk.decide(incident("Burglary, business"), NOW), NOW)
    assert alert["area"][0]["radius_m"] == 5000


def test_category_without_wording_gets_a_plain_headline(monkeypatch):
    """A policy may list categories that the desk does not know."""
    desk = Desk(POLICY, retime=True)
    alert = desk.write(Case(incident(), "meteorite", NOW, retimed=False), NOW)
    assert alert["headline"] == "Meteorite: reported in this area"


def test_alert_has_no_address_unit_or_case_number():
    """Every text of every alert from the sample is searched."""
    everything = Policy("all", {key: {"title": key} for key in wordings()}, {})
    desk = Desk(everything, retime=True)
    triage = desk.triage(read_feed(SAMPLE).incidents, NOW)
    with SAMPLE.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    private = {row[name] for row in rows for name in ("address", "unit", "incident")}
    assert len(triage.cases) >= 25
    for alert in (desk.write(case, NOW) for case in triage.cases):
        assert not any(text in repr(alert) for text in private)


def wordings():
    return tomllib.loads(Path(desk_module.__file__).with_name("wording.toml").read_text(encoding="utf-8"))


def test_headline_fits_and_has_no_digit():
    """A headline without digits has no house number, number of units or case number."""
    for wording in wordings().values():
        assert 0 < len(wording["headline"]) <= HEADLINE_MAX
        assert not re.search(r"[0-9]", wording["headline"])
        assert wording["severity"] in ("extreme", "severe", "moderate", "minor")


def test_every_category_of_a_format_is_known():
    """A format's category has wording, is in kept_back.toml, or is never alerted by policies."""
    kept_back = read_toml("kept_back.toml")
    never = {"assault", "theft", "vandalism", "trespassing", "domestic_dispute", "dead_person", "bomb_threat"}
    known = {*wordings(), *kept_back["individual"], *kept_back["routine"], *never}
    for kind in known_formats():
        assert set(kind.told.categories.values()) <= known


def test_alert_id_is_random():
    """An id contains no case number and cannot be guessed."""
    desk = Desk(POLICY, retime=True)
    ids = [desk.write(desk.decide(incident(), NOW), NOW)["id"] for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)


def test_categories_alternate():
    """So even a short demo shows all categories."""
    cases = [Case(incident(), category, NOW, retimed=False) for category in "aaabbc"]
    assert "".join(case.category for case in varied(cases)) == "abcaba"


def test_never_list_may_have_no_reasons():
    """The protocol does not fix the form of the never-list in `GET /v1/policy`."""
    policy = Policy.from_map({"categories": {}, "never": ["assault"]})
    assert Desk(policy, retime=False).decide(incident("Assault"), NOW).detail == "assault"
