"""The bytes of an entry in a SQLite log."""

import dataclasses

import msgpack
import pytest
from alertlog.sqlite.tools import ENDS_MS, Opened, run
from support.fakes import FakeClock, a_cancel, a_revision, alert_request

from geocast import policy
from geocast.alertlog import codec
from geocast.auth.tokens import Requester
from geocast.ingest.publish import Publishing

ENTRIES = [
    a_revision(),
    a_revision(description="", status="test"),
    a_revision(revision=2**31 - 1, description="é😀\n", severity="extreme"),
    a_revision(area=a_revision().alert.area * 16),
    a_cancel(),
    a_cancel(revision=9, reason="é"),
]


def decoded(data):
    """Return the entry that these bytes contain."""
    return codec.decode(data, "a-1", 1, ENDS_MS)


def changed(**changes):
    """Return the bytes of a revision in which some fields have other values."""
    return msgpack.packb(msgpack.unpackb(codec.encode(a_revision())) | changes)


@pytest.mark.parametrize("entry", ENTRIES, ids=range(len(ENTRIES)))
def test_decoded_entry_equals_encoded_one(entry):
    """Every field is the same (LogA4)."""
    assert decoded(codec.encode(entry)) == entry


@pytest.mark.parametrize("entry", ENTRIES, ids=range(len(ENTRIES)))
def test_fields_of_later_version_are_ignored(entry):
    """Log entries can grow, so old and new nodes work side by side (section 1 of the protocol)."""
    fields = msgpack.unpackb(codec.encode(entry)) | {"colour": "red", "nested": {"a": [1]}}
    for shape in fields.get("area", ()):
        shape["height_m"] = 5
    assert decoded(msgpack.packb(fields)) == entry


@pytest.mark.parametrize("field", sorted(msgpack.unpackb(codec.encode(a_revision())).keys() - {"rules"}))
def test_bytes_without_required_field_raise_value_error(field):
    """Decoding raises ValueError, whichever field is missing (LogR2)."""
    fields = msgpack.unpackb(codec.encode(a_revision()))
    del fields[field]
    with pytest.raises(ValueError, match=r"^not an entry: "):
        decoded(msgpack.packb(fields))


def test_entry_stores_version_of_rules_it_was_accepted_under():
    """Entries without `rules` were accepted before B11 and B12, and keep their bytes (B12)."""
    entry = a_revision()
    fields = msgpack.unpackb(codec.encode(entry))
    assert fields.pop("rules") == entry.terms.rules == 2
    older = decoded(msgpack.packb(fields))
    assert older == dataclasses.replace(entry, terms=dataclasses.replace(entry.terms, rules=1))
    assert codec.encode(older) == msgpack.packb(fields)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x90",
        msgpack.packb(5),
        msgpack.packb({}),
        msgpack.packb({"kind": 5}),
        msgpack.packb({"kind": "revision"}),
        msgpack.packb({"kind": "cancel"}),
        codec.encode(a_revision())[:-1],
        codec.encode(a_revision()) + b"\x00",
        changed(revision="1"),
        changed(revision=True),
        changed(id=5),
        changed(severity="dire"),
        changed(area=5),
        changed(area=[{"lat": 1.0, "lng": 1.0, "radius_m": 1.0}]),
        changed(area=[{"type": "circle", "lat": 1.0, "lng": 1.0}]),
        changed(area=[{"type": "cloud", "height_m": float("nan")}]),
        changed(area=[{"type": "cloud", "raw": b"x"}]),
        changed(approval=[]),
        changed(approval=["desk-7", "noon"]),
        changed(terms=[1]),
        changed(terms=["Robbery", 3_600_000, None]),
        msgpack.packb(msgpack.unpackb(codec.encode(a_cancel())) | {"ends_at": None}),
    ],
    ids=range(24),
)
def test_bytes_that_are_not_an_entry_raise_value_error(data):
    """Decoding raises ValueError, and never an error of the msgpack library (LogR2)."""
    with pytest.raises(ValueError, match=r"^not an entry: "):
        decoded(data)


def test_exact_requested_circle_is_not_stored_in_file(path):
    """Neither the requested circle nor a value computed from it is stored (section 2 of the protocol)."""
    exact = {"type": "circle", "lat": 32.776712345, "lng": -96.797098765, "radius_m": 777.77}

    async def main():
        async with Opened(path) as log:
            publishing = Publishing(log, policy.load(None), FakeClock())
            await publishing.publish(alert_request(area=exact), Requester("desk"))

    run(main)
    for file in path.parent.iterdir():
        data = file.read_bytes()
        for value in (exact["lat"], exact["lng"], exact["radius_m"]):
            assert str(value).encode()[:9] not in data
            assert msgpack.packb(value)[1:] not in data
            assert msgpack.packb(value)[:0:-1] not in data
