"""One frame to many sockets in one system call: Linux AIO, spoken by its ABI (<linux/aio_abi.h>).

Without it a delivery costs the send in the kernel and the way there and back, once for each session: the interpreter,
uvloop and a system call. Here a slice of sessions costs two system calls. `io_submit` takes a list of writes, which are
filled in as numpy columns, and the kernel's code stays in the caches while it works through them; `io_getevents` says
what became of each (ADR 6 has the figures, of `bench fanout`).

AIO was made for files, and writes to them go on after `io_submit` has returned. A write to a socket that does not block
goes the way of any other write instead: the kernel does it at once, one after the other. That is all we want here. It
is as fast as io_uring, and where containers forbid io_uring, as Docker and Kubernetes do, they allow this.

Rule 1  The sockets do not block (asyncio's and uvloop's never do), so every send has ended when `send` returns, one
        way or the other. Nothing (neither the frame nor the session) has to be kept alive for it afterwards.
Rule 2  What was not sent whole is reported to the caller, who leaves the rest to the session's transport: the transport
        knows how to wait, and how to end.
Rule 3  A descriptor is used only while its session is in the hub. It leaves the hub in `connection_lost` at the latest,
        and transports close their socket behind that; so the number can't be another connection's while it is used.
Rule 4  A write to a connection that is gone raises SIGPIPE, for a write has no flag against it. Python ignores SIGPIPE
        from its start, and nothing here may change that.

Where the kernel or a container's rules don't allow AIO, everything is left to the transports.
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

REQUESTS = 256  # the sends of one call, and a slice of the hub

# io_setup, io_destroy, io_getevents, io_submit: their numbers on x86-64 (asm/unistd_64.h), and on the architectures
# that share a table (asm-generic/unistd.h). The layouts below are those of 64 bits, little-endian.
_SHARED = 0, 1, 4, 2
_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": _SHARED, "riscv64": _SHARED, "loongarch64": _SHARED}
_PWRITE = 1  # IOCB_CMD_PWRITE
# struct iocb, the fields that a write to a socket has; and struct io_event.
_REQUEST = np.dtype(
    {
        "names": ["data", "opcode", "fd", "buf", "nbytes"],
        "formats": ["u8", "u2", "i4", "u8", "u8"],
        "offsets": [0, 16, 20, 24, 32],
        "itemsize": 64,
    }
)
_EVENT = np.dtype([("data", "u8"), ("obj", "u8"), ("res", "i8"), ("res2", "i8")])
# PyDLL keeps the GIL for the call, which takes about a millisecond for 256 sends: to get the GIL back from another
# thread took up to 5 ms.
_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long,) * 6
_syscall.restype = ctypes.c_long

_ALLOW = "have seccomp allow io_setup, io_submit, io_getevents and io_destroy"
_REMEDIES = {
    errno.EPERM: _ALLOW,
    errno.EACCES: _ALLOW,
    errno.EAGAIN: "raise sysctl fs.aio-max-nr, of which other programs have taken all",
    errno.ENOSYS: "run it on a Linux with CONFIG_AIO, on x86-64, ARM64 or RISC-V",
}


class Sender:
    """Sends many at a time, for the use of one thread. `close` gives back what the kernel keeps for it."""

    def __init__(self, requests: int = REQUESTS) -> None:
        """`requests`: how many sends one call takes. Raises OSError where AIO can't be had, or does not work."""
        if sys.platform != "linux" or sys.maxsize < 2**32 or platform.machine() not in _CALLS:
            raise OSError(errno.ENOSYS, "not known on this platform")
        self._setup, self._destroy, self._getevents, self._submit = _CALLS[platform.machine()]
        self._requests = np.zeros(requests, _REQUEST)
        self._requests["opcode"] = _PWRITE
        self._requests["data"] = np.arange(requests)  # a request's place in the slice; it comes back with the result
        self._events = np.zeros(requests, _EVENT)
        self._addresses = self._requests.ctypes.data + np.arange(requests) * _REQUEST.itemsize
        self._list: int = self._addresses.ctypes.data  # the list that io_submit takes: the address of each request
        context = np.zeros(1, np.uint64)
        _checked(_syscall(self._setup, requests, context.ctypes.data, 0, 0, 0))
        self._context = int(context[0])
        try:
            self._try()
        except BaseException:
            self.close()
            raise

    def _try(self) -> None:
        """Send a byte: a container may allow the first of the four calls and forbid another."""
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            [sent] = self.send(np.array([here.fileno()], np.int32), b"?").tolist()
            if sent < 0:
                raise OSError(-sent, os.strerror(-sent))

    def close(self) -> None:
        """Give back what the kernel keeps. From then on `send` leaves everything to the transports."""
        if self._context:
            _syscall(self._destroy, self._context, 0, 0, 0, 0)
            self._context = 0

    def send(self, descriptors: NDArray[np.int32], data: bytes) -> NDArray[np.int32]:
        """Send `data` to each socket, in this order. Returns for each the bytes that were sent, or a negative errno."""
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
        """Have the kernel work through one request for each result. Returns how many it took.

        It stops at a request that it doesn't take, of a descriptor that is closed for example. The reason is that
        one's result, and we go on behind it.
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
        """Write the results of so many requests, all of which have ended."""
        while count:
            got = _syscall(self._getevents, self._context, count, count, self._events.ctypes.data, 0)
            if got < 0 and ctypes.get_errno() == errno.EINTR:
                continue
            ended = self._events[: _checked(got)]
            results[ended["data"].astype(np.intp)] = ended["res"]
            count -= got


def open_sender() -> Sender | None:
    """A sender, or None where there is no AIO to be had. One line says which it is, and what can be done."""
    try:
        sender = Sender()
    except OSError as error:
        logger.warning(
            "no Linux AIO (%s): sends go one by one, and a delivery costs 1.4 times the CPU; to mend it, %s",
            error.strerror,
            _REMEDIES.get(error.errno or 0, _ALLOW),
        )
        return None
    logger.info("sends go by Linux AIO, %d with one call", REQUESTS)
    return sender


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
