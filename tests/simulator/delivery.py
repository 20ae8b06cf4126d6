"""Ring 1, the delivery: from the log in memory to what each phone shows, in a simulated event loop.

Real are the log in memory, the reader, the live alerts, the fan-out, the hub, sessions and connections of one or two
nodes. Simulated are time, the sockets, and the way from the log to each node, which may be slow or cut.

A run is a list of steps that the seed draws: publishing, revising and cancelling; phones that move, filter, fall silent
and come back; nodes that are killed, lag, lose the log, get other reviewers or tokens, and whose clocks jump. `Watch`
(judge.py) checks each write. Now and then everything is healed; SETTLE_S later, nothing may be missing.
"""

import asyncio
import contextlib
from unittest import mock

import numpy as np
from simulator import world
from simulator.judge import Fault, NodeRules
from simulator.phones import METRE, Line, Phone
from simulator.world import Clock, World, pick
from support.fakes import DALLAS, HOUR_MS, NOON_MS, a_cancel, a_revision
from support.model import SEVERITIES, Item, Rules

from geocast import tasks
from geocast.alertlog import Counts
from geocast.alertlog.chain import UNKNOWN
from geocast.alertlog.memory import MemoryLog
from geocast.auth.scopes import RECEIVE, TEST
from geocast.auth.tokens import Key, TokenVerifier, sign
from geocast.clock import STEP_S
from geocast.config import Settings
from geocast.metrics import Metrics
from geocast.model.alert import Approval, Circle, Revision, Untrusted
from geocast.model.errors import LogUnavailable
from geocast.model.server_address import Address
from geocast.stream.server import StreamServer

