"""Power cuts at chosen places, full disks, broken files, and workers that die."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from end_to_end.kit.alerts import Json, alert, ground, place, revision_of
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.process import is_running
from end_to_end.kit.subscriber import Session, kept_alive
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE, Closed

Join = Callable[..., Session]

ROUNDS = 2
CROWD = 300  # more than one slice of a fan-out


def post_into_failpoint(node: Node, point: str, path: str, body: Json) -> httpx.Response | None:
    """Post to a node that dies at `point`; its answer, if one got out. It is dead afterwards, by signal 9."""
    assert node.process
    try:
        answer = node.post(path, body)
    except httpx.TransportError:
        answer = None
    assert node.process.wait(PATIENCE) == -signal.SIGKILL, f"{point} was not reached"
    return answer


def armed(node: Node, point: str | None) -> None:
    """Start the node again, to die at `point`."""
    node.kill()
    node.settings.pop("GEOCAST_FAILPOINT", None)
    if point is not None:
        node.settings["GEOCAST_FAILPOINT"] = point
    node.start()


@pytest.mark.parametrize("point", ["in-commit", "after-append", "after-201"])
def test_a_request_cut_off_anywhere_is_one_alert_when_it_is_repeated(own_node: Node, join: Join, point: str):
    """Section 4, "Durable": repeat until 200 or 201, and it is one alert; a 201 is never taken back."""
    for _ in range(ROUNDS):
        spot = ground()
        body = alert(spot)
        armed(own_node, point)
        answer = post_into_failpoint(own_node, point, "/v1/alerts", body)
        armed(own_node, None)
        late = join(own_node, place(spot))
        if point != "in-commit":
            late.listen(body["id"], 1)  # it was durable before the cut
        again = own_node.post("/v1/alerts", body)
        assert again.status_code == (201 if point == "in-commit" else 200), again.text
        if answer is not None:
            assert answer.json() == again.json()
        late.listen(body["id"], 1)
        late.catch_up()
        assert late.heard(body["id"]) == [1]


@pytest.mark.parametrize("point", ["in-commit", "after-append", "after-201"])
def test_a_revision_cut_off_anywhere_follows_its_alert_once(own_node: Node, join: Join, point: str):
    """Section 4: the number of a revision that was cut off is taken, or free, never both."""
    spot = ground()
    body = alert(spot)
    own_node.publish(body)
    armed(own_node, point)
    post_into_failpoint(own_node, point, f"/v1/alerts/{body['id']}/revisions", revision_of(body, 2))
    armed(own_node, None)
    back = join(own_node, place(spot), holding={body["id"]: 1})
    assert own_node.post(f"/v1/alerts/{body['id']}/revisions", revision_of(body, 2)).status_code in (200, 201)
    back.listen(body["id"], 2)
    assert own_node.post(f"/v1/alerts/{body['id']}/revisions", revision_of(body, 3)).status_code == 201


def test_a_fan_out_cut_off_in_its_middle_is_made_good_when_clients_come_back(own_node: Node, join: Join):
    """Rule 5: whoever was told holds it and is not told again; whoever was not is told now."""
    armed(own_node, "in-fan-out")
    spot = ground()
    body = alert(spot)
    crowd: list[Session] = []
    with kept_alive(crowd):
        for _ in range(CROWD):
            crowd.append(join(own_node, place(spot)))  # noqa: PERF401 (they are kept alive while others come)
        post_into_failpoint(own_node, "in-fan-out", "/v1/alerts", body)
    had = [bool(heard_before_the_end(session)) for session in crowd]
    assert 0 < sum(had) < CROWD, "the cut came in the middle"
    armed(own_node, None)
    for told in had:
        back = join(own_node, place(spot), holding={body["id"]: 1} if told else {})
        assert back.everything() == ([] if told else [(body["id"], 1)])
        back.drop()


def heard_before_the_end(session: Session) -> list[Json]:
    """What came before the connection broke."""
    messages = []
    try:
        while True:
            messages.append(session.take())
    except Closed:
        return messages


# ---- a full disk -------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    where = tmp_path / "disk"
    where.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("needs root to mount a small tmpfs")
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", where], capture_output=True, check=False
    ).returncode:
        pytest.skip("a tmpfs can't be mounted here")
    yield where
    subprocess.run(["umount", "--lazy", where], check=True)


def test_on_a_full_disk_publishers_get_503_and_all_recovers_without_a_restart(
    keys: Keys, tmp_path: Path, small_disk: Path, join: Join
):
    """Section 4: 503 `log-unavailable` for a full disk too; sockets and live alerts go on."""
    with Node(tmp_path, keys, log=f"sqlite:{small_disk}/geocast.db") as node:
        spot = ground()
        kept = alert(spot)
        node.publish(kept)
        session = join(node, place(spot))
        session.listen(kept["id"], 1)
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        answers = []
        body = {}
        while not answers or answers[-1].status_code == 201:  # the file may have free pages left
            body = alert(spot)
            answers.append(node.post_once("/v1/alerts", body))
        assert answers[-1].status_code == 503
        assert answers[-1].json()["type"] == "/problems/log-unavailable"
        assert "Retry-After" in answers[-1].headers
        wait_until(lambda: node.get("/readyz").status_code == 503, "not ready on a full disk")
        assert session.ask("ping")["type"] == "pong"
        join(node, place(spot)).listen(kept["id"], 1)
        filler.unlink()
        wait_until(lambda: node.post("/v1/alerts", body).status_code in (200, 201), "the disk has room again")
        session.listen(body["id"], 1)
        wait_until(lambda: node.get("/readyz").status_code == 200, "ready again")


def reason_of(node: Node) -> str:
    """Why the node is not ready, as far as it answers."""
    with contextlib.suppress(httpx.TransportError):
        answer = node.get("/readyz")
        return " ".join(answer.json()["reasons"]) if answer.status_code == 503 else ""
    return ""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_disk_that_is_full_at_the_start_is_waited_for(
    keys: Keys, tmp_path: Path, small_disk: Path, join: Join, workers: str
):
    """K1, /readyz: a full disk passes; what it took before is there afterwards."""
    node = Node(tmp_path, keys, "--workers", workers, log=f"sqlite:{small_disk}/geocast.db")
    with node:
        spot = ground()
        kept, body = alert(spot), alert(spot)
        node.publish(kept)
        assert node.terminate() == 0  # the last one out leaves no write-ahead log, whose room would do
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x"):
                pass
        node.launch()
        wait_until(lambda: "log unreachable" in reason_of(node), "it says why it waits")
        assert any(reason in reason_of(node) for reason in ("full", "No space left", "disk I/O error"))
        assert node.process
        assert node.process.poll() is None
        answer = node.post_once("/v1/alerts", body)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/log-unavailable")
        filler.unlink()
        wait_until(node._ready, "it is ready when there is room")
        session = join(node, place(spot))
        session.listen(kept["id"], 1)
        node.publish(body)
        session.listen(body["id"], 1)
        node.assert_serving()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_log_that_another_process_has_locked_at_the_start_is_waited_for(keys: Keys, tmp_path: Path, workers: str):
    """K1, /readyz: such as a backup that takes its time; SIGTERM ends the wait, with status 0."""
    with Node(tmp_path, keys, "--workers", workers) as node:
        node.kill()
        with contextlib.closing(sqlite3.connect(node.log_file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            node.launch()
            wait_until(lambda: "log unreachable: database is locked" in reason_of(node), "it says why it waits")
            assert node.terminate() == 0
            node.launch()
            wait_until(lambda: "log unreachable: database is locked" in reason_of(node), "it says why it waits")
            other.execute("ROLLBACK")
        wait_until(node._ready, "it is ready when the file is free")
        node.assert_serving()


# ---- a file that is not there any more ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_log_that_is_deleted_or_replaced_under_a_node_is_missed(keys: Keys, tmp_path: Path, workers: str):
    """Section 4: 503 and not ready, with one line in each process; what was written there would be lost."""
    with Node(tmp_path, keys, "--workers", workers) as node:
        node.publish(alert(ground()))
        away = node.log_file.rename(tmp_path / "away")
        wait_until(lambda: "its file, -wal or -shm was deleted or replaced" in reason_of(node), "it is missed")
        assert node.post_once("/v1/alerts", alert(ground())).status_code == 503
        shutil.copy(away, node.log_file)
        assert node.post_once("/v1/alerts", alert(ground())).status_code == 503
        said = node.output().count("its file, -wal or -shm was deleted or replaced")
        assert 1 <= said <= (3 if workers == "2" else 1)
        away.rename(node.log_file)
        wait_until(node._ready, "it is ready when the file is back")
        node.assert_serving()


# ---- a broken file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["garbage", "truncated", "a bad page"])
def test_a_broken_log_file_is_set_aside_and_the_node_serves_on(own_node: Node, damage: str):
    """LogR2: named in one line, nothing deleted, and what can still be read is there."""
    bodies = [alert(ground(), description="x" * 900) for _ in range(60)]
    for body in bodies:
        own_node.publish(body)
    assert own_node.terminate() == 0  # the last one out moves everything into the one file
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


def test_workers_share_the_sessions_and_one_that_dies_is_replaced(keys: Keys, tmp_path: Path, join: Join):
    """`--workers`: all sessions are told; counts add up; a killed process comes back and knows what is live."""
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
        wait_until(lambda: len(node.children()) == 3, "the dead are replaced")
        wait_until(node._ready, "the node is ready again")
        back = join(node, place(spot), holding={body["id"]: 1})
        node.revise(revision_of(body, 2))
        back.listen(body["id"], 2)
        assert node.terminate() == 0
        assert back.wire.close_code() == 1012


def test_processes_whose_supervisor_dies_while_they_start_end_too(keys: Keys, tmp_path: Path):
    """Rule 6 of `workers`: nobody stays behind with the listening sockets."""
    node = Node(tmp_path, keys, "--workers", "2")
    node.launch()
    left: list[int] = []
    try:
        assert node.process
        wait_until(lambda: len(node.children()) == 3, "all processes are there, and busy with their start")
        left = node.children()
        node.process.kill()
        node.process.wait(PATIENCE)
        wait_until(lambda: not any(map(is_running, left)), "they have ended")
    finally:
        node.kill()
        for pid in filter(is_running, left):
            os.kill(pid, signal.SIGKILL)
