"""Messages that arrive in any order, more than once, at several nodes, or after a crash (CP13, CP16 to CP20)."""

import asyncio
import itertools

import pytest
from ingest.cap.issuer import (
    CapIngestHarness,
    a_cancel,
    a_message,
    an_info,
    id_of,
    named,
    time,
    two_blocks,
)
from support.fakes import NOON_MS

from geocast.alertlog.memory import MemoryLog
from geocast.ingest.cap import decision, ids, service
from geocast.model.alert import Cancel, Revision, is_id
from geocast.model.errors import LogUnavailable
from geocast.model.problems import Problem


class Dying(MemoryLog):
    """A log whose node crashes at the nth append. Unlike after a real crash, the process lives on."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    async def append(self, entry):
        """Store the entry, if the node has not crashed yet."""
        if self.left == 0:
            raise LogUnavailable("the node has died")
        self.left -= 1
        return await super().append(entry)


def test_repeated_message_after_crash_completes_remaining_steps():
    """Steps from before the crash are not repeated (CP20)."""
    begun = [a_message("a"), a_message("b")]
    body = a_message("n", 1, ["a", "b", "unseen"], *two_blocks())
    whole = CapIngestHarness()
    whole.outcomes(*begun, body)
    steps = len(whole.log._entries) - 2
    assert steps == 5
    for died_after in range(steps):
        log = Dying(2)
        room = CapIngestHarness(log)
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


def test_repeated_update_is_recognized_before_its_tombstone_is_stored():
    """The history of the alert contains the update (CP10, CP20)."""
    log = Dying(2)
    room = CapIngestHarness(log)
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
def test_alert_update_and_cancel_in_any_order_leave_nothing_live(order, twice):
    """Repeated messages change nothing (CP13)."""
    room = CapIngestHarness()
    for name in order:
        for _ in range(1 + twice):
            room.taken(CHAIN[name])
    for name in order:
        room.taken(CHAIN[name])
    assert room.live() == {}


@pytest.mark.parametrize("order", [("alert", "update"), ("update", "alert")], ids="-".join)
def test_alert_and_update_in_any_order_leave_newest_live(order):
    """One alert is live, with the content of the last update (CP13)."""
    room = CapIngestHarness()
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
def test_updates_that_name_only_previous_message_leave_newest_live(order):
    """A late message still links the alerts before and after it (CP13)."""
    room = CapIngestHarness()
    room.outcomes(*(LINKS[n] for n in order), *(LINKS[n] for n in order))
    assert room.live() == {}
    room = CapIngestHarness()
    room.outcomes(*(LINKS[n] for n in order if n < 3), *(LINKS[n] for n in order if n < 3))
    assert list(room.live().values()) == ["Updated again"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_messages_and_cancel_with_one_name_in_any_order_leave_nothing_live(order):
    """A cancel is recognized by its name as well as by its references (CP12, CP13)."""
    room = CapIngestHarness()
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
    """Return four messages that refer to each other in these ways. The message at `cancel_at` is a Cancel."""
    made = [a_message("m", 0, (), named("m"))]
    for n in range(1, len(NAMES)):
        if n == cancel_at:
            made.append(a_cancel(NAMES[n], n, STYLES[cancel](n)))
        else:
            made.append(a_message(NAMES[n], n, STYLES[updates](n), named(NAMES[n])))
    return made


@pytest.mark.parametrize(("cancel", "cancel_at"), [*((cancel, 3) for cancel in STYLES), ("the first", 2)])
@pytest.mark.parametrize("updates", STYLES)
def test_messages_about_one_alert_have_same_result_in_every_order(updates, cancel, cancel_at):
    """An update or a cancel may refer to any of the messages (HD9)."""
    chain = a_chain(updates, cancel, cancel_at)
    in_order = CapIngestHarness()
    in_order.outcomes(*chain)
    expected = list(in_order.live().values())
    assert expected == ([] if cancel_at == 3 else ["w"])
    for order in itertools.permutations(chain):
        room = CapIngestHarness()
        room.outcomes(*order)
        assert list(room.live().values()) == expected, [body[60:90] for body in order]


def test_messages_repeated_after_cancel_change_nothing():
    """The repeated messages arrive in any order (HD9, CP10)."""
    chain = a_chain("the first", "the first", 3)
    for order in itertools.permutations(chain):
        room = CapIngestHarness()
        room.outcomes(*chain, *order)
        assert room.live() == {}


@pytest.mark.parametrize("between", [[], [a_message("u", 1, ["m"])]])
def test_update_sent_before_cancel_of_its_alert_is_superseded(room, between):
    """The Cancel names only the first message, as some issuers do (HD9)."""
    room.outcomes(a_message("m"), *between, a_cancel("c", 5, ["m"]))
    late = a_message("v", 2, ["m"])
    assert room.outcomes(late, late) == ["superseded", "superseded"]
    assert room.outcomes(a_message("w", 3, ["v"])) == ["superseded"], (
        "what goes on from it is older than the cancel too"
    )
    assert room.live() == {}
    assert room.taken(a_message("x", 6, ["m"])).outcome == "published", "what is newer than the cancel is not"


def test_cancel_of_expired_alert_supersedes_older_updates(room):
    """The Cancel is stored once, although there was nothing to cancel (HD9)."""
    room.taken(a_message("m", 0, (), an_info(expires=time(21))))
    room.clock.advance(120)
    cancel = a_cancel("c", 5, ["m"])
    assert room.outcomes(cancel) == ["ignored"]
    assert room.taken(cancel).stored == ()
    assert room.outcomes(a_message("u", 2, ["m"])) == ["superseded"]


def test_update_that_names_live_and_cancelled_alert_revises_live_one(room):
    """So nobody in the area of the live alert is missed (HD9, CP11)."""
    room.outcomes(a_message("m"), a_message("n"), a_cancel("c", 5, ["n"]))
    assert room.outcomes(a_message("u", 2, ["m", "n"])) == ["updated"]


def test_alerts_missed_in_crash_are_not_published_after_cancel():
    """The node crashed after one of two alerts. The Cancel arrived before the message was repeated (HD9, CP20)."""
    log = Dying(1)
    room = CapIngestHarness(log)
    with pytest.raises(LogUnavailable):
        room.taken(a_message("m", 0, (), *two_blocks()))
    log.left = -1
    assert room.outcomes(a_cancel("c", 1, ["m"])) == ["cancelled"]
    assert room.outcomes(a_message("m", 0, (), *two_blocks())) == ["repeated"]
    assert room.live() == {}


def published_and_cancelled(room, count):
    """Accept this many messages with one name, each published as new and then cancelled."""
    for n in range(count):
        assert room.outcomes(a_message("m", n / 10), a_cancel("m", n / 10 + 0.05, ["m"])) == ["published", "cancelled"]


def test_alert_for_name_used_many_times_is_found_in_few_rounds(room, monkeypatch):
    """The number of rounds grows with the logarithm of the number of messages (HD14)."""
    published_and_cancelled(room, 40)
    rounds = []
    decide = service.decide
    monkeypatch.setattr(service, "decide", lambda *about: rounds.append(1) or decide(*about))
    assert room.taken(a_message("m", 10)).alerts[0].id == f"{id_of('m')}:41"
    assert 3 <= len(rounds) <= 8


def test_message_name_published_as_new_too_often_is_rate_limited(room, monkeypatch):
    """The last alert with this name can still be cancelled (HD14)."""
    monkeypatch.setattr(decision, "MAX_GENERATIONS", 3)
    published_and_cancelled(room, 2)
    assert room.outcomes(a_message("m", 1)) == ["published"]
    assert room.outcomes(a_cancel("m", 2, ["m"])) == ["cancelled"]
    with pytest.raises(Problem) as refused:
        room.taken(a_message("m", 3))
    assert (refused.value.slug, refused.value.headers) == ("rate-limited", {"Retry-After": "3600"})
    assert refused.value.detail == "3 messages of this name were published as new within a day"


class Asked(MemoryLog):
    """A log that records the ids whose histories are read."""

    def __init__(self):
        super().__init__()
        self.ids = set()

    async def history(self, alert_id):
        """Return the entries, and record the id."""
        self.ids.add(alert_id)
        return await super().history(alert_id)


def test_histories_are_read_only_of_ids_that_an_alert_may_have(monkeypatch):
    """They are those of the parts of a message, and of as many messages of one name as there may be (HD14)."""
    monkeypatch.setattr(decision, "MAX_GENERATIONS", 3)
    room = CapIngestHarness(Asked())
    body, first_id = a_message("n", 0, (), *two_blocks()), id_of("n")
    assert room.outcomes(body, body) == ["published", "repeated"]
    assert room.log.ids == {first_id, f"{first_id}.2", f"{first_id}:2"}
    room.log.ids.clear()
    published_and_cancelled(room, 3)
    with pytest.raises(Problem, match="published as new"):
        room.taken(a_message("m", 1))
    assert room.log.ids == {id_of("m"), f"{id_of('m')}:2", f"{id_of('m')}:3"}


def test_decision_to_publish_names_each_part_of_the_message():
    """The parts are counted from 1 (CP14, CP16)."""
    facts = decision.MessageFacts("met", "m", NOON_MS, id_of("m"), (), False, False, False)
    known = decision.KnownHistories()
    assert decision.decide(facts, known, NOON_MS, 2, lambda _: True) is None
    for alert_id in list(known.missing):
        known.put(alert_id, ())
    made = decision.decide(facts, known, NOON_MS, 2, lambda _: True)
    assert (made.outcome, made.publish) == ("published", (1, 2))


def test_late_message_about_two_alerts_leads_to_the_newest(room):
    """Both alerts were updated after it was sent; messages that refer only to it are about the newer one (CP19)."""
    room.outcomes(a_message("m"), a_message("n", 1), a_message("n-2", 8, ["n"]), a_message("m-2", 6, ["m"]))
    assert room.outcomes(a_message("x", 5, ["m", "n"])) == ["superseded"]
    assert room.tombstones()[id_of("x")] == id_of("n")


def test_cancel_under_the_name_of_its_alert_is_taken_twice(room):
    """The second one finds nothing to cancel; it is not late (CP12, CP13)."""
    again = a_cancel("m", 5, ["m"])
    assert room.outcomes(a_message("m"), again, again) == ["published", "cancelled", "ignored"]
    assert room.taken(again).why == "ended"


def test_late_message_cancels_alert_that_it_would_have_replaced(room):
    """The cancel has the reason of a replacement, and lasts as long as the alert's successor (CP13)."""
    room.outcomes(LINKS[0], LINKS[2])
    answer = room.taken(LINKS[1])
    assert (answer.outcome, [each.id for each in answer.cancelled]) == ("superseded", [id_of("m")])
    [_, replaced] = room.history(id_of("m"))
    assert (replaced.reason, replaced.into) == ("Replaced by a newer message.", id_of("v"))
    assert replaced.ends_at == room.history(id_of("u"))[0].ends_at
    room = CapIngestHarness()
    room.outcomes(LINKS[0], a_cancel("c", 3, ["u"]), LINKS[1])
    assert (room.history(id_of("m"))[1].reason, room.live()) == ("Cancelled by the issuer.", {})


