"""A report on a feed for somebody who writes a description of that feed: counts, gaps, meanings, and a few records.

Rule 1  The report contains nothing private. Private parts of natures (the feed's words for what happened) and of
        examples are struck out. Of a time that can't be read, only the shape is shown, such as 00/00/0000. Of the
        places, only a box around all of them is shown, on a grid of GRID degrees.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from .feed_format import Format, Incident, Row, nearest
from .feeds import Group, Records
from .queue import NO_NATURE
from .redaction import Cell, kept, struck
from .triage import read_toml

GRID = 0.01  # degrees, about a kilometre
MOST_EXAMPLES = 3
SIMILAR = 0.8  # how similar a word must be to a category to count as a misspelling of it
NO_NUMBER, NO_TIME, NO_PLACE = "without a number", "without a time", "without a place"
OTHER_PLACE = "with an invalid place: only one coordinate, 0/0, or beyond 90 and 180 degrees"


@dataclass(frozen=True, slots=True)
class Meaning:
    """A meaning that the description of a feed gives to natures (the feed's own words for kinds of incidents).

    The meaning is a category, or a key of kept_back.toml. With it come a note on the use of the meaning, and the number
    of incidents that have it.
    """

    key: str
    note: str
    incidents: int
    may_be_misspelt: bool


@dataclass(frozen=True, slots=True)
class Report:
    """The facts about a feed.

    `gaps` counts the rows that lack something. `unlisted` has the natures for which the description has no entry, the
    most frequent first. (A nature is the feed's own name for a kind of incident.)
    """

    title: str
    rows: int
    empty: int
    incidents: int
    has_places: bool
    gaps: list[tuple[str, int]]
    meanings: list[Meaning]
    unlisted: list[tuple[str, int]]
    examples: list[list[Cell]]
    others: list[str]  # columns that the description does not mention
    times: tuple[int, int] | None  # the first and the last, in ms
    box: tuple[float, float, float, float] | None  # south, west, north, east


def report(records: Records) -> Report:
    """Return a report on the records of a feed."""
    kind, groups = records.format, records.groups
    incidents = [group.incident for group in groups]
    times = [incident.occurred_at for incident in incidents if incident.occurred_at is not None]
    return Report(
        kind.title,
        records.rows,
        records.empty,
        len(groups),
        kind.told.place is not None,
        Counter(gap for group in groups for row in group.rows for gap in _gaps(kind, row)).most_common(),
        list(_meanings(incidents)),
        Counter(_shown(each.nature) for each in incidents if not each.means).most_common(),
        [struck(group.rows[0], kind.private) for group in _varied(groups)],
        sorted({column for group in groups for row in group.rows for column in row} - _named(kind)),
        (min(times), max(times)) if times else None,
        _box(incidents),
    )


def _gaps(kind: Format, row: Row) -> Iterator[str]:
    """Yield a short text for each fact (nature, place, time and so on) that is missing in a row."""
    found, told = kind.incident(row), kind.told
    if not found.nature:
        yield "without a nature"
    if told.number and not kind.number(row):
        yield NO_NUMBER
    if found.occurred_at is None:
        written = next(filter(None, (_said(row, time.column) for time in told.time)), "")
        yield f"with a time in another form than described: {_shape(written)}" if written else NO_TIME
    if told.place is not None and found.lat is None:
        yield OTHER_PLACE if any(_said(row, column) for column in told.place.columns) else NO_PLACE


def _said(row: Row, column: str) -> str:
    value = row.get(column)
    return "" if value is None else str(value).strip()


def _shape(text: str) -> str:
    """Return the shape of a text, in which each digit is replaced by 0 and each letter by a."""
    return re.sub(r"[^\W\d_]", "a", re.sub(r"\d", "0", text))[:40]


def _shown(nature: str) -> str:
    return kept(nature)[:60] or NO_NATURE


def _meanings(incidents: list[Incident]) -> Iterator[Meaning]:
    """Yield the meanings of the incidents in a feed, the most frequent first."""
    wording, kept_back = read_toml("wording.toml"), read_toml("kept_back.toml")
    known = {
        **{key: f"kept back: {words}" for key, words in kept_back["routine"].items()},
        **{key: f"kept back, concerns an individual: {words}" for key, words in kept_back["individual"].items()},
        **{key: f"proposed as {words['severity']}, {words['radius_m']} m" for key, words in wording.items()},
    }
    for key, count in Counter(each.means for each in incidents if each.means).most_common():
        near = nearest(key, known, SIMILAR)
        unknown = f'not known here: did you mean "{near}"?' if near else "as the node's policy says"
        yield Meaning(key, known.get(key, unknown), count, key not in known and near is not None)


def _varied(groups: list[Group]) -> list[Group]:
    """Return the first incidents of the feed that differ in their natures (the feed's words for kinds of incidents)."""
    first: dict[str, Group] = {}
    for group in groups:
        first.setdefault(group.incident.nature, group)
    return list(first.values())[:MOST_EXAMPLES]


def _named(kind: Format) -> set[str]:
    return {*kind.needed, *kind.private, kind.told.district or ""}


def _box(incidents: list[Incident]) -> tuple[float, float, float, float] | None:
    places = [(each.lat, each.lng) for each in incidents if each.lat is not None and each.lng is not None]
    if not places:
        return None
    lats, lngs = zip(*places, strict=True)
    return _down(min(lats)), _down(min(lngs)), -_down(-max(lats)), -_down(-max(lngs))


def _down(degrees: float) -> float:
    return round(math.floor(degrees / GRID) * GRID, 2)
