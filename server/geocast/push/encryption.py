"""Encryption of the stored devices: a copy of the store shows only how many there are and when their leases end (WPP2).

A device's lease is the time until which its registration is valid. A record is encrypted with AES-256-GCM under a
random nonce, and padded to a multiple of 2 KiB. The device's digest and the end of its lease are associated data, so a
record can't be copied to another device or be given a later end. A digest is an HMAC-SHA-256 under a key that is
derived from the store's key: equal values have equal digests, and digests reveal nothing else.

The first key of the file encrypts; all keys decrypt. When `device_manager` loads a record that was encrypted with an
older key, the record is encrypted again with the first key, and its digests are computed again. After that, the old key
can be removed from the file.
"""

import functools
import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..auth.jwks import make_sealing_key, sealing_keys_of
from ..auth.tokens import Subject
from ..model.alert import Severity

NONCE_BYTES = 12
DIGEST_BYTES = 16
PADDED_BYTES = 2_048
# Fields whose values are equal for most devices.
_ALIKE = {"vapid", "categories", "min_severity", "languages", "kid", "issuer"}
_MARK_BYTES = 4  # length of the start of an encrypted record, which tells its key
_HEAD_BYTES = _MARK_BYTES + NONCE_BYTES


@dataclass(frozen=True, slots=True)
class Record:
    """All that is stored about a device.

    `p256dh` and `auth` are the keys of the subscription; `vapid` is the public key of this server with which the
    subscription was made. `cells` are H3 cells in hexadecimal. `kid` names the key of the device's token, and `issuer`
    the token's issuer (rule HD5); it is empty in records of earlier releases. `issued_at_s` and `expires_at_ms` are the
    times of the token; `issued_at_s` is None if the token has no such time.

    `small` says whether the push service accepts only small bodies, `renewed` whether the device was reminded that its
    registration ends soon, and `worked` whether the host of the endpoint has accepted a push.
    """

    id: str
    sub: str
    endpoint: str
    p256dh: bytes
    auth: bytes
    vapid: str
    topic_key: bytes
    secret: bytes  # the SHA-256 of the device's secret
    cells: tuple[str, ...]
    categories: tuple[str, ...] | None
    min_severity: Severity
    languages: tuple[str, ...]
    proofs: bool
    may_test: bool
    issued_at_s: float | None
    expires_at_ms: int
    kid: str
    small: bool = False
    renewed: bool = False
    issuer: str = ""
    worked: bool = False

    @property
    def subject(self) -> Subject:
        """The owner of the device (rule HD5)."""
        return Subject(self.issuer, self.sub)

    def packed(self) -> bytes:
        """Return the record as bytes. `unpacked` makes a record from these bytes again."""
        data: bytes = msgpack.packb(asdict(self))
        return data


def unpacked(data: bytes) -> Record:
    """Return the record that `Record.packed` has turned into these bytes.

    Fields that this release doesn't know are dropped. Raise ValueError if the bytes are not a record.
    """
    try:
        found: dict[str, Any] = msgpack.unpackb(data, use_list=False)
        known = {name: value for name, value in found.items() if name in Record.__dataclass_fields__}
        known |= {name: _shared(known[name]) for name in _ALIKE & known.keys()}
        return Record(**known)
    except (TypeError, AttributeError, msgpack.UnpackException) as error:
        raise ValueError(type(error).__name__) from None


@functools.lru_cache(1_024)
def _shared(value: Any) -> Any:
    """Return an object that is equal to `value`.

    For equal values it is always the same object. Most devices have equal values here, so sharing one object saves
    memory.
    """
    return value


class _Key(NamedTuple):
    mark: bytes
    cipher: AESGCM
    digesting: bytes


class Keyring:
    """Encrypts and decrypts the records of the device store, and computes digests, with the store's keys."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        """Create a keyring from keys of 32 bytes each. The first key encrypts."""
        self._keys = [_Key(_derived(key, "mark")[:_MARK_BYTES], AESGCM(key), _derived(key, "digests")) for key in keys]

    def __len__(self) -> int:
        return len(self._keys)

    def digest(self, what: str, *values: str, key: int = 0) -> bytes:
        """Return a digest of these values.

        `what` says what the values identify, such as `device` or `alert`. So equal values that identify different kinds
        of things have different digests. `key` is the index of the key to use.
        """
        data = b"".join(len(each).to_bytes(4, "big") + each for each in (what.encode(), *map(str.encode, values)))
        return hmac.digest(self._keys[key].digesting, data, hashlib.sha256)[:DIGEST_BYTES]

    def seal(self, record: Record, device: bytes, until_ms: int) -> bytes:
        """Return the encrypted record of a device. `device` is its digest, `until_ms` the end of its registration."""
        return self._seal(record.packed(), _bound(device, until_ms))

    def open(self, sealed: bytes, device: bytes, until_ms: int) -> tuple[Record, int]:
        """Return the decrypted record and the index of the key that encrypted it.

        Raise ValueError if no key decrypts it.
        """
        data, number = self._open(sealed, _bound(device, until_ms))
        return unpacked(data), number

    def seal_note(self, data: bytes, device: bytes) -> bytes:
        """Encrypt a note about a device, which one process sends to another through the store."""
        return self._seal(data, device)

    def open_note(self, sealed: bytes, device: bytes) -> bytes:
        """Return the decrypted note that `seal_note` has encrypted. Raise ValueError if no key decrypts it."""
        return self._open(sealed, device)[0]

    def _seal(self, data: bytes, bound: bytes) -> bytes:
        mark, cipher, _ = self._keys[0]
        length = -(-(len(data) + 4) // PADDED_BYTES) * PADDED_BYTES
        padded = (len(data).to_bytes(4, "big") + data).ljust(length, b"\0")
        nonce = os.urandom(NONCE_BYTES)
        return mark + nonce + cipher.encrypt(nonce, padded, bound)

    def _open(self, sealed: bytes, bound: bytes) -> tuple[bytes, int]:
        mark, nonce, rest = sealed[:_MARK_BYTES], sealed[_MARK_BYTES:_HEAD_BYTES], sealed[_HEAD_BYTES:]
        for number, key in enumerate(self._keys):
            if key.mark == mark and len(nonce) == NONCE_BYTES:
                try:
                    padded = key.cipher.decrypt(nonce, rest, bound)
                except InvalidTag:
                    continue
                return padded[4:][: int.from_bytes(padded[:4], "big")], number
        raise ValueError("no key opens it")


def _derived(key: bytes, purpose: str) -> bytes:
    return hmac.digest(key, b"geocast push " + purpose.encode(), hashlib.sha256)


def _bound(device: bytes, until_ms: int) -> bytes:
    return device + (until_ms % 2**64).to_bytes(8, "big")  # a damaged store may say a negative time


def parse_push_keys(data: bytes, source: object) -> Keyring:
    """Return the keys in `data`, which is the content of the file that the option `--push-keys` names.

    Raise ConfigError if it is not a JWKS of `oct` keys for A256GCM.
    """
    return Keyring(sealing_keys_of(data, f"push-keys {source}", "geocast keygen --push").values())


def make_push_key(kid: str) -> dict[str, str]:
    """Return a new key for the device store, as a JWK."""
    return make_sealing_key(kid)
