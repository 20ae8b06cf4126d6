"""One unexpected exception inside the stream side of a node, at one call after the other of the same story.

After the exception the phones that were dropped come back with `holding`, and half a minute passes. Then every phone
has to have what it should have; no connection was sent an entry twice, and nobody an alert that is not for its places.
"""

import os

from stream.loopless import Faults, Node, revision
from support.fakes import a_cancel

from geocast.stream.fanout import MOST_AGAIN_S

LEAVING = {"Connection._leave"}


def play(node):
    """Let phones come, move, be slow, leave and come back, while alerts are revised and cancelled, and end."""
    first, second = node.phone("first", 0, "json"), node.phone("second", 100, "msgpack")
    third, fourth = node.phone("third", 5000, "json"), node.phone("fourth", 200, "json")
    node.run(0.2)
    node.publish(revision("one"))
    node.run(0.1)
    node.publish(revision("two", metres=5000))
    node.publish(revision("far", metres=90_000))
    node.run(0.1)
    node.publish(revision("one", 2, metres=300))
    second.move(5000)
    node.run(0.1)
    third.move(0)
    node.publish(revision("two", 2, metres=100))
    node.run(0.1)
    fourth.drop()
    fourth.is_away = True
    node.publish(a_cancel("one", 3))
    node.publish(revision("three", metres=100, radius_m=6000))
    node.run(0.1)
    fourth.is_away = False
    first.reads = False
    for number in range(1, 8):  # more than the kernel keeps for a phone that does not read
        node.publish(revision("four", number, description="x" * 1000))
        node.run(0.1)
    node.publish(a_cancel("three", 2))
    node.run(0.1)
    first.reads = True
    node.run(0.2)
    node.publish(revision("short", expires_at=node.clock.wall_ms + 400))
    node.publish(revision("five", metres=4000, radius_m=5000))
    first.move(4500)
    node.run(1.0)
    third.drop()
    node.publish(revision("five", 2, metres=4000, radius_m=2000))
    for number in range(1, 11):  # the phones only listen, so they are pinged
        node.publish(revision("six", number, radius_m=9000))
        node.run(4.5, 0.5)


def wrongs(monkeypatch, faults, at=None):
    """Play the story with one exception, at the call with the number `at`, and return what is wrong afterwards."""
    with monkeypatch.context() as patch:
        node = Node(patch)
        faults.calls, faults.at, faults.on = [], at, True
        try:
            play(node)
            faults.on = False
            node.run(MOST_AGAIN_S + 5, 0.5)
            node.publish(revision("last", radius_m=9000))  # whoever is connected is still sent something
            node.run(1.0, 0.5)
            found = [each for phone in node.phones for each in phone.verdict()]
            rows = len(node.server._hub) - (at is not None and faults.calls[at] in LEAVING)
            if (rows, len(node.transports)) != (len(node.phones), len(node.phones)):
                found.append(f"{rows} rows and {len(node.transports)} connections of {len(node.phones)} phones")
            return found
        finally:
            faults.on = False
            node.close()


def test_exception_at_any_call_leaves_nobody_out(monkeypatch):
    """Each method raises once at its first call, and once at its last (in `make soak-injections`, at each)."""
    faults = Faults(monkeypatch)
    assert wrongs(monkeypatch, faults) == []
    calls = list(faults.calls)
    places: dict[str, list[int]] = {}
    for at, name in enumerate(calls):
        places.setdefault(name, []).append(at)
    if "SINGLE_FAULTS" not in os.environ:
        places = {name: [at[0], at[-1]] for name, at in places.items()}
    assert {"Sender._collect", "DeliveryFlags.shift", "Hub.on_drained", "LiveAlerts.apply", "FanOut.move"} < set(places)
    found = {
        f"{at} {name}": wrong
        for name, numbers in places.items()
        for at in sorted(set(numbers))
        if (wrong := wrongs(monkeypatch, faults, at))
    }
    assert not found
