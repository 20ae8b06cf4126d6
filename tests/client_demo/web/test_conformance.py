"""The web client meets every duty that the conformance kit can see."""

import asyncio
from pathlib import Path

import pytest

from client_demo.conformance.run import PASS, play_all, started_by, verdicts
from client_demo.conformance.scenarios import NOT_OBSERVABLE, SCENARIOS

HERE = Path(__file__).parent
WEB = HERE.parents[2] / "client_demo" / "web"
ABOUT_MESSAGES = ("basics", "tasked", "revisions", "clock", "wrong-clock", "inside", "polygons", "many")
TRIES = 4


def has_met_all(scenario, found):
    """Whether nothing was wrong in a scenario, and all was seen."""
    return {each.duty for each in verdicts([scenario], [found]) if each.outcome != PASS} == set(NOT_OBSERVABLE)


def judged(js, scenarios, *arguments):
    """The verdicts that are not a pass, by duty.

    What goes wrong is played again, alone: a busy machine may make a client late now and then, and not each time.
    """
    command = [js, str(HERE / "conforming.mjs"), str(WEB / "geocast" / "geocast.js"), *arguments]

    def play(some):
        return asyncio.run(play_all(some, started_by(command), wait_s=30.0, jobs=8), debug=False)

    found = dict(zip((each.name for each in scenarios), play(scenarios), strict=True))
    for _ in range(TRIES):
        again = [each for each in scenarios if not has_met_all(each, found[each.name])]
        for scenario in again:
            [found[scenario.name]] = play([scenario])
    found = found.values()
    return {verdict.duty: verdict for verdict in verdicts(scenarios, found) if verdict.outcome != PASS}


def test_the_web_client_meets_every_duty(js):
    """All scenarios, in JSON."""
    assert judged(js, list(SCENARIOS.values())).keys() == set(NOT_OBSERVABLE)


@pytest.mark.usefixtures("packages")
def test_the_web_client_meets_them_in_messagepack_too(js):
    """The scenarios that are about messages."""
    assert judged(js, [SCENARIOS[name] for name in ABOUT_MESSAGES], "msgpack").keys() == set(NOT_OBSERVABLE)
