"""The live alerts of a node: the current revision or cancel of each, the places they contain, and their ends.

Rules are those of `geocast.stream.live_alerts` and of section 5 of the protocol (R1 to R8).
"""

import pytest
from stream.rows import CAPACITY, ENDS_MS, HALF_HOUR_S, concerned, rows
from support.fakes import DALLAS, NOON_MS, a_cancel, a_revision

from geocast.alertlog import Counts
from geocast.model.alert import Circle
from geocast.stream import live_alerts
from geocast.stream.live_alerts import CURRENT, RECIPIENT, SENT, LiveAlerts

# ---- revisions and cancels from the log --------------------------------------------------------------------------


def test_revision_is_current_until_a_newer_one_arrives(alerts, clock):
    """Revisions are sent in rising order (R2)."""
    alert = alerts.apply(a_revision(), clock.now())
    assert (alert.number, alert.order, len(alerts)) == (1, 1, 1)
    assert alerts.apply(a_revision(revision=2, headline="x"), clock.now()) is alert
    assert (alert.number, alert.revision.alert.headline) == (2, "x")
    assert alert.current == a_revision(revision=2, headline="x")


@pytest.mark.parametrize("entry", [a_revision(), a_revision(revision=2)], ids=["1", "2"])
def test_log_entry_that_is_not_newer_changes_nothing(alerts, clock, entry):
    """The log may yield an entry again (R2)."""
    alerts.apply(a_revision(revision=2), clock.now())
    current = alerts.find("a-1", clock.now()).current
    assert alerts.apply(entry, clock.now()) is None
    assert alerts.find("a-1", clock.now()).current is current


def test_first_revision_that_a_node_reads_need_not_be_number_1(alerts, clock):
    """A node that starts reads only the current revisions of live alerts (R5)."""
    assert alerts.apply(a_revision(revision=7), clock.now()).number == 7


def test_revision_after_a_cancel_is_ignored(alerts, clock):
    """A later cancel replaces the first one (R2)."""
    alerts.apply(a_revision(), clock.now())
    alert = alerts.apply(a_cancel(), clock.now())
    assert alert.number == 2
    assert alert.current == a_cancel()
    assert alerts.apply(a_revision(revision=2), clock.now()) is None
    assert alerts.apply(a_cancel(revision=2), clock.now()) is None
    assert alerts.apply(a_revision(revision=4), clock.now()) is None  # entry 3 is of another kind
    assert alerts.apply(a_cancel(revision=5), clock.now()) is alert


def test_cancel_under_the_number_of_a_revision_ends_the_alert(alerts, clock):
    """The log has lost revisions that this process knows, so the cancel got the number of one of them (Rule 10)."""
    for number in (1, 2, 3):
        alerts.apply(a_revision(revision=number), clock.now())
    alert = alerts.apply(a_cancel(revision=2), clock.now())
    assert alert.current == a_cancel(revision=4)
    for entry in (a_revision(revision=5), a_cancel(revision=2)):
        assert alerts.apply(entry, clock.now()) is None
    assert alert.current == a_cancel(revision=4)


def test_cancel_of_an_unknown_alert_changes_nothing(alerts, clock):
    """The cancel is remembered, and has no effect until the alert is read (R4)."""
    assert alerts.apply(a_cancel(), clock.now()) is None
    assert len(alerts) == 0


def test_alert_read_after_its_cancel_is_cancelled_at_once(alerts, clock):
    """When a log is repaired, the cancel may be restored before the alert.

    A client that has the alert is sent the cancel (Rule 6, R4).
    """
    assert alerts.apply(a_cancel(revision=3), clock.now()) is None
    alert = alerts.apply(a_revision(), clock.now())
    assert alert.current == a_cancel(revision=3)
    assert concerned(alerts) == []
    assert alerts.apply(a_revision(revision=2), clock.now()) is None
    assert alerts.apply(a_cancel(revision=3), clock.now()) is None
    alert.trust_holding(0, 1)
    assert alert.recipients().tolist() == [0]


