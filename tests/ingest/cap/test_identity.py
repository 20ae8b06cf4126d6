"""The alert that a message becomes, if any: its id, its infos, and repeats (CP8 to CP14)."""

import asyncio
from dataclasses import replace

import pytest
from ingest.cap.issuer import (
    DAY_MS,
    MINUTE_MS,
    SENDER,
    CapIngestHarness,
    a_cancel,
    a_message,
    an_area,
    an_info,
    code,
    id_of,
    named,
    time,
    two_blocks,
)
from support.fakes import NOON_MS

from geocast import policy
from geocast.alertlog import RETENTION_MS
from geocast.alertlog.memory import MemoryLog
from geocast.ingest.cap.sources import CapSource

# ---- ignored messages (CP9) --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (a_message("m", status="System"), "status"),
        (a_message("m", status="Draft"), "status"),
        (a_message("m", kind="Ack", refers=["x"]), "type"),
        (a_message("m", kind="Error"), "type"),
        (a_message("m", scope="Private"), "scope"),
        (a_message("m", scope="Restricted"), "scope"),
        (a_message("m", 0, (), an_info(responseType="AllClear")), "all-clear"),
        (a_message("m", 0, (), an_info(eventCode=code("SAME", "RWT"))), "event"),
        (a_message("m", -60, (), an_info(expires=time(-1))), "expired"),
    ],
)
def test_message_not_meant_to_be_published_is_ignored(room, body, why):
    """Nothing is stored (CP9, CP15)."""
    answer = room.taken(body)
    assert (answer.outcome, answer.why, answer.stored) == ("ignored", why, ())
    assert asyncio.run(room.log.tail()) == 0


def test_other_infos_are_published_if_event_of_one_is_ignored(room):
    """The message contains a weekly test and a warning (CP9)."""
    answer = room.taken(a_message("m", 0, (), an_info(eventCode=code("SAME", "RWT"), event="Test"), named("Flood")))
    assert [revision.alert.headline for revision in answer.alerts] == ["Flood"]


# ---- the alert to which a message belongs (CP10 to CP13) ---------------------------------------------------------


def test_alert_is_published_under_id_made_from_name_of_its_message(room):
    """The stored entry names the message and the approver (CP16)."""
    answer = room.taken(a_message("m-1"))
    [revision] = answer.alerts
    assert answer.outcome == "published"
    assert (revision.id, revision.revision, revision.source) == (id_of("m-1"), 1, "met")
    assert (revision.alert.approval.reviewer, revision.alert.approval.approved_at) == ("the duty forecaster", NOON_MS)
    assert (revision.origin.sender, revision.origin.identifier) == (SENDER, "m-1")
    assert revision.alert.occurred_at == NOON_MS


def test_messages_of_two_sources_with_equal_names_make_two_alerts(room):
    """A source can neither change an alert of another source nor use its id, whatever sender it names."""
    room.taken(a_message("m-1"))
    other = CapIngestHarness(room.log, room.clock, CapSource("other", "somebody", frozenset({"*"}), None, None))
    assert other.taken(a_message("m-1")).outcome == "published"
    assert other.taken(a_cancel("c", 1, ["m-1"])).outcome == "cancelled"
    assert list(room.live()) == [id_of("m-1")]


def test_repeated_message_gets_first_answer(room):
    """This holds even after the alert was cancelled or has ended (CP10, H3)."""
    first = room.taken(a_message("m-1"))
    again = room.taken(a_message("m-1"))
    assert (again.outcome, again.alerts, again.stored) == ("repeated", first.alerts, ())
    room.taken(a_message("u", 1, ["m-1"]))
    assert room.taken(a_message("m-1")).alerts == first.alerts
    room.taken(a_cancel("c", 2, ["u"]))
    assert room.taken(a_message("m-1")).alerts == first.alerts
    room.clock.advance(3 * 3600)
    answer = room.taken(a_message("m-1"))
    assert (answer.outcome, answer.alerts, answer.notes) == ("repeated", first.alerts, first.notes)


def test_message_with_same_name_and_time_but_other_text_counts_as_repeat(room):
    """The answer has the note `differs`, and nothing is published (CP10)."""
    first = room.taken(a_message("m-1"))
    answer = room.taken(a_message("m-1", 0, (), named("Another text")))
    assert (answer.outcome, answer.alerts) == ("repeated", first.alerts)
    assert answer.notes == first.notes | {"differs"}


def test_repeated_message_is_recognized_after_policy_became_stricter(room):
    """The answer is 200 with a note (CP10, H3)."""
    room.taken(a_message("m-1"))
    fires = policy.parse(b'name = "fires"\ncategories.fire = { title = "Fire", cap = ["event:fire"] }', None)
    later = CapIngestHarness(room.log, room.clock, in_force=fires)
    assert later.refused(a_message("m-2")) == [("category-not-alertable", "/alert/info/0/event")]
    answer = later.taken(a_message("m-1"))
    assert (answer.outcome, "differs" in answer.notes) == ("repeated", True)


