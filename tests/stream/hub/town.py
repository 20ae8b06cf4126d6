"""A town: a hub with its subscribers and a clock, so that a test reads as a story."""

import itertools

from support.fakes import DALLAS, FakeClock, FakePeer, FakeRights, messages

from geocast.matching.filters import EVERYTHING
from geocast.stream.hub import Hub
from geocast.wire.frames import JSON

METRE = 1 / 111_195  # in degrees of latitude
HALF_HOUR_S = 1800
FAR_AWAY = 50_000  # metres: outside


class Subscriber(FakePeer):
    """A FakePeer that knows its row and notes, for all of its town, whose turn it was."""

    def __init__(self, town, name):
        super().__init__(lambda: town.hub.slowed(self.row, town.clock.now()))
        self.town, self.name, self.row = town, name, -1

    def write(self, data):
        super().write(data)
        self.town.order.append(self.name)

    def received(self):
        """What it was told since last asked: "a-1/2" for a revision, "-a-1/3" for a cancel, else the type."""
        return [_short(message) for message in self.take()]

    def told_by_write(self):
        """All that it was told, write by write."""
        return [[_short(message) for message in messages(data)] for data in self.writes]


def _short(message):
    if message["type"] == "alert":
        return f"{message['alert']['id']}/{message['alert']['revision']}"
    return f"-{message['id']}/{message['revision']}" if message["type"] == "cancel" else message["type"]


class Town:
    """A hub and its subscribers, each some metres north of where the alerts are; their circles are 1 km."""

    def __init__(self, capacity=64, send=None, heartbeat_s=25):
        self.clock = FakeClock()
        self.finished = []
        self.hub = Hub(capacity, self._finished, send, heartbeat_s)
        self.order = []  # names, in the order of all writes
        self._names = itertools.count()

    def _finished(self, flight):
        self.finished.append(f"{flight.alert.id}/{flight.number}")

    def join(self, metres=0, *, wire=JSON, wanted=EVERYTHING, rights=None, holding=None, places=None, here=None):
        """A new session. Its welcome is taken note of in `received`, as "welcome"."""
        peer = Subscriber(self, next(self._names))
        places = [self.place(metres)] if places is None else places
        rights = rights or FakeRights()
        peer.row = self.hub.enter(peer, wire, places, wanted, rights, holding or {}, self.clock.now(), here)
        self.hub.reply_with_owed(peer.row, {"type": "welcome"}, self.clock.now())
        return peer

    def crowd(self, count):
        """Sessions at 0 m, 1 m, 2 m and so on, which have taken note of their welcome."""
        peers = [self.join(metres) for metres in range(count)]
        for peer in peers:
            peer.take()
        self.order.clear()
        return peers

    @staticmethod
    def place(metres, reach_m=0.0):
        """A place so many metres north."""
        return DALLAS[0] + metres * METRE, DALLAS[1], reach_m

    def move(self, peer, metres):
        """The session says `move`."""
        self.hub.move(peer.row, [self.place(metres)])
        self.hub.reply_with_owed(peer.row, {"type": "ok"}, self.clock.now())

    def set_filter(self, peer, wanted):
        """The session says `filter`."""
        self.hub.set_filter(peer.row, wanted)
        self.hub.reply_with_owed(peer.row, {"type": "ok"}, self.clock.now())

    def set_rights(self, peer, *, may_test):
        """The session says `token`."""
        self.hub.set_rights(peer.row, FakeRights(may_test))
        self.hub.reply_with_owed(peer.row, {"type": "ok"}, self.clock.now())

    def deliver(self, *entries):
        """The log gives these entries."""
        for entry in entries:
            self.hub.deliver(entry, self.clock.now())

    def turn(self):
        """One turn of the fan-out."""
        return self.hub.turn(self.clock.now())

    def run(self):
        """Turn until there is nothing more to do."""
        while self.turn():
            pass

    def publish(self, *entries):
        """The log gives these entries, and all is sent."""
        self.deliver(*entries)
        self.run()

    def sweep(self):
        """What depends on time alone."""
        self.hub.sweep(self.clock.now())
