"""The types of the fields in requests and WebSocket messages, and the errors for invalid fields.

The models that use these fields are in `requests` (what publishers send) and in `stream.session` (what subscribers
send). Each field is checked by code here, which decides whether a value is valid. It also has a pattern in the JSON
Schema, so that clients can check a value before they send it. Tests compare the two.
"""

import re
from collections.abc import Sequence
from typing import Annotated, TypeVar
from unicodedata import category

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from ..geometry.published_polygon import MAX_POSITIONS, RequestedPolygon
from ..model import problems
from ..model.alert import ID_PATTERN
from ..model.problems import Violation
from ..model.times import parse_time

MAX_INTEGER = 2**31 - 1  # the greatest integer in a request (rule L4)

_T = TypeVar("_T")

# A lone surrogate can't be encoded in UTF-8, which would only be noticed when it is sent. Private-use and unassigned
# characters have no meaning that a reader or the PII detector could know. pydantic accepts all of these in a str.
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Co", "Cn"})


def _refuse_unreadable(text: str, allowed: str = "", exception: str = "") -> str:
    if not text.isprintable() and any(category(each) in _REFUSED_CATEGORIES for each in text if each not in allowed):
        expected = "must hold no control character{exception}, no private-use, unassigned or lone surrogate character"
        raise PydanticCustomError("text", expected, {"exception": exception})
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("text", "must hold a character that is not white space")
    return text


def _time(value: object) -> int:
    try:
        return parse_time(value)
    except ValueError:
        raise PydanticCustomError("time", "must be a time such as 2026-01-31T12:00:00Z") from None


def _ring(value: object) -> RequestedPolygon:
    try:
        return RequestedPolygon.requested(_positions(value))
    except ValueError as error:
        raise PydanticCustomError("ring", "{why}", {"why": str(error)}) from None


def _positions(value: object) -> list[tuple[float, float]]:
    """Return the positions of a polygon as (longitude, latitude), given the `coordinates` of a GeoJSON Polygon.

    The polygon must have exactly one ring. Raise ValueError if `value` is not valid (rule A16). The text of the error
    contains no position.
    """
    if not isinstance(value, list) or len(value) != 1 or not isinstance(value[0], list):
        raise ValueError("must be exactly one ring: a list with one list of positions (holes are not supported)")
    [ring] = value
    if not 4 <= len(ring) <= MAX_POSITIONS:
        raise ValueError(f"must have 4 to {MAX_POSITIONS} positions")
    if not all(isinstance(each, list) and len(each) == 2 and all(map(_is_number, each)) for each in ring):
        raise ValueError("must have positions of exactly two numbers, [longitude, latitude]")
    if not all(abs(lng) <= 180 and abs(lat) <= 90 for lng, lat in ring):
        raise ValueError("must have longitudes from -180 to 180 and latitudes from -90 to 90, longitude first")
    if ring[0] != ring[-1]:
        raise ValueError("must end with the position that it begins with")
    return [(float(lng), float(lat)) for lng, lat in ring]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# The patterns of the schemas, as regular expressions of ECMA 262. They cannot exclude unassigned characters; the code
# above decides.
_PLAIN = "[^\\u0000-\\u001f\\u007f-\\u009f\\ue000-\\uf8ff]"
# The white space of ECMA without control characters. The pattern of a headline begins with such white space, then has a
# character that is not white space. So there is only one way to split a text into these parts. With several ways, a
# text that does not match would take time in proportion to the square of its length.
_BLANK = "[ \\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\ufeff]"
_NOT_BLANK = f"^{_BLANK}*[^\\s\\u0000-\\u001f\\u007f-\\u009f\\ue000-\\uf8ff]{_PLAIN}*$"
_LINES = "^[^\\u0000-\\u0009\\u000b-\\u001f\\u007f-\\u009f\\ue000-\\uf8ff]*$"
_CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9]"
_TIME_PATTERN = (
    "^(19[7-9][0-9]|[2-9][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    f"T{_CLOCK}:[0-5][0-9](\\.[0-9]{{1,9}})?(Z|[+-]{_CLOCK})$"
)

