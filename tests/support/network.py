"""Network namespaces: networks of a test's own, in which it may change interfaces without a trace outside.

A change of the machine's own interfaces makes every Chromium drop its requests (ERR_NETWORK_CHANGED), and with them
the page tests that run at the same time.
"""

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator

import pytest
from support.command import ended


def _enter(network: int) -> None:
    """Move this thread, with all processes and threads that it starts from now on, to an open network namespace."""
    if ctypes.CDLL(None, use_errno=True).setns(network, 0):
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """Run the block in a network namespace of its own, which has only a loopback interface.

    Skip the test where that is not possible.
    """
    name = f"geocast-own-{os.getpid()}"
    if os.geteuid() != 0 or not shutil.which("ip") or ended("ip", "netns", "add", name).returncode:
        pytest.skip("no network namespace can be made here")
    with open("/proc/thread-self/ns/net") as ours, open(f"/run/netns/{name}") as own:
        try:
            _enter(own.fileno())
            ended("ip", "link", "set", "lo", "up")
            yield
        finally:
            _enter(ours.fileno())
            ended("ip", "netns", "del", name)
