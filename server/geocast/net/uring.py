"""One frame to many sockets in one system call: Linux io_uring, spoken by its ABI (<linux/io_uring.h>).

Without it a delivery costs the send in the kernel and the way there and back, once for each session: the interpreter,
uvloop and a system call. Here a slice of sessions costs one system call. The requests are filled in as numpy columns
over the memory that we share with the kernel, and the kernel's code stays in the caches while it works through them
(ADR 6 has the figures, of `bench fanout`).

The ring is two queues in shared memory. We write requests at the tail of the submission queue and the kernel takes them
from its head; the kernel writes results at the tail of the completion queue and we take them from its head. Heads and
tails are 32-bit counters that only grow and wrap; the place in the queue is the counter modulo its size.

Rule 1  Every send has MSG_DONTWAIT, so it has ended when the call returns, one way or the other. Nothing (neither the
        frame nor the session) has to be kept alive for it afterwards.
Rule 2  What was not sent whole is reported to the caller, who leaves the rest to the session's transport: the transport
        knows how to wait, and how to end.
Rule 3  A descriptor is used only while its session is in the hub. It leaves the hub in `connection_lost` at the latest,
        and transports close their socket behind that; so the number can't be another connection's while it is used.

Where the kernel or a container's rules don't allow io_uring, everything is left to the transports.
"""

import ctypes
import errno
import logging
import mmap
import os
import socket

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

ENTRIES = 256  # requests in the ring: the sends of one call, and a slice of the hub

# System calls. The numbers of calls that are as young as these are the same on every architecture but Alpha.
_SETUP, _ENTER = 425, 426
_OP_SEND = 26  # IORING_OP_SEND, from Linux 5.6 on
_GETEVENTS = 1  # IORING_ENTER_GETEVENTS
# IORING_FEAT_SINGLE_MMAP (5.4), and IORING_FEAT_RW_CUR_POS, which came together with IORING_OP_SEND (5.6)
_FEATURES = 1 | 1 << 3
_OFFSET_SQES = 0x10000000  # IORING_OFF_SQES
# struct io_uring_sqe, the fields that a send has, and struct io_uring_cqe.
_SQE = np.dtype(
    {
        "names": ["opcode", "fd", "addr", "len", "msg_flags", "user_data"],
        "formats": ["u1", "i4", "u8", "u4", "u4", "u8"],
        "offsets": [0, 4, 16, 24, 28, 32],
        "itemsize": 64,
    }
)
_CQE = np.dtype([("user_data", "u8"), ("res", "i4"), ("flags", "u4")])
# PyDLL keeps the GIL for the call, which takes about a millisecond for 256 sends: to get the GIL back from another
# thread took up to 5 ms.
_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


class Ring:
    """A ring of sends, for the use of one thread. `close` gives it back."""

    def __init__(self, entries: int = ENTRIES) -> None:
        """`entries`: how many sends one call takes, a power of two. Raises OSError where io_uring can't be had."""
        parameters = np.zeros(30, np.uint32)  # struct io_uring_params
        self._fd = _checked(_syscall(_SETUP, entries, ctypes.c_void_p(parameters.ctypes.data)))
        try:
            self._map(parameters)
        except BaseException:
            self.close()
            raise

    def _map(self, parameters: NDArray[np.uint32]) -> None:
        entries, completions = parameters[:2].tolist()
        if parameters[5] & _FEATURES != _FEATURES:
            raise OSError(errno.ENOSYS, "the kernel is older than 5.6")
        sq, cq = parameters[10:].tolist(), parameters[20:].tolist()  # struct io_sqring_offsets, io_cqring_offsets
        size = max(sq[6] + entries * 4, cq[5] + completions * _CQE.itemsize)
        ring = mmap.mmap(self._fd, size, mmap.MAP_SHARED | mmap.MAP_POPULATE)
        requests = mmap.mmap(self._fd, entries * 64, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=_OFFSET_SQES)

        def at(offset: int, count: int = 1) -> NDArray[np.uint32]:
            return np.frombuffer(ring, np.uint32, count, offset)

        self._entries, self._completions = entries, completions
        self._sq_head, self._sq_tail, self._cq_head, self._cq_tail = at(sq[0]), at(sq[1]), at(cq[0]), at(cq[1])
        self._cqes = np.frombuffer(ring, _CQE, completions, cq[5])
        at(sq[6], entries)[:] = np.arange(entries)  # the n-th place of the queue always refers to the n-th request
        self._sqes = np.frombuffer(requests, _SQE)
        self._sqes["opcode"] = _OP_SEND
        self._sqes["msg_flags"] = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        self._sqes["user_data"] = np.arange(entries)

    def close(self) -> None:
        """Give the ring back to the kernel. From then on `send` leaves everything to the transports."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            # The two mappings, each with a descriptor of its own, last as long as an array looks at their memory.
            self._sq_head = self._sq_tail = self._cq_head = self._cq_tail = np.zeros(1, np.uint32)
            self._sqes, self._cqes = np.empty(0, _SQE), np.empty(0, _CQE)

    def send(self, descriptors: NDArray[np.int32], data: bytes) -> NDArray[np.int32]:
        """Send `data` to each socket, in this order. Returns for each the bytes that were sent, or a negative errno."""
        results = np.full(len(descriptors), -errno.EAGAIN, np.int32)
        if self._fd < 0:
            return results
        self._sqes["addr"] = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
        self._sqes["len"] = len(data)
        done = 0
        while done < len(descriptors):
            first = int(self._sq_tail[0]) & (self._entries - 1)
            count = min(len(descriptors) - done, self._entries - first)
            self._sqes["fd"][first : first + count] = descriptors[done : done + count]
            if self._submit(count, first, results[done : done + count]) < count:
                break  # the kernel is out of memory or the like: the rest is left at EAGAIN, to the transports
            done += count
        return results

    def _submit(self, count: int, first: int, results: NDArray[np.int32]) -> int:
        """Have the kernel work through the next `count` requests, from place `first` on. Returns how many it did.

        `results` is where their results go, in the order of the requests; they may come in another.
        """
        self._sq_tail += np.uint32(count)  # an array of one wraps at 2^32 in silence, unlike a scalar
        taken: int = max(0, _syscall(_ENTER, self._fd, count, count, _GETEVENTS, None, 0))
        if taken < count:
            self._sq_tail[0] = self._sq_head[0]  # take back the requests that it has not taken
        head = int(self._cq_head[0])
        while (int(self._cq_tail[0]) - head) & 0xFFFF_FFFF < taken:  # a signal has interrupted the wait
            _syscall(_ENTER, self._fd, 0, taken, _GETEVENTS, None, 0)
        ended = self._cqes[(head + np.arange(taken)) & (self._completions - 1)]
        results[ended["user_data"].astype(np.intp) - first] = ended["res"]
        self._cq_head += np.uint32(taken)
        return taken


def open_ring() -> Ring | None:
    """A ring, or None (and a line that says so) where there is no io_uring to be had."""
    try:
        return Ring()
    except OSError as error:
        log.info("no io_uring (%s): sends go one by one, which takes more CPU", error.strerror)
        return None


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
