"""A node with calls for help on an event loop whose time is the test's, and the phones of its responders.

The log, its reader, the worker, the hubs and the service of dispatchers are real; only sessions are without sockets and
tokens. `Faults` makes one call inside `geocast.calls` raise.
"""

import asyncio
import functools
import inspect
import logging
import random
import sys
from collections import Counter
from types import SimpleNamespace

from calls import rules
from support.fakes import NOON_MS, FakeClock, FakeRights, JumpingSelector, call_request, messages
from support.injections import Injected

from geocast import policy, tasks
from geocast.alertlog.memory import MemoryLog
from geocast.auth.tokens import Requester
from geocast.calls.aeds import Aed, Aeds
from geocast.calls.decrypted_chain import opened_chain
from geocast.calls.encryption import CallKeys
from geocast.calls.service import CallService
from geocast.calls.worker import CallWorker
from geocast.matching.filters import Filter
from geocast.metrics import Metrics
from geocast.model.call import Acceptance, Ending, Opening, Release, Report, Widening
from geocast.model.times import format_time
from geocast.stream.hub import Hub
from geocast.stream.log_reader import LogHealth, LogReader
from geocast.stream.server import Pump
from geocast.wire.frames import JSON

METRE = 1 / 111_195  # in degrees of latitude
PLACE = (47.678, 8.831)  # where help is needed, in all calls; about 70 m from the centre of the published circle
FARTHEST = 800 * METRE  # nobody farther away is called
LIVE_S = 0.5  # time between two looks of the phones whether they have to come back, or to repeat something
BACK_S = 0.5  # time after which a phone comes back
TICK_S = 0.25
ANSWER_S = 5.0  # time after which an `accept` without an answer is repeated (RU3)
POLICY = policy.parse(
    f"""
name = "x"
[categories]
flood = {{ title = "Flood" }}
[calls.cardiac_arrest]
title = "Cardiac arrest"
quals = {sorted(rules.QUALS)}
rings_m = {list(rules.RINGS_M)}
rest_s = {rules.REST_S}
seats = ["cpr", "aed"]
enough = 20
""".encode(),
    None,
)
KEYS = CallKeys({"a": bytes(32)})
AEDS = Aeds([Aed("node/1", 47.6772, 8.83, "Hall", None, None, True, None)])
DESK = Requester("cad-3")
EVERYTHING = Filter(None, 0, ())
METRICS = Metrics()


class Faults:
    """The calls of methods and functions of `geocast.calls`, while `on`; the one with the number `at` raises."""

    def __init__(self, monkeypatch):
        self.calls, self.at, self.on = [], None, False
        for owner, name, method in _methods():
            if isinstance(method, property):
                failing = property(self._failing(f"{owner.__name__}.{name}", method.fget))
            elif isinstance(method, staticmethod):
                failing = staticmethod(self._failing(f"{owner.__name__}.{name}", method.__func__))
            else:
                failing = self._failing(f"{owner.__name__}.{name}", method)
            monkeypatch.setattr(owner, name, failing)

    def _failing(self, name, method):
        @functools.wraps(method)
        def failing(*args, **options):
            self._count(name, args)
            return method(*args, **options)

        @functools.wraps(method)
        async def failing_later(*args, **options):
            self._count(name, args)
            return await method(*args, **options)

        return failing_later if inspect.iscoroutinefunction(method) else failing

    def _count(self, name, args):
        if self.on:
            self.calls.append(name)
            if self.at == len(self.calls) - 1:
                for each in filter(inspect.iscoroutine, args):
                    each.close()  # nobody will await it
                raise Injected


def _methods():
    for module in [each for name, each in sorted(sys.modules.items()) if name.startswith("geocast.calls.")]:
        for owner in vars(module).values():
            if inspect.isclass(owner) and owner.__module__ == module.__name__:
                yield from [
                    (owner, name, value)
                    for name, value in vars(owner).items()
                    if _may_fail(module.__file__, name, value)
                ]


def _may_fail(file, name, value):
    function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    if not inspect.isfunction(function) or inspect.isasyncgenfunction(function) or name.startswith("__"):
        return False
    return inspect.unwrap(function).__code__.co_filename == file  # not those of NamedTuple


