"""Messages for devices: those of the WebSocket stream, shortened to fit into a push (rules WPT1, WPT3, WPT4)."""

import hashlib
import hmac
import json
from typing import Any, NamedTuple

from ..auth.base64url import encoded
from ..model.times import format_time
from .webpush import max_plaintext

BODY_BYTES = 3_000  # the size of every body (rule WPT2)
SMALL_BODY_BYTES = 1_024  # the size for a device whose service has answered 413 (too large)
TOPIC_CHARACTERS = 32  # the maximum of RFC 8030, 5.4
URGENCIES = ("low", "normal", "high", "high")  # by severity, the lowest first
RENEW = "renew"

_CUT = ("id", "revision", "category", "title", "headline", "severity", "status", "issued_at", "expires_at")


class PushMessage(NamedTuple):
    """A message of the stream as JSON, with the number of the log entry that it was made from."""

    number: int
    is_cancel: bool
    payload: bytes


def plaintext(message: PushMessage, now_ms: int, body_bytes: int = BODY_BYTES) -> bytes:
    """Return the text of a push, short enough for an encrypted body of `body_bytes`.

    The text is the whole message, or a shortened one, or just a notice that the device should fetch the alert (rule
    WPT1).
    """
    now = b'"now":"' + format_time(now_ms).encode() + b'",'
    whole = b"{" + now + message.payload[1:]
    if len(whole) <= max_plaintext(body_bytes):
        return whole
    return _shortened_message(message, format_time(now_ms), max_plaintext(body_bytes))


def renewal(until_ms: int, now_ms: int) -> bytes:
    """Return the text of a push that reminds a device that its registration ends soon, at `until_ms`."""
    return _json({"type": RENEW, "now": format_time(now_ms), "until": format_time(until_ms)})


def _shortened_message(message: PushMessage, now: str, most: int) -> bytes:
    """Return the message with its texts shortened, so that it has at most `most` bytes (rule WPT1).

    If the message has a proof, return a notice that the device should fetch the alert instead: a shortened text would
    not match the proof (rule C13).
    """
    whole = json.loads(message.payload)
    if "proof" in whole:
        return _json({"type": "fetch", "now": now})
    if message.is_cancel:
        short, words = {**whole, "now": now, "cut": True}, whole["reason"]
        return _shortened_to_fit(short, short, "reason", words, most)
    alert = {name: whole["alert"][name] for name in _CUT}
    short = {"type": "alert", "now": now, "cut": True, "alert": alert}
    return _shortened_to_fit(short, alert, "headline", alert["headline"], most)


def _shortened_to_fit(message: dict[str, Any], part: dict[str, Any], name: str, words: str, most: int) -> bytes:
    """Return the message as JSON of at most `most` bytes, after shortening one text of the message as far as needed.

    The text is `part[name]`, and `part` is the message itself or an object inside it. The original text is `words`. If
    not even one character fits, return a notice that the device should fetch the alert.
    """
    low, high = 0, len(words)  # how many characters fit is within this range
    while low < high:
        middle = (low + high + 1) // 2
        part[name] = _shortened(words, middle)
        low, high = (middle, high) if len(_json(message)) <= most else (low, middle - 1)
    part[name] = _shortened(words, low)
    return _json(message) if low else _json({"type": "fetch", "now": message["now"]})


def _shortened(words: str, characters: int) -> str:
    return words if characters >= len(words) else words[: characters - 1] + "…"


def _json(message: dict[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def topic(key: bytes, alert_id: str) -> str:
    """Return the value of the header `Topic` for pushes of one alert to one device.

    A push replaces an earlier push with the same Topic that was not delivered yet. `key` belongs to the device, so no
    two devices share a Topic (rule WPT3).
    """
    return encoded(hmac.digest(key, alert_id.encode(), hashlib.sha256))[:TOPIC_CHARACTERS]


def ttl_s(expires_at_ms: int, now_ms: int) -> int:
    """Return how many whole seconds a push service may keep a message.

    If the result is below 1, the message must not be sent (rule WPT3).
    """
    return (expires_at_ms - now_ms) // 1000
