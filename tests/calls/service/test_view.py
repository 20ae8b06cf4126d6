"""The state of a call that a dispatcher is shown."""

import asyncio
import json

from calls.service.harness import CHIEF, DESK, ID, OTHER, CallServiceHarness, refused
from support.fakes import NOON_MS

from geocast.alertlog import Counts
from geocast.auth.tokens import Requester
from geocast.model.call import Person
from geocast.model.times import format_time


async def test_dispatcher_view_shows_state_counts_and_seats_of_a_call(room):
    """The view has the content and exact counts, but not the exact place (docs/reference/call-rules.md)."""
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


async def test_dispatcher_view_lists_everybody_who_was_sent_the_place(room):
    """A responder who takes a seat and releases it at once stays listed (RZ8)."""
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


async def test_dispatcher_view_of_a_full_call_has_state_full(room):
    """The state is `full` while no seat is free (RV6)."""
    await room.open()
    for number in range(4):
        assert await room.accept(f"r-{number}") is None
    assert (await room.calling.state(ID, DESK))["state"] == "full"


async def test_list_contains_only_own_open_calls_except_for_call_managers(room):
    """Calls are in the order of opening. A dispatcher who manages calls sees all of them."""
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
    assert await listed(Requester("cad-5")) == []
    room.clock.advance(60)
    assert await listed(DESK) == [ID]


async def test_listing_many_calls_does_not_block_other_tasks():
    """Other tasks run between any two calls, even if the log answers at once."""
    room = CallServiceHarness()
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


async def test_no_answer_or_log_line_contains_the_exact_place_or_the_reason(room, caplog):
    """The alert log has both only encrypted (RZ2, RZ7)."""
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
