"""`geocast part`: run a way out that another package adds (`run/follower.py`)."""

from __future__ import annotations

from typing import Any

import click

from ..model.server_address import Address
from .options import FILE, follower_options, option
from .serve import run
from .starting import bound, starting


@click.command("part", short_help="Run a way out that another package adds.")
@click.argument("name")
@option("--options", "PART_OPTIONS", type=FILE, required=True, help="Its own options (TOML).")
@follower_options
def command(log_level: str, log_format: str, metrics: Address | None, **more: Any) -> None:
    """Follow the alert log, and give each alert to the part NAME of an installed package, until SIGTERM.

    SIGHUP makes the process read its options, the policy and the reviewers again.
    """
    with starting(log_level, log_format):
        from ..run import follower

        with bound(metrics) as listener:
            run(follower.run(follower.PartSettings(**more), listener))
