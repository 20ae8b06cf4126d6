"""The commands that listen, walk and publish, as processes on a real node."""

import contextlib
import itertools
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from end_to_end.kit.alerts import alert, circle, ground
from end_to_end.kit.keys import PHONE_SCOPE
from end_to_end.kit.node import BIN, Node, clean_environment
from end_to_end.kit.proofs import signing_node
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE
from support.command import ended

from client_demo.python.geo import offset
from client_demo.python.times import wall_ms
from geocast.cli import cli, publish

ROOT = Path(__file__).parents[3]
CONNECTED = re.compile(r"connected, [01] to catch up on\n+")


def command(node, *arguments):
    url = f"ws://127.0.0.1:{node.stream_port}/v1/stream"
    return [sys.executable, "-m", "client_demo", arguments[0], "--url", url, *arguments[1:]]


def environment(node):
    token = node.keys.token(sub="phone", scope=PHONE_SCOPE)
    return clean_environment(GEOCAST_TOKEN=token, PYTHONUNBUFFERED="1", TERM="xterm", COLUMNS="120")


def output(node, *arguments):
    """Return the output of a command that must succeed."""
    done = ended(*command(node, *arguments), cwd=ROOT, env=environment(node))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_listen_once_command_shows_and_acknowledges_only_new_alerts(node, tmp_path):
    """Alerts in the file of known alerts (`--held`) are not shown again; a cancel is shown once."""
    spot = ground()
    body = alert(spot, headline="Keep away")
    node.publish(body)
    once = ("listen", "--once", "--held", str(tmp_path / "held.json"), "--lat", str(spot[0]), "--lng", str(spot[1]))
    first = output(node, *once)
    assert "new" in first
    assert "Keep away" in first
    node.wait_for_counts(body["id"], sent=1, acked=1)
    assert "Keep away" not in output(node, *once)
    node.cancel(body["id"], 2)
    assert "cancelled" in output(node, *once)
    assert "Keep away" not in output(node, *once)
    assert node.state(body["id"])["delivery"] == {"sent": 1, "acked": 1, "pushed": 0}


def test_walk_command_shows_an_alert_on_entering_and_its_end_on_leaving(node):
    """The walk is a straight line through a circle."""
    spot = ground()
    node.publish(alert(spot, headline="In the middle", area=circle(spot, 3000)))
    west, east = (offset(*spot, 0, metres) for metres in (-4000, 4000))
    line = [f"--{name}={lat},{lng}" for name, (lat, lng) in (("from", west), ("to", east))]
    told = output(node, "walk", *line, "--speed", "1000", "--every", "0.2")
    lines = [line for line in told.splitlines() if "In the middle" in line]
    assert [line[:14].strip() for line in lines] == ["new", "no longer here"]
    assert re.search(r"walked ([\d,]+) of \1 m", told)


def test_listen_command_shows_a_table_of_live_alerts_in_a_terminal(node):
    """The table shows the place and the remaining time, and Ctrl-C ends the command."""
    spot = ground()
    node.publish(alert(spot, headline="On the screen"))
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    process = subprocess.Popen(
        command(node, "listen", "--lat", str(spot[0]), "--lng", str(spot[1])),
        cwd=ROOT,
        env=environment(node),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
    )
    seen = bytearray()

    def screen():
        with contextlib.suppress(BlockingIOError):
            seen.extend(os.read(ours, 65536))
        return seen.decode(errors="replace")

    try:
        wait_until(lambda: screen().count("On the screen") >= 2, "a line and a table")
        wait_until(lambda: "min" in screen() and "inside" in screen() and "where" in screen(), "the table")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr.read() == b"stopped\n"
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
        os.close(ours)
        os.close(theirs)


