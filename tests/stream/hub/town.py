"""A hub with its subscribers and a clock, so that a test reads as a story."""

import itertools

from support.fakes import DALLAS, FakeClock, FakePeer, FakeRights, messages

from geocast.matching.filters import EVERYTHING
from geocast.stream.hub import Hub
from geocast.wire.frames import JSON

METRE = 1 / 111_195  # in degrees of latitude
HALF_HOUR_S = 1800
FAR_AWAY = 50_000  # metres: outside


class Subscriber(FakePeer):
    """A FakePeer that knows its row in the hub, and records each write in the `order` of its town."""

    def __init__(self, town, name):
        super().__init__(lambda: town.hub.slowed(self.row, town.clock.now()))
        self.town, self.name, self.row = town, name, -1

    def write(self, data):
        super().write(data)
        self.town.order.append(self.name)

    def abort(self):
        """Leave the hub, as a real connection does."""
        super().abort()
        self.town.hub.leave(self.row)

    def received(self):
        """Return the messages since the last call: "a-1/2" is a revision, "-a-1/3" a cancel; others are types."""
        return [_short(message) for message in self.take()]

    def told_by_write(self):
        """Return all messages that were sent, as one list for each write."""
        return [[_short(message) for message in messages(data)] for data in self.writes]


def _short(message):
    if message["type"] == "alert":
        return f"{message['alert']['id']}/{message['alert']['revision']}"
    return f"-{message['id']}/{message['revision']}" if message["type"] == "cancel" else message["type"]


class Town:
    """A hub and its subscribers, each some metres north of the centre of the alerts; the circles of alerts are 1 km."""

    def __init__(self, capacity=64, send=None, heartbeat_s=25):
        self.clock = FakeClock()
        self.finished = []
        self.hub = Hub(capacity, self._finished, send, heartbeat_s)
        self.order = []  # names, in the order of all writes
        self._names = itertools.count()

    def _finished(self, flight):
        self.finished.append(f"{flight.alert.id}/{flight.number}")

    def join(self, metres=0, *, wire=JSON, wanted=EVERYTHING, rights=None, holding=None, places=None, here=None):
        """Register a session. Its welcome is in `received`, as "welcome"."""
        peer = Subscriber(self, next(self._names))
        places = [self.place(metres)] if places is None else places
        rights = rights or FakeRights()
        peer.row = self.hub.enter(peer, wire, places, wanted, rights, holding or {}, self.clock.now(), here)
        self.hub.reply_with_owed(peer.row, {"type": "welcome"}, self.clock.now())
        return peer

    def crowd(self, count):
        """Register sessions at 0 m, 1 m, 2 m and so on, and drop their welcomes."""
        peers = [self.join(metres) for metres in range(count)]
        for peer in peers:
            peer.take()
        self.order.clear()
        return peers

    @staticmethod
    def place(metres, reach_m=0.0):
        """Return a place this many metres north."""
        return DALLAS[0] + metres * METRE, DALLAS[1], reach_m

    def move(self, peer, metres):
        """Have the session send `move`."""
        self.hub.move(peer.row, [self.place(metres)])
        self.hub.reply_with_owed(peer.row, {"type": "ok"}, self.clock.now())

    def set_filter(self, peer, wanted):
        """Have the session send `filter`."""
        self.hub.fanout.set_filter(peer.row, wanted)
        self.hub.reply_with_owed(peer.row, {"type": "ok"}, self.clock.now())

    def set_rights(self, peer, *, may_test):
        """Have the session send `token`."""
        self.hub.set_rights(peer.row, FakeRights(may_test))
        self.hub.reply_with_owed(peer.row, {"type": "ok"}, self.clock.now())

    def deliver(self, *entries):
        """Hand these entries of the log to the hub."""
        for entry in entries:
            self.hub.fanout.deliver(entry, self.clock.now())

    def turn(self, times=1):
        """Run some turns of the fan-out, and return whether there is more to do."""
        return [self.hub.turn(self.clock.now()) for _ in range(times)][-1]

    def run(self):
        """Run turns until there is nothing more to do."""
        while self.turn():
            pass

    def publish(self, *entries):
        """Hand these entries of the log to the hub, and send them to everybody."""
        self.deliver(*entries)
        self.run()

    def sweep(self):
        """Run the periodic check of the hub, which does what depends on time alone."""
        self.hub.sweep(self.clock.now())
