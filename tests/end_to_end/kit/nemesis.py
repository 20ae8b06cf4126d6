"""Faults under alerts and calls, and a run from the first fault to the verdict.

The seed decides which faults happen, in which order and for how long, and what desks and clients do. The machine
decides the exact timing, so a seed does not replay a run exactly.
"""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from end_to_end.kit.call_load import QUALS, TERMS, Manners, RecordedDispatcher, RecordedResponder, leaks, read_calls
from end_to_end.kit.claims import put_back
from end_to_end.kit.cluster import Cluster
from end_to_end.kit.fault_schedule import Fault, FaultSchedule
from end_to_end.kit.history import Outcome, Verdict
from end_to_end.kit.load import HEAL_S, Habit, RecordedDesk, World, eventually
from end_to_end.kit.node import Node
from end_to_end.kit.proofs import Reviewer
from end_to_end.kit.proxy import Proxy
from end_to_end.kit.rogue import REASONS, Rogue, set_aside
from support.redis_server import RedisServer
from support.wall_clock import COMPILER, WITHOUT_COMPILER

from geocast.alertlog import AlertLog
from geocast.calls.encryption import CallKeys
from geocast.model.errors import LogUnavailable

HOLD_S, GAP_S = (0.2, 4.0), (0.2, 1.5)
DESKS, WATCHERS, OTHERS = 3, 3, 4
DISPATCHERS, COUPLES, PEOPLE = 2, 2, 6  # COUPLES responders have two devices each
GUESTS = 4  # clients that connect to each node after the faults, enough to reach each of its processes
OURS_TO_BLAME = {"1002", "1003", "1007", "1009", "4400", "4401", "4403", "4408", "4429"}

# -- faults


def faults_of_node(node: Node, dice: random.Random) -> list[Fault]:
    """Return faults of a node: kill -9 of all its processes or of one, SIGSTOP, SIGTERM, and its clock."""
    name = f"node {node.home.name}"

    @asynccontextmanager
    async def killed() -> AsyncIterator[None]:
        node.kill()
        yield
        node.launch()

    @asynccontextmanager
    async def paused() -> AsyncIterator[None]:
        node.signal(signal.SIGSTOP)
        yield
        node.signal(signal.SIGCONT)

    @asynccontextmanager
    async def drained() -> AsyncIterator[None]:
        await asyncio.to_thread(node.terminate)
        yield
        node.launch()

    @asynccontextmanager
    async def one_killed() -> AsyncIterator[None]:
        node.kill_child(dice)
        yield

    faults = [
        Fault(f"{name} killed", node, killed),
        Fault(f"{name} paused", node, paused),
        Fault(f"{name} drained", node, drained),
    ]
    if "--workers" in node.options:
        faults.append(Fault(f"{name}: a process killed", node, one_killed))
    return faults if node.clock is None else [*faults, *faults_of_clock(node, dice)]


def faults_of_clock(node: Node, dice: random.Random) -> list[Fault]:
    """Return faults of a node's wall clock, which put it ahead or behind by seconds, hours or days.

    The clock is wrong for a while as the node runs, or when the node starts. The target of these faults is the node, so
    they never overlap its other faults, such as a restart.
    """
    assert node.clock is not None
    clock, name = node.clock, f"node {node.home.name}"

    def off_s() -> float:
        return dice.choice((-1, 1)) * dice.choice((dice.uniform(2, 40), dice.uniform(1, 5) * 3_600, 2 * 86_400.0))

    def fault(what: str, restarts: bool, off: Callable[[], float]) -> Fault:
        @asynccontextmanager
        async def during() -> AsyncIterator[None]:
            if restarts:
                node.kill()
            clock.set(off())
            if restarts:
                node.launch()
            yield
            clock.set(0.0)

        return Fault(f"the clock of {name} {what}", node, during)

    return [
        fault("wrong", False, off_s),
        fault("ahead for a moment", False, lambda: abs(off_s())),
        fault("wrong at its start", True, off_s),
    ]


