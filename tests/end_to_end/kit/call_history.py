"""A record of dispatchers' requests and of messages to responders while faults happened, with its checks.

The record works in the same way as `history.py`, whose verdict has a line `calls` for it. The checks follow the
contract alone (call-rules.md):

    seats    at the end no more seats are held than the call has, except for claims that were restored after a failover
             (RV7); each seat is held by a different responder; all nodes agree
    tasks    only a responder who has accepted gets a task; a connection gets a revision at most once more than it sent
             accepts; its place is one that the call had. At the end every session of a seat holder shows the newest
             task, and no other session shows a task
    rings    only qualified responders within the search radius are notified; each revision once on a connection, in
             rising order; nothing follows `over`, the end or `expires_at`. At the end every session that the call
             concerns shows the newest revision; none shows a call that is full or over
    places   no frame except `task` contains an exact place

Events have times of this process's clock. If a check depends on time, messages from a node with a wrong clock do not
count as violations.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from end_to_end.kit.earth import EDGE_M, distance
from end_to_end.kit.outages import Outage, read_by_all

Json = dict[str, Any]

SLACK_S = 2.0
MOST_REACH_M = 500.0
"""The part of a place's inaccuracy that counts for calls, in metres at most (rule RQ5)."""


class Terms(NamedTuple):
    """The policy for the calls of a run; `quals` are the qualifications for each kind of place."""

    quals: dict[str, frozenset[str]]
    rings_m: tuple[int, ...]
    seats: int


class Said(NamedTuple):
    """An `accept` or `decline` that a responder sent."""

    kind: str
    id: str


class Heard(NamedTuple):
    """A received message and its time.

    `off`: whether the node's clock was wrong at that time or a moment before. `late_s`: seconds for which the message
    may have waited to be read.
    """

    message: Json
    at: float
    off: bool = False
    late_s: float = 0.0


@dataclass
class CallVisit:
    """One connection of a responder.

    A dict among the events is the responder's place from then on; None means off duty.
    """

    client: str
    sub: str
    quals: frozenset[str]
    holding: dict[str, int]
    events: list[Json | Said | Heard | None] = field(default_factory=list)

    def messages(self) -> Iterator[Json]:
        """Return the received messages in order."""
        return (event.message for event in self.events if isinstance(event, Heard))

    def said(self) -> Iterator[Said]:
        """Return the sent accepts and declines in order."""
        return (event for event in self.events if isinstance(event, Said))


@dataclass
class Asked:
    """A call as its dispatcher requested it."""

    id: str
    kind: str
    ends: float
    places: list[Json] = field(default_factory=list)
    """The places of its successive contents. All requests except perhaps the last were acknowledged."""
    nears: list[Json] = field(default_factory=list)
    opened: bool = False
    """Whether a node acknowledged the call."""
    waits: bool = True
    ended: float = float("inf")
    """When the dispatcher learned that the call is over."""
    may_have_ended: bool = False


@dataclass
class CallFinal:
    """The state of a responder at the end: its place, and the call or task that it shows for each call.

    `deaf`: the calls that the responder has declined.
    """

    client: str
    sub: str
    quals: frozenset[str]
    here: Json | None
    shown: dict[str, Json]
    deaf: set[str]
    at: float


