"""Places where a test may have the process die, as by a power cut: GEOCAST_FAILPOINT names one of them.

The places are in-commit, after-append, after-201 and in-fan-out. Nothing happens unless that variable is set when the
process starts.
"""

import os
import signal

_armed = os.environ.get("GEOCAST_FAILPOINT")


def hit(point: str) -> None:
    """Die here by SIGKILL if `point` is the one that is armed."""
    if _armed == point:
        os.kill(os.getpid(), signal.SIGKILL)
