"""Strict parsers for JSON and MessagePack (protocol, sections 2 "Lexical rules" and 5 "Messages").

The parsers of web frameworks accept NaN, duplicate keys and lone surrogates. If two programs read a message in
different ways, the message can get past the policy. For example, if a message is `{"severity": "minor", "severity":
"extreme"}`, one program may check the first value and another may publish the second. So these parsers repair nothing
and guess nothing. They return plain dict, list, str, int, float, bool and None, nested at most 32 levels deep.
"""

import json
from typing import Any, NoReturn

import msgpack

from ..model.errors import Malformed

MAX_DEPTH = 32
# A double has at most 309 digits before the point, so longer integers are outside every range. They become floats: an
# int beyond the range of a double raises OverflowError in comparisons with floats, and int() takes time that grows with
# the square of the number of digits.
MAX_INT_DIGITS = 308


def load_json(data: bytes) -> dict[str, Any]:
    """Parse UTF-8 data as one strict JSON object.

    Numbers too large for a double become infinite; no field accepts infinity.

    Raise UnicodeDecodeError for invalid UTF-8, and Malformed for any other data that is not a strict JSON object. The
    text of Malformed says where the data is wrong and why, and repeats nothing of the data.
    """
    text = data.decode("utf-8")
    try:
        value = _JSON.decode(text)
    except json.JSONDecodeError as error:
        raise Malformed(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise Malformed("nested too deep") from None
    except ValueError as error:
        raise Malformed(str(error)) from None
    return _checked_map(value, data.count(b"{") + data.count(b"["))


def load_msgpack(data: bytes) -> dict[str, Any]:
    """Parse data as one strict MessagePack map.

    Raise Malformed if the data is anything else. Keys and texts must be str. Binary data, extension types, NaN and
    bytes after the map are refused.
    """
    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_no_duplicates,
            ext_hook=_no_ext,
            use_list=True,
        )
    # The library raises ValueError, exceptions of its own, and others for a corrupt ext type or time stamp. All of them
    # mean that the bytes are not MessagePack.
    except Exception:
        raise Malformed("not strict MessagePack") from None
    result = _checked_map(value, MAX_DEPTH + 1)
    if not _plain(result):
        raise Malformed("bin, ext or NaN in MessagePack")
    return result


def _checked_map(value: object, brackets: int) -> dict[str, Any]:
    """Return `value` if it is a dict with at most 32 levels of nesting, otherwise raise Malformed.

    `brackets` is an upper limit for the number of dicts and lists in the value. If it is at most 32, the value cannot
    be nested deeper, so its depth is not computed. This is the case for nearly every message.
    """
    if not isinstance(value, dict):
        raise Malformed("not an object")
    if brackets > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise Malformed("nested too deep")
    return value


def _depth(value: object) -> int:
    """Return the number of levels of nested dicts and lists, or 33 if there are more than 32."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        inner = [v for v in level if isinstance(v, dict | list)]
        if not inner:
            break
        depth += 1
        level = [child for v in inner for child in (v.values() if isinstance(v, dict) else v)]
    return depth


def _plain(value: object) -> bool:
    """Return whether the value contains only types that JSON can express, with str as keys.

    Bytes, extension types, time stamps and NaN are not allowed. NaN is recognized as the only value that is not equal
    to itself.
    """
    if isinstance(value, dict):
        return all(type(k) is str and _plain(v) for k, v in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    return value is None or (isinstance(value, str | int | float) and value == value)


def _no_duplicates(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key twice in one object")
    return result


def _no_ext(_code: int, _data: bytes) -> NoReturn:
    raise ValueError("ext type")


def _no_constant(_name: str) -> NoReturn:
    raise ValueError("NaN or Infinity")


def _int(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_INT_DIGITS else float(digits)


_JSON = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_int=_int)
