"""Fixtures: the check of pictures, and one node for all pages, with a city, calls for help and a defibrillator."""

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

import pytest
from end_to_end.kit.dispatcher import calling_node
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from pages.conftest import ROOT
from pages.pictures.screens import Screens
from support.ports import free_ports

from client_demo.demo.live_map import LiveMap, View, live_map

HOME = (32.7767, -96.797)
AED = (32.7775, -96.7960)
# The policy of the demo, with one radius: a wider one would change the dispatcher's map after a while.
DEMO = (ROOT / "client_demo" / "demo" / "policy.toml").read_text("utf-8")
POLICY = DEMO.replace("[calls.cardiac_arrest]", "[calls.cardiac_arrest]\nrings_m = [500]")


@pytest.fixture
def screens() -> Iterator[Screens]:
    """Return the check of pictures. At the end no page may have had a finding."""
    if "GEOCAST_PICTURES" not in os.environ:
        pytest.skip("takes ten minutes: `make look`")
    checking = Screens()
    yield checking
    assert not checking.findings, "\n".join(checking.findings)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Return a node that allows the origins of the map, the responder's page and the example."""
    home = tmp_path_factory.mktemp("pictures")
    ports = free_ports(3)
    tags = {"emergency": "defibrillator", "access": "yes", "opening_hours": "24/7"}
    tags |= {"defibrillator:location": "Town hall, beside the door", "defibrillator:code": "2580"}
    point = {"type": "Point", "coordinates": [AED[1], AED[0]]}
    hall = {"type": "Feature", "id": "node/1", "geometry": point, "properties": tags}
    (home / "aeds.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [hall]}))
    origins = ",".join(f"http://127.0.0.1:{port}" for port in ports)
    options = ("--origins", origins, "--aeds", "aeds.geojson")
    with calling_node(home, Keys(["cpr", "medic"]), *options, policy=POLICY) as started:
        started.map_port, started.pager_port, started.example_port = ports  # type: ignore[attr-defined]
        yield started


@pytest.fixture(scope="module")
def city(node: Node) -> Iterator[LiveMap]:
    """Return a live map of the node whose simulated phones a test sets; it runs in a thread of its own."""
    view = View(
        f"ws://127.0.0.1:{node.stream_port}/v1/stream",
        node.keys.token(sub="page", scope="alerts:receive alerts:test"),
        HOME,
    )
    with in_thread(live_map(f"http://127.0.0.1:{node.api_port}", node.desk, view, node.map_port)) as shown:  # type: ignore[attr-defined]
        yield shown


@contextmanager
def in_thread(entered: AbstractAsyncContextManager[Any]) -> Iterator[Any]:
    """Run an asynchronous context in a loop of its own thread; its value's methods must be called with `call`."""
    started: Future[Any] = Future()
    ending = asyncio.Event()
    loop = asyncio.new_event_loop()

    async def work() -> None:
        async with entered as value:
            value.call = loop.call_soon_threadsafe
            started.set_result(value)
            await ending.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(work(),))
    thread.start()
    try:
        yield started.result(60)
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join()
        loop.close()
