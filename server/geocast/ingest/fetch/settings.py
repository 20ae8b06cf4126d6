"""The settings of `geocast fetch`: its options, and the TOML file of `--feeds` (rule FE1).

    [feeds.belize-met]
    url        = "https://met.example/cap/feed.atom"
    interval_s = 60
    link_hosts = ["cap.met.example"]

Error messages name tables and keys, and never repeat a value, because a URL may contain a key.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PlainValidator, ValidationInfo

from ...egress.tls import system_tls, tls_trusting
from ...model.errors import ConfigError
from ...model.server_address import KeyUrl
from ...model.toml_file import TomlTable, matching, read_file

LEAST_INTERVAL_S, INTERVAL_S, MOST_INTERVAL_S = 15, 60, 86_400
MAX_URL = 2_000
LEAST_BYTES, MAX_BYTES, MOST_BYTES = 1024, 5 * 1024 * 1024, 64 * 1024 * 1024

_NAME = re.compile("[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_Name = Annotated[str, matching(_NAME, "must have 1 to 64 letters, digits or . _ -")]
_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"({_LABEL}\.)*{_LABEL}(:[1-9][0-9]{{0,4}})?")
_Host = Annotated[str, matching(_HOST, "must be HOST or HOST:PORT, in lower case")]
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}):[ \t]*([!-~]([ -~]{0,4000}[!-~])?)[ \t]*")  # RFC 9110, 5
# These header fields are set by the client. Another value could change how a server reads the request.
_OWN_FIELDS = (
    *("accept", "accept-encoding", "connection", "content-length", "expect", "host", "if-modified-since"),
    *("if-none-match", "te", "transfer-encoding", "upgrade"),
)


@dataclass(frozen=True, slots=True)
class WatchedFeed:
    """A feed that `geocast fetch` reads, as the file of feeds describes it.

    `hosts` are the hosts, each as HOST:PORT, that requests for this feed may go to.
    """

    name: str
    url: str
    hosts: frozenset[str]
    interval_s: int = INTERVAL_S
    token_file: Path | None = None
    max_bytes: int = MAX_BYTES
    ca_file: Path | None = None
    headers: tuple[tuple[str, str], ...] = ()
    allow_http: bool = False
    allow_private: bool = False

    def tls(self) -> ssl.SSLContext:
        """Return a TLS context that trusts the system's certificates, and those in `ca_file`.

        Raise ConfigError if `ca_file` can't be used.
        """
        try:
            return system_tls() if self.ca_file is None else _trusting(self.ca_file)
        except ValueError as error:
            raise ConfigError(f"feeds.{self.name}.ca_file: {error}") from None


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """The settings of a `geocast fetch` process."""

    feeds: Path
    api: KeyUrl
    token_file: Path | None
    state: Path

    @property
    def cap_url(self) -> str:
        """The URL that messages are posted to."""
        return f"{str(self.api).rstrip('/')}/v1/cap"


def host_of(url: str) -> str | None:
    """Return the host and port of an http or https URL as HOST:PORT in lower case.

    Return None if the URL is not of that form, or contains a user name.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or not host.isascii():
        return None
    return f"{host}:{port or (443 if parts.scheme == 'https' else 80)}"


# ---- the file of feeds ---------------------------------------------------------------------------------------------


def _url(url: str, read: ValidationInfo) -> str:
    if len(url) > MAX_URL or not url.isprintable() or " " in url or "#" in url or host_of(url) is None:
        raise ValueError("expected https://HOST/PATH, without a user and a fragment")
    if url.startswith("http:") and not read.data.get("allow_http"):
        raise ValueError("http:// can be altered on the way: give https://, or allow_http = true")
    return url


def _path(name: object, read: ValidationInfo) -> Path:
    """Return the path of a file that the file of feeds names. `read.context` is the folder of the file of feeds."""
    if not isinstance(name, str):
        raise ValueError("must be a text")
    return Path(read.context or "", name)


def _trusting(path: Path) -> ssl.SSLContext:
    try:
        return tls_trusting(path.read_text("ascii"))
    except ValueError:  # or the file is not ASCII
        raise ValueError("no certificates in PEM") from None
    except OSError as error:
        raise ValueError(str(error.strerror)) from None


def _with_certificates(path: Path) -> Path:
    _trusting(path)
    return path


def _headers(name: object, read: ValidationInfo) -> tuple[tuple[str, str], ...]:
    """Return the header fields in a file, one `Name: value` a line. Empty lines are ignored."""
    try:
        lines = _path(name, read).read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(getattr(error, "strerror", None) or "not ASCII") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        field = _HEADER.fullmatch(line)
        if field is None or field[1].lower() in _OWN_FIELDS:
            raise ValueError(f"line {number}: expected Name: value, of a field of your own")
        found.append((field[1], field[2]))
    return tuple(found)


_File = Annotated[Path, PlainValidator(_path)]


class _FeedKeys(TomlTable):
    """The keys allowed in the table of one feed. `allow_http` is the first, because `url` depends on it."""

    allow_http: bool = False
    url: Annotated[str, AfterValidator(_url)]
    interval_s: Annotated[int, Field(ge=LEAST_INTERVAL_S, le=MOST_INTERVAL_S)] = INTERVAL_S
    token_file: _File | None = None
    link_hosts: Annotated[list[_Host], Field(max_length=100, default_factory=list)]
    max_bytes: Annotated[int, Field(ge=LEAST_BYTES, le=MOST_BYTES)] = MAX_BYTES
    ca_file: Annotated[_File, AfterValidator(_with_certificates)] | None = None
    headers_file: Annotated[tuple[tuple[str, str], ...], PlainValidator(_headers)] = ()
    allow_private: bool = False


class _FeedsFile(TomlTable):
    """The whole content of the file of feeds."""

    feeds: Annotated[dict[_Name, _FeedKeys], Field(min_length=1, max_length=1000)]


def load_feeds(path: Path) -> Mapping[str, WatchedFeed]:
    """Return the feeds in the file at `path`, by name. Files that it names are relative to its folder.

    Raise ConfigError if a file can't be read or is invalid, with one line for each mistake.
    """
    read = _FeedsFile.of_file(read_file("--feeds", path), f"--feeds {path}", path.parent)
    return {name: _feed(name, keys) for name, keys in read.feeds.items()}


def _feed(name: str, keys: _FeedKeys) -> WatchedFeed:
    ports = ("443", "80") if keys.allow_http else ("443",)
    hosts = {
        host_of(keys.url) or "",
        *(each if ":" in each else f"{each}:{port}" for each in keys.link_hosts for port in ports),
    }
    rest = keys.model_dump(exclude={"link_hosts", "headers_file"})
    return WatchedFeed(name, hosts=frozenset(hosts), headers=keys.headers_file, **rest)
