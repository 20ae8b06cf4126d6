"""Places where a test may have the process die as by a power cut: GEOCAST_FAILPOINT names one of them.

    in-commit         SQLite has the entry, inside a transaction that is not committed
    after-append      the entry is durable, and the publisher has no answer yet
    before-tombstone  the revisions and cancels of a CAP message are durable, and one of its tombstones is not
    after-201         the publisher has its answer, and nobody may have been told yet
    in-fan-out        a slice of sessions has been told, others have not

of `geocast push`:

    push-in-commit  the store of devices has a change, inside a transaction that is not committed

Nothing happens unless the variable is set when the process starts; then `hit` costs one comparison of two strings.
"""

import os
import signal

_armed = os.environ.get("GEOCAST_FAILPOINT")


def hit(point: str) -> None:
    """Die here by SIGKILL, which nothing can catch, if `point` is the one that GEOCAST_FAILPOINT names."""
    if _armed == point:
        os.kill(os.getpid(), signal.SIGKILL)
