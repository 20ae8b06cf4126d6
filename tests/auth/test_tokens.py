"""Tokens and keys (protocol, section 6). The result for an invalid token is always the same."""

import base64
import json

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from hypothesis import given
from hypothesis import strategies as st
from jwt import PyJWK, PyJWS
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from support.fakes import NOON_MS
from support.flipping import respelled

from geocast.auth.scopes import SCOPES
from geocast.auth.token_report import explain
from geocast.auth.tokens import (
    AUDIENCE,
    MAX_TOKEN_BYTES,
    Grant,
    Key,
    TokenVerifier,
    load_keys,
    make_key,
    parse_keys,
    published,
    sign,
)
from geocast.clock import Now
from geocast.model.errors import ConfigError

NOON = Now(NOON_MS, 1000.0)
NOON_S = NOON_MS // 1000
PRIVATE, PUBLIC = make_key("k1")
OTHER_PRIVATE, OTHER_PUBLIC = make_key("k2")
SHARED = {"kty": "oct", "k": base64.urlsafe_b64encode(b"s" * 32).decode().rstrip("="), "kid": "dev", "alg": "HS256"}
KEYS = {key["kid"]: Key(key, key["alg"]) for key in (PUBLIC, OTHER_PUBLIC, SHARED)}
TOKENS = TokenVerifier(KEYS)
CLAIMS = {"aud": AUDIENCE, "sub": "desk-7", "exp": NOON_S + 60, "scope": "alerts:publish alerts:receive"}


def encoded(key=PRIVATE, header=None, **changes):
    """Return a token with these claims changed (`...` removes a claim), signed with a private JWK."""
    claims = {name: value for name, value in (CLAIMS | changes).items() if value is not ...}
    return jwt.encode(claims, PyJWK(key, key["alg"]), key["alg"], header or {"kid": key["kid"]})


def segment(value):
    """Return a part of a token."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def check(token, now=NOON):
    """Return the grant of the token, and check that `token_report` gives reasons if and only if there is none."""
    grant = TOKENS.check(token, now)
    assert bool(explain(token, KEYS, {}, now).refusals) == (grant is None)
    return grant


# ---- valid tokens --------------------------------------------------------------------------------------------


def test_valid_token_grants_its_claims():
    """The grant has the `sub`, the scopes and the expiry of the token (rule T3)."""
    scopes = frozenset({"alerts:publish", "alerts:receive"})
    assert check(encoded()) == Grant("desk-7", scopes, (NOON_S + 60) * 1000)


def test_token_audience_may_be_a_list():
    """`aud` is `geocast`, or a list that contains it (rule T3)."""
    assert check(encoded(aud=["other", "geocast"]))


def test_token_expiry_may_have_a_fraction_of_a_second():
    """RFC 7519, section 2, allows a fraction in a NumericDate."""
    assert check(encoded(exp=NOON_S + 0.5)).expires_at == NOON_MS + 500


@pytest.mark.parametrize("scope", [..., "", "other"])
def test_token_without_known_scope_is_valid(scope):
    """Since only scopes are missing, requests are answered with 403 or 4403, not with 401 or 4401 (rule T3)."""
    assert not check(encoded(scope=scope)).scopes & set(SCOPES)


def test_kid_in_token_selects_the_key():
    """Keys of type `oct` with HS256 are for development (rule T2)."""
    assert check(encoded(OTHER_PRIVATE)).sub == "desk-7"
    assert check(encoded(SHARED)).sub == "desk-7"


def test_signed_token_is_valid():
    """`geocast token` signs a token with a key of `geocast keygen` (rule K2)."""
    grant = check(sign(PRIVATE, "desk-7", SCOPES, NOON_S, 3600))
    assert grant == Grant("desk-7", frozenset(SCOPES), (NOON_S + 3600) * 1000)


# ---- times in tokens -----------------------------------------------------------------------------------------


def test_token_is_invalid_from_its_expiry():
    """There is no leeway (rule T3)."""
    token = encoded(exp=NOON_S)
    assert check(token, Now(NOON_MS - 1, 0.0))
    assert check(token, NOON) is None


def test_token_is_invalid_before_nbf():
    """The claim `nbf` is optional (rule T3)."""
    token = encoded(nbf=NOON_S)
    assert check(token, Now(NOON_MS - 1, 0.0)) is None
    assert check(token, NOON)


# ---- qualifications ------------------------------------------------------------------------------------------

FRESH = {"iat": NOON_S, "exp": NOON_S + 86_400}
MEDICS = {"k1": Key(PUBLIC | {"quals": ["cpr", "medic"]}), "k2": Key(OTHER_PUBLIC)}


def quals(token, keys=MEDICS):
    """Return the qualifications that count, with keys that may grant some."""
    return TokenVerifier(keys).check(token, NOON).quals


@pytest.mark.parametrize(
    ("claimed", "counts"),
    [
        (["cpr"], {"cpr"}),
        (["medic", "cpr"], {"cpr", "medic"}),
        (["cpr", "cpr"], {"cpr"}),
        (["cpr", "pilot"], {"cpr"}),
        ([f"q{n}" for n in range(15)] + ["medic"], {"medic"}),
        (["x" * 32], set()),
        (..., set()),
    ],
)
def test_qualifications_count_if_key_may_grant_them(claimed, counts):
    """Qualifications must be claimed by the token and granted by the key (rules RQ1 and RQ3)."""
    assert quals(encoded(**FRESH, quals=claimed)) == counts


def test_key_without_qualifications_grants_none():
    """So somebody who signs the app's tokens cannot create medics. The token is still valid (rule RQ3)."""
    token = encoded(OTHER_PRIVATE, **FRESH, quals=["medic"])
    assert quals(token) == set()
    assert check(token) == Grant("desk-7", frozenset(CLAIMS["scope"].split()), (NOON_S + 86_400) * 1000)