IDS = "abcdef"
CATEGORIES = ("arson", "burglary", "robbery")
REVIEWERS = ("desk-1", "desk-2")
SETTLE_S = 4.0  # 2.5 s until a phone is back and the log is read again, and the flush of the counts
STEPS = 30
WRONG_S = 20.0  # the longest time that a node is cut or its clock wrong: after 30 s it may forget a `holding` (R5e)
KEY = {"kty": "oct", "kid": "k", "alg": "HS256", "k": "c2VjcmV0" * 8}
KEYS = {"k": Key(KEY, "HS256")}
SUBJECTS = {False: "phone", True: "tester"}
TOKENS = {
    tests: sign(KEY, sub, [RECEIVE, TEST] if tests else [RECEIVE], NOON_MS // 1000 - HOUR_MS, 10 * HOUR_MS)
    for tests, sub in SUBJECTS.items()
}
SETTINGS = [  # with many rows, the flags of few recipients are stored in another form (stream/delivery_flags.py)
    Settings(stream=Address("127.0.0.1", 1), api=Address("127.0.0.1", 2), log="memory:", max_sessions=rows)
    for rows in (6, 64)
]
METRICS = Metrics()


class Trust:
    """The verifier of a node's log, which believes some reviewers."""

    needs_chain = True

    def __init__(self, believed):
        self.version, self.believed = 0, frozenset(believed)
        self._watching = []

    def watch(self, changed):
        """Call `changed` after each change."""
        self._watching.append(changed)

    def becomes(self, believed):
        """Believe other reviewers from now on."""
        self.version, self.believed = self.version + 1, frozenset(believed)
        for changed in self._watching:
            changed()

    def verify(self, entry, _stands_under, _place):
        """Return the entry, or an `Untrusted` if its reviewer is not believed."""
        if reviewer_of(entry) in self.believed:
            return entry
        return Untrusted(entry.id, entry.revision, entry.ends_at, entry if isinstance(entry, Revision) else None)

    def verify_revision(self, _revision, behind):
        """Return whether the earlier revisions are known: one approval is enough for every category."""
        return not behind >= UNKNOWN

    def verify_cancel(self, _cancel, _alert, behind):
        """Return the same as for a revision."""
        return not behind >= UNKNOWN

    def still_valid(self, revision, _behind):
        """Return whether its reviewer is believed."""
        return reviewer_of(revision) in self.believed


def reviewer_of(entry):
    """Return the reviewer who has approved an entry."""
    return entry.alert.approval.reviewer if isinstance(entry, Revision) else entry.approval.reviewer


class Replica(MemoryLog):
    """The log as one node reads it: its entries come late, and it may be cut off."""

    def __init__(self, world, verifier):
        super().__init__(verifier)
        self._world = world
        self.is_cut = False

    def _check(self):
        if self.is_cut:
            raise LogUnavailable("cut")

    async def follow(self, after, ended_before_ms=0):
        """Yield what the log in memory yields, in batches that end anywhere."""
        self._check()
        async with contextlib.aclosing(super().follow(after, ended_before_ms)) as batches:
            async for batch in batches:
                left = list(batch)
                while left:
                    count = self._world.rng.randint(1, len(left))
                    self._check()
                    yield left[:count]
                    left = left[count:]
                self._check()
                if not batch:
                    yield ()

    async def history(self, alert_id):
        """Return the history, after a while."""
        await asyncio.sleep(0.002 * self._world.rng.random())
        self._check()
        return await super().history(alert_id)

    async def add_counts(self, counts):
        """Add to the counts of the log."""
        self._check()
        await self._world.log.add_counts(counts)


class Node:
    """One process of a node, from its start to its death."""

    def __init__(self, world, number, believed, revoked, behind):
        self.world, self.number = world, number
        self.clock = Clock(world.loop)
        self.trust = Trust(believed)
        self.log = Replica(world, self.trust)
        self.lag_s = 0.0
        self._fed = 0
        self.feed(max(0, len(world.entries) - behind))
        for _ in range(behind):
            world.loop.call_later(world.rng.random(), self.feed)
        self.is_dead = self.was_ahead = False
        self.lines = {}
        self.tokens = TokenVerifier(KEYS, revoked, required=False)
        self.rules = NodeRules(world.items, lambda item: world.reviewers[item.id, item.number] in self.trust.believed)
        self.server = StreamServer(world.rng.choice(SETTINGS), self.tokens, self.clock, self.log, METRICS)
        self.stream, self.hub = self.server._stream, self.server._hub
        self.hub._send = self._send if world.rng.random() < 0.7 else None
        self._judge()
        self._running = [tasks.start(name, work) for name, work in self.server.named_tasks().items()]

    def _judge(self):
        """Let the model read, judge and sweep when the node does."""
        reader, live, hub = self.server._reader, self.hub.fanout.live, self.hub
        take, verify, correct, sweep = reader._take, live.verify_again, live.correct, hub.sweep
        acknowledge = hub.acknowledge

        def set_right(now):
            live.correct_if_clock_was_ahead(now)
            if not self.clock.skew_ms:
                self.rules.correct(now, STEP_S)  # in case that the node does not

        def taken(entry):
            set_right(self.clock.now())
            self.rules.read_entry(entry, self.clock.now())
            take(entry)

        def verified(alert):
            verify(alert)
            self.rules.believe_again(alert.id)

        def corrected(now):
            correct(now)
            self.rules.correct(now)

        def swept(now):
            set_right(now)
            self.rules.sweep(now)
            sweep(now)

        def acknowledged(row, alert_id, number, now):
            client = next(
                line.watch.client
                for line in self.lines.values()
                if line.connection._session is not None and line.connection._session.row == row
            )
            self.rules.acknowledge(client, alert_id, number, now)
            acknowledge(row, alert_id, number, now)

        reader._take, live.verify_again, live.correct, hub.sweep = taken, verified, corrected, swept
        hub.acknowledge = acknowledged

    @property
    def is_open(self):
        """Whether it accepts connections."""
        return not self.is_dead and self.server._reader.caught_up.is_set()

    def feed(self, count=1):
        """Let the next entries arrive."""
        if not self.log.is_cut:
            for entry in self.world.entries[self._fed : self._fed + count]:
                self.log.take(entry)
                self._fed += 1

    def feed_all(self):
        """Let all entries arrive."""
        self.feed(len(self.world.entries) - self._fed)

    def can_read(self):
        """Reach the log again."""
        if self.log.is_cut:
            self.log.is_cut = False
            self.feed_all()

    def has_let_go(self, alert_id):
        """Return whether it forgot an alert too early because its clock was ahead: both its clocks said so."""
        return self.was_ahead and alert_id in self.rules.gone

    def hears_of(self):
        """Let an entry that was appended arrive, after the lag."""
        self.world.loop.call_later(self.lag_s * (0.5 + self.world.rng.random()), self.feed)

    def accepts(self, phone):
        """Return the connection of a phone."""
        descriptor = next(number for number in range(100) if number not in self.lines)
        self.lines[descriptor] = line = Line.__new__(Line)
        line.__init__(self, phone, descriptor)
        return line

    def frees(self, line):
        """Let another connection have the descriptor."""
        del self.lines[line.descriptor]

    def _send(self, descriptors, frame):
        """Send a frame to many sockets at once, as Linux AIO does."""
        found = [self.lines.get(int(number)) for number in descriptors]
        return np.array([-9 if line is None else line.send(frame) for line in found], np.int32)

    def dies(self):
        """Die as by SIGKILL: nothing more is written."""
        self.is_dead = True
        for task in self._running:
            task.cancel()
        for line in list(self.lines.values()):
            line._closing = True
            line._pass_on(None)


class Delivery(World):
    """One run: the log, nodes, phones and the steps."""

    def __init__(self, seed, steps, simulated):
        super().__init__(seed, steps, simulated)
        self.log = MemoryLog()
        self.tokens = TOKENS
        self.entries, self.items, self.reviewers, self.log_items = [], {}, {}, {}
        self.rules = Rules()
        self.believed, self.revoked = set(REVIEWERS), {}
        self.nodes, self.phones = [], []
        self.simple = True  # whether each entry was believed by everybody all the time
        self.keeps_counts = True  # whether the counts are exact: no process has died, no write met a closed socket

    def has_ended(self, item):
        """Return whether an item has ended by the right time."""
        return self.now_ms >= item.ends_at

    # ---- running ------------------------------------------------------------------------------------------------

    async def _end(self):
        for node in self.nodes:
            node.dies()
        for node in self.nodes:
            await asyncio.gather(*node._running, return_exceptions=True)

    async def _begin(self):
        await self.log.start()
        for number in range(2):
            self._starts(number, 0)
        for number in range(4):
            delay_s = (0.001, 0.01, 0.05, 0.3)[self.rng.randrange(4)]
            phone = Phone(self, f"phone {number}", ("json", "msgpack")[number % 2], 100 * number, delay_s)
            phone.may_test = (False, True, None, False)[number]
            self.phones.append(phone)
            phone.comes_back(self.rng.random() * 0.1)

    def _starts(self, number, behind):
        node = Node(self, number, self.believed, dict(self.revoked), behind)
        self.nodes[number : number + 1] = [node]

    def a_node_for(self, _phone):
        """Return a node that accepts connections, or None."""
        there = [node for node in self.nodes if node.is_open]
        return self.rng.choice(there) if there else None

    async def _settle(self):
        self._settle_now()
        await asyncio.sleep(SETTLE_S)
        if not self.faults:
            self._verdict()

    def _settle_now(self):
        self.note("all", "is healed")
        for number, node in enumerate(self.nodes):
            if node.is_dead:
                self._starts(number, 0)
                continue
            node.clock.skew_ms, node.lag_s, node.log.is_cut = 0, 0.0, False
            node.feed_all()
            if node.trust.believed != self.believed:
                node.trust.becomes(self.believed)
        for phone in self.phones:
            phone.is_away = False
            phone.reads_again()
            phone.comes_back()

    def _verdict(self):
        for node in self.nodes:
            for line in node.lines.values():
                if lacks := line.watch.lacks():
                    self.fail(Fault(f"node {node.number} has not sent {line.phone.name} {', '.join(lacks)}"))
            for alert_id, chain in self.log_items.items():
                self._has_read(node, alert_id, chain)
        if self.keeps_counts:
            self._has_counted()
        for phone in self.phones:
            if phone.line is None or not phone.line.watch.is_in:
                self.fail(Fault(f"{phone.name} is not connected"))
            elif self.simple:
                for fault in phone.verdict():
                    self.fail(Fault(fault))

    def _has_read(self, node, alert_id, chain):
        """Require that a node has applied the last believed entry of an alert, and sends no other."""
        believed = [item for item in chain if self.reviewers[item.id, item.number] in self.believed]
        alert = node.hub.fanout.live._alerts.get(alert_id)
        is_sent = alert is not None and alert.cancel is None and not alert.ended(node.clock.now())
        if is_sent:
            item = self.items.get((alert_id, alert.number))
            if item not in believed:
                self.fail(Fault(f"node {node.number} would send {item}, which is not believed"))
        is_early_cancel = alert is None and chain[-1].cancels  # it may be the only entry that this node believed
        is_decided = self.simple or (chain[-1] in believed and not is_early_cancel)
        if not believed or not is_decided or node.has_let_go(alert_id):
            return
        if self.has_ended(believed[-1]):
            if is_sent:
                self.fail(Fault(f"node {node.number} would still send {alert_id}, which ended with {believed[-1]}"))
        elif alert is None or alert.number < believed[-1].number:
            self.fail(Fault(f"node {node.number} has not applied {believed[-1]}"))

    def _has_counted(self):
        """Require that the counts in the log are those of the model's nodes."""
        for alert_id in self.log_items:
            found = self.log._counts.get(alert_id, Counts())
            sent, acked = (
                sum(counts.get(alert_id, 0) for counts in each)
                for each in zip(*((node.rules.sent, node.rules.acked) for node in self.nodes), strict=True)
            )
            if (found.sent, found.acked) != (sent, acked):
                self.fail(Fault(f"{found} of {alert_id}, but {sent} were sent and {acked} acknowledged"))

    # ---- steps --------------------------------------------------------------------------------------------------

    def _append(self, item, entry, reviewer):
        async def append():
            if await self.log.append(entry):
                self.note(
                    "desk", "appends", item, f"by {reviewer}", f"until {(item.ends_at - NOON_MS) / 1000:g}", item.area
                )
                self.entries.append(entry)
                self.items[item.id, item.number] = item
                self.reviewers[item.id, item.number] = reviewer
                self.log_items.setdefault(item.id, []).append(item)
                self.simple = self.simple and reviewer in self.believed
                for node in self.nodes:
                    if not node.is_dead:
                        node.hears_of()

        self.loop.create_task(append())

    def _revision(self, item, reviewer):
        changes = {"severity": item.severity, "category": item.category, "status": item.status}
        area = tuple(Circle(*circle) for circle in item.area)
        approval = Approval(reviewer, NOON_MS)
        entry = a_revision(
            item.id,
            item.number,
            area=area,
            issued_at=item.issued_at,
            expires_at=item.ends_at,
            approval=approval,
            **changes,
        )
        self._append(item, entry, reviewer)

    def _publish(self, life, severity, where, size, chance):
        if len(self.log_items) < len(IDS):
            alert_id = IDS[len(self.log_items)]
            ends_at = self.now_ms + 1000 * pick((3, 8, 20, 60), life)
            status = "test" if chance < 0.15 else "actual"
            item = Item(
                alert_id, 1, ends_at, pick(SEVERITIES, severity), pick(CATEGORIES, chance), status, circle(where, size)
            )
            self._revision(self._issued(item), self._reviewer(chance))

    def _issued(self, item):
        return Item(**(vars(item) | {"issued_at": self.now_ms}))

    @staticmethod
    def _reviewer(chance):
        return REVIEWERS[chance * 100 % 1 < 0.2]

    def _last(self, which):
        """Return the last item of an alert that can be followed."""
        found = [
            chain[-1] for chain in self.log_items.values() if not chain[-1].cancels and not self.has_ended(chain[-1])
        ]
        return pick(found, which) if found else None

    def _revise(self, which, what, where, size, chance):
        if (last := self._last(which)) is not None:
            changes = {"number": last.number + 1}
            if what < 0.5:
                changes["area"] = circle(where, size)
            elif what < 0.65:
                changes["ends_at"] = max(self.now_ms + 1000, last.ends_at - 5000)
            elif what < 0.8:
                changes["ends_at"] = last.ends_at + 10_000
            else:
                changes["severity"] = pick(SEVERITIES, chance)
            self._revision(self._issued(Item(**(vars(last) | changes))), self._reviewer(chance))

    def _cancel(self, which, _a, _b, _c, chance):
        if (last := self._last(which)) is not None:
            item = self._issued(Item(**(vars(last) | {"number": last.number + 1, "cancels": True})))
            reviewer = self._reviewer(chance)
            approval = Approval(reviewer, NOON_MS)
            self._append(item, a_cancel(item.id, item.number, ends_at=item.ends_at, approval=approval), reviewer)

    def _move(self, which, where, *_):
        pick(self.phones, which).moves(50 * int(where * 24))

    def _filter(self, which, severity, category, *_):
        categories = None if category < 0.5 else [pick(CATEGORIES, category)]
        pick(self.phones, which).chooses(pick(SEVERITIES[:3], severity), categories)

    def _ack(self, which, *_):
        pick(self.phones, which).acknowledges()

    def _drop(self, which, *_):
        phone = pick(self.phones, which)
        self.note(phone.name, "loses its connection")
        phone.loses()

    def _leave(self, which, *_):
        phone = pick(self.phones, which)
        self.note(phone.name, "goes away")
        phone.is_away = True
        phone.loses()

    def _return(self, which, *_):
        phone = pick(self.phones, which)
        phone.is_away = False
        phone.comes_back()

    def _clog(self, which, room, *_):
        phone = pick(self.phones, which)
        phone.room = int(room * 700)
        self.note(phone.name, "takes only", phone.room, "bytes")

    def _read(self, which, *_):
        phone = pick(self.phones, which)
        self.note(phone.name, "reads")
        phone.reads_again()

    def _node(self, which):
        return pick(self.nodes, which)

    def _lag(self, which, lag, *_):
        self._node(which).lag_s = lag
        self.note(f"node {self._node(which).number}", "lags by", f"{lag:.2f} s")

    def _cut(self, which, *_):
        node = self._node(which)
        node.log.is_cut = not node.log.is_cut
        self.note(f"node {node.number}", "is cut" if node.log.is_cut else "can read")
        if node.log.is_cut:
            self.loop.call_later(WRONG_S, node.can_read)
        else:
            node.feed_all()

    def _clock(self, which, how_far, *_):
        node = self._node(which)
        node.clock.skew_ms = pick((0, HOUR_MS, -HOUR_MS, 10_000, -10_000, 2 * HOUR_MS), how_far)
        node.was_ahead = node.was_ahead or node.clock.skew_ms > 0
        self.note(f"node {node.number}", "has a clock that is", node.clock.skew_ms, "ms ahead")
        if node.clock.skew_ms:
            self.loop.call_later(WRONG_S, setattr, node.clock, "skew_ms", 0)

    def _kill(self, which, *_):
        node = self._node(which)
        if not node.is_dead:
            self.note(f"node {node.number}", "is killed")
            self.keeps_counts = False
            node.dies()

    def _restart(self, which, behind, skew, *_):
        node = self._node(which)
        if node.is_dead:
            self._starts(node.number, int(behind * 4))
            if skew < 0.2:
                self._clock(which, skew * 5)
            self.note(f"node {node.number}", "starts,", int(behind * 4), "entries behind")

    def _reviewers(self, which, believed, *_):
        """Let one node or all believe other reviewers."""
        self.simple = False
        self.believed = {pick((REVIEWERS, REVIEWERS[:1], REVIEWERS[1:]), believed)[0], pick(REVIEWERS, believed)}
        self.note("all", "believe", sorted(self.believed))
        for node in self.nodes[: 1 + int(which * 2)]:
            if not node.is_dead:
                node.trust.becomes(self.believed)


def circle(where, size):
    """Return an area around a place in metres north of Dallas; no phone is near its edge."""
    return ((DALLAS[0] + 100 * int(where * 12) * METRE, DALLAS[1], pick((25, 125, 325, 925), size)),)


WEIGHTS = {
    "publish": 16, "revise": 14, "cancel": 8, "move": 14, "filter": 4, "ack": 2, "drop": 7, "leave": 2, "return": 3,
    "clog": 5, "read": 4, "lag": 4, "cut": 4, "clock": 4, "kill": 3, "restart": 4, "reviewers": 3, "settle": 2,
}  # fmt: skip


def script(seed):
    """Return the steps of a run."""
    # In half of the runs there are no other reviewers, so that the log alone says what each phone has to show.
    weights = WEIGHTS if seed % 2 else WEIGHTS | {"reviewers": 0}
    return world.script(seed, weights, "publish", STEPS, long_s=(35.0,))


def run(seed, steps, simulated):
    """Run a schedule."""
    return world.run(Delivery(seed, steps, simulated))


@contextlib.contextmanager
def patched():
    """Leave out what a simulated node can't have, and make the fan-out so small that four phones are several slices."""
    with contextlib.ExitStack() as changes:
        for target, changed in _PATCHES.items():
            changes.enter_context(mock.patch(f"geocast.{target}", changed))
        yield


_PATCHES = {
    "stream.server.open_sender": lambda: None,
    "config.raise_descriptor_limit": lambda: 1000,
    "stream.fanout.SLICE": 2,
    "stream.fanout.NEAREST": 2,
    "stream.flights.FLIGHTS": 4,
    "stream.flights.FLIGHTS_BELOW_EXTREME": 3,
    "stream.log_reader.APPLY_AT_ONCE": 2,
    "stream.log_reader.VERIFY_AT_ONCE": 1,
}
