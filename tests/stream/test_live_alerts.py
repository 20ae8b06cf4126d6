"""The live alerts of a node: what is current, which of them concern a place, and when they end.

Rules are those of `geocast.stream.live_alerts` (Rule 1, Rule 2) and of section 5 of the protocol (R1 to R8).
"""

import pytest
from stream.rows import CAPACITY, ENDS_MS, HALF_HOUR_S, concerned, rows
from support.fakes import DALLAS, NOON_MS, a_cancel, a_revision

from geocast.alertlog import Counts
from geocast.model.alert import Circle
from geocast.stream import live_alerts
from geocast.stream.live_alerts import CURRENT, RECIPIENT, SENT, LiveAlerts

# ---- entries -----------------------------------------------------------------------------------------------------


def test_a_revision_is_current_until_the_next(alerts, clock):
    """R2: revisions go out in rising order."""
    alert = alerts.apply(a_revision(), clock.now())
    assert (alert.number, alert.order, len(alerts)) == (1, 1, 1)
    assert alerts.apply(a_revision(revision=2, headline="x"), clock.now()) is alert
    assert (alert.number, alert.revision.alert.headline) == (2, "x")
    assert alert.current == a_revision(revision=2, headline="x")


@pytest.mark.parametrize(
    "entry", [a_revision(), a_revision(revision=2), a_cancel(revision=2)], ids=["1", "2", "cancel"]
)
def test_old_news_change_nothing(alerts, clock, entry):
    """R2: an entry that is read again is no news."""
    alerts.apply(a_revision(revision=2), clock.now())
    current = alerts.find("a-1", clock.now()).current
    assert alerts.apply(entry, clock.now()) is None
    assert alerts.find("a-1", clock.now()).current is current


def test_an_alert_may_come_in_at_a_later_revision(alerts, clock):
    """R5: a node that starts reads what is live, not what was."""
    assert alerts.apply(a_revision(revision=7), clock.now()).number == 7


def test_nothing_comes_after_a_cancel(alerts, clock):
    """R2: nothing after its cancel."""
    alerts.apply(a_revision(), clock.now())
    alert = alerts.apply(a_cancel(), clock.now())
    assert alert.number == 2
    assert alert.current == a_cancel()
    assert alerts.apply(a_revision(revision=2), clock.now()) is None
    assert alerts.apply(a_cancel(revision=2), clock.now()) is None
    assert alerts.apply(a_revision(revision=4), clock.now()) is None  # behind a number that is of another kind
    assert alerts.apply(a_cancel(revision=5), clock.now()) is alert


def test_a_cancel_of_an_unknown_alert_tells_nobody(alerts, clock):
    """R4: a cancel goes to recipients; of an unknown alert there are none."""
    assert alerts.apply(a_cancel(), clock.now()) is None
    assert len(alerts) == 0


def test_a_cancel_that_comes_before_its_alert_calls_it_off_from_the_first_moment(alerts, clock):
    """R2, R4: as after a flush, when the cancel was put back first; who holds the alert is told."""
    assert alerts.apply(a_cancel(revision=3), clock.now()) is None
    alert = alerts.apply(a_revision(), clock.now())
    assert alert.current == a_cancel(revision=3)
    assert concerned(alerts) == []
    assert alerts.apply(a_revision(revision=2), clock.now()) is None
    assert alerts.apply(a_cancel(revision=3), clock.now()) is None
    alert.trust_holding(0, 1)
    assert alert.recipients().tolist() == [0]


def test_cancels_that_come_before_their_alerts_are_bounded(alerts, clock, monkeypatch):
    """Rule 6: of too many the latest are kept."""
    monkeypatch.setattr(live_alerts, "MAX_EARLY", 2)
    for name in ("a", "b", "c"):
        alerts.apply(a_cancel(name), clock.now())
    called_off = [alerts.apply(a_revision(name), clock.now()).cancel is not None for name in ("a", "b", "c")]
    assert called_off == [False, True, True]


def test_a_tombstone_tells_nobody_and_takes_no_room(alerts, clock, monkeypatch):
    """CP13: it cancels nothing, so it pushes none out that may stand before its alert."""
    monkeypatch.setattr(live_alerts, "MAX_EARLY", 1)
    alerts.apply(a_cancel("a"), clock.now())
    assert alerts.apply(a_cancel("b", 1, into="c"), clock.now()) is None
    assert len(alerts) == 0
    assert alerts.apply(a_revision("a"), clock.now()).cancel is not None


def test_a_cancelled_alert_is_kept_for_those_who_come_back(alerts, clock):
    """Rule 2: until the `expires_at` of its last revision."""
    alerts.apply(a_revision(), clock.now())
    alerts.apply(a_cancel(), clock.now())
    alerts.expire(clock.advance(HALF_HOUR_S - 0.001))
    assert alerts.find("a-1", clock.now()).cancel is not None
    alerts.expire(clock.advance(0.001))
    assert len(alerts) == 0


