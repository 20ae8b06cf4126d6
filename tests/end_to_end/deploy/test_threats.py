"""The rows of threats.md on a real node: what an attacker with certain rights can and cannot do."""

import asyncio
import dataclasses
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from end_to_end.kit.alerts import Json, alert, cancel_body, circle, ground, place, revision_of
from end_to_end.kit.keys import DESK_SCOPE, EVERY_SCOPE, PHONE_SCOPE, Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import Session
from end_to_end.kit.wire import Closed
from support.ports import free_ports

from geocast.alertlog.sqlite.log import SqliteLog
from geocast.model.alert import Entry

Join = Callable[..., Session]
OPEN = {"/healthz", "/readyz", "/problems/{slug}", "/metrics"}


@pytest.fixture(scope="module")
def guarded(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with a separate metrics listener, which publishers cannot reach."""
    [port] = free_ports(1)
    with Node(tmp_path_factory.mktemp("threats"), keys, "--metrics", f"127.0.0.1:{port}") as node:
        yield node


def calls(node: Node) -> Iterator[tuple[str, str]]:
    """Yield the method and path of every protected API route, with a fixed id."""
    for path, operations in node.api.get("/openapi.json").json()["paths"].items():
        for method in operations if path not in OPEN else ():
            yield method, path.format(alert_id="some-alert", call_id="some-call")


def statuses(node: Node, token: str | None) -> set[int]:
    """Return the statuses of all protected routes with a token, or without one."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    asked = list(calls(node))
    assert len(asked) >= 6
    return {node.api.request(method, path, headers=headers, json={}).status_code for method, path in asked}


def posted(node: Node, desk: str, body: Json) -> list[int]:
    """Return the statuses of a revision and a cancel of an alert by a desk."""
    path = f"/v1/alerts/{body['id']}"
    return [
        node.post(f"{path}/revisions", revision_of(body, 2), desk).status_code,
        node.post(f"{path}/cancel", cancel_body(2), desk).status_code,
    ]


# -- clients without a token


def test_client_without_a_token_can_read_and_write_nothing(guarded: Node):
    """The API answers 401, and the stream closes with 4401 (row TH1)."""
    guarded.publish(alert(ground()))
    assert statuses(guarded, None) == {401}
    with Session(guarded) as session:
        session.say({"type": "hello", "places": []})
        with pytest.raises(Closed) as closed:
            session.take()
    assert closed.value.code == 4401


# -- attackers with a subscriber's token


def test_subscriber_token_reads_every_live_alert_as_published(guarded: Node, join: Join):
    """Nobody checks whether a subscriber really is at its places.

    So a client that moves everywhere receives every alert (row TH2). It receives no test alerts and no counts.
    """
    spots = [ground() for _ in range(3)]
    told = [guarded.publish(alert(spot)) for spot in spots]
    secret = guarded.publish(alert(spots[0], status="test"))
    session = join(guarded)
    for spot in spots:
        session.move(place(spot))
    assert [shown["alert"]["id"] for shown in session.received] == [each["id"] for each in told]
    assert [shown["alert"]["area"] for shown in session.received] == [each["area"] for each in told]
    assert secret["id"] not in {each for each, _ in session.everything()}
    assert statuses(guarded, guarded.keys.token(sub="phone", scope=PHONE_SCOPE)) == {403}


def test_acks_of_alerts_never_sent_and_repeated_acks_are_not_counted(guarded: Node, join: Join):
    """Subscribers may claim false places, and each connection counts separately (row TH2)."""
    spot = ground()
    body = alert(spot)
    guarded.publish(body)
    first, other = join(guarded, place(spot)), join(guarded, place(ground()))
    for session in (first, first, other):
        session.ack(body["id"], 1)
        session.move(*session.places)
    guarded.wait_for_counts(body["id"], sent=1, acked=1)


# -- attackers with a publisher's token or the signing key


def test_publisher_token_cannot_change_alerts_of_another_publisher(guarded: Node):
    """A publisher can read all live alerts, and publish false ones under its own name (row TH4)."""
    other = guarded.keys.token(sub="desk-two", scope=DESK_SCOPE)
    body = alert(ground())
    guarded.publish(body)
    assert posted(guarded, other, body) == [403, 403]
    read = guarded.get(f"/v1/alerts/{body['id']}", other).json()
    assert read["alert"]["headline"] == body["headline"]
    assert "delivery" not in read
    assert guarded.get("/metrics", other).status_code == 404
    mine = guarded.publish(alert(ground(), headline="Nothing of this is true"), other)
    assert guarded.state(mine["id"])["alert"]["source"] == "desk-two"


def test_manager_token_can_cancel_any_alert_but_not_publish(guarded: Node):
    """The scope is `alerts:manage` (row TH5)."""
    manager = guarded.keys.token(sub="operator", scope="alerts:manage")
    body = alert(ground())
    guarded.publish(body)
    assert guarded.post("/v1/alerts", alert(ground()), manager).status_code == 403
    assert posted(guarded, manager, body) == [201, 409]
    assert guarded.post(f"/v1/alerts/{body['id']}/cancel", cancel_body(3), manager).status_code == 201


def test_holder_of_the_signing_key_can_act_as_any_publisher(guarded: Node):
    """The tokens may have any `sub` and scope (row TH6)."""
    body = alert(ground())
    guarded.publish(body)
    forged = guarded.keys.token(sub="desk-one", scope=EVERY_SCOPE)
    assert guarded.get(f"/v1/alerts/{body['id']}", forged).json()["delivery"] == {"sent": 0, "acked": 0, "pushed": 0}
    assert posted(guarded, forged, body) == [201, 409]


# -- attackers who can write to the log


async def _written(path: Path, change: Callable[[Entry], Entry], alert_id: str) -> None:
    log = SqliteLog(path)
    await log.start()
    try:
        [known, *_] = await log.history(alert_id)
        await log.append(change(known))
    finally:
        await log.stop()


def rogue(node: Node, alert_id: str, **changes: Any) -> None:
    """Write a changed copy of an alert's entry into the log, without any check of the API."""

    def change(entry: Any) -> Entry:
        return dataclasses.replace(entry, alert=dataclasses.replace(entry.alert, **changes))

    asyncio.run(_written(node.log_file, change, alert_id))


def test_attacker_who_can_write_to_the_log_can_publish_without_approval(own_node: Node, join: Join):
    """The node sends the forged alert as long as the policy requires no signatures (row TH7)."""
    spot = ground()
    body = alert(spot)
    session = join(own_node, place(spot))
    own_node.publish(body)
    session.listen(body["id"], 1)
    rogue(own_node, body["id"], id="rogue", headline="Written behind everybody's back")
    session.listen("rogue", 1)


def test_attacker_who_can_write_to_the_log_can_withhold_alerts(own_node: Node, join: Join):
    """After a restart, the node no longer has a deleted alert, but clients that have it keep it (row TH7)."""
    spot = ground()
    body = alert(spot, area=circle(spot))
    own_node.publish(body)
    own_node.kill()
    with closing(sqlite3.connect(own_node.log_file)) as db, db:
        db.execute("DELETE FROM entry")
    own_node.start()
    assert own_node.get(f"/v1/alerts/{body['id']}").status_code == 404
    assert join(own_node, place(spot), holding={body["id"]: 1}).batch == []
