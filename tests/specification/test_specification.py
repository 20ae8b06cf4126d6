"""The models are searched to their ends within small bounds, and the core does what they say (see README.md)."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.fakes import DALLAS, NOON_MS, FakeClock, FakePeer, a_cancel, a_revision

from geocast.auth.tokens import TokenVerifier
from geocast.model.alert import Circle
from geocast.stream.hub import Hub
from geocast.stream.session import Session
from geocast.wire.frames import WIRES

HERE = Path(__file__).parent
MODELS = ("delivery.pml", "leases.pml")
SWITCHES = [
    (model, switch)
    for model in MODELS
    for switch in re.findall(r"#define (BREAK_\w+) \d", (HERE / model).read_text(encoding="utf-8"))
]
TRACES = 1000
PLACES = [{"lat": DALLAS[0], "lng": DALLAS[1]}, {"lat": DALLAS[0] + 0.1, "lng": DALLAS[1]}]
IDS = "ab"
HOUR_MS = 3_600_000

pytestmark = pytest.mark.skipif(shutil.which("spin") is None, reason="needs spin (Debian package spin)")


def search(model, *options):
    """Return the exit status and the output of a search."""
    command = ["sh", str(HERE / "search.sh"), model, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize("model", MODELS)
def test_no_state_breaks_a_rule(model):
    """The whole space within the bounds is looked at."""
    status, said = search(model)
    assert status == 0, said
    assert "errors: 0" in said


@pytest.mark.parametrize(("model", "switch"), SWITCHES)
def test_each_switch_breaks_a_rule(model, switch):
    """A search that finds nothing proves nothing."""
    status, said = search(model, f"-DBREAK={switch}")
    assert status == 1, "nothing was found"
    assert "assertion violated" in said


# ---- replays on the core -----------------------------------------------------------------------------------------


class Core:
    """Two nodes and a phone that do what a trace says."""

    def __init__(self, ends):
        self.clock = FakeClock()
        # Alerts end in the order of the trace, a second apart, because what a phone holds is forgotten after 30 s.
        self.ends_at = {a: NOON_MS + 1000 * (1 + ends.index(a)) if a in ends else NOON_MS + HOUR_MS for a in range(2)}
        self.hubs = [Hub(2), Hub(2)]
        self.tokens = TokenVerifier({}, {}, required=False)
        self.place, self.shown, self.gone = 0, {}, set()
        self.at = self.peer = self.session = None

    @property
    def now(self):
        return self.clock.now()

    def read(self, a, number, cancels, _by, node):
        """Let a node read an entry. Revision i of alert a covers the first place if i + a is odd, else the second."""
        a, number, node = int(a), int(number), int(node)
        if int(cancels):
            entry = a_cancel(IDS[a], number, ends_at=self.ends_at[a])
        else:
            place = PLACES[(a + number + 1) % 2]
            area = (Circle(place["lat"], place["lng"], 1000),)
            entry = a_revision(IDS[a], number, area=area, issued_at=NOON_MS, expires_at=self.ends_at[a])
        self.hubs[node].fanout.deliver(entry, self.now)

    def connect(self, node):
        """Connect the phone, which says what it shows."""
        self.at, self.peer = int(node), FakePeer()
        wire = next(wire for wire in WIRES if wire.subprotocol == "geocast.v1.json")
        self.session = Session(self.peer, wire, self.hubs[self.at], self.tokens)
        holding = {IDS[a]: number for a, number in self.shown.items()}
        self.says("hello", {"places": [PLACES[self.place]], "holding": holding})

    def disconnect(self):
        self.hubs[self.at].leave(self.session.row)
        self.at = self.peer = self.session = None

    def move(self, place):
        self.place = int(place)

    def arrive(self, place):
        self.says("move", {"places": [PLACES[int(place)]]})

    def says(self, kind, fields):
        self.session.receive(self.session.wire.dumps({"type": kind} | fields), self.now)

    def kill(self, node):
        self.hubs[int(node)] = Hub(2)

    def end(self, a):
        self.clock.advance((self.ends_at[int(a)] - self.now.wall_ms) / 1000)
        self.shown.pop(int(a), None)
        for hub in self.hubs:
            hub.sweep(self.now)

    def sent(self):
        """Return what the phone was sent since the last call: alert, number and whether it is a cancel."""
        for hub in self.hubs:
            while hub.turn(self.now):
                pass
        found = set()
        for message in self.peer.take() if self.peer is not None else ():
            if message["type"] == "alert":
                a, number = IDS.index(message["alert"]["id"]), message["alert"]["revision"]
                found.add((a, number, 0))
                if a not in self.gone:
                    self.shown[a] = max(number, self.shown.get(a, 0))
            elif message["type"] == "cancel":
                a = IDS.index(message["id"])
                found.add((a, 0, 1))
                self.gone.add(a)
                self.shown.pop(a, None)
        return found


def traces(count):
    """Yield random histories of the model: lists of its lines, split into words."""
    bounds = {"ALERTS": 2, "LAST": 3, "FAILOVERS": 1, "KILLS": 1, "LOSSES": 4, "MOVES": 4, "PROMPT": 1, "REPLAY": 1}
    options = [f"-D{name}={value}" for name, value in bounds.items()]
    for seed in range(count):
        command = ["spin", *options, f"-n{seed + 1}", "-T", str(HERE / "delivery.pml")]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        yield [line.split() for line in said.splitlines() if line.strip()]


def test_the_core_does_what_the_model_says():
    """After each step of a history, the phone was sent exactly what the model sends."""
    sent = 0
    for trace in traces(TRACES):
        core = Core([int(words[1]) for words in trace if words[0] == "end"])
        expected = set()
        for step, words in enumerate([*trace, ["done"]]):
            name, arguments = words[0], words[1:]
            if name == "sent":
                expected.add(tuple(map(int, arguments)))
                continue
            assert core.sent() == expected, "\n".join(" ".join(words) for words in trace[:step])
            sent += len(expected)
            expected = set()
            if hasattr(core, name):
                getattr(core, name)(*arguments)
    assert sent > TRACES
