"""Reading of tokens and of JSON files, for the commands of publishers, reviewers and subscribers.

A token is read from a file or from the environment, never from the command line, which other users of the machine can
see.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..model.errors import ConfigError
from .options import option

SEVERITIES = ("extreme", "severe", "moderate", "minor")
VARIABLE = "GEOCAST_TOKEN"

token_option = option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"The file with the token; without it, the variable {VARIABLE} has the token.",
)


def token_source(path: Path | None) -> Callable[[], str | None]:
    """Return a function that returns the present token, or None if there is none.

    A file is read again each time, so that a new token is used. Raise ConfigError if it can't be used.
    """

    def token() -> str | None:
        try:
            found = os.environ.get(VARIABLE) if path is None else path.read_text("ascii").strip()
        except (OSError, ValueError) as error:
            raise ConfigError(f"--token-file {path}: {getattr(error, 'strerror', None) or 'not a token'}") from None
        if found is not None and (not found.isascii() or not found.isprintable() or " " in found):
            raise ConfigError(f"{VARIABLE if path is None else f'--token-file {path}'}: not a token")
        return found or None

    return token


def read_object(path: Path, option: str = "", expected: str = "expected a JSON object") -> tuple[str, dict[str, Any]]:
    """Return the text of a file, exactly as it is, and the JSON object that it contains.

    Raise ConfigError, whose text begins with `option` and the path, if the file can't be read or has no object.
    """
    try:
        text = path.read_bytes().decode().rstrip("\r\n")
        members = json.loads(text)
    except OSError as error:
        raise ConfigError(f"{option}{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        raise ConfigError(f"{option}{path}: {expected}")
    return text, members
