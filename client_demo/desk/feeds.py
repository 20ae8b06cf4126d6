"""Reads dispatch records, and makes incidents of them, which have a nature (what happened), a place and a time.

Rule 1  A feed is CSV with a header, or a JSON list of records. What its columns mean is given by a description
        (`feed_format`). If no description is given, one of those that come with the desk is chosen by the columns; the
        name of the file does not matter.
Rule 2  An `Incident` has no field for addresses, callers, or the names and numbers of units. The rows, which may have
        these, are kept only for the person at a review desk (`Group`), who sees which parts are private.
Rule 3  An incident is counted once, even if several units were sent to it. Rows with the same incident number belong to
        one incident. If the feed has no numbers, rows with the same nature and place within an hour do.
Rule 4  A file that can't be used is refused with one line that says why.
Rule 5  A row has at most MOST_COLUMNS columns, and a value at most MOST_CHARACTERS characters. Anything beyond that is
        cut off here, so that no other module has to expect more.
Rule 6  A row that has no nature, no place and no time is left out. Any other row is an incident that a person can look
        at, even if some of these are missing.
"""

import csv
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from .feed_format import FeedError, Format, Incident, Row, known_formats, lacking

SAMPLE = Path(__file__).with_name("sample_feed.csv")
SAME_INCIDENT_MS = 3_600_000
MOST_COLUMNS, MOST_CHARACTERS = 200, 1000  # the largest known feed has 60 columns, and values of up to 200 characters


@dataclass(slots=True)
class Group:
    """One incident with all its rows in the feed, in order of time (Rule 3).

    `key` is the same for all rows of the incident, also in later editions of the feed. If the feed `is_numbered`, no
    other incident has this key. `latest` is the time of the last row, in ms since 1970.
    """

    key: str
    is_numbered: bool
    incident: Incident
    rows: list[Row]
    latest: int | None


@dataclass(frozen=True, slots=True)
class Records:
    """The incidents of a feed, oldest first. Of its `rows` rows, `empty` rows were left out (Rule 6)."""

    format: Format
    rows: int
    empty: int
    groups: list[Group]


@dataclass(frozen=True, slots=True)
class Feed:
    """The incidents that were read from a file, with the title of the feed and the number of rows."""

    title: str
    rows: int
    incidents: list[Incident]


def read_feed(path: Path, kind: Format | None = None) -> Feed:
    """Return the incidents of a file, oldest first. Raise FeedError if the file can't be used (Rule 4)."""
    found = read_records(path.name, feed_text(path), kind)
    if found.format.told.place is None:
        raise FeedError(
            f"{path.name} can't be used: {found.format.title} give no coordinates, and nothing here looks addresses up"
        )
    incidents = [group.incident for group in found.groups]
    if all(incident.lat is None for incident in incidents):
        raise FeedError(f"{path.name} can't be used: none of its {found.rows} records has coordinates")
    return Feed(found.format.title, found.rows, incidents)


def read_records(name: str, text: str, kind: Format | None = None) -> Records:
    """Return the incidents in the text of a feed, the oldest first, with their rows.

    `name` is that of the feed, for error messages. `kind` is the format of the feed; if it is None, the format is
    recognised by the columns. Raise FeedError if the feed can't be used (Rule 4).
    """
    rows = _rows(name, text)
    columns = {column for row in rows for column in row}
    if kind is None:
        kind = _kind(name, columns)
    elif lack := lacking(kind, columns):
        raise FeedError(f"{name} {lack}")
    groups, empty = _grouped(kind, rows)
    return Records(kind, len(rows), empty, groups)


# ---- reading files ---------------------------------------------------------------------------------------------


def feed_text(path: Path) -> str:
    """Return the text of the file at `path`. Raise FeedError if it can't be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise FeedError(f"{path} can't be read: {reason}") from None


def _rows(name: str, text: str) -> list[Row]:
    is_json = text.lstrip().startswith(("{", "["))
    try:
        found = _json_rows(name, text) if is_json else csv.DictReader(StringIO(text))
        rows = [_cut(row) for row in found]
    except csv.Error as error:
        raise FeedError(f"{name} is no CSV that can be read: {error}") from None
    except RecursionError:
        raise FeedError(f"{name} can't be used: it holds values within values without end") from None
    if not rows:
        raise FeedError(f"{name} holds no records")
    return rows


def _cut(row: Mapping[Any, Any]) -> Row:
    """Return a row, cut to the limits (Rule 5).

    If a row in CSV has more values than the header, the values without a column are left out.
    """
    columns = itertools.islice(((column, value) for column, value in row.items() if column), MOST_COLUMNS)
    return {str(column)[:MOST_CHARACTERS]: _cut_value(value) for column, value in columns}


def _cut_value(value: object) -> str | int | float | bool | None:
    return value if value is None or isinstance(value, int | float) else str(value)[:MOST_CHARACTERS]


def _json_rows(name: str, text: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(text)
        # JSON allows lone surrogates (halves of a character), which can be neither sent nor stored.
        found = json.loads(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise FeedError(f"{name} is neither CSV nor JSON") from None
    if isinstance(found, list) and all(isinstance(row, dict) for row in found):
        return found
    raise FeedError(f"{name} is no feed: a list of records is needed, and this is something else (a code list?)")


def _kind(name: str, columns: set[str]) -> Format:
    for kind in known_formats():
        if kind.needed.keys() <= columns:
            return kind
    known = ", ".join(kind.title for kind in known_formats())
    raise FeedError(
        f"{name} is no feed that is known here ({known}): describe it in a file, and give that with --feed-format. "
        f"Its columns: {', '.join(sorted(columns))[:MOST_CHARACTERS]}"
    )


def _grouped(kind: Format, rows: Iterable[Row]) -> tuple[list[Group], int]:
    """Group rows by incident (Rule 3). Return the incidents, and the number of rows that were left out (Rule 6).

    The nature, time and place of an incident are those of its earliest row.
    """
    all_read = [(kind.number(row), kind.incident(row), row) for row in rows]
    read = [each for each in all_read if not _is_empty(each[1])]
    read.sort(key=lambda triple: triple[1].occurred_at or 0)
    groups: list[Group] = []
    latest: dict[str, Group] = {}
    for number, incident, row in read:
        key = f"{kind.name} " + (number or f"{incident.nature} {incident.lat} {incident.lng}")
        group = latest.get(key)
        if group is None or not (number or is_near(group.incident.occurred_at, incident.occurred_at)):
            group = latest[key] = Group(key, bool(number), incident, [], incident.occurred_at)
            groups.append(group)
        group.rows.append(row)
        group.latest = incident.occurred_at
    return groups, len(all_read) - len(read)


def _is_empty(incident: Incident) -> bool:
    return not incident.nature and incident.lat is None and incident.occurred_at is None


def is_near(earlier: int | None, later: int | None) -> bool:
    """Return whether two rows, with these times in ms, are near enough in time to belong to one incident.

    Use it only for rows without a number that have the same nature and place. A time may be None.
    """
    return earlier is None or later is None or abs(later - earlier) <= SAME_INCIDENT_MS
