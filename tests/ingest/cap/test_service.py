"""What becomes of a message, beside what the log knows: one after another, in any order, twice (CP9 to CP20)."""

import asyncio
import itertools
from dataclasses import replace

import pytest
from ingest.cap.issuer import (
    DAY_MS,
    MINUTE_MS,
    OTHER_RING,
    SENDER,
    Room,
    a_cancel,
    a_message,
    an_area,
    an_info,
    code,
    time,
)
from support.fakes import NOON_MS

from geocast import policy
from geocast.alertlog import RETENTION_MS
from geocast.alertlog.memory import MemoryLog
from geocast.errors import LogUnavailable
from geocast.ingest.cap import decision, ids, service
from geocast.ingest.cap.sources import CapSource
from geocast.model.alert import Cancel, Revision, is_id


@pytest.fixture
def room():
    """Where messages are taken."""
    return Room()


def id_of(identifier, sender=SENDER):
    """The id for messages of this name."""
    return ids.base("met", sender, identifier)


def named(headline, **fields):
    """An info with this headline."""
    return an_info(headline=headline, **fields)


def two_blocks(first="one", second="two", **fields):
    """Two infos about different places."""
    return named(first, **fields), an_info(an_area(polygon=OTHER_RING), headline=second, **fields)


# ---- what is not published (CP9) ---------------------------------------------------------------------------------


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
def test_what_is_right_not_to_publish_is_no_error(room, body, why):
    """CP9, CP15: and nothing is stored."""
    answer = room.taken(body)
    assert (answer.outcome, answer.why, answer.stored) == ("ignored", why, ())
    assert asyncio.run(room.log.tail()) == 0


def test_an_ignored_event_leaves_the_others(room):
    """CP9: a weekly test in one message with a warning."""
    answer = room.taken(a_message("m", 0, (), an_info(eventCode=code("SAME", "RWT"), event="Test"), named("Flood")))
    assert [revision.alert.headline for revision in answer.alerts] == ["Flood"]


# ---- which alert it is (CP10 to CP13) ----------------------------------------------------------------------------


def test_an_alert_is_published_under_the_id_of_its_name(room):
    """CP16: and says which message made it, and who vouches for it."""
    answer = room.taken(a_message("m-1"))
    [revision] = answer.alerts
    assert answer.outcome == "published"
    assert (revision.id, revision.revision, revision.source) == (id_of("m-1"), 1, "met")
    assert (revision.alert.approval.reviewer, revision.alert.approval.approved_at) == ("the duty forecaster", NOON_MS)
    assert (revision.origin.sender, revision.origin.identifier) == (SENDER, "m-1")
    assert revision.alert.occurred_at == NOON_MS


def test_sources_do_not_meet(room):
    """A source can neither touch nor forestall an alert of another, whatever it says its sender is."""
    room.taken(a_message("m-1"))
    other = Room(room.log, room.clock, CapSource("other", "somebody", frozenset({"*"}), None, None))
    assert other.taken(a_message("m-1")).outcome == "published"
    assert other.taken(a_cancel("c", 1, ["m-1"])).outcome == "cancelled"
    assert list(room.live()) == [id_of("m-1")]


def test_a_message_that_comes_again_is_told_the_first_answer(room):
    """CP10, H3: whatever has happened since, also when it has been cancelled, and when it has ended."""
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


def test_the_same_name_and_time_with_another_text_is_the_first_message(room):
    """CP10: it is noted that it differs; and nothing is told anew."""
    first = room.taken(a_message("m-1"))
    answer = room.taken(a_message("m-1", 0, (), named("Another text")))
    assert (answer.outcome, answer.alerts) == ("repeated", first.alerts)
    assert answer.notes == first.notes | {"differs"}


