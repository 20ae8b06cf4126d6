"""A dispatcher opens, corrects and ends a call: what the service of calls answers."""

import pytest
from calls.service.harness import CALLS, CHIEF, DESK, ID, KEYS, OTHER, POLICY, CallServiceHarness, refused
from support.fakes import HOUR_MS, NOON_MS, a_revision, call_request

from geocast import policy
from geocast.calls.encryption import NO_CALL_KEYS
from geocast.calls.openers import MAX_OPEN_CALLS
from geocast.calls.service import CallService, Dispatcher
from geocast.clock import format_time
from geocast.errors import LogUnavailable
from geocast.model.alert import OtherKind
from geocast.model.call import Ending, body_of

pytestmark = pytest.mark.anyio


# ---- to open -----------------------------------------------------------------------------------------------------


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
    room = CallServiceHarness(in_force=policy.parse(f'text = "off"\n{CALLS}'.encode(), None))
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
    room = CallServiceHarness(keys=NO_CALL_KEYS)
    with pytest.raises(LogUnavailable):
        await room.open()
    assert await room.log.history(ID) == ()


# ---- new content -------------------------------------------------------------------------------------------------


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
    room = CallServiceHarness()
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


# ---- the end -----------------------------------------------------------------------------------------------------


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
