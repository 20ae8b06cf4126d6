"""Delivery counts and metrics, which must not tell a publisher whether anybody is in an area."""

from collections.abc import Callable, Iterator

import httpx
import pytest
from end_to_end.kit.alerts import Json, alert, circle, ground, place, revision_of
from end_to_end.kit.earth import Point, beyond
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import Session
from end_to_end.kit.wire import PATIENCE
from support.ports import free_ports

Join = Callable[..., Session]
PROBES = 32


@pytest.fixture(scope="module", params=[(), ("--workers", "2")], ids=["one process", "workers"])
def node(request: pytest.FixtureRequest, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start a node that serves its metrics at an address of their own."""
    [port] = free_ports(1)
    home = tmp_path_factory.mktemp("counts")
    with Node(home, keys, "--metrics", f"127.0.0.1:{port}", *request.param) as node:
        node.metrics_url = f"http://127.0.0.1:{port}/metrics"
        yield node


def probe(node: Node, session: Session, around: list[Point]) -> list[Json]:
    """Publish short alerts around the points of `around`.

    Return, for each alert, how many messages the session got and the counts that the publisher reads after the alert
    has ended.
    """
    bodies = [node.publish_brief(alert(spot, area=circle(spot, 100)), 2)[0] for spot in around]
    for body in bodies:
        node.wait_for_end(body["id"])
    session.catch_up()
    told = [len(session.heard(body["id"])) for body in bodies]
    for body, sent in zip(bodies, told, strict=True):
        node.wait_for_counts(body["id"], sent=sent, acked=0)
    read = [node.state(body["id"], node.desk) for body in bodies]
    assert all(state["alert"]["id"] == body["id"] for state, body in zip(read, bodies, strict=True))
    return [{"told": sent, "delivery": state["delivery"]} for sent, state in zip(told, read, strict=True)]


def test_counts_of_short_alerts_do_not_reveal_a_lone_subscriber(node: Node, join: Join):
    """Every answer has the same counts, whether the subscriber was inside or outside.

    With exact counts, 32 alerts were enough to locate a subscriber to 0.5 m (rule H11).
    """
    spot = ground()
    session = join(node, place(spot))
    answers = probe(node, session, [beyond(spot, 90, 50.0 * step) for step in range(PROBES)])
    assert {answer["told"] for answer in answers} == {0, 1}, "some alerts were sent and some were not"
    nothing = {"sent": 0, "acked": 0, "pushed": 0, "rounded": True}
    assert {str(answer["delivery"]) for answer in answers} == {str(nothing)}


def test_revisions_do_not_raise_the_count_of_a_lone_subscriber_to_twenty(node: Node, join: Join):
    """Twenty revisions are sent to one session: the exact count is 20, the publisher reads 0 (H11, DP30)."""
    spot = ground()
    session = join(node, place(spot))
    body = alert(spot)
    node.publish(body)
    for number in range(2, 21):
        session.listen(body["id"], number - 1)  # an entry that is superseded before it was sent is not sent
        node.revise(revision_of(body, number))
    node.wait_for_counts(body["id"], sent=20, acked=0)
    assert node.state(body["id"], node.desk)["delivery"]["sent"] == 0


def test_metrics_are_served_only_at_the_configured_metrics_address(node: Node):
    """On a quiet node, `geocast_sends_total` is an exact count (rule H13)."""
    scraped = httpx.get(node.metrics_url, trust_env=False, timeout=PATIENCE)
    assert scraped.status_code == 200
    assert "geocast_sends_total" in scraped.text
    assert node.get("/metrics").status_code == 404
    assert (
        httpx.get(node.metrics_url.replace("/metrics", "/readyz"), trust_env=False, timeout=PATIENCE).status_code == 404
    )
    assert "/metrics" not in node.api.get("/openapi.json").json()["paths"]
