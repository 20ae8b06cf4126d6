"""The way of an event from the log to the lines of the targets (rules WH3 to WH5 and WH11).

The relay follows the log as the feed does: a `LogReader` gives it each entry, and `LiveAlerts` knows what is live. So a
wrong clock, a log that has lost entries and reviewers' keys that changed are handled there. While the log is read for
the first time, nothing is sent. Then each target is offered the current entry of every alert, and takes what it lacks.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush

from prometheus_client.core import Metric

from ..clock import Clock, Now
from ..metrics import counters, gauge, gauges
from ..model.alert import Entry, Untrusted
from ..stream.live_alerts import LiveAlert, LiveAlerts
from .line import TargetLine
from .targets import RelayTarget
from .told import Told, ToldStore

logger = logging.getLogger(__name__)

SWEEP_S = 0.1  # pause between two searches for alerts that have ended
LOOK_S = 1.0  # pause between two searches for requests that should have started
GRACE_S = 3_600.0  # how long after the end of an alert its events are still posted (WH5)
PURGE_S = 60.0
NO_TARGET: Mapping[str, bytes] = {}
AT_ONCE = 100  # number of alerts that are offered to a target in one turn of the event loop


@dataclass(eq=False, repr=False)
class Relay:
    """Offers the entries of the log to the lines of all targets. `took` and `posted` are those of `TargetLine`."""

    clock: Clock
    store: ToldStore
    took: Callable[[float], None] = lambda _: None
    posted: Callable[[str, str], None] = lambda _, __: None

    def __post_init__(self) -> None:
        self.live = LiveAlerts(1, places=False)
        self.lines: dict[str, TargetLine] = {}
        self.has_started = False  # whether all targets of the start are posted to
        self._offers = False  # whether new entries are offered
        self._absent: dict[str, dict[str, Told]] = {}  # what targets were told that are not in the file now
        self._ends: list[tuple[float, str]] = []  # a heap of alerts by their deadlines
        self._next_end: dict[str, float] = {}  # the item of an alert in that heap; others are outdated
        self._forget_at: list[tuple[float, str]] = []  # a heap of alerts that have ended
        self._next_look = 0.0  # when requests that should have started are searched for next

    async def start(
        self, targets: Mapping[str, RelayTarget], told: Mapping[str, dict[str, Told]], gone: Mapping[str, bytes]
    ) -> None:
        """Begin to post, after the log was read. `told` and `gone` are those of the state.

        If this fails, it can be called again.
        """
        now = self.clock.now()
        self._absent = {name: rows for name, rows in told.items() if name not in self.lines}
        for alert_id, ends_at in {each: row.ends_at for rows in told.values() for each, row in rows.items()}.items():
            self._end_at(alert_id, now.deadline(ends_at))
        self._offers = True
        await self.adopt(targets, gone)
        self.has_started = True
        self.purge()  # its task may have called it before

    async def adopt(self, targets: Mapping[str, RelayTarget], gone: Mapping[str, bytes] = NO_TARGET) -> None:
        """Use these targets from now on, and offer them the live alerts that they lack (WH11).

        Targets in `gone`, with the digests of their URLs, have answered 410 and get nothing (WH10).
        """
        for name in self.lines.keys() - targets.keys():
            removed = self.lines.pop(name)
            await removed.close()
            self._absent[name] = removed.told
        for name, target in targets.items():
            line = self.lines.get(name)
            if line is None:
                told = self._absent.get(name, {})
                line = TargetLine(target, self.store, self.clock, told, self.took, self.posted)
                self.lines[name] = line
                self._absent.pop(name, None)
                now = self.clock.now()
                for alert_id, row in told.items():
                    if row.ends_at <= now.wall_ms and self.live.find(alert_id, now) is None:
                        line.end(alert_id)  # it has ended while there was no line
            elif line.target.text != target.text:
                line.adopt(target)
            was_gone, line.gone = line.gone or name in gone, gone.get(name) == target.url_digest
            if was_gone and not line.gone:
                self.store.note_gone(name, None)
            line.pump()
            for number, alert in enumerate(list(self.live), start=1):
                if not alert.ended(self.clock.now()):
                    line.offer(alert)
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)
        for alert in list(self.live):
            self._end_at(alert.id, alert.deadline)

    def apply(self, entry: Entry | Untrusted) -> None:
        """Apply an entry of the log, and offer its alert to all targets."""
        now = self.clock.now()
        self.live.apply(entry, now)
        alert = self.live.find(entry.id, now)  # also if an earlier attempt to apply the entry failed halfway
        if alert is not None and self._offers and not alert.ended(now):
            self._offer(alert)

    def _offer(self, alert: LiveAlert) -> None:
        """Offer an alert to all targets. If that fails for one, all others are offered it nevertheless."""
        self._end_at(alert.id, alert.deadline)
        errors = []
        for line in self.lines.values():
            try:
                line.offer(alert)
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _end_at(self, alert_id: str, deadline: float) -> None:
        if deadline < self._next_end.get(alert_id, float("inf")):
            self._next_end[alert_id] = deadline
            heappush(self._ends, (deadline, alert_id))

    def sweep_s(self) -> float:
        """Return the pause until the next `sweep`, in seconds."""
        return 0 if self.live.behind else SWEEP_S

    def purge(self) -> None:
        """Have the state forget alerts that ended an hour ago. Call this every PURGE_S seconds."""
        if self.has_started:
            self.store.purge(self.clock.now().wall_ms - round((GRACE_S + PURGE_S) * 1000))

    def sweep(self) -> None:
        """Tell the lines which alerts have ended, and which are live again because the wall clock was set right.

        Start the requests that an error has kept from starting. If this raises, the next call does what is left.
        """
        if not self._offers:
            return
        now = self.clock.now()
        while self._ends and self._ends[0][0] <= now.monotonic:
            deadline, alert_id = heappop(self._ends)
            if self._next_end.get(alert_id) != deadline:
                continue
            self._next_end[alert_id] = now.monotonic + SWEEP_S
            heappush(self._ends, (self._next_end[alert_id], alert_id))  # if the next line raises
            self._tell_end(alert_id, now)
        while self._forget_at and self._forget_at[0][0] <= now.monotonic:
            _, alert_id = heappop(self._forget_at)
            if self.live.find(alert_id, now) is None:
                for line in self.lines.values():
                    line.give_up(alert_id)
                for rows in self._absent.values():
                    rows.pop(alert_id, None)
        self.live.expire(now, self._offer)
        if now.monotonic >= self._next_look:
            self._next_look = now.monotonic + LOOK_S
            for line in self.lines.values():
                line.catch_up()

    def _tell_end(self, alert_id: str, now: Now) -> None:
        found = self.live.find(alert_id, now)
        if found is not None:  # a revision has extended it
            self._next_end[alert_id] = found.deadline
            heappush(self._ends, (found.deadline, alert_id))
            return
        for line in self.lines.values():
            line.end(alert_id)
        heappush(self._forget_at, (now.monotonic + GRACE_S, alert_id))
        del self._next_end[alert_id]

    def metrics(self) -> Iterator[Metric]:
        """Yield the metrics of the relay. The only label is the name of a target."""
        lines = self.lines.items()
        yield gauge("relay_targets", "Targets of the relay", len(lines))
        text = "Alerts of which a target has not taken the last event yet"
        yield gauges("relay_pending", text, "target", [(name, line.pending_alerts) for name, line in lines])
        text = "For how long the oldest event has been due that a target has not taken"
        yield gauges("relay_pending_seconds", text, "target", [(name, line.pending_s()) for name, line in lines])
        text = "1 if a target has answered 410 and is told nothing more until a reload"
        yield gauges("relay_gone", text, "target", [(name, line.gone) for name, line in lines])
        text = "Alerts that have ended before a target took the last event of them"
        yield counters("relay_missed", text, "target", [(name, line.missed) for name, line in lines])
        yield gauge("relay_unrecorded", "Rows of the state that are not on the disk yet", self.store.unwritten)
        yield gauge("relay_set_aside", "Rows of the state that could not be read at the start", self.store.set_aside)
