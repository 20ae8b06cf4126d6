"""Reloads by SIGHUP: keys, revoked tokens and the policy are reloaded together or not at all.

Sessions that a reload does not concern are not affected. With several processes, the main process gets the signal, and
all processes switch to the same files.
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.kit.alerts import Json, alert, ground, place
from end_to_end.kit.keys import DESK_SCOPE, EVERY_SCOPE, PHONE_SCOPE, Keys
from end_to_end.kit.node import BIN, Node, clean_environment
from end_to_end.kit.phone import Phone
from end_to_end.kit.process import is_running
from end_to_end.kit.subscriber import Session
from end_to_end.kit.times import stamp, wait_until
from end_to_end.kit.wire import PATIENCE
from support.ports import free_ports

Join = Callable[..., Session]
CROWD = 12  # sessions, so that some are on each process
POLICY = """
name = "ours"
[categories]
burglary = {{ title = "{}" }}
"""


class Reloading:
    """A node whose files a test rewrites, and a second set of keys."""

    files: tuple[str, ...] = ("keys.json", "policy.toml", "revoked.toml")

    def __init__(self, node: Node) -> None:
        self.node, self.home = node, node.home
        self.old, self.new = node.keys, Keys()

    def write(self, *, keys: Any = None, policy: str = POLICY.format("Burglary"), revoked: str = "") -> None:
        """Write the three files; the keys are the old ones by default."""
        content = self.old.jwks() if keys is None else keys
        written = {"keys.json": content if isinstance(content, str) else json.dumps(content)}
        for name, text in (written | {"policy.toml": policy, "revoked.toml": revoked}).items():
            (self.home / name).write_text(text)

    def hang_up(self) -> None:
        """Send SIGHUP to the main process."""
        assert self.node.process
        self.node.process.send_signal(signal.SIGHUP)

    def reload(self, result: str = "ok") -> None:
        """Send SIGHUP, and wait for a reload with this result.

        After a reload with the result "ok", wait until the files are in use. An earlier signal may still be waiting. So
        an additional reload may be counted, and the first one counted may be the earlier one.
        """
        before = self.metric(f'reloads_total{{result="{result}"}}')
        self.hang_up()
        wait_until(lambda: self.metric(f'reloads_total{{result="{result}"}}') > before, f"a reload is {result}")
        if result == "ok":
            wait_until(lambda: all(map(self.is_in_force, self.files)), "all files are in force")

    def is_in_force(self, name: str) -> bool:
        """Return whether the node uses the current content of a file, by the file's digest in the metrics."""
        digest = hashlib.sha256((self.home / name).read_bytes()).digest()
        return self.metric(f'settings_digest{{file="{Path(name).stem}"}}') == int.from_bytes(digest[:6])

    def metric(self, name: str) -> float:
        """Return a metric of the node."""
        text = self.node.api.get("/metrics").text
        [value] = re.findall(rf"^geocast_{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(value)

    def both(self) -> Json:
        """Return the old keys and the new one."""
        return {"keys": [*self.old.jwks()["keys"], *self.only_new()["keys"]]}

    def only_new(self) -> Json:
        """Return the new key alone."""
        return {"keys": [self.new.jwks()["keys"][0] | {"kid": "new"}]}

    def new_token(self, **claims: Any) -> str:
        """Return a token signed with the new key."""
        return self.new.signed(self.new.claims(**claims), kid="new")

    def phone(self, **claims: Any) -> str:
        """Return a subscriber's token signed with the new key."""
        return self.new_token(sub="phone", scope=PHONE_SCOPE, **claims)

    def status(self, token: str) -> int:
        """Return the status of an API request with a token."""
        return self.node.get("/v1/alerts", token).status_code


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloading]:
    """A running node with its own files."""
    home = tmp_path_factory.mktemp("reload")
    (home / "policy.toml").write_text(POLICY.format("Burglary"))
    (home / "revoked.toml").write_text("")
    options = ["--workers", str(request.param), "--policy", "policy.toml", "--revoked", "revoked.toml"]
    with Node(home, Keys(), *options) as node:
        yield Reloading(node)


