"""Power cuts at chosen points, full disks, broken files, and workers that die."""

import contextlib
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from end_to_end.kit.alerts import Json, alert, ground, place, revision_of
from end_to_end.kit.disks import full
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.process import is_running
from end_to_end.kit.subscriber import Session, kept_alive
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE, Closed

Join = Callable[..., Session]

ROUNDS = 2
CROWD = 300  # subscribers; more than one slice of a fan-out


def post_into_failpoint(node: Node, point: str, path: str, body: Json) -> httpx.Response | None:
    """Post to a node that kills itself at `point`; return the answer, or None if none was sent."""
    assert node.process
    try:
        answer = node.post(path, body)
    except httpx.TransportError:
        answer = None
    assert node.process.wait(PATIENCE) == -signal.SIGKILL, f"{point} was not reached"
    return answer


def restart_with_failpoint(node: Node, point: str | None) -> None:
    """Restart the node so that it kills itself at `point`, or never if `point` is None."""
    node.kill()
    node.settings.pop("GEOCAST_FAILPOINT", None)
    if point is not None:
        node.settings["GEOCAST_FAILPOINT"] = point
    node.start()


@pytest.mark.parametrize("point", ["in-commit", "after-append", "after-201"])
def test_interrupted_publication_that_is_repeated_makes_one_alert(own_node: Node, join: Join, point: str):
    """Repeating a request until 200 or 201 makes one alert; a 201 is never taken back (section 4, "Durable")."""
    for _ in range(ROUNDS):
        spot = ground()
        body = alert(spot)
        restart_with_failpoint(own_node, point)
        answer = post_into_failpoint(own_node, point, "/v1/alerts", body)
        restart_with_failpoint(own_node, None)
        late = join(own_node, place(spot))
        if point != "in-commit":
            late.listen(body["id"], 1)  # the alert was durable before the kill
        again = own_node.post("/v1/alerts", body)
        assert again.status_code == (201 if point == "in-commit" else 200), again.text
        if answer is not None:
            assert answer.json() == again.json()
        late.listen(body["id"], 1)
        late.catch_up()
        assert late.heard(body["id"]) == [1]


@pytest.mark.parametrize("point", ["in-commit", "after-append", "after-201"])
def test_interrupted_revision_that_is_repeated_is_delivered_once(own_node: Node, join: Join, point: str):
    """The number of the interrupted revision is either taken or free, never both (section 4)."""
    spot = ground()
    body = alert(spot)
    own_node.publish(body)
    restart_with_failpoint(own_node, point)
    post_into_failpoint(own_node, point, f"/v1/alerts/{body['id']}/revisions", revision_of(body, 2))
    restart_with_failpoint(own_node, None)
    back = join(own_node, place(spot), holding={body["id"]: 1})
    assert own_node.post(f"/v1/alerts/{body['id']}/revisions", revision_of(body, 2)).status_code in (200, 201)
    back.listen(body["id"], 2)
    assert own_node.post(f"/v1/alerts/{body['id']}/revisions", revision_of(body, 3)).status_code == 201


def test_interrupted_fan_out_is_completed_when_clients_return(own_node: Node, join: Join):
    """Clients that hold the alert do not get it again; the others get it now (rule 5)."""
    restart_with_failpoint(own_node, "in-fan-out")
    spot = ground()
    body = alert(spot)
    crowd: list[Session] = []
    with kept_alive(crowd):
        for _ in range(CROWD):
            crowd.append(join(own_node, place(spot)))  # noqa: PERF401 (earlier sessions are kept alive while others join)
        post_into_failpoint(own_node, "in-fan-out", "/v1/alerts", body)
    had = [bool(heard_before_the_end(session)) for session in crowd]
    assert 0 < sum(had) < CROWD, "the cut came in the middle"
    restart_with_failpoint(own_node, None)
    for told in had:
        back = join(own_node, place(spot), holding={body["id"]: 1} if told else {})
        assert back.everything() == ([] if told else [(body["id"], 1)])
        back.drop()


