"""Two issuers in one key set: equal `sub`s of both are different subjects (rule HD5)."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.calls.test_calls import here
from end_to_end.kit.alerts import Json, alert, cancel_body, ground, revision_of
from end_to_end.kit.dispatcher import DISPATCH_SCOPE, SECRETS, call, calling_node
from end_to_end.kit.keys import DESK_SCOPE, PHONE_SCOPE, Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import Session
from end_to_end.kit.times import wait_until

CHAMBER, APP = "https://chamber.example", "https://app.example"
QUALS = ["cpr", "medic"]


class TwoIssuers(Keys):
    """The key of the chamber, which may grant qualifications, and the key of an app, which may not."""

    def __init__(self, *, named: bool = True) -> None:
        """Create the keys; `named` says whether the key set names the issuer of each key."""
        super().__init__(QUALS)
        self.app = Keys()
        self.issuers = {"ed": CHAMBER, "app": APP} if named else {}

    def jwks(self) -> Json:
        """Return the key set."""
        keys = [*super().jwks()["keys"], self.app.jwks()["keys"][0] | {"kid": "app"}]
        return {"keys": [key | self._issuer_of(key["kid"]) for key in keys]}

    def _issuer_of(self, kid: str) -> Json:
        return {"iss": self.issuers[kid]} if kid in self.issuers else {}

    def of_app(self, **claims: Any) -> str:
        """Return a token signed with the app's key."""
        return self.app.signed(self.app.claims(**claims), kid="app")

    def of_chamber(self, sub: str, **claims: Any) -> str:
        """Return a responder's token signed with the chamber's key."""
        now = int(time.time())
        return self.token(**{"sub": sub, "scope": PHONE_SCOPE, "quals": QUALS, "iat": now, "exp": now + 3600} | claims)


def calling(home: Path, keys: TwoIssuers) -> Node:
    """Return a node with calls and these keys."""
    return calling_node(home, keys)


class Heard(Session):
    """A session at the place of the calls; `heard` has all messages that it received."""

    def __init__(self, node: Node, token: str, **fields: Any) -> None:
        super().__init__(node)
        self.heard: list[Json] = []
        self.hello([here(0)], token=token, **fields)

    def take(self) -> Json:
        """Return the next message."""
        self.heard.append(super().take())
        return self.heard[-1]

    def assert_no_place(self) -> None:
        """Require that no message of this session, up to now, contains the exact place."""
        self.move(*self.places)
        assert not any(secret in json.dumps(self.heard) for secret in SECRETS)
        assert not any(message["type"] == "task" for message in self.heard)


def posted(node: Node, path: str, body: Json, sub: str = "cad-3") -> Json:
    """Post as a dispatcher of the chamber; require 201 and return the answer."""
    answer = node.post(path, body, node.keys.token(sub=sub, scope=DISPATCH_SCOPE))
    assert answer.status_code == 201, answer.text
    return answer.json()


def seats(node: Node, call_id: str) -> list[Json]:
    """Return the seats of a call, as the dispatcher sees them."""
    answer = node.get(f"/v1/calls/{call_id}", node.keys.token(sub="cad-3", scope=DISPATCH_SCOPE))
    assert answer.status_code == 200, answer.text
    return answer.json()["seats"]


