"""The web client, under Node.js, against a real node: every event, and every way in which it can go wrong."""

from __future__ import annotations

from end_to_end.harness import alert, ground, new_id, place, revision_of, circle


def test_an_alert_is_told_revised_and_cancelled(own_node, open_page):
    """The events of an alert's life, and its acknowledgement."""
    home = ground()
    page = open_page(own_node, place(home))
    page.online()
    body = alert(home)
    own_node.publish(body)
    told = page.wait(event="alert", id=body["id"])
    assert told["affected"]
    page.call("ack", told["alert"])
    own_node.wait_for_counts(body["id"], sent=1, acked=1)
    own_node.revise(revision_of(body, 2))
    assert page.wait(event="update", id=body["id"])["cause"] == "revision"
    own_node.cancel(body["id"], 3)
    assert page.wait(event="cancel", id=body["id"])["reason"] == "False alarm"
    assert page.held() == []