def heard_before_the_end(session: Session) -> list[Json]:
    """Return the messages that came before the connection broke."""
    messages = []
    try:
        while True:
            messages.append(session.take())
    except Closed:
        return messages


# ---- a full disk -------------------------------------------------------------------------------------------------


def test_full_disk_gives_503_and_node_recovers_without_restart(
    keys: Keys, tmp_path: Path, small_disk: Path, join: Join
):
    """The problem is `log-unavailable`; sessions and live alerts go on (section 4)."""
    with Node(tmp_path, keys, log=f"sqlite:{small_disk}/geocast.db") as node:
        spot = ground()
        kept = alert(spot)
        node.publish(kept)
        session = join(node, place(spot))
        session.listen(kept["id"], 1)
        answers = []
        body = {}
        with full(small_disk):
            while not answers or answers[-1].status_code == 201:  # the log file may have free pages left
                body = alert(spot)
                answers.append(node.post_once("/v1/alerts", body))
            assert answers[-1].status_code == 503
            assert answers[-1].json()["type"] == "/problems/log-unavailable"
            assert "Retry-After" in answers[-1].headers
            wait_until(lambda: node.get("/readyz").status_code == 503, "not ready on a full disk")
            assert session.ask("ping")["type"] == "pong"
            join(node, place(spot)).listen(kept["id"], 1)
        wait_until(lambda: node.post("/v1/alerts", body).status_code in (200, 201), "the disk has space again")
        session.listen(body["id"], 1)
        wait_until(lambda: node.get("/readyz").status_code == 200, "ready again")


