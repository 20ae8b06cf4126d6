"""Tokens and keys: section 6. Whatever is wrong with a token, the answer is the same."""

import base64
import json

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
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
from geocast.errors import ConfigError

NOON = Now(NOON_MS, 1000.0)
NOON_S = NOON_MS // 1000
PRIVATE, PUBLIC = make_key("k1")
OTHER_PRIVATE, OTHER_PUBLIC = make_key("k2")
SHARED = {"kty": "oct", "k": base64.urlsafe_b64encode(b"s" * 32).decode().rstrip("="), "kid": "dev", "alg": "HS256"}
KEYS = {key["kid"]: Key(key, key["alg"]) for key in (PUBLIC, OTHER_PUBLIC, SHARED)}
TOKENS = TokenVerifier(KEYS)
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
    """What the token grants. If that is nothing, there is a reason that can be told, and only then (`token_report`)."""
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


# ---- qualifications ------------------------------------------------------------------------------------------

FRESH = {"iat": NOON_S, "exp": NOON_S + 86_400}
MEDICS = {"k1": Key(PUBLIC | {"quals": ["cpr", "medic"]}), "k2": Key(OTHER_PUBLIC)}


def quals(token, keys=MEDICS):
    """The qualifications that count, by keys that may grant some."""
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
def test_qualifications_count_as_far_as_the_key_may_grant_them(claimed, counts):
    """RQ1, RQ3: what is claimed and granted, and nothing else."""
    assert quals(encoded(**FRESH, quals=claimed)) == counts


def test_a_key_without_quals_grants_none():
    """RQ3: so whoever signs for the app can't make medics. The token is good all the same."""
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
def test_qualifications_count_in_a_token_of_a_day_at_most(times, counts):
    """RQ2: one that lasts longer, or does not say since when, qualifies nobody. It is good all the same."""
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
def test_a_claim_of_qualifications_that_is_malformed_spoils_the_token(claimed):
    """RQ1, T4: 1 to 16 strings of the grammar, whether or not they would count."""
    assert check(encoded(**FRESH, quals=claimed)) is None


@pytest.mark.parametrize("member", [[], "cpr", None, {}, ["cpr"] * 17, ["CPR"], [1]], ids=str)
def test_a_key_with_malformed_quals_stops_the_start(member):
    """RQ3, K1: one line that names the member and says what is expected. Of a published set the key is passed over."""
    keys = json.dumps({"keys": [OTHER_PUBLIC, PUBLIC | {"quals": member}]}).encode()
    with pytest.raises(ConfigError, match=r"^keys set: key 2: quals: expected a list of 1 to 16 texts of a-z, 0-9"):
        parse_keys(keys, "set")
    assert set(parse_keys(published(keys, "url"), "url")) == {"k2"}


def test_what_a_key_may_grant_is_read_with_the_set():
    """RQ3: from a file and, the same, from a URL."""
    keys = json.dumps({"keys": [PUBLIC | {"quals": ["cpr", "medic"]}, OTHER_PUBLIC]}).encode()
    for found in (parse_keys(keys, "file"), parse_keys(published(keys, "url"), "url")):
        assert quals(encoded(**FRESH, quals=["medic", "pilot"]), found) == {"medic"}


def test_what_sign_makes_qualifies():
    """RQ3, K2: `geocast token --quals`."""
    assert quals(sign(PRIVATE, "r-1", SCOPES, NOON_S, 86_400, ["medic"])) == {"medic"}
    assert quals(sign(PRIVATE, "r-1", SCOPES, NOON_S, 86_400)) == set()


def test_a_qualification_that_its_key_loses_takes_the_token_with_it():
    """RQ3, BA3: who was granted it shows a token anew, and has what is left. Nobody else notices anything."""
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
    """A key that says whose it is."""
    return Key(jwk | {"iss": issuer})


def test_subject_of_a_token_is_the_issuer_of_its_key_and_its_sub():
    """HD5: a claim `iss` says nothing; keys without `iss` belong to the key set itself."""
    keys = {"k1": of_issuer("https://a.example"), "k2": Key(OTHER_PUBLIC)}
    assert TokenVerifier(keys).check(encoded(iss="https://b.example"), NOON).subject == ("https://a.example", "desk-7")
    assert TokenVerifier(keys).check(encoded(OTHER_PRIVATE, iss="https://a.example"), NOON).subject == ("", "desk-7")


