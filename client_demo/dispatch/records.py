"""The dispatch records from which a call for help can be opened. Does no I/O and has no clock.

Rule 1  Only a record whose nature (the feed's words for what happened) is listed in `natures.toml` can become a call;
        nothing is guessed. Example: a cardiac arrest is a call, even if the fire service was sent
        (`Fire: CARDIAC ARREST`); a cardiac emergency is not.
Rule 2  A record of a test or a training is shown as one, and can't become an actual call.
Rule 3  A record without a place is shown, but can't become a call. A record whose address means "no location" is
        treated as having no place, whatever its coordinates are, because some systems then write the middle of the
        county.
Rule 4  No record says whether the place is a home, so the dispatcher has to choose.
"""

import fnmatch
import tomllib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from client_demo.desk.feed_format import ADDRESS, Row
from client_demo.desk.feeds import Group, Records

MOST_RECORDS = 200  # the newest records that are shown
_KNOWN = tomllib.loads(Path(__file__).with_name("natures.toml").read_text(encoding="utf-8"))
_CALLS: dict[str, str] = {nature.casefold(): category for nature, category in _KNOWN["calls"].items()}
_DRILLS: dict[str, str] = {nature.casefold(): status for nature, status in _KNOWN["drills"].items()}
_NOWHERE: list[str] = [pattern.casefold() for pattern in _KNOWN["nowhere"]]
MOST_ADDRESS = 200  # characters: docs/reference/call-rules.md, RY7


@dataclass(frozen=True, slots=True)
class Record:
    """A record from which a call may be opened.

    Times are in ms since 1970 and places in degrees; both are None if unknown. `category` is a key of the policy's
    calls, or empty if the dispatcher has to choose. `status` is set if the record is a drill. `obstacle` says why no
    call can be opened from the record, and is empty if one can.
    """

    key: str
    nature: str
    recorded_at: int | None
    lat: float | None
    lng: float | None
    address: str
    category: str
    status: str | None
    obstacle: str


def calls_for_help(records: Records, categories: Collection[str]) -> list[Record]:
    """Return, newest first, the records whose nature means a call of one of these categories, or a drill."""
    found = [record for group in records.groups for record in _read(group, records, categories)]
    return found[: -MOST_RECORDS - 1 : -1]


def area_of(records: Records) -> list[dict[str, float]]:
    """Return two opposite corners of the area of a feed's incidents, or an empty list if none has a place.

    The outermost 2 % on each side are left out, because some records have wrong places.
    """
    incidents = [group.incident for group in records.groups]
    lats = sorted(each.lat for each in incidents if each.lat is not None)
    lngs = sorted(each.lng for each in incidents if each.lng is not None)
    cut = len(lats) // 50
    return [{"lat": lats[at], "lng": lngs[at]} for at in (cut, -1 - cut)] if lats else []


def _read(group: Group, records: Records, categories: Collection[str]) -> Iterator[Record]:
    incident = group.incident
    nature = incident.nature.casefold()
    category, status = _CALLS.get(nature, ""), _DRILLS.get(nature)
    if status is None and category not in categories:
        return
    addresses = [column for column, what in records.format.private.items() if what == ADDRESS]
    address = " ".join(text for column in addresses if (text := _text(group.rows[0], column)))
    yield Record(
        key=f"{group.key} {incident.occurred_at}",
        nature=incident.nature,
        recorded_at=incident.occurred_at,
        lat=incident.lat,
        lng=incident.lng,
        address=address[:MOST_ADDRESS],
        category=category,
        status=status,
        obstacle=_obstacle(incident.lat, address, incident.occurred_at),
    )


def _obstacle(lat: float | None, address: str, occurred_at: int | None) -> str:
    if any(fnmatch.fnmatchcase(address.casefold(), pattern) for pattern in _NOWHERE):
        return "The record says that it has no location; its coordinates mean nothing."
    if lat is None:
        return "The record has no coordinates."
    return "" if occurred_at is not None else "The record has no time: nobody can tell how old this is."


def _text(row: Row, column: str) -> str:
    return " ".join(str(row.get(column) or "").split())
