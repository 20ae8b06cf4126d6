"""`geocast tail`: print the entries of the alert log as lines of JSON, for programs in any language."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

import click

from . import journal
from .options import LOG_OPTION, POLICY_OPTION, REVIEWERS_OPTION


@click.command("tail", short_help="Print the entries of the alert log as lines of JSON.")
@LOG_OPTION
@click.option("--after", metavar="POSITION", help="The `position` of the last line that was seen.")
@click.option("--until-now", is_flag=True, help="End when the end of the log is reached.")
@POLICY_OPTION
@REVIEWERS_OPTION
def command(log: str, after: str | None, until_now: bool, policy: Path | None, reviewers: Path | None) -> None:
    """Print each alert, revision and cancel of the log as a line of JSON, and each that is added, until SIGTERM.

    A line is what subscribers are sent, and `position`. Entries that reviewers have not approved as the policy demands
    are left out, and so are calls for help. The log is not changed.
    """
    import asyncio

    from ..approvals.reviewers import NO_REVIEWERS, load_reviewers, refuse_misfits
    from ..approvals.verifier import ApprovalVerifier
    from ..policy import load
    from ..run.tail import tail

    keys, parsed = NO_REVIEWERS if reviewers is None else load_reviewers(reviewers), load(policy)
    refuse_misfits(keys, parsed)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with journal.kept("warning", "text"), contextlib.suppress(BrokenPipeError):
        asyncio.run(tail(log, ApprovalVerifier(parsed, keys), after or None, sys.stdout.fileno(), until_now=until_now))
