"""`readers`: how many stream processes can follow one log in Redis.

Two objects stand for each stream process: a log (`geocast.alertlog.redis_streams`), which writes a heartbeat once a
second, and a reader, which sends the same command as the process would (XREAD with COUNT and BLOCK, on a connection of
its own). Alerts are appended through the logs in turn, at a steady rate and durably (`appendfsync always`).

With replicas, the readers are divided among the replicas, as with `--log-follow`, and each of them asks its replica
after each read whether it is fit (INFO), as the process would. Heartbeats and appends go to the primary.

Measures the CPU of the primary without appends. Then, at each rate of appends, measures the CPU of the primary and of
the replicas, the bytes that the primary sends, and the time from when an append was due until it was answered and until
each reader had it.

Leaves out: what a process does with an entry (see `fanout`), the heartbeats of more than 100 processes, and a network.
The readers are plain sockets in one process, which parses the answers with hiredis. If each reader were a process, the
clients' cores would be the limit.
"""

import asyncio
import selectors
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice, product
from multiprocessing.connection import Connection
from typing import Any

import hiredis

from bench import processes, screen, stats
from bench.peers.base import alert_id
from bench.places import CENTRE
from bench.results import Result, Table, number
from bench.runs import Bench, Place
from geocast.alertlog import BATCH, HEARTBEAT_S
from geocast.alertlog.redis_streams import RedisStreamsLog
from geocast.model.alert import AcceptedTerms, Alert, Approval, Circle, Revision

PATIENCE_S = 30.0
STREAM = b"{geocast}:stream"
LIFETIME_MS = 3_600_000
MOST_LOGS = 100  # each log writes heartbeats, and one process has all of them


# ---- the process that appends alerts -------------------------------------------------------------------------------


def _alert(at: int) -> Revision:
    now_ms = time.time_ns() // 1_000_000
    approval = Approval("desk-7", now_ms)
    area = (Circle(*CENTRE, 1_000.0),)
    text = "Keep windows and doors closed and stay away from the smoke. " * 3
    alert = Alert(alert_id(at), "fire_structure", "Building on fire. Stay away.", text, "severe", "test", now_ms,
                  now_ms + LIFETIME_MS, area, approval)  # fmt: skip
    return Revision(alert, 1, "desk", now_ms, AcceptedTerms("Structure fire", LIFETIME_MS, 9))


def _append(url: str, count: int, pipe: Connection) -> None:
    """Run `count` logs with heartbeats, and append alerts when a request comes from the pipe.

    A request is a tuple (number of the first alert, alerts per second, seconds). The reply is a list with the two times
    (due, answered) of each alert, in ns.
    """
    asyncio.run(_append_on(url, count, pipe))


async def _append_on(url: str, count: int, pipe: Connection) -> None:
    logs = [RedisStreamsLog(url) for _ in range(count)]
    for log in logs:
        await log.start()
    pipe.send(None)
    turn = cycle(logs)

    async def one(at: int, due_ns: int) -> tuple[int, int]:
        await next(turn).append(_alert(at))
        return due_ns, time.monotonic_ns()

    while (order := await asyncio.to_thread(pipe.recv)) is not None:
        first, rate, seconds = order
        start_ns = time.monotonic_ns()
        under_way = []
        for at in range(int(rate * seconds)):
            due_ns = start_ns + int(at / rate * 1e9)
            await asyncio.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
            under_way.append(asyncio.create_task(one(first + at, due_ns)))
        await asyncio.sleep(max(0.0, seconds - (time.monotonic_ns() - start_ns) / 1e9))
        pipe.send(await asyncio.gather(*under_way))
    for log in logs:
        await log.stop()


@contextmanager
def _appender(url: str, count: int) -> Iterator[Connection]:
    with processes.beside(_append, url, count) as pipe:
        pipe.recv()
        yield pipe
        pipe.send(None)


# ---- the readers and their Redis -----------------------------------------------------------------------------------


