"""The live side of calls: who is rung, who is told where to go, and who is stood down (docs/calls.md)."""

import dataclasses
import tracemalloc

import pytest
from calls.quarter import NEAR, NOON, PLACE, TERMS, Quarter, new_keys, opener
from support.fakes import NOON_MS, FakeRights

from geocast.alertlog import Counts
from geocast.calls.aeds import Aed, Aeds
from geocast.calls.hub import (
    HOLDING_S,
    REPORT_S,
    UNANSWERED_S,
    AcceptRequest,
    ReleaseRequest,
    ReportRequest,
    RestoreRequest,
)
from geocast.calls.responders import Responders
from geocast.model.call import ExactPlace, Near, Person
from geocast.wire.frames import MSGPACK


@pytest.fixture
def quarter():
    """A quarter without anybody; rings of 100, 300 and 500 m round `near`, whose radius is 210 m; two seats."""
    return Quarter()


def with_terms(**changes):
    """Other terms."""
    return dataclasses.replace(TERMS, **changes)


# ---- who is rung -------------------------------------------------------------------------------------------------


def test_a_call_rings_for_those_on_duty_within_the_ring(quarter):
    """RJ1, RJ2, RQ4: with a qualification and a place marked `here`; RN1: the first ring is round `near`, with its
    radius."""
    near, edge, outside = quarter.join(0), quarter.join(309, "r-2"), quarter.join(312, "r-3")
    elsewhere, unqualified = quarter.join(0, "r-4", here=False), quarter.join(0, "r-5", quals=())
    other = quarter.join(0, "r-6", quals=("triage",))
    quarter.open()
    assert near.received() == edge.received() == ["c-1/1"]
    assert outside.received() == elsewhere.received() == unqualified.received() == other.received() == []


@pytest.mark.parametrize("wire", [0, MSGPACK.number, 2, 3])
def test_what_a_ring_says(quarter, wire):
    """M21, RZ6: the general place, in the same bytes for all; no address, no name."""
    phone = quarter.join(wire=wire)
    quarter.open()
    assert phone.messages() == [
        {
            "type": "call",
            "call": {
                "id": "c-1",
                "revision": 1,
                "category": "cardiac_arrest",
                "title": "Cardiac arrest",
                "headline": "Adult, not breathing",
                "status": "actual",
                "source": "cad-3",
                "occurred_at": NOON,
                "issued_at": NOON,
                "expires_at": "2026-01-31T12:30:00.000Z",
                "answer_s": 30,
                "near": {"type": "circle", "lat": NEAR.lat, "lng": NEAR.lng, "radius_m": NEAR.radius_m},
            },
        }
    ]


def test_the_reach_of_a_place_counts_up_to_500_m(quarter):
    """RQ5: 2,000 m of doubt would swamp a ring of 300."""
    near, far = quarter.join(here=False), quarter.join(sub="r-2", here=False)
    quarter.hub.move(near.row, quarter.place(805, 1_000.0))
    quarter.hub.move(far.row, quarter.place(815, 2_000.0))
    quarter.open()
    assert (near.received(), far.received()) == (["c-1/1"], [])


def test_the_nearest_is_rung_first(quarter):
    """Board, Rule 2."""
    phones = [quarter.join(metres, f"r-{metres}") for metres in (200, 0, 100, 300)]
    quarter.open()
    assert quarter.order == [phones[n].row for n in (1, 2, 0, 3)]


def test_a_wider_ring_rings_for_those_it_takes_in_and_for_nobody_twice(quarter):
    """RJ2: widening makes no new revision."""
    near, far = quarter.join(0), quarter.join(400, "r-2")
    quarter.open()
    quarter.widen(1)
    assert (near.received(), far.received()) == (["c-1/1"], ["c-1/1"])


def test_who_comes_nearer_goes_on_duty_or_has_a_qualification_now_is_rung(quarter):
    """RJ3: after `hello`, `move` and `token`; walking out sends nothing, and walking back nothing again."""
    quarter.open()
    late, walker = quarter.join(0), quarter.join(900, "r-2")
    off, learner = quarter.join(0, "r-3", here=False), quarter.join(0, "r-4", quals=())
    assert late.received() == ["c-1/1"]
    assert walker.received() == off.received() == learner.received() == []
    walker.move(0)
    off.move(0)
    learner.token("r-4")
    assert walker.received() == off.received() == learner.received() == ["c-1/1"]
    walker.move(900)
    walker.move(None)
    walker.move(0)
    assert walker.received() == []


def test_a_call_that_is_a_test_rings_for_those_who_may_see_tests(quarter):
    """R6, RJ1: to all others it is unknown, also when they accept."""
    tester, other = quarter.join(may_test=True), quarter.join(0, "r-2")
    quarter.open(status="exercise")
    assert (tester.received(), other.received()) == (["c-1/1"], [])
    assert other.accept() == []
    assert other.received() == ["-c-1 over"]


def test_new_content_goes_to_every_recipient_and_rings_round_the_new_place(quarter):
    """RJ5: wherever it is, but not to who has declined; the ring in force stays."""
    stays, walks, declines = quarter.join(0), quarter.join(0, "r-2"), quarter.join(0, "r-3")
    new = quarter.join(1_000, "r-4")
    quarter.open()
    for phone in (stays, walks, declines):
        phone.received()
    walks.move(None)
    declines.decline()
    quarter.open(near=Near(NEAR.lat + 0.009, NEAR.lng, 210.0), replaces=1)
    assert stays.received() == walks.received() == new.received() == ["c-1/2"]
    assert declines.received() == []


