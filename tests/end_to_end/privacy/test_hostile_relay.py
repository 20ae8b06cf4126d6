"""A relay that lies, between a real node and clients that verify (C11 to C15): they show what was approved.

It drops, changes, rewords, moves, prolongs, renumbers, replays, strips and forges everything that the node sends. The
client of Python is here in this process; that of the web is in client_demo/web/test_hostile_relay.py.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from end_to_end.kit.alerts import Json, ground
from end_to_end.kit.earth import Point
from end_to_end.kit.keys import PHONE_SCOPE, Keys
from end_to_end.kit.phone import Phone
from end_to_end.kit.proofs import AUDIENCE, Desk, signing_node
from end_to_end.kit.relay import Relay
from end_to_end.kit.relay_lies import lies_about, more_lies
from end_to_end.kit.times import wait_until

from client_demo.python import Verifier

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def desk(keys: Keys, tmp_path: Path) -> Iterator[Desk]:
    """A desk with three reviewers, and its node."""
    with signing_node(keys, tmp_path) as desk:
        yield desk


@pytest.fixture
def here() -> Point:
    """Where it happens."""
    return ground()


@contextlib.contextmanager
def phone(desk: Desk, relay: Relay, here: Point) -> Iterator[Phone]:
    """Yield a verifying client that is connected through the relay."""
    verifier = Verifier(desk.reviewers, AUDIENCE, approvals=2, cancel_approvals=1)
    with Phone(relay.url, here, desk.node.keys.token(sub="phone", scope=PHONE_SCOPE), verifier) as client:
        yield client


def said(form: Json) -> Json:
    """What a form, or an alert, says."""
    return {name: form.get(name) for name in ("id", "revision", "headline", "expires_at", "area", "severity", "source")}


def assert_all_was_approved(client: Phone, forms: list[Json]) -> None:
    """Each alert that was shown is one of these forms, in all that it says (C13)."""
    known = [said(form) for form in forms]
    for kind, alert, reason in client.changes:
        assert said(alert) in known, (kind, alert)
        assert reason in (None, "The fire is out.")


def test_whatever_a_relay_makes_of_it_nothing_is_shown_that_was_not_approved(desk: Desk, here: Point):
    """C12 to C14: an alert, its revision and its cancel, each in the middle of all lies about it."""

    def tamper(message: Json, before: list[Json]) -> list[Json]:
        lies = lies_about(message, desk.reviewers, before)
        return [*lies, message, *lies, *before]

    with Relay(desk.node.stream_port) as relay, phone(desk, relay, here) as client:
        relay.tamper = tamper
        first = desk.publish(here)
        client.wait_for_kinds(("new", 1))
        second = desk.revise(first, headline="The fire spreads.")
        client.wait_for_kinds(("new", 1), ("updated", 2))
        desk.cancel(second, "The fire is out.")
        wait_until(lambda: ("cancelled", 2) in client.kinds(), "it is called off")
        relay.say(*relay.heard, *more_lies(relay.heard, desk.reviewers))
        desk.publish(here, id="the-last")
        wait_until(lambda: client.kinds()[-1] == ("new", 1), "what comes then is shown")
    assert client.kinds() == [("new", 1), ("updated", 2), ("cancelled", 2), ("new", 1)]
    assert_all_was_approved(client, desk.forms)
    assert set(client.dropped) == {"unsigned", "signature", "other-place", "unknown-key", "too-few"}


def test_what_is_dropped_on_the_way_is_shown_by_the_next_connection(desk: Desk, here: Point):
    """R5, C14: a relay that lets nothing true through has not made the client forget, nor take a lie for it."""
    with Relay(desk.node.stream_port) as relay, phone(desk, relay, here) as client:
        first = desk.publish(here)
        wait_until(lambda: client.held() == {first.form["id"]: 1}, "revision 1 is held")
        relay.tamper = lambda message, before: [
            lie for lie in lies_about(message, desk.reviewers, before) if lie.get("proof") != message["proof"]
        ]
        desk.revise(first, headline="The fire spreads.")
        wait_until(lambda: client.dropped, "the lies about revision 2 were dropped")
        assert client.held() == {first.form["id"]: 1}
        relay.tamper = lambda message, _: [message]
        client.reconnect()
        wait_until(lambda: client.held() == {first.form["id"]: 2}, "revision 2 is held")
    assert client.kinds() == [("new", 1), ("updated", 2)]


def test_a_terminal_shows_what_was_approved_and_says_what_was_not(desk: Desk, here: Point, tmp_path: Path):
    """C11, C14: `listen --reviewers`, by the operator's own file."""
    forms = [desk.publish(here).form, desk.publish(here).form]
    with Relay(desk.node.stream_port) as relay:
        relay.tamper = lambda message, _: [_reworded(message) if message["alert"]["id"] == forms[0]["id"] else message]
        command = [
            *(sys.executable, "-m", "client_demo", "listen", "--once", "--url", relay.url),
            *("--lat", str(here[0]), "--lng", str(here[1])),
            *("--token", desk.node.keys.token(sub="phone", scope=PHONE_SCOPE)),
            *("--reviewers", str(desk.node.home / "reviewers.json"), "--audience", AUDIENCE, "--approvals", "2"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Burglary nearby") == 1
    assert done.stdout.count("an alert was dropped: signature") == 1
    assert "Open your doors." not in done.stdout + done.stderr


def _reworded(message: Json) -> Json:
    form = message["proof"]["form"].replace("Burglary nearby", "Open your doors.")
    return message | {"proof": message["proof"] | {"form": form}}


def test_no_proof_is_good_elsewhere(desk: Desk, here: Point, keys: Keys, tmp_path: Path):
    """C12: what the same reviewers sign for an exercise of another deployment is not shown here."""
    home = tmp_path / "training"
    home.mkdir()
    with (
        signing_node(keys, home, audience="training.example", like=desk) as training,
        Relay(training.node.stream_port) as relay,
        phone(desk, relay, here) as client,
    ):
        training.publish(here)
        wait_until(lambda: client.dropped == ["other-place"], "it was dropped")
    assert client.changes == []
