"""A connection after its handshake: fragments, control frames, pauses and the end, one event at a time.

Rules are those of `geocast.stream.connection`; sections are those of RFC 6455.
"""

import itertools
import json
import logging
import time

import pytest
from stream.line import CONT, DESCRIPTOR, HELLO, TEXT, Line, a_stream, close_frame, frame, joined, opened, take_turns
from support.fakes import DALLAS, a_revision
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from geocast.model import close_codes
from geocast.stream.connection import (
    BURST,
    FRAGMENT_COST,
    HASTE_S,
    HEADERS_S,
    HELLO_S,
    HELLOS_S,
    LINGER_S,
    MAX_HELLO_BYTES,
    MAX_MESSAGE_BYTES,
    RATE_PER_S,
    control_answer,
    retire,
    whole_message,
)
from geocast.stream.session import Session

KEY = {"kty": "oct", "kid": "k", "alg": "HS256", "k": "c2VjcmV0" * 8}
PING_MESSAGE = json.dumps({"type": "ping"}).encode()
PING_FRAME = frame(TEXT, PING_MESSAGE)


# ---- messages and fragments ----------------------------------------------------------------------------------


def test_message_that_arrives_byte_by_byte_is_answered():
    """The parser is fed whole frames; an incomplete frame waits (Rule 2)."""
    line = joined()
    for byte in frame(TEXT, PING_MESSAGE):
        assert line.hear() == []
        line.say(bytes([byte]))
    assert line.received() == ["pong"]


def test_several_messages_in_one_read_are_all_answered():
    """Each is answered, in order; a part of the next waits."""
    line = joined()
    ping = frame(TEXT, PING_MESSAGE)
    line.say(ping * 3 + ping[:5])
    assert line.received() == ["pong"] * 3
    line.say(ping[5:])
    assert line.received() == ["pong"]


@pytest.mark.parametrize("size", [125, 126, 127, 4096, MAX_MESSAGE_BYTES])
def test_payload_lengths_in_all_three_encodings_are_read(size):
    """The length has three forms (RFC 6455, 5.2)."""
    line = joined()
    line.say(frame(TEXT, PING_MESSAGE.ljust(size)))
    assert line.received() == ["pong"]


def test_ping_between_fragments_is_answered():
    """Control frames may come in the middle of a fragmented message (5.4)."""
    line = joined()
    line.say(frame(TEXT, PING_MESSAGE[:5], fin=False))
    line.say(frame(CONT, b"", fin=False))
    line.say(frame(Opcode.PING, b"are you there"))
    assert line.hear() == [(Opcode.PONG, b"are you there")]
    line.say(frame(CONT, PING_MESSAGE[5:]))
    assert line.received() == ["pong"]


def test_parser_exists_only_while_a_message_is_incomplete():
    """All fragments of a message have the same parser (Rule 2)."""
    line = joined()
    assert line.connection._parser is None
    line.say(frame(TEXT, PING_MESSAGE[:5], fin=False))
    parser = line.connection._parser
    assert parser is not None
    line.say(frame(CONT, PING_MESSAGE[5:9], fin=False))
    assert line.connection._parser is parser
    line.say(frame(CONT, PING_MESSAGE[9:]))
    assert line.connection._parser is None


@pytest.mark.parametrize(
    ("said", "close"),
    [
        ([frame(CONT, PING_MESSAGE)], close_codes.PROTOCOL_ERROR),
        ([frame(TEXT, b"{", fin=False), frame(TEXT, b"}")], close_codes.PROTOCOL_ERROR),
        ([b"\x81\x02{}"], close_codes.PROTOCOL_ERROR),  # not masked
        ([bytes([0xC1]) + frame(TEXT, PING_MESSAGE)[1:]], close_codes.PROTOCOL_ERROR),  # a reserved bit
        ([bytes([0x83]) + frame(TEXT, PING_MESSAGE)[1:]], close_codes.PROTOCOL_ERROR),  # a reserved opcode
        ([frame(Opcode.BINARY, PING_MESSAGE)], close_codes.WRONG_FRAME_TYPE),
        ([b"\x81\xfe\x40\x01"], close_codes.TOO_LONG),  # 16 KiB and one byte: its head is enough
        ([b"\x81\xff" + b"\x7f" + b"\xff" * 7], close_codes.TOO_LONG),
        ([frame(TEXT, b" " * 9000, fin=False), frame(CONT, b" " * 9000)], close_codes.TOO_LONG),
        ([frame(TEXT, b"[")], close_codes.MALFORMED),
        ([frame(TEXT, b'{"type":"ping","ref":"\xff"}')], close_codes.BAD_UTF8),
        ([frame(TEXT, json.dumps(HELLO).encode())], close_codes.MALFORMED),
        ([frame(Opcode.CLOSE, b"\x03")], close_codes.PROTOCOL_ERROR),
    ],
)
def test_broken_frame_ends_the_session_with_its_close_code(said, close):
    """One close frame is written, then the stream ends, and the hub has forgotten the session."""
    line = joined()
    for data in said:
        line.say(data)
    assert line.hear() == [close_frame(close)]
    assert line.transport.ended
    assert line.stream.closes == {close.code: 1}
    assert len(line.stream.hub) == 0