def test_who_has_declined_is_not_rung_again_on_this_connection(quarter):
    """RJ1, M19: on another one it may be."""
    phone = quarter.join()
    quarter.open()
    phone.decline()
    quarter.widen()
    phone.move(10)
    assert phone.received() == ["c-1/1"]
    phone.leave()
    assert quarter.join().received() == ["c-1/1"]


def test_a_slow_session_is_a_late_joiner(quarter):
    """RJ2, E3: it is sent nothing, and what it is owed is worked out afresh when it has drained."""
    phone, holder = quarter.join(), quarter.join(0, "r-2")
    quarter.slow = {phone.row, holder.row}
    quarter.open()
    quarter.accept("r-2")
    quarter.open(replaces=1)
    assert phone.received() == holder.received() == []
    quarter.slow.clear()
    phone.settle()
    holder.settle()
    assert (phone.received(), holder.received()) == (["c-1/3"], ["c-1:3 seat 1"])


def test_one_write_for_all_that_a_session_is_owed(quarter):
    """Standdowns come first, then tasks, then rings (RJ3)."""
    phone = quarter.join(sub="r-1")
    quarter.open("c-1", with_terms(rest_s=0))
    quarter.open("c-2")
    phone.received()
    quarter.slow.add(phone.row)
    quarter.end("c-1", terms=with_terms(rest_s=0))
    quarter.open("c-3")
    quarter.accept("r-1", call_id="c-2")
    phone.settle()
    assert phone.received() == ["-c-1 over", "c-2:2 seat 1"]
    quarter.release("r-1", call_id="c-2")
    quarter.slow.clear()
    phone.settle()
    assert len(phone.sent) == 4
    assert phone.received() == ["-c-2 left", "c-3/1"]


# ---- seats -------------------------------------------------------------------------------------------------------


def test_a_task_is_sent_when_the_claim_is_read(quarter):
    """RV1, RJ6, M22, HD5: to every session of who holds the seat whose own token qualifies, and to nobody else."""
    phone, tablet, plain = quarter.join(), quarter.join(5_000), quarter.join(0, quals=(), here=False)
    other = quarter.join(0, "r-2")
    quarter.open()
    [request] = phone.accept(eta_s=240)
    assert isinstance(request, AcceptRequest)
    assert phone.received() == ["c-1/1"]
    seat_request = quarter.hub.seat_request(request, quarter.clock.now())
    assert seat_request == ("c-1", Person("r-1"), frozenset({"cpr"}), False, quarter.place(0), False, 240)
    quarter.hub.on_answer(request, None, quarter.clock.now())
    quarter.run()
    assert phone.received() == []
    quarter.accept("r-1")
    assert phone.received() == tablet.received() == ["c-1:2 seat 1"]
    assert other.received() == ["c-1/1"]
    assert plain.received() == quarter.join(0, quals=(), here=False).received() == []


def test_what_a_task_says(quarter):
    """M22: the exact place, as it came in; what is left out has no field."""
    phone = quarter.join()
    quarter.open(place=ExactPlace(1.5, 2.5, "public", None, "Behind the kiosk"))
    quarter.accept("r-1", 1)
    assert phone.messages()[1:] == [
        {
            "type": "task",
            "id": "c-1",
            "revision": 2,
            "seat": 1,
            "role": "cpr",
            "status": "actual",
            "expires_at": "2026-01-31T12:30:00.000Z",
            "place": {"lat": 1.5, "lng": 2.5, "kind": "public", "access": "Behind the kiosk"},
            "aeds": [],
        }
    ]


def test_a_task_names_the_defibrillators_near_and_which_one_to_fetch():
    """M22, RI2, RI3: the code goes to who fetches it only."""
    aeds = Aeds(
        [Aed(f"node/{n}", PLACE.lat + n * 0.001, PLACE.lng, None, None, None, True, f"code {n}") for n in (1, 2)]
    )
    quarter = Quarter(aeds)
    carrier, helper = quarter.join(), quarter.join(0, "r-2")
    quarter.open()
    quarter.accept("r-1", 2, "aed", aed="node/2")
    quarter.accept("r-2", 1)
    [_, task], [_, other] = carrier.messages(), helper.messages()
    assert (task["role"], task["fetch"], [aed["id"] for aed in task["aeds"]]) == ("aed", 1, ["node/1", "node/2"])
    assert [aed.get("code") for aed in task["aeds"]] == [None, "code 2"]
    assert "fetch" not in other
    assert [aed.get("code") for aed in other["aeds"]] == [None, None]
    quarter.open(place=dataclasses.replace(PLACE, lat=10.0), replaces=1)
    assert carrier.messages()[0]["aeds"] == []


def test_the_place_is_nowhere_but_in_a_task(quarter):
    """RZ2, RZ4: the board keeps entries sealed, and of a call that has ended none with a place."""
    phone, other = quarter.join(), quarter.join(0, "r-2")
    quarter.open()
    quarter.accept("r-1")
    assert "Dorfstrasse" in str(phone.sent)
    assert "Dorfstrasse" not in str(other.sent)
    assert "Dorfstrasse" not in _all_of(quarter.hub)
    assert _all_of(quarter.hub).count("'call'") >= 1
    quarter.end()
    assert "'call'" not in _all_of(quarter.hub)


def _all_of(thing, seen=None):
    """All that an object holds, as text."""
    seen = set() if seen is None else seen
    if id(thing) in seen or callable(thing):
        return ""
    seen.add(id(thing))
    if isinstance(thing, dict):
        return " ".join(_all_of(each, seen) for pair in thing.items() for each in pair)
    if isinstance(thing, (list, tuple, set, frozenset)) or type(thing).__name__ == "deque":
        return " ".join(_all_of(each, seen) for each in thing)
    names = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    if type(thing).__module__.startswith("geocast.calls"):
        held = [getattr(thing, name, None) for name in names] + list(getattr(thing, "__dict__", {}).values())
        return " ".join(_all_of(each, seen) for each in held)
    return repr(thing)


