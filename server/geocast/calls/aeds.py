"""Reads defibrillators from the file that `--aeds` names, finds those near a place, and chooses which to fetch.

This module implements the rules RI1 to RI4.

The file is GeoJSON, or the JSON result of an Overpass query. In both formats, the records have OpenStreetMap's tags.
The file is read when the server starts. Unusable records are skipped, and their numbers are logged. If no record is
usable, the server does not start.

Rule 1  Only the fields of `Aed` are sent. So nothing else that a mapper has written, such as a warden's name or
        telephone number, can be sent.
Rule 2  A record is used only if it says that it is a defibrillator, and where it is, because somebody would run to that
        place.
"""

import json
import logging
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from ..geometry.sphere import chord2, distance_m, limit_chord2, unit_vector, unit_vectors
from ..model.errors import ConfigError

logger = logging.getLogger(__name__)

MOST = 3  # the largest number of defibrillators in a task (RI2)
MAX_WHERE = 255  # characters; the longest value that OpenStreetMap allows. Longer texts are truncated
MAX_SHORT = 32  # characters in a code or a level; a longer value is dropped, because half a code opens nothing
NAMED = 10  # the largest number of record numbers that are logged for one fault

_ID = re.compile(r"[!-~]{1,128}")
# Values of OpenStreetMap's `opening_hours` for a place that is never open, with or without a comment in quotes.
_CLOSED = re.compile(r'(?:24/7 )?(?:off|closed)(?: ?"[^"]*")?')
# A telephone number, which may be part of the description of the place (in 3 of 1,550 records of Switzerland).
_NUMBER = re.compile(r"\+?\d(?:[ ./()-]{0,2}\d){7,}")
_NOT_FOR_ALL = ("no", "private")
_KINDS = ("node", "way", "relation")
_INDOOR = {"yes": True, "no": False}


class Aed(NamedTuple):
    """A defibrillator that can be used (AED: automated external defibrillator).

    A field whose value is unknown is None.
    """

    id: str
    lat: float
    lng: float
    where: str | None
    level: str | None
    indoor: bool | None
    open: bool | None  # True: open at all hours
    code: str | None  # the code that opens the defibrillator's box

    def to_map(self, with_code: bool) -> dict[str, Any]:
        """Return the defibrillator as a JSON object for a task, the message that tells a responder where to go (RI3).

        The member `open` is always present. `with_code` says whether to include the code of the defibrillator's box:
        only the responder who fetches this defibrillator is sent the code.
        """
        fields = self._asdict() if with_code else self._asdict() | {"code": None}
        return {key: value for key, value in fields.items() if value is not None or key == "open"}


class Aeds:
    """The usable defibrillators of a file, indexed by location so that those near a point are found quickly."""

    def __init__(self, aeds: Sequence[Aed], unusable: int = 0) -> None:
        """Index these defibrillators by location. `unusable` is the number of records of the file that were skipped."""
        self.unusable = unusable
        x, y, z = unit_vectors(np.array([aed.lat for aed in aeds], float), np.array([aed.lng for aed in aeds], float))
        # Sorted by z, so all defibrillators near a place are in one slice of the arrays: the belt around its latitude.
        order = np.argsort(z, kind="stable")
        self._aeds = [aeds[n] for n in order]
        self._x, self._y, self._z = x[order], y[order], z[order]
        self._unsure = np.array([not aed.open for aed in self._aeds], bool)

    def __len__(self) -> int:
        return len(self._aeds)

    def __iter__(self) -> Iterator[Aed]:
        return iter(self._aeds)

    def near(self, lat: float, lng: float, within_m: float) -> list[Aed]:
        """Return up to 3 defibrillators within `within_m` metres of a point (RI1).

        The point is given by latitude and longitude in degrees. Defibrillators that are accessible at all hours come
        first; among equals, the nearest come first.
        """
        centre, limit = unit_vector(lat, lng), limit_chord2(float(within_m))
        first = int(np.searchsorted(self._z, centre[2] - math.sqrt(limit), "left"))
        last = int(np.searchsorted(self._z, centre[2] + math.sqrt(limit), "right"))
        squared = chord2(self._x[first:last], self._y[first:last], self._z[first:last], centre)
        inside = np.flatnonzero(squared <= limit)
        best = inside[np.lexsort((squared[inside], self._unsure[first:last][inside]))]
        return [self._aeds[first + n] for n in best[:MOST]]


