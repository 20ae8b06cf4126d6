"""Waves of clients that connect, receive alerts, misbehave in every known way, and leave.

After a wave a node may keep some state only for a limited time: `holding` entries of unknown alerts for 30 s, half-open
connections for 10 s, and alerts until they end. Its SQLite log stores the alerts of the last day, of which a few MB are
cached in memory (`Waves.prime` fills these caches).

`Trend` decides whether the samples of memory, one after each wave, grow.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from statistics import NormalDist, median
from typing import Any

from end_to_end.kit.alerts import SEVERITIES, alert, circle, ground, new_id, place, revision_of
from end_to_end.kit.earth import beyond
from end_to_end.kit.endings import ENDINGS, GOODBYES, HANDSHAKES, MISTAKES, Door
from end_to_end.kit.keys import DESK_SCOPE
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import FORMATS, Session
from end_to_end.kit.times import stamp, wait_until
from end_to_end.kit.wire import Wire
from support.flipping import respelled

TOWN_M = 3_000
ALERTS = 8  # alerts of a wave
PRIMED = 1_500  # alerts in the log before the first wave
BAD_REQUESTS = 50  # invalid requests of a wave at the API listener
CATEGORIES = ("burglary", "robbery", "arson", "shooting")


@dataclass
class Waves:
    """Waves of clients against one node.

    `crowd`: sessions in a wave; `refused`: refused handshakes in a wave.
    """

    node: Node
    dice: random.Random
    crowd: int = 400
    refused: int = 600
    connections: int = field(default=0, init=False)  # connections made so far
    seen: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        self.door = Door(self.node.stream_port, self.node.keys)
        self.town = ground()
        self._half_open: list[list[Wire]] = []  # half-open connections of the last waves

    def prime(self) -> None:
        """Fill the caches of the node's log with alerts that end soon and that no session receives."""
        body = alert(self.town, description="x" * 900)
        for _ in range(0, PRIMED, 100):
            ends = {"expires_at": stamp(seconds=10)}
            answers = self.node.at_once("/v1/alerts", [body | ends | {"id": new_id("prime")} for _ in range(100)])
            assert all(answer.status_code == 201 for answer in answers)
            assert self.node.get("/v1/alerts").status_code == 200  # reads all entries of the log

    def wave(self) -> None:
        """Run one wave, from its first connection to its last disconnection."""
        self.door.renew()
        self.node.desk = self.node.keys.token(scope=DESK_SCOPE)
        self._half_open.append(self._open_by_half())
        published = self._publish()
        sessions = [self._join(published) for _ in range(self.crowd)]
        self._publish(told=sessions)
        self._be_refused()
        self._ask_badly()
        self._leave(sessions)
        if len(self._half_open) > 3:
            hang_up(self._half_open.pop(0))  # usually these connections have timed out at the node by now
        self.settle()

    def close(self) -> None:
        """Close all open connections."""
        for wires in self._half_open:
            hang_up(wires)

    def settle(self) -> None:
        """Wait until all connections have ended, except for half-open ones."""
        wait_until(lambda: self._figure("geocast_sessions") == 0, "all sessions are gone")
        half_open = sum(map(len, self._half_open))
        wait_until(lambda: self._figure("geocast_connections") <= half_open, "all connections are gone")
        assert self._figure("geocast_places") == 0
        self.node.assert_no_surprise()

    def rss_kb(self) -> float:
        """Return the resident memory of the node's process, in KiB."""
        assert self.node.process
        pages = int(Path(f"/proc/{self.node.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1024

    def _figure(self, name: str) -> float:
        lines = self.node.get("/metrics").text.splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))

    def _open_by_half(self) -> list[Wire]:
        """Open connections that stop in the middle of the handshake, or right after it."""
        half = [Wire(self.node.stream_port) for _ in range(10)]
        for wire in half[:5]:
            wire.sock.sendall(b"GET /v1/str")
        self.connections += 20
        return [*half, *(self.door.upgraded() for _ in range(10))]

    def _publish(self, told: list[Session] | None = None) -> list[str]:
        """Publish alerts that end in seconds, revise some of them and cancel others.

        Each session in `told` reads the last alert.
        """
        told = told or []
        ids = []
        for number in range(ALERTS):
            body = alert(
                self.town,
                id=new_id("wave"),
                severity=self.dice.choice(SEVERITIES),
                category=self.dice.choice(CATEGORIES),
                area=circle(self.town, 2 * TOWN_M),
                expires_at=stamp(seconds=self.dice.uniform(10, 15)),
            )
            self.node.publish(body)
            ids.append(body["id"])
            if number % 3 == 1:
                self.node.revise(revision_of(body, 2, expires_at=stamp(seconds=16)))
            if number % 3 == 2:
                self.node.cancel(body["id"], 2)
        last = alert(self.town, severity="extreme", area=circle(self.town, 2 * TOWN_M), expires_at=stamp(seconds=60))
        self.node.publish(last)
        for session in told:
            session.listen(last["id"], 1)
            if self.dice.random() < 0.5:
                session.ack(last["id"], 1)
        self.node.cancel(last["id"], 2)
        return [*ids, last["id"]]

    def _join(self, known: list[str]) -> Session:
        """Connect a subscriber in town with a filter, who holds known and unknown alerts."""
        spots = [beyond(self.town, self.dice.uniform(0, 360), self.dice.uniform(0, TOWN_M)) for _ in range(2)]
        unknown = [f"never-{self.dice.randrange(10**9)}" for _ in range(self.dice.randrange(8))]
        holding = {alert_id: self.dice.randint(1, 3) for alert_id in [*self.dice.sample(known, 3), *unknown]}
        filters: dict[str, Any] = {}
        if self.dice.random() < 0.5:  # a filter that no other session has
            filters = {"categories": [*CATEGORIES, f"own_{self.dice.randrange(10**9)}"], "min_severity": "minor"}
        self.connections += 1
        session = Session(self.node, self.dice.choice(FORMATS))
        session.hello([place(spot) for spot in spots], token=self.door.token, holding=holding, **filters)
        return session

    def _be_refused(self) -> None:
        """Make invalid handshakes, and end one connection in each invalid and each valid way."""
        names = [*self.dice.choices(list(HANDSHAKES), k=self.refused), *MISTAKES, *GOODBYES]
        for name in names:
            expected, ending = ENDINGS[name]
            assert ending(self.door) == expected, name
            self.connections += 1
            self.seen[name] += 1

    def _ask_badly(self) -> None:
        """Send requests that the API refuses."""
        for _ in range(BAD_REQUESTS):
            kind = self.dice.randrange(4)
            if kind == 0:
                answer, expected = self.node.get("/v1/alerts", token=respelled(self.door.too_weak)), 401
            elif kind == 1:
                answer, expected = self.node.get("/v1/alerts", token=self.door.token), 403
            elif kind == 2:
                answer, expected = self.node.get(f"/v1/alerts/{new_id('nobody')}"), 404
            else:
                answer, expected = self.node.post("/v1/alerts", {"id": "!"}), 422
            assert answer.status_code == expected

    def _leave(self, sessions: list[Session]) -> None:
        """Close all sessions in random ways."""
        self.dice.shuffle(sessions)
        for session in sessions:
            if self.dice.random() < 0.2:
                session.leave()
            else:
                session.drop()


