"""The line of a target: what it was told, what it still has to be sent, and the requests (rules WH1 to WH6 and WH10).

An alert is *pending* while the target has not taken everything about it. A pending alert has the entries that are still
to be posted, the oldest first. It waits in the queue, has a request under way, or waits for a timer after a failure.
The queue has the alerts first whose requests have failed least often; of these, the most severe; of these, the oldest.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, NamedTuple

from .. import failpoints
from ..clock import Clock
from ..egress.http1 import request
from ..egress.outcomes import PostOutcome, PostResponse
from ..egress.post_client import NOT_SENT, HttpPostClient
from ..metrics import report_caught
from ..model.alert import SEVERITY_RANK, Cancel, Revision
from ..model.times import backoff_s
from ..stream.live_alerts import LiveAlert
from .events import ACCEPTED, CANCELLED, ENDED, REVISED, End, encoded, event, filled, summary_of, webhook_id
from .targets import RelayTarget
from .told import Told, ToldStore

logger = logging.getLogger(__name__)

LANES = 4  # limit on the requests under way to a target that works; to one that fails there is one
PATIENCE_S = 15.0  # longest wait for an answer, including the time to connect; the specification suggests 15 to 30 s
FIRST_WAIT_S, LAST_WAIT_S = 1.0, 30.0
MAX_RETRY_AFTER_S = 600.0
USER_AGENT = "geocast-relay"
_NOT_REFUSED = (408, 425, 429)  # statuses below 500 that are about the target, not about the alert


class _Due(NamedTuple):
    """An entry that is to be posted. `since` is when it became due, by the loop's clock."""

    entry: Revision | Cancel | End
    summary: dict[str, Any]
    since: float


@dataclass(slots=True, eq=False)
class _PendingAlert:
    """The entries of one alert that a target still has to be sent.

    `alert` is None if the alert had ended when the relay started.
    """

    id: str
    alert: LiveAlert | None
    rank: int
    due: list[_Due] = field(default_factory=list)
    under_way: bool = False
    queued: bool = False
    failures: int = 0
    waits_for_target: bool = False  # the last request failed because of the target, not because of the alert
    timer: asyncio.TimerHandle | None = None


