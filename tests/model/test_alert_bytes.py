"""The stored, signed and sent forms of alerts, compared with the bytes of earlier releases.

`alert_bytes.json` has these forms of each entry in ENTRIES, and some entries as a later release may store them. Run
this file as a program (`python tests/model/test_alert_bytes.py`) to add the forms of new entries. Existing forms in the
file are never changed.
"""

import base64
import dataclasses
import json
from pathlib import Path

import msgpack
import pytest

from geocast.alertlog import codec
from geocast.api.responses import answer_of
from geocast.approvals import form
from geocast.model.alert import (
    AcceptedTerms,
    Alert,
    AlertText,
    Approval,
    ApprovalProof,
    Cancel,
    Circle,
    Confirm,
    Origin,
    OtherShape,
    Polygon,
    Revision,
    Signature,
)
from geocast.stream.compact_revision import pack, unpack
from geocast.wire.frames import JSON, SIGNED, WIRES, alert_map, encode, texts_of

PATH = Path(__file__).with_name("alert_bytes.json")
NOON_MS = 1_769_860_800_000
CIRCLE = Circle(32.77651106192115, -96.79535520104106, 1020.0)
RING = ((-96.8, 32.7), (-96.7, 32.7), (-96.7, 32.8), (-96.8, 32.7))
LATER_SHAPE = OtherShape({"type": "cells", "cells": ["8926cb19c93ffff"], "7": None})
ALERT = Alert(
    id="desk-7.e3b0c442",
    category="robbery",
    headline="Robbery at a shop",
    description=None,
    severity="severe",
    status="actual",
    occurred_at=NOON_MS - 600_000,
    expires_at=NOON_MS + 1_800_000,
    area=(CIRCLE,),
    approval=Approval("desk-7", NOON_MS - 60_000),
)
REVISION = Revision(ALERT, 1, "desk", NOON_MS + 118, AcceptedTerms("Robbery", 3_600_000, 9))
CANCEL = Cancel(
    ALERT.id, 2, "The danger is over.", Approval("desk-7", NOON_MS), "desk", NOON_MS + 118, ALERT.expires_at
)
TEXTS = (
    AlertText("de-AT", "Hochwasser", "Wasser “steigt”", "Zeile 1\nZeile 2", "Nach oben gehen.", "Tal der Enns"),
    AlertText("en", "Flood", "Water rises", None, "Go up.", None),
    AlertText("zh-Hant-TW", "洪水", "水位上升 \U0001f30a"),
)
WARNING = dataclasses.replace(
    ALERT,
    headline=TEXTS[0].headline,
    description=TEXTS[0].description,
    texts=TEXTS,
    urgency="expected",
    certainty="likely",
    onset_at=NOON_MS + 600_000,
    web="https://warnings.example/1",
)
SIGNATURES = (Signature("eyJhbGciOiJFZDI1NTE5In0", "c2lnbmF0dXJl"), Signature("eyJraWQiOiJyLTIifQ", "YW5vdGhlcg"))


def a_revision(alert=ALERT, **changes):
    """Return REVISION with another alert or other fields."""
    return dataclasses.replace(REVISION, alert=alert, **changes)


def an_alert(**changes):
    """Return REVISION with other fields in its alert."""
    return a_revision(dataclasses.replace(ALERT, **changes))


def a_warning(**changes):
    """Return an official warning with other fields."""
    return a_revision(dataclasses.replace(WARNING, **changes), terms=AcceptedTerms("Hochwasser", 3_600_000, 9))


def with_proof(entry):
    """Return the entry with its form and two invented signatures."""
    return dataclasses.replace(entry, proof=ApprovalProof(form_text(entry), SIGNATURES))


def form_text(entry):
    """Return the signed form of an entry as text."""
    return form.text_of(form.form_of(entry, "a.example", "robbery"))


ENTRIES = {
    "alert": REVISION,
    "description": an_alert(description="Line 1\n“Line” 2 \u2028"),
    "empty description": an_alert(description=""),
    "least severe exercise": an_alert(severity="minor", status="exercise"),
    "status of a later release": an_alert(status="drill"),
    "several circles": an_alert(area=(CIRCLE, Circle(-90.0, 180.0, 20_015_086.0), Circle(1.0, -2.0, 5.0))),
    "polygon": an_alert(area=(Polygon(RING),)),
    "polygon with a buffer and a circle": an_alert(area=(Polygon(RING, 62.5), CIRCLE)),
    "shape of a later release": an_alert(area=(LATER_SHAPE, CIRCLE)),
    "confirmed area": an_alert(confirm=Confirm(3000.5)),
    "confirmed area and words": an_alert(confirm=Confirm(12.0, ("address", "name"))),
    "first rules": a_revision(terms=AcceptedTerms("Robbery", 3_600_000, 8, rules=1)),
    "simplified": a_revision(terms=AcceptedTerms("Robbery", 60_000, 10, simplify_m=500)),
    "later revision with an issuer": a_revision(revision=2**31 - 1, issuer="https://desks.example"),
    "proof": with_proof(a_revision(revision=7)),
    "proof of all that publishers send": with_proof(
        dataclasses.replace(
            an_alert(description="Stay in.", area=(CIRCLE, Polygon(RING, 60.0)), confirm=Confirm(3000.5, ("name",))),
            terms=AcceptedTerms("Räuber", 3_600_000, 9, simplify_m=20),
            issuer="https://desks.example",
        )
    ),
    "warning": a_warning(),
    "warning from CAP with an issuer": dataclasses.replace(
        a_warning(), origin=Origin("met@example.org", "m-1", 2), issuer="https://desks.example"
    ),
    "warning in one language with all that is confirmed": a_warning(
        texts=TEXTS[:1], confirm=Confirm(None, ("phone",)), area=(Polygon(RING, 5.0),)
    ),
    "warning without languages": a_warning(texts=()),
    **{f"warning without {name}": a_warning(**{name: None}) for name in ("urgency", "certainty", "onset_at", "web")},
    "warning with languages alone": a_warning(urgency=None, certainty=None, onset_at=None, web=None),
    "only urgency": an_alert(urgency="immediate"),
    "only web": an_alert(web="http://warnings.example/2"),
    "cancel": CANCEL,
    "cancel that is confirmed": dataclasses.replace(CANCEL, confirm=Confirm(text=("name", "units"))),
    "cancel of what was replaced": dataclasses.replace(CANCEL, into="desk-7.9", revision=9),
    "tombstone with an issuer": dataclasses.replace(CANCEL, revision=1, issuer="https://desks.example"),
    "cancel with a proof": with_proof(dataclasses.replace(CANCEL, confirm=Confirm(text=("name",)))),
}  # fmt: skip