@pytest.mark.parametrize(
    ("times", "counts"),
    [
        ({"iat": NOON_S, "exp": NOON_S + 86_400}, True),
        ({"iat": NOON_S, "exp": NOON_S + 86_401}, False),
        ({"iat": NOON_S - 86_390, "exp": NOON_S + 10}, True),
        ({"iat": NOON_S - 86_390, "exp": NOON_S + 10.5}, False),
        ({"iat": NOON_S + 90_000, "exp": NOON_S + 90_060}, False),
        ({"iat": NOON_S + 30, "exp": NOON_S + 86_400}, True),
        ({"iat": ..., "exp": NOON_S + 60}, False),
        ({"iat": "now", "exp": NOON_S + 60}, False),
        ({"iat": True, "exp": NOON_S + 60}, False),
        ({"iat": -1, "exp": NOON_S + 60}, False),
    ],
    ids=str,
)
def test_qualifications_count_only_in_token_valid_for_at_most_a_day(times, counts):
    """In a longer token, or one without `iat`, none count; the token is still valid (rule RQ2)."""
    assert quals(encoded(**times, quals=["cpr"])) == ({"cpr"} if counts else set())


@pytest.mark.parametrize(
    "claimed",
    [
        [],
        "cpr",
        None,
        {},
        {"cpr": True},
        ["cpr"] * 17,
        ["CPR"],
        ["cpr "],
        ["a-b"],
        ["x" * 33],
        [""],
        ["é"],
        [1],
        [None],
    ],
    ids=str,
)
def test_malformed_qualifications_make_token_invalid(claimed):
    """There may be 1 to 16 qualifications of a fixed grammar, whether or not they would count (rules RQ1 and T4)."""
    assert check(encoded(**FRESH, quals=claimed)) is None


@pytest.mark.parametrize("member", [[], "cpr", None, {}, ["cpr"] * 17, ["CPR"], [1]], ids=str)
def test_key_with_malformed_qualifications_is_refused(member):
    """The error names the field and the expected form.

    In a key set at a URL, such a key is ignored (rules RQ3 and K1).
    """
    keys = json.dumps({"keys": [OTHER_PUBLIC, PUBLIC | {"quals": member}]}).encode()
    with pytest.raises(ConfigError, match=r"^keys set: key 2: quals: expected a list of 1 to 16 texts of a-z, 0-9"):
        parse_keys(keys, "set")
    assert set(parse_keys(published(keys, "url"), "url")) == {"k2"}


def test_qualifications_of_keys_are_read_from_files_and_from_urls():
    """Both sources have the same effect (rule RQ3)."""
    keys = json.dumps({"keys": [PUBLIC | {"quals": ["cpr", "medic"]}, OTHER_PUBLIC]}).encode()
    for found in (parse_keys(keys, "file"), parse_keys(published(keys, "url"), "url")):
        assert quals(encoded(**FRESH, quals=["medic", "pilot"]), found) == {"medic"}


