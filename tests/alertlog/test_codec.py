"""What `decode` gives can be sent: the hub encodes an entry when somebody is owed it, and relies on that."""

import msgpack
import pytest
from fakes import NOON_MS, FakeClock, a_cancel, a_revision

from geocast import frames
from geocast.alert import OtherShape, Polygon, Revision, Terms
from geocast.alertlog import codec
from geocast.live import LiveAlerts

ODD = (None, -1, 2**63, 1e300, b"bytes", [b"bytes"], {1: b"x"}, True, "text", [], {}, msgpack.Timestamp(1, 0))


def entries_that_are_odd():
    """Entries of the log, each with one odd member."""
    for entry in (a_revision(), a_cancel()):
        fields = msgpack.unpackb(codec.encode(entry))
        for name in fields:
            for value in ODD:
                yield pytest.param(fields | {name: value}, id=f"{fields['kind']} {name} {value!r}")
    later, polygon = {"type": "MultiPolygon"}, {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    for value in ODD:
        area = [{**later, "x": value}, {**later, "x": [[value]]}]
        yield pytest.param(msgpack.unpackb(codec.encode(a_revision())) | {"area": area}, id=f"a shape with {value!r}")
        for name, odd in (("coordinates", value), ("coordinates", [[value] * 4]), ("buffer_m", value)):
            area = [{**polygon, name: odd}]
            yield pytest.param(msgpack.unpackb(codec.encode(a_revision())) | {"area": area}, id=f"{name} {odd!r}")


@pytest.mark.parametrize("fields", list(entries_that_are_odd()))
def test_an_entry_is_one_that_can_be_sent_or_none(fields):
    """LogR2: what is no entry is set aside when it is read, so that nothing fails in the middle of a fan-out."""
    try:
        entry = codec.decode(msgpack.packb(fields), "a-1", 1, NOON_MS)
    except ValueError:
        return
    if isinstance(entry, Revision):
        LiveAlerts(4).apply(entry, FakeClock().now())
    if not isinstance(entry, codec.OtherKind):
        assert len(frames.encode(entry)) == len(frames.WIRES)


@pytest.mark.parametrize(
    "polygon",
    [
        Polygon(((0.0, 0.0), (1.0, 0.0), (1.0, 1.5), (0.0, 0.0)), 60.0),
        Polygon(((180.0, -0.5), (-179.9, 0.0), (179.0, 1.0), (180.0, -0.5))),
    ],
)
def test_a_polygon_comes_back(polygon):
    """B7, B9: number by number, with its buffer or none; and the terms that it was simplified by (B8)."""
    entry = a_revision(area=(polygon,), terms=Terms("Flood", 3_600_000, 9, simplify_m=500))
    assert codec.decode(codec.encode(entry), "a-1", 1, NOON_MS) == entry
    assert ("buffer_m" in polygon.to_map()) == (polygon.buffer_m > 0)


def test_an_entry_without_simplification_has_the_bytes_that_it_always_had():
    """LogG5: entries of older releases that are put back are the same."""
    assert len(msgpack.unpackb(codec.encode(a_revision()))["terms"]) == 3


@pytest.mark.parametrize("coordinates", [[], [[]], [[[0, 0], [1, 1], [0, 0]]], [[[0, 0], [9, 0], [9, 9], [0, 0]]] * 2])
def test_a_polygon_as_this_release_never_writes_is_another_shape(coordinates):
    """LogG3: one with holes, say. It holds no place, and is sent as it came."""
    fields = msgpack.unpackb(codec.encode(a_revision()))
    shape = {"type": "Polygon", "coordinates": coordinates}
    entry = codec.decode(msgpack.packb(fields | {"area": [shape]}), "a-1", 1, NOON_MS)
    assert entry.alert.area == (OtherShape(shape),)
