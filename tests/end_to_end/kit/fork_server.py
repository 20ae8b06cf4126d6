"""A fork server: a process that has imported the program, and starts instances of it by forking.

Importing all modules takes a second of CPU, and the tests start about a thousand processes. A forked process is as
real as any other: it has its own process id, memory, descriptors, environment and folder, and it can be killed and
paused. The process of the tests is its parent, because the kernel gives an orphan to the nearest ancestor that is a
*subreaper*.

Some tests start the command itself, so its own start is tested too.
"""

import ctypes
import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_GEOCAST = str(Path(sys.executable).parent / "geocast")
_NETWORK = Path("/proc/thread-self/ns/net")
_NETWORK_AT_START = _NETWORK.readlink()
# Variables that a forked process can take over. Others need a new program.
_OWN = ("GEOCAST_", "PYTHONUNBUFFERED", "SSL_CERT_FILE")


class ForkedProcess:
    """A process that the fork server has started, with the methods of `subprocess.Popen` that the tests use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status as `subprocess.Popen` does, or None while the process runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process, and return its exit status. Raise TimeoutExpired after `timeout` seconds."""
        if self.poll() is None:
            descriptor = os.pidfd_open(self.pid)
            try:
                if not select.select([descriptor], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            finally:
                os.close(descriptor)
        status = self.poll()
        assert status is not None
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


class ForkServer:
    """The fork server, as the tests see it."""

    def __init__(self) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path | None, output: int, errors: int
    ) -> ForkedProcess:
        """Start `geocast` or `python -m client_demo` with its arguments.

        `output` and `errors` are the descriptors of the files that receive stdout and stderr.
        """
        request = json.dumps([[*arguments], {**environment}, str(folder or Path.cwd())]).encode()
        with self._lock:  # tests start nodes side by side
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * len(request))
            socket.send_fds(self._socket, [request], [output, errors])
            return ForkedProcess(int(self._socket.recv(32)))


@functools.cache
def fork_server() -> ForkServer:
    """Return the fork server of this test process, which ends with it."""
    return ForkServer()


def can_fork(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Return whether the fork server can start a command.

    The command must be `geocast` or `python -m client_demo`, and no variable may differ that Python or the linker reads
    when a program starts. A thread that has entered a network namespace can't fork, because the server is outside.
    """
    plain = command[0] == _GEOCAST or [*command[:3]] == [sys.executable, "-m", "client_demo"]
    names = {name for name in {*environment, *os.environ} if environment.get(name) != os.environ.get(name)}
    shares_network = _NETWORK.readlink() == _NETWORK_AT_START
    return plain and shares_network and all(name.startswith(_OWN) for name in names) and "LD_PRELOAD" not in environment


def _serve(requests: socket.socket) -> list[str]:
    """Fork a process for each request.

    Return in the new process, with its arguments. In the fork server, this function does not return.
    """
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 2)
        if not request:
            os._exit(0)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            grandchild = os.fork()
            if grandchild == 0:
                os.close(reader)
                os.close(writer)
                break
            os.write(writer, str(grandchild).encode())
            os._exit(0)
        os.waitpid(child, 0)  # from now on the tests' process is the parent of the new process
        requests.send(os.read(reader, 32))
        for descriptor in (reader, writer, *descriptors):
            os.close(descriptor)
    requests.close()
    arguments, environment, folder = json.loads(request)
    for descriptor, stream in zip(descriptors, (1, 2), strict=True):
        os.dup2(descriptor, stream)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if "PYTHONUNBUFFERED" in environment:
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    given: list[str] = arguments
    return given


def _import_everything() -> None:
    import client_demo.terminal.cli  # noqa: F401
    import geocast.cli
    import geocast.run.fetch
    import geocast.run.follower
    import geocast.run.ledger
    import geocast.run.node
    import geocast.run.push
    import geocast.run.relay
    import geocast.run.supervising
    import geocast.run.workers  # noqa: F401


def _run(command: list[str]) -> None:
    if command[0] == _GEOCAST:
        import geocast.cli
        from geocast import failpoints

        if "GEOCAST_INJECTIONS" in os.environ:
            folder = os.environ.pop("GEOCAST_INJECTIONS")
            sys.path += [str(Path(__file__).parents[2]), folder]  # the folder may have a package
            from support.injections import install

            install(Path(folder))
        failpoints._armed = os.environ.get("GEOCAST_FAILPOINT")  # it was read before the fork
        sys.argv = command
        geocast.cli.main()
    else:
        import runpy

        sys.argv = command[2:]
        sys.path[0] = os.getcwd()
        runpy.run_module("client_demo", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[3])
    _import_everything()
    gc.collect()
    gc.freeze()  # otherwise a forked process that exits would visit, and so copy, all that was imported: 0.25 s
    _run(_serve(socket.socket(fileno=int(sys.argv[1]))))
