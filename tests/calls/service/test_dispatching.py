"""The answers of the call service to a dispatcher who opens, corrects and ends calls."""

import pytest
from calls.service.harness import CALLS, CHIEF, DESK, ID, KEYS, OTHER, POLICY, CallServiceHarness, refused
from support.fakes import HOUR_MS, NOON_MS, a_revision, call_request

from geocast import policy
from geocast.auth.tokens import Requester
from geocast.calls.encryption import NO_CALL_KEYS
from geocast.calls.openers import MAX_OPEN_CALLS, Openers
from geocast.calls.service import CallService
from geocast.config import SHARE
from geocast.model.alert import OtherKind
from geocast.model.call import Ending, body_of
from geocast.model.errors import LogUnavailable
from geocast.model.times import format_time

# ---- opening calls -----------------------------------------------------------------------------------------------


async def test_opening_a_call_stores_it_encrypted(room):
    """The answer is 201 with the published content, and followers of the log are notified (call-rules.md)."""
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


async def test_call_keeps_policy_that_was_in_force_when_it_opened(room):
    """The terms for the call's kind of place stay, whatever policy is loaded later (RO3)."""
    await room.open()
    assert (await room.call()).opening.terms == POLICY.calls["cardiac_arrest"].terms("residence")


async def test_missing_optional_fields_get_their_defaults(room):
    """A missing expiry becomes the latest one that the policy allows (RY4, A9)."""
    await room.open(expires_at=...)
    assert (await room.call()).opening.expires_at == NOON_MS - 60_000 + 1_800_000


async def test_headline_that_identifies_a_person_is_replaced_by_the_title(room):
    """The request is not refused, and each answer says that the headline was replaced (RY3)."""
    outcome = await room.open(headline="Adult down at 12 Main Street, call Mr Smith")
    assert outcome.answer["headline"] == "replaced"
    assert (await room.call()).opening.headline == "Cardiac arrest: CPR needed"
    again = await room.open(headline="Adult down at 12 Main Street, call Mr Smith")
    assert again == (outcome.answer, False)
    fine = await room.open(id="cad-9")
    assert "headline" not in fine.answer


async def test_headline_is_kept_if_the_policy_checks_no_texts():
    """The policy has `text = "off"` (RY3, TX2)."""
    room = CallServiceHarness(in_force=policy.parse(f'text = "off"\n{CALLS}'.encode(), None))
    outcome = await room.open(headline="12 Main Street")
    assert "headline" not in outcome.answer
    assert (await room.call()).opening.headline == "12 Main Street"


async def test_repeated_request_to_open_a_call_gets_the_first_answer(room):
    """Contents are compared by value, whoever repeats the request and whatever has happened since (H3, H5)."""
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
async def test_opening_a_call_with_the_id_of_another_call_is_a_conflict(room, changes):
    """A different exact place is different content, although nobody is sent it (RY1, H5)."""
    await room.open()
    assert (await refused(room.open(**changes))).slug == "id-conflict"


async def test_opening_a_call_with_the_id_of_an_alert_is_a_conflict(room):
    """Opening gets 409, and other requests get 404. The same holds for an alert with the id of a call (RY1)."""
    await room.log.append(a_revision(ID))
    assert (await refused(room.open())).slug == "id-conflict"
    for asked in (room.revise(), room.end(), room.calling.state(ID, DESK)):
        assert (await refused(asked)).slug == "unknown-call"
    await room.open(id="cad-9")
    assert not await room.log.append(a_revision("cad-9", 2))


async def test_opening_a_call_with_the_id_of_an_entry_of_unknown_kind_is_a_conflict(room):
    """The entry was written by a later release (RY1, LogG4)."""
    room.log.take(OtherKind(ID, 1, NOON_MS + HOUR_MS))
    assert (await refused(room.open())).slug == "id-conflict"


async def test_opening_a_call_with_a_reserved_cap_id_is_refused(room):
    """Ids that begin with `cap.` are for CAP (RY1)."""
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
async def test_opening_a_call_reports_all_policy_violations(room, changes, expected):
    """All violations are in one answer, fields first, and nothing is stored (RO1, RO2, P9)."""
    problem = await refused(room.open(**changes))
    assert (problem.status, [each.slug for each in problem.violations]) == (422, expected)
    assert await room.log.history(ID) == ()


@pytest.mark.slow
async def test_number_of_open_calls_is_limited(room):
    """The 1,001st call gets 429, but a repeated request does not. When a call has ended, another can be opened."""
    for number in range(MAX_OPEN_CALLS):
        await room.open(id=f"c-{number}", dispatcher=Requester(f"desk-{number % 4}"))
    problem = await refused(room.open())
    assert (problem.status, problem.slug) == (429, "too-many-requests")
    assert int(problem.headers["Retry-After"]) > 0
    assert not (await room.open(id="c-7")).created
    assert (await refused(room.open(category="flood"))).slug == "category-not-callable"
    await room.calling.end("c-7", {"reason": "Over."}, Requester("desk-3"))
    assert (await room.open()).created