def test_only_the_newest_cancels_of_unknown_alerts_are_remembered(alerts, clock, monkeypatch):
    """At most MAX_EARLY cancels of unknown alerts are kept (Rule 6)."""
    monkeypatch.setattr(live_alerts, "MAX_EARLY", 2)
    for name in ("a", "b", "c"):
        alerts.apply(a_cancel(name), clock.now())
    called_off = [alerts.apply(a_revision(name), clock.now()).cancel is not None for name in ("a", "b", "c")]
    assert called_off == [False, True, True]


def test_tombstone_of_a_cap_message_is_ignored(alerts, clock, monkeypatch):
    """A tombstone is an entry that only marks a CAP message as handled.

    It cancels nothing and displaces no remembered cancel (CP13).
    """
    monkeypatch.setattr(live_alerts, "MAX_EARLY", 1)
    alerts.apply(a_cancel("a"), clock.now())
    assert alerts.apply(a_cancel("b", 1, into="c"), clock.now()) is None
    assert len(alerts) == 0
    assert alerts.apply(a_revision("a"), clock.now()).cancel is not None


def test_cancelled_alert_is_remembered_until_its_expiry(alerts, clock):
    """Clients that reconnect are sent the cancel (Rule 2)."""
    alerts.apply(a_revision(), clock.now())
    alerts.apply(a_cancel(), clock.now())
    alerts.expire(clock.advance(HALF_HOUR_S - 0.001))
    assert alerts.find("a-1", clock.now()).cancel is not None
    alerts.expire(clock.advance(0.001))
    assert len(alerts) == 0


def test_alerts_of_status_test_or_exercise_are_restricted(alerts, clock):
    """Restricted alerts are sent only to some sessions (R6)."""
    assert [alerts.apply(a_revision(s, status=s), clock.now()).restricted for s in ("actual", "exercise", "test")] == [
        False,
        True,
        True,
    ]


# ---- the end of an alert -----------------------------------------------------------------------------------------


def test_alert_is_live_until_exactly_its_expiry(alerts, clock):
    """An alert is live while `now < expires_at` (section 1)."""
    alert = alerts.apply(a_revision(), clock.now())
    assert not alert.ended(clock.advance(HALF_HOUR_S - 0.001))
    assert alerts.find("a-1", clock.now()) is alert
    assert alert.ended(clock.advance(0.001))
    assert alerts.find("a-1", clock.now()) is None


@pytest.mark.parametrize("which", ["wall", "monotonic"])
def test_alert_ends_when_either_clock_reaches_its_end(alerts, clock, which):
    """The wall clock has reached `expires_at`, or the monotonic deadline has passed (Rule 1)."""
    alert = alerts.apply(a_revision(), clock.now())
    if which == "wall":
        clock.wall_ms = ENDS_MS  # set forward
    else:
        clock.monotonic += HALF_HOUR_S  # half an hour later; the wall clock was set back
    assert alert.ended(clock.now())


def test_alert_expired_by_the_monotonic_clock_is_forgotten(alerts, clock):
    """Setting the wall clock back changes nothing (Rule 3)."""
    alerts.apply(a_revision(), clock.now())
    clock.monotonic += HALF_HOUR_S
    assert alerts.expire(clock.now()) == []
    assert (len(alerts), concerned(alerts)) == (0, [])


@pytest.mark.parametrize("hours", [0, -48])
@pytest.mark.parametrize("entry", [a_revision(), a_revision(revision=2)], ids=["older", "last"])
def test_forgotten_alert_stays_forgotten_when_the_log_repeats_it(entry, hours, alerts, clock):
    """After a failover of Redis, the log yields old entries again.

    By then, or later, the wall clock may be set back by days (E1).
    """
    alerts.apply(a_revision(revision=2), clock.now())
    clock.advance(HALF_HOUR_S)
    alerts.expire(clock.now())
    clock.wall_ms += hours * 3_600_000
    assert alerts.apply(entry, clock.now()) is None
    clock.wall_ms -= 48 * 3_600_000
    assert alerts.expire(clock.now()) == []
    assert len(alerts) == 0


