"""Send one frame to many sockets with one system call, through the binary interface of Linux AIO (<linux/aio_abi.h>).

Without AIO, a delivery (sending one alert to many sessions) costs one system call for each session. Only a part of this
cost is the kernel's own work; the rest is spent in the interpreter, in uvloop and on the system call itself. With AIO,
up to 256 sessions cost two system calls, and a delivery without AIO takes 1.4 times the CPU of one with AIO.
`io_submit` takes a list of writes, which is filled in as numpy columns. The kernel's code stays in the caches of the
CPU while the kernel works through the list. `io_getevents` returns the result of each write (ADR 6 has the figures,
measured by `bench fanout`).

AIO was made for files, where a write continues after `io_submit` has returned. For non-blocking sockets, the kernel
does all writes one after the other before `io_submit` returns. That is all that this module needs. For this purpose,
AIO is as fast as io_uring, which Docker and Kubernetes forbid in containers; they allow AIO.

Rule 1  The sockets must be non-blocking (the sockets of asyncio and uvloop always are). So every write has ended, with
        or without success, when `send` returns, and neither the frame nor the session need be kept alive for it.
Rule 2  `send` returns how many bytes each socket accepted. The caller leaves the rest to the session's transport, which
        can wait and can close.
        Example: a slow phone's socket accepts 200 bytes of a frame of 900. Its result is 200, and the hub gives the
        other 700 to the phone's transport. The result is -EAGAIN for a socket with a full buffer, and -EPIPE if the
        peer has gone: their transports get the whole frame.
Rule 3  A descriptor is used only while its session is in the hub. The session leaves the hub in `connection_lost` at
        the latest, and the transport closes the socket only after that.
        Example: without this rule a phone could leave, its descriptor 57 could be reused for a phone outside the area,
        and the frame for the first phone could be written to the second.
Rule 4  SIGPIPE must be ignored, because a write to a connection that is gone raises this signal, and no flag of the
        write can prevent that. Python ignores SIGPIPE from its start, and nothing in this program may change that.

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

REQUESTS = 256  # number of writes per system call: as many as the rows in one slice of a fan-out

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
    """Sends one frame to many sockets through an AIO context of the kernel.

    Only one thread may use it. `close` releases the context.
    """

    def __init__(self, requests: int = REQUESTS) -> None:
        """Create an AIO context that can take up to `requests` writes at a time.

        Raise OSError if the system does not provide AIO, or if a test write fails.
        """
        if sys.platform != "linux" or sys.maxsize < 2**32 or platform.machine() not in _CALLS:
            raise OSError(errno.ENOSYS, "not known on this platform")
        self._setup, self._destroy, self._getevents, self._submit = _CALLS[platform.machine()]
        self._requests = np.zeros(requests, _REQUEST)
        self._requests["opcode"] = _PWRITE
        self._requests["data"] = np.arange(requests)  # the index of the request, which comes back with its result
        self._events = np.zeros(requests, _EVENT)
        self._addresses = self._requests.ctypes.data + np.arange(requests) * _REQUEST.itemsize
        self._list: int = self._addresses.ctypes.data  # the argument of io_submit: an array of addresses of requests
        self._context = self._new_context()
        try:
            self._try()
        except BaseException:
            self.close()
            raise

    def _try(self) -> None:
        """Send one byte over a socket pair to test AIO, and raise OSError if that fails.

        A container may allow `io_setup`, the first of the four system calls, but forbid one of the others.
        """
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            [sent] = self.send(np.array([here.fileno()], np.int32), b"?").tolist()
            if sent < 0:
                raise OSError(-sent, os.strerror(-sent))

    def _new_context(self) -> int:
        context = np.zeros(1, np.uint64)  # io_setup writes the handle of the context into it
        _checked(_syscall(self._setup, len(self._requests), context.ctypes.data, 0, 0, 0))
        return int(context[0])

    def close(self) -> None:
        """Release the AIO context.

        After this call, `send` sends nothing and returns -EAGAIN for every socket, so the transports write everything.
        """
        if self._context:
            _syscall(self._destroy, self._context, 0, 0, 0, 0)
            self._context = 0

    def send(self, descriptors: NDArray[np.int32], data: bytes) -> NDArray[np.int32]:
        """Send `data` to each socket, in the given order.

        Return an array with one number for each socket: how many bytes it accepted, or a negative errno.
        """
        results = np.full(len(descriptors), -errno.EAGAIN, np.int32)
        if not self._context:
            return results
        self._requests["buf"] = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
        self._requests["nbytes"] = len(data)
        for first in range(0, len(descriptors), len(self._requests)):
            part = descriptors[first : first + len(self._requests)]
            self._requests["fd"][: len(part)] = part
            try:
                taken = self._hand_over(results[first : first + len(part)])
                self._collect(taken, results[first:])
            except BaseException:  # the next call would collect the results of this one
                self.close()
                self._context = self._new_context()
                raise
        return results

    def _hand_over(self, results: NDArray[np.int32]) -> int:
        """Submit one write for each item of `results`, and return how many writes the kernel accepted.

        The kernel stops at a write that it refuses, for example because the descriptor is closed. The negative errno is
        then stored as the result of this write, and the next submission starts with the write after it.
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
        """Store the results of `count` writes in `results`, each at the index of its socket.

        All of these writes have ended already (Rule 1).
        """
        while count:  # all results are there already, so io_getevents does not wait
            got = _syscall(self._getevents, self._context, count, count, self._events.ctypes.data, 0)
            if got < 0 and ctypes.get_errno() == errno.EINTR:
                continue
            ended = self._events[: _checked(got)]
            results[ended["data"].astype(np.intp)] = ended["res"]
            count -= got


def open_sender() -> Sender | None:
    """Return a sender, or None if AIO is not available.

    Log whether AIO is available, and if it is not, what the operator can do about it.
    """
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
