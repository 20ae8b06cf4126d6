"""The command `python -m client_demo review`, which opens the review desk."""

from pathlib import Path
from typing import Any

import click

from client_demo.desk.feeds import SAMPLE
from client_demo.desk.run import DESK_PORT, DeskSettings, open_desk
from client_demo.desk.service import PAGE

from .command import Number, api_options, feed_format_option
from .pages import listener_options, require_installed, serve_staff_page, style_option


@click.command()
@api_options
@click.argument("feed", default=str(SAMPLE))
@feed_format_option
@listener_options(DESK_PORT)
@click.option(
    "--reviewer",
    "reviewers",
    multiple=True,
    default=("desk-1", "desk-2"),
    envvar="GEOCAST_REVIEWER",
    show_envvar=True,
    help="A person who may sign in, with a link of their own. May be repeated.",
)
@click.option("--state", default="review.db", type=click.Path(path_type=Path), help="The file that stores decisions.")
@click.option(
    "--status",
    type=click.Choice(("actual", "exercise", "test")),
    help="The status of the alerts. Default: exercise for a replay, actual for a feed of present incidents.",
)
@click.option("--speed", default=1.0, type=Number(0.01, 100_000), help="The speed of a replay.")
@click.option(
    "--ahead", default=12, type=click.IntRange(1), help="How many incidents of a replay are on the desk at the start."
)
@click.option(
    "--as-recorded", "is_as_recorded", is_flag=True, help="Keep the times of a file, and show all incidents at once."
)
@click.option("--every", "every_s", default=60.0, type=Number(5), help="Seconds between two polls.")
@style_option
def review(api: str, feed: str, status: str | None, is_as_recorded: bool, **options: Any) -> None:
    """Open the review desk: a page where people decide which incidents of a feed become alerts.

    FEED is a CSV or JSON file, replayed as if it happened now, or the address of an open-data feed, polled. Default: a
    sample of invented incidents.
    """
    is_replay = "://" not in feed and not is_as_recorded
    require_installed(PAGE)
    settings = DeskSettings(
        api_url=api,
        feed=feed,
        status=status or ("exercise" if is_replay else "actual"),
        is_as_recorded=is_as_recorded,
        **options,
    )
    failure = f"the desk can't be served on port {settings.port}"
    serve_staff_page(open_desk(settings), "review desk", f"publishing as {settings.status}", failure)
