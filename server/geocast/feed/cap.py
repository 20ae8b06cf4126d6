"""An alert, or its cancel, as an unsigned CAP 1.2 message (rule PF5).

Each revision is a separate message. Its identifier is the alert's id, a dot and the revision's number, and it refers to
the messages of all earlier revisions. A message is made in two steps. `draft` makes most of it, which takes CPU time
and needs only the last revision. `complete` adds the message's type and references, which depend on the alert's earlier
revisions in the log.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote
from xml.sax.saxutils import escape

from lxml import etree

from ..model.alert import AlertText, Cancel, Circle, KnownShape, Polygon, Revision
from ..model.times import format_time

NAMESPACE = "urn:oasis:names:tc:emergency:cap:1.2"
MEDIA_TYPE = "application/cap+xml"
CATEGORY = "Safety"  # the CAP category if the policy has none for an alert's category
# The characters that may be in a text of an alert, but not in XML 1.0 (its section 2.2).
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who publishes the feed, and where.

    `sender` is that of the CAP messages, and the author of the Atom feed. `categories` is a dict from the policy's
    categories to CAP categories. `url` is the public address of the feed, without a slash at the end.
    """

    sender: str
    categories: dict[str, str]
    url: str

    def cap_url(self, alert_id: str) -> str:
        """Return the URL of the CAP message about an alert."""
        return f"{self.url}/v1/cap/{quote(alert_id, safe='')}.xml"


def message(revisions: Sequence[Revision], cancel: Cancel | None, issuer: Issuer) -> bytes:
    """Return the CAP message for the last of these revisions, or for the cancel that follows it.

    `revisions` are all revisions of the alert, at least one, ordered by number.
    """
    earlier = revisions[:-1] if cancel is None else revisions
    return complete(draft(revisions[-1], cancel, issuer), earlier, issuer.sender)


def draft(current: Revision, cancel: Cancel | None, issuer: Issuer) -> bytes:
    """Return a CAP message without its type and its references. `complete` adds these."""
    alert = etree.Element("alert", nsmap={None: NAMESPACE})
    number, at = (current.revision, current.issued_at) if cancel is None else (cancel.revision, cancel.cancelled_at)
    add(alert, "identifier", _identifier(current.id, number))
    add(alert, "sender", issuer.sender)
    add(alert, "sent", _time(at))
    add(alert, "status", current.alert.status.capitalize())
    etree.SubElement(alert, "msgType").text = None if cancel is None else "Cancel"
    add(alert, "source", current.source)
    add(alert, "scope", "Public")
    if cancel is not None:
        add(alert, "note", cancel.reason)
    etree.SubElement(alert, "references")
    # A cancel has only one language, that of its reason (rule LA4).
    for text in [*current.alert.texts[: 1 if cancel is not None else None]] or [_only_text(current)]:
        _add_info(alert, current, text, cancel, issuer)
    document: bytes = etree.tostring(alert, encoding="UTF-8", xml_declaration=True)
    return document


def complete(drafted: bytes, earlier: Sequence[Revision], sender: str) -> bytes:
    """Return a message that `draft` made, with its type and its references to the earlier revisions added."""
    # Replace the two empty elements in the draft. They can't occur inside a text, where "<" is written as "&lt;".
    messages = (f"{sender},{_identifier(each.id, each.revision)},{_time(each.issued_at)}" for each in earlier)
    references = f"<references>{escape(' '.join(messages))}</references>" if earlier else ""
    kind = f"<msgType>{'Update' if earlier else 'Alert'}</msgType>"
    return drafted.replace(b"<msgType/>", kind.encode(), 1).replace(b"<references/>", references.encode(), 1)


def _only_text(revision: Revision) -> AlertText:
    """Return the title, the headline and the description of an alert as one text.

    This is for an alert that has no `texts`, which are one text for each language.
    """
    alert = revision.alert
    return AlertText("", revision.terms.title, alert.headline, alert.description)


def _add_info(
    parent: etree._Element, revision: Revision, text: AlertText, cancel: Cancel | None, issuer: Issuer
) -> None:
    alert = revision.alert
    info = etree.SubElement(parent, "info")
    _add_if(info, "language", text.language)
    add(info, "category", issuer.categories.get(alert.category, CATEGORY))
    add(info, "event", text.title)
    if cancel is not None:
        add(info, "responseType", "AllClear")
    add(info, "urgency", (alert.urgency or "unknown").capitalize() if cancel is None else "Past")
    add(info, "severity", alert.severity.capitalize())
    add(info, "certainty", (alert.certainty or "unknown").capitalize())
    _add_if(info, "onset", None if alert.onset_at is None else _time(alert.onset_at))
    add(info, "expires", _time(alert.expires_at))
    add(info, "headline", text.headline)
    _add_if(info, "description", text.description if cancel is None else cancel.reason)
    _add_if(info, "instruction", text.instruction if cancel is None else None)
    _add_if(info, "web", alert.web)
    if revision.origin is not None:
        parameter = etree.SubElement(info, "parameter")
        add(parameter, "valueName", "origin")
        sent = _time(alert.approval.approved_at)  # `sent` of the CAP message that the alert was made from
        add(parameter, "value", f"{revision.origin.sender},{revision.origin.identifier},{sent}")
    area = etree.SubElement(info, "area")
    add(area, "areaDesc", text.area_desc or _described(alert.shapes))
    for polygon in alert.shapes:
        if isinstance(polygon, Polygon):
            add(area, "polygon", " ".join(f"{lat:.6f},{lng:.6f}" for lng, lat in polygon.ring))
    for circle in alert.circles:
        add(area, "circle", f"{circle.lat:.6f},{circle.lng:.6f} {math.ceil(circle.radius_m) / 1000:.9g}")


def _described(shapes: Sequence[KnownShape]) -> str:
    """Return a text that describes where these shapes are. CAP requires such a text, but not every alert has one."""
    circles = [shape for shape in shapes if isinstance(shape, Circle)]
    parts = [f"within {circle.radius_m / 1000:g} km of {circle.lat:.4f}, {circle.lng:.4f}" for circle in circles]
    parts += ["inside the outline"] * (len(circles) < len(shapes))
    return "; ".join(parts) or "see the alert"


def _identifier(alert_id: str, number: int) -> str:
    return f"{alert_id}.{number}"


def _time(ms: int) -> str:
    """Format a time as CAP requires: with an offset, no fraction, and no Z. UTC is written as -00:00 (3.3.2)."""
    return f"{format_time(ms)[:19]}-00:00"


def add(parent: etree._Element, name: str, text: str) -> None:
    """Add an element with a text, in which XML's forbidden characters are replaced."""
    etree.SubElement(parent, name).text = clean(text)


def _add_if(parent: etree._Element, name: str, text: str | None) -> None:
    if text:
        add(parent, name, text)


def clean(text: str) -> str:
    """Return a text in which each character that XML can't contain is replaced with U+FFFD."""
    return _NO_XML.sub("\ufffd", text)
