"""Ports for servers that a test starts."""

import contextlib
import functools
import itertools
import os
import random
import socket
from collections.abc import Iterator

FIRST, BEYOND = 10_000, 32_000  # from 32768 on, the kernel gives them to connections by itself


@functools.cache
def _ours() -> Iterator[int]:
    """All that are this process's to give, without end; tests that run at once each have a share of their own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = list(range(FIRST + worker, BEYOND, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))
    random.SystemRandom().shuffle(share)
    return itertools.cycle(share)


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody has. So nobody takes the port of what is down for a while."""
    ports: list[int] = []
    while len(ports) < count:
        port = next(_ours())
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
    return ports


def a_free_port() -> int:
    """One of them."""
    return free_ports(1)[0]
