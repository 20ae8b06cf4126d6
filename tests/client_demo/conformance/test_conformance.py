"""Tests of the conformance kit: this project's client passes every duty, and each broken client fails its duty.

Most scenarios run concurrently in one event loop, since a scenario mostly waits.
"""

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support.kit_clients import BROKEN, BROKEN_OF_THE_FEED, Forgets, Run, a_client, a_feed_client, holding, seeing

from client_demo.conformance.run import FAIL, NOT_APPLICABLE, PASS, play_alone, verdicts
from client_demo.conformance.scenarios import DUTIES, FEED_SCENARIOS, NOT_OBSERVABLE, SCENARIOS
from client_demo.conformance.scripted_server import Findings
from client_demo.python.client import Client

WAIT_S = 20.0
TRIES = 5
BIN = Path(sys.executable).parent
LISTEN_PLAYS = ("basics", "revisions", "inside", "polygons", "clock", "wrong-clock", "at-once", "no-return-4400", "odd")
SIDE_BY_SIDE = 20
# Reconnection delays do not depend on the message format.
ABOUT_MESSAGES = ["many", "tasked", "clock", "wrong-clock", "basics", "revisions", "inside", "polygons", "odd"]
PLAYED = {"json": list(SCENARIOS), "msgpack": ABOUT_MESSAGES}
ROOT = __file__.rpartition("/tests/")[0]


def started(run: Run, urls: int = 1):
    """Return a function that starts a client, in the form that the kit expects.

    `run` gets so many of the kit's URLs.
    """

    @contextlib.asynccontextmanager
    async def start(*addresses: str):
        task = asyncio.ensure_future(run(*addresses[:urls]))
        try:
            yield str
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return start


T = TypeVar("T")


def at_last(play: Callable[[], Coroutine[Any, Any, T]], is_good: Callable[[T], object]) -> T:
    """Return the first good result of `play`, or the last one: on a busy machine a good client is late now and then."""
    for _ in range(TRIES):
        found = asyncio.run(play(), debug=False)  # debug mode is too slow for a loop with so many tasks
        if is_good(found):
            break
    return found


def has_met_all(name: str, found: Findings) -> bool:
    """Return whether every observable duty of a scenario passed."""
    judged = verdicts([SCENARIOS[name]], [found])
    return {verdict.duty for verdict in judged if verdict.outcome != PASS} == set(NOT_OBSERVABLE)


async def play_everything():
    """Play all scenarios with the good client, and each broken client's own scenario.

    Return the findings by (client, scenario).
    """
    free = asyncio.Semaphore(SIDE_BY_SIDE)
    plays = {(wire, name): a_client(wire=wire) for wire, names in PLAYED.items() for name in names}
    plays |= {(name, scenario): run for name, (_, scenario, run) in BROKEN.items()}

    async def play(who, scenario):
        async with free:
            return await play_alone(SCENARIOS[scenario], started(plays[who, scenario]), "127.0.0.1", WAIT_S)

    longest_first = sorted(plays, key=lambda pair: list(SCENARIOS).index(pair[1]))
    found = await asyncio.gather(*(play(*pair) for pair in longest_first))
    return dict(zip(longest_first, found, strict=True))


def judged(played, who):
    """Return the verdicts on one client by duty."""
    mine = {scenario: found for (name, scenario), found in played.items() if name == who}
    return {verdict.duty: verdict for verdict in verdicts([SCENARIOS[name] for name in mine], mine.values())}


@pytest.fixture(scope="module")
def played():
    """Return the findings for all clients; failed scenarios of the good client are played again alone."""
    found = asyncio.run(play_everything(), debug=False)
    for (who, name), of_it in found.items():
        if who in PLAYED and not has_met_all(name, of_it):
            alone = partial(play_alone, SCENARIOS[name], started(a_client(wire=who)), "127.0.0.1", WAIT_S)
            found[who, name] = at_last(alone, partial(has_met_all, name))
    return found


@pytest.mark.parametrize("wire", PLAYED)
def test_own_client_meets_every_duty(played, wire):
    found = judged(played, wire)
    assert found.keys() >= {duty for name in PLAYED[wire] for duty in SCENARIOS[name].duties}
    assert {duty for duty, verdict in found.items() if verdict.outcome != PASS} == set(NOT_OBSERVABLE), found


