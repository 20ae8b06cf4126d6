"""Translates the node's refusals into sentences for a reviewer, each with the field of the form that it concerns."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from client_demo.python.publisher import Refused
from client_demo.staff_page.decisions import Trouble

FIELDS = ("headline", "description", "category", "severity", "place", "radius_m", "corners", "reason")


AREA = "area"  # the kind of a confirmation about the size of an area


_POINTERS = (  # the beginning of a JSON Pointer -> the field of the form
    (re.compile(r"/area(/\d+)?/radius_m"), "radius_m"),
    (re.compile(r"/area(/\d+)?/(coordinates|type)"), "corners"),
    (re.compile(r"/area"), "place"),
    (re.compile(r"/(headline|description|category|severity|reason)$"), r"\1"),
)
_READS_LIKE = {  # kinds of words that a node refuses, some only if not confirmed (protocol, P24)
    "address": "a street address",
    "units": "units that were sent, or how many",
    "phone": "a telephone number",
    "contact": "an e-mail address, a link or a handle",
    "name": "a person's name",
    "coordinates": "coordinates",
    "document": "the number of a document or a card",
}
_SENTENCES = {
    "category-not-alertable": "This category is never alerted.",
    "not-community": "This concerns only one person or household. Alerts are for the community.",
    "stale": "This happened too long ago. Alerts are for what is happening now.",
    "not-yet": "According to the record this has not happened yet. Check the feed's clock.",
    "approvals-needed": "More reviewers have to sign this, each with a key of their own.",
    "not-approved": "It can't be approved for a time before it happened. Check this computer's clock and the feed's.",
    "expiry-out-of-range": "Alerts of this category would end too early for this. Choose one that lasts longer.",
    "shape-not-allowed": "This category takes circles only: a polygon would give an address away.",
    "area-too-complex": "The outline has too many corners to be published. Draw it with fewer.",
    "not-granted": "This desk may not publish this; another one may.",
    "outside-jurisdiction": "This is outside of the area for which this desk may publish.",
    "rate-limited": "This desk has published as often as it may for now.",
    "alert-ended": "The alert has ended: it can't be revised or cancelled any more.",
    "unauthorized": "The desk's token is not accepted. It may have expired; whoever runs the desk has to renew it.",
    "insufficient-scope": "The desk's token may not publish. Whoever runs the desk has to replace it.",
    "not-yours": "This alert was published by another organisation.",
    "id-conflict": "An alert with this id exists already, with other content.",
    "revision-conflict": "Somebody has revised this alert elsewhere. Look at the current text and try again.",
    "unknown-alert": "The node doesn't know this alert any more.",
}
_NOT_SIGNED = (
    "What was signed is no longer what would be published. Look at it again, and sign that.",
    "A signature is not valid: its key is not enrolled with the node yet, or it is too old. Sign again.",
)
_NOT_GRANTED = {
    "category": "This desk may not publish alerts of this category.",
    "severity": "This desk may not publish anything as severe.",
}
_RULES = {  # protocol, section 2
    "headline": "The headline needs 1 to 140 characters of plain text.",
    "description": "The description may have 1,000 characters of plain text.",
    "reason": "The reason needs 1 to 280 characters of plain text.",
    "severity": "Choose a severity.",
    "place": "The centre is a latitude of -90 to 90 and a longitude of -180 to 180 degrees.",
    "radius_m": "The radius is a number of metres above 0.",
}


def troubles(refusal: Refused) -> list[Trouble]:
    """For each broken rule in a refusal, return a sentence for a reviewer.

    With it comes the field of the form that the sentence concerns.
    """
    return list(_troubles(refusal.problem)) or [Trouble("", "; ".join(refusal.lines))]


def _troubles(problem: Mapping[str, Any]) -> Iterator[Trouble]:
    for error in problem.get("errors") or ([problem] if "type" in problem else []):
        slug = str(error.get("type", "")).removeprefix("/problems/")
        field = _field(str(error.get("pointer", "")))
        yield Trouble(field, _sentence(slug, field, error), slug, _held(error))


def _held(error: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a person must confirm according to a violation: a large area, or a part of a text.

    Return None if the violation does not describe it completely.
    """
    keys = ("kind", "area_km2") if error.get("kind") == AREA else ("kind", "start", "end")
    found = {key: error[key] for key in keys if key in error}
    return found if len(found) == len(keys) else None


def _field(pointer: str) -> str:
    for pattern, field in _POINTERS:
        if found := pattern.match(pointer):
            return found.expand(field)
    return ""


def _sentence(slug: str, field: str, error: Mapping[str, Any]) -> str:
    """Return a sentence about a violation, for a reviewer.

    It is made from the members of the violation (protocol, H8a), not from the node's text.
    """
    if sentence := _particular(slug, field, error):
        return sentence
    if slug in ("invalid-value", "missing-field") and field in _RULES:
        return _RULES[field]
    detail = str(error.get("detail") or error.get("title") or slug)
    return _SENTENCES.get(slug) or detail[:1].upper() + detail[1:].rstrip(".") + "."


def _particular(slug: str, field: str, error: Mapping[str, Any]) -> str:
    """Return a sentence with the details of a violation.

    Return "" if there are no details for violations of this type, or if the node has sent too few.
    """
    match slug, error:
        case "radius-out-of-range", {"min_radius_m": int() | float() as least, "max_radius_m": int() | float() as most}:
            bounds = f"{least:,.0f} to {most:,.0f} m"
            if field == "corners":
                return f"From its middle to its farthest corner it must be {bounds} in this category."
            return f"The radius must be {bounds} for this category."
        case "text-unconfirmed", {"kind": str() as kind, "confirmable": bool() as confirmable} if kind in _READS_LIKE:
            if confirmable:
                return f"This reads like {_READS_LIKE[kind]}. Reword it, or confirm it below."
            return f"This reads like {_READS_LIKE[kind]}, which is never published. Reword it."
        case "area-unconfirmed", {"area_km2": int() | float() as covers}:
            return f"This covers {covers:,.0f} km². Look at it again; if that is meant, confirm it below."
        case "not-granted", _ if field in _NOT_GRANTED:
            severity = str(error.get("max_severity", "")).capitalize()
            return _NOT_GRANTED[field] + (f" {severity} is the most." if severity else "")
        case "outside-jurisdiction", {"swapped": True}:
            return f"{_SENTENCES[slug]} With latitude and longitude exchanged it would be inside: look at them again."
        case "rate-limited", {"retry_after_s": int() as wait_s}:
            return f"{_SENTENCES[slug]} Try again in {span(wait_s)}; cancels are never held up."
        case "not-approved", {"pointer": str() as pointer} if pointer.startswith("/approval/"):
            return _NOT_SIGNED[pointer.startswith("/approval/signatures")]
        case "stale", {"max_age_s": int() as age_s}:
            return f"This happened more than {span(age_s)} ago. Alerts are for what is happening now."
        case "category-not-alertable", {"never": False}:
            return "Choose a category: the policy lists what may be alerted."
    return ""


def span(seconds: int) -> str:
    """Return a duration in words, such as "5 minutes" or "an hour"."""
    minutes, rest = divmod(seconds, 60)
    if rest:
        return f"{seconds} seconds"
    hours, rest = divmod(minutes, 60)
    count, unit = (minutes, "minute") if rest or not hours else (hours, "hour")
    if count == 1:
        return "an hour" if unit == "hour" else "a minute"
    return f"{count} {unit}s"