def test_token_signed_with_qualifications_has_them():
    """`geocast token --quals` signs such a token (rules RQ3 and K2)."""
    assert quals(sign(PRIVATE, "r-1", SCOPES, NOON_S, 86_400, ["medic"])) == {"medic"}
    assert quals(sign(PRIVATE, "r-1", SCOPES, NOON_S, 86_400)) == set()


def test_token_is_no_longer_valid_if_key_loses_its_qualification():
    """Presented again, the token grants the remaining qualifications. Other tokens stay valid (rules RQ3 and BA3)."""
    tokens = TokenVerifier(MEDICS)
    claims = ({"quals": ["cpr"]}, {"quals": ["medic"]}, {"quals": ["pilot"]}, {})
    proofs = [tokens.check(encoded(**FRESH, **each), NOON).proof for each in claims]
    tokens.replace({"k1": Key(PUBLIC | {"quals": ["cpr", "pilot"]})}, {})
    assert [tokens.still_valid(proof) for proof in proofs] == [True, False, True, True]
    assert tokens.check(encoded(**FRESH, quals=["cpr", "medic", "pilot"]), NOON).quals == {"cpr", "pilot"}
    tokens.replace({"k1": Key(OTHER_PUBLIC | {"kid": "k1", "quals": ["cpr", "medic"]})}, {})
    assert not any(map(tokens.still_valid, proofs))


# ---- issuers -------------------------------------------------------------------------------------------------


def of_issuer(issuer, jwk=PUBLIC):
    """Return a key with an issuer."""
    return Key(jwk | {"iss": issuer})


def test_subject_consists_of_issuer_of_key_and_sub():
    """The token's claim `iss` is ignored. Keys without `iss` have an empty issuer (rule HD5)."""
    keys = {"k1": of_issuer("https://a.example"), "k2": Key(OTHER_PUBLIC)}
    assert TokenVerifier(keys).check(encoded(iss="https://b.example"), NOON).subject == ("https://a.example", "desk-7")
    assert TokenVerifier(keys).check(encoded(OTHER_PRIVATE, iss="https://a.example"), NOON).subject == ("", "desk-7")


@pytest.mark.parametrize(("before", "after"), [(None, "a"), ("a", "b"), ("a", None)])
def test_token_is_no_longer_valid_if_key_changes_issuer(before, after):
    """The same token, presented again, has another subject (rules HD5 and BA3)."""
    keys = [Key(PUBLIC) if name is None else of_issuer(name) for name in (before, after)]
    tokens = TokenVerifier({"k1": keys[0]})
    proof = tokens.check(encoded(), NOON, again=True).proof
    tokens.replace({"k1": keys[1]}, {})
    assert not tokens.still_valid(proof)
    assert tokens.check(encoded(), NOON, again=True).subject == (after or "", "desk-7")
    tokens.replace({"k1": of_issuer(after) if after else Key(PUBLIC)}, {})
    assert tokens.still_valid(tokens.check(encoded(), NOON).proof)


def test_revocation_of_sub_applies_to_all_issuers():
    """The file of --revoked names no issuers (rules HD5 and BA3)."""
    keys = {"k1": of_issuer("a"), "k2": of_issuer("b", OTHER_PUBLIC)}
    tokens = TokenVerifier(keys, {"desk-7": NOON_S + 60})
    assert tokens.check(encoded(iat=NOON_S), NOON) is tokens.check(encoded(OTHER_PRIVATE, iat=NOON_S), NOON) is None


@pytest.mark.parametrize("member", ["", 7, None, ["a"], "\ud800", "x" * 257])
def test_key_with_malformed_issuer_is_refused(member):
    """Such a key does not count as one without an issuer. In a key set at a URL it is ignored (rule HD5)."""
    keys = json.dumps({"keys": [OTHER_PUBLIC, PUBLIC | {"iss": member}]}).encode()
    with pytest.raises(ConfigError, match=r"^keys set: key 2: iss: expected the issuer's name, a text of 1 to 256"):
        parse_keys(keys, "set")
    assert list(parse_keys(published(keys, "url"), "url")) == ["k2"]


