"""`geocast serve`: run a node, the server for publishers and subscribers."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Coroutine
from typing import Any

import click

from ..auth.scopes import SCOPES
from ..config import Settings, listening
from .options import node_options
from .starting import starting

DEV_TOKEN_S = 365 * 86_400  # the lifetime of the token that --dev prints
# The time after which a thread that waits for the GIL interrupts the running thread. The log's threads need the GIL
# about six times for an append. With Python's default of 5 ms, each of these waits could take 5 ms while alerts are
# sent.
SWITCH_S = 0.0001

logger = logging.getLogger(__name__)


@click.command("serve")
@node_options
def command(log_level: str, log_format: str, **options: Any) -> None:
    """Run a node until SIGTERM. SIGHUP makes it read the keys, the policy and the other reloadable files again."""
    with starting(log_level, log_format):
        settings = Settings(**options)
        settings.check()
        _serve(settings)


def _serve(settings: Settings) -> None:
    if exposed := settings.exposed_dev():
        logger.warning("%s", exposed)
    from ..run import node, runtime_config, workers

    keys, token = _dev_keys() if settings.keys is None else (b"", "")
    found = runtime_config.RuntimeConfig(settings, keys)
    with listening(settings) as listeners:
        if token:  # it is of no use if the node can't listen
            click.echo(f"GEOCAST_TOKEN={token}")
        if settings.workers == 1:
            run(node.run(settings, found, listeners))
        else:
            workers.supervise(settings, found, listeners, run)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in a new event loop of uvloop until the coroutine ends, and log what keeps the loop busy."""
    import asyncio

    import uvloop

    from ..run.loop_watch import LoopWatch

    sys.setswitchinterval(SWITCH_S)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, LoopWatch(runner.get_loop()):
        runner.run(main)


def _dev_keys() -> tuple[bytes, str]:
    """Return a JWKS for a node with --dev, and a token with all scopes.

    The private key that signed the token is not kept.
    """
    from ..auth.tokens import make_key, sign

    private, public = make_key("dev")
    token = sign(private, "dev", SCOPES, int(time.time()), DEV_TOKEN_S)
    return json.dumps({"keys": [public]}).encode(), token