def test_a_repeated_accept_is_answered_by_the_same_task(quarter):
    """RV3, RJ6: from any device, without the log, and each time."""
    phone, tablet = quarter.join(), quarter.join(9_000)
    quarter.open()
    quarter.accept("r-1")
    assert (phone.received(), tablet.received()) == (["c-1/1", "c-1:2 seat 1"], ["c-1:2 seat 1"])
    assert phone.accept() == tablet.accept() == tablet.accept() == []
    assert (phone.received(), tablet.received()) == (["c-1:2 seat 1"], ["c-1:2 seat 1"] * 2)


def test_a_holder_has_new_content_as_a_new_task(quarter):
    """RJ5, RJ6: once per revision on a connection, though the call is full."""
    phone, other = quarter.join(), quarter.join(0, "r-3")
    quarter.open()
    quarter.accept("r-1", 1)
    quarter.accept("r-2", 2)
    phone.received(), other.received()
    quarter.open(replaces=1)
    phone.settle()
    assert (phone.received(), other.received()) == (["c-1:4 seat 1"], [])


def test_full_stands_down_all_recipients_without_a_seat(quarter):
    """RJ4: but not who has declined; RV6, RJ2: a seat given back makes it ring again, under a new revision."""
    one, two, three, four = (quarter.join(0, f"r-{n}") for n in range(1, 5))
    far = quarter.join(9_000, "r-5")
    quarter.open()
    four.decline()
    quarter.accept("r-1", 1)
    assert three.received() == ["c-1/1"]
    quarter.accept("r-2", 2)
    assert one.received() == ["c-1/1", "c-1:2 seat 1"]
    assert two.received() == ["c-1/1", "c-1:3 seat 2"]
    assert (three.received(), four.received(), far.received()) == (["-c-1 full"], ["c-1/1"], [])
    late = quarter.join(0, "r-6")
    quarter.release("r-1", 1)
    assert three.received() == late.received() == ["c-1/4"]
    assert (one.received(), two.received(), four.received()) == (["-c-1 left", "c-1/4"], [], [])


def test_who_gives_a_seat_back_is_answered_when_the_log_has_it(quarter):
    """M19, RJ6: every session that was sent the task is told `left`; the one that has declined is left alone."""
    phone, tablet = quarter.join(), quarter.join(9_000)
    quarter.open()
    quarter.accept("r-1")
    phone.received(), tablet.received()
    assert phone.decline() == [ReleaseRequest("c-1", Person("r-1"), NOON_MS)]
    assert phone.received() == []
    quarter.release("r-1")
    quarter.widen()
    assert (phone.received(), tablet.received()) == (["-c-1 left"], ["-c-1 left"])


def test_a_claim_is_given_back_if_it_was_declined_meanwhile(quarter):
    """M19: also after `accept`, before it was answered."""
    phone = quarter.join()
    quarter.open()
    [request] = phone.accept()
    assert phone.decline() == []
    quarter.hub.on_answer(request, None, quarter.clock.now())
    assert quarter.asked[-1] == ReleaseRequest("c-1", Person("r-1"))


def test_a_claim_that_stands_is_given_back_if_it_was_declined_before_it_was_read(quarter):
    """M19: the log has it already, and this process does not know of the seat yet."""
    phone = quarter.join()
    quarter.open()
    [request] = phone.accept()
    quarter.hub.on_answer(request, None, quarter.clock.now())
    assert phone.decline() == [ReleaseRequest("c-1", Person("r-1"))]


def test_who_goes_after_all_keeps_the_seat(quarter):
    """M18, M19: of `accept`, `decline` and `accept` the last one counts, also while the log has not answered."""
    phone = quarter.join()
    quarter.open()
    [request] = phone.accept()
    phone.decline()
    phone.accept()
    quarter.hub.on_answer(request, None, quarter.clock.now())
    assert ReleaseRequest("c-1", Person("r-1")) not in quarter.asked


def test_a_session_has_one_claim_under_way(quarter):
    """RV4: others are repeated by the client; a claim that was refused makes room."""
    phone = quarter.join()
    quarter.open("c-1")
    quarter.open("c-2")
    [request] = phone.accept("c-1")
    assert phone.accept("c-1") == phone.accept("c-2") == []
    quarter.hub.on_answer(request, "full", quarter.clock.now())
    quarter.run()
    assert phone.received()[2:] == ["-c-1 full"]
    assert len(phone.accept("c-2")) == 1


def test_who_was_told_meanwhile_is_not_told_again_by_the_log(quarter):
    """M18, RJ4, RJ7: that it is full, or over, is the answer; an `accept` that comes later has one of its own."""
    phone, again, late = quarter.join(), quarter.join(0, "r-2"), quarter.join(0, "r-3")
    quarter.open()
    [request], [repeated], [ended] = phone.accept(), again.accept(), late.accept()
    quarter.accept("r-8", 1)
    quarter.accept("r-9", 2)
    assert again.accept() == []
    assert phone.received() == again.received()[:2] == late.received() == ["c-1/1", "-c-1 full"]
    for each in (request, repeated):
        assert quarter.hub.on_answer(each, "full", quarter.clock.now())
    quarter.run()
    assert (phone.received(), again.received()) == ([], [])
    quarter.end()
    assert late.received() == ["-c-1 over"]
    assert quarter.hub.on_answer(ended, "full", quarter.clock.now())
    quarter.run()
    assert late.received() == []
    assert len(quarter.asked) == 3


