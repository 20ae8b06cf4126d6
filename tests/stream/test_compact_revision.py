"""The compact form of a revision: unpacking gives the revision that was packed."""

from dataclasses import replace

import pytest
from support.fakes import a_revision, a_warning
from support.reviewers import proved

from geocast.model.alert import Circle, Origin, OtherShape, Polygon
from geocast.stream.compact_revision import pack, unpack

AREAS = {
    "one": (Circle(32.7767, -96.797, 800.0),),
    "none": (),
    "polygons": (
        Polygon(((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)), 20.0),
        Polygon(((-180.0, 0.5), (1.0, 0.0), (1.0, 1.0), (5.0, 1.0), (-180.0, 0.5))),
    ),
    "others": (
        OtherShape({"type": "polygon", "coordinates": [[[0.5, 1], [2, 3]]], "7": None}),
        Circle(-90.0, 180.0, 20_100_000.0),
        OtherShape({"type": "cells", "cells": ["8926cb19c93ffff"], 7: b"x"}),
    ),
}


@pytest.mark.parametrize("area", AREAS)
@pytest.mark.parametrize("description", [None, "", "Naïve\n\U0001f6a8"])
def test_unpacked_revision_equals_the_packed_one(area, description):
    """A revision that was packed may still be sent, matched, or compared with a later one."""
    revision = a_revision("a-1", 2**31 - 1, area=AREAS[area], description=description, status="exercise")
    assert unpack("a-1", pack(revision)) == revision


def test_origin_of_a_cap_alert_is_unchanged_after_packing_and_unpacking():
    """The feed shows the origin."""
    revision = replace(a_revision(), origin=Origin("met@example.org", "m-1", 3))
    assert unpack("a-1", pack(revision)) == revision


def test_unpacked_warning_has_all_its_languages():
    """A warning may also have no languages, and only some of the optional fields (LA1)."""
    for revision in (a_warning("en", "fr", "es"), a_warning(texts=(), urgency=None), a_warning(onset_at=0, web=None)):
        assert unpack("a-1", pack(revision)) == revision


def test_unpacked_revision_has_the_issuer_of_its_publisher():
    """Issuer and `sub` together identify the publisher who may change the alert (HD5)."""
    revision = replace(a_revision("a-1", 3), issuer="https://desks.example")
    assert unpack("a-1", pack(revision)) == revision


def test_unpacked_revision_has_its_proof():
    """The proof is sent with the revision that it proves (F9)."""
    revision = proved(a_revision("a-1", 3), "r-1", "r-2")
    assert unpack("a-1", pack(revision)) == revision


def test_packed_revision_takes_less_than_450_bytes():
    """Most of the bytes are text."""
    assert len(pack(a_revision(description="x" * 200))) < 450
