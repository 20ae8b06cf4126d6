"""Sending one frame to many sockets with one system call, by Linux AIO and its binary interface (<linux/aio_abi.h>).

Without AIO, the kernel's work is only a part of what each session of a delivery costs. The rest is the way there and
back: the interpreter, uvloop and a system call. So a delivery takes 1.4 times the CPU of one with AIO, where up to 256
sessions cost two system calls. `io_submit` takes a list of writes, which is filled in as numpy columns, and the
kernel's code stays in the caches of the CPU while the kernel works through the list. `io_getevents` returns the result
of each write (ADR 6 has the figures, of `bench fanout`).

AIO was made for files, where a write goes on after `io_submit` has returned. For a non-blocking socket the kernel
instead does an ordinary write: it does all writes at once, one after the other, before `io_submit` returns. This module
needs nothing else. AIO is as fast as io_uring for this purpose. Docker and Kubernetes forbid io_uring in containers,
and allow AIO.

Rule 1  The sockets are non-blocking (the sockets of asyncio and uvloop always are). So every write has ended, with or
        without success, when `send` returns, and neither the frame nor the session must be kept alive for it.
Rule 2  `send` returns how many bytes each socket accepted. The caller leaves the rest to the session's transport, which
        can wait and can close.
        Example: a slow phone's socket accepts 200 bytes of a frame of 900. Its result is 200, and the hub gives the
        other 700 to the phone's transport. The result is -EAGAIN for a socket with a full buffer, and -EPIPE if the
        peer has gone: their transports get the whole frame.
Rule 3  A descriptor is used only while its session is in the hub. The session leaves the hub in `connection_lost` at
        the latest, and the transport closes the socket only after that.
        Example: without this rule a phone could leave, its descriptor 57 could be reused for a phone outside the area,
        and the frame for the first phone could be written to the second.
Rule 4  A write to a connection that is gone raises SIGPIPE, and a write has no flag against that. Python ignores
        SIGPIPE from its start. Nothing in this program may change that.

If the kernel or the configuration of a container does not allow AIO, the transports write everything.
"""

import ctypes
import errno
import logging
import os
import platform
import socket
import sys

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

REQUESTS = 256  # number of writes per system call: as many as a turn of the fan-out has rows

# The numbers of io_setup, io_destroy, io_getevents and io_submit: on x86-64 (asm/unistd_64.h), and on the architectures
# that share one table (asm-generic/unistd.h). The layouts below are for 64 bits, little-endian.
_SHARED = 0, 1, 4, 2
_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": _SHARED, "riscv64": _SHARED, "loongarch64": _SHARED}
_PWRITE = 1  # IOCB_CMD_PWRITE
# The fields of struct iocb that a write to a socket needs, and all fields of struct io_event.
_REQUEST = np.dtype(
    {
        "names": ["data", "opcode", "fd", "buf", "nbytes"],
        "formats": ["u8", "u2", "i4", "u8", "u8"],
        "offsets": [0, 16, 20, 24, 32],
        "itemsize": 64,
    }
)
_EVENT = np.dtype([("data", "u8"), ("obj", "u8"), ("res", "i8"), ("res2", "i8")])
# PyDLL keeps the GIL during the call, which takes about a millisecond for 256 sends. If the call released the GIL,
# getting it back from another thread would take up to 5 ms.
_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long,) * 6
_syscall.restype = ctypes.c_long

_ALLOW = "have seccomp allow io_setup, io_submit, io_getevents and io_destroy"
_REMEDIES = {
    errno.EPERM: _ALLOW,
    errno.EACCES: _ALLOW,
    errno.EAGAIN: "raise sysctl fs.aio-max-nr, which other programs have used up",
    errno.ENOSYS: "run geocast on a Linux kernel with CONFIG_AIO, on x86-64, ARM64 or RISC-V",
}


