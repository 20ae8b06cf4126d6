"""The form: the very text that reviewers sign, which says by value what goes out (docs/approvals.md).

It is made once, at a dry run, and from then on it is bytes: whoever checks it checks these bytes and then reads them,
and nobody writes them again. So neither the order of keys nor how a number is written can make a difference.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..alertlog.codec import to_shape
from ..clock import format_time, parse_time
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
from ..model.members import CHECKS, integer, members_of, resolution, text
from ..wire.frames import alert_map
from ..wire.strict_json import load_json

VERSION = 1
_NOBODY = Approval("", 0)


def form_of(entry: Entry, audience: str, category: str) -> dict[str, Any]:
    """The members of the form of an entry, in their order. `category`: that of the alert, for a cancel.

    An alert's has what subscribers are sent of it, but for `issued_at`, which nobody knows yet.
    """
    if isinstance(entry, Cancel):
        return {
            **_head("cancel", audience, entry.id, entry.revision, entry.source),
            "category": category,
            "reason": entry.reason,
            "expires_at": format_time(entry.ends_at),
            **_confirmed(entry.confirm),
        }
    sent = {name: value for name, value in alert_map(entry).items() if name != "issued_at"}
    return {
        **_head("alert", audience, entry.id, entry.revision, entry.source),
        **sent,
        "location_resolution": entry.terms.location_resolution,
        **_confirmed(entry.alert.confirm),
    }


def text_of(members: Mapping[str, Any]) -> str:
    """The form with these members as the text that is signed."""
    return json.dumps(members, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _head(what: str, audience: str, alert_id: str, revision: int, source: str) -> dict[str, Any]:
    return {"v": VERSION, "what": what, "aud": audience, "id": alert_id, "revision": revision, "source": source}


def _confirmed(confirm: Confirm) -> dict[str, Any]:
    area = {} if confirm.area_km2 is None else {"area_km2": confirm.area_km2}
    members = area | ({"text": list(confirm.text)} if confirm.text else {})
    return {"confirm": members} if members else {}


# ---- back ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Form:
    """What a form says. `members` has all of it; times are in ms since 1970.

    `content` is the alert, with nobody's approval, or of a cancel its reason.
    """

    what: Literal["alert", "cancel"]
    audience: str
    id: str
    revision: int
    source: str
    category: str
    expires_at: int
    confirm: Confirm
    content: Alert | str
    members: Mapping[str, Any]

    @property
    def occurred_at(self) -> int | None:
        """When the incident happened; the form of a cancel does not say it."""
        return self.content.occurred_at if isinstance(self.content, Alert) else None

    def says(self, entry: Entry) -> Entry:
        """The entry as the form has it (NC1). Of `entry`, which it belongs to, what no form says is kept.

        Raises ValueError if it is another one's: of another kind, id or number.
        """
        if isinstance(entry, Revision) and isinstance(self.content, Alert) and self._stands_under(entry):
            terms = replace(
                entry.terms,
                title=self.members["title"],
                location_resolution=self.members["location_resolution"],
            )
            alert = replace(self.content, approval=entry.alert.approval)
            return replace(entry, alert=alert, source=self.source, terms=terms, origin=None)
        if isinstance(entry, Cancel) and isinstance(self.content, str) and self._stands_under(entry):
            return replace(entry, reason=self.content, source=self.source, confirm=self.confirm, into="")
        raise ValueError("the form is another entry's")

    def _stands_under(self, entry: Entry) -> bool:
        """Whether the entry has the form's id and number. That of a cancel may be a lower one (AP8)."""
        lower = isinstance(entry, Cancel) and self.revision < entry.revision
        return entry.id == self.id and (entry.revision == self.revision or lower)


def read(text: str) -> Form:
    """What a form says. Raises ValueError if it says nothing that could be sent.

    Members that this release does not know are passed over (G1): who signed them has meant them for later ones.
    """
    data = text.encode()  # a lone surrogate is a UnicodeEncodeError, which is a ValueError
    if len(data) > MAX_FORM_BYTES:
        raise ValueError("the form is too long")
    try:
        members = load_json(data)
        text_of(members).encode()  # raises for lone surrogates and infinite numbers in it
        return _read(members)
    # Malformed, and whatever else a member of the wrong type leads to: all say "not a form".
    except Exception as error:
        raise ValueError(f"not a form: {type(error).__name__}") from None


def _read(members: Mapping[str, Any]) -> Form:
    what, audience, alert_id, revision, source = _head_of(members)
    category, confirm = text(members["category"]), _confirm(members.get("confirm"))
    expires_at = parse_time(members["expires_at"])
    content: Alert | str
    if what == "alert":
        text(members["title"])
        resolution(members["location_resolution"])
        signed: dict[str, Any] = {
            each.name: None if each.may_be_none and each.name not in members else read(members[each.name])
            for each, read in _SIGNED
        }
        content = Alert(id=alert_id, approval=_NOBODY, confirm=confirm, **signed)
    else:
        content = text(members["reason"])
    return Form(what, audience, alert_id, revision, source, category, expires_at, confirm, content, members)


def _head_of(members: Mapping[str, Any]) -> tuple[Literal["alert", "cancel"], str, str, int, str]:
    if integer(members["v"]) != VERSION or members["what"] not in ("alert", "cancel"):
        raise ValueError("of another version, or of something else")
    audience, alert_id, source = text(members["aud"]), text(members["id"]), text(members["source"])
    return members["what"], audience, alert_id, integer(members["revision"]), source


def _confirm(members: Any) -> Confirm:
    if members is None:
        return Confirm()
    area_km2 = members.get("area_km2")
    if area_km2 is not None and type(area_km2) not in (int, float):
        raise TypeError("not a number")
    return Confirm(area_km2, tuple(map(text, members.get("text", ()))))


def _shape(members: Any) -> Shape:
    """A shape whose numbers are numbers: a text that could be read as one is read otherwise by others."""
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


# A type that reviewers sign and that is not here is an error when this module is imported.
_READ: Mapping[Any, Callable[[Any], Any]] = {
    **CHECKS,
    TimeMs: parse_time,
    tuple[Shape, ...]: lambda area: tuple(map(_shape, _list(area))),
}
# The members of an alert that reviewers sign, beside those that a form has in another way.
_SIGNED = tuple(
    (each, _READ[each.type]) for each in members_of(Alert, without=("id", "approval", "confirm", *OF_WARNINGS))
)
