"""The entries of a feed, and what `geocast fetch` has to know about a CAP message (rule FE2).

A feed is an Atom or RSS 2.0 document, an EDXL-DE envelope, or a bare CAP message. Document types are refused, so there
are no entities but the five of XML, and nothing that a document names is fetched. What would take more than 64 MB or 2
s of CPU is refused as `too-complex`. A message that is part of a feed is posted as the element that it is there, with
the namespaces that it inherits. feedparser is not used, because it does not keep the text of a message, and a message
has to be posted unchanged.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from lxml import etree

from ...egress.http_times import parse_http_date
from ...model.times import parse_time
from ..cap import xml
from ..cap.language_groups import ALL_CLEAR
from ..cap.xml import TOO_COMPLEX, XmlProblem, children, is_cap, text_of, texts_of
from .http_client import Fetched, FetchFailed, plain_url

MAX_ENTRIES = 10_000
MAX_ELEMENTS = 150_000  # the most elements, comments and attributes of a feed, which take 50 MB while they are read
MAX_DEPTH = 64
MAX_CPU_S = 2.0  # of one document
SHORT_BYTES = 256 * 1024  # shorter documents never wait for longer ones
MAX_TIME = 64  # the most characters of a time
MAX_IDENTIFIER = 512
KEPT_MS = 7 * 24 * 3600 * 1000  # how long a message without an end is tried

_ATOM = "{http://www.w3.org/2005/Atom}"
_XML_BASE = "{http://www.w3.org/XML/1998/namespace}base"
_EDXL = re.compile(r"\{urn:oasis:names:tc:emergency:EDXL:DE:[12]\.0\}EDXLDistribution")
_CAP_TYPE = "application/cap+xml"
_XML_TYPES = ("application/xml", "text/xml", "application/common-alerting-protocol+xml")
_PAGES = ("text/html", "application/xhtml+xml")
_OTHER_RELATIONS = frozenset({"self", "edit", "edit-media", "hub", "next", "previous", "prev", "first", "last", "up"})


_T = TypeVar("_T")
_short, _long = ThreadPoolExecutor(1, "fetch-short"), ThreadPoolExecutor(1, "fetch-long")


class Unreadable(FetchFailed):
    """Raised if a document is not what was expected. `reason` is a fixed word, without any text of the document."""


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

    After `until_ms`, the message is no longer tried. `ends` says whether the message only ends alerts.
    """

    identifier: str
    sent_ms: int
    until_ms: int
    ends: bool


class Work:
    """The work on one document, which ends when it has taken too much CPU, or when nobody waits for it any more."""

    def __init__(self) -> None:
        self.is_wanted = True
        self._until_s: float | None = None

    def step(self) -> None:
        """Take note of a small step. Raise Unreadable (`too-complex`) if the work has to end."""
        now_s = time.thread_time()
        self._until_s = self._until_s or now_s + MAX_CPU_S
        if now_s > self._until_s or not self.is_wanted:
            raise Unreadable(TOO_COMPLEX)


async def in_thread(size: int, read: Callable[[Work], _T]) -> _T:
    """Read a document of `size` bytes in a thread, which ends if this task is cancelled."""
    work = Work()
    try:
        return await asyncio.get_running_loop().run_in_executor(_short if size <= SHORT_BYTES else _long, read, work)
    finally:
        work.is_wanted = False


async def read_feed(answer: Fetched) -> list[ListedEntry]:
    """Return the entries of a feed that was fetched, as `entries_of` does, from a thread."""
    body, charset, url = answer.body, answer.charset, answer.url
    return await in_thread(len(body), lambda work: entries_of(body, charset, url, work.step))


async def read_head(body: bytes, charset: str | None, now_ms: int) -> MessageHead:
    """Return what has to be known about a CAP message, as `head_of` does, from a thread."""
    return await in_thread(len(body), lambda work: head_of(body, charset, now_ms, work.step))


# ---- feeds -----------------------------------------------------------------------------------------------------------


