"""Points at which a test can kill the process, as a power cut would. The variable GEOCAST_FAILPOINT names one.

    in-commit         SQLite has the entry, inside a transaction that is not committed
    after-append      the entry is durable, and the publisher has no response yet
    before-tombstone  the alerts of a CAP message are durable, but a tombstone (an entry by which later messages find
                      the alerts) is not
    after-201         the publisher has the response, and perhaps no subscriber has been sent the alert yet
    in-fan-out        some sessions have been sent the alert, others have not

In `geocast push`:

    push-in-commit  the device store has a change, inside a transaction that is not committed
    push-noted      the store says that the devices may have been sent the alert, and no push was sent yet
    push-answered   a push service has answered, and the answer is not recorded yet

In `geocast fetch`:

    fetch-in-commit  the state has a change, inside a transaction that is not committed
    fetch-listed     the state has the new entries of a feed, and no message was posted yet
    fetch-linked     a message was fetched through a link, and is neither posted nor in the state
    fetch-posted     the node has answered, and the outcome is not in the state yet
In `geocast relay`:

    relay-in-commit  the state has changes, inside a transaction that is not committed
    relay-noted      the state says that the target may have been told the alert, and no request was sent yet
    relay-answered   a target has answered, and the answer is not recorded yet

Nothing happens unless the variable is set when the process starts. A call of `hit` costs one comparison.
"""

import os
import signal

_armed = os.environ.get("GEOCAST_FAILPOINT")


def hit(point: str) -> None:
    """Kill this process with SIGKILL, which can't be caught, if the variable GEOCAST_FAILPOINT is `point`."""
    if _armed == point:
        os.kill(os.getpid(), signal.SIGKILL)
