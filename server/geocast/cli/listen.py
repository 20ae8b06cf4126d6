"""`geocast listen`: print the alerts for a place as lines, until it is stopped."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..model.errors import ConfigError
from .client_options import SEVERITIES, VARIABLE, token_option, token_source
from .options import Number, option

if TYPE_CHECKING:
    from geocast_client import Change

NO_READER = 141  # as a program that SIGPIPE has ended
CANNOT = 1  # the exit status if another attempt would be in vain
# Control characters, and characters that reverse the direction of the text: a terminal would obey them.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


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

    from geocast_client import Client, ClientError, Place
    from geocast_client.reconnect import meaning
    from geocast_client.times import own_ms

    if (lat is None) != (lng is None) or (lat is None and not cell):
        raise click.UsageError("say where you are: --lat and --lng, or --cell")
    read_token = token_source(token_file)

    def token() -> str:
        try:
            if found := read_token():
                return found
        except ConfigError as error:
            raise ClientError(str(error)) from None
        raise ClientError(f"--token-file {token_file}: the file is empty")

    try:
        places = [Place.in_cell(each) for each in cell]
    except ValueError:
        raise ConfigError("--cell: expected an H3 cell of resolution 7 to 15") from None
    try:
        client = Client(
            url,
            places if lat is None or lng is None else [*places, Place.at(lat, lng, accuracy)],
            token=token if token_file is not None or os.environ.get(VARIABLE) else None,
            categories=category or None,
            min_severity=min_severity,
            languages=language or None,
            on_change=lambda change: _show(line(change, client.holdings.server_ms(own_ms()))),
            on_status=_note,
        )
    except ValueError as error:
        raise ConfigError(f"--language: {error}") from None
    try:
        asyncio.run(client.run())
    except ClientError as error:
        hint = "; `geocast token --check` says what a token lacks" if meaning(4401) in str(error) else ""
        _note(f"geocast: error: {error}{hint}")
    return CANNOT


def line(change: Change, now_ms: int) -> str:
    """Return a change as one line of plain text (C6, C7, C9). `now_ms` is the time of the server's clock."""
    from geocast_client.holdings import SHOWN
    from geocast_client.times import parse_time

    alert, is_shown = change.alert, change.kind in SHOWN
    status = "" if alert.get("status", "actual") == "actual" else f"[{alert['status'].upper()}] "
    text = f"{status}{str(alert.get('severity')).upper()} {alert.get('title') or alert.get('category')}: "
    text += str(alert.get("headline"))
    text += f" ({change.reason})" if change.reason else ""
    text += f" {alert['instruction']}" if is_shown and alert.get("instruction") else ""
    text += f" See {alert['web']}" if is_shown and alert.get("web") else ""
    left_s = (parse_time(alert["expires_at"]) - now_ms) // 1000
    left = f"{left_s // 60} min {left_s % 60:02} s left; " if is_shown else ""
    what = change.kind.replace("_", " ")
    return _UNSEEN.sub("�", f"{what:14} {text}  [{left}{alert['id']}, revision {alert['revision']}]")


def _show(text: str) -> None:
    """Print a line. If nobody reads the output any more (`geocast listen | head`), exit quietly."""
    try:
        click.echo(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes there
        raise click.exceptions.Exit(NO_READER) from None


def _note(text: str) -> None:
    click.echo(_UNSEEN.sub("�", text), err=True)
