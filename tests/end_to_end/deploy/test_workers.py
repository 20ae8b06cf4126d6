"""Several processes that share the stream listener behave as one node.

The kernel distributes sessions over the processes, so each test has enough sessions to reach all of them.
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

from geocast import commit

Join = Callable[..., Session]
WORKERS = 2
CROWD = 24


@pytest.fixture(scope="module")
def workers(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with two stream processes."""
    with Node(tmp_path_factory.mktemp("workers"), keys, "--workers", str(WORKERS)) as node:
        yield node


def test_every_subscriber_gets_each_message_once_whichever_process_it_uses(workers: Node, join: Join):
    """Early and late subscribers receive the alert, its revision and its cancel (section 4, "Durable")."""
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


def test_delivery_counts_of_an_alert_include_all_processes(workers: Node, join: Join):
    """The counts are described in section 4, "Counts"."""
    spot = ground()
    sessions = [join(workers, place(spot)) for _ in range(CROWD)]
    body = alert(spot)
    workers.publish(body)
    for session in sessions:
        session.listen(body["id"], 1)
        session.ack(body["id"], 1)
    workers.wait_for_counts(body["id"], sent=CROWD, acked=CROWD)


def test_reconnecting_client_gets_missed_messages_from_any_process(workers: Node, join: Join):
    """A client may reconnect to any node, whatever it missed (Rule 5)."""
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


def test_expired_alert_is_sent_by_no_process(workers: Node, join: Join):
    """Nothing is sent after `expires_at` (section 3)."""
    spot = ground()
    body, _ = workers.publish_brief(alert(spot))
    workers.wait_for_end(body["id"])
    for _ in range(CROWD):
        assert join(workers, place(spot), holding={body["id"]: 1}).welcome["live"] == 0


def test_restart_of_all_processes_loses_no_alert(workers: Node, join: Join):
    """All processes are killed and started again on the same log (section 4, "Durable")."""
    spot = ground()
    body = alert(spot)
    workers.publish(body)
    workers.restart()
    for _ in range(CROWD):
        join(workers, place(spot)).listen(body["id"], 1)


def stream_process(node: Node) -> int:
    """Return the id of the first of a node's stream processes."""
    return process_called("stream-0", node)


def process_called(name: str, node: Node) -> int:
    """Return the id of a node's process by its name, which `ps -o comm` and `top` show."""
    [found] = [pid for pid in node.children() if Path(f"/proc/{pid}/comm").read_text().strip() == name]
    return found


def test_metrics_show_hanging_and_replaced_processes(workers: Node):
    """Operators have alerting rules for these metrics (section 4, `GET /metrics`)."""

    def shows(*lines: str) -> bool:
        return set(lines) <= set(workers.api.get("/metrics").text.splitlines())

    hanging = stream_process(workers)
    wait_until(lambda: shows("geocast_ready 1.0", "geocast_stream_processes_missing 0.0"), "all are there")
    os.kill(hanging, signal.SIGSTOP)
    wait_until(lambda: shows("geocast_ready 0.0", "geocast_stream_processes_missing 1.0"), "one is missed")
    os.kill(hanging, signal.SIGKILL)
    wait_until(lambda: shows("geocast_ready 1.0", "geocast_stream_restarts_total 1.0"), "it is replaced")


def test_metrics_count_everything_that_was_sent_before_the_scrape(workers: Node, join: Join):
    """The processes are asked when /metrics is read (Rule 5 of `workers`)."""

    def sent() -> float:
        [line] = [line for line in workers.api.get("/metrics").text.splitlines() if line.startswith("geocast_sends_")]
        return float(line.split()[-1])

    spot, before = ground(), sent()
    sessions = [join(workers, place(spot)) for _ in range(CROWD)]
    body = alert(spot)
    workers.publish(body)
    for session in sessions:
        session.listen(body["id"], 1)
    assert sent() - before == CROWD


def test_build_info_appears_once_for_all_processes(workers: Node):
    """`geocast_build_info` is 1, and names the releases of geocast and Python (section 4, `GET /metrics`)."""
    shown = [line for line in workers.api.get("/metrics").text.splitlines() if line.startswith("geocast_build_info")]
    version = workers.api.get("/openapi.json").json()["info"]["version"]
    assert shown == [
        f'geocast_build_info{{commit="{commit()}",python="{platform.python_version()}",version="{version}"}} 1.0'
    ]


def test_killed_api_process_is_replaced_and_sessions_stay_open(workers: Node, join: Join):
    """Publishing goes on (section 7)."""
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
    """Return the open sockets of a process."""
    links = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the process has closed this file meanwhile
            links.append(os.readlink(each))
    return {link for link in links if link.startswith("socket:")}


def test_each_process_keeps_only_its_own_listener_open(workers: Node):
    """A process would not serve the connections of a second listener, although the kernel would assign some to it."""
    assert workers.process
    listeners = sockets(workers.process.pid)
    assert len(listeners) == 1 + WORKERS
    had = [sockets(pid) & listeners for pid in workers.children()]
    assert [len(its) for its in had] == [1] * (1 + WORKERS)
    assert set.union(*had) == listeners


def test_supervisor_has_one_thread_and_shares_its_memory_with_workers(workers: Node):
    """Only a process with one thread can fork safely. Most of an idle worker's memory is shared."""
    assert workers.process
    assert len(list(Path(f"/proc/{workers.process.pid}/task").iterdir())) == 1
    for pid in workers.children():
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        size = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
        assert size["Shared_Dirty"] + size["Shared_Clean"] > 2 * (size["Private_Dirty"] + size["Private_Clean"])


IN_A_HURRY = "a second signal to stop has arrived"


@pytest.mark.parametrize("times", [1, 2])
def test_first_ctrl_c_drains_the_node_and_the_second_ends_it_at_once(keys: Keys, tmp_path: Path, times: int):
    """A terminal sends SIGINT to all processes of its group. Each process must react to it only once (section 7)."""
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
