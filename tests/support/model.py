"""Who is sent what (protocol, section 5), as a naive program: the rules, executable.

It has one dict of alerts and one list of clients, looks at one pair at a time, and shares no line with the server:
its distance is a haversine. `due` says the one message that a client has to be sent now about an alert, or None. As
the rules leave no choice, that is both what must be sent and all that may be sent; only *when* is the server's
business, within a fan-out that is under way.

`now` has `wall_ms` and `monotonic` (seconds), as in the server.
"""

import itertools
import math
from dataclasses import dataclass, field

EARTH_RADIUS_M = 6_371_007.180918475  # section 2, "Distance"
SEVERITIES = ("minor", "moderate", "severe", "extreme")
HOLDING_S = 30.0  # rule 5: how long an unknown id is remembered
SLOW_S = 30.0  # close code 4420
ACKS_KEPT = 3  # revisions of an alert that can still be acknowledged: the current one and two before


def haversine_m(lat1, lng1, lat2, lng2):
    """The great-circle distance in metres (R. W. Sinnott, "Virtues of the Haversine", 1984)."""
    phi1, phi2 = math.radians(lat1), math.radians(lat2)
    dlat, dlng = phi2 - phi1, math.radians(lng2 - lng1)
    h = math.sin(dlat / 2) ** 2 + math.cos(phi1) * math.cos(phi2) * math.sin(dlng / 2) ** 2
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(min(1.0, h)))


def bearing(lat1, lng1, lat2, lng2):
    """In which direction the second point lies from the first, in radians."""
    phi1, phi2, dlng = math.radians(lat1), math.radians(lat2), math.radians(lng2 - lng1)
    return math.atan2(
        math.sin(dlng) * math.cos(phi2),
        math.cos(phi1) * math.sin(phi2) - math.sin(phi1) * math.cos(phi2) * math.cos(dlng),
    )


@dataclass(frozen=True)
class Polygon:
    """A published polygon: a ring of (lng, lat), the last the first, and how far it reaches beyond."""

    ring: tuple
    buffer_m: float = 0.0

    def winds_around(self, lat, lng):
        """D4: whether the directions of the corners turn all the way round; rings are less than a hemisphere."""
        if any(haversine_m(lat, lng, *corner[::-1]) > EARTH_RADIUS_M * math.pi / 2 for corner in self.ring):
            return False
        ways = [bearing(lat, lng, *corner[::-1]) for corner in self.ring]
        turns = [math.remainder(after - before, 2 * math.pi) for before, after in itertools.pairwise(ways)]
        return abs(sum(turns)) > math.pi

    def away_m(self, lat, lng):
        """D4: from the nearest point of the ring."""
        return min(to_arc_m(lat, lng, *a[::-1], *b[::-1]) for a, b in itertools.pairwise(self.ring))


def to_arc_m(lat, lng, lat1, lng1, lat2, lng2):
    """From the nearest point of an arc of a great circle: across it, or else from its nearer end."""
    along, across = bearing(lat1, lng1, lat2, lng2), bearing(lat1, lng1, lat, lng)
    back, on = bearing(lat2, lng2, lat1, lng1), bearing(lat2, lng2, lat, lng)
    to_start = haversine_m(lat, lng, lat1, lng1)
    if math.cos(across - along) < 0 or math.cos(on - back) < 0:
        return min(to_start, haversine_m(lat, lng, lat2, lng2))
    return EARTH_RADIUS_M * abs(math.asin(math.sin(to_start / EARTH_RADIUS_M) * math.sin(across - along)))


def inside(place, shape):
    """Section 2: whether a place (lat, lng, reach) is inside a circle (lat, lng, radius) or a Polygon."""
    if isinstance(shape, Polygon):
        return shape.winds_around(*place[:2]) or shape.away_m(*place[:2]) <= shape.buffer_m + place[2]
    return haversine_m(*place[:2], *shape[:2]) <= shape[2] + place[2]


