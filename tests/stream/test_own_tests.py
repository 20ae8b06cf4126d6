"""The message `try` on a connection: who is sent the test alert, and who is refused (rules TR1 to TR7)."""

import json

import pytest
from stream.line import TEXT, a_stream, joined, opened
from support.fakes import DALLAS, NOON_MS, a_cancel, a_revision
from support.schemas import check_client_message, check_server_message

from geocast.auth.scopes import RECEIVE
from geocast.auth.tokens import Key, TokenVerifier, make_key, sign
from geocast.stream.own_tests import OwnTests

PLACES = [{"lat": DALLAS[0], "lng": DALLAS[1]}]
PRIVATE, PUBLIC = make_key("k1")
ASKED = {"type": "try", "id": "k3Hq9wZ2", "ref": 4}


def trying(**options):
    """Return a stream that sends own tests."""
    return a_stream(own_tests=OwnTests(), **options)


def messages(line):
    """Return the messages since the last call, each checked against the published schema."""
    found = [json.loads(payload) for opcode, payload in line.hear() if opcode == TEXT]
    for each in found:
        check_server_message(each)
    return found


def with_places(stream=None, **hello):
    """Return a line whose client is in Dallas."""
    line = opened(stream or trying())
    line.tell({"type": "hello", "places": PLACES} | hello)
    assert [each["type"] for each in messages(line)] == ["welcome"]
    return line


def test_try_is_answered_with_ok_and_a_test_alert_to_this_session_alone():
    """TR1 to TR3: without the scope alerts:test, and whatever the filter is."""
    stream = trying()
    other = with_places(stream)
    line = with_places(stream, categories=["robbery"], min_severity="extreme")
    check_client_message(ASKED)
    line.tell(ASKED)
    ok, alert = messages(line)
    assert ok == {"type": "ok", "ref": 4, "live": 1}
    assert (alert["type"], alert["alert"]["id"], alert["alert"]["status"]) == ("alert", "try:k3Hq9wZ2", "test")
    assert messages(other) == []


def test_own_test_is_not_live_and_not_counted():
    """TR4: an `ack` of it is ignored."""
    line = with_places()
    line.tell(ASKED)
    line.tell({"type": "ack", "id": "try:k3Hq9wZ2", "revision": 1})
    hub = line.stream.hub
    assert (len(messages(line)), len(hub.fanout.live), hub.fanout.sends, hub.fanout.live.take_counts()) == (2, 0, 0, {})


def test_client_that_holds_an_own_test_is_sent_nothing_about_it_after_it_reconnects():
    """TR7: it is unknown (R5e), and alerts are sent as ever."""
    stream = trying()
    line = opened(stream)
    stream.hub.fanout.deliver(a_revision("a-1"), line.clock.now())
    line.tell({"type": "hello", "places": PLACES, "holding": {"try:k3Hq9wZ2": 1, "a-1": 1}})
    assert [(each["type"], each["live"]) for each in messages(line)] == [("welcome", 0)]
    stream.hub.fanout.deliver(a_cancel("a-1"), line.clock.now())
    while stream.hub.turn(line.clock.now()):
        pass
    assert [(each["type"], each["id"]) for each in messages(line)] == [("cancel", "a-1")]


def test_session_without_a_place_is_refused_a_test():
    """TR6."""
    line = joined(trying())
    line.tell(ASKED)
    [error] = messages(line)
    assert (error["code"], error["ref"]) == ("no-place", 4)


@pytest.mark.parametrize("wrong", ["", "a b", "x" * 65, 7, "é"])
def test_try_with_a_malformed_id_is_refused(wrong):
    """TR1: X7."""
    line = with_places()
    line.tell({"type": "try", "id": wrong})
    [error] = messages(line)
    assert (error["code"], error["detail"].partition(":")[0]) == ("bad-field", "/id")
    assert not str(wrong) or str(wrong) not in error["detail"].replace("x", "")


def test_second_test_of_a_subject_within_an_hour_is_refused_on_every_connection():
    """TR5: `retry_after_s` has the seconds to wait, and the session goes on."""
    stream = trying(tokens=TokenVerifier({"k1": Key(PUBLIC, "EdDSA")}))

    def hello(sub):
        return with_places(stream, token=sign(PRIVATE, sub, [RECEIVE], NOON_MS // 1000, 7200))

    first, second, other = hello("a"), hello("a"), hello("b")
    first.tell(ASKED)
    assert [each["type"] for each in messages(first)] == ["ok", "alert"]
    stream.clock.advance(1000)
    second.tell(ASKED)
    [error] = messages(second)
    assert (error["code"], error["retry_after_s"], error["ref"]) == ("rate-limited", 2600, 4)
    other.tell(ASKED)
    assert [each["type"] for each in messages(other)] == ["ok", "alert"]
    stream.clock.advance(2600)
    second.tell(ASKED)
    assert [each["type"] for each in messages(second)] == ["ok", "alert"]
