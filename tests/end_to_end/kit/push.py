"""A process of `geocast push` beside a node, and devices that register with it.

Nothing of the server is imported here.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import h3
import httpx
from end_to_end.kit.alerts import Json
from end_to_end.kit.earth import Point
from end_to_end.kit.keys import PHONE_SCOPE, bearer
from end_to_end.kit.node import BIN, Node, clean_environment
from end_to_end.kit.process import run
from end_to_end.kit.side_process import SideProcess
from support.ports import free_ports
from support.push_service import PushPhone, PushService

CONTACT = "mailto:ops@city.example"


def cell(spot: Point, resolution: int = 9) -> str:
    """Return the H3 cell that contains a point."""
    found: str = h3.latlng_to_cell(*spot, resolution)
    return found


class Push(SideProcess):
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
        [self.port] = free_ports(1)
        self.devices_file = node.home / devices
        if not (node.home / "push.jwks").exists():
            keygen = (BIN / "geocast", "keygen", "--push", "push.jwks", "--vapid", "vapid.jwks")
            run(*keygen, environment=clean_environment(), folder=node.home).check_returncode()
        self.options = [
            *("--listen", f"127.0.0.1:{self.port}", "--metrics", f"127.0.0.1:{self.metrics_port}"),
            *("--log", log or f"sqlite:{node.log_file}", "--devices", f"sqlite:{self.devices_file}"),
            *("--push-keys", "push.jwks", "--vapid", "vapid.jwks", "--contact", CONTACT, "--keys", "keys.json"),
            *("--push-services", ",".join(f"localhost:{service.port}" for service in services)),
            *("--push-private", "localhost", "--push-ca", str(services[0].certificate.crt)),
            *options,
        ]
        self.settings = settings

    def connect(self) -> None:
        """Create the HTTP clients of both listeners."""
        super().connect()
        self.api = self.client(self.port)

    def start(self, **settings: str) -> None:
        """Start the process and wait until it is ready."""
        environment = clean_environment(**self.settings, **settings)
        self.spawn(BIN / "geocast", "push", *self.options, environment=environment, folder=self.node.home)
        self.wait_until_ready()

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

    def files(self) -> list[Path]:
        """Return all files of the device store."""
        return sorted(self.node.home.glob(f"{self.devices_file.name}*"))
