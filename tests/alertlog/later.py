"""Entries as a later release may write them: with kinds, shapes and members that this release does not know.

Purpose: two releases on one log. Lies: there is no later release yet, so the entries are made from this release's
bytes.
"""

from typing import Any, NamedTuple

import msgpack
from support.fakes import NOON_MS, a_cancel, a_revision

from geocast.alertlog import codec
from geocast.model.alert import Entry

ENDS_MS = NOON_MS + 1_800_000
MULTIPOLYGON = {
    "type": "MultiPolygon",
    "coordinates": [[[[-96.81, 32.77], [-96.78, 32.77], [-96.78, 32.79], [-96.81, 32.77]]]],
    "buffer_m": 20.0,
}


class Later(NamedTuple):
    """An entry of a later release: its bytes, and the columns that the log stores with them."""

    id: str
    revision: int
    kind: str
    ends_at: int
    payload: bytes

    @property
    def checksum(self) -> int:
        """The CRC-32 that is stored with the bytes."""
        return codec.checksum(self.id, self.revision, self.payload)


def of_another_kind(
    alert_id: str = "a-1", revision: int = 1, kind: str = "vigil", ends_at: int = ENDS_MS, **members: Any
) -> Later:
    """Return an entry of a kind that this release does not know."""
    fields = {"kind": kind, "sealed": b"\x00\xff" * 20, "by": {1: "one", "deep": [{"er": None}]}} | members
    return Later(alert_id, revision, kind, ends_at, msgpack.packb(fields))


def with_members(entry: Entry, **members: Any) -> Later:
    """Return a revision or a cancel that has unknown fields in all its parts."""
    fields = msgpack.unpackb(codec.encode(entry))
    fields["approval"] += [1_935_403_145, {"kid": "8f3a91c2d4e5f607"}]
    if "terms" in fields:
        fields["terms"] += [0, ["another"]]
        fields["area"] = [shape | {"buffer_m": 10.0, 7: b"\x01"} for shape in fields["area"]]
    fields |= {"rules": 2, "form": '{"v":1}', "signatures": [{"protected": "eyJ"}], "into": None, "raw": b"\xff"}
    return _later(entry, fields | members)


def with_area(*shapes: dict[str, Any], **changes: Any) -> Later:
    """Return a revision with these shapes, given as dicts."""
    entry = a_revision(**changes)
    return _later(entry, msgpack.unpackb(codec.encode(entry)) | {"area": list(shapes)})


def a_tombstone(alert_id: str = "a-1") -> Later:
    """Return a tombstone: a cancel that is the first entry, because the message came after its own cancel."""
    return with_members(a_cancel(alert_id, 1), into="a-9")


def _later(entry: Entry, fields: dict[str, Any]) -> Later:
    return Later(entry.id, entry.revision, fields["kind"], entry.ends_at, msgpack.packb(fields))