def test_key_set_keeps_the_issuer_of_each_key():
    """A key set at a URL may name issuers, as a file may (rules HD5 and T8)."""
    keys = json.dumps({"keys": [PUBLIC | {"iss": "a"}, OTHER_PUBLIC]}).encode()
    found = parse_keys(published(keys, "url"), "url")
    assert {kid: key.issuer for kid, key in found.items()} == {"k1": "a", "k2": ""}


# ---- invalid tokens ------------------------------------------------------------------------------------------


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
def test_token_with_invalid_claims_is_invalid(changes):
    """`aud`, `sub` and `exp` are required, `nbf` is respected, and the result is always the same (rules T3 and T4)."""
    assert check(encoded(**changes)) is None


@pytest.mark.parametrize("sub", [5, None, ["desk-7"], "r-\ud800"])
def test_token_whose_sub_is_not_a_valid_string_is_invalid(sub):
    """A `sub` is a string that can be encoded as UTF-8 (RFC 7519, section 4.1.2).

    PyJWT does not encode such a token, so the test builds it by hand.
    """
    signed = f"{segment({'alg': 'HS256', 'kid': 'dev'})}.{segment(CLAIMS | {'sub': sub})}"
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signed.encode(), b"s" * 32)
    assert check(f"{signed}.{segment(signature)}") is None


@pytest.mark.parametrize("kid", ["k3", "", "K1", "k1 "])
def test_token_with_unknown_kid_is_invalid(kid):
    """Only the `kid` selects the key (rule T2)."""
    assert check(encoded(header={"kid": kid})) is None


def test_token_without_kid_is_invalid():
    """No other key is tried (rule T2)."""
    assert check(jwt.encode(CLAIMS, PyJWK(PRIVATE, "EdDSA"), "EdDSA")) is None


def test_token_signed_by_other_key_is_invalid():
    """This holds even if the other key is known (rule T2)."""
    assert check(encoded(OTHER_PRIVATE, {"kid": "k1"})) is None


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "HS256", "RS256"])
def test_token_with_other_algorithm_than_its_key_is_invalid(algorithm):
    """The key determines the algorithm, so a public key is never used as a shared secret (rule T2)."""
    raw = PyJWK(PUBLIC, "EdDSA").key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    pem = PyJWK(PUBLIC, "EdDSA").key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signed = f"{segment({'alg': algorithm, 'kid': 'k1', 'typ': 'JWT'})}.{segment(CLAIMS)}"
    hmac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    for signature in (b"", hmac.sign(signed.encode(), raw), hmac.sign(signed.encode(), pem)):
        assert check(f"{signed}.{segment(signature)}") is None


def test_tampered_token_is_invalid():
    """The signature covers the claims (rule T4)."""
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
def test_hostile_token_text_is_refused_without_exception(token):
    """The result is always the same, and no exception is raised (rule T4)."""
    assert check(token) is None


HEADER_PARTS = {
    "alg": st.sampled_from(["EdDSA", "HS256", "none", "", None, ["EdDSA"]]),
    "kid": st.sampled_from(["k1", "dev", "k9", "", None, 1, ["k1"]]),
    "typ": st.sampled_from(["JWT", 1, None]),
    "crit": st.sampled_from([[], ["b64"], ["x"], None]),
    "b64": st.booleans() | st.none(),
}
CLAIM_PARTS = {
    "aud": st.sampled_from(
        [AUDIENCE, "other", "", None, [], [AUDIENCE], ["x", AUDIENCE], [AUDIENCE, 1], {AUDIENCE: 1}]
    ),
    "sub": st.sampled_from(["desk-7", "", None, 7, "\ud800"]),
    "exp": st.sampled_from([NOON_S + 60, NOON_S, NOON_S + 0.5, None, "5", True]),
    "jti": st.sampled_from(["1", 1, None]),
    "iss": st.sampled_from(["x", 1, None]),
}


