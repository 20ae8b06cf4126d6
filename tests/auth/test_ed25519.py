"""The verification of Ed25519 signatures: libsodium and OpenSSL agree, also on signatures that were made to be odd."""

import hashlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from geocast.auth.ed25519 import Ed25519Verifier

MESSAGE = b"header.payload"

# The curve of RFC 8032, 5.1: points are pairs (x, y) of integers modulo P, and B generates the main subgroup.
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
NEUTRAL = (0, 1)


def added(one, other):
    """Return the sum of two points."""
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, P)
    return x % P, (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P


def times(number, point):
    """Return a point added to itself `number` times."""
    result = NEUTRAL
    while number:
        if number & 1:
            result = added(result, point)
        point, number = added(point, point), number >> 1
    return result


def with_y(y):
    """Return the point with this y and an even x; None if there is no such point."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    if (root * root - square) % P:
        root = root * pow(2, (P - 1) // 4, P) % P
    if (root * root - square) % P:
        return None
    return (root if root % 2 == 0 else P - root), y


B = with_y(4 * pow(5, -1, P) % P)
# The eight points of small order are the multiples of the first one here that has the order 8.
SMALL = next(
    small
    for point in map(with_y, range(2, 100))
    if point is not None and len(set(small := [times(number * ORDER, point) for number in range(8)])) == 8
)


def number_bytes(number):
    """Return a number as 32 bytes, as a signature has it."""
    return number.to_bytes(32, "little")


def encoded(point, *, extra=0):
    """Return the encoding of a point. `extra` is added to y; with P the encoding is not canonical."""
    return number_bytes((point[1] + extra) | (point[0] & 1) << 255)


def signed(secret, nonce, *, key_part=NEUTRAL, nonce_part=NEUTRAL, more=0):
    """Return a key and a signature of MESSAGE, as only the owner of the key can make them.

    `key_part` and `nonce_part` are added to the points of the key and of the signature, and `more` to its number.
    """
    key, point = added(times(secret, B), key_part), added(times(nonce, B), nonce_part)
    return encoded(key), sealed(encoded(key), encoded(point), secret, nonce, more)


def sealed(key, point, secret, nonce, more=0):
    """Return the signature with these encodings of the key and of the signature's point."""
    digest = int.from_bytes(hashlib.sha512(point + key + MESSAGE).digest(), "little")
    return point + number_bytes((nonce + digest * secret) % ORDER + more)


def openssl_accepts(key, signature, message=MESSAGE):
    """Return what OpenSSL says about a signature."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def accepts(key, signature, message=MESSAGE):
    """Return what the server says about a signature, and check that OpenSSL says the same."""
    result = Ed25519Verifier(Ed25519PublicKey.from_public_bytes(key)).verify(message, signature)
    assert result is openssl_accepts(key, signature, message)
    return result


@given(st.binary(max_size=300), st.integers(0, 511), st.binary(max_size=80))
def test_only_the_signature_of_the_message_is_valid(message, bit, other):
    private = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    key, signature = private.public_key().public_bytes_raw(), private.sign(message)
    assert accepts(key, signature, message)
    assert not accepts(key, (int.from_bytes(signature) ^ 1 << bit).to_bytes(64), message)
    assert not accepts(key, signature, message + b".")
    assert not accepts(key, other, message)


@pytest.mark.parametrize("length", [0, 32, 63, 65, 128])
def test_signature_of_another_length_is_invalid(length):
    """Otherwise a part of the message could be taken for a part of the signature."""
    key, signature = signed(5, 7)
    joined = signature + MESSAGE
    assert not accepts(key, joined[:length], joined[length:])


def test_number_that_is_not_below_the_order_is_invalid():
    key, signature = signed(5, 7)
    assert accepts(key, signature)
    assert not any(accepts(key, signed(5, 7, more=times_order * ORDER)[1]) for times_order in (1, 2, 15))


@pytest.mark.parametrize("small", SMALL[1:])
def test_signature_with_a_part_of_small_order_is_invalid(small):
    """A library that multiplies by the cofactor would accept it."""
    assert not accepts(*signed(5, 7, nonce_part=small))


@pytest.mark.parametrize("small", SMALL)
def test_both_libraries_agree_if_the_point_of_the_signature_has_a_small_order(small):
    """Only the owner of the key can make the one that is valid, with the neutral point."""
    assert accepts(*signed(5, 0, nonce_part=small)) == (small == NEUTRAL)


@pytest.mark.parametrize("small", SMALL)
@pytest.mark.parametrize("nonce", range(16))
def test_both_libraries_agree_if_the_key_has_a_part_of_small_order(small, nonce):
    """Whether it is valid depends on the digest, so several signatures are tried."""
    accepts(*signed(5, nonce, key_part=small))
    accepts(*signed(0, nonce, key_part=small))
    accepts(*signed(5, nonce, key_part=small, nonce_part=SMALL[nonce % 8]))


@pytest.mark.parametrize("point", [each for each in SMALL if each[1] + P < 2**255])
def test_both_libraries_agree_on_encodings_that_are_not_canonical(point):
    plain, long = encoded(point), encoded(point, extra=P)
    for key in (plain, long):
        for begin in (plain, long):
            for nonce in range(8):
                accepts(key, sealed(key, begin, 0, nonce))
    key, _ = signed(5, 0)
    accepts(key, sealed(key, long, 5, 0))
