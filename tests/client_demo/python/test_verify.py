"""What a client that verifies pins. (What it believes is in test_vectors.py, what it does then in test_client.py.)"""

import pytest

from client_demo.conformance.approval_vectors import ALERT, AUDIENCE, alert, approvals, proof
from client_demo.python import ClientError, Untrusted, Verifier

REVIEWERS = approvals()["reviewers"]


def verifier(**changes):
    return Verifier(**{"keys": REVIEWERS, "audience": AUDIENCE, "approvals": 2, **changes})


def key(**changes):
    return {name: value for name, value in {**REVIEWERS["keys"][0], **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"audience": ""}, "audience: the name of the deployment"),
        ({"approvals": 0}, "approvals: a whole number from 1 to 8"),
        ({"approvals": 9}, "approvals: a whole number from 1 to 8"),
        ({"approvals": True}, "approvals: a whole number from 1 to 8"),
        ({"cancel_approvals": -1}, "cancel_approvals: a whole number from 0 to 8"),
        ({"keys": []}, "keys: a JWKS is needed"),
        ({"keys": {"keys": []}}, "keys: there is none"),
        ({"keys": {"keys": [key(), key()]}}, "key 2 has the kid of another one"),
        ({"keys": {"keys": [key(d="secret")]}}, "key 1 is private"),
        ({"keys": {"keys": [key(alg="EdDSA")]}}, "key 1 has to be of kty OKP, crv Ed25519 and alg Ed25519"),
        ({"keys": {"keys": [key(kty="oct")]}}, "key 1 has to be of kty OKP"),
        ({"keys": {"keys": [key(sub=None)]}}, "key 1 needs a kid, a sub and an x"),
        ({"keys": {"keys": [key(kid="")]}}, "key 1 needs a kid, a sub and an x"),
        ({"keys": {"keys": [key(x="AAAA")]}}, "x has to be 32 bytes"),
        ({"keys": {"keys": [key(x="====")]}}, "x has to be 32 bytes"),
    ],
)
def test_what_can_not_work_is_refused_at_once(changes, said):
    """In a line that names the option, and repeats no value."""
    with pytest.raises(ClientError, match=said) as refused:
        verifier(**changes)
    assert "secret" not in str(refused.value)


def test_half_a_character_is_not_signed():
    """As a file of vectors can't have it: bytes that were signed would be another text than is shown."""
    forged = proof(ALERT)
    with pytest.raises(Untrusted, match="signature"):
        verifier().read(alert(forged | {"form": forged["form"].replace("Building", "\ud83d")}))
