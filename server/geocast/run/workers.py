"""A node in several processes (`--workers N`): a supervisor, an api process, and N stream processes.

    supervisor ── opens all listening sockets, starts the others and replaces them; handles no alert
       ├── api      publishes, purges, answers /metrics and /readyz for all
       └── stream   × N: all listen on one address (SO_REUSEPORT); each follows the log and serves its own sessions

Rule 1  The supervisor first binds each port without SO_REUSEPORT, which fails if the port is in use.
        Example: an old node still runs on port 8765. With SO_REUSEPORT alone, both nodes would get connections.
Rule 2  The supervisor has no event loop and no thread, so that it can fork the other processes at any time. They share
        the modules that it has imported, and the settings, keys and policy that it has read (`forking.py`).
Rule 3  The supervisor keeps every listening socket open and passes it on.
        Example: a stream process dies with 50 connections in the queue of its socket. Its replacement accepts them.
Rule 4  After each append to the log, the api process sends the stream processes a *nudge*: a datagram which says that
        the log has a new entry. A stream process that has appended a responder's answer does the same. If a nudge is
        lost, the entry is found a moment later by polling the log.
Rule 5  Each stream process reports whether it is ready, once a second and when it becomes ready. If a report is
        missing, the node is not ready. The api process logs once that the node is ready: when /readyz says so for the
        first time. It asks the others for their metrics when /metrics is read. They also report them every five
        seconds, so that the counters of a process that has died are still included.
Rule 6  When the node drains (ends), the api process answers "not ready", the stream processes drain at the same time,
        and the api process ends last. If the supervisor dies, the others drain too.
Rule 7  Only the supervisor tells the others to end: it signals each of them once, and a second time to make it hurry.
        Each process is in a terminal session of its own, so that Ctrl-C reaches only the supervisor.
        Example: otherwise the stream processes would get two signals, one from the terminal and one from the
        supervisor, and they would drop their connections at once.
Rule 8  The supervisor alone reads keys, revoked tokens, policy and publishers, at the start and at each SIGHUP. The
        other processes get the bytes that it has read (`reload_mailbox.py`). A process that can't switch to them while
        running exits, and its replacement is forked with them already loaded. If keys are at a URL, the api process
        fetches them, because it has an event loop. It writes them to a file and sends the supervisor SIGUSR1. A process
        that receives a token with an unknown key asks the api process to fetch.
"""

import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import Metric

from .. import tasks
from ..alertlog import AlertLog
from ..api.routes_alerts import serving
from ..clock import Clock, SystemClock
from ..config import Listeners, Settings
from ..metrics import Metrics, by_server, counter, gauge
from ..model.alert import Entry, Untrusted
from ..model.call import CallEntry
from ..stream.live_alerts import LiveAlerts
from ..stream.log_reader import PURGE_S, LogHealth, LogReader
from ..stream.own_tests import OwnTests
from ..stream.server import FLUSH_S, StreamServer
from .links import FrontLink, WorkerLink
from .node import Stop, api_of, calls_of, log_ready, open_log, opened_log, serving_feed
from .process_metrics import watch_tasks
from .runtime_config import RuntimeConfig
from .supervising import REPORT_S, Reports, Run, WorkerSpec, check, keep_alive

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Shared:
    """The settings and configuration of all processes.

    The supervisor reads them once, so that no two processes differ.
    """

    settings: Settings
    in_force: RuntimeConfig


def supervise(settings: Settings, in_force: RuntimeConfig, listeners: Listeners, run: Run) -> None:
    """Run all processes of a node until SIGTERM or SIGINT.

    Raise ConfigError, before any process is started, if the settings can't be used.
    """
    shared = _Shared(settings, in_force)
    open_log(settings)  # imports the backend once, before the forks
    check("log", lambda: _look(settings), run)
    of_api = {"--api": listeners.api, "--metrics": listeners.metrics, "--feed": listeners.feed}
    given = {option: listener for option, listener in of_api.items() if listener is not None}
    sockets = [given, *({"--stream": stream} for stream in listeners.streams)]
    mains = {"api": lambda part: _run_api(part, shared)} | dict.fromkeys(
        _names(settings), lambda part: _run_stream(part, shared)
    )
    keep_alive(mains, sockets, in_force, settings.drain_s, run)


async def _look(settings: Settings) -> None:
    async with opened_log(settings):
        pass


def _names(settings: Settings) -> list[str]:
    return [f"stream-{number}" for number in range(settings.workers)]


# ---- a stream process --------------------------------------------------------------------------------------------


