"""The random walk while more than a thousand other alerts are live, here and abroad: none may come to a phone.

The model of `test_random_walk` fails at once for whatever is sent that it knows nothing of.
"""

from pathlib import Path

import pytest
from end_to_end.kit.alerts import alert, circle, new_id
from end_to_end.kit.earth import Point, beyond
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.stream.test_random_walk import SEED, STEPS, Walk, with_polygons

OTHERS = 1_500
AT_ONCE = 250
NEXT_TOWN_M, ABROAD_M = 30_000, 7_000_000


def others(town: Point) -> list[Point]:
    """Where the others are: every second one in the next town, whichever that is."""
    return [beyond(town, at % 360, at + (NEXT_TOWN_M if at % 2 else ABROAD_M)) for at in range(OTHERS)]


@pytest.mark.slow
def test_a_walk_among_more_than_a_thousand_live_alerts_shows_what_the_rules_say(tmp_path: Path, keys: Keys):
    """Section 5, "Who is sent what", rules 1 to 8, across a kill: all of them are read again then."""
    with Node(tmp_path, keys, "--policy", str(with_polygons(tmp_path))) as node:
        walk = Walk(node, SEED + 1)
        bodies = [alert(spot, id=new_id("other"), area=circle(spot, 500)) for spot in others(walk.town)]
        for start in range(0, OTHERS, AT_ONCE):
            answers = node.at_once("/v1/alerts", bodies[start : start + AT_ONCE])
            assert {answer.status_code for answer in answers} == {201}
        walk.go(STEPS // 2)