@dataclass(frozen=True)
class Item:
    """An entry of the log, a revision or a cancel; a cancel says nothing new from `severity` on."""

    id: str
    number: int
    ends_at: int  # ms, by the wall clock
    severity: str = "minor"
    category: str = ""
    status: str = "actual"
    area: tuple = ()  # circles and polygons
    cancels: bool = False
    issued_at: int = 0  # as `ends_at`
    languages: tuple = ()  # that it has texts in

    def __str__(self):
        return f"cancel {self.id}/{self.number}" if self.cancels else f"{self.severity} {self.id}/{self.number}"


@dataclass
class Alert:
    """What the node knows of an alert: its current revision, its cancel, and the monotonic end of it.

    One that had ended by the wall clock when it was read is doubted: that clock may be ahead.
    """

    revision: Item
    deadline: float
    doubted: bool
    cancel: Item | None = None

    def ended(self, now):
        """Section 3: nothing is sent after `expires_at`; it has come when either clock says so."""
        return now.wall_ms >= self.revision.ends_at or now.monotonic >= self.deadline

    def revise(self, revision, now):
        """A new end is as much later than the old one as it says, though the wall clock was set in between."""
        longer = (revision.ends_at - self.revision.ends_at) / 1000
        self.deadline = latest(revision, now) if self.doubted else self.deadline + longer
        self.revision = revision

    def let_go(self, now):
        """Only the monotonic clock, which nobody sets, ends it for good."""
        return now.monotonic >= self.deadline

    def look(self, now):
        """Whether it lives. If so, the wall clock is believed: it lives until then by that clock."""
        lives = not self.ended(now)
        if lives and self.doubted:
            self.doubted, self.deadline = False, min(self.deadline, now.deadline(self.revision.ends_at))
        return lives


def latest(item, now):
    """The latest monotonic end that what has just been read can have: it was accepted before."""
    return now.monotonic + (item.ends_at - item.issued_at) / 1000


@dataclass(eq=False)
class Client:
    """A session, and all that was sent on its connection."""

    places: list = field(default_factory=list)
    categories: set | None = None
    min_severity: str = "minor"
    languages: list = field(default_factory=list)  # the most wanted first
    tests: bool = False  # its token has alerts:test
    deadline: float = math.inf  # of its token, monotonic
    slow_since: float | None = None
    recipient_of: set = field(default_factory=set)
    has: dict = field(default_factory=dict)  # id -> the revision that it was sent, or says that it holds
    claims: dict = field(default_factory=dict)  # id unknown here -> the revision it holds, until when to remember
    to_ack: set = field(default_factory=set)  # (id, revision) sent and not acknowledged
    newest: dict = field(default_factory=dict)  # id -> the highest number ever sent
    over: set = field(default_factory=set)  # ids whose cancel was sent


