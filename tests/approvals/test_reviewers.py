"""The file of reviewers: the persons whose signatures count, and their keys."""

import json

import jwt
import pytest
from support.reviewers import PAIRS, jwks, known

from geocast import policy
from geocast.approvals.reviewers import load_reviewers, parse_reviewers, refuse_misfits
from geocast.model.errors import ConfigError

PUBLIC = PAIRS["r-1"][1]


def test_keys_with_same_sub_belong_to_one_person():
    """Break glass is a property of a key, not of a person (rule AP5)."""
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
        ({"x": "AAAA"}, "valid Ed25519"),
        ({"x": PUBLIC["x"] + "="}, "valid Ed25519"),
        ({"x": ...}, "valid Ed25519"),
        ({"break_glass": "yes"}, "break_glass"),
    ],
)
def test_error_for_invalid_key_names_file_key_number_and_reason(change, told):
    """The error names the file, the key's number and the wrong member (rule K1)."""
    jwk = {name: value for name, value in (PUBLIC | change).items() if value is not ...}
    with pytest.raises(ConfigError, match=rf"reviewers r\.jwks: key 2: .*{told}"):
        parse_reviewers(json.dumps({"keys": [PAIRS["r-2"][1], jwk]}).encode(), "r.jwks")


@pytest.mark.parametrize(
    "data", [b"", b"x", b"[]", b'{"keys": {}}', b'{"keys": [1]}', b'{"keys": []}', b"\xff", b"[" * 9999]
)
def test_malformed_key_set_is_refused_in_one_line(data):
    """The error names the file (rule NC5)."""
    with pytest.raises(ConfigError, match=r"^reviewers r\.jwks: "):
        parse_reviewers(data, "r.jwks")


def test_duplicate_kid_or_key_is_refused():
    """The same key under two names would count as two persons (rule AP5)."""
    for twin in ({"kid": "other"}, {"x": PAIRS["r-2"][1]["x"]}, {"kid": "other", "sub": "r-9"}):
        with pytest.raises(ConfigError, match="duplicate"):
            parse_reviewers(json.dumps({"keys": [PUBLIC, PUBLIC | twin]}).encode(), "r.jwks")


def test_key_that_signs_tokens_is_refused_as_reviewer():
    """An issuer of tokens must not be able to approve (rule K1)."""
    others = {name: value for name, value in PAIRS["r-2"][1].items() if name not in ("sub", "alg")}
    refuse_misfits(known("r-1"), policy.load(None), [jwt.PyJWK(others).key])
    with pytest.raises(ConfigError, match="both"):
        refuse_misfits(known("r-1", "r-2"), policy.load(None), [jwt.PyJWK(others).key])


def test_missing_reviewers_file_is_named_in_error(tmp_path):
    """The error has the path and the reason (rule K1)."""
    with pytest.raises(ConfigError, match=r"reviewers .*r\.jwks: No such file"):
        load_reviewers(tmp_path / "r.jwks")
    (tmp_path / "r.jwks").write_bytes(jwks())
    assert load_reviewers(tmp_path / "r.jwks") == known()
