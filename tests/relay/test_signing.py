"""Signatures of webhooks, compared with the examples of Standard Webhooks 1.0 and its reference libraries (WH9)."""

import base64
import re

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from geocast.relay.signing import UNSIGNED, make_key_pair, make_secret, parse_secrets

# From the tests of the reference libraries.
ID, AT_S, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PRIVATE = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbc="
V1 = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
V1A = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="


def signature(text):
    """Return the value of `webhook-signature` for the example, signed by these secrets."""
    return parse_secrets(text).headers(ID, AT_S, BODY)["webhook-signature"]


@pytest.mark.parametrize(
    ("secrets", "expected"),
    [
        (SECRET, V1),
        (PRIVATE, V1A),
        (f"{SECRET}\n{PRIVATE}\n", f"{V1} {V1A}"),
    ],
)
def test_signature_equals_that_of_the_reference_libraries(secrets, expected):
    """Each secret signs, in the order of the file (WH9)."""
    assert signature(secrets) == expected


def test_private_key_may_be_followed_by_its_public_key():
    """Some libraries store the 64 bytes of both keys; a public key of another private key is refused (WH9)."""
    private, public = make_key_pair()
    seed, other = (base64.b64decode(each.partition("_")[2]) for each in (private, make_key_pair()[1]))
    both = "whsk_" + base64.b64encode(seed + base64.b64decode(public.removeprefix("whpk_"))).decode()
    assert signature(both) == signature(private)
    with pytest.raises(ValueError, match="expected"):
        parse_secrets("whsk_" + base64.b64encode(seed + other).decode())


def test_receiver_verifies_a_new_key_pair_by_the_public_key_alone():
    """Another body is not signed (WH9)."""
    private, public = make_key_pair()
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("whpk_")))
    found = base64.b64decode(signature(private).removeprefix("v1a,"))
    key.verify(found, f"{ID}.{AT_S}.".encode() + BODY)
    with pytest.raises(InvalidSignature):
        key.verify(found, f"{ID}.{AT_S}.".encode() + BODY + b" ")


def test_headers_have_id_and_time_and_no_signature_without_a_secret():
    """An unsigned target still gets an id to recognize repetitions (WH2)."""
    assert UNSIGNED.headers(ID, AT_S, BODY) == {"webhook-id": ID, "webhook-timestamp": str(AT_S)}
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", make_secret())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "whpk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbc=",
        "whsec_c2hvcnQ=",
        "whsec_not base64",
        f"whsec_{base64.b64encode(bytes(65)).decode()}",
        "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        " ".join([SECRET] * 5),
    ],
)
def test_malformed_secrets_are_refused_and_not_repeated(text):
    """A secret has 24 to 64 bytes, a private key 32 or 64; a file has at most 4 (WH8, WH9)."""
    with pytest.raises(ValueError, match="expected 1 to 4 secrets") as refused:
        parse_secrets(text)
    assert not any(word in str(refused.value) for word in text.split() if len(word) > 8)
