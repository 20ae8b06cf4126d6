"""A name service for tests: it resolves names under `push.test` in processes with this folder on their PYTHONPATH.

`TEST_NAMES` lists the names that exist, as `NAME=ADDRESS`. A lookup of a name that begins with `stuck` takes an hour,
and no other name under `push.test` exists. Other names are resolved by the system.
"""

import os
import socket
import time
from typing import Any

_ADDRESSES = dict(each.split("=") for each in os.environ.get("TEST_NAMES", "").split())
_resolved = socket.getaddrinfo


def _resolve(host: Any, *rest: Any, **more: Any) -> Any:
    if not str(host).endswith(".push.test"):
        return _resolved(host, *rest, **more)
    if str(host).startswith("stuck"):
        time.sleep(3_600)
    if host not in _ADDRESSES:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return _resolved(_ADDRESSES[host], *rest, **more)


socket.getaddrinfo = _resolve
