"""calls/decrypted_chain.py: entries are sealed and opened with both of their parts, and a chain as far as it opens."""

import dataclasses

from support.fakes import NOON_MS, a_revision

from geocast.calls.decrypted_chain import opened, opened_chain, sealed
from geocast.calls.encryption import CallKeys
from geocast.model.alert import OtherKind
from geocast.model.call import Acceptance, CallTerms, ExactPlace, Near, Nothing, Opening, Person, Release, Widening

KEYS, OTHERS = CallKeys({"a": bytes(32)}), CallKeys({"b": b"b" * 32})
TERMS = CallTerms("Cardiac arrest", ["cpr"], [100, 300], 7, ["cpr", "aed"], 30, 3600, 800, 9)
OPENING = Opening("cardiac_arrest", "Adult", "actual", "cad-3", 1, 2, NOON_MS, Near(47.678, 8.83, 210.0), TERMS)
PLACE = ExactPlace(47.6780089, 8.8311129, "residence", "Dorfstrasse 4")


def chain(*parts, keys=KEYS):
    """Entries of these (body, secret), numbered from 1."""
    return [sealed(keys, "c", number, NOON_MS, *each) for number, each in enumerate(parts, start=1)]


CALLED = [(OPENING, PLACE), (Widening(1, 5), Nothing()), (Acceptance(1, "cpr", 6), Person("r-1"))]


def test_an_entry_is_opened_as_it_was_made():
    """RZ3: body and secret; and not by another key, nor under another number."""
    for entry, parts in zip(chain(*CALLED), CALLED, strict=True):
        assert opened(KEYS, entry) == (entry, *parts)
        assert opened(OTHERS, entry) is None
        assert opened(KEYS, dataclasses.replace(entry, revision=9)) is None


def test_what_was_sealed_but_is_none_of_a_call_does_not_open():
    """G4: an entry whose parts this release can't read is set aside like a damaged one."""
    [entry] = chain((Widening(1, 5), Nothing()))
    moved = dataclasses.replace(entry, kind="claim", sealed=KEYS.seal("c", 1, "claim", entry.plain, b"\x80"))
    assert opened(KEYS, moved) is None


def test_a_whole_chain_says_what_the_call_comes_to():
    """docs/calls.md: content, ring and seats, and the number of its last entry."""
    found = opened_chain(KEYS, chain(*CALLED))
    assert (found.number, found.whole, found.call.wave, list(found.call.seats)) == (3, True, 1, [Person("r-1")])
    assert [(entry.revision, body, place) for entry, body, place in found.contents()] == [(1, OPENING, PLACE)]


def test_a_chain_that_opens_in_part_says_so():
    """RZ5: its numbers are taken all the same; where nothing opens there is no call."""
    entries = [*chain(*CALLED)[:2], *chain(*CALLED, keys=OTHERS)[2:]]
    found = opened_chain(KEYS, entries)
    assert (found.number, found.whole, found.call.wave, found.call.seats) == (3, False, 1, {})
    found = opened_chain(CallKeys({"c": b"c" * 32}), entries)
    assert (found.number, found.whole, found.call) == (3, False, None)


def test_what_is_no_call_has_no_chain():
    """RY1: an alert, nothing, or what a later release has written."""
    assert opened_chain(KEYS, [a_revision()]) is None
    assert opened_chain(KEYS, []) is None
    assert opened_chain(KEYS, [OtherKind("c", 1, 5)]) is None
    assert opened_chain(KEYS, [*chain(CALLED[0]), OtherKind("c", 2, 5)]).number == 2


def test_a_copied_entry_counts_once():
    """RZ3, RV2: whoever can write to the log can copy a claim, and takes no seat by it that was given back."""
    *rest, claim, release = chain(*CALLED, (Release(1, 7), Person("r-1")))
    copy = dataclasses.replace(claim, revision=5, sealed_as=claim.revision)
    assert opened(KEYS, copy) is not None
    assert opened_chain(KEYS, [*rest, claim, release, copy]).call.seats == {}