@pytest.fixture
def site(running: Reloading) -> Reloading:
    """The node with the old keys, the usual policy and no revocations in force."""
    running.write()
    running.reload()
    return running


def test_new_key_is_accepted_and_old_key_refused_after_the_reload(site: Reloading, join: Join):
    """Until the reload, API and stream accept only the old key (rule BA2)."""
    assert (site.status(site.old.token()), site.status(site.new_token())) == (200, 401)
    site.write(keys=site.both())
    assert site.status(site.new_token()) == 401
    site.reload()
    assert (site.status(site.old.token()), site.status(site.new_token())) == (200, 200)
    for _ in range(CROWD):
        join(site.node, token=site.phone())
    site.write(keys=site.only_new())
    site.reload()
    assert (site.status(site.old.token()), site.status(site.new_token())) == (401, 200)
    for _ in range(CROWD):
        with Session(site.node) as session:
            session.say({"type": "hello", "token": site.old.token(scope=PHONE_SCOPE), "places": []})
            assert session.wire.close_code() == 4401


def test_reload_without_a_key_ends_its_sessions_and_others_miss_nothing(site: Reloading, join: Join):
    """The close code is 4401. The other sessions receive every alert published meanwhile, once (rule BA3)."""
    site.write(keys=site.both())
    site.reload()
    spot = ground()
    leaving = [join(site.node, place(spot)) for _ in range(CROWD)]
    staying = [join(site.node, place(spot), token=site.phone()) for _ in range(CROWD)]
    desk = site.new_token(sub="desk-new", scope=DESK_SCOPE)
    published: list[str] = []
    stop = threading.Event()

    def publish() -> None:
        while not stop.is_set():
            published.append(site.node.publish(alert(spot), desk)["id"])

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        wait_until(lambda: len(published) > 3, "alerts are published")
        site.write(keys=site.only_new())
        site.hang_up()
        for session in leaving:
            assert session.wire.close_code() == 4401
        so_far = len(published)
        wait_until(lambda: len(published) > so_far + 3, "alerts are published still")
    finally:
        stop.set()
        publisher.join()
    for session in staying:
        session.listen(published[-1], 1)
        assert sorted(session.everything()) == sorted((each, 1) for each in published)


def test_client_reconnects_with_a_token_of_the_new_key(site: Reloading):
    """The client gets another token, keeps its alerts, and receives those published meanwhile (rule W3a)."""
    site.write(keys=site.both())
    site.reload()
    spot, tokens = ground(), [site.old.token(sub="phone", scope=PHONE_SCOPE), site.phone()]
    held, missed = alert(spot), alert(spot)
    desk = site.new_token(sub="desk-new", scope=DESK_SCOPE)
    asked: list[str] = []

    def token() -> str:
        asked.append(tokens[min(len(asked), 1)])
        if len(asked) == 2:
            site.node.publish(missed, desk)
        return asked[-1]

    with Phone(f"ws://127.0.0.1:{site.node.stream_port}/v1/stream", spot, token) as phone:
        site.node.publish(held, desk)
        phone.wait_for_held(held["id"])
        site.write(keys=site.only_new())
        site.hang_up()
        phone.wait_for_held(held["id"], missed["id"])
    assert asked == tokens
    assert [line for line in phone.statuses if "4401" in line], phone.statuses


def test_session_that_has_sent_a_token_of_the_new_key_survives_removal_of_the_old(site: Reloading, join: Join):
    """The last accepted token counts (rule T6)."""
    site.write(keys=site.both())
    site.reload()
    sessions = [join(site.node, place(ground())) for _ in range(CROWD)]
    for session in sessions:
        assert session.ask("token", token=site.phone())["type"] == "ok"
    site.write(keys=site.only_new())
    site.reload()
    spot = ground()
    for session in sessions:
        assert session.move(place(spot))["type"] == "ok"


def test_sessions_end_when_their_key_is_replaced_under_the_same_kid(site: Reloading, join: Join):
    """Tokens belong to the key, not to its `kid` (rule BA3)."""
    session = join(site.node)
    site.write(keys={"keys": [site.new.jwks()["keys"][0]]})
    site.reload()
    assert session.wire.close_code() == 4401
    assert site.status(site.old.token()) == 401
    assert site.status(site.new.token()) == 200


