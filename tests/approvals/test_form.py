"""The form: what goes out, by value, as the text that reviewers sign."""

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


def test_the_form_of_an_alert_has_its_keys_in_this_order():
    """AP, step 1: byte for byte as the page shows it."""
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


def test_the_form_of_a_cancel_has_its_keys_in_this_order():
    """AP, step 1: its category is that of the alert, and `expires_at` of what is cancelled."""
    assert form.text_of(form.form_of(CANCELS["full"], AUDIENCE, "robbery")) == (
        '{"v":1,"what":"cancel","aud":"alerts.harbour.example","id":"a-1","revision":9,"source":"desk",'
        '"category":"robbery","reason":"“over”","expires_at":"2026-01-31T12:30:00.000Z","confirm":{"text":["name"]}}'
    )


@pytest.mark.parametrize("alert", ALERTS.values(), ids=ALERTS)
def test_a_form_has_all_that_subscribers_are_sent(alert):
    """AP: but for the time at which it is accepted, which nobody knows yet. And what was confirmed, in full."""
    members = form.form_of(alert, AUDIENCE, "")
    sent = frames.alert_map(alert)
    assert {name: members[name] for name in sent.keys() - {"issued_at"}} == {
        name: value for name, value in sent.items() if name != "issued_at"
    }
    assert ("confirm" in members) == (alert.alert.confirm != Confirm())


@pytest.mark.parametrize("entry", [*ALERTS.values(), *CANCELS.values()])
def test_what_a_form_says_is_the_entry(entry):
    """NC1: the content comes back from the text, whatever stands beside it."""
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
    # HD5: the issuer stands beside the form, which does not sign it.
    assert form.read(text).says(dataclasses.replace(emptied, issuer="a")) == dataclasses.replace(entry, issuer="a")


@pytest.mark.parametrize("number", [6, 8])
def test_the_form_of_an_alert_is_good_for_one_number(number):
    """AP8: of one alert."""
    read = form.read(proved(ALERTS["full"], "r-1").proof.form)
    for other in (
        dataclasses.replace(ALERTS["full"], revision=number),
        a_revision("b", 7),
        a_cancel("desk-7.e3b0c442", 7),
    ):
        with pytest.raises(ValueError, match="another"):
            read.says(other)


def test_the_form_of_a_cancel_is_good_for_later_numbers():
    """AP8: neither a revision in between nor a failover asks for new signatures."""
    read = form.read(proved(a_cancel("a-1", 3), "r-1").proof.form)
    assert read.says(a_cancel("a-1", 3, reason="x")).reason == "over"
    assert read.says(a_cancel("a-1", 5, reason="x")) == a_cancel("a-1", 5)
    for other in (a_cancel("a-1", 2), a_cancel("b", 3), a_revision("a-1", 3)):
        with pytest.raises(ValueError, match="another"):
            read.says(other)


WRONG = (None, True, -1, 1.5, 1e300, "x", "\ud800", [], {}, [None], ["x"], {"x": 1}, "x" * 30_000)


@pytest.mark.parametrize("entry", [ALERTS["full"], CANCELS["full"]], ids=["alert", "cancel"])
@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: repr(value)[:20])
def test_a_form_is_one_that_can_be_sent_or_none(entry, wrong):
    """NC2, NC5: whatever a member is instead, a ValueError, or an entry that can be encoded."""
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
def test_what_is_no_form_is_a_value_error(text):
    """AP1: strict JSON, and no traceback for the hostile."""
    with pytest.raises(ValueError, match=r"form|utf-8"):
        form.read(text)


@pytest.mark.parametrize("lat", ["1.5", True, None, [1], "nan"])
def test_a_number_that_is_written_otherwise_is_none(lat):
    """NC1: what one reader takes for a number another may not."""
    circle = {"type": "circle", "lat": lat, "lng": 1, "radius_m": 1}
    members = form.form_of(ALERTS["plain"], AUDIENCE, "")
    with pytest.raises(ValueError, match="form"):
        form.read(form.text_of(members | {"area": [circle]}))


def test_a_form_has_20_kib_at_most():
    """AP1: in UTF-8."""
    members = form.form_of(ALERTS["plain"], AUDIENCE, "")
    room = MAX_FORM_BYTES - len(form.text_of(members | {"later": ""}).encode())
    assert form.read(form.text_of(members | {"later": "x" * room}))
    with pytest.raises(ValueError, match="long"):
        form.read(form.text_of(members | {"later": "é" * (room // 2 + 1)}))


@pytest.mark.parametrize("version", [0, 2, True, 1.0, "1"])
def test_a_form_of_another_version_says_nothing(version):
    """AP, step 1: nobody guesses what it may mean."""
    with pytest.raises(ValueError, match="form"):
        form.read(json.dumps(form.form_of(ALERTS["plain"], AUDIENCE, "") | {"v": version}))


def test_members_of_a_later_release_are_passed_over():
    """G1: who signed them has meant them for others."""
    members = form.form_of(ALERTS["plain"], AUDIENCE, "") | {"later": {"x": [1]}}
    assert form.read(form.text_of(members)).says(ALERTS["plain"]) == ALERTS["plain"]


@given(st.integers(0, 10**6), st.binary(max_size=3))
def test_a_form_that_was_touched_is_read_or_refused(at, others):
    """NC5: never another error."""
    data = bytearray(proved(ALERTS["full"], "r-1").proof.form.encode())
    at %= len(data)
    data[at : at + len(others)] = others
    try:
        read = form.read(data.decode("utf-8", "surrogateescape"))
        read.says(ALERTS["full"])
    except ValueError:
        pass


def test_the_same_form_by_value_is_the_same_content():
    """AP8, H5: neither the order of keys nor who has signed counts; signed and unsigned are never the same."""
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
