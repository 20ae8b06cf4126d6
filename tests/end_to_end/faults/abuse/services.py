"""The push services of the attacks: one server under many host names, with endpoints that attackers choose.

`geocast push` allows `*.push.test`. Host names in that zone that begin with "up" resolve to this machine; the others do
not exist. A preloaded library, for which a C compiler is needed, resolves them. Without a compiler all endpoints are at
`localhost`.
"""

import asyncio
import functools
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from end_to_end.kit.alerts import Json
from support.wall_clock import COMPILER

from client_demo import push_service
from client_demo.push_service import Certificate, Phone
from client_demo.python.subscription import Subscription

ZONE = "push.test"
GOOD_HOST = f"up.{ZONE}" if COMPILER else "localhost"
RETRY_AFTER_S = 3
HANG_S = 60  # longer than any client's timeout


@functools.cache
def library() -> dict[str, str]:
    """Return the environment that makes host names in ZONE resolve."""
    if not COMPILER:
        return {}
    made = Path(tempfile.mkdtemp(prefix="geocast-names-")) / "names.so"
    source = Path(__file__).with_name("names.c")
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O2", "-Wall", "-o", made, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(made)}


class PushServices(push_service.PushService):
    """A push service whose bad endpoints name their answer: `/push/evil-507-…` gets 507, `/push/evil-0-…` none."""

    def __init__(self, certificate: Certificate) -> None:
        super().__init__(certificate)
        self.phones_by_name: dict[int, Phone] = {}
        self.came: dict[str, list[float]] = defaultdict(list)
        """The times of all pushes to each bad endpoint, on the monotonic clock."""

    @property
    def entry(self) -> str:
        """The value for `--push-services`."""
        return f"*.{ZONE}:{self.port}" if COMPILER else f"localhost:{self.port}"

    def add(self, number: int, on_message: Callable[[int, Json], object]) -> None:
        """Add a good phone; the service's thread calls `on_message` with its number and each message."""
        phone = self.phone(on_told=lambda message: on_message(number, dict(message)))
        phone._keys = Subscription(f"https://{GOOD_HOST}:{self.port}/push/{phone.name}")
        self.phones_by_name[number] = phone

    def knows(self, authorization: str) -> bool:
        """Return whether the header uses the scheme of VAPID; other tests verify the signature."""
        return authorization.startswith("vapid ")

    async def _answer(self, request: Any) -> Any:
        name = request.match_info["name"]
        if not name.startswith("evil-"):
            return await super()._answer(request)
        await request.read()
        self.came[name].append(time.monotonic())
        status = int(name.split("-")[1])
        if not status:
            await asyncio.sleep(HANG_S)
        return self._said(status, {"Retry-After": str(RETRY_AFTER_S)} if status >= 500 else None)
