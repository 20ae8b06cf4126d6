"""The description of a feed: the meaning of its columns, and of each nature (the feed's words for what happened).

    title = "Springfield police calls"
    nature = "call_type"
    time = { column = "received", format = "%m/%d/%Y %H:%M", zone = "America/Chicago" }
    [categories]
    "STRUCTURE FIRE*" = "fire_structure"

Rule 1  A description is a TOML file. If a key is unknown or missing, or a value is of the wrong kind, the description
        is refused with one line that names the file, the key and the expected value.
Rule 2  The columns with the incident number and with the location are private, even if the description does not say so.
        The columns whose text an alert shows (the nature and the district) must not be private.
Rule 3  A value that does not match the description counts as missing. Examples: only one of two coordinates, 0/0 (which
        feeds write for "unknown"), a time in another format. Nothing is guessed.
Rule 4  A nature gets the meaning of the first entry of `categories` that matches it. First an entry is tried that is
        equal to the nature, ignoring case; then the entries with `*`, `?` or `[…]`, in the order of the file. These are
        shell patterns. Matching one takes time proportional to the length of the text, and there are at most
        MOST_PATTERNS. A nature without a matching entry has no meaning, and the desk proposes no alert for it.
"""

import difflib
import fnmatch
import functools
import math
import re
import tomllib
import warnings
import zoneinfo
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from client_demo.python.times import ms_of

ADDRESS, UNITS, CASE, PLACE = "address", "units", "case number", "exact place"  # kinds of private columns
PHONE, PERSON = "telephone number", "name"
MOST_ENTRIES, MOST_PATTERNS = 5000, 100
MOST_ERRORS = 3  # the most errors that one message lists
FOLDER = Path(__file__).with_name("feed_formats")
ISO, UNIX_S, UNIX_MS = "iso", "unix_s", "unix_ms"  # formats of a time besides the patterns of strptime
_PROBE = datetime(2001, 2, 23, 14, 45, 56, tzinfo=UTC)  # an afternoon: its hour shows whether a pattern lacks AM and PM
_DIGITS = r"([-+]?\d{1,4}(?:\.\d{0,20})?)"
# A pattern for two coordinates: `(37.7, -122.4)`, `37.7 -122.4`, or a point written as WKT or GeoJSON.
_PAIR = re.compile(rf"(?:POINT ?|\{{'type': 'Point', 'coordinates': )?[(\[]?{_DIGITS}(?:, ?| ){_DIGITS}[)\]]?\}}?")

Row = Mapping[str, str | int | float | bool | None]


