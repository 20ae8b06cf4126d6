"""Tests of the checker of alerts: it accepts a correct history, and reports each falsified history under its kind."""

from collections.abc import Callable

import pytest
from end_to_end.kit.alerts import place
from end_to_end.kit.earth import beyond, published
from end_to_end.kit.history import Came, Final, History, Operation, Outcome, Visit

TOWN = (32.78, -96.8)
HERE = [place(TOWN)]
AWAY = [place(beyond(TOWN, 90, 50_000))]
AREA = [published(*TOWN, 800)]
START, LATER, END = 1000.0, 1100.0, 5000.0


def told(revision: int, *, cancels: bool = False, at: float = START) -> Came:
    """Return a received message about alert "a"."""
    return Came("a", revision, at, cancels)


def ok(operation: Operation) -> Operation:
    """Acknowledge an operation and return it."""
    operation.acknowledge(START)
    return operation


class Story(History):
    """One alert with two acknowledged revisions, and one client that got both and shows the second."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ok(self.invoke("a", 1, AREA, END))
        self.second = ok(self.invoke("a", 2, AREA, END))
        self.her = self.visit("ann", {})
        self.her.events += [HERE, told(1), told(2)]
        self.last = Final("ann", HERE, {"a": 2}, LATER)
        self.finals.append(self.last)
        self.states, self.asked_at = {"n1": {"a": 2}, "n2": {"a": 2}}, LATER

    def cancelled(self) -> Operation:
        """Cancel the alert, with everybody informed; return the operation."""
        self.states = {"n1": {"a": None}, "n2": {"a": None}}
        self.her.events.append(told(3, cancels=True))
        self.last.held = {}
        return ok(self.invoke("a", 3, None, END))


def found(history: History) -> dict[str, int]:
    """Return the number of violations by kind, without kinds that have none."""
    return {name: len(each) for name, each in vars(history.judge()).items() if each}


def test_checker_accepts_a_correct_history():
    """A client gets both revisions in order, moves away and gets the cancel."""
    story = Story()
    assert story.judge()
    assert "lost 0" in str(story.judge())
    story.her.events.append(AWAY)
    story.cancelled()
    assert found(story) == {}


@pytest.mark.parametrize(("behind", "stale"), [(0.0, 1), (3_600.0, 0), (60.0, 1)])
def test_checker_allows_a_message_to_be_late_by_the_lag_of_the_clock(behind: float, stale: int):
    """The checker allows a message to be late by as much as the clock is behind, and no more."""
    story = Story()
    story.her.events.append(Came("a", 2, END + 600, behind=behind))
    story.her.events.remove(told(2))
    assert found(story) == ({"stale": stale} if stale else {})


def test_checker_accepts_a_loss_only_if_the_log_has_lost_the_revision():
    """The nodes and the client have revision 1; revision 2 was acknowledged."""
    story = Story()
    story.her.events.remove(told(2))
    story.last.held = {"a": 1}
    story.states = {"n1": {"a": 1}, "n2": {"a": 1}}
    assert found(story)
    story.log_has_lost("a", 1)
    assert found(story) == {}
    assert story.lost_by_log == ["a 2"]


def test_checker_expects_no_client_to_get_an_expired_alert():
    """Clients need not get the alert, whatever state the nodes report."""
    story = Story()
    for operation in story.operations.values():
        operation.ends = LATER - 10
    story.last.held = {}
    story.states = {"n1": {"a": None}, "n2": {}}
    assert found(story) == {}


LOST: dict[str, Callable[[Story], object]] = {
    "a client inside does not hold it": lambda s: s.last.held.clear(),
    "the nodes forgot a revision": lambda s: s.states.update(n1={"a": 1}, n2={"a": 1}) or s.last.held.update(a=1),
    "the nodes forgot the alert": lambda s: s.states.update(n1={}, n2={}) or s.last.held.clear(),
    "a client holds more than the nodes": lambda s: (
        setattr(s.second, "outcome", Outcome.UNKNOWN) or s.states.update(n1={"a": 1}, n2={"a": 1})
    ),
}


@pytest.mark.parametrize("doctor", LOST.values(), ids=LOST)
def test_checker_reports_a_lost_revision(doctor: Callable[[Story], object]):
    """A revision counts as lost if it was acknowledged and is live, and a client or a node does not have it."""
    story = Story()
    doctor(story)
    assert found(story) == {"lost": 1}


OUTSIDE: dict[str, Callable[[Visit], object]] = {
    "the client was elsewhere": lambda v: v.events.__setitem__(0, AWAY),
    "the client had moved away before": lambda v: v.events.insert(1, AWAY),
    "nobody published the alert": lambda v: v.events.append(Came("b", 1, START)),
    "a revision that nobody published": lambda v: v.events.append(told(3)),
    "a revision as a cancel": lambda v: v.events.append(told(2, cancels=True)),
}


@pytest.mark.parametrize("doctor", OUTSIDE.values(), ids=OUTSIDE)
def test_checker_reports_a_message_to_a_client_outside_the_area(doctor: Callable[[Visit], object]):
    """The client was neither inside the area nor a recipient of an earlier revision."""
    story = Story()
    doctor(story.her)
    assert found(story) == {"outside": 1}


def test_checker_reports_an_alert_on_a_node_that_was_never_published():
    """The next client to connect would get the unpublished alert."""
    story = Story()
    story.states["n2"] = story.states["n2"] | {"b": 1}
    assert found(story) == {"outside": 1}


def test_checker_reports_a_cancel_to_a_client_that_never_got_the_alert():
    """Only recipients of an alert may get its cancel (rule 4)."""
    story = Story()
    story.cancelled()
    story.visit("bob", {}).events.extend([HERE, told(3, cancels=True)])
    assert found(story) == {"outside": 1}


def test_checker_reports_delivery_of_a_refused_revision():
    story = Story()
    story.invoke("a", 3, AREA, END).outcome = Outcome.FAIL
    story.her.events.append(told(3))
    assert found(story) == {"outside": 1}


def test_checker_accepts_revisions_sent_to_earlier_recipients_outside_the_area():
    """A client that already had a revision, or was sent one, gets later revisions wherever it is (rules 1 and 5)."""
    story = Story()
    story.visit("bob", {"a": 1}).events.extend([AWAY, told(2)])
    story.visit("cid", {}).events.extend([HERE, told(1), AWAY, told(2)])
    assert found(story) == {}


def test_checker_reports_a_revision_sent_too_late():
    """A revision is late after the alert's end, after a newer revision, or after the cancel."""
    story = Story()
    story.visit("bob", {}).events.extend([HERE, told(1, at=END + 60)])
    story.visit("cid", {}).events.extend([HERE, told(2), told(1)])
    story.visit("dan", {"a": 2}).events.extend([HERE, told(1)])
    assert found(story) == {"stale": 3}
    story.cancelled()
    story.visit("eve", {"a": 1}).events.extend([HERE, told(3, cancels=True), told(2)])
    assert found(story) == {"stale": 4}


