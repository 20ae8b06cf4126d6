"""Tests of the verifying web client behind the forging relay of end_to_end/kit/relay_lies.py (rules C11 to C15)."""

from collections.abc import Callable

from end_to_end.kit.alerts import Json, ground, place
from end_to_end.kit.keys import Keys
from end_to_end.kit.proofs import AUDIENCE, signing_node
from end_to_end.kit.relay import Relay
from end_to_end.kit.relay_lies import lies_about, more_lies

SAID = ("id", "revision", "headline", "expires_at", "area", "severity", "source")


def test_page_behind_a_forging_relay_shows_only_approved_alerts(open_page: Callable[..., object], keys: Keys, tmp_path):
    """An alert, its revision and its cancel each arrive among forgeries, and are shown in order (rules C12 to C15)."""
    home = ground()
    with signing_node(keys, tmp_path) as desk, Relay(desk.node.stream_port) as relay:
        page = open_page(
            desk.node,
            place(home),
            url=relay.url,
            verify={"keys": desk.reviewers, "audience": AUDIENCE, "approvals": 2, "cancelApprovals": 1},
        )
        page.online()

        def tamper(message: Json, before: list[Json]) -> list[Json]:
            lies = lies_about(message, desk.reviewers, before)
            return [*lies, message, *lies, *before]

        relay.tamper = tamper
        first = desk.publish(home)
        page.wait(event="alert", revision=1)
        second = desk.revise(first, headline="The fire spreads.")
        page.wait(event="update", revision=2)
        desk.cancel(second, "The fire is out.")
        assert page.wait(event="cancel")["reason"] == "The fire is out."
        relay.say(*relay.heard, *more_lies(relay.heard, desk.reviewers))
        last = desk.publish(home)
        page.wait(event="alert", id=last.form["id"])
        told = [line for line in page.lines if line.get("event") in ("alert", "update", "cancel", "expire")]
        assert [line["event"] for line in told] == ["alert", "update", "cancel", "alert"]
        forms = [{name: form.get(name) for name in SAID} for form in desk.forms]
        assert all({name: line["alert"][name] for name in SAID} in forms for line in told)
        dropped = {line["message"].rpartition(" ")[2] for line in page.said(event="error", code="untrusted")}
        assert dropped == {"unsigned", "signature", "other-place", "unknown-key", "too-few"}
        assert page.held() == [(last.form["id"], 1, True)]
