"""Seats in the call service: concurrent requests, and chains that can't be decrypted."""

import asyncio
import contextlib
import dataclasses
import json

import pytest
from calls.service.harness import DESK, ID, KEYS, PATIENCE_S, POLICY, CallServiceHarness, refused
from support.fakes import HOUR_MS, NOON_MS
from support.redis_server import RedisServer, needs_redis

from geocast.alertlog.redis_streams import RedisStreamsLog
from geocast.alertlog.sqlite.log import SqliteLog
from geocast.calls.aeds import Aed, Aeds
from geocast.calls.decrypted_chain import opened, opened_chain, sealed
from geocast.calls.encryption import CallKeys
from geocast.calls.service import MOST_RETURNS
from geocast.model.call import Acceptance, Ending, Opening, Person, Widening
from geocast.model.errors import LogUnavailable

# ---- taking and releasing seats ----------------------------------------------------------------------------------


async def test_responder_who_accepts_gets_lowest_free_seat_and_its_role(room):
    """The role `aed` becomes `cpr` if no defibrillator can be fetched (RV5, RI1)."""
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


async def test_defibrillator_too_far_from_the_patient_is_not_fetched():
    """The call's `aed_m` limits the distance.

    Among those within it, the one with the shortest detour is fetched (RI2).
    """
    far = Aed("node/2", 47.7, 8.83, None, None, None, True, None)
    room = CallServiceHarness(aeds=Aeds([far]))
    await room.open()
    await room.accept("r-1")
    await room.accept("r-2")
    assert [seat.role for seat in (await room.call()).seats.values()] == ["cpr", "cpr"]
    on_the_way, behind = far._replace(id="a", lat=47.6785, lng=8.8309), far._replace(id="b", lat=47.6770, lng=8.8320)
    room = CallServiceHarness(aeds=Aeds([behind, on_the_way]))
    await room.open()
    await room.accept("r-1")
    await room.accept("r-2", here=(47.6790, 8.8307, 0.0))
    assert [seat.aed for seat in (await room.call()).seats.values()] == [None, "a"]


async def test_responder_who_accepts_twice_gets_no_second_seat(room):
    """The second answer is the same, even from far away, off duty, or when the call is full (RV3)."""
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
async def test_refusal_gives_first_applicable_reason(room, changes, expected):
    """The order is: not qualified, excluded, full, far away. Nothing is stored (RV4)."""
    await room.open()
    assert await room.accept(**changes) == expected
    assert await room.kinds() == ["call"]


async def test_responder_who_accepts_a_full_call_is_refused_with_reason_full(room):
    """`full` comes before `far`, and `held-off` before `full`. A released seat can be taken (RV4, RV6)."""
    await room.open()
    for number in range(4):
        await room.accept(f"r-{number}")
    assert await room.accept("r-9", here=None) == "full"
    assert await room.accept("r-9", busy=True) == "held-off"
    await room.calling.release(ID, Person("r-2"))
    assert await room.accept("r-9") is None
    assert (await room.call()).seats[Person("r-9")].number == 3


async def test_ended_call_gives_no_seat(room):
    """Responders with a seat are refused, too.

    A call with status `test` is over for those who may not see tests (RV4, RJ9, R6).
    """
    await room.open()
    await room.accept("r-1")
    await room.end()
    assert (await room.accept("r-1"), await room.accept("r-2")) == ("over", "over")
    tests = CallServiceHarness()
    await tests.open(status="test")
    assert await tests.accept() == "over"
    assert await tests.accept(may_test=True) is None
    tests.clock.advance(1_500)
    assert await tests.accept(may_test=True) == "over"


async def test_seat_is_released_once(room):
    """Only the responder who has the seat can release it, and not after the end of the call (RV5)."""
    await room.open()
    await room.accept()
    await room.calling.release(ID, Person("r-2"))
    with pytest.raises(LogUnavailable, match="missing in the log"):
        await room.calling.release("cad-9", Person("r-1"))
    await room.calling.release(ID, Person("r-1"))
    await room.calling.release(ID, Person("r-1"))
    assert await room.kinds() == ["call", "claim", "release"]
    await room.accept()
    await room.end()
    await room.calling.release(ID, Person("r-1"))
    assert (await room.kinds())[-1] == "end"


async def test_responder_who_released_seats_too_often_is_refused(room):
    """Each release takes two log entries and may notify everybody again. Releases of others are not counted (RV5)."""
    await room.open()
    for number in range(MOST_RETURNS):
        assert await room.accept("r-1") is None
        await room.calling.release(ID, Person("r-1"))
        assert await room.accept("r-2" if number % 2 else "r-3") is None
    assert await room.accept("r-1") == "held-off"
    assert (await room.kinds()).count("release") == MOST_RETURNS
    await room.calling.release(ID, Person("r-2"))
    assert await room.accept("r-2") is None


async def test_progress_report_counts_once_in_five_seconds(room):
    """A report counts only from a responder with a seat, if it has news, and 5 s after the last one (M20)."""
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


async def test_call_radius_widens_wave_by_wave(room):
    """Only the next wave is stored, and only while a seat is free. Early and late requests change nothing (RN2)."""
    await room.open()
    for ring in (0, 2, 1, 1, 2, 3):
        await room.calling.widen(ID, ring)
    assert [entry.kind for entry in room.appended] == ["call", "widen", "widen"]
    assert (await room.call()).radius_m == 500
    full = CallServiceHarness()
    await full.open()
    for number in range(4):
        await full.accept(f"r-{number}")
    await full.calling.widen(ID, 1)
    assert (await full.call()).wave == 0
    await full.end()
    await full.calling.widen(ID, 1)
    assert (await full.kinds())[-1] == "end"