class Rules:
    """A node as the rules see it."""

    def __init__(self):
        self.alerts, self.clients = {}, []
        self.sent, self.acked = {}, {}  # id -> how many

    # ---- what is due --------------------------------------------------------------------------------------------

    def due(self, client, alert_id, now):
        """The item that the client has to be sent now about this alert, or None."""
        alert = self.alerts.get(alert_id)
        if alert is None or alert.ended(now) or not self.sees(client, alert):
            return None
        if alert.cancel is not None:  # Rule 4
            return alert.cancel if alert_id in client.recipient_of else None
        if client.has.get(alert_id, 0) >= alert.revision.number:  # Rules 2, 3 and 5: once, and not what it holds
            return None
        return alert.revision if alert_id in client.recipient_of or self.applies(client, alert) else None  # Rule 1

    def all_due(self, client, now):
        """All that the client has to be sent now."""
        return {item for alert_id in self.alerts if (item := self.due(client, alert_id, now))}

    def applies(self, client, alert):
        """Rule 1: a place is inside the area, and the filter passes it."""
        in_it = any(inside(place, shape) for place in client.places for shape in alert.revision.area)
        return in_it and self.passes(client, alert.revision)

    @staticmethod
    def passes(client, revision):
        """Rule 7: a filter never holds back extreme."""
        wanted = client.categories is None or revision.category in client.categories
        severe_enough = SEVERITIES.index(revision.severity) >= SEVERITIES.index(client.min_severity)
        return revision.severity == "extreme" or (wanted and severe_enough)

    @staticmethod
    def spoken(client, item):
        """LA3: in which language a client is sent a revision; None if it is the same for everybody. Cancels are."""
        offered = () if item.cancels else item.languages
        for tag in client.languages:
            wanted = tag.lower().split("-")
            for parts in (10, len(wanted), 1):  # of the text's tag, that have to be the wanted one's
                first = wanted[:1] if parts == 1 else wanted
                for one in offered:
                    if one.lower().split("-")[:parts] == first:
                        return one
        return offered[0] if offered else None

    @staticmethod
    def sees(client, alert):
        """Rule 6: tests and exercises exist for those only who may see them."""
        return alert.revision.status == "actual" or client.tests

    # ---- what happens -------------------------------------------------------------------------------------------

    def read(self, item, now):
        """The node reads an item of the log. (Whatever is in the log is in order.)"""
        alert = self.alerts.get(item.id)
        if alert is None and item.cancels:
            return
        if alert is None:
            doubted = now.wall_ms >= item.ends_at
            deadline = latest(item, now) if doubted else now.deadline(item.ends_at)
            alert = self.alerts[item.id] = Alert(item, deadline, doubted)
        elif item.cancels:
            alert.cancel = item
        else:
            alert.revise(item, now)
        if alert.look(now):
            self.claims_to(item.id, now)

    def claims_to(self, alert_id, now):
        """Rule 5: those who said that they hold it, when it was unknown here."""
        for client in self.clients:
            if alert_id in client.claims:
                self.claim(client, alert_id, client.claims.pop(alert_id)[0], now)

    def hello(self, client, holding, now):
        """A client comes, with what it holds."""
        self.clients.append(client)
        for alert_id, held in holding.items():
            self.claim(client, alert_id, held, now)

    def claim(self, client, alert_id, held, now):
        """Rule 5, the table; `due` does the rest."""
        alert = self.alerts.get(alert_id)
        if alert is None or alert.let_go(now):
            client.claims[alert_id] = (held, now.monotonic + HOLDING_S)
        elif self.sees(client, alert):
            client.recipient_of.add(alert_id)
            client.has[alert_id] = held

    def is_sent(self, client, item, now):
        """A client is sent an item. It has to be due, and in order."""
        assert client.slow_since is None, "a slow client is sent nothing (section 3)"
        assert item == self.due(client, item.id, now), f"{item} is not due (rules 1, 3 to 8)"
        assert item.number > client.newest.get(item.id, 0), f"{item}: once, and in rising order (rule 2)"
        assert item.id not in client.over, f"{item}: nothing after its cancel (rule 2)"
        client.newest[item.id] = item.number
        if item.cancels:
            client.over.add(item.id)
            client.recipient_of.discard(item.id)
            return
        client.recipient_of.add(item.id)  # Rule 8: when it is sent, and not before
        client.has[item.id] = item.number
        client.to_ack.add((item.id, item.number))
        self.sent[item.id] = self.sent.get(item.id, 0) + 1

    def acknowledge(self, client, alert_id, number, now):
        """Section 5, "Messages": counts once, and only for what was sent on this connection; rule 6."""
        alert = self.alerts.get(alert_id)
        known = alert is not None and not alert.let_go(now) and self.sees(client, alert)
        if known and (alert_id, number) in client.to_ack and number > alert.revision.number - ACKS_KEPT:
            client.to_ack.remove((alert_id, number))
            self.acked[alert_id] = self.acked.get(alert_id, 0) + 1

    def sweep(self, now):
        """Forget what has ended for good. Returns the clients to close, with the code."""
        for alert_id in [alert_id for alert_id, alert in self.alerts.items() if alert.let_go(now)]:
            del self.alerts[alert_id]
            for client in self.clients:
                client.recipient_of.discard(alert_id)
                client.has.pop(alert_id, None)
                client.to_ack -= {(i, number) for i, number in client.to_ack if i == alert_id}
        for alert_id, alert in self.alerts.items():
            if alert.look(now):
                self.claims_to(alert_id, now)
        for client in self.clients:
            client.claims = {i: claim for i, claim in client.claims.items() if claim[1] > now.monotonic}
        expired = {client: 4401 for client in self.clients if client.deadline <= now.monotonic}
        slow = [c for c in self.clients if c.slow_since is not None and now.monotonic - c.slow_since >= SLOW_S]
        return dict.fromkeys(slow, 4420) | expired