def entries_of(
    body: bytes, charset: str | None, url: str, step: Callable[[], None] = lambda: None
) -> list[ListedEntry]:
    """Return the entries of a feed in the order of the document, without repetitions.

    `url` is the address of the feed, for relative links. `step` is called again and again. Raise Unreadable if the
    document is no feed.
    """
    root = _parse(body, charset, step)
    if is_cap(root.tag):
        found: Iterator[ListedEntry] = iter([_entry("", "", "", "", body, charset)])
    elif _EDXL.fullmatch(root.tag):
        found = (_entry("", "", "", "", _standalone(each)) for each in _messages(root))
    elif root.tag == f"{_ATOM}feed":
        base = plain_url(url, root.get(_XML_BASE, ""))
        found = (_atom_entry(each, base) for each in root.iterchildren(f"{_ATOM}entry"))
    elif root.tag == "rss":
        found = (_rss_item(each, url) for each in root.iterfind("channel/item"))
    else:
        raise Unreadable("no-feed")
    entries: dict[bytes, ListedEntry] = {}
    size = 0
    for entry in found:
        step()
        entries[entry.digest] = entry
        size += len(entry.message or b"")
        if len(entries) > MAX_ENTRIES:
            raise Unreadable("too-many-entries")
        if size > 2 * len(body) + SHORT_BYTES:  # each message repeats the namespaces that it inherits
            raise Unreadable(TOO_COMPLEX)
    return list(entries.values())


def _parse(body: bytes, charset: str | None, step: Callable[[], None]) -> Any:
    try:
        text = xml.checked(xml.utf8_of(body, charset), MAX_DEPTH, MAX_ELEMENTS, step)
        return etree.fromstring(text, xml.safe_parser(remove_pis=True))
    except XmlProblem as problem:
        raise Unreadable(problem.reason) from None
    except etree.XMLSyntaxError:
        raise Unreadable("malformed-xml") from None


def _messages(envelope: Any) -> Iterator[Any]:
    """Yield the messages in an envelope. Raise Unreadable if there is a message in a message."""
    for element in envelope.iter("{*}alert"):
        if is_cap(element.tag):
            if any(is_cap(each.tag) for each in element.iterancestors("{*}alert")):
                raise Unreadable(TOO_COMPLEX)
            yield element


def _atom_entry(entry: Any, base: str) -> ListedEntry:
    # The message has to be the element itself, not escaped text: type="text/xml", "application/cap+xml", and so on.
    inside = [each for content in entry.iterchildren(f"{_ATOM}content") for each in content if is_cap(each.tag)]
    message = _standalone(inside[0]) if len(inside) == 1 else None
    links = [*_links(entry, f"{_ATOM}content", "src"), *_links(entry, f"{_ATOM}link", "href")]
    link = "" if message else _best_link(links, plain_url(base, entry.get(_XML_BASE, "")))
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
    found = []
    for each in parent.iterchildren(tag):
        if address := each.get(attribute, "").strip():
            media = each.get("type", "").partition(";")[0].strip().lower()
            found.append((address, each.get("rel", "alternate").lower(), media))
    return found


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
        updated_ms = parse_time(updated[:MAX_TIME])
    except ValueError:
        updated_ms = parse_http_date(updated[:MAX_TIME]) or 0
    return ListedEntry(digest.digest(), updated_ms, message, charset, link)


def _text(element: Any, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _standalone(element: Any) -> bytes:
    """Return an element as a document of its own, in UTF-8."""
    written: bytes = etree.tostring(element, encoding="utf-8", xml_declaration=True, with_tail=False)
    return written


# ---- CAP messages ----------------------------------------------------------------------------------------------------


def head_of(body: bytes, charset: str | None, now_ms: int, step: Callable[[], None] = lambda: None) -> MessageHead:
    """Return what has to be known about a CAP message. The node checks everything else.

    `step` is called again and again. Raise Unreadable if it is not a document that a node accepts, or no CAP message
    (`not-cap`).
    """
    try:
        root = xml.parse(body, charset, step)
    except XmlProblem as problem:
        raise Unreadable(problem.reason) from None
    if not is_cap(root.tag):
        raise Unreadable("not-cap")
    kind, infos = text_of(root, "msgType"), children(root, "info")
    sent_ms = _time(text_of(root, "sent")) or now_ms
    ends = [_time(text_of(info, "expires")) for info in infos]
    brief = kind == "Alert" and ends and None not in ends
    # An Update or a Cancel matters as long as the alert that it changes, whose end is not known here.
    until_ms = max(each or 0 for each in ends) if brief else max(sent_ms, now_ms) + KEPT_MS
    over = bool(infos) and all(ALL_CLEAR in texts_of(info, "responseType") for info in infos)
    return MessageHead(text_of(root, "identifier")[:MAX_IDENTIFIER], sent_ms, until_ms, kind == "Cancel" or over)


def _time(text: str) -> int | None:
    try:
        return parse_time(text[:MAX_TIME])
    except ValueError:
        return None
