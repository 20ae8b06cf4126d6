"""What `decode` gives can be sent: the hub encodes an entry when somebody is owed it, and relies on that."""

import msgpack
import pytest
from fakes import NOON_MS, a_cancel, a_revision

from geocast import frames
from geocast.alertlog import codec

ODD = (None, -1, 2**63, 1e300, b"bytes", [b"bytes"], {1: b"x"}, True, "text", [], {}, msgpack.Timestamp(1, 0))


def entries_that_are_odd():
    """Entries of the log, each with one odd member."""
    for entry in (a_revision(), a_cancel()):
        fields = msgpack.unpackb(codec.encode(entry))
        for name in fields:
            for value in ODD:
                yield pytest.param(fields | {name: value}, id=f"{fields['kind']} {name} {value!r}")
    polygon = {"type": "Polygon"}
    for value in ODD:
        area = [{**polygon, "x": value}, {**polygon, "x": [[value]]}]
        yield pytest.param(msgpack.unpackb(codec.encode(a_revision())) | {"area": area}, id=f"a shape with {value!r}")


@pytest.mark.parametrize("fields", list(entries_that_are_odd()))
def test_an_entry_is_one_that_can_be_sent_or_none(fields):
    """LogR2: what is no entry is set aside when it is read, so that nothing fails in the middle of a fan-out."""
    try:
        entry = codec.decode(msgpack.packb(fields), "a-1", 1, NOON_MS)
    except ValueError:
        return
    if not isinstance(entry, codec.OtherKind):
        assert len(frames.encode(entry)) == len(frames.WIRES)
