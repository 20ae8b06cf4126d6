"""The parser for Redis URLs, and the requirements for a server that keeps durable data. It opens no connections.

    redis://[[USER]:PASSWORD@]HOST[:PORT][/DB][?…]
    redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT],HOST[:PORT],…/SERVICE[/DB][?…]     the hosts are Sentinels

    rediss:// and rediss+sentinel:// use TLS and check certificates. Parameters in the query:
    prefix=NAME             the prefix of all keys, which is put in braces; the default depends on the option
    ca=PATH                 the authority that signed the server's certificate, if the system does not trust it
    sentinel_username=, sentinel_password=      for the Sentinels themselves

A URL contains passwords, so error messages never repeat any part of it. `str(target)` has no secrets and may be logged.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from ...model.errors import ConfigError
from ...model.server_address import Address

OLDEST = (7, 2)  # the first release of Redis that has WAITAOF
PORT, SENTINEL_PORT = 6379, 26379
EXPOSED = "a Redis beyond this machine needs TLS (rediss) or a password: anybody could write to it"
# `urlsplit` is not used because since Python 3.13 it refuses a list of hosts with an IPv6 address in it.
_URL = re.compile(r"(?P<scheme>[a-z+]+)://(?P<hosts>[^/?#]*)(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?")
_QUERY = {"prefix", "ca", "sentinel_username", "sentinel_password"}
_FORMS = (
    "expected redis://HOST:PORT/DB or redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB (rediss for TLS), "
    "with USER:PASSWORD@ before the host if needed"
)


@dataclass(frozen=True, slots=True)
class Target:
    """The parts of a Redis URL: the servers, and how to connect to them."""

    hosts: tuple[Address, ...]
    service: str  # the Sentinels' name for the primary; "" without Sentinels
    db: int
    tls: bool
    ca: str | None
    prefix: str
    username: str | None
    password: str | None
    sentinel_username: str | None
    sentinel_password: str | None

    def exposes(self, host: Address) -> bool:
        """Return whether other machines could use a Redis server on this host without a password and without TLS."""
        return not (self.tls or self.password or host.is_loopback)

    def __str__(self) -> str:
        hosts = ",".join(map(str, self.hosts))
        return f"{self.service} of the Sentinels {hosts}" if self.service else f"Redis at {hosts}"


def parse(url: str, option: str = "--log", prefix: str = "geocast") -> Target:
    """Return the parts of a Redis URL.

    Raise ConfigError if the URL is not valid, or if anybody in the network could use the Redis server. `option` is the
    command line option with this URL, for error messages. `prefix` is the default prefix of the keys.
    """
    parts = _URL.fullmatch(url)
    if parts is None:
        raise ConfigError(f"{option}: {_FORMS}")
    try:
        query = dict(parse_qsl(parts["query"], keep_blank_values=True, strict_parsing=True)) if parts["query"] else {}
    except ValueError:
        raise ConfigError(f"{option}: {_FORMS}") from None
    secret, _, hosts = parts["hosts"].rpartition("@")
    username, _, password = secret.partition(":")
    sentinel = parts["scheme"].endswith("+sentinel")
    path = [unquote(step) for step in (parts["path"] or "").split("/") if step]
    service = path.pop(0) if sentinel and path else ""
    db = path.pop(0) if path else "0"
    if path or bool(service) != sentinel or not db.isascii() or not db.isdigit():
        raise ConfigError(f"{option}: {_FORMS}")
    if unknown := query.keys() - _QUERY:
        raise ConfigError(f"{option}: {len(unknown)} unknown parameters; known are {', '.join(sorted(_QUERY))}")
    prefix = query.get("prefix", prefix)
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", prefix):
        raise ConfigError(f"{option}: prefix must be 1 to 64 of A-Z a-z 0-9 . _ : -")
    target = Target(
        hosts=tuple(_address(host, SENTINEL_PORT if sentinel else PORT, option) for host in hosts.split(",")),
        service=service,
        db=int(db),
        tls=parts["scheme"].startswith("rediss"),
        ca=query.get("ca"),
        prefix=prefix,
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_username=query.get("sentinel_username"),
        sentinel_password=query.get("sentinel_password"),
    )
    if not sentinel and len(target.hosts) > 1:
        raise ConfigError(f"{option}: {_FORMS}")
    if any(map(target.exposes, target.hosts)):
        raise ConfigError(f"{option}: {EXPOSED}")
    return target


def _address(text: str, port: int, option: str) -> Address:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]\s]+)(?::([0-9]{1,5}))?", text)
    if match is None or not 0 < int(match[2] or port) < 65536:
        raise ConfigError(f"{option}: {_FORMS}")
    return Address(match[1].strip("[]"), int(match[2] or port))


def unfit(info: Mapping[str, Any], *, volatile: bool, keeps: str = "alerts") -> str | None:
    """Return the reason why a Redis server can't keep durable data, or None if it can.

    `info` is the server's answer to the command INFO. If a value is missing from the answer, the requirement counts as
    not met. `keeps` names the data for the returned text, such as "alerts".
    """
    version = tuple(int(part) for part in re.findall(r"\d+", str(info.get("redis_version", "")))[:2])
    if version < OLDEST:
        return f"geocast needs Redis {'.'.join(map(str, OLDEST))} or later"
    if info.get("cluster_enabled") != 0:
        return "it runs in cluster mode, which geocast does not speak"
    if not volatile and info.get("aof_enabled") != 1:
        accepted = "; --allow-volatile-log accepts that" if keeps == "alerts" else ""
        return f"it has no append-only file (appendonly yes), and would forget {keeps}{accepted}"
    if info.get("maxmemory") != 0 and info.get("maxmemory_policy") != "noeviction":
        return f"it may evict {keeps}: set maxmemory-policy noeviction"
    return None
