"""Encryption of the secret part of a call's entries, with the keys of `--call-keys` (RZ3, RZ5).

    nonce (12 bytes, random) | AES-256-GCM ciphertext and tag (16 bytes)

The additional authenticated data are the id, number, kind and public body of the entry. So somebody who can write to
the log, but has no key, can't make an entry, change one, or give it another number. Only entries of the kinds in
`MOVED` may have a higher number than the one for which they were encrypted. The reason: if Redis loses such an entry,
the log, which has no keys, puts the entry back under a new number.

The first key encrypts, and all keys decrypt. An entry does not name its key. Instead, each key is tried: there are few
keys, and a try takes 1 µs.
"""

import os
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..auth.jwks import make_sealing_key, sealing_keys_of
from ..model.call import MOVED, CallEntry, Kind
from ..model.errors import ConfigError, GeocastError

NONCE_BYTES = 12  # random, so one key may encrypt up to 2^32 entries (NIST SP 800-38D, 8.3)
TAG_BYTES = 16


class CantOpen(GeocastError):  # noqa: N818
    """Raised if none of the current keys decrypts an entry, or if the entry was changed after it was encrypted."""


class CallKeys:
    """The keys of `--call-keys`, in the order of the file. The first key encrypts, and every key decrypts.

    An object without keys is false in a boolean context.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """Use these keys, given as a dict from `kid` (the id of the key) to the 32 bytes of the key."""
        self.kids = tuple(keys)
        self._ciphers = [AESGCM(key) for key in keys.values()]

    def __bool__(self) -> bool:
        return bool(self.kids)

    def seal(self, id: str, number: int, kind: Kind, plain: bytes, secret: bytes) -> bytes:  # noqa: A002
        """Return `secret` encrypted for the entry with this id, number, kind and public body (`plain`).

        Only for that entry can it be decrypted. Raise ValueError if there is no key.
        """
        if not self._ciphers:
            raise ValueError("there is no key to encrypt with")
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._ciphers[0].encrypt(nonce, secret, _bound(id, number, kind, plain))

    def open(self, entry: CallEntry) -> bytes:
        """Return the decrypted secret of an entry.

        Raise CantOpen if no key decrypts the secret, or if the entry was changed or given another number.
        """
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
    """Return, as one byte string, the unencrypted parts of an entry that the encryption protects against changes.

    They are the associated data of AES-GCM. MessagePack writes the length of each part, so different parts never give
    the same byte string.
    """
    bound: bytes = msgpack.packb((id, number, kind, plain))
    return bound


def refuse_unsealed(keys: CallKeys, categories: Collection[str]) -> None:
    """Raise ConfigError if the policy has categories of calls, but there is no key to encrypt calls with (RZ5)."""
    if categories and not keys:
        raise ConfigError(
            "the policy has [calls], but there is no key to encrypt them with: give --call-keys FILE "
            "(made by geocast keygen --call)"
        )


# ---- reading and making keys ---------------------------------------------------------------------------------------


def load_call_keys(path: Path) -> CallKeys:
    """Read the keys from a file. Raise ConfigError if the file can't be read, or is not a valid set of keys."""
    try:
        return parse_call_keys(path.read_bytes(), path)
    except OSError as error:
        raise ConfigError(f"call-keys {path}: {error.strerror}") from None


def parse_call_keys(data: bytes, source: object) -> CallKeys:
    """Return the keys in a JWKS of `oct` keys whose `alg` is A256GCM.

    Raise ConfigError if it is invalid. The text of the error never contains a key.
    """
    return CallKeys(sealing_keys_of(data, f"call-keys {source}", "geocast keygen --call"))


def make_call_key(kid: str | None = None) -> dict[str, str]:
    """Return a new random key for call entries, as a JWK. The key is a secret."""

    return make_sealing_key(kid or secrets.token_hex(8))
