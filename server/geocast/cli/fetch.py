"""`geocast fetch`: read feeds of CAP messages, and post each message to a node."""

from __future__ import annotations

from typing import Any

import click

from ..model.server_address import Address, KeyUrl
from .options import FILE, METRICS_OPTION, api_url_option, journal_options, option
from .starting import bound, starting

NOT_ALL = 1  # the exit status if a feed could not be read, or the node does not take messages


@click.command("fetch", short_help="Read feeds of CAP messages, and post each message to a node.")
@option("--feeds", type=FILE, required=True, help="The feeds to read (TOML).")
@api_url_option("The API of a node with --cap-sources.")
@option("--token-file", type=FILE, help="A token with alerts:publish, for feeds without one of their own.")
@option("--state", type=FILE, default="fetch.db", help="What became of each entry (SQLite).")
@METRICS_OPTION
@click.option("--check", is_flag=True, help="Read each feed once, post nothing, and print what the node would do.")
@click.option("--once", is_flag=True, help="Read each feed once, post its messages, and end.")
@journal_options
def command(
    log_level: str, log_format: str, api_url: KeyUrl, check: bool, once: bool, metrics: Address | None, **more: Any
) -> int:
    """Read feeds of CAP messages, and post each message to a node, until SIGTERM.

    SIGHUP makes the process read the file of feeds again, and then each feed.
    """
    with starting(log_level, log_format):
        import asyncio

        from ..ingest.fetch.settings import FetchSettings
        from ..run import fetch

        settings = FetchSettings(api=api_url, **more)
        if check:
            table, is_well = asyncio.run(fetch.check(settings))
            click.echo(table)
            return 0 if is_well else NOT_ALL
        if once:
            return 0 if asyncio.run(fetch.once(settings)) else NOT_ALL
        with bound(metrics) as listener:
            asyncio.run(fetch.follow(settings, listener))
    return 0
