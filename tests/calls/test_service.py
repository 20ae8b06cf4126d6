"""calls/service.py: what a dispatcher may do with a call, and who gets a seat, on a log in memory and on a file."""

import asyncio
import contextlib
import dataclasses
import json

import pytest
from support.fakes import HOUR_MS, NOON_MS, FakeClock, a_revision, call_request
from support.redis_server import RedisServer, needs_redis

from geocast import policy
from geocast.alertlog import Counts
from geocast.alertlog.memory import MemoryLog
from geocast.alertlog.redis_streams import RedisStreamsLog
from geocast.alertlog.sqlite import SqliteLog
from geocast.calls.aeds import Aed, Aeds
from geocast.calls.decrypted_chain import opened, opened_chain, sealed
from geocast.calls.encryption import NO_CALL_KEYS, CallKeys
from geocast.calls.openers import MAX_OPEN_CALLS
from geocast.calls.seat_request import SeatRequest
from geocast.calls.service import MOST_RETURNS, CallService, Dispatcher
from geocast.clock import format_time
from geocast.errors import LogUnavailable
from geocast.model.alert import OtherKind
from geocast.model.call import Acceptance, Ending, Opening, Person, Widening, body_of
from geocast.model.problems import Problem

CALLS = """
name = "x"
[categories]
flood = { title = "Flood" }
[calls.cardiac_arrest]
title = "Cardiac arrest: CPR needed"
quals = ["cpr", "medic"]
residence_quals = ["medic"]
rings_m = [100, 300, 500]
[calls.choking]
title = "Choking"
quals = ["cpr"]
max_age_s = 600
seats = ["cpr"]
"""
POLICY = policy.parse(CALLS.encode(), None)
KEYS = CallKeys({"a": bytes(32)})
PATIENCE_S = 60.0  # for a log that a busy machine or a slow disk keeps away
pytestmark = pytest.mark.anyio

ID = "cad-3.8f1c02aa"
DESK, OTHER, CHIEF = Dispatcher("cad-3"), Dispatcher("cad-4"), Dispatcher("chief", manages=True)
HERE = (47.678, 8.831, 10.0)
AEDS = Aeds([Aed("node/1", 47.6772, 8.83, "Hall", None, None, True, None)])


class Room:
    """A node's decisions about calls, on a log and a clock of its own."""

    def __init__(self, alert_log=None, keys=KEYS, in_force=POLICY, aeds=AEDS):
        self.log = alert_log or MemoryLog()
        self.clock = FakeClock()
        self.appended = []
        self.calling = CallService(self.log, in_force, keys, self.clock, self.appended.append, aeds)

    async def open(self, dispatcher=DESK, **changes):
        return await self.calling.open(call_request(**changes), dispatcher)

    async def revise(self, dispatcher=DESK, replaces=1, **changes):
        return await self.calling.revise(ID, call_request(replaces=replaces, **changes), dispatcher)

    async def end(self, dispatcher=DESK, reason="The crew is there."):
        return await self.calling.end(ID, {"reason": reason}, dispatcher)

    async def accept(self, sub="r-1", **changes):
        seat_request = SeatRequest(ID, Person(sub), frozenset({"medic"}), False, HERE, False)
        return await self.calling.accept(seat_request._replace(**changes))

    async def kinds(self, call_id=ID):
        return [entry.kind for entry in await self.log.history(call_id)]

    async def call(self):
        return opened_chain(KEYS, await self.log.history(ID)).call


@pytest.fixture
def room():
    """A node that has heard of no call yet."""
    return Room()


async def refused(awaited):
    """The problem as which it is refused."""
    with pytest.raises(Problem) as caught:
        await awaited
    return caught.value


# ---- to open -------------------------------------------------------------------------------------------------------


async def test_a_call_is_opened(room):
    """docs/calls.md, The api: 201 with what is shown; it is in the log, and whoever follows is nudged."""
    outcome = await room.open()
    assert outcome == (
        {
            "id": ID,
            "revision": 1,
            "issued_at": format_time(NOON_MS),
            "expires_at": format_time(NOON_MS + 1_500_000),
            "near": {"type": "circle", "lat": 47.67825933515865, "lng": 8.830423174775438, "radius_m": 210.0},
        },
        True,
    )
    assert room.appended == list(await room.log.history(ID))
    [entry] = room.appended
    assert (entry.kind, entry.revision, entry.ends_at) == ("call", 1, NOON_MS + 1_500_000)


async def test_a_call_keeps_the_policy_of_then(room):
    """RO3: those for its kind of place too, whatever is in force later."""
    await room.open()
    assert (await room.call()).opening.terms == POLICY.calls["cardiac_arrest"].terms("residence")


