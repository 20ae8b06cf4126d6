"""One frame to many sockets in one call: the results, the unsent rest, and a machine without AIO."""

import errno
import logging
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from geocast.stream import bulk_send
from geocast.stream.bulk_send import Sender, open_sender

FRAME = bytes(range(256)) * 2


@pytest.fixture
def sender():
    try:
        sender = Sender(8)
    except OSError as error:
        pytest.skip(f"no Linux AIO here: {error.strerror}")
    yield sender
    sender.close()


@pytest.fixture
def pairs():
    with ExitStack() as stack:
        found = []
        for _ in range(20):
            here, there = socket.socketpair()
            stack.enter_context(here)
            stack.enter_context(there)
            here.setblocking(False)
            there.setblocking(False)
            found.append((here, there))
        yield found


def numbers(pairs):
    return np.array([here.fileno() for here, _ in pairs], np.int32)


def test_each_socket_gets_the_whole_frame_once(sender, pairs):
    """The test sends to more sockets than one system call accepts, to exactly as many, and to fewer."""
    for count in (20, 3, 16, 1, 8):
        sent = sender.send(numbers(pairs[:count]), FRAME)
        assert sent.tolist() == [len(FRAME)] * count
        assert [there.recv(10_000) for _, there in pairs[:count]] == [FRAME] * count
    assert all(_is_empty(there) for _, there in pairs)


def test_send_to_no_sockets_returns_an_empty_result(sender):
    """There is nothing to send, and no result."""
    assert sender.send(np.empty(0, np.int32), FRAME).tolist() == []


def test_results_are_in_the_order_of_the_descriptors(sender, pairs):
    """One socket is full, the peer of another has hung up, and a third is closed (Rules 1 and 2)."""
    full, gone, closed = pairs[2][0], pairs[5][1], 7
    while True:
        try:
            full.send(b"x" * 100_000)
        except BlockingIOError:
            break
    gone.close()
    descriptors = numbers(pairs)
    descriptors[closed] = -1
    sent = sender.send(descriptors, FRAME).tolist()
    assert (sent[2], sent[5], sent[closed]) == (-errno.EAGAIN, -errno.EPIPE, -errno.EBADF)
    assert all(count == len(FRAME) for n, count in enumerate(sent) if n not in (2, 5, closed))


def test_partial_write_returns_the_bytes_sent(sender):
    """The caller sends the rest (Rule 2)."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = socket.create_connection(server.getsockname())
        here, _ = server.accept()
    with here, there:
        here.setblocking(False)
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        great = bytes(4_000_000)
        (sent,) = sender.send(np.array([here.fileno()], np.int32), great).tolist()
        assert 0 < sent < len(great)


def test_interrupted_call_collects_all_results(sender, pairs, monkeypatch):
    """A signal may interrupt io_getevents (Rule 1)."""
    real, interrupted = bulk_send._syscall, []

    def interrupt(number, *arguments):
        if number == sender._getevents and len(interrupted) < 3:
            interrupted.append(number)
            bulk_send.ctypes.set_errno(errno.EINTR)
            return -1
        return real(number, *arguments)

    monkeypatch.setattr(bulk_send, "_syscall", interrupt)
    assert sender.send(numbers(pairs), FRAME).tolist() == [len(FRAME)] * 20
    assert len(interrupted) == 3


def test_results_that_the_kernel_returns_out_of_order_are_assigned_correctly(sender, pairs, monkeypatch):
    """The kernel may return a few at a time."""
    pairs[3][1].close()
    real = bulk_send._syscall

    def dawdle(number, context, least, most, events, _):
        if number != sender._getevents:
            return real(number, context, least, most, events, _)
        got = real(number, context, 1, min(most, 3), events, 0)
        sender._events[:got] = sender._events[:got][::-1].copy()
        return got

    monkeypatch.setattr(bulk_send, "_syscall", dawdle)
    sent = sender.send(numbers(pairs), FRAME).tolist()
    assert sent == [len(FRAME)] * 3 + [-errno.EPIPE] + [len(FRAME)] * 16


def test_frame_that_the_kernel_refused_is_not_sent_later(sender, pairs, monkeypatch):
    """The transport sends the frame instead, and it must not be sent twice (Rule 2)."""
    real = bulk_send._syscall

    def refuse(*_):
        bulk_send.ctypes.set_errno(errno.ENOMEM)
        return -1

    monkeypatch.setattr(bulk_send, "_syscall", refuse)
    assert sender.send(numbers(pairs), FRAME).tolist() == [-errno.ENOMEM] * 20
    monkeypatch.setattr(bulk_send, "_syscall", real)
    assert sender.send(numbers(pairs[:2]), b"later").tolist() == [5, 5]
    assert [there.recv(10_000) for _, there in pairs[:2]] == [b"later"] * 2
    assert all(_is_empty(there) for _, there in pairs)


def test_python_ignores_sigpipe():
    """With the default handler of SIGPIPE, a peer that hangs up would end the node (Rule 4)."""
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN


def test_closed_sender_releases_its_context_and_sends_nothing(sender, pairs):
    """`close` may be called again."""
    mapped = _contexts()
    sender.close()
    sender.close()
    assert _contexts() == mapped - 1
    assert sender.send(numbers(pairs), FRAME).tolist() == [-errno.EAGAIN] * 20
    assert all(_is_empty(there) for _, there in pairs)


def _contexts():
    return Path("/proc/self/maps").read_text().count("[aio]")


@pytest.mark.parametrize("call", ["_setup", "_submit", "_getevents"])
@pytest.mark.parametrize(("number", "remedy"), [(errno.EPERM, "seccomp allow io_setup"), (errno.EAGAIN, "aio-max-nr")])
def test_open_sender_returns_none_and_logs_the_remedy_if_a_system_call_fails(
    sender, monkeypatch, caplog, call, number, remedy
):
    """A node starts even if a container forbids AIO, or the machine has used it up."""
    real, refused, before = bulk_send._syscall, getattr(sender, call), _contexts()

    def refuse(asked, *arguments):
        if asked == refused:
            bulk_send.ctypes.set_errno(number)
            return -1
        return real(asked, *arguments)

    monkeypatch.setattr(bulk_send, "_syscall", refuse)
    assert open_sender() is None
    [said] = caplog.records
    assert said.levelno == logging.WARNING
    assert remedy in said.getMessage()
    assert _contexts() == before


def test_open_sender_returns_none_on_an_unknown_architecture(monkeypatch, caplog):
    """The numbers of the system calls are unknown on this architecture, so none is called."""
    monkeypatch.setattr(bulk_send.platform, "machine", lambda: "pdp11")
    monkeypatch.setattr(bulk_send, "_syscall", None)
    assert open_sender() is None
    assert "not known on this platform" in caplog.text


def test_use_of_linux_aio_is_logged(sender, caplog):
    """Operators see in the log that AIO is used."""
    with caplog.at_level(logging.INFO):
        open_sender().close()
    assert "frames are sent by Linux AIO" in caplog.text


def _is_empty(there):
    try:
        there.recv(1)
    except BlockingIOError:
        return True
    return False
