"""The public feed of a real node, as a browser and an aggregator ask for it (PF1 to PF5)."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from end_to_end.kit.alerts import alert, ground, revision_of
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.process import is_running
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE
from lxml import etree
from support.ports import free_ports

FEED = ("--feed-sender", "alerts@city.example")


@pytest.fixture(scope="module", params=[(), ("--workers", "2")], ids=["one process", "workers"])
def node(request: pytest.FixtureRequest, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with a feed."""
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    options = ("--feed", f"127.0.0.1:{port}", "--feed-url", url, *FEED, *request.param)
    client = httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False)
    with Node(tmp_path_factory.mktemp("feed"), keys, *options) as node, client:
        node.feed = client  # type: ignore[attr-defined]
        wait_until(lambda: client.get("/v1/alerts.geojson").status_code == 200, "the feed is there")
        yield node


def feed(node: Node) -> httpx.Client:
    """Who asks for it: nobody in particular."""
    client: httpx.Client = node.feed  # type: ignore[attr-defined]
    return client


def told(node: Node) -> list[str]:
    """The ids of the features."""
    return [each["id"] for each in feed(node).get("/v1/alerts.geojson").json()["features"]]


def entry(node: Node, alert_id: str) -> str:
    """The CAP message that the Atom feed links for an alert; "" if it has none."""
    root = etree.fromstring(feed(node).get("/v1/feed.atom").content)
    links = [str(each.get("href")) for each in root.iter("{*}link") if each.get("type") == "application/cap+xml"]
    return next((link for link in links if f"/{alert_id}.xml" in link), "")


def test_an_alert_is_told_corrected_and_called_off(node: Node) -> None:
    """PF1, PF5: in all three forms, to whoever asks, without a token."""
    body = alert(ground())
    node.publish(body)
    wait_until(lambda: body["id"] in told(node), "it is told")
    link = entry(node, body["id"])
    message = httpx.get(link, trust_env=False, timeout=PATIENCE)
    assert message.headers["content-type"] == "application/cap+xml"
    assert f"<identifier>{body['id']}.1</identifier>" in message.text
    node.revise(revision_of(body, 2))
    wait_until(lambda: "Update" in httpx.get(link, trust_env=False, timeout=PATIENCE).text, "the correction is told")
    assert f",{body['id']}.1," in httpx.get(link, trust_env=False, timeout=PATIENCE).text
    node.cancel(body["id"], 3)
    wait_until(lambda: body["id"] not in told(node), "it is no longer live")
    wait_until(lambda: "Cancel" in httpx.get(link, trust_env=False, timeout=PATIENCE).text, "the cancel is told")
    assert entry(node, body["id"]) == link


def test_a_test_is_told_to_nobody(node: Node) -> None:
    """PF1."""
    tried = node.publish(alert(ground(), status="test"))
    body = node.publish(alert(ground()))
    wait_until(lambda: body["id"] in told(node), "the next one is told")
    assert tried["id"] not in told(node)
    assert feed(node).get(f"/v1/cap/{tried['id']}.xml").status_code == 404


def test_who_has_it_already_is_told_so(node: Node) -> None:
    """PF2: a tag, 304 without a body, HEAD; from any origin (PF3)."""
    for path in ("/v1/alerts.geojson", "/v1/feed.atom"):
        settled(node, path)
        whole, head = whole_and_head(node, path)
        assert (head.content, head.headers["content-length"]) == (b"", str(len(whole.content)))
        assert whole.headers["access-control-allow-origin"] == "*"
        assert whole.headers["x-content-type-options"] == "nosniff"
        assert "must-revalidate" in whole.headers["cache-control"]


def whole_and_head(node: Node, path: str) -> tuple[httpx.Response, httpx.Response]:
    """A body, and the answer to HEAD while it was the same."""
    found: list[httpx.Response] = []

    def both() -> bool:
        found[:] = [feed(node).get(path), feed(node).head(path)]
        return found[0].headers["etag"] == found[1].headers["etag"]

    wait_until(both, "nothing has changed in between")
    return found[0], found[1]


def settled(node: Node, path: str) -> httpx.Response:
    """A body that was still the same when it was asked for by its tag: 304, and no body."""
    found: list[httpx.Response] = []

    def twice() -> bool:
        whole = feed(node).get(path)
        again = feed(node).get(path, headers={"If-None-Match": f'"x", W/{whole.headers["etag"]}'})
        found[:] = [whole]
        assert (again.status_code, again.content == b"") in ((304, True), (200, False))
        assert again.status_code == 200 or again.headers["etag"] == whole.headers["etag"]
        return again.status_code == 304

    wait_until(twice, "304")
    return found[0]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/v1/alerts", 404),
        ("/v1/alerts.geojson?x=1", 400),
        ("/v1/alerts.geojson/", 404),
        ("/v1/cap/nothing.xml/", 404),
        ("/v1/cap/nothing.xml", 404),
        ("/v1/cap/..%2f..%2fetc.xml", 404),
        ("/metrics", 404),
        ("/docs", 404),
    ],
)
def test_there_is_nothing_else(node: Node, path: str, status: int) -> None:
    """PF3: problems by RFC 9457, for any page to read."""
    answer = feed(node).get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.headers["access-control-allow-origin"] == "*"