@dataclass
class CallHistory:
    """The record of all calls of a run; see the module."""

    terms: Terms | None = None
    asked: dict[str, Asked] = field(default_factory=dict)
    visits: list[CallVisit] = field(default_factory=list)
    finals: list[CallFinal] = field(default_factory=list)
    states: dict[str, dict[str, Json | None]] = field(default_factory=dict)
    """For each node: its state of each call, None for an unknown call."""
    asked_at: float = 0.0
    """When the nodes were asked for their states."""
    leaks: list[str] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    put_back: set[tuple[str, str]] = field(default_factory=set)
    """The claims, as (id, `sub`), that were lost and that the log restored under another number."""
    may_lose: bool = False
    """Whether the log may lose entries. Only lost ends and claims are restored, so a search radius may have been wider
    than it is in the log (rule LogF4)."""

    def open(self, call_id: str, place: Json, near: Json, ends: float) -> Asked:
        """Record that a dispatcher requests a call."""
        self.asked[call_id] = Asked(call_id, place["kind"], ends, [place], [near])
        return self.asked[call_id]

    def visit(self, client: str, sub: str, quals: frozenset[str], holding: dict[str, int]) -> CallVisit:
        """Record that a connection begins."""
        self.visits.append(CallVisit(client, sub, quals, dict(holding)))
        return self.visits[-1]

    def judge(self, *, finals_only: bool = False) -> list[str]:
        """Return a sentence for each violation; with `finals_only`, only for those in the final state."""
        found = [] if finals_only else [*self.leaks, *(each for visit in self.visits for each in self._of_visit(visit))]
        decided = {}
        for call_id, asked in self.asked.items():
            said = [states.get(call_id) for states in self.states.values()]
            if said and all(_outline(each) == _outline(said[0]) for each in said):
                found += self._of_state(asked, said[0])
                decided[call_id] = said[0]
            elif said:
                found.append(f"{call_id}: the nodes disagree: {said}")
        busy = {seat["responder"] for state in decided.values() if _open(state) for seat in state["seats"]}
        for final in self.finals:
            found += self._of_final(final, decided, final.sub in busy)
        return found

    def story(self, call_id: str) -> str:
        """Return everything known about one call, for the investigation of a violation."""
        lines = [str(self.asked[call_id]), *(f"{node}: {states.get(call_id)}" for node, states in self.states.items())]
        for visit in self.visits:
            came = [
                (round(event.at, 2), event.message) if isinstance(event, Heard) else event
                for event in visit.events
                if (isinstance(event, Said) and event.id == call_id)
                or (isinstance(event, Heard) and _id(event.message) == call_id)
            ]
            if came or call_id in visit.holding:
                lines.append(f"{visit.client} ({visit.sub}), holding {visit.holding.get(call_id)}: {came}")
        return "\n".join(lines)

    # -- the final states of the nodes

    def _of_state(self, asked: Asked, state: Json | None) -> Iterator[str]:
        if state is None:
            if asked.opened and asked.ends > self.asked_at + SLACK_S:
                yield f"{asked.id}: the call was opened, but no node knows it"
            return
        content = next(iter([n for n, near in enumerate(asked.nears) if near == state["call"]["near"]][-1:]), None)
        if content is None:
            yield f"{asked.id}: `near` is {state['call']['near']}, which nobody requested"
        if asked.ended < float("inf") and state["state"] not in ("ended", "expired"):
            yield f"{asked.id}: the end was acknowledged, but the state is {state['state']}"
        if state["state"] == "ended" and not asked.may_have_ended:
            yield f"{asked.id}: the call has ended, but nobody requested that"
        if state["state"] == "expired" and asked.ends > self.asked_at + SLACK_S:
            yield f"{asked.id}: the call expired too soon"
        holders = Counter(seat["responder"] for seat in state["seats"])
        numbers = Counter(seat["seat"] for seat in state["seats"])
        assert self.terms is not None
        if holders and max(holders.values()) > 1:
            yield f"{asked.id}: somebody holds two seats: {state['seats']}"
        if any(count > 1 for number, count in numbers.items() if number) or max(numbers, default=0) > self.terms.seats:
            yield f"{asked.id}: more seats are held than there are: {state['seats']}"
        for seat in state["seats"]:
            if seat["seat"] == 0 and (asked.id, seat["responder"]) not in self.put_back:
                yield f"{asked.id}: seat 0, but no claim was restored: {seat}"
            if (seat["responder"], asked.id) not in self._accepted:
                yield f"{asked.id}: {seat['responder']} holds a seat, but never accepted"

    @property
    def _accepted(self) -> set[tuple[str, str]]:
        return {
            (visit.sub, event.id)
            for visit in self.visits
            for event in visit.events
            if isinstance(event, Said) and event.kind == "accept"
        }

    # -- received messages

    def _of_visit(self, visit: CallVisit) -> Iterator[str]:
        here: Json | None = None
        rung, unsure, tasks = dict(visit.holding), dict(visit.holding), Counter[tuple[str, int]]()
        newest: dict[str, int] = {}
        accepts: Counter[str] = Counter()
        over: set[str] = set()
        for event in visit.events:
            if event is None or isinstance(event, dict):
                here = event
            elif isinstance(event, Said):
                accepts[event.id] += event.kind == "accept"
            else:
                message, call_id = event.message, _id(event.message)
                what = f"{visit.client} was sent {message['type']} of {call_id}"
                asked = self.asked.get(call_id)
                if asked is None:
                    if message["type"] != "standdown":
                        yield f"{what}, which nobody opened"
                    continue
                if message["type"] == "standdown":
                    if message["reason"] == "over" and event.off:
                        rung.pop(call_id, None)  # the call is sent again when the clock is right
                        tasks = Counter({key: count for key, count in tasks.items() if key[0] != call_id})
                    elif message["reason"] == "over":
                        over.add(call_id)
                    elif message["reason"] == "left" and rung.get(call_id) == visit.holding.get(call_id):
                        rung[call_id] = 0  # it reconnected with a task, so the call may be sent again (HD18)
                    continue
                if call_id in over:
                    yield f"{what} after `over`"
                sent = event.at - event.late_s
                if sent > read_by_all(asked.ended, self.outages) or (sent > asked.ends + SLACK_S and not event.off):
                    yield f"{what} after its end"
                if message["type"] == "task":
                    key = (call_id, message["revision"])
                    tasks[key] += 1
                    if (visit.sub, call_id) not in self._accepted_soon:
                        yield f"{what}, but never accepted"
                    if tasks[key] > 1 + accepts[call_id]:
                        yield f"{what}, revision {message['revision']}, {tasks[key]} times"
                    if message["place"] not in asked.places:
                        yield f"{what}, with a place that the call never had"
                    if message["revision"] < newest.get(call_id, 0):
                        yield f"{what}, revision {message['revision']}, after {newest[call_id]}"
                    newest[call_id] = message["revision"]
                    continue
                revision = message["call"]["revision"]
                # What it still shows may be the task of a seat that was given up, so it is sent again, once (HD18).
                may_repeat = revision == unsure.pop(call_id, 0) and (visit.sub, call_id) in self._accepted_soon
                if revision <= rung.get(call_id, 0) and not may_repeat:
                    yield f"{what}, revision {revision}, after {rung[call_id]}"
                if not visit.quals & self._quals(asked):
                    yield f"{what}, but is not qualified"
                if call_id not in rung and not self._within(
                    message["call"]["near"], here, self._widest(call_id, event.at)
                ):
                    yield f"{what}, but is outside the search radius"
                rung[call_id] = revision

    @property
    def _accepted_soon(self) -> set[tuple[str, str]]:
        if self._known is None or self._known[0] != len(self.visits):
            self._known = len(self.visits), self._accepted
        return self._known[1]

    _known: tuple[int, set[tuple[str, str]]] | None = None

    def _quals(self, asked: Asked) -> frozenset[str]:
        assert self.terms is not None
        return self.terms.quals[asked.kind]

    def _widest(self, call_id: str, at: float) -> float:
        """Return the widest search radius, in metres, that may have been in force at a time.

        After the nodes were asked, any radius may be in force.
        """
        assert self.terms is not None
        told = () if self.may_lose or at > self.asked_at - SLACK_S else self.states.values()
        said = [state["ring_m"] for states in told if (state := states.get(call_id))]
        return float(max(said, default=self.terms.rings_m[-1]))

    @staticmethod
    def _within(near: Json, here: Json | None, ring_m: float, margin_m: float = EDGE_M) -> bool:
        if here is None:
            return False
        away = distance((near["lat"], near["lng"]), (here["lat"], here["lng"]))
        reach = min(float(here.get("accuracy_m", 0)), MOST_REACH_M)
        return away <= near["radius_m"] + ring_m + reach + margin_m

    # -- the final states of the responders

    def _of_final(self, final: CallFinal, decided: dict[str, Json | None], busy: bool) -> Iterator[str]:
        for call_id, state in decided.items():
            asked, shown = self.asked[call_id], final.shown.get(call_id)
            who = f"{final.client} ({final.sub})"
            if asked.ends < final.at + SLACK_S:
                continue
            if not _open(state):
                if shown:
                    yield f"{who} shows {shown['type']} of {call_id}, which is over"
                continue
            assert state is not None
            seat = next((seat for seat in state["seats"] if seat["responder"] == final.sub), None)
            if seat is not None:
                if shown is None or shown["type"] != "task":
                    yield f"{who} holds a seat of {call_id}, but shows no task"
                elif shown["seat"] != seat["seat"] or shown["revision"] < state["content"]:
                    yield f"{who} has a task of {call_id} that is not the newest: {shown}, {seat}"
                elif not asked.waits and shown["place"] != asked.places[-1]:
                    yield f"{who} has a task of {call_id} with an older place"
                continue
            if shown and shown["type"] == "task":
                yield f"{who} has a task of {call_id}, but holds no seat"
            elif shown and state["state"] == "full":
                yield f"{who} shows the call {call_id}, which is full"
            elif shown and shown["call"]["revision"] < state["content"]:
                yield f"{who} shows {call_id} {shown['call']['revision']}, and the content is {state['content']}"
            elif (
                state["state"] == "ringing"
                and not busy
                and call_id not in final.deaf
                and final.quals & self._quals(asked)
                and self._within(state["call"]["near"], final.here, state["ring_m"], -EDGE_M)
                and (shown is None or shown["call"]["revision"] != state["call"]["revision"])
            ):
                yield f"{who} is within the radius of {call_id} {state['call']['revision']}, but shows {shown}"


def _id(message: Json) -> str:
    return str(message["call"]["id"] if message["type"] == "call" else message["id"])


def _open(state: Json | None) -> bool:
    return state is not None and state["state"] in ("ringing", "full")


def _outline(state: Json | None) -> Any:
    """Return the part of a call's state on which all nodes must agree; the counts may lag."""
    return state and {key: value for key, value in state.items() if key not in ("rung", "seen", "declined")}