NO_AEDS = Aeds([])


def fetch_of(
    aeds: Sequence[Aed], responder: tuple[float, float], patient: tuple[float, float], taken: Collection[str]
) -> int | None:
    """Return the index in `aeds` of the defibrillator that a responder should fetch (RI2).

    It is the one with the shortest route from the responder to the defibrillator and on to the patient. The locations
    of both people are latitudes and longitudes in degrees. `taken` has the ids of the defibrillators that other
    responders fetch. Return None if all of `aeds` are taken.
    """
    free = (n for n, aed in enumerate(aeds) if aed.id not in taken)
    return min(
        free,
        key=lambda n: distance_m(*responder, aeds[n].lat, aeds[n].lng) + distance_m(aeds[n].lat, aeds[n].lng, *patient),
        default=None,
    )


# ---- reading the file ----------------------------------------------------------------------------------------------


class _Unusable(Exception):  # noqa: N818
    """Raised if a record of the file has to be skipped. The message is the reason.

    `expected` is True if such records are normal, even in a file without mistakes.
    """

    def __init__(self, why: str, expected: bool = False) -> None:
        super().__init__(why)
        self.level = logging.INFO if expected else logging.WARNING


def read_aeds(path: Path) -> Aeds:
    """Read the defibrillators of a file, and log which records are skipped.

    Raise ConfigError if the file can't be read, is not in a known format, or has no usable record.
    """
    records, read = _records(path)
    found: dict[str, Aed] = {}
    left_out: dict[tuple[str, int], list[int]] = {}
    for number, record in enumerate(records):
        try:
            aed = read(record)
            if aed.id in found:
                raise _Unusable("an earlier record has the same id")
            found[aed.id] = aed
        except _Unusable as why:
            left_out.setdefault((str(why), why.level), []).append(number)
    for (reason, level), numbers in left_out.items():
        named = ", ".join(map(str, numbers[:NAMED])) + (", …" if len(numbers) > NAMED else "")
        logger.log(level, "aeds %s: %d record(s) skipped (number %s): %s", path, len(numbers), named, reason)
    if not found:
        raise ConfigError(f"aeds {path}: has no defibrillator that can be used, of {len(records):,} records")
    return Aeds([*found.values()], len(records) - len(found))


def _records(path: Path) -> tuple[list[Any], Callable[[Any], Aed]]:
    """Return the records of a file, and the function that turns one record into an `Aed`.

    Raise ConfigError if the file can't be read, or is not in a known format.
    """
    whole = _json(path)
    if isinstance(whole, dict) and isinstance(elements := whole.get("elements"), list):
        # If a query runs out of time or memory, Overpass returns what it has found so far, and says so in `remark`.
        if "error" in str(whole.get("remark", "")):
            raise ConfigError(f"aeds {path}: is incomplete: the `remark` of Overpass says that the query failed")
        return elements, _of_overpass
    features = whole.get("features") if isinstance(whole, dict) and whole.get("type") == "FeatureCollection" else None
    if isinstance(features, list):
        return features, _of_geojson
    raise ConfigError(f"aeds {path}: must be a FeatureCollection (GeoJSON), or have `elements` (Overpass JSON)")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"), parse_constant=_no_number)
    except OSError as error:
        raise ConfigError(f"aeds {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"aeds {path}: is not in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"aeds {path}: is not JSON (line {error.lineno})") from None
    except (ValueError, RecursionError):  # a huge number, NaN, or too many nested brackets
        raise ConfigError(f"aeds {path}: is not readable JSON") from None


