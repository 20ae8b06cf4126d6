"""The public feed of a real node, as browsers and aggregators read it (rules PF1 to PF6)."""

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
    """Return an HTTP client of the feed, without a token."""
    client: httpx.Client = node.feed  # type: ignore[attr-defined]
    return client


def listed(node: Node) -> list[str]:
    """Return the ids of the features in the feed."""
    return [each["id"] for each in feed(node).get("/v1/alerts.geojson").json()["features"]]


def tombstones(node: Node) -> dict[str, int]:
    """Return the revisions of the cancels in the feed, by the alerts' ids."""
    return {each["id"]: each["revision"] for each in feed(node).get("/v1/alerts.geojson").json()["cancelled"]}


def entry(node: Node, alert_id: str) -> str:
    """Return the link of the Atom feed to an alert's CAP message, or "" if there is none."""
    root = etree.fromstring(feed(node).get("/v1/feed.atom").content)
    links = [str(each.get("href")) for each in root.iter("{*}link") if each.get("type") == "application/cap+xml"]
    return next((link for link in links if f"/{alert_id}.xml" in link), "")


def test_feed_shows_publication_revision_and_cancel_of_an_alert(node: Node) -> None:
    """All three formats of the feed follow the alert, and need no token (rules PF1 and PF5)."""
    body = alert(ground())
    node.publish(body)
    wait_until(lambda: body["id"] in listed(node), "it is listed")
    link = entry(node, body["id"])
    message = httpx.get(link, trust_env=False, timeout=PATIENCE)
    assert message.headers["content-type"] == "application/cap+xml"
    assert f"<identifier>{body['id']}.1</identifier>" in message.text
    node.revise(revision_of(body, 2))
    wait_until(lambda: "Update" in httpx.get(link, trust_env=False, timeout=PATIENCE).text, "the correction is listed")
    assert f",{body['id']}.1," in httpx.get(link, trust_env=False, timeout=PATIENCE).text
    node.cancel(body["id"], 3)
    wait_until(lambda: body["id"] not in listed(node), "it is no longer live")
    wait_until(lambda: tombstones(node).get(body["id"]) == 3, "its tombstone is there, for clients (PF6)")
    wait_until(lambda: "Cancel" in httpx.get(link, trust_env=False, timeout=PATIENCE).text, "the cancel is listed")
    assert entry(node, body["id"]) == link


def test_feed_omits_test_alerts(node: Node) -> None:
    """The feed has only actual alerts (rule PF1)."""
    tried = node.publish(alert(ground(), status="test"))
    body = node.publish(alert(ground()))
    wait_until(lambda: body["id"] in listed(node), "the next one is listed")
    assert tried["id"] not in listed(node)
    assert feed(node).get(f"/v1/cap/{tried['id']}.xml").status_code == 404


def test_unchanged_feed_is_answered_with_304_and_head_without_a_body(node: Node) -> None:
    """The feed has a tag (rule PF2), and pages of any origin may read it (rule PF3)."""
    for path in ("/v1/alerts.geojson", "/v1/feed.atom"):
        settled(node, path)
        whole, head = whole_and_head(node, path)
        assert (head.content, head.headers["content-length"]) == (b"", str(len(whole.content)))
        assert whole.headers["access-control-allow-origin"] == "*"
        assert whole.headers["x-content-type-options"] == "nosniff"
        assert "Date" in whole.headers["access-control-expose-headers"]
        assert len(whole.headers.get_list("date")) == 1
        assert "must-revalidate" in whole.headers["cache-control"]


def whole_and_head(node: Node, path: str) -> tuple[httpx.Response, httpx.Response]:
    """Return the answers to GET and to HEAD while the content was the same."""
    found: list[httpx.Response] = []

    def both() -> bool:
        found[:] = [feed(node).get(path), feed(node).head(path)]
        return found[0].headers["etag"] == found[1].headers["etag"]

    wait_until(both, "nothing has changed in between")
    return found[0], found[1]


def settled(node: Node, path: str) -> httpx.Response:
    """Return a body that was unchanged when it was requested again with its tag: 304 without a body."""
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
def test_unknown_paths_of_the_feed_are_refused(node: Node, path: str, status: int) -> None:
    """The answers are problems (RFC 9457) that pages of any origin may read (rule PF3)."""
    answer = feed(node).get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.headers["access-control-allow-origin"] == "*"


def test_feed_refuses_writes_even_with_a_token(node: Node) -> None:
    """The feed is read-only (rule PF3)."""
    headers = {"Authorization": f"Bearer {node.desk}"}
    assert feed(node).post("/v1/alerts.geojson", headers=headers, json={}).status_code == 405
    assert feed(node).post("/v1/alerts", headers=headers, json={}).status_code == 404


