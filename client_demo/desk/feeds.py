"""Dispatch records in, incidents out: what happened, where and when, and nothing else.

Rule 1  A feed is told by its columns, whatever the file is called; CSV with a header, or a JSON list of records.
Rule 2  An address, a caller, a unit's name and the number of units end here: `Incident` has no field for them. The
        rows themselves are kept for a person at a review desk (`Group`), with a word on what in them is private.
Rule 3  One incident is one incident, however many units were sent to it. Rows with the same incident number are one;
        where a feed has no number, the same nature at the same place within the hour is.
Rule 4  A file that can't be used is refused in one line that says why.
Rule 5  A row has at most MOST_COLUMNS columns, and a value MOST_CHARACTERS characters. What a feed sends beyond that
        is cut off here, so that nothing behind this door has to reckon with more.
"""

import csv
import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from io import StringIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from client_demo.python.times import ms_of

SAMPLE = Path(__file__).with_name("sample_feed.csv")
SAME_INCIDENT_MS = 3_600_000
MOST_COLUMNS, MOST_CHARACTERS = 200, 1000  # the widest of the known feeds has 60 columns, with values up to 200
ADDRESS, UNITS, CASE, PLACE = "address", "units", "case number", "exact place"  # what a column gives away

Row = Mapping[str, str | int | float | bool | None]


class FeedError(Exception):
    """A file that can't be used. The text is one line for a person."""


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that happened. `nature` in the feed's own words, `occurred_at` in ms since 1970, degrees.

    None where the record doesn't tell. `feed` names the table that explains the nature.
    """

    feed: str
    nature: str
    occurred_at: int | None
    lat: float | None
    lng: float | None


@dataclass(slots=True)
class Group:
    """One incident with the rows that tell of it, in order of time (Rule 3).

    `key` is the same for all rows of the incident, also in a later edition of the feed; where the feed `is_numbered`
    it is nobody else's. `latest` is the time of the last row.
    """

    key: str
    is_numbered: bool
    incident: Incident
    rows: list[Row]
    latest: int | None


@dataclass(frozen=True, slots=True)
class Records:
    """What a feed's text holds. `private` tells what some columns give away; `nature` and `district` name columns."""

    title: str
    rows: int
    groups: list[Group]
    has_places: bool
    private: Mapping[str, str]
    nature: str
    district: str


@dataclass(frozen=True, slots=True)
class Feed:
    """A file that was read."""

    title: str
    rows: int
    incidents: list[Incident]


@dataclass(frozen=True, slots=True)
class _Format:
    """One kind of feed: the columns that tell it, how a row is read, and what in it is private (column -> what)."""

    name: str
    title: str
    columns: frozenset[str]
    number: Callable[[Row], str]
    incident: Callable[[Row], Incident]
    private: Mapping[str, str]
    nature: str
    district: str = ""
    has_places: bool = True


def read_feed(path: Path) -> Feed:
    """The incidents of a file, oldest first. Raises FeedError (Rule 4)."""
    found = read_records(path.name, feed_text(path))
    if not found.has_places:
        raise FeedError(
            f"{path.name} can't be used: {found.title} give a block and a street but no coordinates, "
            "and nothing here looks addresses up"
        )
    incidents = [group.incident for group in found.groups]
    if all(incident.lat is None for incident in incidents):
        raise FeedError(f"{path.name} can't be used: none of its {found.rows} records has coordinates")
    return Feed(found.title, found.rows, incidents)


def read_records(name: str, text: str) -> Records:
    """The incidents in the text of a feed called `name`, oldest first, with their rows. Raises FeedError (Rule 4)."""
    rows = _rows(name, text)
    kind = _kind(name, rows)
    groups = _grouped(kind, rows)
    return Records(kind.title, len(rows), groups, kind.has_places, kind.private, kind.nature, kind.district)


# ---- files -----------------------------------------------------------------------------------------------------


def feed_text(path: Path) -> str:
    """The text of a file. Raises FeedError."""
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
    """Rule 5. What CSV has beyond its header comes under None, and is left out."""
    columns = itertools.islice(((column, value) for column, value in row.items() if column), MOST_COLUMNS)
    return {str(column)[:MOST_CHARACTERS]: _cut_value(value) for column, value in columns}


def _cut_value(value: object) -> str | int | float | bool | None:
    return value if value is None or isinstance(value, int | float) else str(value)[:MOST_CHARACTERS]


