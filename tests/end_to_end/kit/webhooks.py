"""A process of `geocast relay` beside a node, and the file of its targets. Nothing of the server is imported here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from end_to_end.kit.earth import Point
from end_to_end.kit.node import BIN, Node, clean_environment
from end_to_end.kit.side_process import SideProcess

from client_demo.webhook_receiver import WebhookReceiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class RelayProcess(SideProcess):
    """A process of `geocast relay` on the log of a node. Its files are in a folder of its own."""

    def __init__(self, node: Node, home: Path, log: str | None = None, **settings: str) -> None:
        home.mkdir(exist_ok=True)
        super().__init__(home / "relay.txt")
        self.home, self.settings = home, settings
        self.launcher: list[str] = []
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

    def start(self, **settings: str) -> None:
        """Start the process and wait until it is ready, or until a fail point has killed it."""
        environment = clean_environment(**self.settings, **settings)
        self.spawn(*self.launcher, BIN / "geocast", "relay", *self.options, environment=environment, folder=self.home)
        self.wait_until_ready()