def test_what_the_log_has_refused_before_it_was_over_is_refused_because_it_is_over(quarter):
    """RJ9, E5: by a clock, too."""
    phone, never_rung = quarter.join(), quarter.join(900, "r-2", holding={})
    quarter.open()
    [request], far = phone.accept(), never_rung.accept()
    assert (phone.received(), far, never_rung.received()) == (["c-1/1"], [], ["-c-1 far"])
    quarter.clock.advance(1_800)
    assert quarter.hub.on_answer(request, "full", quarter.clock.now())
    quarter.run()
    assert phone.received() == ["-c-1 over"]


def test_a_claim_that_was_refused_before_the_call_rang_anew_is_judged_anew(quarter):
    """RV6, RJ2: else who was rung last would believe that it is full, and would not be rung again."""
    phone = quarter.join()
    quarter.open()
    [request] = phone.accept()
    quarter.accept("r-8", 1)
    quarter.accept("r-9", 2)
    quarter.release("r-8", 1)
    assert phone.received() == ["c-1/1", "-c-1 full", "c-1/4"]
    assert not quarter.hub.on_answer(request, "full", quarter.clock.now())
    assert quarter.hub.on_answer(request, "full", quarter.clock.now())
    quarter.run()
    assert phone.received() == ["-c-1 full"]


def test_a_claim_is_judged_by_what_holds_then(quarter):
    """RV4: at the moment it is judged; and nobody claims for who is gone."""
    phone, gone = quarter.join(), quarter.join(0, "r-2")
    quarter.open()
    [request], [other] = phone.accept(), gone.accept()
    phone.move(900)
    gone.leave()
    assert quarter.hub.seat_request(request, quarter.clock.now()).here == quarter.place(900)
    phone.move(None)
    assert quarter.hub.seat_request(request, quarter.clock.now()).here is None
    assert quarter.hub.seat_request(other, quarter.clock.now()) is None
    quarter.hub.on_answer(other, "full", quarter.clock.now())


def test_what_can_be_refused_without_the_log_is(quarter):
    """RV4: the first of `over`, `held-off`, `full` and `far`."""
    holder, other, far, off = (quarter.join(m, f"r-{n}") for n, m in ((1, 0), (2, 0), (3, 5_000), (4, 0)))
    nobody, plain, wrong = quarter.join(0, None, ()), quarter.join(0, "r-6", ()), quarter.join(0, "r-7", ("triage",))
    quarter.open("c-1")
    quarter.open("c-2")
    quarter.accept("r-1", 1)
    off.move(None)
    for phone in (holder, other, far, off):
        phone.received()
    assert holder.accept("c-2") == far.accept() == off.accept() == []
    assert nobody.accept() == plain.accept() == wrong.accept() == []
    assert holder.received() == ["-c-2 held-off"]
    assert far.received() == off.received() == ["-c-1 far"]
    assert nobody.received() == plain.received() == wrong.received() == ["-c-1 over"]
    quarter.accept("r-9", 2)
    assert other.accept() == far.accept() == []
    assert other.received() == ["-c-1 full", "-c-1 full"]
    assert far.received() == ["-c-1 full"]


def test_a_call_that_is_unknown_here_is_asked_of_the_log(quarter):
    """RV4: this process may be behind."""
    phone, plain = quarter.join(), quarter.join(0, "r-2", ())
    [request] = phone.accept("c-9")
    assert plain.accept("c-9") == []
    quarter.hub.on_answer(request, "over", quarter.clock.now())
    quarter.run()
    assert phone.received() == plain.received() == ["-c-9 over"]


def test_reports_come_from_seats_and_once_in_five_seconds(quarter):
    """M20: there is no answer."""
    phone, other = quarter.join(), quarter.join(0, "r-2")
    quarter.open()
    quarter.accept("r-1")

    def report(who):
        quarter.hub.report(who.row, "c-1", "arrived", quarter.clock.now())

    for who in (phone, phone, other):
        report(who)
    assert quarter.asked == [ReportRequest("c-1", Person("r-1"), "arrived")]
    quarter.clock.advance(REPORT_S)
    report(phone)
    assert len(quarter.asked) == 2
    phone.received(), other.received()
    quarter.report("r-1")
    assert phone.received() == other.received() == []


# ---- held off ----------------------------------------------------------------------------------------------------


def test_who_holds_a_seat_is_not_rung_for_another_call(quarter):
    """RQ7: when it ends nothing is sent; the next `move` rings."""
    phone = quarter.join()
    quarter.open("c-1")
    quarter.accept("r-1")
    phone.received()
    quarter.open("c-2")
    quarter.release("r-1")
    assert phone.received() == ["-c-1 left"]
    phone.move(1)
    assert phone.received() == ["c-2/1"]


def test_who_practises_is_called_to_a_real_arrest(quarter):
    """RQ7: neither the seat of an exercise nor the rest after it holds anybody off."""
    phone = quarter.join(may_test=True)
    quarter.open(status="exercise")
    quarter.accept("r-1")
    quarter.open("c-2")
    quarter.end()
    quarter.open("c-3")
    assert [told for told in phone.received() if not told.startswith(("c-1", "task", "-c-1"))] == ["c-2/1", "c-3/1"]


def test_who_has_held_a_seat_rests_after_the_end(quarter):
    """RQ7: for `rest_s`."""
    phone = quarter.join()
    quarter.open("c-1", with_terms(rest_s=600))
    quarter.accept("r-1")
    quarter.end("c-1", terms=with_terms(rest_s=600))
    phone.received()
    quarter.open("c-2")
    quarter.clock.advance(599)
    phone.move(1)
    assert phone.received() == []
    quarter.clock.advance(2)
    quarter.hub.sweep(quarter.clock.now())
    phone.move(2)
    assert phone.received() == ["c-2/1"]


