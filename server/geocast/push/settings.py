"""The settings of `geocast push`, and checks of them.

A setting that can't work raises a ConfigError that names its command-line option.
"""

import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..config import REDIS_SCHEMES, SHARE, FollowerSettings
from ..egress.tls import tls_trusting
from ..model.errors import ConfigError
from ..model.server_address import Address, KeyUrl
from ..model.toml_file import read_file
from .addresses import DEFAULT_SERVICES

_CONTACT = re.compile(r"mailto:[^\s@,]{1,200}@[^\s@,]{1,200}|https://[^\s,]{1,300}")
_DEVICES = re.compile(rf"sqlite:.+|memory:|(?:{'|'.join(map(re.escape, REDIS_SCHEMES))})://.+", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class PushSettings(FollowerSettings):
    """The settings of a `geocast push` process, which pushes alerts to devices."""

    listen: Address
    devices: str
    push_keys: Path
    vapid: Path
    contact: str
    metrics: Address | None = None
    origins: tuple[str, ...] = ()
    services: str = DEFAULT_SERVICES
    private: tuple[str, ...] = ()
    push_ca: Path | None = None
    finest_cell: int = 9
    lease_days: int = 30
    workers: int = 1
    max_devices: int = 200_000
    devices_replicas: int = 0
    share: float = SHARE

    def problems(self) -> Iterator[str]:
        """Yield one line of text for each problem with these settings."""
        if not _CONTACT.fullmatch(self.contact):
            yield "--contact: expected mailto:NAME@HOST or https://…, where push services can reach the operator"
        if not _DEVICES.fullmatch(self.devices):
            yield "--devices: expected sqlite:PATH, a URL of Redis (redis://HOST:PORT), or memory: for a trial"
        if self.devices_replicas and not self.devices.startswith(REDIS_SCHEMES):
            yield "--devices-replicas: only a Redis has replicas"
        if self.workers > 1 and not self.devices.startswith("sqlite:"):
            yield "--workers is for devices in one SQLite file; with a Redis start as many processes as you want"
        yield from FollowerSettings.problems(self)
        if isinstance(self.keys, KeyUrl) and not self.keys.tls:
            yield "--keys http:// could be altered on the way: give https:// or a file"
        if self.metrics == self.listen:
            yield f"two listeners can't share an address: {self.listen}"


def trusted(path: Path | None) -> ssl.SSLContext:
    """Return a TLS context that trusts the system's certificates.

    `path` is the value of `--push-ca`. If it is not None, the context also trusts the certificates in that file. Raise
    ConfigError if the file can't be read or holds no certificate.
    """
    if path is None:
        return ssl.create_default_context()
    try:
        return tls_trusting(read_file("--push-ca", path).decode())
    except ValueError:
        raise ConfigError(f"--push-ca {path}: no certificates in PEM") from None
