"""`geocast health`: ask a node's api listener how it is."""

import json

import click

from ..config import Address
from .options import api_option

PATIENCE_S = 3.0
MOST_BODY = 64 << 10
OWN = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (who listens everywhere is asked by loopback)


@click.command("health")
@api_option
@click.option("--ready", is_flag=True, help="Ask whether it is ready, and not only whether it is alive.")
def command(api: Address, ready: bool) -> int:
    """Say whether a node is alive: exit status 0, or 1 with the reason. For a container's health check."""
    is_well, said = ask(api, ready=ready)
    click.echo(f"geocast: {said}", err=not is_well)
    return 0 if is_well else 1


def ask(api: Address, *, ready: bool) -> tuple[bool, str]:
    """Whether the node that listens there is alive, or `ready`; and that in a line, with the reasons why not.

    A node that is not ready is alive: it may serve those it has. To start it again would only end their sessions.
    """
    import http.client

    connection = http.client.HTTPConnection(OWN.get(api.host, api.host), api.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/readyz" if ready else "/healthz")
        answer = connection.getresponse()
        said = _said(answer.read(MOST_BODY))
        return answer.status == 200 and said is not None, said or f"not a node: HTTP status {answer.status}"
    except TimeoutError:
        return False, f"no answer within {PATIENCE_S:g} s"
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        return False, f"no answer: {getattr(error, 'strerror', None) or type(error).__name__}"
    finally:
        connection.close()


def _said(body: bytes) -> str | None:
    """An answer of /healthz or /readyz in a line; None if it is not one."""
    try:
        said = json.loads(body)
        why = [*said.get("reasons", ()), *(f"degraded: {each}" for each in said.get("degraded", ()))]
        return ": ".join([str(said["status"]), *filter(None, ["; ".join(map(str, why))])])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
