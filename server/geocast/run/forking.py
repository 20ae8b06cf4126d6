"""Processes that begin where their parent stands: with everything imported, in memory that they share with it.

To start Python and import what a node needs takes 0.5 s of CPU and 50 MiB for each process; to fork takes neither
(`bench idle`). What a fork hands over unasked is dealt with here:

Threads and loops   A child has none of its parent's threads, and would share its loop's descriptors. So the parent has
                    neither: it waits in system calls, and `run` keeps numpy's library from starting threads.
Signals             The parent blocks those that it waits for, so none is handled twice. A child lets them through, but
                    for SIGHUP and SIGUSR1, which are for the parent alone: should they be sent to all, nobody ends.
Descriptors         A child closes all that are not its own: a listener that it kept would take connections in.
The terminal        A child is in a session of its own: Ctrl-C is told to the parent only.
Memory              Pages stay shared until they are written to. What is there at the fork is frozen: the garbage
                    collector writes to each object that it looks at.
Random numbers      `random` seeds itself anew in a child; `secrets`, `uuid` and OpenSSL ask the kernel.
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

from ..errors import ConfigError, trace

logger = logging.getLogger(__name__)

# What a parent waits for; the last two are for it alone.
WAITED_FOR = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1})
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15  # of prctl(2), in <linux/prctl.h>


def fork(name: str, descriptors: Collection[int], work: Callable[[], None]) -> int:
    """Start a process called `name` that does `work` and ends. Returns its pid. Raises OSError.

    It keeps these descriptors open, and those of standard input, output and error. It is told SIGTERM when we die. Its
    exit status is 0; 2 for a ConfigError or an OSError, which are logged in one line; 1 for any other exception.
    """
    parent = os.getpid()
    gc.collect()
    gc.freeze()
    pid = os.fork()
    if pid == 0:
        _be(parent, name, descriptors, work)
    return pid


def _be(parent: int, name: str, descriptors: Collection[int], work: Callable[[], None]) -> NoReturn:
    """Be that process. The frames of the parent, which are below ours, are never returned to."""
    status = 1
    try:
        os.setsid()
        _close_all_but(descriptors)
        for number in WAITED_FOR:
            is_ours = number not in (signal.SIGHUP, signal.SIGUSR1)
            signal.signal(number, signal.SIG_DFL if is_ours else signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WAITED_FOR)
        _prctl(_PR_SET_NAME, name.encode())
        _end_with(parent)
        work()
        status = 0
    except (ConfigError, OSError) as error:
        logger.error("%s can't go on: %s", name, error)
        status = 2
    except BaseException as error:
        logger.error("%s failed: %s", name, trace(error))
    finally:
        with contextlib.suppress(Exception):
            logging.shutdown()
            sys.stdout.flush()
        os._exit(status)


def _close_all_but(descriptors: Collection[int]) -> None:
    kept = sorted({0, 1, 2, *descriptors})
    for before, after in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(before + 1, after)


def _end_with(parent: int) -> None:
    """Have the kernel send us SIGTERM when our parent dies. If it has died already, send that ourselves."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def _prctl(option: int, value: int | bytes) -> None:
    with contextlib.suppress(OSError, AttributeError):  # there is none but on Linux
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
