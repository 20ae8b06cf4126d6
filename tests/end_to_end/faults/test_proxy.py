"""Tests of the fault proxy, in front of a server that echoes."""

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest
from end_to_end.kit.proxy import Proxy
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE

A_WHILE_S = 0.2


class EchoServer(socketserver.ThreadingTCPServer):
    """A server that echoes every chunk of bytes and records all of them in `heard`."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        self.heard = b""
        super().__init__(("127.0.0.1", 0), _Echo)


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(65536):
                self.server.heard += data  # type: ignore[attr-defined]
                self.request.sendall(data)


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    """Yield the server behind the proxy."""
    with EchoServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def proxy(echo: EchoServer) -> Iterator[Proxy]:
    """Yield the proxy in front of the server."""
    with Proxy(echo.server_address[1]) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    """Yield a connection through the proxy."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as client:
        assert ask(client, b"hello") == b"hello"
        yield client


def ask(client: socket.socket, data: bytes) -> bytes:
    """Send bytes and return the next bytes that come."""
    client.sendall(data)
    return client.recv(65536)


def is_silent(client: socket.socket) -> bool:
    """Return whether nothing comes for a while."""
    client.settimeout(A_WHILE_S)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(PATIENCE)
    return False


def test_fault_proxy_with_latency_delays_both_directions_and_keeps_the_order(proxy: Proxy, client: socket.socket):
    proxy.up.delay_s, proxy.down.delay_s = A_WHILE_S, A_WHILE_S
    started = time.monotonic()
    client.sendall(b"a")
    client.sendall(b"b")
    got = client.recv(1) + client.recv(1)
    assert got == b"ab"
    assert time.monotonic() - started >= 2 * A_WHILE_S


def test_stalling_the_fault_proxy_towards_the_client_delays_answers(
    echo: EchoServer, proxy: Proxy, client: socket.socket
):
    """The server receives and answers; the client gets the answer when the stall is over."""
    proxy.down.stall()
    client.sendall(b"question")
    wait_until(lambda: echo.heard.endswith(b"question"), "the server hears")
    assert is_silent(client)
    proxy.down.flow()
    assert client.recv(65536) == b"question"


def test_stalling_the_fault_proxy_towards_the_server_delays_requests(
    echo: EchoServer, proxy: Proxy, client: socket.socket
):
    """The proxy accepts bytes and new connections, but forwards nothing until it heals."""
    proxy.up.stall()
    client.sendall(b"question")
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as other:
        other.sendall(b"other")
        assert is_silent(other)
        assert is_silent(client)
        assert echo.heard == b"hello"
        proxy.heal()
        assert client.recv(65536) == b"question"
        assert other.recv(65536) == b"other"


def test_cut_of_the_fault_proxy_resets_connections_and_accepts_new_ones(proxy: Proxy, client: socket.socket):
    """The client gets RST instead of FIN, and its next connection is served."""
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as again:
        assert ask(again, b"again") == b"again"


def test_fault_proxy_that_refuses_connections_accepts_them_again_after_heal(proxy: Proxy, client: socket.socket):
    """Existing connections stay open unless they are cut. New ones are refused until `heal` is called."""
    proxy.refuse()
    assert ask(client, b"still") == b"still"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE)
    proxy.sever()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    proxy.heal()
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as again:
        assert ask(again, b"again") == b"again"


def test_lost_reply_resets_the_connection_after_the_server_got_the_command(
    echo: EchoServer, proxy: Proxy, client: socket.socket
):
    """The server gets the command and the client a reset; earlier commands were answered."""
    request = b"*2\r\n$3\r\nset\r\n$2\r\n\r\n\r\n"
    other = b"*1\r\n$4\r\nPING\r\n"
    proxy.lose_reply("SET", nth=2)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as fresh:
        assert ask(fresh, request) == request
        assert ask(fresh, other) == other
        fresh.sendall(request[:9])
        assert fresh.recv(65536) == request[:9], "a part of a command is no command"
        fresh.sendall(request[9:])
        with pytest.raises(ConnectionResetError):
            fresh.recv(1)
        assert proxy.reply_lost.wait(PATIENCE)
        assert echo.heard.endswith(request)


def test_mute_stops_answers_only_on_connections_that_sent_the_command(
    echo: EchoServer, proxy: Proxy, client: socket.socket
):
    """The server still receives what a muted connection sends."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as other:
        request = b"*1\r\n$4\r\nREAD\r\n"
        assert ask(other, request) == request
        proxy.mute("read")
        other.sendall(b"more")
        wait_until(lambda: echo.heard.endswith(b"more"), "the server hears")
        assert is_silent(other)
        assert ask(client, b"still") == b"still"


def test_command_that_the_fault_proxy_forbids_does_not_reach_the_server(
    echo: EchoServer, proxy: Proxy, client: socket.socket
):
    """The proxy cuts the connection that sent the command. Other connections stay open."""
    proxy.forbid("psync")
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as other:
        other.sendall(b"*1\r\n$5\r\nPSYNC\r\n")
        with pytest.raises(ConnectionResetError):
            other.recv(1)
    assert ask(client, b"still") == b"still"
    assert echo.heard == b"hellostill"


def test_fault_proxy_closes_cleanly_with_open_connections(echo: EchoServer):
    """The proxy leaves no thread and no socket behind."""
    with Proxy(echo.server_address[1]) as proxy:
        proxy.stall()
        client = socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE)
        client.sendall(b"x")
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)
    assert not [thread for thread in threading.enumerate() if thread.name == "proxy"]
