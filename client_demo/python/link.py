"""One WebSocket connection of a client: its queue of messages, the requests that wait for answers, and its pings.

The connection does not look at alerts: it passes messages to the function `take`. When it ends, it raises
ConnectionClosed of the library websockets, or TimeoutError if the server has gone silent.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from websockets.asyncio.client import ClientConnection

from .wire import Message, Wire

log = logging.getLogger("client_demo")

WELCOME_S = 10.0
PONG_S = 10.0  # dead if silent for 10 s after our ping (protocol, "Close codes")
MESSAGES_PER_S, BURST = 8.0, 200  # below the server's 10 and 300, which also count our answers to its pings


class ClientError(Exception):
    """Raised if reconnecting makes no sense, or a request was refused. The text is one line for the user."""


class RequestRefused(ClientError):  # noqa: N818 (an answer, not a fault of ours)
    """Raised if the server has answered a `move`, `filter`, `token` or `try` with an `error`.

    No part of the message was applied. `retry_after_s` is the number of seconds to wait before the next `try`; 0 if the
    server has named none.
    """

    def __init__(self, code: str, detail: str, retry_after_s: int = 0) -> None:
        super().__init__(f"the server refuses this: {detail} ({code})")
        self.code = code
        self.retry_after_s = retry_after_s


class Pace:
    """Limits how fast messages are sent, by a token bucket.

    Each message takes one token. If no tokens are left, the message has to wait. Times are in seconds, from any clock.
    """

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s, self._burst = per_s, burst
        self._left, self._at = float(burst), 0.0

    def wait_s(self, now: float) -> float:
        """Take one token for a message, and return how long the message has to wait, in seconds."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s) - 1
        self._at = now
        return max(0.0, -self._left / self._per_s)


class Link:
    """One WebSocket connection to the server, from the `hello` to its end."""

    def __init__(
        self,
        socket: ClientConnection,
        wire: Wire,
        take: Callable[[Message], None],
        drop: Callable[[str], None],
        pong_s: float,
    ) -> None:
        """Make the connection of a socket. `drop` is called with the words for each frame that is dropped."""
        self._socket, self._wire, self._take, self._drop, self._pong_s = socket, wire, take, drop, pong_s
        self._urgent: deque[Message] = deque()
        self._later: deque[Message] = deque()
        self._waiting, self._is_quiet = asyncio.Event(), asyncio.Event()
        self._is_quiet.set()
        self._asked: dict[int, asyncio.Future[None]] = {}
        self._refs = 0
        self._pace = Pace(MESSAGES_PER_S, BURST)

    async def greet(self, hello: Message) -> Message:
        """Send the `hello`, and return the server's `welcome`. Messages before it are dropped.

        Raise TimeoutError if there is none in time.
        """
        await self._send(hello)
        async with asyncio.timeout(WELCOME_S):
            while True:
                message = self._read(await self._socket.recv())
                if message is not None and message["type"] == "welcome":
                    return message
                if message is not None:
                    self._drop("a message before the welcome")

    async def talk(self, heartbeat_s: float) -> None:
        """Send the queued messages, and pass on the received ones, until the connection ends."""
        await first_to_end(self._listen(heartbeat_s), self._speak())

    def say(self, message: Message) -> None:
        """Queue a message before all messages that were queued by `say_later`."""
        self._urgent.append(message)
        self._wake()

    def say_later(self, message: Message) -> None:
        """Queue a message behind all others.

        This is for messages that come in large numbers, such as acknowledgements.
        """
        self._later.append(message)
        self._wake()

    def _wake(self) -> None:
        self._is_quiet.clear()
        self._waiting.set()

    async def said_all(self) -> None:
        """Wait until all queued messages are sent."""
        await self._is_quiet.wait()

    async def ask(self, message: Message) -> None:
        """Send a request, and wait for its `ok`, or for the end of the connection.

        Raise RequestRefused if the server answers with an `error`.
        """
        self._refs += 1
        ref = self._refs
        answer = self._asked[ref] = asyncio.get_running_loop().create_future()
        self.say({**message, "ref": ref})
        try:
            await answer
        finally:
            del self._asked[ref]

    def abort(self) -> None:
        """Drop the connection without a close frame."""
        self._socket.transport.abort()

    def let_go(self) -> None:
        """Make all requests that wait for an answer return, because the connection has ended.

        They need no answer any more: the next `hello` has their content.
        """
        for answer in self._asked.values():
            if not answer.done():
                answer.set_result(None)

    # ---- sending and receiving -----------------------------------------------------------------------------

    async def _send(self, message: Message) -> None:
        await asyncio.sleep(self._pace.wait_s(asyncio.get_running_loop().time()))
        await self._socket.send(self._wire.encode(message))

    async def _speak(self) -> None:
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            while self._urgent or self._later:
                await self._send((self._urgent or self._later).popleft())
            self._is_quiet.set()

    async def _listen(self, heartbeat_s: float) -> None:
        while True:
            message = self._read(await self._receive(heartbeat_s))
            if message is not None and not self._answers(message):
                self._take(message)

    async def _receive(self, heartbeat_s: float) -> str | bytes:
        """Return the next frame.

        If none arrives for `heartbeat_s` seconds, send a ping, and wait for `pong_s` more seconds. Raise TimeoutError
        if still none arrives.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(heartbeat_s):
                return await self._socket.recv()
        self.say({"type": "ping"})
        async with asyncio.timeout(self._pong_s):
            return await self._socket.recv()

    def _read(self, frame: str | bytes) -> Message | None:
        """Return the message in a frame.

        If the frame has no valid message, report this and return None.
        """
        try:
            return self._wire.read(frame)
        except ValueError as error:
            self._drop(f"a frame without a valid message ({error})")
            return None

    def _answers(self, message: Message) -> bool:
        """Pass an `ok` or `error` to the request that waits for it. Return whether there was such a request."""
        ref = message.get("ref")
        answer = self._asked.get(ref) if isinstance(ref, int) else None
        if message["type"] not in ("ok", "error") or answer is None or answer.done():
            return False
        if message["type"] == "ok":
            answer.set_result(None)
        else:
            wait_s = message.get("retry_after_s")
            wait_s = wait_s if isinstance(wait_s, int) and wait_s > 0 else 0
            answer.set_exception(RequestRefused(str(message.get("code", "")), str(message.get("detail", "")), wait_s))
        return True


async def first_to_end(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Run coroutines concurrently until one of them ends, and cancel the others.

    If the coroutine that ended first raised an error, raise this error.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if task in done:
            task.result()
