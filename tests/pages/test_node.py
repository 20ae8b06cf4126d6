"""Tests of a node's own pages: its HTTP calls, used as by a person, and its stream."""

import json
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from end_to_end.kit.keys import DESK_SCOPE, Keys
from end_to_end.kit.node import Node
from pages.conftest import PHONE, Shown

Show = Callable[..., Shown]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Return a node for all tests of this module."""
    with Node(tmp_path_factory.mktemp("node"), Keys()) as started:
        yield started


@pytest.fixture
def open_page(show: Show, node: Node) -> Iterator[Callable[..., Shown]]:
    """Return `open_page("/docs")`, which opens a page of the node; the page may load nothing from another host."""
    asked: set[str] = set()

    def opening(path: str, **context: object) -> Shown:
        shown = show("about:blank", **context)
        shown.page.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
        shown.page.goto(f"{node.api.base_url}{path}")
        return shown

    yield opening
    assert asked == {urlsplit(str(node.api.base_url)).netloc}


def test_browser_finds_the_icon_of_a_node(node: Node):
    """Browsers ask for `/favicon.ico` when they show a document without a link to its icon, such as `/openapi.json`."""
    answer = node.api.get("/favicon.ico")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")
    assert answer.content.startswith(b"<svg")


def test_api_page_lists_all_operations_with_examples(open_page: Callable[..., Shown], node: Node):
    """`/` redirects to the page, which reads OpenAPI 3.1 and obeys its Content-Security-Policy."""
    shown = open_page("/")
    assert shown.page.url.endswith("/docs")
    document = node.api.get("/openapi.json").json()
    count = sum(len(calls) for calls in document["paths"].values())
    shown.until(f"document.querySelectorAll('.opblock').length === {count}", f"{count} calls are listed")
    shown.page.click("#operations-alerts-publish .opblock-summary-control")
    shown.has("#operations-alerts-publish .body-param__example", '"category"')
    shown.picture("node-calls")


def test_example_request_can_be_sent_from_the_api_page(open_page: Callable[..., Shown], node: Node):
    """With a token, "Try it out" and "Execute" give 201 and publish the alert; the theme is dark."""
    shown = open_page("/docs", color_scheme="dark")
    page = shown.page
    page.click(".btn.authorize")
    page.fill(".auth-container input", node.keys.token(scope=DESK_SCOPE))
    page.click(".auth-btn-wrapper .authorize")
    page.click(".auth-btn-wrapper .btn-done")
    page.click("#operations-alerts-publish .opblock-summary-control")
    label = "#operations-alerts-publish .examples-select__section-label"
    page.locator(label).scroll_into_view_if_needed()
    assert shown.contrast(label) > 4.5
    page.click("#operations-alerts-publish .try-out__btn")
    body = json.loads(page.input_value("#operations-alerts-publish textarea"))
    page.click("#operations-alerts-publish .execute")
    shown.has("#operations-alerts-publish .live-responses-table tbody .response-col_status", "201")
    shown.picture("node-calls-dark")
    assert shown.page.evaluate("document.documentElement.matches('.dark-mode')")
    assert node.state(body["id"])["alert"]["headline"] == body["headline"]


def test_documentation_page_of_the_stream_has_no_wcag_violations(open_page: Callable[..., Shown]):
    """The page has no WCAG 2.1 A or AA violation on desktop, on a phone and in the dark.

    The page links to the HTTP calls.
    """
    for name, context in (("light", {}), ("phone", {"viewport": PHONE}), ("dark", {"color_scheme": "dark"})):
        shown = open_page("/docs/stream", **context)
        shown.has("main", "hello")
        assert shown.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert shown.violations() == []
        shown.picture(f"node-stream-{name}")
    shown.page.click("nav >> text=HTTP calls")
    shown.has("#calls", "/v1/alerts")
