"""Times in header fields of HTTP answers."""

import pytest
from support.fakes import NOON_MS

from geocast.egress.http_times import parse_retry_after


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        ("2026-01-31T12:00:05.000Z", None),
        (None, None),
        ("Sat, 31 Jan 2026 12:00:10 GMT", 10.0),
        ("soon", None),
        ("-1", None),
        ("٣", None),
        ("1" * 80, 111_111_111.0),
    ],
)
def test_retry_after_is_read_as_seconds_or_date(text, seconds):
    """An invalid value is ignored (RFC 9110, 10.2.3)."""
    assert parse_retry_after(text, NOON_MS) == seconds
