"""Points at which a test can kill the process, like a power cut. The variable GEOCAST_FAILPOINT names one of them.

    in-commit         SQLite has the entry, inside a transaction that is not committed
    after-append      the entry is durable, and the publisher has no response yet
    before-tombstone  the alerts of a CAP message are durable, but a tombstone that leads later messages to them is not
    after-201         the publisher has the response, and perhaps no subscriber has been sent the alert yet
    in-fan-out        some sessions have been sent the alert, others have not

In `geocast push`:

    push-in-commit  the device store has a change, inside a transaction that is not committed
    push-noted      the store says that the devices may have been sent the alert, and no push was sent yet
    push-answered   a push service has answered, and the answer is not recorded yet

Nothing happens unless the variable is set when the process starts. A call of `hit` costs one comparison.
"""

import os
import signal

_armed = os.environ.get("GEOCAST_FAILPOINT")


def hit(point: str) -> None:
    """Kill this process by SIGKILL, which cannot be caught, if GEOCAST_FAILPOINT names `point`."""
    if _armed == point:
        os.kill(os.getpid(), signal.SIGKILL)
