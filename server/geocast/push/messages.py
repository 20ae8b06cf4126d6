"""The messages that devices are sent: those of the stream, as they fit into a push (WPT1, WPT3, WPT4)."""

import hashlib
import hmac
import json
from typing import Any, NamedTuple

from ..auth.base64url import encoded
from ..clock import format_time
from .webpush import max_plaintext

BODY_BYTES = 3_000  # of every message (WPT2)
SMALL_BODY_BYTES = 1_024  # for a device whose service has said 413 once
TOPIC_CHARACTERS = 32  # RFC 8030, 5.4: at most
URGENCIES = ("low", "normal", "high", "high")  # by the severity's rank
RENEW = "renew"

_CUT = ("id", "revision", "category", "title", "headline", "severity", "status", "issued_at", "expires_at")


class PushMessage(NamedTuple):
    """A message of the stream: the number of the entry that it is made of, and its JSON."""

    number: int
    is_cancel: bool
    payload: bytes


def plaintext(message: PushMessage, now_ms: int, body_bytes: int = BODY_BYTES) -> bytes:
    """What a push of this message says, for a body of so many bytes: all of it, or cut, or that it can be fetched."""
    now = b'"now":"' + format_time(now_ms).encode() + b'",'
    whole = b"{" + now + message.payload[1:]
    if len(whole) <= max_plaintext(body_bytes):
        return whole
    return _cut(message, format_time(now_ms), max_plaintext(body_bytes))


def renewal(until_ms: int, now_ms: int) -> bytes:
    """What a device is told whose registration ends soon."""
    return _json({"type": RENEW, "now": format_time(now_ms), "until": format_time(until_ms)})


def _cut(message: PushMessage, now: str, most: int) -> bytes:
    """The message in fewer words (WPT1). What carries a proof can't be cut, for then it would prove nothing (C13)."""
    whole = json.loads(message.payload)
    if "proof" in whole:
        return _json({"type": "fetch", "now": now})
    if message.is_cancel:
        short, words = {**whole, "now": now, "cut": True}, whole["reason"]
        return _fitted(short, short, "reason", words, most)
    alert = {name: whole["alert"][name] for name in _CUT}
    short = {"type": "alert", "now": now, "cut": True, "alert": alert}
    return _fitted(short, alert, "headline", alert["headline"], most)


def _fitted(message: dict[str, Any], of: dict[str, Any], name: str, words: str, most: int) -> bytes:
    """The message, its words shortened until it fits; without even one of them, only that it can be fetched."""
    low, high = 0, len(words)  # so many characters fit; so many may
    while low < high:
        middle = (low + high + 1) // 2
        of[name] = _shortened(words, middle)
        low, high = (middle, high) if len(_json(message)) <= most else (low, middle - 1)
    of[name] = _shortened(words, low)
    return _json(message) if low else _json({"type": "fetch", "now": message["now"]})


def _shortened(words: str, characters: int) -> str:
    return words if characters >= len(words) else words[: characters - 1] + "…"


def _json(message: dict[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def topic(key: bytes, alert_id: str) -> str:
    """By which a service replaces an undelivered message by a newer one: no two devices share one (WPT3)."""
    return encoded(hmac.digest(key, alert_id.encode(), hashlib.sha256))[:TOPIC_CHARACTERS]


def ttl_s(expires_at_ms: int, now_ms: int) -> int:
    """For how long a service may keep a message, in whole seconds; below 1 it is not sent (WPT3)."""
    return (expires_at_ms - now_ms) // 1000
