"""A naive, executable model of the rules that decide which client is sent which message (protocol, section 5).

The model has one dict of alerts and one list of clients, looks at one pair at a time, and shares no code with the
server: it computes distances with a haversine. `due` returns the one message about an alert that a client must be sent
now, or None. The rules leave no choice, so this message is required and no other message is allowed. The server may
only choose the moment within a fan-out.

`now` has `wall_ms` and `monotonic` (seconds), as in the server.
"""

import itertools
import math
from dataclasses import dataclass, field

EARTH_RADIUS_M = 6_371_007.180918475  # section 2, "Distance"
SEVERITIES = ("minor", "moderate", "severe", "extreme")
HOLDING_S = 30.0  # how long an unknown id of `holding` is remembered (Rule 5)
SLOW_S = 30.0  # close code 4420
ACKS_KEPT = 3  # revisions that can still be acknowledged: the current one and the two before it


def haversine_m(lat1, lng1, lat2, lng2):
    """Return the great-circle distance in metres (R. W. Sinnott, "Virtues of the Haversine", 1984)."""
    phi1, phi2 = math.radians(lat1), math.radians(lat2)
    dlat, dlng = phi2 - phi1, math.radians(lng2 - lng1)
    h = math.sin(dlat / 2) ** 2 + math.cos(phi1) * math.cos(phi2) * math.sin(dlng / 2) ** 2
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(min(1.0, h)))


def bearing(lat1, lng1, lat2, lng2):
    """Return the direction from the first point to the second, in radians."""
    phi1, phi2, dlng = math.radians(lat1), math.radians(lat2), math.radians(lng2 - lng1)
    return math.atan2(
        math.sin(dlng) * math.cos(phi2),
        math.cos(phi1) * math.sin(phi2) - math.sin(phi1) * math.cos(phi2) * math.cos(dlng),
    )


@dataclass(frozen=True)
class Polygon:
    """A published polygon: a closed ring of (lng, lat) and a buffer around it in metres."""

    ring: tuple
    buffer_m: float = 0.0

    def winds_around(self, lat, lng):
        """Return whether the ring turns once around the point (D4). Rings are smaller than a hemisphere."""
        if any(haversine_m(lat, lng, *corner[::-1]) > EARTH_RADIUS_M * math.pi / 2 for corner in self.ring):
            return False
        ways = [bearing(lat, lng, *corner[::-1]) for corner in self.ring]
        turns = [math.remainder(after - before, 2 * math.pi) for before, after in itertools.pairwise(ways)]
        return abs(sum(turns)) > math.pi

    def away_m(self, lat, lng):
        """Return the distance in metres to the nearest point of the ring (D4)."""
        return min(to_arc_m(lat, lng, *a[::-1], *b[::-1]) for a, b in itertools.pairwise(self.ring))


def to_arc_m(lat, lng, lat1, lng1, lat2, lng2):
    """Return the distance in metres from a point to an arc of a great circle.

    The nearest point of the arc may be one of its ends.
    """
    along, across = bearing(lat1, lng1, lat2, lng2), bearing(lat1, lng1, lat, lng)
    back, on = bearing(lat2, lng2, lat1, lng1), bearing(lat2, lng2, lat, lng)
    to_start = haversine_m(lat, lng, lat1, lng1)
    if math.cos(across - along) < 0 or math.cos(on - back) < 0:
        return min(to_start, haversine_m(lat, lng, lat2, lng2))
    return EARTH_RADIUS_M * abs(math.asin(math.sin(to_start / EARTH_RADIUS_M) * math.sin(across - along)))


def inside(place, shape):
    """Return whether a place (lat, lng, reach) is inside a circle (lat, lng, radius) or a Polygon (section 2)."""
    if isinstance(shape, Polygon):
        return shape.winds_around(*place[:2]) or shape.away_m(*place[:2]) <= shape.buffer_m + place[2]
    return haversine_m(*place[:2], *shape[:2]) <= shape[2] + place[2]


