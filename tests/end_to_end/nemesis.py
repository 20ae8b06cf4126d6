"""Faults at random, by a seed: what can be broken, how, and for how long; and a run from the first fault to the verdict.

The seed decides which faults come, in which order and for how long, and what desks and clients do. The machine decides
the rest, so that a seed replays a kind of weather, not a run to the microsecond.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from end_to_end.harness import Node
from end_to_end.history import Outcome
from end_to_end.load import HEAL_S, Habit, World, eventually
from end_to_end.proxy import Proxy

HOLD_S, GAP_S = (0.2, 4.0), (0.3, 2.0)
DESKS, WATCHERS = 3, 4
GUESTS = 4  # of each node, when all is well again: enough to be on each of its processes
BAD_ENDS = {"1002", "1003", "1007", "1009", "4400", "4401", "4403", "4408", "4429"}
NOTE = "seed {seed}; replay: FAULT_SEED={seed} FAULT_SECONDS={seconds:g}"


class Server(Protocol):
    """A process that keeps what it knows when it is killed and started again."""

    def start(self) -> None: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Fault(NamedTuple):
    """Something that can be done to a target while a block runs. No two at once are done to one target."""

    name: str
    target: object
    during: Callable[[], AbstractAsyncContextManager[None]]


# -- what can be done


def faults_of_node(node: Node, keeper: Keeper) -> list[Fault]:
    """Kill -9, SIGSTOP, and kill -9 of one of its processes."""
    name = f"node {node.home.name}"

    @contextlib.asynccontextmanager
    async def killed() -> AsyncIterator[None]:
        keeper.down.add(node)
        await asyncio.to_thread(node.kill)
        yield
        keeper.down.discard(node)

    @contextlib.asynccontextmanager
    async def paused() -> AsyncIterator[None]:
        node.signal(signal.SIGSTOP)
        yield
        node.signal(signal.SIGCONT)

    @contextlib.asynccontextmanager
    async def child_killed() -> AsyncIterator[None]:
        if children := node.children():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal  # noqa: B018
        yield

    faults = [Fault(f"{name} killed", node, killed), Fault(f"{name} paused", node, paused)]
    return faults


@dataclass
class Keeper:
    """Starts nodes that are down, as a service manager does."""

    nodes: Sequence[Node]
    down: set[Node] = field(default_factory=set)
    ended: list[str] = field(default_factory=list)

    async def work(self) -> None:
        """Look now and then."""
        while True:
            for node in self.nodes:
                if node not in self.down and node.process and node.process.poll() is not None:
                    self.ended.append(f"{node.home.name}: {node.process.returncode}")
                    node.launch()
            await asyncio.sleep(0.1)
