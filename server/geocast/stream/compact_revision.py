"""A compact encoding as bytes for the newest revision of a live alert, used after the fan-out has sent the revision.

As Python objects, a revision takes 1.3 KiB, and most live alerts concern no session of the process. The bytes never
leave the process, so they contain only values, in the order in which the fields are declared, and no field names. The
alert's id is not in the bytes: the caller stores it separately.
"""

from dataclasses import astuple
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
from ..model.members import members_of

# The fields of an alert that are packed unchanged: the fields before `area`, and the optional ones after `texts`.
_PLAIN = members_of(Alert, without=("id", "area", "approval", "confirm", "texts"))
_DEFAULTS = tuple(each.default for each in _PLAIN if each.is_optional)
_needed = attrgetter(*(each.name for each in _PLAIN if not each.is_optional))
_optional = attrgetter(*(each.name for each in _PLAIN if each.is_optional))
# Don't use `astuple`: it copies deeply, which takes 7.6 µs. All the work for an entry of the log that goes to no
# session takes only twelve times as long.
_terms = attrgetter(*(each.name for each in members_of(AcceptedTerms)))
_text = attrgetter(*(each.name for each in members_of(AlertText)))


def pack(revision: Revision) -> bytes:
    """Return the revision in the compact form, as bytes that do not contain the alert's id."""
    alert, optional = revision.alert, _optional(revision.alert)
    packed: bytes = msgpack.packb(
        (
            (revision.revision, revision.source, revision.issued_at, revision.issuer),
            _needed(alert),
            None if optional == _DEFAULTS else optional,  # most alerts have none of the optional fields
            [_plain(shape) for shape in alert.area],
            (alert.approval.reviewer, alert.approval.approved_at),
            (alert.confirm.area_km2, alert.confirm.text),
            [_text(text) for text in alert.texts],
            _terms(revision.terms),
            None if revision.origin is None else astuple(revision.origin),
            None if revision.proof is None else astuple(revision.proof),
        )
    )
    return packed


def unpack(alert_id: str, data: bytes) -> Revision:
    """Return the revision from which `pack` made `data`.

    The bytes do not contain the alert's id, so it is a parameter.
    """
    head, needed, optional, area, approval, confirm, *more = msgpack.unpackb(data, strict_map_key=False)
    number, source, issued_at, issuer = head
    area_km2, kinds = confirm
    texts, terms, origin, proof = more
    members: list[Any] = [
        alert_id,
        *needed,
        tuple(map(_shape, area)),
        Approval(*approval),
        Confirm(area_km2, tuple(kinds)),
        tuple(AlertText(*each) for each in texts),
        *(optional or _DEFAULTS),
    ]
    made_of = None if origin is None else Origin(*origin)
    return Revision(Alert(*members), number, source, issued_at, AcceptedTerms(*terms), made_of, _proof(proof), issuer)


def _proof(plain: Any) -> ApprovalProof | None:
    if plain is None:
        return None
    form, signatures = plain
    return ApprovalProof(form, tuple(Signature(*each) for each in signatures))


def _plain(shape: Shape) -> Any:
    """Turn a shape into plain lists, tuples and numbers, from which `_shape` makes the shape again.

    A circle becomes a tuple of three numbers. A polygon becomes a list with its buffer and a flat list of coordinates.
    Any other shape becomes the dict of its fields.
    """
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