def test_geocast_listen_prints_and_acknowledges_alerts_until_it_is_stopped(node, tmp_path):
    """Ctrl-C ends it without a traceback; the token is read from a file (C1 to C3, M5)."""
    spot = ground()
    (tmp_path / "token").write_text(node.keys.token(sub="phone", scope=PHONE_SCOPE) + "\n")
    url = f"ws://127.0.0.1:{node.stream_port}/v1/stream"
    line = [BIN / "geocast", "listen", "--url", url, "--token-file", tmp_path / "token"]
    line += [f"--lat={spot[0]}", f"--lng={spot[1]}"]
    printed = tmp_path / "printed"
    with printed.open("w") as out, subprocess.Popen(line, stdout=out, stderr=subprocess.PIPE, text=True) as listening:
        body = alert(spot, headline="Keep away")
        node.publish(body)
        wait_until(lambda: "Keep away" in printed.read_text(), "it is printed")
        node.wait_for_counts(body["id"], sent=1, acked=1)
        node.cancel(body["id"], 2)
        wait_until(lambda: "cancelled" in printed.read_text(), "the cancel is printed")
        listening.send_signal(signal.SIGINT)
        assert listening.wait(PATIENCE) == 130
        assert CONNECTED.fullmatch(listening.stderr.read())
    assert [each.split()[0] for each in printed.read_text().splitlines()] == ["new", "cancelled"]


def test_geocast_listen_ends_quietly_when_nobody_reads_its_output(node):
    """`geocast listen | head -1` prints no traceback."""
    spot = ground()
    url = f"ws://127.0.0.1:{node.stream_port}/v1/stream"
    line = [BIN / "geocast", "listen", "--url", url, f"--lat={spot[0]}", f"--lng={spot[1]}"]
    listening = subprocess.Popen(line, env=environment(node), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with listening:
        listening.stdout.close()
        node.publish(alert(spot))
        assert listening.wait(PATIENCE) == 141
        assert CONNECTED.fullmatch(listening.stderr.read())


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (
            "not.a.token",
            "expired, and there is no other one; `geocast token --check` says what a token lacks",
        ),
        ("a b", "GEOCAST_TOKEN: not a token"),
    ],
)
def test_geocast_listen_gives_up_if_its_token_is_refused(node, token, said):
    """There is no other token, so another attempt would be in vain (W3a). The token is not repeated."""
    url = f"ws://127.0.0.1:{node.stream_port}/v1/stream"
    line = [BIN / "geocast", "listen", "--url", url, "--lat", "1", "--lng", "2"]
    done = ended(*line, env=clean_environment(GEOCAST_TOKEN=token))
    assert done.returncode == 1
    assert said in done.stderr
    assert token not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["listen", "--lat", "1"], "say where you are"),
        (["listen", "--cell", "xyz"], "--cell: expected an H3 cell"),
        (["listen", "--lat", "nan", "--lng", "0"], "--lat"),
        (["publish", "--radius", "nan"], "--radius"),
        (["cancel", "a-1", "--reason", "x"], "a token with alerts:publish is needed: --token-file FILE"),
        (["cancel", "a-1", "--reason", "x", "--token-file", "absent"], "--token-file absent: No such file"),
        (["cancel", "a-1", "--reason", "x", "--signature", "s.json"], "--signature goes with --form"),
        (["cancel", "a-1", "--reason", "x", "--form", __file__], "test_terminal.py exists: give the signatures"),
        (["cancel", "a-1", "--reason", "x", "--form", __file__, "--signature", __file__], "expected a JSON object"),
        (["cancel", "a-1", "--reason", "x", "--form", "absent", "--signature", __file__], "absent: No such file"),
    ],
)
def test_wrong_input_of_a_client_command_prints_one_line(arguments, said):
    """The exit status is not 0, and there is no traceback."""
    done = ended(BIN / "geocast", *arguments, env=clean_environment())
    assert done.returncode != 0
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def at_the_api(node, *arguments):
    """Run a publisher's command, and return its exit status and output."""
    line = [BIN / "geocast", arguments[0], "--api", str(node.api.base_url), *arguments[1:]]
    done = ended(*line, cwd=ROOT, env=clean_environment(GEOCAST_TOKEN=node.desk))
    return done.returncode, done.stdout + done.stderr


HOLDS = """
name = "careful"
[categories]
burglary = { title = "Burglary", hold_area_km2 = 100 }
"""


@pytest.fixture
def careful(keys, tmp_path):
    """A node that publishes alerts for more than 100 km2 only after a confirmation."""
    (tmp_path / "policy.toml").write_text(HOLDS)
    with Node(tmp_path, keys, "--policy", str(tmp_path / "policy.toml")) as node:
        yield node


