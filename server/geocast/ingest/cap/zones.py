"""Zones: what the codes of CAP's areas stand for, from the GeoJSON files of `--cap-zones` (CZ1, CZ2).

    {"type": "FeatureCollection", "features": [
      {"type": "Feature", "properties": {"code": "EMMA_ID", "value": "AT301"}, "geometry": {"type": "Polygon", …}}, …]}

`code` is CAP's valueName. They are read once, at the start, and what does not fit stops it. A file may have a hundred
megabytes, and its features, decoded all at once, a gigabyte: so they are decoded one after another, and of each is kept
what is left when it has been simplified.
"""

import contextlib
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ...errors import ConfigError
from ...geometry.polygon_union import MAX_WORK, Piece, join, pieces, simpler, work
from ...geometry.published_polygon import TOLERANCES_M, RequestedPolygon, publish_polygons
from ...geometry.sphere import Floats

logger = logging.getLogger(__name__)

MAX_SHAPES = 64  # P12: of the area of an alert from CAP
MAX_NAME = 200  # characters of `code` and `value`
WORK_TOLERANCES_M = (500, 1_000, 2_000, 5_000)  # by which pieces are simplified where it is too much work to join them
PROGRESS_S = 5.0  # that pass between two lines about it


def folded(name: str) -> str:
    """Return the name of a list of codes as names are compared: without case, "-" and "_" (rule HD12)."""
    return name.casefold().replace("-", "").replace("_", "")


class Zones:
    """Zones by `code`, compared as `folded`, and `value`, compared literally."""

    def __init__(self, by_name: Mapping[tuple[str, str], Sequence[Piece]]) -> None:
        """`by_name`: the pieces that a zone is made of."""
        self._by_name: dict[tuple[str, str], list[Piece]] = {}
        self._spelled: dict[str, str] = {}  # names of lists as they were first spelled
        for (name, value), found in by_name.items():
            self._spelled.setdefault(folded(name), name)
            self._by_name.setdefault((folded(name), value), []).extend(found)

    def __len__(self) -> int:
        return len(self._by_name)

    def find(self, name: str, value: str) -> Sequence[Piece]:
        """The pieces that the zone of this code is made of; none if it is not known."""
        return self._by_name.get((folded(name), value), ())

    def place(self, codes: Iterable[tuple[str, str]]) -> tuple[list[Piece], bool]:
        """What an area is made of that has these codes, and whether that is all of it.

        Issuers often name one place by the codes of several lists, of which one is enough.
        """
        found: list[Piece] = []
        whole: dict[str, bool] = {}
        for name, value in codes:
            zone = self.find(name, value)
            found += zone
            whole[folded(name)] = whole.get(folded(name), True) and bool(zone)
        return found, any(whole.values())

    def summary(self) -> str:
        """How many there are, in words."""
        lists = sorted(Counter(self._spelled[name] for name, _ in self._by_name).items())
        corners = sum(piece.ring.shape[1] - 1 for found in self._by_name.values() for piece in found)
        return f"{', '.join(f'{count:,} of {name}' for name, count in lists)}; {corners:,} corners"


NO_ZONES = Zones({})


def joined(given: Iterable[Piece], simplify_m: float, most_work: int = MAX_WORK) -> list[Piece]:
    """The pieces of the zones of one block: those in one that touch (CZ2).

    If they are too many for one area, so are those that are at most `simplify_m` apart, as islands are: by as little as
    will do. If that won't do either, or would take more than `most_work`, they are still too many.
    """
    given = list({id(piece): piece for piece in given}.values())  # a code may be named twice
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
    low, high = 0, len(gaps)
    while low < high:
        middle = (low + high) // 2
        tried = join(given, gaps[middle])
        if _fit(tried, simplify_m):
            found, high = tried, middle
        else:
            low = middle + 1
    return found


def _fit(found: Sequence[Piece], simplify_m: float) -> bool:
    return len(found) <= MAX_SHAPES and publish_polygons(outlines(found), simplify_m) is not None


def outlines(given: Iterable[Piece]) -> list[RequestedPolygon]:
    """Return pieces as outlines to be published, but for those that rounding makes a line of."""
    found = []
    for ring, beyond_m in given:
        with contextlib.suppress(ValueError):  # all keep A18
            found.append(RequestedPolygon.of_arcs(ring[0], ring[1], beyond_m))
    return found


# ---- files ---------------------------------------------------------------------------------------------------------


