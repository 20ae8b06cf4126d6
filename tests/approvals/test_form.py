"""The form: the text that reviewers sign. It contains every field that subscribers are sent."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import HOUR_MS, a_cancel, a_revision, a_text
from support.reviewers import AUDIENCE, proved

from geocast.approvals import form
from geocast.model.alert import MAX_FORM_BYTES, AcceptedTerms, Approval, Circle, Confirm, Origin, OtherShape, Polygon
from geocast.wire import frames

CONFIRMED = Confirm(3000.5, ("address", "name"))
POLYGON = Polygon(((-96.8, 32.7), (-96.7, 32.7), (-96.7, 32.8), (-96.8, 32.7)), 60.0)
ALERTS = {
    "plain": a_revision(),
    "full": a_revision(
        "desk-7.e3b0c442", 7, area=(Circle(32.77651106192115, -96.79535520104106, 1020.0), POLYGON),
        description="Line\n“two”", confirm=CONFIRMED, status="exercise", terms=AcceptedTerms("Räuber", HOUR_MS, 8),
    ),
    "later": a_revision(area=(OtherShape({"type": "cells", "cells": ["8926cb19c93ffff"]}),)),
}  # fmt: skip
CANCELS = {"plain": a_cancel(), "full": a_cancel("a-1", 9, reason="“over”", confirm=Confirm(text=("name",)))}


def test_form_to_sign_for_alert_is_exactly_the_documented_text():
    """The form equals the example in docs/reference/approval-rules.md byte for byte (AP, step 1)."""
    alert = a_revision(
        "desk-7.e3b0c442", source="desk-7", area=(Circle(32.77651106192115, -96.79535520104106, 1020.0),)
    )
    assert form.text_of(form.form_of(alert, AUDIENCE, "")) == (
        '{"v":1,"what":"alert","aud":"alerts.harbour.example","id":"desk-7.e3b0c442","revision":1,"source":"desk-7",'
        '"category":"robbery","title":"Robbery","headline":"Robbery, revision 1","severity":"severe",'
        '"status":"actual","occurred_at":"2026-01-31T11:50:00.000Z","expires_at":"2026-01-31T12:30:00.000Z",'
        '"area":[{"type":"circle","lat":32.77651106192115,"lng":-96.79535520104106,"radius_m":1020.0}],'
        '"location_resolution":9}'
    )


def test_form_to_sign_for_cancel_has_documented_order_of_keys():
    """The category is the alert's, and `expires_at` is that of the cancelled revision (AP, step 1)."""
    assert form.text_of(form.form_of(CANCELS["full"], AUDIENCE, "robbery")) == (
        '{"v":1,"what":"cancel","aud":"alerts.harbour.example","id":"a-1","revision":9,"source":"desk",'
        '"category":"robbery","reason":"“over”","expires_at":"2026-01-31T12:30:00.000Z","confirm":{"text":["name"]}}'
    )


@pytest.mark.parametrize("alert", ALERTS.values(), ids=ALERTS)
def test_form_to_sign_has_every_field_that_subscribers_are_sent(alert):
    """Only the time of acceptance is missing, since it is not known yet. Confirmations are added (AP, step 1)."""
    members = form.form_of(alert, AUDIENCE, "")
    sent = frames.alert_map(alert)
    assert {name: members[name] for name in sent.keys() - {"issued_at"}} == {
        name: value for name, value in sent.items() if name != "issued_at"
    }
    assert ("confirm" in members) == (alert.alert.confirm != Confirm())


