"""The command `python -m client_demo dispatch`, which opens the dispatch page."""

from pathlib import Path
from typing import Any

import click

from client_demo.desk.feeds import SAMPLE
from client_demo.dispatch.run import DISPATCH_PORT, DispatchSettings, open_dispatch
from client_demo.dispatch.service import PAGE

from .command import dispatch_options, feed_format_option
from .pages import listener_options, require_installed, serve_staff_page, style_option


@click.command()
@dispatch_options
@click.argument("feed", default=str(SAMPLE), type=click.Path(dir_okay=False, path_type=Path))
@feed_format_option
@listener_options(DISPATCH_PORT)
@click.option(
    "--dispatcher",
    "dispatchers",
    multiple=True,
    default=("dispatch-1",),
    help="A person who may sign in, with a link of their own. May be repeated.",
)
@click.option(
    "--status",
    default="exercise",
    type=click.Choice(("actual", "exercise", "test")),
    help="The status that the form proposes for a call, unless the record has another.",
)
@click.option("--as-recorded", "is_as_recorded", is_flag=True, help="Keep the times of the file.")
@style_option
def dispatch(api: str, status: str, is_as_recorded: bool, **options: Any) -> None:
    """Open the dispatch page, where people call responders from dispatch records, and see who is coming.

    FEED is a CSV or JSON file; its records count as having just happened. Default: a sample of invented incidents.
    """
    require_installed(PAGE)
    settings = DispatchSettings(api_url=api, status=status, retimes=not is_as_recorded, **options)
    failure = f"the page can't be served on port {settings.port}"
    serve_staff_page(open_dispatch(settings), "dispatch page", f"calls are: {status}", failure)
