"""Signatures of reviewers: detached JWS with Ed25519, and many texts that only look like one."""

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

from geocast.approvals.signatures import MAX_PROTECTED, MAX_TIME_S, Header, header_of, sign, verifies
from geocast.auth.base64url import encoded
from geocast.model.alert import Signature
from geocast.model.errors import ConfigError

AT_S = 1_935_403_145
FORM = '{"v":1,"headline":"Räuber"}'
[SIGNED] = signed_by(FORM, "r-1", at_s=AT_S)
KID = PAIRS["r-1"][0]["kid"]
KEY = known("r-1")[KID].key
HEADER = {"alg": "Ed25519", "typ": "geocast-approval", "kid": KID, "iat": AT_S}


def test_signature_verifies_with_key_named_in_header():
    """The header names the key and the time (rule AP3)."""
    assert header_of(SIGNED.protected) == Header(KID, AT_S)
    assert verifies(SIGNED, FORM, KEY)


def test_header_has_at_most_1024_characters():
    """A longer one is not even decoded (rule AP3)."""
    least = len(json.dumps(HEADER | {"kid": ""}))
    longest, too_long = (encoded(json.dumps(HEADER | {"kid": "k" * (size - least)}).encode()) for size in (768, 769))
    assert (len(longest), len(too_long)) == (1024, 1026)
    assert header_of(longest).issued_at == AT_S
    with pytest.raises(ValueError, match="the header is too long"):
        header_of(too_long)


def test_signature_is_compatible_with_jws_library():
    """With its content put back it is a JWS, and a JWS of the library is an approval (RFC 7515, appendix F)."""
    whole = f"{SIGNED.protected}.{encoded(FORM.encode())}.{SIGNED.signature}"
    library = PyJWS()
    library.register_algorithm("Ed25519", OKPAlgorithm())
    public, private = (jwt.PyJWK(key | {"alg": "EdDSA"}).key for key in reversed(PAIRS["r-1"]))
    assert library.decode(whole, public, ["Ed25519"]) == FORM.encode()
    theirs = library.encode(FORM.encode(), private, "Ed25519", HEADER, sort_headers=False)
    protected, _, signature = theirs.split(".")
    assert header_of(protected) == Header(KID, AT_S)
    assert verifies(Signature(protected, signature), FORM, KEY)


def test_header_has_exactly_four_fields_in_documented_order():
    """The documented order is in docs/reference/approval-rules.md (AP, step 2)."""
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
def test_header_with_other_fields_is_refused(header):
    """There is one algorithm and one type, and no extension may change what is signed (rule AP3)."""
    if header == HEADER | {"kid": "none"}:
        return  # a valid key id
    if header == HEADER | {"iat": 1}:
        return  # a valid time, although long ago
    with pytest.raises(ValueError, match=r"header|time"):
        header_of(encoded(json.dumps(header).encode()))


def test_time_and_length_of_header_have_limits():
    """The last time is the last second of the year 9999; the longest header has 1,024 characters (rule AP1)."""
    for at_s, fits in ((0, True), (MAX_TIME_S, True), (-1, False), (MAX_TIME_S + 1, False)):
        protected = encoded(json.dumps(HEADER | {"iat": at_s}).encode())
        if fits:
            assert header_of(protected) == (KID, at_s)
        else:
            with pytest.raises(ValueError, match="not a time"):
                header_of(protected)
    room = 3 * MAX_PROTECTED // 4 - len(json.dumps(HEADER | {"kid": ""}))
    longest = encoded(json.dumps(HEADER | {"kid": "k" * room}).encode())
    assert (len(longest), header_of(longest).kid) == (MAX_PROTECTED, "k" * room)
    with pytest.raises(ValueError, match="too long"):
        header_of(encoded(json.dumps(HEADER | {"kid": "k" * (room + 1)}).encode()))


@pytest.mark.parametrize(
    "protected",
    [
        "", "x", "{}", SIGNED.protected + "=", SIGNED.protected + "A", SIGNED.protected[:-1], f" {SIGNED.protected}",
        SIGNED.protected.replace("e", "+", 1), SIGNED.protected + "\n", "é", "\ud800", "A" * 5000,
        encoded(b'{"alg":"Ed25519","typ":"geocast-approval","kid":"a","kid":"a","iat":1}'), encoded(b"\xff"),
    ],
    ids=count(),  # numbers, because the signed texts differ between runs
)  # fmt: skip
def test_malformed_header_raises_value_error(protected):
    """Base64url has no padding and one spelling, and the JSON is strict (rule AP1)."""
    with pytest.raises(ValueError, match=r"header"):
        header_of(protected)


@pytest.mark.parametrize(
    "signature",
    [
        "", "x", SIGNED.signature + "=", SIGNED.signature + "AAAA", SIGNED.signature[:-4], "A" * 86, "é", "\ud800",
        SIGNED.signature[:-1] + ("B" if SIGNED.signature[-1] == "A" else "A"),
    ],
    ids=count(),  # numbers, because the signed texts differ between runs
)  # fmt: skip
def test_malformed_signature_does_not_verify(signature):
    """No error is raised (rule AP3)."""
    assert not verifies(Signature(SIGNED.protected, signature), FORM, KEY)


def test_signature_does_not_verify_with_other_text_header_or_key():
    """A change of one letter is enough (rule AP3)."""
    assert not verifies(SIGNED, FORM + " ", KEY)
    assert not verifies(SIGNED, FORM.replace("ä", "a"), KEY)
    [later] = signed_by(FORM, "r-1", at_s=AT_S + 1)
    assert not verifies(Signature(later.protected, SIGNED.signature), FORM, KEY)
    assert not verifies(SIGNED, FORM, next(iter(known("r-2").values())).key)


@given(st.integers(0, 511))
def test_signature_with_flipped_bit_does_not_verify(bit):
    """The part S must be reduced, so a signature has no second spelling (rule AP3)."""
    data = bytearray(base64.urlsafe_b64decode(SIGNED.signature + "=="))
    data[bit // 8] ^= 1 << bit % 8
    assert not verifies(Signature(SIGNED.protected, encoded(bytes(data))), FORM, KEY)


@pytest.mark.parametrize(
    "change", [{"d": "x"}, {"d": ...}, {"x": PAIRS["r-2"][0]["x"]}, {"kid": ""}, {"crv": "X25519"}, {"kid": ...}]
)
def test_sign_with_invalid_key_raises_config_error(change):
    """`geocast approve` prints one line instead of a signature that a node would refuse later."""
    private = {name: value for name, value in (PAIRS["r-1"][0] | change).items() if value is not ...}
    with pytest.raises(ConfigError, match="private JWK"):
        sign(FORM, private, AT_S)