def test_a_message_that_the_policy_has_come_to_refuse_is_known_all_the_same(room):
    """CP10, H3: 200, with a note."""
    room.taken(a_message("m-1"))
    fires = policy.parse(b'name = "fires"\ncategories.fire = { title = "Fire", cap = ["event:fire"] }', None)
    later = Room(room.log, room.clock, in_force=fires)
    assert later.refused(a_message("m-2")) == [("category-not-alertable", "/alert/info/0/event")]
    answer = later.taken(a_message("m-1"))
    assert (answer.outcome, "differs" in answer.notes) == ("repeated", True)


def test_sent_is_an_instant(room):
    """CP10: however it is written."""
    room.taken(a_message("m-1"))
    assert room.taken(a_message("m-1", sent="2026-01-31T13:00:00+01:00")).outcome == "repeated"


def test_an_update_is_the_next_revision(room):
    """CP17: occurred_at is the first message's; a tombstone says where the update went."""
    room.taken(a_message("m-1"))
    answer = room.taken(a_message("m-2", 1, ["m-1"], named("Higher")))
    [revision] = answer.alerts
    assert (answer.outcome, revision.id, revision.revision) == ("updated", id_of("m-1"), 2)
    assert (revision.alert.occurred_at, revision.alert.approval.approved_at) == (NOON_MS, NOON_MS + MINUTE_MS)
    assert room.tombstones() == {id_of("m-2"): id_of("m-1")}
    assert room.taken(a_message("m-2", 1, ["m-1"], named("Higher"))).outcome == "repeated"
    assert len(room.history(id_of("m-1"))) == 2


def test_a_log_that_says_otherwise_makes_no_update_finer_than_the_policy_has_any(room):
    """B1, TH7: who writes to the log is not told by the next update exactly where the incident is."""
    where = an_info(an_area(circle="32.7,-96.8 1.5"))
    [first] = room.taken(a_message("m-1", 0, (), where)).alerts
    log = MemoryLog()
    asyncio.run(log.append(replace(first, terms=replace(first.terms, location_resolution=15))))
    [revision] = Room(log).taken(a_message("m-2", 1, ["m-1"], where)).alerts
    assert (revision.revision, revision.terms.location_resolution) == (2, 9)
    assert revision.alert.area == first.alert.area


def test_a_chain_goes_on_from_the_last_message(room):
    """CP13: each names the one before it."""
    bodies = [a_message("m-0"), *(a_message(f"m-{n}", n, [f"m-{n - 1}"]) for n in range(1, 5))]
    assert room.outcomes(*bodies) == ["published"] + ["updated"] * 4
    assert [entry.revision for entry in room.history(id_of("m-0"))] == [1, 2, 3, 4, 5]
    assert room.taken(a_cancel("c", 9, ["m-4"])).outcome == "cancelled"
    assert room.live() == {}


def test_an_issuer_that_always_names_the_first_goes_on_too(room):
    """CP19: later than the current message, hence about it."""
    bodies = [a_message("m-0"), *(a_message(f"m-{n}", n, ["m-0"]) for n in range(1, 4)), a_cancel("c", 9, ["m-0"])]
    assert room.outcomes(*bodies) == ["published"] + ["updated"] * 3 + ["cancelled"]


def test_a_message_that_comes_again_ends_nothing_newer(room):
    """CP10: not even what it names, if that came later and has replaced it."""
    room.outcomes(a_message("a", 1, ["b"]), a_message("b", 6, (), *two_blocks()))
    before = room.live()
    answer = room.taken(a_message("a", 1, ["b"]))
    assert (answer.outcome, answer.stored, len(before)) == ("repeated", (), 2)
    assert room.live() == before


def test_an_issuer_that_keeps_its_identifier_updates_itself(room):
    """CP12: whatever its type, unless it cancels; an earlier one is late."""
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


def test_updates_and_cancels_say_what_they_refer_to(room):
    """CP5: unless something of their own name is known (CP12)."""
    for kind in ("Update", "Cancel"):
        assert room.refused(a_message("m", kind=kind)) == [("missing-field", "/alert/references")]