def test_nothing_can_be_written(node: Node) -> None:
    """PF3: not even with a token."""
    headers = {"Authorization": f"Bearer {node.desk}"}
    assert feed(node).post("/v1/alerts.geojson", headers=headers, json={}).status_code == 405
    assert feed(node).post("/v1/alerts", headers=headers, json={}).status_code == 404


def test_what_was_answered_is_counted(node: Node) -> None:
    """docs/reference/behaviour.md: for the operator."""
    feed(node).get("/")
    metrics = httpx.get(f"http://127.0.0.1:{node.api_port}/metrics", trust_env=False, timeout=PATIENCE).text
    assert 'geocast_feed_answers_total{status="404"}' in metrics
    assert "geocast_feed_alerts" in metrics


def test_the_feed_goes_on_after_a_restart(keys: Keys, tmp_path: Path) -> None:
    """PF1: it reads the log for itself, and says 503 until it has."""
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with Node(tmp_path, keys, "--feed", f"127.0.0.1:{port}", "--feed-url", url, *FEED) as node:
        body = node.publish(alert(ground()))
        node.restart()
        found = httpx.get(f"{url}/v1/cap/{body['id']}.xml", trust_env=False, timeout=PATIENCE)
        wait_until(
            lambda: httpx.get(f"{url}/v1/cap/{body['id']}.xml", trust_env=False, timeout=PATIENCE).status_code == 200,
            "told",
        )
        assert found.status_code in (200, 503)


def drawers(node: Node) -> list[int]:
    """The processes that draw for this node: children of it, or of its api process."""
    below = [pid for child in node.children() for pid in (child, *children_of(child))]
    return [pid for pid in below if b"geocast.feed.drawer" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def children_of(pid: int) -> list[int]:
    """The children of a process."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_requests_are_answered_while_nothing_is_drawn(node: Node) -> None:
    """HD4: a request never draws; a revision that is not drawn leaves what was drawn before, and an end is obeyed."""
    first, ended = alert(ground()), alert(ground())
    node.publish(first)
    node.publish(ended)
    wait_until(lambda: {first["id"], ended["id"]} <= set(told(node)), "both are told")
    [drawer] = drawers(node)
    wait_until(lambda: "Alert" in feed(node).get(f"/v1/cap/{first['id']}.xml").text, "it is written")
    os.kill(drawer, signal.SIGSTOP)
    try:
        late = node.publish(alert(ground()))
        node.revise(revision_of(first, 2))
        node.cancel(ended["id"], 2)
        wait_until(lambda: ended["id"] not in told(node), "what was cancelled is not live any more")
        assert first["id"] in told(node)
        assert late["id"] not in told(node)
        assert feed(node).get("/v1/feed.atom").status_code == 200
        assert "Alert" in feed(node).get(f"/v1/cap/{first['id']}.xml").text
        assert feed(node).get(f"/v1/cap/{late['id']}.xml").status_code == 404
    finally:
        os.kill(drawer, signal.SIGCONT)
    wait_until(lambda: late["id"] in told(node), "it is told once it is drawn")
    wait_until(lambda: "Update" in feed(node).get(f"/v1/cap/{first['id']}.xml").text, "the revision is told")


def test_a_drawer_that_was_killed_is_started_again(node: Node) -> None:
    """HD4: what is published next is drawn all the same, whole."""
    first = node.publish(alert(ground()))
    wait_until(lambda: first["id"] in told(node), "it is told, and the drawer has nothing more to draw")
    os.kill(drawers(node)[0], signal.SIGKILL)
    wait_until(lambda: not drawers(node), "the node has noticed its end")
    body = node.publish(alert(ground()))
    wait_until(lambda: body["id"] in told(node), "it is told")
    [found] = [each for each in feed(node).get("/v1/alerts.geojson").json()["features"] if each["id"] == body["id"]]
    assert found["geometry"]["type"] == "Polygon"


def test_the_drawer_ends_with_its_node(keys: Keys, tmp_path: Path) -> None:
    """HD4: also when the node is killed."""
    [port] = free_ports(1)
    options = ("--feed", f"127.0.0.1:{port}", "--feed-url", f"http://127.0.0.1:{port}", *FEED)
    with Node(tmp_path, keys, *options) as node:
        node.publish(alert(ground()))
        wait_until(lambda: bool(drawers(node)), "there is a drawer")
        [drawer] = drawers(node)
        os.kill(node.process.pid, signal.SIGKILL)  # type: ignore[union-attr]
        wait_until(lambda: not is_running(drawer), "the drawer has ended")


def test_a_category_is_called_as_the_policy_says(keys: Keys, tmp_path: Path) -> None:
    """PF5: `cap_category`, and Safety where there is none."""
    (tmp_path / "policy.toml").write_text(
        'name = "p"\n[categories]\narson = { title = "Arson" }\n'
        'robbery = { title = "Robbery", cap_category = "Security" }\n'
    )
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    options = ("--feed", f"127.0.0.1:{port}", "--feed-url", url, *FEED, "--policy", str(tmp_path / "policy.toml"))
    with (
        Node(tmp_path, keys, *options) as node,
        httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False) as client,
    ):
        for category, expected in (("robbery", "Security"), ("arson", "Safety")):
            body = alert(ground(), category=category)
            node.publish(body)
            path = f"/v1/cap/{body['id']}.xml"
            wait_until(lambda path=path: client.get(path).status_code == 200, "it is told")
            assert f"<category>{expected}</category>" in client.get(path).text
