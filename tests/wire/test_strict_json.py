"""Strict JSON and strict MessagePack: bytes that are read as a dict, and bytes that are refused."""

import json
import math
from contextlib import suppress

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geocast.model.errors import Malformed
from geocast.wire.strict_json import MAX_DEPTH, load_json, load_msgpack

ARRAY_OF_3, NIL, TRUE = b"\x93", b"\xc0", b"\xc3"
KEY = b"\xa1a"  # the str "a"
ONE_PAIR, TWO_PAIRS = b"\x81", b"\x82"


def nested_json(levels):
    """Return a JSON object with this number of levels, including itself."""
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def nested_msgpack(levels):
    """Return a MessagePack map with this number of levels, including itself."""
    return ONE_PAIR + KEY + b"\x91" * (levels - 2) + b"\x90"


# ---- JSON ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "}",
        "[]",
        "1",
        "null",
        '"text"',
        "{}{}",
        "{} x",
        '{"a":1,}',
        "{'a':1}",
        "{a:1}",
        '{"a":NaN}',
        '{"a":Infinity}',
        '{"a":-Infinity}',
        '{"a":nan}',
        '{"a":01}',
        '{"a":+1}',
        '{"a":.5}',
        '{"a":1.}',
        '{"a":0x10}',
        '{"a":1e}',
        '{"a":١}',
        '{"a":1,"a":1}',
        '{"a":1,"\\u0061":2}',
        '{"a":{"b":1,"b":2}}',
        '{"a":[{"b":1,"b":2}]}',
        '{"a":"\n"}',
        '{"a":"\t"}',
        '{"a":"\\x"}',
        '{"a":"\\u12"}',
        '{"a":True}',
        "{/**/}",
        "\ufeff{}",
        "\u00a0{}",
        "{}\x00",
        '{"a":1}\x0c',
    ],
)
def test_load_json_refuses_anything_but_one_object_of_strict_json(text):
    """NaN, Infinity, duplicate keys, a byte-order mark, other values than objects (rule L1)."""
    with pytest.raises(Malformed):
        load_json(text.encode())


@pytest.mark.parametrize(
    "data", [b'{"a":"\xff"}', b'{"a":"\xc0\x80"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xc3"}', b"\x80"]
)
def test_load_json_raises_unicode_error_for_bad_utf8(data):
    """A text frame with invalid UTF-8 is closed with 1007, not 4400 (rule X1)."""
    with pytest.raises(UnicodeDecodeError):
        load_json(data)


def test_load_json_refuses_utf16():
    """Only UTF-8 is read, even if a framework's parser would detect other encodings (rule L1)."""
    with pytest.raises((Malformed, UnicodeDecodeError)):
        load_json('{"a":1}'.encode("utf-16"))


def test_load_json_returns_values_without_converting_them():
    """For example, `-0` stays 0 and `1e2` a float (rule L1)."""
    text = ' {"a": [1, -0, 1.5, 1e2, true, false, null, "\\u00e9\\ud83d\\ude00"], "b": {}} '
    assert load_json(text.encode()) == {"a": [1, 0, 1.5, 100.0, True, False, None, "é😀"], "b": {}}


def test_load_json_accepts_a_text_with_a_lone_surrogate():
    """The field refuses it as `invalid-value` later (rule L2)."""
    assert load_json(b'{"a":"\\ud800"}') == {"a": "\ud800"}


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("1e309", math.inf),
        ("-1e309", -math.inf),
        ("9" * 309, math.inf),
        ("-" + "9" * 5000, -math.inf),
        ("1e-400", 0.0),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_load_json_rounds_a_number_beyond_the_range_of_a_double(number, expected):
    """The field refuses it as `invalid-value` later (rule L2)."""
    assert load_json(f'{{"a":{number}}}'.encode()) == {"a": expected}


def test_nesting_of_32_levels_is_accepted():
    """The limit is the same in both formats (rule L1)."""
    assert load_json(nested_json(MAX_DEPTH))
    assert load_msgpack(nested_msgpack(MAX_DEPTH))


@pytest.mark.parametrize("levels", [33, 34, 100, 5_000, 20_000])
def test_nesting_deeper_than_32_levels_is_malformed(levels):
    """Also if it is so deep that recursion would fail (rule L1)."""
    for load, data in ((load_json, nested_json(levels)), (load_msgpack, nested_msgpack(levels))):
        with pytest.raises(Malformed):
            load(data)


def test_objects_and_arrays_both_count_as_nesting():
    """The depth counts all brackets (rule L1)."""
    with pytest.raises(Malformed):
        load_json(b'{"a":[' * 17 + b"]}" * 17)


