"""Several processes with one SQLite log: notifications, waiting for each other, and processes that die."""

import asyncio
import errno
import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import aclosing, closing
from pathlib import Path

import pytest
from alertlog.reading import entries, read, read_on
from alertlog.sqlite.tools import Opened, contents, fill, run, until
from support.fakes import FakeClock, a_revision, alert_request

from geocast import policy
from geocast.alertlog import Counts
from geocast.alertlog.sqlite import connections, inotify, log_file
from geocast.alertlog.sqlite import follower as followers
from geocast.auth.tokens import Requester
from geocast.ingest.publish import Publishing
from geocast.model.errors import ConfigError, LogUnavailable

TESTS = Path(__file__).resolve().parents[2]


# ---- several processes on one file -------------------------------------------------------------------------------


async def test_append_by_another_process_wakes_follower(path, monkeypatch):
    """`PRAGMA data_version` shows the append before the next heartbeat (LogF1, LogF2)."""
    monkeypatch.setattr(followers, "HEARTBEAT_S", 3600.0)
    async with Opened(path, 2) as (one, other), aclosing(other.follow(0)) as follower:
        assert await read_on(follower) == []
        for n in range(3):
            waiting = asyncio.ensure_future(read_on(follower))
            await one.append(a_revision(f"a-{n}"))
            assert [entry.id for _, entry in await waiting] == [f"a-{n}"]


def test_idle_follower_sleeps_until_inotify_reports_a_write(path, monkeypatch):
    """Polling would take 1 % of a core per process (LogF2). A symbolic link to the file works as well."""
    monkeypatch.setattr(followers, "HEARTBEAT_S", 3600.0)
    monkeypatch.setattr(followers, "BUSY_S", 0.2)
    link = path.with_name("link")

    async def main():
        async with Opened(path) as one:
            link.symlink_to(path)
            async with Opened(link) as other, aclosing(other.follow(0)) as follower:
                looks = 0
                asked = other._followers._data_version

                def counted():
                    nonlocal looks
                    looks += 1
                    return asked()

                monkeypatch.setattr(other._followers, "_data_version", counted)
                assert await read_on(follower) == []
                for n in range(3):
                    waiting = asyncio.ensure_future(read_on(follower))
                    before = -1
                    while looks != before:  # for ever, if it does not sleep
                        before = looks
                        await asyncio.sleep(0.1)
                    await one.append(a_revision(f"a-{n}"))
                    assert [entry.id for _, entry in await waiting] == [f"a-{n}"]

    run(main)


@pytest.mark.parametrize("call", ["inotify_init1", "inotify_add_watch"])
async def test_follower_polls_the_file_if_inotify_is_unavailable(path, monkeypatch, call):
    """A user may have no inotify watch left, and a sandbox may have no inotify (LogF2)."""
    monkeypatch.setattr(followers, "HEARTBEAT_S", 3600.0)
    made = inotify._call

    def fails(name, *arguments):
        if name == call:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return made(name, *arguments)

    monkeypatch.setattr(inotify, "_call", fails)
    async with Opened(path, 2) as (one, other), aclosing(other.follow(0)) as follower:
        assert await read_on(follower) == []
        waiting = asyncio.ensure_future(read_on(follower))
        await one.append(a_revision("a-1"))
        assert [entry.id for _, entry in await waiting] == ["a-1"]


async def test_calling_nudge_wakes_follower_before_next_poll(path, monkeypatch):
    """`nudge` tells followers that another process may have appended."""
    monkeypatch.setattr(followers, "HEARTBEAT_S", 3600.0)
    monkeypatch.setattr(followers, "POLL_S", 3600.0)
    async with Opened(path, 2) as (one, other), aclosing(other.follow(0)) as follower:
        assert await read_on(follower) == []
        waiting = asyncio.ensure_future(read_on(follower))
        await asyncio.sleep(0)
        await one.append(a_revision())
        other.nudge()
        assert [entry.id for _, entry in await waiting] == ["a-1"]


async def test_only_one_of_concurrent_appends_by_several_processes_is_stored(path):
    """Exactly one process stores its entry, and all read the same (LogA1, LogA2)."""
    async with Opened(path, 3) as logs:
        for number in range(1, 6):
            rivals = [(log, a_revision(revision=number, headline=f"H{n}")) for n, log in enumerate(logs * 5)]
            stored = await asyncio.gather(*(log.append(rival) for log, rival in rivals))
            assert sum(stored) == 1
            winner = rivals[stored.index(True)][1]
            for log in logs:
                assert (await log.history("a-1"))[-1] == winner
        first, *others = [await read(log) for log in logs]
        assert others == [first] * 2
        assert [entry.revision for _, entry in first] == [1, 2, 3, 4, 5]


