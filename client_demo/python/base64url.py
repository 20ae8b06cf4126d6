"""Base64url without padding, as used in keys, tokens and signatures (RFC 7515, section 2)."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

_SPELLING = re.compile(r"[A-Za-z0-9_-]*")


def encoded(data: bytes) -> str:
    """Return bytes as base64url text."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """Return the bytes that base64url text encodes. Raise ValueError if the text is not base64url."""
    if not _SPELLING.fullmatch(text):
        raise ValueError("not base64url")
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