def test_alerts_that_are_tests_are_restricted(alerts, clock):
    """R6: `exercise` and `test` exist only for some sessions."""
    assert [alerts.apply(a_revision(s, status=s), clock.now()).restricted for s in ("actual", "exercise", "test")] == [
        False,
        True,
        True,
    ]


# ---- the end -----------------------------------------------------------------------------------------------------


def test_an_alert_has_ended_at_its_expiry(alerts, clock):
    """Section 1: live is `now < expires_at`."""
    alert = alerts.apply(a_revision(), clock.now())
    assert not alert.ended(clock.advance(HALF_HOUR_S - 0.001))
    assert alerts.find("a-1", clock.now()) is alert
    assert alert.ended(clock.advance(0.001))
    assert alerts.find("a-1", clock.now()) is None


@pytest.mark.parametrize("which", ["wall", "monotonic"])
def test_either_clock_ends_an_alert(alerts, clock, which):
    """Rule 1: the wall clock has reached `expires_at`, or the monotonic deadline has passed."""
    alert = alerts.apply(a_revision(), clock.now())
    if which == "wall":
        clock.wall_ms = ENDS_MS  # set forward
    else:
        clock.monotonic += HALF_HOUR_S  # half an hour later; the wall clock was set back
    assert alert.ended(clock.now())


def test_what_the_monotonic_clock_has_ended_stays_out(alerts, clock):
    """Rule 3: it is let go, even if the wall clock was set back."""
    alerts.apply(a_revision(), clock.now())
    clock.monotonic += HALF_HOUR_S
    assert alerts.expire(clock.now()) == []
    assert (len(alerts), concerned(alerts)) == (0, [])


@pytest.mark.parametrize("hours", [0, -48])
@pytest.mark.parametrize("entry", [a_revision(), a_revision(revision=2)], ids=["older", "last"])
def test_what_was_let_go_stays_out_when_the_log_gives_it_again(entry, hours, alerts, clock):
    """E1: a new epoch of the log gives it anew, and the wall clock may be days behind by then, or later."""
    alerts.apply(a_revision(revision=2), clock.now())
    clock.advance(HALF_HOUR_S)
    alerts.expire(clock.now())
    clock.wall_ms += hours * 3_600_000
    assert alerts.apply(entry, clock.now()) is None
    clock.wall_ms -= 48 * 3_600_000
    assert alerts.expire(clock.now()) == []
    assert len(alerts) == 0


def test_what_was_let_go_comes_back_with_a_newer_revision(alerts, clock):
    """R2: another node, whose clock is right, has accepted it, so the alert lives."""
    alerts.apply(a_revision(), clock.now())
    clock.advance(HALF_HOUR_S)
    alerts.expire(clock.now())
    longer = a_revision(revision=2, expires_at=ENDS_MS + 60_000)
    assert alerts.apply(longer, clock.now()).number == 2


def test_what_was_let_go_is_remembered_for_a_day_and_within_bounds(clock, monkeypatch):
    """LogR1: for as long as the log can give it again."""
    monkeypatch.setattr(live_alerts, "MAX_GONE", 2)
    monkeypatch.setattr(live_alerts, "GONE_PARTS", 1)
    alerts = LiveAlerts(CAPACITY)
    ids = [f"a-{n}" for n in range(5)]
    for alert_id in ids:
        alerts.apply(a_revision(alert_id), clock.now())
    clock.advance(HALF_HOUR_S)
    alerts.expire(clock.now())
    assert [alerts._gone.last(alert_id) for alert_id in ids] == [0, 0, 1, 1, 1]
    clock.advance(live_alerts.GONE_S - 1)
    assert [alerts._gone.last(alert_id) for alert_id in ids] == [0, 0, 1, 1, 1]


def test_what_the_wall_clock_alone_has_ended_is_suspended(alerts, clock):
    """Rule 3: with what was told, and until the monotonic clock has ended it too."""
    alert = alerts.apply(a_revision(), clock.now())
    alert.mark_sent(rows(1))
    clock.wall_ms = ENDS_MS
    assert alerts.expire(clock.now()) == []
    assert alerts.find("a-1", clock.now()) is alert
    assert alert.flags(1) == RECIPIENT | CURRENT | SENT
    assert alerts.suspended(clock.now()) == 1
    clock.monotonic += HALF_HOUR_S
    alerts.expire(clock.now())
    assert (len(alerts), alerts.suspended(clock.now())) == (0, 0)
    clock.wall_ms = NOON_MS
    assert alerts.expire(clock.now()) == []


