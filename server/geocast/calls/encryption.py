"""What nobody with the log may read: the secrets of a call's entries, sealed by the keys of `--call-keys` (RZ3, RZ5).

    nonce (12 bytes, random) | AES-256-GCM ciphertext and tag (16 bytes)

What is authenticated with it is the entry around it: id, number, kind and body. So whoever can write to the log, and
has no key, can neither make an entry, nor alter one, nor move it to another place. Only `MOVED` kinds may stand under
a higher number than they were sealed for: they are put back when Redis has lost them, by a log that has no keys.

The first key seals, all open. Which one has sealed an entry it does not say; there are few, and to try one takes 1 µs.
"""

import os
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..auth.jwks import make_sealing_key, sealing_keys_of
from ..errors import ConfigError, GeocastError
from ..model.call import MOVED, CallEntry, Kind

NONCE_BYTES = 12  # random, so a key is good for 2^32 entries (NIST SP 800-38D, 8.3); it seals for a day
TAG_BYTES = 16


class CantOpen(GeocastError):  # noqa: N818
    """An entry that was sealed by no key in force, or is not as it was sealed."""


class CallKeys:
    """The keys of `--call-keys`, in their order: the first seals, all open. False if there is none."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """`keys`: `kid` -> 32 bytes."""
        self.kids = tuple(keys)
        self._ciphers = [AESGCM(key) for key in keys.values()]

    def __bool__(self) -> bool:
        return bool(self.kids)

    def seal(self, id: str, number: int, kind: Kind, plain: bytes, secret: bytes) -> bytes:  # noqa: A002
        """What is sealed of the entry of this place and body. Raises ValueError if there is no key."""
        if not self._ciphers:
            raise ValueError("there is no key to seal with")
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._ciphers[0].encrypt(nonce, secret, _bound(id, number, kind, plain))

    def open(self, entry: CallEntry) -> bytes:
        """The secret of an entry. Raises CantOpen."""
        number = entry.sealed_as or entry.revision
        if number != entry.revision and not (entry.kind in MOVED and number < entry.revision):
            raise CantOpen("an entry was moved")
        if len(entry.sealed) >= NONCE_BYTES + TAG_BYTES:
            nonce, ciphertext = entry.sealed[:NONCE_BYTES], entry.sealed[NONCE_BYTES:]
            bound = _bound(entry.id, number, entry.kind, entry.plain)
            for cipher in self._ciphers:
                try:
                    return cipher.decrypt(nonce, ciphertext, bound)
                except InvalidTag:
                    continue
        raise CantOpen("an entry was sealed by no key in force, or altered")


NO_CALL_KEYS = CallKeys({})


def _bound(id: str, number: int, kind: Kind, plain: bytes) -> bytes:  # noqa: A002
    """What is authenticated with the secret: each part with its length, so that no two entries have the same."""
    bound: bytes = msgpack.packb((id, number, kind, plain))
    return bound


def refuse_unsealed(keys: CallKeys, categories: Collection[str]) -> None:
    """Raise ConfigError if there are categories of calls, and no key to seal calls by (RZ5)."""
    if categories and not keys:
        raise ConfigError(
            "the policy has [calls], and there is no key to seal them by: give --call-keys FILE "
            "(made by geocast keygen --call)"
        )


# ---- keys --------------------------------------------------------------------------------------------------------


def load_call_keys(path: Path) -> CallKeys:
    """The keys of the file at `path`. Raises ConfigError."""
    try:
        return parse_call_keys(path.read_bytes(), path)
    except OSError as error:
        raise ConfigError(f"call-keys {path}: {error.strerror}") from None


def parse_call_keys(data: bytes, source: object) -> CallKeys:
    """The keys of a JWKS of `oct` keys with the `alg` A256GCM. Raises ConfigError, which never repeats a key."""
    return CallKeys(sealing_keys_of(data, f"call-keys {source}", "geocast keygen --call"))


def make_call_key(kid: str | None = None) -> dict[str, str]:
    """A new key, as a JWK: it is a secret."""
    return make_sealing_key(kid or secrets.token_hex(8))
