"""Reads the publishers' file: TOML, with GeoJSON files for jurisdictions in the same folder.

All of these files are read into one bytes object, which is then parsed. So a reload uses either all of them or none,
other processes can get exactly the same content, and nodes can compare their files by one digest (rule BA2).
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import msgpack
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ...model.alert import Severity, Status, is_id
from ...model.errors import ConfigError
from ...model.toml_file import listed, matching, mistakes, parse_toml
from ..rules import CategoryKey
from .bounds import ALL_OTHERS, Bounds, Publishers
from .jurisdiction import Jurisdiction, parse_jurisdiction

MAX_BYTES = 1024 * 1024  # of all files together; to parse this many on the event loop takes 0.1 s
MOST_PER_HOUR = 10_000

_FILE_NAME = re.compile("[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_FileName = Annotated[str, matching(_FILE_NAME, "must be the name of a file in the same folder, without a path")]


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    categories: Annotated[list[CategoryKey], Field(min_length=1), AfterValidator(frozenset)] | None = None
    statuses: Annotated[list[Status], Field(min_length=1), AfterValidator(frozenset)] | None = None
    max_severity: Severity = "extreme"
    max_radius_m: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    jurisdiction: _FileName | None = None
    per_minute: Annotated[int, Field(ge=1, le=MOST_PER_HOUR)] | None = None
    per_hour: Annotated[int, Field(ge=1, le=MOST_PER_HOUR)] | None = None


def load_publishers(path: Path | None) -> Publishers | None:
    """Return the publishers in the file at `path`, or None if `path` is None.

    Raise ConfigError if this file, or a file that it names, can't be read or is invalid.
    """
    read = read_publishers(path)
    return None if read is None else parse_publishers(read, path)


def read_publishers(path: Path | None) -> bytes | None:
    """Read the file at `path`, and the files of jurisdictions that it names, into one bytes object.

    Return None if `path` is None. Raise ConfigError if a file can't be read.
    """
    if path is None:
        return None
    text, left = _read(path, path, MAX_BYTES)
    tables, wrong = _checked(text, path)
    maps = {}
    for name in sorted({table.jurisdiction for table in tables.values() if table.jurisdiction is not None}):
        try:
            maps[name], left = _read(path, path.with_name(name), left)
        except ConfigError as error:
            wrong.append(str(error))
    if wrong:
        raise ConfigError(*wrong)
    packed: bytes = msgpack.packb((text, maps))
    return packed


@lru_cache(maxsize=1)  # keep the result, so that a reload of unchanged files takes no time
def parse_publishers(read: bytes, path: Path | None) -> Publishers:
    """Return the publishers described by `read`, which is a result of `read_publishers`.

    Raise ConfigError if it is invalid, with one line for each mistake in the tables. `path` is only used in error
    messages.
    """
    text, maps = msgpack.unpackb(read)
    parsed, wrong = _checked(text, path)
    drawn = {}
    for name, data in maps.items():
        try:
            drawn[name] = parse_jurisdiction(data)
        except ValueError as error:
            wrong.append(f"publishers {_shown(path, Path(name))}: {error}")
    if wrong:
        raise ConfigError(*wrong)
    found: dict[str, dict[str, Bounds]] = {"": {}}
    for (issuer, sub), table in parsed.items():
        found.setdefault(issuer, {})[sub] = _bounds(table, drawn)
    return Publishers(found.pop(""), {issuer: Publishers(bounds) for issuer, bounds in found.items()})


def _bounds(table: _Table, drawn: Mapping[str, Jurisdiction]) -> Bounds:
    jurisdiction = None if table.jurisdiction is None else drawn[table.jurisdiction]
    return Bounds(**{**dict(table), "jurisdiction": jurisdiction})


def _read(path: Path, file: Path, left: int) -> tuple[bytes, int]:
    """Return the content of `file`, and how many bytes the files after it may have.

    `left` is the number of bytes that `file` and all files after it may have together. Raise ConfigError if the file
    can't be read, or is longer than that. `path` is that of the publishers' file, for error messages.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(left + 1)
    except OSError as error:
        raise ConfigError(f"publishers {_shown(path, file)}: {error.strerror}") from None
    if len(data) > left:
        raise ConfigError(f"publishers {path}: must have at most {MAX_BYTES:,} bytes, jurisdictions included")
    return data, left - len(data)


def _tables(text: bytes, path: Path | None) -> dict[tuple[str, str], Any]:
    """Return the tables of the publishers' file, not checked yet, by issuer and `sub` (rule HD5).

    Raise ConfigError if `text` is not TOML, or has anything other than tables of publishers.
    """
    found = parse_toml(text, f"publishers {path}")
    issuers = found.pop("issuers", {})
    sections: dict[str, Any] = {"": found} if found else {}
    sections |= issuers if isinstance(issuers, dict) and "" not in issuers else {"": issuers}  # "" is refused
    by_issuer = {issuer: _section(each) for issuer, each in sections.items()}
    if not by_issuer or not all(by_issuer.values()):
        takes = '[publishers."SUB"] and [issuers."ISSUER".publishers."SUB"], at least one, and nothing else'
        raise ConfigError(f"publishers {path}: takes tables {takes}")
    return {(issuer, sub): table for issuer, tables in by_issuer.items() for sub, table in tables.items()}


def _section(section: object) -> dict[str, Any]:
    """Return the tables of publishers in a section of the file, as a dict with `sub` as the key.

    The dict is empty if the section has anything other than `publishers`.
    """
    match section:
        case {"publishers": dict(tables), **others} if not others:
            return tables
    return {}


def _checked(text: bytes, path: Path | None) -> tuple[dict[tuple[str, str], _Table], list[str]]:
    """Return the valid tables of the publishers' file by issuer and `sub`, and a line for each mistake in the others.

    Raise ConfigError if the file has anything other than tables of publishers.
    """
    file = f"publishers {path}"
    valid: dict[tuple[str, str], _Table] = {}
    wrong: list[str] = []
    for number, ((issuer, sub), keys) in enumerate(_tables(text, path).items(), start=1):
        where = f'"{issuer}"."{sub}"' if issuer else f'"{sub}"'
        if sub != ALL_OTHERS and not is_id(sub):
            where = f"table {number}"
            wrong.append(f"{file}: {where}: its name can't be a sub: it must match the grammar of id, or be *")
        try:
            valid[issuer, sub] = _Table.model_validate(keys)
        except ValidationError as error:
            found = mistakes(error, _Table, keys)
            wrong += listed(file, {f"{where}.{key or 'table'}": why for key, why in found.items()})
    return valid, wrong


def _shown(path: Path | None, file: Path) -> str:
    return str(path) if file == path else f"{path}: {file.name}"
