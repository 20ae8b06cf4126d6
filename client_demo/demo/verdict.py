"""Judges the deliveries in the demo: did everybody who had to get an alert get it, and nobody else? No I/O.

The judge follows the protocol ("Who is sent what") with a distance formula of its own (haversine), and uses nothing of
a node's code. It reads the events that `crowd` has recorded for each subscriber. Times are in ns of one monotonic
clock.

Rule 1  The node answers a move with `ok`. A delivery before the `ok` is judged by the old places, and a delivery after
        it by the new places. So each delivery can be judged exactly, even if the subscriber moves.
Rule 2  A stay is the time between the `ok` of one move and the sending of the next. A subscriber *had to* get a
        revision if, during a stay inside the area, the revision was accepted and not yet replaced or cancelled. That
        also holds for a subscriber who walks into the area later. In the demo nobody moves from the publication of an
        alert until everybody inside has it (at most 2 s), so no stay is too short for a node to notice.
Rule 3  A subscriber who has got a revision has to get every later revision and the cancellation: at once while
        connected, otherwise after reconnecting and saying in `holding` what it has.
Rule 4  Within 1 cm of the edge of an area, both are right: that the subscriber got the alert, and that it did not. Such
        a delivery counts as expected only if it happened.
Rule 5  A latency is measured from the sending of the request, for subscribers who were inside then. A delivery to a
        subscriber who walks in later has no latency.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from client_demo.python.geo import EDGE_M, Place, Shape, depth_m

Key = tuple[str, int]  # id, revision
Event = Sequence[Any]  # (kind, time in ns, more), see crowd.Subscriber


@dataclass(frozen=True, slots=True)
class Published:
    """A revision, or a cancellation (if `area` is None), that a node has accepted.

    `sent` and `accepted` are the times of the request and of the answer, in ns of the monotonic clock.
    """

    id: str
    revision: int
    area: Sequence[Shape] | None
    sent: int
    accepted: int
    category: str
    text: str

    @property
    def key(self) -> Key:
        """The id of the alert, and the number of the revision."""
        return self.id, self.revision


@dataclass(slots=True)
class Row:
    """The verdict on one revision or cancellation: numbers of subscribers, and latencies in ms."""

    published: Published
    until: int  # when the revision was replaced, or observation ended (ns)
    expected: int = 0
    delivered: int = 0
    outside: int = 0
    missed: int = 0
    later: int = 0
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def stored_ms(self) -> float:
        """The time from the request to the answer. Most of it is the time that the node needs to write to its disk."""
        return (self.published.accepted - self.published.sent) / 1e6

    @property
    def told_ms(self) -> list[float]:
        """The time from the answer to each delivery; 0 for a delivery that came before the answer."""
        return [max(0.0, each - self.stored_ms) for each in self.latencies_ms]


@dataclass(slots=True)
class _Stay:
    """A stay: a time during which the subscriber had the same list of places, `steps[step]`, on one connection."""

    start: int
    step: int
    end: int


@dataclass(slots=True)
class _Connection:
    """One connection of a subscriber: the alerts that it said it already had (`held`), its stays and its deliveries."""

    start: int
    held: Mapping[str, int]
    end: int
    stays: list[_Stay]
    got: dict[Key, int] = field(default_factory=dict)  # (id, revision) -> time of delivery

    def leave(self, at: int) -> None:
        """End the last stay, because a move was sent or the connection was lost.

        From then on the node may use the old or the new places.
        """
        self.stays[-1].end = min(at, self.stays[-1].end)

    def newest(self, alert_id: str) -> int:
        """Return the newest revision of an alert that the subscriber has received; 0 if there is none.

        That includes the revisions sent on this connection, and those listed in the `holding` at its start.
        """
        sent = (revision for known, revision in self.got if known == alert_id)
        return max(max(sent, default=0), self.held.get(alert_id, 0))

    def had_earlier(self, item: Published) -> bool:
        """Return whether the subscriber had an earlier revision of the alert when this one was sent.

        The earlier one may have been sent on this connection, or be listed in the `holding` at its start.
        """
        sent = (
            at < item.sent
            for (known, revision), at in self.got.items()
            if known == item.id and revision < item.revision
        )
        return any(sent) or 0 < self.held.get(item.id, 0) < item.revision


class _Subscriber:
    """A subscriber under judgement: its places and connections, and which of its deliveries were right or wrong."""

    def __init__(self, steps: Sequence[Sequence[Place]]) -> None:
        self._steps = steps
        self._depths: dict[tuple[int, Key], float] = {}
        self.connections: list[_Connection] = []
        self.right: set[Key] = set()
        self.wrong: set[Key] = set()

    def depth(self, stay: _Stay, item: Published) -> float:
        """Return how far inside the area, in metres, the subscriber was during this stay.

        A negative value means outside.
        """
        where = stay.step, item.key
        if where not in self._depths:
            self._depths[where] = depth_m(item.area or (), self._steps[stay.step])
        return self._depths[where]

    def had_to_get(self, row: Row) -> bool:
        """Return whether the subscriber had to receive a revision or cancellation (Rules 2 and 3)."""
        return any(self._had_to_get(link, row) for link in self.connections)

    def _had_to_get(self, link: _Connection, row: Row) -> bool:
        item = row.published
        if link.held.get(item.id, 0) >= item.revision:
            return False
        if link.start < row.until and item.accepted < link.end and link.had_earlier(item):
            return True
        return item.area is not None and any(
            stay.start < row.until and item.accepted < stay.end and self.depth(stay, item) > EDGE_M
            for stay in link.stays
        )


class DeliveryCheck:
    """Judges the deliveries to subscribers, one subscriber after the other.

    `end` is the time at which the observation ended, in ns of the monotonic clock.
    """

    def __init__(self, published: Iterable[Published], end: int) -> None:
        self._end = end
        self.rows: dict[Key, Row] = {}  # in the order of publication
        self.faults: list[str] = []  # other faults: sent twice, out of order, never published
        in_order = sorted(published, key=lambda item: item.sent)
        replaced_at = {(item.id, item.revision - 1): item.sent for item in in_order}
        for item in in_order:
            self.rows[item.key] = Row(item, replaced_at.get(item.key, end))

    def take(self, steps: Sequence[Sequence[Place]], events: Iterable[Event]) -> None:
        """Judge one subscriber.

        `steps` are its lists of places, in the order in which it moves; `events` is its record.
        """
        subscriber = _Subscriber(steps)
        for event in events:
            self._follow(subscriber, event)
        for row in self.rows.values():
            self._count(subscriber, row)

    def _follow(self, subscriber: _Subscriber, event: Event) -> None:
        what, at, *rest = event
        links = subscriber.connections
        match what:
            case "hello":
                links.append(_Connection(at, rest[1], self._end, [_Stay(at, rest[0], self._end)]))
            case "move":
                links[-1].leave(at)
            case "ok":
                links[-1].stays.append(_Stay(at, rest[0], self._end))
            case "lost":
                links[-1].leave(at)
                links[-1].end = at
            case "alert" | "cancel":
                self._receive(subscriber, (rest[0], rest[1]), at)

    def _receive(self, subscriber: _Subscriber, key: Key, at: int) -> None:
        """Record a delivery, and whether the subscriber was allowed to get it at its places at that time (Rule 1)."""
        row, link = self.rows.get(key), subscriber.connections[-1]
        newest, stay = link.newest(key[0]), link.stays[-1]
        if row is None or key[1] <= newest:
            what = "was never published" if row is None else "was sent again, or after a newer one"
            self.faults.append(f"{key[0]} revision {key[1]} {what}")
            return
        link.got[key] = at
        item = row.published
        if not newest and (item.area is None or subscriber.depth(stay, item) < -EDGE_M):
            subscriber.wrong.add(key)
            return
        subscriber.right.add(key)
        was_there = link.start if newest else stay.start
        if was_there <= item.sent:
            row.latencies_ms.append((at - item.sent) / 1e6)
        else:
            row.later += 1

    @staticmethod
    def _count(subscriber: _Subscriber, row: Row) -> None:
        key = row.published.key
        had_to = subscriber.had_to_get(row)
        row.expected += had_to or key in subscriber.right
        row.delivered += key in subscriber.right or key in subscriber.wrong
        row.outside += key in subscriber.wrong
        row.missed += had_to and key not in subscriber.right


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value such that at least the fraction `share` of the values are not larger.

    Return 0 if there are no values.
    """
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else 0.0
