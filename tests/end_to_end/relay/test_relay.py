"""A real node, a real `geocast relay`, and receivers that work, hang, reset and refuse (WH1 to WH11)."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from end_to_end.kit.alerts import Json, alert, ground, revision_of
from end_to_end.kit.node import BIN, Node, clean_environment
from end_to_end.kit.process import run
from end_to_end.kit.times import wait_until
from end_to_end.kit.tls import make_certificate
from end_to_end.kit.webhooks import SECRET, RelayProcess
from support.ports import free_ports
from support.preloaded import COMPILER, preloading

from client_demo.webhook_receiver import HANG, RESET, WebhookReceiver

ACCEPTED, REVISED, CANCELLED, ENDED = "alert.accepted", "alert.revised", "alert.cancelled", "alert.ended"
GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "relay.md"
SLOW_DISK = Path(__file__).parents[2] / "support" / "slow_disk.c"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start a node with default options."""
    with Node(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    """Run a receiver that checks signatures."""
    with WebhookReceiver(SECRET) as receiver:
        yield receiver


def test_each_target_gets_every_event_whatever_the_others_do(node: Node, tmp_path: Path, receiver: WebhookReceiver):
    """One target hangs, one resets, one answers 500 and then 200, one is gone (WH2 to WH5, WH9, WH10)."""
    with (
        WebhookReceiver(SECRET) as stuck,
        WebhookReceiver(SECRET) as resetting,
        WebhookReceiver(SECRET) as failing,
        WebhookReceiver(SECRET) as gone,
    ):
        stuck.always, resetting.answers, failing.answers, gone.always = HANG, [RESET], [500], 410
        spot, relay = ground(), RelayProcess(node, tmp_path)
        relay.targets(spot, stuck=stuck, resetting=resetting, failing=failing, gone=gone, siren=receiver)
        with relay:
            body = alert(spot)
            node.publish(body)
            for each in (receiver, resetting, failing):
                each.until(lambda each=each: each.taken(body["id"]))
            node.revise(revision_of(body, 2))
            for each in (receiver, resetting, failing):
                each.until(lambda each=each: len(each.taken(body["id"])) == 2)
            node.cancel(body["id"], 3)
            brief, _ = node.publish_brief(alert(spot))
            for each in (receiver, resetting, failing):
                each.until(lambda each=each: len(each.taken()) == 5)
                assert each.kinds(body["id"]) == [(ACCEPTED, 1), (REVISED, 2), (CANCELLED, 3)]
                assert each.kinds(brief["id"]) == [(ACCEPTED, 1), (ENDED, 1)]
                assert each.forged == 0
            assert len({each.id for each in resetting.requests[:2]}) == 1
            assert len(gone.requests) == 1
            assert relay.metric('relay_gone{target="gone"}') == 1
            assert relay.metric('relay_pending{target="siren"}') == 0
            assert relay.metric('relay_pending{target="stuck"}') == 2
            assert relay.metric('relay_posts_total{outcome="500",target="failing"}') == 1
            relay.assert_no_surprise()
            assert SECRET not in relay.output()
            assert str(receiver.port) not in relay.output()


@pytest.mark.parametrize("point", ["relay-in-commit", "relay-noted", "relay-answered"])
def test_relay_killed_at_any_point_loses_nothing_and_repeats_ids(
    node: Node, tmp_path: Path, receiver: WebhookReceiver, point: str
):
    """A cancel that comes while the relay is dead reaches the target exactly if it was told (WH2, WH4, WH6)."""
    spot, relay = ground(), RelayProcess(node, tmp_path, GEOCAST_FAILPOINT=point)
    relay.targets(spot, siren=receiver)
    with relay:
        if point == "relay-in-commit":  # the first commit of the state comes without an alert
            relay.dies()
        else:
            body = alert(spot)
            node.publish(body)
            relay.dies()
        kept, cancelled = alert(spot), alert(spot)
        node.publish(kept)
        node.publish(cancelled)
        node.cancel(cancelled["id"], 2)
        relay.settings = {}
        relay.start()
        receiver.until(lambda: receiver.taken(kept["id"]))
        if point != "relay-in-commit":
            receiver.until(lambda: len(receiver.taken(body["id"])) == (2 if point == "relay-answered" else 1))
            assert set(receiver.kinds(body["id"])) == {(ACCEPTED, 1)}
            assert len({each.id for each in receiver.taken(body["id"])}) == 1
            node.cancel(body["id"], 2)
            receiver.until(lambda: receiver.kinds(body["id"])[-1] == (CANCELLED, 2))
        assert receiver.taken(cancelled["id"]) == []
        node.cancel(kept["id"], 2)
        receiver.until(lambda: len(receiver.taken(kept["id"])) == 2)
        relay.assert_no_surprise()


def test_killed_relay_sends_the_cancel_of_an_alert_that_may_have_been_told(
    node: Node, tmp_path: Path, receiver: WebhookReceiver
):
    """The request was answered, the answer was not recorded, and the alert was cancelled before the restart (WH6)."""
    spot, relay = ground(), RelayProcess(node, tmp_path, GEOCAST_FAILPOINT="relay-answered")
    relay.targets(spot, siren=receiver)
    with relay:
        body = alert(spot)
        node.publish(body)
        relay.dies()
        node.cancel(body["id"], 2)
        relay.settings = {}
        relay.start()
        receiver.until(lambda: (CANCELLED, 2) in receiver.kinds(body["id"]))
    assert receiver.kinds(body["id"]) == [(ACCEPTED, 1), (CANCELLED, 2)]


@pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
def test_disk_that_stalls_delays_no_event_for_long(node: Node, tmp_path: Path, receiver: WebhookReceiver):
    """One sync in four takes up to a second longer; all events arrive, each once (WH6)."""
    slow = {"LD_PRELOAD": preloading(SLOW_DISK), "SLOW_FSYNC": "7"}
    spot, relay = ground(), RelayProcess(node, tmp_path, **slow)
    relay.targets(spot, siren=receiver)
    with relay:
        bodies = [alert(spot) for _ in range(40)]
        for body in bodies:
            node.publish(body)
        receiver.until(lambda: len(receiver.taken()) == len(bodies))
    assert [receiver.kinds(body["id"]) for body in bodies] == [[(ACCEPTED, 1)]] * len(bodies)


def test_full_disk_stops_no_event(own_node: Node, tmp_path: Path, receiver: WebhookReceiver):
    """No file may grow: events are sent, `/readyz` tells it, and the next start repeats what was not noted (WH6).

    The node is new, because the limit also applies to its log, which the relay opens.
    """
    node = own_node
    spot, relay = ground(), RelayProcess(node, tmp_path / "relay")
    relay.targets(spot, siren=receiver)
    relay.launcher = [shutil.which("prlimit") or pytest.skip("needs prlimit"), "--fsize=90000"]
    with relay:
        while relay.readiness() == 200:
            body = alert(spot)
            node.publish(body)
            receiver.until(lambda body=body: receiver.taken(body["id"]))
        kept, cancelled = alert(spot), alert(spot)
        for body in (kept, cancelled):
            node.publish(body)
            receiver.until(lambda body=body: receiver.taken(body["id"]))
        node.cancel(cancelled["id"], 2)
        receiver.until(lambda: len(receiver.taken(cancelled["id"])) == 2)
        assert relay.metric("relay_unrecorded") > 0
        relay.assert_no_surprise()
        relay.kill()
        relay.launcher = []
        relay.start()
        receiver.until(lambda: len(receiver.taken(kept["id"])) == 2)
    assert len({each.id for each in receiver.taken(kept["id"])}) == 1
    assert receiver.kinds(cancelled["id"]) == [(ACCEPTED, 1), (CANCELLED, 2)]


def test_reload_takes_a_whole_file_or_nothing(node: Node, tmp_path: Path, receiver: WebhookReceiver):
    """A mistake changes nothing and is logged; a new target is told what is live, by HTTPS (WH7, WH11)."""
    certificate = make_certificate(tmp_path)
    spot, relay = ground(), RelayProcess(node, tmp_path)
    relay.targets(spot, siren=receiver)
    with relay, WebhookReceiver(SECRET, str(certificate.crt), str(certificate.key)) as sign:
        body = alert(spot)
        node.publish(body)
        receiver.until(lambda: receiver.taken(body["id"]))
        relay.targets(spot, siren={"to": receiver, "min_severty": '"severe"'})
        relay.reload()
        wait_until(lambda: relay.metric('reloads_total{result="failed"}') == 1, "the reload fails")
        assert "siren.min_severty: is not a known key; did you mean min_severity?" in relay.output()
        relay.targets(spot, siren=receiver, sign={"to": sign, "ca_file": f'"{certificate.crt}"'})
        relay.reload()
        sign.until(lambda: sign.taken(body["id"]))
        assert relay.metric("relay_targets") == 2
        node.cancel(body["id"], 2)
        for each in (receiver, sign):
            each.until(lambda each=each: each.kinds(body["id"]) == [(ACCEPTED, 1), (CANCELLED, 2)])


def test_drain_waits_for_requests_and_the_next_start_sends_nothing_again(
    node: Node, tmp_path: Path, receiver: WebhookReceiver
):
    """SIGTERM ends the relay with status 0; everything that was taken is recorded (WH2)."""
    spot, relay = ground(), RelayProcess(node, tmp_path)
    relay.targets(spot, siren=receiver)
    with relay:
        bodies = [alert(spot) for _ in range(20)]
        for body in bodies:
            node.publish(body)
        receiver.until(lambda: receiver.taken(bodies[0]["id"]))
        assert relay.terminate() == 0
        relay.start()
        receiver.until(lambda: len({each.id for each in receiver.taken()}) >= len(bodies))
        node.cancel(bodies[-1]["id"], 2)
        receiver.until(lambda: (CANCELLED, 2) in receiver.kinds(bodies[-1]["id"]))
    assert all(receiver.kinds(body["id"]).count((ACCEPTED, 1)) == 1 for body in bodies)


def geocast_relay(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `geocast relay` with these arguments until it ends."""
    command = (BIN / "geocast", "relay", "--targets", "targets.toml", *arguments)
    return run(*command, environment=clean_environment(), folder=folder)


def test_check_connects_to_each_target_and_posts_nothing(node: Node, tmp_path: Path, receiver: WebhookReceiver):
    """The exit status is 0, 1 or 2; no URL is shown (WH8)."""
    spot, relay = ground(), RelayProcess(node, tmp_path)
    relay.targets(spot, siren={"to": receiver, "min_severity": '"severe"'})
    done = geocast_relay(tmp_path, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "siren  connects  (actual; all categories; severe, extreme; in a polygon)\n"
    with WebhookReceiver() as closed:
        pass
    relay.targets(spot, siren=receiver, sign=closed)
    done = geocast_relay(tmp_path, "--check")
    assert done.returncode == 1
    assert "\nsign   Connection refused  (actual; " in done.stdout
    (tmp_path / "secret").write_text("short")
    done = geocast_relay(tmp_path, "--check")
    assert (done.returncode, done.stdout) == (2, "")
    assert "siren.secret_file: expected 1 to 4 secrets" in done.stderr
    assert str(receiver.port) not in done.stderr
    assert receiver.requests == []


def blocks(language: str) -> list[str]:
    """Return the code blocks of the guide in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def _connected(port: int, until: contextlib.ExitStack) -> bool:
    with contextlib.suppress(ConnectionRefusedError):
        until.enter_context(socket.create_connection(("127.0.0.1", port)))
        return True
    return False


def test_receiver_of_the_guide_takes_signed_events_only_and_each_once(node: Node, tmp_path: Path):
    """docs/guide/relay.md, "A receiver in twenty lines": it runs as it stands there, and has as many lines."""
    [text] = blocks("python")
    assert len([line for line in text.splitlines() if line.strip()]) <= 25
    [port] = free_ports(1)
    environment = clean_environment(SECRET=SECRET, PORT=str(port))
    with (tmp_path / "printed").open("w") as printed:
        running = subprocess.Popen([sys.executable, "-c", text], env=environment, stdout=printed, stderr=printed)
    try:
        relay = RelayProcess(node, tmp_path)
        (tmp_path / "targets.toml").write_text(
            f'[targets.page]\nurl = "http://127.0.0.1:{port}/"\nsecret_file = "secret"\n'
            "allow_http = true\nallow_private = true\n"
        )
        with relay, contextlib.ExitStack() as idle:
            wait_until(lambda: _connected(port, idle), "the receiver listens")  # this connection stays idle
            body = alert(ground())
            node.publish(body)
            said = f"{ACCEPTED} {body['id']} {body['headline']}\n"
            wait_until(lambda: said in (tmp_path / "printed").read_text(), "the receiver prints the event")
            relay.kill()
            for state in tmp_path.glob("relay.db*"):
                state.unlink()
            relay.start()
            wait_until(lambda: relay.metric('relay_posts_total{outcome="204",target="page"}') > 0, "it is repeated")
        assert (tmp_path / "printed").read_text().count(said) == 1
        for headers in ({}, {"webhook-id": "msg_1", "webhook-timestamp": "1", "webhook-signature": "v1,x v1a,y"}):
            forged = httpx.post(f"http://127.0.0.1:{port}/", json={}, headers={"webhook-signature": "", **headers})
            assert forged.status_code == 401
    finally:
        running.kill()
        running.wait()


def test_recipes_of_the_guide_are_valid_targets_and_their_bodies_arrive(
    node: Node, tmp_path: Path, receiver: WebhookReceiver
):
    """docs/guide/relay.md, "Recipes": Slack, Home Assistant and MQTT through a broker's HTTP interface."""
    text = "\n".join(blocks("toml"))
    with WebhookReceiver() as plain:
        for name in ("slack.url", "home.url"):
            (tmp_path / name).write_text(plain.url)
        (tmp_path / "broker.headers").write_text("Authorization: Basic a2V5OnNlY3JldA==\n")
        text = re.sub(r'(?<=^url           = ").*(?="$)', plain.url, text, flags=re.MULTILINE)
        text = text.replace("[targets.slack]", "[targets.slack]\nallow_http = true\nallow_private = true")
        relay = RelayProcess(node, tmp_path)
        (tmp_path / "targets.toml").write_text(text)
        far = alert(ground(), severity="severe", headline="Burglary far from home")
        near = alert((48.205, 16.37), severity="severe", headline="Burglary near home")
        words = [each[name].encode() for each in (far, near) for name in ("id", "headline")]

        def bodies() -> list[Json]:
            return [json.loads(each.body) for each in plain.requests if any(word in each.body for word in words)]

        with relay:
            for body in (far, near):
                node.publish(body)
            plain.until(lambda: len(bodies()) == 5)
    assert [each["data"]["id"] for each in bodies() if "data" in each] == [near["id"]]
    assert sorted(each["text"].partition(" (")[0] for each in bodies() if "text" in each) == [
        "severe: Burglary far from home",
        "severe: Burglary near home",
    ]
    assert {each["topic"]: each["payload"] for each in bodies() if "topic" in each} == {
        f"sirens/north/{body['id']}": f"{ACCEPTED} true" for body in (far, near)
    }
    sent = {each.headers.get("authorization") for each in plain.requests if b'"topic"' in each.body}
    assert sent == {"Basic a2V5OnNlY3JldA=="}


def test_second_relay_with_the_same_state_is_refused(node: Node, tmp_path: Path, receiver: WebhookReceiver):
    """It would send everything twice (WH3)."""
    spot, relay = ground(), RelayProcess(node, tmp_path)
    relay.targets(spot, siren=receiver)
    with relay:
        done = geocast_relay(tmp_path, "--state", str(tmp_path / "relay.db"), "--log", f"sqlite:{node.log_file}")
        assert done.returncode == 2
        assert "another process has it" in done.stderr