def test_a_sender_is_called_by_another_name(room):
    """CP11: the reference's sender is unknown, so this message's own counts."""
    room.taken(a_message("m-1"))
    assert room.taken(a_message("m-2", 1, [("PAAQ", "m-1")])).outcome == "updated"
    assert id_of("m-1", "PAAQ") not in room.tombstones()


def test_a_reference_that_nobody_has_seen_leaves_a_tombstone_in_both_readings(room):
    """CP13: so the message is known to be late, however its sender is written."""
    room.taken(a_message("m-2", 1, [("PAAQ", "m-1")]))
    assert room.tombstones() == {id_of("m-1", "PAAQ"): id_of("m-2"), id_of("m-1"): id_of("m-2")}
    assert room.outcomes(a_message("m-1"), a_message("m-1", sender="PAAQ")) == ["superseded", "superseded"]
    assert list(room.live()) == [id_of("m-2")]


def test_a_message_that_comes_after_its_own_cancel_is_late(room):
    """CP13, CP16: it is never published."""
    assert room.outcomes(a_cancel("c", 5, ["m"]), a_message("m"), a_cancel("c", 5, ["m"])) == [
        "noted",
        "superseded",
        "ignored",
    ]
    assert room.live() == {}


def test_a_tombstone_lasts_for_a_day_and_as_long_as_what_it_went_into(room):
    """CP13: and then as long as the log remembers anything."""
    room.taken(a_cancel("c", 0, ["m"]))
    room.taken(a_message("n-2", 0, ["n-1"]))
    [noted], [gone] = room.history(id_of("m")), room.history(id_of("n-1"))
    assert noted.ends_at == NOON_MS + DAY_MS
    assert gone.ends_at == NOON_MS + 7 * DAY_MS  # the longest that its alert may come to live
    assert asyncio.run(room.log.purge(NOON_MS + DAY_MS + RETENTION_MS + 1)) == 2  # it, and the alert
    assert room.history(id_of("n-1")) == [gone]


def test_tombstones_need_no_words_and_no_approval_of_ours(room):
    """CP13: what stands in one is the source's."""
    room.taken(a_cancel("c", 0, ["m"]))
    [entry] = room.history(id_of("m"))
    assert (entry.source, entry.approval.reviewer, entry.is_tombstone) == ("met", "the duty forecaster", True)


# ---- live, ended, replaced (CP16 to CP19) ------------------------------------------------------------------------


def test_a_cancel_ends_all_that_it_names(room):
    """CP17: two and five at once, and says why."""
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
def test_why_it_was_cancelled(room, fields, infos, reason):
    """LA4: the headline, else the note, else words of ours; cut to 280."""
    room.taken(a_message("m"))
    [cancel] = room.taken(a_cancel("c", 1, ["m"], *infos, **fields)).cancelled
    assert cancel.reason == reason
    assert len(cancel.reason) <= 280


def test_an_update_of_several_replaces_them(room):
    """CP17, CP20: the new one is there before the old ones are gone, and they say what stands in their place."""
    room.outcomes(a_message("a"), a_message("b"))
    answer = room.taken(a_message("n", 1, ["a", "b"], named("Both")))
    assert (answer.outcome, [each.id for each in answer.alerts]) == ("replaced", [id_of("n")])
    assert {each.id for each in answer.cancelled} == {id_of("a"), id_of("b")}
    assert {each.reason for each in answer.cancelled} == {"Replaced by a newer message."}
    assert [entry.id for _, entry in room.log._entries][2:] == [id_of("n"), *(each.id for each in answer.cancelled)]
    assert room.taken(a_message("u", 2, ["a"])).alerts[0].id == id_of("n")


def test_an_expiry_that_is_shortened_replaces(room):
    """CP20: so P6 stays true for every client."""
    room.taken(a_message("m"))
    answer = room.taken(a_message("n", 1, ["m"], an_info(expires=time(30))))
    assert (answer.outcome, list(room.live())) == ("replaced", [id_of("n")])
    assert room.taken(a_message("n", 1, ["m"], an_info(expires=time(30)))).cancelled == answer.cancelled


