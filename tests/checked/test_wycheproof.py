"""Wycheproof's vectors, which break signature code, against tokens, approvals, push messages and encrypted calls.

The vectors are not part of the project.
"""

import json

import pytest
from checked.tool import Tool, node_js, run
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from support.real_data import WYCHEPROOF

from client_demo.python.verify import _checker
from geocast.approvals import signatures
from geocast.auth.base64url import encoded
from geocast.auth.tokens import ALGORITHMS, TokenVerifier, parse_keys
from geocast.calls.encryption import CallKeys
from geocast.model.alert import Signature
from geocast.model.errors import ConfigError
from geocast.push.webpush import encrypt, point

NAMES = [
    f"{name}_test.json"
    for name in (
        "aes_gcm",
        "ecdh_secp256r1_ecpoint",
        "ecdsa_secp256r1_sha256_p1363",
        "ed25519",
        "json_web_signature",
    )
]
TOOL = Tool("Wycheproof", "signatures and encryption", data=tuple(WYCHEPROOF / name for name in NAMES))
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi"}

STRICTER = {  # vectors that are valid according to Wycheproof, and which geocast refuses
    346: "the token's alg is not that of the key",
    350: "the token's alg is not that of the key",
    372: "a character that is not base64url (RFC 7515, appendix C)",
    373: "a character that is not base64url (RFC 7515, appendix C)",
}
SAME_AS_VALID = {367, 370}  # they are called invalid, but equal the valid vector 357, byte for byte

IN_WEBCRYPTO = """\
import {readFileSync} from 'node:fs'
const bytes = (hex) => Buffer.from(hex, 'hex')
const verified = []
for (const [key, message, signature] of JSON.parse(readFileSync(0, 'utf-8'))) {
  const imported = await crypto.subtle.importKey('raw', bytes(key), 'Ed25519', false, ['verify'])
  verified.push(await crypto.subtle.verify('Ed25519', imported, bytes(signature), bytes(message)))
}
console.log(JSON.stringify(verified))
"""


def groups(name):
    """Return the groups of a file's vectors."""
    return json.loads((WYCHEPROOF / f"{name}_test.json").read_text("utf-8"))["testGroups"]


def vectors(name):
    """Return all vectors of a file, each with its group."""
    return [(group, vector) for group in groups(name) for vector in group["tests"]]


def key_set(jwk):
    """Return the bytes of a JWK set of one public key."""
    return json.dumps({"keys": [{name: jwk[name] for name in jwk if name not in PRIVATE_MEMBERS}]}).encode()


def takes(keys, token):
    """Return whether the signature of a token is accepted; what it signs is not looked at."""
    try:
        TokenVerifier(keys)._signed(token)
    except Exception:
        return False
    return True


def test_token_verifier_accepts_exactly_the_valid_signatures(record_property):
    """The header, the encoding and the key of a token are checked, not only its signature (RFC 7515)."""
    wrong, usable = [], 0
    for group in groups("json_web_signature"):
        jwk = group.get("public") or group["private"]
        if jwk.get("alg") not in ALGORITHMS:
            continue
        keys = parse_keys(key_set(jwk), "vectors")
        for vector in group["tests"]:
            assert "=" not in vector["jws"]
            number, usable = vector["tcId"], usable + 1
            valid = (vector["result"] == "valid" and number not in STRICTER) or number in SAME_AS_VALID
            wrong += [number] * (takes(keys, vector["jws"]) != valid)
    assert wrong == []
    assert usable > 300
    record_property("cases", usable)


def test_key_for_another_purpose_is_refused_for_tokens():
    """A key that only encrypts must not verify tokens (RFC 7517, 4.2 and 4.3)."""
    found = [group for group in groups("json_web_signature") if "rejectWrong" in group["tests"][0]["comment"]]
    assert len(found) == 4
    for group in found:
        jwk = group["public"] | {"alg": {"RSA": "RS256", "EC": "ES256"}[group["public"]["kty"]]}
        with pytest.raises(ConfigError, match="is not for signatures"):
            parse_keys(key_set(jwk), "vectors")


