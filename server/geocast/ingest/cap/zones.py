"""Zones: the polygons for the codes of CAP areas, read from the GeoJSON files of `--cap-zones` (rules CZ1 and CZ2).

    {"type": "FeatureCollection", "features": [
      {"type": "Feature", "properties": {"code": "EMMA_ID", "value": "AT301"}, "geometry": {"type": "Polygon", …}}, …]}

`code` is the name of a list of codes, called `valueName` in CAP. The files are read when the node starts; if a feature
is invalid, the node does not start. Decoding a whole file of 100 MB would take a gigabyte of memory. So the features of
a file are decoded one after another, and only the simplified polygons are kept.

A zone is stored as pieces: polygons without holes, each with everything within `beyond_m` metres of its ring.
"""

import contextlib
import functools
import json
import logging
import re
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ...geometry.polygon_union import MAX_WORK, Piece, join, pieces, simpler, work
from ...geometry.published_polygon import TOLERANCES_M, RequestedPolygon, publish_polygons
from ...geometry.sphere import Floats
from ...model.errors import ConfigError
from ...model.toml_file import read_file

logger = logging.getLogger(__name__)

MAX_SHAPES = 64  # the largest number of shapes in the area of an alert from CAP (rule P12)
MAX_NAME = 200  # the largest number of characters of `code` and of `value`
WORK_TOLERANCES_M = (500, 1_000, 2_000, 5_000)  # metres; tried in this order if zones are too much work to join
PROGRESS_S = 5.0  # seconds between two log lines on the progress of reading
_BLANKS = re.compile(r"[ \t\r\n]*")


def folded(name: str) -> str:
    """Return the name of a list of codes in lower case and without "-" and "_", for comparisons (HD12)."""
    return name.casefold().replace("-", "").replace("_", "")


class Zones:
    """All zones, by `code` and `value`. A zone is the known polygons for the code of an area.

    `code` is the name of a list of codes, compared as `folded` returns it. `value` is a code in this list, compared
    literally.
    """

    def __init__(self, by_name: Mapping[tuple[str, str], Sequence[Piece]]) -> None:
        """Index the zones. `by_name` is a dict from the `code` and `value` of each zone to its polygons."""
        self._by_name: dict[tuple[str, str], list[Piece]] = {}
        self._spelled: dict[str, str] = {}  # by folded name of a list: its first spelling in the files
        for (name, value), found in by_name.items():
            self._spelled.setdefault(folded(name), name)
            self._by_name.setdefault((folded(name), value), []).extend(found)

    def __len__(self) -> int:
        return len(self._by_name)

    def find(self, name: str, value: str) -> Sequence[Piece]:
        """Return the polygons of the zone with the code `value` in the list `name`.

        Return none if the code is unknown.
        """
        return self._by_name.get((folded(name), value), ())

    def place(self, codes: Iterable[tuple[str, str]]) -> tuple[list[Piece], bool]:
        """Return the known polygons for an area with these codes, and whether they cover the whole area.

        Issuers often name the same area by the codes of several lists. So the polygons cover the whole area if every
        code of at least one list is known (rule CP24). Example: an area has the codes EMMA_ID AT301, WARNCELLID 8 and
        WARNCELLID 9. If only AT301 is known, the whole area is covered. If only WARNCELLID 8 is known, it is not.
        """
        found: list[Piece] = []
        whole: dict[str, bool] = {}
        for name, value in codes:
            zone = self.find(name, value)
            found += zone
            whole[folded(name)] = whole.get(folded(name), True) and bool(zone)
        return found, any(whole.values())

    def summary(self) -> str:
        """Return a text with the numbers of zones and corners, for instance "37 of EMMA_ID; 5,210 corners"."""
        lists = sorted(Counter(self._spelled[name] for name, _ in self._by_name).items())
        corners = sum(piece.ring.shape[1] - 1 for found in self._by_name.values() for piece in found)
        return f"{', '.join(f'{count:,} of {name}' for name, count in lists)}; {corners:,} corners"


NO_ZONES = Zones({})


