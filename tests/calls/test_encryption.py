"""Encryption of calls: without a key nobody can read the secret, or change or move the entry (RZ3, RZ5)."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.flipping import flipped

from geocast.auth.jwks import MAX_SEALING_KEYS
from geocast.calls.encryption import NO_CALL_KEYS, CallKeys, CantOpen, make_call_key, parse_call_keys
from geocast.model.call import KINDS, MOVED, CallEntry
from geocast.model.errors import ConfigError

ONE, TWO = make_call_key("one"), make_call_key("two")
SECRET = b"Dorfstrasse 4, door code 4711"


def keys_of(*jwks):
    """Return these keys, in this order."""
    return parse_call_keys(json.dumps({"keys": jwks}).encode(), "file")


KEYS = keys_of(ONE)


def sealed(keys=KEYS, secret=SECRET, kind="call", number=3, plain=b"body"):
    """Return an entry that was encrypted with these keys."""
    return CallEntry("cad-3.1", number, 1000, kind, plain, keys.seal("cad-3.1", number, kind, plain, secret))


@given(st.binary(max_size=2000), st.binary(max_size=200), st.sampled_from(KINDS), st.integers(1, 2**40))
def test_encrypted_secret_decrypts(secret, plain, kind, number):
    """Entries without any secret are encrypted as well (RZ3)."""
    entry = sealed(KEYS, secret, kind, number, plain)
    assert KEYS.open(entry) == secret
    assert len(entry.sealed) == 12 + len(secret) + 16


def test_ciphertext_hides_the_secret_and_nonces_differ():
    """Each entry has a random nonce of 96 bits (RZ3)."""
    entries = [sealed().sealed for _ in range(1000)]
    assert len({each[:12] for each in entries}) == len({each[12:] for each in entries}) == 1000
    assert not any(word in each for each in entries for word in (b"Dorf", b"4711"))


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "cad-3.2"},
        {"revision": 4},
        {"revision": 2},
        {"kind": "end"},
        {"plain": b"bodY"},
        {"plain": b""},
        {"sealed": b""},
        {"sealed": sealed().sealed[:27]},
        {"sealed": sealed(number=4).sealed},
        {"sealed_as": 4},
        {"sealed_as": -3},
        {"revision": 4, "sealed_as": 3},
    ],
)
def test_changed_or_renumbered_entry_does_not_decrypt(changes):
    """Id, number, kind and body are authenticated, so none of them can be forged (RZ3)."""
    with pytest.raises(CantOpen):
        KEYS.open(dataclasses.replace(sealed(), **changes))


@pytest.mark.parametrize("at", range(0, 12 + len(SECRET) + 16, 3))
def test_entry_with_a_flipped_bit_does_not_decrypt(at):
    """The bit may be in the nonce, the ciphertext or the tag (RZ3)."""
    entry = sealed()
    with pytest.raises(CantOpen):
        KEYS.open(dataclasses.replace(entry, sealed=flipped(entry.sealed, at)))


@pytest.mark.parametrize("kind", KINDS)
def test_only_seat_and_end_entries_decrypt_under_a_higher_number(kind):
    """No entry decrypts under a lower number than its own (RZ3, RV7)."""
    entry = sealed(kind=kind)
    higher = dataclasses.replace(entry, revision=7, sealed_as=3)
    if kind in MOVED:
        assert KEYS.open(higher) == SECRET
    else:
        with pytest.raises(CantOpen):
            KEYS.open(higher)
    for changes in ({"revision": 7}, {"revision": 7, "sealed_as": 4}, {"revision": 2, "sealed_as": 3}):
        with pytest.raises(CantOpen):
            KEYS.open(dataclasses.replace(entry, **changes))


def test_first_key_encrypts_and_all_keys_decrypt():
    """A new key is appended to the files of all nodes before it becomes the first one anywhere (RZ5)."""
    both, turned = keys_of(ONE, TWO), keys_of(TWO, ONE)
    assert (both.kids, turned.kids) == (("one", "two"), ("two", "one"))
    for entry in (sealed(keys_of(ONE)), sealed(both)):
        assert both.open(entry) == turned.open(entry) == keys_of(ONE).open(entry) == SECRET
    with pytest.raises(CantOpen):
        keys_of(ONE).open(sealed(turned))
    assert both.open(sealed(turned)) == SECRET


def test_without_keys_nothing_is_encrypted_or_decrypted():
    """Encryption and decryption raise errors instead (RZ5)."""
    assert not NO_CALL_KEYS
    assert KEYS
    with pytest.raises(ValueError, match="no key to encrypt with"):
        sealed(NO_CALL_KEYS)
    with pytest.raises(CantOpen):
        NO_CALL_KEYS.open(sealed())


def test_each_new_call_key_is_different():
    """A key has 256 random bits and a `kid` (RZ3)."""
    made = [make_call_key() for _ in range(100)]
    assert len({each["k"] for each in made}) == len({each["kid"] for each in made}) == 100
    assert keys_of(*made[:MAX_SEALING_KEYS]).kids == tuple(each["kid"] for each in made[:MAX_SEALING_KEYS])


def test_unusable_keys_are_reported_with_their_file():
    """tests/auth/test_jwks.py tests the form of each key (RZ5, K1)."""
    said = r"^call-keys c\.jwks: key 1: expected kty oct and alg A256GCM \(geocast keygen --call makes such keys\)$"
    with pytest.raises(ConfigError, match=said):
        parse_call_keys(json.dumps({"keys": [ONE | {"alg": "HS256"}]}).encode(), "c.jwks")


def test_repr_of_call_keys_contains_no_key():
    """A `repr` may appear in an error that anybody can see (RZ3)."""
    assert b"secret" * 5 not in repr(CallKeys({"a": b"secret" * 5 + b"ab"})).encode()