def test_scenarios_cover_every_duty(played):
    of_the_feed = {duty for scenario in FEED_SCENARIOS.values() for duty in scenario.duties}
    assert judged(played, "json").keys() | of_the_feed == DUTIES.keys()


def play_feed(run, *names):
    """Play these scenarios of the feed, all by default, and return the findings by name."""

    async def play():
        some = [FEED_SCENARIOS[name] for name in names or FEED_SCENARIOS]
        plays = (play_alone(each, started(run, 2), "127.0.0.1", WAIT_S, "feed") for each in some)
        return dict(zip((each.name for each in some), await asyncio.gather(*plays), strict=True))

    return play


def test_own_client_of_the_feed_meets_every_duty():
    def judged_of(found):
        judged = verdicts([FEED_SCENARIOS[name] for name in found], found.values())
        return {verdict.duty: verdict for verdict in judged if verdict.outcome != PASS}

    found = judged_of(at_last(play_feed(a_feed_client()), lambda found: judged_of(found).keys() == set(NOT_OBSERVABLE)))
    assert found.keys() == set(NOT_OBSERVABLE), found


@pytest.mark.parametrize("name", BROKEN_OF_THE_FEED)
def test_client_of_the_feed_that_misses_a_duty_fails(name):
    duty, run = BROKEN_OF_THE_FEED[name]
    found = asyncio.run(play_feed(run, "feed")(), debug=False)
    [verdict] = [each for each in verdicts([FEED_SCENARIOS["feed"]], found.values()) if each.duty == duty]
    assert verdict.outcome == FAIL, verdict


@pytest.mark.parametrize("name", BROKEN)
def test_client_that_misses_a_duty_fails(played, name):
    verdict = judged(played, name)[BROKEN[name][0]]
    assert verdict.outcome == FAIL, verdict
    assert verdict.details


def test_every_observable_duty_has_a_client_that_misses_it():
    missed = {duty for duty, _, _ in BROKEN.values()} | {duty for duty, _ in BROKEN_OF_THE_FEED.values()}
    assert missed == DUTIES.keys() - set(NOT_OBSERVABLE)
    assert all(duty in SCENARIOS[scenario].duties for duty, scenario, _ in BROKEN.values() if duty != "pace")


def test_unobservable_duty_is_not_applicable():
    """A client without acknowledgements, tokens and pings does not fail the duties that need them."""

    async def play():
        names = ("inside", "new-token", "silence")
        run = a_client(token=None, on_change=lambda change: False)
        played = [await play_alone(SCENARIOS[n], started(run), "127.0.0.1", WAIT_S) for n in names[:2]]
        found = {v.duty: v.outcome for v in verdicts([SCENARIOS["inside"], SCENARIOS["new-token"]], played)}
        return found["inside"], found["new-token"]

    wanted = (NOT_APPLICABLE, NOT_APPLICABLE)
    assert at_last(play, lambda found: found == wanted) == wanted


def test_client_that_is_no_responder_does_not_fail_call_duties():
    """No call arrives without a place marked `here` (rule RQ4), and a person may ignore a call (rule RU3)."""
    names = ("duty", "called", "tasked", "crowded")

    async def play(**options):
        plays = (play_alone(SCENARIOS[n], started(a_client(**options)), "127.0.0.1", WAIT_S) for n in names)
        return verdicts([SCENARIOS[n] for n in names], await asyncio.gather(*plays))

    class Elsewhere(Client):
        def __init__(self, url, places, **options):
            super().__init__(url, [replace(place, here=False) for place in places], **options)

    of_calls = {"on-duty", "near", "accept", "called", "let-go", "calls-first", "report"}

    def seen_of(found):
        judged = {verdict.duty: verdict.outcome for verdict in found}
        return {duty for duty in of_calls if judged[duty] != NOT_APPLICABLE}, FAIL in judged.values()

    for options, seen in (({"kind": Elsewhere}, set()), ({"on_call": lambda change: None}, {"on-duty", "calls-first"})):
        found = at_last(partial(play, **options), lambda found, seen=seen: seen_of(found) == (seen, False))
        assert seen_of(found) == (seen, False), found


