"""Seats and tasks in the call hub."""

import dataclasses

import pytest
from calls.quarter import PLACE, Quarter, all_of
from support.fakes import NOON_MS, FakeRights

from geocast.calls.aeds import Aed, Aeds
from geocast.calls.hub import (
    REPORT_S,
    AcceptRequest,
    ReleaseRequest,
    ReportRequest,
)
from geocast.model.call import ExactPlace, Person


def test_task_is_sent_when_seat_is_read_from_the_log(quarter):
    """Only sessions of the responder whose own token qualifies are sent the task (RV1, RJ6, M22, HD5)."""
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


def test_task_has_the_exact_place_and_no_empty_fields(quarter):
    """The place is sent exactly as the dispatcher gave it (M22)."""
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


def test_task_lists_defibrillators_nearby_and_says_which_one_to_fetch():
    """Only the responder who fetches a defibrillator is sent its code (M22, RI2, RI3)."""
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


def test_exact_place_is_sent_only_in_tasks(quarter):
    """The hub keeps entries encrypted, and deletes the place when the call has ended (RZ2, RZ4)."""
    phone, other = quarter.join(), quarter.join(0, "r-2")
    quarter.open()
    quarter.accept("r-1")
    assert "Dorfstrasse" in str(phone.sent)
    assert "Dorfstrasse" not in str(other.sent)
    assert "Dorfstrasse" not in all_of(quarter.hub)
    assert all_of(quarter.hub).count("'call'") >= 1
    quarter.end()
    assert "'call'" not in all_of(quarter.hub)


def test_repeated_accept_message_is_answered_with_the_same_task(quarter):
    """Any device of the responder gets the answer each time, without a look into the log (RV3, RJ6)."""
    phone, tablet = quarter.join(), quarter.join(9_000)
    quarter.open()
    quarter.accept("r-1")
    assert (phone.received(), tablet.received()) == (["c-1/1", "c-1:2 seat 1"], ["c-1:2 seat 1"])
    assert phone.accept() == tablet.accept() == tablet.accept() == []
    assert (phone.received(), tablet.received()) == (["c-1:2 seat 1"], ["c-1:2 seat 1"] * 2)


def test_correction_of_call_is_sent_as_new_task_to_responder_with_a_seat(quarter):
    """The task is sent once per revision and connection, even if the call is full (RJ5, RJ6)."""
    phone, other = quarter.join(), quarter.join(0, "r-3")
    quarter.open()
    quarter.accept("r-1", 1)
    quarter.accept("r-2", 2)
    phone.received(), other.received()
    quarter.open(replaces=1)
    phone.settle()
    assert (phone.received(), other.received()) == (["c-1:4 seat 1"], [])


def test_full_call_sends_standdown_to_notified_sessions_without_a_seat(quarter):
    """Sessions that have declined get no `standdown` (RJ4).

    A released seat notifies again, under a new revision (RV6, RJ2).
    """
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


def test_decline_of_a_seat_is_answered_when_its_release_is_in_the_log(quarter):
    """All sessions with the task are answered with `left`.

    The session that declined is not notified again (M19, RJ6).
    """
    phone, tablet = quarter.join(), quarter.join(9_000)
    quarter.open()
    quarter.accept("r-1")
    phone.received(), tablet.received()
    assert phone.decline() == [ReleaseRequest("c-1", Person("r-1"), NOON_MS)]
    assert phone.received() == []
    quarter.release("r-1")
    quarter.widen()
    assert (phone.received(), tablet.received()) == (["-c-1 left"], ["-c-1 left"])


def test_seat_granted_after_a_decline_is_released(quarter):
    """The decline arrives between the `accept` and its answer (M19)."""
    phone = quarter.join()
    quarter.open()
    [request] = phone.accept()
    assert phone.decline() == []
    quarter.hub.on_answer(request, None, quarter.clock.now())
    assert quarter.asked[-1] == ReleaseRequest("c-1", Person("r-1"))


