"""Records of log entries: their fields, and that each entry is recorded once."""

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
    """Return an entry as it appears in the log, with these changes."""
    found = RawEntry(epoch, position, item.id, item.revision, payload or codec.encode(item), item)
    return found._replace(**changes)


class Book:
    """A ledger in memory, with its records and their contents."""

    def __init__(self, reviewers=None):
        self.records, self.kept = [], []
        self.recorder = LedgerRecorder(self._write, RecordedEntries(), reviewers)

    def _write(self, members, kept):
        self.records.append(members)
        self.kept.append(kept)

    def take(self, *sights):
        """Pass entries to the recorder, and return the records that were added."""
        before = len(self.records)
        for each in sights:
            self.recorder.take(each)
        return self.records[before:]

    @property
    def whats(self):
        """The field `what` of each record."""
        return [each["what"] for each in self.records]


@pytest.fixture
def book():
    """An empty ledger."""
    return Book()


def test_record_of_signed_alert_names_keys_and_times(book):
    """The content, which is stored separately, has the signed form and the signatures (rules LE2, LE3)."""
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


def test_revision_and_cancel_each_get_their_own_kind_of_record(book):
    """The record of a cancel has no category (rule LE2)."""
    revision = proved(a_revision(revision=2), "r-1")
    cancel = proved(a_cancel(revision=3), "r-2")
    [second, third] = book.take(sight(revision, 2), sight(cancel, 3))
    assert book.whats == ["revision", "cancel"]
    assert (second["revision"], third["revision"]) == (2, 3)
    assert third["cancelled_at"] == "2026-01-31T12:00:00.000Z"
    assert "category" not in third


def test_record_of_unsigned_alert_has_hash_of_its_log_entry(book):
    """The record has an empty list of approvals (rule LE3)."""
    entry = a_revision()
    [record] = book.take(sight(entry))
    assert record["approvals"] == []
    assert salted(bytes.fromhex(book.kept[0]["salt"]), codec.encode(entry)) == record["content"]


def test_ledger_chain_contains_no_text_place_or_name(book):
    """Reviewers are named by their keys. Texts and areas are only in the separate contents (rule LE4)."""
    for number, entry in enumerate(
        [a_revision(description="At 5 Main Street"), proved(a_cancel(reason="Over"), "r-1")]
    ):
        book.take(sight(entry, number + 1))
    text = json.dumps(book.records)
    assert not any(word in text for word in ("Robbery", "Main", "Over", "32.7", "96.7", "desk-7", "approved_at"))


def test_same_content_has_different_hash_in_each_ledger(book):
    """A random salt keeps readers of the chain from guessing contents (rule LE3)."""
    other = Book()
    assert book.take(sight(a_revision()))[0]["content"] != other.take(sight(a_revision()))[0]["content"]


@pytest.mark.parametrize("entry", [a_cancel(revision=1), OtherKind("a-1", 1, 5), OtherKind("a-1", 2, 5)])
def test_tombstones_and_calls_get_no_ledger_record(book, entry):
    """Calls are deleted later, so the ledger must not keep anything about them (rules LE2, RZ4)."""
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
def test_malformed_or_misplaced_entry_is_recorded_as_untrusted(book, found, reason):
    """No node writes such an entry. The record has the reason, but none of the texts (rules LE2, LE4, NC3)."""
    assert book.recorder.take(found)
    [record] = book.records
    assert (record["what"], record["reason"]) == ("untrusted", reason)
    assert record.keys() <= {"what", "id", "revision", "reason", "content", "position"}
    assert book.recorder.take(found) is False


def test_alert_with_malformed_signature_header_is_recorded_as_untrusted(book):
    """The reason is `signature` (rule LE2)."""
    entry = proved(a_revision(), "r-1")
    broken = dataclasses.replace(entry.proof, signatures=(Signature("e30", "x" * 86),))
    entry = dataclasses.replace(entry, proof=broken)
    [record] = book.take(sight(entry))
    assert (record["what"], record["reason"]) == ("untrusted", "signature")


