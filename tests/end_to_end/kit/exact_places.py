"""Exact places as bytes, and where they are searched for: frames, answers, lines, files (RZ2, RZ3)."""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def needles(place: Json) -> Iterator[bytes]:
    """What gives a place away: its texts, line by line, and its latitude and longitude, in digits and in binary."""
    for name in ("address", "access"):
        yield from (line.encode() for line in str(place.get(name, "")).split("\n") if line)
    for name in ("lat", "lng"):
        yield repr(place[name]).encode()
        yield from (struct.pack(order, place[name]) for order in ("<d", ">d"))


def found(haystack: bytes, wanted: Iterable[bytes]) -> list[bytes]:
    """Those of the needles that are in it."""
    return [needle for needle in wanted if needle in haystack]


def files(*folders: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file in these folders, with its content."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield path, path.read_bytes()
