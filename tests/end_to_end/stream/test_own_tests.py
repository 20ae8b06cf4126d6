"""A test alert that a session has asked for, on a real node (rules TR1 to TR7)."""

from collections.abc import Callable

import pytest
from end_to_end.kit.alerts import alert, ground, place
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import FORMATS, Session

Join = Callable[..., Session]


@pytest.mark.parametrize("fmt", FORMATS)
def test_own_test_reaches_the_session_that_asked_and_the_next_one_has_to_wait(node: Node, join: Join, fmt: str):
    """TR1, TR3 and TR5: a session beside it is sent nothing, and alerts go on as ever."""
    spot = ground()
    token = node.keys.token(sub=f"tester-{fmt}", scope="alerts:receive")
    session, other = join(node, place(spot), token=token, fmt=fmt), join(node, place(spot), fmt=fmt)
    assert session.ask("try", id="k1") == {"type": "ok", "ref": 1, "live": 1}
    [told] = session.batch
    assert (told["alert"]["id"], told["alert"]["status"]) == ("try:k1", "test")
    error = session.ask("try", id="k2")
    assert (error["code"], 3590 < error["retry_after_s"] <= 3600) == ("rate-limited", True)
    body = node.publish(alert(spot))
    for each in (session, other):
        each.listen(body["id"], 1)
    assert other.everything() == [(body["id"], 1)]
    back = join(node, place(spot), token=token, fmt=fmt, holding={"try:k1": 1, body["id"]: 1})
    assert back.welcome["live"] == 0


def test_own_test_is_unknown_to_the_api_and_its_id_is_refused(node: Node, join: Join):
    """TR4: nobody can read, revise or cancel it, or publish under its id."""
    spot = ground()
    session = join(node, place(spot), token=node.keys.token(sub="tester-api", scope="alerts:receive"))
    session.ask("try", id="k3")
    assert node.get("/v1/alerts/try:k3").status_code == 404
    assert "try:k3" not in node.live()
    cancel = {"revision": 2, "reason": "x", "approval": alert(spot)["approval"]}
    assert node.post("/v1/alerts/try:k3/cancel", cancel).status_code == 404
    refused = node.post("/v1/alerts", alert(spot) | {"id": "try:k3"})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/id")
