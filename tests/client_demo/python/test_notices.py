"""Tests of notifications for malformed pushes, and of their wording; test_vectors.py has everything else."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_demo.python.geo import Place
from client_demo.python.holdings import Holdings
from client_demo.python.notices import SOMETHING, Notices, Words, local_time
from client_demo.python.times import format_time, parse_time

NOW = parse_time("2031-05-01T12:00:00Z")
HOME = Place.at(32.7767, -96.797)
ALERT = {
    "id": "a",
    "revision": 1,
    "category": "fire_structure",
    "title": "Structure fire",
    "headline": "Keep windows closed.",
    "severity": "severe",
    "status": "actual",
    "issued_at": format_time(NOW),
    "expires_at": format_time(NOW + 3_600_000),
    "area": [{"type": "circle", "lat": HOME.lat, "lng": HOME.lng, "radius_m": 1000.0}],
}
RUBBISH = st.sampled_from([None, True, -1, 10**400, 1.5, math.nan, "", "x", [], {}, [{}], {"type": "circle"}])
SOME_FIELDS = st.dictionaries(st.sampled_from(sorted(ALERT)), RUBBISH, max_size=4)


def push(**fields):
    """Return the push message of an alert."""
    return {"type": "alert", "now": format_time(NOW), "alert": ALERT | fields}


KINDS = st.sampled_from(["alert", "cancel", "renew", "later"])


@given(st.lists(st.tuples(SOME_FIELDS, st.booleans(), KINDS), max_size=4))
def test_any_push_shows_one_notification_and_the_next_alert_is_shown(rubbish):
    """A malformed push shows a notification without any of its text (rule WPC2)."""
    notices = Notices(Holdings([HOME]))
    for fields, is_cut, kind in rubbish:
        message = push(**fields) | ({"cut": True} if is_cut else {})
        taken = notices.take({**message, "type": kind, **(fields if kind == "cancel" else {})}, NOW)
        assert taken.notice.title
        assert taken.notice.tag in notices.open
    taken = notices.take(push(id="last"), NOW)
    assert (taken.notice.tag, taken.notice.title, taken.notice.sound) == ("last", "Structure fire", True)


@pytest.mark.parametrize(
    "message", [{}, {"type": None}, {"type": "alert"}, {"type": "cancel"}, {"type": "alert", "alert": 1}]
)
def test_unreadable_push_shows_a_placeholder(message):
    """The whole alert has to be fetched then (rule WPC5)."""
    taken = Notices(Holdings([HOME])).take(message, NOW)
    assert (taken.notice.tag, taken.notice.sound, taken.whole) == (SOMETHING, True, False)


def test_wording_around_an_alert_can_be_translated():
    words = Words(exercise="Übung: {title}", until="bis {time}", cancelled="Aufgehoben: {title}", outside="Nicht hier.")
    notices = Notices(Holdings([Place.at(0, 0)]), words=words, time_of=lambda *_: "14:45")
    shown = notices.take(push(status="exercise", language="de"), NOW).notice
    assert (shown.title, shown.body) == ("Übung: Structure fire", "Keep windows closed.\nNicht hier.\nbis 14:45")
    cancel = {"type": "cancel", "now": format_time(NOW), "id": "a", "revision": 2}
    assert notices.take(cancel, NOW).notice.title == "Aufgehoben: Übung: Structure fire"


def test_take_returns_the_changes_of_a_push_that_arrives_while_the_page_is_open():
    """The changes equal those of a WebSocket message (rule WPC3)."""
    notices = Notices(Holdings([HOME]))
    taken = notices.take(push(), NOW, visible=True)
    assert ([each.kind for each in taken.changes], taken.notice.sound) == (["new"], False)
    assert [alert["id"] for alert in notices.holdings.here()] == ["a"]


def test_time_is_local_and_names_another_day(monkeypatch):
    """The notification uses the person's time zone (rule WPC5)."""
    monkeypatch.setenv("TZ", "America/Chicago")
    time.tzset()
    try:
        assert local_time(NOW + 60_000, NOW) == "07:01"
        assert local_time(NOW + 86_400_000, NOW) == "2 May 07:00"
    finally:
        monkeypatch.undo()
        time.tzset()
