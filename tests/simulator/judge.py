"""The judge of one node: the model of the protocol's rules (support/model.py), applied to each byte that it writes.

The model's node reads an entry, forgets an alert or believes a reviewer when the real one does. So at each write it
says exactly which messages are due; a message that is not due, or a due one that is missing, is a fault at once.
"""

import json

import msgpack
from support.model import Alert, Client, Rules, latest

from geocast.model.alert import Cancel, Revision, Untrusted

ENDS = {0x88: "close", 0x89: "ping"}


class Fault(Exception):  # noqa: N818 (what a judge finds)
    """Raised for what the protocol forbids."""


class NodeAlert(Alert):
    """An alert of the model, which may also be withdrawn because its reviewers are not believed."""

    withdrawn = unbelieved = False
    asleep = False  # whether it had ended by the wall clock when the node looked last

    def ended(self, now):
        """Return whether nothing may be sent about it."""
        return self.withdrawn or super().ended(now)

    def revise(self, revision, now):
        """Replace the revision, which is believed unless the caller says otherwise."""
        self.withdrawn = self.unbelieved = False
        super().revise(revision, now)
        self.latest = latest(revision, now)


class NodeRules(Rules):
    """The model of a node, with what the model of one process leaves out: reviewers, and reading again.

    `items` has the model's item of each entry by id and number; `believes(item)` says whether a node trusts its
    reviewer.
    """

    def __init__(self, items, believes):
        super().__init__()
        self._items, self._believes = items, believes
        self.gone, self._early = {}, {}

    def read_entry(self, entry, now):
        """Let the model's node read an entry when the real one does."""
        item, alert = self._items[entry.id, entry.revision], self.alerts.get(entry.id)
        before = alert is not None and (alert.number, alert.unbelieved)
        if isinstance(entry, Untrusted):
            self._doubt(entry, item, alert, now)
        elif isinstance(entry, Cancel):
            if alert is None:
                self._early[item.id] = item
            elif alert.cancel is None or item.number > alert.number:
                self._cancel(alert, item)
        elif alert is None:
            self._begin(item, now)
        elif alert.cancel is None and (alert.unbelieved or item.number > alert.revision.number):
            self._follow(alert, item, now)
        alert = self.alerts.get(entry.id)
        if alert is not None and (alert.number, alert.unbelieved) != before:  # else it was read again
            alert.asleep = not alert.look(now)
            if not alert.asleep:
                self.claims_to(entry.id, now)

    def _begin(self, item, now):
        if item.number <= self.gone.get(item.id, 0):
            return
        doubted = now.wall_ms >= item.ends_at
        alert = NodeAlert(item, latest(item, now) if doubted else now.deadline(item.ends_at), doubted)
        alert.latest = latest(item, now)
        self.alerts[item.id] = alert
        self._end_early(alert)

    def _follow(self, alert, item, now):
        if alert.unbelieved and item.number == alert.revision.number:
            alert.withdrawn = alert.unbelieved = False
        else:
            alert.revise(item, now)
        self._end_early(alert)

    def _end_early(self, alert):
        if (early := self._early.pop(alert.revision.id, None)) is not None:
            self._cancel(alert, early)

    @staticmethod
    def _cancel(alert, item):
        alert.withdrawn = alert.unbelieved = False
        alert.cancel = item

    def _doubt(self, entry, item, alert, now):
        """Keep a revision that is not believed: nobody is sent it, but who has it is sent its cancel."""
        if not isinstance(entry.said, Revision) or now.wall_ms >= item.ends_at:
            return
        if alert is None and item.number > self.gone.get(item.id, 0):
            alert = self.alerts[item.id] = NodeAlert(item, now.deadline(item.ends_at), doubted=False)
            alert.latest = latest(item, now)
        elif alert is not None and alert.unbelieved and item.number > alert.revision.number:
            alert.revise(item, now)
        else:
            return
        alert.withdrawn = alert.unbelieved = True

    def believe_again(self, alert_id):
        """Judge the reviewers of a live alert again."""
        alert = self.alerts.get(alert_id)
        if alert is not None and alert.cancel is None and not alert.unbelieved:
            alert.withdrawn = not self._believes(alert.revision)

    def correct(self, now, least_s=0.0):
        """Move deadlines that were computed from a clock that was ahead, and are too early by more than this."""
        for alert in self.alerts.values():
            deadline = min(alert.latest, now.deadline(alert.revision.ends_at))
            if deadline > alert.deadline + least_s:
                alert.deadline = deadline

    def sweep(self, now):
        """Forget what has ended, and remember its last number."""
        for alert_id, alert in self.alerts.items():
            if alert.let_go(now):
                self.gone[alert_id] = alert.number
        closed = super().sweep(now)
        for alert in self.alerts.values():
            alert.asleep = alert.ended(now)
        return closed


