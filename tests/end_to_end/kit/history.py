"""A record of requests and received messages while faults happened, and its verdict, in the manner of Jepsen.

A history has *operations* (publish, revise, cancel; each ends as ok, fail or unknown) and *visits* (one connection of
one client: its places, its `holding`, and all messages in order). When all faults are over, the final state of every
client is recorded (*final*) and every node is asked for every alert (*states*). The violations are:

    lost         at the end a client does not hold the current revision of an acknowledged, live alert that applies to
                 it or was sent to it before; or the nodes do not know an acknowledged operation
    outside      a client received an alert that does not concern it or that nobody published, or a node lists an
                 alert that nobody published
    stale        a message arrived after the alert's end, its cancel or a newer revision, or a client holds an ended or
                 superseded revision at the end (a node whose wall clock is behind may be late by that difference)
    duplicates   an (id, revision) arrived twice on one connection, or although it was in the client's `holding`
    divided      nodes disagree; an operation of unknown outcome has happened for all nodes or for none
    calls        a violation about seats, tasks, rings or exact places (`call_history.py`)

Geometry is that of `end_to_end.kit.earth`, over the published areas that the contract prescribes. Times are wall-clock
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
"""The longest time, in seconds, until this process reads a received byte on a machine that is busy with faults."""


class Outcome(enum.Enum):
    """The publisher's knowledge of an operation's result."""

    OK = "ok"
    FAIL = "fail"  # the operation did not happen
    UNKNOWN = "unknown"


@dataclass
class Operation:
    """A requested entry of the log. A cancel has no area, and ends when its alert does."""

    id: str
    revision: int
    area: list[Json] | None
    ends: float
    outcome: Outcome = Outcome.UNKNOWN
    acknowledged: float = float("inf")
    """When the publisher received the acknowledgement."""

    def acknowledge(self, at: float) -> None:
        """Record that the publisher knows the operation has happened."""
        self.outcome = Outcome.OK
        self.acknowledged = min(self.acknowledged, at)

    @property
    def cancels(self) -> bool:
        return self.area is None


@dataclass(frozen=True)
class Came:
    """A received revision or cancel."""

    id: str
    revision: int
    at: float
    cancels: bool = False
    behind: float = 0.0
    """The sum of the seconds by which the node's wall clock was behind and those the message may have waited unread."""


@dataclass
class Visit:
    """One connection. An event is a list of places (after a `hello` or `move`) or a received message."""

    client: str
    holding: dict[str, int]
    settled: bool = False
    """Whether the connection began after all faults were over, so that no superseded revision may arrive."""
    events: list[list[Json] | Came] = field(default_factory=list)


@dataclass
class Final:
    """The state of a client at the end: its places, and the alerts that it holds."""

    client: str
    places: list[Json]
    held: dict[str, int]
    at: float


@dataclass
class Verdict:
    """All violations, as sentences."""

    lost: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    divided: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Return whether there are no violations."""
        return not any(vars(self).values())

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {len(found)}" for name, found in vars(self).items())
        return "\n  ".join([counts, *(f"{name}: {each}" for name, found in vars(self).items() for each in found[:20])])


@dataclass
class History:
    """The record of a run; see the module."""

    operations: dict[tuple[str, int], Operation] = field(default_factory=dict)
    chains: dict[str, list[Operation]] = field(default_factory=dict)
    """The operations of each alert, in the order of the requests."""
    visits: list[Visit] = field(default_factory=list)
    finals: list[Final] = field(default_factory=list)
    states: dict[str, dict[str, int | None]] = field(default_factory=dict)
    """For each node: the live revision of each alert, None for an unknown, cancelled or expired alert."""
    asked_at: float = 0.0
    """When the nodes were asked for their states."""
    lost_by_log: list[str] = field(default_factory=list)
    """Acknowledged entries that the log has lost, where it may: the alert's id and the number."""
    calls: CallHistory = field(default_factory=CallHistory)
    outages: list[Outage] = field(default_factory=list)

    def invoke(self, alert_id: str, revision: int, area: list[Json] | None, ends: float) -> Operation:
        """Record that an operation begins; its outcome is unknown until it is acknowledged."""
        operation = Operation(alert_id, revision, area, ends)
        self.operations[alert_id, revision] = operation
        self.chains.setdefault(alert_id, []).append(operation)
        return operation

    def log_has_lost(self, alert_id: str, last: int) -> None:
        """Record that the log has lost every acknowledged entry of an alert after the number `last`.

        With `--log-replicas N` this may happen if a replica takes over that is not one of the N.
        """
        for operation in self.chains[alert_id]:
            if operation.revision > last and operation.outcome is Outcome.OK:
                operation.outcome, operation.acknowledged = Outcome.UNKNOWN, float("inf")
                self.lost_by_log.append(f"{alert_id} {operation.revision}")

    def visit(self, client: str, holding: dict[str, int]) -> Visit:
        """Record that a connection begins."""
        self.visits.append(Visit(client, dict(holding)))
        return self.visits[-1]

    def judge(self, *, finals_only: bool = False) -> Verdict:
        """Return the verdict, or with `finals_only` only that on the final state, to see if clients have caught up."""
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
                verdict.stale += [f"{visit.client} connected after all faults, but was sent {came}" for came in old]
        for final in self.finals:
            self._judge_final(final, decided, verdict)
        return verdict

    def story(self, alert_id: str) -> str:
        """Return everything known about one alert, for the investigation of a violation."""
        lines = [str(operation) for operation in self.chains[alert_id]]
        for visit in self.visits:
            came = [event for event in visit.events if isinstance(event, Came) and event.id == alert_id]
            if came or alert_id in visit.holding:
                lines.append(f"{visit.client}, holding {visit.holding.get(alert_id)}: {came}")
        return "\n".join(lines)

    # -- the log

    def allowed(self, alert_id: str) -> set[int | None]:
        """Return the live revisions that the log may have, given the answers; None stands for an ended alert.

        The operations on one alert follow each other. So all operations up to the last acknowledged one have happened,
        and later ones with consecutive numbers and an unknown outcome may have happened.
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
                where.append(f"{alert_id}: the nodes have {revision}, allowed are {allowed}")
            yield alert_id, revision

    def ending(self, alert_id: str, at: float) -> bool:
        """Return whether an alert ends before `at` or so soon after it that no client has to get the alert."""
        return any(operation.ends < at + SLACK_S for operation in self.chains[alert_id])

    # -- received messages

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

    # -- the final state

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
