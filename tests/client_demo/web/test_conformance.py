"""The web client meets every duty that the conformance kit can see."""

import asyncio
from pathlib import Path

import pytest

from client_demo.conformance.run import PASS, play_all, started_by, verdicts
from client_demo.conformance.scenarios import NOT_OBSERVABLE, SCENARIOS

HERE = Path(__file__).parent
WEB = HERE.parents[2] / "client_demo" / "web"
ABOUT_MESSAGES = ("basics", "tasked", "revisions", "clock", "wrong-clock", "inside", "polygons", "many")


def judged(js, scenarios, *arguments):
    """The verdicts that are not a pass, by duty."""
    command = [js, str(HERE / "conforming.mjs"), str(WEB / "geocast" / "geocast.js"), *arguments]
    found = asyncio.run(play_all(scenarios, started_by(command), wait_s=30.0, jobs=8))
    return {verdict.duty: verdict for verdict in verdicts(scenarios, found) if verdict.outcome != PASS}


def test_the_web_client_meets_every_duty(js):
    """All scenarios, in JSON."""
    assert judged(js, list(SCENARIOS.values())).keys() == set(NOT_OBSERVABLE)


@pytest.mark.usefixtures("packages")
def test_the_web_client_meets_them_in_messagepack_too(js):
    """The scenarios that are about messages."""
    assert judged(js, [SCENARIOS[name] for name in ABOUT_MESSAGES], "msgpack").keys() == set(NOT_OBSERVABLE)