def test_client_without_polygon_support_does_not_fail():
    """A client that does not know polygons must show all of them (rule G2)."""
    run = seeing(lambda shape: {"type": "later"})

    def verdict_on(found):
        [verdict] = [each for each in verdicts([SCENARIOS["polygons"]], [found]) if each.duty == "polygons"]
        return verdict

    play = partial(play_alone, SCENARIOS["polygons"], started(run), "127.0.0.1", WAIT_S)
    verdict = verdict_on(at_last(play, lambda found: verdict_on(found).outcome == NOT_APPLICABLE))
    assert verdict.outcome == NOT_APPLICABLE, verdict


def test_client_that_forgets_alerts_ended_by_a_wrong_clock_does_not_fail():
    """Keeping alerts that a wrong clock has ended is recommended, not required (rule C2a)."""

    async def play():
        names, run = ("clock", "wrong-clock"), a_client(holding(Forgets))
        plays = (play_alone(SCENARIOS[n], started(run), "127.0.0.1", WAIT_S) for n in names)
        judged = verdicts([SCENARIOS[n] for n in names], await asyncio.gather(*plays))
        return {verdict.duty: verdict.outcome for verdict in judged}

    found = at_last(play, lambda found: found["wrong-clock"] == NOT_APPLICABLE and FAIL not in found.values())
    assert found["wrong-clock"] == NOT_APPLICABLE
    assert FAIL not in found.values()


# ---- the command ---------------------------------------------------------------------------------------------------


def conformance(*arguments: object, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run `python -m client_demo conformance` with the given arguments."""
    command = [sys.executable, "-m", "client_demo", "conformance", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)


LISTEN = (sys.executable, "-m", "client_demo", "listen", "--lat", "32.78", "--lng", "-96.8")


def test_geocast_listen_fulfils_the_duties_of_a_client():
    """The kit plays to `geocast listen` what is about alerts and connections (protocol, C1 to C9, W1 to W9)."""
    line = (BIN / "geocast", "listen", "--lat", "32.78", "--lng", "-96.8", "--url", "{url}")
    played = [word for scenario in LISTEN_PLAYS for word in ("--scenario", scenario)]
    for _ in range(TRIES):
        done = conformance(*played, "--", *line)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stdout + done.stderr


def test_command_is_judged_and_report_is_written(tmp_path):
    """This is the way to run the kit that its README describes."""
    report = tmp_path / "report.json"
    for _ in range(TRIES):
        done = conformance(
            *("--scenario", "basics", "--scenario", "revisions", "--json", report, "--"),
            *(*LISTEN, "--url", "{url}", "--token", "t"),
        )
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads(report.read_text())
    assert written["passed"]
    assert {duty["duty"] for duty in written["duties"] if duty["verdict"] == "pass"} >= {"hello", "revisions", "pong"}


def test_client_that_never_connects_fails():
    done = conformance("--scenario", "basics", "--wait", "2", "--", sys.executable, "-c", "print('I am lost')")
    assert done.returncode == 1
    assert "no client connected" in done.stdout
    assert "I am lost" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [("--listen", "nowhere"), ("--scenario", "no-such"), ("--json", "/no/such/dir"), ("--", "/no/such/command")],
    ids=lambda arguments: arguments[-1],
)
def test_wrong_argument_prints_one_line_and_exits_with_2(arguments):
    done = conformance(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert arguments[-1] in done.stderr or "HOST:PORT" in done.stderr


def test_client_started_by_hand_is_judged():
    """The scenarios run one after another on one address, to which the client reconnects by itself."""

    async def play():
        command = [sys.executable, "-m", "client_demo", "conformance", "--scenario", "basics", "--scenario", "inside"]
        kit = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
        assert kit.stdout
        address = re.search(rb"ws://\S+/v1/stream", await kit.stdout.readline())
        assert address
        async with started(a_client())(address[0].decode(), ""):
            output, _ = await kit.communicate()
        return kit.returncode, output.decode()

    status, output = at_last(lambda: asyncio.wait_for(play(), 120), lambda ended: ended[0] == 0)
    assert status == 0, output
    assert "fail" not in output


def test_list_option_prints_all_scenarios():
    done = conformance("--list")
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(SCENARIOS)
