"""The possible forms of a secret in a node's output and files, and a search for them."""

import hashlib
import struct
from collections.abc import Iterator


def spellings(number: float) -> Iterator[bytes]:
    """Yield the likely encodings of a number: decimals, micro-degrees, radians, and floats in both byte orders."""
    digits = f"{abs(number):.10f}"
    whole, decimals = digits.split(".")
    for text in (f"{whole}.{decimals[:5]}", whole + decimals[:6], f"{abs(number) * 0.017453292519943295:.10f}"[:10]):
        yield text.encode()
    for value in (number, -number, number * 0.017453292519943295):
        for layout in ("<d", ">d"):
            yield struct.pack(layout, value)


def digests(content: bytes) -> dict[bytes, str]:
    """Return hashes of a request's bytes."""
    found: dict[bytes, str] = {}
    for name in ("md5", "sha1", "sha256", "sha512", "blake2b", "sha3_256"):
        digest = hashlib.new(name, content)
        found |= {digest.digest(): name, digest.hexdigest().encode(): name}
    return found


def assert_found_nowhere(needles: dict[bytes, str], haystacks: dict[str, bytes]) -> None:
    """Require that no haystack contains any of the needles."""
    found = [
        f"{secret} as {needle!r} in {name}"
        for needle, secret in needles.items()
        for name, data in haystacks.items()
        if needle in data
    ]
    assert not found, "\n".join(found)
