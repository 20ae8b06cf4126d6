"""A TCP proxy that fails like a network, while it runs.

    with Proxy(redis_port) as proxy:
        node = Node(home, log=f"redis://127.0.0.1:{proxy.port}")
        proxy.down.stall()          # half-open: bytes from the server are accepted, but not delivered
        proxy.heal()

The two directions, `up` (to the server) and `down` (to the client), each have their own latency and stall. Stalled
bytes are delivered after the stall, as by TCP after a partition; `cut` discards them together with the connection. The
proxy has its own thread and event loop; every method may be called from any thread at any time.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any

from support.ports import free_ports

CHUNK = 65_536
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s


class Direction:
    """One direction through the proxy, with its delay and whether bytes flow."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.delay_s = 0.0
        self._loop = loop
        self.flowing = asyncio.Event()
        self.flowing.set()

    def stall(self) -> None:
        """Accept bytes, and deliver none until `flow`."""
        self._loop.call_soon_threadsafe(self.flowing.clear)

    def flow(self) -> None:
        """Deliver the waiting bytes and all later ones."""
        self._loop.call_soon_threadsafe(self.flowing.set)


class _Requests:
    """A parser that returns the names of commands in a stream of RESP requests as they become complete."""

    def __init__(self) -> None:
        self._buffer = b""

    def names(self, data: bytes) -> list[bytes]:
        self._buffer += data
        names: list[bytes] = []
        while (found := self._first()) is not None:
            name, size = found
            names.append(name)
            self._buffer = self._buffer[size:]
        return names

    def _first(self) -> tuple[bytes, int] | None:
        """Return the name and the size in bytes of the first request, or None while the request is incomplete."""
        try:
            at = self._buffer.index(b"\r\n") + 2
            parts = []
            for _ in range(int(self._buffer[1 : at - 2])):
                start = self._buffer.index(b"\r\n", at) + 2
                size = int(self._buffer[at + 1 : start - 2])
                parts.append(self._buffer[start : start + size])
                at = start + size + 2
        except ValueError:
            return None
        return (parts[0].upper(), at) if at <= len(self._buffer) else None