async def test_seat_lost_by_the_log_is_restored(room):
    """The seat gets the next number.

    It becomes seat 0 if it was taken meanwhile. It is not restored after the end (RV7).
    """
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


# ---- entries that can't be decrypted -----------------------------------------------------------------------------


async def test_node_that_lacks_a_key_of_the_call_grants_no_seat():
    """The undecrypted entry may be a seat, so an accept fails until the node has the key (RZ5, RV2)."""
    room = CallServiceHarness()
    await room.open()
    newer = CallServiceHarness(room.log, CallKeys({"b": b"b" * 32, "a": bytes(32)}))
    assert await newer.accept("r-1") is None
    with pytest.raises(LogUnavailable):
        await room.accept("r-2")
    for asked in (room.calling.release(ID, Person("r-2")), room.calling.widen(ID, 1)):
        with pytest.raises(LogUnavailable):
            await asked
    room.calling = room.calling.with_config(POLICY, CallKeys({"a": bytes(32), "b": b"b" * 32}))
    assert await room.accept("r-2") is None
    assert (await room.call()) is not None


async def test_call_with_a_forged_entry_can_be_ended(room):
    """Somebody who can write to the log, but has no key, can forge no valid entry (RZ3)."""
    await room.open()
    forged = sealed(CallKeys({"x": b"x" * 32}), ID, 2, NOON_MS + HOUR_MS, Acceptance(1, "cpr", NOON_MS), Person("x"))
    assert await room.log.append(forged)
    assert (await room.calling.state(ID, DESK))["seats"] == []
    assert (await room.end()).answer["revision"] == 3


async def test_requests_for_a_call_that_cannot_be_decrypted_raise_log_unavailable():
    """The answer is 503, and neither 404 nor 403, since the node may get the key later (RZ5)."""
    room = CallServiceHarness()
    await room.open()
    blind = CallServiceHarness(room.log, CallKeys({"b": b"b" * 32}))
    for asked in (blind.open(), blind.revise(), blind.end(), blind.calling.state(ID, DESK)):
        with pytest.raises(LogUnavailable):
            await asked
    assert [each async for each in blind.calling.open_calls(DESK)] == []


async def test_copy_of_a_released_seat_entry_gives_no_seat(room):
    """Somebody who can write to the log can copy an entry under a higher number (RZ3, RV2)."""
    await room.open()
    await room.accept()
    claim = (await room.log.history(ID))[-1]
    await room.calling.release(ID, Person("r-1"))
    assert await room.log.append(dataclasses.replace(claim, revision=4, sealed_as=2))
    assert (await room.call()).seats == {}
    assert opened(KEYS, claim).secret == Person("r-1")


# ---- concurrent requests -----------------------------------------------------------------------------------------


@pytest.fixture(params=["a file", pytest.param("redis", marks=needs_redis)])
async def rooms(request, tmp_path):
    """Three nodes on one log, in a file or in Redis."""
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(RedisServer(tmp_path / "redis")) if request.param == "redis" else None
        found = []
        for _ in range(3):
            alert_log = RedisStreamsLog(server.url) if server else SqliteLog(tmp_path / "log.db")
            await answered(alert_log.start)
            stack.push_async_callback(alert_log.stop)
            found.append(CallServiceHarness(alert_log))
        yield found


async def answered(ask, *args, **kwargs):
    """Return the answer of a node; repeat the request while the log is unavailable, as clients must (H2)."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(LogUnavailable):
                return await ask(*args, **kwargs)
            await asyncio.sleep(0.05)


async def test_concurrent_accept_messages_get_as_many_seats_as_exist(rooms):
    """The accepts reach three nodes, some of them twice. The first ones in the log get different seats (RV2, RV3)."""
    await answered(rooms[0].open)
    subs = [f"r-{number % 20}" for number in range(60)]
    answers = await asyncio.gather(*(answered(rooms[n % 3].accept, sub) for n, sub in enumerate(subs)))
    call = await answered(rooms[1].call)
    assert sorted(seat.number for seat in call.seats.values()) == [1, 2, 3, 4]
    assert {Person(sub) for sub, answer in zip(subs, answers, strict=True) if answer is None} == set(call.seats)
    assert set(answers) == {None, "full"}


async def test_concurrent_changes_of_a_call_leave_a_consistent_chain_of_entries(rooms):
    """Accepts, releases, reports, waves, corrections and an end compete. Exactly one end is stored (RV2, LogA1)."""
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


async def test_concurrent_openings_of_one_id_open_one_call(rooms):
    """At most one request gets 201, and the others get 200 with the same answer. Other content gets 409 (H3)."""
    found = await asyncio.gather(*(answered(room.open) for room in rooms * 2))
    assert sum(each.created for each in found) <= 1
    assert len({json.dumps(each.answer) for each in found}) == 1
    assert (await refused(answered(rooms[0].open, headline="Another"))).slug == "id-conflict"


async def test_widening_that_another_entry_overtook_is_not_retried(room, monkeypatch):
    """The other entry may have widened the radius already (RN2)."""
    await room.open()
    asked = []

    async def overtaken(entry):
        asked.append(entry.kind)
        return False

    monkeypatch.setattr(room.log, "append", overtaken)
    await room.calling.widen(ID, 1)
    assert asked == ["widen"]
