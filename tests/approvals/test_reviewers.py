"""The file of reviewers: whose signatures count."""

import json

import jwt
import pytest
from support.reviewers import PAIRS, jwks, known

from geocast import policy
from geocast.approvals.reviewers import load_reviewers, parse_reviewers, refuse_misfits
from geocast.errors import ConfigError

PUBLIC = PAIRS["r-1"][1]


def test_each_key_has_a_person():
    """AP5: two keys may be one person's; break glass is said of a key."""
    found = known()
    assert [found[public["kid"]].sub for _, public in PAIRS.values()] == ["r-1", "r-2", "r-2", "r-3", "desk", "night"]
    assert [each.sub for each in found.values() if each.break_glass] == ["night"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"d": "x"}, "private"),
        ({"kid": ...}, "kid"),
        ({"kid": ""}, "kid"),
        ({"kid": "x" * 129}, "kid"),
        ({"kid": "Ana Lopez"}, "kid"),
        ({"kid": "caf\u00e9"}, "kid"),
        ({"kid": 7}, "kid"),
        ({"sub": ...}, "sub"),
        ({"sub": "Ana Lopez"}, "sub"),
        ({"sub": 7}, "sub"),
        ({"alg": "EdDSA"}, "alg"),
        ({"alg": ...}, "alg"),
        ({"kty": "EC"}, "kty"),
        ({"crv": "X25519"}, "crv"),
        ({"x": "AAAA"}, "usable"),
        ({"x": PUBLIC["x"] + "="}, "usable"),
        ({"x": ...}, "usable"),
        ({"break_glass": "yes"}, "break_glass"),
    ],
)
def test_a_key_that_is_none_is_refused(change, told):
    """K1: the file, which key, and what is wrong with it."""
    jwk = {name: value for name, value in (PUBLIC | change).items() if value is not ...}
    with pytest.raises(ConfigError, match=rf"reviewers r\.jwks: key 2: .*{told}"):
        parse_reviewers(json.dumps({"keys": [PAIRS["r-2"][1], jwk]}).encode(), "r.jwks")


@pytest.mark.parametrize(
    "data", [b"", b"x", b"[]", b'{"keys": {}}', b'{"keys": [1]}', b'{"keys": []}', b"\xff", b"[" * 9999]
)
def test_what_is_no_set_of_keys_is_refused(data):
    """NC5: in one line."""
    with pytest.raises(ConfigError, match=r"^reviewers r\.jwks: "):
        parse_reviewers(data, "r.jwks")


def test_a_key_is_there_once():
    """AP5: one key under two names would be two people."""
    for twin in ({"kid": "other"}, {"x": PAIRS["r-2"][1]["x"]}, {"kid": "other", "sub": "r-9"}):
        with pytest.raises(ConfigError, match="twice"):
            parse_reviewers(json.dumps({"keys": [PUBLIC, PUBLIC | twin]}).encode(), "r.jwks")


def test_a_key_signs_tokens_or_approves():
    """K1: who can sign tokens must not be able to approve."""
    others = {name: value for name, value in PAIRS["r-2"][1].items() if name not in ("sub", "alg")}
    refuse_misfits(known("r-1"), policy.load(None), [jwt.PyJWK(others).key])
    with pytest.raises(ConfigError, match="both"):
        refuse_misfits(known("r-1", "r-2"), policy.load(None), [jwt.PyJWK(others).key])


def test_a_file_that_is_not_there_is_named(tmp_path):
    """K1."""
    with pytest.raises(ConfigError, match=r"reviewers .*r\.jwks: No such file"):
        load_reviewers(tmp_path / "r.jwks")
    (tmp_path / "r.jwks").write_bytes(jwks())
    assert load_reviewers(tmp_path / "r.jwks") == known()
