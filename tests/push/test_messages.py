"""Messages for devices: those of the stream, shortened to the size of a push."""

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
    """Return an alert that does not fit into a push as a whole."""
    return a_revision(description="語" * 1_000, **fields)


def told(entry, body_bytes=messages.BODY_BYTES, *, signed=False):
    """Return what a push says of an entry."""
    message = PushMessage(entry.revision, isinstance(entry, Cancel), frames.encode_json(entry)[signed])
    text = plaintext(message, NOON_MS, body_bytes)
    assert len(text) <= max_plaintext(body_bytes)
    return json.loads(text)


def test_push_contains_the_message_of_the_stream_and_the_time():
    """The message is that of the stream, with a field `now` (rule WPT1)."""
    entry = a_revision()
    message = told(entry)
    assert message.pop("now") == "2026-01-31T12:00:00.000Z"
    assert message == {"type": "alert", "alert": frames.alert_map(entry)}


def test_push_of_a_cancel_contains_its_reason():
    """A cancel is sent as on the stream (rule WPT1)."""
    assert told(a_cancel())["type"] == "cancel"
    assert told(a_cancel())["reason"]


def test_alert_too_long_for_a_push_is_shortened():
    """A shortened alert has what a notification shows, and the id for fetching the rest (rule WPT1)."""
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
def test_headline_is_shortened_to_fit_a_small_push_body(letter):
    """After an answer 413, a push has 921 bytes of text. The headline gets what the other fields leave."""
    entry = long_alert(headline=letter * 140, id="i" * 128)
    message = told(entry, messages.SMALL_BODY_BYTES)
    assert message["cut"] is True
    shown = message["alert"]["headline"]
    assert shown.startswith(letter * 40)
    longer = {**message, "alert": {**message["alert"], "headline": letter * len(shown) + "…"}}
    fits = len(json.dumps(longer, ensure_ascii=False, separators=(",", ":")).encode()) <= max_plaintext(1_024)
    assert shown == letter * 140 or (shown[-1] == "…" and not fits)


def test_reason_of_a_cancel_is_shortened_to_fit_a_small_push_body():
    """A cancel always arrives (rule WPT1)."""
    message = told(a_cancel(reason="🔥" * 280), messages.SMALL_BODY_BYTES)
    assert (message["type"], message["cut"], message["id"]) == ("cancel", True, a_cancel().id)
    assert message["reason"].endswith("🔥…")


def test_push_of_a_long_signed_alert_only_tells_the_client_to_fetch_it():
    """A cut text would not match its proof, so none of it is sent (rules WPT1, C13)."""
    entry = replace(long_alert(), proof=ApprovalProof("form" * 900, ()))
    message = told(entry, signed=True)
    assert message == {"type": "fetch", "now": message["now"]}


def test_push_topic_is_the_same_for_all_revisions_and_differs_between_devices():
    """A Topic has 32 characters of base64url (rule WPT3)."""
    assert topic(b"a" * 32, "x") == topic(b"a" * 32, "x")
    assert len({topic(key, alert) for key in (b"a" * 32, b"b" * 32) for alert in ("x", "y")}) == 4
    assert messages.TOPIC_CHARACTERS == len(topic(b"a" * 32, "x")) == 32


@pytest.mark.parametrize(("left_ms", "seconds"), [(1_999, 1), (1_000, 1), (999, 0), (0, 0), (-5, -1)])
def test_ttl_of_a_push_is_the_whole_seconds_until_the_alert_ends(left_ms, seconds):
    """Seconds are rounded down (rule WPT3)."""
    assert ttl_s(NOON_MS + left_ms, NOON_MS) == seconds
