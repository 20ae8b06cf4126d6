"""The checker itself: a good history passes, and each doctored one is caught, as what it is."""

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
    """Something that came about the alert."""
    return Came("a", revision, at, cancels)


def ok(operation: Operation) -> Operation:
    """The same, acknowledged."""
    operation.acknowledge(START)
    return operation


class Story(History):
    """One alert with two acknowledged revisions, and one client that was sent both and holds the second."""

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
        """A cancel that everybody has heard."""
        self.states = {"n1": {"a": None}, "n2": {"a": None}}
        self.her.events.append(told(3, cancels=True))
        self.last.held = {}
        return ok(self.invoke("a", 3, None, END))


def found(history: History) -> dict[str, int]:
    """How many violations of which kind."""
    return {name: len(each) for name, each in vars(history.judge()).items() if each}


def test_a_good_history_passes():
    """Told in order, held, moved away and cancelled: all of it is as it should be."""
    story = Story()
    assert story.judge()
    assert "lost 0" in str(story.judge())
    story.her.events.append(AWAY)
    story.cancelled()
    assert found(story) == {}


@pytest.mark.parametrize(("behind", "stale"), [(0.0, 1), (3_600.0, 0), (60.0, 1)])
def test_a_node_whose_clock_is_behind_may_send_late_by_as_much(behind: float, stale: int):
    """And by no more."""
    story = Story()
    story.her.events.append(Came("a", 2, END + 600, behind=behind))
    story.her.events.remove(told(2))
    assert found(story) == ({"stale": stale} if stale else {})


def test_what_ends_need_not_be_held_and_must_not_be():
    """An alert that has expired is owed to nobody, whatever the nodes say of it."""
    story = Story()
    for operation in story.operations.values():
        operation.ends = LATER - 10
    story.last.held = {}
    story.states = {"n1": {"a": None}, "n2": {}}
    assert found(story) == {}


LOST: dict[str, Callable[[Story], object]] = {
    "not held by one inside": lambda s: s.last.held.clear(),
    "the nodes forgot a revision": lambda s: s.states.update(n1={"a": 1}, n2={"a": 1}) or s.last.held.update(a=1),
    "the nodes forgot the alert": lambda s: s.states.update(n1={}, n2={}) or s.last.held.clear(),
    "a client holds more than the nodes": lambda s: (
        setattr(s.second, "outcome", Outcome.UNKNOWN) or s.states.update(n1={"a": 1}, n2={"a": 1})
    ),
}


@pytest.mark.parametrize("doctor", LOST.values(), ids=LOST)
def test_a_loss_is_found(doctor: Callable[[Story], object]):
    """Acknowledged and live, but not there."""
    story = Story()
    doctor(story)
    assert found(story) == {"lost": 1}


OUTSIDE: dict[str, Callable[[Visit], object]] = {
    "it was elsewhere": lambda v: v.events.__setitem__(0, AWAY),
    "it had moved away before": lambda v: v.events.insert(1, AWAY),
    "nobody published it": lambda v: v.events.append(Came("b", 1, START)),
    "a revision that nobody published": lambda v: v.events.append(told(3)),
    "a revision as a cancel": lambda v: v.events.append(told(2, cancels=True)),
}


@pytest.mark.parametrize("doctor", OUTSIDE.values(), ids=OUTSIDE)
def test_one_told_outside_is_found(doctor: Callable[[Visit], object]):
    """Neither inside nor a recipient."""
    story = Story()
    doctor(story.her)
    assert found(story) == {"outside": 1}


def test_a_node_that_lists_what_nobody_published_is_found():
    """Whoever comes next would be told."""
    story = Story()
    story.states["n2"] = story.states["n2"] | {"b": 1}
    assert found(story) == {"outside": 1}


def test_a_cancel_to_one_who_was_never_told_is_found():
    """Rule 4: recipients, and nobody else."""
    story = Story()
    story.cancelled()
    story.visit("bob", {}).events.extend([HERE, told(3, cancels=True)])
    assert found(story) == {"outside": 1}


