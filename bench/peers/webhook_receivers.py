"""Receivers of webhooks that take every event, and use little CPU, so that they don't slow down the measured process.

They keep connections open and answer 204 to each POST. They record when each event came, at which receiver and about
which alert, and verify nothing, because the tests do that. A receiver can be made to hang: it then accepts requests and
answers none.
"""

import asyncio
import functools
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import click
import uvloop

from bench import processes

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_ALERT = re.compile(rb'"id":"([^"]+)"')
_TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"


class TakenWebhook(NamedTuple):
    """A webhook that a receiver was sent. `when_ns` is a time of the monotonic clock, the same in all processes."""

    when_ns: int
    receiver: int
    alert: str


class WebhookReceivers:
    """The receivers, which run in a process of their own, and the pipe to that process."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.ports: list[int] = pipe.recv()

    def count(self) -> int:
        """Return the number of webhooks that were sent to receivers that work."""
        return int(self._ask("count"))

    def take(self) -> list[TakenWebhook]:
        """Return all webhooks, in the order in which they came."""
        return [TakenWebhook(*each) for each in self._ask("take")]

    def end(self) -> None:
        """End the process of the receivers."""
        self._pipe.send("end")

    def _ask(self, word: str) -> Any:
        self._pipe.send(word)
        if not self._pipe.poll(processes.PATIENCE_S):
            raise click.ClickException("the receivers of the benchmark do not answer")
        return self._pipe.recv()


@contextmanager
def webhook_receivers(number: int, hanging: int) -> Iterator[WebhookReceivers]:
    """Run receivers on the cores of this process. The last `hanging` of them hang."""
    with processes.beside(_serve, number, hanging) as pipe:
        receivers = WebhookReceivers(pipe)
        yield receivers
        receivers.end()


# ---- code that runs in the process of the receivers ----------------------------------------------------------------


def _serve(number: int, hanging: int, pipe: Connection) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_answer(number, hanging, pipe))


async def _answer(number: int, hanging: int, pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    taken: list[tuple[int, int, str]] = []
    servers = [
        await loop.create_server(
            functools.partial(_Receiving, at, taken, hangs=at >= number - hanging), "127.0.0.1", 0, backlog=1_024
        )
        for at in range(number)
    ]
    pipe.send([server.sockets[0].getsockname()[1] for server in servers])

    def hear() -> None:
        while (word := pipe.recv()) != "end":
            pipe.send(len(taken) if word == "count" else taken.copy())

    await asyncio.to_thread(hear)


class _Receiving(asyncio.Protocol):
    """A connection to one of the receivers."""

    def __init__(self, number: int, taken: list[tuple[int, int, str]], *, hangs: bool) -> None:
        self._number, self._taken, self._hangs = number, taken, hangs
        self._data = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(_END)) >= 0:
            length = _LENGTH.search(self._data[:end])
            if length is None:
                self._transport.abort()
                return
            whole = end + len(_END) + int(length[1])
            if len(self._data) < whole:
                return
            body, self._data = self._data[end:whole], self._data[whole:]
            alert = _ALERT.search(body)
            if not self._hangs and alert is not None:
                self._taken.append((time.monotonic_ns(), self._number, alert[1].decode()))
                self._transport.write(_TAKEN)
