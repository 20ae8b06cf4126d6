"""The files of a ledger: what a crash leaves in them, and every kind of change that somebody may make to them."""

import base64
import json
import shutil

import pytest
from support.fakes import NOON_MS, FakeClock, a_cancel, a_revision
from support.flipping import respelled
from support.reviewers import PAIRS, known, proved

from geocast.alertlog import codec
from geocast.alertlog.tail import RawEntry
from geocast.ledger import chain
from geocast.ledger.files import Ledger, head
from geocast.ledger.recording import LedgerRecorder
from geocast.ledger.verifying import Misfit, verify
from geocast.model.errors import ConfigError

DAY_S = 86_400
KEYS = known("r-1", "r-2")
ENTRIES = [
    proved(a_revision(), "r-1", "r-2"),
    a_revision("b-1"),
    proved(a_revision(revision=2), "r-2"),
    proved(a_cancel(revision=3), "r-1"),
    a_revision("c-1", headline="Räuber"),
    a_cancel("c-1", 2),
]
DAY = "2026-01-31"


def sights(entries, first=1):
    """Return entries as they are in a log, with positions from `first`."""
    return [
        RawEntry(0, n, each.id, each.revision, codec.encode(each), each) for n, each in enumerate(entries, start=first)
    ]


def fill(folder, entries=ENTRIES, clock=None, *, first=1):
    """Write the entries to a new or existing ledger, and return its head (the number and hash of the last record)."""
    with Ledger(folder, clock or FakeClock()) as ledger:
        recorder = LedgerRecorder(ledger.write, ledger.known)
        ledger.write({"what": "started"})
        for each in sights(entries, first):
            recorder.take(each)
        return ledger.head


@pytest.fixture
def folder(tmp_path):
    """A ledger of two days with three entries each."""
    folder = tmp_path / "ledger"
    clock = FakeClock()
    fill(folder, ENTRIES[:3], clock)
    clock.advance(DAY_S)
    fill(folder, ENTRIES[3:], clock, first=4)
    return folder


def lines(path):
    """Return the lines of a file, with their line breaks."""
    return path.read_bytes().splitlines(keepends=True)


def test_each_ledger_line_has_hash_of_previous_line_even_across_files(folder):
    """Records are numbered from 1, and the first one has a previous hash of 64 zeros (rule LE1)."""
    files = sorted(path.name for path in folder.iterdir() if path.name != ".lock")
    assert files == [
        "2026-01-31.content.jsonl",
        "2026-01-31.jsonl",
        "2026-02-01.content.jsonl",
        "2026-02-01.jsonl",
    ]
    chain_lines = lines(folder / "2026-01-31.jsonl") + lines(folder / "2026-02-01.jsonl")
    records = [json.loads(line) for line in chain_lines]
    assert [each["n"] for each in records] == list(range(1, 9))
    hashes = ["0" * 64, *(chain.digest(line.rstrip(b"\n")) for line in chain_lines)]
    assert [each["prev"] for each in records] == hashes[:-1]
    assert str(head(folder)) == f"8:{hashes[-1]}"
    assert (records[0]["what"], records[0]["at"]) == ("started", "2026-01-31T12:00:00.000Z")


def test_verify_accepts_untouched_ledger(folder):
    """The command counts records, contents and, if it has the reviewers' keys, signatures (rule LE6)."""
    found = verify(folder, head(folder), KEYS)
    assert found == (8, 6, 4, 1, head(folder))
    assert verify(folder) == (8, 6, 0, 1, head(folder))


def test_verify_accepts_empty_folder(tmp_path):
    """The head (the last record) of an empty ledger has the number 0 and a hash of zeros (rules LE5, LE6)."""
    assert str(head(tmp_path)) == "0:" + "0" * 64
    assert verify(tmp_path).records == 0


def changed(value):
    """Return another value of the same type."""
    if isinstance(value, list):
        return [*value, ["x", 1]]
    return value + 1 if isinstance(value, int) else value + "x"


