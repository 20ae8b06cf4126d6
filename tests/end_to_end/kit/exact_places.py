"""A search for exact places as bytes, in frames, answers, log lines and files (rules RZ2 and RZ3)."""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def needles(place: Json) -> Iterator[bytes]:
    """Yield the byte strings that reveal a place: its lines of text, and its coordinates as text and in binary."""
    for name in ("address", "access"):
        yield from (line.encode() for line in str(place.get(name, "")).split("\n") if line)
    for name in ("lat", "lng"):
        yield repr(place[name]).encode()
        yield from (struct.pack(order, place[name]) for order in ("<d", ">d"))


def found(haystack: bytes, wanted: Iterable[bytes]) -> list[bytes]:
    """Return the needles that the haystack contains."""
    return [needle for needle in wanted if needle in haystack]


def files(*folders: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield every file in these folders with its content."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield path, path.read_bytes()