def test_hello_may_be_longer_than_any_later_message():
    """A `hello`, which names the alerts that the client has, may have 64 KiB, other messages 16 KiB (F6)."""
    line = opened()
    line.say(frame(TEXT, json.dumps(HELLO).encode().ljust(MAX_HELLO_BYTES)))
    assert line.received() == ["welcome"]
    line.say(frame(TEXT, PING_MESSAGE.ljust(MAX_MESSAGE_BYTES + 1)))
    assert line.hear() == [close_frame(close_codes.TOO_LONG)]


def test_hello_that_is_too_long_is_refused_before_its_payload_arrives():
    """The length in the head of the frame is enough."""
    line = opened()
    line.say(b"\x81\xff" + (MAX_HELLO_BYTES + 1).to_bytes(8, "big"))
    assert line.hear() == [close_frame(close_codes.TOO_LONG)]


def test_unexpected_error_ends_the_session_and_logs_only_its_class(monkeypatch, caplog):
    """The session ends with 1011. Neither the message nor the text of the error is logged."""
    line, place = joined(), f"{DALLAS[0]}, {DALLAS[1]}"

    def fail(_session, _payload, _now):
        raise ZeroDivisionError(place)

    monkeypatch.setattr(Session, "receive", fail)
    with caplog.at_level(logging.ERROR):
        line.say(frame(TEXT, PING_MESSAGE))
    assert line.hear() == [close_frame(close_codes.INTERNAL)]
    assert "ZeroDivisionError" in caplog.text
    assert str(DALLAS[0]) not in caplog.text


# ---- control frames ------------------------------------------------------------------------------------------


def test_ping_is_answered_with_its_payload():
    """A pong repeats the payload of its ping (RFC 6455, 5.5.3)."""
    line = joined()
    line.say(frame(Opcode.PING, b"x" * 125) + frame(Opcode.PING))
    assert line.hear() == [(Opcode.PONG, b"x" * 125), (Opcode.PONG, b"")]


def test_answers_to_pings_and_pongs_equal_those_of_the_full_parser():
    """Every first byte and length of a control frame is tried, with a mask and without (5.5.2, 5.5.3)."""
    for first in range(256):
        for size in (0, 1, 3, 4, 125):
            for mask in (b"", b"\0\0\0\0", b"\x01\xff\x80\x7e"):
                data = bytes((first, size | (0x80 if mask else 0))) + mask + bytes(range(size))
                answer = control_answer(data)
                if answer is not None:
                    assert answer == answer_of_the_parser(data)
                elif mask and first in (0x89, 0x8A):
                    pytest.fail(f"left to the parser: {data!r}")
    for first in (0x89, 0x8A):
        assert control_answer(bytes((first, 0x80 | 126, 0, 126)) + bytes(4 + 126)) is None


def test_payload_of_a_whole_message_equals_that_of_the_full_parser():
    """Every first byte is tried with each kind of length, with a mask and without, whole, cut and followed (5.2)."""
    for first in range(256):
        for size, length in [(0, 0), (5, 5), (125, 125), (126, 126), (126, 300), (126, 5), (127, 300)]:
            for mask in (b"", b"\0\0\0\0", b"\x01\xff\x80\x7e"):
                wide = {126: 2, 127: 8}.get(size, 0)
                head = bytes((first, size | (0x80 if mask else 0))) + (length.to_bytes(wide) if wide else b"") + mask
                data = head + bytes(number % 251 for number in range(length))
                payload = whole_message(data, 1000)
                assert (payload is not None) == bool(mask and first in (0x81, 0x82) and (size, length) in WHOLE)
                if payload is not None:
                    assert payload == message_of_the_parser(data)
                    assert whole_message(data[:-1], 1000) is None
                    assert whole_message(data + b"x", 1000) is None
                    assert whole_message(data, length - 1) is None


