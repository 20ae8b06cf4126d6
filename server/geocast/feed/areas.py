"""The requests of weather apps: the live alerts in a box, and the CAP message of each (rules FA1 to FA7).

Some weather apps read an API of the FOSS Public Alert Server, whose description is public. With `--feed-areas`, the
feed answers three requests of that API. docs/guide/weather-apps.md has the rules.

Rule 1  A box is the place of a person. It is used for one answer, and is neither stored nor written into a log line,
        an error or a metric. Before it is used, it is widened to a grid (FA3).
Rule 2  The centre and the radius of each shape of the live alerts are in columns. A circle that touches the box meets
        it, and so does every shape whose bounding circle is inside the box. Only for other polygons the exact test is
        made. All this takes at most a quarter of the process's time (`share`).
Rule 3  The message of a revision is made at most once, as long as the alert is kept. Messages of earlier revisions are
        made in a thread, one at a time, so that strangers can't keep the node busy (compare rule HD4).
"""

import asyncio
import functools
import heapq
import math
import re
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from .. import __version__
from ..alertlog import AlertLog
from ..clock import Clock
from ..geometry.lat_lng_box import ROUNDING, LatLngBox
from ..geometry.sphere import Floats, chord2, unit_vector, unit_vectors
from ..geometry.spherical_polygon import SphericalPolygon, angle_of
from ..model import problems
from ..model.alert import Circle, Polygon, Revision
from ..model.problems import Problem
from ..stream.live_alerts import LiveAlert, LiveAlerts
from . import cap
from .share import Share

MEDIA_TYPE = "application/xml"
GRID = 100  # parts of a degree: boxes are widened to whole parts (FA3)
PARAMETERS = ("min_lat", "max_lat", "min_lon", "max_lon")
BEYOND = 1.0  # degrees by which a box may reach beyond a pole or the antimeridian: apps add a margin to a place
AT_ONCE = 1_000  # shapes in one block of columns: making it, or comparing it with a box, takes 1 ms
MAX_REVISIONS = 1_000  # of an alert whose messages have names: the last ones
MAX_PREPARED = 1_024  # limit on the polygons that are kept for the next request: 20 KB each
_NAMES = uuid.uuid5(uuid.NAMESPACE_URL, "https://geocast/alert-revision")
_NUMBER = re.compile(r"-?\d{1,3}(\.\d{0,40})?([eE]-?\d{1,3})?", re.ASCII)


class _Row(NamedTuple):
    """A shape of a live alert: the circle around it, and whether the shape is this circle."""

    alert_id: str
    name: str  # the UUID of the revision
    shape: int  # its index in the alert's shapes
    lat: float
    lng: float
    radius_m: float
    is_circle: bool


class _Columns(NamedTuple):
    rows: Sequence[_Row]
    lat: Floats
    lng: Floats
    angle: Floats
    points: tuple[Floats, Floats, Floats]


@dataclass(slots=True)
class _Kept:
    """What is kept for an alert of the feed: its shapes, the UUIDs of its revisions, and their messages (Rule 3)."""

    rows: Sequence[_Row]
    names: list[str] = field(default_factory=list)
    messages: dict[int, bytes] = field(default_factory=dict)  # by the number of the revision


