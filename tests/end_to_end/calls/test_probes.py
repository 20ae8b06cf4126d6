"""A dispatcher who tries to find out where somebody is who is sent nothing: by bisection, with calls on a real node."""

import random
from collections.abc import Iterator
from pathlib import Path

import h3
import pytest
from end_to_end.kit.alerts import Json, ground
from end_to_end.kit.dispatcher import DISPATCH_SCOPE, ONE_RING, call_at, calling_node
from end_to_end.kit.earth import Point, distance
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.responder import Responder, here
from end_to_end.kit.times import wait_until

RING_M = 300
CELL_M = 210.0  # the radius of `near`, by which each call's radius is extended
PROBES = 12
POLICY = ONE_RING.replace("rings_m = [2000]", f"rings_m = [{RING_M}]\nrest_s = 600")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Start a node whose calls have one radius, and whose responders rest for ten minutes."""
    with calling_node(tmp_path, Keys(quals=["cpr", "medic"]), policy=POLICY) as node:
        yield node
        node.assert_no_surprise()


class Attacker:
    """A dispatcher who opens calls and reads everything that the node says about them."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._token = node.keys.token(sub="cad-3", scope=DISPATCH_SCOPE)
        self._number = 0

    def open(self, spot: Point) -> Json:
        """Open a call at a place, and return the answer."""
        self._number += 1
        answer = self._node.post("/v1/calls", call_at(spot, f"cad-3.{self._number}"), self._token)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def state(self, call_id: str) -> Json:
        """Return the state of a call."""
        return self._node.get(f"/v1/calls/{call_id}", self._token).json()

    def end(self, call_id: str) -> None:
        """End a call."""
        assert self._node.post(f"/v1/calls/{call_id}/end", {"reason": "Over."}, self._token).status_code == 201

    def learns(self, spot: Point, witness: Responder) -> Json:
        """Return what the answers about a call at a place say, apart from the call itself.

        The attacker's own responder stands at the centre of each call, and is sent the call after everybody of whom the
        node counts something.
        """
        witness.barrier(here(middle(spot)))
        opened = self.open(spot)
        witness.take("call")
        witness.say("ack", id=opened["id"], revision=1)
        wait_until(lambda: self.state(opened["id"])["seen"] == 1, "the attacker's own responder is counted")
        said = {name: value for name, value in self.state(opened["id"]).items() if name != "call"}
        self.end(opened["id"])
        witness.take("standdown")
        return said


def middle(spot: Point) -> Point:
    """Return the centre of the cell that contains a place: the centre of each call's circle is one."""
    return h3.cell_to_latlng(h3.latlng_to_cell(*spot, 9))


def is_within(spot: Point, centre: Point) -> bool:
    """Return whether a call round `centre` notifies somebody at a place."""
    return distance(spot, centre) <= CELL_M + RING_M


def odds(centre: Point, places: list[Point]) -> int:
    """Return by how many places the two halves differ into which a call splits them."""
    return abs(len(places) - 2 * sum(is_within(each, centre) for each in places))


def test_place_of_a_responder_who_rests_is_not_narrowed_by_any_number_of_calls(node: Node):
    """Calls around somebody who rests are answered as calls elsewhere are, and nothing is sent (DP30, RZ7, TH10)."""
    spot, far = ground(), ground()
    attacker, dice = Attacker(node), random.Random(7)
    with Responder(node, "r-1", here(spot)) as resting, Responder(node, "r-2", here(far)) as witness:
        call_id = attacker.open(spot)["id"]
        resting.take("call")
        resting.say("accept", id=call_id)
        resting.take("task")
        attacker.end(call_id)
        resting.take("standdown")

        places = [(spot[0] + dice.uniform(-8e-3, 8e-3), spot[1] + dice.uniform(-8e-3, 8e-3)) for _ in range(199)]
        places.append(spot)
        elsewhere, left = attacker.learns(far, witness), places
        for _ in range(PROBES):
            centre = min((middle(dice.choice(places)) for _ in range(12)), key=lambda each: odds(each, left))
            if attacker.learns(centre, witness) != elsewhere:
                left = [each for each in left if is_within(each, centre)]
            elif left != places:
                left = [each for each in left if not is_within(each, centre)]
        assert left == places, f"{len(left)} of {len(places)} places are left"
        resting.barrier(here(spot))


def test_each_probe_that_counts_a_lone_responder_calls_that_responder(node: Node):
    """Whoever narrows the place of somebody on duty by what is counted calls that person in the open (DP30)."""
    spot, dice = ground(), random.Random(3)
    attacker = Attacker(node)
    counted = list[bool]()
    with Responder(node, "r-1", here(spot)) as alone, Responder(node, "r-2") as witness:
        for _ in range(PROBES):
            centre = (spot[0] + dice.uniform(-8e-3, 8e-3), spot[1] + dice.uniform(-8e-3, 8e-3))
            counted.append(attacker.learns(centre, witness)["rung"] == 2)
            if counted[-1]:
                assert alone.take("call")["call"]["source"] == "cad-3"
                alone.take("standdown")
            alone.barrier(here(spot))
    assert set(counted) == {True, False}