WHOLE = [(0, 0), (5, 5), (125, 125), (126, 126), (126, 300)]


def message_of_the_parser(data):
    """Return the payload that websockets' parser finds in a frame."""
    parser = ServerProtocol(state=OPEN)
    parser.receive_data(data)
    (message,) = parser.events_received()
    return message.data


def answer_of_the_parser(data):
    """Return the answer of websockets' parser to a frame."""
    parser = ServerProtocol(state=OPEN)
    parser.receive_data(data)
    assert parser.parser_exc is None
    answer = b"".join(parser.data_to_send())
    retire(parser)
    return answer


def test_connection_that_sent_a_pong_is_not_dropped_as_silent():
    """Any byte counts; a connection that is silent for 60 s ends (W8)."""
    line = joined()
    silent = joined(line.stream)
    line.pass_time(50)
    line.say(frame(Opcode.PONG))
    line.hear()
    line.pass_time(10)
    assert silent.transport.aborted
    assert not line.transport.closed


def test_close_frame_of_the_client_is_echoed():
    """The answer has the client's close code, then the stream ends. No later byte is read (5.5.1)."""
    line = joined()
    line.say(frame(Opcode.CLOSE, b"\x03\xe8bye") + frame(TEXT, PING_MESSAGE))
    assert line.hear() == [(Opcode.CLOSE, b"\x03\xe8bye")]
    assert line.transport.ended
    assert line.stream.closes == {}
    assert len(line.stream.hub) == 0


def test_session_that_exceeds_the_frame_rate_is_closed():
    """BURST frames may come at once, then RATE_PER_S; control frames count like any other (4429)."""
    line = joined()
    line.say(frame(Opcode.PONG) * (BURST - 2) + frame(TEXT, PING_MESSAGE))
    assert line.received() == ["pong"]
    line.pass_time(5 / RATE_PER_S)
    line.say(frame(Opcode.PONG) * 5)
    assert line.hear() == []
    line.say(frame(Opcode.PONG))
    assert line.hear() == [close_frame(close_codes.TOO_MANY)]


def test_messages_ahead_of_the_rate_wait_for_their_turn():
    """Each call of the loop handles one frame of one client, in the order of their coming (Rule 6)."""
    hasty = joined()
    stream = hasty.stream
    second = joined(stream)
    stream.runs = False
    at_once = int(HASTE_S * RATE_PER_S)
    hasty.say(PING_FRAME * (at_once + 5))
    second.say(PING_FRAME * (at_once + 5))
    first_heard, second_heard = len(hasty.received()), len(second.received())
    assert at_once - 1 <= first_heard == second_heard <= at_once + 1
    assert not hasty.transport.reading
    for _ in range(2):
        take_turns(stream, 1)
        assert (hasty.received(), second.received()) == (["pong"], [])
        take_turns(stream, 1)
        assert (hasty.received(), second.received()) == ([], ["pong"])
    take_turns(stream)
    assert hasty.received() == second.received() == ["pong"] * (5 + at_once - first_heard - 2)
    assert hasty.transport.reading
    assert stream.due == []


def test_hello_waits_if_others_have_used_up_the_time_of_an_iteration(monkeypatch):
    """The loop handles a few of them, then sends alerts and answers others, then goes on (Rule 6)."""
    stream = a_stream()
    stream.runs = False
    ticks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks) * HELLOS_S * 0.7)
    lines = [opened(stream) for _ in range(5)]
    for line in lines:
        line.tell(HELLO)
    welcomed = [line.received() for line in lines]
    assert welcomed == [["welcome"], ["welcome"], [], [], []]
    take_turns(stream, 1)
    assert [line.received() for line in lines] == [[], [], ["welcome"], [], []]
    stream.clock.advance(2 * HELLO_S)
    stream.sweep()
    take_turns(stream)
    assert [line.received() for line in lines] == [[], [], [], ["welcome"], ["welcome"]]


def test_client_that_is_silent_is_dropped_in_time_although_an_older_one_has_a_later_deadline():
    """The deadline of `hello` counts from the 101, and connections are not ended in the order of their accepts."""
    older = Line()
    silent = Line(older.stream)
    older.pass_time(HEADERS_S / 2)
    older.ask()
    assert older.answer()[0] == 101
    older.pass_time(HEADERS_S / 2)
    assert silent.transport.aborted
    assert not older.transport.closed
    older.tell(HELLO)
    assert older.received() == ["welcome"]


