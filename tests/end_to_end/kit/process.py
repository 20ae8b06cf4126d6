"""A server process: starting it, sending signals to it and its children, and killing it."""

import contextlib
import os
import random
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from end_to_end.kit.fork_server import ForkedProcess, can_fork, fork_server
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE


def is_running(pid: int) -> bool:
    """Return whether a process has a thread that has not ended.

    A killed process may be a zombie while one of its threads is still ending and holds its sockets open.
    """
    return any(map(_has_not_ended, list(Path(f"/proc/{pid}/task").glob("*/stat"))))


def _has_not_ended(thread: Path) -> bool:
    try:
        return thread.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def started(
    *command: str | Path, environment: Mapping[str, str], folder: Path | None = None, output: IO[Any], errors: IO[Any]
) -> subprocess.Popen[bytes] | ForkedProcess:
    """Start a command with its output in two files; fork it if possible, which saves the CPU time of its imports."""
    words = [str(word) for word in command]
    if can_fork(words, environment):
        return fork_server().start(words, environment, folder, output.fileno(), errors.fileno())
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=environment, cwd=folder)


def run(
    *command: str | Path, environment: Mapping[str, str], folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command until it exits, and return its status and its output as text."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = started(*command, environment=environment, folder=folder, output=output, errors=errors)
        try:
            status = process.wait(PATIENCE)
        finally:
            process.kill()
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(command, status, output.read(), errors.read())


class ServerProcess(ABC):
    """A process, its children (with `--workers`), and the file that receives their output."""

    def __init__(self, output_file: Path) -> None:
        self.output_file = output_file
        self.process: subprocess.Popen[bytes] | ForkedProcess | None = None

    @abstractmethod
    def start(self) -> None:
        """Start the process and wait until it is ready."""

    def spawn(self, *command: str | Path, environment: Mapping[str, str], folder: Path | None = None) -> None:
        """Start the process with an environment in a folder."""
        with self.output_file.open("ab") as output:
            self.process = started(*command, environment=environment, folder=folder, output=output, errors=output)

    def output(self) -> str:
        """Return everything that the process wrote to stdout and stderr."""
        return self.output_file.read_text(errors="replace")

    def kill(self) -> None:
        """Send SIGKILL to the process and its children, and wait until they have ended and their ports are free."""
        if self.process:
            children = self.signal(signal.SIGKILL)
            self.process.wait(PATIENCE)
            wait_until(lambda: not any(map(is_running, children)), "all child processes have ended")

    def signal(self, number: int) -> list[int]:
        """Send a signal to the process and its children, if any are left; return the children."""
        assert self.process
        if self.process.poll() is not None:
            return []
        self.process.send_signal(signal.SIGSTOP)  # so that it starts no more children meanwhile
        children = self.children()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        self.process.send_signal(number)
        if number != signal.SIGSTOP:
            self.process.send_signal(signal.SIGCONT)
        return children

    def children(self) -> list[int]:
        """Return the ids of the child processes."""
        assert self.process
        with contextlib.suppress(FileNotFoundError):
            pid = self.process.pid
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return []

    def kill_child(self, dice: random.Random) -> None:
        """Send SIGKILL to a random worker, if there are any.

        A single child is the one that opens the files before the workers start; without it, a start fails.
        """
        children = self.children()
        if len(children) > 1:
            with contextlib.suppress(ProcessLookupError):
                os.kill(dice.choice(children), signal.SIGKILL)

    def terminate(self) -> int:
        """Send SIGTERM and return the exit status."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def restart(self) -> None:
        """Kill the process and start it again with the same files and ports."""
        self.kill()
        self.start()
