"""One unexpected exception inside the calls of a node, at one call after the other of the same story.

After the exception the phones that were dropped come back with `holding`, and some time passes. Then everybody has what
the rules and the log say, and a new call reaches those it should.
"""

import asyncio
import os

from calls.rules import RINGS_M
from calls.virtual import Faults, Node

# What these do is called by `CallWorker._retry`, which calls it again; they do nothing themselves that may fail.
NOTHING_FAILS_THERE = {"CallWorker._retry", "CallWorker._report"}


async def story(node):
    """Open, correct, answer and end a call, let another one expire, and open one that stays."""
    near, second = node.phone("r-near", 0, "cpr"), node.phone("r-second", 50, "medic", "x")
    third, decliner = node.phone("r-third", 100, "cpr"), node.phone("r-decliner", 150, "cpr")
    shower, roamer = node.phone("r-shower", 200, "cpr"), node.phone("r-roamer", 250, "cpr", held={"one": 1})
    outer, farthest = node.phone("r-outer", 420, "medic"), node.phone("r-farthest", 600, "cpr")
    node.phone("r-away", 2_000, "cpr"), node.phone("r-none", 0), node.phone("r-other", 10, "x")
    await asyncio.sleep(0.3)
    await node.open("one")
    await asyncio.sleep(1.5)
    shower.acknowledge("one")
    decliner.decline("one")
    for each in (near, second, third):
        each.accept("one")
    await asyncio.sleep(0.5)
    roamer.leave()
    await node.revise("Adult, not breathing; second floor.")
    await asyncio.sleep(0.5)
    node.one_with("task", "one").report("one", "aed")
    node.one_with("task", "one").decline("one")
    await asyncio.sleep(0.5)
    roamer.is_away = False
    await node.settle()
    shower.leave()
    shower.is_away = False
    third.accept("one")
    await asyncio.sleep(0.5)
    node.one_with("task", "one").report("one", "arrived")
    calls = await node.settle()
    node.expect(calls["one"].arrived, "the report is not in the log")
    await node.open("short", lasts_s=6)
    await node.end("one")
    await asyncio.sleep(0.5)
    decliner.accept("short")
    await asyncio.sleep(8)
    calls = await node.settle()
    node.expect(calls["short"].ended_s, "the call that has expired was not ended")
    await node.open("stays")
    await asyncio.sleep(0.7)
    outer.accept("stays")
    shower.accept("stays")
    shower.report("stays", "aed")
    farthest.accept("stays")
    await node.settle()
    await node.open("last")
    calls = await node.settle()
    node.expect(calls["last"].ring == len(RINGS_M) - 1, "the radius did not grow")


def wrongs(faults, at=None):
    """Play the story with one exception, at the call with the number `at`, and return what is wrong afterwards."""
    faults.calls, faults.at = [], at
    node = Node(faults)
    node.play(story)
    return node.wrong


def test_exception_at_any_call_leaves_nobody_out(monkeypatch):
    """Each method raises once: at its first call, at a middle one and at its last; with SINGLE_FAULTS at each call."""
    faults = Faults(monkeypatch)
    assert wrongs(faults) == []
    places: dict[str, list[int]] = {}
    for at, name in enumerate(faults.calls):
        if name not in NOTHING_FAILS_THERE:
            places.setdefault(name, []).append(at)
    if "SINGLE_FAULTS" not in os.environ:
        places = {name: [at[0], at[len(at) // 2], at[-1]] for name, at in places.items()}
    found = {
        f"{at} {name}": wrong
        for name, numbers in places.items()
        for at in sorted(set(numbers))
        if (wrong := wrongs(faults, at))
    }
    assert not found
