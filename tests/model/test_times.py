"""Tests of times as text and as numbers (protocol, rules L7 and L8)."""

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import NOON_MS

from geocast.model.times import MAX_MS, format_time, parse_time


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.001Z", 1),
        ("2026-01-31T12:00:00Z", 1_769_860_800_000),
        ("2026-01-31T12:00:00+00:00", NOON_MS),
        ("2026-01-31T12:00:00-00:00", NOON_MS),
        ("2026-01-31T14:00:00+02:00", NOON_MS),
        ("2026-01-31T06:30:00-05:30", NOON_MS),
        ("2026-02-01T11:59:00+23:59", NOON_MS),
        ("2026-01-31T12:00:00.1Z", NOON_MS + 100),
        ("2026-01-31T12:00:00.12Z", NOON_MS + 120),
        ("2026-01-31T12:00:00.0019Z", NOON_MS + 1),
        ("2026-01-31T12:00:00.999999999Z", NOON_MS + 999),
        ("2026-01-31T11:59:59.999999999-00:00", NOON_MS - 1),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000),
        ("9999-12-31T23:59:59.999Z", MAX_MS),
        ("9999-12-31T23:59:59.999+00:01", MAX_MS - 60_000),
    ],
)
def test_parse_time_returns_milliseconds(text, expected):
    """Any offset is allowed, -00:00 is UTC, digits beyond milliseconds are cut off (rules L7 and L8)."""
    assert parse_time(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-31",
        "2026-01-31T12:00Z",
        "2026-01-31T12:00:00",
        "2026-01-31 12:00:00Z",
        "2026-01-31t12:00:00Z",
        "2026-01-31T12:00:00z",
        "2026-01-31T12:00:00.Z",
        "2026-01-31T12:00:00,5Z",
        "2026-01-31T12:00:00.1234567890Z",
        "2026-01-31T12:00:00+0000",
        "2026-01-31T12:00:00+00",
        "2026-01-31T12:00:00+24:00",
        "2026-01-31T12:00:00+00:60",
        "2026-01-31T12:00:00Z ",
        " 2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00Z\n",
        "2026-01-31T24:00:00Z",
        "2026-01-31T12:60:00Z",
        "2016-12-31T23:59:60Z",
        "2026-02-29T12:00:00Z",
        "2026-13-01T12:00:00Z",
        "2026-00-01T12:00:00Z",
        "2026-01-00T12:00:00Z",
        "2026-04-31T12:00:00Z",
        "12026-01-31T12:00:00Z",
        "-2026-01-31T12:00:00Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+00:01",
        "1969-12-31T23:59:59-00:01",
        "9999-12-31T23:59:59-00:01",
        "0000-01-01T00:00:00Z",
        "2026-W05-6T12:00:00Z",
        "２０２６-01-31T12:00:00Z",
        "٢٠٢٦-01-31T12:00:00Z",
        1_769_860_800,
        1_769_860_800.5,
        None,
        True,
        ["2026-01-31T12:00:00Z"],
        b"2026-01-31T12:00:00Z",
    ],
)
def test_parse_time_refuses_texts_that_are_not_rfc_3339_times(text):
    """There is one grammar. A time must exist, be in 1970 or later, and have no second 60 (rules L7 and L8)."""
    with pytest.raises(ValueError, match="not a time"):
        parse_time(text)


@pytest.mark.parametrize(
    ("ms", "expected"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (NOON_MS, "2026-01-31T12:00:00.000Z"),
        (NOON_MS + 7, "2026-01-31T12:00:00.007Z"),
        (MAX_MS, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_format_time_writes_utc_with_milliseconds(ms, expected):
    """The text is in UTC with exactly three decimals (rules L7 and L8)."""
    assert format_time(ms) == expected


@given(st.integers(0, MAX_MS))
@settings(deadline=None, max_examples=100)
def test_parse_time_is_inverse_of_format_time(ms):
    """A formatted time is read back unchanged (rules L7 and L8)."""
    assert parse_time(format_time(ms)) == ms


@given(
    st.datetimes(dt.datetime(1970, 1, 2), dt.datetime(9999, 12, 30)),  # noqa: DTZ001 (the zone comes next)
    st.integers(-1439, 1439),
)
@settings(deadline=None, max_examples=100)
def test_parse_time_subtracts_the_utc_offset(naive, minutes):
    """The result agrees with the standard library (rules L7 and L8)."""
    moment = naive.replace(tzinfo=dt.timezone(dt.timedelta(minutes=minutes)))
    expected = (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(milliseconds=1)
    assert parse_time(moment.isoformat(timespec="microseconds")) == expected
