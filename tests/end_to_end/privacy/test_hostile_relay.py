"""A relay that forges messages, between a real node and clients that verify: they show only approved alerts.

The relay drops, changes, moves, prolongs, renumbers, replays and forges messages, and strips their proofs. This file
tests the Python client; tests/client_demo/web/test_hostile_relay.py tests the web client (rules C11 to C15).
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
    """Start a desk with three reviewers, and its node."""
    with signing_node(keys, tmp_path) as desk:
        yield desk


@pytest.fixture
def here() -> Point:
    """Return the place of this test's alerts."""
    return ground()


@contextlib.contextmanager
def phone(desk: Desk, relay: Relay, here: Point) -> Iterator[Phone]:
    """Yield a verifying client that is connected through the relay."""
    verifier = Verifier(desk.reviewers, AUDIENCE, approvals=2, cancel_approvals=1)
    with Phone(relay.url, here, desk.node.keys.token(sub="phone", scope=PHONE_SCOPE), verifier) as client:
        yield client


def said(form: Json) -> Json:
    """Return those fields of a form or an alert that the tests compare."""
    return {name: form.get(name) for name in ("id", "revision", "headline", "expires_at", "area", "severity", "source")}


def assert_all_was_approved(client: Phone, forms: list[Json]) -> None:
    """Assert that each shown alert equals one of these forms (rule C13)."""
    known = [said(form) for form in forms]
    for kind, alert, reason in client.changes:
        assert said(alert) in known, (kind, alert)
        assert reason in (None, "The fire is out.")


def test_client_shows_only_approved_messages_although_a_relay_adds_forged_ones(desk: Desk, here: Point):
    """The relay sends an alert, its revision and its cancel, each between forged versions (rules C12 to C14)."""

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
        wait_until(lambda: ("cancelled", 2) in client.kinds(), "the cancel is shown")
        relay.say(*relay.heard, *more_lies(relay.heard, desk.reviewers))
        desk.publish(here, id="the-last")
        wait_until(lambda: client.kinds()[-1] == ("new", 1), "the next alert is shown")
    assert client.kinds() == [("new", 1), ("updated", 2), ("cancelled", 2), ("new", 1)]
    assert_all_was_approved(client, desk.forms)
    assert set(client.dropped) == {"unsigned", "signature", "other-place", "unknown-key", "too-few"}


def test_revision_withheld_by_a_relay_is_shown_on_the_next_connection(desk: Desk, here: Point):
    """Before that, the relay sends only forged messages.

    The client keeps the alerts that it has, and accepts no forged one (rules R5, C14).
    """
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


def test_listen_command_shows_approved_alerts_and_reports_dropped_ones(desk: Desk, here: Point, tmp_path: Path):
    """The command `listen --reviewers` uses the operator's own file of reviewers (rules C11, C14)."""
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


def test_alert_signed_for_another_deployment_is_not_shown(desk: Desk, here: Point, keys: Keys, tmp_path: Path):
    """The same reviewers have signed an exercise of another deployment (rule C12)."""
    home = tmp_path / "training"
    home.mkdir()
    with (
        signing_node(keys, home, audience="training.example", like=desk) as training,
        Relay(training.node.stream_port) as relay,
        phone(desk, relay, here) as client,
    ):
        training.publish(here)
        wait_until(lambda: client.dropped == ["other-place"], "the foreign alert was dropped")
    assert client.changes == []