def test_an_issuer_that_shortens_its_own_expiry_replaces_itself(room):
    """CP12, CP17: under a further id of the same name; what comes next finds it."""
    room.taken(a_message("m"))
    answer = room.taken(a_message("m", 1, (), an_info(expires=time(30))))
    assert (answer.outcome, list(room.live())) == ("replaced", [f"{id_of('m')}:2"])
    assert room.outcomes(a_message("m"), a_message("m", 2), a_cancel("c", 3, ["m"])) == [
        "repeated",
        "updated",
        "cancelled",
    ]


def test_another_status_replaces(room):
    """CP17: a revision keeps the status of revision 1."""
    room.taken(a_message("m", status="Test"))
    assert room.taken(a_message("n", 1, ["m"])).outcome == "replaced"


def test_what_outlives_its_first_message_goes_on_under_a_new_id(room):
    """CP17, P6: a week after it was first sent."""
    week = 7 * 24 * 60
    room.taken(a_message("m", 0, (), an_info(expires=time(week - 1))))
    room.clock.advance((week - 30) * 60)
    answer = room.taken(a_message("n", week - 10, ["m"], an_info(expires=time(week + 600))))
    assert answer.outcome == "replaced"
    assert answer.alerts[0].alert.expires_at == NOON_MS + (week + 600) * MINUTE_MS


def test_an_update_of_what_has_ended_is_published(room):
    """CP18."""
    room.outcomes(a_message("m"), a_cancel("c", 1, ["m"]))
    assert room.taken(a_message("n", 2, ["m"])).outcome == "published"
    assert list(room.live()) == [id_of("n")]


def test_what_was_replaced_leads_to_what_stands_in_its_place(room):
    """CP18, CP19: an issuer who names the first, after an update that replaced it."""
    room.outcomes(a_message("m"), a_message("n", 1, ["m"], an_info(expires=time(30))))
    answer = room.taken(a_message("o", 2, ["m"]))
    assert (answer.outcome, answer.alerts[0].id) == ("updated", id_of("n"))
    assert room.taken(a_cancel("c", 3, ["m"])).outcome == "cancelled"
    assert room.live() == {}


def test_sibling_updates_of_the_same_time_are_two_alerts(room):
    """CP19: an issuer that splits a warning in two; a cancel of each."""
    room.taken(a_message("m"))
    siblings = [a_message("u-1", 1, ["m"], named("North")), a_message("u-2", 1, ["m"], named("South"))]
    assert room.outcomes(*siblings) == ["updated", "published"]
    assert room.live() == {id_of("m"): "North", id_of("u-2"): "South"}
    assert room.outcomes(*siblings) == ["repeated", "repeated"]
    assert room.taken(a_cancel("c", 2, ["u-2"])).outcome == "cancelled"
    assert room.live() == {id_of("m"): "North"}


def test_what_comes_late_changes_nothing(room):
    """CP19: an update, and a cancel, that were sent before the current message."""
    room.outcomes(a_message("m"), a_message("u-2", 2, ["m"], named("Second")))
    assert room.outcomes(a_message("u-1", 1, ["m"], named("First")), a_cancel("c", 1, ["m"])) == ["superseded"] * 2
    assert room.live() == {id_of("m"): "Second"}


def test_a_history_that_is_repeated_in_every_message_is_no_ground_to_replace(room):
    """CP11: of those named, the current message of a live alert counts."""
    room.outcomes(a_message("m"), a_message("n"))
    room.taken(a_message("m-2", 1, ["m"]))
    answer = room.taken(a_message("m-3", 2, ["m-2", "m", "n-0", "old-1", "old-2"]))
    assert (answer.outcome, answer.alerts[0].id) == ("updated", id_of("m"))
    assert {id_of("n-0"), id_of("old-1"), id_of("old-2")} <= room.tombstones().keys()


