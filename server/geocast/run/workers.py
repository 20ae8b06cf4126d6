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
        other processes get the bytes that it has read (`channel.py`). A process that can't switch to them while
        running exits, and its replacement is forked with them already loaded. If keys are at a URL, the api process
        fetches them, because it has an event loop. It writes them to a file and sends the supervisor SIGUSR1. A process
        that receives a token with an unknown key asks the api process to fetch.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import Metric

from .. import tasks
from ..alertlog import AlertLog
from ..clock import Clock
from ..config import Listeners, Settings
from ..metrics import counter, gauge
from ..model.alert import Entry, Untrusted
from ..model.call import CallEntry
from ..stream.live_alerts import LiveAlerts
from ..stream.log_reader import LogHealth, LogReader
from ..stream.server import FLUSH_S
from .backends import open_log, opened_log
from .links import FrontLink, WorkerLink
from .node import ApiPart, NodeContext, log_ready, serve_api, stream_of
from .process import Process
from .runtime_config import RuntimeConfig
from .supervising import REPORT_S, Reports, Run, WorkerSpec, check, keep_alive

logger = logging.getLogger(__name__)


def supervise(settings: Settings, in_force: RuntimeConfig, listeners: Listeners, run: Run) -> None:
    """Run all processes of a node until SIGTERM or SIGINT.

    Raise ConfigError, before any process is started, if the settings can't be used.
    """
    open_log(settings)  # imports the backend once, before the forks
    check("log", lambda: _look(settings), run)
    of_api = {"--api": listeners.api, "--metrics": listeners.metrics, "--feed": listeners.feed}
    given = {option: listener for option, listener in of_api.items() if listener is not None}
    sockets = [given, *({"--stream": stream} for stream in listeners.streams)]
    mains = {"api": lambda part: _run_api(part, settings, in_force)} | dict.fromkeys(
        _names(settings), lambda part: _run_stream(part, settings, in_force)
    )
    keep_alive(mains, sockets, in_force, settings.drain_s, run)


async def _look(settings: Settings) -> None:
    async with opened_log(settings):
        pass


def _names(settings: Settings) -> list[str]:
    return [f"stream-{number}" for number in range(settings.workers)]


# ---- a stream process --------------------------------------------------------------------------------------------


async def _run_stream(part: WorkerSpec, settings: Settings, in_force: RuntimeConfig) -> None:
    async with Process(settings.drain_s) as process:
        alert_log = await process.enter(opened_log(settings, in_force.trust))

        def others_appended() -> None:
            stream.expect()
            alert_log.nudge()

        def appended(_entry: Entry | CallEntry) -> None:
            stream.keeper.worked("written")
            alert_log.nudge()
            for name in _names(settings):
                if name != part.name:
                    link.send(name, b"")

        def state() -> Mapping[str, Any]:
            return {"degraded": stream.degraded(), "reads": stream.reads()}

        link = WorkerLink(part, "api", in_force, process, others_appended)
        stream = stream_of(NodeContext(process, settings, in_force, alert_log, appended, link.newer_keys))
        await process.add(link)
        await process.add(stream)
        await process.enter(tasks.running(report=tasks.every(REPORT_S, link.reporting(state))))
        await stream.listen(part.listeners["--stream"], process.stop.asked)
        if not process.stop.asked.is_set():  # the signal may have come while the log was being read
            logger.info("process %s is ready", part.name)
            link.report(with_metrics=True)
        await process.until_stopped()


# ---- the api process ---------------------------------------------------------------------------------------------


async def _run_api(part: WorkerSpec, settings: Settings, in_force: RuntimeConfig) -> None:
    is_serving = was_ready = False

    def reported() -> None:
        nonlocal was_ready
        if is_serving and not was_ready and not process.unready():
            was_ready = True
            log_ready(settings)

    def ending() -> None:
        api.context.drain.begin()

    def appended(_entry: Entry | CallEntry) -> None:
        keeper.worked("written")
        link.send_to_all(b"")

    async with Process() as process:
        alert_log = await process.enter(opened_log(settings, in_force.trust))
        process.metrics.watch(alert_log.metrics)
        process.metrics.watch(in_force.trust.metrics)
        keeper = await process.add(LogHealth(alert_log, process.clock))
        link = FrontLink(part, _names(settings), in_force, process, ending, reported)
        process.metrics.watch(lambda: _metrics_of(link.reports))
        newer_keys = None if link.source is None else link.source.newer
        node = NodeContext(process, settings, in_force, alert_log, appended, newer_keys)
        api = ApiPart(node, link.reports)
        await process.add(link)
        await process.add(api)
        await process.enter(tasks.running(log_watch=tasks.every(FLUSH_S, lambda: keeper.store({}))))
        if settings.reviewers is not None:
            await process.add(_Following(alert_log, process.clock, keeper))
        sockets = part.listeners
        listeners = Listeners((), sockets["--api"], sockets.get("--metrics"), sockets.get("--feed"))
        await serve_api(node, api, listeners, keeper)
        is_serving = True
        reported()
        await process.until_stopped()


class _Following(tasks.Part):
    """Follows the log, so that the verifier knows the same live alerts as the stream processes.

    Example: an alert with one approval is live when a reload makes two approvals mandatory. The stream processes keep
    the alert, and the API process must accept it too, so that it can be cancelled (HD7).
    """

    def __init__(self, alert_log: AlertLog, clock: Clock, keeper: LogHealth) -> None:
        self._live, self._clock = LiveAlerts(1), clock
        self._reader = LogReader(alert_log, clock, self._live, self._apply, keeper)

    def _apply(self, entry: Entry | Untrusted) -> None:
        if (alert := self._live.apply(entry, self._clock.now())) is not None:
            alert.pack()

    def _expire(self) -> None:
        self._live.expire(self._clock.now())

    def named_tasks(self) -> dict[str, tasks.Work]:
        """Return the tasks that follow the log."""
        pause = tasks.every(lambda: 0 if self._live.behind else REPORT_S, self._expire)
        return {"log_reader": self._reader.read_for_ever, "sweep": pause}


def _metrics_of(reports: Reports) -> Iterator[Metric]:
    yield gauge("stream_processes_missing", "Stream processes that do not report", len(reports.missing()))
    yield counter("stream_restarts", "Stream processes that died and were replaced", reports.restarts)
