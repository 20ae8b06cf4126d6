"""Sets of encryption keys. Calls and devices have the same rules for them (rules RZ5 and WPS1)."""

import json

import pytest

from geocast.auth.jwks import MAX_SEALING_KEYS, make_sealing_key, sealing_keys_of
from geocast.model.errors import ConfigError

ONE, TWO = make_sealing_key("one"), make_sealing_key("two")


def as_bytes(data):
    """Return the content of a file."""
    return data if isinstance(data, bytes) else json.dumps(data).encode()


def test_encryption_keys_are_read_in_order():
    """The first key encrypts. Unknown members are ignored (rules RZ5 and WPS1)."""
    found = sealing_keys_of(as_bytes({"keys": [TWO | {"use": "enc"}, ONE]}), "a-keys FILE", "geocast keygen --a")
    assert list(found) == ["two", "one"]
    assert {len(key) for key in found.values()} == {32}
    assert found["one"] != found["two"]


def test_key_set_may_have_maximum_number_of_keys():
    """The maximum is the same for calls and for devices (rules RZ5 and WPS1)."""
    made = [make_sealing_key(str(number)) for number in range(MAX_SEALING_KEYS)]
    found = sealing_keys_of(as_bytes({"keys": made}), "a-keys FILE", "geocast keygen --a")
    assert len(set(found.values())) == MAX_SEALING_KEYS


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a JWK set"),
        (b"\xff", "not a JWK set"),
        (b"[" * 100_000, "not a JWK set"),
        ([], "not a JWK set"),
        ({"keys": {}}, "not a JWK set"),
        ({"keys": ["k"]}, "not a JWK set"),
        ({"keys": []}, "holds 0 keys; expected 1 to 16"),
        ({"keys": [make_sealing_key(str(n)) for n in range(17)]}, "holds 17 keys; expected 1 to 16"),
        ({"keys": [ONE, ONE]}, "key 2: needs a kid of its own"),
        ({"keys": [ONE | {"kid": ""}]}, "key 1: needs a kid of its own"),
        ({"keys": [ONE | {"kid": 5}]}, "key 1: needs a kid of its own"),
        ({"keys": [ONE | {"alg": "HS256"}]}, "key 1: expected kty oct and alg A256GCM"),
        ({"keys": [ONE | {"kty": "OKP"}]}, "key 1: expected kty oct and alg A256GCM"),
        ({"keys": [ONE | {"k": ONE["k"][:-1]}]}, "key 1: k: expected 32 bytes in base64url"),
        ({"keys": [ONE | {"k": ONE["k"] + "="}]}, "key 1: k: expected 32 bytes in base64url"),
        ({"keys": [ONE | {"k": "+" * 43}]}, "key 1: k: expected 32 bytes in base64url"),
        ({"keys": [ONE | {"k": None}]}, "key 1: k: expected 32 bytes in base64url"),
    ],
    ids=range(17),
)
def test_unusable_key_set_is_refused_with_one_line(data, said):
    """The error contains no key (rules RZ5, WPS1 and K1)."""
    with pytest.raises(ConfigError) as caught:
        sealing_keys_of(as_bytes(data), "a-keys c.jwks", "geocast keygen --a")
    assert str(caught.value).startswith(f"a-keys c.jwks: {said}")
    assert ONE["k"][:8] not in str(caught.value)