async def test_dispatcher_with_too_many_open_calls_is_refused_and_others_are_served(room):
    """One dispatcher may have a quarter of the open calls, counted in the log (HD6)."""
    greedy = Requester("greedy")
    for number in range(MAX_OPEN_CALLS // 4):
        await room.open(id=f"c-{number}", dispatcher=greedy)
    other_node = CallService(room.log, POLICY, KEYS, room.clock, openers=Openers(room.log, SHARE))
    for calling in (room.calling, other_node):
        problem = await refused(calling.open(call_request(id="more"), greedy))
        assert (problem.status, problem.slug, problem.headers["Retry-After"]) == (429, "too-many-requests", "5")
        assert "share" in problem.detail
        for number, other in enumerate((DESK, Requester("greedy", issuer="another"))):
            assert (await calling.open(call_request(id=f"other-{number}-{id(calling)}"), other)).created
    await room.calling.end("c-7", {"reason": "Over."}, greedy)
    assert (await other_node.open(call_request(id="more"), greedy)).created


async def test_opening_a_call_without_encryption_keys_stores_nothing():
    """A node whose policy has calls does not start without keys; this is the second line of defence (RZ3)."""
    room = CallServiceHarness(keys=NO_CALL_KEYS)
    with pytest.raises(LogUnavailable):
        await room.open()
    assert await room.log.history(ID) == ()


# ---- correcting calls --------------------------------------------------------------------------------------------


async def test_correction_of_a_call_stores_new_content(room):
    """The answer is 201 with the number of the new entry. The radius stays the same, around the new place."""
    await room.open()
    await room.calling.widen(ID, 1)
    outcome = await room.revise(headline="Child, not breathing.", place=call_request()["place"] | {"lat": 47.7})
    assert (outcome.answer["revision"], outcome.created) == (3, True)
    call = await room.call()
    assert (call.content, call.revision, call.wave, call.opening.headline) == (3, 3, 1, "Child, not breathing.")
    assert call.opening.near.lat == pytest.approx(47.7, abs=0.003)


async def test_correction_of_outdated_content_is_a_conflict(room):
    """The field `replaces` must be the number of the current content. Otherwise the answer is 409 with that number."""
    await room.open()
    await room.accept()
    problem = await refused(room.revise(replaces=2))
    assert (problem.slug, problem.extra) == ("revision-conflict", {"current": 1})
    assert (await room.revise(headline="Second")).answer["revision"] == 3
    problem = await refused(room.revise(headline="Third"))
    assert (problem.slug, problem.extra) == ("revision-conflict", {"current": 3})
    assert (await room.revise(replaces=3, headline="Third")).answer["revision"] == 4


async def test_repeated_correction_gets_the_first_answer(room):
    """This holds for any dispatcher, after newer content, and after the end of the call (H3)."""
    await room.open()
    first = await room.revise(headline="Second")
    await room.revise(replaces=2, headline="Third")
    assert await room.revise(OTHER, headline="Second") == (first.answer, False)
    await room.end()
    room.clock.advance(7_200)
    assert await room.revise(headline="Second") == (first.answer, False)


async def test_correction_that_changes_fixed_fields_is_refused(room):
    """The answer is 422 and lists each such field, and violations of the policy at the opening (RO2, RO3)."""
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


async def test_correction_after_policy_change_follows_policy_of_the_opening():
    """The content can be corrected and seats can be taken by the old policy's terms (RO3)."""
    room = CallServiceHarness()
    await room.open()
    room.calling = room.calling.with_config(policy.load(None), KEYS)
    assert (await room.revise(headline="Second")).created
    assert (await room.call()).opening.terms == POLICY.calls["cardiac_arrest"].terms("residence")
    assert await room.accept() is None
    assert (await refused(room.open(id="cad-9"))).slug == "category-not-callable"


async def test_dispatcher_may_not_change_a_call_of_another_dispatcher(room):
    """The answer is 403.

    A dispatcher who manages calls may do so, and the call still belongs to the one who opened it.
    """
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


async def test_first_failing_check_of_a_correction_decides_the_problem(room):
    """The order is: fields, unknown call, another's call, ended call, number, policy (protocol, section 4)."""
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


# ---- ending calls ------------------------------------------------------------------------------------------------


async def test_end_of_call_is_stored_once(room):
    """The first end gets 201; a repeated end with any reason gets 200 and the first answer."""
    await room.open()
    first = await room.end()
    assert first == ({"id": ID, "revision": 2, "ended_at": format_time(NOON_MS)}, True)
    room.clock.advance(60)
    assert await room.end(reason="No arrest.") == (first.answer, False)
    assert await room.end(CHIEF) == (first.answer, False)
    assert (await refused(room.revise(headline="Second"))).slug == "call-ended"
    assert await room.kinds() == ["call", "end"]


async def test_request_to_end_a_call_without_a_reason_is_refused(room):
    """The answer is 422, even if the id is unknown."""
    assert (await refused(room.calling.end(ID, {}, DESK))).slug == "missing-field"
    assert (await refused(room.end())).slug == "unknown-call"


async def test_expired_call_can_only_be_ended(room):
    """Corrections are refused. The node ends the call once, and a later request to end it gets that answer (RZ4)."""
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


async def test_end_of_call_repeats_its_public_content_so_that_the_place_can_be_deleted(room):
    """After the deletion, opening the call again gets 410, and its state can still be read (RZ4)."""
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
