"""What was asked for and what was seen, while things broke; and the verdict on it, in Jepsen's way.

A history has *operations* (publish, revise, cancel; each ends ok, fail or unknown) and *visits* (one connection of one
client: where it was, what it said it holds, all that came, in order). When everything is healed, every client is read
once more (*final*), and every node is asked for every alert (*states*). Then:

    lost         an acknowledged, live alert applies to a client at the end, or the client was told of it before, and
                 the client doesn't hold its current revision; or the nodes don't know what was acknowledged
    outside      an alert came to somebody it does not concern, or one that nobody published; or a node lists such a one
    stale        something came after its end or its cancel, or after a newer revision, or is held at the end though
                 it has ended or is superseded. (A node whose wall clock is behind may be as much too late.)
    duplicates   an (id, revision) came twice on one connection, or to somebody who said that he holds it
    divided      nodes disagree. An unknown operation may have happened or not, but then for everybody
    calls        a seat, a task, a ring or an exact place that is not as the contract has it (`call_history.py`)

Geometry is `end_to_end.kit.earth`'s, over the published areas that the contract prescribes; times are wall-clock
seconds.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from end_to_end.kit.call_history import CallHistory
from end_to_end.kit.earth import inside
from end_to_end.kit.outages import Outage, read_by_all

Json = dict[str, Any]

SLACK_S = 2.0
"""Between a byte handed to the kernel and this process's reading it, on a machine that is busy with faults."""


"""No node is kept from the log for so long, however faults follow one another."""


class Outcome(enum.Enum):
    """What the publisher knows of an operation."""

    OK = "ok"
    FAIL = "fail"  # it did not happen
    UNKNOWN = "unknown"


@dataclass
class Operation:
    """One entry of the log, as somebody asked for it. A cancel has no area, and ends when its alert does."""

    id: str
    revision: int
    area: list[Json] | None
    ends: float
    outcome: Outcome = Outcome.UNKNOWN
    acknowledged: float = float("inf")
    """When the publisher knew of it."""

    def acknowledge(self, at: float) -> None:
        """It has happened, and the publisher knows it."""
        self.outcome = Outcome.OK
        self.acknowledged = min(self.acknowledged, at)

    @property
    def cancels(self) -> bool:
        return self.area is None


@dataclass(frozen=True)
class Came:
    """A message of a node: a revision, or a cancel."""

    id: str
    revision: int
    at: float
    cancels: bool = False
    behind: float = 0.0
    """How far the wall clock of the node was behind then, and for how long it may have waited to be read, in s."""


@dataclass
class Visit:
    """One connection. An event is a list of places from then on (the answer to `hello` or `move`), or what came."""

    client: str
    holding: dict[str, int]
    settled: bool = False
    """It began when all was well again and decided: no old news may come."""
    events: list[list[Json] | Came] = field(default_factory=list)


@dataclass
class Final:
    """A client's last read: where it is, and what it holds."""

    client: str
    places: list[Json]
    held: dict[str, int]
    at: float


