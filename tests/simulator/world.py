"""What the worlds of all rings have in common: steps, time, a story and faults."""

import asyncio
import random
from collections import deque

from simulator.loop import SimulatedLoop, Stuck
from support.fakes import NOON_MS

from geocast.clock import Now

GAPS_S = (0, 0, 0.0005, 0.002, 0.01, 0.05, 0.3, 0.3, 1.0, 3.0)


class Clock:
    """The clocks of a node."""

    def __init__(self, loop):
        self._loop = loop
        self.skew_ms = 0

    def now(self):
        """Return both."""
        return Now(NOON_MS + int((self._loop.now_s - 1000) * 1000) + self.skew_ms, self._loop.now_s)


class World:
    """One run. A subclass has `_begin`, `_settle`, `_end`, and a method `_NAME` for each kind of step.

    Each step gets five numbers from 0 to 1, which decide everything, so that it means something after any others.
    """

    def __init__(self, seed, steps, simulated):
        self.rng = random.Random(f"schedule {seed}")
        self.loop = simulated.loop = SimulatedLoop(self.rng)
        simulated.wall_s = NOON_MS / 1000 - self.loop.now_s
        self.story, self.faults = deque(maxlen=400), []
        self._steps = steps

    @property
    def now_ms(self):
        """The right time."""
        return NOON_MS + int((self.loop.now_s - 1000) * 1000)

    def note(self, who, *what):
        """Tell the story."""
        self.story.append(f"{self.loop.now_s - 1000:8.3f} {who}: {' '.join(map(str, what))}")

    def fail(self, fault):
        """Record what is wrong."""
        self.note("judge", fault)
        self.faults.append(str(fault))

    async def run(self):
        """Do the steps, then heal everything, and judge."""
        await self._begin()
        for gap_s, name, chances in self._steps:
            await asyncio.sleep(gap_s)
            if name == "settle":
                await self._settle()
            else:
                getattr(self, f"_{name}")(*chances)
            if self.faults:
                return
        await self._settle()
        await self._end()


def pick(things, chance):
    """Return one of the things."""
    return things[int(chance * len(things))]


def script(seed, weights, first, most, long_s=()):
    """Return the steps of a run: each with the time since the one before, its name, and five numbers from 0 to 1.

    `weights` says how often each kind of step occurs. Each run has some kinds more often and lacks others, so that rare
    combinations occur ("Swarm Testing", Groce et al. 2012). It begins with a step `first`, which each run has.
    """
    rng = random.Random(f"script {seed}")
    weights = {name: weight * rng.choice((0, 1, 1, 4)) for name, weight in weights.items()} | {first: weights[first]}
    chosen = rng.choices(list(weights), list(weights.values()), k=rng.randint(8, most))
    gaps = [rng.choice(GAPS_S) if rng.random() < 0.99 else rng.choice((*long_s, 3.0)) for _ in chosen]
    steps = [(0.0, first), *zip(gaps, chosen, strict=True)]
    return [(gap_s, name, tuple(rng.random() for _ in range(5))) for gap_s, name in steps]


def run(world, steps=100_000):
    """Run a world to its end, and return it."""
    try:
        world.loop.run(world.run(), steps)
    except Stuck as stuck:
        world.fail(stuck)
    for error in world.loop.errors:
        world.fail(repr(error))
    return world