def test_an_update_of_which_all_is_over_cancels(room):
    """CP15: every `expires` is past; `urgency` Past is not."""
    room.taken(a_message("m"))
    over = an_info(expires=time(0), headline="It is over.")
    [cancel] = room.taken(a_message("u", 1, ["m"], over)).cancelled
    assert cancel.reason == "It is over."
    assert room.taken(a_message("q", 1, (), an_info(urgency="Past"))).outcome == "published"


# ---- blocks (CP14) -----------------------------------------------------------------------------------------------


def test_blocks_are_alerts_of_their_own(room):
    """CP14: the id of each says which message it is of; what ends last is first, for it is known for longest."""
    one, two = two_blocks()
    answer = room.taken(a_message("m", 0, (), one, two.replace(time(60), time(90))))
    assert [revision.id for revision in answer.alerts] == [id_of("m"), f"{id_of('m')}.2"]
    assert [revision.alert.headline for revision in answer.alerts] == ["two", "one"]
    assert room.taken(a_message("m", 0, (), one, two.replace(time(60), time(90)))).outcome == "repeated"


def test_a_message_of_several_blocks_is_replaced_and_cancelled_as_a_whole(room):
    """CP17."""
    room.taken(a_message("m", 0, (), *two_blocks()))
    answer = room.taken(a_message("n", 1, ["m"], *two_blocks("three", "four")))
    assert (answer.outcome, len(answer.cancelled)) == ("replaced", 2)
    assert sorted(room.live().values()) == ["four", "three"]
    assert room.taken(a_message("o", 2, ["m"], named("five"))).outcome == "replaced"
    assert room.live() == {id_of("o"): "five"}
    assert room.taken(a_cancel("c", 3, ["n"])).outcome == "cancelled"


def test_a_block_that_is_over_is_left_out(room):
    """CP15: the others are published."""
    one, two = two_blocks()
    body = a_message("m", -90, (), one.replace(time(60), time(-30)), two)
    assert [revision.alert.headline for revision in room.taken(body).alerts] == ["two"]


def test_a_message_comes_again_when_one_of_its_blocks_has_ended(room):
    """CP10: that is no difference."""
    one, two = two_blocks()
    body = a_message("m", 0, (), one, two.replace(time(60), time(90)))
    first = room.taken(body)
    room.clock.advance(75 * 60)
    again = room.taken(body)
    assert (again.outcome, again.alerts, again.notes) == ("repeated", first.alerts, first.notes)


# ---- dry runs (CP8) ----------------------------------------------------------------------------------------------


def test_a_dry_run_decides_and_stores_nothing(room):
    """CP8: what it says is what comes of it."""
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


# ---- in any order, more than once, at several nodes --------------------------------------------------------------


