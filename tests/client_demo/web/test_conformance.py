"""Tests that the web client meets every duty the conformance kit can observe."""

import asyncio
from pathlib import Path

import pytest

from client_demo.conformance.run import PASS, play_all, started_by, verdicts
from client_demo.conformance.scenarios import FEED_SCENARIOS, NOT_OBSERVABLE, SCENARIOS

HERE = Path(__file__).parent
WEB = HERE.parents[2] / "client_demo" / "web"
ABOUT_MESSAGES = ("basics", "tasked", "revisions", "clock", "wrong-clock", "inside", "polygons", "many", "odd")
TRIES = 4


def has_met_all(scenario, found):
    """Return whether every observable duty of a scenario passed."""
    return {each.duty for each in verdicts([scenario], [found]) if each.outcome != PASS} == set(NOT_OBSERVABLE)


def judged(js, scenarios, *arguments, source="socket"):
    """Return the verdicts that are not a pass, by duty.

    A failed scenario is played again alone, because a client on a busy machine may be late now and then.
    """
    command = [js, str(HERE / "conforming.mjs"), str(WEB / "geocast" / "geocast.js"), *arguments]

    def play(some):
        return asyncio.run(play_all(some, started_by(command, source), wait_s=30.0, jobs=8, source=source), debug=False)

    found = dict(zip((each.name for each in scenarios), play(scenarios), strict=True))
    for _ in range(TRIES):
        again = [each for each in scenarios if not has_met_all(each, found[each.name])]
        for scenario in again:
            [found[scenario.name]] = play([scenario])
    found = found.values()
    return {verdict.duty: verdict for verdict in verdicts(scenarios, found) if verdict.outcome != PASS}


def test_web_client_meets_every_duty(js):
    """All scenarios are played in JSON."""
    assert judged(js, list(SCENARIOS.values())).keys() == set(NOT_OBSERVABLE)


@pytest.mark.usefixtures("packages")
def test_web_client_meets_every_duty_in_messagepack(js):
    """Only the scenarios about messages are played."""
    assert judged(js, [SCENARIOS[name] for name in ABOUT_MESSAGES], "msgpack").keys() == set(NOT_OBSERVABLE)


def test_web_client_of_the_feed_meets_every_duty(js):
    """The scenarios that need no connection are played with the public feed as the source."""
    assert judged(js, list(FEED_SCENARIOS.values()), source="feed").keys() == set(NOT_OBSERVABLE)
