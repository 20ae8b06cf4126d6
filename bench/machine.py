"""Facts about the environment of a measurement: the machine, the commit, the versions, and the cores used."""

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("geocast", "uvloop", "websockets", "numpy", "h3", "h11", "uvicorn", "pydantic", "PyJWT", "socketify")
DEBIAN_PACKAGES = ("nginx", "libnginx-mod-nchan", "nats-server", "redis-server")

_ALLOWED = os.sched_getaffinity(0)  # read before this process restricts its own cores


@dataclass(frozen=True, slots=True)
class Cores:
    """The CPU cores of the server and those of the clients.

    The server has a core of its own. The clients and the benchmark share the other cores, or use the server's core if
    there is no other.
    """

    server: frozenset[int]
    clients: frozenset[int]


def cores() -> Cores:
    """Return which cores are used for what: the server gets the first core that this process may use."""
    first, *others = sorted(_ALLOWED)
    return Cores(frozenset({first}), frozenset(others or {first}))


def facts() -> dict[str, Any]:
    """Return the main facts about the machine by name, without its host name and address."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": len(_ALLOWED),
        "memory_gib": round(int(_field("/proc/meminfo", "MemTotal").split()[0]) / 2**20, 1),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def available_bytes() -> int:
    """Return the memory that is still available to programs, in bytes."""
    return int(_field("/proc/meminfo", "MemAvailable").split()[0]) * 1024


def versions() -> dict[str, str]:
    """Return, by name, the versions of Python and of the installed packages that take part in the measurements."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | _debian_versions()


def commit() -> str:
    """Return the id of the checked-out commit, or "unknown" if there is no repository.

    A plus sign is appended if files of the server differ from that commit.
    """
    head = _output("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    changed = _output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no", "server")
    return (head + "+" * bool(changed)) or "unknown"


def _debian_versions() -> dict[str, str]:
    found = {}
    for name in DEBIAN_PACKAGES:
        version = _output("dpkg-query", "-W", "-f", "${Version}", name)
        if version:
            found[name] = version
    return found


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "0"