async def test_what_is_left_out_is_worked_out(room):
    """RY4, A9: an expiry that is left out is the latest that the policy allows."""
    await room.open(expires_at=...)
    assert (await room.call()).opening.expires_at == NOON_MS - 60_000 + 1_800_000


async def test_a_headline_that_gives_somebody_away_is_replaced(room):
    """RY3: by the title, and not refused; the answer says so, each time. One that does not is rung as it is."""
    outcome = await room.open(headline="Adult down at 12 Main Street, call Mr Smith")
    assert outcome.answer["headline"] == "replaced"
    assert (await room.call()).opening.headline == "Cardiac arrest: CPR needed"
    again = await room.open(headline="Adult down at 12 Main Street, call Mr Smith")
    assert again == (outcome.answer, False)
    fine = await room.open(id="cad-9")
    assert "headline" not in fine.answer


async def test_where_no_text_is_judged_none_is_replaced():
    """RY3, TX2: a policy with `text = "off"`."""
    room = Room(in_force=policy.parse(f'text = "off"\n{CALLS}'.encode(), None))
    outcome = await room.open(headline="12 Main Street")
    assert "headline" not in outcome.answer
    assert (await room.call()).opening.headline == "12 Main Street"


async def test_to_open_it_again_is_answered_as_at_first(room):
    """H3, H5: the same content by value, whoever sends it and whatever has happened since."""
    first = await room.open()
    room.clock.advance(60)
    place = call_request()["place"] | {"lat": 47.67800890, "lng": 8.83111290}
    assert await room.open(OTHER, place=place, occurred_at="2026-01-31T12:59:00+01:00") == (first.answer, False)
    await room.accept()
    await room.end()
    room.clock.advance(7_200)
    assert await room.open() == (first.answer, False)
    assert await room.kinds() == ["call", "claim", "end"]


@pytest.mark.parametrize(
    "changes",
    [
        {"headline": "Another one"},
        {"category": "choking", "expires_at": ...},
        {"status": "exercise"},
        {"occurred_at": format_time(NOON_MS - 60_001)},
        {"expires_at": format_time(NOON_MS + 1_500_001)},
        {"place": call_request()["place"] | {"lat": 47.67800891}},
        {"place": call_request()["place"] | {"access": "Door code 4712."}},
        {"place": call_request()["place"] | {"kind": "public"}},
    ],
)
async def test_an_id_is_taken_by_other_content(room, changes):
    """RY1, H5: 409; the exact place counts, which nobody is told."""
    await room.open()
    assert (await refused(room.open(**changes))).slug == "id-conflict"


async def test_alerts_and_calls_share_their_ids(room):
    """RY1: an alert's id is taken for calls (409) and unknown to them (404); and so it is the other way round."""
    await room.log.append(a_revision(ID))
    assert (await refused(room.open())).slug == "id-conflict"
    for asked in (room.revise(), room.end(), room.calling.state(ID, DESK)):
        assert (await refused(asked)).slug == "unknown-call"
    await room.open(id="cad-9")
    assert not await room.log.append(a_revision("cad-9", 2))


async def test_an_id_of_what_nobody_here_knows_is_taken(room):
    """RY1, LogG4: by an entry of a later release."""
    room.log.take(OtherKind(ID, 1, NOON_MS + HOUR_MS))
    assert (await refused(room.open())).slug == "id-conflict"


async def test_ids_of_messages_of_cap_are_not_for_dispatchers(room):
    """RY1: `cap.` is for CAP."""
    [violation] = (await refused(room.open(id="cap.1"))).violations
    assert (violation.slug, violation.pointer) == ("invalid-value", "/id")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"category": "flood"}, ["category-not-callable"]),
        ({"occurred_at": format_time(NOON_MS - 1_800_001)}, ["stale", "expiry-out-of-range"]),
        ({"occurred_at": format_time(NOON_MS + 60_001)}, ["not-yet"]),
        ({"expires_at": format_time(NOON_MS)}, ["expiry-out-of-range"]),
        ({"headline": "", "expires_at": format_time(NOON_MS)}, ["invalid-value", "expiry-out-of-range"]),
        ({"category": "flood", "place": ...}, ["missing-field", "category-not-callable"]),
    ],
)
async def test_what_the_policy_refuses(room, changes, expected):
    """RO1, RO2, P9: all that is wrong in one answer, fields first; nothing is stored."""
    problem = await refused(room.open(**changes))
    assert (problem.status, [each.slug for each in problem.violations]) == (422, expected)
    assert await room.log.history(ID) == ()


