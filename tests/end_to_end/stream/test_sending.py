"""The three ways to send: by io_uring, by Linux AIO if io_uring is forbidden, and by one call for each socket.

A seccomp filter forbids the system calls for real. All other tests send in the way that the machine allows.
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
A_CROWD = 20  # sessions for each wire format


@pytest.fixture(scope="module", params=FORBIDDEN)
def way(request: pytest.FixtureRequest) -> str:
    """Return which way of sending the node may use."""
    return request.param


@pytest.fixture(scope="module")
def node(way: str, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start a node whose process may not use some system calls."""
    node = Node(tmp_path_factory.mktemp("node"), keys)
    if FORBIDDEN[way]:
        node.launcher = [sys.executable, forbid.__file__, ",".join(FORBIDDEN[way])]
    with node:
        yield node


def test_every_session_inside_gets_each_message_once_and_in_order(node: Node, join):
    """An alert, its revision and its cancel are sent in both formats; sessions outside get nothing.

    One session inside has disconnected, which does not affect the others (protocol, section 5).
    """
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


def test_log_and_metric_tell_whether_the_node_sends_in_batches(node: Node, way: str):
    """For the slow way, the log line is a warning that says what the operator can do."""
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
def test_helper_that_forbids_system_calls_refuses_an_unknown_name(calls: str):
    """A misspelt name must not leave the call allowed without notice."""
    with pytest.raises(OSError, match=f"the number of {calls[-7:]}"):
        forbid.forbid(*calls.split(","))
