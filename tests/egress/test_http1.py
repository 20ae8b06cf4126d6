"""The part of HTTP/1.1 that a push needs: valid answers, and connections that are reused (rules WPO4, WPO5)."""

import asyncio
import contextlib
import ssl

import pytest
from end_to_end.kit.tls import make_certificate

from geocast.egress import http1
from geocast.egress.http1 import MAX_HEAD_BYTES, MAX_REST_BYTES, ServiceConnections, request

CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
TOO_MUCH = MAX_HEAD_BYTES + MAX_REST_BYTES
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Return a certificate for localhost."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


class Service:
    """A service that answers each request with the next bytes of its list, in pieces; None closes the connection."""

    def __init__(self, certificate, *answers, pieces=1):
        self.certificate = certificate
        self.answers = list(answers)
        self.pieces = pieces
        self.asked = []  # the heads of the requests that came
        self.connections = 0

    async def _serve(self, reader, writer):
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                self.asked.append(await reader.readuntil(b"\r\n\r\n"))
                await reader.readexactly(3)
                answer = self.answers.pop(0)
                if answer is None:
                    break
                size = -(-len(answer) // self.pieces) or 1
                for at in range(0, len(answer), size):
                    writer.write(answer[at : at + size])
                    await writer.drain()
                    await asyncio.sleep(0)
        writer.transport.abort()

    def ask(self, times=1, between=None):
        """Send requests one after the other; return the status of each answer, or its error."""
        return asyncio.run(self._ask(times, between))

    async def _ask(self, times, between):
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(self.certificate.crt, self.certificate.key)
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls) as server:
            port = server.sockets[0].getsockname()[1]
            connections = ServiceConnections(ssl.create_default_context(cafile=self.certificate.crt))
            found = []
            for _ in range(times):
                connection = connections.kept("localhost", port)
                if connection is None:
                    connection = await connections.connect("localhost", port, "127.0.0.1")
                data, until = request("localhost", "/x?y", {"TTL": "5"}, b"abc"), asyncio.get_running_loop().time() + 20
                try:
                    found.append((await connection.exchange(data, until)).status)
                except (OSError, ValueError) as error:
                    found.append(type(error))
                for _ in range(50):
                    await asyncio.sleep(0)
                if between is not None:
                    await between(connections)
            connections.close()
        return found


def test_request_has_the_given_headers_and_the_length_of_its_body():
    """Each header is a line of its own (RFC 9112, 3)."""
    asked = request("push.example:8443", "/a?b=c", {"TTL": "60", "Topic": "t"}, b"body")
    assert asked == (
        b"POST /a?b=c HTTP/1.1\r\nHost: push.example:8443\r\nTTL: 60\r\nTopic: t\r\nContent-Length: 4\r\n\r\nbody"
    )


@pytest.mark.parametrize("pieces", [1, 7, 1_000])
@pytest.mark.parametrize(
    "answer",
    [
        CREATED,
        b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nabcde",
        EARLY + EARLY + CREATED,
        b"HTTP/1.1 201 \r\ncontent-LENGTH:\t 0 \r\n\r\n",
        b"HTTP/1.1 201 C\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 201 C\r\nContent-Length: %d\r\n\r\n" % MAX_REST_BYTES + bytes(MAX_REST_BYTES),
    ],
)
def test_connection_is_reused_after_a_complete_answer(certificate, answer, pieces):
    """Answers may arrive in any pieces, and short bodies are skipped."""
    service = Service(certificate, answer, CREATED, pieces=pieces)
    assert service.ask(2) == [201, 201]
    assert service.asked[0].startswith(b"POST /x?y HTTP/1.1\r\nHost: localhost\r\n")


def test_three_requests_share_one_connection(certificate):
    """Connections are kept (rule WPO5)."""
    service = Service(certificate, CREATED, CREATED, CREATED)
    assert (service.ask(3), service.connections) == ([201, 201, 201], 1)