@pytest.mark.parametrize(("before", "after"), [(None, "a"), ("a", "b"), ("a", None)])
def test_token_of_a_key_that_changes_its_issuer_does_not_stand(before, after):
    """HD5, BA3: whoever has the token shows it anew, and is another subject then."""
    keys = [Key(PUBLIC) if name is None else of_issuer(name) for name in (before, after)]
    tokens = TokenVerifier({"k1": keys[0]})
    proof = tokens.check(encoded(), NOON, again=True).proof
    tokens.replace({"k1": keys[1]}, {})
    assert not tokens.still_valid(proof)
    assert tokens.check(encoded(), NOON, again=True).subject == (after or "", "desk-7")
    tokens.replace({"k1": of_issuer(after) if after else Key(PUBLIC)}, {})
    assert tokens.still_valid(tokens.check(encoded(), NOON).proof)


def test_revocation_of_a_sub_counts_for_all_issuers():
    """HD5, BA3: the file of --revoked names no issuer."""
    keys = {"k1": of_issuer("a"), "k2": of_issuer("b", OTHER_PUBLIC)}
    tokens = TokenVerifier(keys, {"desk-7": NOON_S + 60})
    assert tokens.check(encoded(iat=NOON_S), NOON) is tokens.check(encoded(OTHER_PRIVATE, iat=NOON_S), NOON) is None


@pytest.mark.parametrize("member", ["", 7, None, ["a"], "\ud800", "x" * 257])
def test_key_with_a_malformed_issuer_stops_the_start(member):
    """HD5: a key whose issuer can't be told is not taken for one of the set itself, at a URL neither."""
    keys = json.dumps({"keys": [OTHER_PUBLIC, PUBLIC | {"iss": member}]}).encode()
    with pytest.raises(ConfigError, match=r"^keys set: key 2: iss: expected the issuer's name, a text of 1 to 256"):
        parse_keys(keys, "set")
    assert list(parse_keys(published(keys, "url"), "url")) == ["k2"]


def test_issuers_of_published_keys_are_kept():
    """HD5, T8: a set at a URL may name issuers, as a file may."""
    keys = json.dumps({"keys": [PUBLIC | {"iss": "a"}, OTHER_PUBLIC]}).encode()
    found = parse_keys(published(keys, "url"), "url")
    assert {kid: key.issuer for kid, key in found.items()} == {"k1": "a", "k2": ""}


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


@pytest.mark.parametrize("sub", [5, None, ["desk-7"], "r-\ud800"])
def test_a_sub_that_is_no_text_grants_nothing(sub):
    """RFC 7519, section 4.1.2: a string; what can't be written is none.

    (PyJWT does not write such a token, so it is put together by hand.)
    """
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

ED448 = OKPAlgorithm.to_jwk(Ed448PrivateKey.generate().public_key(), as_dict=True) | {"kid": "o"}


def jwks(tmp_path, value):
    """A file of keys."""
    path = tmp_path / "keys.jwks"
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return path


def test_a_jwks_file_holds_public_keys_by_kid(tmp_path):
    """T1: a JWKS file of public keys."""
    keys = load_keys(jwks(tmp_path, {"keys": [PUBLIC, OTHER_PUBLIC, SHARED]}))
    assert set(keys) == {"k1", "k2", "dev"}
    assert TokenVerifier(keys).check(encoded(), NOON)
    assert TokenVerifier(keys).check(encoded(SHARED), NOON)


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "PS256"])
def test_keys_of_other_algorithms_are_taken(tmp_path, algorithm):
    """T2: the algorithm is the one the key states."""
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
def test_ed25519_has_two_names_and_a_key_has_one_of_them(tmp_path, name):
    """T2, RFC 9864: a token's header has to have the one that the key has, from a file or from an address."""
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
        ({"keys": [ED448 | {"alg": "Ed25519"}]}, "key 1: is not a usable Ed25519 key"),
        ({"keys": [PUBLIC | {"alg": "Ed25519", "x": "AAAA"}]}, "key 1: is not a usable Ed25519 key"),
        ({"keys": [SHARED | {"alg": "Ed25519", "crv": "Ed25519"}]}, "key 1: is not a usable Ed25519 key"),
    ],
    ids=range(34),
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
