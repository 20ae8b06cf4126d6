"""Encryption and decryption of the entries of a call."""

import dataclasses

from support.fakes import NOON_MS, a_revision

from geocast.calls.decrypted_chain import opened, opened_chain, sealed
from geocast.calls.encryption import CallKeys
from geocast.model.alert import Circle, OtherKind
from geocast.model.call import Acceptance, CallTerms, ExactPlace, Nothing, Opening, Person, Release, Widening

KEYS, OTHERS = CallKeys({"a": bytes(32)}), CallKeys({"b": b"b" * 32})
TERMS = CallTerms("Cardiac arrest", ["cpr"], [100, 300], 7, ["cpr", "aed"], 30, 3600, 800, 9)
OPENING = Opening("cardiac_arrest", "Adult", "actual", "cad-3", 1, 2, NOON_MS, Circle(47.678, 8.83, 210.0), TERMS)
PLACE = ExactPlace(47.6780089, 8.8311129, "residence", "Dorfstrasse 4")


def chain(*parts, keys=KEYS):
    """Return entries of these (body, secret) pairs, numbered from 1."""
    return [sealed(keys, "c", number, NOON_MS, *each) for number, each in enumerate(parts, start=1)]


CALLED = [(OPENING, PLACE), (Widening(1, 5), Nothing()), (Acceptance(1, "cpr", 6), Person("r-1"))]


def test_entry_decrypts_to_the_body_and_secret_it_was_made_from():
    """It does not decrypt with another key or under another number (RZ3)."""
    for entry, parts in zip(chain(*CALLED), CALLED, strict=True):
        assert opened(KEYS, entry) == (entry, *parts)
        assert opened(OTHERS, entry) is None
        assert opened(KEYS, dataclasses.replace(entry, revision=9)) is None


def test_entry_whose_decrypted_data_is_malformed_is_refused():
    """An entry that this release can't read is treated like a damaged one (G4)."""
    [entry] = chain((Widening(1, 5), Nothing()))
    moved = dataclasses.replace(entry, kind="claim", sealed=KEYS.seal("c", 1, "claim", entry.plain, b"\x80"))
    assert opened(KEYS, moved) is None


def test_complete_chain_gives_the_state_of_the_call():
    """The state has content, radius, seats and the number of the last entry (docs/reference/call-rules.md)."""
    found = opened_chain(KEYS, chain(*CALLED))
    assert (found.number, found.whole, found.call.wave, list(found.call.seats)) == (3, True, 1, [Person("r-1")])
    assert [(entry.revision, body, place) for entry, body, place in found.contents()] == [(1, OPENING, PLACE)]


def test_chain_with_an_undecrypted_entry_is_marked_incomplete():
    """Undecrypted entries keep their numbers. If nothing can be decrypted, there is no call (RZ5)."""
    entries = [*chain(*CALLED)[:2], *chain(*CALLED, keys=OTHERS)[2:]]
    found = opened_chain(KEYS, entries)
    assert (found.number, found.whole, found.call.wave, found.call.seats) == (3, False, 1, {})
    found = opened_chain(CallKeys({"c": b"c" * 32}), entries)
    assert (found.number, found.whole, found.call) == (3, False, None)


def test_history_without_call_entries_gives_no_chain():
    """The id may be unknown, or belong to an alert or to an entry of a later release (RY1)."""
    for history in ([a_revision()], [], [OtherKind("c", 1, 5)]):
        assert opened_chain(KEYS, history) == ([], 0, True, None)
    assert opened_chain(KEYS, [*chain(CALLED[0]), OtherKind("c", 2, 5)]).number == 2


def test_copy_of_a_released_seat_entry_gives_no_seat():
    """Somebody who can write to the log may copy the entry under a higher number (RZ3, RV2)."""
    *rest, claim, release = chain(*CALLED, (Release(1, 7), Person("r-1")))
    copy = dataclasses.replace(claim, revision=5, sealed_as=claim.revision)
    assert opened(KEYS, copy) is not None
    assert opened_chain(KEYS, [*rest, claim, release, copy]).call.seats == {}