async def test_followers_of_all_processes_get_same_entries_in_same_order(path):
    """Whichever process appends, no entry gets a position below one that was returned before (LogF1)."""

    async def follow(log, count):
        seen = []
        async with aclosing(log.follow(0)) as follower:
            while len(seen) < count:
                seen += await read_on(follower)
        return seen

    async with Opened(path, 3) as logs:
        following = [asyncio.ensure_future(follow(log, 150)) for log in logs]
        for turn in range(10):
            await asyncio.gather(
                *(log.append(a_revision(f"a-{turn}-{i}-{n}")) for i, log in enumerate(logs) for n in range(5))
            )
        first, *others = await asyncio.gather(*following)
        assert others == [first] * 2
        assert len({position for position, _ in first}) == 150
        assert first == sorted(first, key=lambda positioned: positioned.position)


async def test_append_blocked_by_another_process_raises_log_unavailable(path, monkeypatch):
    """While the file is locked, appends raise LogUnavailable; afterwards the log continues (LogA3, LogF3)."""
    monkeypatch.setattr(log_file, "BUSY_TIMEOUT_S", 0.01)
    async with Opened(path) as log:
        with closing(sqlite3.connect(path, isolation_level=None)) as hog:
            hog.execute("BEGIN IMMEDIATE")
            with pytest.raises(LogUnavailable, match="locked"):
                await log.append(a_revision())
            with pytest.raises(LogUnavailable):
                await log.add_counts({"a-1": Counts(1, 0)})
            with pytest.raises(LogUnavailable):
                await log.add_counts({})
            assert await entries(log) == []
            hog.execute("ROLLBACK")
        await log.add_counts({})
        assert await log.append(a_revision())


# ---- temporary problems ------------------------------------------------------------------------------------------


def waited_for(path, reason, end, caplog):
    """Check a log that can't be opened yet: all methods raise the reason, and work after `end` was called."""

    async def main():
        async with Opened(path) as log:
            for call in (log.append(a_revision("a-1")), log.add_counts({}), read(log), log.tail(), log.purge(0)):
                with pytest.raises(LogUnavailable, match=reason):
                    await call
            end()
            await until(lambda: log.append(a_revision("a-1")))
            assert [entry.id for entry in await entries(log)][-1] == "a-1"
            await log.add_counts({})

    run(main)
    said = [record.getMessage() for record in caplog.records if record.name == connections.logger.name]
    assert len(said) == 1
    assert said[0].startswith(f"log {path} can't be opened (")
    assert said[0].endswith("; trying again")


def test_file_locked_at_start_is_opened_when_lock_is_released(path, monkeypatch, caplog):
    """A lock is a temporary problem (`log_file`, Rule 2)."""
    monkeypatch.setattr(log_file, "BUSY_TIMEOUT_S", 0.01)
    fill(path, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as hog:
        hog.execute("BEGIN IMMEDIATE")
        waited_for(path, "database is locked", lambda: hog.execute("ROLLBACK"), caplog)


def test_start_waits_while_another_process_opens_file(path, monkeypatch, caplog):
    """The start waits even if opening takes long, with and without an existing file (`log_file`, Rule 2)."""
    monkeypatch.setattr(log_file, "BUSY_TIMEOUT_S", 0.01)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waited_for(path, "another process is opening it", lambda: fcntl.flock(lock, fcntl.LOCK_UN), caplog)


def test_log_waiting_for_its_file_can_be_stopped(path, monkeypatch):
    """`stop` works even if the file was never opened."""
    monkeypatch.setattr(log_file, "BUSY_TIMEOUT_S", 0.01)

    async def main():
        async with Opened(path):
            pass

    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(main)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EIO, "Input/output error"), True),
        (OSError(errno.EMFILE, "Too many open files"), True),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), False),
        (IsADirectoryError(errno.EISDIR, "Is a directory"), False),
        (OSError(errno.EROFS, "Read-only file system"), False),
        (ValueError("no name"), False),
    ],
    ids=str,
)
def test_temporary_errors_raise_log_unavailable_and_others_config_error(error, passes):
    """Only an operator can remove the other errors (`log_file`, Rule 2)."""
    assert type(log_file.reason_of(error)) is (LogUnavailable if passes else ConfigError)


# ---- processes that die ------------------------------------------------------------------------------------------


