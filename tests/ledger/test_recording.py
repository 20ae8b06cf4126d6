"""What is written of an entry, and that it is written once."""

import dataclasses
import json

import pytest
from alertlog.later import of_another_kind
from support.fakes import a_cancel, a_revision
from support.reviewers import PAIRS, known, proved

from geocast.alertlog import codec
from geocast.alertlog.tail import RawEntry
from geocast.approvals.signatures import sign
from geocast.ledger.recording import LedgerRecorder, RecordedEntries, salted
from geocast.model.alert import ApprovalProof, OtherKind, Signature


def sight(item, position=1, epoch=0, payload=None, **changes):
    """An entry as it stands in the log, or otherwise."""
    found = RawEntry(epoch, position, item.id, item.revision, payload or codec.encode(item), item)
    return found._replace(**changes)


class Book:
    """What was written: records, and what is kept beside them."""

    def __init__(self, reviewers=None):
        self.records, self.kept = [], []
        self.recorder = LedgerRecorder(self._write, RecordedEntries(), reviewers)

    def _write(self, members, kept):
        self.records.append(members)
        self.kept.append(kept)

    def take(self, *sights):
        """Take these, and give what is new of them."""
        before = len(self.records)
        for each in sights:
            self.recorder.take(each)
        return self.records[before:]

    @property
    def whats(self):
        """What each record is about."""
        return [each["what"] for each in self.records]


@pytest.fixture
def book():
    """An empty one."""
    return Book()


def test_an_alert_is_written_with_who_approved_it(book):
    """LE2, LE3: the key and the time of each signature; the form and the signatures are beside it."""
    entry = proved(a_revision(), "r-1", "r-2")
    [record] = book.take(sight(entry, 812))
    [kept] = book.kept
    keys = [PAIRS[name][0]["kid"] for name in ("r-1", "r-2")]
    assert [kid for kid, _ in record.pop("approvals")] == keys
    assert record.pop("content") == salted(bytes.fromhex(kept["salt"]), entry.proof.form.encode())
    assert record == {
        "what": "alert",
        "id": "a-1",
        "revision": 1,
        "source": "desk",
        "category": "robbery",
        "severity": "severe",
        "status": "actual",
        "issued_at": "2026-01-31T12:00:00.000Z",
        "position": 812,
    }
    assert kept["form"] == entry.proof.form
    assert kept["signatures"] == [[each.protected, each.signature] for each in entry.proof.signatures]


def test_revisions_and_cancels_are_written_as_such(book):
    """LE2."""
    revision = proved(a_revision(revision=2), "r-1")
    cancel = proved(a_cancel(revision=3), "r-2")
    [second, third] = book.take(sight(revision, 2), sight(cancel, 3))
    assert book.whats == ["revision", "cancel"]
    assert (second["revision"], third["revision"]) == (2, 3)
    assert third["cancelled_at"] == "2026-01-31T12:00:00.000Z"
    assert "category" not in third


def test_without_a_proof_the_bytes_of_the_entry_are_what_was_published(book):
    """LE3: nobody has signed, and the chain says so."""
    entry = a_revision()
    [record] = book.take(sight(entry))
    assert record["approvals"] == []
    assert salted(bytes.fromhex(book.kept[0]["salt"]), codec.encode(entry)) == record["content"]


def test_the_chain_has_no_text_no_place_and_no_persons_name(book):
    """LE4: whoever approved is a key; words and shapes are in the content alone."""
    for number, entry in enumerate(
        [a_revision(description="At 5 Main Street"), proved(a_cancel(reason="Over"), "r-1")]
    ):
        book.take(sight(entry, number + 1))
    text = json.dumps(book.records)
    assert not any(word in text for word in ("Robbery", "Main", "Over", "32.7", "96.7", "desk-7", "approved_at"))


def test_the_same_content_has_another_hash_each_time(book):
    """LE3: a salt, so that nobody can try out what it was."""
    other = Book()
    assert book.take(sight(a_revision()))[0]["content"] != other.take(sight(a_revision()))[0]["content"]


@pytest.mark.parametrize("entry", [a_cancel(revision=1), OtherKind("a-1", 1, 5), OtherKind("a-1", 2, 5)])
def test_tombstones_and_entries_of_other_kinds_are_not_written(book, entry):
    """LE2, RZ4: calls are deleted, and nothing of them stays."""
    assert book.take(sight(entry, payload=of_another_kind("a-1", 1, 5) if isinstance(entry, OtherKind) else None)) == []


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (sight(a_revision(), entry=None), "unreadable"),
        (sight(a_revision(), id="b-1"), "other-place"),
        (sight(a_revision(), revision=2), "other-place"),
        (sight(proved(a_revision(), "r-1", revision=7)), "other-place"),
        (sight(proved(a_cancel(), "r-1", id="b-1")), "other-place"),
        (sight(a_revision(source="Ana Lopez, 5 Main Street")), "unreadable"),
        (sight(a_revision(category="robbery at 5 Main Street")), "unreadable"),
        (sight(a_revision(status="a person's name")), "unreadable"),
    ],
    ids=range(8),
)
def test_what_came_through_no_door_is_untrusted(book, found, reason):
    """LE2, NC3, LE4: it is written that it was there, and none of its words."""
    assert book.recorder.take(found)
    [record] = book.records
    assert (record["what"], record["reason"]) == ("untrusted", reason)
    assert record.keys() <= {"what", "id", "revision", "reason", "content", "position"}
    assert book.recorder.take(found) is False


