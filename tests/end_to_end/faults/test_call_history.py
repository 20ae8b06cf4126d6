"""Tests of the checker of calls: it accepts a correct history, and reports what is wrong in each falsified one."""

from collections.abc import Callable
from typing import Any

import pytest
from end_to_end.kit.alerts import Json, place
from end_to_end.kit.call_history import Asked, CallFinal, CallHistory, CallVisit, Heard, Said, Terms
from end_to_end.kit.earth import beyond, published

TOWN = (47.678, 8.831)
HERE, AWAY = place(TOWN, here=True), place(beyond(TOWN, 90, 3_000), here=True)
PLACE = {"lat": 47.6780089, "lng": 8.8311129, "kind": "residence", "address": "Dorfstrasse 4"}
OTHER = PLACE | {"address": "Dorfstrasse 5"}
NEAR = published(PLACE["lat"], PLACE["lng"], 0)
MEDIC, FIRST_AIDER = frozenset({"medic"}), frozenset({"cpr"})
START, LATER, END = 1_000.0, 1_100.0, 5_000.0


def ring(revision: int = 1) -> Json:
    """Return a message `call`, with the fields that the checker reads."""
    return {"type": "call", "call": {"id": "c", "revision": revision, "near": NEAR}}


def task(revision: int = 2, seat: int = 1, where: Json = PLACE) -> Json:
    """Return a message `task`."""
    return {"type": "task", "id": "c", "revision": revision, "seat": seat, "place": where}


def standdown(reason: str) -> Json:
    """Return a message `standdown`."""
    return {"type": "standdown", "id": "c", "reason": reason}


class Story(CallHistory):
    """A call with one seat at a home.

    Ann has the seat. Bob has accepted too and was stood down. Eve is outside the radius.
    """

    def __init__(self) -> None:
        super().__init__(Terms({"public": MEDIC | FIRST_AIDER, "residence": MEDIC}, (100, 500), 1))
        self.call: Asked = self.open("c", PLACE, NEAR, END)
        self.call.opened, self.call.waits = True, False
        self.ann, self.bob, self.eve = (self.person(name) for name in ("ann", "bob", "eve"))
        self.hear(self.ann, ring(), Said("accept", "c"), task())
        self.hear(self.bob, ring(), Said("accept", "c"), standdown("full"))
        self.eve.events[0] = AWAY
        self.last = {
            who.sub: CallFinal(who.client, who.sub, who.quals, HERE, {}, set(), LATER)
            for who in (self.ann, self.bob, self.eve)
        }
        self.last["ann"].shown["c"] = task()
        self.last["eve"].here = AWAY
        self.finals, self.asked_at = list(self.last.values()), LATER
        self.say(state="full", content=1, call={"revision": 1, "near": NEAR}, ring_m=500, seats=[seat("ann", 1)])

    def person(self, name: str) -> CallVisit:
        """Return a connection of a medic who is near."""
        visit = self.visit(f"phone of {name}", name, MEDIC, {})
        visit.events.append(HERE)
        return visit

    def hear(self, visit: CallVisit, *events: Json | Said, at: float = START) -> None:
        """Add messages that a connection gets at this time, and what it sends between them."""
        visit.events += [each if isinstance(each, Said) else Heard(each, at) for each in events]

    def say(self, **changes: Any) -> None:
        """Change the state of the call that both nodes report."""
        before = self.states.get("n1", {}).get("c") or {}
        self.states = {node: {"c": before | changes} for node in ("n1", "n2")}

    def end(self) -> None:
        """End the call as the dispatcher does; everybody gets the message."""
        self.call.ended, self.call.may_have_ended = LATER, True
        self.say(state="ended")
        self.hear(self.ann, standdown("over"))
        self.hear(self.bob, standdown("over"))
        self.last["ann"].shown.clear()


def seat(who: str, number: int) -> Json:
    """Return a seat as nodes report it."""
    return {"seat": number, "responder": who, "role": "cpr", "state": "going"}


def reopened(story: Story) -> None:
    """Let Ann give her seat back, so that Bob is notified again."""
    story.hear(story.ann, Said("decline", "c"), standdown("left"))
    story.last["ann"].shown.clear()
    story.last["ann"].deaf.add("c")
    story.say(state="ringing", call={"revision": 3, "near": NEAR}, seats=[])
    story.hear(story.bob, ring(3))
    story.last["bob"].shown["c"] = ring(3)


