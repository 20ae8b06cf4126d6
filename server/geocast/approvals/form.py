"""The form: the text that reviewers sign, a JSON object with every member of an alert that is sent to subscribers.

A node writes the form once, in its answer to a dry run. From then on the form is only copied and read, and never
serialised again: signatures are checked against the bytes that were received, and the members are read from the same
bytes. So the order of keys and the spelling of numbers cannot break a signature. (The rules are in approval-rules.md.)
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..model.alert import (
    MAX_FORM_BYTES,
    OF_WARNINGS,
    Alert,
    Approval,
    Cancel,
    Confirm,
    Entry,
    Revision,
    Shape,
    TimeMs,
)
from ..model.members import CHECKS, integer, members_of, resolution, text, to_shape
from ..model.times import format_time, parse_time
from ..wire.frames import alert_map
from ..wire.strict_json import load_json

VERSION = 1
_NOBODY = Approval("", 0)


def form_of(entry: Entry, audience: str, category: str) -> dict[str, Any]:
    """Return the members of the form of an entry (the text that reviewers sign), as a dict in the form's order.

    `category` is the alert's category; only the form of a cancel needs it. The form of an alert has every member that
    is sent to subscribers, except `issued_at`, which is not known yet.
    """
    if isinstance(entry, Cancel):
        what, confirm = "cancel", entry.confirm
        own: dict[str, Any] = {"category": category, "reason": entry.reason, "expires_at": format_time(entry.ends_at)}
    else:
        what, confirm = "alert", entry.alert.confirm
        own = {name: value for name, value in alert_map(entry).items() if name != "issued_at"}
        own["location_resolution"] = entry.terms.location_resolution
    head = {"v": VERSION, "what": what, "aud": audience, "id": entry.id, "revision": entry.revision}
    return head | {"source": entry.source} | own | _confirmed(confirm)


def text_of(members: Mapping[str, Any]) -> str:
    """Return the form with these members: the JSON text that reviewers sign."""
    return json.dumps(members, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _confirmed(confirm: Confirm) -> dict[str, Any]:
    area = {} if confirm.area_km2 is None else {"area_km2": confirm.area_km2}
    members = area | ({"text": list(confirm.text)} if confirm.text else {})
    return {"confirm": members} if members else {}


# ---- reading a form --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Form:
    """A parsed form; the form of an entry is the text that reviewers sign to approve the entry.

    `content` is the alert, with an empty approval, or the reason of a cancel. `members` is a dict with all members; the
    other attributes are members that all forms have.
    """

    audience: str
    id: str
    revision: int
    source: str
    confirm: Confirm
    content: Alert | str
    members: Mapping[str, Any]

    def says(self, entry: Entry) -> Entry:
        """Return a copy of `entry` with the content that the form has (rule NC1).

        Members that are not in the form stay unchanged. Raise ValueError if the form belongs to another entry: one of
        another kind, or with another id or revision number.
        """
        if isinstance(entry, Revision) and isinstance(self.content, Alert) and self._stands_under(entry):
            said = {name: self.members[name] for name in ("title", "location_resolution")}
            terms = replace(entry.terms, **said)
            alert = replace(self.content, approval=entry.alert.approval)
            return replace(entry, alert=alert, source=self.source, terms=terms, origin=None)
        if isinstance(entry, Cancel) and isinstance(self.content, str) and self._stands_under(entry):
            return replace(entry, reason=self.content, source=self.source, confirm=self.confirm, into="")
        raise ValueError("the form belongs to another entry")

    def _stands_under(self, entry: Entry) -> bool:
        """Return whether the entry has the form's id, and a revision number that matches the form's.

        The form of a cancel may have a lower number than the cancel: it stays valid if the alert is revised after the
        signing (rule AP8).
        """
        lower = isinstance(entry, Cancel) and self.revision < entry.revision
        return entry.id == self.id and (entry.revision == self.revision or lower)


def read(text: str) -> Form:
    """Parse a form, the text that reviewers sign.

    Raise ValueError if it lacks a member, or if the value of a member could not be sent to subscribers. Members that
    this release does not know are ignored; a later release may have added them (rule G1).
    """
    data = text.encode()  # raises UnicodeEncodeError (a ValueError) for a lone surrogate
    if len(data) > MAX_FORM_BYTES:
        raise ValueError("the form is too long")
    try:
        members = load_json(data)
        text_of(members).encode()  # raises an error for escaped lone surrogates and infinite numbers
        return _read(members)
    # Catch all exceptions: a member of a wrong type can raise many besides Malformed. All mean "this is not a form".
    except Exception as error:
        raise ValueError(f"not a form: {type(error).__name__}") from None


def _read(members: Mapping[str, Any]) -> Form:
    if integer(members["v"]) != VERSION or members["what"] not in ("alert", "cancel"):
        raise ValueError("of another version or another kind")
    audience, alert_id, source = text(members["aud"]), text(members["id"]), text(members["source"])
    revision, confirm = integer(members["revision"]), _confirm(members.get("confirm"))
    text(members["category"])
    parse_time(members["expires_at"])  # the form of a cancel must have a valid one, too
    content: Alert | str
    if members["what"] == "alert":
        text(members["title"])
        resolution(members["location_resolution"])
        signed: dict[str, Any] = {
            each.name: None if each.may_be_none and each.name not in members else read(members[each.name])
            for each, read in _SIGNED
        }
        content = Alert(id=alert_id, approval=_NOBODY, confirm=confirm, **signed)
    else:
        content = text(members["reason"])
    return Form(audience, alert_id, revision, source, confirm, content, members)


def _confirm(members: Any) -> Confirm:
    if members is None:
        return Confirm()
    area_km2 = members.get("area_km2")
    if area_km2 is not None and type(area_km2) not in (int, float):
        raise TypeError("not a number")
    return Confirm(area_km2, tuple(map(text, members.get("text", ()))))


def _shape(members: Any) -> Shape:
    """Parse a shape in a form (the text that reviewers sign).

    Raise TypeError for a number written as a string, which other programs may read differently.
    """
    known = {"circle": ("lat", "lng", "radius_m"), "Polygon": ("coordinates", "buffer_m")}
    for name in known.get(members["type"], ()):
        _numbers(members.get(name, 0))
    return to_shape(members)


def _numbers(value: Any) -> None:
    for each in value if isinstance(value, list) else ():
        _numbers(each)
    if type(value) not in (int, float, list):
        raise TypeError("not a number")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value


# For each type of member, the function that reads it. If a type is missing, importing this module raises KeyError.
_READ: Mapping[Any, Callable[[Any], Any]] = {
    **CHECKS,
    TimeMs: parse_time,
    tuple[Shape, ...]: lambda area: tuple(map(_shape, _list(area))),
}
# The members of an alert that reviewers sign, each with the function that reads it. The members that a form stores
# differently are missing.
_SIGNED = tuple(
    (each, _READ[each.type]) for each in members_of(Alert, without=("id", "approval", "confirm", *OF_WARNINGS))
)
