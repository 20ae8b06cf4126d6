"""The command `geocast push` in several processes, with its devices in one SQLite file (`--workers N`).

    supervisor ── reads all files, opens all sockets, locks the devices, starts the others and replaces them
       ├── front   answers /metrics and /readyz for all, and fetches the keys if they are at a URL
       └── push    × N: each serves every Nth shard of the devices; all listen on one address (SO_REUSEPORT)

The rules of `workers.py` apply, except those about appending to the log. So a worker that dies is replaced at once, and
its replacement sends the devices what they lack (WPO3). The supervisor locks the devices by a lock on a file, and the
workers keep this file open too. So no other supervisor can start while one of the workers is running.
"""

import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from prometheus_client.core import Metric

from .. import tasks
from ..metrics import counter, gauge
from ..push.devicestore.sqlite import SqliteDevices, lock_devices
from ..push.shards import StaticShards
from .backends import open_log, opened_log
from .links import FrontLink, WorkerLink
from .process import Process
from .push import PushContext, comparable, push_part
from .supervising import REPORT_S, Reports, Run, WorkerSpec, check, keep_alive

FRONT = "front"


def supervise(means: PushContext, listeners: Sequence[socket.socket], metrics: socket.socket | None, run: Run) -> None:
    """Start the processes of `geocast push` and keep them running until SIGTERM or SIGINT.

    Raise ConfigError, before any process is started, if the settings can't be used.
    """
    path = Path(means.settings.devices.partition(":")[2])
    names = [f"push-{number}" for number in range(len(listeners))]
    open_log(means.settings)  # imports the backend once, before the forks
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
    async with opened_log(means.settings, makes=False):
        pass


async def _run_push(part: WorkerSpec, means: PushContext, store: SqliteDevices, number: int) -> None:
    async with Process(means.settings.drain_s) as process:
        link = await process.add(WorkerLink(part, FRONT, means.in_force, process))
        shards = StaticShards(number, means.settings.workers)
        pushing = await push_part(process, means, store, shards, link.newer_keys)
        await process.enter(pushing.serving(part.listeners["--listen"]))
        await process.enter(tasks.running(report=tasks.every(REPORT_S, link.reporting())))
        await pushing.until_ready()
        await process.until_stopped()


async def _run_front(part: WorkerSpec, means: PushContext, names: Sequence[str]) -> None:
    async with Process() as process:
        link = await process.add(FrontLink(part, names, means.in_force, process))
        process.metrics.watch(lambda: comparable(means.in_force))
        process.metrics.watch(lambda: _metrics_of(link.reports))
        process.metrics.watch(lambda: [gauge("push_ready", "1 if /readyz says 200", not process.unready())])
        await process.serve_metrics(part.listeners.get("--metrics"))
        await process.until_stopped()


def _metrics_of(reports: Reports) -> Iterator[Metric]:
    yield gauge("push_processes_missing", "Processes that wake phones and do not report", len(reports.missing()))
    yield counter("push_restarts", "Processes that woke phones, died and were replaced", reports.restarts)