async def _run_stream(part: WorkerSpec, shared: _Shared) -> None:
    stop = Stop()
    metrics = Metrics()
    watch_tasks(metrics)
    async with opened_log(shared.settings, shared.in_force.trust) as alert_log:
        metrics.watch(shared.in_force.trust.metrics)
        clock, in_force = SystemClock(), shared.in_force

        def others_appended() -> None:
            delivery.expect()
            alert_log.nudge()

        def appended(_entry: Entry | CallEntry) -> None:
            delivery.keeper.worked("written")
            alert_log.nudge()
            for name in _names(shared.settings):
                if name != part.name:
                    link.send(name, b"")

        with contextlib.closing(WorkerLink(part, "api", shared.settings, in_force, stop, others_appended)) as link:
            calls = calls_of(shared.settings, in_force, alert_log, clock, metrics, appended)
            delivery = StreamServer(
                shared.settings,
                in_force.tokens,
                clock,
                alert_log,
                metrics,
                newer_keys=link.newer_keys,
                calls=calls,
                own_tests=OwnTests(lambda: in_force.policy),
            )
            in_force.watch(delivery.reloaded)

            def state() -> dict[str, Any]:
                reads = by_server(alert_log.metrics())
                return {"unready": delivery.unready(), "degraded": delivery.degraded(), "reads": reads}

            async with (
                tasks.running(report=tasks.every(REPORT_S, link.reporting(metrics, state))),
                delivery.serving(part.listeners["--stream"], stop.asked, stop.hurry),
            ):
                if not stop.asked.is_set():  # the signal may have come while the log was being read
                    logger.info("process %s is ready", part.name)
                    link.report(state(), metrics)
                await stop.asked.wait()


# ---- the api process ---------------------------------------------------------------------------------------------


async def _run_api(part: WorkerSpec, shared: _Shared) -> None:
    stop = Stop()
    async with opened_log(shared.settings, shared.in_force.trust) as alert_log:
        with contextlib.closing(_ApiProcess(part, shared, alert_log, stop)) as process:
            async with process.running(part.listeners):
                process.note_ready()
                await stop.asked.wait()
                process.api.drain.begin()


class _ApiProcess:
    """The API process of a node, whose sessions are in the stream processes."""

    def __init__(self, part: WorkerSpec, shared: _Shared, alert_log: AlertLog, stop: Stop) -> None:
        clock, in_force = SystemClock(), shared.in_force
        self._settings, self._in_force = shared.settings, in_force
        self._keeper = LogHealth(alert_log, clock)
        self._is_serving = self._was_ready = False
        names = _names(shared.settings)
        self._link = FrontLink(part, names, shared.settings, in_force, stop, self._end, self._reported)
        reports, source = self._link.reports, self._link.source
        metrics = Metrics(self._link.exports)
        watch_tasks(metrics)
        metrics.watch(alert_log.metrics)
        metrics.watch(self._keeper.metrics)
        metrics.watch(lambda: _metrics_of(reports))
        asked = (self._appended, self._unready, shared.settings.share, reports.degraded, reports.reads)
        self.api = api_of(in_force, alert_log, clock, metrics, *asked)
        if source is not None:
            self.api.newer_keys = source.newer
            metrics.watch(source.metrics)

    def close(self) -> None:
        """Close the channel to the other processes."""
        self._link.close()

    def note_ready(self) -> None:
        """Log that the node is ready as soon as it is, once. Call this when the API is being served."""
        self._is_serving = True
        self._reported()

    def _reported(self) -> None:
        if self._is_serving and not self._was_ready and not self._unready():
            self._was_ready = True
            log_ready(self._settings)

    def _end(self) -> None:
        self.api.drain.begin()

    @contextlib.asynccontextmanager
    async def running(self, listeners: Mapping[str, socket.socket]) -> AsyncIterator[None]:
        """Serve the API, the metrics and the public feed on these sockets while the block runs."""
        api = self.api
        upkeep = tasks.running(
            log_watch=tasks.every(FLUSH_S, lambda: self._keeper.store({})),
            purge=tasks.every(PURGE_S, self._keeper.purge),
            **self._link.upkeep(),
            **self._following(),
        )
        public = serving_feed(
            self._settings, self._in_force, listeners.get("--feed"), api.alert_log, api.clock, self._keeper, api.metrics
        )
        async with upkeep, serving(api, listeners["--api"], listeners.get("--metrics")), public:
            yield

    def _appended(self, _entry: Entry | CallEntry) -> None:
        self._keeper.worked("written")
        self._link.send_to_all(b"")

    def _unready(self) -> list[str]:
        draining = ["draining"] if self.api.drain.begun else []
        return draining + self._keeper.unready() + tasks.unready() + self._link.reports.unready()

    def _following(self) -> dict[str, tasks.Work]:
        """Return tasks that follow the log, so that the verifier knows the same live alerts as the stream processes.

        Example: an alert with one approval is live when a reload makes two approvals mandatory. The stream processes
        keep the alert, and the API process must accept it too, so that it can be cancelled (HD7).
        """
        if self._settings.reviewers is None:
            return {}
        live, clock = LiveAlerts(1), self.api.clock

        def apply(entry: Entry | Untrusted) -> None:
            if (alert := live.apply(entry, clock.now())) is not None:
                alert.pack()

        reader = LogReader(self.api.alert_log, clock, live, apply, self._keeper)
        return {
            "log_reader": reader.read_for_ever,
            "sweep": tasks.every(lambda: 0 if live.behind else REPORT_S, lambda: _expire(live, clock)),
        }


def _expire(live: LiveAlerts, clock: Clock) -> None:
    live.expire(clock.now())


def _metrics_of(reports: Reports) -> Iterator[Metric]:
    yield gauge("stream_processes_missing", "Stream processes that do not report", len(reports.missing()))
    yield counter("stream_restarts", "Stream processes that died and were replaced", reports.restarts)
