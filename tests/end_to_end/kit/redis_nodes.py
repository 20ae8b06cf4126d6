"""Helpers for nodes whose log is on a failing Redis."""

import httpx
from end_to_end.kit.alerts import Json
from end_to_end.kit.node import Node
from end_to_end.kit.times import wait_until
from support.redis_server import RedisServer

SOON_S = 30.0  # ten times the promised 3 s, but shorter than the time-out of a connection


def entries_about(server: RedisServer, alert_id: str) -> int:
    """Return the number of entries of the stream about an alert, in any format."""
    count = 0
    with server.client() as client:
        for key in client.scan_iter(_type="stream"):
            count += sum(alert_id.encode() in fields.values() for _, fields in client.xrange(key))
    return count


def post_somehow(node: Node, path: str, body: Json) -> None:
    """Repeat a request until it is answered with 200 or 201, as a publisher does."""

    def answered() -> bool:
        try:
            return node.post_once(path, body).status_code in (200, 201)
        except httpx.TransportError:
            return False

    wait_until(answered, f"{path} is accepted")


def unready(node: Node) -> bool:
    """Return whether the node answers that it is not ready."""
    return node.get("/readyz").status_code == 503


def wait_for_all(nodes: list[Node]) -> None:
    """Wait until every node is ready; require that none had an unexpected error."""
    for node in nodes:
        try:
            wait_until(node._ready, "the node is ready")
        except AssertionError as error:
            raise AssertionError(f"{node.get('/readyz').text}\n{node.output()}") from error
        node.assert_no_surprise()