class FeedError(Exception):
    """Raised if a feed, or the description of a feed, can't be used. The text is one line for the user."""


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that happened, according to a feed.

    `nature` is the kind of incident in the feed's own words, `occurred_at` the time in ms since 1970, and `lat` and
    `lng` the place in degrees. A value that the record lacks is None. `feed` names the description of the feed, and
    `means` is the meaning that the description gives to the nature: a category, or a key of kept_back.toml; "" if it
    gives none.
    """

    feed: str
    nature: str
    occurred_at: int | None
    lat: float | None
    lng: float | None
    means: str = ""


# ---- the keys of a description -----------------------------------------------------------------------------------


def _table(value: object) -> object:
    """Convert the name of a column to a table with only this column. Return any other value unchanged."""
    return {"column": value} if isinstance(value, str) else value


def _list(value: object) -> object:
    """Convert a single value to a list with only this value. Return a list unchanged."""
    return [value] if isinstance(value, str | dict) else value


_Column = Annotated[str, Field(min_length=1, max_length=200)]
_Columns = Annotated[list[_Column], BeforeValidator(_list), Field(max_length=50)]
_Text = Annotated[str, Field(max_length=200)]
_Key = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Nature(_Strict):
    """Where a row has the nature of an incident: the feed's own words for the kind of incident.

    The nature is the text in `column` after the text `after` and before the text `until`. If it ends with
    `without_end`, this ending is removed.
    """

    column: _Column
    after: _Text = ""
    until: _Text = ""
    without_end: _Text = ""

    def of(self, row: Row) -> str:
        """Return the nature in a row; "" if there is none."""
        text = _text(row.get(self.column))
        if self.after:
            before, found, rest = text.partition(self.after)
            text = rest if found else before
        if self.until:
            text = text.partition(self.until)[0]
        return (text.removesuffix(self.without_end) if self.without_end else text).strip()


class Time(_Strict):
    """A column with a time: its format (a pattern for `strptime`, or ISO, UNIX_S or UNIX_MS), and its time zone."""

    column: _Column
    format: Annotated[str, Field(min_length=1, max_length=100)]
    zone: str = ""

    @field_validator("format")
    @classmethod
    def _tells_a_day(cls, form: str) -> str:
        if form in (ISO, UNIX_S, UNIX_MS) or _is_pattern(form):
            return form
        raise PydanticCustomError(
            "time_format",
            'expected "iso", "unix_s", "unix_ms", or a pattern of strptime with a year, a month and a day, such as '
            '"%m/%d/%Y %I:%M:%S %p" (%I needs %p)',
        )

    @field_validator("zone")
    @classmethod
    def _is_a_zone(cls, zone: str) -> str:
        try:
            zoneinfo.ZoneInfo(zone or "UTC")
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            near = nearest(zone, zoneinfo.available_timezones())
            raise PydanticCustomError(
                "zone", 'expected a time zone of the IANA database, such as "{near}"', {"near": near or "Europe/Berlin"}
            ) from None
        return zone

    @model_validator(mode="after")
    def _is_in_a_zone(self) -> "Time":
        if not (self.zone or self.format.startswith("unix") or "%z" in self.format):
            raise PydanticCustomError("no_zone", 'zone is missing: expected a time zone such as "America/Chicago"')
        return self

    def of(self, row: Row) -> int | None:
        """Return the time in a row, in ms since 1970; None if there is no time in this format."""
        text = _text(row.get(self.column))
        try:
            if self.format in (UNIX_S, UNIX_MS):
                return ms_of(datetime.fromtimestamp(float(text) / (1 if self.format == UNIX_S else 1000), UTC))
            at = datetime.fromisoformat(text) if self.format == ISO else datetime.strptime(text, self.format)  # noqa: DTZ007
            return ms_of(at if at.tzinfo else at.replace(tzinfo=zoneinfo.ZoneInfo(self.zone)))
        except (ValueError, OverflowError, OSError):
            return None


class PlaceColumns(_Strict):
    """The columns with the place: `lat` and `lng`, or one `column` with both numbers in the order `order`."""

    lat: _Column | None = None
    lng: _Column | None = None
    column: _Column | None = None
    order: str | None = None

    @model_validator(mode="after")
    def _is_one_or_the_other(self) -> "PlaceColumns":
        is_two = None not in (self.lat, self.lng) and (self.column, self.order) == (None, None)
        is_one = self.column is not None and (self.lat, self.lng) == (None, None)
        if not (is_two or (is_one and self.order in ("lat lng", "lng lat"))):
            raise PydanticCustomError(
                "place", 'expected lat and lng (two columns), or column and order = "lat lng" or "lng lat"'
            )
        return self

    @property
    def columns(self) -> list[str]:
        """The columns that contain the place."""
        return [column for column in (self.lat, self.lng, self.column) if column is not None]

    def of(self, row: Row) -> tuple[float, float] | None:
        """Return the latitude and longitude in a row, in degrees, or None if they are not valid (Rule 3)."""
        if self.column is None:
            lat, lng = (row.get(str(column)) for column in (self.lat, self.lng))
        else:
            pair = _PAIR.fullmatch(_text(row.get(self.column)))
            lat, lng = pair.groups() if pair else ("", "")
            lat, lng = (lng, lat) if self.order == "lng lat" else (lat, lng)
        where = _degrees(lat, 90), _degrees(lng, 180)
        return None if where[0] is None or where[1] is None or where == (0, 0) else (where[0], where[1])


class Private(_Strict):
    """The names of the private columns, listed by the kind of private information in them."""

    address: _Columns = []
    units: _Columns = []
    case: _Columns = []
    place: _Columns = []
    phone: _Columns = []
    name: _Columns = []

    def by_column(self) -> Iterator[tuple[str, str]]:
        """Return pairs: the name of a private column, and the kind of information in it."""
        words = {"address": ADDRESS, "units": UNITS, "case": CASE, "place": PLACE, "phone": PHONE, "name": PERSON}
        return ((column, word) for key, word in words.items() for column in getattr(self, key))


class Description(_Strict):
    """The content of a file that describes a feed."""

    title: Annotated[str, Field(min_length=1, max_length=140)]
    nature: Annotated[Nature, BeforeValidator(_table)]
    time: Annotated[list[Time], BeforeValidator(_list), Field(min_length=1, max_length=4)]
    number: _Column | None = None
    place: PlaceColumns | None = None
    district: _Column | None = None
    private: Private = Private()
    known_by: _Columns = []
    categories: Annotated[dict[_Text, _Key], Field(max_length=MOST_ENTRIES)]

    @field_validator("categories")
    @classmethod
    def _is_bounded(cls, categories: dict[str, str]) -> dict[str, str]:
        if sum(map(_is_wild, categories)) > MOST_PATTERNS:
            raise PydanticCustomError(
                "patterns", "expected at most {most} natures with *, ? or [", {"most": MOST_PATTERNS}
            )
        if len({nature.casefold() for nature in categories}) < len(categories):
            raise PydanticCustomError("twice", "expected each nature once; upper and lower case are alike")
        return categories

    @model_validator(mode="after")
    def _keeps_private_what_is(self) -> "Description":
        private = dict(self.private.by_column())
        for key, column in (("nature", self.nature.column), ("district", self.district)):
            if column in private:
                raise PydanticCustomError(
                    "told", "{key} is told, so its column can't be private too: expected another", {"key": key}
                )
        return self


# ---- reading descriptions ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Format:
    """A kind of feed. Its `name` keeps its incidents apart from those of other feeds, even after a restart."""

    name: str
    told: Description

    @property
    def title(self) -> str:
        """The name of the feed, as it is shown to people."""
        return self.told.title

    @functools.cached_property
    def needed(self) -> dict[str, str]:
        """The columns that a feed of this kind must have.

        Each column is mapped to the key of the description that contains its name.
        """
        told = self.told
        keys = {"nature": [told.nature.column], "time": [time.column for time in told.time]}
        keys |= {"number": [told.number] if told.number else [], "place": told.place.columns if told.place else []}
        return {column: key for key, columns in {**keys, "known_by": told.known_by}.items() for column in columns}

    @functools.cached_property
    def private(self) -> dict[str, str]:
        """The private columns (Rule 2), each mapped to the kind of information in it."""
        told = self.told
        own = {told.number: CASE} if told.number else {}
        places = dict.fromkeys(told.place.columns, PLACE) if told.place else {}
        return {**own, **places, **dict(told.private.by_column())}

    def number(self, row: Row) -> str:
        """Return the incident number in a row, or "" if there is none."""
        return _text(row.get(self.told.number)) if self.told.number else ""

    def incident(self, row: Row) -> Incident:
        """Return the incident that a row describes."""
        nature = self.told.nature.of(row)
        times = (time.of(row) for time in self.told.time)
        at = next((time for time in times if time is not None), None)
        lat, lng = (self.told.place.of(row) if self.told.place else None) or (None, None)
        return Incident(self.name, nature, at, lat, lng, self.means(nature))

    def means(self, nature: str) -> str:
        """Return the meaning of a nature, which is the feed's own name for a kind of incident (Rule 4).

        The meaning is a category, or a key of kept_back.toml; "" if the description gives none.
        """
        exact, patterns = self._entries
        key = nature.casefold()
        return exact.get(key) or next((meaning for pattern, meaning in patterns if pattern.match(key)), "")

    @functools.cached_property
    def _entries(self) -> tuple[dict[str, str], list[tuple[re.Pattern[str], str]]]:
        entries = {nature.casefold(): meaning for nature, meaning in self.told.categories.items()}
        return entries, [(_pattern(nature), meaning) for nature, meaning in entries.items() if _is_wild(nature)]


@functools.cache
def known_formats() -> tuple[Format, ...]:
    """Return the formats that come with the desk. A feed in one of them is recognised by its columns."""
    return tuple(read_format(path) for path in sorted(FOLDER.glob("*.toml")))


def read_format(path: Path) -> Format:
    """Return the format that the file at `path` describes. Raise FeedError if the file is invalid (Rule 1)."""
    try:
        return Format(path.stem, Description.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))))
    except OSError as error:
        raise FeedError(f"{path} can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FeedError(f"{path} is not TOML: {error}") from None
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False, include_input=False)
        more = f" (and {len(errors) - MOST_ERRORS} more)" if len(errors) > MOST_ERRORS else ""
        raise FeedError(f"{path}: {'; '.join(map(_sentence, errors[:MOST_ERRORS]))}{more}") from None


def optional_format(path: Path | None) -> Format | None:
    """Return the format that the file at `path` describes, or None if `path` is None."""
    return None if path is None else read_format(path)


# ---- error messages ----------------------------------------------------------------------------------------------

_EXPECTED = {
    "missing": "is missing",
    "string_type": "expected a text",
    "string_too_short": "expected a text that is not empty",
    "string_pattern_mismatch": "expected the key of a category: small letters, digits and _",
    "list_type": "expected a list",
    "dict_type": "expected a table",
    "model_type": "expected a table",
}
_PARTS: dict[str, type[BaseModel]] = {"nature": Nature, "time": Time, "place": PlaceColumns, "private": Private}


def _sentence(error: ErrorDetails) -> str:
    where = [str(part) for part in error["loc"] if not isinstance(part, int) and part != "[key]"]
    if error["type"] == "extra_forbidden":
        known = (_PARTS[where[0]] if len(where) > 1 else Description).model_fields
        near = nearest(where[-1], known)
        hint = f'did you mean "{near}"?' if near else f"expected one of {', '.join(known)}"
        return f'there is no key "{".".join(where)}": {hint}'
    expected = _EXPECTED.get(error["type"]) or error["msg"]
    return f"{'.'.join(where)}: {expected}" if where else expected


def nearest(word: str, known: Iterable[str], similar: float = 0.6) -> str | None:
    """Return the known word that is most similar to a misspelt word; None if none is similar."""
    by_case = {each.casefold(): each for each in known}
    found = difflib.get_close_matches(word.casefold(), by_case, 1, similar)
    return by_case[found[0]] if found else None


def lacking(kind: Format, columns: set[str]) -> str | None:
    """Return a sentence about the first needed column that a feed lacks, or None if it lacks none.

    The sentence names the most similar column of the feed.
    """
    for column, key in kind.needed.items():
        if column not in columns:
            near = nearest(column, columns)
            hint = f'did you mean "{near}"?' if near else f"there are {', '.join(sorted(columns))}"
            return f'has no column "{column}", which {key} names: {hint}'
    return None


# ---- reading values ----------------------------------------------------------------------------------------------


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _degrees(value: object, limit: float) -> float | None:
    try:
        number = float(_text(value))
    except ValueError:
        return None
    return number if math.isfinite(number) and abs(number) <= limit else None


def _is_pattern(form: str) -> bool:
    """Return whether a time that is written with this `strptime` pattern and parsed again has the same day and hour."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns about patterns without a year, which are refused anyway
            again = datetime.strptime(_PROBE.strftime(form), form)  # noqa: DTZ007
    except ValueError:
        return False
    return again.date() == _PROBE.date() and again.hour in (0, _PROBE.hour)


def _is_wild(nature: str) -> bool:
    return any(sign in nature for sign in "*?[")


def _pattern(nature: str) -> re.Pattern[str]:
    """Compile a shell pattern to a regular expression that takes time proportional to the length of the text.

    The function `fnmatch` translates the parts of the pattern to regular-expression groups that do not backtrack.
    """
    return re.compile(fnmatch.translate(nature))
