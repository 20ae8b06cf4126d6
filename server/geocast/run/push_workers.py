"""`geocast push` in several processes, with its devices in one SQLite file (`--workers N`).

    supervisor ── reads all files, opens all sockets, locks the devices, starts the others and replaces them
       ├── front   answers /metrics and /readyz for all, and fetches the keys if they are at a URL
       └── push    × N: every Nth shard, and the same listener by SO_REUSEPORT

The rules of workers.py apply, except those about appending. So a worker that dies is replaced at once, and its
replacement sends its devices what they lack (WPO3). The workers keep the lock of the devices open too, so that no other
supervisor can start while one of them lives.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import msgpack
from prometheus_client.core import Metric

from ..auth.jwks_refresh import NewerKeys
from ..config import KeyUrl
from ..metrics import Metrics, counter, export, gauge
from ..push.devicestore.sqlite import SqliteDevices, locked
from ..push.routes import DevicesContext
from ..push.shards import StaticShards
from ..stream.server import background
from .channel import Channel
from .key_source import source_of
from .node import Stop, open_log, opened_log
from .push import PushContext, PushProcess, comparable, serving_metrics
from .supervising import (
    ASK,
    FETCH,
    LOOK,
    REPORT_S,
    SETTLED,
    Reports,
    Run,
    WorkerSpec,
    check,
    keep_alive,
    leave_fetched,
    looker,
)

FRONT = "front"


def supervise(means: PushContext, listeners: Sequence[socket.socket], metrics: socket.socket | None, run: Run) -> None:
    """Run all processes until told to stop. Raise ConfigError before any is started."""
    path = Path(means.settings.devices.partition(":")[2])
    names = [f"push-{number}" for number in range(len(listeners))]
    open_log(means.node)  # imports the backend once, before the forks
    with locked(path) as lock:
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
    async with opened_log(means.node):
        pass


async def _run_push(part: WorkerSpec, means: PushContext, store: SqliteDevices, number: int) -> None:
    stop, metrics, in_force = Stop(), Metrics(), means.in_force
    newer = NewerKeys(lambda: channel.send(FRONT, ASK)) if isinstance(means.settings.keys, KeyUrl) else None
    if newer is not None:
        in_force.watch(newer.settle)
    look = looker(part, in_force, stop)

    def received(nudge: bytes) -> None:
        if nudge == LOOK:
            look()
        elif nudge == SETTLED and newer is not None:
            newer.settle()

    async def report(unready: Callable[[], list[str]]) -> None:
        while True:
            look()
            told = {"name": part.name, "pid": os.getpid(), "unready": unready()}
            channel.send(FRONT, msgpack.packb(told | {"metrics": export(metrics.registry)}))
            await asyncio.sleep(REPORT_S)

    @contextlib.asynccontextmanager
    async def beside(calls: DevicesContext) -> AsyncIterator[None]:
        async with background(report(calls.unready)):
            yield

    with contextlib.closing(Channel(part.folder, part.name, received)) as channel:
        shards = StaticShards(number, means.settings.workers)
        process = PushProcess(means, metrics, newer)
        await process.run(part.listeners["--listen"], stop, store, shards, beside)


async def _run_front(part: WorkerSpec, means: PushContext, names: Sequence[str]) -> None:
    stop, in_force, is_draining = Stop(), means.in_force, False
    reports = Reports(names)
    metrics = Metrics(reports.exports)
    look = looker(part, in_force, stop)

    def settled() -> None:
        for name in names:
            channel.send(name, SETTLED)

    def received(data: bytes) -> None:
        nonlocal is_draining
        if data == LOOK:
            look()
        elif data in (ASK, FETCH):
            if source is not None:
                source.ask() if data == ASK else source.fetch_now()
        elif data:
            reports.take(data)
        else:  # an empty datagram of the supervisor: all processes are about to end
            is_draining = True

    async def look_for_ever() -> None:
        while True:
            look()
            await asyncio.sleep(REPORT_S)

    def unready() -> list[str]:
        return ["draining"] * is_draining + reports.unready()

    source = source_of(means.node, in_force, lambda keys: leave_fetched(part, keys), settled)
    if source is not None:
        in_force.watch(source.newer.settle)
        metrics.watch(source.metrics)
    metrics.watch(lambda: comparable(in_force))
    metrics.watch(lambda: _metrics_of(reports))
    metrics.watch(lambda: [gauge("push_ready", "1 if /readyz says 200", not unready())])
    with contextlib.closing(Channel(part.folder, part.name, received)) as channel:
        fetching = [] if source is None else [source.run()]
        async with (
            background(look_for_ever(), *fetching),
            serving_metrics(unready, metrics, part.listeners.get("--metrics")),
        ):
            await stop.asked.wait()
            is_draining = True


def _metrics_of(reports: Reports) -> Iterator[Metric]:
    yield gauge("push_processes_missing", "Processes that wake phones and do not report", len(reports.missing()))
    yield counter("push_restarts", "Processes that woke phones, died and were replaced", reports.restarts)
