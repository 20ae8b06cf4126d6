"""Tests of the README's ten-line example in a real browser."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from end_to_end.kit.alerts import alert, place, revision_of
from end_to_end.kit.dispatcher import call
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.responders import dispatch_token, responder_token, responding_node
from end_to_end.kit.times import wait_until
from pages.conftest import browser  # noqa: F401 (a fixture)

ROOT = Path(__file__).parents[3]
LIBRARY = ROOT / "client_demo" / "web" / "geocast"
EXAMPLE = (LIBRARY / "example.html").read_text("utf-8")
HOME = (32.78, -96.8)  # the place in the example
HOSTILE = "<img src=x onerror='document.title=1'><script>document.title=2</script>"


class Site(http.server.ThreadingHTTPServer):
    """A web server for the folder of the web client, with pages that a test adds."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(Files, directory=str(LIBRARY)))
        self.origin = f"http://127.0.0.1:{self.server_port}"
        self.pages: dict[str, str] = {}


class Files(http.server.SimpleHTTPRequestHandler):
    """The handler of one request."""

    server: Site

    def do_GET(self) -> None:
        """Serve a page of the test, or a file."""
        if (page := self.server.pages.get(self.path)) is None:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def site() -> Iterator[Site]:
    """Return a web server for `client_demo/web/geocast`."""
    server = Site()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_readmes_quote_the_example():
    """The quoted code is the tested code, and has at most ten lines."""
    assert len(EXAMPLE.splitlines()) <= 10
    for readme in (LIBRARY / "README.md", ROOT / "README.md"):
        assert f"```html\n{EXAMPLE}```" in readme.read_text("utf-8")


def test_example_shows_an_alert_in_ten_lines(browser, site, tmp_path):  # noqa: F811
    """The alert is shown as text and acknowledged.

    It survives a reload without a server, and disappears when cancelled.
    """
    with Node(tmp_path, Keys(), "--origins", site.origin) as node:
        page = browser.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        token = node.keys.token(sub="phone", scope="alerts:receive")
        url = f"ws://127.0.0.1:{node.stream_port}/v1/stream"
        ours = EXAMPLE.replace(
            'url: "ws://127.0.0.1:8765/v1/stream"', f'url: "{url}", token: "{token}", random: () => 0'
        )
        assert ours != EXAMPLE
        site.pages["/example.html"] = ours
        page.goto(f"{site.origin}/example.html")

        body = alert(HOME, headline=HOSTILE)
        node.publish(body)
        line = f"actual moderate: {HOSTILE}"
        page.wait_for_function("line => document.querySelector('li')?.textContent === line", arg=line)
        node.wait_for_counts(body["id"], sent=1, acked=1)
        node.revise(revision_of(body, 2))
        node.wait_for_counts(body["id"], sent=2, acked=2)
        assert page.title() == ""

        node.kill()
        page.reload()
        page.wait_for_function("document.querySelector('li')?.textContent.includes('revision 2')")
        node.start()
        node.cancel(body["id"], 3)
        page.wait_for_function("document.querySelectorAll('li').length === 0")
        # The node was killed. Firefox reports this as an error of the page.
        assert [each for each in complaints if "can’t establish a connection" not in each] == []
        page.close()


def test_page_with_a_position_reconnects(browser, site, tmp_path):  # noqa: F811
    """The browser gives the place, and the node is killed and restarted. The stored data has no place."""
    with Node(tmp_path, Keys(), "--origins", site.origin) as node:
        here = {"latitude": HOME[0], "longitude": HOME[1], "accuracy": 30}
        context = browser.new_context(permissions=["geolocation"], geolocation=here)
        page = context.new_page()
        page.goto(f"{site.origin}/package.json")
        token = node.keys.token(sub="phone", scope="alerts:receive")
        page.evaluate(
            """async ([url, token]) => {
                const { Geocast, watchPosition } = await import("/geocast.js");
                window.geocast = new Geocast({ url, token, random: () => 0 });
                window.states = [];
                geocast.on("status", ({ state }) => states.push(state));
                watchPosition(geocast);
            }""",
            [f"ws://127.0.0.1:{node.stream_port}/v1/stream", token],
        )
        page.wait_for_function("geocast.status.state === 'online' && geocast.places.length === 1")
        assert page.evaluate("geocast.places") == [place(HOME, accuracy_m=30)]
        node.restart()
        page.wait_for_function("states.filter((state) => state === 'online').length === 2")
        node.publish(alert(HOME))
        page.wait_for_function("geocast.held().length === 1 && geocast.held()[0].affected")
        wait_until(lambda: page.evaluate("Object.keys(localStorage).length") == 1, "it is stored")
        assert '"places"' not in page.evaluate("Object.values(localStorage).join()")
        context.close()


def test_responders_page_sends_the_responders_position_when_a_call_arrives(browser, site, tmp_path):  # noqa: F811
    """A fresh position is sent at once, and no storage has the place of the emergency (rules RU1, RU2)."""
    with responding_node(tmp_path, "--origins", site.origin) as node:
        here = {"latitude": HOME[0], "longitude": HOME[1], "accuracy": 30}
        context = browser.new_context(permissions=["geolocation"], geolocation=here)
        page = context.new_page()
        page.goto(f"{site.origin}/package.json")
        page.evaluate(
            """async ([url, token]) => {
                const { Geocast, watchPosition } = await import("/geocast.js");
                window.geocast = new Geocast({ url, token });
                window.events = [];
                for (const name of ["call", "task", "standdown"])
                    geocast.on(name, (event) => events.push([name, event.reason ?? event.task?.place.address ?? ""]));
                watchPosition(geocast, { here: true });
            }""",
            [f"ws://127.0.0.1:{node.stream_port}/v1/stream", responder_token(node, "r-page")],
        )
        page.wait_for_function("geocast.quals.length === 1 && geocast.places.length === 1")
        assert page.evaluate("geocast.places") == [place(HOME, accuracy_m=30, here=True)]
        nearer = HOME[0] + 0.0001
        context.set_geolocation({**here, "latitude": nearer})
        wanted = call(place={"lat": HOME[0], "lng": HOME[1], "kind": "public", "address": "Union Station"})
        assert node.post("/v1/calls", wanted, dispatch_token(node)).status_code == 201
        page.wait_for_function("events.length === 1")
        page.wait_for_function("lat => geocast.places[0].lat === lat", arg=nearer)
        page.evaluate("geocast.accept(geocast.calls()[0].id, 60)")
        page.wait_for_function("events.length === 2")
        assert node.post(f"/v1/calls/{wanted['id']}/end", {"reason": "Over."}, dispatch_token(node)).status_code == 201
        page.wait_for_function("events.length === 3")
        assert page.evaluate("events") == [["call", ""], ["task", "Union Station"], ["standdown", "over"]]
        assert "Union" not in page.evaluate("Object.values(localStorage).join()")
        context.close()
