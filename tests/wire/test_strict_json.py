"""Bytes to one map: what is strict JSON and strict MessagePack, and all that is not (protocol, sections 2 and 5)."""

import json
import math
from contextlib import suppress

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geocast.errors import Malformed
from geocast.wire.strict_json import MAX_DEPTH, load_json, load_msgpack

ARRAY_OF_3, NIL, TRUE = b"\x93", b"\xc0", b"\xc3"
KEY = b"\xa1a"  # the str "a"
ONE_PAIR, TWO_PAIRS = b"\x81", b"\x82"


def nested_json(levels):
    """A JSON object of that many levels, itself the first."""
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def nested_msgpack(levels):
    """A MessagePack map of that many levels, itself the first."""
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
def test_what_is_not_one_strict_json_object_is_malformed(text):
    """L1: NaN, Infinity, duplicate keys, a byte-order mark, a top level that is no object."""
    with pytest.raises(Malformed):
        load_json(text.encode())


@pytest.mark.parametrize(
    "data", [b'{"a":"\xff"}', b'{"a":"\xc0\x80"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xc3"}', b"\x80"]
)
def test_bad_utf8_is_told_apart_from_bad_json(data):
    """X1: bad UTF-8 in a text frame is closed with 1007, not 4400."""
    with pytest.raises(UnicodeDecodeError):
        load_json(data)


def test_utf16_is_not_guessed():
    """L1: UTF-8 only, whatever a framework's parser would detect."""
    with pytest.raises((Malformed, UnicodeDecodeError)):
        load_json('{"a":1}'.encode("utf-16"))


def test_json_comes_out_as_plain_values():
    """L1: nothing is converted."""
    text = ' {"a": [1, -0, 1.5, 1e2, true, false, null, "\\u00e9\\ud83d\\ude00"], "b": {}} '
    assert load_json(text.encode()) == {"a": [1, 0, 1.5, 100.0, True, False, None, "é😀"], "b": {}}


def test_a_lone_surrogate_is_left_to_the_field():
    """L2: a lone surrogate is `invalid-value`, not malformed."""
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
def test_a_number_beyond_a_double_is_left_to_the_field(number, expected):
    """L2: outside double range is `invalid-value`, not malformed."""
    assert load_json(f'{{"a":{number}}}'.encode()) == {"a": expected}


def test_nesting_may_be_32_deep():
    """L1: nesting deeper than 32 is malformed, in both formats."""
    assert load_json(nested_json(MAX_DEPTH))
    assert load_msgpack(nested_msgpack(MAX_DEPTH))


@pytest.mark.parametrize("levels", [33, 34, 100, 5_000, 20_000])
def test_nesting_deeper_than_32_is_malformed(levels):
    """L1: nesting deeper than 32 is malformed, and is not climbed down to find out."""
    for load, data in ((load_json, nested_json(levels)), (load_msgpack, nested_msgpack(levels))):
        with pytest.raises(Malformed):
            load(data)


def test_depth_is_counted_through_maps_and_lists():
    """L1: nesting is nesting, of whatever brackets."""
    with pytest.raises(Malformed):
        load_json(b'{"a":[' * 17 + b"]}" * 17)


def test_brackets_in_texts_and_beside_one_another_are_not_nesting():
    """L1: only depth counts."""
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
        pytest.param(b"\x80\xc1", id="byte behind"),
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
def test_what_is_not_one_strict_messagepack_map_is_malformed(data):
    """F5: keys and text are str, no bin, no ext, no duplicate keys, no NaN, no trailing bytes."""
    with pytest.raises(Malformed):
        load_msgpack(data)


def test_messagepack_comes_out_as_plain_values():
    """F5: any int or float is a number."""
    value = {"a": [1, -1, 2**64 - 1, 1.5, True, None, "é", math.inf], "b": {"c": {}}}
    assert load_msgpack(msgpack.packb(value)) == value
    assert load_msgpack(ONE_PAIR + KEY + b"\xca\x3f\x80\x00\x00") == {"a": 1.0}


# ---- both ----------------------------------------------------------------------------------------------------

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
def test_what_an_honest_client_writes_is_read(value):
    """F4, F5: strict is not narrow."""
    assert load_json(json.dumps(value).encode()) == value
    assert load_json(json.dumps(value, ensure_ascii=False).encode()) == value
    assert load_msgpack(msgpack.packb(value)) == value


mangled = st.tuples(maps.map(msgpack.packb), st.binary(max_size=4)).map(lambda parts: parts[0][:-2] + parts[1])


@given(st.binary(max_size=60) | mangled)
@settings(deadline=None, max_examples=150)
def test_any_bytes_are_one_map_or_malformed(data):
    """X1, X2: no other error gets out of hostile bytes."""
    for load in (load_json, load_msgpack):
        with suppress(Malformed, UnicodeDecodeError):
            assert type(load(data)) is dict