def test_sent_times_are_compared_as_instants(room):
    """The same time can be written with different offsets (CP10)."""
    room.taken(a_message("m-1"))
    assert room.taken(a_message("m-1", sent="2026-01-31T13:00:00+01:00")).outcome == "repeated"


def test_later_message_of_same_name_is_about_its_own_alert_only(room):
    """Its reference names an old message of another alert, which has been updated since (CP11, CP12)."""
    room.outcomes(a_message("m"), a_message("n", 1, (), named("other")), a_message("n-2", 2, ["n"], named("other, 2")))
    answer = room.taken(a_message("m", 5, ["n"], named("later")))
    assert answer.outcome == "updated"
    assert room.live() == {id_of("m"): "later", id_of("n"): "other, 2"}


def test_update_becomes_next_revision_of_alert(room):
    """The revision has the `occurred_at` of the first message.

    A tombstone (a cancel without an alert) names the alert to which the update belongs (CP17).
    """
    room.taken(a_message("m-1"))
    answer = room.taken(a_message("m-2", 1, ["m-1"], named("Higher")))
    [revision] = answer.alerts
    assert (answer.outcome, revision.id, revision.revision) == ("updated", id_of("m-1"), 2)
    assert (revision.alert.occurred_at, revision.alert.approval.approved_at) == (NOON_MS, NOON_MS + MINUTE_MS)
    assert room.tombstones() == {id_of("m-2"): id_of("m-1")}
    assert room.taken(a_message("m-2", 1, ["m-1"], named("Higher"))).outcome == "repeated"
    assert len(room.history(id_of("m-1"))) == 2


def test_altered_log_does_not_make_location_of_update_finer_than_policy_allows(room):
    """Somebody who can write to the log can't learn the exact place from the next update (B1, TH7)."""
    where = an_info(an_area(circle="32.7,-96.8 1.5"))
    [first] = room.taken(a_message("m-1", 0, (), where)).alerts
    log = MemoryLog()
    asyncio.run(log.append(replace(first, terms=replace(first.terms, location_resolution=15))))
    [revision] = CapIngestHarness(log).taken(a_message("m-2", 1, ["m-1"], where)).alerts
    assert (revision.revision, revision.terms.location_resolution) == (2, 9)
    assert revision.alert.area == first.alert.area


def test_updates_that_each_name_previous_message_revise_one_alert(room):
    """A final cancel that names the last update ends the alert (CP13)."""
    bodies = [a_message("m-0"), *(a_message(f"m-{n}", n, [f"m-{n - 1}"]) for n in range(1, 5))]
    assert room.outcomes(*bodies) == ["published"] + ["updated"] * 4
    assert [entry.revision for entry in room.history(id_of("m-0"))] == [1, 2, 3, 4, 5]
    assert room.taken(a_cancel("c", 9, ["m-4"])).outcome == "cancelled"
    assert room.live() == {}


def test_update_that_names_first_message_revises_its_alert(room):
    """Each update was sent later than the current message, so it applies to the alert (CP19)."""
    bodies = [a_message("m-0"), *(a_message(f"m-{n}", n, ["m-0"]) for n in range(1, 4)), a_cancel("c", 9, ["m-0"])]
    assert room.outcomes(*bodies) == ["published"] + ["updated"] * 3 + ["cancelled"]


def test_repeated_message_does_not_end_newer_alert(room):
    """This holds even if the repeated message names the newer alert (CP10)."""
    room.outcomes(a_message("a", 1, ["b"]), a_message("b", 6, (), *two_blocks()))
    before = room.live()
    answer = room.taken(a_message("a", 1, ["b"]))
    assert (answer.outcome, answer.stored, len(before)) == ("repeated", (), 2)
    assert room.live() == before


def test_message_with_same_name_and_later_sent_time_counts_as_update(room):
    """The message's type does not matter, unless it is Cancel. An earlier message is late (CP12)."""
    bodies = [
        a_message("m", 0),
        a_message("m", 5),
        a_message("m", 3),
        a_message("m", 5),
        a_message("m", 9, kind="Update"),
    ]
    assert room.outcomes(*bodies) == ["published", "updated", "superseded", "repeated", "updated"]
    assert room.taken(a_cancel("m", 10, [])).outcome == "cancelled"
    assert room.taken(a_message("m", 11)).outcome == "published"
    assert list(room.live()) == [f"{id_of('m')}:2"]
    assert room.outcomes(a_message("m", 11), a_message("m", 12), a_message("m", 1)) == [
        "repeated",
        "updated",
        "superseded",
    ]
    assert room.taken(a_cancel("c", 13, ["m"])).outcome == "cancelled"
    assert room.live() == {}


def test_update_or_cancel_without_references_is_refused(room):
    """A message with a known name needs no references (CP5, CP12)."""
    for kind in ("Update", "Cancel"):
        assert room.refused(a_message("m", kind=kind)) == [("missing-field", "/alert/references")]


def test_alert_is_found_by_reference_with_other_sender_name(room):
    """The sender in the reference is unknown, so the sender of the message itself is tried (CP11)."""
    room.taken(a_message("m-1"))
    assert room.taken(a_message("m-2", 1, [("PAAQ", "m-1")])).outcome == "updated"
    assert id_of("m-1", "PAAQ") not in room.tombstones()


