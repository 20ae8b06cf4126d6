"""A process of geocast that runs beside a node and serves /metrics and /readyz at a port of its own.

Nothing of the server is imported here.
"""

from __future__ import annotations

import contextlib
import signal
from abc import ABC
from pathlib import Path
from typing import Self

import httpx
from end_to_end.kit.node import SURPRISE
from end_to_end.kit.process import ServerProcess
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE
from support.ports import free_ports


class SideProcess(ServerProcess, ABC):
    """A `geocast push`, `geocast relay` or `geocast fetch`: it runs while the `with` block runs."""

    def __init__(self, output_file: Path) -> None:
        super().__init__(output_file)
        [self.metrics_port] = free_ports(1)
        self._clients: list[httpx.Client] = []

    def __enter__(self) -> Self:
        self.connect()
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for client in self._clients:
            client.close()
        self.kill()

    def connect(self) -> None:
        """Create the HTTP clients of the process."""
        self.metrics_api = self.client(self.metrics_port)

    def client(self, port: int) -> httpx.Client:
        """Return an HTTP client for a port of the process. It is closed at the end of the `with` block."""
        self._clients.append(
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, trust_env=False, verify=False)
        )
        return self._clients[-1]

    def wait_until_ready(self) -> None:
        """Wait until `/readyz` is 200, or until a fail point has killed the process."""
        wait_until(lambda: self.is_killed() or self.readiness() == 200, "/readyz is 200")

    def is_killed(self) -> bool:
        """Return whether a fail point has killed the process. Fail if it ended in another way."""
        assert self.process
        if self.process.poll() == -signal.SIGKILL:
            return True
        assert self.process.poll() is None, f"{type(self).__name__} ended by itself:\n{self.output()}"
        return False

    def readiness(self) -> int:
        """Return the status of `/readyz`, or 0 if nothing answers."""
        with contextlib.suppress(httpx.TransportError):
            return self.metrics_api.get("/readyz").status_code
        return 0

    def dies(self) -> None:
        """Wait until a fail point has killed the process."""
        assert self.process
        assert self.process.wait(PATIENCE) == -signal.SIGKILL, self.output()

    def reload(self) -> None:
        """Send SIGHUP to the process."""
        assert self.process
        self.process.send_signal(signal.SIGHUP)

    def metric(self, name: str) -> float:
        """Return the value of a series of /metrics, or 0 if the series is missing."""
        text = self.metrics_api.get("/metrics").text
        found = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f"geocast_{name} ")]
        return float(found[0]) if found else 0.0

    def assert_no_surprise(self) -> None:
        """Require that no unexpected error was logged."""
        assert SURPRISE.search(self.output()) is None, self.output()