def test_client_that_sends_more_than_its_waiting_hello_is_not_read():
    """A waiting `hello` alone does not pause the connection, but what follows has to wait in the kernel (Rule 6)."""
    stream = a_stream()
    stream.runs = False
    stream.hellos.note_work(HELLOS_S)
    polite, hasty = opened(stream), opened(stream)
    polite.tell(HELLO)
    hasty.tell(HELLO)
    assert list(stream.hellos.waiting) == [polite.connection, hasty.connection]
    assert polite.transport.reading
    assert hasty.transport.reading
    hasty.say(PING_FRAME)
    assert not hasty.transport.reading
    hasty.say(PING_FRAME)
    polite.say(PING_FRAME[:3])
    assert list(stream.hellos.waiting) == [polite.connection, hasty.connection]
    assert not polite.transport.reading
    assert polite.received() == hasty.received() == []
    take_turns(stream)
    hasty.say(b"")
    polite.say(PING_FRAME[3:])
    assert polite.received() == ["welcome", "pong"]
    assert hasty.received() == ["welcome", "pong", "pong"]


def test_client_at_its_rate_is_handled_while_others_wait():
    """Clients in haste delay only each other (Rule 6)."""
    hasty = joined()
    other = joined(hasty.stream)
    hasty.stream.runs = False
    hasty.say(PING_FRAME * 100)
    other.say(PING_FRAME)
    assert other.received() == ["pong"]


def test_waiting_client_that_ends_leaves_the_queue():
    """The loop's call finds nobody, and the queue works for the next client."""
    hasty = joined()
    stream = hasty.stream
    stream.runs = False
    hasty.say(PING_FRAME * 100)
    hasty.lose()
    assert not stream.hasty.waiting
    take_turns(stream)
    stream.runs = True
    again = joined(stream)
    again.say(PING_FRAME * 100)
    assert again.received() == ["pong"] * 100


def test_fragments_count_less_than_messages_but_their_number_is_limited():
    """A message may have many fragments, but their number is bounded (FRAGMENT_COST)."""
    line = joined()
    line.say(frame(TEXT, PING_MESSAGE[:1], fin=False))
    blank = frame(CONT, b" ", fin=False)
    line.say(blank * (BURST * 2))
    line.say(frame(CONT, PING_MESSAGE[1:]))
    assert line.received() == ["pong"]
    line.say(frame(TEXT, b" ", fin=False) + blank * int(BURST / FRAGMENT_COST))
    assert line.hear() == [close_frame(close_codes.TOO_MANY)]


