"""`geocast push`: run the server that wakes sleeping phones by Web Push."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..config import SHARE
from . import journal
from .options import ADDRESS, KEYS, LOG_LEVELS, ORIGINS, SHARE_HELP, SHARE_TYPE, option
from .serve import command as serve
from .serve import run
from .starting import starting

_FILE = click.Path(path_type=Path)


def _names(_context: click.Context, _option: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


@click.command("push", short_help="Wake sleeping phones by Web Push.")
@option(
    "--listen",
    type=ADDRESS,
    default="127.0.0.1:8767",
    help="Where devices are registered (HTTP).",
)
@option("--metrics", type=ADDRESS, help="Where /metrics, /healthz and /readyz are served.")
@option("--log", metavar="URL", default="sqlite:geocast.db", help="The alert log of the nodes.")
@option(
    "--devices", metavar="URL", default="sqlite:devices.db", help="Where devices are stored: sqlite:PATH or redis://…."
)
@option("--devices-replicas", type=click.IntRange(0, 10), default=0, help="Replicas of Redis that must have it too.")
@option("--push-keys", type=_FILE, required=True, help="Keys that encrypt devices (JWKS; keygen --push).")
@option("--vapid", type=_FILE, required=True, help="Keys that identify us to push services (JWKS; keygen --vapid).")
@option("--contact", required=True, metavar="URL", help="How push services can contact you: mailto:… or https://….")
@option(
    "--keys",
    type=KEYS,
    required=True,
    help="Public keys that tokens are checked against (JWKS): a file, or https://….",
)
@option("--keys-refresh-s", type=click.IntRange(1, 86_400), default=300, help="Seconds until a URL is read again.")
@option("--revoked", type=_FILE, help="Subjects whose tokens are revoked (TOML).")
@option("--policy", type=_FILE, metavar="PATH", help="The policy of the nodes, the same file.")
@option("--reviewers", type=_FILE, help="Keys of reviewers who approve alerts (JWKS), the file of the nodes.")
@option("--origins", type=ORIGINS, default="", help="Origins whose pages may register devices.")
@option("--push-services", metavar="LIST", help="Hosts of push services: NAME or *.NAME, each optionally with :PORT.")
@option(
    "--push-private",
    default="",
    metavar="LIST",
    callback=_names,
    help="Those of these hosts that may be on your own network.",
)
@option("--push-ca", type=_FILE, help="Certificates to trust for these hosts beside the system's (PEM).")
@option("--finest-cell", type=click.IntRange(5, 9), default=9, help="The finest resolution of devices' cells.")
@option("--lease-days", type=click.IntRange(1, 30), default=30, help="Days until a device has to register again.")
@option(
    "--workers",
    "PUSH_WORKERS",
    type=click.IntRange(1, 64),
    default=1,
    help="Processes that share the devices of one SQLite file.",
)
@option("--max-devices", type=click.IntRange(1, 10_000_000), default=200_000, help="Maximum number of devices.")
@option("--drain-s", type=click.FloatRange(0, 3600), default=10.0, help="Seconds that a drain may take.")
@option("--share", type=SHARE_TYPE, default=SHARE, help=SHARE_HELP)
@option("--log-level", type=click.Choice(LOG_LEVELS), default="info", help="The least level of log lines.")
@option("--log-format", type=click.Choice(journal.FORMATS), default="text", help="Log lines as text or as JSON.")
def command(
    log_level: str, log_format: str, push_services: str | None, push_private: tuple[str, ...], **more: Any
) -> None:
    """Follow the alert log, and push each alert to the registered devices that it concerns, until SIGTERM.

    SIGHUP makes the process read keys, revoked tokens, policy and reviewers again.
    """
    with starting(log_level, log_format, serve):
        _run(push_services, push_private, more)


def _run(services: str | None, private: tuple[str, ...], more: dict[str, Any]) -> None:
    from ..push.addresses import DEFAULT_SERVICES
    from ..push.settings import PushSettings
    from ..run import push, push_workers

    settings = PushSettings(services=services or DEFAULT_SERVICES, private=private, **more)
    means = push.read_means(settings)

    with push.listening(settings) as (listeners, metrics):
        if settings.workers == 1:
            run(push.run_alone(means, listeners[0], metrics))
        else:
            push_workers.supervise(means, listeners, metrics, run)