# ---- the end -----------------------------------------------------------------------------------------------------


def test_the_end_is_told_to_recipients_and_holders(quarter):
    """RJ7: once, wherever they are; not to who has declined, and to nobody else."""
    holder, tablet, walks, declines = (
        quarter.join(),
        quarter.join(9_000),
        quarter.join(0, "r-2"),
        quarter.join(0, "r-3"),
    )
    never = quarter.join(9_000, "r-4")
    quarter.open()
    quarter.accept("r-1")
    walks.move(None)
    declines.decline()
    for phone in (holder, tablet, walks, declines):
        phone.received()
    quarter.end()
    for phone in (holder, tablet, walks, declines, never):
        phone.settle()
    assert holder.received() == tablet.received() == walks.received() == ["-c-1 over"]
    assert declines.received() == never.received() == []
    assert walks.accept() == []
    assert walks.received() == ["-c-1 over"]


def test_a_holder_who_was_slow_all_the_while_is_told_of_the_end(quarter):
    """RJ7, RV4: it may wait for the answer to its `accept`."""
    phone = quarter.join(9_000)
    quarter.open()
    quarter.slow.add(phone.row)
    quarter.accept("r-1")
    quarter.end()
    quarter.slow.clear()
    phone.settle()
    assert phone.received() == ["-c-1 over"]


def test_at_expiry_nothing_is_sent_by_either_clock(quarter):
    """RJ7, RJ9, E1, E5: and nothing after it; only an `accept` is answered."""
    phone = quarter.join()
    quarter.open()
    phone.received()
    quarter.clock.wall_ms += 1_800_000
    quarter.end(source=None)
    assert phone.received() == []
    assert phone.accept() == []
    assert phone.received() == ["-c-1 over"]


def test_a_wall_clock_that_was_ahead_is_made_up_for(quarter):
    """E5: what such a clock alone has ended is sent when it is right again, and nothing twice."""
    early, late = quarter.join(), quarter.join(900, "r-2")
    quarter.open()
    quarter.clock.wall_ms += 1_800_000
    quarter.widen(2)
    late.move(0)
    assert (early.received(), late.received()) == (["c-1/1"], [])
    quarter.clock.wall_ms -= 1_800_000
    quarter.clock.advance(1)
    quarter.hub.sweep(quarter.clock.now())
    quarter.run()
    assert (early.received(), late.received()) == ([], ["c-1/1"])


def test_who_was_told_that_it_is_over_by_a_clock_that_was_ahead_is_told_anew(quarter):
    """RJ2, RJ6, E5: it has let go of the ring, or of the task; whoever comes back with the ring meanwhile has not."""
    rung, goes = quarter.join(), quarter.join(1, "r-2")
    quarter.open()
    quarter.accept("r-2")
    assert (rung.received(), goes.received()) == (["c-1/1"], ["c-1/1", "c-1:2 seat 1"])
    quarter.clock.wall_ms += 1_800_000
    back = quarter.join(2, "r-3", holding={"c-1": 1})
    rung.accept()
    goes.accept()
    assert (rung.received(), goes.received(), back.received()) == (["-c-1 over"], ["-c-1 over"], [])
    quarter.clock.wall_ms -= 1_800_000
    quarter.clock.advance(1)
    quarter.hub.sweep(quarter.clock.now())
    quarter.run()
    assert (rung.received(), goes.received(), back.received()) == (["c-1/1"], ["c-1:2 seat 1"], [])


def test_a_wall_clock_that_was_set_back_lets_nothing_live_longer(quarter):
    """E5: the monotonic clock ends a call, too."""
    phone = quarter.join(900)
    quarter.open()
    quarter.clock.monotonic += 1_800
    phone.move(0)
    assert phone.received() == []
    assert quarter.hub.to_end(quarter.clock.now()) == []


def test_calls_that_both_clocks_have_ended_are_to_be_ended_in_the_log(quarter):
    """RZ4: a call that expires is ended by the node, and then forgotten."""
    quarter.open()
    quarter.clock.advance(1_799)
    assert quarter.hub.to_end(quarter.clock.now()) == []
    quarter.clock.advance(1)
    assert quarter.hub.to_end(quarter.clock.now()) == ["c-1"]
    quarter.end(source=None)
    assert quarter.hub.to_end(quarter.clock.now()) == []
    quarter.hub.sweep(quarter.clock.now())
    assert not quarter.hub.knows("c-1")


def test_what_responders_do_late_puts_off_no_end(quarter):
    """RZ4: rings and seats are no content, and the place is in the log until the end is."""
    quarter.open()
    quarter.clock.advance(1_500)
    quarter.widen()
    quarter.accept("r-1")
    quarter.report("r-1")
    quarter.release("r-1")
    quarter.clock.advance(300)
    assert quarter.hub.to_end(quarter.clock.now()) == ["c-1"]


def test_a_wall_clock_that_is_ahead_ends_no_call_for_the_others(quarter):
    """RZ4, E5: it has told nobody of it since, but the end is for all nodes."""
    body = quarter.opening()
    quarter.clock.wall_ms += 600_000
    quarter.read(body, PLACE)
    quarter.clock.advance(1_799)
    assert quarter.hub.to_end(quarter.clock.now()) == []
    quarter.clock.advance(1)
    assert quarter.hub.to_end(quarter.clock.now()) == ["c-1"]


