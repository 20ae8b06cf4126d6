"""Unexpected exceptions inside a real process of geocast. `install` is called in the process before it starts.

A folder controls them. The file `once-NAME`, each time that it is
touched, throws one exception into each task with this name that runs; `always-NAME`
throws one each time that such a task runs, as long as the file exists. `random`, which has a seed, throws one into a
random task, or has a random function of a task raise once, again and again. `thrown-PID` gets a line for each exception
that was thrown at random.
"""

import asyncio
import functools
import inspect
import os
import random
import sys
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

LOOK_S = 0.05
PAUSE_S = 0.5  # on average, between two random exceptions in a process
AT_A_TIME = 6  # number of functions of which the first one that is called raises
# For each command, the packages and modules with functions that its tasks call.
READING = ("alertlog", "stream.log_reader", "stream.live_alerts")
CALLED = {
    "serve": ("alertlog", "stream", "calls", "feed"),
    "push": (*READING, "stream.fanout", "stream.flights", "push"),
    "relay": (*READING, "relay"),
    "fetch": ("ingest.fetch",),
}
FEED_PAUSE_S = 1.0  # instead of an interval of at least 15 s


class Injected(Exception):  # noqa: N818 (an exception that nobody expects)
    """An exception that nobody expects."""


class Injector:
    """The exceptions of one process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: set[Driven] = set()
        self.seen: dict[str, int] = {}  # the files of the last look, with their times
        self.watcher: asyncio.Task[None] | None = None
        self.dice: random.Random | None = None
        self.armed: list[Callable[[], None]] = []  # take the wrappers of functions away again

    def is_ordered(self, name: str) -> bool:
        """Return whether each run of a task is to fail."""
        return (self.folder / f"always-{name}").exists()

    async def watch(self) -> None:
        """Follow the files of the folder."""
        while True:
            await asyncio.sleep(LOOK_S)
            files = {path.name: path.stat().st_mtime_ns for path in self.folder.iterdir() if path.exists()}
            for task in list(self.running):
                once = f"once-{task.name}"
                if f"always-{task.name}" in files or files.get(once) != self.seen.get(once):
                    task.throw()
            self.seen = files
            if "random" not in files:
                self._disarm()
            elif self._dice().random() < LOOK_S / PAUSE_S:
                self._throw_at_random()

    def _dice(self) -> random.Random:
        if self.dice is None:
            number = len(list(self.folder.glob("thrown-*")))
            self.dice = random.Random(f"{(self.folder / 'random').read_text()} {number}")
        return self.dice

    def _throw_at_random(self) -> None:
        dice = self._dice()
        if dice.random() < 0.3 and self.running:
            dice.choice(sorted(self.running, key=lambda each: each.name)).throw()
        else:
            self._disarm()
            for owner, name in dice.sample(_functions(), AT_A_TIME):
                self._arm(owner, name)

    def _arm(self, owner: type, name: str) -> None:
        function = vars(owner)[name]

        @functools.wraps(function)
        def failing(*args: Any, **options: Any) -> Any:
            # The event loop calls a callback, and no task does: what fails is what the callback calls.
            is_called = sys._getframe(1).f_globals.get("__name__", "").startswith("geocast.")
            if self.armed and is_called:
                self._disarm()
                self.note(f"function {function.__qualname__}")
                raise Injected
            return function(*args, **options)

        setattr(owner, name, failing)
        self.armed.append(lambda: setattr(owner, name, function))

    def _disarm(self) -> None:
        for disarm in self.armed:
            disarm()
        self.armed = []

    def note(self, what: str) -> None:
        """Write down what was thrown."""
        with (self.folder / f"thrown-{os.getpid()}").open("a") as file:
            file.write(f"{what}\n")


class Driven:
    """One run of a task, into which an exception can be thrown wherever it waits."""

    def __init__(self, name: str, work: Callable[[], Awaitable[Any]], injector: Injector) -> None:
        self.name, self._work, self._injector = name, work, injector
        self._task: asyncio.Task[Any] | None = None
        self._is_hit = False

    def throw(self) -> None:
        """Throw an exception into the task at the point where it waits."""
        if self._task is not None and not self._is_hit and not self._task.cancelling():
            self._is_hit = True
            self._task.cancel()

    def __await__(self) -> Generator[Any, Any, Any]:
        if self._injector.is_ordered(self.name):
            raise Injected
        if self._injector.watcher is None:
            self._injector.watcher = asyncio.ensure_future(self._injector.watch())
        self._task = asyncio.current_task()
        self._injector.running.add(self)
        try:
            return (yield from self._drive(self._work().__await__()))
        finally:
            self._injector.running.discard(self)

    def _drive(self, inner: Any) -> Generator[Any, Any, Any]:
        assert self._task
        error: BaseException | None = None
        while True:
            try:
                waited = next(inner) if error is None else inner.throw(error)
            except StopIteration as end:
                return end.value
            error = None
            try:
                yield waited
            except asyncio.CancelledError as cancelled:
                error = cancelled
                if self._is_hit:
                    self._is_hit = False
                    self._task.uncancel()
                    self._injector.note(f"task {self.name}")
                    error = Injected()


@functools.cache
def _functions() -> list[tuple[type, str]]:
    found = []
    inside = tuple(f"geocast.{each}." for each in CALLED[sys.argv[1]])
    for module in [module for name, module in sorted(sys.modules.items()) if f"{name}.".startswith(inside)]:
        for owner in vars(module).values():
            if inspect.isclass(owner) and owner.__module__ == module.__name__:
                found += [(owner, each) for each, value in vars(owner).items() if _may_fail(each, value)]
    return found


def _may_fail(name: str, value: Any) -> bool:
    is_plain = inspect.isfunction(value) and not inspect.isgeneratorfunction(value)
    return is_plain and not inspect.isasyncgenfunction(value) and not name.startswith("__")


def install(folder: Path) -> None:
    """Have the files of a folder throw exceptions into the tasks of this process and of those that it forks."""
    from geocast import tasks
    from geocast.ingest.fetch import timing
    from geocast.push import service_limits

    injector = Injector(folder)
    original = tasks._Task.__init__

    def init(self: Any, name: str, work: Callable[[], Awaitable[Any]]) -> None:
        original(self, name, lambda: Driven(name, work, injector))

    tasks._Task.__init__ = init  # type: ignore[method-assign]
    tasks.STEADY_S = 1.0  # so that a test sees soon that a task works again
    service_limits.FIRST_WAIT_S, service_limits.LAST_WAIT_S = 0.1, 1.0  # pauses of a phone after errors
    timing.after_success = timing.after_failure = lambda *_: FEED_PAUSE_S