def test_forgotten_alert_is_live_again_with_a_newer_revision(alerts, clock):
    """Another node, whose clock is right, has accepted the revision, so the alert is live (R2)."""
    alerts.apply(a_revision(), clock.now())
    clock.advance(HALF_HOUR_S)
    alerts.expire(clock.now())
    longer = a_revision(revision=2, expires_at=ENDS_MS + 60_000)
    assert alerts.apply(longer, clock.now()).number == 2


def test_ids_of_expired_alerts_are_remembered_for_a_day_but_only_a_limited_number(clock, monkeypatch):
    """For a day, the log can yield the entries of these alerts again (LogR1)."""
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


def test_alert_expired_by_the_wall_clock_alone_is_withheld_but_not_forgotten(alerts, clock):
    """The delivery flags of the alert are kept until the monotonic clock has ended it, too (Rule 3)."""
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


def test_withheld_alerts_are_returned_once_when_they_are_live_again(alerts, clock):
    """Only alerts whose state was checked while they were withheld are returned, in the order of arrival (Rule 3)."""
    found = [alerts.apply(a_revision(f"a-{n}"), clock.now()) for n in range(3)]
    clock.wall_ms = ENDS_MS
    assert [alert.ended(clock.now()) for alert in (found[2], found[0])] == [True, True]
    clock.wall_ms = NOON_MS
    assert alerts.expire(clock.now()) == [found[0], found[2]]
    assert alerts.expire(clock.now()) == []


def test_alert_that_had_expired_on_arrival_is_withheld_for_its_longest_possible_life(alerts, clock):
    """The wall clock may be ahead; an alert was accepted before a node learns of it (Rule 4)."""
    clock.wall_ms = ENDS_MS
    assert alerts.apply(a_revision(), clock.now()) is None
    assert alerts.apply(a_revision(revision=2), clock.now()) is None
    clock.monotonic += HALF_HOUR_S - 0.001
    alerts.expire(clock.now())
    assert len(alerts) == 1
    clock.monotonic += 0.001
    alerts.expire(clock.now())
    assert len(alerts) == 0


def test_alert_that_had_expired_on_arrival_gets_its_deadline_from_the_corrected_clock(alerts, clock):
    """The deadline is computed from the clock that says that the alert is live (Rule 4)."""
    clock.wall_ms = ENDS_MS
    alerts.apply(a_revision(), clock.now())
    clock.wall_ms = NOON_MS + 600_000
    [alert] = alerts.expire(clock.now())
    assert not alert.ended(clock.advance(1199.999))
    clock.wall_ms = NOON_MS
    clock.monotonic += 0.001
    alerts.expire(clock.now())
    assert len(alerts) == 0


def test_alerts_expired_on_arrival_beyond_the_limit_are_noted_for_rereading(alerts, clock, monkeypatch):
    """`missed_until` says whether the log has to be read again (Rule 4)."""
    monkeypatch.setattr(live_alerts, "MAX_DOUBTED", 2)
    clock.wall_ms = ENDS_MS + 1000
    for n in range(4):
        alerts.apply(a_revision(f"a-{n}", expires_at=ENDS_MS + n), clock.now())
    assert (len(alerts), alerts.missed_until) == (2, ENDS_MS + 3)


@pytest.mark.parametrize("learnt_s", [0, 600])
def test_deadline_computed_from_a_clock_that_was_ahead_is_corrected(alerts, clock, learnt_s):
    """The deadline is never later than the latest possible one (Rule 4)."""
    clock.advance(learnt_s)
    clock.wall_ms += 1_000_000
    alert = alerts.apply(a_revision(), clock.now())
    clock.wall_ms -= 1_000_000 + 60_000
    alerts.correct(clock.now())
    left_s = HALF_HOUR_S - learnt_s + (60 if learnt_s else 0)
    assert not alert.ended(clock.advance(left_s - 0.001))
    clock.monotonic += 0.001
    assert alert.ended(clock.now())


