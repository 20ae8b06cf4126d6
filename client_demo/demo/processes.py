"""The processes of the demo: a node, and the crowd that listens to it. Both run in sessions of their own, so that a
Ctrl-C reaches the demo alone, and the demo ends them in order.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import httpx

from .crowd import MAX_LINE

START_S = 20.0
DRAIN_S = 5.0
POLL_S = 0.05
_JWT = re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]+")


class ProcessError(Exception):
    """A process could not be started, or ended too early. The text is one line for a person."""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


class Node:
    """`geocast serve --dev` on loopback, with its log in `folder`. `tell` gets what it prints."""

    def __init__(self, folder: Path) -> None:
        stream, api, feed = free_ports(3)
        self.stream_url = f"ws://127.0.0.1:{stream}/v1/stream"
        self.api_url = f"http://127.0.0.1:{api}"
        self.feed_url = f"http://127.0.0.1:{feed}"
        self.token = ""
        self._arguments = (
            *("serve", "--dev", "--stream", f"127.0.0.1:{stream}", "--api", f"127.0.0.1:{api}"),
            *("--feed", f"127.0.0.1:{feed}", "--feed-url", self.feed_url, "--feed-sender", "desk@demo.example"),
            *("--log", f"sqlite:{folder / 'geocast.db'}"),
        )
        self._printed: deque[str] = deque(maxlen=20)
        self._token_seen = asyncio.Event()

    async def start(self) -> None:
        """Start it and wait until it is ready. Raises ProcessError."""
        command = Path(sys.executable).with_name("geocast")
        if not command.exists():
            raise ProcessError(f"there is no {command}: `make install` makes it")
        self._process = await asyncio.create_subprocess_exec(
            command,
            *self._arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            # Settings of a node of the user's own must not reach this one.
            env={key: value for key, value in os.environ.items() if not key.startswith("GEOCAST_")}
            | {"PYTHONUNBUFFERED": "1"},
        )
        self._reader = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(START_S):
                await self._ready()
        except TimeoutError:
            raise ProcessError(f"the node was not ready after {START_S:g} s: {self._last_words()}") from None

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            text = line.decode(errors="replace").rstrip()
            self._printed.append(_JWT.sub("…", text))
            if not self.token and (found := _JWT.search(text)):
                self.token = found[0]
                self._token_seen.set()
        self._token_seen.set()  # nothing more will come

    async def _ready(self) -> None:
        await self._token_seen.wait()
        async with httpx.AsyncClient(base_url=self.api_url, trust_env=False) as http:
            while self._process.returncode is None:
                with contextlib.suppress(httpx.TransportError):
                    if (await http.get("/readyz")).status_code == 200:
                        break
                await asyncio.sleep(POLL_S)
        if not self.token or self._process.returncode is not None:
            raise ProcessError(f"the node did not start: {self._last_words()}")

    def _last_words(self) -> str:
        return " / ".join([line for line in self._printed if line][-3:]) or "it printed nothing"

    async def watch(self) -> None:
        """Wait until it ends; raises ProcessError then, for nobody has told it to."""
        await self._process.wait()
        raise ProcessError(f"the node ended with status {self._process.returncode}: {self._last_words()}")

    async def stop(self) -> None:
        """Drain it."""
        if hasattr(self, "_process"):
            await _end(self._process)
            await self._reader


class CrowdProcess:
    """A child that plays some of the subscribers; see `crowd` for the commands."""

    async def start(self) -> None:
        """Start it; it waits for commands."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "client_demo.demo.crowd"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
            limit=MAX_LINE,
        )

    async def do(self, command: str, told: Callable[[dict[str, Any]], None] | None = None, **fields: Any) -> Any:
        """Have a command carried out; its answer. `told` gets the lines that come before it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": command, "with": fields}).encode() + b"\n")
        with contextlib.suppress(ConnectionError):  # then it is dead, and there is no answer either
            await self._process.stdin.drain()
        while line := await self._process.stdout.readline():
            answer = cast(dict[str, Any], json.loads(line))
            if answer.get("done") == command:
                return answer
            if told is not None:
                told(answer)
        raise ProcessError("a process that plays subscribers has died")

    async def stop(self) -> None:
        """End it."""
        if hasattr(self, "_process"):
            await _end(self._process)


async def all_do(crowd: Sequence[CrowdProcess], command: str, **fields: Any) -> list[dict[str, Any]]:
    """Have all of them carry out the same command; their answers."""
    return list(await asyncio.gather(*(each.do(command, **fields) for each in crowd)))


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), DRAIN_S)
        except TimeoutError:
            process.kill()
    await process.wait()
