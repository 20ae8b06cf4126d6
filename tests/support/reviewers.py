"""Reviewers for tests: real key pairs that sign, and the file with their public keys."""

import dataclasses
import json

from geocast.approvals import form, reviewers, signatures
from geocast.auth.tokens import make_key
from geocast.model.alert import ApprovalProof

AUDIENCE = "alerts.harbour.example"


def a_pair(sub, **members):
    """Return a reviewer's key pair as (private JWK, public JWK as in the file)."""
    private, public = make_key()
    return private, public | {"sub": sub, "alg": "Ed25519"} | members


PAIRS = {
    "r-1": a_pair("r-1"),
    "r-2": a_pair("r-2"),
    "r-2 at home": a_pair("r-2"),  # the same person
    "r-3": a_pair("r-3"),
    "desk": a_pair("desk"),  # this person publishes as well
    "glass": a_pair("night", break_glass=True),
}
STRANGER = a_pair("r-1")  # claims to be r-1, and is in no file


def jwks(*names):
    """Return a file with the keys of these reviewers, or of all reviewers."""
    return json.dumps({"keys": [PAIRS[name][1] for name in names or PAIRS]}).encode()


def known(*names):
    """Return the reviewers parsed from such a file."""
    return reviewers.parse_reviewers(jwks(*names), "reviewers.jwks")


def signed_by(text, *names, at_s):
    """Return the signatures of these reviewers over a text, made at the second `at_s`."""
    pairs = {**PAIRS, "stranger": STRANGER}
    return tuple(signatures.sign(text, pairs[name][0], at_s) for name in names)


def proved(entry, *names, at_s=None, category="robbery", audience=AUDIENCE, **changes):
    """Return the entry with a proof by these reviewers.

    `changes` replace members of its form; `...` removes a member.
    """
    members = form.form_of(entry, audience, category) | changes
    text = form.text_of({name: value for name, value in members.items() if value is not ...})
    signed_at = (entry.alert.occurred_at + 60_000) // 1000 if hasattr(entry, "alert") else entry.cancelled_at // 1000
    return dataclasses.replace(entry, proof=ApprovalProof(text, signed_by(text, *names, at_s=at_s or signed_at)))
