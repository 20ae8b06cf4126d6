"""The files of a ledger: what a crash leaves, and whatever else may be done to them."""

import base64
import json
import shutil

import pytest
from support.fakes import NOON_MS, FakeClock, a_cancel, a_revision
from support.flipping import respelled
from support.reviewers import PAIRS, known, proved

from geocast.alertlog import codec
from geocast.alertlog.tail import RawEntry
from geocast.errors import ConfigError
from geocast.ledger import chain
from geocast.ledger.files import Ledger, head
from geocast.ledger.recording import LedgerRecorder
from geocast.ledger.verifying import Misfit, verify

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
    """Entries as they stand in a log."""
    return [
        RawEntry(0, n, each.id, each.revision, codec.encode(each), each) for n, each in enumerate(entries, start=first)
    ]


def fill(folder, entries=ENTRIES, clock=None, *, first=1):
    """Write a ledger, or go on with it; its head."""
    with Ledger(folder, clock or FakeClock()) as ledger:
        recorder = LedgerRecorder(ledger.write, ledger.known)
        ledger.write({"what": "started"})
        for each in sights(entries, first):
            recorder.take(each)
        return ledger.head


@pytest.fixture
def folder(tmp_path):
    """A ledger of two days."""
    folder = tmp_path / "ledger"
    clock = FakeClock()
    fill(folder, ENTRIES[:3], clock)
    clock.advance(DAY_S)
    fill(folder, ENTRIES[3:], clock, first=4)
    return folder


def lines(path):
    """The lines of a file, with their ends."""
    return path.read_bytes().splitlines(keepends=True)


def test_each_line_has_the_hash_of_the_line_before_across_files(folder):
    """LE1."""
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


def test_a_whole_ledger_fits(folder):
    """LE6: chain, contents, signatures."""
    found = verify(folder, head(folder), KEYS)
    assert found == (8, 6, 4, 1, head(folder))
    assert verify(folder) == (8, 6, 0, 1, head(folder))


def test_an_empty_folder_has_nothing_that_does_not_fit(tmp_path):
    """LE5, LE6."""
    assert str(head(tmp_path)) == "0:" + "0" * 64
    assert verify(tmp_path).records == 0


def changed(value):
    """Another value of the same type."""
    if isinstance(value, list):
        return [*value, ["x", 1]]
    return value + 1 if isinstance(value, int) else value + "x"


@pytest.mark.parametrize(
    ("name", "number"), [("2026-01-31.jsonl", n) for n in range(4)] + [("2026-02-01.jsonl", n) for n in range(4)]
)
def test_a_field_that_was_changed_is_found(folder, name, number):
    """LE6: whichever, in whichever line; in the last one by a head that was kept elsewhere."""
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
def test_a_content_that_was_changed_is_found(folder, day, number):
    """LE3, LE6: by its hash; a signature by its key."""
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
def test_a_content_of_another_make_is_found(folder, change, keys):
    """LE3, LE6: with the same bytes under the hash; in a line, and whether or not signatures are checked."""
    path = folder / "2026-01-31.content.jsonl"
    first, *more = lines(path)
    kept = json.loads(first)
    kept = {name: value for name, value in (kept | change(kept)).items() if value is not ...}
    path.write_bytes(b"".join([chain.written(kept) + b"\n", *more]))
    with pytest.raises(Misfit, match=r"2026-01-31\.content\.jsonl:1: "):
        verify(folder, None, keys)


def test_a_second_content_of_a_record_is_found(folder):
    """LE6: whichever of them is the one that fits."""
    path = folder / "2026-01-31.content.jsonl"
    whole = lines(path)
    other = chain.written(json.loads(whole[0]) | {"form": "{}"}) + b"\n"
    for found in ([other, *whole], [*whole, other], [*whole, whole[0]]):
        path.write_bytes(b"".join(found))
        with pytest.raises(Misfit, match=r"2026-01-31\.content\.jsonl:\d: "):
            verify(folder)


def test_a_content_of_a_day_without_a_chain_is_found(folder):
    """LE6: at the beginning, too, from where old days may be deleted."""
    (folder / "2026-01-31.jsonl").unlink()
    with pytest.raises(Misfit, match=r"2026-01-31\.content\.jsonl:1: is of no record of that day"):
        verify(folder)


@pytest.mark.parametrize("name", ["2026-01-31.jsonl", "2026-02-01.jsonl"])
@pytest.mark.parametrize("how", ["taken out", "twice", "swapped"])
def test_lines_that_were_moved_are_found(folder, name, how):
    """LE6."""
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


def test_a_file_that_was_taken_out_of_the_middle_is_found(folder):
    """LE6."""
    clock = FakeClock(NOON_MS + 2 * DAY_S * 1000)
    fill(folder, [a_revision("d-1")], clock, first=9)
    (folder / "2026-02-01.jsonl").unlink()
    with pytest.raises(Misfit, match=r"2026-02-02\.jsonl:1: has the number 9, and 5 comes next"):
        verify(folder)


def test_an_end_that_was_cut_off_is_seen_by_a_head_that_was_kept_elsewhere(folder):
    """LE5: and by nothing else."""
    before = head(folder)
    for path in (folder / "2026-02-01.jsonl", folder / "2026-02-01.content.jsonl"):
        path.write_bytes(b"".join(lines(path)[:-1]))
    assert verify(folder).records == 7
    with pytest.raises(Misfit, match="it ends at record 7: the end was cut off"):
        verify(folder, before)