@dataclass
class Verdict:
    """Every violation, in words."""

    lost: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    divided: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether all is well."""
        return not any(vars(self).values())

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {len(found)}" for name, found in vars(self).items())
        return "\n  ".join([counts, *(f"{name}: {each}" for name, found in vars(self).items() for each in found[:20])])


@dataclass
class History:
    """See the module."""

    operations: dict[tuple[str, int], Operation] = field(default_factory=dict)
    chains: dict[str, list[Operation]] = field(default_factory=dict)
    """The same, by alert, in the order in which they were asked for."""
    visits: list[Visit] = field(default_factory=list)
    finals: list[Final] = field(default_factory=list)
    states: dict[str, dict[str, int | None]] = field(default_factory=dict)
    """Per node: the live revision of each alert, None for one that is unknown, cancelled or expired."""
    asked_at: float = 0.0
    """When the nodes were asked for their states."""
    calls: CallHistory = field(default_factory=CallHistory)
    outages: list[Outage] = field(default_factory=list)

    def invoke(self, alert_id: str, revision: int, area: list[Json] | None, ends: float) -> Operation:
        """An operation begins; its outcome is unknown until somebody says otherwise."""
        operation = Operation(alert_id, revision, area, ends)
        self.operations[alert_id, revision] = operation
        self.chains.setdefault(alert_id, []).append(operation)
        return operation

    def visit(self, client: str, holding: dict[str, int]) -> Visit:
        """A connection begins."""
        self.visits.append(Visit(client, dict(holding)))
        return self.visits[-1]

    def judge(self, *, finals_only: bool = False) -> Verdict:
        """The verdict; or only on what is held at the end, to see whether everybody has got there."""
        verdict = Verdict(calls=self.calls.judge(finals_only=finals_only))
        for node, live in self.states.items():
            verdict.outside += [
                f"{node} lists {each}, which nobody published" for each in live.keys() - self.chains.keys()
            ]
        decided = dict(self._decided(verdict))
        for visit in [] if finals_only else self.visits:
            self._judge_visit(visit, verdict)
            if visit.settled:
                old = [came for came in visit.events if isinstance(came, Came) and self._is_old(came, decided)]
                verdict.stale += [f"{visit.client} came when all was settled, and was sent {came}" for came in old]
        for final in self.finals:
            self._judge_final(final, decided, verdict)
        return verdict

    def story(self, alert_id: str) -> str:
        """All that is known of one alert, for whoever has to find out."""
        lines = [str(operation) for operation in self.chains[alert_id]]
        for visit in self.visits:
            came = [event for event in visit.events if isinstance(event, Came) and event.id == alert_id]
            if came or alert_id in visit.holding:
                lines.append(f"{visit.client}, holding {visit.holding.get(alert_id)}: {came}")
        return "\n".join(lines)

    # -- what the log holds

    def allowed(self, alert_id: str) -> set[int | None]:
        """The live revisions that the log may have, given what was answered; None where it may have ended.

        The operations on one alert follow each other. So all up to the last that was acknowledged have happened, and
        those behind it, as far as their numbers go on and their outcome is unknown, may have.
        """
        mine = self.chains[alert_id]
        acknowledged = max((op.revision for op in mine if op.outcome is Outcome.OK), default=0)
        allowed: set[int | None] = set() if acknowledged else {None}
        for operation in mine:
            if operation.revision < acknowledged:
                continue
            if operation.outcome is Outcome.FAIL:
                break
            allowed.add(None if operation.cancels else operation.revision)
        return allowed

    def _decided(self, verdict: Verdict) -> Iterator[tuple[str, int | None]]:
        for alert_id in self.chains:
            if self.ending(alert_id, self.asked_at):
                continue
            said = {node: states.get(alert_id) for node, states in self.states.items()}
            if len(set(said.values())) > 1:
                verdict.divided.append(f"{alert_id}: {said}")
                continue
            revision = next(iter(said.values()))
            if revision not in (allowed := self.allowed(alert_id)):
                back = revision is not None and (allowed == {None} or revision > max(n or 0 for n in allowed))
                where = verdict.stale if back else verdict.lost
                where.append(f"{alert_id}: the nodes have {revision}, acknowledged was {allowed}")
            yield alert_id, revision

    def ending(self, alert_id: str, at: float) -> bool:
        """Whether the alert ends so near to a moment, or ended before it, that none of it is owed."""
        return any(operation.ends < at + SLACK_S for operation in self.chains[alert_id])

    # -- what came

    def _judge_visit(self, visit: Visit, verdict: Verdict) -> None:
        places: list[Json] = []
        newest = dict(visit.holding)
        came: set[tuple[str, int]] = set()
        over: set[str] = set()
        for event in visit.events:
            if isinstance(event, list):
                places = event
                continue
            what = f"{visit.client} was sent {event.id} {'cancel ' * event.cancels}{event.revision}"
            operation = self.operations.get((event.id, event.revision))
            if operation is None or operation.outcome is Outcome.FAIL or operation.cancels != event.cancels:
                verdict.outside.append(f"{what}, which nobody published")
                continue
            if event.at - event.behind > operation.ends + SLACK_S:
                verdict.stale.append(f"{what} {event.at - operation.ends:.1f} s after its end")
            elif (later := self.operations.get((event.id, event.revision + 1))) and event.at > read_by_all(
                later.acknowledged, self.outages
            ):
                verdict.stale.append(f"{what} {event.at - later.acknowledged:.1f} s after {later.revision}")
            if (event.id, event.revision) in came or newest.get(event.id) == event.revision:
                verdict.duplicates.append(f"{what} again")
            elif event.id in over:
                verdict.stale.append(f"{what} after its cancel")
            elif event.id in newest:
                if event.revision < newest[event.id]:
                    verdict.stale.append(f"{what} after {newest[event.id]}")
            elif event.cancels or inside(places, operation.area or []) is False:
                verdict.outside.append(f"{what}, which does not concern it")
            came.add((event.id, event.revision))
            newest[event.id] = max(event.revision, newest.get(event.id, 0))
            if event.cancels:
                over.add(event.id)

    @staticmethod
    def _is_old(came: Came, decided: dict[str, int | None]) -> bool:
        return came.id in decided and decided[came.id] != (None if came.cancels else came.revision)

    # -- what is held at the end

    def _judge_final(self, final: Final, decided: dict[str, int | None], verdict: Verdict) -> None:
        for key in final.held.items():
            if (known := self.operations.get(key)) and known.ends < final.at - SLACK_S:
                verdict.stale.append(f"{final.client} holds {key}, which has expired")
        for alert_id, revision in decided.items():
            if self.ending(alert_id, final.at):
                continue
            held, operation = final.held.get(alert_id), self.operations.get((alert_id, revision or 0))
            if held == revision:
                continue
            if operation is None:
                verdict.stale.append(f"{final.client} holds {alert_id} {held}, which has ended")
            elif held is not None and held > operation.revision:
                verdict.lost.append(f"{final.client} holds {alert_id} {held}, and the nodes have {revision} only")
            elif held is not None:
                verdict.stale.append(f"{final.client} holds {alert_id} {held}, superseded by {revision}")
            elif inside(final.places, operation.area or []):
                verdict.lost.append(f"{final.client} does not hold {alert_id} {revision}")