def faults_of_proxy(name: str, proxy: Proxy, dice: random.Random) -> list[Fault]:
    """Return faults of a network link: partitions, half-open connections, latency and broken connections."""

    def fault(what: str, hurt: Callable[[], object]) -> Fault:
        @asynccontextmanager
        async def during() -> AsyncIterator[None]:
            hurt()
            yield
            proxy.heal()

        return Fault(f"{name} {what}", proxy, during)

    return [
        fault("severed", proxy.sever),
        fault("silent", proxy.stall),
        fault("silent towards the node", proxy.down.stall),
        fault("silent towards Redis", proxy.up.stall),
        fault("slow", lambda: proxy.slow(dice.uniform(0.02, 0.4))),
        fault("cut", proxy.cut),
        fault("mutes the reader", lambda: proxy.mute("XREAD")),
        fault("loses a reply", lambda: proxy.lose_reply("EVAL", "EVALSHA", nth=dice.randint(1, 5))),
    ]


def faults_of_redis(server: RedisServer, dice: random.Random) -> list[Fault]:
    """Return faults of a Redis server: kill -9 with a restart on the same file, SIGSTOP, and a wrong clock."""

    @asynccontextmanager
    async def killed() -> AsyncIterator[None]:
        server.kill()
        yield
        await asyncio.to_thread(server.start)

    @asynccontextmanager
    async def paused() -> AsyncIterator[None]:
        server.pause()
        yield
        server.resume()

    @asynccontextmanager
    async def wrong() -> AsyncIterator[None]:
        assert server.clock is not None
        server.clock.set(dice.choice((-1, 1)) * dice.choice((20.0, 7_200.0, 10 * 86_400.0)))
        yield
        server.clock.set(0.0)

    name = server.folder.name
    faults = [Fault(f"{name} killed", server, killed), Fault(f"{name} paused", server, paused)]
    return faults if server.clock is None else [*faults, Fault(f"the clock of {name} wrong", server, wrong)]


def faults_of_replication(server: RedisServer) -> list[Fault]:
    """Return faults of a server that is a replica: its link to the primary is cut, or it reads all data again.

    If the server is the primary, nothing happens.
    """

    def fault(what: str, hurt: Callable[[str, int], None]) -> Fault:
        @asynccontextmanager
        async def during() -> AsyncIterator[None]:
            role, host, port, *_ = await asyncio.to_thread(server.command, "ROLE")
            is_replica = role == b"slave"
            if is_replica:
                await asyncio.to_thread(hurt, host.decode(), port)
            yield
            if is_replica:
                await asyncio.to_thread(server.command, "REPLICAOF", host.decode(), port)

        return Fault(f"{server.folder.name} {what}", server, during)

    def resync(host: str, port: int) -> None:
        server.command("REPLICAOF", "NO", "ONE")
        server.command("REPLICAOF", host, port)

    return [
        fault("cut off from the primary", lambda _host, _port: server.command("REPLICAOF", "127.0.0.1", "1")),
        fault("resynced", resync),
    ]


def failovers(cluster: Cluster) -> list[Fault]:
    """Return faults that kill or pause the primary until another server takes over.

    The old primary comes back as a replica.
    """

    def fault(what: str, hurt: Callable[[RedisServer], None], heal: Callable[[RedisServer], None]) -> Fault:
        @asynccontextmanager
        async def during() -> AsyncIterator[None]:
            await _until(cluster.whole, "all servers follow the primary")
            old = cluster.primary()
            assert old is not None
            hurt(old)
            await _until(lambda: cluster.has_left(old), "another primary")
            yield
            await asyncio.to_thread(heal, old)
            await _until(cluster.whole, "all servers follow the new primary")

        return Fault(f"the primary {what}, failover", None, during)

    return [
        fault("killed", RedisServer.kill, RedisServer.start),
        fault("paused", RedisServer.pause, RedisServer.resume),
    ]