Text = Annotated[str, AfterValidator(_refuse_unreadable), Field(json_schema_extra={"pattern": f"^{_PLAIN}*$"})]
Headline = Annotated[
    Text,
    Field(min_length=1, max_length=140, json_schema_extra={"pattern": _NOT_BLANK}),
    AfterValidator(_not_blank),
]
Lines = Annotated[
    str,
    AfterValidator(lambda text: _refuse_unreadable(text, "\n", " but line feed")),
    Field(json_schema_extra={"pattern": _LINES}),
]
Description = Annotated[Lines, Field(max_length=1000)]
Time = Annotated[
    int,
    PlainValidator(_time, json_schema_input_type=str),
    WithJsonSchema(
        {"type": "string", "format": "date-time", "pattern": _TIME_PATTERN, "examples": ["2026-01-31T12:00:00Z"]}
    ),
]
Id = Annotated[str, Field(pattern=f"^{ID_PATTERN}$", examples=["desk-7.e3b0c442"])]
Phone = Annotated[str, Field(pattern=r"^\+?[0-9][0-9 ()./-]{1,28}$", examples=["+41 52 555 01 12"])]
RevisionNumber = Annotated[int, Field(ge=1, le=MAX_INTEGER)]
Latitude = Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]
Longitude = Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]
_POSITION = {
    "type": "array",
    "items": {"type": "number"},
    "prefixItems": [
        {"type": "number", "minimum": -180, "maximum": 180},
        {"type": "number", "minimum": -90, "maximum": 90},
    ],
    "minItems": 2,
    "maxItems": 2,
}
RING_SCHEMA = {
    "type": "array",
    "minItems": 1,
    "maxItems": 1,
    "items": {"type": "array", "minItems": 4, "maxItems": MAX_POSITIONS, "items": _POSITION},
    "examples": [[[[-96.81, 32.77], [-96.78, 32.77], [-96.78, 32.79], [-96.81, 32.79], [-96.81, 32.77]]]],
}
Ring = Annotated[RequestedPolygon, PlainValidator(_ring, json_schema_input_type=list), WithJsonSchema(RING_SCHEMA)]


class StrictModel(BaseModel):
    """Base class of the models of requests and messages.

    No value is converted, unknown fields are refused, and errors don't contain the refused value.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


def usable(adapter: TypeAdapter[_T], value: object) -> _T | None:
    """Return the validated value of one field of a request, or None if the field's value is invalid.

    So the valid fields of a request can be used even if others are invalid.
    """
    try:
        return adapter.validate_python(value)
    except ValidationError:
        return None


# ---- errors for invalid fields --------------------------------------------------------------------------------------

_NAMEABLE = re.compile(r"[A-Za-z0-9_]{1,40}")
_THREE_DIGITS = re.compile(r"[0-9]{3}")
_TYPES = {
    "missing": problems.MISSING_FIELD,
    "extra_forbidden": problems.UNKNOWN_FIELD,
    "invalid_key": problems.UNKNOWN_FIELD,
}
_DETAILS = {problems.MISSING_FIELD: "is needed", problems.UNKNOWN_FIELD: "is not a field of this object"}


def broken_fields(error: ValidationError) -> list[Violation]:
    """Return a violation for each invalid field: first the fields of the model in its order, then unknown fields.

    A violation never contains a field's value. It contains the name of an unknown field only if that name reveals
    nothing personal (rule H9).
    """
    return [_violation(e) for e in error.errors(include_url=False, include_input=False)]


def _violation(error: ErrorDetails) -> Violation:
    broken = _TYPES.get(error["type"], problems.INVALID_VALUE)
    if broken is problems.UNKNOWN_FIELD:
        *parents, name = error["loc"]
        location = [*_location(parents), *([name] if _may_be_named(name) else [])]
    else:
        location = _location(error["loc"])
    return Violation(broken, "".join(f"/{part}" for part in location), _DETAILS.get(broken) or _detail(error))


def _detail(error: ErrorDetails) -> str:
    """Return the text of a validation error as the client sees it.

    Where pydantic's text counts the "items" of a string, this text counts characters.
    """
    counted = error.get("ctx", {})
    if counted.get("field_type") != "Value":
        return error["msg"]
    if error["type"] == "too_long":
        return f"must have at most {_characters(counted['max_length'])}"
    return f"must have at least {_characters(counted['min_length'])}"


def _characters(count: int) -> str:
    return f"{count} character" + "s" * (count != 1)


def _location(parts: Sequence[int | str]) -> list[int | str]:
    """Return those parts of an error's location that are field names or indices.

    Pydantic also lists the branches of a union, whose names contain a space; these names are left out.
    """
    return [part for part in parts if " " not in str(part)]


def _may_be_named(name: object) -> bool:
    """Return whether an error may contain this name of an unknown field.

    The name must not look like a telephone number or a sentence.
    """
    return isinstance(name, str) and bool(_NAMEABLE.fullmatch(name)) and not _THREE_DIGITS.search(name)
