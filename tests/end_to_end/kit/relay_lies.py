"""Forged messages that a relay can make from genuine ones without a reviewer's key."""

import base64
import json
from collections.abc import Iterator
from typing import Any

from end_to_end.kit.alerts import Json
from end_to_end.kit.proofs import Reviewer, base64url

_HOURS_LATER = "2099-01-01T00:00:00.000Z"
_ELSEWHERE = [{"type": "circle", "lat": 10.0, "lng": 10.0, "radius_m": 1_000_000.0}]
_EVERYWHERE = [{"type": "circle", "lat": 0.0, "lng": 0.0, "radius_m": 20_100_000.0}]
_CHANGES: tuple[Json, ...] = (
    {"headline": "Open your doors."},
    {"reason": "All is well."},
    {"area": _ELSEWHERE},
    {"area": _EVERYWHERE},
    {"expires_at": _HOURS_LATER},
    {"severity": "extreme"},
    {"status": "test"},
    {"aud": "other.example"},
    {"id": "another"},
    {"source": "nobody"},
)


def lies_about(message: Json, reviewers: Json, before: list[Json]) -> list[Json]:
    """Return all forgeries of a message.

    Some forgeries have a genuine proof, because clients ignore the content beside a proof (rule C13).
    """
    return [
        *_beside(message),
        *_without_proof(message),
        *_with_another_form(message, reviewers),
        *_with_other_signatures(message),
        *more_lies([message, *before], reviewers),
    ]


def more_lies(messages: list[Json], reviewers: Json) -> list[Json]:
    """Return forgeries made of several messages: forms with the signatures, ids or revisions of other messages."""
    found = []
    for one in messages:
        for other in messages:
            if one is other:
                continue
            form, signatures = one["proof"]["form"], other["proof"]["signatures"]
            found.append(one | {"proof": {"form": form, "signatures": signatures}})
            found.append(other | {"proof": one["proof"]} if _name(one) != _name(other) else one)
            found.append(one | {"proof": {"form": form, "signatures": one["proof"]["signatures"] + signatures}})
    stranger = Reviewer(reviewers["keys"][0]["sub"], reviewers["keys"][0]["kid"])
    return found + [_signed(message, json.loads(message["proof"]["form"]), [stranger]) for message in messages]


def _name(message: Json) -> tuple[Any, ...]:
    """Return the identity of a message. A cancel with a higher number than the signed one keeps its identity (AP8)."""
    beside = message.get("alert", message)
    return message["type"], beside["id"], beside["revision"]


def _beside(message: Json, **_: Any) -> Iterator[Json]:
    """Yield messages with changed content beside a genuine proof, or with another id or revision."""
    beside = message.get("alert", message)
    for change in (*_CHANGES[:-3], {"issued_at": _HOURS_LATER}, {"cancelled_at": _HOURS_LATER}):
        yield _stood(message, change)
    yield _stood(message, {"id": "another"})
    yield _stood(message, {"revision": beside["revision"] - 1})
    if message["type"] == "alert":
        yield _stood(message, {"revision": beside["revision"] + 1})
        yield {"type": "cancel", **beside, "revision": beside["revision"] + 1, "reason": "", "proof": message["proof"]}
    else:
        yield {"type": "alert", "alert": {**beside, "issued_at": _HOURS_LATER}, "proof": message["proof"]}


def _stood(message: Json, change: Json) -> Json:
    if message["type"] == "alert":
        return message | {"alert": message["alert"] | change}
    return message | change


def _without_proof(message: Json) -> Iterator[Json]:
    """Yield messages without a proof, both unchanged and reworded."""
    form = json.loads(message["proof"]["form"])
    for change in ({}, *_CHANGES):
        if message["type"] == "alert":
            bare = {"type": "alert", "alert": {**form, **message["alert"], **change}}
        else:
            bare = {**message, "reason": form["reason"], **change}
            del bare["proof"]
        yield bare
        yield bare | {"proof": None}
    yield {
        "type": "cancel",
        "id": form["id"],
        "revision": 2**31 - 1,
        "reason": "All is well.",
        "cancelled_at": _HOURS_LATER,
    }


def _with_another_form(message: Json, reviewers: Json) -> Iterator[Json]:
    """Yield messages with a changed form, with the old signatures or with those of the relay's own keys."""
    said = json.loads(message["proof"]["form"])
    signatures = message["proof"]["signatures"]
    pretending = [Reviewer(key["sub"], key["kid"]) for key in reviewers["keys"]]
    strangers = [Reviewer("r-1", "key-of-a-stranger"), Reviewer("r-2", "another")]
    for change in (*_CHANGES, {"revision": said["revision"] + 1}, {"revision": 2**31 - 1}):
        form = said | change
        named = _stood(message, {name: form[name] for name in ("id", "revision")})
        yield named | {"proof": {"form": _text(form), "signatures": signatures}}
        yield _signed(named, form, pretending)
        yield _signed(named, form, strangers)
    yield message | {"proof": {"form": json.dumps(said), "signatures": signatures}}  # other spaces in the form
    yield message | {"proof": {"form": " " + message["proof"]["form"], "signatures": signatures}}


def _with_other_signatures(message: Json) -> Iterator[Json]:
    """Yield messages with missing, repeated, truncated or otherwise changed signatures."""
    form, signatures = message["proof"]["form"], message["proof"]["signatures"]
    if message["type"] == "alert":
        yield message | {"proof": {"form": form, "signatures": signatures[:1]}}
        yield message | {"proof": {"form": form, "signatures": signatures[:1] * 2}}
    stranger = Reviewer("r-9", "key-of-a-stranger").sign(form)
    yield message | {"proof": {"form": form, "signatures": [stranger]}}
    for change in ({"alg": "none"}, {"alg": "HS256"}, {"iat": 1}, {"jwk": {}}, {"crit": ["b64"]}):
        forged = [_with_header(each, change) for each in signatures]
        yield message | {"proof": {"form": form, "signatures": forged}}
    for value in ("", signatures[0]["signature"][:-4], "A" * 86):
        bad = [each | {"signature": value} for each in signatures]
        yield message | {"proof": {"form": form, "signatures": bad}}
    yield message | {"proof": {"form": form, "signatures": []}}
    yield message | {"proof": {"form": form}}
    yield message | {"proof": []}


def _with_header(signature: Json, change: Json) -> Json:
    head = signature["protected"]
    members = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    return signature | {"protected": base64url(json.dumps(members | change).encode())}


def _signed(message: Json, form: Json, people: list[Reviewer]) -> Json:
    text = _text(form)
    return message | {"proof": {"form": text, "signatures": [person.sign(text) for person in people]}}


def _text(form: Json) -> str:
    return json.dumps(form, ensure_ascii=False, separators=(",", ":"))