def rogue_writes(rogue: Rogue, target: object) -> Fault:
    """Return a fault in which a rogue writes entries without valid signatures into the log.

    `target`: the server that has to work meanwhile.
    """

    @asynccontextmanager
    async def during() -> AsyncIterator[None]:
        await rogue.visit()
        yield

    return Fault("a rogue writes to the log", target, during)


async def _until(holds: Callable[[], bool], what: str) -> None:
    """Poll a blocking check until it is true."""

    async def polled() -> bool:
        return await asyncio.to_thread(holds)

    assert await eventually(polled, HEAL_S) is not None, f"waited {HEAL_S:g} s in vain: {what}"


# -- the run


@dataclass
class FaultRun:
    """A run with its nodes, faults, seed and duration; `go` executes it and returns the verdict.

    `reviewers`: the reviewers whose signatures the nodes require in the rogue's category. `open_log`: opens the log for
    the rogue. `call_keys`: the keys that encrypt calls. `may_lose`: whether the log may lose acknowledged entries.
    """

    nodes: Sequence[Node]
    faults: list[Fault]
    seed: int
    seconds: float
    reviewers: list[Reviewer]
    open_log: Callable[[], AlertLog]
    call_keys: CallKeys
    may_lose: bool = False
    figures: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.schedule = FaultSchedule(self.faults, self.dice, in_pairs=True)
        self.world = World(list(self.nodes), random.Random(self.dice.random()))
        self.bell = RecordedDesk(self.world)
        self.rogue = Rogue(self.world, self.reviewers, self.open_log)
        self.responders: list[RecordedResponder] = []
        self.dispatchers: list[RecordedDispatcher] = []
        self.world.history.calls.terms, self.world.history.calls.may_lose = TERMS, self.may_lose
        self.world.history.outages = self.world.history.calls.outages = self.schedule.log

    def go(self) -> Verdict:
        """Run desks and clients under faults; after the faults have healed, return the verdict."""
        return asyncio.run(self._go(), debug=False)  # debug mode makes this process too slow to read messages in time

    async def _go(self) -> Verdict:
        world = self.world
        try:
            for index in range(len(self.nodes)):
                for number in range(WATCHERS):
                    world.add_phone(f"watcher {index}.{number}", Habit(node=index))
            for number in range(OTHERS):
                world.add_phone(f"walker {number}", Habit(moves=1.0))
                world.add_phone(f"visitor {number}", Habit(leaves=2.0))
                world.add_phone(f"sleeper {number}", Habit(sleeps=True))
            for number in range(DESKS):
                world.add_desk(f"desk {number}")
            self._call_for_help()
            await self._torment()
            return await self._settle()
        finally:
            await world.stop()
            for who in (*world.desks, *self.dispatchers, self.bell, self.rogue.desk):
                await who.api.aclose()

    def _call_for_help(self) -> None:
        for number in range(DISPATCHERS):
            self.dispatchers.append(RecordedDispatcher(self.world))
            self.world.start(f"dispatcher {number}", self.dispatchers[-1].work())
        for number in range(COUPLES + PEOPLE):
            for device in range(1 + (number < COUPLES)):
                habit = self.dice.choice(({"moves": 1.5}, {"leaves": 3.0}, {}))
                manners = Manners(accepts=0.5, declines=0.2, gives_back=0.4, **habit)
                quals = QUALS if number % 3 else QUALS[:1]
                self._add_responder(f"responder {number}.{device}", f"r-{number}", manners, quals=quals)

    def _add_responder(self, name: str, sub: str, manners: Manners, **more: Any) -> None:
        self.responders.append(RecordedResponder(name, self.world, sub, manners, **more))
        self.world.start(name, self.responders[-1].live())

    async def _torment(self) -> None:
        """Apply random faults, after the rogue has written once."""

        async def before() -> None:
            await asyncio.sleep(self.dice.uniform(*GAP_S))
            self.world.assert_well()

        async def during() -> None:
            await asyncio.sleep(self.dice.uniform(*HOLD_S))

        await self.schedule.run(self.seconds, before, during, first=[rogue_writes(self.rogue, None)])

    async def _settle(self) -> Verdict:
        world, history = self.world, self.world.history
        ready = await self._wait(world.all_ready, "all nodes are ready")
        await world.stop(*(f"desk {number}" for number in range(DESKS)))
        await world.stop(*(f"dispatcher {number}" for number in range(DISPATCHERS)))
        for desk in world.desks:
            await desk.repeat_until_answered(unknown=0.5)
        for dispatcher in self.dispatchers:
            await dispatcher.repeat_until_answered()
        await self.bell.ring()
        for client in (*world.phones, *self.responders):
            client.settle_down()
        self._welcome("guest")
        caught_up = await eventually(self._is_caught_up, HEAL_S)
        set_aside_after = await self._defy_the_rogue()
        newcomers = len(history.visits)
        self._welcome("late guest")
        served = await eventually(self._is_caught_up, HEAL_S)
        for visit in history.visits[newcomers:]:
            visit.settled = True
        history.calls.leaks = leaks(history.calls, self.responders, [node.home for node in self.nodes])
        verdict = history.judge()
        self.figures |= {"ready after s": ready, "all have all after s": caught_up, "late guests too after s": served}
        self.figures["forgeries rejected after s"] = set_aside_after
        return verdict

    async def _defy_the_rogue(self) -> float:
        """Let the rogue write without other faults; each node must count every kind of forgery and stay ready.

        On a busy machine a node may become unready by itself now and then, but not at each of three attempts.
        """
        stayed_ready = False

        async def all_count_it() -> bool:
            nonlocal stayed_ready
            stayed_ready &= await self.world.all_ready()
            now = [await asyncio.to_thread(set_aside, node) for node in self.nodes]
            return all(new[reason] > old[reason] for old, new in zip(before, now, strict=True) for reason in REASONS)

        for _ in range(3):
            await self._wait(self.world.all_ready, "all nodes are ready")
            before = [await asyncio.to_thread(set_aside, node) for node in self.nodes]
            await self.rogue.visit()
            stayed_ready = True
            took = await self._wait(all_count_it, "every node has rejected the rogue's entries")
            if stayed_ready:
                return took
        raise AssertionError(f"a rogue makes a node unready\n{self.report()}")

    def _welcome(self, kind: str) -> None:
        for index in range(len(self.nodes)):
            for number in range(GUESTS):
                self.world.add_phone(f"{kind} {index}.{number}", Habit(node=index))
            name = f"{kind} {index} who responds"
            self._add_responder(name, name, Manners(stays=True), node=index, spot=self.world.town)

    async def _is_caught_up(self) -> bool:
        self.world.assert_well()
        clients = (*self.world.phones, *self.responders)
        if not await self.world.read_states() or not all(client.welcomed.is_set() for client in clients):
            return False
        self.world.read_phones()
        if not await self._read_calls(self.responders):
            return False
        return bool(self.world.history.judge(finals_only=True))

    async def _read_calls(self, responders: Sequence[RecordedResponder]) -> bool:
        calls = self.world.history.calls
        try:
            calls.put_back = await put_back(self.open_log, self.call_keys, calls.asked)
        except LogUnavailable:
            return False
        return await read_calls(self.world, self.dispatchers, responders)

    # -- faults that depend on the run

    def flush_of(self, server: RedisServer) -> Fault:
        """Return a fault in which Redis loses all data, at a moment when every node knows every acknowledged entry.

        Nobody can restore an entry that is acknowledged and flushed before any node has read it.
        """

        @asynccontextmanager
        async def flushed() -> AsyncIterator[None]:
            self.world.open.clear()
            await self._all_know_all()
            await asyncio.to_thread(server.command, "FLUSHALL")
            await self._wait(self._log_has_all, "the flushed entries are restored")
            self.world.open.set()
            yield

        return Fault(f"{server.folder.name} flushed", None, flushed)

    async def _all_know_all(self) -> None:
        """Wait until no request is under way and every watcher has received everything."""
        world = self.world
        await self._wait(world.all_ready, "all nodes are ready")

        async def quiet() -> bool:
            return not world.asking

        await self._wait(quiet, "no request is under way")
        bell = await self.bell.ring()

        async def heard() -> bool:
            return all(bell in phone.held for phone in world.phones if phone.habit.node is not None)

        await self._wait(heard, "every watcher has received the last alert")

    async def _wait(self, holds: Callable[[], Coroutine[Any, Any, bool]], what: str) -> float:
        took = await eventually(holds, HEAL_S)
        if took is None:
            tails = [f"/readyz: {node.api_status()}\n{node.output()[-4000:]}" for node in self.nodes]
            wrong = str(self.world.history.judge(finals_only=True))
            raise AssertionError("\n".join([f"waited {HEAL_S:g} s in vain: {what}", wrong, self.report(), *tails]))
        return took

    async def _log_has_all(self) -> bool:
        self.world.history.finals = []
        if not await self.world.read_states() or not await self._read_calls([]):
            return False
        verdict = self.world.history.judge(finals_only=True)
        return not verdict.lost and not verdict.calls

    # -- the report

    def report(self) -> str:
        """Return a summary of the actions, the faults and their effects."""
        history = self.world.history
        outcomes = Counter(operation.outcome for operation in history.operations.values())
        log = self.schedule.log
        messages = sum(not isinstance(event, list) for visit in history.visits for event in visit.events)
        counts = {outcome.value: outcomes[outcome] for outcome in Outcome}
        return "\n".join(
            [
                f"operations {counts}, {len(history.visits)} visits, {messages} messages, {len(log)} faults",
                f"calls: {self._calls()}",
                f"a rogue wrote {self.rogue.written} entries in {self.rogue.visits} visits",
                f"connections ended {dict(self.world.ends)}",
                f"longest wait for a status { ({s: round(t, 2) for s, t in self.world.slowest.items()}) }",
                f"{len(self.world.refusals)} refusals {self.world.refusals[:10]}",
                f"acknowledged entries that the log has lost, where it may: {history.lost_by_log}",
                f"{ {name: value and round(value, 2) for name, value in self.figures.items()} }",  # type: ignore[call-overload]
                *([] if COMPILER else [f"no clock was wrong in this run: {WITHOUT_COMPILER}"]),
                *map(str, log),
            ]
        )

    def _calls(self) -> dict[str, int]:
        """Return counts of the actions and messages about calls."""
        calls = self.world.history.calls
        heard = Counter(message["type"] for visit in calls.visits for message in visit.messages())
        said = Counter(each.kind for visit in calls.visits for each in visit.said())
        return {"asked for": len(calls.asked), "visits": len(calls.visits), **heard, **said}

    def assert_well(self, verdict: Verdict) -> None:
        """Require a verdict without violations, and no error that the faults do not explain."""
        history, refusals = self.world.history, self.world.refusals
        words = set(str(verdict).replace(":", " ").replace(",", " ").split())
        stories = [history.story(each) for each in history.chains if each in words]
        stories += [history.calls.story(each) for each in history.calls.asked if each in words]
        outputs = [node.output()[-4000:] for node in self.nodes]
        assert verdict, "\n".join([str(verdict), *stories[:5], self.report(), *outputs])
        assert not OURS_TO_BLAME & self.world.ends.keys(), self.report()
        assert 500 not in self.world.slowest, self.report()
        assert not refusals, "\n".join([history.story(refusals[0].split()[0]), self.report(), *outputs])
        for node in self.nodes:
            node.assert_no_surprise()
