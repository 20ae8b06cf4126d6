"""A hostile relay that changes, drops and invents messages between a node and its clients.

    with Relay(node.stream_port) as relay:
        relay.tamper = lambda message, before: [message]   # returns the messages that clients get instead
        client = Client(relay.url, …)
        relay.say(message)                                 # an invented message

The relay has its own thread and event loop. Messages from clients reach the node unchanged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable
from typing import Any

from end_to_end.kit.alerts import Json
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

Tamper = Callable[[Json, list[Json]], list[Json]]


def faithful(message: Json, _before: list[Json]) -> list[Json]:
    """Pass the message on unchanged."""
    return [message]


class Relay:
    """A relay in front of one node, for JSON streams.

    `tamper` gets a message, and all alerts and cancels before it.
    """

    def __init__(self, port: int) -> None:
        self.tamper: Tamper = faithful
        self.heard: list[Json] = []  # alerts and cancels from the node
        self._port = port
        self._clients: set[ServerConnection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Relay:
        self._thread.start()
        self._server = self._do(self._serve())
        return self

    def __exit__(self, *exc: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1/stream"

    def say(self, *messages: Json) -> None:
        """Send these messages to all clients."""

        async def send() -> None:
            for client in self._clients:
                for message in messages:
                    await client.send(json.dumps(message))

        self._do(send())

    async def _serve(self) -> Any:
        return await serve(self._relay, "127.0.0.1", 0, select_subprotocol=lambda _, offered: offered[0])

    async def _close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _relay(self, client: ServerConnection) -> None:
        url = f"ws://127.0.0.1:{self._port}/v1/stream"
        protocols = [Subprotocol(str(client.subprotocol))]
        async with connect(url, subprotocols=protocols, compression=None, proxy=None) as node:
            self._clients.add(client)
            up = asyncio.ensure_future(self._up(client, node))
            try:
                await self._down(client, node)
            except ConnectionClosed:
                pass
            finally:
                up.cancel()
                self._clients.discard(client)

    async def _up(self, client: Any, node: Any) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for frame in client:
                await node.send(frame)
        await node.close()

    async def _down(self, client: Any, node: Any) -> None:
        async for frame in node:
            message = json.loads(frame)
            if message["type"] not in ("alert", "cancel"):
                await client.send(frame)
                continue
            sent = self.tamper(message, list(self.heard))
            self.heard.append(message)
            for each in sent:
                await client.send(json.dumps(each))
