"""`geocast serve`: run a node."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import click

from ..config import Settings, listening
from ..scopes import SCOPES
from .options import node_options, settings_of

if TYPE_CHECKING:
    from ..tokens import Tokens

DEV_TOKEN_S = 365 * 86_400  # how long the token of --dev is good
# After this long a thread that waits for the GIL asks for it. The log's threads take it half a dozen times for an
# append; with Python's default of 5 ms each time may take as long, in the middle of a fan-out.
SWITCH_S = 0.0001


@click.command("serve")
@node_options
def command(log_level: str, **options: Any) -> None:
    """Run a node until SIGTERM."""
    settings = settings_of(**options)
    settings.check()
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.root.level))
    tokens = _tokens(settings)
    from ..run import node, workers

    with listening(settings) as listeners:
        if settings.workers == 1:
            _run(node.run(settings, tokens, listeners))
        else:
            workers.supervise(settings, tokens, listeners, _run)


def _run(main: Coroutine[Any, Any, None]) -> None:
    import asyncio

    import uvloop

    sys.setswitchinterval(SWITCH_S)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def _tokens(settings: Settings) -> Tokens:
    from jwt import PyJWK

    from ..tokens import Tokens, load_keys

    if settings.keys is not None:
        return Tokens(load_keys(settings.keys))
    dev_jwks = _dev_keys()
    return Tokens({dev_jwks["kid"]: PyJWK(dev_jwks, "EdDSA")}, required=False)


def _dev_keys() -> dict[str, str]:
    """The public key for --dev; its private half signs one token that may do everything, and is forgotten."""
    from ..tokens import make_key, sign

    private, public = make_key("dev")
    click.echo(f"GEOCAST_TOKEN={sign(private, 'dev', SCOPES, int(time.time()), DEV_TOKEN_S)}")
    return public