@pytest.mark.parametrize("then", ["expire", "revise"])
def test_alert_that_came_while_the_clock_was_ahead_lives_to_its_end_after_the_correction(alerts, clock, then):
    """Otherwise it would be let go early, and its next entry be sent to nobody (Rule 11)."""
    clock.wall_ms += 1_000_000
    alert = alerts.apply(a_revision(), clock.now())
    clock.advance(790)
    clock.wall_ms -= 1_000_000
    if then == "revise":  # by so much that the wrong deadline has passed
        assert alerts.apply(a_revision(revision=2, expires_at=ENDS_MS - 100_000), clock.now()) is alert
    alerts.expire(clock.now())
    alerts.expire(clock.advance(HALF_HOUR_S - 790 - 100.001))
    assert not alert.ended(clock.now())
    alerts.expire(clock.advance(100.001))
    assert alert.gone


def test_revision_that_had_ended_by_both_clocks_is_sent_after_the_correction(alerts, clock):
    """The alert is shortened while the clock is ahead, so that its wrong deadline passes (Rule 11)."""
    clock.wall_ms += 1_000_000
    alert = alerts.apply(a_revision(), clock.now())
    assert alerts.apply(a_revision(revision=2, expires_at=ENDS_MS - 900_000), clock.advance(10)) is None
    clock.wall_ms -= 1_000_000
    assert alerts.expire(clock.now()) == [alert]


@pytest.mark.parametrize("back_s", [0.4, 3600])
def test_clock_that_is_set_back_does_not_extend_an_alert_beyond_its_latest_end(alerts, clock, back_s):
    """Nobody can set the monotonic clock (Rules 1 and 11)."""
    alert = alerts.apply(a_revision(), clock.now())
    clock.wall_ms -= int(back_s * 1000)
    alerts.expire(clock.advance(HALF_HOUR_S - 0.001))
    assert not alert.gone
    alerts.expire(clock.advance(0.001))
    assert alert.gone


def test_cancel_after_the_alert_has_expired_is_ignored(alerts, clock):
    """Nothing is sent after `expires_at` (E1)."""
    alerts.apply(a_revision(), clock.now())
    assert alerts.apply(a_cancel(), clock.advance(HALF_HOUR_S)) is None


def test_revision_with_a_later_expiry_extends_the_alert(alerts, clock):
    """The later expiry counts (section 3)."""
    alerts.apply(a_revision(), clock.now())
    alerts.apply(a_revision(revision=2, expires_at=ENDS_MS + 1000), clock.now())
    alerts.expire(clock.advance(HALF_HOUR_S))
    assert alerts.find("a-1", clock.now()).number == 2
    alerts.expire(clock.advance(1))
    assert len(alerts) == 0


def test_setting_the_wall_clock_back_does_not_extend_a_revised_alert(alerts, clock):
    """A revision adds to the monotonic deadline what it adds to `expires_at`, and no more (Rule 1)."""
    alert = alerts.apply(a_revision(), clock.now())
    clock.wall_ms -= 600_000
    alerts.apply(a_revision(revision=2, expires_at=ENDS_MS + 1000), clock.now())
    assert not alert.ended(clock.advance(HALF_HOUR_S + 0.999))
    assert alert.ended(clock.advance(0.001))


def test_each_alert_ends_at_its_own_time(alerts, clock):
    """The order of arrival does not matter (Rule 1)."""
    for n in (3, 1, 2):
        alerts.apply(a_revision(f"a-{n}", expires_at=NOON_MS + n * 1000), clock.now())
    for left in ({"a-1", "a-2", "a-3"}, {"a-2", "a-3"}, {"a-3"}, set()):
        alerts.expire(clock.now())
        assert {alert.id for alert in alerts} == left == set(concerned(alerts))
        clock.advance(1)


def test_alerts_that_expire_together_are_forgotten_a_few_at_a_time(alerts, clock, monkeypatch):
    """All of them count as ended at once. Each is forgotten once, and no counts are lost (Rule 5)."""
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


def test_extended_alert_is_not_forgotten_at_its_old_expiry(alerts, clock):
    """Other alerts do expire at that time (Rule 1)."""
    for n in range(5):
        alerts.apply(a_revision(f"a-{n}", expires_at=NOON_MS + 1000), clock.now())
    for number in (2, 3):
        alerts.apply(a_revision("a-2", number, expires_at=NOON_MS + 1000 * number), clock.now())
    for left in (5, 1, 1, 0):
        alerts.expire(clock.now())
        assert len(alerts) == left
        clock.advance(1)


