"""The code shared by the commands that serve a page: options, the check that its files are installed, and its start."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import click

from client_demo.console import make_console
from client_demo.desk.feed_format import FeedError
from client_demo.desk.store import StoreError
from client_demo.staff_page.run import OpenPage
from client_demo.web.server import LOOPBACK, missing

from .command import WRONG_INPUT, Command, fail, run

bind_option = click.option(
    "--bind",
    default=LOOPBACK,
    envvar="GEOCAST_PAGE_BIND",
    show_envvar=True,
    help="The address to listen on; in a container 0.0.0.0. The page can be opened only by this machine's own names.",
)
style_option = click.option(
    "--style", "style_url", envvar="GEOCAST_MAP_STYLE", show_envvar=True, help="The URL of a map style with streets."
)


def listener_options(port: int) -> Callable[[Command], Command]:
    """Return a decorator that adds the options for the address on which a page is served.

    `port` is the default port.
    """
    port_option = click.option(
        "--port", default=port, type=click.IntRange(0, 65_535), help="The port of the page; 0 means any free port."
    )
    return lambda command: port_option(bind_option(command))


def require_installed(page: Mapping[str, Path]) -> None:
    """Exit with an error if a file of this page is not installed."""
    if lacks := missing(page):
        fail(f"there is no {lacks}: `make demo` gets it if an npm registry can be reached")


def serve_staff_page(opening: AbstractAsyncContextManager[OpenPage], title: str, status: str, failure: str) -> None:
    """Print the title, address, status and sign-in links of a page for staff, and serve the page until it fails.

    `failure` is the error message if the port is taken.
    """

    async def work() -> None:
        console = make_console()
        async with opening as page:
            console.print(f"{title}: {page.url}, {status}", markup=False, highlight=False)
            for person, link in page.links.items():
                console.print(f"  {person}: {link}", markup=False, highlight=False, soft_wrap=True)
            await page.working

    try:
        run(work())
    except (FeedError, StoreError) as error:
        fail(error, WRONG_INPUT)
    except OSError as error:
        fail(f"{failure}: {error.strerror}", WRONG_INPUT)
