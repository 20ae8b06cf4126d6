"""The targets: where events are posted, and what each target asks for. They are read from the file of `--targets`.

    [targets.siren-north]
    url          = "https://sirens.example/hooks/north"
    secret_file  = "siren-north.secret"
    min_severity = "severe"
    polygon      = [[16.2, 48.1], [16.6, 48.1], [16.6, 48.3], [16.2, 48.3]]

The files that a table names are in the folder of the TOML file or below it, or are named by absolute paths. Error
messages name a target and a key, and never repeat a value, because URLs and header fields may be secret (rule WH8).
"""

import hashlib
import ipaddress
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from ..clock import Clock
from ..egress.post_client import HttpPostClient
from ..egress.tls import system_tls, tls_trusting
from ..model.alert import SEVERITY_RANK, Alert, Severity, Status
from ..model.errors import ConfigError, did_you_mean
from ..model.toml_file import TomlTable, listed, matching, mistakes, parse_toml
from .events import WORD, WORDS
from .region import Region
from .signing import UNSIGNED, WebhookSigner, parse_secrets

MAX_TARGETS = 100
MAX_FILE_BYTES = 1024 * 1024  # size of the file of targets, and of each file that it names
MAX_URL = 2_000
MAX_HEADERS = 20
_NAME = re.compile("[a-z0-9][a-z0-9_-]{0,63}")
_PLAIN = re.compile(r"[!-~]*")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+): *([ -~]*[!-~])")
_Category = Annotated[str, matching(re.compile("[a-z0-9_]{1,64}"), "must have 1 to 64 of a-z, 0-9 and _")]
_OWN_FIELDS = ("host", "content-length", "content-type", "transfer-encoding", "connection", "user-agent")


class TargetUrl(NamedTuple):
    """The URL of a target in the parts that a request needs. `authority` is for the field `Host`."""

    host: str
    port: int
    tls: bool
    authority: str
    path: str


@dataclass(frozen=True, slots=True)
class RelayTarget:
    """A target: where its events are posted, how they are signed, and which alerts it asks for.

    `text` is everything that was read about the target; two targets with the same text are the same.
    """

    name: str
    url: TargetUrl = field(repr=False)
    signer: WebhookSigner = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    tls: ssl.SSLContext | None = field(repr=False)
    text: object = field(repr=False)
    allow_private: bool = False
    categories: frozenset[str] | None = None
    min_rank: int = 0
    statuses: frozenset[str] = frozenset({"actual"})
    region: Region | None = None
    body: Any = field(default=None, repr=False)

    @property
    def url_digest(self) -> bytes:
        """A digest that stands for the URL in the state, which may not show the URL (WH8)."""
        return hashlib.sha256(f"{self.url.authority}{self.url.path}".encode()).digest()

    def client(self, clock: Clock) -> HttpPostClient:
        """Return a new client for requests to the target, on the event loop that is running now."""
        private = (self.url.host,) if self.allow_private else ()
        return HttpPostClient(lambda: clock.now().wall_ms, private, self.tls).open()

    def asks_for(self) -> str:
        """Return in a few words which alerts the target asks for."""
        severities = [name for name, rank in SEVERITY_RANK.items() if rank >= self.min_rank]
        categories = "all categories" if self.categories is None else ", ".join(sorted(self.categories))
        where = "everywhere" if self.region is None else "in a polygon"
        return f"{', '.join(sorted(self.statuses))}; {categories}; {', '.join(severities)}; {where}"

    def wants(self, alert: Alert) -> bool:
        """Return whether the target asks for an alert with this content (rule WH1)."""
        return (
            alert.status in self.statuses
            and SEVERITY_RANK[alert.severity] >= self.min_rank
            and (self.categories is None or alert.category in self.categories)
            and (self.region is None or self.region.meets(alert.shapes))
        )


class _Table(TomlTable):
    """The keys allowed in the table of one target."""

    url: str | None = None
    url_file: str | None = None
    secret_file: str | None = None
    unsigned: bool = False
    headers_file: str | None = None
    ca_file: str | None = None
    allow_private: bool = False
    allow_http: bool = False
    categories: Annotated[list[_Category], Field(min_length=1)] | None = None
    min_severity: Severity = "minor"
    statuses: Annotated[list[Status], Field(min_length=1, default_factory=lambda: ["actual"])]
    polygon: list[Annotated[list[float], Field(min_length=2, max_length=2)]] | None = None
    body: dict[str, Any] | None = None


def load_targets(path: Path) -> dict[str, RelayTarget]:
    """Return the targets in the file at `path`, by name.

    Raise ConfigError if a file can't be read or is invalid, with one line for each mistake.
    """
    file = f"targets {path}"
    try:
        found = parse_toml(_read(path), file)
    except ValueError as error:
        raise ConfigError(f"{file}: {error}") from None
    tables = found.pop("targets", None)
    if found or not isinstance(tables, dict) or not 1 <= len(tables) <= MAX_TARGETS:
        raise ConfigError(f"{file}: takes tables [targets.NAME], 1 to {MAX_TARGETS}, and nothing else")
    targets: dict[str, RelayTarget] = {}
    wrong: dict[str, str] = {}
    for number, (name, table) in enumerate(tables.items(), start=1):
        if _NAME.fullmatch(name) is None:
            wrong[f"table {number}"] = "its name must have 1 to 64 of a-z, 0-9, - and _"
            continue
        reader = _Reader(name, table, path.parent)
        targets[name] = reader.target()
        wrong |= {f"{name}.{key}": why for key, why in reader.wrong.items()}
    if wrong:
        raise ConfigError(*listed(file, wrong))
    return targets


