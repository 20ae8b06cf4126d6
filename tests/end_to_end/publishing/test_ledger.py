"""`geocast ledger` in its own processes beside a node: written, killed, ended in order, and verified."""

import json
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from end_to_end.kit.alerts import alert, ground, revision_of
from end_to_end.kit.fork_server import ForkedProcess
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import BIN, Node, clean_environment
from end_to_end.kit.process import run, started
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE
from support.command import ended
from support.redis_server import RedisServer, missing
from support.reviewers import AUDIENCE, PAIRS, jwks, signed_by

LEDGER_PAGE = Path(__file__).resolve().parents[3] / "docs" / "operations" / "ledger.md"


class Writer:
    """A process of `geocast ledger write`."""

    def __init__(self, folder: Path, log: str, **settings: str) -> None:
        self.folder, self.log, self.settings = folder, log, settings
        self.errors = folder.with_suffix(".errors")
        self.output = folder.with_suffix(".output")
        self.process: subprocess.Popen[bytes] | ForkedProcess | None = None

    def start(self) -> None:
        """Start the process.

        The log's URL is in the environment, where other users cannot see its password.
        """
        with self.errors.open("ab") as errors, self.output.open("wb") as output:
            self.process = started(
                *(BIN / "geocast", "ledger", "write", self.folder),
                environment=clean_environment(GEOCAST_LOG=self.log, **self.settings),
                output=output,
                errors=errors,
            )

    def run(self) -> None:
        """Start the process, and wait until it has recorded its start."""
        before = len(self.records())
        self.start()
        wait_until(lambda: len(self.records()) > before, "it is started")

    def kill(self) -> None:
        """Send SIGKILL."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def end(self) -> str:
        """Send SIGTERM, and return the last output."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0, self.errors.read_text()
        return self.output.read_text().strip()

    def records(self) -> list[dict[str, Any]]:
        """Return the complete lines that the ledger has written."""
        found: list[dict[str, Any]] = []
        for path in sorted(self.folder.glob("????-??-??.jsonl")):
            found += [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        return found

    def keys(self) -> list[tuple[str, str, int]]:
        """Return the kind, id and revision of each record about an entry."""
        return [(each["what"], each["id"], each["revision"]) for each in self.records() if "position" in each]

    def ask(self, *arguments: str) -> tuple[int, str]:
        """Run `geocast ledger COMMAND DIR …`; return its exit status and first line."""
        command, *options = arguments
        done = run(BIN / "geocast", "ledger", command, self.folder, *options, environment=clean_environment())
        return done.returncode, (done.stdout or done.stderr).partition("\n")[0]


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, str]]:
    """A node, and the URL of its log for the ledger."""
    home = tmp_path_factory.mktemp("ledger")
    if request.param == "sqlite":
        with Node(home, Keys()) as node:
            yield node, f"sqlite:{node.log_file}"
        return
    if why := missing():
        pytest.skip(why)
    with RedisServer(home / "redis") as server:
        [line] = re.findall(r"^ACL SETUSER (.*)$", LEDGER_PAGE.read_text("utf-8"), re.MULTILINE)
        server.command("ACL", "SETUSER", *line.replace(">PASSWORD", ">secret").split())
        with Node(home, Keys(), log=server.url) as node:
            yield node, f"redis://ledger:secret@127.0.0.1:{server.port}/0"


@pytest.fixture
def writer(node: tuple[Node, str], tmp_path: Path) -> Iterator[Writer]:
    """A ledger that is not started yet."""
    writer = Writer(tmp_path / "ledger", node[1])
    yield writer
    writer.kill()


def publish(node: Node) -> list[tuple[str, str, int]]:
    """Publish, revise and cancel an alert, and return the ledger's names for the three entries."""
    body = alert(ground())
    node.publish(body)
    node.revise(revision_of(body, 2))
    node.cancel(body["id"], 3)
    return [("alert", body["id"], 1), ("revision", body["id"], 2), ("cancel", body["id"], 3)]