def test_revocation_ends_sessions_of_older_tokens_but_not_of_newer_ones(site: Reloading, join: Join):
    """Tokens are revoked by `sub` and `iat`, or by `sub` alone if they have no `iat` (rule BA3)."""
    hour_ago, now = int(time.time()) - 3600, int(time.time())
    old, bare = {"sub": "phone-1", "iat": hour_ago}, {"sub": "phone-1"}
    young, other = {"sub": "phone-1", "iat": now}, {"sub": "phone-2", "iat": hour_ago}

    def token(claims: Json, scope: str = PHONE_SCOPE) -> str:
        return site.old.token(scope=scope, **claims)

    ending = [join(site.node, token=token(claims)) for claims in (old, bare) * 4]
    staying = [join(site.node, token=token(claims)) for claims in (young, other) * 4]
    site.write(revoked=f'[sub]\n"phone-1" = {stamp(minutes=-10)}\n')
    site.reload()
    for session in ending:
        assert session.wire.close_code() == 4401
    for session in staying:
        assert session.ask("ping")["type"] == "pong"
    answers = [site.status(token(claims, EVERY_SCOPE)) for claims in (old, bare, young, other)]
    assert answers == [401, 401, 200, 200]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"policy": "name ="}, "policy policy.toml: not TOML"),
        ({"policy": POLICY.format("x") + "surprise = 1"}, "policy policy.toml: "),
        ({"keys": "{"}, "keys.json: not a JWK set"),
        ({"keys": {"keys": []}}, "keys.json: holds no key"),
        ({"revoked": '[sub]\n"phone-secret" = "yesterday"\n'}, "revoked revoked.toml: entry 1 of [sub]"),
    ],
    ids=["no TOML", "an unknown key", "no JSON", "no keys", "no time"],
)
def test_reload_of_an_invalid_file_leaves_all_settings_unchanged(site: Reloading, join: Join, broken: Json, said: str):
    """One log line and the counter report the failed reload (rule BA2)."""
    session = join(site.node)
    good = {"keys": site.only_new(), "policy": POLICY.format("Another title"), "revoked": ""}
    since = len(site.node.output())
    site.write(**(good | broken))
    site.reload("failed")
    assert (site.status(site.old.token()), site.status(site.new_token())) == (200, 401)
    assert site.node.get("/v1/policy").json()["categories"]["burglary"]["title"] == "Burglary"
    assert session.ask("ping")["type"] == "pong"
    [line] = [line for line in site.node.output()[since:].splitlines() if "ERROR" in line]
    assert "the reload failed, so nothing has changed: " in line
    assert said in line
    assert "phone-secret" not in line


def test_reload_with_a_missing_file_leaves_all_settings_unchanged(site: Reloading):
    """A reload applies all files or none (rule BA2)."""
    (site.home / "keys.json").unlink()
    site.reload("failed")
    assert site.status(site.old.token()) == 200


def test_reloaded_policy_applies_to_new_alerts_only(site: Reloading):
    """A repeat of an alert that was accepted before is still a repeat (rules BA2 and H5)."""
    body = alert(ground())
    assert site.node.post("/v1/alerts", body).status_code == 201
    policy = 'name = "ours"\n[categories]\nspill = { title = "Chemical spill" }\n'
    since = len(site.node.output())
    site.write(policy=policy)
    site.reload()
    assert site.node.post("/v1/alerts", body).status_code == 200
    assert site.node.post("/v1/alerts", alert(ground())).json()["errors"][0]["pointer"] == "/category"
    assert site.node.post("/v1/alerts", alert(ground(), category="spill")).status_code == 201
    assert "reloaded: keys: 0 added, 0 removed, 2 in force; revocations: 0 added" in site.node.output()[since:]
    assert "policy changed" in site.node.output()[since:]


