"""SIGHUP: keys, revoked tokens and the policy are read anew, all or none, and who is not concerned notices nothing.

With one process, and with several: then the first one is told, and none of them may have in force what others have not.
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
    """A node whose files a test writes anew, and a second set of keys."""

    def __init__(self, node: Node) -> None:
        self.node, self.home = node, node.home
        self.old, self.new = node.keys, Keys()

    def write(self, *, keys: Any = None, policy: str = POLICY.format("Burglary"), revoked: str = "") -> None:
        """Write the three files; keys are the old ones unless others are given."""
        content = self.old.jwks() if keys is None else keys
        written = {"keys.json": content if isinstance(content, str) else json.dumps(content)}
        for name, text in (written | {"policy.toml": policy, "revoked.toml": revoked}).items():
            (self.home / name).write_text(text)

    def hang_up(self) -> None:
        """SIGHUP to the first process."""
        assert self.node.process
        self.node.process.send_signal(signal.SIGHUP)

    def reload(self, result: str = "ok") -> None:
        """Send SIGHUP, and wait until a reload has this result; if it is "ok", until the files are in force.

        An earlier signal may still be waiting, so one reload more may be counted, and the first may be that of before.
        """
        before = self.metric(f'reloads_total{{result="{result}"}}')
        self.hang_up()
        wait_until(lambda: self.metric(f'reloads_total{{result="{result}"}}') > before, f"a reload is {result}")
        if result == "ok":
            wait_until(
                lambda: all(map(self.is_in_force, ("keys.json", "policy.toml", "revoked.toml"))), "all is in force"
            )

    def is_in_force(self, name: str) -> bool:
        """Return whether the node has in force what a file holds now, by the digest among its metrics."""
        digest = hashlib.sha256((self.home / name).read_bytes()).digest()
        return self.metric(f'settings_digest{{file="{Path(name).stem}"}}') == int.from_bytes(digest[:6])

    def metric(self, name: str) -> float:
        """A metric of the node."""
        text = self.node.api.get("/metrics").text
        [value] = re.findall(rf"^geocast_{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(value)

    def both(self) -> Json:
        """The old keys and the new one."""
        return {"keys": [*self.old.jwks()["keys"], *self.only_new()["keys"]]}

    def only_new(self) -> Json:
        """The new key alone."""
        return {"keys": [self.new.jwks()["keys"][0] | {"kid": "new"}]}

    def new_token(self, **claims: Any) -> str:
        """A token by the new key."""
        return self.new.signed(self.new.claims(**claims), kid="new")

    def phone(self, **claims: Any) -> str:
        """A subscriber's token by the new key."""
        return self.new_token(sub="phone", scope=PHONE_SCOPE, **claims)

    def status(self, token: str) -> int:
        """What the api answers to a token."""
        return self.node.get("/v1/alerts", token).status_code


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloading]:
    """The node, with files of its own."""
    home = tmp_path_factory.mktemp("reload")
    (home / "policy.toml").write_text(POLICY.format("Burglary"))
    (home / "revoked.toml").write_text("")
    options = ["--workers", str(request.param), "--policy", "policy.toml", "--revoked", "revoked.toml"]
    with Node(home, Keys(), *options) as node:
        yield Reloading(node)


@pytest.fixture
def site(running: Reloading) -> Reloading:
    """The node with the old keys and nothing else in force."""
    running.write()
    running.reload()
    return running


def test_a_new_key_is_taken_and_an_old_one_refused(site: Reloading, join: Join):
    """BA2: no token is good or bad before the reload, at the api and on the stream."""
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


def test_sessions_of_a_key_that_is_gone_end_and_others_miss_nothing(site: Reloading, join: Join):
    """BA3: 4401. The others are sent every alert that is published meanwhile, once."""
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


def test_a_client_comes_back_with_a_token_of_the_new_key(site: Reloading):
    """W3a: it asks for another token, and what is published meanwhile is there when it is back; what it held stays."""
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


def test_a_session_that_has_sent_a_token_of_the_new_key_stays(site: Reloading, join: Join):
    """T6: the last token that was accepted is the one that counts."""
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


def test_a_key_that_is_another_under_the_same_name_is_another(site: Reloading, join: Join):
    """BA3: it is the key that counts, and not its `kid`."""
    session = join(site.node)
    site.write(keys={"keys": [site.new.jwks()["keys"][0]]})
    site.reload()
    assert session.wire.close_code() == 4401
    assert site.status(site.old.token()) == 401
    assert site.status(site.new.token()) == 200


def test_revoked_tokens_end_and_younger_ones_are_good(site: Reloading, join: Join):
    """BA3: by `sub` and `iat`; a token without an `iat` too."""
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
def test_what_cannot_be_used_leaves_all_as_it_was(site: Reloading, join: Join, broken: Json, said: str):
    """BA2: all or none; one line, and the counter."""
    session = join(site.node)
    good = {"keys": site.only_new(), "policy": POLICY.format("Another title"), "revoked": ""}
    since = len(site.node.output())
    site.write(**(good | broken))
    site.reload("failed")
    assert (site.status(site.old.token()), site.status(site.new_token())) == (200, 401)
    assert site.node.get("/v1/policy").json()["categories"]["burglary"]["title"] == "Burglary"
    assert session.ask("ping")["type"] == "pong"
    [line] = [line for line in site.node.output()[since:].splitlines() if "ERROR" in line]
    assert "reload failed, all stays as it was: " in line
    assert said in line
    assert "phone-secret" not in line


def test_a_file_that_is_gone_leaves_all_as_it_was(site: Reloading):
    """BA2."""
    (site.home / "keys.json").unlink()
    site.reload("failed")
    assert site.status(site.old.token()) == 200


def test_a_new_policy_is_in_force(site: Reloading):
    """BA2: for what is published from then on. A repeat of what was accepted before is one still (H5)."""
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


def test_the_metrics_tell_what_is_in_force(site: Reloading):
    """BA2: digests to compare nodes by, and how many keys there are."""
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


def test_a_storm_of_signals_does_no_harm(site: Reloading, join: Join):
    """BA2: what is written last is in force at its end."""
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


def test_a_process_that_is_replaced_has_what_was_reloaded(site: Reloading, join: Join):
    """BA2, with workers: the old keys of the start are not those of its replacement."""
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


def test_the_signal_to_all_processes_ends_none(site: Reloading):
    """BA2: as a whole group is sent it by a terminal, or by `systemctl kill`."""
    for pid in site.node.children():
        os.kill(pid, signal.SIGHUP)
    site.reload()
    site.node.assert_serving()


# -- at the edges of a life


def holds_back(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process blocks or handles SIGHUP by now. (Before it becomes another program, it blocks all signals.)"""
    assert process.poll() is None
    status = Path(f"/proc/{process.pid}/status").read_text()
    blocked, handled = (int(mask, 16) for mask in re.findall(r"^Sig(?:Blk|Cgt):\s*(\w+)", status, re.MULTILINE))
    others = 1 << (signal.SIGUSR2 - 1)
    return not blocked & others and bool((blocked | handled) & 1 << (signal.SIGHUP - 1))


@pytest.mark.parametrize("workers", [1, 2], ids=["one process", "two workers"])
def test_a_signal_while_starting_and_while_draining_ends_nothing(tmp_path: Path, join: Join, workers: int):
    """BA2: from the first moment of the command on, and until its last."""
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


def test_dev_without_any_file_has_nothing_to_lose(tmp_path: Path):
    """BA2: the key of the start stays in force, and so does the built-in policy."""
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