@pytest.mark.slow
async def test_so_many_calls_may_be_open(room):
    """docs/calls.md, Limits: 1,000. One more is told 429, repeats are not, and when one is over there is room again."""
    for number in range(MAX_OPEN_CALLS):
        await room.open(id=f"c-{number}", dispatcher=Dispatcher(f"desk-{number % 4}"))
    problem = await refused(room.open())
    assert (problem.status, problem.slug) == (429, "too-many-requests")
    assert int(problem.headers["Retry-After"]) > 0
    assert not (await room.open(id="c-7")).created
    assert (await refused(room.open(category="flood"))).slug == "category-not-callable"
    await room.calling.end("c-7", {"reason": "Over."}, Dispatcher("desk-3"))
    assert (await room.open()).created


async def test_dispatcher_with_share_of_open_calls_is_refused_and_others_are_served(room):
    """HD6: a quarter of the open calls, counted in the log: what another node has read before does not matter."""
    greedy = Dispatcher("greedy")
    for number in range(MAX_OPEN_CALLS // 4):
        await room.open(id=f"c-{number}", dispatcher=greedy)
    other_node = CallService(room.log, POLICY, KEYS, room.clock)
    for calling in (room.calling, other_node):
        problem = await refused(calling.open(call_request(id="more"), greedy))
        assert (problem.status, problem.slug, problem.headers["Retry-After"]) == (429, "too-many-requests", "5")
        assert "share" in problem.detail
        for number, other in enumerate((DESK, Dispatcher("greedy", issuer="another"))):
            assert (await calling.open(call_request(id=f"other-{number}-{id(calling)}"), other)).created
    await room.calling.end("c-7", {"reason": "Over."}, greedy)
    assert (await other_node.open(call_request(id="more"), greedy)).created


async def test_without_keys_nothing_is_stored():
    """RZ3: it is sealed or it is not there. (A node whose policy has calls and that has no keys does not start.)"""
    room = Room(keys=NO_CALL_KEYS)
    with pytest.raises(LogUnavailable):
        await room.open()
    assert await room.log.history(ID) == ()


# ---- new content ---------------------------------------------------------------------------------------------------


async def test_a_call_gets_new_content(room):
    """docs/calls.md, The api: 201 with the number of the entry; the ring stays, round the new place."""
    await room.open()
    await room.calling.widen(ID, 1)
    outcome = await room.revise(headline="Child, not breathing.", place=call_request()["place"] | {"lat": 47.7})
    assert (outcome.answer["revision"], outcome.created) == (3, True)
    call = await room.call()
    assert (call.content, call.revision, call.wave, call.opening.headline) == (3, 3, 1, "Child, not breathing.")
    assert call.opening.near.lat == pytest.approx(47.7, abs=0.003)


async def test_new_content_says_what_it_replaces(room):
    """docs/calls.md, The api: the number of the content now, whatever else has a number; else 409 with it."""
    await room.open()
    await room.accept()
    problem = await refused(room.revise(replaces=2))
    assert (problem.slug, problem.extra) == ("revision-conflict", {"current": 1})
    assert (await room.revise(headline="Second")).answer["revision"] == 3
    problem = await refused(room.revise(headline="Third"))
    assert (problem.slug, problem.extra) == ("revision-conflict", {"current": 3})
    assert (await room.revise(replaces=3, headline="Third")).answer["revision"] == 4


async def test_the_same_content_again_is_answered_as_at_first(room):
    """H3: by any dispatcher, behind newer content, and when the call is over."""
    await room.open()
    first = await room.revise(headline="Second")
    await room.revise(replaces=2, headline="Third")
    assert await room.revise(OTHER, headline="Second") == (first.answer, False)
    await room.end()
    room.clock.advance(7_200)
    assert await room.revise(headline="Second") == (first.answer, False)


async def test_what_has_to_stay_as_it_was(room):
    """docs/calls.md, The api: 422 for each, in the order of the fields; and RO2 by the policy of then (RO3)."""
    await room.open()
    problem = await refused(
        room.revise(
            category="choking",
            status="test",
            occurred_at=format_time(NOON_MS),
            place=call_request()["place"] | {"kind": "public"},
        )
    )
    assert [(each.slug, each.pointer) for each in problem.violations] == [
        ("category-changed", "/category"),
        ("status-changed", "/status"),
        ("occurred-at-changed", "/occurred_at"),
        ("kind-changed", "/place/kind"),
    ]
    earlier = await refused(room.revise(expires_at=format_time(NOON_MS + 1_499_999)))
    assert [each.slug for each in earlier.violations] == ["expiry-out-of-range"]
    broken = await refused(room.revise(headline="", expires_at=format_time(NOON_MS + 1)))
    assert [each.slug for each in broken.violations] == ["invalid-value", "expiry-out-of-range"]


async def test_a_policy_without_the_category_leaves_a_call_as_it_is():
    """RO3: its content may be corrected, and whoever goes may go, under the policy of then."""
    room = Room()
    await room.open()
    room.calling = room.calling.with_config(policy.load(None), KEYS)
    assert (await room.revise(headline="Second")).created
    assert (await room.call()).opening.terms == POLICY.calls["cardiac_arrest"].terms("residence")
    assert await room.accept() is None
    assert (await refused(room.open(id="cad-9"))).slug == "category-not-callable"


async def test_a_call_is_its_openers(room):
    """docs/calls.md, The api: another dispatcher is told 403; who manages may, and it stays its opener's."""
    await room.open()
    for asked in (room.revise(OTHER, headline="X"), room.end(OTHER), room.calling.state(ID, OTHER)):
        assert (await refused(asked)).slug == "not-yours"
    broken = await refused(room.revise(OTHER, headline="", expires_at=format_time(NOON_MS + 1)))
    assert [each.slug for each in broken.violations] == ["invalid-value"]  # nothing of another's call shows
    await room.revise(CHIEF, headline="Second")
    call = await room.call()
    assert (call.opening.source, call.opening.by) == ("cad-3", "chief")
    assert (await room.revise(DESK, replaces=2, headline="Third")).created
    assert (await room.end(CHIEF)).created


async def test_of_several_reasons_the_first_in_order_is_given(room):
    """Section 4, decisions 5 to 9: fields, unknown, another's, ended, number, rules."""
    wrong = {"category": "flood", "replaces": 9}
    assert (await refused(room.revise(OTHER, headline="", **wrong))).status == 422
    assert (await refused(room.revise(OTHER, **wrong))).slug == "unknown-call"
    await room.open()
    assert (await refused(room.revise(OTHER, **wrong))).slug == "not-yours"
    assert (await refused(room.revise(DESK, **wrong))).slug == "revision-conflict"
    assert (await refused(room.revise(DESK, category="flood"))).slug == "category-changed"
    await room.end()
    assert (await refused(room.revise(OTHER, **wrong))).slug == "not-yours"
    assert (await refused(room.revise(DESK, **wrong))).slug == "call-ended"


# ---- the end -------------------------------------------------------------------------------------------------------


async def test_a_call_is_ended(room):
    """docs/calls.md, The api: 201; ended already, for whatever reason: 200 with the first answer. No more content."""
    await room.open()
    first = await room.end()
    assert first == ({"id": ID, "revision": 2, "ended_at": format_time(NOON_MS)}, True)
    room.clock.advance(60)
    assert await room.end(reason="No arrest.") == (first.answer, False)
    assert await room.end(CHIEF) == (first.answer, False)
    assert (await refused(room.revise(headline="Second"))).slug == "call-ended"
    assert await room.kinds() == ["call", "end"]


async def test_an_end_without_a_reason_is_refused(room):
    """docs/calls.md, The api: 422, whatever the id."""
    assert (await refused(room.calling.end(ID, {}, DESK))).slug == "missing-field"
    assert (await refused(room.end())).slug == "unknown-call"


async def test_a_call_that_has_expired_is_over(room):
    """RZ4: no more content; the node ends it, once, and who ends it after that is told so."""
    await room.open()
    await room.calling.expire(ID)
    assert await room.kinds() == ["call"]  # not before its time
    room.clock.advance(1_500)
    assert (await refused(room.revise(headline="Second"))).slug == "call-ended"
    assert (await room.calling.state(ID, DESK))["state"] == "expired"
    await room.calling.expire(ID)
    await room.calling.expire(ID)
    assert await room.kinds() == ["call", "end"]
    end = body_of((await room.log.history(ID))[-1])
    assert isinstance(end, Ending)
    assert (end.source, end.at) == (None, NOON_MS + 1_500_000)
    assert (await room.end()).created is False
    assert (await room.calling.state(ID, DESK))["state"] == "expired"


async def test_an_end_repeats_what_is_not_sealed(room):
    """RZ4: so that the entries with the place may be deleted; then 410 for who opens it again, and the state stays."""
    await room.open()
    await room.accept()
    await room.end()
    before = await room.calling.state(ID, DESK)
    room.clock.advance(601)
    await room.log.purge(room.clock.wall_ms)
    assert await room.kinds() == ["claim", "end"]
    problem = await refused(room.open())
    assert (problem.status, problem.slug) == (410, "call-ended")
    assert (await refused(room.open(headline="Another one"))).slug == "call-ended"
    assert (await refused(room.revise(headline="Second"))).slug == "call-ended"
    assert (await room.end()).answer["revision"] == 3
    after = await room.calling.state(ID, DESK)
    assert (after["state"], after["seats"]) == ("ended", before["seats"])
    assert after["call"] | {"revision": 1} == before["call"]
    assert (await refused(room.calling.state(ID, OTHER))).slug == "not-yours"


# ---- what a dispatcher sees ----------------------------------------------------------------------------------------


async def test_the_state_of_a_call(room):
    """docs/calls.md, The api: what is rung, how many were, who goes; exact counts, and no place."""
    await room.open()
    await room.calling.widen(ID, 1)
    await room.log.add_counts({ID: Counts(9, 6, 2)})
    await room.accept("r-51c0")
    await room.accept("r-7a19", eta_s=240)
    room.clock.advance(30)
    await room.calling.report(ID, Person("r-51c0"), "arrived")
    found = await room.calling.state(ID, DESK)
    call = found.pop("call")
    assert found == {
        "state": "ringing",
        "content": 1,
        "ring_m": 300,
        "rung": 9,
        "seen": 6,
        "declined": 2,
        "seats": [
            {
                "seat": 1,
                "role": "cpr",
                "responder": "r-51c0",
                "state": "arrived",
                "accepted_at": format_time(NOON_MS),
                "changed_at": format_time(NOON_MS + 30_000),
            },
            {
                "seat": 2,
                "role": "aed",
                "responder": "r-7a19",
                "state": "going",
                "accepted_at": format_time(NOON_MS),
                "eta_s": 240,
                "aed": "node/1",
            },
        ],
    }
    assert (call["id"], call["revision"], call["near"]["radius_m"]) == (ID, 1, 210.0)


async def test_whoever_was_told_where_it_is_is_shown_for_good(room):
    """RZ8: to take a seat and give it back at once hides nobody."""
    await room.open()
    await room.accept("r-51c0")
    assert "left" not in await room.calling.state(ID, DESK)
    room.clock.advance(1)
    await room.calling.release(ID, Person("r-51c0"))
    await room.accept("r-7a19")
    await room.end()
    found = await room.calling.state(ID, DESK)
    times = {"accepted_at": format_time(NOON_MS), "left_at": format_time(NOON_MS + 1000)}
    assert found["left"] == [{"responder": "r-51c0", **times}]
    assert [seat["responder"] for seat in found["seats"]] == ["r-7a19"]


async def test_a_full_call_is_shown_as_such(room):
    """RV6."""
    await room.open()
    for number in range(4):
        assert await room.accept(f"r-{number}") is None
    assert (await room.calling.state(ID, DESK))["state"] == "full"


async def test_open_calls_are_a_dispatchers_own(room):
    """docs/calls.md, The api: in the order in which they were opened; who manages sees all."""
    await room.open()
    await room.open(id="cad-2", expires_at=format_time(NOON_MS + 60_000))
    await room.open(OTHER, id="cad-1")
    await room.open(id="cad-0")
    await room.calling.end("cad-0", {"reason": "Over."}, DESK)

    async def listed(dispatcher):
        return [each["call"]["id"] async for each in room.calling.open_calls(dispatcher)]

    assert await listed(DESK) == [ID, "cad-2"]
    assert await listed(OTHER) == ["cad-1"]
    assert await listed(CHIEF) == [ID, "cad-2", "cad-1"]
    assert await listed(Dispatcher("cad-5")) == []
    room.clock.advance(60)
    assert await listed(DESK) == [ID]


async def test_others_go_on_while_many_calls_are_listed():
    """docs/calls.md, The api: by a log that answers at once, too; between any two calls all others had their turn."""
    room = Room()
    for number in range(20):
        await room.open(id=f"cad-{number}")
    turns, listed = 0, asyncio.Event()

    async def others():
        nonlocal turns
        while not listed.is_set():
            turns += 1
            await asyncio.sleep(0)

    going_on = asyncio.ensure_future(others())
    assert len([each async for each in room.calling.open_calls(DESK)]) == 20
    listed.set()
    await going_on
    assert turns >= 20


async def test_no_answer_has_the_place_or_the_reason(room, caplog):
    """RZ2, RZ7: no call of the api gives a place back; neither is there a line of it, and in the log it is sealed."""
    caplog.set_level("DEBUG")
    answers = [await room.open(), await room.open(), await room.revise(headline="Second")]
    await room.accept("r-1", eta_s=5)
    answers += [await room.calling.state(ID, DESK), *[each async for each in room.calling.open_calls(CHIEF)]]
    answers += [await room.end(reason="Mr Hofer is well."), await room.calling.state(ID, DESK)]
    conflict = await refused(room.open(headline="Other"))
    said = json.dumps([*answers, conflict.body()]) + caplog.text + repr(await room.log.history(ID))
    assert not [each for each in ("47.6780", "8.8311129", "Dorfstrasse", "4711", "Hofer") if each in said]
    entries = b"".join(entry.plain + entry.sealed for entry in await room.log.history(ID))
    assert not [each for each in (b"r-1", b"Dorfstrasse", b"4711", b"Hofer") if each in entries]


# ---- seats ---------------------------------------------------------------------------------------------------------


async def test_the_lowest_free_seat_is_taken_with_its_role(room):
    """RV5: and `aed` becomes `cpr` where none can be fetched (RI1): the second has the only one."""
    await room.open()
    for number in range(4):
        assert await room.accept(f"r-{number}") is None
    seats = (await room.call()).seats
    assert [(seat.number, seat.role, seat.aed) for seat in seats.values()] == [
        (1, "cpr", None),
        (2, "aed", "node/1"),
        (3, "cpr", None),
        (4, "cpr", None),
    ]
    await room.calling.release(ID, Person("r-1"))
    assert await room.accept("r-9") is None
    assert [(seat.number, seat.aed) for seat in (await room.call()).seats.values()][-1] == (2, "node/1")


async def test_one_that_is_too_far_from_the_patient_is_not_fetched():
    """RI2: `aed_m` of the call; and of those near, the least way round over it."""
    far = Aed("node/2", 47.7, 8.83, None, None, None, True, None)
    room = Room(aeds=Aeds([far]))
    await room.open()
    await room.accept("r-1")
    await room.accept("r-2")
    assert [seat.role for seat in (await room.call()).seats.values()] == ["cpr", "cpr"]
    on_the_way, behind = far._replace(id="a", lat=47.6785, lng=8.8309), far._replace(id="b", lat=47.6770, lng=8.8320)
    room = Room(aeds=Aeds([behind, on_the_way]))
    await room.open()
    await room.accept("r-1")
    await room.accept("r-2", here=(47.6790, 8.8307, 0.0))
    assert [seat.aed for seat in (await room.call()).seats.values()] == [None, "a"]


async def test_a_responder_has_one_seat(room):
    """RV3: a repeated accept is answered by the same, even from afar, off duty or when all seats are taken since."""
    await room.open()
    for number in range(4):
        await room.accept(f"r-{number}")
    assert await room.accept("r-0", here=None, busy=True) is None
    assert await room.accept("r-0", quals=frozenset({"cpr"})) == "over"  # HD5: this token does not count for a home
    assert (await room.kinds()).count("claim") == 4


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"quals": frozenset({"cpr"})}, "over"),
        ({"busy": True}, "held-off"),
        ({"here": None}, "far"),
        ({"here": (47.69, 8.831, 0.0)}, "far"),
        ({"call_id": "cad-9"}, "over"),
        ({"quals": frozenset(), "busy": True, "here": None}, "over"),
        ({"busy": True, "here": None}, "held-off"),
    ],
)
async def test_who_gets_no_seat_is_told_the_first_reason(room, changes, expected):
    """RV4: no such qualification, held off, full, far, in this order; nothing is stored."""
    await room.open()
    assert await room.accept(**changes) == expected
    assert await room.kinds() == ["call"]


