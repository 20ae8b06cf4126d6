"""Tokens and keys: section 6. Whatever is wrong with a token, the answer is the same."""

import base64
import json

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from fakes import NOON_MS
from jwt import PyJWK
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from geocast.clock import Now
from geocast.errors import ConfigError
from geocast.explained import explain
from geocast.scopes import SCOPES
from geocast.tokens import AUDIENCE, MAX_TOKEN_BYTES, Grant, Tokens, load_keys, make_key, sign

NOON = Now(NOON_MS, 1000.0)
NOON_S = NOON_MS // 1000
PRIVATE, PUBLIC = make_key("k1")
OTHER_PRIVATE, OTHER_PUBLIC = make_key("k2")
SHARED = {"kty": "oct", "k": base64.urlsafe_b64encode(b"s" * 32).decode().rstrip("="), "kid": "dev", "alg": "HS256"}
KEYS = {key["kid"]: PyJWK(key, key["alg"]) for key in (PUBLIC, OTHER_PUBLIC, SHARED)}
TOKENS = Tokens(KEYS)
CLAIMS = {"aud": AUDIENCE, "sub": "desk-7", "exp": NOON_S + 60, "scope": "alerts:publish alerts:receive"}


def encoded(key=PRIVATE, header=None, **changes):
    """A token with these claims changed (`...` leaves one out), signed with a private JWK."""
    claims = {name: value for name, value in (CLAIMS | changes).items() if value is not ...}
    return jwt.encode(claims, PyJWK(key, key["alg"]), key["alg"], header or {"kid": key["kid"]})


