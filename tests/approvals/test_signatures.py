"""Signatures of reviewers: detached JWS, Ed25519, and nothing that only looks like one."""

import base64
import json
from itertools import count

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import OKPAlgorithm
from jwt.api_jws import PyJWS
from support.reviewers import PAIRS, known, signed_by

from geocast.approvals.signatures import Header, header_of, sign, verifies
from geocast.auth.base64url import encoded
from geocast.errors import ConfigError
from geocast.model.alert import Signature

AT_S = 1_935_403_145
FORM = '{"v":1,"headline":"Räuber"}'
[SIGNED] = signed_by(FORM, "r-1", at_s=AT_S)
KID = PAIRS["r-1"][0]["kid"]
KEY = known("r-1")[KID].key
HEADER = {"alg": "Ed25519", "typ": "geocast-approval", "kid": KID, "iat": AT_S}


def test_what_was_signed_verifies():
    """AP3: by the key that the header names."""
    assert header_of(SIGNED.protected) == Header(KID, AT_S)
    assert verifies(SIGNED, FORM, KEY)


def test_a_library_that_knows_nothing_of_geocast_agrees():
    """RFC 7515, appendix F: with its content put back it is a JWS; and what the library signs is an approval."""
    whole = f"{SIGNED.protected}.{encoded(FORM.encode())}.{SIGNED.signature}"
    library = PyJWS()
    library.register_algorithm("Ed25519", OKPAlgorithm())
    public, private = (jwt.PyJWK(key | {"alg": "EdDSA"}).key for key in reversed(PAIRS["r-1"]))
    assert library.decode(whole, public, ["Ed25519"]) == FORM.encode()
    theirs = library.encode(FORM.encode(), private, "Ed25519", HEADER, sort_headers=False)
    protected, _, signature = theirs.split(".")
    assert header_of(protected) == Header(KID, AT_S)
    assert verifies(Signature(protected, signature), FORM, KEY)


def test_the_header_has_exactly_these_four_members():
    """AP, step 2: in this order, as the page shows it."""
    padded = SIGNED.protected + "=" * (-len(SIGNED.protected) % 4)
    assert json.loads(base64.urlsafe_b64decode(padded)) == HEADER
    assert list(json.loads(base64.urlsafe_b64decode(padded))) == list(HEADER)


@pytest.mark.parametrize(
    "header",
    [
        *({**HEADER, name: value} for name in HEADER for value in (None, "", "none", 1, True, 1.5, -1, [], {}, 10**15)),
        *({key: HEADER[key] for key in HEADER if key != name} for name in HEADER),
        HEADER | {"alg": "EdDSA"},
        HEADER | {"alg": "ed25519"},
        HEADER | {"alg": "HS256"},
        HEADER | {"typ": "JWT"},
        HEADER | {"crit": ["exp"]},
        HEADER | {"b64": False},
        HEADER | {"jwk": PAIRS["r-1"][1]},
        HEADER | {"x": 1},
        [HEADER],
        None,
    ],
)
def test_another_header_is_none(header):
    """AP3: one algorithm, one type, and no extension that changes what is signed."""
    if header == HEADER | {"kid": "none"}:
        return  # a name like any other
    if header == HEADER | {"iat": 1}:
        return  # long ago, and a time all the same
    with pytest.raises(ValueError, match=r"header|time"):
        header_of(encoded(json.dumps(header).encode()))


@pytest.mark.parametrize(
    "protected",
    [
        "", "x", "{}", SIGNED.protected + "=", SIGNED.protected + "A", SIGNED.protected[:-1], f" {SIGNED.protected}",
        SIGNED.protected.replace("e", "+", 1), SIGNED.protected + "\n", "é", "\ud800", "A" * 5000,
        encoded(b'{"alg":"Ed25519","typ":"geocast-approval","kid":"a","kid":"a","iat":1}'), encoded(b"\xff"),
    ],
    ids=count(),  # what is signed is another each time
)  # fmt: skip
def test_what_is_no_header_is_a_value_error(protected):
    """AP1: base64url without padding, strict JSON; each spelled in one way."""
    with pytest.raises(ValueError, match=r"header"):
        header_of(protected)


@pytest.mark.parametrize(
    "signature",
    [
        "", "x", SIGNED.signature + "=", SIGNED.signature + "AAAA", SIGNED.signature[:-4], "A" * 86, "é", "\ud800",
        SIGNED.signature[:-1] + ("B" if SIGNED.signature[-1] == "A" else "A"),
    ],
    ids=count(),  # what is signed is another each time
)  # fmt: skip
def test_what_is_no_signature_verifies_nothing(signature):
    """AP3: and raises nothing."""
    assert not verifies(Signature(SIGNED.protected, signature), FORM, KEY)


def test_a_signature_is_of_one_text_one_header_and_one_key():
    """AP3: change any of them by a letter, and it is none."""
    assert not verifies(SIGNED, FORM + " ", KEY)
    assert not verifies(SIGNED, FORM.replace("ä", "a"), KEY)
    [later] = signed_by(FORM, "r-1", at_s=AT_S + 1)
    assert not verifies(Signature(later.protected, SIGNED.signature), FORM, KEY)
    assert not verifies(SIGNED, FORM, next(iter(known("r-2").values())).key)


@given(st.integers(0, 511))
def test_one_bit_makes_another_signature(bit):
    """AP3: S is checked to be reduced, so there is no second spelling of the same."""
    data = bytearray(base64.urlsafe_b64decode(SIGNED.signature + "=="))
    data[bit // 8] ^= 1 << bit % 8
    assert not verifies(Signature(SIGNED.protected, encoded(bytes(data))), FORM, KEY)


@pytest.mark.parametrize(
    "change", [{"d": "x"}, {"d": ...}, {"x": PAIRS["r-2"][0]["x"]}, {"kid": ""}, {"crv": "X25519"}, {"kid": ...}]
)
def test_a_key_that_is_none_does_not_sign(change):
    """`geocast approve`: one line, and no signature that would be refused later."""
    private = {name: value for name, value in (PAIRS["r-1"][0] | change).items() if value is not ...}
    with pytest.raises(ConfigError, match="private JWK"):
        sign(FORM, private, AT_S)
