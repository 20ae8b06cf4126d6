"""The code that the commands share: how they end, and the options that several of them have."""

import asyncio
import math
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from client_demo.console import plain
from client_demo.python.link import ClientError
from client_demo.python.publisher import PublishError

STREAM_URL = "ws://127.0.0.1:8765/v1/stream"
API_URL = "http://127.0.0.1:8766"
SEVERITIES = ("extreme", "severe", "moderate", "minor")
STOPPED = 130  # 128 + SIGINT, the convention of shells
WRONG_INPUT = 2  # the exit status for unusable input, the same as for wrong options

Result = TypeVar("Result")
Command = TypeVar("Command", bound=Callable[..., Any])


class Number(click.FloatRange):
    """The type of an option that is a finite number within bounds.

    (The number type of the library click accepts NaN.)
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the value as a number. Report a usage error if it is not a finite number within the bounds."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail("expected a finite number", param, ctx)
        return number


def fail(message: object, status: int = 1) -> NoReturn:
    """Print an error message of one line on stderr, and exit with an error status."""
    click.echo(f"error: {plain(message)}", err=True)
    sys.exit(status)


def waiting(why: str) -> None:
    """Print on stderr why a request is sent again, so that nobody waits without knowing what for."""
    click.echo(plain(why), err=True)


def stopped() -> NoReturn:
    """Print that Ctrl-C stopped the command, and exit."""
    click.echo("stopped", err=True)
    sys.exit(STOPPED)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run the coroutine and return its result. If a known error occurs, print it as one line and exit."""
    try:
        return asyncio.run(work)
    except (ClientError, PublishError) as error:
        fail(error)
    except KeyboardInterrupt:
        stopped()


feed_format_option = click.option(
    "--feed-format",
    type=click.Path(path_type=Path),
    envvar="GEOCAST_FEED_FORMAT",
    show_envvar=True,
    help="A TOML file that describes the feed. Default: known feeds are recognised by their columns.",
)


def api_options_for(scope: str, *variables: str) -> Callable[[Command], Command]:
    """Return a decorator that adds options for the address of the api, and for a token with this scope."""
    url = click.option(
        "--api", "api", default=API_URL, envvar="GEOCAST_API_URL", show_envvar=True, help="The api listener."
    )
    token = click.option(
        "--token",
        required=True,
        envvar=variables,
        show_envvar=True,
        help=f"A token with {scope}. Prefer the variable, because other users can see a command line.",
    )
    return lambda command: url(token(command))


api_options = api_options_for("alerts:publish", "GEOCAST_TOKEN")
dispatch_options = api_options_for("calls:dispatch", "GEOCAST_DISPATCH_TOKEN", "GEOCAST_TOKEN")
