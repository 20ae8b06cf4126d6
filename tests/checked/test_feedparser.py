"""feedparser, the reader of many aggregators, reads the Atom feed as it was meant."""

import re
from datetime import UTC, datetime

import pytest
from checked.tool import Tool

TOOL = Tool("feedparser", "the Atom feed, as aggregators read it", pypi=("feedparser",))


@pytest.mark.usefixtures("documents")
def test_feed_is_read_without_a_complaint_and_has_every_alert(node, record_property):
    """Titles, summaries, times and links are what was published, with characters beyond ASCII and marks of XML."""
    import feedparser
    from checked.conftest import AREAS, TEXT

    answer = node.feed.get("/v1/feed.atom")
    found = feedparser.parse(answer.content, response_headers=dict(answer.headers))
    assert not found.bozo, found.get("bozo_exception")
    assert found.version == "atom10"
    assert (found.feed.title, found.feed.author) == ("Alerts", "alerts@city.example")
    assert found.feed.id == found.feed.link == str(answer.url)
    assert len({entry.id for entry in found.entries}) == len(found.entries) == answer.text.count("<entry")
    titles = {entry.title: entry for entry in found.entries}
    assert set(AREAS) < set(titles)
    assert [titles[name].summary for name in AREAS] == [TEXT] * len(AREAS)
    assert titles["Burglary nearby, revision 2"].summary == "Burglary nearby, revision 2"
    assert titles["Cancelled: Cancelled"].summary == "False alarm"
    for entry in found.entries:
        updated = datetime(*entry.updated_parsed[:6], tzinfo=UTC)
        assert abs((datetime.now(UTC) - updated).total_seconds()) < 600
        [link] = entry.links
        assert (link.rel, link.type) == ("alternate", "application/cap+xml")
        assert node.feed.get(link.href).status_code == 200
        assert entry.tags[0].term in ("burglary", "flood")
    record_property("cases", len(found.entries))


def test_broken_feed_is_complained_about(documents):
    """Otherwise the test above could not fail."""
    import feedparser

    assert feedparser.parse(re.sub("</entry>", "", documents["atom"], count=1)).bozo
