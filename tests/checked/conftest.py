"""The frame of the tools of others: skip what is missing, say which tool runs, and print a table at the end."""

import os
import time

import httpx
import pytest
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE
from support.ports import free_ports


@pytest.fixture(scope="module", autouse=True)
def tool(request):
    """Skip the file's tests if its tool is not installed."""
    tool = request.module.TOOL
    if missing := tool.missing():
        pytest.skip(missing)
    return tool


@pytest.fixture(scope="session")
def node(tmp_path_factory):
    """Start a node with a public feed, which all tools share; `node.feed` is an HTTP client of the feed."""
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    options = ("--feed", f"127.0.0.1:{port}", "--feed-url", url, "--feed-sender", "alerts@city.example")
    client = httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False)
    with Node(tmp_path_factory.mktemp("checked"), Keys(), *options) as node, client:
        node.feed = client
        wait_until(lambda: client.get("/v1/alerts.geojson").status_code == 200, "the feed is there")
        yield node


def pytest_configure(config):
    """Print a line for each tool, and the table, if `make checked` runs the tests."""
    if "GEOCAST_CHECKED" in os.environ:
        config.pluginmanager.register(_Table(config), "table of tools")


class _Table:
    """What became of each tool: its cases, its failures and how long it took."""

    def __init__(self, config):
        self._plugins = config.pluginmanager
        self._tools = {}  # the tool of each test
        self._rows = {}  # the row of each tool: cases, failures, reasons why tests were skipped, seconds

    def pytest_collection_finish(self, session):
        self._tools = {item.nodeid: item.module.TOOL for item in session.items}

    def pytest_runtest_logstart(self, nodeid, location):
        tool = self._tools[nodeid]
        if tool not in self._rows:
            self._rows[tool] = {"cases": 0, "failed": 0, "skipped": [], "seconds": 0.0}
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
        elif report.when == "call":
            row["cases"] += dict(report.user_properties).get("cases", 1)

    def pytest_terminal_summary(self, terminalreporter):
        terminalreporter.section("checked by others")
        rows = [("tool", "version", "cases", "seconds", "outcome")]
        for tool, row in self._rows.items():
            outcome = f"{row['failed']} failed" if row["failed"] else "passed"
            if row["skipped"]:
                outcome = f"{outcome if row['cases'] or row['failed'] else 'skipped'}: {', '.join({*row['skipped']})}"
            version = "" if tool.missing() else tool.version()
            rows.append((tool.name, version, f"{row['cases']:,}", f"{row['seconds']:.0f}", outcome))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            terminalreporter.write_line(line.rstrip())