class Sender:
    """An AIO context of the kernel, for the use of one thread. `close` releases it."""

    def __init__(self, requests: int = REQUESTS) -> None:
        """Create a context for up to `requests` writes at a time. Raise OSError if AIO is missing or does not work."""
        if sys.platform != "linux" or sys.maxsize < 2**32 or platform.machine() not in _CALLS:
            raise OSError(errno.ENOSYS, "not known on this platform")
        self._setup, self._destroy, self._getevents, self._submit = _CALLS[platform.machine()]
        self._requests = np.zeros(requests, _REQUEST)
        self._requests["opcode"] = _PWRITE
        self._requests["data"] = np.arange(requests)  # the index of the request, which comes back with its result
        self._events = np.zeros(requests, _EVENT)
        self._addresses = self._requests.ctypes.data + np.arange(requests) * _REQUEST.itemsize
        self._list: int = self._addresses.ctypes.data  # the argument of io_submit: an array of addresses of requests
        context = np.zeros(1, np.uint64)  # io_setup writes the handle of the context into it
        _checked(_syscall(self._setup, requests, context.ctypes.data, 0, 0, 0))
        self._context = int(context[0])
        try:
            self._try()
        except BaseException:
            self.close()
            raise

    def _try(self) -> None:
        """Send one byte, as a test: a container may allow the first of the four system calls and forbid another."""
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            [sent] = self.send(np.array([here.fileno()], np.int32), b"?").tolist()
            if sent < 0:
                raise OSError(-sent, os.strerror(-sent))

    def close(self) -> None:
        """Release the context. From then on `send` leaves everything to the transports."""
        if self._context:
            _syscall(self._destroy, self._context, 0, 0, 0, 0)
            self._context = 0

    def send(self, descriptors: NDArray[np.int32], data: bytes) -> NDArray[np.int32]:
        """Send `data` to each socket, in this order. Return, for each, the number of bytes sent or a negative errno."""
        results = np.full(len(descriptors), -errno.EAGAIN, np.int32)
        if not self._context:
            return results
        self._requests["buf"] = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
        self._requests["nbytes"] = len(data)
        for first in range(0, len(descriptors), len(self._requests)):
            part = descriptors[first : first + len(self._requests)]
            self._requests["fd"][: len(part)] = part
            taken = self._hand_over(results[first : first + len(part)])
            self._collect(taken, results[first:])
        return results

    def _hand_over(self, results: NDArray[np.int32]) -> int:
        """Submit one request for each item of `results`. Return how many requests the kernel accepted.

        The kernel stops at a request that it refuses, for example one with a closed descriptor. The error becomes the
        result of that request, and the next submission starts with the request after it.
        """
        at = taken = 0
        while at < len(results):
            count: int = _syscall(self._submit, self._context, len(results) - at, self._list + 8 * at, 0, 0)
            if count > 0:
                taken += count
            else:
                results[at] = -ctypes.get_errno()
            at += max(count, 1)
        return taken

    def _collect(self, count: int, results: NDArray[np.int32]) -> None:
        """Write the results of `count` requests, which have all ended (Rule 1), to their places in `results`."""
        while count:  # all results are there already, so io_getevents does not wait
            got = _syscall(self._getevents, self._context, count, count, self._events.ctypes.data, 0)
            if got < 0 and ctypes.get_errno() == errno.EINTR:
                continue
            ended = self._events[: _checked(got)]
            results[ended["data"].astype(np.intp)] = ended["res"]
            count -= got


def open_sender() -> Sender | None:
    """Return a sender, or None if AIO is not available. Log whether it is, and if not, how to make it available."""
    try:
        sender = Sender()
    except OSError as error:
        logger.warning(
            "no Linux AIO (%s): frames are sent one by one, and a delivery costs 1.4 times the CPU; to fix this, %s",
            error.strerror,
            _REMEDIES.get(error.errno or 0, _ALLOW),
        )
        return None
    logger.info("frames are sent by Linux AIO, up to %d with one system call", REQUESTS)
    return sender


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
