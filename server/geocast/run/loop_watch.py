"""The loop watch: a thread that logs which function kept the event loop from its other work for too long.

`geocast_loop_lag_seconds` says that the loop was late, but not why. This thread looks at the loop five times a second.
If the loop is running a callback, the thread asks it for a sign of life. If there is none within STALL_S, the thread
looks at the loop's stack, and logs the function when the loop works again. So a callback that takes 250 ms or more is
always noticed, and a shorter one sometimes. A loop that waits for its sockets is not asked: waking it five times a
second took a twentieth of a percent of a core (`bench idle`, one process).
"""

import asyncio
import logging
import sys
import threading
import time
from types import FrameType

logger = logging.getLogger(__name__)

LOOK_S = 0.2  # time between two looks
STALL_S = 0.05  # the loop is late if it needs longer than this for an answer
QUIET_S = 10.0  # time between two log messages: a busy node must not fill its log

_OWN = f"{__name__.partition('.')[0]}."


class LoopWatch:
    """Watches an event loop during a `with` block, which must be in the thread that runs the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stalls = 0  # how often the loop was late
        self._loop = loop
        self._watched = threading.get_ident()
        self._over = threading.Event()
        self._next_message = 0.0
        self._thread = threading.Thread(target=self._watch, name="loop-watch", daemon=True)

    def __enter__(self) -> "LoopWatch":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        answered = threading.Event()
        while not self._over.wait(LOOK_S):
            if _waits(self._frame()):
                continue
            answered.clear()
            asked = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(answered.set)
            except RuntimeError:  # the loop has been closed
                return
            if answered.wait(STALL_S):
                continue
            where = described(self._frame())
            self.stalls += 1
            while not answered.wait(LOOK_S):
                if self._over.is_set():
                    return
            self._report(time.monotonic() - asked, where)

    def _frame(self) -> FrameType | None:
        return sys._current_frames().get(self._watched)  # noqa: SLF001 (documented for debugging)

    def _report(self, stall_s: float, where: str) -> None:
        now = time.monotonic()
        if now >= self._next_message:
            self._next_message = now + QUIET_S
            logger.warning("the event loop did nothing else for %d ms: it was %s", stall_s * 1000, where)


def described(frame: FrameType | None) -> str:
    """Return what a thread is doing, from the innermost frame of its stack: the names of functions, and no values.

    The result names the innermost function of geocast, and the function of another package that it is calling, if any.
    """
    inner = frame
    while frame is not None and not frame.f_globals.get("__name__", "").startswith(_OWN):
        frame = frame.f_back
    if inner is None or frame is None or _runs_the_loop(frame):
        return "waiting for the CPU, or for a callback of another package"
    own = f"in {_name(frame)}, line {frame.f_lineno}"
    return own if inner is frame else f"{own}, calling {_name(inner)}"


def _waits(frame: FrameType | None) -> bool:
    """Return whether the innermost function is the one that has called uvloop, so that no callback is being run."""
    return frame is not None and frame.f_globals.get("__name__") == "asyncio.runners"


def _runs_the_loop(frame: FrameType) -> bool:
    """Return whether the frame is that of the function that runs the loop, so that no callback is being run."""
    return bool(frame.f_globals["__name__"] == "geocast.cli.serve")


def _name(frame: FrameType) -> str:
    return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}"