class Slow(MemoryLog):
    """A log whose every call lets other tasks run first, so that two nodes work at once.

    They take strict turns, unlike real nodes.
    """

    async def append(self, entry):
        """Store the entry after a turn of the event loop."""
        await asyncio.sleep(0)
        return await super().append(entry)

    async def history(self, alert_id):
        """Return the entries after a turn of the event loop."""
        found = await super().history(alert_id)
        await asyncio.sleep(0)
        return found


def together(*bodies, lead=0):
    """Return the outcomes of messages that arrive at once, each at its own node.

    The first one is `lead` turns ahead.
    """
    room = CapIngestHarness(Slow())

    async def late(n, body):
        for _ in range(n * lead):
            await asyncio.sleep(0)
        return await room.taking.take(body, None, room.source)

    async def main():
        return await asyncio.gather(*(late(n, body) for n, body in enumerate(bodies)))

    return room, asyncio.run(main())


@pytest.mark.parametrize("lead", range(8))
def test_same_message_at_two_nodes_makes_one_alert(lead):
    """One node publishes the alert, and the other one answers `repeated` (CP10, H3)."""
    _, answers = together(a_message("m"), a_message("m"), lead=lead)
    assert sorted(answer.outcome for answer in answers) == ["published", "repeated"]
    assert answers[0].alerts == answers[1].alerts


