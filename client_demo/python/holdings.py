"""Keeps the alerts that a client has received, and decides which changes to show to the person. No I/O.

Callers pass the `alert` and `cancel` messages that arrive, and the time.

Rule 1  A higher revision replaces a lower one; every other revision of the same id is ignored.
Rule 2  No alert is shown after its `expires_at`. The clock for that is the client's own clock, corrected by the
        server's `now`; it is called the server's clock below. The server's `now` may be wrong, and be corrected later.
        So an alert that has ended by the server's clock is kept, and is shown again if a later `now` makes it live
        again. It is deleted when it has also ended by the client's own clock, which nobody sets: it lives at most as
        long as from `issued_at` to `expires_at`, counted from its arrival. Example: node A's clock is an hour ahead, so
        an alert ends. The client reconnects to node B, whose `welcome` has the right time, and the alert is shown
        again.
Rule 3  An alert that was cancelled is not shown again, because a node that is behind may still send it.
Rule 4  A server sends the same frame to everybody. Whether the person is inside is decided here, by their own places.
Rule 5  Alerts that do not fit into `holding` are dropped before it is sent, so that the server knows every alert that
        we show, or may show again.

The changes that are reported when a revision comes, or when the person moves:

    shown before   here before   here now    reported
    no             -             yes         new
    no             -             no          nothing; the alert is kept: the person may walk in, or it may be moved here
    yes            yes           yes         updated, if it is a higher revision
    yes            yes           no          no_longer_here
    yes            no            yes         back_here
    yes            no            no          nothing

An alert that has expired counts as not shown before, so an alert that is live again is new.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .geo import Place, away_m, is_inside
from .times import parse_time
from .wire import is_plain

MAX_HOLDING = 256  # protocol, `hello`; also the limit of alerts that only the server's clock has ended
MAX_HELD = 4096  # alerts between two `hello`, to bound the memory of a client
MAX_REVISION = 2**31 - 1
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
ODD = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError)  # errors of an odd message or stored alert
TEXTS = (
    "category",
    "title",
    "headline",
    "description",
    "instruction",
    "area_desc",
    "severity",
    "status",
    "source",
    "web",
)
MAX_CANCELLED = 1024  # ids kept for Rule 3, of at most 128 characters each

Alert = Mapping[str, Any]

_ANYWHERE = Place.at(0.0, 0.0)


class Kind(StrEnum):
    """The kinds of changes of an alert that is shown to the person, or was shown before."""

    NEW = "new"
    UPDATED = "updated"
    NO_LONGER_HERE = "no_longer_here"
    BACK_HERE = "back_here"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DROPPED = "dropped"  # more alerts are held than `holding` may list (Rule 5)


SHOWN = (Kind.NEW, Kind.UPDATED, Kind.BACK_HERE)


@dataclass(frozen=True, slots=True)
class Change:
    """One change to show: the alert after the change, whether the person is inside, and why it was cancelled."""

    kind: Kind
    alert: Alert
    here: bool
    reason: str | None = None


@dataclass(slots=True)
class _Held:
    alert: Alert
    revision: int
    expires_at: int  # ms since 1970, the server's time
    keep_until: int  # by the client's own clock, in ms: by then the alert is over, whatever the server's clock says
    here: bool = False
    shown: bool = False
    over: bool = False  # whether the alert has ended by the server's clock

    def reassess(self, places: Sequence[Place], revised: bool) -> Kind | None:
        """Update whether one of `places` is inside the alert's area, and return the kind of the change, or None.

        The table in the module's docstring says which kind it is. `revised` says whether a higher revision of the alert
        has just arrived.
        """
        was_here, self.here = self.here, is_inside(self.alert["area"], places)
        if self.over:
            return None
        if not self.shown:
            self.shown = self.here
            return Kind.NEW if self.here else None
        if self.here:
            return (Kind.UPDATED if revised else None) if was_here else Kind.BACK_HERE
        return Kind.NO_LONGER_HERE if was_here else None

    def look(self, now: int) -> Kind | None:
        """Update whether the alert has ended at the server's time `now` (Rule 2).

        Return the kind of the change, or None if nothing has changed for the person.
        """
        was_over, self.over = self.over, self.expires_at <= now
        if self.over:
            was_shown, self.shown = self.shown, False
            return Kind.EXPIRED if was_shown else None
        if was_over and self.here:
            self.shown = True
            return Kind.NEW
        return None

    def change(self, kind: Kind, reason: str | None = None) -> Change:
        return Change(kind, self.alert, self.here, reason)


def listed(said: Mapping[str, Any]) -> tuple[str, int]:
    """Return the id and the revision of an alert, a call or a task.

    Raise KeyError, TypeError or ValueError if a `hello` may not list them, because a server would refuse it (protocol,
    M1), or if a member could not be stored.
    """
    key, revision = said["id"], said["revision"]
    if not isinstance(key, str) or ID.fullmatch(key) is None:
        raise ValueError("id is none of the protocol")
    if not isinstance(revision, int) or isinstance(revision, bool) or not 1 <= revision <= MAX_REVISION:
        raise ValueError("revision is no whole number from 1 on")
    if not is_plain(said):
        raise ValueError("a value that can't be stored")
    return key, revision


def check_texts(said: Mapping[str, Any]) -> None:
    """Raise TypeError if a member of an alert or a call that people read is no text."""
    if not all(isinstance(said.get(name, ""), str) for name in TEXTS):
        raise TypeError("a member that people read is no text")


def _life_ms(alert: Alert) -> int:
    """Return the longest time that an alert can live after its arrival, in ms; 0 if its times can't be read."""
    try:
        return max(0, parse_time(alert["expires_at"]) - parse_time(alert["issued_at"]))
    except ODD:
        return 0


