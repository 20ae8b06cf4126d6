"""The command `python -m client_demo desk`, which publishes a feed by itself."""

import asyncio
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from client_demo.console import make_console, plain
from client_demo.desk.feed_format import FeedError, optional_format
from client_demo.desk.feeds import read_feed
from client_demo.desk.triage import Desk, Policy
from client_demo.python.publisher import Publisher
from client_demo.python.times import wall_ms

from .command import WRONG_INPUT, api_options, fail, feed_format_option, run, waiting


@click.command()
@api_options
@click.argument("feed", type=click.Path(path_type=Path))
@feed_format_option
@click.option("--pace", "pace_s", default=1.0, help="Seconds between two alerts.")
@click.option("--limit", type=click.IntRange(1), help="Publish at most this many alerts.")
@click.option("--retime", is_flag=True, help="Treat old records as if they happened now, and say so.")
@click.option("--dry-run", is_flag=True, help="Publish nothing; print what the node would accept.")
def desk(
    api: str,
    token: str,
    feed: Path,
    feed_format: Path | None,
    pace_s: float,
    limit: int | None,
    retime: bool,
    dry_run: bool,
) -> None:
    """Turn a dispatch feed (CSV or JSON) into approved alerts and publish them.

    Incidents that the policy does not allow are refused, and the reasons are printed.
    """
    try:
        incidents = read_feed(feed, optional_format(feed_format)).incidents
    except FeedError as error:
        fail(error, WRONG_INPUT)
    run(
        _work_at_desk(
            make_console(), Publisher(api, token, on_retry=waiting), incidents, limit, pace_s, retime, dry_run
        )
    )


async def _work_at_desk(
    console: Console,
    publisher: Publisher,
    incidents: list[Any],
    limit: int | None,
    pace_s: float,
    retime: bool,
    dry_run: bool,
) -> None:
    async with publisher:
        reviewers = Desk(Policy.from_map(await publisher.policy()), retime=retime)
        triage = reviewers.triage(incidents, wall_ms())
        for reason, count in triage.reasons():
            console.print(Text(plain(f"refused {count:5}  {reason}")), soft_wrap=True)
        if triage.retimed():
            console.print(Text(triage.retimed(), style="yellow"), soft_wrap=True)
        for case in triage.cases[:limit]:
            alert = reviewers.write(case, wall_ms())
            await publisher.publish(alert, dry_run=dry_run)
            verb = "would publish" if dry_run else "published"
            console.print(
                Text(plain(f"{verb} {alert['id']}  {alert['category']}: {alert['headline']}")), soft_wrap=True
            )
            await asyncio.sleep(pace_s)