def segment(value):
    """A part of a token."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def check(token, now=NOON):
    """What the token grants. If that is nothing, there is a reason that can be told, and only then (`explained`)."""
    grant = TOKENS.check(token, now)
    assert bool(explain(token, KEYS, {}, now).refusals) == (grant is None)
    return grant


# ---- good tokens ---------------------------------------------------------------------------------------------


def test_a_good_token_grants_what_it_says():
    """T3: `sub`, the scopes, and until when."""
    scopes = frozenset({"alerts:publish", "alerts:receive"})
    assert check(encoded()) == Grant("desk-7", scopes, (NOON_S + 60) * 1000)


def test_an_audience_may_be_a_list():
    """T3: `aud` = `geocast`, or a list with it."""
    assert check(encoded(aud=["other", "geocast"]))


def test_an_expiry_may_have_a_fraction():
    """RFC 7519, section 2, NumericDate."""
    assert check(encoded(exp=NOON_S + 0.5)).expires_at == NOON_MS + 500


@pytest.mark.parametrize("scope", [..., "", "other"])
def test_a_token_without_a_scope_of_ours_grants_nothing_else(scope):
    """T3: it is good, and lacks the scopes: 403 or 4403, not 401 or 4401."""
    assert not check(encoded(scope=scope)).scopes & set(SCOPES)


def test_any_of_the_keys_will_do():
    """T2: the key is chosen by `kid`; `oct` keys with HS256 for development."""
    assert check(encoded(OTHER_PRIVATE)).sub == "desk-7"
    assert check(encoded(SHARED)).sub == "desk-7"


def test_what_sign_makes_check_takes():
    """K2: `geocast token` signs a token with a key of `geocast keygen`."""
    grant = check(sign(PRIVATE, "desk-7", SCOPES, NOON_S, 3600))
    assert grant == Grant("desk-7", frozenset(SCOPES), (NOON_S + 3600) * 1000)


# ---- time ----------------------------------------------------------------------------------------------------


def test_a_token_ends_when_it_says():
    """T3: no leeway."""
    token = encoded(exp=NOON_S)
    assert check(token, Now(NOON_MS - 1, 0.0))
    assert check(token, NOON) is None


def test_a_token_does_not_begin_before_it_says():
    """T3: `nbf` honoured."""
    token = encoded(nbf=NOON_S)
    assert check(token, Now(NOON_MS - 1, 0.0)) is None
    assert check(token, NOON)


# ---- bad tokens ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ...},
        {"aud": "other"},
        {"aud": ["other"]},
        {"aud": []},
        {"aud": "Geocast"},
        {"sub": ...},
        {"sub": ""},
        {"exp": ...},
        {"exp": NOON_S - 1},
        {"exp": 0},
        {"exp": -1},
        {"exp": 1e18},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"exp": "soon"},
        {"exp": str(NOON_S + 60)},
        {"exp": True},
        {"exp": None},
        {"exp": [NOON_S + 60]},
        {"nbf": NOON_S + 1},
        {"nbf": "now"},
        {"nbf": None},
        {"nbf": float("nan")},
        {"scope": ["alerts:publish"]},
        {"scope": None},
        {"scope": 5},
    ],
    ids=str,
)
def test_bad_claims_grant_nothing(changes):
    """T3, T4: `aud`, `sub`, `exp` all required, `nbf` honoured; anything wrong gets one and the same answer."""
    assert check(encoded(**changes)) is None


@pytest.mark.parametrize("sub", [5, None, ["desk-7"]])
def test_a_sub_that_is_no_text_grants_nothing(sub):
    """RFC 7519, section 4.1.2: a string. (PyJWT does not write such a token, so it is put together by hand.)"""
    signed = f"{segment({'alg': 'HS256', 'kid': 'dev'})}.{segment(CLAIMS | {'sub': sub})}"
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signed.encode(), b"s" * 32)
    assert check(f"{signed}.{segment(signature)}") is None


@pytest.mark.parametrize("kid", ["k3", "", "K1", "k1 "])
def test_an_unknown_kid_grants_nothing(kid):
    """T2: the key is chosen by `kid` alone."""
    assert check(encoded(header={"kid": kid})) is None


def test_a_kid_is_required():
    """T2: `kid` (required); no key is tried out."""
    assert check(jwt.encode(CLAIMS, PyJWK(PRIVATE, "EdDSA"), "EdDSA")) is None


def test_another_keys_signature_grants_nothing():
    """T2: the key is chosen by `kid`, so a signature by another known key is a bad one."""
    assert check(encoded(OTHER_PRIVATE, {"kid": "k1"})) is None


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "HS256", "RS256"])
def test_the_token_does_not_choose_the_algorithm(algorithm):
    """T2: a key's algorithm is the one the key states, so a public key is never taken for a shared one."""
    raw = PyJWK(PUBLIC, "EdDSA").key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    pem = PyJWK(PUBLIC, "EdDSA").key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signed = f"{segment({'alg': algorithm, 'kid': 'k1', 'typ': 'JWT'})}.{segment(CLAIMS)}"
    hmac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    for signature in (b"", hmac.sign(signed.encode(), raw), hmac.sign(signed.encode(), pem)):
        assert check(f"{signed}.{segment(signature)}") is None


def test_a_changed_token_grants_nothing():
    """T4: claims are what was signed."""
    header, _, signature = encoded().split(".")
    assert check(f"{header}.{segment(CLAIMS | {'scope': 'alerts:manage'})}.{signature}") is None
    assert check(f"{header}.{segment(CLAIMS)}.{segment(b'x' * 64)}") is None
    assert check(f"{header}.{segment(CLAIMS)}.") is None


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "é",
        "\ud800",
        "\x00",
        "Bearer x",
        f"{segment([])}.{segment({})}.",
        f"{segment({'alg': 'EdDSA', 'kid': ['k1']})}.{segment({})}.",
        f"{segment({'alg': 'EdDSA', 'kid': None})}.{segment({})}.",
        f"{segment({'alg': 'EdDSA', 'kid': {}})}.{segment({})}.",
        f"{segment({'alg': ['EdDSA'], 'kid': 'k1'})}.{segment({})}.",
        f"{segment({'kid': 'k1'})}.{segment(CLAIMS)}.",
        f"{segment({'alg': 'EdDSA', 'kid': 'k1', 'crit': ['x']})}.{segment(CLAIMS)}.",
        f"{segment({'alg': 'EdDSA', 'kid': 'k1', 'b64': False})}.{segment(CLAIMS)}.",
        f"{segment(b'[' * 2500)}.{segment({})}.",
        f"{segment({'alg': 'EdDSA', 'kid': 'k1'})}.{segment(b'[' * 2500)}.",
        f"{segment(b'{' + b'9' * 2000)}.x.x",
    ],
    ids=range(20),
)
def test_hostile_bytes_grant_nothing(token):
    """T4: anything wrong with a token gets one and the same answer, and no error gets out."""
    assert check(token) is None


