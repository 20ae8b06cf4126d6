"""REDbot asks a running feed and api as a cache would: whole, conditionally and in ranges."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from checked.tool import Tool

pytestmark = pytest.mark.checked
TOOL = Tool("redbot", "caching, conditional requests and ranges of the feed and the api", pypi=("redbot",))

ALWAYS = {"The server's clock is correct.", "The Content-Length header is correct."}
FEED = ALWAYS | {
    "The resource last changed # ago.",
    "This response instructs browsers not to 'sniff' its media type.",
    "This response allows all caches to store it.",
    "This response is fresh for # seconds.",
    "Cache-Control: public is probably not necessary.",  # explained in test_httplint.py
    "This response cannot be served by a cache once it becomes stale.",
    "If-None-Match conditional requests are supported.",
    "An If-Modified-Since conditional request returned the full content unchanged.",  # as documented (PF2)
}
PAGE = ALWAYS | {
    "This response sets a Content Security Policy.",
    "This response's Referrer-Policy ('no-referrer') restricts referrer leakage.",
    "This response instructs browsers not to 'sniff' its media type.",
    "This response allows all caches to store it.",
    "This response cannot be served from cache without validation.",
    "If-None-Match conditional requests are supported.",
}
PASSING = {  # depends on the moment
    "This response has already been cached for # second.",
    "The resource last changed # ago.",
    "The resource last changed in # seconds.",  # in 0 seconds
}
NOT_STORED = ALWAYS | {"This response can't be stored by caches."}
CALLS = {
    ("feed", "/v1/alerts.geojson"): FEED,
    ("feed", "/v1/feed.atom"): FEED,
    ("api", "/openapi.json"): PAGE,
    ("api", "/docs"): PAGE,
    ("api", "/healthz"): NOT_STORED,
    ("api", "/readyz"): NOT_STORED,
    ("api", "/metrics"): NOT_STORED,
}


def redbot(url):
    """Return what REDbot says about a URL, with # for numbers."""
    command = [Path(sys.executable).parent / "redbot", "--output-format", "text", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    lines = re.findall(r"^ +\* (.*[^:\s])\s*$", said, re.MULTILINE)
    return {re.sub(r"\d+( seconds?(?= ago))?", "#", line) for line in lines}


@pytest.mark.parametrize(("listener", "path"), CALLS)
def test_redbot_says_exactly_what_is_expected_of_a_document(node, documents, listener, path, record_property):
    """Each sentence that is missing, or new and not explained here, is a failure (H16, PF2)."""
    client = node.feed if listener == "feed" else node.api
    said = redbot(str(client.base_url).rstrip("/") + path) - PASSING
    assert said == CALLS[listener, path] - PASSING
    record_property("cases", len(said))
