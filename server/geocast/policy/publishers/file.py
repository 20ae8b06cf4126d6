"""Reads the publishers' file: TOML, with GeoJSON files for jurisdictions in the same folder.

All of these files are read into one bytes object, which is then parsed. So a reload uses either all of them or none,
other processes can get exactly the same content, and nodes can compare their files by one digest (rule BA2).
"""

import tomllib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import msgpack
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...model.alert import Severity, Status, is_id
from ...model.errors import ConfigError, did_you_mean
from .bounds import ALL_OTHERS, Bounds, Publishers
from .jurisdiction import Jurisdiction, parse_jurisdiction

MAX_BYTES = 1024 * 1024  # of all files together; to parse this many on the event loop takes 0.1 s
MOST_PER_HOUR = 10_000

_NAME = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$"  # the name of a file in the same folder, so without a slash
_Category = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    categories: Annotated[list[_Category], Field(min_length=1)] | None = None
    statuses: Annotated[list[Status], Field(min_length=1)] | None = None
    max_severity: Severity = "extreme"
    max_radius_m: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    jurisdiction: Annotated[str, Field(pattern=_NAME)] | None = None
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
    maps = {}
    for name in sorted(set(_named(_tables(text, path)))):
        maps[name], left = _read(path, path.with_name(name), left)
    packed: bytes = msgpack.packb((text, maps))
    return packed


@lru_cache(maxsize=1)  # keep the result, so that a reload of unchanged files takes no time
def parse_publishers(read: bytes, path: Path | None) -> Publishers:
    """Return the publishers described by `read`, which is a result of `read_publishers`.

    Raise ConfigError if it is invalid, with one line for each mistake in the tables. `path` is only used in error
    messages.
    """
    text, maps = msgpack.unpackb(read)
    tables = _tables(text, path)
    parsed: dict[tuple[str, str], _Table] = {}
    wrong: list[str] = []
    for number, ((issuer, sub), keys) in enumerate(tables.items(), start=1):
        if sub != ALL_OTHERS and not is_id(sub):
            wrong.append(f"table {number}: its name can't be a sub: it must match the grammar of id, or be *")
            continue
        try:
            parsed[issuer, sub] = _Table.model_validate(keys)
        except ValidationError as error:
            where = f'"{issuer}"."{sub}"' if issuer else f'"{sub}"'
            wrong += [f"{where}.{each}" for each in _problems(error)]
    if wrong:
        raise ConfigError(*(f"publishers {path}: {each}" for each in wrong))
    drawn = {name: _jurisdiction(data, name, path) for name, data in maps.items()}
    found: dict[str, dict[str, Bounds]] = {"": {}}
    for (issuer, sub), table in parsed.items():
        found.setdefault(issuer, {})[sub] = _bounds(table, drawn)
    return Publishers(found.pop(""), {issuer: Publishers(bounds) for issuer, bounds in found.items()})


def _bounds(table: _Table, drawn: Mapping[str, Jurisdiction]) -> Bounds:
    return Bounds(
        None if table.categories is None else frozenset(table.categories),
        None if table.statuses is None else frozenset(table.statuses),
        table.max_severity,
        table.max_radius_m,
        None if table.jurisdiction is None else drawn[table.jurisdiction],
        table.per_minute,
        table.per_hour,
    )


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
    try:
        found = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"publishers {path}: not TOML: {error}") from None
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


def _named(tables: Mapping[Any, Any]) -> Iterator[str]:
    """Yield the names of the jurisdiction files to which the tables refer.

    Invalid tables are skipped here. They are refused later, when they are parsed.
    """
    for table in tables.values():
        try:
            name = _Table.model_validate(table).jurisdiction
        except ValidationError:
            continue
        if name is not None:
            yield name


def _jurisdiction(data: bytes, name: str, path: Path | None) -> Jurisdiction:
    try:
        return parse_jurisdiction(data)
    except ValueError as error:
        raise ConfigError(f"publishers {_shown(path, Path(name))}: {error}") from None


def _shown(path: Path | None, file: Path) -> str:
    return str(path) if file == path else f"{path}: {file.name}"


def _problems(error: ValidationError) -> Iterator[str]:
    for each in error.errors(include_url=False, include_input=False):
        key = ".".join(map(str, each["loc"])) or "table"
        if each["type"] == "extra_forbidden":
            yield f"{key}: is not a key of a publisher{did_you_mean(str(each['loc'][-1]), _Table.model_fields)}"
        elif each["type"] == "string_pattern_mismatch" and each["loc"][0] == "jurisdiction":
            yield f"{key}: must be the name of a file in the same folder, without a path"
        else:
            yield f"{key}: {each['msg']}"
