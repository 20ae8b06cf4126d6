"""Start child processes by fork, with everything imported, in memory that they share with their parent.

Starting Python and importing the modules of a node takes 0.5 s of CPU and 50 MiB for each process; a fork takes neither
(`bench idle`). But a child inherits more than it should, and this module handles that:

Threads and loops   A forked child has none of its parent's threads, and would share the descriptors of its parent's
                    event loop. So the parent must have neither threads nor an event loop: it waits in system calls, and
                    `run/__init__.py` prevents numpy's library from starting threads.
Signals             The parent blocks the signals for which it waits, so that no handler runs. A child unblocks them,
                    and ignores SIGHUP and SIGUSR1, which are only for the parent. So if such a signal is sent to all
                    processes by mistake, it does not end them.
Descriptors         A child closes all descriptors that are not its own. Example: if it kept a copy of another process's
                    listening socket, the kernel would continue to accept connections on it after that process died.
The terminal        A child is in a terminal session of its own, so that Ctrl-C reaches only the parent.
Memory              Pages stay shared until they are written to. The garbage collector writes to each object that it
                    examines, so all objects are frozen (`gc.freeze`) before the fork.
Random numbers      `random` seeds itself again in a child; `secrets`, `uuid` and OpenSSL ask the kernel.
"""

import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Collection
from typing import NoReturn

from ..model.errors import ConfigError, trace

logger = logging.getLogger(__name__)

# The signals that a parent waits for. SIGHUP and SIGUSR1 are for the parent alone.
WAITED_FOR = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1})
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15  # options of prctl(2), from <linux/prctl.h>


def fork(name: str, descriptors: Collection[int], work: Callable[[], None]) -> int:
    """Start a child process called `name` that runs `work` and exits. Return its pid. Raise OSError if the fork fails.

    The child keeps `descriptors` open, and standard input, output and error; all others are closed. It gets SIGTERM
    when its parent dies. Its exit status is 0 if `work` returns. It is 2 if `work` raises ConfigError or OSError, which
    is logged in one line, and 1 for any other exception.
    """
    parent = os.getpid()
    gc.collect()
    gc.freeze()
    pid = os.fork()
    if pid == 0:
        _run_child(parent, name, descriptors, work)
    return pid


def _run_child(parent: int, name: str, descriptors: Collection[int], work: Callable[[], None]) -> NoReturn:
    """Run as the child process: prepare the process, call `work`, and exit.

    Never return, so that the child does not continue with the parent's work.
    """
    status = 1
    try:
        os.setsid()
        _close_all_but(descriptors)
        for number in WAITED_FOR:
            is_ours = number not in (signal.SIGHUP, signal.SIGUSR1)
            signal.signal(number, signal.SIG_DFL if is_ours else signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WAITED_FOR)
        _prctl(_PR_SET_NAME, name.encode())
        _end_with_parent(parent)
        work()
        status = 0
    except (ConfigError, OSError) as error:
        logger.error("process %s can't continue, so it exits: %s", name, error)
        status = 2
    except BaseException as error:
        logger.error("process %s failed: %s", name, trace(error))
    finally:
        with contextlib.suppress(Exception):
            logging.shutdown()
            sys.stdout.flush()
        os._exit(status)


def _close_all_but(descriptors: Collection[int]) -> None:
    kept = sorted({0, 1, 2, *descriptors})
    for before, after in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(before + 1, after)


def _end_with_parent(parent: int) -> None:
    """Make the kernel send this process SIGTERM when its parent dies.

    If the parent has died already, this process gets SIGTERM at once.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def _prctl(option: int, value: int | bytes) -> None:
    with contextlib.suppress(OSError, AttributeError):  # only Linux has prctl
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