def reason_of(node: Node) -> str:
    """Return why the node is not ready, or "" if it is ready or does not answer."""
    with contextlib.suppress(httpx.TransportError):
        answer = node.get("/readyz")
        return " ".join(answer.json()["reasons"]) if answer.status_code == 503 else ""
    return ""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_node_started_on_full_disk_waits_for_space(
    keys: Keys, tmp_path: Path, small_disk: Path, join: Join, workers: str
):
    """The node waits, names the reason at /readyz, and serves all earlier alerts afterwards (K1)."""
    node = Node(tmp_path, keys, "--workers", workers, log=f"sqlite:{small_disk}/geocast.db")
    with node:
        spot = ground()
        kept, body = alert(spot), alert(spot)
        node.publish(kept)
        assert node.terminate() == 0  # the last process removes the write-ahead log, whose space would be enough
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x"):
                pass
        node.launch()
        wait_until(lambda: "log unreachable" in reason_of(node), "/readyz says why the node waits")
        assert any(reason in reason_of(node) for reason in ("full", "No space left", "disk I/O error"))
        assert node.process
        assert node.process.poll() is None
        answer = node.post_once("/v1/alerts", body)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/log-unavailable")
        filler.unlink()
        wait_until(node._ready, "the node is ready when there is space")
        session = join(node, place(spot))
        session.listen(kept["id"], 1)
        node.publish(body)
        session.listen(body["id"], 1)
        node.assert_serving()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_node_started_with_locked_log_waits_for_the_lock(keys: Keys, tmp_path: Path, workers: str):
    """The node waits, for example for a slow backup; SIGTERM ends the wait with status 0 (K1)."""
    with Node(tmp_path, keys, "--workers", workers) as node:
        node.kill()
        with contextlib.closing(sqlite3.connect(node.log_file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            node.launch()
            wait_until(
                lambda: "log unreachable: database is locked" in reason_of(node), "/readyz says why the node waits"
            )
            assert node.terminate() == 0
            node.launch()
            wait_until(
                lambda: "log unreachable: database is locked" in reason_of(node), "/readyz says why the node waits"
            )
            other.execute("ROLLBACK")
        wait_until(node._ready, "the node is ready when the file is free")
        node.assert_serving()


# ---- a deleted or replaced log file ------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_deleted_or_replaced_log_file_makes_node_unready(keys: Keys, tmp_path: Path, workers: str):
    """Writes to a deleted file would be lost, so the node answers 503, with one log line per process (section 4)."""
    with Node(tmp_path, keys, "--workers", workers) as node:
        node.publish(alert(ground()))
        away = node.log_file.rename(tmp_path / "away")
        wait_until(
            lambda: "its file, -wal or -shm was deleted or replaced" in reason_of(node), "the node misses its log file"
        )
        assert node.post_once("/v1/alerts", alert(ground())).status_code == 503
        shutil.copy(away, node.log_file)
        assert node.post_once("/v1/alerts", alert(ground())).status_code == 503
        said = node.output().count("its file, -wal or -shm was deleted or replaced")
        assert 1 <= said <= (3 if workers == "2" else 1)
        away.rename(node.log_file)
        wait_until(node._ready, "the node is ready when the file is back")
        node.assert_serving()


# ---- a corrupt log file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["garbage", "truncated", "a bad page"])
def test_corrupt_log_file_is_set_aside_and_node_starts(own_node: Node, damage: str):
    """One log line names the file, nothing is deleted, and readable entries are kept (LogR2)."""
    bodies = [alert(ground(), description="x" * 900) for _ in range(60)]
    for body in bodies:
        own_node.publish(body)
    assert own_node.terminate() == 0  # the last process moves the write-ahead log into the main file
    data = bytearray(own_node.log_file.read_bytes())
    if damage == "garbage":
        data = bytearray(os.urandom(len(data)))
    elif damage == "truncated":
        data = data[: len(data) // 2]
    else:
        at = len(data) // 2 // 4096 * 4096
        data[at : at + 4096] = os.urandom(4096)
    own_node.log_file.write_bytes(data)
    own_node.start()
    known = [own_node.get(f"/v1/alerts/{body['id']}").status_code for body in bodies]
    assert set(known) <= {200, 404}
    if damage == "a bad page":
        assert known.count(200) > 30
    assert len(list(own_node.home.glob("geocast.db.corrupt-*"))) >= 1
    assert own_node.output().count("was corrupt") == 1
    own_node.publish(alert(ground()))
    own_node.assert_serving()


# ---- several processes -------------------------------------------------------------------------------------------


def test_sessions_are_spread_over_the_workers_and_a_dead_worker_is_replaced(keys: Keys, tmp_path: Path, join: Join):
    """All sessions get the alert, counts add up, and a new process knows the live alerts (`--workers`)."""
    with Node(tmp_path, keys, "--workers", "2") as node:
        assert len(node.children()) == 3
        spot = ground()
        body = alert(spot)
        crowd = [join(node, place(spot)) for _ in range(24)]
        node.publish(body)
        for session in crowd:
            session.listen(body["id"], 1)
            session.ack(body["id"], 1)
        node.wait_for_counts(body["id"], sent=24, acked=24)
        wait_until(lambda: "geocast_sessions 24.0" in node.get("/metrics").text, "the sessions of both are counted")
        for pid in node.children():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(node.children()) == 3, "killed processes are replaced")
        wait_until(node._ready, "the node is ready again")
        back = join(node, place(spot), holding={body["id"]: 1})
        node.revise(revision_of(body, 2))
        back.listen(body["id"], 2)
        assert node.terminate() == 0
        assert back.wire.close_code() == 1012


def test_workers_end_when_their_supervisor_dies_during_start(keys: Keys, tmp_path: Path):
    """No orphaned process keeps the listening sockets (`workers`, Rule 6)."""
    node = Node(tmp_path, keys, "--workers", "2")
    node.launch()
    left: list[int] = []
    try:
        assert node.process
        wait_until(lambda: len(node.children()) == 3, "all processes exist and are starting")
        left = node.children()
        node.process.kill()
        node.process.wait(PATIENCE)
        wait_until(lambda: not any(map(is_running, left)), "the workers have ended")
    finally:
        node.kill()
        for pid in filter(is_running, left):
            os.kill(pid, signal.SIGKILL)