class Dying(MemoryLog):
    """A log of a node that dies at its nth append: purpose, a crash between two steps. Lies: the process goes on."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    async def append(self, entry):
        """Store it, if the node still lives."""
        if self.left == 0:
            raise LogUnavailable("the node has died")
        self.left -= 1
        return await super().append(entry)


def test_after_a_crash_between_two_steps_the_same_message_finishes_what_is_left():
    """CP20: wherever it died; what has been done is not done twice."""
    begun = [a_message("a"), a_message("b")]
    body = a_message("n", 1, ["a", "b", "unseen"], *two_blocks())
    whole = Room()
    whole.outcomes(*begun, body)
    steps = len(whole.log._entries) - 2
    assert steps == 5
    for died_after in range(steps):
        log = Dying(2)
        room = Room(log)
        room.outcomes(*begun)
        log.left = died_after
        with pytest.raises(LogUnavailable):
            room.taken(body)
        log.left = -1
        answer = room.taken(body)
        assert answer.outcome == ("replaced" if died_after == 0 else "repeated")
        assert len(answer.stored) == steps - died_after
        assert {each.id for each in answer.cancelled} == {id_of("a"), id_of("b")}
        assert room.live() == whole.live()
        assert room.tombstones() == whole.tombstones()


def test_a_revision_whose_tombstone_was_not_written_is_known_all_the_same():
    """CP10, CP20: by the history of what it went into."""
    log = Dying(2)
    room = Room(log)
    room.taken(a_message("m"))
    with pytest.raises(LogUnavailable):
        room.taken(a_message("u", 1, ["m"]))
    assert room.tombstones() == {}
    log.left = -1
    answer = room.taken(a_message("u", 1, ["m"]))
    assert (answer.outcome, len(answer.stored)) == ("repeated", 1)
    assert room.tombstones() == {id_of("u"): id_of("m")}


CHAIN = {
    "alert": a_message("m"),
    "update": a_message("u", 1, ["m"], named("Updated")),
    "cancel": a_cancel("c", 2, ["u", "m"]),
}


@pytest.mark.parametrize("order", list(itertools.permutations(CHAIN)), ids="-".join)
@pytest.mark.parametrize("twice", [False, True])
def test_in_whatever_order_they_come_nothing_is_live_at_the_end(order, twice):
    """CP13: nothing is sent after it has ended; and what comes again changes nothing."""
    room = Room()
    for name in order:
        for _ in range(1 + twice):
            room.taken(CHAIN[name])
    for name in order:
        room.taken(CHAIN[name])
    assert room.live() == {}


@pytest.mark.parametrize("order", [("alert", "update"), ("update", "alert")], ids="-".join)
def test_in_whatever_order_they_come_the_newest_is_live(order):
    """CP13: the alert alone, with what the update says."""
    room = Room()
    room.outcomes(*(CHAIN[name] for name in order))
    assert list(room.live().values()) == ["Updated"]


LINKS = [
    a_message("m"),
    a_message("u", 1, ["m"], named("Updated")),
    a_message("v", 2, ["u"], named("Updated again")),
    a_cancel("c", 3, ["v"]),
]
ONE_NAME = [a_message("m"), a_message("m", 1, ["m"], kind="Update"), a_cancel("m", 2, ["m"])]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_each_message_may_name_the_one_before_alone(order):
    """CP13: who comes late tells all the same what it stood in the place of."""
    room = Room()
    room.outcomes(*(LINKS[n] for n in order), *(LINKS[n] for n in order))
    assert room.live() == {}
    room = Room()
    room.outcomes(*(LINKS[n] for n in order if n < 3), *(LINKS[n] for n in order if n < 3))
    assert list(room.live().values()) == ["Updated again"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_all_messages_may_have_one_name(order):
    """CP12, CP13: its cancel is known by it too."""
    room = Room()
    room.outcomes(*(ONE_NAME[n] for n in order))
    assert room.live() == {}
    room.outcomes(*(ONE_NAME[n] for n in order))
    assert room.live() == {}


NAMES = ["m", "u", "v", "w"]
STYLES = {
    "the first": lambda n: NAMES[:1],
    "the one before": lambda n: NAMES[n - 1 : n],
    "all": lambda n: NAMES[:n],
    "the second": lambda n: NAMES[min(n - 1, 1) :][:1],
}


def a_chain(updates, cancel, cancel_at):
    """Four messages that name each other in these ways; the one at `cancel_at` is a cancel."""
    made = [a_message("m", 0, (), named("m"))]
    for n in range(1, len(NAMES)):
        if n == cancel_at:
            made.append(a_cancel(NAMES[n], n, STYLES[cancel](n)))
        else:
            made.append(a_message(NAMES[n], n, STYLES[updates](n), named(NAMES[n])))
    return made


@pytest.mark.parametrize(("cancel", "cancel_at"), [*((cancel, 3) for cancel in STYLES), ("the first", 2)])
@pytest.mark.parametrize("updates", STYLES)
def test_a_chain_comes_to_the_same_in_every_order(updates, cancel, cancel_at):
    """HD9: whichever messages an update and a cancel name."""
    chain = a_chain(updates, cancel, cancel_at)
    in_order = Room()
    in_order.outcomes(*chain)
    expected = list(in_order.live().values())
    assert expected == ([] if cancel_at == 3 else ["w"])
    for order in itertools.permutations(chain):
        room = Room()
        room.outcomes(*order)
        assert list(room.live().values()) == expected, [body[60:90] for body in order]


def test_messages_that_come_again_after_a_whole_chain_change_nothing():
    """HD9, CP10: in any order."""
    chain = a_chain("the first", "the first", 3)
    for order in itertools.permutations(chain):
        room = Room()
        room.outcomes(*chain, *order)
        assert room.live() == {}


@pytest.mark.parametrize("between", [[], [a_message("u", 1, ["m"])]])
def test_an_update_that_is_older_than_a_cancel_of_its_chain_is_superseded(room, between):
    """HD9: the cancel names only the first message, as some issuers do."""
    room.outcomes(a_message("m"), *between, a_cancel("c", 5, ["m"]))
    late = a_message("v", 2, ["m"])
    assert room.outcomes(late, late) == ["superseded", "superseded"]
    assert room.outcomes(a_message("w", 3, ["v"])) == ["superseded"], (
        "what goes on from it is older than the cancel too"
    )
    assert room.live() == {}
    assert room.taken(a_message("x", 6, ["m"])).outcome == "published", "what is newer than the cancel is not"


def test_a_cancel_of_what_has_expired_supersedes_older_updates(room):
    """HD9: a cancel is remembered though there was nothing left to cancel, and once."""
    room.taken(a_message("m", 0, (), an_info(expires=time(21))))
    room.clock.advance(120)
    cancel = a_cancel("c", 5, ["m"])
    assert room.outcomes(cancel) == ["ignored"]
    assert room.taken(cancel).stored == ()
    assert room.outcomes(a_message("u", 2, ["m"])) == ["superseded"]


def test_an_update_that_names_a_live_alert_goes_on_with_it_whatever_else_was_cancelled(room):
    """HD9, CP11: nobody in the area of the live alert is missed."""
    room.outcomes(a_message("m"), a_message("n"), a_cancel("c", 5, ["n"]))
    assert room.outcomes(a_message("u", 2, ["m", "n"])) == ["updated"]


def test_blocks_that_were_not_published_before_a_cancel_are_not_published_after_it():
    """HD9, CP20: the node died between two blocks, and the cancel came before the message came again."""
    log = Dying(1)
    room = Room(log)
    with pytest.raises(LogUnavailable):
        room.taken(a_message("m", 0, (), *two_blocks()))
    log.left = -1
    assert room.outcomes(a_cancel("c", 1, ["m"])) == ["cancelled"]
    assert room.outcomes(a_message("m", 0, (), *two_blocks())) == ["repeated"]
    assert room.live() == {}


def published_and_cancelled(room, count):
    """So many messages of one name, each published as new and then cancelled."""
    for n in range(count):
        assert room.outcomes(a_message("m", n / 10), a_cancel("m", n / 10 + 0.05, ["m"])) == ["published", "cancelled"]


def test_a_name_with_many_messages_is_read_in_few_rounds(room, monkeypatch):
    """HD14: decisions grow with the logarithm of the messages of one name."""
    published_and_cancelled(room, 40)
    rounds = []
    decide = service.decide
    monkeypatch.setattr(service, "decide", lambda *about: rounds.append(1) or decide(*about))
    assert room.taken(a_message("m", 10)).alerts[0].id == f"{id_of('m')}:41"
    assert 3 <= len(rounds) <= 8


def test_a_name_can_not_be_published_as_new_without_end(room, monkeypatch):
    """HD14: and the last of its alerts can be cancelled all the same."""
    monkeypatch.setattr(decision, "MAX_GENERATIONS", 3)
    published_and_cancelled(room, 2)
    assert room.outcomes(a_message("m", 1)) == ["published"]
    assert room.outcomes(a_cancel("m", 2, ["m"])) == ["cancelled"]
    assert room.refused(a_message("m", 3)) == "rate-limited"


def test_what_comes_late_ends_what_it_stood_in_the_place_of(room):
    """CP13: it is told so, for the reason that there is, and for as long as what stands there now."""
    room.outcomes(LINKS[0], LINKS[2])
    answer = room.taken(LINKS[1])
    assert (answer.outcome, [each.id for each in answer.cancelled]) == ("superseded", [id_of("m")])
    [_, replaced] = room.history(id_of("m"))
    assert (replaced.reason, replaced.into) == ("Replaced by a newer message.", id_of("v"))
    assert replaced.ends_at == room.history(id_of("u"))[0].ends_at
    room = Room()
    room.outcomes(LINKS[0], a_cancel("c", 3, ["u"]), LINKS[1])
    assert (room.history(id_of("m"))[1].reason, room.live()) == ("Cancelled by the issuer.", {})


class Slow(MemoryLog):
    """A log whose every call lets the others run first. Purpose: two nodes at once. Lies: they take turns strictly."""

    async def append(self, entry):
        """Store it, later."""
        await asyncio.sleep(0)
        return await super().append(entry)

    async def history(self, alert_id):
        """What is there, later."""
        found = await super().history(alert_id)
        await asyncio.sleep(0)
        return found


def together(*bodies, lead=0):
    """What becomes of messages that are taken at once, each at a node of its own; the first is `lead` turns ahead."""
    room = Room(Slow())

    async def late(n, body):
        for _ in range(n * lead):
            await asyncio.sleep(0)
        return await room.taking.take(body, None, room.source)

    async def main():
        return await asyncio.gather(*(late(n, body) for n, body in enumerate(bodies)))

    return room, asyncio.run(main())


@pytest.mark.parametrize("lead", range(8))
def test_the_same_message_at_two_nodes_is_one_alert(lead):
    """CP10, H3."""
    _, answers = together(a_message("m"), a_message("m"), lead=lead)
    assert sorted(answer.outcome for answer in answers) == ["published", "repeated"]
    assert answers[0].alerts == answers[1].alerts


@pytest.mark.parametrize("lead", range(8))
@pytest.mark.parametrize("late", ["update", "cancel"])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_message_and_its_own_update_or_cancel_at_two_nodes_at_once(lead, late, swapped):
    """CP13: who is first at the id of the message decides, and the other one decides anew."""
    bodies = [CHAIN["alert"], CHAIN[late]]
    room, _ = together(*(reversed(bodies) if swapped else bodies), lead=lead)
    assert list(room.live().values()) == (["Updated"] if late == "update" else [])


@pytest.mark.parametrize("lead", range(8))
def test_two_updates_at_two_nodes_at_once_leave_the_newer(lead):
    """CP19: whichever comes first."""
    room = Room(Slow())
    room.taken(a_message("m"))
    bodies = [a_message("u-1", 1, ["m"], named("older")), a_message("u-2", 2, ["m"], named("newer"))]

    async def main():
        async def late(n, body):
            for _ in range(n * lead):
                await asyncio.sleep(0)
            return await room.taking.take(body, None, room.source)

        return await asyncio.gather(*(late(n, body) for n, body in enumerate(bodies)))

    asyncio.run(main())
    assert list(room.live().values()) == ["newer"]


def test_an_alert_that_is_cancelled_by_hand_has_ended(room):
    """An operator may, with alerts:manage; the next update is published as new (CP18)."""
    [revision] = room.taken(a_message("m")).alerts
    by_hand = Cancel(revision.id, 2, "No.", revision.alert.approval, "desk", NOON_MS, revision.ends_at)
    assert asyncio.run(room.log.append(by_hand))
    assert room.taken(a_message("u", 1, ["m"])).outcome == "published"


def test_ids_follow_the_grammar_of_ids(room):
    """A1."""
    for entry in room.taken(a_message("m", 0, (), *two_blocks())).stored:
        assert isinstance(entry, Revision)
        assert is_id(entry.id)
    assert is_id(ids.block(ids.generation(id_of("m"), 12), 8))
