"""A schedule of faults: it draws the next fault by a seed, and logs all faults with their times.

The owner of a schedule supplies the work before and during each fault, and the verdict. The seed decides the order of
the faults, but not the exact step of a program at which a fault happens. FAULT_SEED and FAULT_SECONDS select
another run.
"""

import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from end_to_end.kit.outages import Outage

IS_LONG = "FAULT_SECONDS" in os.environ

TIMEOUT = pytest.mark.timeout(0 if IS_LONG else 900)
"""A time limit for a machine that is many times slower than usual; a long run has no limit."""


def seconds(usual: float) -> float:
    """Return the duration of the faults in seconds: FAULT_SECONDS, or the usual number."""
    return float(os.environ.get("FAULT_SECONDS", usual))


def seeds(*usual: int) -> pytest.MarkDecorator:
    """Run a test with the usual seeds, with FAULT_SEED, or, in a long run, with a new seed."""
    asked = os.environ.get("FAULT_SEED") or (IS_LONG and int(time.time()))
    return pytest.mark.parametrize("seed", [int(asked)] if asked else usual)


def judge(run: Any) -> None:
    """Run everything, print the report, and require a verdict without violations."""
    print(f"\nFAULT_SEED={run.seed} FAULT_SECONDS={run.seconds:g}", flush=True)
    try:
        verdict = run.go()
    except BaseException:
        print(run.report())
        raise
    print(f"{run.report()}\n{verdict}")
    run.assert_well(verdict)


@dataclass(frozen=True)
class Fault:
    """A fault: entering `during` breaks something, and leaving `during` heals it.

    Faults of one target never overlap. A fault without a target (None) overlaps no other fault.
    """

    name: str
    target: object
    during: Callable[[], AbstractAsyncContextManager[None]]


@dataclass
class FaultSchedule:
    """A schedule that draws faults by `dice`: first a target, then one of its faults.

    With `in_pairs`, two targets break together now and then. `log` has all outages so far.
    """

    faults: list[Fault]
    dice: random.Random
    in_pairs: bool = False
    log: list[Outage] = field(default_factory=list)

    async def run(
        self,
        seconds: float,
        before: Callable[[], Awaitable[None]],
        during: Callable[[], Awaitable[None]],
        first: Sequence[Fault] = (),
    ) -> None:
        """Apply one fault after another until `seconds` have passed, and each fault in `first` at least once and alone.

        `before` is awaited before each fault, and `during` while the fault is in force.
        """
        started, due = time.monotonic(), list(first)
        while due or time.monotonic() - started < seconds:
            await before()
            faults = [due.pop(0)] if due else self._draw()
            names = " and ".join(fault.name for fault in faults)
            outage = Outage(f"{names} at {time.monotonic() - started:.1f} s", time.time())
            self.log.append(outage)
            async with AsyncExitStack() as stack:
                for fault in faults:
                    await stack.enter_async_context(fault.during())
                await during()
            outage.end = time.time()

    def _draw(self) -> list[Fault]:
        targets = list(dict.fromkeys(fault.target for fault in self.faults))
        first, second = (
            self.dice.choice([fault for fault in self.faults if fault.target == target])
            for target in self.dice.choices(targets, k=2)
        )
        alone = first.target is None or second.target in (None, first.target) or self.dice.random() < 0.5
        return [first, second] if self.in_pairs and not alone else [first]
