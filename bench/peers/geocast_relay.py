"""A `geocast relay` process for a node, with targets on this machine."""

import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from bench import processes
from bench.peers.geocast import Geocast

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
START_S = 60.0


class GeocastRelay:
    """One `geocast relay` process for a node, which posts to these ports. Use it in a `with` statement."""

    def __init__(self, node: Geocast, ports: Sequence[int], cpus: Iterable[int]) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="relay-", dir=node.home))
        self._cpus = frozenset(cpus)
        [self._metrics] = processes.free_ports(1)
        (self.home / "secret").write_text(SECRET)
        (self.home / "targets.toml").write_text(
            "".join(
                f'[targets.t{at}]\nurl = "http://127.0.0.1:{port}/"\nsecret_file = "secret"\n'
                "allow_http = true\nallow_private = true\n"
                for at, port in enumerate(ports)
            )
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._log = node.log()

    def __enter__(self) -> Self:
        command = [
            *(sys.executable, "-m", "geocast", "relay", "--targets", "targets.toml", "--state", "relay.db"),
            *("--log", self._log, "--metrics", f"127.0.0.1:{self._metrics}"),
        ]
        self._process = processes.start(command, self._cpus, self.home / "output.txt", cwd=self.home)
        try:
            processes.wait_until(self._ready, "geocast relay is ready", START_S)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process:
            processes.stop(self._process, signal.SIGKILL)

    def _ready(self) -> bool:
        assert self._process
        if self._process.poll() is not None:
            words = (self.home / "output.txt").read_text(errors="replace")[-500:].strip()
            raise processes.Unavailable(f"geocast relay has ended: {words}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics}/readyz", timeout=5):
                return True
        except OSError:
            return False

    def cpu_s(self) -> float:
        """Return the CPU time that the process has used so far, in seconds."""
        assert self._process
        return processes.cpu_s([self._process.pid])

    def rss_bytes(self) -> int:
        """Return the resident memory of the process in bytes."""
        assert self._process
        return processes.rss_bytes([self._process.pid])
