"""The events about alerts: their types, bodies and ids (docs/reference/webhooks.md).

An event has no place of any subscriber, and no exact place of an incident: it is made from the log, which has neither.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..model.alert import Cancel, Revision
from ..model.times import format_time
from ..wire.frames import alert_map, texts_of

ACCEPTED, REVISED, CANCELLED, ENDED = "alert.accepted", "alert.revised", "alert.cancelled", "alert.ended"
TYPES = (ACCEPTED, REVISED, CANCELLED, ENDED)
_IN_SUMMARY = ("category", "severity", "status", "title", "headline", "expires_at")
# The words that a target's own body may have in braces, such as {headline}.
WORD = re.compile(r"\{([a-z_]+)\}")
WORDS = frozenset({"type", "timestamp", "id", "revision", "matches", "reason", *_IN_SUMMARY})


@dataclass(frozen=True, slots=True)
class End:
    """The expiry of an alert. It is no entry of the log, but follows the alert's last revision like one."""

    id: str
    revision: int  # the number of the alert's last revision that is known
    ends_at: int


def summary_of(revision: Revision, *, matches: bool) -> dict[str, Any]:
    """Return the members of a revision that every event about the alert has.

    `matches` says whether the target asks for this revision.
    """
    alert: Mapping[str, Any] = alert_map(revision)
    return {"revision": revision.revision, "matches": matches, **{name: alert[name] for name in _IN_SUMMARY}}


def event(entry: Revision | Cancel | End, kind: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event of the type `kind` about an entry. `summary` is the `summary_of` the newest revision.

    The result depends only on the arguments, so a repeated event is equal to the first one.
    """
    data = {"id": entry.id, **summary, "revision": entry.revision}
    if isinstance(entry, Revision):
        at = entry.issued_at
        texts = texts_of(entry)
        data["alert"] = {**alert_map(entry), **({"texts": texts} if len(texts) > 1 else {})}
    elif isinstance(entry, Cancel):
        at = entry.cancelled_at
        data["reason"] = entry.reason
    else:
        at = entry.ends_at
    return {"type": kind, "timestamp": format_time(at), "data": data}


def encoded(body: Any) -> bytes:
    """Return a body as JSON."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def filled(template: Any, message: Mapping[str, Any]) -> Any:
    """Return a target's own body for an event: a JSON value in which words in braces are replaced in all texts.

    A word that the event doesn't have becomes an empty text. A text that is nothing but such a word becomes the value
    itself, so that a number stays a number.
    """
    if isinstance(template, dict):
        return {name: filled(each, message) for name, each in template.items()}
    if isinstance(template, list):
        return [filled(each, message) for each in template]
    if not isinstance(template, str):
        return template
    words = {"type": message["type"], "timestamp": message["timestamp"], **message["data"]}
    if (alone := WORD.fullmatch(template)) is not None:
        return words.get(alone[1], "")

    def text(found: re.Match[str]) -> str:
        value = words.get(found[1], "")
        return value if isinstance(value, str) else json.dumps(value)

    return WORD.sub(text, template)


def webhook_id(target: str, message: Mapping[str, Any]) -> str:
    """Return the id of an event for a target. It is the same each time, and another one for every other event."""
    data = message["data"]
    parts = (target, data["id"], str(data["revision"]), message["type"], message["timestamp"])
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return "msg_" + base64.urlsafe_b64encode(digest[:18]).decode()