def test_unknown_reference_is_remembered_for_both_possible_senders(room):
    """So a late message is recognized, whichever sender it has (CP13)."""
    room.taken(a_message("m-2", 1, [("PAAQ", "m-1")]))
    assert room.tombstones() == {id_of("m-1", "PAAQ"): id_of("m-2"), id_of("m-1"): id_of("m-2")}
    assert room.outcomes(a_message("m-1"), a_message("m-1", sender="PAAQ")) == ["superseded", "superseded"]
    assert list(room.live()) == [id_of("m-2")]


def test_message_that_arrives_after_its_cancel_is_superseded(room):
    """Such a message is never published (CP13, CP16)."""
    assert room.outcomes(a_cancel("c", 5, ["m"]), a_message("m"), a_cancel("c", 5, ["m"])) == [
        "noted",
        "superseded",
        "ignored",
    ]
    assert room.live() == {}


def test_tombstone_lasts_a_day_or_as_long_as_its_successor_can(room):
    """A tombstone is a cancel that is stored before its alert arrives.

    After its end the log keeps it for the usual retention (CP13).
    """
    room.taken(a_cancel("c", 0, ["m"]))
    room.taken(a_message("n-2", 0, ["n-1"]))
    [noted], [gone] = room.history(id_of("m")), room.history(id_of("n-1"))
    assert noted.ends_at == NOON_MS + DAY_MS
    assert gone.ends_at == NOON_MS + 7 * DAY_MS  # the latest end that its alert can have
    assert asyncio.run(room.log.purge(NOON_MS + DAY_MS + RETENTION_MS + 1)) == 2  # the tombstone and the alert
    assert room.history(id_of("n-1")) == [gone]


def test_tombstone_names_approver_of_its_source(room):
    """A tombstone (a cancel stored before its alert arrives) needs no approval of its own (CP13)."""
    room.taken(a_cancel("c", 0, ["m"]))
    [entry] = room.history(id_of("m"))
    assert (entry.source, entry.approval.reviewer, entry.is_tombstone) == ("met", "the duty forecaster", True)


# ---- messages with several infos (CP14) --------------------------------------------------------------------------


def test_each_info_of_message_becomes_alert_of_its_own(room):
    """All ids contain the id of the message, and the info that ends last comes first (CP14)."""
    one, two = two_blocks()
    answer = room.taken(a_message("m", 0, (), one, two.replace(time(60), time(90))))
    assert [revision.id for revision in answer.alerts] == [id_of("m"), f"{id_of('m')}.2"]
    assert [revision.alert.headline for revision in answer.alerts] == ["two", "one"]
    assert room.taken(a_message("m", 0, (), one, two.replace(time(60), time(90)))).outcome == "repeated"


def test_all_alerts_of_a_message_are_replaced_and_cancelled_together(room):
    """One update or cancel that names the message ends all its alerts (CP17)."""
    room.taken(a_message("m", 0, (), *two_blocks()))
    answer = room.taken(a_message("n", 1, ["m"], *two_blocks("three", "four")))
    assert (answer.outcome, len(answer.cancelled)) == ("replaced", 2)
    assert sorted(room.live().values()) == ["four", "three"]
    assert room.taken(a_message("o", 2, ["m"], named("five"))).outcome == "replaced"
    assert room.live() == {id_of("o"): "five"}
    assert room.taken(a_cancel("c", 3, ["n"])).outcome == "cancelled"


def test_expired_info_is_not_published(room):
    """The other infos of the message are published (CP15)."""
    one, two = two_blocks()
    body = a_message("m", -90, (), one.replace(time(60), time(-30)), two)
    assert [revision.alert.headline for revision in room.taken(body).alerts] == ["two"]


def test_repeated_message_with_one_ended_alert_gets_first_answer(room):
    """An info that has ended does not count as a difference (CP10)."""
    one, two = two_blocks()
    body = a_message("m", 0, (), one, two.replace(time(60), time(90)))
    first = room.taken(body)
    room.clock.advance(75 * 60)
    again = room.taken(body)
    assert (again.outcome, again.alerts, again.notes) == ("repeated", first.alerts, first.notes)


# ---- dry runs (CP8) ----------------------------------------------------------------------------------------------


def test_dry_run_returns_outcome_and_stores_nothing(room):
    """The real message then has the same outcome (CP8)."""
    bodies = [a_message("m"), a_message("u", 1, ["m"]), a_message("r", 2, ["u"], an_info(expires=time(30)))]
    bodies += [a_cancel("c", 3, ["r"]), a_cancel("d", 4, ["unseen"])]
    for body in bodies:
        before = asyncio.run(room.log.tail())
        dry = room.taken(body, dry_run=True)
        assert asyncio.run(room.log.tail()) == before
        assert dry.stored == ()
        wet = room.taken(body)
        assert (dry.outcome, dry.alerts, dry.cancelled, dry.notes) == (
            wet.outcome,
            wet.alerts,
            wet.cancelled,
            wet.notes,
        )
