"""Queues that keep the frames of many connections from occupying the event loop.

The loop handles everything that has arrived before it looks for more. So if forty clients send a message that takes
1.5 ms each, an alert that needs a dozen turns of the loop to be accepted and sent is 0.7 s late. A connection whose
frame may take long therefore asks for a turn, and waits in a queue if it gets none.

Rule 1  In each iteration of the loop, the connections of a queue work for `work_s` seconds at most, plus the time of
        the frame that exceeds it. The others wait, in the order in which they asked.
Rule 2  After that, the loop does other work for `rest_times` as long. So the queue gets a share of the loop's time:
        with 3, a quarter. With 0, the queue goes on in the next iteration.
Rule 3  A connection that waits is not read. (One with a `hello` is read until more bytes come; stream/connection.py.)
"""

import logging
import time
from collections.abc import Callable
from typing import Protocol

from ..model.errors import trace

logger = logging.getLogger(__name__)

CallLater = Callable[[float, Callable[[], None]], object]


class Waiting(Protocol):
    """A connection in a queue."""

    def take_turn(self) -> None:
        """Handle the next frame, which has waited."""
        ...

    def abort(self) -> None:
        """End the connection after an unexpected error."""
        ...


class WorkQueue:
    """A queue of connections that wait for their turn to handle a frame."""

    def __init__(self, call_later: CallLater, *, work_s: float, rest_times: float) -> None:
        """Create an empty queue, for which `work_s` and `rest_times` are as in Rules 1 and 2.

        `call_later(seconds, function)` makes the event loop call a function later.
        """
        self.waiting: dict[Waiting, None] = {}  # in the order in which they asked
        self._call_later = call_later
        self._work_s = work_s
        self._rest_times = rest_times
        self._worked_s = 0.0  # since the last call of `_go_on`
        self._is_due = False  # whether the loop will call `_go_on`

    def may_go(self) -> bool:
        """Return whether a connection may handle a frame at once. If not, it has to `wait`."""
        return not self.waiting and self._worked_s < self._work_s

    def wait(self, connection: Waiting) -> None:
        """Add a connection to the queue."""
        self.waiting[connection] = None
        self._call(0)

    def note_work(self, seconds: float) -> None:
        """Record how long a connection has worked on a frame."""
        self._worked_s += seconds
        self._call(0)

    def leave(self, connection: Waiting) -> None:
        """Remove a connection from the queue, if it is there."""
        self.waiting.pop(connection, None)

    def _call(self, seconds: float) -> None:
        if not self._is_due:
            self._is_due = True
            self._call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        """Let connections take their turns for `work_s` seconds, but at least one of them."""
        self._worked_s = 0.0
        self._is_due = True  # so that a connection that waits again makes no further call
        began = now = time.perf_counter()
        while self.waiting and now - began <= self._work_s:
            connection = next(iter(self.waiting))
            del self.waiting[connection]
            try:
                connection.take_turn()
            except Exception as error:  # the others have their turns all the same
                logger.error("handling a frame that has waited failed; its connection is ended: %s", trace(error))
                connection.abort()
            now = time.perf_counter()
        self._is_due = False
        if self.waiting:
            self._call((now - began) * self._rest_times)
