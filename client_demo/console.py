"""Output for the terminal. Text from outside is shown without markup and without control characters."""

import re
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console

WIDTH_OF_A_PIPE = 132
# Control characters, and characters that reverse the direction of the text (CVE-2021-42574).
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_STYLES = {"extreme": "bold white on red", "severe": "bold red", "moderate": "yellow", "minor": "cyan"}


def plain(text: object) -> str:
    """Return the text without characters that could fool a reader or a terminal."""
    return _UNSEEN.sub("�", str(text))


def styled(severity: str) -> str:
    """Return the style in which an alert of this severity is printed; "" for an unknown severity."""
    return _STYLES.get(severity, "")


def make_console(*, stderr: bool = False) -> Console:
    """Return a console, which is wide enough for tables even if the output does not go to a terminal."""
    width = None if (sys.stderr if stderr else sys.stdout).isatty() else WIDTH_OF_A_PIPE
    return Console(stderr=stderr, width=width, highlight=False)


def alert_line(alert: Mapping[str, Any]) -> str:
    """Return an alert as one line of text."""
    status = "" if alert.get("status", "actual") == "actual" else f"[{str(alert['status']).upper()}] "
    title = alert.get("title") or alert["category"]
    return plain(f"{status}{alert['severity'].upper()} {title}: {alert['headline']}")
