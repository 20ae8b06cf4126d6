"""How much time the checker gives a node to catch up with the log, after the outages of a fault run."""

import pytest
from end_to_end.kit.outages import BEHIND_S, CALM_S, Outage, read_by_all


@pytest.mark.parametrize(
    ("outages", "by"),
    [
        ([], BEHIND_S),
        ([(10, 12), (20, 25)], BEHIND_S),
        ([(-20, -5), (5, 20)], BEHIND_S),
        ([(0, 15), (18, 35), (41, 58), (66, 83)], 83 + CALM_S - 3 - 6 - 8),
        ([(0, 15), (50, 80), (81, 110)], BEHIND_S),
        ([(0, 15), (18, float("inf"))], float("inf")),
    ],
    ids=["none", "short ones", "before", "one after the other", "after a calm", "one that does not end"],
)
def test_nodes_are_allowed_more_time_to_catch_up_after_long_outages(outages: list[tuple[float, float]], by: float):
    """Outages of less than LONG_S, and those after CALM_S without one, count for nothing."""
    found = read_by_all(1_000.0, [Outage("failover", 1_000 + start, 1_000 + end) for start, end in outages])
    assert found == 1_000 + by
