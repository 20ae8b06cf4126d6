"""Ways to send: as the machine has it, in a container that forbids io_uring, and where Linux AIO is forbidden too.

The calls are forbidden for real, by a seccomp filter. All other tests run as the machine has it.
"""

import sys
from collections.abc import Iterator

import pytest
from end_to_end.kit.alerts import alert, ground, place
from end_to_end.kit.earth import beyond
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import FORMATS, revise_and_cancel

from bench import forbid

FORBIDDEN = {"free": (), "container": (forbid.IO_URING,), "one by one": (forbid.IO_URING, forbid.AIO)}
BATCHED = ("free", "container")
A_CROWD = 20  # of each wire format


@pytest.fixture(scope="module", params=FORBIDDEN)
def way(request: pytest.FixtureRequest) -> str:
    """What the node may use."""
    return request.param


@pytest.fixture(scope="module")
def node(way: str, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node to which some calls are forbidden."""
    node = Node(tmp_path_factory.mktemp("node"), keys)
    if FORBIDDEN[way]:
        node.launcher = [sys.executable, forbid.__file__, ",".join(FORBIDDEN[way])]
    with node:
        yield node


def test_everybody_inside_is_told_once_and_in_order_and_nobody_else(node: Node, join):
    """Section 5: an alert, its revision and its cancel, in both formats; and one who hung up hinders nobody."""
    here = ground()
    inside = [join(node, place(beyond(here, n, 5.0 * n)), fmt=fmt) for n in range(A_CROWD) for fmt in FORMATS]
    outside = [join(node, place(beyond(here, 90, 20_000)), fmt=fmt) for fmt in FORMATS]
    body = alert(here)
    node.publish(body)
    for session in inside:
        session.listen(body["id"], 1)
    inside.pop().drop()
    revise_and_cancel(body, node, node, inside, outside)
    node.assert_no_surprise()


def test_the_node_says_how_it_sends(node: Node, way: str):
    """In one line at its start, with what can be done where it is the slow way; and as a metric."""
    [said] = [line for line in node.output().splitlines() if "Linux AIO" in line]
    metrics = node.api.get("/metrics").text.splitlines()
    if way in BATCHED:
        assert "INFO" in said
        assert "geocast_stream_processes_unbatched 0.0" in metrics
    else:
        assert "WARNING" in said
        assert "(Operation not permitted)" in said
        assert "have seccomp allow io_setup" in said
        assert "geocast_stream_processes_unbatched 1.0" in metrics


@pytest.mark.parametrize("calls", ["io_setup,io_mend", ""])
def test_what_is_not_known_can_t_be_forbidden(calls: str):
    """Rather than be allowed without a word."""
    with pytest.raises(OSError, match=f"the number of {calls[-7:]}"):
        forbid.forbid(*calls.split(","))
