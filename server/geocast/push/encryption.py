"""What is known of a device, sealed: who copies the store learns how many devices there are, and until when (WPP2).

A record is encrypted with AES-256-GCM under a random nonce, and padded to a multiple of 2 KiB; the device's digest and
its lease are bound to it as associated data, so that no record can be put in the place of another, or live longer. A
digest is an HMAC-SHA-256 under a key that is derived from the store's: equal values have equal digests, and nothing
else shows.

The first key of the file seals; all of them open. What was sealed by another one than the first is written anew when it
is taken in (`device_manager`), digests included, so the old key can be taken out of the file after that.
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
_ALIKE = {"vapid", "categories", "min_severity", "languages", "kid", "issuer"}  # of most devices
_MARK_BYTES = 4  # by which a sealed record says which key it is


@dataclass(frozen=True, slots=True)
class Record:
    """All that is kept of a device.

    `p256dh` and `auth` are bytes, `vapid` is the public key of ours that its subscription is for. `cells` are H3 cells
    in hex. `expires_at_ms` is when its token ends, `issued_at_s` when that was made (None: it did not say), `kid` its
    key. `small`: its service takes no large bodies. `renewed`: it was told that its lease ends. `issuer` is the issuer
    of its token (rule HD5); records of earlier releases have none. `worked`: the host of its endpoint has taken a push.
    """

    id: str
    sub: str
    endpoint: str
    p256dh: bytes
    auth: bytes
    vapid: str
    topic_key: bytes
    secret: bytes  # a digest
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
        """As bytes, from which `unpacked` makes it again."""
        data: bytes = msgpack.packb(asdict(self))
        return data


def unpacked(data: bytes) -> Record:
    """The record in these bytes. Members that this release does not know are passed over. Raises ValueError."""
    try:
        found: dict[str, Any] = msgpack.unpackb(data)
        known = {name: _frozen(value) for name, value in found.items() if name in Record.__dataclass_fields__}
        known |= {name: _once(known[name]) for name in _ALIKE & known.keys()}
        return Record(**known)
    except (TypeError, AttributeError, msgpack.UnpackException) as error:
        raise ValueError(type(error).__name__) from None


@functools.lru_cache(1_024)
def _once(value: Any) -> Any:
    """This value, or an equal one that was here before: most devices have the same, and there are many."""
    return value


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class _Key(NamedTuple):
    mark: bytes
    cipher: AESGCM
    digesting: bytes


class Keyring:
    """The keys of the store."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        """`keys`: 32 bytes each; the first seals."""
        self._keys = [_Key(_derived(key, "mark")[:_MARK_BYTES], AESGCM(key), _derived(key, "digests")) for key in keys]

    def __len__(self) -> int:
        return len(self._keys)

    def digest(self, what: str, *values: str, key: int = 0) -> bytes:
        """A digest of these values as `what`: a device, an endpoint, an alert. `key`: the number of the key."""
        data = b"".join(len(each).to_bytes(4, "big") + each for each in (what.encode(), *map(str.encode, values)))
        return hmac.digest(self._keys[key].digesting, data, hashlib.sha256)[:DIGEST_BYTES]

    def seal(self, record: Record, device: bytes, until_ms: int) -> bytes:
        """The record, sealed for the device with this digest and this lease."""
        return self._seal(record.packed(), _bound(device, until_ms))

    def open(self, sealed: bytes, device: bytes, until_ms: int) -> tuple[Record, int]:
        """The record, and the number of the key that it was sealed by. Raises ValueError if no key opens it."""
        data, number = self._open(sealed, _bound(device, until_ms))
        return unpacked(data), number

    def seal_note(self, data: bytes, device: bytes) -> bytes:
        """What processes tell each other of a device, sealed."""
        return self._seal(data, device)

    def open_note(self, sealed: bytes, device: bytes) -> bytes:
        """What `seal_note` has sealed. Raises ValueError if no key opens it."""
        return self._open(sealed, device)[0]

    def _seal(self, data: bytes, bound: bytes) -> bytes:
        mark, cipher, _ = self._keys[0]
        length = -(-(len(data) + 4) // PADDED_BYTES) * PADDED_BYTES
        padded = (len(data).to_bytes(4, "big") + data).ljust(length, b"\0")
        nonce = os.urandom(NONCE_BYTES)
        return mark + nonce + cipher.encrypt(nonce, padded, bound)

    def _open(self, sealed: bytes, bound: bytes) -> tuple[bytes, int]:
        mark, nonce, rest = (
            sealed[:_MARK_BYTES],
            sealed[_MARK_BYTES:][:NONCE_BYTES],
            sealed[_MARK_BYTES + NONCE_BYTES :],
        )
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
    return device + until_ms.to_bytes(8, "big")


def parse_push_keys(data: bytes, source: object) -> Keyring:
    """The keys of the file of `--push-keys`: a JWKS of `oct` keys for A256GCM. Raises ConfigError."""
    return Keyring(sealing_keys_of(data, f"push-keys {source}", "geocast keygen --push").values())


def make_push_key(kid: str) -> dict[str, str]:
    """A new key for the store, as a JWK."""
    return make_sealing_key(kid)
