"""A subscriber on one connection, as the contract describes it."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from end_to_end.kit.alerts import SEVERITIES, Json, revision_of
from end_to_end.kit.keys import PHONE_SCOPE
from end_to_end.kit.wire import DATA_OPCODE, PONG, Closed, Wire, decode, encode
from support.schemas import check_client_message

if TYPE_CHECKING:
    from end_to_end.kit.node import Node

FORMATS = ("json", "msgpack")


TOKEN_OF_KEYS = object()
FIRST = ("standdown", "task", "call", "cancel")  # message types that precede alerts, in this order


class Session:
    """A subscriber on one connection, which keeps all received alerts and cancels in order."""

    def __init__(self, node: Node, fmt: str = "json", *, receive_buffer: int | None = None) -> None:
        self.node, self.fmt = node, fmt
        self.wire = Wire(node.stream_port, receive_buffer=receive_buffer)
        self.received: list[Json] = []
        self.frames: list[bytes] = []
        self.places: list[Json] = []
        self.welcome: Json = {}
        self.batch: list[Json] = []
        self._refs = itertools.count(1)
        answer = self.wire.upgrade(f"geocast.v1.{fmt}")
        if answer.status != 101:
            self.drop()
            raise AssertionError(f"handshake: {answer}")
        assert answer.headers["sec-websocket-protocol"] == f"geocast.v1.{fmt}"

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.drop()

    def drop(self) -> None:
        """Close the socket without a close frame."""
        self.wire.sock.close()

    def leave(self) -> int:
        """Close as the protocol says, read the remaining messages, and return the close code."""
        self.wire.send(0x8, b"\x03\xe8")
        try:
            while True:
                self.take()
        except Closed as closed:
            return closed.code
        finally:
            self.drop()

    # -- sending

    def say(self, message: Any) -> None:
        """Send one message of any content."""
        self.wire.send(DATA_OPCODE[self.fmt], encode(self.fmt, message))

    def hello(
        self, places: Iterable[Json] = (), token: Any = TOKEN_OF_KEYS, scope: str = PHONE_SCOPE, **fields: Any
    ) -> None:
        """Send a hello; read the welcome and the messages that follow it."""
        self.places = list(places)
        if token is TOKEN_OF_KEYS:
            token = self.node.keys.token(sub="phone", scope=scope)
        signed = {} if token is None else {"token": token}
        hello = {"type": "hello", "places": self.places, **signed, **fields}
        self.say(hello)
        self.welcome = self.take()
        assert self.welcome["type"] == "welcome", self.welcome
        check_client_message(hello)
        self.batch = self._announced(self.welcome)

    def ask(self, kind: str, **fields: Any) -> Json:
        """Send a message with a `ref`; return its answer, after reading the messages that follow an `ok`."""
        ref = next(self._refs)
        message = {"type": kind, "ref": ref, **fields}
        self.say(message)
        while (answer := self.take()).get("ref") != ref:
            assert answer["type"] in ("alert", "cancel"), answer
        if answer["type"] != "error":
            check_client_message(message)
        self.batch = self._announced(answer)
        return answer

    def move(self, *places: Json) -> Json:
        """Move to these places, and return the `ok`."""
        answer = self.ask("move", places=list(places))
        assert answer["type"] == "ok", answer
        self.places = list(places)
        return answer

    def filter(self, **fields: Any) -> Json:
        """Change the filter, and return the `ok`."""
        answer = self.ask("filter", **fields)
        assert answer["type"] == "ok", answer
        return answer

    def renew(self, scope: str) -> Json:
        """Send a new token with another scope for the same `sub`, and return the `ok`."""
        answer = self.ask("token", token=self.node.keys.token(sub="phone", scope=scope))
        assert answer["type"] == "ok", answer
        return answer

    def ack(self, alert_id: str, revision: int) -> None:
        """Acknowledge a revision."""
        message = {"type": "ack", "id": alert_id, "revision": revision}
        check_client_message(message)
        self.say(message)

    # -- receiving

    def take(self) -> Json:
        """Return the next message."""
        got = self.wire.recv_data()
        assert got.opcode == DATA_OPCODE[self.fmt], got
        message = decode(self.fmt, got.payload)
        if message["type"] in ("alert", "cancel"):
            self.received.append(message)
            self.frames.append(got.payload)
        return message

    def _announced(self, answer: Json) -> list[Json]:
        batch = [self.take() for _ in range(answer.get("live", 0))]
        assert [rank(m) for m in batch] == sorted(rank(m) for m in batch), "cancels, then the most severe"
        return batch

    def listen(self, alert_id: str, what: int | str) -> None:
        """Read until a revision, or the `cancel`, of an alert has arrived."""
        while what not in self.heard(alert_id):
            message = self.take()
            assert message["type"] in ("alert", "cancel"), message

    def heard(self, alert_id: str) -> list[int | str]:
        """Return the received revision numbers of an alert, and "cancel", in order."""
        return [told(m)[1] for m in self.received if told(m)[0] == alert_id]

    def everything(self) -> list[tuple[str, int | str]]:
        """Return all received alerts and cancels, in order, as (id, revision or "cancel")."""
        return [told(message) for message in self.received]

    def catch_up(self) -> None:
        """Read all messages that the node owes this session now."""
        self.node.settle()
        self.move(*self.places)


@contextlib.contextmanager
def kept_alive(sessions: list[Session]) -> Iterator[None]:
    """Keep sessions alive that are not read for a long time; the list may grow meanwhile.

    A node closes a session that has sent nothing for 60 s.
    """
    over = threading.Event()

    def say_so() -> None:
        while not over.wait(15):
            for session in list(sessions):
                with contextlib.suppress(OSError):
                    session.wire.send(PONG, b"")

    thread = threading.Thread(target=say_so)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def revise_and_cancel(
    body: Json, revises: Node, cancels: Node, told: Iterable[Session], aside: Iterable[Session]
) -> None:
    """Revise and cancel a published alert.

    Require that each session of `told` receives all of it, once and in order, and that those of `aside` receive
    nothing.
    """
    told = list(told)
    revises.revise(revision_of(body, 2))
    for session in told:
        session.listen(body["id"], 2)
    cancels.cancel(body["id"], 3)
    for session in told:
        session.listen(body["id"], "cancel")
        assert session.heard(body["id"]) == [1, 2, "cancel"]
    for session in aside:
        session.catch_up()
        assert session.everything() == []


def told(message: Json) -> tuple[str, int | str]:
    """Return the id of a message, and its revision or "cancel"."""
    if message["type"] == "cancel":
        return message["id"], "cancel"
    return message["alert"]["id"], message["alert"]["revision"]


def rank(message: Json) -> int:
    """Return the rank of a message in a batch: messages about calls, then cancels, then alerts by severity."""
    if message["type"] == "alert":
        return SEVERITIES.index(message["alert"]["severity"])
    assert message["type"] in FIRST, f"an unexpected type of message in a batch: {message}"
    return FIRST.index(message["type"]) - len(FIRST)
