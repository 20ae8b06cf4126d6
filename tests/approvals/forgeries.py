"""A table of forgeries: entries by an intruder who can write to the log, and has too few reviewers' keys.

The log has `GOOD`, which two reviewers have signed. Each forgery is one more entry, in the form in which a backend
stores it. Its checksum, number and position are correct, so that only the check of approvals can find it.
"""

import json
from dataclasses import replace

import msgpack
from alertlog.later import Later
from support.fakes import NOON_MS, a_cancel, a_revision
from support.flipping import respelled
from support.reviewers import PAIRS, STRANGER, proved, signed_by

from geocast.alertlog import codec
from geocast.approvals import form, signatures
from geocast.auth.base64url import decoded, encoded
from geocast.model.alert import ApprovalProof, Confirm, Signature
from geocast.policy import Policy

POLICY = Policy.model_validate(
    {
        "name": "harbour",
        "audience": "alerts.harbour.example",
        "categories": {
            "robbery": {"title": "Robbery", "approvals": 2},
            "flood": {"title": "Flood", "approvals": 1},
            "arson": {"title": "Arson"},
        },
    }
)
AT_S = NOON_MS // 1000
GOOD = proved(a_revision(), "r-1", "r-2")
NEW = a_revision("b", 1, headline="Run for your lives")
NEXT = a_revision("a-1", 2, headline="Run for your lives")
OVER = a_cancel("a-1", 2, reason="All is well")
FLOOD = a_revision("b", 1, category="flood", confirm=Confirm(text=("name",)))


def stored(entry, under=None, **members):
    """Return an entry as a backend stores it, with these fields changed.

    `under` has the id and number that the log stores with the entry, if they differ from the entry's own.
    """
    payload = msgpack.packb(msgpack.unpackb(codec.encode(entry)) | members)
    alert_id, number = under or (entry.id, entry.revision)
    return Later(alert_id, number, codec.kind_of(entry), entry.ends_at, payload)


def retold(**changes):
    """Return an alert whose form was changed after two reviewers had signed it."""
    members = json.loads(proved(NEW, "r-1", "r-2").proof.form) | changes
    signed = proved(NEW, "r-1", "r-2").proof.signatures
    return stored(replace(NEW, proof=ApprovalProof(form.text_of(members), signed)))


def as_signed(text, entry=NEW):
    """Return an alert with this text as its form, signed by two reviewers."""
    return stored(replace(entry, proof=ApprovalProof(text, signed_by(text, "r-1", "r-2", at_s=AT_S))))


def with_form(entry=NEW, **changes):
    """Return an alert whose form has these members, signed by two reviewers; `...` removes a member."""
    members = form.form_of(entry, "alerts.harbour.example", "robbery") | changes
    return as_signed(json.dumps({name: value for name, value in members.items() if value is not ...}), entry)


def with_header(**changes):
    """Return an alert signed by two reviewers, but with other members in the protected header."""
    text = proved(NEW, "r-1").proof.form
    signed = []
    for name in ("r-1", "r-2"):
        private = PAIRS[name][0]
        header = {"alg": "Ed25519", "typ": "geocast-approval", "kid": private["kid"], "iat": AT_S} | changes
        protected = encoded(json.dumps(header).encode())
        key = signatures.Ed25519PrivateKey.from_private_bytes(decoded(private["d"]))
        data = f"{protected}.{encoded(text.encode())}".encode()
        signed.append(Signature(protected, encoded(key.sign(data))))
    return stored(replace(NEW, proof=ApprovalProof(text, tuple(signed))))


def with_signatures(change, entry=NEW):
    """Return an alert with `change` applied to its two good signatures."""
    proof = proved(entry, "r-1", "r-2").proof
    return stored(replace(entry, proof=replace(proof, signatures=tuple(change(proof.signatures)))))


def swapped(signed):
    """Return each header with the signature of the other one."""
    first, second = signed
    return Signature(first.protected, second.signature), Signature(second.protected, first.signature)


def spoiled(change):
    """Return a function that changes the second signature."""
    return lambda signed: (signed[0], replace(signed[1], signature=change(signed[1].signature)))


def _flip(text):
    return respelled(text, 0)