def test_ledger_records_entries_from_before_and_after_its_start(node: tuple[Node, str], writer: Writer):
    """The ledger contains no text, reviewer or place of an alert (rules LE1 to LE6)."""
    expected = publish(node[0])
    writer.run()
    wait_until(lambda: set(expected) <= set(writer.keys()), "the ledger has what was there")
    expected += publish(node[0])
    wait_until(lambda: set(expected) <= set(writer.keys()), "the ledger has what comes")
    assert writer.ask("verify")[0] == 0
    head = writer.end()
    assert writer.ask("head") == (0, head)
    count = len(writer.records())
    assert writer.ask("verify", "--head", head) == (0, f"ok: {count} records, head {head}")
    text = "".join(path.read_text() for path in writer.folder.glob("????-??-??.jsonl"))
    assert not any(word in text for word in ("Burglary nearby", "desk-lead", "radius_m"))
    assert [each["n"] for each in writer.records()] == list(range(1, count + 1))


def test_two_ledgers_of_one_log_record_the_same_entries(node: tuple[Node, str], tmp_path: Path):
    """Each ledger has its own chain of hashes (rule LE7)."""
    writers = [Writer(tmp_path / name, node[1]) for name in ("one", "two")]
    try:
        for writer in writers:
            writer.run()
        expected = publish(node[0])
        for writer in writers:
            wait_until(lambda writer=writer: set(expected) <= set(writer.keys()), "both have it")
        one, two = (
            {(r["id"], r["revision"], str(r.get("approvals"))) for r in w.records() if "id" in r} for w in writers
        )
        assert one == two
        assert writers[0].end() != writers[1].end()
    finally:
        for writer in writers:
            writer.kill()


def test_ledger_that_is_killed_repeatedly_has_each_entry_once(node: tuple[Node, str], writer: Writer):
    """A kill -9 may come in the middle of a line or between two files (rules LE1 and LE2)."""
    expected, moments = [], random.Random(7)
    for _ in range(8):
        bodies = [alert(ground()) for _ in range(20)]
        expected += [("alert", body["id"], 1) for body in bodies]
        writer.run()
        killing = threading.Timer(moments.uniform(0, 0.2), writer.kill)  # while it records the new alerts
        killing.start()
        assert {each.status_code for each in node[0].at_once("/v1/alerts", bodies)} == {201}
        killing.join()
    writer.run()
    wait_until(lambda: set(expected) <= set(writer.keys()), "all of it is there")
    head = writer.end()
    keys = writer.keys()
    assert len(keys) == len(set(keys))
    assert writer.ask("verify", "--head", head)[0] == 0


def test_altered_ledger_line_is_reported_by_verify_and_prevents_the_next_start(node: tuple[Node, str], writer: Writer):
    """`verify` exits with status 1 and names the line; the writer exits with status 2 (rule LE6)."""
    expected = publish(node[0])
    writer.run()
    wait_until(lambda: set(expected) <= set(writer.keys()), "it has it")
    writer.end()
    days = writer.folder.glob("????-??-??.jsonl")  # two files around midnight
    path = next(day for day in days if '"severity":"moderate"' in day.read_text())
    path.write_text(path.read_text().replace('"severity":"moderate"', '"severity":"minor"', 1))
    status, line = writer.ask("verify")
    assert status == 1
    assert re.match(rf"{re.escape(str(path))}:\d+: does not have the hash of the line before", line)
    writer.start()
    assert writer.process
    assert writer.process.wait(PATIENCE) == 2
    assert "geocast: error: " in writer.errors.read_text()
    assert "secret" not in writer.errors.read_text()


def test_ledger_of_a_log_that_does_not_exist_exits_and_names_the_path(tmp_path: Path):
    """Nothing is made there: a ledger of a mistyped path would stay empty."""
    writer = Writer(tmp_path / "ledger", f"sqlite:{tmp_path / 'nowhere.db'}")
    writer.start()
    try:
        assert writer.process
        assert writer.process.wait(PATIENCE) == 2
        assert f"there is no alert log at {tmp_path / 'nowhere.db'}: a node makes it" in writer.errors.read_text()
    finally:
        writer.kill()
    assert not (tmp_path / "nowhere.db").exists()
    assert not (tmp_path / "ledger").exists()


