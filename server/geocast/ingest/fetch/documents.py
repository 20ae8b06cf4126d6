"""The entries of a feed, and what `geocast fetch` has to know about a CAP message (rule FE2).

A feed is an Atom or RSS 2.0 document, an EDXL-DE envelope, or a bare CAP message. Document types are refused, so there
are no entities but the five of XML, and nothing that a document names is fetched. A message that is part of a feed is
posted as the element that it is there, with the namespaces that it inherits. feedparser is not used, because it does
not keep the text of a message, and a message has to be posted unchanged.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lxml import etree

from ...egress.http_times import parse_http_date
from ...model.problems import Problem
from ...model.times import parse_time
from ..cap import xml
from ..cap.message import NAMESPACES
from .http_client import plain_url

MAX_ENTRIES = 10_000
MAX_TAGS = 1_000_000  # the most tags in a document; 5 MiB of them take 100 MB while they are read
KEPT_MS = 7 * 24 * 3600 * 1000  # how long a message without an end is tried

_ATOM = "{http://www.w3.org/2005/Atom}"
_XML_BASE = "{http://www.w3.org/XML/1998/namespace}base"
_EDXL = re.compile(r"\{urn:oasis:names:tc:emergency:EDXL:DE:[12]\.0\}EDXLDistribution")
_DOCTYPE = re.compile(rb"(?:\s+|<\?.*?\?>|<!--.*?-->)*+<!DOCTYPE", re.DOTALL)
_CAP_TYPE = "application/cap+xml"
_XML_TYPES = ("application/xml", "text/xml", "application/common-alerting-protocol+xml")
_PAGES = ("text/html", "application/xhtml+xml")
_OTHER_RELATIONS = frozenset({"self", "edit", "edit-media", "hub", "next", "previous", "prev", "first", "last", "up"})


class Unreadable(Exception):  # noqa: N818
    """Raised if a document is not what was expected. `reason` is a fixed word, without any text of the document."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ListedEntry:
    """An entry of a feed, with its message or a link to it.

    `digest` changes if the entry's id, link, time, title or message changes. `link` is "" if there is no usable link.
    """

    digest: bytes
    updated_ms: int
    message: bytes | None
    charset: str | None  # of the message, if it is not in the message itself
    link: str


@dataclass(frozen=True, slots=True)
class MessageHead:
    """The facts about a CAP message that `geocast fetch` needs; times are in ms since 1970.

    After `until_ms`, the message is no longer tried.
    """

    identifier: str
    sent_ms: int
    until_ms: int


# ---- feeds -----------------------------------------------------------------------------------------------------------


def entries_of(body: bytes, charset: str | None, url: str) -> list[ListedEntry]:
    """Return the entries of a feed in the order of the document, without repetitions.

    `url` is the address of the feed, for relative links. Raise Unreadable if the document is no feed.
    """
    root = _parse(body, charset)
    if _is_cap(root):
        found: Iterator[ListedEntry] = iter([_entry("", "", "", "", body, charset)])
    elif _EDXL.fullmatch(root.tag):
        found = (_entry("", "", "", "", _standalone(each)) for each in root.iter() if _is_cap(each))
    elif root.tag == f"{_ATOM}feed":
        found = (_atom_entry(each, url) for each in root.iterchildren(f"{_ATOM}entry"))
    elif root.tag == "rss":
        found = (_rss_item(each, url) for each in root.iterfind("channel/item"))
    else:
        raise Unreadable("no-feed")
    entries: dict[bytes, ListedEntry] = {}
    for entry in found:
        entries[entry.digest] = entry
        if len(entries) > MAX_ENTRIES:
            raise Unreadable("too-many-entries")
    return list(entries.values())


def _parse(body: bytes, charset: str | None) -> Any:
    try:
        text = xml.utf8_of(body, charset)
    except Problem:
        raise Unreadable("malformed-xml") from None
    if _DOCTYPE.match(text):
        raise Unreadable("doctype")
    if text.count(b"<") > MAX_TAGS:
        raise Unreadable("too-many-elements")
    parser = etree.XMLParser(
        encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_pis=True
    )
    try:
        return etree.fromstring(text, parser)
    except etree.XMLSyntaxError:
        raise Unreadable("malformed-xml") from None