@pytest.mark.parametrize(
    ("name", "number"), [("2026-01-31.jsonl", n) for n in range(4)] + [("2026-02-01.jsonl", n) for n in range(4)]
)
def test_verify_finds_changed_field_of_any_record(folder, name, number):
    """For the last record, this needs a head that was kept elsewhere (rules LE5, LE6)."""
    path, before = folder / name, head(folder)
    whole = lines(path)
    for field, value in json.loads(whole[number]).items():
        found = list(whole)
        found[number] = chain.written(json.loads(whole[number]) | {field: changed(value)}) + b"\n"
        path.write_bytes(b"".join(found))
        with pytest.raises(Misfit, match=r"\.jsonl:\d+: "):
            verify(folder, before)
    path.write_bytes(b"".join(whole))
    assert verify(folder, before).records == 8


@pytest.mark.parametrize(
    ("day", "number"), [("2026-01-31", n) for n in range(3)] + [("2026-02-01", n) for n in range(3)]
)
def test_verify_finds_changed_field_of_any_content(folder, day, number):
    """A changed text does not match the record's hash, nor a changed signature the reviewer's key (rules LE3, LE6)."""
    path = folder / f"{day}.content.jsonl"
    whole = lines(path)
    kept = json.loads(whole[number])
    for field, value in kept.items():
        other = changed(value)
        if field == "signatures":
            protected, mac = value[0]
            other = [[protected, respelled(mac, 0)], *value[1:]]
        found = list(whole)
        found[number] = chain.written(kept | {field: other}) + b"\n"
        path.write_bytes(b"".join(found))
        with pytest.raises(Misfit, match=rf"{day}\S*:\d+: "):
            verify(folder, None, KEYS)
    path.write_bytes(b"".join(whole))
    assert verify(folder, None, KEYS).signatures == 4


@pytest.mark.parametrize("keys", [None, KEYS], ids=["unchecked", "checked"])
@pytest.mark.parametrize(
    "change",
    [
        lambda kept: {"signatures": [[protected, 5] for protected, _ in kept["signatures"]]},
        lambda kept: {"signatures": [[protected, None] for protected, _ in kept["signatures"]]},
        lambda kept: {"form": ..., "entry": base64.b64encode(kept["form"].encode()).decode()},
        lambda kept: {"entry": ""},
    ],
    ids=["numbers", "nulls", "bytes", "both"],
)
def test_verify_finds_malformed_content_with_right_hash(folder, change, keys):
    """The error names the line, whether or not signatures are checked (rules LE3, LE6)."""
    path = folder / "2026-01-31.content.jsonl"
    first, *more = lines(path)
    kept = json.loads(first)
    kept = {name: value for name, value in (kept | change(kept)).items() if value is not ...}
    path.write_bytes(b"".join([chain.written(kept) + b"\n", *more]))
    with pytest.raises(Misfit, match=r"2026-01-31\.content\.jsonl:1: "):
        verify(folder, None, keys)


def test_verify_finds_second_content_for_one_record(folder):
    """The error does not depend on their order, nor on which of them matches the record (rule LE6)."""
    path = folder / "2026-01-31.content.jsonl"
    whole = lines(path)
    other = chain.written(json.loads(whole[0]) | {"form": "{}"}) + b"\n"
    for found in ([other, *whole], [*whole, other], [*whole, whole[0]]):
        path.write_bytes(b"".join(found))
        with pytest.raises(Misfit, match=r"2026-01-31\.content\.jsonl:\d: "):
            verify(folder)


def test_verify_finds_content_file_of_day_without_chain_file(folder):
    """This holds for the first day, too, although old days may be deleted (rule LE6)."""
    (folder / "2026-01-31.jsonl").unlink()
    with pytest.raises(Misfit, match=r"2026-01-31\.content\.jsonl:1: belongs to no record of that day"):
        verify(folder)


@pytest.mark.parametrize("name", ["2026-01-31.jsonl", "2026-02-01.jsonl"])
@pytest.mark.parametrize("how", ["taken out", "twice", "swapped"])
def test_verify_finds_removed_repeated_or_swapped_lines(folder, name, how):
    """The error names the first line that does not follow the previous one (rule LE6)."""
    path = folder / name
    found = lines(path)
    match how:
        case "taken out":
            del found[1]
        case "twice":
            found.insert(1, found[1])
        case "swapped":
            found[0], found[1] = found[1], found[0]
    path.write_bytes(b"".join(found))
    with pytest.raises(Misfit, match=r"\.jsonl:\d+: "):
        verify(folder)


