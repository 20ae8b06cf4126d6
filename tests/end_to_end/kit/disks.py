"""Small file systems that a test can fill."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """Fill a disk while the block runs."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    try:
        yield
    finally:
        filler.unlink()
