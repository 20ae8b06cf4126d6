"""Tests of the core (hub, session, live alerts) against the model of the rules, by random steps.

Each message written to a client is compared with the model at that moment. Missing messages are found whenever the hub
has nothing left to do. `make test` takes the same steps each time. With GEOCAST_SOAK_EXAMPLES and GEOCAST_SOAK_STEPS a
run takes more and different steps, and prints their seed; GEOCAST_SOAK_SEED with the same two values repeats them. A
failure prints its steps as a Mermaid diagram, and a `@reproduce_failure` that repeats this failure alone if it
decorates `class Geocast`.
"""

import json
import os
import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.fakes import DALLAS, HOUR_MS, FakeClock, FakePeer, a_cancel, a_revision, a_text, messages
from support.model import SEVERITIES, Client, Item, Polygon, Rules
from support.reviewers import proved
from support.schemas import check_client_message, check_server_message
from support.town import CENTRES, CIRCLES, PLACES, POLYGONS
from support.trace import Trace

from geocast.auth.scopes import RECEIVE, TEST
from geocast.auth.tokens import Key, TokenVerifier, sign
from geocast.model import alert as shapes
from geocast.model.alert import Circle
from geocast.model.close_codes import SessionClosed
from geocast.model.times import format_time
from geocast.stream import fanout, flights
from geocast.stream.hub import Hub
from geocast.stream.session import Session
from geocast.wire.frames import SIGNED, WIRES

SOAK = "GEOCAST_SOAK_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("GEOCAST_SOAK_EXAMPLES", "250"))
SEED = int(os.environ.get("GEOCAST_SOAK_SEED", random.randrange(2**32)))
STEPS = int(os.environ.get("GEOCAST_SOAK_STEPS", "50"))
ROWS = 6  # rows of the hub; each is reused many times

# ---- the modelled publisher, phones and node ---------------------------------------------------------------------

KEY = {"kty": "oct", "kid": "k", "alg": "HS256", "k": "c2VjcmV0" * 8}
TOKENS = TokenVerifier({"k": Key(KEY, "HS256")})
IDS = tuple("abcdef")
MISTAKES = {
    "a wrong move": {"type": "move", "places": [{"lat": 91, "lng": 0}]},
    "a wrong language": {"type": "filter", "languages": ["en", "e"]},
    "a wrong filter": {"type": "filter", "min_severity": 1},
    "a wrong token": {"type": "token", "token": None},
    "nonsense": {},
}
ANSWERS = {"hello": "welcome", "move": "ok", "filter": "ok", "token": "ok", "ping": "pong"} | dict.fromkeys(
    MISTAKES, "error"
)
CATEGORIES = ("arson", "burglary", "robbery")
BY_SUBPROTOCOL = {wire.subprotocol: wire for wire in WIRES}
REVIEWED = IDS[::2]  # alerts with these ids have a proof, unless they have languages: an alert never has both


class ModelPeer(FakePeer):
    """A subscriber's connection that passes each write to the machine at once.

    It differs from a real one like a FakePeer, except that `close` ends the session.
    """

    def __init__(self, name, wire, machine):
        super().__init__(lambda: machine.clogs(self))
        self.name, self.machine, self.client = name, machine, Client()
        self.session = Session(self, BY_SUBPROTOCOL[wire], machine.hub, TOKENS)

    def write(self, data):
        said = messages(data)
        for message in said:
            if message["type"] != "<ping>":
                check_server_message(message)
            if message["type"] in ("alert", "cancel"):
                reviewed = is_told(message)[1] in REVIEWED and "languages" not in message.get("alert", ())
                assert ("proof" in message) == (reviewed and self.session.wire in SIGNED), "F9"
        self.machine.gets(self, [opened(message) for message in said])
        super().write(data)

    def close(self, close):
        super().close(close)
        self.machine.leaves(self)


def opened(message):
    """Return the message with the content of its proof in the usual fields, if it has a proof."""
    if "proof" not in message:
        return message
    said = json.loads(message["proof"]["form"])
    return message | ({"alert": said | message["alert"]} if message["type"] == "alert" else {"reason": said["reason"]})


def is_told(message):
    """Return the kind, id and revision number in a message."""
    told = message.get("alert", message)
    return message["type"], told["id"], told["revision"]


def tells(item):
    """Return the kind, id and number that the message about an item must have."""
    return "cancel" if item.cancels else "alert", item.id, item.number


