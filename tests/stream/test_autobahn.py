"""RFC 6455 by the cases of the Autobahn TestSuite, which `kosoku` runs against a node's listener on a real socket.

Groups 12 and 13 test compression, which a node does not offer (S6).
"""

import asyncio
import socket

import kosoku
import pytest
import uvloop
from stream.echo import Echo, EchoStream

from geocast.auth.tokens import TokenVerifier
from geocast.clock import SystemClock
from geocast.stream import connection
from geocast.stream.hub import Hub
from geocast.wire.frames import JSON, MSGPACK

AT_A_TIME = 8
FRAMING = [f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 10)]
BINARY = ["1.2.*"]  # the binary cases of FRAMING
LARGE = ["9.1.*", "9.3.*", "9.5.*", "9.7.*"]
LARGE_BINARY = ["9.2.*", "9.4.*", "9.6.*", "9.8.*"]
# A close frame between the fragments of a message: behaviour.md says why it is answered with 1002 and not 1000.
FAILS = {"7.1.5"}

pytestmark = pytest.mark.slow


async def _verdicts(wire, cases, exclude):
    stream = EchoStream(Hub(AT_A_TIME), TokenVerifier({}, required=False), SystemClock(), capacity=64, unsaid=64)
    stream.subprotocol = wire.subprotocol
    with socket.create_server(("127.0.0.1", 0)) as listener:
        servers = await stream.listen(listener)
        try:
            url = f"ws://127.0.0.1:{listener.getsockname()[1]}{connection.PATH}"
            results = await kosoku.run_fuzzingclient(url, cases, exclude, concurrency=AT_A_TIME)
        except kosoku.FailureError as failed:
            results = failed.results
        finally:
            for server in servers:
                server.close()
            stream.abort_all()
    return {result.case_id: result.behavior.value for result in results}


@pytest.fixture
def verdicts(monkeypatch):
    """`verdicts(wire, cases, exclude)`: Autobahn's verdict on each case."""
    monkeypatch.setattr(connection, "Session", Echo)

    def judge(wire, cases, exclude=()):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_verdicts(wire, cases, list(exclude)))

    return judge


def failures(found):
    """Return the cases that did not come out as RFC 6455 demands."""
    return {case for case, verdict in found.items() if verdict not in ("OK", "NON-STRICT", "INFORMATIONAL")}


def test_framing_follows_rfc_6455(verdicts):
    """The suite tests framing, pings, fragments, UTF-8 and closing with all limits of a node in force."""
    found = verdicts(JSON, FRAMING, BINARY) | verdicts(MSGPACK, BINARY)
    assert len(found) > 240
    assert failures(found) == FAILS


def test_large_messages_are_read_however_they_are_fragmented(verdicts, monkeypatch):
    """Messages have up to 16 MiB in up to 65,536 fragments, with the node's bounds (F6, F7) lifted."""
    monkeypatch.setattr(connection, "MAX_HELLO_BYTES", 1 << 24)
    monkeypatch.setattr(connection, "BURST", 1_000_000)
    found = verdicts(JSON, LARGE) | verdicts(MSGPACK, LARGE_BINARY)
    assert len(found) == 54
    assert not failures(found)
