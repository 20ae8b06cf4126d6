"""A limit on CPU time. Unlike a limit on elapsed time, it does not depend on the load of the machine."""

import contextlib
import signal


@contextlib.contextmanager
def cpu_limit(seconds):
    """Fail if the block uses more than `seconds` of CPU time. `re` checks for signals while it matches."""

    def over(*_):
        raise AssertionError(f"more than {seconds} s of CPU")

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
