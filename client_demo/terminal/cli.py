"""The command group `python -m client_demo`, with its commands `map` and `demo`."""

import asyncio
import signal
import sys
from pathlib import Path

import click

from client_demo.console import make_console
from client_demo.demo.live_map import FILES, MAP_PORT, View, live_map
from client_demo.demo.processes import ProcessError
from client_demo.demo.show import SUBSCRIBERS, DemoError, Programme, run_demo
from client_demo.python.link import ClientError

from .call import call
from .command import STREAM_URL, WRONG_INPUT, Command, Number, api_options, fail, run, stopped
from .conformance import conformance
from .desk import desk
from .dispatch import dispatch
from .feed_check import feed_check
from .listen import listen, walk
from .pager import pager
from .pages import bind_option, require_installed
from .respond import respond
from .review import review


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Listen to alerts near you, answer calls for help, or see a node at work.

    Every option with [env var: …] can also be set by that variable.
    """
    signal.signal(signal.SIGTERM, _end)


def _end(*_: object) -> None:
    """End the program as Ctrl-C does, together with all child processes.

    That also works if a shell has set SIGINT to be ignored (`&`).
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)


for command in (
    *(listen, walk, respond, pager, call, dispatch),
    *(desk, review, feed_check, conformance),
):
    main.add_command(command)


# ---- the `map` command ---------------------------------------------------------------------------------------------

map_options = [
    click.option(
        "--port",
        "map_port",
        type=click.IntRange(0, 65_535),
        default=MAP_PORT,
        envvar="GEOCAST_MAP_PORT",
        show_envvar=True,
        help="The port of the map; 0 means any free port.",
    ),
    click.option(
        "--style",
        "map_style",
        envvar="GEOCAST_MAP_STYLE",
        show_envvar=True,
        help="The URL of a MapLibre style with streets, all from one origin. Default: outlines, which need no network.",
    ),
]


def with_map_options(command: Command) -> Command:
    """Add the options for the port and the style of the map."""
    for option in reversed(map_options):
        command = option(command)
    return command


@main.command("map")
@api_options
@click.option("--url", default=STREAM_URL, envvar="GEOCAST_STREAM_URL", show_envvar=True, help="The stream listener.")
@click.option("--lat", type=Number(-90, 90), envvar="GEOCAST_LAT", show_envvar=True, help="The first place.")
@click.option("--lng", type=Number(-180, 180), envvar="GEOCAST_LNG", show_envvar=True)
@click.option(
    "--page-token",
    envvar="GEOCAST_PAGE_TOKEN",
    show_envvar=True,
    help="A token with alerts:receive, if the node requires one. Everybody who opens the page gets the token.",
)
@click.option(
    "--push",
    "push_url",
    envvar="GEOCAST_PUSH_URL",
    show_envvar=True,
    help="The URL of a `geocast push`, so that the page gets alerts while it is closed. Needs --page-token.",
)
@click.option(
    "--feed",
    "feed_url",
    metavar="URL",
    help="The node's --feed-url, so that visitors may follow the public feed and tell the server no place.",
)
@with_map_options
@bind_option
def show_map(
    api: str,
    token: str,
    url: str,
    lat: float | None,
    lng: float | None,
    page_token: str | None,
    push_url: str | None,
    feed_url: str | None,
    map_port: int,
    map_style: str | None,
    bind: str,
) -> None:
    """Serve a live map of a node on this machine, until Ctrl-C.

    The node must allow the page's origin: `--origins http://127.0.0.1:8780`, or `--dev`. So must `geocast push`.
    """
    if push_url is not None and page_token is None:
        raise click.UsageError("--push goes with --page-token: `geocast push` requires a token")
    place = None if lat is None or lng is None else (lat, lng)
    require_installed(FILES)
    push = None if push_url is None else f"{push_url.rstrip('/')}/v1"
    view = View(url, page_token, place, map_style, push, None if feed_url is None else feed_url.rstrip("/"))

    async def work() -> None:
        async with live_map(api, token, view, map_port, bind) as shown:
            click.echo(f"map: {shown.url}")
            if map_style is None:
                click.echo("  It shows outlines. --style URL adds streets (docs/guide/review-desk.md#streets).")
            await asyncio.Event().wait()

    try:
        run(work())
    except OSError as error:
        fail(f"the map can't be served on port {map_port}: {error.strerror}")


# ---- the `demo` command --------------------------------------------------------------------------------------------


@main.command()
@click.option("--seconds", default=45.0, envvar="DEMO_SECONDS", show_envvar=True, help="The approximate duration.")
@click.option(
    "--feed",
    envvar="DEMO_FEED",
    show_envvar=True,
    help="A dispatch feed, CSV or JSON. Default: a sample of invented incidents.",
)
@click.option(
    "--feed-format",
    type=click.Path(path_type=Path),
    envvar="DEMO_FEED_FORMAT",
    show_envvar=True,
    help="A TOML file that describes the feed. Default: known feeds are recognised by their columns.",
)
@click.option(
    "--subscribers", type=click.IntRange(10, 15_000), default=SUBSCRIBERS, envvar="DEMO_SUBSCRIBERS", show_envvar=True
)
@click.option(
    "--stay/--no-stay",
    "stays",
    default=None,
    envvar="DEMO_STAY",
    show_envvar=True,
    show_default="in a terminal",
    help="Go on after the verdict until Ctrl-C, so that there is time to look at the map.",
)
@with_map_options
def demo(
    seconds: float,
    feed: str | None,
    feed_format: Path | None,
    subscribers: int,
    stays: bool | None,
    map_port: int,
    map_style: str | None,
) -> None:
    """Start a node, a city of subscribers, a review desk and a live map, and judge every delivery.

    Exits with 1 if an alert was missed or went to anybody outside, with 2 if the feed can't be used.
    """
    stays = sys.stdout.isatty() if stays is None else stays
    programme = Programme(seconds, Path(feed) if feed else None, feed_format, subscribers, map_port, map_style, stays)
    try:
        status = run_demo(make_console(), programme)
    except DemoError as error:
        fail(error, WRONG_INPUT)
    except (ClientError, ProcessError) as error:
        fail(error)
    except KeyboardInterrupt:
        stopped()
    sys.exit(status)
