"""The sources of CAP messages: the systems that may send them, read from the TOML file of `--cap-sources`.

    [sources.belize-met]
    approver      = "NMS Belize: CAP Composer's approval workflow"
    senders       = ["drudon@nms.gov.bz"]
    secret_sha256 = "9f86d0…"
    assume_offset = "+00:00"

Error messages name keys of the file, and never repeat a value, because the file has hashes of secrets.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from ...model.alert import ID_PATTERN
from ...model.times import parse_time
from ...model.toml_file import TomlTable, matching, read_file
from .message import is_name

ANY = "*"  # in `senders`: the source may send messages for any sender, as aggregators do
MIN_SECRET = 32  # the smallest number of characters of a secret
MAX_SECRET = 255  # the largest number of characters of a secret, which is CAP Composer's limit for its header
_ID = re.compile(ID_PATTERN)
_DIGEST = re.compile("[0-9a-fA-F]{64}")
_SHA256 = matching(_DIGEST, "must be the SHA-256 of the secret: 64 hexadecimal digits")
_NAME = matching(_ID, "must match the grammar of an id: letters, digits and . _ : -")


@dataclass(frozen=True, slots=True)
class CapSource:
    """A source of CAP messages: a system that may send them to this node.

    The source's alerts have its `name` as their `source`, and `approver` as the reviewer who approved them. `senders`
    has the values that the source may use in the element `<sender>`. `secret_sha256` is the hash of its webhook secret;
    None if it has no secret. `assume_offset` is the UTC offset for times without an offset; if it is None, such times
    are refused. `issuer` is the issuer of the source's tokens; "" if they are signed with a key that has no issuer
    (rule HD5).
    """

    name: str
    approver: str
    senders: frozenset[str]
    secret_sha256: bytes | None = field(repr=False)
    assume_offset: str | None
    issuer: str = ""

    def speaks_for(self, sender: str) -> bool:
        """Return whether the source may send messages with this value of `<sender>`.

        Senders are compared literally (rule CP1).
        """
        return sender in self.senders or ANY in self.senders


@dataclass(repr=False, slots=True)
class CapSources:
    """The configured sources of CAP messages. Two objects of this class are equal if they have the same sources."""

    by_name: Mapping[str, CapSource]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the sources, in the order of the file."""
        return tuple(self.by_name)

    def named(self, sub: str, issuer: str = "") -> CapSource | None:
        """Return the source whose tokens have this `sub` and this issuer (rule HD5); None if there is none."""
        found = self.by_name.get(sub)
        return found if found is not None and found.issuer == issuer else None

    def of_secret(self, secret: str) -> CapSource | None:
        """Return the source with this webhook secret; None if there is no such source.

        All sources are compared, so the time that this takes does not reveal anything about their secrets.
        """
        if not MIN_SECRET <= len(secret) <= MAX_SECRET:
            return None
        digest = hashlib.sha256(secret.encode("latin-1", "replace")).digest()
        found = None
        for source in self.by_name.values():
            if hmac.compare_digest(digest, source.secret_sha256 or b""):
                found = source
        return found


# ---- reading the file ----------------------------------------------------------------------------------------------


def _sender(text: str) -> str:
    if text != ANY and not is_name(text):
        raise ValueError('must be a <sender> without blanks, commas, "<" and "&", or "*"')
    return text


def _offset(text: str) -> str:
    try:
        parse_time(f"2000-01-01T00:00:00{text}")
    except ValueError:
        raise ValueError("must be an offset such as +00:00") from None
    return text


class _Keys(TomlTable):
    """The keys allowed in the table of one source, in the file of sources."""

    approver: Annotated[str, Field(min_length=1, max_length=128)]
    senders: Annotated[
        list[Annotated[str, AfterValidator(_sender)]], Field(min_length=1, max_length=1000), AfterValidator(frozenset)
    ]
    secret_sha256: Annotated[str, _SHA256, AfterValidator(bytes.fromhex)] | None = None
    assume_offset: Annotated[str, AfterValidator(_offset)] | None = None
    issuer: Annotated[str, Field(min_length=1)] = ""


def _differ(sources: dict[str, _Keys]) -> dict[str, _Keys]:
    secrets = [keys.secret_sha256 for keys in sources.values() if keys.secret_sha256 is not None]
    if len(set(secrets)) < len(secrets):
        raise ValueError("two sources have the same secret_sha256")
    return sources


class _File(TomlTable):
    """The whole content of the file of sources."""

    sources: Annotated[
        dict[Annotated[str, _NAME], _Keys], Field(min_length=1, max_length=1000), AfterValidator(_differ)
    ]


def load(path: Path) -> CapSources:
    """Return the sources in the file at `path`.

    Raise ConfigError if the file can't be read or is invalid, with one line for each mistake.
    """
    return parse(read_file("cap-sources", path), path)


def parse(data: bytes, path: Path | None) -> CapSources:
    """Return the sources in `data`, the content of a TOML file.

    Raise ConfigError if the content is invalid, with one line for each mistake. `path` is only used in error messages.
    """
    read = _File.of_file(data, f"cap-sources {path}")
    return CapSources({name: CapSource(name, **dict(keys)) for name, keys in read.sources.items()})