def test_what_somebody_was_not_sent_is_told_of_when_it_lives_after_all(alerts, clock):
    """Rule 3: once, in the order in which they came; not what nobody has asked for meanwhile."""
    found = [alerts.apply(a_revision(f"a-{n}"), clock.now()) for n in range(3)]
    clock.wall_ms = ENDS_MS
    assert [alert.ended(clock.now()) for alert in (found[2], found[0])] == [True, True]
    clock.wall_ms = NOON_MS
    assert alerts.expire(clock.now()) == [found[0], found[2]]
    assert alerts.expire(clock.now()) == []


def test_what_had_ended_when_it_was_learnt_of_is_suspended_for_as_long_as_it_can_live(alerts, clock):
    """Rule 4: the wall clock may be ahead; an alert was accepted before it is learnt of."""
    clock.wall_ms = ENDS_MS
    assert alerts.apply(a_revision(), clock.now()) is None
    assert alerts.apply(a_revision(revision=2), clock.now()) is None
    clock.monotonic += HALF_HOUR_S - 0.001
    alerts.expire(clock.now())
    assert len(alerts) == 1
    clock.monotonic += 0.001
    alerts.expire(clock.now())
    assert len(alerts) == 0


def test_what_had_ended_when_it_was_learnt_of_gets_a_deadline_when_the_clock_is_right(alerts, clock):
    """Rule 4: the wall clock lets it live, so the deadline is made of that."""
    clock.wall_ms = ENDS_MS
    alerts.apply(a_revision(), clock.now())
    clock.wall_ms = NOON_MS + 600_000
    [alert] = alerts.expire(clock.now())
    assert not alert.ended(clock.advance(1199.999))
    clock.wall_ms = NOON_MS
    clock.monotonic += 0.001
    alerts.expire(clock.now())
    assert len(alerts) == 0


def test_of_what_had_ended_few_are_kept_and_the_rest_is_known_to_be_missing(alerts, clock, monkeypatch):
    """Rule 4: memory for each of them; `missed_until` says when the log has to be read again."""
    monkeypatch.setattr(live_alerts, "MAX_DOUBTED", 2)
    clock.wall_ms = ENDS_MS + 1000
    for n in range(4):
        alerts.apply(a_revision(f"a-{n}", expires_at=ENDS_MS + n), clock.now())
    assert (len(alerts), alerts.missed_until) == (2, ENDS_MS + 3)


@pytest.mark.parametrize("learnt_s", [0, 600])
def test_a_deadline_of_a_clock_that_was_ahead_is_put_right(alerts, clock, learnt_s):
    """Rule 1: but not beyond the latest that can be right."""
    clock.advance(learnt_s)
    clock.wall_ms += 1_000_000
    alert = alerts.apply(a_revision(), clock.now())
    clock.wall_ms -= 1_000_000 + 60_000
    alerts.correct(clock.now())
    left_s = HALF_HOUR_S - learnt_s + (60 if learnt_s else 0)
    assert not alert.ended(clock.advance(left_s - 0.001))
    clock.monotonic += 0.001
    assert alert.ended(clock.now())


def test_a_cancel_that_comes_after_the_end_is_no_news(alerts, clock):
    """E1: nothing is sent after `expires_at`, a cancel neither."""
    alerts.apply(a_revision(), clock.now())
    assert alerts.apply(a_cancel(), clock.advance(HALF_HOUR_S)) is None


def test_a_revision_may_extend_the_end(alerts, clock):
    """Section 3: a revision's expiry is not earlier than the current one's; the later one counts."""
    alerts.apply(a_revision(), clock.now())
    alerts.apply(a_revision(revision=2, expires_at=ENDS_MS + 1000), clock.now())
    alerts.expire(clock.advance(HALF_HOUR_S))
    assert alerts.find("a-1", clock.now()).number == 2
    alerts.expire(clock.advance(1))
    assert len(alerts) == 0


def test_a_clock_that_was_set_back_does_not_make_an_alert_live_longer(alerts, clock):
    """Rule 1: a revision adds to the monotonic deadline what it adds to `expires_at`, and no more."""
    alert = alerts.apply(a_revision(), clock.now())
    clock.wall_ms -= 600_000
    alerts.apply(a_revision(revision=2, expires_at=ENDS_MS + 1000), clock.now())
    assert not alert.ended(clock.advance(HALF_HOUR_S + 0.999))
    assert alert.ended(clock.advance(0.001))


def test_only_what_has_ended_goes(alerts, clock):
    """Rule 1, for each alert by its own time, in whatever order they came."""
    for n in (3, 1, 2):
        alerts.apply(a_revision(f"a-{n}", expires_at=NOON_MS + n * 1000), clock.now())
    for left in ({"a-1", "a-2", "a-3"}, {"a-2", "a-3"}, {"a-3"}, set()):
        alerts.expire(clock.now())
        assert {alert.id for alert in alerts} == left == set(concerned(alerts))
        clock.advance(1)


