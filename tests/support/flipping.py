"""Functions that certainly damage data: the changed byte or letter always differs from the original.

A test that overwrote random data with a fixed byte would fail whenever the original byte was the same.
"""


def flipped(data: bytes, at: int = -1) -> bytes:
    """Return the data with the lowest bit of one byte changed."""
    damaged = bytearray(data)
    damaged[at] ^= 1
    return bytes(damaged)


def respelled(text: str, at: int = -8) -> str:
    """Return a base64 text, such as a token, with one letter changed.

    The last letter may contain only ignored bits, so by default an earlier letter is changed.
    """
    letters = list(text)
    letters[at] = "B" if letters[at] == "A" else "A"
    return "".join(letters)
