"""The command `python -m client_demo pager`, which serves the responder's page."""

import asyncio

import click

from client_demo.demo.live_map import View
from client_demo.demo.responder_page import PAGE, RESPONDER_PORT, responder_page, signed_in

from .command import STREAM_URL, Number, fail, run
from .pages import listener_options, require_installed, style_option


@click.command()
@click.option("--url", default=STREAM_URL, envvar="GEOCAST_STREAM_URL", show_envvar=True, help="The stream listener.")
@click.option(
    "--lat",
    type=Number(-90, 90),
    envvar="GEOCAST_LAT",
    show_envvar=True,
    help="The first place. Default: the browser's.",
)
@click.option("--lng", type=Number(-180, 180), envvar="GEOCAST_LNG", show_envvar=True)
@click.option(
    "--page-token",
    envvar="GEOCAST_PAGE_TOKEN",
    show_envvar=True,
    help="A responder's token, for the printed link. Everybody with the link gets addresses in the responder's name.",
)
@listener_options(RESPONDER_PORT)
@style_option
def pager(
    url: str, lat: float | None, lng: float | None, page_token: str | None, port: int, bind: str, style_url: str | None
) -> None:
    """Serve a responder's page: go on duty, answer calls to people in need nearby, and see the place to go to.

    The node must allow the page's origin: `--origins http://127.0.0.1:8790`, or `--dev`.
    """
    place = None if lat is None or lng is None else (lat, lng)
    require_installed(PAGE)

    async def work() -> None:
        async with responder_page(View(url, place=place, style_url=style_url), port, bind) as served:
            click.echo(f"pager: {signed_in(served, page_token) if page_token else served}")
            await asyncio.Event().wait()

    try:
        run(work())
    except OSError as error:
        fail(f"the page can't be served on port {port}: {error.strerror}")