def test_brackets_in_strings_and_neighbouring_arrays_do_not_count_as_nesting():
    """Only the depth is limited (rule L1)."""
    assert load_json(b'{"a":"' + b"[{" * 100 + b'"}')
    assert load_json(b'{"a":[' + b",".join([b"[]"] * 100) + b"]}")


# ---- MessagePack ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(NIL, id="nil"),
        pytest.param(b"\x90", id="array"),
        pytest.param(b"\xa2hi", id="str"),
        pytest.param(b"\x80\x80", id="two maps"),
        pytest.param(b"\x80\xc1", id="trailing byte"),
        pytest.param(b"\xc1", id="never used"),
        pytest.param(ONE_PAIR + KEY, id="cut off"),
        pytest.param(ONE_PAIR + b"\xc4\x01a" + NIL, id="bin key"),
        pytest.param(ONE_PAIR + b"\x01" + NIL, id="int key"),
        pytest.param(ONE_PAIR + NIL + NIL, id="nil key"),
        pytest.param(ONE_PAIR + KEY + b"\xc4\x01a", id="bin value"),
        pytest.param(ONE_PAIR + KEY + b"\x91\xc4\x00", id="bin in an array"),
        pytest.param(ONE_PAIR + KEY + b"\xd4\x05a", id="ext"),
        pytest.param(ONE_PAIR + KEY + b"\xd6\xff\x00\x00\x00\x01", id="time stamp"),
        pytest.param(ONE_PAIR + KEY + b"\xd5\xff\x00\x00", id="broken time stamp"),
        pytest.param(ONE_PAIR + KEY + b"\xc7\x0c\xff" + b"\xff" * 12, id="time stamp out of range"),
        pytest.param(ONE_PAIR + KEY + b"\xca\x7f\xc0\x00\x00", id="NaN, float 32"),
        pytest.param(ONE_PAIR + KEY + b"\xcb\x7f\xf8" + b"\x00" * 6, id="NaN, float 64"),
        pytest.param(TWO_PAIRS + KEY + NIL + KEY + NIL, id="duplicate key"),
        pytest.param(TWO_PAIRS + KEY + NIL + b"\xd9\x01a" + NIL, id="duplicate key in another form"),
        pytest.param(ONE_PAIR + KEY + TWO_PAIRS + KEY + NIL + KEY + NIL, id="duplicate key within"),
        pytest.param(ONE_PAIR + b"\xa1\xff" + NIL, id="key not UTF-8"),
        pytest.param(ONE_PAIR + KEY + b"\xa3\xed\xa0\x80", id="surrogate"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="map said to be huge"),
        pytest.param(ONE_PAIR + KEY + b"\xdd\xff\xff\xff\xff", id="array said to be huge"),
        pytest.param(ONE_PAIR + KEY + b"\xdb\xff\xff\xff\xff", id="str said to be huge"),
    ],
)
def test_load_msgpack_refuses_anything_but_one_valid_messagepack_map(data):
    """Keys and texts are str; no bin, ext, duplicate keys, NaN or trailing bytes (rule F5)."""
    with pytest.raises(Malformed):
        load_msgpack(data)


def test_load_msgpack_returns_values_without_converting_them():
    """Any int or float is a number (rule F5)."""
    value = {"a": [1, -1, 2**64 - 1, 1.5, True, None, "é", math.inf], "b": {"c": {}}}
    assert load_msgpack(msgpack.packb(value)) == value
    assert load_msgpack(ONE_PAIR + KEY + b"\xca\x3f\x80\x00\x00") == {"a": 1.0}


# ---- JSON and MessagePack ------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
maps = st.dictionaries(texts, values, max_size=4)


@given(maps)
@settings(deadline=None, max_examples=60)
def test_output_of_ordinary_json_and_messagepack_libraries_is_read(value):
    """Strictness does not refuse valid messages (rules F4 and F5)."""
    assert load_json(json.dumps(value).encode()) == value
    assert load_json(json.dumps(value, ensure_ascii=False).encode()) == value
    assert load_msgpack(msgpack.packb(value)) == value


mangled = st.tuples(maps.map(msgpack.packb), st.binary(max_size=4)).map(lambda parts: parts[0][:-2] + parts[1])


@given(st.binary(max_size=60) | mangled)
@settings(deadline=None, max_examples=150)
def test_any_bytes_are_read_as_a_dict_or_refused_as_malformed(data):
    """Hostile bytes raise no other error (rules X1 and X2)."""
    for load in (load_json, load_msgpack):
        with suppress(Malformed, UnicodeDecodeError):
            assert type(load(data)) is dict