@dataclass(frozen=True)
class Item:
    """An entry of the log: a revision or a cancel. A cancel does not use the fields from `severity` on."""

    id: str
    number: int
    ends_at: int  # wall clock, ms
    severity: str = "minor"
    category: str = ""
    status: str = "actual"
    area: tuple = ()  # circles and polygons
    cancels: bool = False
    issued_at: int = 0  # wall clock, ms
    languages: tuple = ()  # the languages of its texts

    def __str__(self):
        return f"cancel {self.id}/{self.number}" if self.cancels else f"{self.severity} {self.id}/{self.number}"


@dataclass
class Alert:
    """The node's state of an alert: the current revision, the cancel, and the monotonic end.

    An alert that had already ended by the wall clock when it was read is doubted, because that clock may be ahead.
    """

    revision: Item
    deadline: float
    doubted: bool
    cancel: Item | None = None

    @property
    def number(self):
        """The number of its last entry."""
        return self.revision.number if self.cancel is None else self.cancel.number

    def ended(self, now):
        """Return whether the alert has ended by either clock; nothing is sent after that (section 3)."""
        return now.wall_ms >= self.revision.ends_at or now.monotonic >= self.deadline

    def revise(self, revision, now):
        """Replace the revision and move the end by the difference of both ends, even if the wall clock was set."""
        longer = (revision.ends_at - self.revision.ends_at) / 1000
        self.deadline = latest(revision, now) if self.doubted else self.deadline + longer
        self.revision = revision

    def let_go(self, now):
        """Return whether the alert has ended for good, which only the monotonic clock decides, as nobody sets it."""
        return now.monotonic >= self.deadline

    def look(self, now):
        """Return whether the alert is live.

        A live alert is no longer doubted, and ends by the wall clock at the latest.
        """
        lives = not self.ended(now)
        if lives and self.doubted:
            self.doubted, self.deadline = False, min(self.deadline, now.deadline(self.revision.ends_at))
        return lives


def latest(item, now):
    """Return the latest possible monotonic end of an entry that was just read, as the entry was accepted earlier."""
    return now.monotonic + (item.ends_at - item.issued_at) / 1000


@dataclass(eq=False)
class Client:
    """A session, with everything that was sent on its connection."""

    places: list = field(default_factory=list)
    categories: set | None = None
    min_severity: str = "minor"
    languages: list = field(default_factory=list)  # in order of preference
    tests: bool = False  # whether its token has alerts:test
    deadline: float = math.inf  # end of its token, monotonic
    slow_since: float | None = None
    recipient_of: set = field(default_factory=set)
    has: dict = field(default_factory=dict)  # id -> the latest revision that it was sent or listed in `holding`
    claims: dict = field(default_factory=dict)  # id unknown to the node -> (revision held, when to forget it)
    to_ack: set = field(default_factory=set)  # (id, revision) sent and not acknowledged
    newest: dict = field(default_factory=dict)  # id -> the highest number ever sent
    over: set = field(default_factory=set)  # ids whose cancel was sent


