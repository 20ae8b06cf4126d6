"""Times in header fields of HTTP answers."""

from email.utils import parsedate_to_datetime


def parse_retry_after(text: str | None, now_ms: int) -> float | None:
    """Return the seconds that a `Retry-After` field asks for (RFC 9110, 10.2.3).

    Return None if the field is missing or invalid. `now_ms` is the time of the answer, in ms since 1970.
    """
    if text is not None and text.isascii() and text.isdigit():
        return float(text[:9])
    moment = parse_http_date(text)
    return None if moment is None else (moment - now_ms) / 1000


def parse_http_date(text: str | None) -> int | None:
    """Return the time that an HTTP date denotes, in ms since 1970, or None if it is missing or invalid."""
    try:
        return None if text is None else int(parsedate_to_datetime(text).timestamp() * 1000)
    except (TypeError, ValueError, OverflowError):
        return None
