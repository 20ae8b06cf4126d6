"""The TOML file that says which tokens are revoked (`--revoked`; protocol, rule BA3).

    [sub]
    "phone-1" = 2031-05-01T12:00:00Z

A token with this `sub` is revoked if it was issued before this time, or does not say when it was issued. Error messages
never contain a `sub`, because it may name a person.
"""

import datetime as dt
import re
import tomllib
from pathlib import Path

from ..model.errors import ConfigError

_WHERE = re.compile(r"\((at [^()]*)\)$")  # the part of tomllib's messages that repeats nothing from the file


def load_revoked(path: Path | None) -> dict[str, float]:
    """Return the revocations in a file as a dict from `sub` to a time in s since 1970; {} if `path` is None.

    A token with such a `sub` is revoked if it was issued before that time. Raise ConfigError if the file can't be read
    or is not valid.
    """
    try:
        return {} if path is None else parse_revoked(path.read_bytes(), path)
    except OSError as error:
        raise ConfigError(f"revoked {path}: {error.strerror}") from None


def parse_revoked(data: bytes, source: object) -> dict[str, float]:
    """Return the revocations in a TOML document as a dict from `sub` to a time in s since 1970.

    A token with such a `sub` is revoked if it was issued before that time. Raise ConfigError if the data is not valid.
    """
    try:
        table = tomllib.loads(data.decode())
    except tomllib.TOMLDecodeError as error:
        where = _WHERE.search(str(error))
        raise ConfigError(f"revoked {source}: not TOML{': ' + where[1] if where else ''}") from None
    except (UnicodeDecodeError, RecursionError):
        raise ConfigError(f"revoked {source}: not TOML") from None
    subs = table.pop("sub", {})
    if table or not isinstance(subs, dict):
        raise ConfigError(f"revoked {source}: takes one table, [sub], and nothing else")
    return {sub: _time(sub, at, number, source) for number, (sub, at) in enumerate(subs.items(), start=1)}


def _time(sub: str, at: object, number: int, source: object) -> float:
    if not sub or not isinstance(at, dt.datetime) or at.tzinfo is None:
        wanted = '"SUB" = a time with its offset, such as 2031-05-01T12:00:00Z, without quotes'
        raise ConfigError(f"revoked {source}: entry {number} of [sub]: expected {wanted}")
    return at.timestamp()