def test_a_header_that_is_none_is_untrusted(book):
    """LE2."""
    entry = proved(a_revision(), "r-1")
    broken = dataclasses.replace(entry.proof, signatures=(Signature("e30", "x" * 86),))
    entry = dataclasses.replace(entry, proof=broken)
    [record] = book.take(sight(entry))
    assert (record["what"], record["reason"]) == ("untrusted", "signature")


@pytest.mark.parametrize("kid", ["Ana Lopez, 5 Main Street", "caf\u00e9", "\x1b[2J", "x" * 129])
def test_a_text_for_the_name_of_a_key_does_not_reach_the_chain(kid):
    """LE4: not beside a signature that is good, either."""
    entry, private = proved(a_revision(), "r-1"), PAIRS["r-2"][0] | {"kid": kid}
    more = sign(entry.proof.form, private, 1_800_000_000)
    entry = dataclasses.replace(entry, proof=ApprovalProof(entry.proof.form, (*entry.proof.signatures, more)))
    for book in (Book(), Book(known("r-1", "r-2"))):
        [record] = book.take(sight(entry))
        assert record["what"] == "alert"
        assert record["approvals"][1] == ["?", 1_800_000_000]
        assert kid not in str(record)


@pytest.mark.parametrize("number", [0, 9])
def test_signatures_that_no_door_takes_so_many_of_are_untrusted(book, number):
    """LE2, AP1: 1 to 8, as nodes have it (NC3)."""
    entry = proved(a_revision(), "r-1")
    entry = dataclasses.replace(entry, proof=ApprovalProof(entry.proof.form, entry.proof.signatures * number))
    [record] = book.take(sight(entry))
    assert (record["what"], record["reason"]) == ("untrusted", "signature")


@pytest.mark.parametrize(
    ("names", "reason"),
    [(("r-1",), None), (("r-1", "stranger"), None), (("stranger",), "unknown-key"), (("r-3",), "unknown-key")],
    ids=str,
)
def test_with_the_reviewers_somebody_of_them_has_signed(names, reason):
    """LE2: whom it does not know it passes over, as a node does (AP3)."""
    book = Book(known("r-1", "r-2"))
    [record] = book.take(sight(proved(a_revision(), *names)))
    assert (record["what"], record.get("reason")) == ("untrusted" if reason else "alert", reason)


def test_with_the_reviewers_a_signature_of_another_text_is_untrusted():
    """LE2: and it is told to the journal."""
    entry, other = proved(a_revision(), "r-1", "r-2"), proved(a_revision(headline="Another"), "r-2")
    mixed = dataclasses.replace(entry.proof, signatures=(entry.proof.signatures[0], other.proof.signatures[0]))
    found = sight(dataclasses.replace(entry, proof=mixed))
    book = Book(known("r-1", "r-2"))
    assert book.recorder.take(found)
    assert book.records[0]["reason"] == "signature"
    assert Book().take(found)[0]["what"] == "alert"


def test_a_key_out_of_an_envelope_is_named_as_one():
    """LE4a: by its `kid`, as all keys are."""
    entry = proved(a_revision(), "r-1", "glass")
    [record] = Book(known("r-1", "glass")).take(sight(entry))
    assert record["break_glass"] == [PAIRS["glass"][0]["kid"]]
    assert "break_glass" not in Book().take(sight(entry))[0]


def test_a_name_that_is_none_is_not_in_the_chain(book):
    """LE4: an intruder can write any id into the log."""
    found = sight(a_revision("Ana Lopez, 5 Main Street"))
    [record] = book.take(found)
    assert "id" not in record
    assert book.take(found) == []


def test_an_entry_is_written_once_however_often_the_log_gives_it(book):
    """LE2: put back in a new epoch, it is the same still; what the chain says is that history was rewound."""
    first, second = a_revision(), a_revision("b-1")
    book.take(sight(first, 1, 100), sight(second, 2, 100), sight(first, 1, 100))
    assert book.whats == ["alert", "alert"]
    assert book.take(sight(first, 3, 200), sight(second, 4, 200)) == [{"what": "rewound", "epoch": 200}]
    assert [each["id"] for each in book.take(sight(a_revision("c-1"), 5, 200), sight(first, 1, 100))] == ["c-1"]


def test_a_file_that_begins_anew_is_a_rewound_history(book):
    """LE2: positions of a file rise for ever."""
    book.take(sight(a_revision(), 7))
    found = book.take(sight(a_revision("b-1"), 1), sight(a_revision("c-1"), 2), sight(a_revision("d-1"), 3))
    assert [each["what"] for each in found] == ["rewound", "alert", "alert", "alert"]


def test_another_entry_under_the_same_number_is_written_too(book):
    """LE2: somebody has put it there, or both sides of a split brain accepted one."""
    book.take(sight(a_revision(), 1))
    [other] = book.take(sight(a_revision(headline="Another"), 2))
    assert (other["id"], other["revision"], other["position"]) == ("a-1", 1, 2)
