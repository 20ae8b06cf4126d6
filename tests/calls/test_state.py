"""The entries of a call, and the state of the call that results from them."""

import msgpack
import pytest

from geocast.calls.state import DecryptedEntry, Left, fold
from geocast.model.alert import Circle
from geocast.model.call import (
    KINDS,
    Acceptance,
    CallEntry,
    CallTerms,
    Ending,
    ExactPlace,
    Nothing,
    Opening,
    Person,
    Reason,
    Release,
    Report,
    Widening,
    body_of,
    kind_of,
    packed,
    secret_of,
)

TERMS = CallTerms("Cardiac arrest", ["cpr"], [100, 300, 500], 7, ["cpr", "aed"], 30, 3600, 800, 9)
NEAR = Circle(47.678, 8.83, 210.0)
PLACE = ExactPlace(47.6780089, 8.8311129, "residence", "Dorfstrasse 4", None)


def opening(headline="Adult", replaces=0):
    return Opening("cardiac_arrest", headline, "actual", "cad-3", 1, 2, 99, NEAR, TERMS, replaces)


BODIES = [
    (opening(), PLACE),
    (Widening(1, 5), Nothing()),
    (Acceptance(1, "cpr", 6, 240, "node/1"), Person("r-1")),
    (Release(1, 7), Person("r-1")),
    (Report(1, "arrived", 8), Person("r-1")),
    (Ending("cad-3", 9, opening()), Reason("The crew is there.")),
    (Ending(None, 9, opening()), Reason()),
]


def chain(*parts, first=1):
    """Return the state after entries of these (body, secret) pairs, numbered from `first`."""
    return fold(
        DecryptedEntry(CallEntry("c", n, 99, kind_of(body), packed(body), b"%d" % n), body, secret)
        for n, (body, secret) in enumerate(parts, start=first)
    )


def claim(sub, seat, role="cpr"):
    return Acceptance(seat, role, 6), Person(sub)


def release(sub, seat):
    return Release(seat, 7), Person(sub)


OPEN = (opening(), PLACE)


def test_each_kind_of_call_entry_is_decoded_unchanged():
    """Bodies and secrets are packed and unpacked."""
    assert list(dict.fromkeys(kind_of(body) for body, _ in BODIES)) == list(KINDS)
    for body, secret in BODIES:
        entry = CallEntry("c", 1, 99, kind_of(body), packed(body), b"?")
        assert body_of(entry) == body
        assert secret_of(entry.kind, packed(secret)) == secret


def test_unknown_fields_of_later_releases_are_ignored():
    """A later release may add fields to a body or a secret (G4)."""
    more = msgpack.packb({**msgpack.unpackb(packed(Widening(2, 5))), "later": {"a": [1]}})
    assert body_of(CallEntry("c", 2, 99, "widen", more, b"?")) == Widening(2, 5)
    assert secret_of("call", msgpack.packb({**msgpack.unpackb(packed(PLACE)), "later": "x"})) == PLACE


@pytest.mark.parametrize("plain", [b"", b"\xc1", msgpack.packb([1]), msgpack.packb({"ring": "x", "at": 5})])
def test_invalid_body_raises_value_error_without_its_text(plain):
    """The error names a type, but no value (H9)."""
    with pytest.raises(ValueError, match=r"^not a body or a secret: \w+$"):
        body_of(CallEntry("c", 2, 99, "widen", plain, b"?"))


def test_wider_radius_or_taken_seat_creates_no_new_revision():
    """Only new content creates a revision of a call."""
    state = chain(OPEN, (Widening(1, 5), Nothing()), claim("r-1", 1))
    assert (state.revision, state.content, state.number) == (1, 1, 3)
    assert (state.radius_m, state.reach_m) == (300, 510.0)
    assert state.free_seat == 2
    assert state.seats[Person("r-1")].entry_number == 3