@pytest.mark.parametrize("kid", ["Ana Lopez, 5 Main Street", "caf\u00e9", "\x1b[2J", "x" * 129])
def test_malformed_key_id_is_recorded_as_question_mark(kid):
    """This also holds if the entry has another, valid signature (rule LE4)."""
    entry, private = proved(a_revision(), "r-1"), PAIRS["r-2"][0] | {"kid": kid}
    more = sign(entry.proof.form, private, 1_800_000_000)
    entry = dataclasses.replace(entry, proof=ApprovalProof(entry.proof.form, (*entry.proof.signatures, more)))
    for book in (Book(), Book(known("r-1", "r-2"))):
        [record] = book.take(sight(entry))
        assert record["what"] == "alert"
        assert record["approvals"][1] == ["?", 1_800_000_000]
        assert kid not in str(record)


@pytest.mark.parametrize("number", [0, 9])
def test_alert_with_no_or_more_than_eight_signatures_is_recorded_as_untrusted(book, number):
    """Nodes accept 1 to 8 signatures (rules AP1, LE2, NC3)."""
    entry = proved(a_revision(), "r-1")
    entry = dataclasses.replace(entry, proof=ApprovalProof(entry.proof.form, entry.proof.signatures * number))
    [record] = book.take(sight(entry))
    assert (record["what"], record["reason"]) == ("untrusted", "signature")


@pytest.mark.parametrize(
    ("names", "reason"),
    [(("r-1",), None), (("r-1", "stranger"), None), (("stranger",), "unknown-key"), (("r-3",), "unknown-key")],
    ids=str,
)
def test_alert_without_known_reviewer_is_recorded_as_untrusted(names, reason):
    """One known reviewer is enough, and unknown ones are ignored, as by nodes (rules AP3, LE2)."""
    book = Book(known("r-1", "r-2"))
    [record] = book.take(sight(proved(a_revision(), *names)))
    assert (record["what"], record.get("reason")) == ("untrusted" if reason else "alert", reason)


def test_alert_with_signature_of_another_text_is_recorded_as_untrusted_if_checked():
    """Without the reviewers' keys the ledger does not check signatures (rule LE2)."""
    entry, other = proved(a_revision(), "r-1", "r-2"), proved(a_revision(headline="Another"), "r-2")
    mixed = dataclasses.replace(entry.proof, signatures=(entry.proof.signatures[0], other.proof.signatures[0]))
    found = sight(dataclasses.replace(entry, proof=mixed))
    book = Book(known("r-1", "r-2"))
    assert book.recorder.take(found)
    assert book.records[0]["reason"] == "signature"
    assert Book().take(found)[0]["what"] == "alert"


def test_break_glass_key_is_named_in_record():
    """A break-glass key is for emergencies. The record has its `kid` (rule LE4a)."""
    entry = proved(a_revision(), "r-1", "glass")
    [record] = Book(known("r-1", "glass")).take(sight(entry))
    assert record["break_glass"] == [PAIRS["glass"][0]["kid"]]
    assert "break_glass" not in Book().take(sight(entry))[0]


def test_malformed_alert_id_is_omitted_from_record(book):
    """An intruder can write any id into the log (rule LE4)."""
    found = sight(a_revision("Ana Lopez, 5 Main Street"))
    [record] = book.take(found)
    assert "id" not in record
    assert book.take(found) == []


def test_repeated_entry_is_recorded_once(book):
    """When a log that lost entries returns an entry again, the ledger only records `rewound` (rule LE2)."""
    first, second = a_revision(), a_revision("b-1")
    book.take(sight(first, 1, 100), sight(second, 2, 100), sight(first, 1, 100))
    assert book.whats == ["alert", "alert"]
    assert book.take(sight(first, 3, 200), sight(second, 4, 200)) == [{"what": "rewound", "epoch": 200}]
    assert [each["id"] for each in book.take(sight(a_revision("c-1"), 5, 200), sight(first, 1, 100))] == ["c-1"]


def test_new_entry_at_lower_position_is_recorded_as_rewind_of_log(book):
    """Positions in one file only rise, so the file must have been replaced (rule LE2)."""
    book.take(sight(a_revision(), 7))
    found = book.take(sight(a_revision("b-1"), 1), sight(a_revision("c-1"), 2), sight(a_revision("d-1"), 3))
    assert [each["what"] for each in found] == ["rewound", "alert", "alert", "alert"]


def test_different_entry_with_same_number_is_recorded_too(book):
    """An intruder may have written it, or both halves of a split cluster accepted an entry (rule LE2)."""
    book.take(sight(a_revision(), 1))
    [other] = book.take(sight(a_revision(headline="Another"), 2))
    assert (other["id"], other["revision"], other["position"]) == ("a-1", 1, 2)