def test_a_call_that_can_not_be_ended_is_forgotten_when_the_log_forgets_it(quarter):
    """LogR1, RQ7: a day later; nobody is held off by it any more, and the log is not asked for ever."""
    phone = quarter.join()
    quarter.open()
    quarter.accept("r-1")
    quarter.clock.advance(1_800 + 86_399)
    quarter.hub.sweep(quarter.clock.now())
    assert quarter.hub.to_end(quarter.clock.now()) == ["c-1"]
    quarter.clock.advance(1)
    quarter.hub.sweep(quarter.clock.now())
    assert quarter.hub.to_end(quarter.clock.now()) == []
    assert not quarter.hub.knows("c-1")
    assert not quarter.hub.may_widen
    phone.received()
    quarter.open("c-2", occurred_at=NOON_MS + 88_200_000, expires_at=NOON_MS + 90_000_000)
    assert phone.received() == ["c-2/1"]


# ---- coming back -------------------------------------------------------------------------------------------------


def test_what_a_returning_client_says_it_holds_is_put_right(quarter):
    """RJ8: R5's table, with `standdown` for `cancel`; `full` where the call is full."""
    quarter.open("c-1")
    quarter.open("c-1", replaces=1)
    quarter.open("c-2")
    quarter.accept("r-8", 1, call_id="c-2")
    quarter.accept("r-9", 2, call_id="c-2")
    quarter.open("c-3")
    quarter.end("c-3")
    older = quarter.join(0, "r-1", holding={"c-1": 1, "c-2": 1, "c-3": 1, "c-4": 1})
    same, newer = quarter.join(0, "r-2", holding={"c-1": 2}), quarter.join(0, "r-3", holding={"c-1": 3})
    away = quarter.join(9_000, "r-4", holding={"c-1": 1})
    assert sorted(older.received()) == ["-c-2 full", "-c-3 over", "c-1/2"]
    assert same.received() == newer.received() == []
    assert away.received() == ["c-1/2"]
    quarter.end("c-1")
    assert same.received() == newer.received() == ["-c-1 over"]


def test_a_client_that_holds_a_call_of_which_this_process_is_behind(quarter):
    """RJ8, R5e: it is remembered for 30 s, and then the table is applied."""
    behind, later = quarter.join(9_000, holding={"c-1": 1}), quarter.join(0, "r-2", holding={"c-2": 1})
    quarter.open("c-1")
    quarter.end("c-1")
    assert behind.received() == ["-c-1 over"]
    quarter.clock.advance(HOLDING_S)
    quarter.hub.sweep(quarter.clock.now())
    quarter.open("c-2")
    assert later.received()[2:] == ["c-2/1"]


@pytest.mark.parametrize("seats", [["cpr"], ["cpr", "cpr"]], ids=["full, so with a revision of its own", "not full"])
def test_who_gave_a_seat_back_and_is_rung_again_comes_back_to_the_call(quarter, seats):
    """HD18: it rings for them, so they are sent the call, and no `left`: what they hold is the ring."""
    quarter.open(terms=with_terms(seats=seats))
    phone = quarter.join()
    quarter.accept("r-1")
    quarter.release("r-1")
    phone.leave()
    rung = quarter.join()
    [ring] = rung.received()
    rung.leave()
    back = quarter.join(holding={"c-1": int(ring.removeprefix("c-1/"))})
    assert back.received() == [ring]
    back.move(900)
    back.move(0)
    assert back.received() == []


def test_who_gave_a_seat_back_and_holds_its_task_is_told_left_and_sent_the_call(quarter):
    """HD18, RJ6: also where an older task of theirs is what they hold."""
    quarter.open(terms=with_terms(seats=["cpr", "cpr"]))
    for _ in range(2):
        quarter.accept("r-1")
        quarter.release("r-1")
    for held in (2, 4):
        assert quarter.join(holding={"c-1": held}).received() == ["-c-1 left", "c-1/1"]
    away = quarter.join(9_000, holding={"c-1": 2})
    assert away.received() == ["-c-1 left"]


def test_a_holder_who_comes_back_anywhere_has_the_task_again(quarter):
    """RJ6, RV5: after `hello`; a lost connection keeps the seat. Who has given it back meanwhile is told `left`."""
    phone = quarter.join()
    quarter.open()
    quarter.accept("r-1")
    phone.leave()
    assert quarter.join(holding={"c-1": 2}).received() == ["c-1:2 seat 1"]
    quarter.release("r-1")
    assert quarter.join(9_000, holding={"c-1": 2}).received() == ["-c-1 left"]


def test_a_session_without_a_qualification_is_sent_what_it_has_to_know(quarter):
    """RJ9: nothing but RJ6 and RJ7, if it holds a seat or was rung before."""
    rung, never = quarter.join(0), quarter.join(0, "r-2", ())
    quarter.open()
    rung.received()
    rung.token(quals=())
    quarter.open(replaces=1)
    quarter.accept("r-8", 1)
    quarter.accept("r-9", 2)
    assert rung.received() == []
    quarter.end()
    assert (rung.received(), never.received()) == (["-c-1 over"], [])


def test_a_session_without_a_qualification_costs_its_sub_in_one_dict():
    """RJ6, RJ9: a session on a node with calls that these don't concern."""
    subs = [f"r-{number}" for number in range(10_000)]
    responders = Responders(len(subs))
    tracemalloc.start()
    for row, sub in enumerate(subs):
        responders.set_rights(row, FakeRights(sub=sub))
        responders.move(row, None)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken / len(subs) < 200
    assert all(responders.find(row) is None for row in range(len(subs)))
    assert list(responders.rows_of([Person("r-7")])) == [7]