def hang_up(wires: list[Wire]) -> None:
    """Close the clients' sockets."""
    for wire in wires:
        wire.sock.close()


BLOCKS = 12
CONFIDENCE = 0.99


@dataclass(frozen=True)
class Trend:
    """The straight line through equally spaced samples (Theil-Sen), with Sen's confidence interval.

    The slope is the median of the slopes of all pairs of samples, on which outliers have little effect. Its interval is
    computed from the ranks of these slopes (P. K. Sen, JASA 63, 1968, section 3), and is valid for independent samples.
    But the memory of a process depends on its past, because it grows by whole arenas and keeps them. So the samples are
    first reduced to `BLOCKS` medians, over runs that are long enough to be nearly independent.
    """

    slope: float  # change per sample
    low: float  # lower end of the interval
    high: float

    @classmethod
    def of(cls, samples: list[float]) -> Trend:
        """Return the trend of at least BLOCKS samples."""
        size = len(samples) / BLOCKS
        cuts = [round(n * size) for n in range(BLOCKS + 1)]
        points = [((start + end - 1) / 2, median(samples[start:end])) for start, end in itertools.pairwise(cuts)]
        slopes = sorted((y - b) / (x - a) for n, (x, y) in enumerate(points) for a, b in points[:n])
        count = len(points)
        spread = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * sqrt(count * (count - 1) * (2 * count + 5) / 18)
        low = max(0, round((len(slopes) - spread) / 2))
        high = min(len(slopes) - 1, round((len(slopes) + spread) / 2))
        return cls(median(slopes), slopes[low], slopes[high])