def read_zones(paths: Sequence[Path]) -> Zones:
    """The zones in these files. Raises ConfigError, naming the file, and the feature by its number and code."""
    by_name: dict[tuple[str, str], list[Piece]] = {}
    for path in paths:
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise ConfigError(f"zones {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"zones {path}: is not in UTF-8") from None
        started = said = time.monotonic()
        for n, feature in enumerate(_Collection(path, text).features()):
            name = _name(path, n, feature)
            by_name.setdefault(name, []).extend(_pieces(path, n, name, feature))
            if time.monotonic() - said > PROGRESS_S:
                said = time.monotonic()
                logger.info("zones %s: %d features read after %.0f s", path, n + 1, said - started)
    return Zones(by_name)


def _name(path: Path, n: int, feature: Any) -> tuple[str, str]:
    properties = feature.get("properties") if isinstance(feature, dict) else None
    if not isinstance(properties, dict) or feature.get("type") != "Feature":
        raise ConfigError(f"zones {path}: feature {n}: must be a Feature with properties")
    found = properties.get("code"), properties.get("value")
    for key, text in zip(("code", "value"), found, strict=True):
        if not isinstance(text, str) or not text.strip() or len(text) > MAX_NAME:
            raise ConfigError(
                f"zones {path}: feature {n}: properties.{key} must be a text of 1 to {MAX_NAME} characters"
            )
    return found  # type: ignore[return-value]  # both are texts


def _pieces(path: Path, n: int, name: tuple[str, str], feature: Any) -> Iterator[Piece]:
    at = f"zones {path}: feature {n} ({name[0]} {name[1]})"
    found = 0
    for where, rings in _polygons(at, feature.get("geometry")):
        try:
            for piece in pieces([_ring(ring) for ring in rings]):
                found += 1
                yield piece
        except ValueError as error:
            raise ConfigError(f"{at}: {where} {error}") from None
    if not found:
        raise ConfigError(f"{at}: must have an area")


def _polygons(at: str, geometry: Any) -> Iterator[tuple[str, list[Any]]]:
    """The polygons of a geometry, each a list of rings, with how to call it."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    coordinates = geometry.get("coordinates") if kind in ("Polygon", "MultiPolygon") else None
    polygons = [coordinates] if kind == "Polygon" else coordinates
    if not isinstance(polygons, list) or not all(isinstance(rings, list) and rings for rings in polygons):
        raise ConfigError(f"{at}: geometry must be a Polygon or a MultiPolygon")
    for number, rings in enumerate(polygons):
        yield "its polygon" if kind == "Polygon" else f"its polygon {number}", rings


def _ring(positions: Any) -> Floats:
    """A ring as longitude and latitude, (2, n + 1). Raises ValueError, for A16."""
    if not isinstance(positions, list) or len(positions) < 4:
        raise ValueError("must have rings of at least 4 positions")
    # By whole lists, not position by position: there may be a million.
    if set(map(type, positions)) != {list} or not set(map(type, chain.from_iterable(positions))) <= {int, float}:
        raise ValueError("must have positions of two numbers")
    if set(map(len, positions)) != {2}:
        if min(map(len, positions)) < 2:
            raise ValueError("must have positions of two numbers")
        positions = [each[:2] for each in positions]  # RFC 7946: a height may follow
    ring = np.array(positions, float).T
    if not ((np.abs(ring[0]) <= 360) & (np.abs(ring[1]) <= 90)).all():
        raise ValueError("must have longitudes of -360 to 360 and latitudes of -90 to 90, the longitude first")
    ring[0] = np.where(np.abs(ring[0]) > 180, (ring[0] + 180) % 360 - 180, ring[0])  # as in messages (CP22, HD12)
    if (ring[:, 0] != ring[:, -1]).any():
        raise ValueError("must end each ring where it begins")
    if len({*zip(*ring.tolist(), strict=True)}) < 3:
        raise ValueError("must have at least three positions that differ")
    return ring


class _Collection:
    """The text of a FeatureCollection, whose features are decoded one after another."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text
        self._at = 0
        self._decode = json.JSONDecoder(parse_constant=self._no_number).raw_decode

    def features(self) -> Iterator[Any]:
        """Each feature. Raises ConfigError."""
        kind, features = None, 0
        for name in self._items("{", "}"):
            if name == "features":
                for _ in self._items("[", "]"):
                    features += 1
                    yield self._value()
            elif name == "type":
                kind = self._value()
            else:
                self._value()
        if kind != "FeatureCollection" or not features:
            raise ConfigError(f"zones {self._path}: must be a FeatureCollection with features (GeoJSON)")

    def _items(self, begin: str, end: str) -> Iterator[Any]:
        """The names of a map's members, or None for each item of a list; who asks decodes the value that follows."""
        self._expect(begin)
        if self._is_next(end):
            return
        while True:
            name = None
            if end == "}":
                name = self._value()
                self._expect(":")
            yield name
            if self._is_next(end):
                return
            self._expect(",")

    def _value(self) -> Any:
        self._skip()
        try:
            value, self._at = self._decode(self._text, self._at)
        except (json.JSONDecodeError, RecursionError):
            self._no_json()
        return value

    def _is_next(self, mark: str) -> bool:
        self._skip()
        found = self._text.startswith(mark, self._at)
        self._at += found
        return found

    def _expect(self, mark: str) -> None:
        if not self._is_next(mark):
            self._no_json()

    def _skip(self) -> None:
        found = _BLANK.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _no_number(self, _: str) -> NoReturn:
        self._no_json()

    def _no_json(self) -> NoReturn:
        line = self._text.count("\n", 0, self._at) + 1
        raise ConfigError(f"zones {self._path}: is not JSON (line {line})")


_BLANK = re.compile(r"[ \t\r\n]*")
