"""Ring 2: the log in Redis. Nodes append and follow, Redis fails over and loses entries, and connections break.

The nodes are the real `RedisStreamsLog` with the real redis-py, and the real scripts run in a model of Redis
(`redis_model`). Desks publish, revise and cancel, and repeat what was not answered, at any node. When everything has
healed, the log has to have what was accepted, and each node what the log has.
"""

import asyncio
import contextlib
import contextvars

from simulator import world
from simulator.loop import OWNER
from simulator.redis_model import Line, Server
from simulator.world import Clock, World, pick
from support.fakes import a_cancel, a_revision

from geocast import tasks
from geocast.alertlog.redis_streams import RedisStreamsLog
from geocast.model.alert import Cancel
from geocast.model.errors import LogUnavailable
from geocast.stream.live_alerts import LiveAlerts
from geocast.stream.log_reader import LogHealth, LogReader

IDS = "abcd"
STEPS = 30
SETTLE_S = 12.0
PATIENCE_S = 20.0  # how long a desk tries
STREAM = b"{geocast}:stream"


class Node:
    """One process: its log, and the alerts that it applies."""

    def __init__(self, world, number):
        self.world, self.number = world, number
        self.is_dead = False
        self.context = contextvars.copy_context()
        self.context.run(OWNER.set, self)
        self.log = RedisStreamsLog("redis://localhost", replicas=world.replicas)
        self.clock = Clock(world.loop)
        self.live = LiveAlerts(1, places=False)
        self.keeper = LogHealth(self.log, self.clock)
        self.reader = LogReader(self.log, self.clock, self.live, self._apply, self.keeper)
        self.given = set()  # what it has read or appended
        self.do(self._runs())

    def do(self, work):
        """Return a task that belongs to this process, and ends with it."""
        return self.world.loop.create_task(work, context=self.context.copy())

    async def _runs(self):
        await self.log.start()
        tasks.start("log-reader", self.reader.read_for_ever)

    def _apply(self, entry):
        self.live.apply(entry, self.clock.now())
        self.given.add(entry)

    def dies(self):
        """End at once: nothing is sent any more."""
        self.is_dead = True
        for server in self.world.servers:
            server.cut(self)
        for task in asyncio.all_tasks(self.world.loop):
            if task.owner is self:
                task.cancel()


