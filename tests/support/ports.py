"""Free ports for servers that a test starts."""

import contextlib
import functools
import itertools
import os
import random
import socket
from collections.abc import Iterator

FIRST, BEYOND = 10_000, 32_000  # the kernel uses the ports from 32768 on for outgoing connections


@functools.cache
def _ours() -> Iterator[int]:
    """Return an endless iterator over this process's ports.

    Test processes that run at the same time have disjoint ports.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = list(range(FIRST + worker, BEYOND, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))
    random.SystemRandom().shuffle(share)
    return itertools.cycle(share)


def free_ports(count: int) -> list[int]:
    """Return `count` free loopback ports.

    A port given out once stays reserved for a server that is down for a while.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = next(_ours())
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
    return ports


def a_free_port() -> int:
    """Return one free loopback port."""
    return free_ports(1)[0]
