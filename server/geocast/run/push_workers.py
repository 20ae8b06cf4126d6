"""The command `geocast push` in several processes, with its devices in one SQLite file (`--workers N`).

    supervisor ── reads all files, opens all sockets, locks the devices, starts the others and replaces them
       ├── front   answers /metrics and /readyz for all, and fetches the keys if they are at a URL
       └── push    × N: each serves every Nth shard of the devices; all listen on one address (SO_REUSEPORT)

The rules of `workers.py` apply, except those about appending to the log. So a worker that dies is replaced at once, and
its replacement sends the devices what they lack (WPO3). The supervisor locks the devices by a lock on a file, and the
workers keep this file open too. So no other supervisor can start while one of the workers is running.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from prometheus_client.core import Metric

from .. import tasks
from ..metrics import Metrics, counter, gauge
from ..push.devicestore.sqlite import SqliteDevices, lock_devices
from ..push.routes import DevicesContext
from ..push.shards import StaticShards
from .links import FrontLink, WorkerLink
from .node import Stop, open_log, opened_log
from .process_metrics import serving_metrics, watch_tasks
from .push import PushContext, PushProcess, comparable
from .supervising import REPORT_S, Reports, Run, WorkerSpec, check, keep_alive

FRONT = "front"


def supervise(means: PushContext, listeners: Sequence[socket.socket], metrics: socket.socket | None, run: Run) -> None:
    """Start the processes of `geocast push` and keep them running until SIGTERM or SIGINT.

    Raise ConfigError, before any process is started, if the settings can't be used.
    """
    path = Path(means.settings.devices.partition(":")[2])
    names = [f"push-{number}" for number in range(len(listeners))]
    open_log(means.node)  # imports the backend once, before the forks
    with lock_devices(path) as lock:
        check("log and devices", lambda: _look(means, path), run)
        mains = {FRONT: lambda part: _run_front(part, means, names)} | {
            name: lambda part, number=number: _run_push(part, means, SqliteDevices(path, alone=False), number)
            for number, name in enumerate(names)
        }
        sockets = [{} if metrics is None else {"--metrics": metrics}, *({"--listen": each} for each in listeners)]
        keep_alive(mains, sockets, means.in_force, means.settings.drain_s, run, [lock.fileno()])


async def _look(means: PushContext, path: Path) -> None:
    store = SqliteDevices(path, alone=False)
    await store.start()
    await store.stop()
    async with opened_log(means.node, makes=False):
        pass


async def _run_push(part: WorkerSpec, means: PushContext, store: SqliteDevices, number: int) -> None:
    stop, metrics = Stop(), Metrics()
    with contextlib.closing(WorkerLink(part, FRONT, means.node, means.in_force, stop)) as link:

        @contextlib.asynccontextmanager
        async def beside(calls: DevicesContext) -> AsyncIterator[None]:
            reporting = link.reporting(metrics, lambda: {"unready": calls.unready()})
            async with tasks.running(report=tasks.every(REPORT_S, reporting)):
                yield

        shards = StaticShards(number, means.settings.workers)
        process = PushProcess(means, metrics, link.newer_keys)
        await process.run(part.listeners["--listen"], stop, store, shards, beside)


async def _run_front(part: WorkerSpec, means: PushContext, names: Sequence[str]) -> None:
    stop, in_force, ending = Stop(), means.in_force, asyncio.Event()

    def unready() -> list[str]:
        return ["draining"] * ending.is_set() + tasks.unready() + link.reports.unready()

    with contextlib.closing(FrontLink(part, names, means.node, in_force, stop, ending.set)) as link:
        metrics = Metrics(link.exports)
        watch_tasks(metrics)
        if link.source is not None:
            metrics.watch(link.source.metrics)
        metrics.watch(lambda: comparable(in_force))
        metrics.watch(lambda: _metrics_of(link.reports))
        metrics.watch(lambda: [gauge("push_ready", "1 if /readyz says 200", not unready())])
        async with tasks.running(**link.upkeep()), serving_metrics(unready, metrics, part.listeners.get("--metrics")):
            await stop.asked.wait()
            ending.set()


def _metrics_of(reports: Reports) -> Iterator[Metric]:
    yield gauge("push_processes_missing", "Processes that wake phones and do not report", len(reports.missing()))
    yield counter("push_restarts", "Processes that woke phones, died and were replaced", reports.restarts)