def test_alert_and_cancel_that_need_confirmation_are_published_with_the_confirm_options(careful):
    """The options confirm the area in km2 and the kinds of revealing words.

    A cancel has them, too (rules A21, P23 and P24).
    """
    node = careful
    lat, lng = map(str, ground())
    told = ("--category", "burglary", "--severity", "minor", "--headline", "Stay away from 1200 Elm Street.")
    publish = ("publish", "--id", "held-in-a-terminal", *told, "--lat", lat, "--lng", lng, "--radius", "20000")
    text = ("--confirm-text", "address")
    held, said = at_the_api(node, *publish)
    assert held != 0
    assert "more than 100 has to be confirmed" in said
    assert "reads like a street address" in said
    assert at_the_api(node, *publish, "--confirm-area", "3000")[0] != 0
    assert at_the_api(node, *publish, *text)[0] != 0
    assert at_the_api(node, *publish, *text, "--confirm-area", "3000")[0] == 0
    cancel = ("cancel", "held-in-a-terminal", "--reason", "All clear at 1200 Elm Street.")
    assert at_the_api(node, *cancel)[0] != 0
    assert at_the_api(node, *cancel, *text)[0] == 0


def test_publish_command_sets_a_time_of_approval_after_the_time_of_occurrence(node, monkeypatch):
    """The command keeps this order even if each reading of the clock is later (rule P3)."""
    clock = itertools.count(wall_ms() - 10_000, 1_000)
    monkeypatch.setattr(publish.time, "time_ns", lambda: next(clock) * 1_000_000)
    told = ("--category", "fire_structure", "--severity", "minor", "--headline", "Stay away.", "--radius", "500")
    spot = ("--lat", "32.7", "--lng", "-96.8")
    line = ("publish", "--api", str(node.api.base_url), *told, *spot)
    result = CliRunner(env={"GEOCAST_TOKEN": node.desk}).invoke(cli, line)
    assert result.exit_code == 0, result.output


@pytest.fixture
def desk(keys, tmp_path):
    """A desk whose burglaries need two signatures, with the reviewers' keys in files."""
    with signing_node(keys, tmp_path) as desk:
        for person in desk.people:
            (tmp_path / f"{person.sub}.jwk").write_text(json.dumps(person.private()))
        yield desk


def approve(home, form, person):
    """Sign a form with `geocast approve`, and return the option with the file of the signature."""
    file = home / f"{form.stem}.{person.sub}.json"
    line = [BIN / "geocast", "approve", "--yes", "--key", str(home / f"{person.sub}.jwk")]
    with form.open("rb") as shown, file.open("wb") as signature:
        subprocess.run(line, stdin=shown, stdout=signature, stderr=subprocess.DEVNULL, timeout=60, check=True)
    return ["--signature", str(file)]


def test_signed_alert_is_published_revised_and_cancelled_by_commands(desk, tmp_path):
    """Each command runs twice; the id, number and times of the form come from the first run (AP, steps 1 to 3)."""
    node, (ann, ben, *_) = desk.node, desk.people
    lat, lng = map(str, ground())
    where = ("--lat", lat, "--lng", lng, "--radius", "500")
    burglary = ("publish", "--category", "burglary", "--severity", "minor", "--headline", "Stay away", *where)

    def signed(line, form, *people, needed):
        status, said = at_the_api(node, *line, "--form", str(form))
        assert status == 0, said
        assert f"{needed} of the reviewers have to sign it" in said
        again, refusal = at_the_api(node, *line, "--form", str(form))
        assert (again, "exists" in refusal) == (2, True)
        signatures = [each for person in people for each in approve(tmp_path, form, person)]
        return at_the_api(node, *line, "--form", str(form), *signatures)

    status, said = signed(burglary, tmp_path / "alone.json", ann, needed=2)
    assert status == 1
    assert "/approval: " in said
    status, said = signed(burglary, tmp_path / "new.json", ann, ben, needed=2)
    assert status == 0, said
    alert_id = json.loads((tmp_path / "new.json").read_text())["id"]
    assert node.live() == {alert_id}
    revise = ("revise", alert_id, "--headline", "Stay far away", *where)
    status, said = signed(revise, tmp_path / "next.json", ben, ann, needed=2)
    assert status == 0, said
    assert node.state(alert_id)["alert"]["headline"] == "Stay far away"
    cancel = ("cancel", alert_id, "--reason", "It is over.")
    status, said = signed(cancel, tmp_path / "over.json", ben, needed=1)
    assert status == 0, said
    assert node.state(alert_id)["state"] == "cancelled"