class Watch:
    """What one connection has written, checked at each write.

    `asked` are the changes of the model's client whose answers have not been written, each a function, in order.
    """

    def __init__(self, rules, items, clock, note):
        self.client = Client()
        self.asked = []
        self.is_in = False
        self._rules, self._items, self._clock, self._note = rules, items, clock, note
        self._bytes, self._is_open = b"", False

    def written(self, data):
        """Check the messages that are complete with these bytes. Raise Fault."""
        self._bytes += data
        if not self._is_open:
            _, end, rest = self._bytes.partition(b"\r\n\r\n")
            if not end:
                return
            self._bytes, self._is_open = rest, True
        found = []
        while (end := frame_end(self._bytes)) is not None:
            found.append(message_of(self._bytes[:end]))
            self._bytes = self._bytes[end:]
        if found:
            self._check(found, self._clock.now())

    def _check(self, found, now):
        rules, client, head = self._rules, self.client, found[0]["type"]
        if head in ("welcome", "ok"):
            self.asked.pop(0)()
            if head == "welcome":
                self.is_in = True
            due = {(item.id, item.number) for item in rules.all_due(client, now)}
            told = {told_of(message) for message in found[1:]}
            late = {each for each in due - told if rules.alerts[each[0]].asleep}  # they follow with the next sweep
            if due - late != told or found[0]["live"] != len(told):
                raise Fault(f"with {head}: sent {sorted(told)}, due {sorted(due)}")
            del found[0]
        for message in found:
            if message["type"] not in ("alert", "cancel"):
                if message["type"] not in ("ping", "close"):
                    raise Fault(f"an unexpected {message['type']}")
                continue
            item = self._items[told_of(message)]
            self._note("sent", item)
            try:
                if item.cancels != (message["type"] == "cancel"):
                    raise Fault(f"{message['type']} for {item}")
                rules.is_sent(client, item, now)
            except AssertionError as error:
                raise Fault(str(error)) from None

    def lacks(self):
        """Return what the client has to be sent now."""
        if not self.is_in or self.client.slow_since is not None:
            return []
        return sorted(map(str, self._rules.all_due(self.client, self._clock.now())))


def told_of(message):
    """Return the id and the number in a message about an alert."""
    told = message.get("alert", message)
    return told["id"], told["revision"]


def frame_end(data):
    """Return where the first frame of a server ends, or None if it is not complete."""
    if len(data) < 2:
        return None
    size, at = data[1], 2
    if size >= 126:
        at = 4 if size == 126 else 10
        if len(data) < at:
            return None
        size = int.from_bytes(data[2:at])
    return at + size if len(data) >= at + size else None


def message_of(frame):
    """Return the message in a frame of a server; a ping and a close have only a type."""
    kind = frame[0]
    start = {126: 4, 127: 10}.get(frame[1], 2)
    if kind == 0x81:
        return json.loads(frame[start:])
    if kind == 0x82:
        return msgpack.unpackb(frame[start:])
    return {"type": ENDS[kind], "payload": frame[start:]}
