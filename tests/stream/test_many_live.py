"""The random steps of test_model while hundreds of other alerts are live.

The model does not have these alerts, since by the rules none of them reaches a phone: they lie where no phone ever is,
or had no recipient when they were cancelled.
"""

import pytest
import test_model
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from support.fakes import DALLAS, NOON_MS, a_cancel, a_revision
from support.model import haversine_m
from support.town import CENTRES, PLACES, beyond
from test_model import EXAMPLES, STEPS, TURNS, Geocast

from geocast.model.alert import Circle
from geocast.stream import fanout, flights

pytestmark = pytest.mark.slow

ABROAD = (-33.9, 18.4)
DAYS_MS = 10 * 86_400_000
FAR_M = 9_000  # phones are at most 5 km from a centre, with a reach of 2 km; the others' circles are 300 m


def others():
    """Return entries of other alerts. Most of them outlive the test; some end in its course."""
    found = []
    for at in range(240):
        centre = (*CENTRES, ABROAD)[at % 4]
        circle = Circle(*beyond(*centre, 37 * at % 360, FAR_M + at), 300.0 if at % 3 else 10.0)
        ends_at = NOON_MS + (1000 * at if at % 5 == 0 else DAYS_MS)
        found.append(a_revision(f"other-{at}", area=(circle,), expires_at=ends_at))
    for at in range(40):
        area = (Circle(*DALLAS, 1000.0), Circle(*ABROAD, 2_000_000.0))
        found.append(a_revision(f"over-{at}", area=area, expires_at=NOON_MS + DAYS_MS))
        found.append(a_cancel(f"over-{at}", ends_at=NOON_MS + DAYS_MS))
    return found


class Crowded(Geocast):
    """The same desk, node, phones and model, while many alerts are live."""

    def start(self, read):
        super().start(0)
        for other in others():
            self.hub.fanout.deliver(other, self.now)
        for _ in range(read):
            self.read()

    @precondition(lambda self: self.has_news())
    @rule(which=st.integers(0, 239), again=st.booleans(), turns=TURNS.filter(lambda turns: turns is not None))
    def elsewhere(self, which, again, turns):
        """Deliver a revision of one of the other alerts, or its cancel too."""
        circle = Circle(*beyond(*ABROAD, which, 20_000), 500.0)
        number = len(self.trace) + 2
        self.hub.fanout.deliver(
            a_revision(f"other-{which}", number, area=(circle,), expires_at=NOON_MS + DAYS_MS, issued_at=self.true_ms),
            self.now,
        )
        if again:
            self.hub.fanout.deliver(a_cancel(f"other-{which}", number + 1, ends_at=NOON_MS + DAYS_MS), self.now)
        self.quiet = False
        self.turn_often(turns)
        self.trace.notes("node", "something happens elsewhere")
        self.seen = len(self.trace)


def test_random_steps_with_many_live_alerts_send_what_the_model_predicts(monkeypatch):
    """Each phone is sent what the rules say (section 5, R1 to R8)."""
    for name, number in {"SLICE": 1, "NEAREST": 2}.items():
        monkeypatch.setattr(fanout, name, number)
    for name, number in {"FLIGHTS": 3, "FLIGHTS_BELOW_EXTREME": 2}.items():
        monkeypatch.setattr(flights, name, number)
    run_state_machine_as_test(
        Crowded,
        settings=settings(
            max_examples=EXAMPLES // 4,
            stateful_step_count=STEPS,
            derandomize=not test_model.SOAK,
            database=None,
            deadline=None,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_background_alerts_of_the_model_contain_no_place_of_a_phone():
    """The model relies on that."""
    for _, (*where, reach) in PLACES:
        for other in others():
            for circle in other.alert.circles if other.id.startswith("other") else ():
                gap_m = haversine_m(*where, circle.lat, circle.lng) - circle.radius_m - reach
                assert gap_m > 100