def _atom_entry(entry: Any, url: str) -> ListedEntry:
    message = None
    for content in entry.iterchildren(f"{_ATOM}content"):
        # The message has to be the element itself, not escaped text: type="text/xml", "application/cap+xml", and so on.
        inside = [each for each in content if _is_cap(each)]
        message = _standalone(inside[0]) if len(inside) == 1 else None
    links = [*_links(entry, f"{_ATOM}content", "src"), *_links(entry, f"{_ATOM}link", "href")]
    base = plain_url(plain_url(url, entry.getparent().get(_XML_BASE, "")), entry.get(_XML_BASE, ""))
    link = "" if message else _best_link(links, base)
    updated = _text(entry, f"{_ATOM}updated") or _text(entry, f"{_ATOM}published")
    return _entry(_text(entry, f"{_ATOM}id"), link, updated, _text(entry, f"{_ATOM}title"), message)


def _rss_item(item: Any, url: str) -> ListedEntry:
    links = [*_links(item, "enclosure", "url"), *_links(item, f"{_ATOM}link", "href")]
    link = _best_link([each for each in links if each[2] == _CAP_TYPE], url)
    guid = next(item.iterchildren("guid"), None)
    permalink = _text(item, "guid") if guid is not None and guid.get("isPermaLink", "true") == "true" else ""
    for text in (_text(item, "link"), permalink if re.match("https?://", permalink) else ""):
        link = link or (plain_url(url, text) if text else "")
    return _entry(_text(item, "guid"), link, _text(item, "pubDate"), _text(item, "title"), None)


def _links(parent: Any, tag: str, attribute: str) -> list[tuple[str, str, str]]:
    """Return the address, the relation and the media type of each link of an entry."""
    return [
        (
            each.get(attribute).strip(),
            each.get("rel", "alternate").lower(),
            each.get("type", "").partition(";")[0].strip().lower(),
        )
        for each in parent.iterchildren(tag)
        if each.get(attribute, "").strip()
    ]


def _best_link(links: list[tuple[str, str, str]], base: str) -> str:
    """Return the URL of the link that most probably leads to a CAP message, or "". Pages in HTML are left out."""

    def rank(link: tuple[str, str, str]) -> int:
        _, relation, media = link
        return 0 if media == _CAP_TYPE else 1 if media in _XML_TYPES else 2 if relation == "alternate" else 3

    usable = [link for link in links if link[1] not in _OTHER_RELATIONS and link[2] not in _PAGES]
    return plain_url(base, min(usable, key=rank)[0]) if usable else ""


def _entry(
    name: str, link: str, updated: str, title: str, message: bytes | None, charset: str | None = None
) -> ListedEntry:
    parts = (name or link, link, updated, title, message or b"")
    digest = hashlib.sha256()
    for part in (each if isinstance(each, bytes) else each.encode() for each in parts):
        digest.update(len(part).to_bytes(4) + part)
    try:
        updated_ms = parse_time(updated)
    except ValueError:
        updated_ms = parse_http_date(updated) or 0
    return ListedEntry(digest.digest(), updated_ms, message, charset, link)


def _text(element: Any, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _is_cap(element: Any) -> bool:
    """Return whether an element is a CAP message. `element` may also be a comment, whose tag is no text."""
    if not isinstance(element.tag, str):
        return False
    namespace, _, name = element.tag.rpartition("}")
    return name == "alert" and namespace.removeprefix("{") in NAMESPACES


def _standalone(element: Any) -> bytes:
    """Return an element as a document of its own, in UTF-8."""
    written: bytes = etree.tostring(element, encoding="utf-8", xml_declaration=True, with_tail=False)
    return written


# ---- CAP messages ----------------------------------------------------------------------------------------------------


def head_of(body: bytes, charset: str | None, now_ms: int) -> MessageHead:
    """Return what has to be known about a CAP message. The node checks everything else.

    Raise Unreadable if it is not well-formed (`malformed-xml`), or no CAP message (`not-cap`).
    """
    try:
        root = xml.parse(body, charset)
    except Problem:
        raise Unreadable("malformed-xml") from None
    if root.name != "alert" or root.namespace not in NAMESPACES:
        raise Unreadable("not-cap")
    sent_ms = _time(_of(root, "sent")) or now_ms
    ends = [_time(_of(info, "expires")) for info in root.all("info")]
    brief = _of(root, "msgType") == "Alert" and ends and None not in ends
    # An Update or a Cancel matters as long as the alert that it changes, whose end is not known here.
    until_ms = max(each or 0 for each in ends) if brief else max(sent_ms, now_ms) + KEPT_MS
    return MessageHead(_of(root, "identifier"), sent_ms, until_ms)


def _of(element: xml.Element, name: str) -> str:
    return next((each.text.strip() for each in element.all(name)), "")


def _time(text: str) -> int | None:
    try:
        return parse_time(text)
    except ValueError:
        return None
