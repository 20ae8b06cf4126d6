"""What a device is told: the message of the stream, in as few bytes as it has to be."""

import json
from dataclasses import replace

import pytest
from support.fakes import NOON_MS, a_cancel, a_revision

from geocast.model.alert import ApprovalProof, Cancel
from geocast.push import messages
from geocast.push.messages import PushMessage, plaintext, topic, ttl_s
from geocast.push.webpush import max_plaintext
from geocast.wire import frames


def long_alert(**fields):
    """One that does not fit whole."""
    return a_revision(description="語" * 1_000, **fields)


def told(entry, body_bytes=messages.BODY_BYTES, *, signed=False):
    """What a push says of an entry."""
    message = PushMessage(entry.revision, isinstance(entry, Cancel), frames.encode_json(entry)[signed])
    text = plaintext(message, NOON_MS, body_bytes)
    assert len(text) <= max_plaintext(body_bytes)
    return json.loads(text)


def test_a_push_says_what_the_stream_says_and_the_time():
    """WPT1: the message of section 5, and `now`."""
    entry = a_revision()
    message = told(entry)
    assert message.pop("now") == "2026-01-31T12:00:00.000Z"
    assert message == {"type": "alert", "alert": frames.alert_map(entry)}


def test_a_cancel_says_why():
    """WPT1."""
    assert told(a_cancel())["type"] == "cancel"
    assert told(a_cancel())["reason"]


def test_an_alert_that_does_not_fit_is_cut():
    """WPT1: what a notification shows, and by what a client asks for the rest."""
    entry = long_alert(headline="ö" * 140)
    message = told(entry)
    whole = frames.alert_map(entry)
    names = ["id", "revision", "category", "title", "headline", "severity", "status", "issued_at", "expires_at"]
    assert message == {
        "type": "alert",
        "cut": True,
        "now": message["now"],
        "alert": {name: whole[name] for name in names},
    }


@pytest.mark.parametrize("letter", ["x", "ö", "語", "🔥", '"'])
def test_for_a_small_body_the_headline_is_shortened(letter):
    """413: 921 bytes of text, of which as many as fit are the headline's."""
    entry = long_alert(headline=letter * 140, id="i" * 128)
    message = told(entry, messages.SMALL_BODY_BYTES)
    assert message["cut"] is True
    shown = message["alert"]["headline"]
    assert shown.startswith(letter * 40)
    longer = {**message, "alert": {**message["alert"], "headline": letter * len(shown) + "…"}}
    fits = len(json.dumps(longer, ensure_ascii=False, separators=(",", ":")).encode()) <= max_plaintext(1_024)
    assert shown == letter * 140 or (shown[-1] == "…" and not fits)


def test_for_a_small_body_a_reason_is_shortened():
    """WPT1: the cancel itself always arrives."""
    message = told(a_cancel(reason="🔥" * 280), messages.SMALL_BODY_BYTES)
    assert (message["type"], message["cut"], message["id"]) == ("cancel", True, a_cancel().id)
    assert message["reason"].endswith("🔥…")


def test_what_is_proved_and_does_not_fit_is_to_be_fetched():
    """WPT1, C13: cut, it would prove nothing; so no word of it is sent."""
    entry = replace(long_alert(), proof=ApprovalProof("form" * 900, ()))
    message = told(entry, signed=True)
    assert message == {"type": "fetch", "now": message["now"]}


def test_no_two_devices_share_a_topic_and_revisions_of_an_alert_do():
    """WPT3: 32 characters of base64url."""
    assert topic(b"a" * 32, "x") == topic(b"a" * 32, "x")
    assert len({topic(key, alert) for key in (b"a" * 32, b"b" * 32) for alert in ("x", "y")}) == 4
    assert messages.TOPIC_CHARACTERS == len(topic(b"a" * 32, "x")) == 32


@pytest.mark.parametrize(("left_ms", "seconds"), [(1_999, 1), (1_000, 1), (999, 0), (0, 0), (-5, -1)])
def test_a_message_is_kept_for_whole_seconds_up_to_its_end(left_ms, seconds):
    """WPT3: rounded down."""
    assert ttl_s(NOON_MS + left_ms, NOON_MS) == seconds