def test_the_sessions_of_one_person_are_found_however_many_there_are():
    """RJ6: all of them, while they come, change hands and go; then the person is forgotten."""
    responders = Responders(4)
    for row in range(3):
        responders.set_rights(row, FakeRights(sub="r-1"))
    responders.set_rights(3, FakeRights(sub="r-2"))
    assert sorted(responders.rows_of([Person("r-1"), Person("r-2"), Person("r-3")])) == [0, 1, 2, 3]
    responders.set_rights(1, FakeRights(sub="r-2"))
    responders.leave(0)
    assert sorted(responders.rows_of([Person("r-1")])) == [2]
    assert sorted(responders.rows_of([Person("r-2")])) == [1, 3]
    responders.leave(2)
    responders.set_rights(2, FakeRights(sub="r-1"))
    assert list(responders.rows_of([Person("r-1")])) == [2]
    for row in (1, 2, 3):
        responders.leave(row)
    assert list(responders.rows_of([Person("r-1"), Person("r-2")])) == []


def test_who_has_left_is_forgotten(quarter):
    """RZ7: with its place; its row may be another's."""
    phone = quarter.join(sub="r-77")
    quarter.open()
    phone.accept()
    quarter.asked.clear()
    phone.leave()
    assert quarter.hub.on_duty == 0
    assert "r-77" not in _all_of(quarter.hub)
    quarter.end()


# ---- entries that come otherwise ---------------------------------------------------------------------------------


def test_entries_that_come_again_change_nothing(quarter):
    """A new epoch of the log gives all of them once more."""
    phone = quarter.join()
    entries = [quarter.open(), quarter.accept("r-1"), quarter.widen()]
    phone.received()
    quarter.take(*entries)
    assert phone.received() == []


def test_a_claim_that_the_log_has_lost_is_held_on(quarter):
    """RV7: another entry has its number. Who was told where to go is not untold, and is told anew when it is back."""
    phone, other = quarter.join(), quarter.join(0, "r-2")
    quarter.open()
    lost = quarter.accept("r-1", number=2)
    quarter.accept("r-2", number=2)
    assert phone.received() == ["c-1/1", "c-1:2 seat 1"]
    assert other.received() == ["c-1/1", "c-1:2 seat 1"]
    assert phone.accept() == []
    assert phone.received() == ["c-1:2 seat 1"]
    assert quarter.asked == [RestoreRequest("c-1")]
    assert [seat.person.sub for seat in quarter.hub.lost("c-1")] == ["r-1"]
    quarter.take(dataclasses.replace(lost, revision=3, sealed_as=2))
    assert quarter.hub.lost("c-1") == []
    assert phone.received() == ["c-1:3 seat 0"]
    assert other.received() == []
    quarter.numbers["c-1"] = 3
    quarter.release("r-1", 0)
    assert phone.received() == ["-c-1 left"]


def test_what_does_not_open_is_set_aside_and_tried_again(quarter):
    """RZ3, RZ5: counted, and at a reload it may open."""
    phone, other = quarter.join(), new_keys("other")
    quarter.read(quarter.opening(), PLACE, keys=other)
    quarter.open("c-2")
    assert phone.received() == ["c-2/1"]
    assert (quarter.hub.failed, quarter.hub.degraded(quarter.clock.now())) == (1, 1)
    quarter.hub.adopt(opener(other), quarter.clock.now())
    quarter.run()
    assert phone.received() == ["c-1/1"]
    assert quarter.hub.degraded(quarter.clock.now()) == 0


def test_a_place_that_opens_no_more_is_told_when_it_does(quarter):
    """RZ5: a task waits for the key; nothing fails."""
    phone, keys = quarter.join(), quarter.keys
    quarter.open()
    claim = quarter.entry(*_claim_parts("r-1"), keys=new_keys("second"))
    quarter.take(claim)
    assert phone.received() == ["c-1/1"]
    quarter.hub.adopt(opener(keys), quarter.clock.now())
    quarter.run()
    assert phone.received() == []


def _claim_parts(sub):
    from geocast.model.call import Acceptance, Person

    return Acceptance(1, "cpr", NOON_MS), Person(sub)


def test_a_chain_without_its_places_is_read_by_its_end(quarter):
    """RQ7, RZ4: a process that starts later knows who rests, and rings nobody."""
    opened = quarter.entry(quarter.opening(), PLACE)
    claim = quarter.entry(*_claim_parts("r-1"))
    assert opened.revision == 1
    phone = quarter.join(holding={"c-1": 1})
    quarter.take(claim)
    quarter.end()
    assert phone.received() == ["-c-1 over"]
    quarter.open("c-2")
    assert phone.received() == []


# ---- counts ------------------------------------------------------------------------------------------------------


def test_what_is_counted_of_a_call(quarter):
    """H7, RN3: (connection, revision) pairs rung and acknowledged, and how many have declined; each once."""
    phones = [quarter.join(0, f"r-{n}") for n in range(3)]
    quarter.open()
    board, now = quarter.hub, quarter.clock.now()
    for phone in phones[:2]:
        board.acknowledge(phone.row, "c-1", 1)
        board.acknowledge(phone.row, "c-1", 1)
        board.acknowledge(phone.row, "c-1", 2)
    phones[2].decline()
    phones[2].decline()
    [call] = board.open_calls(now)
    assert call.called == 2
    counts = board.take_counts()
    assert counts == {"c-1": Counts(3, 2, 1)}
    assert board.take_counts() == {}
    board.put_back_counts(counts)
    quarter.end()
    assert board.take_counts() == counts
    assert (board.rings, board.acks, board.answers["decline"]) == (3, 2, 2)