class _Reader:
    """A connection that reads the log's stream in Redis, beginning after the last entry at the time of connecting."""

    def __init__(self, redis: "_Redis") -> None:
        self.socket = socket.create_connection(("127.0.0.1", redis.port))
        self._check = hiredis.pack_command(("INFO", "replication", "persistence")) if redis.is_replica else b""  # type: ignore[arg-type]
        self.got: list[tuple[bytes, int]] = []  # (id of the alert, time in ns)
        self._parser = hiredis.Reader()
        self._ask(b"$")

    def _ask(self, place: bytes) -> None:
        command = ("XREAD", "COUNT", BATCH, "BLOCK", int(HEARTBEAT_S * 1000), "STREAMS", STREAM, place)
        self._place = place
        self.socket.sendall(hiredis.pack_command(command) + self._check)  # type: ignore[arg-type]  # its stub wants one part

    def take(self) -> None:
        """Read the answers that have come from Redis, and send the next XREAD after each."""
        self._parser.feed(self.socket.recv(1 << 20))
        while (answer := self._parser.gets()) is not False:
            now_ns = time.monotonic_ns()
            if isinstance(answer, bytes):
                continue  # of INFO, which follows each XREAD
            for place, fields in answer[0][1] if answer else ():
                self._place = place
                if fields[4] == b"i":  # an alert, not a heartbeat: append.lua writes its id as the third field
                    self.got.append((fields[5], now_ns))
            self._ask(self._place)