@pytest.mark.parametrize(
    "answer",
    [
        CREATED + b"H",
        CREATED + CREATED,
        b"HTTP/1.1 201 Created\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 201 C\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * TOO_MUCH,
        b"HTTP/1.1 201 C\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * TOO_MUCH,
        b"HTTP/1.0 201 Created\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nabcdef",
        b"HTTP/1.1 201 C\r\nContent-Length: %d\r\n\r\n" % TOO_MUCH + bytes(TOO_MUCH),
    ],
)
def test_connection_with_ambiguous_end_of_answer_is_not_reused(certificate, answer):
    """Bytes that were not requested, and answers without a known end, close the connection.

    The next request gets a new one.
    """
    service = Service(certificate, answer, CREATED)
    assert (service.ask(2), service.connections) == ([201, 201], 2)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", ValueError),
        (b"220 smtp.example\r\n\r\n", ValueError),
        (b"HTTP/2 201\r\n\r\n", ValueError),
        (b"HTTP/1.1 201 Created\r\nX : a\r\n\r\n", ValueError),
        (b"HTTP/1.1 201 Created\r\nX: a\x00\r\n\r\n", ValueError),
        (b"HTTP/1.1 201 Created\nX: a\n\n", ValueError),
        (b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", ValueError),
        (b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\n", ValueError),
        (b"HTTP/1.1 201 Created\r\nContent-Length: -3\r\n\r\n", ValueError),
        (b"HTTP/1.1 201 Created\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n", ValueError),
        (b"x" * (MAX_HEAD_BYTES + 1), ValueError),
        (EARLY * (MAX_HEAD_BYTES // len(EARLY) + 1) + CREATED, ValueError),
        (None, ConnectionResetError),
    ],
)
def test_connection_is_closed_after_an_invalid_answer(certificate, answer, error):
    """The number of bytes that are read is limited, and the next request gets a new connection."""
    service = Service(certificate, answer, CREATED)
    assert (service.ask(2), service.connections) == ([error, 201], 2)


async def test_connection_is_closed_if_the_caller_gives_up(certificate):
    """A late answer could be mistaken for that of another request."""
    service = Service(certificate, b"")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate.crt, certificate.key)
    async with await asyncio.start_server(service._serve, "127.0.0.1", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        connections = ServiceConnections(ssl.create_default_context(cafile=certificate.crt))
        connection = await connections.connect("localhost", port, "127.0.0.1")
        with pytest.raises(TimeoutError):
            await connection.exchange(request("localhost", "/", {}, b"abc"), asyncio.get_running_loop().time())
        assert connections.kept("localhost", port) is None
        connections.close()


@pytest.mark.parametrize("answer", [CREATED, b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nabc"])
def test_connection_that_was_idle_too_long_is_closed(certificate, monkeypatch, answer):
    """The service may have dropped the connection, or the rest of an answer never arrives."""
    monkeypatch.setattr(http1, "KEPT_S", 0.0)

    async def tidy(connections):
        connections._tidy()
        for _ in range(50):
            await asyncio.sleep(0)
        assert not connections.everyone

    service = Service(certificate, answer, CREATED)
    assert (service.ask(2, tidy), service.connections) == ([201, 201], 2)


async def test_number_of_idle_connections_is_limited_and_hosts_without_any_are_forgotten(certificate, monkeypatch):
    """The connection that has been idle longest is closed (rule HD14)."""
    monkeypatch.setattr(http1, "MAX_KEPT", 2)
    service = Service(certificate, *[CREATED] * 3)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate.crt, certificate.key)
    async with await asyncio.start_server(service._serve, "127.0.0.1", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        connections = ServiceConnections(ssl.create_default_context(cafile=certificate.crt))
        made = [await connections.connect("localhost", port, "127.0.0.1") for _ in range(3)]
        for connection in made:
            until = asyncio.get_running_loop().time() + 20
            await connection.exchange(request("localhost", "/", {}, b"abc"), until)
            for _ in range(50):
                await asyncio.sleep(0)
        assert connections.everyone == set(made[1:])
        assert [connections.kept("localhost", port) for _ in range(3)] == [made[2], made[1], None]
        assert connections._kept == {}
        connections.close()
