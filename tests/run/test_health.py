"""`geocast health`: the exit status and one line. A real node is asked in `end_to_end/deploy/test_starting.py`."""

import socket
import threading
from contextlib import closing, contextmanager

import pytest
from support.ports import a_free_port

from geocast.cli import health
from geocast.model.server_address import Address


@contextmanager
def somebody(answer):
    """Yield an address where a connection is answered with these bytes and closed; None: never answered."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                if answer is None:
                    connection.recv(65_536)  # until the other side gives up
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Address(*listener.getsockname())
        thread.join()


def said(status, body):
    """Return an HTTP answer."""
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    ("status", "body", "is_well", "line"),
    [
        (200, '{"status": "ready"}', True, "ready"),
        (503, '{"status": "not ready", "reasons": ["draining", "no log"]}', False, "not ready: draining; no log"),
        (200, '{"status": "ready", "degraded": ["calls: 2"]}', True, "ready: degraded: calls: 2"),
        (404, "not found", False, "not a node: HTTP status 404"),
        (200, "<html>", False, "not a node: HTTP status 200"),
        (200, "[" * 5_000, False, "not a node: HTTP status 200"),
        (200, '{"reasons": 1}', False, "not a node: HTTP status 200"),
    ],
)
def test_health_check_reports_the_answer_in_one_line(status, body, is_well, line):
    """An answer that is not a node's means that the node is not well."""
    with somebody(said(status, body)) as api:
        assert health.ask(api, ready=True) == (is_well, line)


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 \xff\r\n\r\n"])
def test_health_check_reports_a_non_http_reply_as_no_answer(answer):
    """Another service listens on the port."""
    with somebody(answer) as api:
        is_well, line = health.ask(api, ready=False)
    assert not is_well
    assert line.startswith("no answer: ")


def test_health_check_of_a_silent_server_times_out(monkeypatch):
    """A process that hangs must not make the check hang."""
    monkeypatch.setattr(health, "PATIENCE_S", 0.05)
    with somebody(None) as api:
        assert health.ask(api, ready=False) == (False, "no answer within 0.05 s")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "a..b"])
def test_health_check_reports_an_unreachable_address_as_no_answer(host):
    """No process listens at the address, or the host does not exist."""
    is_well, line = health.ask(Address(host, a_free_port()), ready=False)
    assert not is_well
    assert line.startswith("no answer: ")
