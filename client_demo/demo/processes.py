"""The processes of the demo: a node, `geocast push`, `geocast relay`, and those that simulate the subscribers.

Each process runs in a POSIX session of its own. So Ctrl-C reaches only the demo, which ends the processes in order.
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
from .issuing import Issuer

START_S = 60.0
DRAIN_S = 5.0
POLL_S = 0.05
POLICY = Path(__file__).with_name("policy.toml")
DESK_SCOPES = ("alerts:publish", "alerts:manage", "alerts:audit", "alerts:receive", "alerts:test")
TOKEN_S = 365 * 86_400
SOURCES = '[sources.feeds]\napprover = "the issuer of the feed"\nsenders = ["met@demo.example"]\n'
SERVICES = "fcm.googleapis.com,*.push.services.mozilla.com,*.push.apple.com,*.notify.windows.com"  # of browsers
_JWT = re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]+")


class ProcessError(Exception):
    """Raised if a process could not be started, or ended too early. The text is one line for the user."""


def free_ports(count: int) -> list[int]:
    """Return `count` ports of 127.0.0.1 that are free at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


class Geocast:
    """A process of the demo that runs a `geocast` command.

    It works in `folder`, and is ready when `ready_url` answers with 200.
    """

    what = "geocast"  # the name in messages for people
    ready_url: str

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._command = Path(sys.executable).with_name("geocast")
        self._printed: deque[str] = deque(maxlen=20)

    async def _start(self, *arguments: str) -> None:
        """Start the process, and wait until it is ready.

        Raise ProcessError if it ends before it is ready, or takes too long.
        """
        self._process = await self._geocast(*arguments)
        self._reader = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(START_S):
                await self._ready()
        except TimeoutError:
            raise ProcessError(f"{self.what} was not ready after {START_S:g} s: {self._last_words()}") from None

    async def _geocast(self, *arguments: str) -> asyncio.subprocess.Process:
        if not self._command.exists():
            raise ProcessError(f"there is no {self._command}: `make install` creates it")
        return await asyncio.create_subprocess_exec(
            self._command,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            cwd=self._folder,
            # Environment variables with settings for the user's own node must not reach this process.
            env={key: value for key, value in os.environ.items() if not key.startswith("GEOCAST_")}
            | {"PYTHONUNBUFFERED": "1"},
        )

    async def _keygen(self, *options: str) -> None:
        process = await self._geocast("keygen", *options)
        printed, _ = await process.communicate()
        if process.returncode:
            raise ProcessError(f"the keys could not be created: {printed.decode(errors='replace').strip()}")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self._printed.append(_JWT.sub("…", line.decode(errors="replace").rstrip()))

    async def _ready(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            while self._process.returncode is None:
                with contextlib.suppress(httpx.TransportError):
                    if (await http.get(self.ready_url)).status_code == 200:
                        break
                await asyncio.sleep(POLL_S)
        if self._process.returncode is not None:
            raise ProcessError(f"{self.what} did not start: {self._last_words()}")

    def _last_words(self) -> str:
        return " / ".join([line for line in self._printed if line][-3:]) or "it printed nothing"

    async def watch(self) -> None:
        """Wait until the process ends, and raise ProcessError, because it should not end before `stop`."""
        await self._process.wait()
        raise ProcessError(f"{self.what} ended with status {self._process.returncode}: {self._last_words()}")

    async def stop(self) -> None:
        """Tell the process to end, and wait until it has ended."""
        if hasattr(self, "_process"):
            await _end(self._process)
            await self._reader


class Node(Geocast):
    """The process `geocast serve --dev`, which listens only on this machine.

    Its keys, its log and a policy with calls for help are in `folder`. `aeds` is a file of defibrillators, or None.
    `token` is for a review desk, `phone_token` for any subscriber, and `dispatch_token` for a dispatcher.
    """

    what = "the node"

    def __init__(self, folder: Path, aeds: Path | None = None) -> None:
        super().__init__(folder)
        stream, api, feed = free_ports(3)
        self.stream_url = f"ws://127.0.0.1:{stream}/v1/stream"
        self.api_url = f"http://127.0.0.1:{api}"
        self.feed_url = f"http://127.0.0.1:{feed}"
        self.ready_url = f"{self.api_url}/readyz"
        self.keys, self.log = folder / "keys.jwks", f"sqlite:{folder / 'geocast.db'}"
        self._arguments = (
            *("serve", "--dev", "--keys", str(self.keys), "--call-keys", str(folder / "call-keys.jwks")),
            *("--policy", str(POLICY), *(("--aeds", str(aeds)) if aeds else ())),
            *("--stream", f"127.0.0.1:{stream}", "--api", f"127.0.0.1:{api}"),
            *("--feed", f"127.0.0.1:{feed}", "--feed-url", self.feed_url, "--feed-sender", "desk@demo.example"),
            *("--log", self.log, "--cap-sources", str(folder / "sources.toml")),
        )
        (folder / "sources.toml").write_text(SOURCES, encoding="utf-8")

    async def start(self) -> None:
        """Make the keys, start the node, and wait until it is ready. Raise ProcessError if that fails."""
        await asyncio.gather(
            self._keygen("--quals", "cpr,medic", "--public", "keys.jwks", "--private", "private.jwk"),
            self._keygen("--call", "--private", "call-keys.jwks"),
        )
        self.issuer = Issuer(self._folder / "private.jwk")
        self.token = self.issuer.token("dev", DESK_SCOPES, TOKEN_S)
        self.phone_token = self.issuer.token("phone", ["alerts:receive"], TOKEN_S)
        self.dispatch_token = self.issuer.token("dispatch", ["calls:dispatch"], TOKEN_S)
        await self._start(*self._arguments)


class PushProcess(Geocast):
    """The process `geocast push` for a node.

    Devices register at `url`. The process may push to `service` (HOST:PORT), whose certificate is in the file `ca`, and
    also to the push services of browsers, for people who open the map.
    """

    what = "`geocast push`"

    def __init__(self, folder: Path, node: Node, service: str, ca: Path) -> None:
        super().__init__(folder)
        port, metrics = free_ports(2)
        self.url, self.ready_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics}/readyz"
        self._arguments = (
            *("push", "--listen", f"127.0.0.1:{port}", "--metrics", f"127.0.0.1:{metrics}"),
            *("--log", node.log, "--policy", str(POLICY), "--keys", str(node.keys), "--devices", "sqlite:devices.db"),
            *("--push-keys", "push.jwks", "--vapid", "vapid.jwks", "--contact", "mailto:desk@demo.example"),
            *("--push-services", f"{service},{SERVICES}", "--push-private", "localhost", "--push-ca", str(ca)),
        )

    async def start(self, origins: Sequence[str]) -> None:
        """Start the process, allowing pages of these origins to register, and wait until it is ready.

        Raise ProcessError if that fails.
        """
        await self._keygen("--push", "push.jwks", "--vapid", "vapid.jwks")
        await self._start(*self._arguments, "--origins", ",".join(origins))


