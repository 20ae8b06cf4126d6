"""JSON Web Key Sets (RFC 7517): reading the list of keys in a set, and reading and making encryption keys.

This module does not validate keys of other types; its callers do.
"""

import json
import re
import secrets
from collections.abc import Mapping
from typing import Any

from ..model.errors import ConfigError
from .base64url import decoded, encoded

A256GCM = "A256GCM"  # RFC 7518, section 5.3
SEALING_KEY_BYTES = 32
MAX_SEALING_KEYS = 16

_SEALING_KEY = re.compile(r"[A-Za-z0-9_-]{43}")  # 32 bytes in base64url without padding (RFC 7518, 6.4.1)


def keys_of(data: bytes, what: str) -> list[Mapping[str, Any]]:
    """Return the keys in a JWK set, each as a dict of its members.

    Raise ConfigError if the data is not a JWK set. The text of the error begins with `what`, which names the command
    line option and its file.
    """
    try:
        content = json.loads(data.decode())
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and "kty" in content:
        which = "a private key" if "d" in content else "one key"
        raise ConfigError(f"{what}: is {which}, not a JWK set, such as the keys.jwks that geocast keygen makes")
    keys = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(keys, list) or not all(isinstance(jwk, dict) for jwk in keys):
        raise ConfigError(f"{what}: not a JWK set (an object with a list of keys)")
    return keys


def sealing_keys_of(data: bytes, what: str, made_by: str) -> dict[str, bytes]:
    """Return the encryption keys of a JWK set as a dict from `kid` to key (32 bytes), in the order of the set.

    Raise ConfigError unless the set has 1 to 16 keys with `kty` oct and `alg` A256GCM. The text of the error begins
    with `what`, and names the command `made_by`, which makes such keys. It never contains a key.
    """
    found: dict[str, bytes] = {}
    for number, jwk in enumerate(keys_of(data, what), start=1):
        where = f"{what}: key {number}"
        kid, key = jwk.get("kid"), jwk.get("k")
        if not isinstance(kid, str) or not kid or kid in found:
            raise ConfigError(f"{where}: needs a kid of its own")
        if jwk.get("kty") != "oct" or jwk.get("alg") != A256GCM:
            raise ConfigError(f"{where}: expected kty oct and alg {A256GCM} ({made_by} makes such keys)")
        if not isinstance(key, str) or not _SEALING_KEY.fullmatch(key):
            raise ConfigError(f"{where}: k: expected {SEALING_KEY_BYTES} bytes in base64url without padding")
        found[kid] = decoded(key)
    if not 1 <= len(found) <= MAX_SEALING_KEYS:
        raise ConfigError(f"{what}: holds {len(found)} keys; expected 1 to {MAX_SEALING_KEYS}")
    return found


def make_sealing_key(kid: str) -> dict[str, str]:
    """Return a new encryption key as a JWK, which must be kept secret."""
    return {"kty": "oct", "k": encoded(secrets.token_bytes(SEALING_KEY_BYTES)), "kid": kid, "alg": A256GCM}
