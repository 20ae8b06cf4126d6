"""The settings of `geocast fetch`: its options, and the TOML file of `--feeds` (rule FE1).

    [feeds.belize-met]
    url        = "https://met.example/cap/feed.atom"
    interval_s = 60
    link_hosts = ["cap.met.example"]

Error messages name tables and keys, and never repeat a value, because a URL may contain a key.
"""

import re
import ssl
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...config import Address, KeyUrl
from ...egress.tls import tls_trusting
from ...model.errors import ConfigError, did_you_mean

LEAST_INTERVAL_S, INTERVAL_S, MOST_INTERVAL_S = 15, 60, 86_400
LEAST_BYTES, MAX_BYTES, MOST_BYTES = 1024, 5 * 1024 * 1024, 64 * 1024 * 1024

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_HOST = r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(:[1-9][0-9]{0,4})?$"
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

    @property
    def own_host(self) -> str:
        """The feed's own host as HOST:PORT, the only one that is sent the feed's secret headers."""
        return host_of(self.url) or ""

    def tls(self) -> ssl.SSLContext:
        """Return a TLS context that trusts the system's certificates, and those in `ca_file`.

        Raise ConfigError if `ca_file` can't be used.
        """
        if self.ca_file is None:
            return ssl.create_default_context()
        try:
            return tls_trusting(self.ca_file.read_text("ascii"))
        except ValueError:  # or the file is not ASCII
            raise ConfigError(f"feeds.{self.name}.ca_file: no certificates in PEM") from None
        except OSError as error:
            raise ConfigError(f"feeds.{self.name}.ca_file: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """The settings of a `geocast fetch` process."""

    feeds: Path
    api: KeyUrl
    token_file: Path | None
    state: Path
    metrics: Address | None = None

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


class _FeedKeys(BaseModel):
    """The keys allowed in the table of one feed."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    url: Annotated[str, Field(pattern=r"^https?://[!-~]{1,2000}$")]
    interval_s: Annotated[int, Field(ge=LEAST_INTERVAL_S, le=MOST_INTERVAL_S)] = INTERVAL_S
    token_file: str | None = None
    link_hosts: Annotated[list[Annotated[str, Field(pattern=_HOST)]], Field(max_length=100)] = []
    max_bytes: Annotated[int, Field(ge=LEAST_BYTES, le=MOST_BYTES)] = MAX_BYTES
    ca_file: str | None = None
    headers_file: str | None = None
    allow_http: bool = False
    allow_private: bool = False


class _FeedsFile(BaseModel):
    """The whole content of the file of feeds."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    feeds: Annotated[dict[str, _FeedKeys], Field(min_length=1, max_length=1000)]


def load_feeds(path: Path) -> Mapping[str, WatchedFeed]:
    """Return the feeds in the file at `path`, by name. Files that it names are relative to its folder.

    Raise ConfigError if a file can't be read or is invalid, with one line for each mistake.
    """
    try:
        read = _FeedsFile.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise ConfigError(f"--feeds {path}: {error.strerror}") from None
    except ValidationError as error:
        raise ConfigError(*(f"--feeds {path}: {_mistake(each)}" for each in error.errors(include_url=False))) from None
    except (ValueError, RecursionError) as error:  # not TOML, or not UTF-8
        where = re.search(r"\((at [^()]*)\)$", str(error))
        raise ConfigError(f"--feeds {path}: not TOML{f': {where[1]}' if where else ''}") from None
    feeds, mistakes = {}, []
    for number, (name, keys) in enumerate(read.feeds.items(), start=1):
        try:
            feeds[name] = _feed(name, keys, path.parent, number)
        except ConfigError as error:
            mistakes.append(f"--feeds {path}: {error}")
    if mistakes:
        raise ConfigError(*mistakes)
    return feeds


def _feed(name: str, keys: _FeedKeys, folder: Path, number: int) -> WatchedFeed:
    if _NAME.fullmatch(name) is None:
        raise ConfigError(f"feeds: entry {number}: its name must have 1 to 64 letters, digits or . _ -")
    own = host_of(keys.url)
    if own is None or "#" in keys.url:
        raise ConfigError(f"feeds.{name}.url: expected https://HOST/PATH, without a user and a fragment")
    if keys.url.startswith("http:") and not keys.allow_http:
        raise ConfigError(f"feeds.{name}.url: http:// can be altered on the way: give https://, or allow_http = true")
    ports = ("443", "80") if keys.allow_http else ("443",)
    hosts = {own, *(each if ":" in each else f"{each}:{port}" for each in keys.link_hosts for port in ports)}
    feed = WatchedFeed(
        name=name,
        url=keys.url,
        hosts=frozenset(hosts),
        interval_s=keys.interval_s,
        token_file=None if keys.token_file is None else folder / keys.token_file,
        max_bytes=keys.max_bytes,
        ca_file=None if keys.ca_file is None else folder / keys.ca_file,
        headers=() if keys.headers_file is None else _headers(name, folder / keys.headers_file),
        allow_http=keys.allow_http,
        allow_private=keys.allow_private,
    )
    feed.tls()
    return feed


def _headers(name: str, path: Path) -> tuple[tuple[str, str], ...]:
    """Return the header fields in a file, one `Name: value` a line. Empty lines are ignored."""
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"feeds.{name}.headers_file: {getattr(error, 'strerror', None) or 'not ASCII'}") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        field = _HEADER.fullmatch(line)
        if field is None or field[1].lower() in _OWN_FIELDS:
            raise ConfigError(f"feeds.{name}.headers_file: line {number}: expected Name: value, of a field of your own")
        found.append((field[1], field[2]))
    return tuple(found)


def _mistake(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = _FeedKeys.model_fields if error["loc"][0] == "feeds" else _FeedsFile.model_fields
        return f"{where}: is no key of a feed{did_you_mean(str(error['loc'][-1]), known)}"
    return f"{where}: {error['msg']}"