class RelayProcess(Geocast):
    """The process `geocast relay` for a node, with the file `targets.toml` in the folder."""

    what = "`geocast relay`"

    def __init__(self, folder: Path, node: Node) -> None:
        super().__init__(folder)
        [metrics] = free_ports(1)
        self.ready_url = f"http://127.0.0.1:{metrics}/readyz"
        self._arguments = (
            *("relay", "--targets", "targets.toml", "--state", "relay.db", "--metrics", f"127.0.0.1:{metrics}"),
            *("--log", node.log, "--policy", str(POLICY)),
        )

    async def make_secret(self, name: str) -> None:
        """Make a file with a secret that signs webhooks."""
        await self._keygen("--webhook", name)

    async def start(self) -> None:
        """Start the process, and wait until it is ready. Raise ProcessError if that fails."""
        await self._start(*self._arguments)


class CrowdProcess:
    """A child process that simulates some of the subscribers. The module `crowd` lists its commands."""

    async def start(self) -> None:
        """Start the process, which then waits for commands."""
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
        """Send a command, and return its answer.

        `told` is called with each line that comes before the answer.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": command, "with": fields}).encode() + b"\n")
        with contextlib.suppress(ConnectionError):  # the process has died; then no answer comes either
            await self._process.stdin.drain()
        while line := await self._process.stdout.readline():
            answer = cast(dict[str, Any], json.loads(line))
            if answer.get("done") == command:
                return answer
            if told is not None:
                told(answer)
        raise ProcessError("a process that plays subscribers has died")

    async def stop(self) -> None:
        """Stop the process, and wait until it has ended."""
        if hasattr(self, "_process"):
            await _end(self._process)


async def all_do(crowd: Sequence[CrowdProcess], command: str, **fields: Any) -> list[dict[str, Any]]:
    """Send the same command to all processes at once, and return the answers in the order of the processes."""
    return list(await asyncio.gather(*(each.do(command, **fields) for each in crowd)))


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), DRAIN_S)
        except TimeoutError:
            process.kill()
    await process.wait()
