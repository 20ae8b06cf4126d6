"""`geocast listen`: print the alerts for a place as lines, until it is stopped."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from ..model.errors import ConfigError
from .client_options import SEVERITIES, token_option, token_source
from .options import Number, option

NO_READER = 141  # as a program that SIGPIPE has ended
CANNOT = 1  # the exit status if another attempt would be in vain


@click.command("listen")
@option("--url", "STREAM_URL", metavar="URL", default="ws://127.0.0.1:8765/v1/stream", help="The stream of a node.")
@token_option
@option("--lat", type=Number(-90, 90), help="Where you are.")
@option("--lng", type=Number(-180, 180), help="Where you are.")
@option("--accuracy", type=Number(0, 2000), default=0.0, help="The accuracy of the place, in metres.")
@option("--cell", multiple=True, help="An H3 cell of resolution 7 to 15, instead of the exact place. May be repeated.")
@option("--category", multiple=True, help="Show only this category. May be repeated.")
@option("--min-severity", type=click.Choice(SEVERITIES), help="Show only this severity and worse.")
@option("--language", multiple=True, help="A language such as de-AT. May be repeated, the preferred first.")
def command(
    url: str,
    token_file: Path | None,
    lat: float | None,
    lng: float | None,
    accuracy: float,
    cell: tuple[str, ...],
    category: tuple[str, ...],
    min_severity: str | None,
    language: tuple[str, ...],
) -> int:
    """Print alerts as they arrive, one line for each change, and reconnect after a failure.

    Lines about the connection go to standard error. The exit status is 1 if another attempt would be in vain.
    """
    import asyncio

    from ..run.listen import Listener

    if (lat is None) != (lng is None) or (lat is None and not cell):
        raise click.UsageError("say where you are: --lat and --lng, or --cell")
    here = [] if lat is None else [{"lat": lat, "lng": lng, "accuracy_m": accuracy}]
    more = {"categories": list(category), "min_severity": min_severity, "languages": list(language)}
    hello: dict[str, Any] = {"places": [*({"cell": each} for each in cell), *here]}
    hello |= {key: value for key, value in more.items() if value}
    listener = Listener(url, hello, token_source(token_file))
    try:
        asyncio.run(listener.run(_show, partial(click.echo, err=True)))
    except ConfigError as error:
        click.echo(f"geocast: error: {error}", err=True)
    return CANNOT


def _show(line: str) -> None:
    """Print a line. If nobody reads the output any more (`geocast listen | head`), exit quietly."""
    try:
        click.echo(line)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes there
        raise click.exceptions.Exit(NO_READER) from None
