"""`python -m client_demo dispatch`: opens the dispatch page."""

from pathlib import Path

import click

from client_demo.console import make_console
from client_demo.desk.feed_format import FeedError
from client_demo.desk.feeds import SAMPLE
from client_demo.dispatch.run import DISPATCH_PORT, DispatchSettings, open_dispatch
from client_demo.dispatch.service import PAGE
from client_demo.web.server import missing

from .call import dispatch_options
from .command import WRONG_INPUT, bind_option, fail, feed_format_option, run


@click.command()
@dispatch_options
@click.argument("feed", default=str(SAMPLE), type=click.Path(dir_okay=False, path_type=Path))
@feed_format_option
@click.option("--port", default=DISPATCH_PORT, type=click.IntRange(0, 65_535), help="Of the page; 0: any.")
@bind_option
@click.option(
    "--dispatcher",
    "dispatchers",
    multiple=True,
    default=("dispatch-1",),
    help="Who may sign in; may be repeated. Each is given a link of their own.",
)
@click.option(
    "--status",
    type=click.Choice(("actual", "exercise", "test")),
    help="What calls are, where a record says nothing else. Default: exercise; actual with --as-recorded.",
)
@click.option("--as-recorded", "is_as_recorded", is_flag=True, help="Take the file at its own times.")
@click.option("--style", "style_url", envvar="GEOCAST_MAP_STYLE", show_envvar=True, help="A map style, for streets.")
def dispatch(
    api: str,
    token: str,
    feed: Path,
    feed_format: Path | None,
    port: int,
    bind: str,
    dispatchers: tuple[str, ...],
    status: str | None,
    is_as_recorded: bool,
    style_url: str | None,
) -> None:
    """Open the dispatch page, where people call responders from dispatch records, and see who comes.

    FEED is a CSV or JSON file; its records count as having just happened. Default: a sample of invented incidents.
    """
    if lacks := missing(PAGE):
        fail(f"there is no {lacks}: `make demo` gets it where npm can be reached")
    settings = DispatchSettings(
        api_url=api,
        token=token,
        feed=feed,
        feed_format=feed_format,
        dispatchers=dispatchers,
        status=status or ("actual" if is_as_recorded else "exercise"),
        retimes=not is_as_recorded,
        port=port,
        bind=bind,
        style_url=style_url,
    )
    try:
        run(_serve(settings))
    except FeedError as error:
        fail(error, WRONG_INPUT)
    except OSError as error:
        fail(f"the page can't be served on port {port}: {error.strerror}", WRONG_INPUT)


async def _serve(settings: DispatchSettings) -> None:
    console = make_console()
    async with open_dispatch(settings) as page:
        console.print(f"dispatch page: {page.url}, calls are: {settings.status}", markup=False, highlight=False)
        for name, link in page.links.items():
            console.print(f"  {name}: {link}", markup=False, highlight=False, soft_wrap=True)
        await page.working
