"""Clients that reconnect to the call hub, and entries that arrive late, twice or unreadable."""

import dataclasses
import tracemalloc

import pytest
from calls.quarter import PLACE, all_of, new_keys, opener, with_terms
from support.fakes import NOON_MS, FakeRights

from geocast.calls.hub import (
    HOLDING_S,
    RestoreRequest,
)
from geocast.calls.responders import Responders
from geocast.model.call import Person

# ---- clients that reconnect --------------------------------------------------------------------------------------


def test_returning_client_is_sent_what_changed_in_calls_it_names(quarter):
    """The table in R5 applies, with `standdown` instead of `cancel`.

    If the call is full, the reason is `full` (RJ8).
    """
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


def test_calls_named_by_returning_client_are_remembered_until_they_are_read(quarter):
    """The client's `holding` is kept for 30 s. When the call is read, the table in R5 is applied (RJ8, R5e)."""
    behind, later = quarter.join(9_000, holding={"c-1": 1}), quarter.join(0, "r-2", holding={"c-2": 1})
    quarter.open("c-1")
    quarter.end("c-1")
    assert behind.received() == ["-c-1 over"]
    quarter.clock.advance(HOLDING_S)
    quarter.hub.sweep(quarter.clock.now())
    quarter.open("c-2")
    assert later.received()[2:] == ["c-2/1"]


@pytest.mark.parametrize("seats", [["cpr"], ["cpr", "cpr"]], ids=["full, so with a revision of its own", "not full"])
def test_returning_client_that_released_its_seat_keeps_the_newer_call(quarter, seats):
    """The client already has the newer `call`, so it is not sent a `standdown` with the reason `left` (HD18)."""
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


def test_returning_client_whose_seat_was_released_is_sent_standdown_and_call(quarter):
    """This also holds for a client that names an older task of the same responder (HD18, RJ6)."""
    quarter.open(terms=with_terms(seats=["cpr", "cpr"]))
    for _ in range(2):
        quarter.accept("r-1")
        quarter.release("r-1")
    for held in (2, 4):
        assert quarter.join(holding={"c-1": held}).received() == ["-c-1 left", "c-1/1"]
    away = quarter.join(9_000, holding={"c-1": 2})
    assert away.received() == ["-c-1 left"]


def test_returning_responder_with_a_seat_is_sent_the_task(quarter):
    """A lost connection keeps the seat.

    If the seat was released meanwhile, the client is sent a `standdown` with the reason `left` (RJ6, RV5).
    """
    phone = quarter.join()
    quarter.open()
    quarter.accept("r-1")
    phone.leave()
    assert quarter.join(holding={"c-1": 2}).received() == ["c-1:2 seat 1"]
    quarter.release("r-1")
    assert quarter.join(9_000, holding={"c-1": 2}).received() == ["-c-1 left"]


def test_unqualified_session_is_sent_only_end_of_call_it_was_notified_of(quarter):
    """Sessions that were never notified are sent nothing (RJ9, RJ6, RJ7)."""
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


def test_session_without_qualification_costs_less_than_200_bytes():
    """Most sessions of a node have no qualification and need nothing about calls (RJ6, RJ9)."""
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


def test_all_sessions_of_a_responder_are_found():
    """Sessions join, change their tokens and leave. After the last one, the responder is forgotten (RJ6)."""
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


def test_session_that_disconnected_is_forgotten(quarter):
    """Its location is deleted, and a new session may get its row number (RZ7)."""
    phone = quarter.join(sub="r-77")
    quarter.open()
    phone.accept()
    quarter.asked.clear()
    phone.leave()
    assert quarter.hub.responders.on_duty == 0
    assert "r-77" not in all_of(quarter.hub)
    quarter.end()


# ---- entries that arrive again, out of order or unreadable -------------------------------------------------------


def test_call_entries_read_again_change_nothing(quarter):
    """After the log has lost entries, all entries are read again."""
    phone = quarter.join()
    entries = [quarter.open(), quarter.accept("r-1"), quarter.widen()]
    phone.received()
    quarter.take(*entries)
    assert phone.received() == []


def test_responder_keeps_seat_that_the_log_has_lost(quarter):
    """Another entry has the number of the lost one.

    The responder keeps the task, and is sent a new one when the seat is restored (RV7).
    """
    phone, other = quarter.join(), quarter.join(0, "r-2")
    quarter.open()
    lost = quarter.accept("r-1", number=2)
    quarter.accept("r-2", number=2)
    assert phone.received() == ["c-1/1", "c-1:2 seat 1"]
    assert other.received() == ["c-1/1", "c-1:2 seat 1"]
    assert phone.accept() == []
    assert phone.received() == ["c-1:2 seat 1"]
    assert quarter.asked == [RestoreRequest("c-1")]
    assert [person.sub for person in quarter.hub.calls["c-1"].lost] == ["r-1"]
    quarter.take(dataclasses.replace(lost, revision=3, sealed_as=2))
    assert quarter.hub.calls["c-1"].lost == {}
    assert phone.received() == ["c-1:3 seat 0"]
    assert other.received() == []
    quarter.numbers["c-1"] = 3
    quarter.release("r-1", 0)
    assert phone.received() == ["-c-1 left"]


def test_undecrypted_entry_is_counted_and_decrypted_after_reload_of_keys(quarter):
    """The entry is kept until a reload brings its key (RZ3, RZ5)."""
    phone, other = quarter.join(), new_keys("other")
    quarter.read(quarter.opening(), PLACE, keys=other)
    quarter.open("c-2")
    assert phone.received() == ["c-2/1"]
    assert (quarter.hub.failed, quarter.hub.calls.degraded(quarter.clock.now())) == (1, 1)
    quarter.hub.adopt(opener(other), quarter.clock.now())
    quarter.run()
    assert phone.received() == ["c-1/1"]
    assert quarter.hub.calls.degraded(quarter.clock.now()) == 0


def test_no_task_is_sent_while_key_of_seat_entry_is_missing(quarter):
    """Nothing fails while the key is missing (RZ5)."""
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


def test_ended_call_with_deleted_place_still_excludes_its_responder(quarter):
    """A process that starts after the deletion knows who is excluded, and notifies nobody of the call (RQ7, RZ4)."""
    opened = quarter.entry(quarter.opening(), PLACE)
    claim = quarter.entry(*_claim_parts("r-1"))
    assert opened.revision == 1
    phone = quarter.join(holding={"c-1": 1})
    quarter.take(claim)
    quarter.end()
    assert phone.received() == ["-c-1 over"]
    quarter.open("c-2")
    assert phone.received() == []
