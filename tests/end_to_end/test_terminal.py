"""`python -m client_demo listen`, `listen --once` and `walk` as processes on a real node."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

from end_to_end.alerts import alert, circle, ground
from end_to_end.keys import PHONE_SCOPE
from end_to_end.node import clean_environment
from end_to_end.times import wait_until
from end_to_end.wire import PATIENCE

from client_demo.python.geo import offset

ROOT = Path(__file__).parents[2]


def command(node, *arguments):
    url = f"ws://127.0.0.1:{node.stream_port}/v1/stream"
    return [sys.executable, "-m", "client_demo", arguments[0], "--url", url, *arguments[1:]]


def environment(node):
    token = node.keys.token(sub="phone", scope=PHONE_SCOPE)
    return clean_environment(GEOCAST_TOKEN=token, PYTHONUNBUFFERED="1", TERM="xterm", COLUMNS="120")


def output(node, *arguments):
    """All that a command prints until it ends well."""
    done = subprocess.run(
        command(node, *arguments),
        cwd=ROOT,
        env=environment(node),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_one_short_connection_takes_what_is_new_and_acknowledges_it(node, tmp_path):
    """What the file remembers is not told again; its cancel is, and then it is forgotten."""
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
    assert node.state(body["id"])["delivery"] == {"sent": 1, "acked": 1}


def test_who_walks_is_told_on_walking_in_and_sees_it_end_on_walking_out(node):
    """A straight line through a circle that takes seconds to cross."""
    spot = ground()
    node.publish(alert(spot, headline="In the middle", area=circle(spot, 3000)))
    west, east = (offset(*spot, 0, metres) for metres in (-4000, 4000))
    line = [f"--{name}={lat},{lng}" for name, (lat, lng) in (("from", west), ("to", east))]
    told = output(node, "walk", *line, "--speed", "1000", "--every", "0.2")
    lines = [line for line in told.splitlines() if "In the middle" in line]
    assert [line[:14].strip() for line in lines] == ["new", "no longer here"]
    assert re.search(r"walked ([\d,]+) of \1 m", told)


def test_in_a_terminal_there_is_a_table_of_what_is_held(node):
    """It comes with the alert, says where and how long, and goes with Ctrl-C."""
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