class RedisLog(World):
    """One run: servers, nodes, desks and the steps."""

    def __init__(self, seed, steps, simulated):
        super().__init__(seed, steps, simulated)
        self.loop.connect = self._connect
        self.replicas = int(self.rng.random() < 0.5)
        self.primary = Server(self)
        self.servers = [self.primary]
        self.nodes, self.reach = [], {}  # node -> the server that the address leads it to
        self.accepted = {}  # (id, number) -> entry
        self.lost = set()  # what nobody may have any more
        self.busy, self.desks = set(), set()

    def _connect(self, protocol, _host, _port, owner):
        server = self.reach.get(owner, self.primary)
        if owner is None or owner.is_dead or server is None:
            raise ConnectionRefusedError
        return Line(server, protocol, owner)

    # ---- running ------------------------------------------------------------------------------------------------

    async def _begin(self):
        for number in range(2):
            self.nodes.append(Node(self, number))
        await asyncio.sleep(0.1)

    async def _settle(self):
        self.note("all", "is healed")
        self._heal()
        await asyncio.sleep(SETTLE_S)
        if self.desks:
            await asyncio.wait(self.desks, timeout=2 * PATIENCE_S)
        await asyncio.sleep(SETTLE_S)
        self._verdict()

    def _heal(self):
        for server in self.servers:
            server.disk_works, server.is_silent, server.ahead_ms = True, False, 0
        self.reach.clear()
        for server in self.servers:
            if server is not self.primary:
                server.cut()
        if not self.primary.has_replica:
            self.primary.has_replica = True
            self.primary.replicate()
        for number, node in enumerate(self.nodes):
            if node.is_dead:
                self.nodes[number] = Node(self, number)

    async def _end(self):
        for node in self.nodes:
            node.dies()
        for _ in range(5):
            await asyncio.sleep(0.01)

    # ---- the judge ------------------------------------------------------------------------------------------------

    def _chains(self):
        """Return what the log has: id -> number -> entry."""
        chains = {}
        for fields in self.primary.data.streams[STREAM].values():
            there = dict(zip(fields[::2], fields[1::2], strict=True))
            if b"i" in there:
                kind = there[b"k"].decode()
                chains.setdefault(there[b"i"].decode(), {})[int(there[b"r"])] = kind, there[b"p"]
        return chains

    def _verdict(self):
        chains = self._chains()
        for node in self.nodes:
            if problems := [*node.reader.unready(), *node.keeper.unready()]:
                self.fail(f"node {node.number} is not ready: {problems}")
            for alert_id, chain in chains.items():
                self._has_read(node, alert_id, chain)
        for (alert_id, number), entry in self.accepted.items():
            chain = chains.get(alert_id, {})
            cancels = [at for at, (kind, _) in chain.items() if kind == "cancel"]
            if isinstance(entry, Cancel):
                if not cancels and (alert_id, number) not in self.lost:
                    self.fail(f"the cancel {alert_id}/{number} was accepted, and is not in the log")
            elif number not in chain and not cancels and (alert_id, number) not in self.lost:
                self.fail(f"{alert_id}/{number} was accepted, and is not in the log")

    def _has_read(self, node, alert_id, chain):
        alert = node.live.find(alert_id, node.clock.now())
        cancels = [number for number, (kind, _) in chain.items() if kind == "cancel"]
        if alert is None:
            if min(chain, default=0) not in cancels:
                self.fail(f"node {node.number} does not know {alert_id}")
        elif cancels and alert.cancel is None:
            self.fail(f"node {node.number} would still send {alert_id}, which is cancelled")
        elif not cancels and alert.cancel is not None:
            self.fail(f"node {node.number} has a cancel of {alert_id}, and the log has none")
        elif not cancels and alert.number != max(chain):
            self.fail(f"node {node.number} has {alert_id}/{alert.number}, and the log {max(chain)}")

    # ---- desks ----------------------------------------------------------------------------------------------------

    def _desk(self, entry):
        if (entry.id, entry.revision) not in self.busy:
            self.busy.add((entry.id, entry.revision))
            desk = self.loop.create_task(self._posts(entry))
            self.desks.add(desk)
            desk.add_done_callback(self.desks.discard)

    async def _posts(self, entry):
        """Post an entry until it is answered, as publishers have to (rule H2)."""
        what, deadline = f"{type(entry).__name__.lower()} {entry.id}/{entry.revision}", self.loop.time() + PATIENCE_S
        while self.loop.time() < deadline:
            there = [node for node in self.nodes if not node.is_dead]
            if there:
                node = self.rng.choice(there)
                with contextlib.suppress(LogUnavailable, asyncio.CancelledError):
                    if await node.do(node.log.append(entry)):
                        self.note("desk", f"{what} is accepted by node {node.number}")
                        node.given.add(entry)
                        self._is_accepted(entry)
                        return
                    history = await node.do(node.log.history(entry.id))
                    if any(each.revision == entry.revision and each.same_content(entry) for each in history):
                        self.note("desk", f"{what} is there")
                        self._is_accepted(entry)
                        return
                    if any(each.revision >= entry.revision or isinstance(each, Cancel) for each in history):
                        self.note("desk", f"{what} is refused")
                        return
            await asyncio.sleep(0.3)
        self.note("desk", f"{what} is given up")
        self.busy.discard((entry.id, entry.revision))

    def _is_accepted(self, entry):
        self.accepted[entry.id, entry.revision] = entry
        self.lost.discard((entry.id, entry.revision))

    def _chain_of(self, which):
        """Return an alert that was accepted: its id and its last number."""
        last = {}
        for alert_id, number in self.accepted:
            last[alert_id] = max(number, last.get(alert_id, 0))
        return pick(sorted(last.items()), which) if last else None

    # ---- steps --------------------------------------------------------------------------------------------------

    def _publish(self, which, *_):
        self._desk(a_revision(pick(IDS, which), issued_at=self.now_ms))

    def _revise(self, which, who, *_):
        if (found := self._chain_of(which)) is not None:
            alert_id, last = found
            headline = f"Robbery, revision {last + 1}, by {pick(('one', 'another'), who)}"
            self._desk(a_revision(alert_id, last + 1, headline=headline, issued_at=self.now_ms))

    def _cancel(self, which, *_):
        if (found := self._chain_of(which)) is not None:
            alert_id, last = found
            self._desk(a_cancel(alert_id, last + 1))

    def _cut(self, which, *_):
        node = pick(self.nodes, which)
        self.note(f"node {node.number}", "loses its connections")
        for server in self.servers:
            server.cut(node)

    def _unreachable(self, which, seconds, *_):
        node = pick(self.nodes, which)
        self.note(f"node {node.number}", f"can't reach Redis for {5 * seconds:.1f} s")
        self.reach[node] = None
        for server in self.servers:
            server.cut(node)
        self.loop.call_later(5 * seconds, self.reach.pop, node, None)

    def _silence(self, _which, seconds, *_):
        server = self.primary
        self.note("Redis", f"is silent for {5 * seconds:.1f} s")
        server.is_silent = True
        self.loop.call_later(5 * seconds, setattr, server, "is_silent", False)

    def _disk(self, _which, seconds, *_):
        server = self.primary
        self.note("Redis", f"can't sync for {5 * seconds:.1f} s")
        server.disk_works = False
        self.loop.call_later(5 * seconds, setattr, server, "disk_works", True)

    def _alone(self, _which, seconds, *_):
        server = self.primary
        self.note("Redis", f"has no replica for {5 * seconds:.1f} s")
        server.has_replica = False

        def returns():
            if server is self.primary:
                server.has_replica = True
                server.replicate()

        self.loop.call_later(5 * seconds, returns)

    def _clock(self, _which, ahead, *_):
        self.primary.ahead_ms = int(pick((0, 0, 10_000, -10_000, 3_600_000, -3_600_000), ahead))
        self.note("Redis", f"has a clock that is {self.primary.ahead_ms} ms ahead")

    def _failover(self, loss, split, seconds, *_):
        """Let the replica, or a backup, become the primary, perhaps while some nodes still use the old one."""
        old = self.primary
        kept = old.replicated
        if self.replicas == 0 and loss < 0.4:
            kept = int(kept * loss / 0.4)
        self.note("Redis", f"fails over and loses {len(old.effects) - kept} of {len(old.effects)} writes")
        before = self._chains()
        self.primary = Server(self, old.effects[:kept])
        self.servers.append(self.primary)
        self._loses(before, self._chains())
        old.has_replica = False
        old.role = "master" if split < 0.5 else "slave"
        if split < 0.3:
            for node in self.nodes[: 1 + (split < 0.15)]:
                self.reach[node] = old
                self.loop.call_later(4 * seconds, self._comes_over, node, old)
        else:
            old.cut()

    def _comes_over(self, node, old):
        if self.reach.get(node) is old:
            del self.reach[node]
        old.cut(node)

    def _loses(self, before, after):
        """Note what nobody has any more: no living node has read or appended it."""
        for alert_id, chain in before.items():
            for number in chain.keys() - after.get(alert_id, {}).keys():
                known = any(
                    (each.id, each.revision) == (alert_id, number)
                    for node in self.nodes
                    if not node.is_dead
                    for each in node.given
                )
                if not known:
                    self.lost.add((alert_id, number))

    def _kill(self, which, *_):
        node = pick(self.nodes, which)
        if not node.is_dead:
            self.note(f"node {node.number}", "is killed")
            node.dies()
            accepted = {}
            for alert_id, number in self.accepted:
                accepted.setdefault(alert_id, {})[number] = None
            self._loses(accepted, self._chains())

    def _restart(self, which, *_):
        node = pick(self.nodes, which)
        if node.is_dead:
            self.note(f"node {node.number}", "starts")
            self.nodes[node.number] = Node(self, node.number)


WEIGHTS = {
    "publish": 10, "revise": 14, "cancel": 5, "cut": 6, "unreachable": 3, "silence": 2, "disk": 2, "alone": 2,
    "clock": 2, "failover": 4, "kill": 3, "restart": 4, "settle": 1,
}  # fmt: skip


def script(seed):
    """Return the steps of a run."""
    return world.script(seed, WEIGHTS, "publish", STEPS)


def run(seed, steps, simulated):
    """Run a schedule."""
    return world.run(RedisLog(seed, steps, simulated), 400_000)


@contextlib.contextmanager
def patched():
    """Change nothing."""
    yield
