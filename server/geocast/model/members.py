"""The members of the dataclasses in `alert`: the one list by which an alert is stored, signed and sent.

A member's declared type decides how it is written and read. `alertlog/codec`, `stream/compact_revision`,
`approvals/form` and `wire/frames` loop over the members; what is special about a type there is in a table by type. So a
new optional member of a known type is declared in `Alert` or `AlertText`, and nothing else is needed to store it.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from types import NoneType
from typing import Any, NamedTuple, get_args, get_type_hints

from .alert import FINEST_RESOLUTION, SEVERITY_RANK, Certainty, Severity, Status, Urgency


class Member(NamedTuple):
    """A member of a dataclass. `type` is its declared type without None; `default` is MISSING if there is none."""

    name: str
    type: Any
    may_be_none: bool
    default: Any

    @property
    def is_optional(self) -> bool:
        """Whether the member may be left out where the dataclass is stored."""
        return self.default is not MISSING


def members_of(kind: type, *, without: tuple[str, ...] = ()) -> tuple[Member, ...]:
    """Return the members of a dataclass in their order, except those named in `without`."""
    hints = get_type_hints(kind, include_extras=True)
    found = (each for each in fields(kind) if each.name not in without)
    return tuple(_member(each.name, hints[each.name], each.default) for each in found)


def _member(name: str, hint: Any, default: Any) -> Member:
    others = [each for each in get_args(hint) if each is not NoneType]
    may_be_none = len(others) < len(get_args(hint))
    return Member(name, others[0] if may_be_none else hint, may_be_none, default)


# ---- checks of values that were read: each returns its value, or raises TypeError or ValueError ----------------------


def text(value: object) -> str:
    """Return the value, which must be a text."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def integer(value: object) -> int:
    """Return the value, which must be an integer and no boolean."""
    if type(value) is not int:
        raise TypeError("not an integer")
    return value


def resolution(value: object) -> int:
    """Return the value, which must be a resolution of H3."""
    if not 0 <= integer(value) <= FINEST_RESOLUTION:
        raise ValueError("not a resolution of H3")
    return integer(value)


def severity(value: Any) -> Any:
    """Return the value, which must be a severity."""
    if value not in SEVERITY_RANK:
        raise ValueError("not a severity")
    return value


# A later release may know other words of the last three.
CHECKS: Mapping[Any, Callable[[Any], Any]] = {
    str: text,
    Severity: severity,
    **dict.fromkeys((Status, Urgency, Certainty), text),
}
