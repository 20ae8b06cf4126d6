"""A process of `geocast push` beside a node, and devices that register with it.

Nothing of the server is imported here.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import subprocess
from pathlib import Path
from typing import Any

import h3
import httpx
from end_to_end.kit.alerts import Json
from end_to_end.kit.earth import Point
from end_to_end.kit.keys import PHONE_SCOPE, bearer
from end_to_end.kit.node import BIN, SURPRISE, Node, clean_environment, free_ports
from end_to_end.kit.process import ServerProcess
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE
from support.push_service import PushPhone, PushService

CONTACT = "mailto:ops@city.example"


def cell(spot: Point, resolution: int = 9) -> str:
    """Return the H3 cell that contains a point."""
    found: str = h3.latlng_to_cell(*spot, resolution)
    return found


class Push(ServerProcess):
    """A process of `geocast push` on the log of a node, with the push services it may use.

    Its files are in the node's home.
    """

    def __init__(
        self,
        node: Node,
        *services: PushService,
        options: tuple[str, ...] = (),
        devices: str = "devices.db",
        log: str | None = None,
        **settings: str,
    ):
        super().__init__(node.home / "push.txt")
        self.node = node
        self.port, self.metrics_port = free_ports(2)
        self.devices_file = node.home / devices
        run = ["keygen", "--push", "push.jwks", "--vapid", "vapid.jwks"]
        if not (node.home / "push.jwks").exists():
            subprocess.run([BIN / "geocast", *run], cwd=node.home, check=True, capture_output=True)
        self.options = [
            *("--listen", f"127.0.0.1:{self.port}", "--metrics", f"127.0.0.1:{self.metrics_port}"),
            *("--log", log or f"sqlite:{node.log_file}", "--devices", f"sqlite:{self.devices_file}"),
            *("--push-keys", "push.jwks", "--vapid", "vapid.jwks", "--contact", CONTACT, "--keys", "keys.json"),
            *("--push-services", ",".join(f"localhost:{service.port}" for service in services)),
            *("--push-private", "localhost", "--push-ca", str(services[0].certificate.crt)),
            *options,
        ]
        self.settings = settings

    def __enter__(self) -> Push:
        self.api, self.metrics_api = (
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, trust_env=False, verify=False)
            for port in (self.port, self.metrics_port)
        )
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.api.close()
        self.metrics_api.close()
        self.kill()

    def start(self, **settings: str) -> None:
        """Start the process and wait until it is ready."""
        environment = clean_environment(**self.settings, **settings)
        self.spawn(BIN / "geocast", "push", *self.options, environment=environment, folder=self.node.home)
        wait_until(self._ready, "/readyz is 200")

    def _ready(self) -> bool:
        assert self.process
        if self.process.poll() == -signal.SIGKILL:
            return True  # killed by a fail point
        assert self.process.poll() is None, f"geocast push ended by itself:\n{self.output()}"
        with contextlib.suppress(httpx.TransportError):
            return self.metrics_api.get("/readyz").status_code == 200
        return False

    def dies(self) -> None:
        """Wait until a fail point has killed the process."""
        assert self.process
        assert self.process.wait(PATIENCE) == -signal.SIGKILL, self.output()

    def reload(self) -> None:
        """Send SIGHUP to the process."""
        assert self.process
        self.process.send_signal(signal.SIGHUP)

    def assert_no_surprise(self) -> None:
        """Require that no unexpected error was logged."""
        surprise = SURPRISE.search(self.output())
        assert surprise is None, self.output()

    # -- devices

    def token(self, sub: str = "phone", scope: str = PHONE_SCOPE, **claims: Any) -> str:
        """Return a subscriber's token."""
        return self.node.keys.token(sub=sub, scope=scope, **claims)

    def put(self, device_id: str, body: Any, token: str | None = None) -> httpx.Response:
        """Send a PUT request with a registration."""
        return self.api.put(f"/v1/devices/{device_id}", json=body, headers=bearer(token or self.token()))

    def register(
        self, phone: PushPhone, *cells: str, device_id: str | None = None, token: str | None = None, **more: Any
    ) -> Json:
        """Register a phone, which must succeed, and return the answer.

        Without a token the phone belongs to a new subscriber.
        """
        body = {"subscription": phone.subscription(), "places": [{"cell": each} for each in cells], **more}
        answer = self.put(device_id or secrets.token_urlsafe(12), body, token or self.token(sub=phone.name))
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def metric(self, name: str) -> float:
        """Return the value of a series of /metrics, or 0 if the series is missing."""
        text = self.metrics_api.get("/metrics").text
        found = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f"geocast_{name} ")]
        return float(found[0]) if found else 0.0

    def files(self) -> list[Path]:
        """Return all files of the device store."""
        return sorted(self.node.home.glob(f"{self.devices_file.name}*"))
