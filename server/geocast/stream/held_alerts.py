"""The alerts that a subscriber has, without I/O: for `geocast listen` (protocol, C1 to C6).

Times are in ms. The subscriber's own clock is one that nobody sets; `now` of a `welcome` says how far the server's
clock is ahead of it. An alert that has ended by the server's clock is kept, unseen, until it must have ended by both
(C2a).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..geometry.sphere import cell_from_string, cell_place, distance_m, unit_vector
from ..geometry.spherical_polygon import SphericalPolygon
from ..model.alert import Circle, Polygon, Shape, is_id
from ..model.members import to_shape
from ..model.times import parse_time

MAX_HOLDING = 256
MAX_REVISION = 2**31 - 1
MAX_CANCELLED = 1000

Place = tuple[float, float, float]  # latitude, longitude, and the reach in metres


@dataclass(slots=True)
class _Held:
    alert: dict[str, Any]
    ends_at: int  # by the server's clock
    keep_until: int  # by the own clock
    is_inside: bool
    is_shown: bool = False
    is_news: bool = True


@dataclass(frozen=True, slots=True)
class AlertChange:
    """A change to show: what happened to an alert. `reason` is that of a cancel."""

    what: str
    alert: dict[str, Any]
    left_ms: int
    reason: str = ""

    @property
    def is_shown(self) -> bool:
        """Whether the person is shown a revision, which is then acknowledged."""
        return self.what in ("new", "updated")


class HeldAlerts:
    """The alerts that one subscriber has. Each method that changes them returns what to show."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = [(lat, lng, unit_vector(lat, lng), reach_m) for lat, lng, reach_m in places]
        self._held: dict[str, _Held] = {}
        self._cancelled: dict[str, None] = {}
        self._ahead_ms = 0

    def holding(self) -> dict[str, int]:
        """Return the `holding` of a `hello` (C5). What is not listed is forgotten."""
        latest = sorted(self._held.items(), key=lambda each: each[1].ends_at, reverse=True)[:MAX_HOLDING]
        self._held = dict(latest)
        return {alert_id: held.alert["revision"] for alert_id, held in latest}

    def set_clock(self, now: object, own_ms: int) -> list[AlertChange]:
        """Take the time of the server's clock. Raise ValueError if it is malformed."""
        self._ahead_ms = parse_time(now) - own_ms
        return self.look(own_ms)

    def take(self, message: dict[str, Any], own_ms: int) -> list[AlertChange]:
        """Take an `alert` or a `cancel`. Raise KeyError, TypeError, ValueError or OverflowError if it is malformed."""
        alert = message["alert"] if message["type"] == "alert" else message
        alert_id, revision = alert["id"], alert["revision"]
        if not isinstance(alert_id, str) or not is_id(alert_id):
            raise ValueError("no id")
        if type(revision) is not int or not 1 <= revision <= MAX_REVISION:
            raise ValueError("no revision")
        held = self._held.get(alert_id)
        if alert_id in self._cancelled or (held is not None and held.alert["revision"] >= revision):
            return []
        if message["type"] == "cancel":
            return self._cancel(alert_id, str(message.get("reason", "")), own_ms) if held is not None else []
        ends_at, issued_at = parse_time(alert["expires_at"]), parse_time(alert["issued_at"])
        is_inside = any(self._is_in(to_shape(shape)) for shape in alert["area"])
        fresh = _Held(alert, ends_at, own_ms + max(0, ends_at - issued_at), is_inside)
        fresh.is_shown = held is not None and held.is_shown
        self._held[alert_id] = fresh
        return self.look(own_ms)

    def look(self, own_ms: int) -> list[AlertChange]:
        """Look which alerts concern the person now. Forget those that are over by both clocks."""
        return list(self._changes(own_ms))

    @property
    def unseen(self) -> int:
        """The number of alerts that have ended by the server's clock, but not by the own one."""
        return sum(held.is_inside and not held.is_shown for held in self._held.values())

    def next_ms(self, own_ms: int) -> int | None:
        """Return the time after which `look` is needed; None if there are no alerts."""
        ends = [h.ends_at - self._ahead_ms if h.is_shown else h.keep_until for h in self._held.values()]
        return max(0, min(ends) - own_ms) if ends else None

    def _changes(self, own_ms: int) -> Iterator[AlertChange]:
        for alert_id, held in list(self._held.items()):
            left_ms = held.ends_at - own_ms - self._ahead_ms
            concerns = held.is_inside and left_ms > 0
            if concerns and (held.is_news or not held.is_shown):
                yield AlertChange("updated" if held.is_shown else "new", held.alert, left_ms)
            elif held.is_shown and not concerns:
                yield AlertChange("no longer here" if left_ms > 0 else "expired", held.alert, left_ms)
            held.is_shown, held.is_news = concerns, False
            if left_ms <= 0 and held.keep_until <= own_ms:
                del self._held[alert_id]

    def _cancel(self, alert_id: str, reason: str, own_ms: int) -> list[AlertChange]:
        held = self._held.pop(alert_id)
        self._cancelled[alert_id] = None
        if len(self._cancelled) > MAX_CANCELLED:
            del self._cancelled[next(iter(self._cancelled))]
        left_ms = held.ends_at - own_ms - self._ahead_ms
        return [AlertChange("cancelled", held.alert, left_ms, reason)] if held.is_shown else []

    def _is_in(self, shape: Shape) -> bool:
        match shape:
            case Circle(lat, lng, radius_m):
                return any(distance_m(lat, lng, *at) <= radius_m + reach_m for *at, _, reach_m in self._places)
            case Polygon(ring, buffer_m):
                polygon = SphericalPolygon(ring, buffer_m)
                return any(polygon.contains(vector, reach_m) for *_, vector, reach_m in self._places)
        return True  # a shape of a later release: better to show too much than too little


def place_in_cell(text: str) -> Place | None:
    """Return the place that an H3 cell stands for (M8); None if the text is no such cell."""
    cell = cell_from_string(text)
    return None if cell is None else cell_place(cell)