@given(
    st.fixed_dictionaries({}, optional=HEADER_PARTS).map(lambda odd: {"alg": "HS256", "kid": "dev"} | odd),
    st.fixed_dictionaries({}, optional=CLAIM_PARTS).map(lambda odd: CLAIMS | odd),
    st.sampled_from(["", "=", "==", ".", " ", "A", "é"]),
    st.sampled_from([b"s" * 32, b"x" * 32]),
)
def test_token_is_valid_exactly_if_pyjwt_finds_it_valid(header, claims, more, secret):
    """The verifier splits a token into its parts by itself, so it is compared with the library's `decode`."""
    signed = f"{segment(header)}.{segment(claims)}"
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signed.encode(), secret)
    token = f"{signed}.{segment(signature)}{more}"
    required = {"require": ["aud", "sub", "exp"], "verify_exp": False}
    try:
        key = KEYS[header["kid"]]
        claimed = jwt.decode(token, key, [key.algorithm_name], audience=AUDIENCE, options=required)
    except (jwt.PyJWTError, KeyError, TypeError):
        claimed = None
    grant = check(token)
    assert grant is None or claimed is not None
    if claimed is not None and isinstance(claimed["sub"], str) and claimed["exp"] == NOON_S + 60:
        assert (grant is None) == (claimed["sub"] in ("", "\ud800") or "crit" in header)  # no extension is accepted


@pytest.mark.parametrize("claims", [[], "x", 5, None, b"\xff", b"[" * 2000])
def test_signed_token_with_malformed_claims_is_invalid(claims):
    """A valid signature does not make the claims valid (rule T4)."""
    signed = f"{segment({'alg': 'HS256', 'kid': 'dev'})}.{segment(claims)}"
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signed.encode(), b"s" * 32)
    assert check(f"{signed}.{segment(signature)}") is None