class _Reader:
    """Reads the table of one target and the files that it names, and makes the target.

    `wrong` has the mistakes, by key. The parts of the target that have a mistake are None.
    """

    def __init__(self, name: str, table: Any, folder: Path) -> None:
        self._name, self._folder = name, folder
        self._files: dict[str, bytes] = {}
        self.wrong: dict[str, str] = {}
        try:
            self._table = _Table.model_validate(table)
        except ValidationError as error:
            found = mistakes(error, _Table, table)
            self.wrong |= {key or "table": why for key, why in found.items()}
            refused = {each["loc"][0] for each in error.errors() if each["loc"]}
            usable = table if isinstance(table, dict) else {}
            self._table = _Table.model_validate({key: usable[key] for key in usable.keys() - refused})

    def target(self) -> Any:
        """Return the target. It must not be used if `wrong` has a mistake."""
        table = self._table
        if (table.url is None) == (table.url_file is None) and not self.wrong.keys() & {"url", "url_file"}:
            self.wrong["url"] = "exactly one of url and url_file must be given"
        if table.unsigned == (table.secret_file is not None) and not self.wrong.keys() & {"unsigned", "secret_file"}:
            self.wrong |= {"secret_file": "must be given, or unsigned = true instead"}
        if table.url is not None:
            url = self._checked("url", lambda: parse_url(table.url or "", allow_http=table.allow_http))
        else:
            url = self._of_file("url_file", lambda text: parse_url(text.strip(), allow_http=table.allow_http))
        return RelayTarget(
            self._name,
            url,
            self._of_file("secret_file", parse_secrets, UNSIGNED),
            self._of_file("headers_file", _headers, {}),
            self._of_file("ca_file", tls_trusting, system_tls()) if url is not None and url.tls else None,
            (table.model_dump(), self._files),
            table.allow_private,
            None if table.categories is None else frozenset(table.categories),
            SEVERITY_RANK[table.min_severity],
            frozenset(table.statuses),
            None if table.polygon is None else self._checked("polygon", self._region),
            None if table.body is None else self._checked("body", lambda: _template(table.body)),
        )

    def _region(self) -> Region:
        return Region([(lng, lat) for lng, lat in self._table.polygon or ()])

    def _of_file(self, key: str, parse: Callable[[str], object], without: object = None) -> Any:
        """Return what `parse` makes of the text of the file that a key names; `without` if the key is not given."""
        name = getattr(self._table, key)
        if name is None:
            return without

        def parsed() -> object:
            self._files[key] = data = _read(self._folder / name)
            if not data.isascii():
                raise ValueError("the file must have ASCII only")
            return parse(data.decode())

        return self._checked(key, parsed)

    def _checked(self, key: str, make: Callable[[], object]) -> Any:
        """Return the result of `make`; None if it raises ValueError, which is then the mistake of the key."""
        try:
            return make()
        except ValueError as error:
            self.wrong.setdefault(key, str(error))
            return None


def parse_url(text: str, *, allow_http: bool = False) -> TargetUrl:
    """Return the parts of a target's URL. Raise ValueError, which doesn't repeat the URL, if it isn't allowed."""
    if len(text) > MAX_URL or _PLAIN.fullmatch(text) is None:
        raise ValueError(f"must have at most {MAX_URL:,} printable ASCII characters, without blanks")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("must be a URL") from None
    if parts.scheme not in ("https", "http"):
        raise ValueError("must be a URL with https")
    if parts.scheme == "http" and not allow_http:
        raise ValueError("must have https; allow_http = true permits http for this target")
    if "@" in parts.netloc or "#" in text:
        raise ValueError("must have no user name, no password and no fragment; headers_file takes Authorization")
    if not (_is_ipv6(host) if ":" in host else _HOST.fullmatch(host)) or port == 0 or parts.netloc.endswith(":"):
        raise ValueError("must have a host name or IP address, and a port from 1 to 65535 if it has one")
    tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return TargetUrl(host, port or (443 if tls else 80), tls, parts.netloc, path)


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _headers(text: str) -> dict[str, str]:
    """Return the header fields in a file that has a line `Name: value` for each."""
    lines = [line for line in text.splitlines() if line.strip()]
    found = [_FIELD.fullmatch(line) for line in lines]
    fields = {each[1]: each[2] for each in found if each is not None}
    if len(fields) != len(lines) or len(lines) > MAX_HEADERS:
        raise ValueError(f"expected lines Name: value, each name once, at most {MAX_HEADERS}")
    if any(name.lower() in _OWN_FIELDS or name.lower().startswith("webhook-") for name in fields):
        raise ValueError(f"must not have webhook-… or {', '.join(_OWN_FIELDS)}")
    return fields


def _template(body: Any) -> Any:
    """Return a target's own body. Raise ValueError if it has an unknown word in braces, or no JSON value."""
    if isinstance(body, dict | list):
        for each in body.values() if isinstance(body, dict) else body:
            _template(each)
    elif isinstance(body, str):
        if unknown := set(WORD.findall(body)) - WORDS:
            raise ValueError(f"knows only the words {', '.join(sorted(WORDS))}{did_you_mean(min(unknown), WORDS)}")
    elif not isinstance(body, bool | int) and not (isinstance(body, float) and abs(body) < float("inf")):
        raise ValueError("takes texts, numbers, booleans, lists and tables")
    return body


def _read(path: Path) -> bytes:
    """Return the content of a file. Raise ValueError if it can't be read, or is too large."""
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(error.strerror) from None
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"must have at most {MAX_FILE_BYTES:,} bytes")
    return data