class _Unexpected(logging.Handler):
    """Keeps what is logged of other exceptions than the one that was thrown."""

    def __init__(self, wrong):
        super().__init__(logging.ERROR)
        self._wrong = wrong

    def emit(self, record):
        if "Injected" not in record.getMessage():
            self._wrong.append(record.getMessage())


class Node:
    """A node, its log, its dispatcher and its phones; `play` runs a story there. `wrong` lists what went wrong."""

    def __init__(self, faults):
        self.clock, self.log, self.phones, self.faults = FakeClock(), MemoryLog(), [], faults
        self.wrong = []

    def play(self, story):
        """Run a story, a coroutine function, and what the node and the phones do meanwhile."""
        random.seed(1)
        loop = asyncio.SelectorEventLoop(JumpingSelector(self.clock))
        loop.time = lambda: self.clock.monotonic
        unexpected = _Unexpected(self.wrong)
        logging.getLogger("geocast").addHandler(unexpected)
        try:
            loop.run_until_complete(self._main(story))
        finally:
            self.faults.on = False
            logging.getLogger("geocast").removeHandler(unexpected)
            loop.close()

    async def _main(self, story):
        tasks.watch_loop()
        health = LogHealth(self.log, self.clock)
        worker = CallWorker(32, lambda: (self._service(), KEYS), self.log, health.store, self.clock, METRICS, AEDS)
        self.calls, self.hub = worker.hub, Hub(32, calls=worker.hub)
        self._pump = Pump(self.hub, self.clock)
        worker.wake = self._pump.wake
        reader = LogReader(self.log, self.clock, self.hub.fanout.live, self.hub.fanout.deliver, health, worker.read)
        works = {"calls": worker.run, "phones": tasks.every(LIVE_S, self._live)}
        self._desk = self._service()
        async with tasks.running(reader=reader.read_for_ever, tick=tasks.every(TICK_S, self._tick), **works):
            self.faults.on = True
            await story(self)
            self.faults.on = False

    def _service(self):
        return CallService(self.log, POLICY, KEYS, self.clock, aeds=AEDS)

    def _tick(self):
        self.hub.sweep(self.clock.now())
        if self.hub.busy:
            self._pump.wake()

    def _live(self):
        for phone in self.phones:
            phone.live()

    def phone(self, sub, metres, *quals, held=()):
        """Add a phone this many metres north of the place of all calls, which connects."""
        self.phones.append(Phone(self, sub, metres, quals, held))
        self.phones[-1].live()
        return self.phones[-1]

    def one_with(self, what, call_id):
        """Return a phone that shows the `call` or the `task`; one that does nothing if there is none."""
        found = [each for each in self.phones if each.shows.get(call_id) == what]
        nobody = Phone(self, "nobody", 0, (), ())
        nobody.leave()
        return found[0] if found else nobody

    # ---- the dispatcher, who repeats a request that fails ----------------------------------------------------------

    async def open(self, call_id, lasts_s=600):
        """Open a call."""
        now_ms = self.clock.wall_ms
        times = {"occurred_at": format_time(now_ms), "expires_at": format_time(now_ms + lasts_s * 1000)}
        self._request = call_request(id=call_id, **times)
        self._content = await self._ask(lambda: self._desk.open(self._request, DESK))

    async def revise(self, headline):
        """Give the call that was opened last another headline."""
        request = self._request | {"headline": headline, "replaces": self._content.answer["revision"]}
        self._content = await self._ask(lambda: self._desk.revise(request["id"], request, DESK))

    async def end(self, call_id):
        """End a call."""
        await self._ask(lambda: self._desk.end(call_id, {"reason": "The crew is there."}, DESK))

    @staticmethod
    async def _ask(request):
        try:
            return await request()
        except Injected:
            return await request()

    # ---- what must be true ---------------------------------------------------------------------------------------

    async def settle(self):
        """Let time pass, the last of it without an exception, and note everybody who lacks something."""
        await asyncio.sleep(2)
        self.faults.on = False
        await asyncio.sleep(8)
        calls = {call_id: await self._told(call_id) for call_id in self.log._history}
        for phone in self.phones:
            self.wrong += phone.lacks(calls)
        gone = [each for each in self.phones if each.row < 0 and not each.is_away]
        self.wrong += [f"{each.sub} is not connected" for each in gone]
        connected = [each for each in self.phones if each.row >= 0]
        if len(self.hub) != len(connected) or self.calls.responders.on_duty != sum(
            bool(each.quals) for each in connected
        ):
            self.wrong.append(f"{len(self.hub)} rows, {self.calls.responders.on_duty} on duty")
        self.faults.on = True
        return calls

    def expect(self, is_so, otherwise):
        """Note what is wrong if something is not so."""
        self.wrong += [] if is_so else [otherwise]

    async def _told(self, call_id):
        """Return a call as the log has it, in the words of the rules."""
        chain = opened_chain(KEYS, await self.log.history(call_id))
        call = rules.Call(call_id)
        call.expires_at, call.arrived = chain.call.opening.expires_at, False
        for entry, body, secret in chain.entries:
            match body:
                case Opening(near=near):
                    call.read(entry.revision, "call", (near.lat, near.lng, near.radius_m), 0)
                case Widening(ring=ring):
                    call.read(entry.revision, "widen", ring, 0)
                case Acceptance(seat=seat):
                    call.read(entry.revision, "claim", secret.sub, 0)
                    if seat == 0 or len(call.seats) > rules.SEATS:
                        self.wrong.append(f"{call_id}: an extra seat")
                case Release():
                    call.read(entry.revision, "release", secret.sub, 0)
                case Report(state=state):
                    call.arrived = call.arrived or state == "arrived"
                case Ending(at=at):
                    call.read(entry.revision, "end", None, 1000 + (at - NOON_MS) / 1000)
        return call