async def test_who_comes_too_late_is_told_full(room):
    """RV4, RV6: `full` before `far`, `held-off` before it; and a seat that is given back can be taken."""
    await room.open()
    for number in range(4):
        await room.accept(f"r-{number}")
    assert await room.accept("r-9", here=None) == "full"
    assert await room.accept("r-9", busy=True) == "held-off"
    await room.calling.release(ID, Person("r-2"))
    assert await room.accept("r-9") is None
    assert (await room.call()).seats[Person("r-9")].number == 3


async def test_a_call_that_is_over_gives_no_seat(room):
    """RV4, RJ9: ended or expired, to its holders too; a test is not there for who may not see it (R6)."""
    await room.open()
    await room.accept("r-1")
    await room.end()
    assert (await room.accept("r-1"), await room.accept("r-2")) == ("over", "over")
    tests = Room()
    await tests.open(status="test")
    assert await tests.accept() == "over"
    assert await tests.accept(may_test=True) is None
    tests.clock.advance(1_500)
    assert await tests.accept(may_test=True) == "over"


async def test_a_seat_is_given_back_once(room):
    """RV5: by who holds it. What is not held is not given back, and nothing follows the end."""
    await room.open()
    await room.accept()
    await room.calling.release(ID, Person("r-2"))
    with pytest.raises(LogUnavailable, match="not in the log any more"):
        await room.calling.release("cad-9", Person("r-1"))
    await room.calling.release(ID, Person("r-1"))
    await room.calling.release(ID, Person("r-1"))
    assert await room.kinds() == ["call", "claim", "release"]
    await room.accept()
    await room.end()
    await room.calling.release(ID, Person("r-1"))
    assert (await room.kinds())[-1] == "end"