POLICY = f"""
name = "signed"
audience = "{AUDIENCE}"
[categories]
burglary = {{ title = "Burglary", approvals = 2 }}
"""


def signed(node: Node, path: str, body: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return the request with the form of its dry run and the signatures of these reviewers."""
    body = {name: value for name, value in body.items() if name != "approval"}
    answer = node.post(path, body, dry_run="true")
    assert answer.status_code == 200, answer.text
    form = answer.json()["form"]
    signatures = [asdict(each) for each in signed_by(form, *names, at_s=int(time.time()))]
    return body | {"approval": {"form": form, "signatures": signatures}}


def test_ledger_names_the_signers_and_keeps_their_signatures_in_separate_files(tmp_path: Path):
    """Anybody with the reviewers' public keys can check the signatures (rules LE3 and LE6).

    This works long after the log has dropped the alert.
    """
    (tmp_path / "policy.toml").write_text(POLICY)
    (tmp_path / "reviewers.jwks").write_bytes(jwks("r-1", "r-2"))
    options = ("--policy", "policy.toml", "--reviewers", "reviewers.jwks")
    with Node(tmp_path, Keys(), *options) as node:
        body = alert(ground())
        assert node.post("/v1/alerts", signed(node, "/v1/alerts", body, "r-1", "r-2")).status_code == 201
        path = f"/v1/alerts/{body['id']}/cancel"
        assert node.post(path, signed(node, path, {"revision": 2, "reason": "Over"}, "r-2")).status_code == 201
        writer = Writer(tmp_path / "ledger", f"sqlite:{node.log_file}")
        writer.run()
        try:
            wait_until(lambda: len(writer.keys()) == 2, "both are in the ledger")
            writer.end()
        finally:
            writer.kill()
    kids = {name: PAIRS[name][0]["kid"] for name in ("r-1", "r-2")}
    said = [[kid for kid, _ in each["approvals"]] for each in writer.records() if "approvals" in each]
    assert said == [[kids["r-1"], kids["r-2"]], [kids["r-2"]]]
    reviewers = str(tmp_path / "reviewers.jwks")
    assert writer.ask("verify", "--reviewers", reviewers)[0] == 0
    [beside] = writer.folder.glob("*.content.jsonl")
    beside.write_text(beside.read_text().replace("Burglary nearby", "Nothing nearby", 1))
    status, line = writer.ask("verify", "--reviewers", reviewers)
    assert (status, line.partition(": ")[2]) == (1, "is not the content whose hash record 2 has")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["write", "x"], "--log"),
        (["write", "x", "--log", "memory:"], "--log: expected sqlite:PATH, or a URL of Redis"),
        (["write", "x", "--log", "redis://10.0.0.1:6379"], "needs TLS (rediss) or a password"),
        (["head", "nowhere"], "is no folder that can be read"),
        (["verify", "nowhere"], "is no folder that can be read"),
        (["verify", ".", "--head", "12"], "expected N:HASH"),
        (["verify", ".", "--reviewers", "nowhere.jwks"], "reviewers nowhere.jwks: "),
        (["write", "x", "--log", "sqlite:x.db", "--reviewers", "nowhere.jwks"], "reviewers nowhere.jwks: "),
    ],
    ids=range(8),
)
def test_invalid_ledger_arguments_are_refused_in_one_line(tmp_path: Path, arguments: list[str], said: str):
    """The exit status is 2 (rule K1)."""
    done = run(BIN / "geocast", "ledger", *arguments, environment=clean_environment(), folder=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_ledger_without_write_permission_exits_with_status_1(tmp_path: Path):
    """The status is 1, because the condition may pass (rule K1)."""
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    folder = tmp_path / "ledger"
    folder.mkdir(mode=0o500)
    write = ("write", folder, "--log", f"sqlite:{tmp_path / 'log.db'}")
    done = ended(BIN / "geocast", "ledger", *write, env=clean_environment())
    assert done.returncode == 1
