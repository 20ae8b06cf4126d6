"""The fault proxy itself, before a server that answers each line."""

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


class Shop(socketserver.ThreadingTCPServer):
    """Answers each chunk with its own bytes, and keeps them."""

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
def shop() -> Iterator[Shop]:
    """The server behind the proxy."""
    with Shop() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def proxy(shop: Shop) -> Iterator[Proxy]:
    """The proxy."""
    with Proxy(shop.server_address[1]) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    """A connection through the proxy."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as client:
        assert ask(client, b"hello") == b"hello"
        yield client


def ask(client: socket.socket, data: bytes) -> bytes:
    """Send, and read what comes."""
    client.sendall(data)
    return client.recv(65536)


def is_silent(client: socket.socket) -> bool:
    """Whether nothing comes for a while."""
    client.settimeout(A_WHILE_S)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(PATIENCE)
    return False


def test_latency_delays_each_way_and_keeps_the_order(proxy: Proxy, client: socket.socket):
    """A delay of each direction; bytes do not overtake one another."""
    proxy.up.delay_s, proxy.down.delay_s = A_WHILE_S, A_WHILE_S
    started = time.monotonic()
    client.sendall(b"a")
    client.sendall(b"b")
    got = client.recv(1) + client.recv(1)
    assert got == b"ab"
    assert time.monotonic() - started >= 2 * A_WHILE_S


def test_half_open_towards_the_client(shop: Shop, proxy: Proxy, client: socket.socket):
    """The server hears and answers; the client hears it when the stall is over."""
    proxy.down.stall()
    client.sendall(b"question")
    wait_until(lambda: shop.heard.endswith(b"question"), "the server hears")
    assert is_silent(client)
    proxy.down.flow()
    assert client.recv(65536) == b"question"


def test_half_open_towards_the_server(shop: Shop, proxy: Proxy, client: socket.socket):
    """Bytes are accepted and go nowhere; new connections too are accepted, and silent."""
    proxy.up.stall()
    client.sendall(b"question")
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as other:
        other.sendall(b"other")
        assert is_silent(other)
        assert is_silent(client)
        assert shop.heard == b"hello"
        proxy.heal()
        assert client.recv(65536) == b"question"
        assert other.recv(65536) == b"other"


def test_a_cut_is_a_reset_and_leaves_the_door_open(proxy: Proxy, client: socket.socket):
    """RST, not FIN; the next connection is served."""
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as again:
        assert ask(again, b"again") == b"again"


def test_refusal_and_return_on_the_same_port(proxy: Proxy, client: socket.socket):
    """Connections that are there stay, unless they are severed; new ones are refused until it heals."""
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


def test_the_reply_of_the_nth_command_is_lost_after_it_was_heard(shop: Shop, proxy: Proxy, client: socket.socket):
    """The server has it, the client has a reset; what came before was answered."""
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
        assert shop.heard.endswith(request)


def test_connections_that_sent_a_command_are_muted_and_no_others(shop: Shop, proxy: Proxy, client: socket.socket):
    """The server goes on hearing them."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as other:
        request = b"*1\r\n$4\r\nREAD\r\n"
        assert ask(other, request) == request
        proxy.mute("read")
        other.sendall(b"more")
        wait_until(lambda: shop.heard.endswith(b"more"), "the server hears")
        assert is_silent(other)
        assert ask(client, b"still") == b"still"


def test_a_forbidden_command_does_not_come_through(shop: Shop, proxy: Proxy, client: socket.socket):
    """Its connection is cut; others stay."""
    proxy.forbid("psync")
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as other:
        other.sendall(b"*1\r\n$5\r\nPSYNC\r\n")
        with pytest.raises(ConnectionResetError):
            other.recv(1)
    assert ask(client, b"still") == b"still"
    assert shop.heard == b"hellostill"


def test_it_ends_with_connections_open(shop: Shop):
    """No thread and no socket is left behind, whatever is under way."""
    with Proxy(shop.server_address[1]) as proxy:
        proxy.stall()
        client = socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE)
        client.sendall(b"x")
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)
    assert not [thread for thread in threading.enumerate() if thread.name == "proxy"]
