"""An event loop in which one seed decides all that a real one leaves to chance, and that never waits.

The seed decides which of the callbacks that are ready runs next, how long each takes, and in which order timers and
threads are done. Time is simulated: if nothing is ready, it jumps to the next timer. So a run is fast, and the same
seed gives the same run on any machine: tasks have numbers as hashes, so a set of them has the same order each time.
"""

import asyncio
import contextvars
import heapq
import itertools
import sys
import time
import types

STALL_S = 0.03  # the longest time that a callback takes


class Stuck(Exception):  # noqa: N818 (not an error of the loop)
    """Raised if a run takes more steps than it may, or waits for something that can't happen."""


class _Handle:
    __slots__ = ("args", "call", "cancelled_", "context")

    def __init__(self, call, args, context):
        self.call, self.args, self.context = call, args, context
        self.cancelled_ = False

    def cancel(self):
        self.cancelled_ = True
        self.call = self.args = None

    def cancelled(self):
        return self.cancelled_


class _Task(asyncio.Task):
    number, owner = 0, None

    def __hash__(self):
        return self.number


OWNER = contextvars.ContextVar("owner", default=None)
"""The simulated process that a task belongs to."""


class SimulatedLoop(asyncio.AbstractEventLoop):
    """The event loop (see the module's docstring). `errors` are the exceptions that nobody has caught.

    With `ordered`, callbacks run in the order of asyncio, which tests that check the loop itself need.
    """

    def __init__(self, rng, *, ordered=False):
        self._rng, self._ordered = rng, ordered
        self.now_s = 1000.0
        self.steps = 0
        self.errors = []
        self._ready, self._timers = [], []
        self._numbers = itertools.count()
        self._generators = set()

    # ---- what asyncio calls -------------------------------------------------------------------------------------

    def time(self):
        """Return the simulated time in seconds."""
        return self.now_s

    def call_soon(self, call, *args, context=None):
        """Have a function called soon."""
        handle = _Handle(call, args, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, seconds, call, *args, context=None):
        """Have a function called after these seconds."""
        return self.call_at(self.now_s + seconds, call, *args, context=context)

    def call_at(self, when_s, call, *args, context=None):
        """Have a function called at this time of the loop."""
        handle = _Handle(call, args, context)
        heapq.heappush(self._timers, (when_s, next(self._numbers), handle))
        return handle

    def create_task(self, work, *, name=None, context=None):
        """Return a task of this loop."""
        task = _Task(work, loop=self, name=name, context=context)
        task.number = next(self._numbers)
        task.owner = OWNER.get() if context is None else context.get(OWNER)
        return task

    async def create_connection(self, make_protocol, host, port, **_options):
        """Return a transport and a protocol, as `connect` of this loop makes them."""
        await asyncio.sleep(0.001)
        protocol = make_protocol()
        transport = self.connect(protocol, host, port, OWNER.get())
        protocol.connection_made(transport)
        return transport, protocol

    def create_future(self):
        """Return a future of this loop."""
        return asyncio.Future(loop=self)

    def run_in_executor(self, _executor, call, *args):
        """Call a function at a time that the seed decides, as if a thread did."""
        done = self.create_future()

        def run():
            if done.cancelled():
                return
            try:
                done.set_result(call(*args))
            except Exception as error:
                done.set_exception(error)

        self.call_later(self._rng.expovariate(1 / 0.002), run)
        return done

    def get_debug(self):
        """Return False."""
        return False

    def is_running(self):
        """Return whether this loop runs."""
        return asyncio._get_running_loop() is self

    def is_closed(self):
        """Return False: a run ends with its object."""
        return False

    def call_exception_handler(self, context):
        """Keep what nobody has caught."""
        self.errors.append(context.get("exception") or RuntimeError(context["message"]))

    # ---- running ------------------------------------------------------------------------------------------------

    def run(self, work, steps=100_000):
        """Run a coroutine to its end, and return its result. Raise Stuck if it takes more than `steps` callbacks."""
        asyncio._set_running_loop(self)
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=None, finalizer=self._close_generator)
        main = self.create_task(work)
        try:
            while not main.done():
                self._step(steps)
            return main.result()
        finally:
            sys.set_asyncgen_hooks(*hooks)
            asyncio._set_running_loop(None)

    def _close_generator(self, generator):
        self.create_task(generator.aclose())

    def _step(self, steps):
        """Run one callback, or let time pass until there is one."""
        self.steps += 1
        if self.steps > steps:
            raise Stuck(f"more than {steps} steps")
        ready, timers = self._ready, self._timers
        if not ready:
            if not timers:
                raise Stuck("nothing would ever happen again")
            self.now_s = max(self.now_s, timers[0][0])
        while timers and timers[0][0] <= self.now_s:
            ready.append(heapq.heappop(timers)[2])
        if self._ordered or len(ready) == 1:
            handle = ready.pop(0)
        else:
            chance = self._rng.random()
            at = int(chance * len(ready))
            ready[at], ready[-1] = ready[-1], ready[at]
            handle = ready.pop()
            if chance < 0.01:
                self.now_s += STALL_S * self._rng.random()
        if handle.cancelled_:
            return
        try:
            if handle.context is None:
                handle.call(*handle.args)
            else:
                handle.context.run(handle.call, *handle.args)
        except Exception as error:
            self.errors.append(error)


class simulated_time:  # noqa: N801 (used like a function)
    """A block in which the modules of geocast that are loaded read the time of a loop instead of the machine's."""

    def __init__(self):
        self.loop = None
        self.wall_s = 0.0  # the wall clock when the loop shows 0
        monotonic = lambda *_: self.loop.now_s  # noqa: E731
        shown = {"monotonic": monotonic, "perf_counter": monotonic, "clock_gettime": monotonic}
        shown |= {"time": lambda: self.wall_s + self.loop.now_s}
        shown |= {"time_ns": lambda: int((self.wall_s + self.loop.now_s) * 1e9)}
        shown |= {name: value for name, value in vars(time).items() if name.startswith("CLOCK_")}
        self._time = types.SimpleNamespace(**shown)
        self._patched = []

    def __enter__(self):
        for name, module in sorted(sys.modules.items()):
            if name.startswith("geocast.") and getattr(module, "time", None) is time:
                module.time = self._time
                self._patched.append(module)
        return self

    def __exit__(self, *_):
        for module in self._patched:
            module.time = time
