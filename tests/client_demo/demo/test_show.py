"""Tests of the whole demo, shortened: its own node, subscribers in two processes, a desk and a verdict."""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import ended

from client_demo.console import make_console
from client_demo.demo.progress import Progress
from client_demo.demo.show import MIN_SECONDS, Evidence, _phones_that_sleep, outcome_of
from client_demo.demo.verdict import Published
from client_demo.python.geo import Place

ROOT = Path(__file__).parents[3]
CALL_LINE = r"call: expected=(\d+) rung=(\d+) outside=0 missed=0 seats=(\d)/4 place_seen_by_others=0 frames=(\d+) .*"
FEED_LINE = r"feed-mode: expected=(\d+) told=(\d+) outside=0 places_known_to_server=0 .*"
RELAY_LINE = r"relay: expected=(\d+) got=(\d+) out_of_order=0 forged=0 .*"
PUSH_LINE = r"push: expected=(\d+) told=(\d+) outside=0 missed=0 phones=48 told_on_waking=(\d+) .*"
LAST_LINE = (
    r"demo: alerts=(\d+) expected=(\d+) delivered=(\d+) outside=(\d+) missed=(\d+)"
    r" stored_p99_ms=\d+\.\d p99_ms=(\d+\.\d)"
)


@pytest.mark.slow
@pytest.mark.timeout(800)
def test_demo_ends_with_nobody_missed_and_nobody_outside():
    """The last printed lines can be parsed by a program."""
    if not Path(sys.executable).with_name("geocast").exists():
        pytest.skip("there is no `geocast` command beside this Python: `make install` makes it")
    for seconds in (MIN_SECONDS, 2 * MIN_SECONDS):  # a busy machine is too slow for the shortest demo
        with contextlib.suppress(AssertionError):
            assert_shown(play(seconds))
            return
    assert_shown(play(4 * MIN_SECONDS))


def play(seconds):
    """Run a demo of `seconds` and return the ended process."""
    command = (sys.executable, "-m", "client_demo", "demo", "--seconds", seconds, "--subscribers", 300)
    environment = {key: value for key, value in os.environ.items() if key != "DEMO_FEED"}
    return ended(*command, cwd=ROOT, env=environment, timeout=240)


def assert_shown(done):
    """Assert that the demo succeeded, and check the counts in its last lines."""
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.fullmatch(LAST_LINE, done.stdout.splitlines()[-1])
    assert found is not None, done.stdout
    alerts, expected, delivered, outside, missed = (int(number) for number in found.groups()[:5])
    assert alerts >= 2
    assert expected == delivered > 0
    assert outside == missed == 0
    call = re.fullmatch(CALL_LINE, done.stdout.splitlines()[-2])
    assert call is not None, done.stdout
    expected, rung, seats, frames = map(int, call.groups())
    assert expected == rung >= seats > 0
    assert frames >= rung + seats
    relay = re.fullmatch(RELAY_LINE, done.stdout.splitlines()[-5])
    assert relay is not None, done.stdout
    expected, got = map(int, relay.groups())
    assert expected == got > 0
    push = re.fullmatch(PUSH_LINE, done.stdout.splitlines()[-3])
    assert push is not None, done.stdout
    expected, told, on_waking = map(int, push.groups())
    assert expected == told > on_waking > 0
    feed = re.fullmatch(FEED_LINE, done.stdout.splitlines()[-4])
    assert feed is not None, done.stdout
    expected, told = map(int, feed.groups())
    assert expected == told > 0
    assert done.stdout.splitlines()[-6] == "fetch: entries=2 published=2 lost=0 twice=0"
    for act in ("it has moved east", "lost their connection", "came back, holding", "re-timed"):
        assert act in done.stdout


def test_demo_without_aiohttp_prints_one_line_and_skips_sleeping_phones(monkeypatch, tmp_path, capsys):
    """`make demo` installs aiohttp; without it the rest of the demo works."""
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    for name in ("client_demo.push_service", "client_demo.demo.sleepers"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    async def ask():
        async with contextlib.AsyncExitStack() as cleanup:
            return await _phones_that_sleep(Progress(make_console()), None, tmp_path, cleanup)

    assert asyncio.run(ask()) is None
    assert capsys.readouterr().out == "no sleeping phones, because aiohttp is missing; `make demo` installs it\n"


def test_sigterm_ends_the_demo_and_its_child_processes():
    """Ctrl-C ends the demo in the same way."""
    command = [sys.executable, "-u", "-m", "client_demo", "demo", "--no-stay", "--subscribers", "20", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        assert demo.stdout
        lines = iter(demo.stdout.readline, "")
        assert any("subscribers connected" in line for line in lines)
        started = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
        demo.terminate()
        assert list(lines)[-1] == "stopped\n"
    assert started
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


HELLO, GOT = ("hello", 10, 0, {}), ("alert", 100_000_100, "a", 1)


@pytest.mark.parametrize(
    ("events", "faults", "is_good", "counts"),
    [
        ([[HELLO, GOT]], [], True, "expected=1 delivered=1 outside=0 missed=0 stored_p99_ms=0.0 p99_ms=100.0"),
        (
            [[HELLO, GOT]],
            ["a connection was closed with 1006 (1 times)"],
            False,
            "expected=1 delivered=1 outside=0 missed=0",
        ),
        ([[HELLO, GOT], [HELLO]], [], False, "expected=2 delivered=1 outside=0 missed=1"),
        ([[HELLO, GOT, GOT]], [], False, "expected=1 delivered=1 outside=0 missed=0"),
        ([], [], False, "expected=0 delivered=0 outside=0 missed=0 stored_p99_ms=0.0 p99_ms=0.0"),
    ],
)
def test_demo_is_good_only_if_something_was_delivered_without_fault(events, faults, is_good, counts):
    """Missed, wrong, repeated or no deliveries at all make a demo bad."""
    area = [{"type": "circle", "lat": 1.0, "lng": 2.0, "radius_m": 100.0}]
    items = [Published("a", 1, area, 100, 200, "arson", "text")]
    records = [([[Place.at(1.0, 2.0)]], record) for record in events]
    outcome = outcome_of(Evidence(items, records, list(faults), 10**9))
    assert outcome.is_good is is_good
    assert outcome.last_line().startswith(f"demo: alerts=1 {counts}")
