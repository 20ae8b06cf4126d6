"""The frame of the tools of others: skip what is missing, say which tool runs, and print a table at the end.

The tools share a node, and the documents of its public feed about alerts at the places where drawing is hard.
"""

import os
import re
import time

import httpx
import pytest
from end_to_end.kit import warnings_of_cap
from end_to_end.kit.alerts import alert, circle, revision_of
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE
from support.ports import free_ports


def pytest_runtest_setup(item):
    """Skip a test whose tool is not installed, before any fixture starts."""
    if missing := item.module.TOOL.missing():
        pytest.skip(missing)


@pytest.fixture(scope="session")
def node(tmp_path_factory):
    """Start a node with a public feed, which all tools share; `node.feed` is an HTTP client of the feed."""
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    options = ("--feed", f"127.0.0.1:{port}", "--feed-url", url, "--feed-sender", "alerts@city.example")
    client = httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False)
    home = tmp_path_factory.mktemp("checked")
    with Node(home, Keys(), *options, *warnings_of_cap.options(home)) as node, client:
        node.feed = client
        wait_until(lambda: client.get("/v1/alerts.geojson").status_code == 200, "the feed is there")
        yield node


TEXT = "Feu à l’est <b>d’ici</b> & 火事 🔥 ]]> \u202b\u05d0\u202c"


def polygon(*corners):
    """Return a polygon with these corners, given as pairs of longitude and latitude."""
    return {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}


AREAS = {
    "east of the antimeridian": [circle((10.0, 179.999), 5_000)],
    "on the antimeridian": [circle((-20.0, 180.0), 20_000)],
    "north pole": [circle((90.0, 0.0), 20_000)],
    "around the south pole": [circle((-89.95, 40.0), 20_000)],
    "polygon across the antimeridian": [polygon([179.8, 60], [-179.8, 60], [-179.9, 60.1], [179.9, 60.1])],
    "polygon around the north pole": [polygon([0, 89.85], [120, 89.85], [-120, 89.85])],
    "several shapes": [circle((51.5, 0.0), 800), circle((51.6, 179.0), 800)],
}


@pytest.fixture(scope="session")
def documents(node):
    """Publish alerts in each of `AREAS`, a corrected one, a cancelled one and a warning in two languages.

    Return the documents of the feed about them: `geojson`, `atom`, and `cap`, a list of messages.
    """
    bodies = [alert((0, 0), area=area, headline=name, description=TEXT) for name, area in AREAS.items()]
    bodies += [alert((48.0, 2.0), headline=TEXT), alert((49.0, 2.0), headline="Cancelled")]
    for body in bodies:
        node.publish(body)
    node.revise(revision_of(bodies[-2], 2))
    node.cancel(bodies[-1]["id"], 2)
    sent = warnings_of_cap.send(node, warnings_of_cap.warning("flood-1", (50.0, 4.0), "en-GB", "fr"))
    assert sent.status_code == 201, sent.text

    def shown():
        found = node.feed.get("/v1/alerts.geojson").json()
        whole = len(found["features"]) >= len(bodies) and len(found["cancelled"]) == 1
        return whole and node.feed.get("/v1/feed.atom").text.count("<entry") == len(bodies) + 1

    wait_until(shown, "the feed shows all of them")
    found = {"geojson": node.feed.get("/v1/alerts.geojson").text, "atom": node.feed.get("/v1/feed.atom").text}
    links = [link for link in re.findall(r'href="([^"]+)"', found["atom"]) if "/v1/cap/" in link]
    return found | {"cap": [node.feed.get(link).text for link in links]}


def pytest_configure(config):
    """Print a line for each tool, and the table, if `make checked` runs the tests."""
    if "GEOCAST_CHECKED" in os.environ:
        config.pluginmanager.register(_Table(config), "table of tools")


class _Table:
    """What became of each tool: its cases, its failures and how long it took."""

    def __init__(self, config):
        self._plugins = config.pluginmanager
        self._tools = {}  # the tool of each test
        self._rows = {}  # the row of each tool: cases, failures, reasons why tests were skipped, seconds, lines

    def pytest_collection_finish(self, session):
        self._tools = {item.nodeid: item.module.TOOL for item in session.items}

    def pytest_runtest_logstart(self, nodeid, location):
        tool = self._tools[nodeid]
        if tool not in self._rows:
            self._rows[tool] = {"cases": 0, "failed": 0, "skipped": [], "seconds": 0.0, "said": []}
            name = f"{tool.name} {'' if tool.missing() else tool.version()}".strip()
            terminal = self._plugins.get_plugin("terminalreporter")
            terminal.ensure_newline()
            terminal.write_line(f"{time.strftime('%H:%M:%S')} {name}: {tool.checks}")

    def pytest_runtest_logreport(self, report):
        row = self._rows[self._tools[report.nodeid]]
        row["seconds"] += report.duration
        row["failed"] += report.failed
        if report.skipped:
            row["skipped"].append(report.longrepr[2].removeprefix("Skipped: "))
        elif report.when == "call" and report.passed:
            row["cases"] += dict(report.user_properties).get("cases", 1)
            row["said"] += [value for name, value in report.user_properties if name == "said"]

    def pytest_terminal_summary(self, terminalreporter):
        terminalreporter.section("checked by others")
        rows = [("tool", "version", "cases", "seconds", "outcome")]
        for tool, row in self._rows.items():
            outcome = f"{row['failed']} failed" if row["failed"] else "passed"
            if row["skipped"]:
                outcome = f"{outcome}, some skipped" if row["cases"] or row["failed"] else "skipped"
                outcome += f": {', '.join({*row['skipped']})}"
            version = "" if tool.missing() else tool.version()
            rows.append((tool.name, version, f"{row['cases']:,}", f"{row['seconds']:.0f}", outcome))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            terminalreporter.write_line(line.rstrip())
        for line in (line for row in self._rows.values() for line in row["said"]):
            terminalreporter.write_line(line)
