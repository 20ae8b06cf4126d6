"""Decides which notifications a phone shows for pushes.

Callers pass the messages and the time. No I/O.

    taken = notices.take(subscription.read(pushed), own_ms())
    show(taken.notice)                 # replaces the notification with the same tag
    for tag in taken.closed: close(tag)

Rule 1  Each push shows exactly one notification, whatever it contains. Its tag is the alert's id, so a revision
        replaces the notification of the revision before (docs/reference/push-rules.md, WPC2).
Rule 2  Pushes and the WebSocket share the phone's alerts (`holdings`), so an alert that both deliver makes a sound only
        once (WPC1).
Rule 3  A notification makes a sound only when the phone learns something new (WPC3, WPC4).
Rule 4  No code runs while a phone sleeps. So a notification whose alert has ended is closed at the next push, and so
        are notifications of cancellations and of alerts that had ended before they arrived. Each text says until when
        the alert is valid (WPC4, WPC5).
Rule 5  A push may come late, so the present time is taken to be at least the `now` of the push (WPC5).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from .geo import is_inside
from .holdings import MAX_CANCELLED, Alert, Change, Holdings
from .times import parse_time
from .verify import Untrusted, Verifier
from .wire import Message

SOMETHING, RENEWAL = "-something", "-renewal"  # tags that no alert has: an id begins with a letter or a digit


@dataclass(frozen=True, slots=True)
class Words:
    """The texts that a notification adds to an alert's own words. Names in braces are replaced by values."""

    exercise: str = "Exercise: {title}"
    test: str = "Test: {title}"
    until: str = "until {time}"
    cancelled: str = "Called off: {title}"
    an_alert: str = "an alert"
    ended: str = "An alert here has ended"
    outside: str = "Not where you are."
    something: str = "There is an alert near you. Open to see it."
    renew: str = "Open to go on being told of alerts"


@dataclass(frozen=True, slots=True)
class Notice:
    """A notification to show on a phone.

    `sound` says whether a sound is played, and `stays` whether the notification stays until a person dismisses it.
    `lang` is the language of the alert's own words. For a browser's `showNotification`, `sound` means `renotify` and
    not `silent`, and `stays` means `requireInteraction`.
    """

    tag: str
    title: str
    body: str = ""
    sound: bool = False
    stays: bool = False
    lang: str | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """The actions to take after a push.

    It has the notification to show, the tags of the notifications to close before that, and the changes for an open
    page. If `whole` is False, the alert did not fit into the push: fetch the rest over one short connection.
    """

    notice: Notice
    closed: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    whole: bool = True