def check_area(area: object) -> None:
    """Raise an error if `area` is so malformed that places can't be compared with it.

    So an alert with such an area is rejected at once, and no later move fails because of it.
    """
    if not isinstance(area, list) or not all(isinstance(shape, Mapping) for shape in area):
        raise TypeError("area is no list of shapes")
    for shape in area:
        is_inside([shape], [_ANYWHERE])
        away_m([shape], [_ANYWHERE])


class Holdings:
    """Keeps the alerts that one client has received. Iterating yields those that are live (have not ended).

    In all methods, `own_ms` is the time of the client's own clock, in ms since any moment.
    """

    def __init__(self, places: Sequence[Place] = ()) -> None:
        self._places = tuple(places)
        self._held: dict[str, _Held] = {}
        self._cancelled: OrderedDict[str, None] = OrderedDict()
        self._correction_ms = 0  # server's clock minus the client's own clock

    def __iter__(self) -> Iterator[Alert]:
        return (held.alert for held in self._held.values() if not held.over)

    def __len__(self) -> int:
        return sum(not held.over for held in self._held.values())

    def get(self, alert_id: str) -> Alert | None:
        """Return the newest revision of an alert, even if the alert has ended by the server's clock.

        Return None if the alert is unknown.
        """
        held = self._held.get(alert_id)
        return None if held is None else held.alert

    @property
    def kept(self) -> int:
        """The number of alerts that are kept although they have ended by the server's clock (Rule 2)."""
        return sum(held.over for held in self._held.values())

    @property
    def places(self) -> tuple[Place, ...]:
        """The places of the person: where the person is, and other places that matter to the person."""
        return self._places

    def here(self) -> list[Alert]:
        """Return the alerts to show on the screen: those that are live and contain one of the places."""
        return [held.alert for held in self._held.values() if held.here and not held.over]

    # ---- clocks and ends of alerts -------------------------------------------------------------------------

    def set_clock(self, server_now_ms: int, own_ms: int) -> None:
        """Set the server's clock: it showed `server_now_ms` when the client's own clock showed `own_ms`.

        `server_now_ms` is the `now` of a `welcome` or `pong`. Call `expire` afterwards to get the changes.
        """
        self._correction_ms = server_now_ms - own_ms

    def server_ms(self, own_ms: int) -> int:
        """Return the server's time at `own_ms`, in ms since 1970."""
        return own_ms + self._correction_ms

    def next_expiry(self) -> int | None:
        """Return the time at which `expire` must be called next; None if there are no alerts.

        The time is that of the client's own clock, in ms. At that time an alert ends, or is deleted.
        """
        return min(
            (held.keep_until if held.over else held.expires_at - self._correction_ms for held in self._held.values()),
            default=None,
        )

    def expire(self, own_ms: int) -> list[Change]:
        """Find the alerts that have ended, and those that have become live again; return the changes to show.

        There is no change for an alert that was never shown.
        """
        now = self.server_ms(own_ms)
        looked = [(held, held.look(now)) for held in self._held.values()]
        self._forget(own_ms)
        return [held.change(kind) for held, kind in looked if kind is not None]

    def _forget(self, own_ms: int) -> None:
        """Delete the alerts that have ended by both clocks. None of them is shown any more.

        Alerts that have ended only by the server's clock are deleted, too, if there are more than MAX_HOLDING of them.
        """
        over = self._latest_end_first(key for key, held in self._held.items() if held.over)
        kept = [key for key in over if self._held[key].keep_until > own_ms]
        self._drop([*(set(over) - set(kept)), *kept[MAX_HOLDING:]], Kind.EXPIRED)

    # ---- messages from the server --------------------------------------------------------------------------

    def take_alert(self, alert: Alert, own_ms: int) -> list[Change]:
        """Store the revision in an `alert` message, and return the changes to show.

        Raise one of the errors ODD if the alert is incomplete or malformed.
        """
        (key, revision), expires_at = listed(alert), parse_time(alert["expires_at"])
        check_texts(alert)
        check_area(alert["area"])
        keep_until, now = own_ms + _life_ms(alert), self.server_ms(own_ms)
        held = self._held.get(key)
        if key in self._cancelled or (expires_at <= now and keep_until <= own_ms):
            return []
        if held is None:
            held = self._held[key] = _Held(alert, revision, expires_at, keep_until, over=expires_at <= now)
        elif revision > held.revision:
            held.alert, held.revision, held.expires_at, held.keep_until = alert, revision, expires_at, keep_until
        else:
            return []
        changes = self._reassess_revision(held, own_ms)
        if len(self._held) > MAX_HELD:
            changes += self._drop(self._latest_end_first(self._held)[MAX_HELD:], Kind.DROPPED)
        return changes

    def _reassess_revision(self, held: _Held, own_ms: int) -> list[Change]:
        if held.expires_at > self.server_ms(own_ms):
            held.over = False
            kind = held.reassess(self._places, revised=True)
        else:
            kind = held.look(self.server_ms(own_ms))
            held.reassess(self._places, revised=True)
            self._forget(own_ms)
        return [] if kind is None else [held.change(kind)]

    def take_cancel(self, message: Mapping[str, Any]) -> list[Change]:
        """Remove the alert that a `cancel` message names, and return the changes to show.

        The message has no effect if the alert is not known.
        """
        (key, revision), reason = listed(message), message.get("reason")
        if not isinstance(reason, str | None):
            raise TypeError("reason is no text")
        held = self._held.get(key)
        if held is None or revision <= held.revision:
            return []
        self._cancelled[key] = None
        if len(self._cancelled) > MAX_CANCELLED:
            self._cancelled.popitem(last=False)
        return self._drop([key], Kind.CANCELLED, reason)

    # ---- changes that the client makes without a message from the server -----------------------------------

    def move(self, places: Sequence[Place]) -> list[Change]:
        """Replace the places, and return the changes to show."""
        self._places = tuple(places)
        kinds = [(held, held.reassess(self._places, revised=False)) for held in self._held.values()]
        return [held.change(kind) for held, kind in kinds if kind is not None]

    def holding(self, own_ms: int, limit: int = MAX_HOLDING) -> tuple[dict[str, int], list[Change]]:
        """Return the `holding` of a `hello`, a dict from id to revision, and the changes to show (Rules 2 and 5).

        At most `limit` alerts are listed; further ones are dropped, so that calls have space, too. Alerts whose area
        the person has left are listed: a cancellation, or a revision that brings the alert back, still concerns the
        person. Alerts that have ended only by the server's clock are listed, too: such an alert may become live again,
        and may have been cancelled meanwhile.
        """
        changes = self.expire(own_ms)
        latest_first = self._latest_end_first(self._held)
        changes += self._drop(latest_first[limit:], Kind.DROPPED)
        return {key: self._held[key].revision for key in latest_first[:limit]}, changes

    # ---- storing alerts for the next run ---------------------------------------------------------------------

    def saved(self, wall_minus_own_ms: int = 0) -> list[dict[str, Any]]:
        """Return the alerts as JSON values, from which `restore` can restore them in a later run.

        In the next run, the client's own clock may begin at any value. So times are converted to the wall clock, by
        adding `wall_minus_own_ms`.
        """
        return [
            {"alert": held.alert, "shown": held.shown, "keep_until": held.keep_until + wall_minus_own_ms}
            for held in self._held.values()
        ]

    def restore(self, saved: object, own_ms: int, wall_minus_own_ms: int = 0) -> int:
        """Restore the alerts that `saved` has returned in an earlier run, and return the number of those left out.

        An alert is left out if it is malformed. An earlier release may have stored such alerts.

        Alerts that have ended since then are dropped when the server's clock is next set (Rule 2). The wall clock
        decides how long an alert is kept; but the wall clock may be wrong, so no alert is kept for longer than it can
        live.
        """
        if not isinstance(saved, list):
            return 1
        odd = 0
        for each in saved:
            try:
                self._restore_one(each, own_ms, wall_minus_own_ms)
            except ODD:
                odd += 1
        return odd

    def _restore_one(self, each: Mapping[str, Any], own_ms: int, wall_minus_own_ms: int) -> None:
        alert = each["alert"]
        (key, revision), expires_at = listed(alert), parse_time(alert["expires_at"])
        check_texts(alert)
        check_area(alert["area"])
        keep_until = min(int(each.get("keep_until", 0)) - wall_minus_own_ms, own_ms + _life_ms(alert))
        here = is_inside(alert["area"], self._places)
        self._held[key] = _Held(alert, revision, expires_at, keep_until, here, bool(each["shown"]))

    def _latest_end_first(self, keys: Iterable[str]) -> list[str]:
        return sorted(keys, key=lambda key: self._held[key].expires_at, reverse=True)

    def _drop(self, keys: Sequence[str], kind: Kind, reason: str | None = None) -> list[Change]:
        dropped = [self._held.pop(key) for key in keys]
        return [held.change(kind, reason) for held in dropped if held.shown]