def test_feed_answers_are_counted_in_the_metrics(node: Node) -> None:
    """The metrics are described in docs/reference/behaviour.md."""
    feed(node).get("/")
    metrics = httpx.get(f"http://127.0.0.1:{node.api_port}/metrics", trust_env=False, timeout=PATIENCE).text
    assert 'geocast_feed_answers_total{status="404"}' in metrics
    assert "geocast_feed_alerts" in metrics


def test_feed_has_the_alerts_again_after_a_restart(keys: Keys, tmp_path: Path) -> None:
    """The feed answers 503 until it has read the log (rule PF1)."""
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with Node(tmp_path, keys, "--feed", f"127.0.0.1:{port}", "--feed-url", url, *FEED) as node:
        body = node.publish(alert(ground()))
        node.restart()
        found = httpx.get(f"{url}/v1/cap/{body['id']}.xml", trust_env=False, timeout=PATIENCE)
        wait_until(
            lambda: httpx.get(f"{url}/v1/cap/{body['id']}.xml", trust_env=False, timeout=PATIENCE).status_code == 200,
            "listed",
        )
        assert found.status_code in (200, 503)


def drawers(node: Node) -> list[int]:
    """Return the ids of the drawer processes of a node: children of the node or of its API process."""
    below = [pid for child in node.children() for pid in (child, *children_of(child))]
    return [pid for pid in below if b"geocast.feed.drawer" in command_line(pid)]


def command_line(pid: int) -> bytes:
    """Return the command line of a process, or b"" if it has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def children_of(pid: int) -> list[int]:
    """Return the ids of a process's children."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_feed_answers_while_its_rendering_process_is_paused(node: Node) -> None:
    """A request never draws.

    While a revision is not drawn, the previous one is shown, and ended alerts disappear at once (rule HD4).
    """
    first, ended = alert(ground()), alert(ground())
    node.publish(first)
    node.publish(ended)
    wait_until(lambda: {first["id"], ended["id"]} <= set(listed(node)), "both are listed")
    [drawer] = drawers(node)
    wait_until(lambda: "Alert" in feed(node).get(f"/v1/cap/{first['id']}.xml").text, "it is written")
    os.kill(drawer, signal.SIGSTOP)
    try:
        late = node.publish(alert(ground()))
        node.revise(revision_of(first, 2))
        node.cancel(ended["id"], 2)
        wait_until(lambda: ended["id"] not in listed(node), "what was cancelled is not live any more")
        assert first["id"] in listed(node)
        assert late["id"] not in listed(node)
        assert feed(node).get("/v1/feed.atom").status_code == 200
        assert "Alert" in feed(node).get(f"/v1/cap/{first['id']}.xml").text
        assert feed(node).get(f"/v1/cap/{late['id']}.xml").status_code == 404
    finally:
        os.kill(drawer, signal.SIGCONT)
    wait_until(lambda: late["id"] in listed(node), "it is listed once it is drawn")
    wait_until(lambda: "Update" in feed(node).get(f"/v1/cap/{first['id']}.xml").text, "the revision is listed")


def test_killed_rendering_process_of_the_feed_is_restarted(node: Node) -> None:
    """The next published alert is drawn completely (rule HD4)."""
    first = node.publish(alert(ground()))
    wait_until(lambda: first["id"] in listed(node), "it is listed, and the drawer has nothing more to draw")
    os.kill(drawers(node)[0], signal.SIGKILL)
    wait_until(lambda: not drawers(node), "the node has noticed its end")
    body = node.publish(alert(ground()))
    wait_until(lambda: body["id"] in listed(node), "it is listed")
    [found] = [each for each in feed(node).get("/v1/alerts.geojson").json()["features"] if each["id"] == body["id"]]
    assert found["geometry"]["type"] == "Polygon"


def test_rendering_process_of_the_feed_ends_when_its_node_is_killed(keys: Keys, tmp_path: Path) -> None:
    """The drawer leaves no process behind (rule HD4)."""
    [port] = free_ports(1)
    options = ("--feed", f"127.0.0.1:{port}", "--feed-url", f"http://127.0.0.1:{port}", *FEED)
    with Node(tmp_path, keys, *options) as node:
        node.publish(alert(ground()))
        wait_until(lambda: bool(drawers(node)), "there is a drawer")
        [drawer] = drawers(node)
        os.kill(node.process.pid, signal.SIGKILL)  # type: ignore[union-attr]
        wait_until(lambda: not is_running(drawer), "the drawer has ended")


def test_cap_category_in_the_feed_comes_from_the_policy(keys: Keys, tmp_path: Path) -> None:
    """The default is Safety (rule PF5)."""
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
            wait_until(lambda path=path: client.get(path).status_code == 200, "it is listed")
            assert f"<category>{expected}</category>" in client.get(path).text