class _Connection:
    """A client's connection and the matching connection to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self.proxy, self.client = proxy, client
        self.server = socket.socket()
        self.requests = _Requests()
        self.sent: set[bytes] = set()  # names of commands
        self.mute = False  # whether bytes from the server are lost
        self.swallows = False  # whether the connection ends with RST instead of delivering the server's next bytes
        self.resets = False  # whether the connection ends with RST
        self.ending = False  # whether the cleanup is running, which must not be cancelled

    async def run(self) -> None:
        """Forward bytes until one side has ended and everything it sent is delivered."""
        tasks: list[asyncio.Task[None]] = []
        try:
            for each in (self.client, self.server):
                each.setblocking(False)
            await asyncio.get_running_loop().sock_connect(self.server, ("127.0.0.1", self.proxy.upstream))
            for source, target, way in (
                (self.client, self.server, self.proxy.up),
                (self.server, self.client, self.proxy.down),
            ):
                waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
                tasks.append(asyncio.ensure_future(self._accept(source, waiting, way)))
                tasks.append(asyncio.ensure_future(self._deliver(waiting, target, way)))
            await asyncio.wait(tasks[1::2], return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            self.resets = True
        finally:
            self.ending = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for each in (self.client, self.server):
                if self.resets:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                each.close()

    async def _accept(self, source: socket.socket, waiting: asyncio.Queue[tuple[float, bytes]], way: Direction) -> None:
        loop, data = asyncio.get_running_loop(), b"-"
        while data:
            try:
                data = await loop.sock_recv(source, CHUNK)
            except OSError:
                data = b""
            if way is self.proxy.up:
                self._watch(data)
                if self.sent & self.proxy.forbidden:
                    data, self.resets = b"", True
            elif self.swallows and data:
                data, self.resets = b"", True
                self.proxy.reply_lost.set()
            waiting.put_nowait((loop.time(), data))

    async def _deliver(
        self, waiting: asyncio.Queue[tuple[float, bytes]], target: socket.socket, way: Direction
    ) -> None:
        loop, data = asyncio.get_running_loop(), b"-"
        while data:
            arrived, data = await waiting.get()
            await asyncio.sleep(arrived + way.delay_s - loop.time())
            await way.flowing.wait()
            if not (self.mute and way is self.proxy.down):
                await loop.sock_sendall(target, data)

    def _watch(self, data: bytes) -> None:
        for name in self.requests.names(data):
            self.sent.add(name)
            if self.proxy.wants_to_lose(name):
                self.swallows = True


class Proxy:
    """The proxy; see the module.

    `upstream` is a port on loopback. It may be changed; new connections go to the new port.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream, self.port = upstream, free_ports(1)[0]
        self.reply_lost = threading.Event()
        self.forbidden: frozenset[bytes] = frozenset()
        self._names: frozenset[bytes] = frozenset()
        self._countdown = 0
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self._listener: socket.socket | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self.up, self.down = Direction(self._loop), Direction(self._loop)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self.accept()
        return self

    def __exit__(self, *exc: object) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- faults

    def slow(self, delay_s: float) -> None:
        """Delay all bytes in both directions."""
        self.up.delay_s = self.down.delay_s = delay_s

    def stall(self) -> None:
        """Make all connections half-open in both directions."""
        self.up.stall()
        self.down.stall()

    def cut(self) -> None:
        """End all connections with RST; new ones are accepted."""
        self._call(self._cut())

    def refuse(self) -> None:
        """Stop listening; existing connections stay."""
        self._call(self._refuse())

    def accept(self) -> None:
        """Listen on the same port as before."""
        self._call(self._accept())

    def sever(self) -> None:
        """Stop listening and end all connections, so that nothing passes until `heal`."""
        self.refuse()
        self.cut()

    def heal(self) -> None:
        """End all faults."""
        self.forbidden = frozenset()
        self.slow(0)
        self.up.flow()
        self.down.flow()
        self.accept()

    def lose_reply(self, *names: str, nth: int = 1) -> None:
        """Forward the n-th command with one of these names, and cut the connection instead of delivering its reply.

        This works for clients that wait for each reply before they send the next command.
        """
        self.reply_lost.clear()
        self._names, self._countdown = frozenset(name.upper().encode() for name in names), nth

    def mute(self, name: str) -> None:
        """Lose all later replies on the connections on which this command was sent; new connections work."""
        self._call(self._mute(name.upper().encode()))

    def forbid(self, *names: str) -> None:
        """Cut every connection that sends one of these commands, or sent one before and sends anything else now."""
        self.forbidden = frozenset(name.upper().encode() for name in names)

    def wants_to_lose(self, name: bytes) -> bool:
        """Return whether the reply to this command, which is on its way to the server, must be lost."""
        if self._countdown and name in self._names:
            self._countdown -= 1
            return self._countdown == 0
        return False

    # -- methods of the proxy's thread

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _accept(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self._listener.setblocking(False)
            self._loop.add_reader(self._listener, self._serve, self._listener)

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _serve(self, listener: socket.socket) -> None:
        connection = _Connection(self, listener.accept()[0])
        task = self._loop.create_task(connection.run())
        self._connections[task] = connection
        task.add_done_callback(self._connections.pop)

    async def _cut(self) -> None:
        await asyncio.sleep(0)  # let every task begin, so that it can clean up
        connections = dict(self._connections)
        for task, connection in connections.items():
            connection.resets = True
            if not connection.ending:
                task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _mute(self, name: bytes) -> None:
        for connection in self._connections.values():
            connection.mute |= name in connection.sent

    async def _stop(self) -> None:
        await self._refuse()
        await self._cut()
