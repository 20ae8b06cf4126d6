"""One frame to many sockets in one system call: Linux io_uring, spoken by its ABI (<linux/io_uring.h>).

The send itself is nearly the whole cost of a delivery, and a third of what is left is the way to it and back: through
the interpreter, uvloop and a system call for each session. Here a slice of sessions costs one call, its requests are
filled in as columns, and the kernel's code stays in the caches while it works (figures: ADR 6).

Rule 1  MSG_DONTWAIT: a send has ended when the call returns, one way or the other. So nothing has to be kept for it.
Rule 2  What was not sent whole is said, and left to the session's transport: that one knows how to wait, or to end.
Rule 3  A descriptor is used only while its session is in the hub. That is over in `connection_lost` at the latest,
        and transports close their socket behind it: the number can't be another connection's by then.

Where the kernel or a container's rules don't allow it, all is left to the transports.
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

ENTRIES = 256  # of the ring: sends in one call

_SETUP, _ENTER = 425, 426  # system calls; the same numbers on every architecture that we may meet
_OP_SEND, _GETEVENTS, _SINGLE_MMAP = 26, 1, 1
_OFFSET_SQES = 0x10000000
_SQE = np.dtype(
    {
        "names": ["opcode", "fd", "addr", "len", "msg_flags", "user_data"],
        "formats": ["u1", "i4", "u8", "u4", "u4", "u8"],
        "offsets": [0, 4, 16, 24, 28, 32],
        "itemsize": 64,
    }
)
_CQE = np.dtype([("user_data", "u8"), ("res", "i4"), ("flags", "u4")])
# With the GIL: a call takes half a millisecond, to get the GIL back from another thread may take ten times that.
_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


class Ring:
    """Sends; for one thread."""

    def __init__(self, entries: int = ENTRIES) -> None:
        """`entries`: a power of two. Raises OSError where io_uring can't be had."""
        parameters = np.zeros(30, np.uint32)  # struct io_uring_params
        self._fd = _checked(_syscall(_SETUP, entries, ctypes.c_void_p(parameters.ctypes.data)))
        try:
            self._map(parameters)
        except BaseException:
            self.close()
            raise

    def _map(self, parameters: NDArray[np.uint32]) -> None:
        entries, completions = parameters[:2].tolist()
        if not parameters[5] & _SINGLE_MMAP:
            raise OSError(errno.ENOSYS, "the kernel is older than 5.4")
        sq, cq = parameters[10:].tolist(), parameters[20:].tolist()  # struct io_sqring_offsets, io_cqring_offsets
        size = max(sq[6] + entries * 4, cq[5] + completions * _CQE.itemsize)
        ring = mmap.mmap(self._fd, size, mmap.MAP_SHARED | mmap.MAP_POPULATE)
        requests = mmap.mmap(self._fd, entries * 64, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=_OFFSET_SQES)

        def at(offset: int, count: int = 1) -> NDArray[np.uint32]:
            return np.frombuffer(ring, np.uint32, count, offset)

        self._entries, self._completions = entries, completions
        self._sq_head, self._sq_tail, self._cq_head, self._cq_tail = at(sq[0]), at(sq[1]), at(cq[0]), at(cq[1])
        self._cqes = np.frombuffer(ring, _CQE, completions, cq[5])
        at(sq[6], entries)[:] = np.arange(entries)  # the n-th place of the queue is the n-th request
        self._sqes = np.frombuffer(requests, _SQE)
        self._sqes["opcode"] = _OP_SEND
        self._sqes["msg_flags"] = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        self._sqes["user_data"] = np.arange(entries)

    def close(self) -> None:
        """Give it back to the kernel. From then on `send` leaves all to the transports."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            # The two mappings, each with a descriptor of its own, last as long as somebody looks at them.
            self._sq_head = self._sq_tail = self._cq_head = self._cq_tail = np.zeros(1, np.uint32)
            self._sqes, self._cqes = np.empty(0, _SQE), np.empty(0, _CQE)

    def send(self, descriptors: NDArray[np.int32], data: bytes) -> NDArray[np.int32]:
        """Send `data` to each, in this order. For each the bytes that were sent, or a negative errno."""
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
                break  # the kernel is out of something: the transports will know
            done += count
        return results

    def _submit(self, count: int, first: int, results: NDArray[np.int32]) -> int:
        """Have the kernel work through the next `count` requests; how many it did."""
        self._sq_tail += np.uint32(count)  # the whole array, of one: unlike a scalar, it wraps at 2^32 in silence
        taken: int = max(0, _syscall(_ENTER, self._fd, count, count, _GETEVENTS, None, 0))
        if taken < count:
            self._sq_tail[0] = self._sq_head[0]  # it must not find the others next time
        head = int(self._cq_head[0])
        while (int(self._cq_tail[0]) - head) & 0xFFFF_FFFF < taken:  # a signal came in between
            _syscall(_ENTER, self._fd, 0, taken, _GETEVENTS, None, 0)
        ended = self._cqes[(head + np.arange(taken)) & (self._completions - 1)]
        results[ended["user_data"].astype(np.intp) - first] = ended["res"]
        self._cq_head += np.uint32(taken)
        return taken


def open_ring() -> Ring | None:
    """A ring, or None where it can't be had."""
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
