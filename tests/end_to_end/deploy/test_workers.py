"""Several processes that share the stream listener are one node: nobody can tell which one he is at.

Sessions land on processes as the kernel likes, so each test has enough of them to be on all.
"""

import contextlib
import os
import platform
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from end_to_end.kit.alerts import alert, ground, place, revision_of
from end_to_end.kit.earth import beyond
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import FORMATS, Session, revise_and_cancel
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import CLOSE, PATIENCE

Join = Callable[..., Session]
WORKERS = 2
CROWD = 24


@pytest.fixture(scope="module")
def workers(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node of two processes."""
    with Node(tmp_path_factory.mktemp("workers"), keys, "--workers", str(WORKERS)) as node:
        yield node


def test_everybody_is_sent_everything_once_whatever_the_process(workers: Node, join: Join):
    """Section 4, "Durable": every subscriber in the area; early, late, revised, cancelled."""
    spot = ground()
    early = [join(workers, place(spot), fmt=FORMATS[i % 2]) for i in range(CROWD)]
    aside = [join(workers, place(beyond(spot, 90, 50_000))) for _ in range(4)]
    body = alert(spot)
    workers.publish(body)
    for session in early:
        session.listen(body["id"], 1)
    late = [join(workers, place(spot), fmt=FORMATS[i % 2]) for i in range(CROWD)]
    for session in late:
        session.listen(body["id"], 1)
    revise_and_cancel(body, workers, workers, told=[*early, *late], aside=aside)


def test_the_counts_are_those_of_all_processes(workers: Node, join: Join):
    """Section 4, "Counts": all nodes."""
    spot = ground()
    sessions = [join(workers, place(spot)) for _ in range(CROWD)]
    body = alert(spot)
    workers.publish(body)
    for session in sessions:
        session.listen(body["id"], 1)
        session.ack(body["id"], 1)
    workers.wait_for_counts(body["id"], sent=CROWD, acked=CROWD)


def test_who_comes_back_is_made_right_whatever_the_process(workers: Node, join: Join):
    """Rule 5: to whichever node, whatever was lost in between."""
    spot = ground()
    body, gone = alert(spot), alert(spot)
    workers.publish(body)
    workers.publish(gone)
    workers.revise(revision_of(body, 2))
    workers.cancel(gone["id"], 2)
    holding = {body["id"]: 1, gone["id"]: 1}
    for _ in range(CROWD):
        session = join(workers, place(beyond(spot, 90, 50_000)), holding=holding)
        session.listen(body["id"], 2)
        session.listen(gone["id"], "cancel")


def test_what_has_ended_is_sent_by_no_process(workers: Node, join: Join):
    """Section 3: nothing after `expires_at`, by no path."""
    spot = ground()
    body, _ = workers.publish_brief(alert(spot))
    workers.wait_for_end(body["id"])
    for _ in range(CROWD):
        assert join(workers, place(spot), holding={body["id"]: 1}).welcome["live"] == 0


def test_a_restart_of_all_processes_loses_nothing(workers: Node, join: Join):
    """Section 4, "Durable": kill -9 of all of them, and a start on the same log."""
    spot = ground()
    body = alert(spot)
    workers.publish(body)
    workers.restart()
    for _ in range(CROWD):
        join(workers, place(spot)).listen(body["id"], 1)


def stream_process(node: Node) -> int:
    """The first of a node's stream processes."""
    return process_called("stream-0", node)


def process_called(name: str, node: Node) -> int:
    """One of a node's processes: `ps -o comm` and `top` show which is which."""
    [found] = [pid for pid in node.children() if Path(f"/proc/{pid}/comm").read_text().strip() == name]
    return found


def test_the_metrics_tell_of_a_process_that_hangs_and_of_one_that_was_replaced(workers: Node):
    """Section 4, `GET /metrics`: what an operator is woken by."""

    def shows(*lines: str) -> bool:
        return set(lines) <= set(workers.api.get("/metrics").text.splitlines())

    hanging = stream_process(workers)
    wait_until(lambda: shows("geocast_ready 1.0", "geocast_stream_processes_missing 0.0"), "all are there")
    os.kill(hanging, signal.SIGSTOP)
    wait_until(lambda: shows("geocast_ready 0.0", "geocast_stream_processes_missing 1.0"), "one is missed")
    os.kill(hanging, signal.SIGKILL)
    wait_until(lambda: shows("geocast_ready 1.0", "geocast_stream_restarts_total 1.0"), "it is replaced")


def test_a_node_is_one_build_however_many_processes(workers: Node):
    """Section 4, `GET /metrics`: `geocast_build_info` is 1, and says which release runs on which Python."""
    shown = [line for line in workers.api.get("/metrics").text.splitlines() if line.startswith("geocast_build_info")]
    version = workers.api.get("/openapi.json").json()["info"]["version"]
    assert shown == [f'geocast_build_info{{python="{platform.python_version()}",version="{version}"}} 1.0']


def test_the_api_process_is_replaced_and_nobody_is_let_go(workers: Node, join: Join):
    """Section 7: publishing goes on, and the sessions never notice."""
    spot = ground()
    crowd = [join(workers, place(spot)) for _ in range(CROWD)]
    dead = process_called("api", workers)
    os.kill(dead, signal.SIGKILL)
    wait_until(lambda: workers._ready() and process_called("api", workers) != dead, "it is replaced")
    body = alert(spot)
    workers.publish(body)
    for session in crowd:
        session.listen(body["id"], 1)


def sockets(pid: int) -> set[str]:
    """The sockets that a process has open."""
    links = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a file that it has closed meanwhile
            links.append(os.readlink(each))
    return {link for link in links if link.startswith("socket:")}


def test_a_process_keeps_open_what_is_its_own(workers: Node):
    """A listener that a process had beside its own would take in connections that it never looks at."""
    assert workers.process
    listeners = sockets(workers.process.pid)
    assert len(listeners) == 1 + WORKERS
    had = [sockets(pid) & listeners for pid in workers.children()]
    assert [len(its) for its in had] == [1] * (1 + WORKERS)
    assert set.union(*had) == listeners


def test_the_supervisor_has_no_thread_and_shares_what_it_has_imported(workers: Node):
    """So it can fork; most of a process that has nothing to do is its supervisor's too."""
    assert workers.process
    assert len(list(Path(f"/proc/{workers.process.pid}/task").iterdir())) == 1
    for pid in workers.children():
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        size = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
        assert size["Shared_Dirty"] + size["Shared_Clean"] > 2 * (size["Private_Dirty"] + size["Private_Clean"])


IN_A_HURRY = "told to end again"


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_drains_and_only_the_second_one_hurries(keys: Keys, tmp_path: Path, times: int):
    """Section 7: a terminal sends SIGINT to all processes of its group, and yet each is told to end once."""
    node = Node(tmp_path, keys, "--workers", str(WORKERS))
    node.launcher = ["setsid"]
    with node, contextlib.ExitStack() as hung_up:
        sessions = [hung_up.enter_context(node.join()) for _ in range(CROWD)]
        assert node.process
        os.killpg(node.process.pid, signal.SIGINT)
        assert [session.wire.recv().opcode for session in sessions] == [CLOSE] * CROWD
        if times == 2:
            os.killpg(node.process.pid, signal.SIGINT)
        else:
            hung_up.close()
        assert node.process.wait(PATIENCE) == 0
        assert (IN_A_HURRY in node.output()) == (times == 2)