def test_checker_reports_an_old_revision_sent_to_a_new_client_after_the_faults():
    """A superseded or cancelled revision is stale even if the newer one follows."""
    story = Story()
    bob = story.visit("bob", {})
    bob.settled = True
    bob.events += [HERE, told(2)]
    assert found(story) == {}
    bob.events.insert(1, told(1))
    assert found(story) == {"stale": 1}
    story.cancelled()
    bob.events = [HERE, told(2), told(3, cancels=True)]
    assert found(story) == {"stale": 1}


def test_checker_reports_a_revision_sent_long_after_it_was_superseded():
    """A node may lag for a while, but not for minutes: then an old revision has come back."""
    story = Story()
    story.visit("bob", {}).events.extend([HERE, told(1, at=START + 10), told(2)])
    assert found(story) == {}
    story.visit("cid", {}).events.extend([HERE, told(1, at=LATER), told(2)])
    assert found(story) == {"stale": 1}
    story.cancelled()
    story.visit("dan", {}).events.extend([HERE, told(2, at=LATER), told(3, cancels=True)])
    assert found(story) == {"stale": 2}


def test_checker_reports_an_outdated_revision_that_a_client_still_shows():
    """At the end, no client may show a cancelled, superseded or expired revision."""
    story = Story()
    story.finals.append(Final("bob", HERE, {"a": 1}, LATER))
    assert found(story) == {"stale": 1}
    story.cancelled()
    assert found(story) == {"stale": 1}
    story = Story()
    story.first.ends = story.second.ends = LATER - 10
    assert found(story) == {"stale": 1}


def test_checker_reports_a_cancelled_alert_that_is_live_again():
    story = Story()
    story.cancelled()
    story.states = {"n1": {"a": 2}, "n2": {"a": 2}}
    story.last.held = {"a": 2}
    assert found(story) == {"stale": 1}


def test_checker_reports_a_duplicate_message():
    """A duplicate is a second message on one connection, or a message to a client that already has the revision.

    The same revision on a second connection is no duplicate.
    """
    story = Story()
    story.her.events.append(told(2))
    assert found(story) == {"duplicates": 1}
    story = Story()
    story.visit("bob", {"a": 2}).events.extend([HERE, told(2)])
    assert found(story) == {"duplicates": 1}
    story = Story()
    story.visit("ann", {}).events.extend([HERE, told(2)])
    assert found(story) == {}


@pytest.mark.parametrize("happened", [True, False])
def test_checker_accepts_an_unacknowledged_revision_as_applied_or_not(happened: bool):
    """Both outcomes pass if all nodes and clients agree."""
    story = Story()
    story.second.outcome = Outcome.UNKNOWN
    if not happened:
        story.her.events.pop()
        story.last.held = {"a": 1}
        story.states = {"n1": {"a": 1}, "n2": {"a": 1}}
    assert found(story) == {}


def test_checker_reports_disagreement_about_an_unacknowledged_revision():
    """Nodes that disagree are divided; clients that disagree with the nodes are stale."""
    story = Story()
    story.second.outcome = Outcome.UNKNOWN
    story.states["n2"] = {"a": 1}
    assert found(story) == {"divided": 1}
    story.states["n2"] = {"a": 2}
    story.finals.append(Final("bob", HERE, {"a": 1}, LATER))
    assert found(story) == {"stale": 1}


def test_checker_accepts_an_unacknowledged_alert_or_cancel_as_stored_or_not():
    """The alert may exist or not, and may have ended or not."""
    story = Story()
    story.invoke("b", 1, AREA, END)
    assert story.allowed("b") == {None, 1}
    assert found(story) == {}
    story.invoke("a", 3, None, END)
    assert story.allowed("a") == {2, None}
    assert found(story) == {}
