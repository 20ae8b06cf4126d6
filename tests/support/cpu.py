"""A limit of CPU time: it does not depend on what else the machine does, as a limit of time does."""

import contextlib
import signal


@contextlib.contextmanager
def cpu_limit(seconds):
    """Fail when the block takes more CPU time than that. `re` looks for signals while it matches."""

    def over(*_):
        raise AssertionError(f"more than {seconds} s of CPU")

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
