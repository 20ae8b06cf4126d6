"""One frame to many sockets in one call: what is sent, what is left to the transports, and where there is no ring."""

import errno
import logging
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from geocast.net import uring
from geocast.net.uring import Ring, open_ring

FRAME = bytes(range(256)) * 2


@pytest.fixture
def ring():
    try:
        ring = Ring(8)
    except OSError as error:
        pytest.skip(f"no io_uring here: {error.strerror}")
    yield ring
    ring.close()


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


def test_everyone_gets_the_whole_frame_and_once(ring, pairs):
    """Whatever the place in the ring where the requests begin."""
    # More than the ring has entries, and its end lies somewhere in the middle from the second time on.
    for count in (20, 3, 20, 1, 7):
        sent = ring.send(numbers(pairs[:count]), FRAME)
        assert sent.tolist() == [len(FRAME)] * count
        assert [there.recv(10_000) for _, there in pairs[:count]] == [FRAME] * count
    assert all(_is_empty(there) for _, there in pairs)


def test_nobody_is_asked_for_nothing(ring):
    """An empty slice is no call at all."""
    assert ring.send(np.empty(0, np.int32), FRAME).tolist() == []


def test_what_each_was_sent_is_told_in_the_order_of_the_descriptors(ring, pairs):
    """Rule 1 and Rule 2: a full one, one whose peer has gone, one that is closed, and the others."""
    full, gone, closed = pairs[2][0], pairs[5][1], 7
    while True:
        try:
            full.send(b"x" * 100_000)
        except BlockingIOError:
            break
    gone.close()
    descriptors = numbers(pairs)
    descriptors[closed] = -1
    sent = ring.send(descriptors, FRAME).tolist()
    assert (sent[2], sent[5], sent[closed]) == (-errno.EAGAIN, -errno.EPIPE, -errno.EBADF)
    assert all(count == len(FRAME) for n, count in enumerate(sent) if n not in (2, 5, closed))


def test_a_frame_that_has_room_for_a_part_is_sent_in_part(ring):
    """Rule 2: how much is said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = socket.create_connection(server.getsockname())
        here, _ = server.accept()
    with here, there:
        here.setblocking(False)
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        great = bytes(4_000_000)
        (sent,) = ring.send(np.array([here.fileno()], np.int32), great).tolist()
        assert 0 < sent < len(great)


def test_requests_that_the_kernel_does_not_take_are_not_sent_later(ring, pairs, monkeypatch):
    """Rule 2: what goes by the transport must not go twice."""
    real = uring._syscall
    monkeypatch.setattr(uring, "_syscall", lambda *_: -1)  # the kernel is out of memory
    assert ring.send(numbers(pairs), FRAME).tolist() == [-errno.EAGAIN] * 20
    monkeypatch.setattr(uring, "_syscall", real)
    assert ring.send(numbers(pairs[:2]), b"later").tolist() == [5, 5]
    assert [there.recv(10_000) for _, there in pairs[:2]] == [b"later"] * 2
    assert all(_is_empty(there) for _, there in pairs)


class FakeKernel:
    """The kernel's side of a ring.

    Purpose: to have done four thousand million sends before. Lies: it looks at nothing but the counters, sends nothing,
    and says of every request that it sent as many bytes as it was asked to.
    """

    def __init__(self, ring, sends):
        self._ring, self._taken = ring, sends % 2**32
        for counter in (ring._sq_head, ring._sq_tail, ring._cq_head, ring._cq_tail):
            counter[0] = self._taken
        self.sent_to = []

    def __call__(self, _number, _fd, count, *_):
        ring = self._ring
        assert (int(ring._sq_tail[0]) - self._taken) % 2**32 == count
        for _ in range(count):
            request = ring._sqes[self._taken % ring._entries]
            ring._cqes[self._taken % ring._completions] = request["user_data"], request["len"], 0
            self.sent_to.append(int(request["fd"]))
            self._taken = (self._taken + 1) % 2**32
        ring._sq_head[0] = ring._cq_tail[0] = self._taken
        return count


@pytest.mark.parametrize("before", [2**32 - 20, 2**32 - 8, 2**32 - 1])
def test_the_counters_wrap(ring, monkeypatch, before):
    """They are 32 bits wide, and a warning is an error here."""
    kernel = FakeKernel(ring, before)
    monkeypatch.setattr(uring, "_syscall", kernel)
    for count in (20, 5):
        assert ring.send(np.arange(count, dtype=np.int32), FRAME).tolist() == [len(FRAME)] * count
    assert kernel.sent_to == [*range(20), *range(5)]
    assert int(ring._cq_head[0]) == (before + 25) % 2**32


def test_a_closed_ring_is_given_back_and_leaves_all_to_the_transports(ring, pairs):
    """Its descriptor and its memory; and it may be closed again."""
    opened, mapped = _open_rings(), _mapped_rings()
    ring.close()
    ring.close()
    assert _open_rings() == opened - 3  # each of the two mappings has a descriptor, too
    assert _mapped_rings() == mapped - 2
    assert ring.send(numbers(pairs), FRAME).tolist() == [-errno.EAGAIN] * 20
    assert all(_is_empty(there) for _, there in pairs)


def _open_rings():
    numbers = os.listdir("/proc/self/fd")
    return sum("io_uring" in os.path.realpath(f"/proc/self/fd/{number}") for number in numbers)


def _mapped_rings():
    return Path("/proc/self/maps").read_text().count("io_uring")


def test_where_it_is_not_allowed_there_is_none_and_that_is_said(monkeypatch, caplog):
    """A container that forbids io_uring is no reason not to start."""

    def refuse(*_):
        uring.ctypes.set_errno(errno.EPERM)
        return -1

    monkeypatch.setattr(uring, "_syscall", refuse)
    with caplog.at_level(logging.INFO):
        assert open_ring() is None
    assert "Operation not permitted" in caplog.text


def _is_empty(there):
    try:
        there.recv(1)
    except BlockingIOError:
        return True
    return False