def test_token_longer_than_4_kib_is_invalid():
    """Tokens of up to 4 KiB are accepted (rule T1)."""
    length = len(encoded(note=""))
    fits = encoded(note="x" * ((MAX_TOKEN_BYTES - length) * 3 // 4 - 2))
    too_long = encoded(note="x" * ((MAX_TOKEN_BYTES - length) * 3 // 4 + 4))
    assert MAX_TOKEN_BYTES - 8 < len(fits) <= MAX_TOKEN_BYTES < len(too_long)
    assert check(fits)
    assert check(too_long) is None


# ---- key files -----------------------------------------------------------------------------------------------


SHORT_RSA = RSAAlgorithm.to_jwk(generate_rsa_key(65537, 1024).public_key(), as_dict=True) | {"kid": "r", "alg": "RS256"}
OTHER_CURVE = ECAlgorithm.to_jwk(generate_ec_key(SECP384R1()).public_key(), as_dict=True) | {"kid": "e", "alg": "ES256"}

ED448 = OKPAlgorithm.to_jwk(Ed448PrivateKey.generate().public_key(), as_dict=True) | {"kid": "o"}


def jwks(tmp_path, value):
    """Return the path of a new file with this content."""
    path = tmp_path / "keys.jwks"
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return path


def test_load_keys_returns_keys_by_kid(tmp_path):
    """The file is a JWKS of public keys (rule T1)."""
    keys = load_keys(jwks(tmp_path, {"keys": [PUBLIC, OTHER_PUBLIC, SHARED]}))
    assert set(keys) == {"k1", "k2", "dev"}
    assert TokenVerifier(keys).check(encoded(), NOON)
    assert TokenVerifier(keys).check(encoded(SHARED), NOON)


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "PS256"])
def test_keys_for_es256_rs256_and_ps256_are_supported(tmp_path, algorithm):
    """The algorithm named in the key is used (rule T2)."""
    if algorithm == "ES256":
        private, to_jwk = generate_ec_key(SECP256R1()), ECAlgorithm.to_jwk
    else:
        private, to_jwk = generate_rsa_key(65537, 2048), RSAAlgorithm.to_jwk
    public = to_jwk(private.public_key(), as_dict=True) | {"kid": "k", "alg": algorithm}
    tokens = TokenVerifier(load_keys(jwks(tmp_path, {"keys": [public]})))
    assert tokens.check(jwt.encode(CLAIMS, private, algorithm, {"kid": "k"}), NOON)
    other = {"ES256": "HS256", "RS256": "PS256", "PS256": "RS256"}[algorithm]
    signing = b"s" * 32 if other == "HS256" else private
    assert tokens.check(jwt.encode(CLAIMS, signing, other, {"kid": "k"}), NOON) is None


@pytest.mark.parametrize("name", ["EdDSA", "Ed25519"])
def test_token_must_name_ed25519_algorithm_like_its_key(tmp_path, name):
    """A key uses one of the two names, `EdDSA` or `Ed25519`, in a file or at a URL (rule T2, RFC 9864)."""
    library = PyJWS()
    library.register_algorithm("Ed25519", OKPAlgorithm())
    data = json.dumps({"keys": [PUBLIC | {"alg": name}]}).encode()
    for keys in (load_keys(jwks(tmp_path, data)), parse_keys(published(data, "there"), "there")):
        assert keys["k1"].algorithm_name == name
        for said in ("EdDSA", "Ed25519"):
            payload = json.dumps(CLAIMS).encode()
            token = library.encode(payload, PyJWK(PRIVATE, "EdDSA").key, said, {"kid": "k1"})
            assert (TokenVerifier(keys).check(token, NOON) is not None) == (said == name)
            assert bool(explain(token, keys, {}, NOON).refusals) == (said != name)
            assert TokenVerifier(keys).check(respelled(token), NOON) is None


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
        ({"keys": [PUBLIC | {"use": "enc"}]}, "key 1: is not for signatures"),
        ({"keys": [PUBLIC | {"key_ops": ["encrypt"]}]}, "key 1: is not for signatures"),
        ({"keys": [PUBLIC | {"key_ops": "verify"}]}, "key 1: is not for signatures"),
        ({"keys": [PUBLIC | {"alg": "HS256"}]}, "key 1: is not a usable HS256 key"),
        ({"keys": [SHARED | {"alg": "EdDSA"}]}, "key 1: is not a usable EdDSA key"),
        ({"keys": [PUBLIC | {"x": "AAAA"}]}, "key 1: is not a usable EdDSA key"),
        ({"keys": [PUBLIC | {"x": 5}]}, "key 1: is not a usable EdDSA key"),
        ({"keys": [PUBLIC | {"crv": "P-256"}]}, "key 1: is not a usable EdDSA key"),
        ({"keys": [PUBLIC | {"kty": "EC"}]}, "key 1: is not a usable EdDSA key"),
        ({"keys": [{"kty": "OKP", "kid": "k", "alg": "EdDSA"}]}, "key 1: is not a usable EdDSA key"),
        ({"keys": [SHARED | {"k": segment(b"s")}]}, "key 1: is too short for HS256: at least 256 bits"),
        ({"keys": [SHARED | {"k": segment(b"s" * 31)}]}, "key 1: is too short for HS256: at least 256 bits"),
        ({"keys": [SHORT_RSA]}, "key 1: is too short for RS256: at least 256 bits, and 2048 for RSA (RFC 7518)"),
        ({"keys": [OTHER_CURVE]}, "key 1: is not a usable ES256 key"),
        ({"keys": [ED448 | {"alg": "Ed25519"}]}, "key 1: is not a usable Ed25519 key"),
        ({"keys": [PUBLIC | {"alg": "Ed25519", "x": "AAAA"}]}, "key 1: is not a usable Ed25519 key"),
        ({"keys": [SHARED | {"alg": "Ed25519", "crv": "Ed25519"}]}, "key 1: is not a usable Ed25519 key"),
    ],
    ids=range(37),
)
def test_unusable_key_file_is_refused_with_one_line(tmp_path, value, expected):
    """The line names the file (rules T2 and K1)."""
    path = jwks(tmp_path, value)
    with pytest.raises(ConfigError) as caught:
        load_keys(path)
    assert str(caught.value).startswith(f"keys {path}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_key_file_is_refused_with_one_line(tmp_path):
    """The line names the file and the reason (rule K1)."""
    with pytest.raises(ConfigError, match=r"^keys .*nowhere: No such file or directory$"):
        load_keys(tmp_path / "nowhere")


def test_make_key_returns_private_and_public_key():
    """Only the private JWK can sign (rule K2)."""
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
def test_sign_with_unusable_key_raises_config_error(key):
    """The error is one line without a traceback (rule K1)."""
    with pytest.raises(ConfigError, match=r"^the key can't sign: "):
        sign(key, "desk-7", SCOPES, NOON_S, 60)


def test_deeply_nested_key_file_is_refused_with_one_line(tmp_path):
    """There is no traceback (rule K1)."""
    path = tmp_path / "deep.jwks"
    path.write_text('{"keys": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(ConfigError, match=r"deep\.jwks: not a JWK set"):
        load_keys(path)


def test_sign_with_short_key_raises_config_error():
    """A node would not accept the token (rule T2; RFC 7518, 3.2)."""
    with pytest.raises(ConfigError, match=r"^the key is too short: at least 256 bits"):
        sign(SHARED | {"k": segment(b"s" * 31)}, "desk", SCOPES, NOON_S, 60)