def test_a_refused_operation_that_was_sent_is_found():
    """What was refused did not happen."""
    story = Story()
    story.invoke("a", 3, AREA, END).outcome = Outcome.FAIL
    story.her.events.append(told(3))
    assert found(story) == {"outside": 1}


def test_who_was_told_is_told_more_wherever_he_is():
    """Rule 1, and rule 5: sent on this connection, or held."""
    story = Story()
    story.visit("bob", {"a": 1}).events.extend([AWAY, told(2)])
    story.visit("cid", {}).events.extend([HERE, told(1), AWAY, told(2)])
    assert found(story) == {}


def test_what_came_too_late_is_found():
    """After the end; after a newer revision; after the cancel."""
    story = Story()
    story.visit("bob", {}).events.extend([HERE, told(1, at=END + 60)])
    story.visit("cid", {}).events.extend([HERE, told(2), told(1)])
    story.visit("dan", {"a": 2}).events.extend([HERE, told(1)])
    assert found(story) == {"stale": 3}
    story.cancelled()
    story.visit("eve", {"a": 1}).events.extend([HERE, told(3, cancels=True), told(2)])
    assert found(story) == {"stale": 4}


def test_old_news_to_one_who_came_when_all_was_settled_is_found():
    """A superseded or cancelled revision, even if the newer one follows."""
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


def test_old_news_long_after_it_was_superseded_is_found():
    """A node may be behind for a while, not for ever: something has come back to life."""
    story = Story()
    story.visit("bob", {}).events.extend([HERE, told(1, at=START + 10), told(2)])
    assert found(story) == {}
    story.visit("cid", {}).events.extend([HERE, told(1, at=LATER), told(2)])
    assert found(story) == {"stale": 1}
    story.cancelled()
    story.visit("dan", {}).events.extend([HERE, told(2, at=LATER), told(3, cancels=True)])
    assert found(story) == {"stale": 2}


def test_what_is_held_too_long_is_found():
    """Cancelled, superseded or expired, and still held at the end."""
    story = Story()
    story.finals.append(Final("bob", HERE, {"a": 1}, LATER))
    assert found(story) == {"stale": 1}
    story.cancelled()
    assert found(story) == {"stale": 1}
    story = Story()
    story.first.ends = story.second.ends = LATER - 10
    assert found(story) == {"stale": 1}


def test_a_cancelled_alert_that_comes_back_to_life_is_found():
    """The nodes show it as live again."""
    story = Story()
    story.cancelled()
    story.states = {"n1": {"a": 2}, "n2": {"a": 2}}
    story.last.held = {"a": 2}
    assert found(story) == {"stale": 1}


def test_duplicates_are_found():
    """Twice on one connection, or to one who said that he holds it; on two connections it is none."""
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
def test_an_unknown_operation_may_have_happened_or_not(happened: bool):
    """Both are right, if all agree."""
    story = Story()
    story.second.outcome = Outcome.UNKNOWN
    if not happened:
        story.her.events.pop()
        story.last.held = {"a": 1}
        story.states = {"n1": {"a": 1}, "n2": {"a": 1}}
    assert found(story) == {}


def test_an_unknown_operation_has_happened_for_all_or_for_none():
    """Nodes that disagree; clients that disagree with the nodes."""
    story = Story()
    story.second.outcome = Outcome.UNKNOWN
    story.states["n2"] = {"a": 1}
    assert found(story) == {"divided": 1}
    story.states["n2"] = {"a": 2}
    story.finals.append(Final("bob", HERE, {"a": 1}, LATER))
    assert found(story) == {"stale": 1}


def test_an_unknown_first_revision_or_cancel():
    """The alert exists or not; it has ended or not."""
    story = Story()
    story.invoke("b", 1, AREA, END)
    assert story.allowed("b") == {None, 1}
    assert found(story) == {}
    story.invoke("a", 3, None, END)
    assert story.allowed("a") == {2, None}
    assert found(story) == {}