@pytest.mark.parametrize("entry", [*ALERTS.values(), *CANCELS.values()])
def test_content_of_signed_form_replaces_other_content_of_entry(entry):
    """Fields of the entry outside the form are not signed, so they do not count (rule NC1)."""
    text = proved(entry, "r-1").proof.form
    if hasattr(entry, "alert"):
        emptied = dataclasses.replace(
            entry,
            source="mallory",
            origin=Origin("x", "y"),
            terms=dataclasses.replace(entry.terms, title="Other", location_resolution=3),
            alert=dataclasses.replace(
                entry.alert, headline="Other", area=(), category="x", confirm=Confirm(), texts=(a_text("fr"),), web="x"
            ),
        )
    else:
        emptied = dataclasses.replace(entry, reason="Other", source="mallory", confirm=Confirm(), into="b")
    assert form.read(text).says(emptied) == entry
    # The issuer is beside the form, so it is not signed (rule HD5).
    assert form.read(text).says(dataclasses.replace(emptied, issuer="a")) == dataclasses.replace(entry, issuer="a")


def test_form_says_what_it_is_and_has_no_approval():
    """The signatures are beside the form."""
    read = form.read(proved(ALERTS["plain"], "r-1").proof.form)
    assert (read.members["what"], read.content.approval) == ("alert", Approval("", 0))
    assert form.read(proved(CANCELS["full"], "r-1").proof.form).members["what"] == "cancel"


@pytest.mark.parametrize("number", [6, 8])
def test_signed_form_of_alert_is_valid_for_one_revision_only(number):
    """The signed form can't be used for another revision, another alert or a cancel (rule AP8)."""
    read = form.read(proved(ALERTS["full"], "r-1").proof.form)
    for other in (
        dataclasses.replace(ALERTS["full"], revision=number),
        a_revision("b", 7),
        a_cancel("desk-7.e3b0c442", 7),
    ):
        with pytest.raises(ValueError, match="another"):
            read.says(other)


def test_signed_form_of_cancel_is_valid_for_later_revisions():
    """A revision in between, or a failover, must not require new signatures (rule AP8)."""
    read = form.read(proved(a_cancel("a-1", 3), "r-1").proof.form)
    assert read.says(a_cancel("a-1", 3, reason="x")).reason == "over"
    assert read.says(a_cancel("a-1", 5, reason="x")) == a_cancel("a-1", 5)
    for other in (a_cancel("a-1", 2), a_cancel("b", 3), a_revision("a-1", 3)):
        with pytest.raises(ValueError, match="another"):
            read.says(other)


WRONG = (None, True, -1, 1.5, 1e300, "x", "\ud800", [], {}, [None], ["x"], {"x": 1}, "x" * 30_000)


@pytest.mark.parametrize("entry", [ALERTS["full"], CANCELS["full"]], ids=["alert", "cancel"])
@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: repr(value)[:20].replace("\\", ""))
def test_signed_form_with_wrong_value_is_refused_or_gives_entry_that_can_be_sent(entry, wrong):
    """Every wrong value gives a ValueError, or an entry that can be encoded (rules NC2, NC5)."""
    members = form.form_of(entry, AUDIENCE, "robbery")
    for name in members:
        text = json.dumps(members | {name: wrong})
        try:
            found = form.read(text).says(entry)
        except ValueError:
            continue
        assert all(frames.encode(found)), name


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "{}", "null", '{"v":1}', '{"v":1,"v":1}', '{"v":NaN}', "\ud800", '{"v":1e999}', "[" * 5000, "\x00"],
)
def test_malformed_signed_form_raises_value_error(text):
    """Forms are strict JSON, and hostile texts raise no other error (rule AP1)."""
    with pytest.raises(ValueError, match=r"form|utf-8"):
        form.read(text)


@pytest.mark.parametrize("lat", ["1.5", True, None, [1], "nan"])
def test_signed_form_with_number_written_as_text_is_refused(lat):
    """Another program might read such a number differently (rule NC1)."""
    circle = {"type": "circle", "lat": lat, "lng": 1, "radius_m": 1}
    members = form.form_of(ALERTS["plain"], AUDIENCE, "")
    with pytest.raises(ValueError, match="form"):
        form.read(form.text_of(members | {"area": [circle]}))