def joined(given: Iterable[Piece], simplify_m: float, most_work: int = MAX_WORK) -> list[Piece]:
    """Return the polygons of one alert's zones, after joining those that touch (rule CZ2).

    If the result is too large for one alert, polygons with a gap between them are joined, too. The smallest gap is used
    that makes the result small enough; it is at most `simplify_m` metres. Example: an archipelago of 300 islets is
    joined across gaps of 200 m. If no gap is enough, only polygons that touch are joined, and the result is too large.

    `most_work` is the limit of `work` for joining. If the polygons exceed it even after they are simplified, they are
    returned without being joined.
    """
    given = list({id(piece): piece for piece in given}.values())  # without repetitions: a message may name a code twice
    for tolerance_m in (0, *WORK_TOLERANCES_M):
        found = [simpler(piece, tolerance_m) for piece in given] if tolerance_m else given
        if work(found) <= most_work:
            break
    else:
        return given
    given, found = found, join(found)
    if _fit(found, simplify_m):
        return found
    gaps = [each for each in TOLERANCES_M if each <= simplify_m]
    across = functools.cache(functools.partial(join, given))
    at = bisect_left(gaps, True, key=lambda gap_m: _fit(across(gap_m), simplify_m))
    return across(gaps[at]) if at < len(gaps) else found


def _fit(found: Sequence[Piece], simplify_m: float) -> bool:
    return len(found) <= MAX_SHAPES and publish_polygons(outlines(found), simplify_m) is not None


def outlines(given: Iterable[Piece]) -> list[RequestedPolygon]:
    """Return the polygons in a form that can be published.

    Polygons that are so small that rounding leaves fewer than three different corners are left out.
    """
    found = []
    for ring, beyond_m in given:
        with contextlib.suppress(ValueError):  # rounding left fewer than three corners (A18 is checked before)
            found.append(RequestedPolygon(ring[0], ring[1], beyond_m))
    return found


# ---- reading the files ---------------------------------------------------------------------------------------------


def read_zones(paths: Sequence[Path]) -> Zones:
    """Return the zones in the GeoJSON files at `paths`.

    Raise ConfigError if a file can't be read, or a feature is invalid. The error names the file, and the feature by its
    number and code.
    """
    by_name: dict[tuple[str, str], list[Piece]] = {}
    for path in paths:
        started = said = time.monotonic()
        try:
            text = read_file("zones", path).decode("utf-8-sig")
            for n, feature in enumerate(_features(text)):
                name, found = _zone(n, feature)
                by_name.setdefault(name, []).extend(found)
                if (now := time.monotonic()) - said > PROGRESS_S:
                    said = now
                    logger.info("zones %s: still being read; %d features so far, in %.0f s", path, n + 1, now - started)
        except UnicodeDecodeError:
            raise ConfigError(f"zones {path}: is not in UTF-8") from None
        except ValueError as error:
            raise ConfigError(f"zones {path}: {error}") from None
    return Zones(by_name)


def _zone(n: int, feature: Any) -> tuple[tuple[str, str], list[Piece]]:
    """Return the `code`, the `value` and the polygons of feature `n` of a file. Raise ValueError if it is invalid."""
    at = f"feature {n}"
    try:
        properties = feature.get("properties") if isinstance(feature, dict) else None
        if not isinstance(properties, dict) or feature.get("type") != "Feature":
            raise ValueError("must be a Feature with properties")
        for key in ("code", "value"):
            text = properties.get(key)
            if not isinstance(text, str) or not text.strip() or len(text) > MAX_NAME:
                raise ValueError(f"properties.{key} must be a text of 1 to {MAX_NAME} characters")
        name = properties["code"], properties["value"]
        at += f" ({name[0]} {name[1]})"
        return name, _pieces(feature.get("geometry"))
    except ValueError as error:
        raise ValueError(f"{at}: {error}") from None


