"""A process of `geocast relay` beside a node, and the file of its targets. Nothing of the server is imported here."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import Any

import httpx
from end_to_end.kit.earth import Point
from end_to_end.kit.node import BIN, SURPRISE, Node, clean_environment
from end_to_end.kit.process import ServerProcess
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE
from support.ports import free_ports

from client_demo.webhook_receiver import WebhookReceiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class RelayProcess(ServerProcess):
    """A process of `geocast relay` on the log of a node. Its files are in a folder of its own."""

    def __init__(self, node: Node, home: Path, log: str | None = None, **settings: str) -> None:
        home.mkdir(exist_ok=True)
        super().__init__(home / "relay.txt")
        self.home, self.settings = home, settings
        self.launcher: list[str] = []
        [self.metrics_port] = free_ports(1)
        (home / "secret").write_text(f"{SECRET}\n")
        self.options = [
            *("--targets", str(home / "targets.toml"), "--state", str(home / "relay.db")),
            *("--log", log or f"sqlite:{node.log_file}", "--metrics", f"127.0.0.1:{self.metrics_port}"),
        ]

    def targets(self, spot: Point, **receivers: WebhookReceiver | dict[str, Any]) -> None:
        """Write the file of targets, which ask for alerts around a place.

        There is a receiver, or a table whose key `to` is the receiver, for each name.
        """
        lines, (lat, lng) = [], spot
        corners = [[lng + east, lat + north] for north, east in ((-0.1, -0.1), (-0.1, 0.1), (0.1, 0.1), (0.1, -0.1))]
        for name, found in receivers.items():
            table = {"to": found} if isinstance(found, WebhookReceiver) else dict(found)
            lines += [f"[targets.{name}]", f'url = "{table.pop("to").url}"']
            lines += ['secret_file = "secret"', "allow_http = true", "allow_private = true", f"polygon = {corners}"]
            lines += [f"{key} = {value}" for key, value in table.items()]
        (self.home / "targets.toml").write_text("\n".join(lines))

    def __enter__(self) -> RelayProcess:
        self.metrics_api = httpx.Client(
            base_url=f"http://127.0.0.1:{self.metrics_port}", timeout=PATIENCE, trust_env=False
        )
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.metrics_api.close()
        self.kill()

    def start(self, **settings: str) -> None:
        """Start the process and wait until it is ready, or until a fail point has killed it."""
        environment = clean_environment(**self.settings, **settings)
        self.spawn(*self.launcher, BIN / "geocast", "relay", *self.options, environment=environment, folder=self.home)
        wait_until(lambda: self._is_killed() or self.readiness() == 200, "/readyz is 200")

    def _is_killed(self) -> bool:
        assert self.process
        if self.process.poll() == -signal.SIGKILL:
            return True
        assert self.process.poll() is None, f"geocast relay ended by itself:\n{self.output()}"
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