def test_call_radius_never_shrinks_even_if_the_call_is_corrected():
    """The radius of a call only grows."""
    state = chain(OPEN, (Widening(2, 5), Nothing()), (Widening(1, 6), Nothing()), (opening("Corrected", 1), PLACE))
    assert (state.radius_m, state.content, state.revision) == (500, 4, 4)
    assert state.opening.headline == "Corrected"


def test_released_seat_of_a_full_call_creates_a_new_revision():
    """Responders are notified again under that revision (RV6)."""
    full = chain(OPEN, claim("r-1", 1), claim("r-2", 2))
    assert full.full
    again = chain(OPEN, claim("r-1", 1), claim("r-2", 2), release("r-1", 1))
    assert (again.free_seat, again.revision, again.content) == (1, 4, 1)
    assert chain(OPEN, claim("r-1", 1), release("r-1", 1)).revision == 1  # it was ringing all the while


def test_responder_who_released_a_seat_is_listed_as_having_left():
    """The responder knows the place. One who takes a seat again is listed among the seats instead (RZ8)."""
    once = chain(OPEN, claim("r-1", 1), release("r-1", 1), release("r-2", 2))
    assert once.left == {Person("r-1"): Left(6, 7)}
    assert chain(OPEN, claim("r-1", 1), release("r-1", 1), claim("r-1", 1)).left == {}


def test_restored_responder_gets_seat_0_if_seat_is_already_taken():
    """Another responder has the seat of the lost entry by then (RV7)."""
    state = chain(OPEN, claim("r-1", 1), claim("r-2", 2), claim("r-3", 2))
    assert {person.sub: seat.number for person, seat in state.seats.items()} == {"r-1": 1, "r-2": 2, "r-3": 0}
    after = chain(OPEN, claim("r-1", 1), claim("r-2", 2), claim("r-3", 2), release("r-3", 0))
    assert (after.full, after.revision) == (True, 1)


def test_responder_has_at_most_one_seat():
    """A second entry that gives the same responder a seat has no effect (RV3)."""
    state = chain(OPEN, claim("r-1", 1), claim("r-1", 2))
    assert [(seat.number, seat.entry_number) for seat in state.seats.values()] == [(1, 2)]


def test_progress_report_of_responder_without_seat_has_no_effect():
    """A report of somebody without a seat is ignored."""
    state = chain(OPEN, claim("r-1", 1), (Report(1, "arrived", 8), Person("r-1")), (Report(2, "aed", 9), Person("r-9")))
    assert [(seat.state, seat.changed_at) for seat in state.seats.values()] == [("arrived", 8)]


def test_entries_after_end_of_call_have_no_effect():
    """The end of a call is final."""
    state = chain(OPEN, (Ending("cad-3", 9, opening()), Reason("over")), claim("r-1", 1), (opening("more"), PLACE))
    assert state.end.source == "cad-3"
    assert (state.seats, state.opening.headline) == ({}, "Adult")


def test_call_with_deleted_place_is_described_by_its_end_entry():
    """The entry that ends a call repeats its public content (RZ4)."""
    state = chain(claim("r-1", 1), (Ending(None, 9, opening()), Reason()), first=2)
    assert (state.opening, state.entry, state.number) == (opening(), None, 3)
    assert list(state.seats) == [Person("r-1")]
    assert chain(claim("r-1", 1), first=2) is None


def test_copy_of_a_released_seat_entry_takes_no_seat():
    """Somebody who can write to the log, but has no key, can change no seat (RZ3)."""
    parts = [OPEN, claim("r-1", 1), release("r-1", 1), claim("r-1", 1)]
    seals = [b"open", b"claim", b"release", b"claim"]
    state = fold(
        DecryptedEntry(CallEntry("c", n, 99, kind_of(body), packed(body), seal), body, secret)
        for n, ((body, secret), seal) in enumerate(zip(parts, seals, strict=True), start=1)
    )
    assert (state.seats, state.free_seat) == ({}, 1)