class Areas:
    """Answers the requests of weather apps from the live alerts of the feed."""

    def __init__(self, live: LiveAlerts, alert_log: AlertLog, clock: Clock, issuer: cap.Issuer) -> None:
        self.issuer = issuer  # replaced when the policy changes
        self.requests: Counter[str] = Counter()  # how many requests were made, by kind; never by place (FA6)
        self._live = live
        self._log = alert_log
        self._clock = clock
        self._kept: dict[str, _Kept] = {}  # by alert id
        self._columns: list[_Columns] | None = None  # of all rows, in blocks; None if the rows have changed
        self._changes = 0  # of the rows
        self._share = Share()
        self._names: dict[str, tuple[str, int]] = {}  # UUID -> alert id and number of the revision
        self._making = asyncio.Lock()

    # ---- the live alerts -----------------------------------------------------------------------------------------

    def take(self, alert: LiveAlert | None) -> None:
        """Note that the current entry of an alert has changed. `alert` is None if the alert is not live."""
        if alert is None or alert.restricted or alert.unbelieved:  # as in the feed (rule PF1)
            return
        self._changed()
        rows, last = _rows_of(alert.revision), alert.revision_number
        kept = self._kept.setdefault(alert.id, _Kept(rows))
        kept.rows = rows
        before = self._names[kept.names[-1]][1] if kept.names else 0
        for number in range(max(before, last - MAX_REVISIONS) + 1, last + 1):
            name = uuid_of(alert.id, number)
            self._names[name] = alert.id, number
            kept.names.append(name)

    def forget(self) -> None:
        """Drop everything about alerts that the feed does not have any more."""
        now = self._clock.now()
        for alert_id in [each for each in self._kept if self._live.find(each, now) is None]:
            for name in self._kept.pop(alert_id).names:
                self._names.pop(name, None)
            self._changed()

    def _changed(self) -> None:
        self._columns = None
        self._changes += 1

    # ---- the requests --------------------------------------------------------------------------------------------

    async def inside(self, parameters: Sequence[tuple[str, str]]) -> list[str]:
        """Return the UUIDs of the live alerts whose areas meet a box, the nearest to its middle first (FA1, FA2).

        `parameters` are those of the request. Raise Problem: 400 if they are no box, and 503 if too many ask.
        """
        self.requests["area"] += 1
        box = _widened(_box_of(parameters))
        near = []
        found: dict[str, str] = {}  # alert id -> UUID
        async with self._share.turn():
            for block in await self._blocks():
                near.append(_near(block, box))
                await self._share.step()
            for _, is_sure, row in heapq.merge(*near, key=lambda each: each[0]):
                alert = None if row.alert_id in found else self._shown(row.alert_id)
                if alert is not None and (is_sure or _meets(alert, row, box)):
                    found[row.alert_id] = row.name
                await self._share.step()
        return list(found.values())

    async def _blocks(self) -> list[_Columns]:
        if self._columns is None:
            changes = self._changes
            rows = (row for kept in list(self._kept.values()) for row in kept.rows)
            made = []
            while block := [*islice(rows, AT_ONCE)]:
                made.append(_columns_of(block))
                await self._share.step()
            if self._changes != changes:  # the rows have changed meanwhile
                return made
            self._columns = made
        return self._columns

    def _shown(self, alert_id: str) -> LiveAlert | None:
        """Return an alert if it is live, not cancelled and public, otherwise None."""
        now = self._clock.now()
        alert = self._live.find(alert_id, now)
        if alert is None or alert.cancel is not None or alert.unbelieved or alert.ended(now):
            return None
        return alert

    async def message(self, name: str) -> bytes:
        """Return the CAP message of the revision with this UUID, also after the alert was cancelled (FA4).

        Raise Problem (404) if the feed has no such revision, or no longer, and LogUnavailable if the log is needed and
        can't be read.
        """
        self.requests["alert"] += 1
        alert_id, number = self._names.get(name.lower(), ("", 0))
        self._find(alert_id)
        made = self._kept[alert_id].messages
        if number not in made:
            async with self._making:
                if number not in made:
                    made[number] = await self._made(alert_id, number)
        self._find(alert_id)
        return made[number]

    def _find(self, alert_id: str) -> LiveAlert:
        now = self._clock.now()
        alert = self._live.find(alert_id, now)
        if alert is None or alert.unbelieved or now.wall_ms >= alert.revision.ends_at:
            raise Problem(problems.NOT_FOUND)
        return alert

    async def _made(self, alert_id: str, number: int) -> bytes:
        history = await self._log.history(alert_id)
        revisions = [each for each in history if isinstance(each, Revision) and each.revision <= number]
        if not revisions or revisions[-1].revision != number:
            raise Problem(problems.NOT_FOUND)
        return await asyncio.to_thread(cap.message, revisions, None, self.issuer)

    def status(self, *, is_busy: bool) -> dict[str, Any]:
        """Return the server's status (FA5). `is_busy`: whether many requests are in progress."""
        self.requests["status"] += 1
        return {
            "server_version": __version__,
            "server_operator": self.issuer.sender,
            "privacy_notice": self.issuer.url,
            "terms_of_service": self.issuer.url,
            "congestion_state": int(is_busy),
        }


def uuid_of(alert_id: str, number: int) -> str:
    """Return the UUID of a revision, which is the same on every node (FA2)."""
    return str(uuid.uuid5(_NAMES, f"{alert_id}.{number}"))