def test_a_chain_that_was_written_anew_is_seen_by_a_head_that_was_kept_elsewhere(folder):
    """LE5."""
    before = head(folder)
    shutil.rmtree(folder)
    fill(folder, [a_revision("other"), *ENTRIES, a_revision("another")])
    assert verify(folder).records == 9
    with pytest.raises(Misfit, match="is another record than the one whose hash was kept"):
        verify(folder, before)


def test_a_day_whose_content_was_deleted_is_forgotten_and_the_chain_holds(folder):
    """LE3: and the same entries are known still; one content that was taken out is no deleted file."""
    (folder / "2026-01-31.content.jsonl").unlink()
    assert verify(folder, head(folder), KEYS)[:3] == (8, 3, 1)
    fill(folder, ENTRIES, FakeClock(NOON_MS + DAY_S * 1000))
    assert verify(folder).records == 9
    path = folder / "2026-02-01.content.jsonl"
    path.write_bytes(b"".join(lines(path)[1:]))
    with pytest.raises(Misfit, match=r"2026-02-01\.jsonl:2: its content is not in 2026-02-01\.content\.jsonl"):
        verify(folder)


def test_old_days_may_be_deleted_from_the_beginning(folder):
    """LE3: verify says where the chain begins."""
    for name in ("2026-01-31.jsonl", "2026-01-31.content.jsonl"):
        (folder / name).unlink()
    found = verify(folder, head(folder))
    assert (found.records, found.first) == (4, 5)
    with pytest.raises(Misfit, match="it begins at record 5: record 2 is not there any more"):
        verify(folder, chain.ChainHead(2, "0" * 64))


def test_the_head_before_the_first_record_that_is_left_is_known_by_its_hash(folder):
    """LE5, LE6: that of a ledger without a record, too."""
    assert verify(folder, chain.NOTHING).records == 8
    with pytest.raises(Misfit, match=r"2026-01-31\.jsonl:1: follows another record"):
        verify(folder, chain.ChainHead(0, "1" * 64))
    before = chain.head_of(lines(folder / "2026-01-31.jsonl")[-1][:-1])
    for name in ("2026-01-31.jsonl", "2026-01-31.content.jsonl"):
        (folder / name).unlink()
    assert verify(folder, before).first == 5


def test_signatures_are_those_of_reviewers(folder):
    """LE6."""
    with pytest.raises(Misfit, match=f"is signed by a key that is not among the reviewers': {PAIRS['r-2'][0]['kid']}"):
        verify(folder, None, known("r-1"))


# ---- what a crash leaves -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", range(0, 400, 7))
def test_a_torn_last_line_is_taken_off_and_written_again(tmp_path, kept, caplog):
    """LE1: at whatever byte a record was torn; what it was about comes again out of the log."""
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
    assert "a content without a record was cut off" in caplog.text
    assert ("a torn last line was cut off" in caplog.text) == bool(torn)


@pytest.mark.parametrize("kept", range(0, 700, 23))
def test_a_torn_content_is_taken_off_and_written_again(tmp_path, kept):
    """LE1: it is written before its record, so that one is not there."""
    fill(tmp_path, ENTRIES[:1])
    chain_path, path = tmp_path / f"{DAY}.jsonl", tmp_path / f"{DAY}.content.jsonl"
    chain_path.write_bytes(lines(chain_path)[0])
    path.write_bytes(path.read_bytes()[:kept])
    fill(tmp_path, ENTRIES[:1])
    assert verify(tmp_path, None, KEYS)[:3] == (3, 1, 2)


def test_a_content_of_a_day_whose_chain_was_not_begun_is_taken_off(tmp_path):
    """LE1."""
    clock = FakeClock()
    fill(tmp_path, ENTRIES[:1], clock)
    (tmp_path / "2026-02-01.content.jsonl").write_bytes(b'{"n":3,"salt":"00","entry":""}\n')
    clock.advance(DAY_S)
    fill(tmp_path, ENTRIES[:2], clock)
    assert verify(tmp_path).records == 4


def test_what_does_not_fit_stops_the_start_and_is_named(folder):
    """LE6: nothing is mended that no crash has left."""
    path = folder / "2026-01-31.jsonl"
    found = lines(path)
    found[1] = found[1].replace(b"desk", b"disk")
    path.write_bytes(b"".join(found))
    with pytest.raises(ConfigError, match=r"2026-01-31\.jsonl:3: does not have the hash of the line before"):
        fill(folder, [], FakeClock(NOON_MS + DAY_S * 1000))
    assert b"".join(lines(path)) == b"".join(found)


def test_a_last_line_that_is_none_stops_the_start(folder):
    """LE6."""
    with (folder / "2026-02-01.jsonl").open("ab") as file:
        file.write(b"nonsense\n")
    with pytest.raises(ConfigError, match="the last line is no line of a ledger"):
        fill(folder)


def test_one_process_writes(folder):
    """LE1: the other one is told so. Who verifies meanwhile passes over what is being written."""
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


def test_after_a_restart_nothing_is_written_twice(folder):
    """LE2: though the log gives it again."""
    clock = FakeClock(NOON_MS + DAY_S * 1000)
    fill(folder, ENTRIES, clock)
    assert verify(folder).records == 9
    fill(folder, [*ENTRIES, a_revision("e-1")], clock)
    assert verify(folder).records == 11


def test_a_clock_that_was_set_back_leaves_the_files_in_order(folder):
    """LE1."""
    fill(folder, [a_revision("e-1")], FakeClock(NOON_MS - 5 * DAY_S * 1000), first=9)
    assert verify(folder).records == 10
    assert len(list(folder.glob("*.jsonl"))) == 4