class Notices:
    """Decides which notifications a phone shows for the pushes that it receives.

    `holdings` has the alerts of the phone. If the phone has a `Client`, it is the `holdings` of this client. It
    contains the phone's own places, which are more exact than those that the server has. If no WebSocket has set its
    clock, the caller must call `holdings.set_clock`. `time_of(moment, now)` formats a moment in ms since 1970 for the
    person; `now` is in the same unit.
    """

    def __init__(
        self,
        holdings: Holdings,
        *,
        verify: Verifier | None = None,
        words: Words | None = None,
        time_of: Callable[[int, int], str] | None = None,
    ) -> None:
        self.holdings = holdings
        self._verify, self._words, self._time_of = verify, words or Words(), time_of or local_time
        self._cut: dict[str, Alert] = {}  # alerts pushed only in part: without an area, `holdings` can't keep them
        self._cancelled: dict[str, Notice] = {}  # by id; a cancelled id does not come back
        self._open: dict[
            str, int
        ] = {}  # tag -> end of its notification, in ms since 1970; 0 closes it at the next push

    @property
    def open(self) -> list[str]:
        """The tags of all notifications that are shown at present."""
        return list(self._open)

    def take(self, message: Message, own_ms: int, *, visible: bool = False) -> Taken:
        """Return the notification for a push, and what else must be done.

        `visible` says whether the app is on the screen; if so, the notification makes no sound.
        """
        now = max(self.holdings.server_ms(own_ms), _said(message))
        changes, closed = self.holdings.expire(own_ms), self._close(now)
        notice, more, whole = self._decide(message, own_ms, now)
        if visible:
            notice = replace(notice, sound=False)
        return Taken(notice, [tag for tag in closed if tag != notice.tag], changes + more, whole)

    def opened(self, own_ms: int) -> list[str]:
        """Return the tags of the notifications to close when the person opens the app: those whose alert has ended."""
        return self._close(self.holdings.server_ms(own_ms))

    def _close(self, now: int) -> list[str]:
        """Return the tags of notifications whose alert has ended at the time `now` (Rule 4).

        These notifications count as closed afterwards.
        """
        self._cut = {key: alert for key, alert in self._cut.items() if _end(alert) > now}
        over = [tag for tag, until in self._open.items() if until <= now]
        for tag in over:
            del self._open[tag]
        return over

    # ---- the content of a push ---------------------------------------------------------------------------------

    def _decide(self, message: Message, own_ms: int, now: int) -> tuple[Notice, list[Change], bool]:
        """Return the notification, the changes for an open page, and whether the push contained the whole alert."""
        try:
            read = message if self._verify is None else self._verify.read(message)
            match read["type"]:
                case "alert":
                    return self._alert(read["alert"], own_ms, now, whole=read.get("cut") is not True)
                case "cancel":
                    return *self._cancel(read, now), True
                case "renew":
                    return self._shown(Notice(RENEWAL, self._words.renew), 0), [], True
        except (Untrusted, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            pass
        return self._shown(Notice(SOMETHING, self._words.something, sound=True), 0), [], False

    def _alert(self, alert: Alert, own_ms: int, now: int, *, whole: bool) -> tuple[Notice, list[Change], bool]:
        key, before, changes = alert["id"], self._known(alert["id"]), list[Change]()
        self._notice(alert, now, sound=False)  # raises for an alert that can't be shown, before it is stored
        if key in self._cancelled:
            return self._shown(self._cancelled[key], 0), changes, True
        is_news = before is None or alert["revision"] > before["revision"]
        if is_news and whole:
            changes = self.holdings.take_alert(alert, own_ms)
        elif is_news:
            self._cut[key] = alert
        return self._again(self._known(key) or alert, now, sound=is_news), changes, whole

    def _cancel(self, message: Message, now: int) -> tuple[Notice, list[Change]]:
        key, known = message["id"], self._known(message["id"])
        if known is not None and message["revision"] <= known["revision"]:
            return self._again(known, now, sound=False), []
        changes = self.holdings.take_cancel(message)
        self._cut.pop(key, None)
        if key not in self._cancelled:
            self._cancelled[key] = self._called_off(key, known, message.get("reason"))
        if len(self._cancelled) > MAX_CANCELLED:
            del self._cancelled[next(iter(self._cancelled))]
        return self._shown(self._cancelled[key], 0), changes

    def _known(self, key: str) -> Alert | None:
        """Return the newest revision of an alert that the phone has received; None if there is none."""
        known = [alert for alert in (self.holdings.get(key), self._cut.get(key)) if alert is not None]
        return max(known, key=lambda alert: int(alert["revision"]), default=None)

    # ---- texts -------------------------------------------------------------------------------------------------

    def _shown(self, notice: Notice, until: int) -> Notice:
        self._open[notice.tag] = until
        return notice

    def _again(self, alert: Alert, now: int, *, sound: bool) -> Notice:
        """Return the notification for an alert that the phone already has, in the alert's present state."""
        end = _end(alert)
        if end <= now:
            return self._shown(Notice(alert["id"], self._words.ended), 0)
        return self._shown(self._notice(alert, now, sound=sound), end)

    def _notice(self, alert: Alert, now: int, *, sound: bool) -> Notice:
        """Return the notification for a live alert. Raise an error if members of the alert are missing or malformed."""
        lines = [str(alert["headline"])]
        places, area = self.holdings.places, alert.get("area")
        if places and area is not None and not is_inside(area, places):
            lines.append(self._words.outside)
        lines.append(self._words.until.format(time=self._time_of(_end(alert), now)))
        stays, lang = alert["severity"] == "extreme", alert.get("language")
        return Notice(alert["id"], self._title(alert), "\n".join(lines), sound, stays, lang)

    def _called_off(self, key: str, alert: Alert | None, reason: object) -> Notice:
        title = self._words.an_alert if alert is None else self._title(alert)
        lang = None if alert is None else alert.get("language")
        return Notice(key, self._words.cancelled.format(title=title), str(reason or ""), lang=lang)

    def _title(self, alert: Alert) -> str:
        title = str(alert.get("title") or alert["category"])
        form = {"exercise": self._words.exercise, "test": self._words.test}.get(alert.get("status", "actual"))
        return title if form is None else form.format(title=title)


def local_time(moment_ms: int, now_ms: int) -> str:
    """Return a moment as text in this machine's time zone: "14:45", or "3 May 14:45" if it is not today."""
    moment, now = (datetime.fromtimestamp(ms / 1000, UTC).astimezone() for ms in (moment_ms, now_ms))
    return f"{moment:%H:%M}" if moment.date() == now.date() else f"{moment.day} {moment:%b %H:%M}"


def _end(alert: Alert) -> int:
    return parse_time(alert["expires_at"])


def _said(message: Message) -> int:
    """Return the member `now` of a push in ms since 1970; 0 if it is missing or invalid (Rule 5)."""
    try:
        return parse_time(message["now"])
    except (KeyError, TypeError, ValueError):
        return 0