STRANGER_KID = STRANGER[0]["kid"]
FORGERIES = {
    # unsigned
    "a new alert": lambda: stored(NEW),
    "a revision": lambda: stored(NEXT),
    "a revision far ahead": lambda: stored(replace(NEXT, revision=9)),
    "a category that nobody knows": lambda: stored(a_revision("b", category="unknown")),
    "no proof": lambda: stored(NEW, proof=None),
    "no signatures": lambda: with_signatures(lambda _signed: ()),
    "another name for the proof": lambda: stored(NEW, proofs=GOOD.proof.to_map()),
    # signed by too few reviewers
    "one of two": lambda: stored(proved(NEW, "r-1")),
    "one key twice": lambda: stored(proved(NEW, "r-1", "r-1")),
    "one person with two keys": lambda: stored(proved(NEW, "r-2", "r-2 at home")),
    "the publisher and one": lambda: stored(proved(NEW, "r-1", "desk")),
    "one and a stranger": lambda: stored(proved(NEW, "r-1", "stranger")),
    "a stranger who says a good name": lambda: stored(proved(NEW, "stranger", "stranger")),
    "one where something is confirmed": lambda: stored(proved(FLOOD, "r-1")),
    "eight times one": lambda: stored(proved(NEW, *["r-1"] * 8)),
    "nine": lambda: stored(proved(NEW, *["r-1", "r-2", "r-3"] * 3)),
    # signed for another entry
    "another alert's proof": lambda: stored(replace(NEW, proof=GOOD.proof)),
    "the proof of the revision before": lambda: stored(replace(NEXT, proof=GOOD.proof)),
    "a cancel's proof": lambda: stored(replace(NEXT, proof=proved(OVER, "r-1", "r-2").proof)),
    "another deployment's": lambda: stored(proved(NEW, "r-1", "r-2", audience="training.harbour.example")),
    "under another id": lambda: stored(proved(NEW, "r-1", "r-2"), ("c", 1)),
    "under another number": lambda: stored(GOOD, ("a-1", 2)),
    "before it happened": lambda: stored(proved(NEW, "r-1", "r-2", at_s=AT_S - 601)),
    # the form was changed after it was signed
    **{
        f"another {name}": lambda name=name, value=value: retold(**{name: value})
        for name, value in {
            "headline": "Run", "description": "Run", "category": "arson", "title": "Run", "severity": "extreme",
            "status": "test", "expires_at": "2026-02-01T12:00:00.000Z", "source": "mallory", "revision": 1.0,
            "area": [{"type": "circle", "lat": 0.0, "lng": 0.0, "radius_m": 20000.0}], "location_resolution": 3,
            "aud": "x", "later": 1,
        }.items()
    },
    "a blank behind the form": lambda: stored(
        replace(NEW, proof=replace(p := proved(NEW, "r-1", "r-2").proof, form=p.form + " "))
    ),
    # invalid signatures
    "swapped": lambda: with_signatures(swapped),
    "a bit of a signature": lambda: with_signatures(spoiled(_flip)),
    "a short signature": lambda: with_signatures(spoiled(lambda text: text[:-2])),
    "a padded signature": lambda: with_signatures(spoiled(lambda text: text + "==")),
    "an empty signature": lambda: with_signatures(spoiled(lambda _text: "")),
    "a signature of zeros": lambda: with_signatures(spoiled(lambda _text: "A" * 86)),
    "a header that is none": lambda: with_signatures(lambda signed: (replace(signed[0], protected="x"), signed[1])),
    "a key that nobody knows": lambda: with_header(kid="unknown"),
    "a stranger's key named": lambda: with_header(kid=STRANGER_KID),
    **{
        f"a header with {name} {value!r}": lambda name=name, value=value: with_header(**{name: value})
        for name, value in [
            ("alg", "none"), ("alg", "EdDSA"), ("alg", "HS256"), ("typ", "JWT"), ("crit", ["b64"]), ("b64", False),
            ("iat", True), ("iat", "now"), ("iat", -1), ("kid", None), ("jwk", {}),
        ]
    },
    # malformed forms, signed by two reviewers
    **{
        f"a form such as {text[:20]!r}": lambda text=text: as_signed(text)
        for text in ("", "x", "[]", "{}", "null", '{"v":1,"v":1}', "[" * 9_000)
    },
    "a form that is too long": lambda: with_form(later="x" * 21_000),
    **{
        f"a form with {name} {value!r}": lambda name=name, value=value: with_form(**{name: value})
        for name, value in [
            ("v", 2), ("what", "cancel"), ("what", "other"), ("id", "c"), ("revision", 2), ("revision", True),
            ("headline", "\ud800"), ("headline", ...), ("severity", "worst"), ("expires_at", "soon"),
            ("area", [{"type": "circle", "lat": "1", "lng": 1, "radius_m": 1}]), ("area", {}), ("aud", ...),
            ("location_resolution", 16),
        ]
    },
    # malformed proofs
    **{
        f"a proof such as {value!r}": lambda value=value: stored(NEW, proof=value)
        for value in ([], "x", 1, {}, {"form": 5, "signatures": []}, {"form": "{}", "signatures": {"x": 1}})
    },
    # cancels of the alert that two reviewers have signed
    "a cancel": lambda: stored(OVER),
    "a cancel far ahead": lambda: stored(replace(OVER, revision=9)),
    "a cancel that looks like a tombstone": lambda: stored(replace(OVER, revision=1), ("a-1", 2)),
    "a cancel that goes into another": lambda: stored(replace(OVER, into="b")),
    "a cancel by a stranger": lambda: stored(proved(OVER, "stranger")),
    "a cancel by the publisher": lambda: stored(proved(OVER, "desk")),
    "a cancel before it happened": lambda: stored(proved(OVER, "r-1", at_s=AT_S - 601)),
    "a cancel of another deployment": lambda: stored(proved(OVER, "r-1", audience="x")),
    "a cancel of another alert": lambda: stored(replace(OVER, proof=proved(a_cancel("b", 2), "r-1").proof)),
    "a cancel for a later number": lambda: stored(replace(OVER, proof=proved(a_cancel("a-1", 3), "r-1").proof)),
    "a cancel with the alert's proof": lambda: stored(replace(OVER, proof=GOOD.proof)),
    "a cancel with another reason": lambda: stored(
        replace(OVER, proof=replace(p := proved(OVER, "r-1").proof, form=p.form.replace("well", "lost")))
    ),
    "a cancel of which a bit is another": lambda: stored(
        replace(OVER, proof=replace(p := proved(OVER, "r-1").proof, signatures=spoiled(_flip)((p.signatures[0],) * 2)))
    ),
    "a cancel that says a category without reviewers": lambda: stored(OVER, category="arson"),
}  # fmt: skip