def test_verify_finds_day_missing_in_the_middle(folder):
    """The first line of the next day does not follow the last line before the gap (rule LE6)."""
    clock = FakeClock(NOON_MS + 2 * DAY_S * 1000)
    fill(folder, [a_revision("d-1")], clock, first=9)
    (folder / "2026-02-01.jsonl").unlink()
    with pytest.raises(Misfit, match=r"2026-02-02\.jsonl:1: has the number 9, but 5 was expected"):
        verify(folder)


def test_verify_finds_missing_end_only_with_separately_kept_head(folder):
    """Without a head that was kept elsewhere, the shorter chain is valid (rule LE5)."""
    before = head(folder)
    for path in (folder / "2026-02-01.jsonl", folder / "2026-02-01.content.jsonl"):
        path.write_bytes(b"".join(lines(path)[:-1]))
    assert verify(folder).records == 7
    with pytest.raises(Misfit, match="the chain ends at record 7: its end was cut off"):
        verify(folder, before)


def test_verify_finds_rewritten_chain_only_with_separately_kept_head(folder):
    """Without a head that was kept elsewhere, the new chain is valid (rule LE5)."""
    before = head(folder)
    shutil.rmtree(folder)
    fill(folder, [a_revision("other"), *ENTRIES, a_revision("another")])
    assert verify(folder).records == 9
    with pytest.raises(Misfit, match="is not the record whose hash was kept"):
        verify(folder, before)


def test_deleted_content_file_leaves_chain_valid(folder):
    """The entries are not recorded again. If only some contents of a file are missing, that is an error (rule LE3)."""
    (folder / "2026-01-31.content.jsonl").unlink()
    assert verify(folder, head(folder), KEYS)[:3] == (8, 3, 1)
    fill(folder, ENTRIES, FakeClock(NOON_MS + DAY_S * 1000))
    assert verify(folder).records == 9
    path = folder / "2026-02-01.content.jsonl"
    path.write_bytes(b"".join(lines(path)[1:]))
    with pytest.raises(Misfit, match=r"2026-02-01\.jsonl:2: its content is missing in 2026-02-01\.content\.jsonl"):
        verify(folder)


def test_verify_succeeds_after_oldest_days_were_deleted(folder):
    """The result says where the chain begins (rule LE3)."""
    for name in ("2026-01-31.jsonl", "2026-01-31.content.jsonl"):
        (folder / name).unlink()
    found = verify(folder, head(folder))
    assert (found.records, found.first) == (4, 5)
    with pytest.raises(Misfit, match="the chain begins at record 5: record 2 was deleted"):
        verify(folder, chain.ChainHead(2, "0" * 64))


def test_verify_checks_head_just_before_first_remaining_record(folder):
    """The first record contains the hash of the head before it, even in a complete ledger (rules LE5, LE6)."""
    assert verify(folder, chain.NOTHING).records == 8
    with pytest.raises(Misfit, match=r"2026-01-31\.jsonl:1: does not follow the record"):
        verify(folder, chain.ChainHead(0, "1" * 64))
    before = chain.head_of(lines(folder / "2026-01-31.jsonl")[-1][:-1])
    for name in ("2026-01-31.jsonl", "2026-01-31.content.jsonl"):
        (folder / name).unlink()
    assert verify(folder, before).first == 5


def test_verify_refuses_signature_by_unknown_key(folder):
    """A key that was removed from the file of reviewers counts as unknown (rule LE6)."""
    with pytest.raises(Misfit, match=f"a key that is not in the reviewers' file: {PAIRS['r-2'][0]['kid']}"):
        verify(folder, None, known("r-1"))


