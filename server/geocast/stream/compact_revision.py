"""An accepted revision in few bytes: how a live alert keeps it while nobody needs it.

As objects a revision takes 1.3 KiB, and nearly all live alerts concern no session of a process. The bytes are for this
process alone, so they name no field. What the alert's other revisions share is kept beside them by whoever packs.
"""

from dataclasses import astuple, fields
from operator import attrgetter
from typing import Any

import msgpack

from ..model.alert import (
    AcceptedTerms,
    Alert,
    AlertText,
    Approval,
    ApprovalProof,
    Circle,
    Confirm,
    Origin,
    OtherShape,
    Polygon,
    Revision,
    Shape,
    Signature,
)

# `astuple` copies deeply, which takes 7.6 µs: a twelfth of all that an entry costs which concerns nobody.
_terms = attrgetter(*(field.name for field in fields(AcceptedTerms)))


def pack(revision: Revision) -> bytes:
    """All of a revision but its id."""
    alert, terms = revision.alert, revision.terms
    packed: bytes = msgpack.packb(
        (
            (revision.revision, revision.source, revision.issued_at, revision.issuer),
            (alert.category, alert.headline, alert.description, alert.severity, alert.status),
            (alert.occurred_at, alert.expires_at),
            [_plain(shape) for shape in alert.area],
            (alert.approval.reviewer, alert.approval.approved_at),
            _terms(terms),
            (alert.confirm.area_km2, alert.confirm.text),
            None if revision.origin is None else astuple(revision.origin),
            _warned(alert),
            None if revision.proof is None else astuple(revision.proof),
        )
    )
    return packed


def unpack(alert_id: str, data: bytes) -> Revision:
    """The revision that was packed."""
    head, words, times, area, approval, terms, confirm, *more = msgpack.unpackb(data, strict_map_key=False)
    number, source, issued_at, issuer = head
    category, headline, description, severity, status = words
    occurred_at, expires_at = times
    area_km2, kinds = confirm
    origin, warned, proof = more
    texts, *others = warned or [()]
    alert = Alert(
        alert_id,
        category,
        headline,
        description,
        severity,
        status,
        occurred_at,
        expires_at,
        tuple(map(_shape, area)),
        Approval(*approval),
        Confirm(area_km2, tuple(kinds)),
        tuple(AlertText(*each) for each in texts),
        *others,
    )
    made_of = None if origin is None else Origin(*origin)
    return Revision(alert, number, source, issued_at, AcceptedTerms(*terms), made_of, _proof(proof), issuer)


def _proof(plain: Any) -> ApprovalProof | None:
    if plain is None:
        return None
    form, signatures = plain
    return ApprovalProof(form, tuple(Signature(*each) for each in signatures))


def _warned(alert: Alert) -> Any:
    """What only alerts of official warnings have; None where there is nothing of it."""
    members = [astuple(text) for text in alert.texts], alert.urgency, alert.certainty, alert.onset_at, alert.web
    return members if any(member is not None for member in members[1:]) or alert.texts else None


def _plain(shape: Shape) -> Any:
    """A circle as three numbers, a polygon as its buffer and its ring end to end, any other shape as it came."""
    if isinstance(shape, Circle):
        return shape.lat, shape.lng, shape.radius_m
    if isinstance(shape, Polygon):
        return [shape.buffer_m], [number for corner in shape.ring for number in corner]
    return shape.members


def _shape(plain: Any) -> Shape:
    if not isinstance(plain, list):
        return OtherShape(plain)
    if len(plain) == 3:
        return Circle(*plain)
    [buffer_m], numbers = plain
    return Polygon(tuple(zip(numbers[::2], numbers[1::2], strict=True)), buffer_m)
