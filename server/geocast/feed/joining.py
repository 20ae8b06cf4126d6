"""Joining large bodies without blocking the event loop (rule HD4)."""

from collections.abc import Iterable


def joined(head: bytes, between: bytes, parts: Iterable[bytes], tail: bytes) -> bytes:
    """Return `head`, the parts with `between` in between, and `tail`, joined to one bytes object.

    A single `bytes.join` does all of this. For megabytes it releases the interpreter's lock, so that other threads can
    run.
    """
    pieces = [head]
    for part in parts:
        pieces += (part, between)
    return b"".join([*pieces[: max(1, len(pieces) - 1)], tail])