# ---- files after a crash -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", range(0, 400, 7))
def test_start_removes_incomplete_record_and_records_entry_again(tmp_path, kept, caplog):
    """The record may break off at any byte (rule LE1)."""
    fill(tmp_path, ENTRIES[:2])
    path = tmp_path / f"{DAY}.jsonl"
    *whole, last = lines(path)
    torn = last[: min(kept, len(last) - 1)]
    path.write_bytes(b"".join(whole) + torn)
    if torn:
        with pytest.raises(Misfit, match=r":3: is torn"):
            verify(tmp_path)
    fill(tmp_path, ENTRIES[:2])
    found = verify(tmp_path)
    assert (found.records, found.contents) == (4, 2)
    assert "removed a content without a record" in caplog.text
    assert ("removed an incomplete last line" in caplog.text) == bool(torn)


@pytest.mark.parametrize("kept", range(0, 700, 23))
def test_start_removes_incomplete_content_and_records_entry_again(tmp_path, kept):
    """An incomplete content never has a record, because it is synced before its record is written (rule LE1)."""
    fill(tmp_path, ENTRIES[:1])
    chain_path, path = tmp_path / f"{DAY}.jsonl", tmp_path / f"{DAY}.content.jsonl"
    chain_path.write_bytes(lines(chain_path)[0])
    path.write_bytes(path.read_bytes()[:kept])
    fill(tmp_path, ENTRIES[:1])
    assert verify(tmp_path, None, KEYS)[:3] == (3, 1, 2)


def test_start_removes_content_file_of_day_without_chain_file(tmp_path):
    """The crash came between the first content of a day and its record (rule LE1)."""
    clock = FakeClock()
    fill(tmp_path, ENTRIES[:1], clock)
    (tmp_path / "2026-02-01.content.jsonl").write_bytes(b'{"n":3,"salt":"00","entry":""}\n')
    clock.advance(DAY_S)
    fill(tmp_path, ENTRIES[:2], clock)
    assert verify(tmp_path).records == 4


def test_start_is_refused_with_number_of_changed_line(folder):
    """Only damage that a crash can cause is repaired (rule LE6)."""
    path = folder / "2026-01-31.jsonl"
    found = lines(path)
    found[1] = found[1].replace(b"desk", b"disk")
    path.write_bytes(b"".join(found))
    with pytest.raises(ConfigError, match=r"2026-01-31\.jsonl:3: does not have the hash of the line before"):
        fill(folder, [], FakeClock(NOON_MS + DAY_S * 1000))
    assert b"".join(lines(path)) == b"".join(found)


def test_start_is_refused_if_last_line_is_malformed(folder):
    """The line is complete, so a crash has not caused it (rule LE6)."""
    with (folder / "2026-02-01.jsonl").open("ab") as file:
        file.write(b"nonsense\n")
    with pytest.raises(ConfigError, match="the last line is not a line of a ledger"):
        fill(folder)


def test_second_writer_is_refused_and_verify_ignores_unfinished_lines(folder):
    """When the writer has ended, an unfinished line is an error (rules LE1, LE6)."""
    with Ledger(folder, FakeClock(NOON_MS + DAY_S * 1000)):
        with pytest.raises(ConfigError, match="another process writes to it"):
            fill(folder)
        with (folder / "2026-02-01.content.jsonl").open("ab") as file:
            file.write(b'{"n":9,"salt":"00","entry":""}\n{"n":10')
        with (folder / "2026-02-01.jsonl").open("ab") as file:
            file.write(b'{"n":9,"prev"')
        assert verify(folder).records == 8
    with pytest.raises(Misfit, match="is torn"):
        verify(folder)


def test_restart_records_no_entry_twice(folder):
    """After a restart the log returns all entries again, and only the new one is recorded (rule LE2)."""
    clock = FakeClock(NOON_MS + DAY_S * 1000)
    fill(folder, ENTRIES, clock)
    assert verify(folder).records == 9
    fill(folder, [*ENTRIES, a_revision("e-1")], clock)
    assert verify(folder).records == 11


def test_record_is_appended_to_last_file_if_clock_was_set_back(folder):
    """No file for an earlier day is created (rule LE1)."""
    fill(folder, [a_revision("e-1")], FakeClock(NOON_MS - 5 * DAY_S * 1000), first=9)
    assert verify(folder).records == 10
    assert len(list(folder.glob("*.jsonl"))) == 4
