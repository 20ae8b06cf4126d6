"""Messages that end or replace live alerts (CP16 to CP19)."""

import pytest
from ingest.cap.issuer import (
    MINUTE_MS,
    PUBLIC_WARNING,
    a_cancel,
    a_message,
    an_info,
    id_of,
    named,
    time,
)
from support.fakes import NOON_MS

from geocast.policy.publishers.bounds import Bounds, Publishers


def test_cancel_ends_all_alerts_that_it_names(room):
    """The Cancel ends two or five alerts at once, and gives a reason (CP17)."""
    for count in (2, 5):
        names = [f"m-{count}-{n}" for n in range(count)]
        room.outcomes(*map(a_message, names))
        body = a_cancel(f"c-{count}", 1, names, an_info(headline="The river is falling."))
        answer = room.taken(body)
        assert (answer.outcome, {each.id for each in answer.cancelled}) == ("cancelled", set(map(id_of, names)))
        assert {each.reason for each in answer.cancelled} == {"The river is falling."}
        again = room.taken(body)
        assert (again.outcome, again.why, again.stored) == ("ignored", "ended", ())
    assert room.live() == {}


def test_cancel_and_all_clear_are_taken_when_the_rate_of_the_source_is_used_up(room):
    """Only alerts and revisions are limited (PG2)."""
    tables = Publishers({"met": Bounds(per_minute=2)})
    room.taking = room.taking.with_config(PUBLIC_WARNING, room.taking.sources, tables)
    assert room.outcomes(a_message("m-1"), a_message("m-2")) == ["published", "published"]
    assert room.refused(a_message("m-3")) == "rate-limited"
    all_clear = a_message("c-2", 2, ["m-2"], an_info(responseType="AllClear"))
    assert room.outcomes(a_cancel("c-1", 1, ["m-1"]), all_clear) == ["cancelled", "cancelled"]
    assert room.live() == {}


@pytest.mark.parametrize(
    ("fields", "infos", "reason"),
    [
        ({"note": "The river\nis falling."}, (), "The river is falling."),
        ({"note": "Note."}, (an_info(headline="Headline."),), "Headline."),
        ({"note": "Note."}, (an_info(),), "Note."),
        ({}, (), "Cancelled by the issuer."),
        ({"note": "Word. " * 60}, (), ("Word. " * 60)[: 46 * 6 - 1] + "…"),
    ],
)
def test_cancel_has_text_of_issuer_as_reason(room, fields, infos, reason):
    """The reason is the headline, otherwise the note, otherwise a default text, cut to 280 characters (LA4)."""
    room.taken(a_message("m"))
    [cancel] = room.taken(a_cancel("c", 1, ["m"], *infos, **fields)).cancelled
    assert cancel.reason == reason
    assert len(cancel.reason) <= 280


def test_update_of_several_alerts_replaces_them(room):
    """The new alert is published first.

    Then the old ones are cancelled, with the new one as their successor (CP17, CP20).
    """
    room.outcomes(a_message("a"), a_message("b"))
    answer = room.taken(a_message("n", 1, ["a", "b"], named("Both")))
    assert (answer.outcome, [each.id for each in answer.alerts]) == ("replaced", [id_of("n")])
    assert {each.id for each in answer.cancelled} == {id_of("a"), id_of("b")}
    assert {each.reason for each in answer.cancelled} == {"Replaced by a newer message."}
    assert [entry.id for _, entry in room.log._entries][2:] == [id_of("n"), *(each.id for each in answer.cancelled)]
    assert room.taken(a_message("u", 2, ["a"])).alerts[0].id == id_of("n")


def test_update_with_earlier_expiry_replaces_alert(room):
    """So no client sees the end of an alert move earlier (CP20, P6)."""
    room.taken(a_message("m"))
    answer = room.taken(a_message("n", 1, ["m"], an_info(expires=time(30))))
    assert (answer.outcome, list(room.live())) == ("replaced", [id_of("n")])
    assert room.taken(a_message("n", 1, ["m"], an_info(expires=time(30)))).cancelled == answer.cancelled


