"""The requests of weather apps to a real node with `--feed-areas` (rules FA1 to FA6).

The requests are literally those of the apps that the guide names (weather_apps.toml). Breezy Weather asks for a box of
±0.001° around a place, whose numbers are written as Kotlin writes a Double.
"""

import contextlib
import json
import re
import time
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from end_to_end.kit.alerts import alert, ground
from end_to_end.kit.issuer import options, post
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE
from ingest.cap.issuer import moved
from lxml import etree
from support.ports import free_ports
from support.real_data import DATA

from geocast.model.problems import Problem

APPS = tomllib.loads(Path(__file__).with_name("weather_apps.toml").read_text("utf-8"))
GUIDE = (Path(__file__).parents[3] / "docs" / "guide" / "weather-apps.md").read_text("utf-8")


def at_port(port: int) -> tuple[str, ...]:
    """Return the options of a node with a feed that answers weather apps."""
    address = f"127.0.0.1:{port}"
    return ("--feed", address, "--feed-url", f"http://{address}", "--feed-sender", "a@city.example", "--feed-areas")


def client_of(options: tuple[str, ...]) -> httpx.Client:
    """Return an HTTP client of a feed with these options."""
    return httpx.Client(base_url=options[3], timeout=PATIENCE, trust_env=False)


@pytest.fixture(scope="module")
def node(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with a feed that answers weather apps."""
    with_areas = at_port(*free_ports(1))
    with Node(tmp_path_factory.mktemp("areas"), keys, *with_areas) as node, client_of(with_areas) as client:
        node.feed = client  # type: ignore[attr-defined]
        wait_until(lambda: client.get("/config/server_status").status_code == 200, "the feed is there")
        yield node


def feed(node: Node) -> httpx.Client:
    """Return an HTTP client of the feed."""
    client: httpx.Client = node.feed  # type: ignore[attr-defined]
    return client


def breezy(node: Node, lat: float, lng: float) -> list[str]:
    """Send the request of FpasJsonApi for a place, and return the answer."""
    box = f"min_lat={lat - 0.001}&max_lat={lat + 0.001}&min_lon={lng - 0.001}&max_lon={lng + 0.001}"
    answer = feed(node).get(f"/alert/area?{box}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    found: list[str] = answer.json()
    return found


def test_app_finds_an_alert_by_the_box_around_its_place_and_reads_its_message(node: Node) -> None:
    """FA1, FA2 and FA4: and none elsewhere; after the cancel the alert is not listed, but its message is there."""
    spot = ground()
    body = node.publish(alert(spot))
    wait_until(lambda: bool(breezy(node, *spot)), "it is listed")
    [name] = breezy(node, *spot)
    assert uuid.UUID(name).version == 5
    message = feed(node).get(f"/alert/{name}")
    assert (message.status_code, message.headers["cache-control"]) == (200, "no-store")
    root = etree.fromstring(message.content)
    assert root.tag == "{urn:oasis:names:tc:emergency:cap:1.2}alert"
    assert root.findtext("{*}identifier") == f"{body['id']}.1"
    assert breezy(node, spot[0], spot[1] + 2 if spot[1] < 0 else spot[1] - 2) == []
    node.cancel(body["id"], 2)
    wait_until(lambda: not breezy(node, *spot), "it is no longer listed")
    assert feed(node).get(f"/alert/{name}").content == message.content
    assert feed(node).get(f"/alert/{uuid.uuid4()}").status_code == 404


def test_guide_names_only_apps_whose_requests_are_known() -> None:
    """The table of apps has the apps of weather_apps.toml."""
    table = GUIDE.partition("| app |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| ([^|-][^|]*) \|", table, re.MULTILINE) == list(APPS)


@pytest.mark.parametrize("app", APPS)
def test_each_request_of_an_app_is_answered_as_the_guide_says(node: Node, app: str) -> None:
    """What a node does not have, such as subscriptions, is refused (FA1 to FA5)."""
    spot = ground()
    body = node.publish(alert(spot))
    wait_until(lambda: bool(breezy(node, *spot)), "it is listed")
    found = ""
    for each in APPS[app]["requests"]:
        box = ""
        if "margin" in each:
            margin, decimals = each["margin"], each.get("decimals")
            sides = {
                f"{side}_{axis}": at + sign * margin
                for axis, at in zip(("lat", "lon"), spot, strict=True)
                for side, sign in (("min", -1), ("max", 1))
            }
            box = "&".join(f"{k}={v if decimals is None else round(v, decimals)}" for k, v in sides.items())
        target = each["target"].format(box=box, id=found)
        answer = feed(node).request(each["method"], target, headers=APPS[app].get("headers", {}))
        assert answer.status_code == each["status"], (target, answer.text)
        if box:
            messages = {name: feed(node).get(f"/alert/{name}").text for name in answer.json()}
            [found] = [name for name, text in messages.items() if f">{body['id']}.1<" in text]
        if "lacks" in each:
            assert each["lacks"] not in answer.json()


def test_numbers_are_understood_as_apps_write_them(node: Node) -> None:
    """FA1: a Double near 0 has an exponent, and a box at 180° reaches beyond it."""
    for query in (
        "min_lat=-5.0E-4&max_lat=0.0015&min_lon=-0.0010000000000000009&max_lon=9.999999999999998E-4",
        "min_lat=-17.001&max_lat=-16.999&min_lon=179.9985&max_lon=180.0005",
        "min_lat=89.9995&max_lat=90.0005&min_lon=12.0&max_lon=12.002",
    ):
        answer = feed(node).get(f"/alert/area?{query}")
        assert (answer.status_code, answer.json()) == (200, [])


def test_server_status_has_what_apps_read(node: Node) -> None:
    """FA5: apps read these members with these types."""
    status = feed(node).get("/config/server_status").json()
    assert {name: type(value) for name, value in status.items()} == {
        "server_version": str,
        "server_operator": str,
        "privacy_notice": str,
        "terms_of_service": str,
        "congestion_state": int,
    }


def test_place_that_was_asked_for_is_in_no_log_line_and_no_metric(node: Node) -> None:
    """FA6, DP27 and DP28: nor in the answer to a request that is refused."""
    box = "min_lat=48.1234567&max_lat=48.1254567&min_lon=11.7654321&max_lon=11.7674321"
    assert feed(node).get(f"/alert/area?{box}").status_code == 200
    refused = feed(node).get(f"/alert/area?{box}&zoom=3")
    assert refused.status_code == 400
    seen = node.output() + refused.text + node.get("/metrics").text
    assert 'geocast_feed_app_requests_total{request="area"}' in seen
    assert not re.search("48[.,]12|11[.,]76|1234567|7654321", seen)


def test_other_requests_of_the_feed_still_take_no_query(node: Node) -> None:
    """PF3 and FA1: also without the option, where the paths do not exist."""
    for path in ("/v1/alerts.geojson", "/config/server_status", "/alert/x"):
        assert feed(node).get(f"{path}?min_lat=1").status_code == 400


def test_real_warnings_are_found_by_places_in_them(keys: Keys, tmp_path: Path) -> None:
    """FA2 and FA4: at a point of each of its shapes each warning is found, and its message says so."""
    if not (DATA / "cap").exists():
        pytest.skip("the real CAP messages are missing: ../shared/data/cap")
    with_areas = at_port(*free_ports(1))
    with Node(tmp_path, keys, *with_areas, *options(tmp_path)) as node, client_of(with_areas) as client:
        node.feed = client  # type: ignore[attr-defined]
        sent_ms = int(time.time() * 1000) - 60_000
        for path in sorted((DATA / "cap").glob("google__*.xml")):
            with contextlib.suppress(Problem):
                post(node, moved(path.read_bytes(), sent_ms))
        wait_until(lambda: node.live() == {each["id"] for each in features(client)} != set(), "all are in the feed")
        for feature in features(client):
            for shape in feature["properties"]["area"]:
                lat, lng = (shape["lat"], shape["lng"]) if "lat" in shape else shape["coordinates"][0][0][::-1]
                found = [etree.fromstring(client.get(f"/alert/{each}").content) for each in breezy(node, lat, lng)]
                assert any(each.findtext("{*}identifier").startswith(f"{feature['id']}.") for each in found)


def features(client: httpx.Client) -> list[dict]:
    """Return the features of the feed."""
    answer = client.get("/v1/alerts.geojson")
    return json.loads(answer.content)["features"] if answer.status_code == 200 else []
