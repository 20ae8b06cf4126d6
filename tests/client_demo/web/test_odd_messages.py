"""Tests that no odd message silences the web client, also after a restart with what it has stored."""

import contextlib
import json
from pathlib import Path

from end_to_end.kit.times import wait_until
from pages.conftest import browser, files_served  # noqa: F401 (a fixture)
from support.odd_node import OddNode, Program

HERE = Path(__file__).parent
LIBRARY = HERE.parents[2] / "client_demo" / "web" / "geocast"
HOME = {"lat": 32.78, "lng": -96.8}
FOLLOW = """async (url) => {
    const { Geocast } = await import("/geocast.js");
    window.heard = [];
    window.geocast = new Geocast({ url, places: [{ lat: 32.78, lng: -96.8 }], random: () => 0 });
    geocast.on("alert", ({ alert }) => heard.push(alert.id));
}"""


def test_node_js_hears_good_alerts_after_each_odd_message_and_after_a_restart(js, tmp_path):
    """The second connection follows a text that is no UTF-8; the third one is that of another process."""
    file = tmp_path / "held.json"
    with OddNode() as node:
        options = {"url": node.url, "places": [HOME], "file": str(file)}
        command = [js, str(HERE / "driver.mjs"), str(LIBRARY / "geocast.js"), json.dumps(options)]
        page = Program(*command)
        try:
            page.says(*(f'Fire: {good}"' for good in node.good), 'Fire: after-1"')
            node.has_heard.set()
            assert node.heard(2) == node.good | {"after-1"}
            page.says('Fire: after-2"')
            wait_until(lambda: file.exists() and "after-2" in file.read_text(), "it is stored")
        finally:
            page.end()
        restarted = Program(*command)
        try:
            restarted.says('Fire: after-3"')
        finally:
            restarted.end()
        assert node.heard(3) == node.good | {"after-1", "after-2"}


def test_browser_hears_good_alerts_after_each_odd_message_and_after_a_reload(browser):  # noqa: F811
    """The page counts what it has dropped."""
    with files_served(LIBRARY) as origin, OddNode() as node, contextlib.closing(browser.new_page()) as page:
        complaints = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{origin}/package.json")
        page.evaluate(FOLLOW, node.url)
        page.wait_for_function("heard.includes('after-1')")
        assert set(page.evaluate("heard")) >= node.good
        node.has_heard.set()
        page.wait_for_function("heard.includes('after-2')")
        assert node.heard(2) == node.good | {"after-1"}
        assert page.evaluate("geocast.dropped") >= len(node.odd)
        page.reload()
        page.evaluate(FOLLOW, node.url)
        page.wait_for_function("heard.includes('after-3')")
        assert node.heard(3) == node.good | {"after-1", "after-2"}
        assert complaints == []
