"""The codec of log entries: `decode` only returns entries that can be sent, since the hub encodes them later."""

from dataclasses import replace

import msgpack
import pytest
from alertlog.chains import EXPIRES_MS, a_call, a_claim, an_end
from support.fakes import NOON_MS, FakeClock, a_cancel, a_revision, a_text, a_warning
from support.reviewers import proved

from geocast.alertlog import codec
from geocast.model.alert import AcceptedTerms, AlertText, Origin, OtherShape, Polygon, Revision
from geocast.stream.live_alerts import LiveAlerts
from geocast.wire import frames

OLDER_MEMBERS = {
    *("kind", "id", "revision", "source", "issued_at", "terms", "category", "headline", "description"),
    *("severity", "status", "occurred_at", "expires_at", "area", "approval", "rules"),
}
ODD = (
    None,
    -1,
    2**63,
    1e300,
    float("nan"),
    b"bytes",
    [b"bytes"],
    {1: b"x"},
    True,
    "text",
    [],
    {},
    msgpack.Timestamp(1, 0),
)


def entries_that_are_odd():
    """Yield entries of the log in which one field has an unusual value."""
    of_cap = replace(a_warning(), origin=Origin("met@example.org", "m-1"))
    for entry in (of_cap, a_cancel(into="a-9"), proved(a_revision(), "r-1"), proved(a_cancel(), "r-1")):
        fields = msgpack.unpackb(codec.encode(entry))
        for name in fields:
            for value in ODD:
                yield pytest.param(fields | {name: value}, id=f"{fields['kind']} {len(fields)} {name} {value!r}")
    for name in ("language", "title", "headline", "description", "instruction", "area_desc"):
        for value in ODD:
            fields = msgpack.unpackb(codec.encode(a_warning()))
            fields["texts"][1][name] = value
            yield pytest.param(fields, id=f"a text with {name} {value!r}")
    later, polygon = {"type": "MultiPolygon"}, {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    for value in ODD:
        area = [{**later, "x": value}, {**later, "x": [[value]]}]
        yield pytest.param(msgpack.unpackb(codec.encode(a_revision())) | {"area": area}, id=f"a shape with {value!r}")
        for name, odd in (("coordinates", value), ("coordinates", [[value] * 4]), ("buffer_m", value)):
            area = [{**polygon, name: odd}]
            yield pytest.param(msgpack.unpackb(codec.encode(a_revision())) | {"area": area}, id=f"{name} {odd!r}")


@pytest.mark.parametrize("fields", list(entries_that_are_odd()))
def test_stored_entry_that_could_not_be_sent_is_refused_when_decoded(fields):
    """So nothing fails later, while the alert is sent to its subscribers (LogR2)."""
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
def test_polygon_is_decoded_unchanged(polygon):
    """All numbers and the terms are the same, with and without a buffer (B7, B8, B9)."""
    entry = a_revision(area=(polygon,), terms=AcceptedTerms("Flood", 3_600_000, 9, simplify_m=500))
    assert codec.decode(codec.encode(entry), "a-1", 1, NOON_MS) == entry
    assert ("buffer_m" in polygon.to_map()) == (polygon.buffer_m > 0)


@pytest.mark.parametrize("entry", [a_revision(), a_cancel()], ids=["revision", "cancel"])
def test_approval_proof_is_decoded_unchanged(entry):
    """The proof is a field of its own, so older releases can read the other fields (NC1, NC7)."""
    signed = proved(entry, "r-1", "r-2")
    fields = msgpack.unpackb(codec.encode(signed))
    assert codec.decode(codec.encode(signed), "a-1", 1, NOON_MS) == signed
    assert msgpack.unpackb(codec.encode(entry)) == {name: value for name, value in fields.items() if name != "proof"}
    assert len(fields.get("terms", [1, 2, 3])) == 3
    assert len(fields["approval"]) == 2


def test_entry_without_polygon_simplification_has_same_bytes_as_in_older_release():
    """Entries of older releases are restored byte for byte (LogG5)."""
    assert len(msgpack.unpackb(codec.encode(a_revision()))["terms"]) == 3


@pytest.mark.parametrize(
    "entry", [replace(a_revision(), origin=Origin("met@example.org", "m-1", 2)), a_cancel("a-1", 1, into="a-9")]
)
def test_cap_origin_of_entry_is_decoded_unchanged(entry):
    """The origin names the CAP message of a revision, or the alert that replaced a cancelled one (CP13)."""
    assert codec.decode(codec.encode(entry), entry.id, entry.revision, NOON_MS) == entry


def test_entry_not_from_cap_has_same_bytes_as_in_older_release():
    """Entries of older releases are restored byte for byte (LogG5)."""
    for entry in (a_revision(), a_cancel()):
        assert not msgpack.unpackb(codec.encode(entry)).keys() & {"origin", "into"}


@pytest.mark.parametrize("entry", [a_revision(), a_cancel("a-1", 2)], ids=["revision", "cancel"])
def test_issuer_is_decoded_unchanged_and_not_stored_if_empty(entry):
    """Entries of older releases, and of publishers whose key has no issuer, lack this field (HD5, LogG5)."""
    assert "issuer" not in msgpack.unpackb(codec.encode(entry))
    named = replace(entry, issuer="https://desks.example")
    assert codec.decode(codec.encode(named), entry.id, entry.revision, NOON_MS) == named


@pytest.mark.parametrize("coordinates", [[], [[]], [[[0, 0], [1, 1], [0, 0]]], [[[0, 0], [9, 0], [9, 9], [0, 0]]] * 2])
def test_polygon_with_unsupported_coordinates_is_decoded_as_unknown_shape(coordinates):
    """A polygon with holes, for instance, is sent unchanged and contains no place (LogG3)."""
    fields = msgpack.unpackb(codec.encode(a_revision()))
    shape = {"type": "Polygon", "coordinates": coordinates}
    entry = codec.decode(msgpack.packb(fields | {"area": [shape]}), "a-1", 1, NOON_MS)
    assert entry.alert.area == (OtherShape(shape),)


@pytest.mark.parametrize("value", [b"\xff", float("nan"), 1e308, {7: b"x"}], ids=repr)
def test_unknown_member_of_circle_or_polygon_is_neither_refused_nor_sent(value):
    """Only the shape's known members are sent (LogG3). Shapes of other types are sent whole, so they are refused."""
    polygon = Polygon(((0, 0), (1, 0), (1, 1), (0, 0)), 20.0)
    plain = a_revision(area=(*a_revision().alert.area, polygon))
    fields = msgpack.unpackb(codec.encode(plain))
    fields["area"] = [shape | {"later": value} for shape in fields["area"]]
    assert codec.decode(msgpack.packb(fields), "a-1", 1, NOON_MS) == plain


def test_official_warning_is_decoded_with_all_languages():
    """All fields of all texts are the same, and so are the fields that only CAP has (LogA4)."""
    for entry in (
        a_warning("en", "fr", "es-US", "zh-Hant-TW"),
        a_warning("en", description=None, texts=(AlertText("en", "Flood", "revision 1"),), headline="revision 1"),
        a_warning(urgency=None, web=None),
        a_warning(texts=(), onset_at=None, certainty=None),
    ):
        assert codec.decode(codec.encode(entry), "a-1", 1, NOON_MS) == entry


def test_alert_without_languages_is_stored_with_fields_of_older_release_only():
    """A release without languages can read the alert (LogG5)."""
    assert msgpack.unpackb(codec.encode(a_revision())).keys() == OLDER_MEMBERS


def test_older_release_without_languages_reads_text_in_first_language():
    """Headline and description in the first language are stored only once, in the entry itself (LogG3, LA4)."""
    entry = a_warning("de-AT", "en", "fr")
    fields = msgpack.unpackb(codec.encode(entry))
    first, *others = fields["texts"]
    assert (fields["headline"], fields["description"]) == (entry.alert.headline, entry.alert.description)
    assert "in de-AT" in fields["headline"]
    assert first.keys() == {"language", "title", "instruction", "area_desc"}
    assert [each["headline"] for each in others] == ["headline in en revision 1", "headline in fr revision 1"]
    older = {name: value for name, value in fields.items() if name in OLDER_MEMBERS}
    known = codec.decode(msgpack.packb(older), "a-1", 1, NOON_MS)
    assert (known.alert.headline, known.alert.texts) == (entry.alert.headline, ())


def test_unknown_fields_of_text_in_one_language_are_ignored():
    """Fields of a later release are skipped (LogG3)."""
    fields = msgpack.unpackb(codec.encode(a_warning()))
    fields["texts"] = [text | {"audio": [1, None]} for text in fields["texts"]]
    assert codec.decode(msgpack.packb(fields), "a-1", 1, NOON_MS) == a_warning()


def test_entry_with_eight_languages_fits_with_usual_but_not_longest_texts():
    """An entry may have at most 64 KiB (LogA5, F8)."""
    tags = [f"x{letter}" for letter in "abcdefgh"]
    usual = [replace(a_text(tag), description="\u0d85" * 800, instruction="\u0d85" * 500) for tag in tags]
    longest = [replace(text, description="\U0001f30a" * 4_000) for text in usual]
    assert codec.fits(a_warning(texts=tuple(usual)))
    assert not codec.fits(a_warning(texts=tuple(longest)))
    assert not codec.fits(a_revision(description="x" * codec.MAX_ENTRY_BYTES))
    assert codec.fits(a_cancel(reason="\U0001f30a" * 280))


@pytest.mark.parametrize("resolution", [-1, 16, 99, 2**40])
def test_entry_with_invalid_h3_resolution_is_refused(resolution):
    """Otherwise every later revision of the alert would fail (LogR2)."""
    fields = msgpack.unpackb(codec.encode(a_revision()))
    title, default_age_ms, _ = fields["terms"]
    with pytest.raises(ValueError, match=r"^not an entry: "):
        codec.decode(msgpack.packb(fields | {"terms": [title, default_age_ms, resolution]}), "a-1", 1, NOON_MS)


@pytest.mark.parametrize("name", ["kind", "id", "revision", "ends_at", "plain", "sealed", "sealed_as"])
@pytest.mark.parametrize("value", ODD)
def test_call_entry_with_wrong_field_is_refused(name, value):
    """The plain and the encrypted part must be bytes; their content is not checked (LogC2, LogR2)."""
    fields = msgpack.unpackb(codec.encode(a_claim(1))) | {name: value}
    try:
        entry = codec.decode(msgpack.packb(fields), "c-1", 1, EXPIRES_MS)
    except ValueError:
        return
    if name == "kind":  # of another kind
        assert type(entry) is codec.OtherKind
        return
    assert (entry.id, entry.revision, entry.sealed_as) == ("c-1", 1, 0)
    assert entry.sealed
    assert (name, value) in (("plain", b"bytes"), ("sealed", b"bytes"))


@pytest.mark.parametrize("entry", [a_claim(2), an_end(2)])
def test_renumbered_call_entry_stores_number_it_was_encrypted_under(entry):
    """The stored number stays, however often the entry is renumbered (LogC5, RZ3)."""
    assert codec.decode(codec.encode(entry), "c-1", 2, EXPIRES_MS) == entry
    moved = codec.renumbered(codec.encode(entry), 5)
    assert codec.decode(moved, "c-1", 5, EXPIRES_MS) == replace(entry, revision=5, sealed_as=2)
    assert codec.decode(codec.renumbered(moved, 9), "c-1", 9, EXPIRES_MS) == replace(entry, revision=9, sealed_as=2)


@pytest.mark.parametrize(
    ("entry", "sealed_as"), [(a_call(3), 1), (a_claim(3), 3), (a_claim(3), 4), (an_end(3), 9), (an_end(3), -1)]
)
def test_call_entry_with_invalid_encryption_number_is_refused(entry, sealed_as):
    """Somebody who can write to the log can't move an entry to a lower number, or content to another one (RZ3)."""
    data = msgpack.packb(msgpack.unpackb(codec.encode(entry)) | {"sealed_as": sealed_as})
    with pytest.raises(ValueError, match=r"^not an entry: "):
        codec.decode(data, "c-1", 3, EXPIRES_MS)


def test_encoded_call_entry_begins_with_its_kind():
    """The index of the SQLite file depends on these first bytes (LogC3)."""
    for entry, kind in ((a_call(), "call"), (an_end(), "end")):
        assert codec.encode(entry)[1:].startswith(codec.begins(kind))
    assert codec.renumbered(codec.encode(an_end()), 9)[1:].startswith(codec.begins("end"))
