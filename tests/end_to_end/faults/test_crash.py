"""Tests that kill the node with SIGKILL right after a 201 and check what the 201 promised."""

import threading
from collections.abc import Callable

import httpx
from end_to_end.kit.alerts import Json, alert, cancel_body, ground, place, revision_of
from end_to_end.kit.earth import beyond
from end_to_end.kit.keys import bearer
from end_to_end.kit.node import Node, repeated
from end_to_end.kit.subscriber import Session
from end_to_end.kit.wire import PATIENCE

Join = Callable[..., Session]


def test_alert_survives_a_kill_right_after_the_answer_201(own_node: Node, join: Join):
    """A late joiner of the new process gets the alert exactly as it was published (section 4, "Durable")."""
    spot = ground()
    body = alert(spot)
    first = own_node.publish(body)
    own_node.restart()
    assert own_node.state(body["id"])["state"] == "live"
    late = join(own_node, place(spot))
    late.listen(body["id"], 1)
    assert late.received[0]["alert"]["area"] == first["area"]
    assert late.received[0]["alert"]["issued_at"] == first["issued_at"]


def test_request_repeated_after_a_kill_gets_the_first_answer_again(own_node: Node):
    """Publishing, revising and cancelling are safe to repeat across a restart (section 4)."""
    body = alert(ground())
    path = f"/v1/alerts/{body['id']}"
    steps = [
        ("/v1/alerts", body),
        (f"{path}/revisions", revision_of(body, 2)),
        (f"{path}/cancel", cancel_body(3)),
    ]
    for step in steps:
        first = own_node.post(*step)
        assert first.status_code == 201, first.text
        own_node.restart()
        again = own_node.post(*step)
        assert (again.status_code, again.json()) == (200, first.json())


def test_revision_and_cancel_after_a_kill_get_the_next_revision_numbers(own_node: Node, join: Join):
    spot = ground()
    body = alert(spot)
    own_node.publish(body)
    own_node.restart()
    session = join(own_node, place(spot))
    session.listen(body["id"], 1)
    own_node.revise(revision_of(body, 2))
    session.listen(body["id"], 2)
    own_node.cancel(body["id"], 3)
    session.listen(body["id"], "cancel")
    assert session.heard(body["id"]) == [1, 2, "cancel"]


def test_every_acknowledged_alert_of_a_burst_survives_a_kill(own_node: Node, join: Join):
    """Acknowledged alerts are there; the others can be repeated until they are acknowledged (section 4)."""
    spot = ground()
    bodies = [alert(spot) for _ in range(400)]
    accepted = post_until_killed(own_node, bodies, kill_after=60)
    assert 60 <= len(accepted) < len(bodies), "the kill came in the middle"
    own_node.start()
    late = join(own_node, place(spot))
    for name in accepted:
        assert own_node.state(name)["state"] == "live"
        late.listen(name, 1)
    for body in bodies:
        answer = own_node.post("/v1/alerts", body)
        assert answer.status_code in ((200,) if body["id"] in accepted else (200, 201)), answer.text
        late.listen(body["id"], 1)
    late.catch_up()
    assert len(late.received) == len(bodies), "each once"


def post_until_killed(node: Node, bodies: list[Json], kill_after: int) -> set[str]:
    """Post from four threads, and kill the node after `kill_after` answers; return the ids that got a 201."""
    accepted: set[str] = set()
    enough = threading.Event()

    def post(share: list[Json]) -> None:
        with httpx.Client(
            base_url=node.api.base_url, headers=bearer(node.desk), trust_env=False, timeout=PATIENCE
        ) as api:
            for body in share:
                try:
                    answer = repeated(lambda body=body: api.post("/v1/alerts", json=body))  # type: ignore[misc]
                except httpx.TransportError:
                    return
                assert answer.status_code == 201, answer.text
                accepted.add(body["id"])
                if len(accepted) >= kill_after:
                    enough.set()

    threads = [threading.Thread(target=post, args=(bodies[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    assert enough.wait(PATIENCE)
    node.kill()
    for thread in threads:
        thread.join()
    return accepted


def test_client_50_km_away_gets_the_cancel_that_it_missed_before_a_restart(own_node: Node, join: Join):
    """`holding` brings a returning client up to date, whatever it missed (rule 5)."""
    spot = ground()
    body = alert(spot)
    own_node.publish(body)
    session = join(own_node, place(spot))
    session.listen(body["id"], 1)
    session.drop()
    own_node.cancel(body["id"], 2)
    own_node.restart()
    back = join(own_node, place(beyond(spot, 90, 50_000)), holding={body["id"]: 1})
    back.listen(body["id"], "cancel")
    assert back.received[0]["revision"] == 2
    assert back.received[0]["reason"] == "False alarm"
    back.catch_up()
    assert back.heard(body["id"]) == ["cancel"]


def test_client_50_km_away_gets_the_revision_that_it_missed_before_a_restart(own_node: Node, join: Join):
    """A client with an older revision gets the current one. A client with the current one gets nothing (rule 5)."""
    spot = ground()
    body, other = alert(spot), alert(spot)
    own_node.publish(body)
    own_node.publish(other)
    own_node.revise(revision_of(body, 2))
    own_node.kill()
    own_node.start()
    back = join(own_node, place(beyond(spot, 90, 50_000)), holding={body["id"]: 1, other["id"]: 1})
    back.listen(body["id"], 2)
    back.catch_up()
    assert back.everything() == [(body["id"], 2)]


def test_node_that_is_stopped_closes_its_sessions_with_1001_or_1012(own_node: Node, join: Join):
    """The close code is 1001 or 1012 (section 5, "Close codes")."""
    sessions = [join(own_node, place(ground()), fmt=fmt) for fmt in ("json", "msgpack")]
    own_node.terminate()
    assert {session.wire.close_code() for session in sessions} <= {1001, 1012}
    assert "Traceback" not in own_node.output()


def test_alert_survives_orderly_stop(own_node: Node, join: Join):
    """Alerts are durable across any restart (section 4, "Durable")."""
    spot = ground()
    body = alert(spot)
    own_node.publish(body)
    own_node.terminate()
    own_node.start()
    assert own_node.post("/v1/alerts", body).status_code == 200
    join(own_node, place(spot)).listen(body["id"], 1)