def test_withheld_alerts_are_counted_after_several_clock_steps(alerts, clock):
    """The clock was wrong by different amounts when they arrived (Rules 3 and 4)."""
    for n, off_ms in enumerate((0, 3_600_000, -7_200_000, 0)):
        clock.wall_ms = NOON_MS + off_ms
        alerts.apply(a_revision(f"a-{n}", expires_at=ENDS_MS + n), clock.now())
        alerts.expire(clock.now())
    assert alerts.suspended(clock.now()) == 0
    clock.wall_ms = ENDS_MS + 2
    assert alerts.suspended(clock.now()) == 3
    clock.wall_ms = NOON_MS
    assert alerts.suspended(clock.now()) == 0


def test_withdrawn_alerts_are_counted_as_withheld_and_not_as_live(alerts, clock):
    """After the key of the only reviewer is removed, all are withdrawn (Rule 7)."""
    kept = [alerts.apply(a_revision(f"a-{n}"), clock.now()) for n in range(3)]
    for alert in kept[:2]:
        alert.withdraw()
    assert (len(alerts), alerts.suspended(clock.now())) == (3, 2)
    clock.wall_ms = ENDS_MS
    assert alerts.suspended(clock.now()) == 3
    clock.wall_ms = NOON_MS
    kept[0].restore()
    assert alerts.suspended(clock.now()) == 1


# ---- finding the alerts that contain a place ---------------------------------------------------------------------


def test_place_inside_any_shape_of_an_alert_matches_it_once(alerts, clock):
    """A place is inside if `distance <= radius_m + reach`; the alert is found once (R1, D2)."""
    paris = (48.8566, 2.3522)
    area = (Circle(*DALLAS, 1000.0), Circle(*paris, 500.0), Circle(*paris, 50.0))
    alerts.apply(a_revision(area=area), clock.now())
    assert concerned(alerts) == concerned(alerts, paris) == ["a-1"]
    outside = (48.8566, 2.3522 + 0.01)  # 731.6 m east
    assert concerned(alerts, outside) == []
    assert concerned(alerts, outside, 231.0) == []
    assert concerned(alerts, outside, 232.0) == ["a-1"]


def test_places_are_matched_with_the_area_of_the_newest_revision(alerts, clock):
    """The current revision's area counts (R1)."""
    alerts.apply(a_revision(), clock.now())
    alerts.apply(a_revision(revision=2, area=(Circle(0.0, 0.0, 100.0),)), clock.now())
    assert concerned(alerts) == []
    assert concerned(alerts, (0.0, 0.0)) == ["a-1"]


def test_cancelled_alert_matches_no_place(alerts, clock):
    """A cancel is sent to recipients only (R4)."""
    for alert_id in ("a-1", "a-2"):
        alerts.apply(a_revision(alert_id), clock.now())
    alerts.apply(a_cancel(), clock.now())
    assert concerned(alerts) == ["a-2"]


def test_two_hundred_live_alerts_are_matched_and_forgotten_in_time(alerts, clock):
    """The table of live alerts grows and shrinks (R3)."""
    for n in range(200):
        alerts.apply(a_revision(f"a-{n}", expires_at=NOON_MS + 1000 * (n + 1)), clock.now())
    assert len(set(concerned(alerts))) == 200
    alerts.expire(clock.advance(150))
    assert set(concerned(alerts)) == {f"a-{n}" for n in range(150, 200)}


# ---- forgetting the delivery flags of disconnected sessions ------------------------------------------------------


def test_delivery_flags_of_forgotten_sessions_are_cleared(alerts, clock):
    """The next session in the same row of the table is another client (R2)."""
    for alert_id in ("a-1", "a-2"):
        alert = alerts.apply(a_revision(alert_id), clock.now())
        alert.mark_sent(rows(1, 2))
        alert.trust_holding(3, 9)
    alerts.forget(rows(1, 3))
    for alert in alerts:
        assert [alert.flags(row) for row in range(4)] == [0, 0, RECIPIENT | CURRENT | SENT, 0]
        assert alert._flags.ahead == {}
        alert.acknowledge(1, 1)
        assert alert.counts.acked == 0