class Rules:
    """A node that behaves exactly as the rules of the protocol say."""

    def __init__(self):
        self.alerts, self.clients = {}, []
        self.sent, self.acked = {}, {}  # id -> count

    # ---- messages due -------------------------------------------------------------------------------------------

    def due(self, client, alert_id, now):
        """Return the item about this alert that must be sent to the client now, or None."""
        alert = self.alerts.get(alert_id)
        if alert is None or alert.ended(now) or not self.sees(client, alert):
            return None
        if alert.cancel is not None:  # Rule 4
            return alert.cancel if alert_id in client.recipient_of else None
        if client.has.get(alert_id, 0) >= alert.revision.number:  # Rules 2, 3 and 5: it was sent this, or holds it
            return None
        return alert.revision if alert_id in client.recipient_of or self.applies(client, alert) else None  # Rule 1

    def all_due(self, client, now):
        """Return all items that must be sent to the client now."""
        return {item for alert_id in self.alerts if (item := self.due(client, alert_id, now))}

    def applies(self, client, alert):
        """Return whether a place of the client is inside the area and its filter admits the revision (Rule 1)."""
        in_it = any(inside(place, shape) for place in client.places for shape in alert.revision.area)
        return in_it and self.passes(client, alert.revision)

    @staticmethod
    def passes(client, revision):
        """Return whether the client's filter admits a revision. No filter excludes `extreme` (Rule 7)."""
        wanted = client.categories is None or revision.category in client.categories
        severe_enough = SEVERITIES.index(revision.severity) >= SEVERITIES.index(client.min_severity)
        return revision.severity == "extreme" or (wanted and severe_enough)

    @staticmethod
    def spoken(client, item):
        """Return the language in which a client gets an item; None if there is only one form, as for cancels (LA3)."""
        offered = () if item.cancels else item.languages
        for tag in client.languages:
            wanted = tag.lower().split("-")
            for parts in (10, len(wanted), 1):  # the number of leading parts of the tag that must match
                first = wanted[:1] if parts == 1 else wanted
                for one in offered:
                    if one.lower().split("-")[:parts] == first:
                        return one
        return offered[0] if offered else None

    @staticmethod
    def sees(client, alert):
        """Return whether the client may see the alert. Tests and exercises need a right (Rule 6)."""
        return alert.revision.status == "actual" or client.tests

    # ---- events -------------------------------------------------------------------------------------------------

    def read(self, item, now):
        """Let the node read the next item of the log."""
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
        """Apply the remembered holdings of clients that listed this alert before the node knew it (Rule 5)."""
        for client in self.clients:
            if alert_id in client.claims:
                held, until = client.claims.pop(alert_id)
                self.claim(client, alert_id, held, now)
                if alert_id in client.claims:  # the node is still behind
                    client.claims[alert_id] = (held, until)

    def hello(self, client, holding, now):
        """Add a client with its holdings."""
        self.clients.append(client)
        for alert_id, held in holding.items():
            self.claim(client, alert_id, held, now)

    def claim(self, client, alert_id, held, now):
        """Apply one entry of a client's `holding` (Rule 5, the table); `due` does the rest."""
        alert = self.alerts.get(alert_id)
        is_known = alert is not None and not alert.let_go(now)
        if not is_known or held > alert.number:
            client.claims[alert_id] = (held, now.monotonic + HOLDING_S)
        if is_known and self.sees(client, alert):
            client.recipient_of.add(alert_id)
            client.has[alert_id] = held

    def is_sent(self, client, item, now):
        """Record that an item is sent to a client, and check that the item was due and in order."""
        assert client.slow_since is None, "a slow client is sent nothing (section 3)"
        assert item == self.due(client, item.id, now), f"{item} is not due (rules 1, 3 to 8)"
        assert item.number > client.newest.get(item.id, 0), f"{item}: once, and in rising order (rule 2)"
        assert item.id not in client.over, f"{item}: nothing after its cancel (rule 2)"
        client.newest[item.id] = item.number
        if item.cancels:
            client.over.add(item.id)
            client.recipient_of.discard(item.id)
            return
        client.recipient_of.add(item.id)  # Rule 8: a client becomes a recipient only when it is sent the alert
        client.has[item.id] = item.number
        client.to_ack.add((item.id, item.number))
        self.sent[item.id] = self.sent.get(item.id, 0) + 1

    def acknowledge(self, client, alert_id, number, now):
        """Count an acknowledgement once, if this connection was sent the revision (section 5, "Messages"; Rule 6)."""
        alert = self.alerts.get(alert_id)
        known = alert is not None and not alert.let_go(now) and self.sees(client, alert)
        if known and (alert_id, number) in client.to_ack and number > alert.revision.number - ACKS_KEPT:
            client.to_ack.remove((alert_id, number))
            self.acked[alert_id] = self.acked.get(alert_id, 0) + 1

    def sweep(self, now):
        """Forget alerts that have ended for good. Return the clients to close, each with its close code."""
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
