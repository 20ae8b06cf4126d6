"""Damage that is certain: a byte or a letter that differs from what was there.

A test that writes a fixed byte over data that is random passes only as long as another byte was there.
"""


def flipped(data: bytes, at: int = -1) -> bytes:
    """Return the data with the lowest bit of one byte changed."""
    damaged = bytearray(data)
    damaged[at] ^= 1
    return bytes(damaged)


def respelled(text: str, at: int = -8) -> str:
    """Return a base64 text, such as a token, with one letter changed.

    The last letter of such a text may hold bits that are ignored, so it is not the one that is changed by default.
    """
    letters = list(text)
    letters[at] = "B" if letters[at] == "A" else "A"
    return "".join(letters)
