"""The random walk while 1,500 other alerts are live, near and far; no phone may be sent any of them.

The model of `test_random_walk` fails at once for an alert that it does not know.
"""

from pathlib import Path

import pytest
from end_to_end.kit.alerts import alert, circle, new_id
from end_to_end.kit.earth import Point, beyond
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.stream.test_random_walk import SEED, STEPS, Walk, with_polygons

OTHERS = 1_500
AT_ONCE = 30  # a pool of httpx takes time in the square of its connections
NEXT_TOWN_M, ABROAD_M = 30_000, 7_000_000


def others(town: Point) -> list[Point]:
    """Return where the other alerts are: every second one in the next town, the rest far away."""
    return [beyond(town, at % 360, at + (NEXT_TOWN_M if at % 2 else ABROAD_M)) for at in range(OTHERS)]


@pytest.mark.slow
def test_messages_follow_the_delivery_rules_with_1500_live_alerts(tmp_path: Path, keys: Keys):
    """Every message follows rules 1 to 8 of the protocol, section 5. The kill makes the node read all alerts again."""
    with Node(tmp_path, keys, "--policy", str(with_polygons(tmp_path))) as node:
        walk = Walk(node, SEED + 1)
        bodies = [alert(spot, id=new_id("other"), area=circle(spot, 500)) for spot in others(walk.town)]
        for start in range(0, OTHERS, AT_ONCE):
            answers = node.at_once("/v1/alerts", bodies[start : start + AT_ONCE])
            assert {answer.status_code for answer in answers} == {201}
        walk.go(STEPS // 4)