APPENDING = """
import asyncio, sys
from pathlib import Path
from support.fakes import a_revision
from geocast import failpoints
from geocast.alertlog.sqlite.log import SqliteLog

async def append(log, n):
    for revision in range(1, 100):
        if await log.append(a_revision(f"a-{n}", revision)):
            print(f"a-{n}/{revision}", flush=True)

async def main():
    log = SqliteLog(Path(sys.argv[1]))
    await log.start()
    for n in range(int(sys.argv[2])):
        assert await log.append(a_revision(f"before-{n}"))
        print(f"before-{n}/1", flush=True)
    failpoints._armed = sys.argv[3]
    await asyncio.gather(*(append(log, n) for n in range(10)))

asyncio.run(main())
"""

PUBLISHING = """
import asyncio, sys
from pathlib import Path
from support.fakes import FakeClock, alert_request
from geocast import policy
from geocast.alertlog.sqlite.log import SqliteLog
from geocast.auth.tokens import Requester
from geocast.ingest.publish import Publishing

async def main():
    log = SqliteLog(Path(sys.argv[1]))
    await log.start()
    await Publishing(log, policy.load(None), FakeClock()).publish(alert_request(), Requester("desk"))

asyncio.run(main())
"""


def start(script, *arguments, failpoint=""):
    """Start another process that runs this script."""
    environment = os.environ | {"PYTHONPATH": str(TESTS), "GEOCAST_FAILPOINT": failpoint}
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", script, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def killed(process, lines=None):
    """Return the output of a process that is killed: by itself, or by this test after some lines."""
    with process:
        said = []
        for line in process.stdout:
            said.append(line.strip())
            if len(said) == lines:
                process.kill()
                lines = None
    assert process.returncode == -signal.SIGKILL
    return said


def check_after_a_crash(path, said):
    """Check that acknowledged entries are stored, and that the numbers of each alert have no gap."""

    async def main():
        async with Opened(path) as log:
            followed = await entries(log)
            assert log.quarantined == 0
            assert set(said) <= {f"{entry.id}/{entry.revision}" for entry in followed}
            for alert_id in {entry.id for entry in followed}:
                history = list(await log.history(alert_id))
                assert [entry.revision for entry in history] == list(range(1, len(history) + 1))
                assert history == [entry for entry in followed if entry.id == alert_id]
                assert await log.append(a_revision(alert_id, len(history) + 1))
            assert await log.append(a_revision("after"))

    run(main)


def test_entries_stored_before_crash_during_commit_are_kept(path):
    """The process dies during a transaction. Its entries were not acknowledged, and are lost (LogA3, LogA4)."""
    said = killed(start(APPENDING, path, 5, "in-commit"))
    assert said == [f"before-{n}/1" for n in range(5)]
    assert contents(path) == ([f"before-{n}" for n in range(5)], 0)
    check_after_a_crash(path, said)


def test_crash_in_first_commit_leaves_empty_log(path):
    """GEOCAST_FAILPOINT names the point of the crash (LogA3)."""
    assert killed(start(APPENDING, path, 5, "", failpoint="in-commit")) == []
    assert contents(path) == ([], 0)
    check_after_a_crash(path, [])


@pytest.mark.parametrize("lines", [1, 40, 333])
def test_entries_stored_before_process_is_killed_are_kept(path, lines):
    """When `append` has returned True, the entry is on stable storage (LogA3)."""
    said = killed(start(APPENDING, path, 0, ""), lines)
    assert len(said) >= lines
    check_after_a_crash(path, said)


async def test_repeated_publication_finds_alert_whose_answer_was_lost_in_crash(path):
    """A publisher repeats its request until it gets 200 or 201, which makes one alert (LogA3)."""
    assert killed(start(PUBLISHING, path, failpoint="after-append")) == []
    async with Opened(path) as log:
        publishing = Publishing(log, policy.load(None), FakeClock())
        outcome = await publishing.publish(alert_request(), Requester("other"))
        assert not outcome.created
        assert outcome.entry.source == "desk"
        assert await entries(log) == [outcome.entry]


async def test_log_continues_when_another_process_dies_during_commit(path):
    """The operating system releases the lock when the process dies (LogA3, LogF1)."""
    async with Opened(path) as log:
        await log.append(a_revision("mine"))
        said = await asyncio.to_thread(lambda: killed(start(APPENDING, path, 3, "in-commit")))
        assert said == [f"before-{n}/1" for n in range(3)]
        assert await log.append(a_revision("mine", 2))
        assert [f"{entry.id}/{entry.revision}" for entry in await entries(log)] == ["mine/1", *said, "mine/2"]