def corrected(story: Story) -> None:
    """Let the dispatcher correct the place; Ann has the new one."""
    story.call.places.append(OTHER)
    story.call.nears.append(NEAR)
    story.say(content=3, call={"revision": 3, "near": NEAR})
    story.hear(story.ann, task(3, where=OTHER))
    story.last["ann"].shown["c"] = task(3, where=OTHER)


def still_held(story: Story) -> None:
    """Notify Kim, who has never accepted, of the revision that she holds."""
    kim = story.visit("phone of kim", "kim", MEDIC, {"c": 1})
    kim.events.append(HERE)
    story.hear(kim, ring())


def came_back(story: Story, *more: Json) -> None:
    """Let Ann reconnect holding the task of the seat that she gave back: she gets the call again (HD18)."""
    reopened(story)
    again = story.visit("tablet of ann", "ann", MEDIC, {"c": 4})
    again.events.append(HERE)
    story.hear(again, standdown("left"), ring(3), *more)


@pytest.mark.parametrize("goes_on", [lambda _: None, Story.end, reopened, corrected, came_back])
def test_checker_accepts_a_correct_history_of_a_call(goes_on: Callable[[Story], None]):
    story = Story()
    goes_on(story)
    assert story.judge() == []


def put_back(story: Story) -> None:
    story.say(seats=[seat("ann", 1), seat("bob", 0)])
    story.last["bob"].shown["c"] = task(4, 0)
    story.hear(story.bob, task(4, 0))


def test_checker_accepts_an_extra_seat_only_if_the_log_lost_a_seat():
    """More seats than the call has are allowed only if the log reports that a seat was lost (RV7)."""
    story = Story()
    put_back(story)
    assert story.judge() == [f"c: seat 0, but no claim was restored: {seat('bob', 0)}"]
    story.put_back.add(("c", "bob"))
    assert story.judge() == []


def test_checker_accepts_an_unrecorded_wider_radius_only_if_the_log_may_lose_entries():
    """Only ends and seat requests are restored under another number, so a wider radius may be lost (LogC5).

    Even then nobody beyond the widest possible radius may be notified.
    """
    story = Story()
    story.say(ring_m=100)
    story.eve.events[0] = place(beyond(TOWN, 90, 500), here=True)
    story.hear(story.eve, ring())
    assert story.judge() == ["phone of eve was sent call of c, but is outside the search radius"]
    story.may_lose = True
    assert story.judge() == []
    story.eve.events[0] = AWAY
    assert story.judge() == ["phone of eve was sent call of c, but is outside the search radius"]


def test_checker_accepts_a_radius_that_widens_while_the_final_state_is_read():
    """While the test reads the last answers, nodes still notify more responders."""
    story = Story()
    story.say(ring_m=100)
    story.eve.events[0] = place(beyond(TOWN, 90, 500), here=True)
    story.hear(story.eve, ring(), at=LATER + 0.1)
    assert story.judge() == []
    story.eve.events[0] = AWAY
    assert story.judge() == ["phone of eve was sent call of c, but is outside the search radius"]