class Phone:
    """A responder's phone, as the contract requires it: it comes back with `holding`, and repeats an `accept`.

    A person who has declined declines again when the call or its task comes again.
    """

    def __init__(self, node, sub, metres, quals, held):
        self.node, self.sub, self.quals = node, sub, frozenset(quals)
        self.here = (PLACE[0] + metres * METRE, PLACE[1], 0.0)
        self.row, self.is_away = -1, False
        self.held = dict(held)
        self.shows = dict.fromkeys(held, "call")
        self._declined, self._wants, self._report = set(), {}, None
        self._lines, self._back_at = 0, 0.0
        self._again = []  # calls to decline again

    # ---- what the person does --------------------------------------------------------------------------------------

    def accept(self, call_id):
        """Accept a call, until there is an answer."""
        self._declined.discard(call_id)
        self._wants[call_id] = 0.0
        self.live()

    def decline(self, call_id):
        """Decline a call."""
        self._declined.add(call_id)
        for each in (self._wants, self.shows, self.held):
            each.pop(call_id, None)
        self._again.append(call_id)
        self.live()

    def report(self, call_id, state):
        """Report progress."""
        self._report = call_id, state
        self._say(self.node.calls.report, *self._report)

    def acknowledge(self, call_id):
        """Acknowledge the revision that it shows."""
        if call_id in self.held:
            self._say(self.node.hub.acknowledge, call_id, self.held[call_id])

    def leave(self):
        """Go away."""
        self.is_away = True
        self.drop()

    # ---- the connection --------------------------------------------------------------------------------------------

    def live(self):
        """Come back, and say what has to be said."""
        now = self.node.clock.now()
        if self.row < 0 and not self.is_away and now.monotonic >= self._back_at:
            self._connect(now)
        if self.row >= 0:
            self.node.hub.note_read(self.row, now)
        for call_id, said_at in [*self._wants.items()]:
            if self.row >= 0 and now.monotonic >= said_at + ANSWER_S:
                self._wants[call_id] = now.monotonic
                self._link.declined.discard(call_id)
                self._told = Counter(
                    {each: count for each, count in self._told.items() if each[:2] != (call_id, "task")}
                )
                self._say(self.node.hub.accept, call_id, 60)
        while self._again and self.row >= 0:
            self._link.declined.add(self._again[0])
            self._say(lambda row, call_id, _now: self.node.calls.decline(row, call_id), self._again.pop(0))

    def _connect(self, now):
        self._lines += 1
        self._link = rules.Link(self.sub, set(self.quals), False, self.here)
        self._link.sent = {call_id: [("call", number)] for call_id, number in self.held.items()}
        self._told = Counter()
        self._wants = dict.fromkeys(self._wants, 0.0)
        line = SimpleNamespace(write=functools.partial(self._take, self._lines), descriptor=-1, abort=self.drop)
        rights = FakeRights(sub=self.sub, quals=self.quals)
        try:
            self.row = self.node.hub.enter(line, JSON, [self.here], EVERYTHING, rights, self.held, now, 0)
        except Injected:
            self._back_at = now.monotonic + BACK_S
            return
        self._say(self.node.hub.reply_with_owed, {"type": "welcome"})
        if self._report is not None:
            self._say(self.node.calls.report, *self._report)

    def _say(self, what, *args):
        """Pass a message of this phone to the hub; an exception ends the connection."""
        if self.row >= 0:
            try:
                what(self.row, *args, self.node.clock.now())
            except Injected:
                self.drop()

    def drop(self):
        """Lose the connection."""
        row, self.row = self.row, -1
        self._back_at = self.node.clock.monotonic + BACK_S
        if row >= 0:
            try:
                self.node.hub.leave(row)
            except Injected:
                self.node.hub.silence(row)

    # ---- what it is sent -------------------------------------------------------------------------------------------

    def _take(self, line, data):
        assert line == self._lines, "a write to a connection that has ended"
        for message in messages(data):
            match message["type"]:
                case "call":
                    self._hear(message["call"]["id"], "call", message["call"]["revision"])
                case "task" | "standdown" as kind:
                    self._hear(message["id"], kind, message.get("revision") or message["reason"])

    def _hear(self, call_id, kind, what):
        self._told[call_id, kind, what] += 1
        if kind != "standdown" and self._told[call_id, kind, what] > 1:
            self.node.wrong.append(f"{self.sub}: {kind} {what} of {call_id} twice")
        self._link.sent.setdefault(call_id, []).append((kind, what))
        if not self.quals & rules.QUALS or abs(self.here[0] - PLACE[0]) > FARTHEST:
            self.node.wrong.append(f"{self.sub} is sent {kind} of {call_id}")
        if kind == "task" and not self._has_had_a_seat(call_id):
            self.node.wrong.append(f"{self.sub} is sent the place of {call_id}")
        if kind == "standdown" or call_id in self._declined:
            self.shows.pop(call_id, None)
            self.held.pop(call_id, None)
        else:
            self.shows[call_id] = kind
            self.held[call_id] = max(what, self.held.get(call_id, 0))
        if kind != "call":
            self._wants.pop(call_id, None)
        if kind != "standdown" and call_id in self._declined:
            self._again.append(call_id)

    def _has_had_a_seat(self, call_id):
        on, self.node.faults.on = self.node.faults.on, False
        entries = opened_chain(KEYS, self.node.log._history[call_id]).entries
        self.node.faults.on = on
        return any(isinstance(body, Acceptance) and secret.sub == self.sub for _, body, secret in entries)

    def lacks(self, calls):
        """Return what this phone lacks, or shows wrongly, if the calls are these."""
        now = self.node.clock.now()
        if self.row < 0:
            return []
        found = [f"the accept of {call_id} is not answered" for call_id in self._wants]
        for call in calls.values():
            if now.wall_ms >= call.expires_at:
                self.shows.pop(call.id, None)
                self.held.pop(call.id, None)
                self._wants.pop(call.id, None)
                continue
            if missing := rules.due(call, self._link, calls, now.monotonic):
                found.append(f"lacks {missing} of {call.id}")
            shown, has_seat = self.shows.get(call.id), call.ended_s is None and self.sub in call.seats
            if (shown == "task") != has_seat or (shown and call.ended_s is not None):
                found.append(f"shows {shown} of {call.id}; seats: {sorted(call.seats)}, ended: {call.ended_s}")
        return [f"{self.sub}: {each}" for each in found]
