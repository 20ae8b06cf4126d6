"""`geocast relay`: post signed webhooks for alerts to targets such as sirens, signs and chat rooms."""

from __future__ import annotations

from typing import Any

import click

from ..model.server_address import Address
from .options import FILE, follower_options, option
from .serve import run
from .starting import bound, starting

UNREACHABLE = 1  # the exit status of --check if a target can't be connected to


@click.command("relay", short_help="Post signed webhooks for alerts.")
@option("--targets", type=FILE, required=True, help="Where events are posted, and what each target asks for (TOML).")
@option("--state", "RELAY_STATE", type=FILE, default="relay.db", help="What targets were told (SQLite).")
@follower_options
@click.option("--check", is_flag=True, help="Read all files, connect to each target, post nothing, and exit.")
def command(log_level: str, log_format: str, metrics: Address | None, check: bool, **more: Any) -> int:
    """Follow the alert log, and post each alert, revision, cancel and end to the targets, until SIGTERM.

    SIGHUP makes the process read targets, policy and reviewers again. With --check, the exit status is 1 if a target
    can't be connected to.
    """
    with starting(log_level, log_format):
        import asyncio

        from ..relay.targets import load_targets
        from ..run import relay

        if check:
            return 0 if asyncio.run(relay.check(load_targets(more["targets"]), click.echo)) else UNREACHABLE
        with bound(metrics) as listener:
            run(relay.run(relay.RelaySettings(**more), listener))
    return 0
