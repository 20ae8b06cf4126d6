"""Base64url: the encoding of bytes in JSON Web Keys, signatures and Web Push (RFC 7515, section 2)."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

_SPELLING = re.compile("[A-Za-z0-9_-]*=*")


def encoded(data: bytes) -> str:
    """Encode bytes as base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """Decode base64url, with or without padding. Raise ValueError if the text is not base64url."""
    if not _SPELLING.fullmatch(text):
        raise ValueError("not base64url")
    bare = text.rstrip("=")
    return urlsafe_b64decode(bare + "=" * (-len(bare) % 4))


def decoded_strictly(text: str) -> bytes:
    """Decode base64url. Raise ValueError unless the text is exactly what `encoded` returns for the decoded bytes."""
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))  # this ignores characters that are not base64url
    if encoded(data) != text:
        raise ValueError("not base64url as it is written")
    return data
