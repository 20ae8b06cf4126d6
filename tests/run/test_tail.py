"""What `geocast tail` prints: each believed entry, once, and everything after a position (`run/tail.py`)."""

import json
import os
import random
import sqlite3
from contextlib import closing

import pytest
from support.fakes import a_cancel, a_revision
from support.reviewers import AUDIENCE

from geocast import policy
from geocast.alertlog import codec
from geocast.alertlog.sqlite.log import SqliteLog
from geocast.alertlog.tail import RawEntry
from geocast.approvals.reviewers import NO_REVIEWERS
from geocast.approvals.verifier import ApprovalVerifier
from geocast.model.errors import ConfigError
from geocast.run.tail import Believed, tail

ANYTHING = ApprovalVerifier(policy.load(None), NO_REVIEWERS)
STEPS = 400


def raw(entry, epoch, position):
    """Return an entry as a log yields it."""
    return RawEntry(epoch, position, entry.id, entry.revision, codec.encode(entry), entry)


def printed(log, after=None):
    """Return the lines that are printed for a whole log."""
    lines = []
    found = Believed(ANYTHING, after, lines.append)
    for each in log:
        found.take(each)
    found.caught_up()
    return lines


def names(lines):
    """Return the ids and revisions of lines."""
    return [
        (line["id"], line["revision"]) if line["type"] == "cancel" else (line["alert"]["id"], line["alert"]["revision"])
        for line in lines
    ]


def test_each_entry_is_printed_once_even_if_the_log_yields_it_again():
    """Entries that follow a cancel, and tombstones, are not printed."""
    log = [raw(a_revision(), 7, 1), raw(a_revision(revision=2), 7, 2), raw(a_cancel(revision=3), 7, 3)]
    log += [raw(a_revision(revision=4), 7, 4), raw(a_cancel("none", revision=1), 7, 5)]
    lines = printed([*log, *log, *(each._replace(epoch=8) for each in log)])
    assert names(lines) == [("a-1", 1), ("a-1", 2), ("a-1", 3)]
    assert lines[0]["alert"]["headline"] == a_revision().alert.headline


def history(rng):
    """Return two states of a log: before a failover, and after it.

    The second one lacks the last entries of the first. It has others under the same numbers, and then, in a new epoch,
    those that were put back.
    """
    count, lost = rng.randrange(1, 12), rng.randrange(0, 6)
    before = [raw(a_revision(f"a-{number}"), 7, number) for number in range(1, count + 1)]
    kept = before[: max(0, count - lost)]
    others = [raw(a_revision(f"b-{number}"), 7, len(kept) + number) for number in range(1, rng.randrange(1, 4))]
    put_back = before[len(kept) :]
    rng.shuffle(put_back)
    again = [each._replace(epoch=8, position=len(kept) + len(others) + n) for n, each in enumerate(put_back, start=1)]
    later = [raw(a_revision(f"c-{number}"), 8, 100 + number) for number in range(rng.randrange(3))]
    return before, [*kept, *others, *again, *later]


def test_nothing_is_missing_if_it_is_killed_between_any_two_lines_and_the_log_loses_entries():
    """A restart with the position of the last line prints everything that was not printed before, or more."""
    rng = random.Random(1)
    for _ in range(STEPS):
        before, after = history(rng)
        for killed_after in range(len(before) + 1):
            seen = printed(before)[:killed_after]
            position = seen[-1]["position"] if seen else None
            assert {*names(seen), *names(printed(after, position))} >= set(names(printed(after)))
        complete = printed(after)
        for line, following in zip(complete, [*complete[1:], None], strict=True):
            rest = printed(after, line["position"])
            assert (rest[0] if rest else None) == following, "nothing is repeated in a log that has the position"


async def lines_of(path, after=None, verifier=ANYTHING):
    """Return what `tail` prints of a log in SQLite, to its end."""
    with (path.parent / "lines").open("wb") as file:
        await tail(f"sqlite:{path}", verifier, after, file.fileno(), until_now=True)
    return [json.loads(line) for line in (path.parent / "lines").read_text().splitlines()]


@pytest.fixture
async def path(tmp_path):
    """Make a log in SQLite with some entries, which nobody may write to any more."""
    path = tmp_path / "log.db"
    log = SqliteLog(path)
    await log.start()
    for entry in (a_revision(), a_revision(revision=2), a_revision("b"), a_cancel(revision=3)):
        await log.append(entry)
    await log.stop()
    return path


async def test_entries_of_a_file_are_printed_from_any_position(path):
    """The file is not changed."""
    before = path.read_bytes()
    lines = await lines_of(path)
    assert names(lines) == [("a-1", 1), ("a-1", 2), ("b", 1), ("a-1", 3)]
    for number, line in enumerate(lines, start=1):
        assert await lines_of(path, line["position"]) == lines[number:]
    assert await lines_of(path, "0-99-none") == lines
    assert path.read_bytes() == before


async def test_entry_that_reviewers_have_not_approved_is_left_out(path, tmp_path):
    """A policy that asks for approvals applies to all entries of the log."""
    (tmp_path / "policy.toml").write_text(
        f'name = "ours"\naudience = "{AUDIENCE}"\n[categories]\nburglary = {{ title = "Burglary", approvals = 1 }}\n'
    )
    strict = ApprovalVerifier(policy.load(tmp_path / "policy.toml"), NO_REVIEWERS)
    assert await lines_of(path, verifier=strict) == []


async def test_log_that_is_missing_is_refused(tmp_path, monkeypatch):
    """A mistyped path does not look like a quiet log."""
    monkeypatch.setattr("geocast.alertlog.tail.MADE_S", 0.0)
    with pytest.raises(ConfigError, match="there is no alert log"):
        await lines_of(tmp_path / "none.db")


async def test_pipe_that_nobody_reads_ends_it(path):
    """The command ends quietly then."""
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        await tail(f"sqlite:{path}", ANYTHING, None, writer, until_now=True)
    os.close(writer)


async def test_unreadable_entry_is_left_out(path):
    """All others are printed."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE entry SET payload = x'00' WHERE id = 'b'")
    assert names(await lines_of(path)) == [("a-1", 1), ("a-1", 2), ("a-1", 3)]