@dataclass(eq=False, repr=False)
class TargetLine:
    """Posts to one target what it asks for. It belongs to the event loop that runs when it is created.

    `told` is what the target was told. `took` is called with the seconds from when an event became due until the target
    took it. `posted` is called after each request with the target's name and the status, or what went wrong.
    """

    target: RelayTarget
    store: ToldStore
    clock: Clock
    told: dict[str, Told]
    took: Callable[[float], None]
    posted: Callable[[str, str], None]

    def __post_init__(self) -> None:
        self.gone = False  # whether the target has answered 410 (WH10)
        self.failures = 0  # number of requests that failed because of the target, in a row
        self.missed = 0  # number of alerts of which the target has refused or failed to take the last event
        self.under_way = 0
        self._loop = asyncio.get_running_loop()
        self._pending: dict[str, _PendingAlert] = {}
        self._queue: list[tuple[int, int, int, _PendingAlert]] = []
        self._order = 0
        self._not_before = 0.0  # the loop's time at which the next request may start
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._clients: list[HttpPostClient] = []  # the last one is for new requests
        self.adopt(self.target)

    def adopt(self, target: RelayTarget) -> None:
        """Use a new definition of the target for all requests that start from now on."""
        for before in self._clients[-1:]:  # requests under way end with the client that they began with
            self._loop.call_later(PATIENCE_S + 1, before.close)
        self.target, self._clients = target, [*self._clients, target.client(self.clock)]

    @property
    def pending_alerts(self) -> int:
        """The number of alerts about which the target still has to be sent something."""
        return len(self._pending)

    def pending_s(self) -> float:
        """Return for how many seconds the oldest event has been due; 0 if there is none."""
        return max((self._loop.time() - pending.due[0].since for pending in self._pending.values()), default=0.0)

    # ---- what becomes due --------------------------------------------------------------------------------------------

    def offer(self, alert: LiveAlert) -> None:
        """Take the current entry of an alert, which has changed, or which the target may lack."""
        entry, told, pending = alert.current, self.told.get(alert.id), self._pending.get(alert.id)
        if (told is not None and (told.over or entry.revision <= told.number)) or (
            pending is not None and entry.revision <= pending.due[-1].entry.revision
        ):
            return
        revision = alert.revision
        matches = self.target.wants(revision.alert)
        if told is None and (isinstance(entry, Cancel) or not matches):
            self._drop(alert.id)
            return
        # With the number of a cancel, so that no `ended` after a restart has a lower one (WH3).
        summary = summary_of(revision, matches=matches) | {"revision": entry.revision}
        if told is not None:
            told.ends_at, told.summary = revision.ends_at, summary
            self.store.note_told(self.target.name, alert.id, told)
        self._add(alert, entry, summary)

    def end(self, alert_id: str) -> None:
        """Take note that an alert has ended for good (WH4)."""
        told, pending = self.told.get(alert_id), self._pending.get(alert_id)
        if told is None:
            self._drop(alert_id)
        elif not told.over and (pending is None or isinstance(pending.due[-1].entry, Revision)):
            entry = End(alert_id, int(told.summary["revision"]), told.ends_at)
            self._add(None, entry, dict(told.summary))

    def give_up(self, alert_id: str) -> None:
        """Forget an alert, an hour after it has ended (WH5)."""
        if alert_id in self._pending:
            logger.warning("target %s: gave up an alert; the target has not taken its end", self.target.name)
        self._drop(alert_id)
        self.told.pop(alert_id, None)

    def _add(self, alert: LiveAlert | None, entry: Revision | Cancel | End, summary: dict[str, Any]) -> None:
        rank, pending = SEVERITY_RANK[summary["severity"]], self._pending.get(entry.id)
        if pending is None:
            pending = self._pending[entry.id] = _PendingAlert(entry.id, alert, rank)
        first = 1 if pending.under_way else 0
        if not isinstance(entry, Revision) or pending.failures or self.failures:
            del pending.due[first:]  # nothing of it is true any more (WH3, WH4)
        pending.rank, pending.alert = rank, alert or pending.alert
        pending.due.append(_Due(entry, summary, self._loop.time()))
        if not pending.under_way and len(pending.due) == 1:
            self._enqueue(pending)
        self.pump()

    def _drop(self, alert_id: str) -> None:
        """Send nothing about an alert any more, unless a request about it is under way."""
        pending = self._pending.get(alert_id)
        if pending is not None and not pending.under_way:
            self.missed += pending.failures > 0
            del self._pending[alert_id]
            if pending.timer is not None:
                pending.timer.cancel()

    # ---- requests ----------------------------------------------------------------------------------------------------

    def _enqueue(self, pending: _PendingAlert) -> None:
        if pending.timer is not None:
            pending.timer.cancel()
            pending.timer = None
        self._order += 1
        heappush(self._queue, (pending.failures, -pending.rank, self._order, pending))
        pending.queued = True

    def catch_up(self) -> None:
        """Start what should have started before: an error in a timer or in `pump` may have kept it from that."""
        now = self._loop.time()
        for pending in self._pending.values():
            is_due = pending.timer is None or pending.timer.when() < now
            if is_due and not pending.under_way and not pending.queued:
                self._enqueue(pending)
        self.pump()

    def pump(self) -> None:
        """Start as many requests as may run now."""
        while (
            self._queue
            and not self.gone
            and not self._is_closed
            and self.under_way < (1 if self.failures else LANES)
            and self._loop.time() >= self._not_before
        ):
            pending = heappop(self._queue)[3]
            pending.queued = False
            if self._pending.get(pending.id) is pending and not pending.under_way and pending.timer is None:
                if self._is_due(pending):
                    self._start(pending)
                else:
                    self._drop(pending.id)

    def _start(self, pending: _PendingAlert) -> None:
        task = self._loop.create_task(self._serve(pending))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        pending.under_way = True
        self.under_way += 1

    def _is_due(self, pending: _PendingAlert) -> bool:
        """Return whether the first entry of a pending alert may be sent now (WH4).

        If an alert has ended only according to the wall clock, it is offered again when that clock was set right.
        """
        due, alert, is_told = pending.due[0], pending.alert, pending.id in self.told
        if isinstance(due.entry, Revision) and (is_told or due.summary["matches"]):
            return alert is not None and alert.cancel is None and not alert.ended(self.clock.now())
        return is_told

    async def _serve(self, pending: _PendingAlert) -> None:
        response = PostResponse(PostOutcome.AWAY, "error")
        try:
            response = await self._post(pending)
        except Exception as error:
            report_caught(f"target {self.target.name}: a request failed", error)
        finally:
            pending.under_way = False
            self.under_way -= 1
        try:
            self._answered(pending, response)
        except Exception:  # the loop's handler logs and counts it
            pending.failures += 1
            if self._pending.get(pending.id) is pending and pending.timer is None:
                pending.timer = self._loop.call_later(_wait_s(pending.failures), self._again, pending)
            raise
        finally:
            self.pump()

    def _answered(self, pending: _PendingAlert, response: PostResponse) -> None:
        if response.status == NOT_SENT:  # the alert has ended meanwhile
            self._retry(pending, 0.0)
        else:
            self.posted(self.target.name, response.status)
            if response.outcome is PostOutcome.SENT:
                self._taken(pending)
            else:
                self._failed(pending, response)

    async def _post(self, pending: _PendingAlert) -> PostResponse:
        due, told, target = pending.due[0], self.told.get(pending.id), self.target
        is_first = told is None
        if told is None:
            told = self.told[pending.id] = Told(0, False, due.entry.ends_at, due.summary)
            self.store.note_told(target.name, pending.id, told)
            await self.store.written()
            failpoints.hit("relay-noted")
        elif isinstance(due.entry, Revision) and due.entry.revision > told.summary["revision"]:
            told.ends_at, told.summary = due.entry.ends_at, due.summary  # noted with the answer
        if isinstance(due.entry, Revision):
            kind = REVISED if told.number else ACCEPTED
            assert pending.alert is not None
            within_s = min(PATIENCE_S, pending.alert.deadline - self.clock.now().monotonic)
        else:
            kind, within_s = CANCELLED if isinstance(due.entry, Cancel) else ENDED, PATIENCE_S
        message = event(due.entry, kind, due.summary)
        body = encoded(message if target.body is None else filled(target.body, message))
        signed = target.signer.headers(webhook_id(target.name, message), self.clock.now().wall_ms // 1000, body)
        fields = {"User-Agent": USER_AGENT, "Content-Type": "application/json", **target.headers, **signed}
        data = request(target.url.authority, target.url.path, fields, body)
        response = await self._clients[-1].post(
            target.url.host, target.url.port, data, within_s, may_send=lambda: self._is_due(pending)
        )
        failpoints.hit("relay-answered")
        if is_first and response.outcome is PostOutcome.AWAY:  # nothing has reached the target
            self.told.pop(pending.id, None)
            self.store.note_told(target.name, pending.id, None)
        return response

    def _taken(self, pending: _PendingAlert) -> None:
        due, told = pending.due[0], self.told.get(pending.id)
        self.took(self._loop.time() - due.since)
        if told is not None:
            told.number, told.over = due.entry.revision, not isinstance(due.entry, Revision)
            self.store.note_told(self.target.name, pending.id, told)
        del pending.due[0]  # only now: after an error the event is sent again, with the same id
        pending.failures = 0
        if pending.due:
            self._enqueue(pending)
        else:
            self._pending.pop(pending.id, None)
        if self.failures:
            logger.warning("target %s: takes events again", self.target.name)
            self.failures, self._not_before = 0, 0.0
            for other in self._pending.values():
                if other.timer is not None and other.waits_for_target:
                    self._enqueue(other)

    def _failed(self, pending: _PendingAlert, response: PostResponse) -> None:
        pending.failures += 1
        if response.status == "410":
            self.gone = True
            self.store.note_gone(self.target.name, self.target.url_digest)
            logger.error("target %s: answered 410 Gone, so it is told nothing more until a reload", self.target.name)
        refused = response.status.isdigit() and int(response.status) < 500 and int(response.status) not in _NOT_REFUSED
        pending.waits_for_target = not refused
        asked_s = min(max(response.retry_after_s or 0.0, 0.0), MAX_RETRY_AFTER_S)
        if not refused:
            self.failures += 1
            if self.failures == 1:
                logger.warning("target %s: a request failed (%s); trying again", self.target.name, response.status)
            wait_s = max(_wait_s(self.failures), asked_s)
            self._not_before = self._loop.time() + wait_s
            self._loop.call_later(wait_s, self._resume, self._not_before)
        elif pending.failures == 1 and not self.gone:
            logger.warning("target %s: refused an event with %s; trying again", self.target.name, response.status)
        self._retry(pending, max(_wait_s(pending.failures), asked_s))

    def _retry(self, pending: _PendingAlert, wait_s: float) -> None:
        """Post the newest entry of a pending alert, after a request that the target didn't take.

        Wait `wait_s` seconds if that entry was posted before. Another entry is tried as soon as the target is.
        """
        has_newer = len(pending.due) > 1
        del pending.due[:-1]
        if not self._is_due(pending):
            self._drop(pending.id)
        elif has_newer:
            self._enqueue(pending)
        else:
            pending.timer = self._loop.call_later(wait_s, self._again, pending)

    def _resume(self, not_before: float) -> None:
        """Start requests after a wait until `not_before`, unless a later failure has made the wait longer.

        The time is not compared with the clock, because timers of uvloop may fire a fraction of a millisecond early.
        """
        if self._not_before <= not_before:
            self._not_before = 0.0
            self.pump()

    def _again(self, pending: _PendingAlert) -> None:
        self._enqueue(pending)
        self.pump()

    async def finish(self) -> None:
        """Start no more requests, and wait for those under way."""
        self._is_closed = True
        for pending in self._pending.values():
            if pending.timer is not None:
                pending.timer.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Start no more requests, give up those under way, and close all connections."""
        for task in self._tasks:
            task.cancel()
        await self.finish()
        for client in self._clients:
            client.close()


def _wait_s(failures: int) -> float:
    return backoff_s(FIRST_WAIT_S, failures, LAST_WAIT_S) * random.uniform(0.5, 1.5)  # noqa: S311 (no secret)
