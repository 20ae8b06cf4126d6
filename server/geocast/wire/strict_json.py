"""Bytes to one map, strictly (protocol, sections 2 "Lexical rules" and 5 "Messages").

The parsers of web frameworks let NaN, duplicate keys and lone surrogates pass. A message that two programs read
differently is a way past the policy, so here nothing is repaired and nothing is guessed. What comes out is plain dict,
list, str, int, float, bool and None, at most 32 levels deep.
"""

import json
from typing import Any, NoReturn

import msgpack

from ..errors import Malformed

MAX_DEPTH = 32
# A double has at most 309 digits before the point, so a longer integer is out of every range anyhow, and an int that is
# no double would raise OverflowError wherever it meets a float. int() takes time that grows with the square of the
# length, too.
MAX_INT_DIGITS = 308


def load_json(data: bytes) -> dict[str, Any]:
    """The JSON object in `data` (UTF-8). Numbers beyond a double come out as infinite, for the field to refuse.

    Raises UnicodeDecodeError for bad UTF-8 and Malformed for all else that is no strict JSON object.
    """
    text = data.decode("utf-8")
    try:
        value = _JSON.decode(text)
    except (ValueError, RecursionError):
        raise Malformed("not strict JSON") from None
    return _checked_map(value, data.count(b"{") + data.count(b"["))


def load_msgpack(data: bytes) -> dict[str, Any]:
    """The MessagePack map in `data`: str keys and text, no bin, no ext, no NaN, nothing behind it.

    Raises Malformed for anything else.
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
    # The library raises ValueError, classes of its own and, for a corrupt ext type or time stamp, still others. All of
    # them mean the same here: the bytes are not MessagePack.
    except Exception:
        raise Malformed("not strict MessagePack") from None
    result = _checked_map(value, MAX_DEPTH + 1)
    if not _plain(result):
        raise Malformed("bin, ext or NaN in MessagePack")
    return result


def _checked_map(value: object, brackets: int) -> dict[str, Any]:
    """`value` if it is a map of at most 32 levels.

    `brackets`: at least as many as there are maps and lists. With no more than 32 of them the value can't be deeper,
    and the walk through it is saved; that is so for nearly every message.
    """
    if not isinstance(value, dict):
        raise Malformed("not a map")
    if brackets > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise Malformed("nested too deep")
    return value


def _depth(value: object) -> int:
    """How many maps and lists lie in one another. It stops counting at 33, which is refused already."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        inner = [v for v in level if isinstance(v, dict | list)]
        if not inner:
            break
        depth += 1
        level = [child for v in inner for child in (v.values() if isinstance(v, dict) else v)]
    return depth


def _plain(value: object) -> bool:
    """Whether nothing in it is bytes, an ext type, a time stamp, a NaN or a key that is no str.

    (A NaN is the only value that differs from itself.)
    """
    if isinstance(value, dict):
        return all(type(k) is str and _plain(v) for k, v in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    return value is None or (isinstance(value, str | int | float) and value == value)


def _no_duplicates(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate key")
    return result


def _no_ext(_code: int, _data: bytes) -> NoReturn:
    raise ValueError("ext type")


def _no_constant(_name: str) -> NoReturn:
    raise ValueError("not a number of JSON")


def _int(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_INT_DIGITS else float(digits)


_JSON = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_int=_int)
