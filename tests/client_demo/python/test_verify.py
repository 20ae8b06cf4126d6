"""Tests of a verifier's options; test_vectors.py tests what it accepts, and test_client.py the consequences."""

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
def test_unusable_option_raises_clienterror(changes, said):
    """The line names the option and repeats no value."""
    with pytest.raises(ClientError, match=said) as refused:
        verifier(**changes)
    assert "secret" not in str(refused.value)


def test_unpaired_surrogate_is_not_signed():
    """The signed bytes would be another text than the one shown; a file of vectors cannot contain this case."""
    forged = proof(ALERT)
    with pytest.raises(Untrusted, match="signature"):
        verifier().read(alert(forged | {"form": forged["form"].replace("Building", "\ud83d")}))
