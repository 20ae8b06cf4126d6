"""All live and cancelled alerts as an Atom feed (RFC 4287; rule PF1)."""

from collections.abc import Iterable

from lxml import etree

from ..model.alert import Cancel, Revision
from ..model.times import format_time
from . import cap
from .cap import add

NAMESPACE = "http://www.w3.org/2005/Atom"
MEDIA_TYPE = "application/atom+xml"


def entry(revision: Revision, cancel: Cancel | None, issuer: cap.Issuer) -> bytes:
    """Return the Atom entry for an alert, or for its cancel if the alert was cancelled.

    All revisions of an alert, and its cancel, share one entry id. The entry links to the current CAP message.
    """
    alert = revision.alert
    updated = revision.issued_at if cancel is None else cancel.cancelled_at
    element = etree.Element("entry", nsmap={None: NAMESPACE})
    link = issuer.cap_url(alert.id)
    add(element, "id", link)
    add(element, "title", alert.headline if cancel is None else f"Cancelled: {alert.headline}")
    add(element, "updated", format_time(updated))
    etree.SubElement(element, "link", rel="alternate", type=cap.MEDIA_TYPE, href=link)
    etree.SubElement(element, "category", term=cap.clean(alert.category), label=cap.clean(revision.terms.title))
    add(element, "summary", (alert.description or alert.headline) if cancel is None else cancel.reason)
    document: bytes = etree.tostring(element, encoding="UTF-8")
    return document


def feed(entries: Iterable[bytes], updated_ms: int, issuer: cap.Issuer) -> bytes:
    """Return one Atom document with these entries. `updated_ms` is the time of the newest entry, in ms since 1970."""
    root = etree.Element("feed", nsmap={None: NAMESPACE})
    link = f"{issuer.url}/v1/feed.atom"
    add(root, "id", link)
    add(root, "title", "Alerts")
    add(root, "updated", format_time(updated_ms))
    author = etree.SubElement(root, "author")
    add(author, "name", issuer.sender)
    etree.SubElement(root, "link", rel="self", type=MEDIA_TYPE, href=link)
    head: bytes = etree.tostring(root, encoding="UTF-8", xml_declaration=True)
    # The entries are bytes already, so remove the end tag from `head` and put it after the entries.
    # `join` releases the interpreter's lock for megabytes, so that other threads can run (rule HD4).
    return b"".join((head.removesuffix(b"</feed>"), b"\n".join(entries), b"</feed>\n"))