@pytest.mark.parametrize(
    ("name", "algorithm"), [("ed25519", "EdDSA"), ("ed25519", "Ed25519"), ("ecdsa_secp256r1_sha256_p1363", "ES256")]
)
def test_algorithm_of_tokens_accepts_exactly_the_valid_signatures(name, algorithm, record_property):
    """No signature is malleable, and none is accepted at the edges of its numbers."""
    wrong, cases = [], 0
    for group in groups(name):
        jwk = group["publicKeyJwk"] | {"alg": algorithm, "kid": "k"} if "publicKeyJwk" in group else None
        if jwk is None:
            continue
        key = parse_keys(key_set(jwk), "vectors")["k"]
        for vector in group["tests"]:
            message, signature = bytes.fromhex(vector["msg"]), bytes.fromhex(vector["sig"])
            cases += 1
            if key.verifies(message, signature) != (vector["result"] == "valid"):
                wrong.append(vector["tcId"])
    assert wrong == []
    assert cases > 100
    record_property("cases", cases)


def test_approvals_clients_and_webcrypto_agree_on_every_signature(monkeypatch, record_property):
    """An approval that the server accepts is accepted by the clients, and the other way round."""
    monkeypatch.setattr(signatures, "_signed", lambda protected, form: bytes.fromhex(form))
    found = vectors("ed25519")
    valid = [vector["result"] == "valid" for _, vector in found]
    keys = [bytes.fromhex(group["publicKey"]["pk"]) for group, _ in found]
    public = [Ed25519PublicKey.from_public_bytes(key) for key in keys]
    sealed = [Signature("", encoded(bytes.fromhex(vector["sig"]))) for _, vector in found]
    pairs = list(zip(sealed, found, public, strict=True))
    assert [signatures.verifies(seal, vector["msg"], key) for seal, (_, vector), key in pairs] == valid
    checks = zip(keys, found, strict=True)
    assert [
        _checker(key)(bytes.fromhex(vector["sig"]), bytes.fromhex(vector["msg"])) for key, (_, vector) in checks
    ] == valid
    asked = [(key.hex(), vector["msg"], vector["sig"]) for key, (_, vector) in zip(keys, found, strict=True)]
    said = run(node_js(), "--input-type=module", "--eval", IN_WEBCRYPTO, input=json.dumps(asked))
    assert json.loads(said) == valid
    record_property("cases", 3 * len(found))


def test_push_accepts_exactly_the_valid_public_keys_of_devices(record_property):
    """A point that is not on the curve would reveal the private key; a compressed point is not a key of Web Push."""
    wrong = []
    for _, vector in vectors("ecdh_secp256r1_ecpoint"):
        public = bytes.fromhex(vector["public"])
        try:
            shared = ec.derive_private_key(int(vector["private"], 16), ec.SECP256R1()).exchange(
                ec.ECDH(), point(public)
            )
            encrypt(b"text", public, bytes(16), 512)
        except ValueError:
            shared = b""
        expected = bytes.fromhex(vector["shared"]) if vector["result"] == "valid" else b""
        wrong += [vector["tcId"]] * (shared != expected)
    assert wrong == []
    record_property("cases", len(vectors("ecdh_secp256r1_ecpoint")))


def test_cipher_of_calls_opens_exactly_the_valid_ciphertexts(record_property):
    """The key has 256 bits, the nonce 96, the tag 128, as in entries of calls."""
    shape = {"ivSize": 96, "keySize": 256, "tagSize": 128}
    found = [vector for group, vector in vectors("aes_gcm") if shape.items() <= group.items()]
    assert len(found) > 50
    for vector in found:
        nonce, data, ciphertext, tag = (bytes.fromhex(vector[name]) for name in ("iv", "aad", "ct", "tag"))
        [cipher] = CallKeys({"k": bytes.fromhex(vector["key"])})._ciphers
        if vector["result"] == "valid":
            assert cipher.decrypt(nonce, ciphertext + tag, data).hex() == vector["msg"]
        else:
            with pytest.raises(InvalidTag):
                cipher.decrypt(nonce, ciphertext + tag, data)
    record_property("cases", len(found))