async def test_who_only_comes_and_goes_gets_no_seat_any_more(room):
    """RV5: each time is two entries of the log, and may ring everybody anew. Others' seats are not counted."""
    await room.open()
    for number in range(MOST_RETURNS):
        assert await room.accept("r-1") is None
        await room.calling.release(ID, Person("r-1"))
        assert await room.accept("r-2" if number % 2 else "r-3") is None
    assert await room.accept("r-1") == "held-off"
    assert (await room.kinds()).count("release") == MOST_RETURNS
    await room.calling.release(ID, Person("r-2"))
    assert await room.accept("r-2") is None


async def test_reports_count_every_five_seconds(room):
    """M20: from a seat alone; what is nothing new is dropped, and what comes within 5 s of the last."""
    await room.open()
    await room.accept()
    await room.calling.report(ID, Person("r-2"), "arrived")
    await room.calling.report(ID, Person("r-1"), "going")
    await room.calling.report(ID, Person("r-1"), "aed")
    room.clock.advance(4.9)
    await room.calling.report(ID, Person("r-1"), "arrived")
    assert (await room.call()).seats[Person("r-1")].state == "aed"
    room.clock.advance(0.1)
    await room.calling.report(ID, Person("r-1"), "arrived")
    await room.calling.report(ID, Person("r-1"), "arrived")
    assert await room.kinds() == ["call", "claim", "report", "report"]


