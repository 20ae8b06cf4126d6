"""The TOML file that says which tokens are revoked (`--revoked`; protocol, rule BA3).

    [sub]
    "phone-1" = 2031-05-01T12:00:00Z

A token with this `sub` is revoked if it was issued before this time, or does not say when it was issued. Error messages
never contain a `sub`, because it may name a person.
"""

import datetime as dt
from pathlib import Path

from ..model.errors import ConfigError
from ..model.toml_file import parse_toml, read_file

_EXPECTED = 'expected "SUB" = a time with its offset, such as 2031-05-01T12:00:00Z, without quotes'


def load_revoked(path: Path | None) -> dict[str, float]:
    """Return the revocations in a file as a dict from `sub` to a time in s since 1970; {} if `path` is None.

    A token with such a `sub` is revoked if it was issued before that time. Raise ConfigError if the file can't be read
    or is not valid.
    """
    return {} if path is None else parse_revoked(read_file("revoked", path), path)


def parse_revoked(data: bytes, source: object) -> dict[str, float]:
    """Return the revocations in a TOML document as a dict from `sub` to a time in s since 1970.

    A token with such a `sub` is revoked if it was issued before that time. Raise ConfigError if the data is not valid.
    """
    table = parse_toml(data, f"revoked {source}")
    subs = table.pop("sub", {})
    if table or not isinstance(subs, dict):
        raise ConfigError(f"revoked {source}: takes one table, [sub], and nothing else")
    times = {sub: at for sub, at in subs.items() if sub and isinstance(at, dt.datetime) and at.tzinfo is not None}
    if wrong := [number for number, sub in enumerate(subs, start=1) if sub not in times]:
        raise ConfigError(*(f"revoked {source}: entry {number} of [sub]: {_EXPECTED}" for number in wrong))
    return {sub: at.timestamp() for sub, at in times.items()}
