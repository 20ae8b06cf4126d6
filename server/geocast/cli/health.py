"""`geocast health`: ask a running node whether it is alive or ready."""

import json

import click

from ..model.server_address import Address
from .options import api_option

PATIENCE_S = 3.0
MOST_BODY = 64 << 10
OWN = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (a node that listens on all addresses is asked on loopback)


@click.command("health")
@api_option
@click.option("--ready", is_flag=True, help="Ask whether the node is ready, not only whether it is alive.")
def command(api: Address, ready: bool) -> int:
    """Check whether a node is alive, for a container's health check.

    The exit status is 0 if the node is alive. Otherwise it is 1, and the reason is printed.
    """
    is_well, said = ask(api, ready=ready)
    click.echo(f"geocast: {api}: {said}", err=not is_well)
    return 0 if is_well else 1


def ask(api: Address, *, ready: bool) -> tuple[bool, str]:
    """Ask a node whether it is well.

    Return the answer (a bool), and a line of text that says so or gives the reasons. A node is well if it is alive or,
    if `ready` is true, if it is ready. A node that is not ready may still be alive and serve its subscribers. A restart
    would only disconnect them.
    """
    import http.client

    connection = http.client.HTTPConnection(OWN.get(api.host, api.host), api.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/readyz" if ready else "/healthz")
        answer = connection.getresponse()
        said = _status_line(answer.read(MOST_BODY))
        return answer.status == 200 and said is not None, said or f"not a node: HTTP status {answer.status}"
    except TimeoutError:
        return False, f"no answer within {PATIENCE_S:g} s"
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        return False, f"no answer: {getattr(error, 'strerror', None) or type(error).__name__}"
    finally:
        connection.close()


def _status_line(body: bytes) -> str | None:
    """Return the body of an answer from /healthz or /readyz as one line of text.

    Return None if the body is not of the expected form.
    """
    try:
        said = json.loads(body)
        why = [*said.get("reasons", ()), *(f"degraded: {each}" for each in said.get("degraded", ()))]
        return ": ".join([str(said["status"]), *filter(None, ["; ".join(map(str, why))])])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