def test_of_those_that_end_together_some_are_let_go_at_a_time(alerts, clock, monkeypatch):
    """Rule 5: they have all ended, and each is let go once, the counts of all kept."""
    monkeypatch.setattr(live_alerts, "AT_ONCE", 3)
    found = [alerts.apply(a_revision(f"a-{n}"), clock.now()) for n in range(7)]
    for alert in found:
        alert.mark_sent_to(1)
    clock.advance(HALF_HOUR_S)
    left = []
    for _ in range(4):
        assert alerts.expire(clock.now()) == []
        assert all(alert.ended(clock.now()) for alert in found)
        left.append(len(alerts))
    assert left == [4, 1, 0, 0]
    assert alerts.take_counts() == {f"a-{n}": Counts(1, 0) for n in range(7)}


def test_what_was_put_off_is_not_let_go_at_its_old_end(alerts, clock):
    """Rule 1: by revisions, one after the other, while others end."""
    for n in range(5):
        alerts.apply(a_revision(f"a-{n}", expires_at=NOON_MS + 1000), clock.now())
    for number in (2, 3):
        alerts.apply(a_revision("a-2", number, expires_at=NOON_MS + 1000 * number), clock.now())
    for left in (5, 1, 1, 0):
        alerts.expire(clock.now())
        assert len(alerts) == left
        clock.advance(1)


def test_suspended_alerts_are_counted_though_the_clock_has_been_set_often(alerts, clock):
    """Rules 3 and 4: those that only the wall clock has ended, however far off it was when they were learnt of."""
    for n, off_ms in enumerate((0, 3_600_000, -7_200_000, 0)):
        clock.wall_ms = NOON_MS + off_ms
        alerts.apply(a_revision(f"a-{n}", expires_at=ENDS_MS + n), clock.now())
        alerts.expire(clock.now())
    assert alerts.suspended(clock.now()) == 0
    clock.wall_ms = ENDS_MS + 2
    assert alerts.suspended(clock.now()) == 3
    clock.wall_ms = NOON_MS
    assert alerts.suspended(clock.now()) == 0


# ---- which of them concern a place -------------------------------------------------------------------------------


def test_an_alert_concerns_places_inside_its_area(alerts, clock):
    """R1 and section 2, distance: `distance <= radius_m + reach`, in any of its shapes, told once."""
    paris = (48.8566, 2.3522)
    area = (Circle(*DALLAS, 1000.0), Circle(*paris, 500.0), Circle(*paris, 50.0))
    alerts.apply(a_revision(area=area), clock.now())
    assert concerned(alerts) == concerned(alerts, paris) == ["a-1"]
    outside = (48.8566, 2.3522 + 0.01)  # 731.6 m east
    assert concerned(alerts, outside) == []
    assert concerned(alerts, outside, 231.0) == []
    assert concerned(alerts, outside, 232.0) == ["a-1"]


def test_an_area_may_move_with_a_revision(alerts, clock):
    """R1: the current revision's area counts."""
    alerts.apply(a_revision(), clock.now())
    alerts.apply(a_revision(revision=2, area=(Circle(0.0, 0.0, 100.0),)), clock.now())
    assert concerned(alerts) == []
    assert concerned(alerts, (0.0, 0.0)) == ["a-1"]


def test_a_cancelled_alert_concerns_no_place(alerts, clock):
    """R4: a cancel goes to recipients, and to nobody else."""
    for alert_id in ("a-1", "a-2"):
        alerts.apply(a_revision(alert_id), clock.now())
    alerts.apply(a_cancel(), clock.now())
    assert concerned(alerts) == ["a-2"]


def test_any_number_of_alerts_may_be_live(alerts, clock):
    """R3: every live alert that applies; columns grow and shrink."""
    for n in range(200):
        alerts.apply(a_revision(f"a-{n}", expires_at=NOON_MS + 1000 * (n + 1)), clock.now())
    assert len(set(concerned(alerts))) == 200
    alerts.expire(clock.advance(150))
    assert set(concerned(alerts)) == {f"a-{n}" for n in range(150, 200)}


# ---- rows that others will have ----------------------------------------------------------------------------------


def test_forgotten_rows_know_nothing(alerts, clock):
    """R2: "once on one connection": the next session in the row is another."""
    for alert_id in ("a-1", "a-2"):
        alert = alerts.apply(a_revision(alert_id), clock.now())
        alert.mark_sent(rows(1, 2))
        alert.trust_holding(3, 9)
    alerts.forget(rows(1, 3))
    for alert in alerts:
        assert [alert.flags(row) for row in range(4)] == [0, 0, RECIPIENT | CURRENT | SENT, 0]
        assert alert._flags.ahead == {}
        alert.acknowledge(1, 1)
        assert alert.acked == 0