def _rows_of(revision: Revision) -> list[_Row]:
    name, rows = uuid_of(revision.id, revision.revision), []
    for number, shape in enumerate(revision.alert.shapes):
        disc = shape if isinstance(shape, Circle) else SphericalPolygon(shape.ring, shape.buffer_m)
        rows.append(_Row(revision.id, name, number, disc.lat, disc.lng, disc.radius_m, isinstance(shape, Circle)))
    return rows


def _meets(alert: LiveAlert, row: _Row, box: LatLngBox) -> bool:
    shapes = alert.revision.alert.shapes
    shape = shapes[row.shape] if row.shape < len(shapes) else None  # there may be a new revision by now
    return isinstance(shape, Polygon) and box.meets(_prepared(shape))


@functools.lru_cache(MAX_PREPARED)
def _prepared(polygon: Polygon) -> SphericalPolygon:
    return SphericalPolygon(polygon.ring, polygon.buffer_m)


def _chord2_of(angle: Floats) -> Floats:
    """Return the squares of the chords of angles, a little too long rather than too short."""
    found: Floats = (2 * np.sin(np.minimum(angle + ROUNDING, math.pi) / 2)) ** 2 + ROUNDING
    return found


def _columns_of(rows: Sequence[_Row]) -> _Columns:
    lat, lng, radius_m = (np.array([getattr(row, name) for row in rows]) for name in ("lat", "lng", "radius_m"))
    return _Columns(rows, lat, lng, angle_of(radius_m), unit_vectors(lat, lng))


def _near(columns: _Columns, box: LatLngBox) -> list[tuple[float, bool, _Row]]:
    """Return each row whose circle touches the box, as a triple; the nearest to the middle of the box first.

    A triple has the distance (the square of the chord), whether the shape surely meets the box, and the row.
    """
    away = chord2(*columns.points, unit_vector(*box.middle))
    (near,) = np.nonzero(away <= _chord2_of(columns.angle + box.radius))
    lat, lng, angle = columns.lat[near], columns.lng[near], columns.angle[near]
    touches, sure = box.apart(lat, lng) <= angle, box.contains_disc(lat, lng, angle)
    found = zip(away[near][touches].tolist(), near[touches].tolist(), sure[touches].tolist(), strict=True)
    return [(far, is_sure or columns.rows[at].is_circle, columns.rows[at]) for far, at, is_sure in sorted(found)]


# ---- boxes -----------------------------------------------------------------------------------------------------------


def _box_of(parameters: Sequence[tuple[str, str]]) -> LatLngBox:
    """Return the box of a request. Raise Problem (400), which repeats no value, if the parameters are no box."""
    given = dict(parameters)
    if sorted(name for name, _ in parameters) != sorted(PARAMETERS):
        raise Problem(problems.BAD_REQUEST, f"Exactly these parameters are needed, once each: {', '.join(PARAMETERS)}.")
    wrong = [name for name in PARAMETERS if not _is_degrees(given[name], 90 if "lat" in name else 180)]
    if wrong:
        raise Problem(
            problems.BAD_REQUEST, f"{', '.join(wrong)}: must be degrees, such as 47.5 or -0.25, and in range."
        )
    south, north, west, east = (float(given[name]) for name in PARAMETERS)
    if south > north:
        raise Problem(problems.BAD_REQUEST, "min_lat must not be greater than max_lat.")
    width = east - west if west <= east else east - west + 360
    return LatLngBox(south, north, west, min(width, 360.0))


def _is_degrees(text: str, most: int) -> bool:
    return _NUMBER.fullmatch(text) is not None and abs(float(text)) <= most + BEYOND


def _widened(box: LatLngBox) -> LatLngBox:
    """Return the box, widened to the lines of the grid (FA3)."""
    west, south = (math.floor(_cells(each)) / GRID for each in (box.west, box.south))
    east, north = (math.ceil(_cells(each)) / GRID for each in (box.west + box.width, box.north))
    return LatLngBox(max(south, -90.0), min(north, 90.0), west, min(east - west, 360.0))


def _cells(degrees: float) -> float:
    """Return an angle in parts of the grid, without the rounding errors that would widen a box by one part more."""
    return round(degrees * GRID, 6)