def test_metrics_show_digests_of_the_files_and_the_number_of_keys_in_force(site: Reloading):
    """Operators compare nodes by the digests (rule BA2)."""
    before, read_at = site.metric('settings_digest{file="policy"}'), site.metric("last_reload_timestamp_seconds")
    assert site.metric("keys") == 2
    site.write(keys=site.only_new(), policy=POLICY.format("Another title"))
    site.reload()
    assert site.metric("keys") == 1
    assert site.metric('settings_digest{file="policy"}') != before
    assert site.metric("last_reload_timestamp_seconds") > read_at
    site.write(keys=site.only_new())
    site.reload()
    assert site.metric('settings_digest{file="policy"}') == before


def test_last_written_file_is_in_force_after_many_reload_signals(site: Reloading, join: Join):
    """The node continues to serve meanwhile (rule BA2)."""
    session, process = join(site.node), site.node.process
    assert process
    for number in range(50):
        site.write(policy=POLICY.format(f"Title {number}"))
        site.hang_up()
    wait_until(
        lambda: site.node.get("/v1/policy").json()["categories"]["burglary"]["title"] == "Title 49", "the last is read"
    )
    assert session.ask("ping")["type"] == "pong"
    site.node.assert_serving()


def test_replaced_worker_has_the_reloaded_settings(site: Reloading, join: Join):
    """A worker's replacement does not return to the keys of the start (rule BA2)."""
    if not site.node.children():
        pytest.skip("there is one process")
    site.write(keys=site.only_new())
    site.reload()
    for pid in site.node.children():
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: not is_running(pid), "it has ended")
    wait_until(lambda: site.node.api.get("/readyz").status_code == 200, "all are replaced")
    assert site.status(site.old.token()) == 401
    for _ in range(CROWD):
        join(site.node, token=site.phone())


def test_sighup_to_all_processes_ends_none_of_them(site: Reloading):
    """A terminal or `systemctl kill` sends the signal to the whole group (rule BA2)."""
    for pid in site.node.children():
        os.kill(pid, signal.SIGHUP)
    site.reload()
    site.node.assert_serving()


# -- reload signals during the start and the end of a node


def holds_back(process: subprocess.Popen[bytes]) -> bool:
    """Return whether a process blocks or handles SIGHUP.

    Before the process executes another program, it blocks all signals.
    """
    assert process.poll() is None
    status = Path(f"/proc/{process.pid}/status").read_text()
    blocked, handled = (int(mask, 16) for mask in re.findall(r"^Sig(?:Blk|Cgt):\s*(\w+)", status, re.MULTILINE))
    others = 1 << (signal.SIGUSR2 - 1)
    return not blocked & others and bool((blocked | handled) & 1 << (signal.SIGHUP - 1))


@pytest.mark.parametrize("workers", [1, 2], ids=["one process", "two workers"])
def test_sighup_during_start_and_drain_does_not_end_the_node(tmp_path: Path, join: Join, workers: int):
    """SIGHUP is sent from the command's first moment to its last (rule BA2)."""
    with Node(tmp_path, Keys(), "--workers", str(workers), "--drain-s", "0.5") as node:
        node.kill()
        node.launch()
        process = node.process
        assert process
        wait_until(lambda: holds_back(process), "the command begins")
        while node.api_status() != 200:
            assert process.poll() is None
            process.send_signal(signal.SIGHUP)
        session = join(node)
        process.send_signal(signal.SIGTERM)
        while process.poll() is None:
            process.send_signal(signal.SIGHUP)
        assert process.returncode == 0
        assert session.wire.close_code() == 1012
        node.assert_no_surprise()


def test_reload_in_dev_mode_changes_neither_key_nor_policy(tmp_path: Path):
    """Dev mode has no files (rule BA2)."""
    stream, api = free_ports(2)
    listeners = ["--stream", f"127.0.0.1:{stream}", "--api", f"127.0.0.1:{api}", "--log", "memory:"]
    command = [BIN / "geocast", "serve", "--dev", *listeners]
    with (
        (tmp_path / "said").open("w") as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, env=clean_environment(), text=True) as process,
    ):
        try:
            assert process.stdout
            process.stdout.readline()
            process.send_signal(signal.SIGHUP)
            wait_until(
                lambda: "reloaded: keys: 0 added, 0 removed, 1 in force" in (tmp_path / "said").read_text(), "it"
            )
        finally:
            process.terminate()
        assert process.wait(PATIENCE) == 0
