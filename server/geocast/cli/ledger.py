"""`geocast ledger`: write and verify the ledger, a record of who approved and published which alerts."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..model.errors import ConfigError
from . import journal
from .options import FILE

NO_MATCH = 1  # the exit status if the ledger is not intact, or can't be written now

_REVIEWERS = "Keys of the reviewers (JWKS), to check signatures; none is checked if left out."
_FOLDER = click.argument("folder", metavar="DIR", type=FILE)


@click.group("ledger", short_help="Keep a record of who approved and published which alerts.")
def command() -> None:
    """Keep a record of who approved and published which alerts, in a chain of hashes that reveals any change."""


@command.command("write")
@_FOLDER
@click.option("--log", metavar="URL", envvar="GEOCAST_LOG", show_envvar=True, required=True, help="The alert log.")
@click.option("--reviewers", type=FILE, help=_REVIEWERS)
def write(folder: Path, log: str, reviewers: Path | None) -> int:
    """Follow the log and write a record of each entry into DIR, until SIGTERM; then print the head.

    The head is the number and hash of the last record. The log is not changed. The exit status is 2 if a restart can't
    help, and 1 if DIR can't be written now.
    """
    import asyncio

    from ..approvals.reviewers import load_reviewers
    from ..run import ledger

    keys = None if reviewers is None else load_reviewers(reviewers)
    with journal.kept("info", "text"):
        try:
            click.echo(asyncio.run(ledger.write(log, folder, keys)))
        except OSError as error:
            click.echo(f"geocast: error: ledger {folder}: {error.strerror}", err=True)
            return NO_MATCH
    return 0


@command.command("head")
@_FOLDER
def head(folder: Path) -> None:
    """Print the head of the ledger as N:HASH, the number and hash of its last record.

    Keep it in another place: it shows later whether the ledger's end was removed.
    """
    from ..ledger import files

    _there(folder)
    try:
        click.echo(str(files.head(folder)))
    except ValueError as error:
        raise ConfigError(f"ledger {folder}: the last line {error}") from None


@command.command("verify")
@_FOLDER
@click.option("--head", metavar="N:HASH", help="A head that was kept in another place; the ledger must contain it.")
@click.option("--reviewers", type=FILE, help=_REVIEWERS)
def verify(folder: Path, head: str | None, reviewers: Path | None) -> int:
    """Verify the whole chain of hashes.

    The exit status is 0 if the chain is intact. Otherwise it is 1, and the first wrong line is printed.
    """
    from ..approvals.reviewers import load_reviewers
    from ..ledger.chain import parse_head
    from ..ledger.verifying import Misfit
    from ..ledger.verifying import verify as verified

    _there(folder)
    try:
        wanted = None if head is None else parse_head(head)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--head") from None
    keys = None if reviewers is None else load_reviewers(reviewers)
    try:
        found = verified(folder, wanted, keys)
    except Misfit as misfit:
        click.echo(str(misfit))
        return NO_MATCH
    click.echo(f"ok: {found.records} records, head {found.head}")
    begins = f"it begins at record {found.first}; " if found.first > 1 else ""
    checked = "not checked, without --reviewers" if keys is None else f"{found.signatures} good"
    click.echo(f"{begins}content of {found.contents} records is left; signatures: {checked}")
    return 0


def _there(folder: Path) -> None:
    if not os.access(folder, os.R_OK | os.X_OK) or not folder.is_dir():
        raise ConfigError(f"ledger {folder}: is no folder that can be read")