LATER = ("alert", "several circles", "shape of a later release", "proof", "warning from CAP with an issuer", "cancel")


def forms_of(entry):
    """Return every form of an entry. The compact form never leaves a process, so only its size is returned."""
    frames = encode(entry)
    forms = {
        "stored": encoded(codec.encode(entry)),
        "frame": payload(frames[JSON.number]).decode(),
        "form": form_text(entry),
        "accepted": json.dumps(answer_of(entry)),
    }
    if entry.proof is not None:
        forms["signed frame"] = payload(frames[SIGNED[0].number]).decode()
    if isinstance(entry, Revision):
        forms["compact"] = len(pack(entry))
        forms["texts"] = json.dumps(texts_of(entry), ensure_ascii=False)
        others = range(1, len(entry.alert.texts))
        forms["languages"] = [json.dumps(alert_map(entry, n), ensure_ascii=False) for n in others]
    return forms


def payload(frame):
    """Return the message in a frame whose length takes 7 or 16 bits."""
    return frame[2 if frame[1] < 126 else 4 :]


def encoded(data):
    """Return bytes in base64, as in the vectors file."""
    return base64.b64encode(data).decode()


def as_a_later_release_stores(entry):
    """Return the stored entry with unknown members and elements, some of them with keys that are not strings."""
    fields = msgpack.unpackb(codec.encode(entry)) | {"colour": "red", "nested": {"a": [1], 7: b"x"}, "speed": None}
    fields["approval"] = [*fields["approval"], "more"]
    if "terms" in fields:
        fields["terms"] = [*fields["terms"], *([0] if len(fields["terms"]) == 3 else []), {"x": 1}]
        fields["area"] = [shape | ({"height_m": 3} if "radius_m" in shape else {}) for shape in fields["area"]]
    if "texts" in fields:
        fields["texts"] = [text | {"audio": [1, None]} for text in fields["texts"]]
    return msgpack.packb(fields)


VECTORS = json.loads(PATH.read_text("utf-8")) if PATH.exists() else {}


def test_vectors_file_has_exactly_the_entries_of_this_module():
    """The file lacks no entry of the module, and has no others."""
    assert VECTORS["entries"].keys() == ENTRIES.keys()
    assert VECTORS["later"].keys() == set(LATER)


@pytest.mark.parametrize("name", ENTRIES)
def test_entry_has_same_stored_signed_and_sent_bytes_as_in_vectors_file(name):
    """The order of fields is the same as well. The compact form may be smaller than before (rules LogG5 and NC1)."""
    forms, expected = forms_of(ENTRIES[name]), dict(VECTORS["entries"][name])
    assert forms.pop("compact", 0) <= expected.pop("compact", 0)
    assert forms == expected


@pytest.mark.parametrize("name", ENTRIES)
def test_stored_entry_is_read_back_unchanged(name):
    """The entry is read from the bytes of earlier releases, and from the compact form (rule LogA4)."""
    entry = ENTRIES[name]
    assert codec.decode(base64.b64decode(VECTORS["entries"][name]["stored"]), entry.id, entry.revision, 0) == entry
    if isinstance(entry, Revision):
        assert unpack(entry.id, pack(entry)) == entry


@pytest.mark.parametrize("name", LATER)
def test_fields_of_a_later_release_are_ignored(name):
    """Unknown fields of any dict, and further elements of `approval` and `terms`, are ignored (rule LogG3)."""
    entry = ENTRIES[name]
    assert codec.decode(base64.b64decode(VECTORS["later"][name]), entry.id, entry.revision, 0) == entry


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.proof is not None])
def test_signed_form_of_an_earlier_release_is_read_as_the_same_entry(name):
    """Only the form counts, not the fields outside it (rule NC1)."""
    entry = ENTRIES[name]
    found = form.read(VECTORS["entries"][name]["form"]).says(dataclasses.replace(entry, source="mallory"))
    assert found == entry


@pytest.mark.parametrize("name", ENTRIES)
def test_frames_of_all_formats_hold_the_same_message(name):
    """An entry without a proof has the same frames for clients that verify proofs as for others (rule F9)."""
    plain = VECTORS["entries"][name]["frame"]
    signed = VECTORS["entries"][name].get("signed frame", plain)
    messages = [json.loads(each) for each in (plain, plain, signed, signed)]
    assert encode(ENTRIES[name]) == tuple(wire.frame(each) for wire, each in zip(WIRES, messages, strict=True))


if __name__ == "__main__":
    made = {
        "entries": {name: forms_of(entry) for name, entry in ENTRIES.items()},
        "later": {name: encoded(as_a_later_release_stores(ENTRIES[name])) for name in LATER},
    }
    kept = {
        part: {name: VECTORS.get(part, {}).get(name, each) for name, each in found.items()}
        for part, found in made.items()
    }
    PATH.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")