async def test_the_ring_widens_one_by_one(room):
    """RN2: the next one only, while seats are free; who is late or early changes nothing."""
    await room.open()
    for ring in (0, 2, 1, 1, 2, 3):
        await room.calling.widen(ID, ring)
    assert [entry.kind for entry in room.appended] == ["call", "widen", "widen"]
    assert (await room.call()).radius_m == 500
    full = Room()
    await full.open()
    for number in range(4):
        await full.accept(f"r-{number}")
    await full.calling.widen(ID, 1)
    assert (await full.call()).wave == 0
    await full.end()
    await full.calling.widen(ID, 1)
    assert (await full.kinds())[-1] == "end"


async def test_a_lost_claim_is_put_back(room):
    """RV7: under the next number, with its seat; where that is taken, as seat 0. Once, and not behind the end."""
    await room.open()
    await room.accept("r-1")
    lost = dataclasses.replace((await room.call()).seats[Person("r-1")], person=Person("r-0"))
    await room.calling.restore(ID, lost)
    await room.calling.restore(ID, lost)
    seats = (await room.call()).seats
    assert (seats[Person("r-1")].number, seats[Person("r-0")].number, seats[Person("r-0")].entry_number) == (1, 0, 3)
    assert seats[Person("r-0")].accepted_at == lost.accepted_at
    await room.calling.release(ID, Person("r-1"))
    await room.calling.restore(ID, dataclasses.replace(lost, person=Person("r-5")))
    assert (await room.call()).seats[Person("r-5")].number == 1
    await room.end()
    await room.calling.restore(ID, dataclasses.replace(lost, person=Person("r-6")))
    assert (await room.kinds())[-1] == "end"


