"""Forked processes: what they inherit from their parent and what they do not (`geocast.run.forking`)."""

import gc
import os
import random
import secrets
import select
import signal
import threading
from pathlib import Path

import pytest

from geocast.model.errors import ConfigError
from geocast.run.forking import WAITED_FOR, fork


@pytest.fixture(autouse=True)
def thawed():
    """Thaw the objects that a fork freezes, since other tests count garbage."""
    yield
    gc.unfreeze()


@pytest.fixture
def pipe():
    """A pipe that a child writes to and the test reads from."""
    here, there = os.pipe()
    yield here, there
    os.close(here)
    os.close(there)


def end_of(pid):
    """Return how a child has ended: its exit status, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def told(pipe, work):
    """Return what `work` returns in a child, as text."""
    here, there = pipe
    assert end_of(fork("child", [there], lambda: os.write(there, repr(work()).encode()))) == 0
    return os.read(here, 65536).decode()


def test_forked_process_keeps_only_the_file_descriptors_passed_to_it(pipe):
    """The process closes the descriptors that its parent opened or inherited."""
    with open(os.devnull) as other:
        left = told(pipe, lambda: [number for number in range(3, 300) if is_open(number)])
        assert left == repr([pipe[1]])
        assert is_open(other.fileno())


def is_open(number):
    """Return whether there is such a descriptor."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def raises(error):
    """Return a function that raises this error."""

    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "status"),
    [
        (lambda: None, 0),
        (raises(ConfigError("--log: no such thing")), 2),
        (raises(OSError(28, "No space left on device")), 2),
        (raises(ValueError("a place")), 1),
        (raises(KeyboardInterrupt()), 1),
    ],
)
def test_forked_process_exits_with_a_status_and_never_returns(work, status):
    """If the forked process returned, it would continue with the code of its parent."""
    assert end_of(fork("child", [], work)) == status


def test_forked_process_unblocks_the_signals_that_its_parent_waits_for():
    """If SIGTERM stayed blocked, it would never end the process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
    try:
        pid = fork("child", [], signal.pause)
        os.kill(pid, signal.SIGTERM)
        assert end_of(pid) == -signal.SIGTERM
        assert signal.SIGTERM not in signal.sigpending()
    finally:
        signal.sigtimedwait(WAITED_FOR, 0)  # its SIGCHLD
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WAITED_FOR)


def test_forked_processes_have_different_random_numbers():
    """Names of sessions and times of retries are random."""
    drawn = []
    for _ in range(2):
        here, there = os.pipe()
        drawn.append(told((here, there), lambda: (random.random(), secrets.token_hex(8))))
        os.close(here)
        os.close(there)
    drawn.append(repr((random.random(), secrets.token_hex(8))))
    assert len(set(drawn)) == 3


def test_forked_process_gets_sigterm_when_its_parent_dies(pipe):
    """If the process lived on, the next node could not open the listener."""
    here, there = pipe

    def parent():
        child = fork("child", [there], signal.pause)
        os.write(there, str(child).encode())

    assert end_of(fork("parent", [there], parent)) == 0
    child = os.pidfd_open(int(os.read(here, 100)))
    try:
        gone = threading.Event()
        watcher = threading.Thread(target=lambda: (wait_for(child), gone.set()))
        watcher.start()
        assert gone.wait(60)
        watcher.join()
    finally:
        os.close(child)


def wait_for(pidfd):
    """Return when a process that is not our child has ended."""
    select.select([pidfd], [], [])


def test_forked_process_has_the_given_name_and_its_own_unix_session(pipe):
    """`ps` shows which process is which, and Ctrl-C reaches only the parent."""
    assert told(pipe, lambda: (Path("/proc/self/comm").read_text(), os.getsid(0) == os.getpid())) == repr(
        ("child\n", True)
    )