class _Redis:
    """A redis-server on the server's CPU core, which syncs each write to disk before it answers."""

    def __init__(self, stack: ExitStack, place: Place, replica_of: "_Redis | None" = None) -> None:
        [self.port] = processes.free_ports(1)
        program = processes.find_program("redis-server")
        home = place.home / f"redis-{self.port}"
        home.mkdir()
        options = ["--port", str(self.port), "--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        self.is_replica = replica_of is not None
        if replica_of is not None:
            options += ["--replicaof", f"127.0.0.1 {replica_of.port}", "--repl-diskless-sync-delay", "0"]
        self._process = processes.start([program, *options], place.cores.server, home / "redis.txt", cwd=home)
        stack.callback(processes.stop, self._process, signal.SIGKILL)  # a new replica does not stop when it is asked
        processes.wait_until(lambda: processes.listens(self.port), "redis-server listens")
        self._socket = stack.enter_context(socket.create_connection(("127.0.0.1", self.port)))
        self._parser = hiredis.Reader()

    def wait_until_synced(self) -> None:
        """Wait until this replica has all data of the primary."""
        if self.is_replica:
            processes.wait_until(lambda: b"link_status:up" in self._info("replication"), "the replica is in sync")

    @property
    def url(self) -> str:
        """The URL of this Redis, as it is given to the option `--log`."""
        return f"redis://127.0.0.1:{self.port}"

    def spent(self) -> tuple[float, float, int]:
        """Return the current time, and the CPU seconds used and the bytes sent by this Redis so far."""
        sent = int(self._info("stats").split(b"total_net_output_bytes:")[1].split()[0])
        return time.monotonic(), processes.cpu_s([self._process.pid]), sent

    def _info(self, section: str) -> bytes:
        self._socket.sendall(hiredis.pack_command(("INFO", section)))  # type: ignore[arg-type]  # its stub wants one part
        while (answer := self._parser.gets()) is False:
            self._parser.feed(self._socket.recv(1 << 16))
        return bytes(answer)


# ---- the measurement -----------------------------------------------------------------------------------------------


def measure(
    place: Place, readers: tuple[int, ...], rates: tuple[int, ...], replicas: tuple[int, ...], seconds: float
) -> dict[str, Any]:
    """Start a primary for each number of readers and of replicas. Measure it without appends, then at each rate."""
    found = []
    with screen.progress("stretches", len(readers) * len(replicas) * (1 + len(rates))) as show:
        for count, copies in product(readers, replicas):
            with ExitStack() as stack:
                primary = _Redis(stack, place)
                servers = [primary, *(_Redis(stack, place, primary) for _ in range(copies))]
                for server in servers:
                    server.wait_until_synced()
                pipe = stack.enter_context(_appender(primary.url, min(count, MOST_LOGS)))
                crowd = [_Reader(server) for server in islice(cycle(servers[1:] or servers), count)]
                for reader in crowd:
                    stack.callback(reader.socket.close)
                first = 0
                for rate in (0, *rates):
                    found.append(_stretch(servers, crowd, pipe, (first, rate, seconds)))
                    first += int(rate * seconds)
                    show(len(found))
    return {"stretches": found}


def _stretch(
    servers: list[_Redis], readers: list[_Reader], pipe: Connection, order: tuple[int, int, float]
) -> dict[str, Any]:
    first, rate, seconds = order
    for reader in readers:
        reader.got.clear()
    (started, cpu_before, bytes_before), *before = [server.spent() for server in servers]
    pipe.send(order)
    times = _read_all(readers, pipe, int(rate * seconds))
    (ended, cpu_after, bytes_after), *after = [server.spent() for server in servers]
    elapsed_s, cpu_s = ended - started, cpu_after - cpu_before
    due_ns = {alert_id(first + count).encode(): due for count, (due, _) in enumerate(times)}
    read_ms = [(when - due_ns[name]) / 1e6 for reader in readers for name, when in reader.got]
    return {
        "readers": len(readers),
        "replicas": len(before),
        "logs": min(len(readers), MOST_LOGS),
        "replicas_cpu_share": sum(b[1] - a[1] for a, b in zip(before, after, strict=True)) / elapsed_s,
        "rate": rate,
        "cpu_share": cpu_s / elapsed_s,
        "cpu_us_per_append": cpu_s / len(times) * 1e6 if times else None,
        "bytes_per_s": (bytes_after - bytes_before) / elapsed_s,
        "appended_ms": stats.summary([(answered - due) / 1e6 for due, answered in times]),
        "read_ms": stats.summary(read_ms),
        "missing": len(times) * len(readers) - len(read_ms),
    }


def _read_all(readers: list[_Reader], pipe: Connection, expected: int) -> list[tuple[int, int]]:
    """Read until the process that appends is done and every reader has every entry.

    Return, in ns, when each append was due and when it was answered.
    """
    times: list[tuple[int, int]] | None = None
    deadline = None
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        for reader in readers:
            selector.register(reader.socket, selectors.EVENT_READ, reader)
        while times is None or any(len(reader.got) < expected for reader in readers):
            for key, _ in selector.select(1.0):
                if key.data:
                    key.data.take()
                else:
                    times, deadline = pipe.recv(), time.monotonic() + PATIENCE_S
            if deadline is not None and time.monotonic() > deadline:
                break
    return times or []


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each combination of a number of readers and a rate."""
    rows = [
        [
            str(it["readers"]),
            str(it["replicas"]),
            str(it["rate"]),
            f"{it['cpu_share']:.1%}",
            f"{it['replicas_cpu_share']:.1%}" if it["replicas"] else "–",
            number(it["cpu_us_per_append"]),
            number(it["bytes_per_s"] / 1e6),
            *(
                number(it[of][key]) if it["rate"] else "–"
                for of in ("appended_ms", "read_ms")
                for key in ("p50", "p99")
            ),
            f"{it['missing']:,}",
        ]
        for it in result.found["stretches"]
    ]
    columns = (
        *("readers", "replicas", "appends/s", "CPU of the primary", "of all replicas", "µs/append", "MB/s out"),
        *("answered p50 ms", "p99 ms", "read p50 ms", "p99 ms", "missing"),
    )
    return Table("readers: processes that follow one log in Redis, appendfsync always", columns, rows)


def plot(result: Result, figure: Any) -> None:
    """Plot the CPU of Redis and the latency over the rate of appends, one line for each number of readers."""
    cpu, latency = figure.subplots(1, 2)
    loaded = [it for it in result.found["stretches"] if it["rate"]]
    lines = dict.fromkeys((it["replicas"], it["rate"]) for it in loaded)
    for replicas, rate in lines:
        own = [it for it in loaded if (it["replicas"], it["rate"]) == (replicas, rate)]
        counts, label = [it["readers"] for it in own], f"{replicas} replicas, {rate}/s"
        cpu.plot(counts, [it["cpu_share"] * 100 for it in own], "o-", label=label)
        latency.plot(counts, [it["read_ms"]["p99"] for it in own], "o-", label=label)
    cpu.set(xlabel="readers", ylabel="CPU of the primary, % of a core", ylim=(0, None))
    latency.set(xlabel="readers", ylabel="append → read, p99, ms", ylim=(0, None))
    cpu.legend(fontsize="small")
    figure.suptitle(table(result).title)


BENCH = Bench(
    "readers",
    "how many processes can follow one log in Redis.",
    measure,
    table,
    plot,
    {"readers": (50,), "rates": (10, 100), "replicas": (0, 2), "seconds": 3.0},
)
