"""What events say, their ids, and bodies that a target asks for (WH2, docs/reference/webhooks.md)."""

import json

import pytest
from support.fakes import a_cancel, a_revision, a_warning

from geocast.relay.events import (
    ACCEPTED,
    CANCELLED,
    ENDED,
    REVISED,
    End,
    encoded,
    event,
    filled,
    summary_of,
    webhook_id,
)


def message(entry=None, kind=ACCEPTED):
    """Return an event about an entry of the alert of `a_revision`."""
    return event(entry or a_revision(), kind, summary_of(a_revision(), matches=True))


def test_every_event_has_the_same_summary_and_its_own_time():
    """Only events of revisions have the alert, and only those of cancels have a reason (WH2)."""
    cancel, end = a_cancel(cancelled_at=a_revision().issued_at + 5_000), End("a-1", 1, a_revision().ends_at)
    kinds = ((a_revision(), ACCEPTED), (cancel, CANCELLED), (end, ENDED))
    accepted, cancelled, ended = (message(entry, kind) for entry, kind in kinds)
    summary = {
        "matches": True,
        "category": "robbery",
        "severity": "severe",
        "status": "actual",
        "title": "Robbery",
        "headline": "Robbery, revision 1",
        "expires_at": "2026-01-31T12:30:00.000Z",
    }
    alert = accepted["data"].pop("alert")
    assert alert["area"] == [{"type": "circle", "lat": 32.7767, "lng": -96.797, "radius_m": 1000.0}]
    assert "approval" not in alert
    assert accepted == {
        "type": ACCEPTED,
        "timestamp": "2026-01-31T12:00:00.000Z",
        "data": {"id": "a-1", "revision": 1, **summary},
    }
    assert cancelled == {
        "type": CANCELLED,
        "timestamp": "2026-01-31T12:00:05.000Z",
        "data": {"id": "a-1", "revision": 2, **summary, "reason": "over"},
    }
    assert ended == {
        "type": ENDED,
        "timestamp": "2026-01-31T12:30:00.000Z",
        "data": {"id": "a-1", "revision": 1, **summary},
    }


def test_alert_in_several_languages_has_all_texts():
    """The first text is that of the alert itself (rule LA4)."""
    warning = a_warning("de-AT", "en-GB")
    found = event(warning, ACCEPTED, summary_of(warning, matches=True))["data"]
    assert found["alert"]["language"] == "de-AT"
    assert [text["language"] for text in found["alert"]["texts"]] == ["de-AT", "en-GB"]
    assert found["headline"] == found["alert"]["texts"][0]["headline"]


def test_id_of_an_event_is_the_same_each_time_and_differs_from_all_others():
    """Target, alert, revision, type and time decide it; a reused id of an alert has another time (WH2)."""
    later = a_revision(issued_at=a_revision().issued_at + 86_400_000)
    messages = [message(), message(a_revision(revision=2), REVISED), message(kind=REVISED), message(later)]
    ids = {webhook_id(target, each) for target in ("siren", "sign") for each in messages}
    assert len(ids) == 8
    assert ids == {webhook_id(target, each) for target in ("siren", "sign") for each in messages}
    assert all(each.startswith("msg_") and "." not in each for each in ids)


@pytest.mark.parametrize(
    ("template", "body"),
    [
        ({"text": "{severity}: {headline}"}, {"text": "severe: Robbery, revision 1"}),
        ({"on": "{matches}", "n": "{revision}", "qos": 1}, {"on": True, "n": 1, "qos": 1}),
        ({"blocks": [{"text": "{type} {reason}."}]}, {"blocks": [{"text": "alert.accepted ."}]}),
        ({"text": "{type} {matches}"}, {"text": "alert.accepted true"}),
        ({"text": "{{headline}} {"}, {"text": "{Robbery, revision 1} {"}),
    ],
)
def test_body_of_a_target_has_words_of_the_event(template, body):
    """Words in braces are replaced in all texts; a text that is nothing but a word keeps the type of its value."""
    assert filled(template, message()) == body


def test_body_can_not_be_changed_by_the_text_of_an_alert():
    """Quotes, braces and line breaks of a headline stay inside the text."""
    headline = 'fire", "on": true} {reason}\n'
    revision = a_revision(headline=headline)
    found = filled({"text": "{headline}!"}, event(revision, ACCEPTED, summary_of(revision, matches=True)))
    assert json.loads(encoded(found)) == {"text": f"{headline}!"}
