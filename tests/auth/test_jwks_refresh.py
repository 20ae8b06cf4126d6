"""Who shows a token of an unknown key waits for the next set, within bounds, and holds nothing up (T8)."""

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
    """A subscriber's token."""
    claims = {"aud": "geocast", "sub": "phone", "exp": NOON_MS // 1000 + 600, "scope": "alerts:receive"}
    return jwt.encode(claims, OKPAlgorithm.from_jwk(PAIRS[kid][0]), "EdDSA", {"kid": kid})


class Waiting:
    """Stands in for `NewerKeys`. Purpose: to say when a wait is over. Lies: it has no deadline of its own."""

    def __init__(self, room=8):
        self.room = room
        self.those = []

    def wait(self, then):
        """Take them in while there is room."""
        if len(self.those) < self.room:
            self.those.append(then)
            return True
        return False

    def settle(self):
        """Let all go on."""
        those, self.those = self.those, []
        for then in those:
            then()


@pytest.fixture
def waiting():
    """Where they wait."""
    return Waiting()


@pytest.fixture
def stream(waiting):
    """A node's stream with the old key in force."""
    stream = a_stream(newer_keys=waiting)
    stream.tokens.replace({"old": KEYS["old"]}, {})
    return stream


def hello(line: Line, kid: str) -> None:
    """Say it with a token of that key."""
    line.tell({"type": "hello", "token": token(kid), "places": []})


def test_a_hello_waits_and_so_does_all_behind_it(stream, waiting):
    """T8: what comes meanwhile is not read, and then answered in order."""
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


def test_messages_of_one_read_wait_too(stream, waiting):
    """T8: not only what is still in the kernel."""
    line = opened(stream)
    messages = {"type": "hello", "token": token("new"), "places": []}, PING
    line.say(b"".join(frame(TEXT, json.dumps(message).encode()) for message in messages))
    assert line.hear() == []
    stream.tokens.replace(KEYS, {})
    waiting.settle()
    assert line.received() == ["welcome", "pong"]


def test_without_a_newer_key_it_is_4401(stream, waiting):
    """T8: nobody waits twice."""
    line = opened(stream)
    hello(line, "new")
    waiting.settle()
    assert line.hear() == [close_frame(close_codes.BAD_TOKEN)]
    assert waiting.those == []
    assert stream.held == {}


def test_who_is_one_too_many_is_refused_at_once(stream, waiting):
    """T8: so many wait, and no more."""
    waiting.room = 1
    first, second = opened(stream), opened(stream)
    hello(first, "new")
    hello(second, "new")
    assert first.hear() == []
    assert second.hear() == [close_frame(close_codes.BAD_TOKEN)]


def test_a_token_of_a_known_key_does_not_wait(stream, waiting):
    """T8: neither a good one nor one that is broken."""
    good, broken = opened(stream), opened(stream)
    hello(good, "old")
    assert good.received() == ["welcome"]
    broken.tell({"type": "hello", "token": respelled(token("old")), "places": []})
    assert broken.hear() == [close_frame(close_codes.BAD_TOKEN)]
    assert waiting.those == []


def test_a_fresh_token_of_an_unknown_key_waits(stream, waiting):
    """M4, T8: the session goes on."""
    line = opened(stream)
    hello(line, "old")
    line.hear()
    line.tell({"type": "token", "token": token("new")})
    assert line.hear() == []
    stream.tokens.replace(KEYS, {})
    waiting.settle()
    assert line.received() == ["ok"]


def test_who_has_left_meanwhile_is_forgotten(stream, waiting):
    """T8: by its own end, or because its time for a `hello` was over."""
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


def test_a_slow_one_that_recovers_is_still_not_read(stream, waiting):
    """Rule 3: there are two reasons not to read it."""
    line = opened(stream)
    hello(line, "old")
    line.tell({"type": "token", "token": token("new")})
    line.transport.full = True
    line.connection.pause_writing()
    line.drain()
    assert not line.transport.reading
    waiting.settle()
    assert line.hear()[-1] == close_frame(close_codes.BAD_TOKEN)


# ---- the wait itself -----------------------------------------------------------------------------------------


async def test_all_wait_for_one_fetch():
    """T8: however many there are."""
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


async def test_a_wait_that_nobody_settles_ends_by_itself(monkeypatch):
    """T8: after WAIT_S."""
    monkeypatch.setattr(jwks_refresh, "WAIT_S", 0.01)
    await NewerKeys(lambda: None).waited()


async def test_what_is_settled_at_once_is_waited_for_too():
    """T8: when the set can't be fetched now."""
    newer = NewerKeys(lambda: newer.settle())  # noqa: PLW0108 (it is not there yet)
    await newer.waited()
    await newer.waited()
