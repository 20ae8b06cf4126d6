"""Waiting for newer keys: a client whose token has an unknown key waits, within limits (rule T8)."""

import asyncio
import json

import jwt
import pytest
from jwt.algorithms import OKPAlgorithm
from stream.line import TEXT, Line, a_stream, close_frame, frame, opened
from support.fakes import NOON_MS
from support.flipping import respelled

from geocast.auth import jwks_refresh
from geocast.auth.jwks_refresh import MAX_WAITING, NewerKeys
from geocast.auth.tokens import Key, make_key
from geocast.model import close_codes
from geocast.stream.connection import HELLO_S

PAIRS = {kid: make_key(kid) for kid in ("old", "new")}
KEYS = {kid: Key(public, "EdDSA") for kid, (_, public) in PAIRS.items()}
PING = {"type": "ping"}


def token(kid):
    """Return a subscriber's token."""
    claims = {"aud": "geocast", "sub": "phone", "exp": NOON_MS // 1000 + 600, "scope": "alerts:receive"}
    return jwt.encode(claims, OKPAlgorithm.from_jwk(PAIRS[kid][0]), "EdDSA", {"kid": kid})


class Waiting:
    """A stand-in for `NewerKeys` in which a test decides when a wait ends. It has no deadline of its own."""

    def __init__(self, room=8):
        self.room = room
        self.those = []

    def wait(self, then):
        """Register a waiting client, if there is room."""
        if len(self.those) < self.room:
            self.those.append(then)
            return True
        return False

    def settle(self):
        """End the wait of all clients."""
        those, self.those = self.those, []
        for then in those:
            then()


@pytest.fixture
def waiting():
    """Return the stand-in in which clients wait."""
    return Waiting()


@pytest.fixture
def stream(waiting):
    """Return a node's stream with the old key in force."""
    stream = a_stream(newer_keys=waiting)
    stream.tokens.replace({"old": KEYS["old"]}, {})
    return stream


def hello(line: Line, kid: str) -> None:
    """Send a `hello` with a token of this key."""
    line.tell({"type": "hello", "token": token(kid), "places": []})


def test_reading_pauses_after_hello_with_unknown_key(stream, waiting):
    """Later messages are not read, and are answered in order afterwards (rule T8)."""
    line = opened(stream)
    hello(line, "new")
    line.tell(PING)
    assert line.hear() == []
    assert not line.transport.reading
    stream.tokens.replace(KEYS, {})
    waiting.settle()
    assert line.transport.reading
    line.say(b"")
    assert line.received() == ["welcome", "pong"]


def test_messages_received_together_with_waiting_hello_wait_too(stream, waiting):
    """Messages that were received in the same read wait like those that are still in the kernel (rule T8)."""
    line = opened(stream)
    messages = {"type": "hello", "token": token("new"), "places": []}, PING
    line.say(b"".join(frame(TEXT, json.dumps(message).encode()) for message in messages))
    assert line.hear() == []
    stream.tokens.replace(KEYS, {})
    waiting.settle()
    assert line.received() == ["welcome", "pong"]


def test_hello_is_refused_if_refreshed_jwks_lacks_the_tokens_key(stream, waiting):
    """The code is 4401, and the client does not wait again (rule T8)."""
    line = opened(stream)
    hello(line, "new")
    waiting.settle()
    assert line.hear() == [close_frame(close_codes.BAD_TOKEN)]
    assert waiting.those == []
    assert stream.held == {}


def test_client_beyond_limit_of_waiting_clients_is_refused_at_once(stream, waiting):
    """The number of waiting clients is limited (rule T8)."""
    waiting.room = 1
    first, second = opened(stream), opened(stream)
    hello(first, "new")
    hello(second, "new")
    assert first.hear() == []
    assert second.hear() == [close_frame(close_codes.BAD_TOKEN)]


def test_token_with_known_key_is_checked_without_waiting(stream, waiting):
    """This holds for valid and invalid tokens (rule T8)."""
    good, broken = opened(stream), opened(stream)
    hello(good, "old")
    assert good.received() == ["welcome"]
    broken.tell({"type": "hello", "token": respelled(token("old")), "places": []})
    assert broken.hear() == [close_frame(close_codes.BAD_TOKEN)]
    assert waiting.those == []


def test_token_message_with_unknown_key_waits_for_refreshed_jwks(stream, waiting):
    """The session continues meanwhile (rules M4 and T8)."""
    line = opened(stream)
    hello(line, "old")
    line.hear()
    line.tell({"type": "token", "token": token("new")})
    assert line.hear() == []
    stream.tokens.replace(KEYS, {})
    waiting.settle()
    assert line.received() == ["ok"]


def test_client_that_leaves_while_waiting_is_forgotten(stream, waiting):
    """The client has disconnected, or its time for a `hello` is over (rule T8)."""
    lost, late = opened(stream), opened(stream)
    hello(lost, "new")
    hello(late, "new")
    lost.lose()
    late.pass_time(HELLO_S)
    assert late.hear() == [close_frame(close_codes.NO_HELLO)]
    stream.tokens.replace(KEYS, {})
    waiting.settle()
    assert late.hear() == []
    assert stream.held == {}
    assert len(stream.hub) == 0


def test_slow_client_that_catches_up_still_waits_for_keys(stream, waiting):
    """A connection has two independent reasons not to be read (Rule 3 of `stream.connection`)."""
    line = opened(stream)
    hello(line, "old")
    line.tell({"type": "token", "token": token("new")})
    line.transport.full = True
    line.connection.pause_writing()
    line.drain()
    assert not line.transport.reading
    waiting.settle()
    assert line.hear()[-1] == close_frame(close_codes.BAD_TOKEN)


# ---- waiting for a fetch -------------------------------------------------------------------------------------


async def test_all_waiting_clients_share_one_fetch_of_keys():
    """All clients, however many there are, wait for the same fetch (rule T8)."""
    asked = []
    newer = NewerKeys(lambda: asked.append(1))
    waits = [asyncio.ensure_future(newer.waited()) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not newer.wait(lambda: None), "one more is one too many"
    await newer.waited()
    assert asked == [1]
    newer.settle()
    await asyncio.gather(*waits)
    assert newer.wait(lambda: None)


async def test_wait_for_keys_ends_after_time_limit(monkeypatch):
    """The time limit is WAIT_S (rule T8)."""
    monkeypatch.setattr(jwks_refresh, "WAIT_S", 0.01)
    await NewerKeys(lambda: None).waited()


async def test_wait_for_keys_ends_if_fetch_is_impossible():
    """The key set cannot be fetched now, so `settle` is called at once (rule T8)."""
    newer = NewerKeys(lambda: newer.settle())  # noqa: PLW0108 (it is not there yet)
    await newer.waited()
    await newer.waited()


async def test_client_that_fails_after_its_wait_keeps_no_other_waiting():
    """Its error is reported to the loop."""
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context["exception"]))
    newer = NewerKeys(lambda: None)
    assert newer.wait(lambda: 1 / 0)
    other = asyncio.ensure_future(newer.waited())
    await asyncio.sleep(0)
    newer.settle()
    await other
    assert [type(each) for each in errors] == [ZeroDivisionError]