DOCTORED: dict[str, tuple[Callable[[Story], object], str]] = {
    "two responders on one seat": (lambda s: s.say(seats=[seat("ann", 1), seat("bob", 1)]), "more seats are held"),
    "more seats taken than exist": (lambda s: s.say(seats=[seat("ann", 1), seat("bob", 2)]), "more seats are held"),
    "one responder on two seats": (lambda s: s.say(seats=[seat("ann", 1), seat("ann", 0)]), "somebody holds two seats"),
    "a seat for a responder who never accepted": (lambda s: s.say(seats=[seat("eve", 1)]), "but never accepted"),
    "nodes disagree": (lambda s: s.states["n1"].update(c=None), "the nodes disagree"),
    "all nodes forgot the call": (lambda s: s.states.update(n1={"c": None}, n2={"c": None}), "no node knows it"),
    "the call is at another place": (
        lambda s: s.say(call={"revision": 1, "near": published(0, 0, 0)}),
        "nobody requested",
    ),
    "an acknowledged end undone": (lambda s: (s.end(), s.say(state="full")), "the end was acknowledged"),
    "ended without a request": (lambda s: s.say(state="ended"), "nobody requested that"),
    "expired too soon": (lambda s: s.say(state="expired"), "expired too soon"),
    "a task without accept": (lambda s: s.hear(s.eve, task()), "but never accepted"),
    "a task sent three times": (lambda s: s.hear(s.ann, task(), task()), "revision 2, 3 times"),
    "an older task after a newer one": (lambda s: (corrected(s), s.hear(s.ann, task())), "revision 2, after 3"),
    "a task with a wrong place": (lambda s: s.hear(s.ann, task(3, where=OTHER)), "a place that the call never had"),
    "notified twice": (lambda s: s.hear(s.bob, ring()), "revision 1, after 1"),
    "notified of a call that the client holds": (still_held, "revision 1, after 1"),
    "notified twice after reconnecting": (lambda s: came_back(s, ring(3)), "revision 3, after 3"),
    "notified outside the radius": (lambda s: s.hear(s.eve, ring()), "outside the search radius"),
    "notified off duty": (lambda s: (s.eve.events.append(None), s.hear(s.eve, ring())), "outside the search radius"),
    "not qualified": (lambda s: setattr(s.bob, "quals", FIRST_AIDER), "is not qualified"),
    "notified after `over`": (lambda s: (s.end(), s.hear(s.bob, ring(5))), "after `over`"),
    "notified after the end": (lambda s: (s.end(), s.hear(s.person("late"), ring(), at=LATER + 100)), "after its end"),
    "notified after expiry": (lambda s: s.hear(s.bob, ring(5), at=END + 3), "after its end"),
    "notified of an unknown call": (
        lambda s: s.hear(s.bob, ring() | {"call": ring()["call"] | {"id": "x"}}),
        "which nobody opened",
    ),
    "seat without a task": (lambda s: s.last["ann"].shown.clear(), "but shows no task"),
    "task of another seat": (lambda s: s.last["ann"].shown.update(c=task(2, 0)), "not the newest"),
    "an old task at the end": (lambda s: (corrected(s), s.last["ann"].shown.update(c=task())), "not the newest"),
    "an old place at the end": (lambda s: (corrected(s), s.last["ann"].shown.update(c=task(3))), "an older place"),
    "a task kept without a seat": (lambda s: s.last["bob"].shown.update(c=task()), "holds no seat"),
    "not stood down": (lambda s: s.last["bob"].shown.update(c=ring()), "which is full"),
    "not told that the call is over": (lambda s: (s.end(), s.last["ann"].shown.update(c=task())), "which is over"),
    "not notified again": (
        lambda s: (reopened(s), s.last["bob"].shown.clear()),
        "is within the radius of c 3, but shows None",
    ),
    "an old revision shown": (
        lambda s: (reopened(s), s.last["bob"].shown.update(c=ring())),
        "is within the radius of c 3",
    ),
    "a secret in a frame": (lambda s: s.leaks.append("a frame has it"), "a frame has it"),
}


@pytest.mark.parametrize(("doctor", "words"), DOCTORED.values(), ids=DOCTORED)
def test_checker_reports_each_violation_in_a_falsified_history_of_a_call(doctor: Callable[[Story], object], words: str):
    """The checker sees violations of the rules for calls from outside (RV2, RV3, RJ2, RJ6, RJ9)."""
    story = Story()
    doctor(story)
    assert any(words in each for each in story.judge()), story.judge()
    assert "c" in story.asked
    assert "phone of ann" in story.story("c")


def test_checker_accepts_that_nodes_have_forgotten_an_expired_call():
    """Nobody restores an expired call after a log has lost everything."""
    story = Story()
    story.call.ends = LATER - 1
    story.states = {"n1": {"c": None}, "n2": {"c": None}}
    story.last["ann"].shown.clear()
    assert story.judge() == []


def test_checker_accepts_messages_caused_by_a_wrong_clock():
    """A node whose clock is ahead treats an open call as ended.

    When the clock is right, the node notifies responders again.
    """
    story = Story()
    story.bob.events.append(Heard(standdown("over"), START, off=True))
    story.hear(story.bob, ring(5))
    story.bob.events.append(Heard(ring(6), END + 600, off=True))
    assert story.judge() == []