def _no_number(_: str) -> NoReturn:
    raise ValueError


def _of_overpass(record: Any) -> Aed:
    """Return the defibrillator that an element of an Overpass result describes.

    The element is a node; or a way or relation with the member `center`, which has its location.
    """
    element = _map(record)
    tags = _map(element.get("tags", {}))
    if tags.get("emergency") != "defibrillator":
        raise _Unusable("is not tagged emergency=defibrillator")
    spot = element if "lat" in element else _map(element.get("center", {}))
    kind, number = element.get("type"), element.get("id")
    return _aed(
        f"{kind}/{number}" if kind in _KINDS and type(number) is int else None, spot.get("lat"), spot.get("lon"), tags
    )


def _of_geojson(record: Any) -> Aed:
    """Return the defibrillator in a GeoJSON feature whose geometry is a point.

    The OpenStreetMap tags are either the feature's properties or the members of its property `tags`. The id may be a
    property, too.
    """
    feature = _map(record)
    properties, geometry = _map(feature.get("properties") or {}), _map(feature.get("geometry") or {})
    tags = _map(properties.get("tags", properties))
    if tags.get("emergency", "defibrillator") != "defibrillator":
        raise _Unusable("is not tagged emergency=defibrillator")
    position = geometry.get("coordinates") if geometry.get("type") == "Point" else None
    lng, lat = position[:2] if isinstance(position, list) and len(position) >= 2 else (None, None)
    name = feature.get("id", properties.get("@id", properties.get("id")))
    return _aed(str(name) if type(name) is int else name, lat, lng, tags)


def _aed(name: Any, lat: Any, lng: Any, tags: Mapping[str, Any]) -> Aed:
    """Return the defibrillator with this id (`name`), this location and these OpenStreetMap tags.

    Raise _Unusable if the record can't be used.
    """
    if not isinstance(name, str) or _ID.fullmatch(name) is None:
        raise _Unusable("must have an id: a number, or 1 to 128 characters of ASCII without blanks")
    if {type(lat), type(lng)} - {int, float} or not (abs(lat) <= 90 and abs(lng) <= 180):
        raise _Unusable("must have coordinates: a latitude of -90 to 90, a longitude of -180 to 180")
    if _word(tags.get("access")) in _NOT_FOR_ALL:
        raise _Unusable("its access is no or private", expected=True)
    hours = _word(tags.get("opening_hours"))
    if _CLOSED.fullmatch(hours):
        raise _Unusable("is closed according to its opening_hours", expected=True)
    where = _text(tags.get("defibrillator:location")) or _text(tags.get("name"))
    return Aed(
        name,
        float(lat),
        float(lng),
        _NUMBER.sub("…", where)[:MAX_WHERE] or None,
        _short(tags.get("level")),
        _INDOOR.get(_word(tags.get("indoor"))),
        True if hours == "24/7" else None,
        _short(tags.get("defibrillator:code")),
    )


def _map(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Unusable("must be an object, and its tags, properties, geometry and center must be objects")
    return value


def _word(value: Any) -> str:
    """Return a tag's value in lower case, so that it can be compared. True becomes "yes" and False "no".

    GeoJSON may have true or false where OpenStreetMap has "yes" or "no".
    """
    return {True: "yes", False: "no"}.get(value, "") if isinstance(value, bool) else _text(value).casefold()


def _text(value: Any) -> str:
    """Return a tag's value as one line without control characters; empty if the value is not a string or an integer."""

    text = str(value) if type(value) is int else value if isinstance(value, str) else ""
    if not text.isprintable():
        text = "".join(each if each.isprintable() else " " for each in text)
    return " ".join(text.split())


def _short(value: Any) -> str | None:
    text = _text(value)
    return text if 0 < len(text) <= MAX_SHORT else None