@pytest.mark.parametrize("entry", [ALERTS["plain"], CANCELS["full"]], ids=["alert", "cancel"])
@pytest.mark.parametrize("wrong", [None, "", "tomorrow", 1_769_862_600_000])
def test_signed_form_without_valid_expiry_is_refused(entry, wrong):
    """So the check of a request can compare the expiry (rule AP2)."""
    with pytest.raises(ValueError, match="form"):
        form.read(form.text_of(form.form_of(entry, AUDIENCE, "") | {"expires_at": wrong}))


@pytest.mark.parametrize(
    ("lat", "buffer_m", "is_refused"), [(32.7, 60.0, False), ("32.7", 60.0, True), (32.7, "60.0", True)]
)
def test_signed_form_of_polygon_with_number_written_as_text_is_refused(lat, buffer_m, is_refused):
    """The numbers of its positions are checked, too (rule NC1). The error has no text of the form."""
    ring = [[-96.8, lat], [-96.7, 32.7], [-96.7, 32.8], [-96.8, 32.7]]
    polygon = {"type": "Polygon", "coordinates": [ring], "buffer_m": buffer_m}
    text = form.text_of(form.form_of(ALERTS["plain"], AUDIENCE, "") | {"area": [polygon]})
    if is_refused:
        with pytest.raises(ValueError, match=r"^not a form: TypeError$"):
            form.read(text)
    else:
        assert form.read(text).content.area == (POLYGON,)


def test_signed_form_over_20_kib_is_refused():
    """The limit counts bytes of UTF-8 (rule AP1)."""
    members = form.form_of(ALERTS["plain"], AUDIENCE, "")
    room = MAX_FORM_BYTES - len(form.text_of(members | {"later": ""}).encode())
    assert form.read(form.text_of(members | {"later": "x" * room}))
    with pytest.raises(ValueError, match="long"):
        form.read(form.text_of(members | {"later": "é" * (room // 2 + 1)}))


@pytest.mark.parametrize("version", [0, 2, True, 1.0, "1"])
def test_signed_form_of_unknown_version_is_refused(version):
    """The node does not guess what an unknown version means (AP, step 1)."""
    with pytest.raises(ValueError, match="form"):
        form.read(json.dumps(form.form_of(ALERTS["plain"], AUDIENCE, "") | {"v": version}))


def test_fields_of_later_release_in_signed_form_are_ignored():
    """Reviewers signed these fields for nodes of a later release (rule G1)."""
    members = form.form_of(ALERTS["plain"], AUDIENCE, "") | {"later": {"x": [1]}}
    assert form.read(form.text_of(members)).says(ALERTS["plain"]) == ALERTS["plain"]


@given(st.integers(0, 10**6), st.binary(max_size=3))
def test_signed_form_with_changed_bytes_raises_at_most_value_error(at, others):
    """The bytes are changed at random (rule NC5)."""
    data = bytearray(proved(ALERTS["full"], "r-1").proof.form.encode())
    at %= len(data)
    data[at : at + len(others)] = others
    try:
        read = form.read(data.decode("utf-8", "surrogateescape"))
        read.says(ALERTS["full"])
    except ValueError:
        pass


def test_entries_with_equal_signed_forms_have_same_content():
    """The order of keys and the signers don't matter; signed and unsigned always differ (rules AP8, H5)."""
    one = proved(ALERTS["full"], "r-1")
    members = dict(reversed(json.loads(one.proof.form).items()))
    again = dataclasses.replace(one, proof=dataclasses.replace(one.proof, form=json.dumps(members), signatures=()))
    assert one.same_content(again)
    assert again.same_content(one)
    assert not one.same_content(ALERTS["full"])
    assert not ALERTS["full"].same_content(one)
    assert not one.same_content(proved(ALERTS["full"], "r-1", headline="Other"))
    cancel = proved(CANCELS["full"], "r-1")
    assert cancel.same_content(dataclasses.replace(proved(CANCELS["full"], "r-2"), approval=Approval("r-2", 1)))
    assert not cancel.same_content(CANCELS["full"])
    assert not cancel.same_content(proved(CANCELS["full"], "r-1", reason="Other"))
    assert not CANCELS["full"].same_content(cancel)