@pytest.fixture(params=[True, False], ids=["iss is written", "iss is not written"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    """A node whose key set has two issuers."""
    with calling(tmp_path, TwoIssuers(named=request.param)) as node:
        yield node
        node.assert_no_surprise()


def test_task_is_never_sent_to_the_same_sub_of_another_issuer(node: Node) -> None:
    """Sessions from before the seat, later sessions and a correction of the place make no difference (rule HD5)."""
    keys = node.keys
    assert isinstance(keys, TwoIssuers)
    forged = keys.of_app(sub="r-1", scope=PHONE_SCOPE, quals=QUALS, iat=int(time.time()), exp=int(time.time()) + 3600)
    body = call()
    with Heard(node, forged) as early, Heard(node, keys.of_chamber("r-1")) as responder:
        posted(node, "/v1/calls", body)
        assert responder.take()["type"] == "call"
        responder.say({"type": "accept", "id": body["id"]})
        assert SECRETS[2] in json.dumps(responder.take())
        with Heard(node, forged) as late, Heard(node, keys.of_chamber("r-1")) as second_phone:
            assert [message["type"] for message in second_phone.batch] == ["task"]
            corrected = {**body, "headline": "Adult, not breathing, second floor.", "replaces": 1}
            posted(node, f"/v1/calls/{body['id']}/revisions", corrected)
            assert responder.take()["type"] == second_phone.take()["type"] == "task"
            early.assert_no_place()
            late.assert_no_place()
            late.say({"type": "accept", "id": body["id"]})
            assert late.take() == {"type": "standdown", "id": body["id"], "reason": "over"}
            late.assert_no_place()


def test_same_sub_of_another_issuer_cannot_give_up_a_responders_seat(node: Node) -> None:
    """`decline` and `report` of the other subject have no effect, whatever its `holding` says (rule HD5)."""
    keys = node.keys
    assert isinstance(keys, TwoIssuers)
    body = call()
    with Heard(node, keys.of_chamber("r-1")) as responder:
        posted(node, "/v1/calls", body)
        responder.take()
        responder.say({"type": "accept", "id": body["id"]})
        assert responder.take()["type"] == "task"
        [seat] = seats(node, body["id"])
        with Heard(node, keys.of_app(sub="r-1", scope=PHONE_SCOPE), holding={body["id"]: 2}) as other:
            for kind in ({"type": "decline"}, {"type": "report", "state": "arrived"}, {"type": "decline"}):
                other.say({**kind, "id": body["id"]})
            other.assert_no_place()
        # The seat holder reports last. So when this report is stored, the other session's messages have been handled.
        responder.say({"type": "report", "id": body["id"], "state": "aed"})
        wait_until(lambda: seats(node, body["id"])[0]["state"] != "going", "a report is stored")
        [after] = seats(node, body["id"])
        assert (after["accepted_at"], after["state"]) == (seat["accepted_at"], "aed")


def test_same_sub_of_two_issuers_takes_two_separate_seats(tmp_path: Path) -> None:
    """Both keys may grant qualifications, and neither responder gets the other's seat (rules HD5 and RV3)."""
    keys = TwoIssuers()
    keys.app.quals = QUALS
    now = int(time.time())
    theirs = keys.of_app(sub="r-1", scope=PHONE_SCOPE, quals=QUALS, iat=now, exp=now + 3600)
    body = call()
    with calling(tmp_path, keys) as node, Heard(node, keys.of_chamber("r-1")) as one, Heard(node, theirs) as other:
        posted(node, "/v1/calls", body)
        for session in (one, other):
            assert session.take()["type"] == "call"
            session.say({"type": "accept", "id": body["id"]})
            assert session.take()["type"] == "task"
        assert [(seat["seat"], seat["responder"]) for seat in seats(node, body["id"])] == [(1, "r-1"), (2, "r-1")]
        one.say({"type": "decline", "id": body["id"]})
        assert one.take()["reason"] == "left"
        assert [seat["seat"] for seat in seats(node, body["id"])] == [2]


def test_same_sub_of_another_issuer_cannot_change_an_alert_or_call(tmp_path: Path) -> None:
    """The other subject cannot read counts, revise or cancel the alert, nor see or end the call (rule HD5)."""
    keys = TwoIssuers()
    theirs, others = (sign(sub="desk", scope=DESK_SCOPE) for sign in (keys.token, keys.of_app))
    calling_others = keys.of_app(sub="cad-3", scope=DISPATCH_SCOPE)
    body, asked = alert(ground()), call()
    with calling(tmp_path, keys) as node:
        assert node.post("/v1/alerts", body, theirs).status_code == 201
        path = f"/v1/alerts/{body['id']}"
        assert node.get(path, others).json()["alert"]["source"] == "desk"
        for other in (f"{path}/revisions", revision_of(body, 2)), (f"{path}/cancel", cancel_body(2)):
            refused = node.post(*other, others)
            assert (refused.status_code, refused.json()["type"]) == (403, "/problems/not-yours")
        assert "delivery" in node.get(path, theirs).json()
        assert "delivery" not in node.get(path, others).json()
        node.restart()
        assert node.post(f"{path}/cancel", cancel_body(2), others).status_code == 403
        assert node.post(f"{path}/cancel", cancel_body(2), theirs).status_code == 201
        posted(node, "/v1/calls", asked)
        assert node.get(f"/v1/calls/{asked['id']}", calling_others).status_code == 403
        assert node.get("/v1/calls", calling_others).json() == {"calls": []}
        assert node.post(f"/v1/calls/{asked['id']}/end", {"reason": "x"}, calling_others).status_code == 403
        posted(node, f"/v1/calls/{asked['id']}/end", {"reason": "The crew is there."})
        node.assert_no_surprise()


def test_session_ends_when_the_issuer_of_its_key_changes(tmp_path: Path) -> None:
    """The change comes with a token of another issuer, or with a reload of the key set (rules HD5, M4 and BA3)."""
    keys, body = TwoIssuers(), call()
    with calling(tmp_path, keys) as node:
        with Heard(node, keys.of_chamber("r-1")) as session:
            session.say({"type": "token", "token": keys.of_app(sub="r-1", scope=PHONE_SCOPE)})
            assert session.wire.close_code() == 4401
        posted(node, "/v1/calls", body)
        with (
            Heard(node, keys.of_chamber("r-1")) as holder,
            Heard(node, keys.of_app(sub="r-2", scope=PHONE_SCOPE)) as app,
        ):
            assert [message["type"] for message in holder.batch] == ["call"]
            holder.say({"type": "accept", "id": body["id"]})
            assert holder.take()["type"] == "task"
            keys.issuers["ed"] = "https://other.example"
            (tmp_path / "keys.json").write_text(json.dumps(keys.jwks()))
            assert node.process
            node.process.send_signal(signal.SIGHUP)
            assert holder.wire.close_code() == 4401
            app.assert_no_place()
        with Heard(node, keys.of_chamber("r-1")) as again:
            assert [message["type"] for message in again.batch] == ["call"]
            again.assert_no_place()
        node.assert_no_surprise()