@pytest.mark.parametrize("lead", range(8))
@pytest.mark.parametrize("late", ["update", "cancel"])
@pytest.mark.parametrize("swapped", [False, True])
def test_message_and_its_update_or_cancel_at_two_nodes_have_result_of_later_one(lead, late, swapped):
    """The first entry under the message's id is stored, and the other node decides again (CP13)."""
    bodies = [CHAIN["alert"], CHAIN[late]]
    room, _ = together(*(reversed(bodies) if swapped else bodies), lead=lead)
    assert list(room.live().values()) == (["Updated"] if late == "update" else [])


@pytest.mark.parametrize("lead", range(8))
def test_two_updates_at_two_nodes_leave_newer_one_live(lead):
    """The result does not depend on which update arrives first (CP19)."""
    room = CapIngestHarness(Slow())
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


def test_update_of_alert_cancelled_by_hand_is_published_as_new(room):
    """An operator with `alerts:manage` has cancelled the alert (CP18)."""
    [revision] = room.taken(a_message("m")).alerts
    by_hand = Cancel(revision.id, 2, "No.", revision.alert.approval, "desk", NOON_MS, revision.ends_at)
    assert asyncio.run(room.log.append(by_hand))
    assert room.taken(a_message("u", 1, ["m"])).outcome == "published"


def test_alert_ids_made_from_cap_messages_are_valid(room):
    """The ids follow the grammar for ids of alerts (A1)."""
    for entry in room.taken(a_message("m", 0, (), *two_blocks())).stored:
        assert isinstance(entry, Revision)
        assert is_id(entry.id)
    assert is_id(ids.block(ids.generation(id_of("m"), 12), 8))
