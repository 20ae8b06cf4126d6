"""The optimistic writer: it reads, decides and appends, and decides again if another writer was faster."""

import asyncio

import pytest
from support.fakes import a_cancel, a_revision

from geocast import failpoints
from geocast.alertlog.memory import MemoryLog
from geocast.alertlog.optimistic import ATTEMPTS, OptimisticWriter, Plan
from geocast.model.errors import LogUnavailable

ID = a_revision().id


class Node:
    """A node whose requests append the next revision. It records what it reads, decides and stores."""

    def __init__(self, log=None):
        self.log = log or MemoryLog()
        self.histories = []
        self.nudged = []
        self.writer = OptimisticWriter(self.log, self.nudged.append, "others are faster")
        self.before_append = lambda: None  # what other writers do between this node's reading and its appending

    async def read(self):
        """Return the history, as the services would read it."""
        return await self.log.history(ID)

    def decide(self, history):
        """Append the next revision, whatever the history is."""
        self.histories.append(len(history))
        self.before_append()
        entry = a_revision(revision=len(history) + 1)
        return Plan(f"revision {entry.revision}", [entry])

    def answer(self, decide=None, append=None):
        """Return the answer to one request."""
        return asyncio.run(self.writer.decide_and_append(self.read, decide or self.decide, append))

    def stored(self):
        """Return the numbers of the entries in the log."""
        return [entry.revision for entry in asyncio.run(self.log.history(ID))]


def test_planned_entries_are_appended_and_reported():
    """The answer of the plan is returned, and `appended` is called with each entry."""
    node = Node()
    assert [node.answer(), node.answer()] == ["revision 1", "revision 2"]
    assert node.stored() == [1, 2]
    assert [entry.revision for entry in node.nudged] == [1, 2]


def test_process_can_be_killed_between_storing_and_reporting_of_each_entry(monkeypatch):
    """The tests of whole processes kill a node at this point (`failpoints`)."""
    node, seen = Node(), []
    monkeypatch.setattr(failpoints, "hit", lambda point: seen.append((point, node.log._last, len(node.nudged))))
    node.answer()
    node.answer()
    assert seen == [("after-append", 1, 0), ("after-append", 2, 1)]


def test_plan_without_entries_returns_its_answer_and_stores_nothing():
    """A repeated request and a dry run need only one decision (Rule 2)."""
    node = Node()
    assert node.answer(lambda history: node.histories.append(len(history)) or Plan("repeated")) == "repeated"
    assert (node.histories, node.stored(), node.nudged) == ([0], [], [])


def test_node_decides_again_if_another_node_appended_first():
    """The second decision sees the entry of the faster node, as in the module's example (Rule 3)."""
    node = Node()
    node.answer()
    faster = iter([a_revision(revision=2, headline="of the faster node")])
    node.before_append = lambda: next(map(node.log.take, faster), None)
    assert node.answer() == "revision 3"
    assert node.histories == [0, 1, 2]
    assert node.stored() == [1, 2, 3]
    assert [entry.revision for entry in node.nudged] == [1, 3]


def test_request_overtaken_by_cancel_is_refused_by_second_decision():
    """The error of the second decision is raised, and nothing is stored (Rules 2 and 3)."""
    node = Node()
    node.answer()
    node.before_append = lambda: node.log.take(a_cancel(revision=2))

    def decide(history):
        if len(history) == 2:
            raise ValueError("it has ended")
        return node.decide(history)

    with pytest.raises(ValueError, match="ended"):
        node.answer(decide)
    assert (node.histories, node.stored()) == ([0, 1], [1, 2])


def test_request_that_other_nodes_always_overtake_raises_log_unavailable():
    """After ATTEMPTS decisions the outcome is unknown, and the error has the text of the service (Rule 3)."""
    node = Node()
    node.before_append = lambda: node.log.take(a_revision(revision=len(node.histories)))
    with pytest.raises(LogUnavailable, match="others are faster"):
        node.answer()
    assert node.histories == list(range(ATTEMPTS))
    assert node.nudged == []


@pytest.mark.parametrize("broken", ["history", "append"])
def test_unavailable_log_is_not_tried_again(broken):
    """It is unknown whether the entry was stored, so the client has to repeat the request (Rule 4)."""
    node, calls = Node(), []

    async def unavailable(_):
        calls.append(broken)
        raise LogUnavailable("out of reach")

    setattr(node.log, broken, unavailable)
    with pytest.raises(LogUnavailable, match="out of reach"):
        node.answer()
    assert (len(calls), node.nudged) == (1, [])


def test_entries_are_appended_until_one_has_number_that_is_taken():
    """Entries before the taken number stay stored, and the next plan continues from there."""
    node = Node()

    def decide(history):
        numbers = (2, 3) if history else (1, 3, 2)
        return Plan(f"from {numbers[0]}", [a_revision(revision=number) for number in numbers])

    assert node.answer(decide) == "from 2"
    assert node.stored() == [1, 2, 3]
    assert [entry.revision for entry in node.nudged] == [1, 2, 3]


def test_append_function_of_caller_replaces_that_of_writer():
    """The caller's function may do something before it appends, and may return False."""
    node, tries = Node(), []

    async def append(entries):
        tries.append(len(entries))
        return len(tries) == 3 and await node.writer.append(entries)

    assert node.answer(append=append) == "revision 1"
    assert (tries, node.stored()) == ([1, 1, 1], [1])
