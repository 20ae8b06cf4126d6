"""`geocast push`: run the server that wakes sleeping phones by Web Push."""

from __future__ import annotations

from typing import Any

import click

from .options import (
    ADDRESS,
    DRAIN_OPTION,
    FILE,
    KEYS,
    KEYS_REFRESH_OPTION,
    LOG_OPTION,
    METRICS_OPTION,
    ORIGINS,
    POLICY_OPTION,
    REVIEWERS_OPTION,
    REVOKED_OPTION,
    SHARE_OPTION,
    journal_options,
    option,
)
from .serve import run
from .starting import starting


def _names(_context: click.Context, _option: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


@click.command("push", short_help="Wake sleeping phones by Web Push.")
@option("--listen", type=ADDRESS, default="127.0.0.1:8767", help="Where devices are registered (HTTP).")
@METRICS_OPTION
@LOG_OPTION
@option(
    "--devices", metavar="URL", default="sqlite:devices.db", help="Where devices are stored: sqlite:PATH or redis://…."
)
@option("--devices-replicas", type=click.IntRange(0, 10), default=0, help="Replicas of Redis that must have it too.")
@option("--push-keys", type=FILE, required=True, help="Keys that encrypt devices (JWKS; keygen --push).")
@option("--vapid", type=FILE, required=True, help="Keys that identify us to push services (JWKS; keygen --vapid).")
@option("--contact", required=True, metavar="URL", help="How push services can contact you: mailto:… or https://….")
@option(
    "--keys", type=KEYS, required=True, help="Public keys that tokens are checked against (JWKS): a file, or https://…."
)
@KEYS_REFRESH_OPTION
@REVOKED_OPTION
@POLICY_OPTION
@REVIEWERS_OPTION
@option("--origins", type=ORIGINS, default="", help="Origins whose pages may register devices.")
@option("--push-services", metavar="LIST", help="Hosts of push services: NAME or *.NAME, each optionally with :PORT.")
@option(
    "--push-private",
    default="",
    metavar="LIST",
    callback=_names,
    help="Those of these hosts that may be on your own network.",
)
@option("--push-ca", type=FILE, help="Certificates to trust for these hosts beside the system's (PEM).")
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
@DRAIN_OPTION
@SHARE_OPTION
@journal_options
def command(
    log_level: str, log_format: str, push_services: str | None, push_private: tuple[str, ...], **more: Any
) -> None:
    """Follow the alert log, and push each alert to the registered devices that it concerns, until SIGTERM.

    SIGHUP makes the process read keys, revoked tokens, policy and reviewers again.
    """
    with starting(log_level, log_format):
        from ..push.addresses import DEFAULT_SERVICES
        from ..push.settings import PushSettings
        from ..run import push, push_workers

        settings = PushSettings(services=push_services or DEFAULT_SERVICES, private=push_private, **more)
        means = push.read_means(settings)
        with push.listening(settings) as (listeners, metrics):
            if settings.workers == 1:
                run(push.run_alone(means, listeners[0], metrics))
            else:
                push_workers.supervise(means, listeners, metrics, run)
