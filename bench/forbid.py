"""A launcher that runs a command in which certain system calls fail.

Usage: `python bench/forbid.py io_uring_setup,io_setup COMMAND …`. In the command and in its child processes, these
calls fail with EPERM. That is done with a seccomp filter, as container runtimes do. The default profiles of Docker and
containerd forbid io_uring_setup and allow io_setup.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

NUMBERS = {
    "x86_64": {"io_setup": 206, "io_submit": 209, "io_getevents": 208, "io_uring_setup": 425},
    "aarch64": {"io_setup": 0, "io_submit": 2, "io_getevents": 4, "io_uring_setup": 425},
}
IO_URING = "io_uring_setup"
AIO = "io_setup"

_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2  # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER
_LOAD, _JUMP_IF, _RETURN = 0x20, 0x15, 0x06  # BPF_LD | BPF_W | BPF_ABS; BPF_JMP | BPF_JEQ | BPF_K; BPF_RET | BPF_K
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO


class _Program(ctypes.Structure):
    _fields_ = (("count", ctypes.c_ushort), ("instructions", ctypes.c_char_p))  # struct sock_fprog


def forbid(*calls: str) -> None:
    """From now on, make these system calls fail in this process and in its child processes.

    Raise OSError if the name of a call is unknown, or if the kernel rejects the filter.
    """
    known = NUMBERS.get(platform.machine(), {})
    if unknown := [call for call in calls if call not in known]:
        raise OSError(f"the number of {', '.join(unknown)} on {platform.machine()} is not known")
    numbers = [known[call] for call in calls]
    program = struct.pack("=HBBI", _LOAD, 0, 0, 0)  # load the system call's number, the first field of seccomp_data
    for left, number in zip(reversed(range(len(numbers))), numbers, strict=True):
        program += struct.pack("=HBBI", _JUMP_IF, left + 1, 0, number)  # if equal, jump to the refusal at the end
    program += struct.pack("=HBBI", _RETURN, 0, 0, _ALLOW) + struct.pack("=HBBI", _RETURN, 0, 0, _REFUSE)
    libc = ctypes.CDLL(None, use_errno=True)
    filter_ = _Program(len(program) // 8, program)
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_SECCOMP, _FILTER, ctypes.byref(filter_)):
        raise OSError(ctypes.get_errno(), "the kernel accepts no seccomp filter")


if __name__ == "__main__":
    try:
        forbid(*sys.argv[1].split(","))
    except OSError as error:
        sys.exit(f"forbid: {error}")
    os.execvp(sys.argv[2], sys.argv[2:])