# ---- what does not open --------------------------------------------------------------------------------------------


async def test_a_node_that_lacks_a_key_gives_no_seat():
    """RZ5, RV2: part of the chain may be a claim, so it waits; the same node goes on when it has the key."""
    room = Room()
    await room.open()
    newer = Room(room.log, CallKeys({"b": b"b" * 32, "a": bytes(32)}))
    assert await newer.accept("r-1") is None
    with pytest.raises(LogUnavailable):
        await room.accept("r-2")
    for asked in (room.calling.release(ID, Person("r-2")), room.calling.widen(ID, 1)):
        with pytest.raises(LogUnavailable):
            await asked
    room.calling = room.calling.with_config(POLICY, CallKeys({"a": bytes(32), "b": b"b" * 32}))
    assert await room.accept("r-2") is None
    assert (await room.call()) is not None


async def test_rubbish_in_the_chain_keeps_nobody_from_ending_it(room):
    """RZ3: who has the log and no key can forge nothing, and a dispatcher can end the call all the same."""
    await room.open()
    forged = sealed(CallKeys({"x": b"x" * 32}), ID, 2, NOON_MS + HOUR_MS, Acceptance(1, "cpr", NOON_MS), Person("x"))
    assert await room.log.append(forged)
    assert (await room.calling.state(ID, DESK))["seats"] == []
    assert (await room.end()).answer["revision"] == 3


