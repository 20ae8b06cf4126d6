"""Entries of calls, for tests of the log.

The encrypted parts are random bytes, since a log can't tell the difference.
"""

import os

from support.fakes import NOON_MS

from geocast.model.alert import Circle
from geocast.model.call import (
    Acceptance,
    CallEntry,
    CallTerms,
    Ending,
    Opening,
    Release,
    Report,
    Widening,
    kind_of,
    packed,
)

EXPIRES_MS = NOON_MS + 1_800_000
TERMS = CallTerms("Cardiac arrest", ["cpr"], [100, 300], 7, ["cpr", "aed"], 30, 3_600, 800, 9)
OPENING = Opening(
    category="cardiac_arrest",
    headline="Adult, not breathing",
    status="actual",
    source="cad-3",
    occurred_at=NOON_MS - 60_000,
    issued_at=NOON_MS,
    expires_at=EXPIRES_MS,
    near=Circle(47.678, 8.83, 210.0),
    terms=TERMS,
)


def a_call_entry(body, number, call_id="c-1", ends_at=EXPIRES_MS):
    """Return an entry of a call with this body. Each entry gets new random bytes as its encrypted part."""
    return CallEntry(call_id, number, ends_at, kind_of(body), packed(body), os.urandom(60))


def a_call(number=1, call_id="c-1", **changes):
    """Return an entry that opens a call, or brings new content."""
    return a_call_entry(OPENING, number, call_id, **changes)


def a_widening(number=2, call_id="c-1", **changes):
    """Return an entry that widens the radius in which responders are notified."""
    return a_call_entry(Widening(1, NOON_MS), number, call_id, **changes)


def a_claim(number=2, seat=1, call_id="c-1", **changes):
    """Return an entry with which a responder takes a seat."""
    return a_call_entry(Acceptance(seat, "cpr", NOON_MS), number, call_id, **changes)


def a_release(number=3, seat=1, call_id="c-1", **changes):
    """Return an entry with which a responder gives a seat back."""
    return a_call_entry(Release(seat, NOON_MS), number, call_id, **changes)


def a_report(number=3, seat=1, call_id="c-1", **changes):
    """Return an entry with which a responder reports progress."""
    return a_call_entry(Report(seat, "arrived", NOON_MS), number, call_id, **changes)


def an_end(number=3, call_id="c-1", at=NOON_MS, **changes):
    """Return an entry that ends the call at this time."""
    return a_call_entry(Ending("cad-3", at, OPENING), number, call_id, **changes)
