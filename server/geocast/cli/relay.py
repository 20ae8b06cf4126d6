"""`geocast relay`: post signed webhooks for alerts to targets such as sirens, signs and chat rooms."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from ..config import Address, bind
from . import journal
from .options import ADDRESS, LOG_LEVELS, option
from .serve import command as serve
from .serve import run
from .starting import starting

_FILE = click.Path(path_type=Path)
UNREACHABLE = 1  # the exit status of --check if a target can't be connected to


@click.command("relay", short_help="Post signed webhooks for alerts.")
@option("--targets", type=_FILE, required=True, help="Where events are posted, and what each target asks for (TOML).")
@option("--state", "RELAY_STATE", type=_FILE, default="relay.db", help="What targets were told (SQLite).")
@option("--log", metavar="URL", default="sqlite:geocast.db", help="The alert log of the nodes.")
@option("--policy", type=_FILE, metavar="PATH", help="The policy of the nodes, the same file.")
@option("--reviewers", type=_FILE, help="Keys of reviewers who approve alerts (JWKS), the file of the nodes.")
@option("--metrics", type=ADDRESS, help="Where /metrics, /healthz and /readyz are served.")
@option("--drain-s", type=click.FloatRange(0, 3600), default=10.0, help="Seconds that a drain may take.")
@option("--log-level", type=click.Choice(LOG_LEVELS), default="info", help="The least level of log lines.")
@option("--log-format", type=click.Choice(journal.FORMATS), default="text", help="Log lines as text or as JSON.")
@click.option("--check", is_flag=True, help="Read all files, connect to each target, post nothing, and exit.")
def command(
    targets: Path,
    state: Path,
    log: str,
    policy: Path | None,
    reviewers: Path | None,
    metrics: Address | None,
    drain_s: float,
    log_level: str,
    log_format: str,
    check: bool,
) -> int:
    """Follow the alert log, and post each alert, revision, cancel and end to the targets, until SIGTERM.

    SIGHUP makes the process read targets, policy and reviewers again. With --check, the exit status is 1 if a target
    can't be connected to.
    """
    with starting(log_level, log_format, serve):
        import asyncio

        from ..relay.checking import check_targets
        from ..relay.targets import load_targets
        from ..run import relay

        if check:
            return 0 if asyncio.run(check_targets(load_targets(targets), click.echo)) else UNREACHABLE
        settings = relay.RelaySettings(
            targets=targets, state=state, log=log, policy=policy, reviewers=reviewers, drain_s=drain_s
        )
        with contextlib.ExitStack() as opened:
            listener = opened.enter_context(bind("--metrics", metrics)) if metrics else None
            run(relay.run(settings, listener))
    return 0