def entry(item):
    """Return an item as an entry of the server's log."""
    is_reviewed = item.id in REVIEWED and (item.cancels or not item.languages)
    return proved(bare_entry(item), "r-1") if is_reviewed else bare_entry(item)


def bare_entry(item):
    """Return an item as an entry without a proof."""
    if item.cancels:
        return a_cancel(item.id, item.number, ends_at=item.ends_at)
    area = tuple(
        shapes.Polygon(shape.ring, shape.buffer_m) if isinstance(shape, Polygon) else Circle(*shape)
        for shape in item.area
    )
    fields = {"issued_at": item.issued_at, "severity": item.severity, "category": item.category, "status": item.status}
    if item.languages:
        texts = tuple(map(a_text, item.languages))
        fields |= {"texts": texts, "headline": texts[0].headline, "description": texts[0].description}
    return a_revision(item.id, item.number, area=area, expires_at=item.ends_at, **fields)


def is_in(message, language):
    """Return whether every text of a message is in this language; None means that it has no language."""
    told = message.get("alert", message)
    if told.get("language") != language:
        return False
    words = [told.get(name, "") for name in ("title", "headline", "description", "instruction", "area_desc")]
    return all(text.endswith(f" in {language}") if language else " in " not in text for text in words)


# Random values. A value that is listed several times is drawn more often. Most places and areas are in one town,
# because otherwise hardly any alert would reach a phone.
IN_TOWN = st.sampled_from([*(circle for circle in CIRCLES if circle[:2] == DALLAS), *POLYGONS[:2], *POLYGONS[-2:]])
SHAPE = st.sampled_from([*CIRCLES, *POLYGONS])
AREA = (IN_TOWN.map(lambda shape: [shape]) | st.lists(SHAPE, min_size=1, max_size=3)).map(tuple)
AT_HOME = st.lists(st.sampled_from(PLACES[: len(PLACES) // len(CENTRES)]), min_size=1, max_size=2)
SOMEWHERE = AT_HOME | st.lists(st.sampled_from(PLACES), max_size=8)
CATEGORY, SEVERITY = st.sampled_from(CATEGORIES), st.sampled_from(SEVERITIES)
CATEGORY_LIST = st.lists(st.sampled_from([*CATEGORIES, "unheard_of"]), max_size=2, unique=True)
WANTED = st.lists(st.sampled_from(["en", "EN-ca", "fr", "de", "de-CH", "pt-BR", "zh-Ha"]), max_size=3)
FILTER = st.just({}) | st.fixed_dictionaries(
    {}, optional={"categories": CATEGORY_LIST, "min_severity": SEVERITY, "languages": WANTED}
)
CHANGE = st.fixed_dictionaries(
    {},
    optional={
        "categories": st.none() | CATEGORY_LIST,
        "min_severity": st.none() | SEVERITY,
        "languages": st.none() | WANTED,
    },
).filter(bool)
OFFERED = st.lists(st.sampled_from(["en", "en-CA", "FR-ca", "de-DE", "de-AT", "zh-Hant"]), unique=True, max_size=4)
ALERT = st.fixed_dictionaries(
    {
        "severity": SEVERITY,
        "category": CATEGORY,
        "status": st.sampled_from(["actual", "actual", "test", "exercise"]),
        "area": AREA,
        "life_s": st.sampled_from([600, 60, 30, 10]),
        "languages": st.just(()) | OFFERED.map(tuple),
    }
)
CHANGES = st.fixed_dictionaries(
    {}, optional={"severity": SEVERITY, "category": CATEGORY, "area": AREA, "languages": OFFERED.map(tuple)}
)
TOKEN = st.fixed_dictionaries({"tests": st.booleans(), "life_s": st.sampled_from([7200, 7200, 7200, 60, 5])})
WIRE = st.sampled_from(sorted(BY_SUBPROTOCOL))
PHONE = st.fixed_dictionaries({"wire": WIRE, "places": SOMEWHERE, "wanted": FILTER, "token": TOKEN})
HOLDING = st.dictionaries(st.sampled_from(IDS), st.integers(-2, 2), max_size=4)  # offset from the latest revision
TURNS = st.sampled_from([1, 1, 0, 2, None])  # turns of the hub after reading an item; None: read it later
HOURS_OFF = st.sampled_from([[], [], [0], [-1], [-1], [1], [1, 0]])  # wall clock's error in hours, per sweep
WHICH = st.integers(0, 5)
WAITS_S = st.sampled_from([0.125, 5.0, 10.0, 30.0, 60.0])  # binary fractions: no sum is rounded


class Geocast(RuleBasedStateMachine):
    """A publisher, a node that reads the log, and phones; next to them the model."""

    def __init__(self):
        super().__init__()
        self.trace, self.clock = Trace(), FakeClock()
        self.skew_ms = 0  # error of the node's wall clock
        self.log, self.items, self.last = (
            [],
            {},
            {},
        )  # items in order, by id and number, latest by id
        self.away = []  # the holdings of phones that have disconnected
        self.names = iter(range(1, 1000))
        self.seen = 0  # the trace's length when time last passed
        self.start(0)

    def start(self, read):
        """Start a node that has read the first `read` items of the log."""
        self.hub, self.rules, self.phones = Hub(ROWS), Rules(), []
        self.sent, self.acked = {}, {}
        self.position = 0
        self.quiet = True  # whether the hub has nothing left to do
        for _ in range(read):
            self.read()

    @property
    def now(self):
        return self.clock.now()

    # ---- actions of the server -----------------------------------------------------------------------------------

    def gets(self, phone, received):
        """Check the messages written to a phone against the rules."""
        client, now = phone.client, self.now
        head = received[0]
        if head["type"] in ("welcome", "ok"):
            received = received[1:]
            self.trace.sends("node", phone.name, f"{head['type']}, live {head['live']}")
            due = self.rules.all_due(client, now)
            assert {is_told(m) for m in received} == {tells(item) for item in due}, f"rule 3: {_list(due)} are due"
            assert head["live"] == len(received), "`live` counts what follows"
            order = [_urgency(m) for m in received]
            assert order == sorted(order), "cancels first, then the most severe"
        elif head["type"] not in ("alert", "cancel"):
            assert client.slow_since is None, "a slow client is sent nothing"
            assert len(received) == 1, "nothing behind a pong, an error or a ping"
            return
        for message in received:
            kind, alert_id, number = is_told(message)
            item = self.items[alert_id, number]
            self.trace.sends("node", phone.name, item)
            assert (kind, alert_id, number) == tells(item), "what was published"
            assert is_in(message, self.rules.spoken(client, item)), f"LA3: {item.languages} for {client.languages}"
            self.rules.is_sent(client, item, now)

    def clogs(self, phone):
        """Note that a phone's transport accepts bytes but cannot send them."""
        if phone.client.slow_since is None and phone in self.phones:
            phone.client.slow_since = self.now.monotonic
            self.trace.notes(phone.name, "slow")
            self.hub.slowed(phone.session.row, self.now)

    def leaves(self, phone):
        """Remove a phone whose session has ended."""
        if phone in self.phones:
            self.phones.remove(phone)
            self.rules.clients.remove(phone.client)
            self.hub.leave(phone.session.row)

    def read(self):
        """Let the node read the next item of the log."""
        if self.position < len(self.log):
            item = self.log[self.position]
            self.position += 1
            self.trace.sends("log", "node", item)
            self.quiet = False
            self.rules.read(item, self.now)
            self.hub.fanout.deliver(entry(item), self.now)

    # ---- steps of the publisher ----------------------------------------------------------------------------------

    @property
    def true_ms(self):
        """The time of a wall clock that nobody has set."""
        return self.clock.wall_ms - self.skew_ms

    def append(self, item, turns):
        item = replace(item, issued_at=self.true_ms)
        self.log.append(item)
        self.last[item.id] = self.items[item.id, item.number] = item
        self.trace.sends(
            "desk", "log", f"{item}, {item.status} {item.category} in {item.area}, ends {_clock(item.ends_at)}"
        )
        if turns is not None:
            while self.position < len(self.log):
                self.read()
            self.turn_often(turns)

    def can_follow(self):
        """Return the latest items of the alerts that are live according to the log."""
        return [item for item in self.last.values() if not item.cancels and item.ends_at > self.true_ms]

    @initialize(
        slice_rows=st.sampled_from([1, 1, 2]),
        phones=st.lists(st.tuples(PHONE, st.just({}) | HOLDING), min_size=2, max_size=ROWS),
        alerts=st.lists(ALERT, min_size=1, max_size=3),
    )
    def begin(self, slice_rows, phones, alerts):
        """Connect some phones and publish some alerts, so that each run has something to observe."""
        fanout.SLICE = slice_rows
        for phone, holding in phones:
            self.hello(holding={alert_id: max(1, held) for alert_id, held in holding.items()}, **phone)
        for alert in alerts:
            self.publish_one(turns=1, **alert)

    @precondition(lambda self: len(self.last) < len(IDS))
    @rule(alert=ALERT, turns=TURNS)
    def publish(self, alert, turns):
        self.publish_one(turns=turns, **alert)

    def publish_one(self, life_s, turns, **alert):
        ends_at = self.true_ms + life_s * 1000
        self.append(Item(IDS[len(self.last)], 1, ends_at, **alert), turns)

    @precondition(can_follow)
    @rule(which=WHICH, changes=CHANGES, longer_s=st.sampled_from([0, 30]), turns=TURNS)
    def revise(self, which, changes, longer_s, turns):
        old = _one_of(self.can_follow(), which)
        self.append(replace(old, number=old.number + 1, ends_at=old.ends_at + longer_s * 1000, **changes), turns)

    @precondition(can_follow)
    @rule(which=WHICH, turns=TURNS)
    def cancel(self, which, turns):
        old = _one_of(self.can_follow(), which)
        self.append(replace(old, number=old.number + 1, cancels=True), turns)

    # ---- steps of the phones -------------------------------------------------------------------------------------

    def reading(self):
        """Return the phones that read their messages."""
        return [phone for phone in self.phones if phone.client.slow_since is None]

    def slow(self):
        return [phone for phone in self.phones if phone.client.slow_since is not None]

    @precondition(lambda self: len(self.phones) < ROWS)
    @rule(phone=PHONE, holding=st.none() | HOLDING)
    def connect(self, phone, holding):
        """Connect a phone with random holdings, or with those of a phone that has disconnected."""
        if holding is None:
            held = self.away.pop() if self.away else {}
        else:
            held = {i: max(1, self.last[i].number + off) if i in self.last else 1 for i, off in holding.items()}
        self.hello(holding=held, **phone)

    def hello(self, wire, places, wanted, token, holding):
        phone = ModelPeer(f"phone{next(self.names)}", wire, self)
        client = phone.client
        phone.places, client.places = places, [place for _, place in places]
        self.filters(client, wanted)
        signed = self.grant(client, token)
        message = {"places": [sent for sent, _ in places], "holding": holding, "token": signed} | wanted
        if client.deadline <= self.now.monotonic:
            self.says(phone, "hello", message, token, refused=4401)
            return
        self.phones.append(phone)
        self.rules.hello(client, holding, self.now)
        self.says(phone, "hello", message, token)

    def grant(self, client, token):
        """Return a token as text, and give the client the rights of the token."""
        until_s = self.true_ms // 1000 + token["life_s"]
        client.tests, client.deadline = token["tests"], self.now.deadline(until_s * 1000)
        scopes = [RECEIVE, TEST] if token["tests"] else [RECEIVE]
        return sign(KEY, "phone", scopes, until_s - 1, 1)

    def filters(self, client, change):
        client.categories = change.get("categories", client.categories)
        client.min_severity = change.get("min_severity", client.min_severity) or "minor"
        client.languages = change.get("languages", client.languages) or []

    def says(self, phone, kind, message, token=None, refused=None):
        """Send a phone's message, and check the answer and whether the session is closed."""
        shown = {name: value for name, value in message.items() if name != "token"} | (token or {})
        self.trace.sends(phone.name, "node", f"{kind} {shown}")
        phone.take()
        code = None
        try:
            phone.session.receive(phone.session.wire.dumps({"type": kind} | message), self.now)
        except SessionClosed as closed:
            code = closed.close.code
            self.leaves(phone)
        assert code == refused, "closed for a token that has expired, and for nothing else"
        answers = [m["type"] for m in phone.take() if m["type"] not in ("alert", "cancel")]
        expected = [ANSWERS[kind]] if kind in ANSWERS and code is None else []
        assert answers == expected, f"{kind} is answered by {expected or 'nothing'}"
        if answers != ["error"]:
            check_client_message({"type": kind} | message)

    @precondition(reading)
    @rule(which=WHICH, places=SOMEWHERE)
    def move(self, which, places):
        phone = _one_of(self.reading(), which)
        phone.places, phone.client.places = places, [place for _, place in places]
        self.says(phone, "move", {"places": [sent for sent, _ in places]})

    @precondition(reading)
    @rule(which=WHICH, change=CHANGE)
    def filter(self, which, change):
        phone = _one_of(self.reading(), which)
        self.filters(phone.client, change)
        self.says(phone, "filter", change)

    @precondition(reading)
    @rule(which=WHICH, token=TOKEN)
    def token(self, which, token):
        phone = _one_of(self.reading(), which)
        signed = self.grant(phone.client, token)
        refused = 4401 if phone.client.deadline <= self.now.monotonic else None
        self.says(phone, "token", {"token": signed}, token, refused)

    @precondition(reading)
    @rule(which=WHICH, shown=WHICH, back=st.sampled_from([0, 0, 1, 2, 3, -1]))
    def ack(self, which, shown, back):
        """Acknowledge an alert from a phone, most often one that the phone was sent."""
        phone = _one_of(self.reading(), which)
        alert_id = _one_of([*sorted(phone.client.newest), *IDS], shown)
        number = max(1, self.last[alert_id].number - back) if alert_id in self.last else 1
        self.rules.acknowledge(phone.client, alert_id, number, self.now)
        self.says(phone, "ack", {"id": alert_id, "revision": number})

    @precondition(reading)
    @rule(which=WHICH, by=st.sampled_from([None, "ping", *MISTAKES]))
    def clog(self, which, by):
        """Let a phone stop reading.

        Its transport reports it at the next write: the answer to a ping or to a wrong message.
        """
        phone = _one_of(self.reading(), which)
        phone.full = True
        if by is not None:
            self.says(phone, by, MISTAKES.get(by, {}))

    @precondition(slow)
    @rule(which=WHICH, again=st.booleans())
    def drain(self, which, again):
        """Let a slow phone read everything, and perhaps stop again."""
        phone = _one_of(self.slow(), which)
        phone.full, phone.client.slow_since = again, None
        self.trace.notes(phone.name, "has read all")
        self.hub.on_drained(phone.session.row, self.now)
        self.misses_nothing(phone)

    @precondition(lambda self: len(self.phones) > 1)
    @rule(which=WHICH)
    def hang_up(self, which):
        phone = _one_of(self.phones, which)
        self.trace.notes(phone.name, "hangs up")
        self.away.append(self.shown(phone))
        self.leaves(phone)

    def shown(self, phone):
        """Return the alerts that a phone shows, which it will list in `holding`."""
        known = {alert_id: phone.client.has[alert_id] for alert_id in sorted(phone.client.recipient_of)}
        return known | {alert_id: held for alert_id, (held, _) in phone.client.claims.items()}

    # ---- steps of the node ---------------------------------------------------------------------------------------

    def has_news(self):
        """Return whether a phone or the publisher has acted since time last passed.

        Runs of clock changes alone are useless.
        """
        return len(self.trace) > self.seen

    @precondition(lambda self: self.position < len(self.log))
    @rule(turns=TURNS.filter(lambda turns: turns is not None))
    def read_one(self, turns):
        self.read()
        self.turn_often(turns)

    def known(self):
        """Return the items that the node has read, of alerts that it still knows."""
        return [item for item in self.log[: self.position] if item.id in self.rules.alerts]

    @precondition(has_news)
    @precondition(known)
    @rule(which=st.integers(0, 20))
    def read_again(self, which):
        """Deliver an item for the second time; the node must ignore it."""
        item = _one_of(self.known(), which)
        self.trace.sends("log", "node", f"{item}, again")
        self.seen = len(self.trace)
        self.hub.fanout.deliver(entry(item), self.now)

    @precondition(lambda self: not self.quiet)
    @rule(turns=st.sampled_from([1, 1, 2, 1000]))
    def turn(self, turns):
        self.turn_often(turns)

    def turn_often(self, turns):
        for _ in range(turns):
            if not self.hub.turn(self.now):
                self.quiet = True
                return
        assert turns < 1000, "a fan-out comes to an end"

    @precondition(has_news)
    @rule(seconds=WAITS_S)
    def wait(self, seconds):
        self.clock.advance(seconds)
        self.trace.notes("node", f"{seconds} s later, at {_clock(self.true_ms)}")
        self.seen = len(self.trace)
        for phone in self.reading():
            self.hub.note_read(phone.session.row, self.now)

    @precondition(has_news)
    @rule(seconds=WAITS_S, hours_off=HOURS_OFF, again=st.booleans())
    def wait_for_a_sweep(self, seconds, hours_off, again):
        """Let time pass, perhaps change the wall clock, and run the periodic check of the hub.

        The clock may be corrected, and the check run again, before the next turn of the fan-out.
        """
        self.wait(seconds)
        for hours in hours_off or [self.skew_ms // HOUR_MS]:
            self.clock.wall_ms = self.true_ms + hours * HOUR_MS
            self.skew_ms = hours * HOUR_MS
            self.trace.notes("node", f"a sweep, the wall clock is {hours} h off")
            self.sweep()
        self.count(again)

    def sweep(self):
        phones, to_close = list(self.phones), self.rules.sweep(self.now)
        self.hub.sweep(self.now)
        self.quiet = self.quiet and not self.hub.busy
        closed = {phone.client: phone.closed.code for phone in phones if phone.closed is not None}
        assert closed == to_close, "closed: for a token that has expired (4401), as slow (4420), and for nothing else"
        assert not any(phone.aborted for phone in phones), "none is silent"

    def count(self, again):
        """Compare the delivery counts with the model's. With `again`, the first attempt to store them fails."""
        if again:
            self.hub.fanout.live.put_back_counts(self.hub.fanout.live.take_counts())
        for alert_id, counts in self.hub.fanout.live.take_counts().items():
            self.sent[alert_id] = self.sent.get(alert_id, 0) + counts.sent
            self.acked[alert_id] = self.acked.get(alert_id, 0) + counts.acked
        assert self.sent == self.rules.sent, "section 4, `sent`"
        assert {i: n for i, n in self.acked.items() if n} == self.rules.acked, "section 4, `acked`"

    @precondition(lambda self: self.rules.sent)
    @rule(behind=st.integers(0, 3))
    def restart(self, behind):
        """Replace the node by one that has not read all of the log. The phones reconnect with what they show."""
        phones = self.phones
        self.trace.notes("node", f"restarts, {behind} items behind")
        self.count(again=False)
        self.start(max(0, len(self.log) - behind))
        for old in phones:
            wanted = {"categories": old.client.categories, "min_severity": old.client.min_severity}
            wanted = {name: value for name, value in wanted.items() if value is not None}
            wanted["languages"] = old.client.languages
            token = {"tests": old.client.tests, "life_s": 7200}
            self.hello(old.session.wire.subprotocol, old.places, wanted, token, self.shown(old))

    # ---- invariants ----------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_missing(self):
        if self.quiet:
            for phone in self.reading():
                self.misses_nothing(phone)

    def misses_nothing(self, phone):
        due = self.rules.all_due(phone.client, self.now)
        assert not due, f"{phone.name} was not sent {_list(due)}"

    @invariant()
    def the_hub_knows_who_is_there(self):
        assert len(self.hub) == len(self.phones), "sessions"
        assert self.hub.fanout.places == sum(len(phone.client.places) for phone in self.phones), (
            "places of sessions, no others"
        )

    def teardown(self):
        note(str(self.trace))


# Hypothesis chooses a rule more often if the rule has several names.
WEIGHTS = {
    **dict.fromkeys(("publish", "token", "clog", "drain", "hang_up", "wait"), 2),
    **dict.fromkeys(("connect", "move", "ack", "read_one", "turn", "wait_for_a_sweep"), 3),
    "revise": 4,
}
for _name, _weight in WEIGHTS.items():
    for _number in range(1, _weight):
        setattr(Geocast, f"{_name}_{_number}", getattr(Geocast, _name))


def _clock(ms):
    """Return the time of day as text."""
    return format_time(ms)[11:23]


def _one_of(things, which):
    return things[which % len(things)]


def _urgency(message):
    """Return a key that sorts cancels first, and then alerts by falling severity."""
    return -SEVERITIES.index(message["alert"]["severity"]) if message["type"] == "alert" else -len(SEVERITIES)


def _list(items):
    return ", ".join(sorted(map(str, items))) or "none"


@pytest.fixture
def small(monkeypatch):
    """Make the hub's limits small. Then few sessions fill a batch of the fan-out, and few alerts use up its 64 bits."""
    for name, number in {"SLICE": 1, "NEAREST": 2}.items():
        monkeypatch.setattr(fanout, name, number)
    for name, number in {"FLIGHTS": 3, "FLIGHTS_BELOW_EXTREME": 2}.items():
        monkeypatch.setattr(flights, name, number)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_random_steps_send_each_client_exactly_what_the_model_predicts():
    """The rules are 1 to 8 of section 5, "Who is sent what", and "Nothing is sent after expires_at" of section 3."""
    if SOAK:
        print(f"GEOCAST_SOAK_SEED={SEED} GEOCAST_SOAK_EXAMPLES={EXAMPLES} GEOCAST_SOAK_STEPS={STEPS}")
    run_state_machine_as_test(
        seed(SEED)(Geocast) if SOAK else Geocast,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=not SOAK,
            database=None,
            deadline=None,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