def _pieces(geometry: Any) -> list[Piece]:
    """Return the polygons of a GeoJSON geometry in pieces. Raise ValueError if it is invalid, or has no area."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    coordinates = geometry.get("coordinates") if kind in ("Polygon", "MultiPolygon") else None
    polygons = [coordinates] if kind == "Polygon" else coordinates
    if not isinstance(polygons, list) or not all(isinstance(rings, list) and rings for rings in polygons):
        raise ValueError("geometry must be a Polygon or a MultiPolygon")
    found: list[Piece] = []
    for number, rings in enumerate(polygons):
        try:
            found += pieces([_ring(ring) for ring in rings])
        except ValueError as error:
            where = "its polygon" if kind == "Polygon" else f"its polygon {number}"
            raise ValueError(f"{where} {error}") from None
    if not found:
        raise ValueError("must have an area")
    return found


def _ring(positions: Any) -> Floats:
    """Return a ring of a GeoJSON polygon as an array (2, n + 1) of longitudes and latitudes.

    Raise ValueError if it breaks rule A16.
    """
    if not isinstance(positions, list) or len(positions) < 4:
        raise ValueError("must have rings of at least 4 positions")
    # Compare types and lengths in bulk, which is faster than a loop: a ring may have a million positions.
    if set(map(type, positions)) != {list} or not set(map(type, chain.from_iterable(positions))) <= {int, float}:
        raise ValueError("must have positions of two numbers")
    if set(map(len, positions)) != {2}:
        if min(map(len, positions)) < 2:
            raise ValueError("must have positions of two numbers")
        positions = [each[:2] for each in positions]  # drop the heights, which RFC 7946 allows
    ring = np.array(positions, float).T
    if not ((np.abs(ring[0]) <= 360) & (np.abs(ring[1]) <= 90)).all():
        raise ValueError("must have longitudes of -360 to 360 and latitudes of -90 to 90, the longitude first")
    ring[0] = np.where(
        np.abs(ring[0]) > 180, (ring[0] + 180) % 360 - 180, ring[0]
    )  # as for the shapes in messages (CP22, HD12)
    if (ring[:, 0] != ring[:, -1]).any():
        raise ValueError("must have rings that end where they begin")
    if len({*zip(*ring.tolist(), strict=True)}) < 3:
        raise ValueError("must have at least three positions that differ")
    return ring


def _features(text: str) -> Iterator[Any]:
    """Yield the features in the text of a GeoJSON FeatureCollection, decoded one after another, to save memory.

    Raise ValueError if the text is not a FeatureCollection with at least one feature.
    """
    json_text, kind, features = _JsonText(text), None, 0
    for name in json_text.items("{", "}"):
        if name == "features":
            for _ in json_text.items("[", "]"):
                features += 1
                yield json_text.value()
        else:
            value = json_text.value()
            kind = value if name == "type" else kind
    if kind != "FeatureCollection" or not features:
        raise ValueError("must be a FeatureCollection with features (GeoJSON)")


class _JsonText:
    """A JSON text, whose values are decoded one after another. All methods raise ValueError if it is not JSON."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._decode = json.JSONDecoder(parse_constant=int).raw_decode  # `int` raises ValueError for NaN and Infinity

    def items(self, begin: str, end: str) -> Iterator[Any]:
        """Go through the object or list at the current position. It begins and ends with the two given characters.

        Yield the name of each member of an object, or None for each item of a list. Before the caller asks for the next
        item, it has to decode the `value` that follows.
        """
        self._expect(begin)
        separator = ""
        while not self._skip(end):
            self._expect(separator)
            separator = ","
            name = None
            if end == "}":
                name = self.value()
                self._expect(":")
            yield name

    def value(self) -> Any:
        """Decode and return the value at the current position."""
        self._skip("")
        try:
            value, self._at = self._decode(self._text, self._at)
        except (ValueError, RecursionError):
            raise self._no_json() from None
        return value

    def _expect(self, mark: str) -> None:
        if not self._skip(mark):
            raise self._no_json()

    def _no_json(self) -> ValueError:
        line = self._text.count("\n", 0, self._at) + 1
        return ValueError(f"is not JSON (line {line})")

    def _skip(self, mark: str) -> bool:
        """Skip blanks and the given mark. Return whether it was there."""
        if blanks := _BLANKS.match(self._text, self._at):
            self._at = blanks.end()
        found = self._text.startswith(mark, self._at)
        self._at += len(mark) * found
        return found
