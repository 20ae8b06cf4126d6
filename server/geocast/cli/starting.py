"""The first steps of a command that runs until SIGTERM: `serve`, `push`, `fetch` and `relay`."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator

from ..config import bind
from ..model.errors import ConfigError
from ..model.server_address import Address
from . import journal
from .options import unknown_variables


@contextlib.contextmanager
def bound(address: Address | None) -> Iterator[socket.socket | None]:
    """Listen on the address of `--metrics` while the block runs; yield None if there is none."""
    with contextlib.ExitStack() as opened:
        yield None if address is None else opened.enter_context(bind("--metrics", address))


@contextlib.contextmanager
def starting(log_level: str, log_format: str) -> Iterator[None]:
    """Write log messages while the `with` block runs, as `journal.kept` does. SIGHUP is blocked from now on.

    Raise ConfigError if a variable in the environment is unknown.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # until there is a handler, SIGHUP would end the process
    with journal.kept(log_level, log_format):
        if unknown := list(unknown_variables()):
            raise ConfigError(*unknown)
        yield
