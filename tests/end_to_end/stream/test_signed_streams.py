"""Streams with proofs on a real node, read by a client of the `websockets` library (rules S7, F9)."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
from end_to_end.kit.alerts import Json, alert, ground, place
from end_to_end.kit.earth import Point
from end_to_end.kit.keys import PHONE_SCOPE, Keys
from end_to_end.kit.proofs import AUDIENCE, Desk, signing_node
from end_to_end.kit.wire import PATIENCE
from support.schemas import check_server_message
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from client_demo.python import Verifier

BOTH = ["geocast.v1.json.signed", "geocast.v1.json"]
SIGNED = ["geocast.v1.json.signed", "geocast.v1.msgpack.signed"]


@pytest.fixture(scope="module")
def desk(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Start a desk whose alerts of category burglary are signed, and whose robberies are not."""
    with signing_node(keys, tmp_path_factory.mktemp("signed")) as desk:
        yield desk


@pytest.fixture
def here() -> Point:
    """Return the place of this test's alerts."""
    return ground()


class Stock:
    """A connection of the `websockets` library that checks each message against the documented schemas."""

    def __init__(self, desk: Desk, spot: Point, *protocols: str, **hello: Any) -> None:
        url = f"ws://127.0.0.1:{desk.node.stream_port}/v1/stream"
        offered = [Subprotocol(each) for each in protocols]
        self._connecting = connect(url, subprotocols=offered, compression=None, proxy=None)
        self.socket = self._connecting.__enter__()
        self.is_text = "json" in str(self.socket.subprotocol)
        token = desk.node.keys.token(sub="phone", scope=PHONE_SCOPE)
        self.say(type="hello", token=token, places=[place(spot)], **hello)
        self.welcome = self.take()
        assert self.welcome["type"] == "welcome"

    def close(self) -> None:
        """Close the connection."""
        self._connecting.__exit__(None, None, None)

    def say(self, **message: Any) -> None:
        """Send a message."""
        self.socket.send(json.dumps(message) if self.is_text else msgpack.packb(message))

    def take(self) -> Json:
        """Return the next message."""
        frame = self.socket.recv(PATIENCE)
        assert isinstance(frame, str) == self.is_text
        message = json.loads(frame) if self.is_text else msgpack.unpackb(frame)
        check_server_message(message)
        return message


@pytest.fixture
def join(desk: Desk, here: Point) -> Iterator[Callable[..., Stock]]:
    """Yield `join(*protocols, **hello)`, which connects a client at `here` until the test is over."""
    joined: list[Stock] = []

    def joining(*protocols: str, **hello: Any) -> Stock:
        joined.append(Stock(desk, here, *protocols, **hello))
        return joined[-1]

    yield joining
    for each in joined:
        each.close()


@pytest.mark.parametrize("protocol", SIGNED)
def test_client_verifies_the_signed_alert_revision_and_cancel(
    desk: Desk, here: Point, join: Callable[..., Stock], protocol
):
    """The messages come in both formats and are acknowledged as usual (rules F9, C12)."""
    phone = join(protocol)
    verifier = Verifier(desk.reviewers, AUDIENCE, approvals=2, cancel_approvals=1)
    first = desk.publish(here)
    told = phone.take()
    assert told.keys() == {"type", "alert", "proof"}
    assert told["alert"].keys() == {"id", "revision", "issued_at"}
    assert json.loads(told["proof"]["form"]) == first.form
    shown = verifier.read(told)["alert"]
    plain = desk.node.state(first.form["id"])["alert"]
    assert shown | {"issued_at": plain["issued_at"]} == plain
    phone.say(type="ack", id=first.form["id"], revision=1)
    desk.node.wait_for_counts(first.form["id"], sent=1, acked=1)
    second = desk.revise(first, headline="Two burglaries nearby")
    assert verifier.read(phone.take())["alert"]["headline"] == "Two burglaries nearby"
    desk.cancel(second, "The fire is out.")
    over = phone.take()
    assert over.keys() == {"type", "id", "revision", "cancelled_at", "proof"}
    assert verifier.read(over)["reason"] == "The fire is out."


def test_client_that_offers_both_streams_gets_signed_and_unsigned_alerts(
    desk: Desk, here: Point, join: Callable[..., Stock]
):
    """Unsigned alerts look as on the plain stream, and the plain stream has no proofs (rules S7, F9)."""
    either, plain = join(*BOTH), join("geocast.v1.json")
    assert either.socket.subprotocol == BOTH[0]
    signed = desk.publish(here)
    bare = alert(here, category="robbery")
    desk.node.publish(bare)
    assert {"proof" in either.take(), "proof" in either.take()} == {True, False}
    told = [plain.take() for _ in range(2)]
    assert {message["alert"]["id"] for message in told} == {signed.form["id"], bare["id"]}
    assert not any("proof" in message for message in told)


def test_client_that_joins_late_or_returns_is_sent_the_proof(desk: Desk, here: Point, join: Callable[..., Stock]):
    """One client joins late, one has an older revision, and one has an alert that was cancelled (rules R3, R5)."""
    first = desk.publish(here)
    late = join(SIGNED[0])
    assert (late.welcome["live"], json.loads(late.take()["proof"]["form"])) == (1, first.form)
    second = desk.revise(first, headline="Two burglaries nearby")
    back = join(SIGNED[0], holding={first.form["id"]: 1})
    assert json.loads(back.take()["proof"]["form"]) == second.form
    third = desk.cancel(second, "The fire is out.")
    again = join(SIGNED[0], holding={first.form["id"]: 2})
    assert json.loads(again.take()["proof"]["form"]) == third.form