def test_rings_are_counted_for_the_call_and_for_the_revision_that_is_in_force(quarter):
    """HD16: only those who were called under this revision, and have not declined, count for the next ring."""
    phones = [quarter.join(0, f"r-{n}") for n in range(3)]
    quarter.open(terms=with_terms(seats=["cpr"]))
    phones[0].decline()
    quarter.accept("r-9")
    assert quarter.hub.take_counts() == {"c-1": Counts(3, 0, 1)}
    quarter.release("r-9")
    phones[1].decline()
    [call] = quarter.hub.open_calls(quarter.clock.now())
    assert quarter.hub.take_counts() == {"c-1": Counts(2, 0, 1), call.count_name: Counts(2, 0, 1)}
    assert (call.count_name, call.called_of(Counts(2, 0, 1)), call.called_of(Counts(5, 0, 1))) == ("c-1/3", 1, 4)


def test_who_declines_again_and_again_has_declined_once(quarter):
    """H7: each ring is declined once at most, however often somebody changes their mind."""
    phone = quarter.join()
    quarter.open()
    phone.move(9_000)
    for _ in range(3):
        phone.decline()
        phone.accept()
    assert quarter.hub.take_counts() == {"c-1": Counts(1, 0, 1)}


def test_when_the_next_ring_is_due(quarter):
    """RN2: after 200 ms while fewer than `enough` were called, else after `answer_s`; never while it is full."""
    quarter.open(terms=with_terms(enough=2))
    board = quarter.hub
    [call] = board.open_calls(quarter.clock.now())
    assert board.due_to_widen(quarter.clock.now()) == []
    begun = quarter.clock.monotonic
    assert begun + board.seconds_to_widening(quarter.clock.now()) == pytest.approx(call.widens_at(0))
    assert begun + 0.2 <= call.widens_at(1) <= begun + 0.3
    assert begun + 30 <= call.widens_at(2) <= begun + 30.1
    assert board.due_to_widen(quarter.clock.advance(0.3)) == [call]
    call.check_at = quarter.clock.monotonic + 5
    assert (board.may_widen, board.seconds_to_widening(quarter.clock.now())) == (True, pytest.approx(5))
    quarter.widen(2)
    assert (board.may_widen, board.seconds_to_widening(quarter.clock.now())) == (
        False,
        float("inf"),
    )  # it rings as far as it may
    assert call.widens_at(0) == float("inf")
    quarter.open("c-2")
    quarter.accept("r-8", 1, call_id="c-2")
    quarter.accept("r-9", 2, call_id="c-2")
    assert board.due_to_widen(quarter.clock.advance(60)) == []


def test_what_is_measured(quarter):
    """The first ring, from the opening; the answer to an `accept`; the first seat. And what nobody has answered."""
    phone = quarter.join()
    quarter.clock.advance(2)
    opened = quarter.entry(quarter.opening(), PLACE)
    quarter.clock.advance(0.5)
    quarter.take(opened)
    [request] = phone.accept()
    quarter.clock.advance(0.25)
    quarter.hub.on_answer(request, None, quarter.clock.now())
    quarter.accept("r-1")
    assert quarter.took == [("first_ring", 0.5), ("accept", 0.25), ("first_seat", 0.75)]
    assert quarter.hub.seats == {"cpr": 1}
    quarter.open("c-2")
    assert quarter.hub.unanswered(quarter.clock.now()) == 0
    quarter.clock.advance(UNANSWERED_S)
    assert quarter.hub.unanswered(quarter.clock.now()) == 1


def test_seat_of_one_issuer_is_nothing_to_an_equal_sub_of_another(quarter):
    """HD5: it is rung while a seat is free, and gives back, reports and is held off by nothing of the other's."""
    phone, other = quarter.join(), quarter.join(issuer="https://other.example")
    quarter.open()
    quarter.accept("r-1")
    assert (phone.received(), other.received()) == (["c-1/1", "c-1:2 seat 1"], ["c-1/1"])
    assert other.decline() == []
    quarter.hub.report(other.row, "c-1", "arrived", quarter.clock.now())
    assert quarter.asked == []
    quarter.open("c-2")
    assert (phone.received(), other.received()) == ([], ["c-2/1"])
    quarter.end("c-1")
    assert (phone.received(), other.received()) == (["-c-1 over"], [])


def test_session_that_loses_its_qualification_is_sent_no_task_and_may_still_give_back(quarter):
    """HD5: it was told where to go, so it hears of the end and can decline; new content is not for it."""
    phone, plain = quarter.join(), quarter.join(quals=(), here=False)
    quarter.open()
    quarter.accept("r-1")
    assert phone.received()[-1] == "c-1:2 seat 1"
    phone.token(quals=())
    quarter.open(replaces=1)
    assert phone.received() == plain.received() == []
    assert plain.decline() == []
    assert phone.decline() == [ReleaseRequest("c-1", Person("r-1"), NOON_MS)]
    quarter.end("c-1")
    assert (phone.received(), plain.received()) == (["-c-1 over"], [])


@pytest.mark.parametrize("is_again", [True, False], ids=["a repeated accept", "a claim that the log takes"])
def test_accept_is_answered_with_over_if_the_qualification_is_lost_before_the_task(quarter, is_again):
    """HD5, RJ9: no accept stays without an answer, and the next one is answered, too."""
    phone = quarter.join()
    quarter.open()
    if is_again:
        quarter.accept("r-1")
        phone.received()
        quarter.slow.add(phone.row)
        assert phone.accept() == []
    else:
        [request] = phone.accept()
        phone.received()
    quarter.hub.set_rights(phone.row, FakeRights(sub="r-1"))
    if not is_again:
        quarter.accept("r-1")
        assert quarter.hub.on_answer(request, None, quarter.clock.now())
    quarter.slow.clear()
    phone.settle()
    assert phone.received() == ["-c-1 over"]
    assert phone.accept() == []
    phone.settle()
    assert phone.received() == ["-c-1 over"]