def test_seat_declined_before_it_was_read_from_the_log_is_released(quarter):
    """The seat is stored in the log, but this process has not read the entry yet (M19)."""
    phone = quarter.join()
    quarter.open()
    [request] = phone.accept()
    quarter.hub.on_answer(request, None, quarter.clock.now())
    assert phone.decline() == [ReleaseRequest("c-1", Person("r-1"))]


def test_accept_message_after_decline_keeps_the_seat(quarter):
    """After `accept`, `decline` and `accept` the last message counts, even before the log has answered (M18, M19)."""
    phone = quarter.join()
    quarter.open()
    [request] = phone.accept()
    phone.decline()
    phone.accept()
    quarter.hub.on_answer(request, None, quarter.clock.now())
    assert ReleaseRequest("c-1", Person("r-1")) not in quarter.asked


def test_session_has_one_pending_accept_message_at_a_time(quarter):
    """Further `accept` messages are ignored, and the client repeats them.

    After a refusal the next one is handled (RV4).
    """
    phone = quarter.join()
    quarter.open("c-1")
    quarter.open("c-2")
    [request] = phone.accept("c-1")
    assert phone.accept("c-1") == phone.accept("c-2") == []
    quarter.hub.on_answer(request, "full", quarter.clock.now())
    quarter.run()
    assert phone.received()[2:] == ["-c-1 full"]
    assert len(phone.accept("c-2")) == 1


def test_refusal_already_sent_is_not_sent_again(quarter):
    """A `full` or `over` that was sent while the `accept` was pending is its answer (M18, RJ4, RJ7).

    A later `accept` gets its own answer.
    """
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


def test_refusal_reason_becomes_over_if_call_ended_meanwhile(quarter):
    """A call may also end because a clock has passed its expiry (RJ9, E5)."""
    phone, never_rung = quarter.join(), quarter.join(900, "r-2", holding={})
    quarter.open()
    [request], far = phone.accept(), never_rung.accept()
    assert (phone.received(), far, never_rung.received()) == (["c-1/1"], [], ["-c-1 far"])
    quarter.clock.advance(1_800)
    assert quarter.hub.on_answer(request, "full", quarter.clock.now())
    quarter.run()
    assert phone.received() == ["-c-1 over"]


def test_accept_message_refused_before_a_new_notification_is_decided_again(quarter):
    """Otherwise a session that was just notified would believe that the call is full (RV6, RJ2)."""
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


def test_seat_request_uses_current_location_of_session(quarter):
    """For a session that has left, no seat is requested (RV4)."""
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


def test_accept_message_is_refused_without_asking_the_log_if_reason_is_known(quarter):
    """The reason is the first of `over`, `held-off`, `full` and `far` (RV4)."""
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


def test_accept_message_for_an_unknown_call_is_decided_by_the_log(quarter):
    """This process may not have read the call yet (RV4)."""
    phone, plain = quarter.join(), quarter.join(0, "r-2", ())
    [request] = phone.accept("c-9")
    assert plain.accept("c-9") == []
    quarter.hub.on_answer(request, "over", quarter.clock.now())
    quarter.run()
    assert phone.received() == plain.received() == ["-c-9 over"]


def test_progress_report_counts_only_with_a_seat_and_once_in_five_seconds(quarter):
    """Reports are not answered (M20)."""
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


def test_responder_with_equal_sub_from_another_issuer_does_not_share_the_seat(quarter):
    """Such a responder is notified while a seat is free, and can't release or report for the other (HD5)."""
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


def test_session_that_lost_its_qualification_gets_no_task_and_may_give_up_its_seat(quarter):
    """The session knows the place, so it is sent the end of the call, but no corrections (HD5)."""
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
def test_accept_message_is_refused_if_qualification_lapses_before_the_task_is_sent(quarter, is_again):
    """This `accept` and the next one are each answered (HD5, RJ9)."""
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