def test_empty_fragments_count_as_messages_and_use_no_memory():
    """The number of empty fragments is limited by the limit on messages, and they are not kept (F7)."""
    line = joined()
    line.say(frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False) * (BURST // 2))
    assert len(line.connection._parts) == 1
    line.say(frame(CONT, PING_MESSAGE))
    assert line.received() == ["pong"]
    line.say(frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False) * (BURST // 2))
    assert line.hear() == [close_frame(close_codes.TOO_MANY)]


# ---- pausing slow connections --------------------------------------------------------------------------------


def test_slow_connection_is_not_read_until_its_answers_are_sent():
    """Bytes that have arrived wait in the connection, and later ones in the kernel.

    Then all are answered in order (Rule 3).
    """
    line = joined()
    line.transport.full = True
    third = frame(Opcode.PING, b"3")
    line.say(frame(Opcode.PING, b"1") + frame(Opcode.PING, b"2") + third[:4])
    assert line.hear() == [(Opcode.PONG, b"1")]
    assert not line.transport.reading
    assert line.stream.hub.slow() == 1
    assert line.stream.unsent_bytes() == line.transport.unsent > 0
    line.say(third[4:])
    assert line.hear() == []
    line.drain()
    assert line.hear() == [(Opcode.PONG, b"2"), (Opcode.PONG, b"3")]
    assert line.stream.hub.slow() == 0
    assert line.transport.reading


def test_missed_alerts_are_sent_before_waiting_messages_are_read():
    """If the alerts can't be sent, the messages wait longer (Rule 3)."""
    line = opened()
    line.tell(HELLO | {"places": [{"lat": DALLAS[0], "lng": DALLAS[1]}]})
    line.hear()
    line.transport.full = True
    line.say(frame(Opcode.PING, b"1") + frame(TEXT, PING_MESSAGE))
    now = line.clock.now()
    line.stream.hub.fanout.deliver(a_revision(), now)
    while line.stream.hub.turn(now):
        pass
    assert line.hear() == [(Opcode.PONG, b"1")]
    line.transport.unsent = 0  # all went out, and the kernel is full again at once
    line.connection.resume_writing()
    assert line.received() == ["alert"]
    assert not line.transport.reading
    line.drain()
    assert line.received() == ["pong"]


def test_session_that_cannot_be_sent_what_it_missed_is_ended(monkeypatch):
    """Its client comes back and is sent the alert, instead of waiting for ever (Rule 3)."""
    line = opened()
    line.tell(HELLO | {"places": [{"lat": DALLAS[0], "lng": DALLAS[1]}]})
    line.transport.full = True
    line.say(frame(Opcode.PING, b"1"))
    monkeypatch.setattr(line.stream.hub, "_send_owed", None)
    line.drain()
    assert line.transport.aborted
    assert len(line.stream.hub) == 0


def test_flood_of_pings_to_a_peer_that_does_not_read_leaves_one_pong():
    """A slow connection is not read, so no further ping is answered (Rule 3)."""
    line = joined()
    line.transport.full = True
    line.say(frame(Opcode.PING) * 100)
    line.say(frame(Opcode.PING) * 100)
    assert len(line.hear()) == 1


def test_session_whose_welcome_is_not_fully_sent_is_paused():
    """The hub is told although it is just registering the session (Rule 3)."""
    line = opened()
    line.transport.full = True
    line.tell(HELLO)
    assert not line.transport.reading
    line.drain()
    assert line.received() == ["welcome"]
    assert line.stream.hub.slow() == 0


def test_slow_session_that_was_closed_is_read_until_the_peer_closes():
    """After the close frame (4420) the connection is read again, so that its end is noticed.

    A late `resume_writing` changes nothing.
    """
    line = joined()
    line.transport.full = True
    line.say(frame(Opcode.PING))
    line.connection.close(close_codes.SLOW)
    assert line.transport.reading
    assert line.hear()[-1] == close_frame(close_codes.SLOW)
    line.drain()
    line.say(frame(Opcode.PING))
    assert line.hear() == []


# ---- the end of a connection ---------------------------------------------------------------------------------


def test_nothing_is_read_or_written_after_the_close_frame():
    """Bytes of the peer are thrown away; a second reason is ignored (Rule 4)."""
    line = joined()
    line.connection.close(close_codes.DRAINING)
    line.connection.close(close_codes.SLOW)
    line.say(frame(TEXT, PING_MESSAGE))
    assert line.hear() == [close_frame(close_codes.DRAINING)]
    assert line.stream.closes == {1012: 1}
    assert len(line.stream.hub) == 0


def test_peer_that_does_not_answer_a_close_frame_is_dropped():
    """The node waits LINGER_S after its close frame (Rule 4)."""
    stays = joined()
    goes = joined(stays.stream)
    for line in (stays, goes):
        line.connection.close(close_codes.GOING_AWAY)
    goes.lose()
    stays.pass_time(LINGER_S - 0.1)
    assert not stays.transport.aborted
    stays.pass_time(0.1)
    assert stays.transport.aborted
    assert not goes.transport.aborted


@pytest.mark.parametrize("state", [Line, opened, joined])
def test_lost_connection_is_removed_from_all_collections(state):
    """This holds in each state of the connection. It also has no row in the hub and no unread bytes."""
    line = state()
    line.transport.full = True
    line.say(b"G" if state is Line else frame(Opcode.PING)[:3])
    line.lose()
    stream = line.stream
    assert [len(held) for held in (stream.all, stream.unsaid, stream.slow, stream.lingering)] == [0] * 4
    assert len(stream.hub) == 0
    assert line.connection._unread == b""
    line.pass_time(100)
    assert not line.transport.aborted


def test_aborted_connection_is_removed_from_the_hub_at_once():
    """The loop calls `connection_lost` later; nothing is written until then."""
    line = joined()
    line.stream.abort_all()
    assert line.transport.aborted
    assert len(line.stream.hub) == 0
    assert line.stream.connections == 1
    line.lose()
    assert line.stream.connections == 0


def test_transport_is_closed_when_the_peer_ends_its_stream():
    """asyncio closes the transport if `eof_received` returns a false value."""
    assert not joined().connection.eof_received()


def test_descriptor_is_the_file_descriptor_of_the_socket():
    """With the descriptor the hub sends to many sockets by one system call."""
    assert joined().connection.descriptor == DESCRIPTOR