def _json_rows(name: str, text: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(text)
        # JSON can spell half a character (a lone surrogate), which nothing could be sent or stored with.
        found = json.loads(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise FeedError(f"{name} is neither CSV nor JSON") from None
    if isinstance(found, list) and all(isinstance(row, dict) for row in found):
        return found
    raise FeedError(f"{name} is no feed: a list of records is needed, and this is something else (a code list?)")


def _kind(name: str, rows: list[Row]) -> _Format:
    for kind in FORMATS:
        if kind.columns <= rows[0].keys():
            return kind
    known = "; ".join(f"{kind.title} ({', '.join(sorted(kind.columns))})" for kind in FORMATS)
    raise FeedError(f"{name} is no feed that is known here. Known by their columns: {known}")


def _grouped(kind: _Format, rows: Iterable[Row]) -> list[Group]:
    """Rule 3. Of the rows of an incident the earliest counts."""
    read = [(kind.number(row), kind.incident(row), row) for row in rows if kind.columns <= row.keys()]
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
    return groups


def is_near(earlier: int | None, later: int | None) -> bool:
    """Whether two rows without a number, alike in nature and place, tell of one incident."""
    return earlier is None or later is None or abs(later - earlier) <= SAME_INCIDENT_MS


# ---- columns ---------------------------------------------------------------------------------------------------


def _zone(name: str, hours: int) -> tzinfo:
    """A zone, or its standard offset on a machine that has no time zone data."""
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError:
        return timezone(timedelta(hours=hours))


def _time(text: object, pattern: str, zone: tzinfo) -> int | None:
    try:
        return ms_of(datetime.strptime(str(text), pattern).replace(tzinfo=zone))
    except ValueError:
        return None


def _degrees(text: object, limit: float) -> float | None:
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) <= limit else None


def _placed(incident: Incident, lat: object, lng: object) -> Incident:
    """With its place; half a place, or 0/0 (what feeds write for "unknown"), is none."""
    where = _degrees(lat, 90), _degrees(lng, 180)
    if None in where or where == (0, 0):
        return incident
    return replace(incident, lat=where[0], lng=where[1])


def _no_number(row: Row) -> str:
    del row
    return ""


def _dallas(row: Row) -> Incident:
    code = str(row["nature_of_call"]).split(" - ")[0].strip()
    at = _time(row["date_time"], "%Y-%m-%dT%H:%M:%S.%f", _zone("America/Chicago", -6))
    return Incident("dallas", code, at, None, None)


def _montgomery(row: Row) -> Incident:
    service, colon, rest = str(row["title"]).strip().partition(":")
    nature = (rest if colon else service).removesuffix("-").strip(" ")
    at = _time(row["timeStamp"], "%Y-%m-%d %H:%M:%S", _zone("America/New_York", -5))
    return _placed(Incident("montgomery", nature, at, None, None), row["lat"], row["lng"])


def _sf_fire(row: Row) -> Incident:
    at = _time(row["AvailableDtTm"], "%m/%d/%Y %I:%M:%S %p", _zone("America/Los_Angeles", -8))
    if at is None:
        at = _time(row["CallDate"], "%Y-%m-%d", _zone("America/Los_Angeles", -8))
    lat, _, lng = str(row["Location"]).strip("()").partition(",")
    return _placed(Incident("sf_fire", str(row["CallType"]).strip(), at, None, None), lat, lng)


def _sample(row: Row) -> Incident:
    at = _time(row["reported_at"], "%Y-%m-%dT%H:%M:%SZ", UTC)
    return _placed(Incident("sample", str(row["nature"]).strip(), at, None, None), row["lat"], row["lng"])


FORMATS = (
    _Format(
        "dallas",
        "Dallas active calls",
        frozenset({"incident_number", "nature_of_call", "date_time", "location", "unit_number"}),
        lambda row: str(row["incident_number"]),
        _dallas,
        {
            "incident_number": CASE,
            **dict.fromkeys(("location", "block"), ADDRESS),
            **dict.fromkeys(("unit_number", "beat", "reporting_area"), UNITS),
        },
        "nature_of_call",
        "division",
        has_places=False,
    ),
    _Format(
        "montgomery",
        "Montgomery County (PA) 911 calls",
        frozenset({"lat", "lng", "title", "timeStamp", "twp"}),
        _no_number,
        _montgomery,
        {"addr": ADDRESS, "lat": PLACE, "lng": PLACE},
        "title",
        "twp",
    ),
    _Format(
        "sf_fire",
        "San Francisco fire calls",
        frozenset({"IncidentNumber", "CallType", "CallDate", "AvailableDtTm", "Location"}),
        lambda row: str(row["IncidentNumber"]),
        _sf_fire,
        {
            **dict.fromkeys(("CallNumber", "IncidentNumber", "RowID"), CASE),
            "Address": ADDRESS,
            **dict.fromkeys(("UnitID", "UnitType", "UnitSequenceInCallDispatch", "NumAlarms", "ALSUnit"), UNITS),
            **dict.fromkeys(("Battalion", "StationArea", "Box"), UNITS),
            "Location": PLACE,
        },
        "CallType",
        "Neighborhood",
    ),
    _Format(
        "sample",
        "the sample of invented incidents",
        frozenset({"incident", "reported_at", "nature", "lat", "lng"}),
        lambda row: str(row["incident"]),
        _sample,
        {"incident": CASE, "address": ADDRESS, "unit": UNITS, "lat": PLACE, "lng": PLACE},
        "nature",
    ),
)