def test_message_with_same_name_and_earlier_expiry_replaces_alert(room):
    """The new alert gets another id for the same name, which the next message finds (CP12, CP17)."""
    room.taken(a_message("m"))
    answer = room.taken(a_message("m", 1, (), an_info(expires=time(30))))
    assert (answer.outcome, list(room.live())) == ("replaced", [f"{id_of('m')}:2"])
    assert room.outcomes(a_message("m"), a_message("m", 2), a_cancel("c", 3, ["m"])) == [
        "repeated",
        "updated",
        "cancelled",
    ]


def test_update_with_another_status_replaces_alert(room):
    """All revisions of an alert have the same status (CP17)."""
    room.taken(a_message("m", status="Test"))
    assert room.taken(a_message("n", 1, ["m"])).outcome == "replaced"


def test_update_beyond_maximum_age_of_alert_continues_under_new_id(room):
    """The update comes a week after the first message (CP17, P6)."""
    week = 7 * 24 * 60
    room.taken(a_message("m", 0, (), an_info(expires=time(week - 1))))
    room.clock.advance((week - 30) * 60)
    answer = room.taken(a_message("n", week - 10, ["m"], an_info(expires=time(week + 600))))
    assert answer.outcome == "replaced"
    assert answer.alerts[0].alert.expires_at == NOON_MS + (week + 600) * MINUTE_MS


def test_update_of_ended_alert_is_published_as_new(room):
    """Only live alerts can be revised (CP18)."""
    room.outcomes(a_message("m"), a_cancel("c", 1, ["m"]))
    assert room.taken(a_message("n", 2, ["m"])).outcome == "published"
    assert list(room.live()) == [id_of("n")]


def test_update_that_names_replaced_alert_revises_its_successor(room):
    """The issuer refers to the first message, whose alert an update has replaced (CP18, CP19)."""
    room.outcomes(a_message("m"), a_message("n", 1, ["m"], an_info(expires=time(30))))
    answer = room.taken(a_message("o", 2, ["m"]))
    assert (answer.outcome, answer.alerts[0].id) == ("updated", id_of("n"))
    assert room.taken(a_cancel("c", 3, ["m"])).outcome == "cancelled"
    assert room.live() == {}


def test_updates_sent_at_same_time_become_two_alerts(room):
    """The issuer has split a warning in two, and can cancel each part (CP19)."""
    room.taken(a_message("m"))
    siblings = [a_message("u-1", 1, ["m"], named("North")), a_message("u-2", 1, ["m"], named("South"))]
    assert room.outcomes(*siblings) == ["updated", "published"]
    assert room.live() == {id_of("m"): "North", id_of("u-2"): "South"}
    assert room.outcomes(*siblings) == ["repeated", "repeated"]
    assert room.taken(a_cancel("c", 2, ["u-2"])).outcome == "cancelled"
    assert room.live() == {id_of("m"): "North"}


def test_update_or_cancel_older_than_current_message_changes_nothing(room):
    """Both were sent before the current message (CP19)."""
    room.outcomes(a_message("m"), a_message("u-2", 2, ["m"], named("Second")))
    assert room.outcomes(a_message("u-1", 1, ["m"], named("First")), a_cancel("c", 1, ["m"])) == ["superseded"] * 2
    assert room.live() == {id_of("m"): "Second"}


def test_update_that_names_whole_history_revises_current_alert_only(room):
    """Only the reference to the current message of a live alert counts (CP11)."""
    room.outcomes(a_message("m"), a_message("n"))
    room.taken(a_message("m-2", 1, ["m"]))
    answer = room.taken(a_message("m-3", 2, ["m-2", "m", "n-0", "old-1", "old-2"]))
    assert (answer.outcome, answer.alerts[0].id) == ("updated", id_of("m"))
    assert {id_of("n-0"), id_of("old-1"), id_of("old-2")} <= room.tombstones().keys()


def test_update_whose_infos_have_all_expired_cancels_alert(room):
    """Each `expires` is in the past. The urgency Past does not count (CP15)."""
    room.taken(a_message("m"))
    over = an_info(expires=time(0), headline="It is over.")
    [cancel] = room.taken(a_message("u", 1, ["m"], over)).cancelled
    assert cancel.reason == "It is over."
    assert room.taken(a_message("q", 1, (), an_info(urgency="Past"))).outcome == "published"
