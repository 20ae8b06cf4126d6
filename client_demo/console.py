"""What a person sees in the terminal. Whatever comes from outside is shown as text, without markup or control codes."""

import re
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console

WIDTH_OF_A_PIPE = 132
# Control characters, and those that turn the direction of the text round (CVE-2021-42574).
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_STYLES = {"extreme": "bold white on red", "severe": "bold red", "moderate": "yellow", "minor": "cyan"}


def plain(text: object) -> str:
    """The text without characters that could fool a reader or a terminal."""
    return _UNSEEN.sub("�", str(text))


def styled(severity: str) -> str:
    """How an alert of this severity looks; unknown severities look like any text."""
    return _STYLES.get(severity, "")


def make_console(*, stderr: bool = False) -> Console:
    """A console that is wide enough for tables when it is no terminal."""
    width = None if (sys.stderr if stderr else sys.stdout).isatty() else WIDTH_OF_A_PIPE
    return Console(stderr=stderr, width=width, highlight=False)


def alert_line(alert: Mapping[str, Any]) -> str:
    """An alert in one line."""
    status = "" if alert.get("status", "actual") == "actual" else f"[{str(alert['status']).upper()}] "
    title = alert.get("title") or alert["category"]
    return plain(f"{status}{alert['severity'].upper()} {title}: {alert['headline']}")