@pytest.mark.parametrize("claims", [[], "x", 5, None, b"\xff", b"[" * 2000])
def test_signed_nonsense_grants_nothing(claims):
    """T4: a good signature does not make claims of it."""
    signed = f"{segment({'alg': 'HS256', 'kid': 'dev'})}.{segment(claims)}"
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signed.encode(), b"s" * 32)
    assert check(f"{signed}.{segment(signature)}") is None


def test_a_token_has_4_kib_at_most():
    """T1: at most 4 KiB."""
    length = len(encoded(note=""))
    fits = encoded(note="x" * ((MAX_TOKEN_BYTES - length) * 3 // 4 - 2))
    too_long = encoded(note="x" * ((MAX_TOKEN_BYTES - length) * 3 // 4 + 4))
    assert MAX_TOKEN_BYTES - 8 < len(fits) <= MAX_TOKEN_BYTES < len(too_long)
    assert check(fits)
    assert check(too_long) is None


# ---- keys ----------------------------------------------------------------------------------------------------


SHORT_RSA = RSAAlgorithm.to_jwk(generate_rsa_key(65537, 1024).public_key(), as_dict=True) | {"kid": "r", "alg": "RS256"}
OTHER_CURVE = ECAlgorithm.to_jwk(generate_ec_key(SECP384R1()).public_key(), as_dict=True) | {"kid": "e", "alg": "ES256"}


def jwks(tmp_path, value):
    """A file of keys."""
    path = tmp_path / "keys.jwks"
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return path


def test_a_jwks_file_holds_public_keys_by_kid(tmp_path):
    """T1: a JWKS file of public keys."""
    keys = load_keys(jwks(tmp_path, {"keys": [PUBLIC, OTHER_PUBLIC, SHARED]}))
    assert set(keys) == {"k1", "k2", "dev"}
    assert Tokens(keys).check(encoded(), NOON)
    assert Tokens(keys).check(encoded(SHARED), NOON)


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "PS256"])
def test_keys_of_other_algorithms_are_taken(tmp_path, algorithm):
    """T2: the algorithm is the one the key states."""
    if algorithm == "ES256":
        private, to_jwk = generate_ec_key(SECP256R1()), ECAlgorithm.to_jwk
    else:
        private, to_jwk = generate_rsa_key(65537, 2048), RSAAlgorithm.to_jwk
    public = to_jwk(private.public_key(), as_dict=True) | {"kid": "k", "alg": algorithm}
    tokens = Tokens(load_keys(jwks(tmp_path, {"keys": [public]})))
    assert tokens.check(jwt.encode(CLAIMS, private, algorithm, {"kid": "k"}), NOON)
    other = {"ES256": "HS256", "RS256": "PS256", "PS256": "RS256"}[algorithm]
    signing = b"s" * 32 if other == "HS256" else private
    assert tokens.check(jwt.encode(CLAIMS, signing, other, {"kid": "k"}), NOON) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", "not a JWK set"),
        (b"\xff", "not a JWK set"),
        (b"{", "not a JWK set"),
        ([], "not a JWK set"),
        ("keys", "not a JWK set"),
        ({}, "not a JWK set"),
        (PUBLIC, "not a JWK set"),
        ({"keys": 5}, "not a JWK set"),
        ({"keys": "abc"}, "not a JWK set"),
        ({"keys": {"k1": PUBLIC}}, "not a JWK set"),
        ({"keys": [5]}, "not a JWK set"),
        ({"keys": []}, "holds no key"),
        ({"keys": [{}]}, "key 1: needs a kid"),
        ({"keys": [PUBLIC | {"kid": ""}]}, "key 1: needs a kid"),
        ({"keys": [PUBLIC | {"kid": 5}]}, "key 1: needs a kid"),
        ({"keys": [PUBLIC, PUBLIC]}, "key 2: needs a kid of its own"),
        ({"keys": [{n: v for n, v in PUBLIC.items() if n != "alg"}]}, "key 1: needs an alg"),
        ({"keys": [PUBLIC | {"alg": "none"}]}, "key 1: needs an alg"),
        ({"keys": [PUBLIC | {"alg": ["EdDSA"]}]}, "key 1: needs an alg"),
        ({"keys": [PRIVATE]}, "key 1: is a private key"),
        ({"keys": [PUBLIC | {"alg": "HS256"}]}, "key 1: is not a usable HS256 key"),
        ({"keys": [SHARED | {"alg": "EdDSA"}]}, "key 1: is not a usable EdDSA key"),
        ({"keys": [PUBLIC | {"x": "AAAA"}]}, "key 1: is not a usable EdDSA key"),
        ({"keys": [PUBLIC | {"x": 5}]}, "key 1: is not a usable EdDSA key"),
        ({"keys": [PUBLIC | {"crv": "P-256"}]}, "key 1: is not a usable EdDSA key"),
        ({"keys": [PUBLIC | {"kty": "EC"}]}, "key 1: is not a usable EdDSA key"),
        ({"keys": [{"kty": "OKP", "kid": "k", "alg": "EdDSA"}]}, "key 1: is not a usable EdDSA key"),
        ({"keys": [SHARED | {"k": segment(b"s")}]}, "key 1: is too short for HS256: 256 bits at least"),
        ({"keys": [SHARED | {"k": segment(b"s" * 31)}]}, "key 1: is too short for HS256: 256 bits at least"),
        ({"keys": [SHORT_RSA]}, "key 1: is too short for RS256: 256 bits at least, and 2048 of RSA (RFC 7518)"),
        ({"keys": [OTHER_CURVE]}, "key 1: is not a usable ES256 key"),
    ],
    ids=range(31),
)
def test_a_keys_file_that_cannot_be_used_is_told_in_one_line(tmp_path, value, expected):
    """T2: a key without `alg` stops the start; K1: one clear line, with the file's name."""
    path = jwks(tmp_path, value)
    with pytest.raises(ConfigError) as caught:
        load_keys(path)
    assert str(caught.value).startswith(f"keys {path}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_keys_file_that_is_not_there_is_told_in_one_line(tmp_path):
    """K1: a file that is missing."""
    with pytest.raises(ConfigError, match=r"^keys .*nowhere: No such file or directory$"):
        load_keys(tmp_path / "nowhere")


def test_a_new_key_is_a_pair():
    """K2: `geocast keygen` makes a private JWK and a public one; only the private one can sign."""
    private, public = make_key()
    assert private["kid"] == public["kid"] != make_key()[0]["kid"]
    assert set(private) - set(public) == {"d"}
    assert public["alg"] == "EdDSA"


@pytest.mark.parametrize(
    "key",
    [
        {},
        [],
        {"kid": "k", "alg": "EdDSA"},
        {n: v for n, v in PRIVATE.items() if n != "kid"},
        PRIVATE | {"alg": "x"},
        PUBLIC,
    ],
    ids=["empty", "list", "no key", "no kid", "no alg", "public"],
)
def test_what_cannot_sign_is_told_in_one_line(key):
    """K1: one clear line, never a traceback."""
    with pytest.raises(ConfigError, match=r"^the key can't sign: "):
        sign(key, "desk-7", SCOPES, NOON_S, 60)


def test_a_keys_file_that_is_nested_too_deep_is_told_in_one_line(tmp_path):
    """K1: never a traceback."""
    path = tmp_path / "deep.jwks"
    path.write_text('{"keys": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(ConfigError, match=r"deep\.jwks: not a JWK set"):
        load_keys(path)


def test_a_key_that_is_too_short_signs_nothing():
    """T2: RFC 7518, 3.2; the node would not take it."""
    with pytest.raises(ConfigError, match=r"^the key is too short: 256 bits at least"):
        sign(SHARED | {"k": segment(b"s" * 31)}, "desk", SCOPES, NOON_S, 60)