async def test_a_call_of_which_nothing_opens_is_not_known_to_be_anybodys():
    """RZ5: 503, not 404 and not 403: it may be opened when the node has the key."""
    room = Room()
    await room.open()
    blind = Room(room.log, CallKeys({"b": b"b" * 32}))
    for asked in (blind.open(), blind.revise(), blind.end(), blind.calling.state(ID, DESK)):
        with pytest.raises(LogUnavailable):
            await asked
    assert [each async for each in blind.calling.open_calls(DESK)] == []


async def test_a_copied_claim_counts_once(room):
    """RZ3, RV2: what whoever can write to the log may do with an entry is to copy it under a higher number."""
    await room.open()
    await room.accept()
    claim = (await room.log.history(ID))[-1]
    await room.calling.release(ID, Person("r-1"))
    assert await room.log.append(dataclasses.replace(claim, revision=4, sealed_as=2))
    assert (await room.call()).seats == {}
    assert opened(KEYS, claim).secret == Person("r-1")


# ---- at once -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["a file", pytest.param("redis", marks=needs_redis)])
async def rooms(request, tmp_path):
    """Three nodes on one log: on a file, or in Redis."""
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(RedisServer(tmp_path / "redis")) if request.param == "redis" else None
        found = []
        for _ in range(3):
            alert_log = RedisStreamsLog(server.url) if server else SqliteLog(tmp_path / "log.db")
            await answered(alert_log.start)
            stack.push_async_callback(alert_log.stop)
            found.append(Room(alert_log))
        yield found


async def answered(ask, *args, **kwargs):
    """What a node answers, asked again for as long as the log is away: that is what who asks has to do (H2)."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(LogUnavailable):
                return await ask(*args, **kwargs)
            await asyncio.sleep(0.05)


async def test_of_many_accepts_as_many_succeed_as_there_are_seats(rooms):
    """RV2, RV3: on three nodes at once, some twice; the first in the log's order, each with another seat."""
    await answered(rooms[0].open)
    subs = [f"r-{number % 20}" for number in range(60)]
    answers = await asyncio.gather(*(answered(rooms[n % 3].accept, sub) for n, sub in enumerate(subs)))
    call = await answered(rooms[1].call)
    assert sorted(seat.number for seat in call.seats.values()) == [1, 2, 3, 4]
    assert {Person(sub) for sub, answer in zip(subs, answers, strict=True) if answer is None} == set(call.seats)
    assert set(answers) == {None, "full"}


async def test_accepts_and_the_rest_at_once(rooms):
    """RV2, LogA1: claims, releases, reports, rings, content and an end race; the chain is whole and has one end."""
    await answered(rooms[0].open)
    first = await asyncio.gather(*(answered(rooms[n % 3].accept, f"r-{n}") for n in range(4)))
    assert first == [None] * 4
    asked = [answered(rooms[n % 3].calling.release, ID, f"r-{n}") for n in range(2)]
    asked += [answered(rooms[n % 3].calling.report, ID, f"r-{n}", "arrived") for n in (2, 3)]
    asked += [answered(room.calling.widen, ID, 1) for room in rooms]
    asked += [answered(rooms[n % 3].accept, f"r-{n}") for n in range(4, 8)]
    asked += [answered(rooms[n].revise, headline=f"Content {n}") for n in range(3)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert {each.slug for each in found if isinstance(each, Exception)} == {"revision-conflict"}
    ends = await asyncio.gather(
        *(answered(room.end) for room in rooms), *(answered(room.accept, "r-9") for room in rooms)
    )
    assert len({json.dumps(end.answer) for end in ends[:3]}) == 1
    assert sum(end.created for end in ends[:3]) <= 1
    chain = opened_chain(KEYS, await answered(rooms[2].log.history, ID))
    numbers = [each.entry.revision for each in chain.entries]
    assert numbers == list(range(1, len(numbers) + 1))
    assert [type(each.body) for each in chain.entries].count(Ending) == 1
    assert sum(isinstance(each.body, Widening) for each in chain.entries) <= 1
    assert sum(isinstance(each.body, Opening) for each in chain.entries) == 2


async def test_who_opens_it_at_once_opens_one_call(rooms):
    """H3: one at most is told 201, the others 200, with the same answer; other content is told 409."""
    found = await asyncio.gather(*(answered(room.open) for room in rooms * 2))
    assert sum(each.created for each in found) <= 1
    assert len({json.dumps(each.answer) for each in found}) == 1
    assert (await refused(answered(rooms[0].open, headline="Another"))).slug == "id-conflict"


async def test_overtaken_widening_is_not_tried_again(room, monkeypatch):
    """RN2: the entry that was faster may have widened the call already."""
    await room.open()
    asked = []

    async def overtaken(entry):
        asked.append(entry.kind)
        return False

    monkeypatch.setattr(room.log, "append", overtaken)
    await room.calling.widen(ID, 1)
    assert asked == ["widen"]
