"""Fixtures: a node with a live map, and a second map with push."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from end_to_end.conftest import keys  # noqa: F401 (a fixture)
from end_to_end.kit import warnings_of_cap
from end_to_end.kit.alerts import Json, alert, cancel_body
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.push import Push
from end_to_end.kit.tls import make_certificate
from pages.conftest import Served
from pages.map.tools import HOME
from support.ports import free_ports
from support.push_service import PushService

from client_demo.python.geo import offset


@pytest.fixture(scope="module")
def node(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:  # noqa: F811
    """Return a node with a public feed that allows the origins of two maps."""
    *ports, feed_port = free_ports(3)
    home = tmp_path_factory.mktemp("map")
    origins = ",".join(f"http://127.0.0.1:{port}" for port in ports)
    feed = ("--feed", f"127.0.0.1:{feed_port}", "--feed-url", f"http://127.0.0.1:{feed_port}")
    feed += ("--feed-sender", "alerts@city.example")
    with Node(home, keys, "--origins", origins, *feed, *warnings_of_cap.options(home)) as started:
        started.map_port, started.waking_port = ports  # type: ignore[attr-defined]
        started.feed_url = feed[3]  # type: ignore[attr-defined]
        yield started


@pytest.fixture(scope="module")
def url(node: Node, serve: Callable[..., Served]) -> str:
    """Return the address of the node's map, whose page may see exercises."""
    return serve(
        *("map", "--api", f"http://127.0.0.1:{node.api_port}", "--url", f"ws://127.0.0.1:{node.stream_port}/v1/stream"),
        *("--lat", str(HOME[0]), "--lng", str(HOME[1]), "--port", str(node.map_port)),  # type: ignore[attr-defined]
        *("--feed", node.feed_url),  # type: ignore[attr-defined]
        GEOCAST_TOKEN=node.desk,
        GEOCAST_PAGE_TOKEN=node.keys.token(sub="page", scope="alerts:receive alerts:test"),
    ).url("map")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PushService]:
    """Return a push service."""
    with PushService(make_certificate(tmp_path_factory.mktemp("tls"))) as service:
        yield service
    assert service.wrong == []


@pytest.fixture(scope="module")
def push(node: Node, service: PushService) -> Iterator[Push]:
    """Return a `geocast push` process that accepts registrations from the second map."""
    origin = f"http://127.0.0.1:{node.waking_port}"  # type: ignore[attr-defined]
    with Push(node, service, options=("--origins", origin)) as push:
        yield push
        push.assert_no_surprise()


@pytest.fixture(scope="module")
def waking_url(node: Node, push: Push, serve: Callable[..., Served]) -> str:
    """Return the address of the second map, which offers push."""
    return serve(
        *("map", "--api", f"http://127.0.0.1:{node.api_port}", "--url", f"ws://127.0.0.1:{node.stream_port}/v1/stream"),
        *("--lat", str(HOME[0]), "--lng", str(HOME[1]), "--port", str(node.waking_port)),  # type: ignore[attr-defined]
        *("--push", f"http://127.0.0.1:{push.port}"),
        GEOCAST_TOKEN=node.desk,
        GEOCAST_PAGE_TOKEN=node.keys.token(sub="page", scope="alerts:receive"),
    ).url("map")


@pytest.fixture
def publish(node: Node) -> Iterator[Callable[..., Json]]:
    """Return `publish(east_m=…, …)`, which publishes an alert at this distance from home until the end of the test."""
    sent: dict[str, int] = {}

    def publishing(north_m: float = 0, east_m: float = 0, **fields: Any) -> Json:
        body = alert(offset(*HOME, north_m, east_m), **fields)
        node.publish(body)
        sent[body["id"]] = 2
        return body

    yield publishing
    for alert_id, number in sent.items():
        node.post(f"/v1/alerts/{alert_id}/cancel", cancel_body(number))
