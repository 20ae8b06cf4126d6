"""Wapiti attacks each listener that answers HTTP: it must find no reflected input, injection, or open file.

It reads the calls of the api from `/openapi.json`, and finds those of the other listeners in their pages and documents.
"""

import json

import pytest
from checked.tool import Tool, run
from end_to_end.kit.alerts import ground
from end_to_end.kit.desk import DeskProcess, row, write_feed

TOOL = Tool("wapiti", "reflected input, injections and open files", pypi=("wapiti3",), venv=".venv-wapiti")
pytestmark = [pytest.mark.checked, pytest.mark.timeout(900)]
MODULES = "xss,permanentxss,exec,file,crlf,redirect,sql,ssti,xxe,methods"
SECONDS = 120


def attack(home, url, *options):
    """Attack everything below `url`, and return the report."""
    found = home / "found.json"
    bounds = ("--max-scan-time", str(SECONDS), "--max-attack-time", str(SECONDS // 4), "--tasks", "8")
    store = ("--store-session", str(home), "--store-config", str(home), "--flush-session", "--no-bugreport")
    command = [
        TOOL.in_venv("wapiti"),
        "--url",
        url,
        "--scope",
        "folder",
        "--module",
        MODULES,
        *bounds,
        *store,
        *options,
    ]
    run(*command, "--format", "json", "--output", str(found), timeout=4 * SECONDS)
    return json.loads(found.read_text("utf-8"))


def check(report, record_property):
    """Fail if the report has a finding; record the number of pages."""
    findings = {name: those for name, those in report["vulnerabilities"].items() if those}
    assert not findings, json.dumps(findings, indent=1)[:4_000]
    assert report["infos"]["crawled_pages_nbr"], "wapiti has found nothing to attack"
    record_property("cases", report["infos"]["crawled_pages_nbr"])


def test_wapiti_finds_nothing_in_the_api(record_property, node, tmp_path):
    """With a desk's token, so that wapiti reaches what only a desk may call."""
    url = f"http://127.0.0.1:{node.api_port}/"
    token = ("--header", f"Authorization: Bearer {node.desk}")
    check(attack(tmp_path, url, "--swagger", f"{url}openapi.json", *token), record_property)


@pytest.mark.usefixtures("documents")
def test_wapiti_finds_nothing_in_the_feed(record_property, node, tmp_path):
    url = f"{node.feed.base_url}/"
    starts = [word for path in ("v1/alerts.geojson", "v1/feed.atom") for word in ("--start", f"{url}{path}")]
    check(attack(tmp_path, url, *starts), record_property)


def test_wapiti_finds_nothing_in_the_review_desk(record_property, node, tmp_path):
    """With the cookie of a reviewer who is signed in."""
    feed = write_feed(tmp_path / "feed.csv", [row("A", "Structure fire", ground())])
    with DeskProcess(tmp_path, node, feed) as desk, desk.page() as page:
        cookie = "; ".join(f"{name}={value}" for name, value in page.http.cookies.items())
        check(attack(tmp_path, f"{page.url}/", "--cookie-value", cookie), record_property)
