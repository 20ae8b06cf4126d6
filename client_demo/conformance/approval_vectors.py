"""Test vectors for clients that verify approvals: signed approval forms (the texts that reviewers sign), and forgeries.

The keys have fixed seeds, and Ed25519 signatures are deterministic, so the file is the same each time. Never use these
keys for anything else.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .exact import Json

AUDIENCE = "alerts.harbour.example"
IAT = 1_935_403_145
APPROVED_AT = "2031-05-01T11:59:05.000Z"
# The owner of each key, by `kid`. The reviewer r-7 has two keys. The stranger's key is not among the published keys.
PEOPLE = {"8f3a91c2d4e5f607": "r-7", "11aa22bb33cc44dd": "r-7", "0c4e77d1a9b3f285": "r-9", "5566778899aabbcc": "desk-7"}
SEVEN, SEVEN_TOO, NINE, DESK = PEOPLE
STRANGER = "ffffffffffffffff"
SEEDS = {kid: bytes([number]) * 32 for number, kid in enumerate([*PEOPLE, STRANGER])}

ALERT: Json = {
    "v": 1,
    "what": "alert",
    "aud": AUDIENCE,
    "id": "desk-7.e3b0c442",
    "revision": 2,
    "source": "desk-7",
    "category": "fire_structure",
    "title": "Structure fire",
    "headline": "Building on fire – keep windows closed. 🔥",
    "severity": "severe",
    "status": "actual",
    "occurred_at": "2031-05-01T11:58:20.000Z",
    "expires_at": "2031-05-01T12:45:00.000Z",
    "area": [{"type": "circle", "lat": 32.77651106192115, "lng": -96.79535520104106, "radius_m": 1020.0}],
    "location_resolution": 9,
}
CANCEL: Json = {
    "v": 1,
    "what": "cancel",
    "aud": AUDIENCE,
    "id": "desk-7.e3b0c442",
    "revision": 3,
    "source": "desk-7",
    "category": "fire_structure",
    "reason": "The fire is out.",
    "expires_at": "2031-05-01T12:45:00.000Z",
}


def base64url(data: bytes) -> str:
    """Return bytes as base64url text without padding (RFC 7515, 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def text(form: Json) -> str:
    """Return exactly the text that reviewers sign for an approval form."""
    return json.dumps(form, ensure_ascii=False, separators=(",", ":"))


def sign(form: str, kid: str, iat: int = IAT, by: str | None = None, **header: object) -> Json:
    """Sign the approval form `form`, and return an item for the list `signatures` of an approval proof.

    `header` replaces members of the signature's header, adds others, or removes those that it sets to None. `by` is the
    reviewer whose key is used for signing; by default, it is the reviewer that `kid` names.
    """
    members = {"alg": "Ed25519", "typ": "geocast-approval", "kid": kid, "iat": iat} | header
    return sign_header(form, {name: value for name, value in members.items() if value is not None}, by or kid)


def sign_header(form: str, header: object, by: str) -> Json:
    """Return a signature of the approval form `form`, made with the key of the reviewer `by`.

    `header` is the header of the signature, which may be invalid.
    """
    protected = base64url(json.dumps(header).encode())
    signature = Ed25519PrivateKey.from_private_bytes(SEEDS[by]).sign(f"{protected}.{base64url(form.encode())}".encode())
    return {"protected": protected, "signature": base64url(signature)}


def proof(form: Json | str, *signatures: Json) -> Json:
    """Return a proof: an approval form with its signatures. By default, the reviewers r-7 and r-9 sign the form."""
    said = form if isinstance(form, str) else text(form)
    return {"form": said, "signatures": list(signatures or (sign(said, SEVEN), sign(said, NINE)))}


def alert(proof: object, **beside: object) -> Json:
    """Return an `alert` message with a proof (F9).

    `beside` has members to add to the alert itself, outside the proof.
    """
    fields = {"id": ALERT["id"], "revision": 2, "issued_at": "2031-05-01T11:59:06.482Z"} | beside
    return {"type": "alert", "alert": fields} | ({} if proof is None else {"proof": proof})


def cancel(proof: object, **beside: object) -> Json:
    """Return a `cancel` message with a proof (F9). `beside` has members to add to the message, outside the proof."""
    fields = {"type": "cancel", "id": CANCEL["id"], "revision": 3, "cancelled_at": "2031-05-01T12:20:01.003Z"} | beside
    return fields | ({} if proof is None else {"proof": proof})


def taken(form: Json, **more: object) -> Json:
    """Return the alert that a client must show after it has verified a proof that contains this approval form."""
    about = ("v", "what", "aud", "confirm", "location_resolution")
    return {name: value for name, value in form.items() if name not in about} | {"issued_at": APPROVED_AT} | more


def called_off(**more: object) -> Json:
    """Return the members that a client must use of a `cancel` message with a valid proof.

    `more` replaces some of them.
    """
    said = {"id": CANCEL["id"], "revision": 3, "reason": CANCEL["reason"]}
    return said | {"cancelled_at": APPROVED_AT} | more


Case = tuple[
    str, Json, dict[str, Any]
]  # why; the message; the expected result, and settings that differ from the defaults


def good() -> Iterator[Case]:
    """Yield cases with messages that a client must show."""
    form = text(ALERT)
    yield "two reviewers have signed", alert(proof(ALERT)), {"alert": taken(ALERT)}
    yield (
        "one signature is enough if the client requires one",
        alert(proof(form, sign(form, NINE))),
        {
            "approvals": 1,
            "alert": taken(ALERT),
        },
    )
    three = proof(form, sign(form, SEVEN), sign(form, STRANGER), sign(form, NINE))
    yield "a signature by an unknown key is ignored", alert(three), {"alert": taken(ALERT)}
    later = proof(form, sign(form, SEVEN), sign(form, NINE, IAT + 60))
    issued = {"issued_at": "2031-05-01T12:00:05.000Z"}
    yield "`issued_at` is the time of the newest approval", alert(later), {"alert": taken(ALERT, **issued)}
    spaced = json.dumps(ALERT, indent=1)
    yield "the form is verified as bytes, whatever its spacing", alert(proof(spaced)), {"alert": taken(ALERT)}
    grown = ALERT | {"confirm": {"area_km2": 3.3}, "description": "Two\nlines.", "later": [1]}
    yield "unknown members are kept, members about the form are removed", alert(proof(grown)), {"alert": taken(grown)}
    beside = alert(proof(ALERT), headline="All is well", expires_at="2031-05-02T12:45:00.000Z", area=[])
    yield "members beside the proof are not shown", beside, {"alert": taken(ALERT)}
    old = alert(proof(ALERT), issued_at="2030-01-01T00:00:00.000Z")
    yield "`issued_at` beside the proof is not shown", old, {"alert": taken(ALERT)}
    yield "a cancel", cancel(proof(CANCEL, *[sign(text(CANCEL), NINE)])), {"cancel": called_off()}
    yield (
        "a cancel with a higher number than the signed one",
        cancel(proof(CANCEL), revision=7),
        {"cancel": called_off(revision=7)},
    )
    worded = cancel(proof(CANCEL), reason="A drill.")
    yield "the reason is that of the form", worded, {"cancel": called_off()}
    bare = cancel(None, reason="The fire is out.")
    yield (
        "a cancel without a proof, if cancels need no approval",
        bare,
        {
            "cancel_approvals": 0,
            "cancel": called_off(cancelled_at="2031-05-01T12:20:01.003Z"),
        },
    )


def forged() -> Iterator[Case]:
    """Yield cases with messages that a client must drop, because their proofs were forged or changed on the way."""
    form = text(ALERT)
    by_seven, by_nine = sign(form, SEVEN), sign(form, NINE)

    def dropped(why: str, message: Json, reason: str, **more: object) -> Case:
        return why, message, {"dropped": reason, **more}

    plain = {name: value for name, value in taken(ALERT).items() if name not in ("id", "revision")}
    yield dropped("no proof", alert(None, **plain), "unsigned")
    yield dropped("a proof that is null", {**alert(None, **plain), "proof": None}, "unsigned")
    yield dropped("a cancel without a proof", cancel(None, reason="All is well."), "unsigned")
    unknown = cancel(proof(text(CANCEL), sign(text(CANCEL), STRANGER)))
    yield dropped("a cancel that only a stranger has signed", unknown, "unknown-key")
    yield dropped("one signature if two are required", alert(proof(form, by_seven)), "too-few")
    yield dropped("the same signature twice", alert(proof(form, by_seven, by_seven)), "too-few")
    yield dropped("the same person with two keys", alert(proof(form, by_seven, sign(form, SEVEN_TOO))), "too-few")
    yield dropped("one of two signers is the publisher", alert(proof(form, by_seven, sign(form, DESK))), "too-few")
    yield dropped("one reviewer and a stranger", alert(proof(form, by_seven, sign(form, STRANGER))), "unknown-key")
    stranger = alert(proof(form, by_seven, sign(form, NINE, by=STRANGER)))
    yield dropped("a stranger who claims to be r-9", stranger, "signature")
    third = proof(form, by_seven, by_nine, sign(form, DESK, by=STRANGER))
    yield dropped("two valid signatures and a wrong third one", alert(third), "signature")
    changes: dict[str, Json] = {
        "reworded": {"headline": "All is well."},
        "moved": {"area": [{"type": "circle", "lat": 40.0, "lng": -96.79535520104106, "radius_m": 1020.0}]},
        "prolonged": {"expires_at": "2031-05-02T12:45:00.000Z"},
        "renumbered": {"revision": 3},
    }
    for what, change in changes.items():
        changed = alert(proof(text(ALERT | change), by_seven, by_nine), revision=(ALERT | change)["revision"])
        yield dropped(f"{what} after it was signed", changed, "signature")
    spaced = proof(json.dumps(ALERT), by_seven, by_nine)
    yield dropped("the same content with other spacing", alert(spaced), "signature")
    exchanged = [{**by_seven, "signature": by_nine["signature"]}, {**by_nine, "signature": by_seven["signature"]}]
    yield dropped("two reviewers' signatures are exchanged", alert(proof(form, *exchanged)), "signature")
    training = ALERT | {"aud": "training.harbour.example"}
    yield dropped("an alert of another deployment", alert(proof(training)), "other-place")
    yield dropped("an alert with another id than its form", alert(proof(ALERT), id="desk-7.other"), "other-place")
    yield dropped("an alert with a higher revision than its form", alert(proof(ALERT), revision=3), "other-place")
    yield dropped("an alert with a lower revision than its form", alert(proof(ALERT), revision=1), "other-place")
    yield dropped("a cancel with a lower number than its form", cancel(proof(CANCEL), revision=2), "other-place")
    yield dropped("a cancel of another alert", cancel(proof(CANCEL), id="desk-7.other"), "other-place")
    yield dropped("an alert's form in a cancel", cancel(proof(ALERT)), "other-place")
    yield dropped("a cancel's form in an alert", alert(proof(CANCEL), revision=3), "other-place")
    yield dropped("a form of a later version", alert(proof(ALERT | {"v": 2})), "other-place")
    yield dropped("a signed form that is not JSON", alert(proof("{")), "other-place")
    yield dropped("a signed form that is not a map", alert(proof("[]")), "other-place")
    yield dropped("a signed form with NaN, which JSON lacks", alert(proof(form[:-1] + ',"x":NaN}')), "other-place")


def malformed() -> Iterator[Case]:
    """Yield cases with malformed proofs and malformed headers of signatures.

    A valid header has exactly four fields, and names one algorithm.
    """
    form = text(ALERT)
    by_seven, by_nine = sign(form, SEVEN), sign(form, NINE)
    headers: dict[str, dict[str, Any]] = {
        "alg none": {"alg": "none"},
        "alg EdDSA": {"alg": "EdDSA"},
        "alg HS256": {"alg": "HS256"},
        "no alg": {"alg": None},
        "another typ": {"typ": "JWT"},
        "no typ": {"typ": None},
        "no kid": {"kid": None},
        "a kid that is not a string": {"kid": 7},
        "no iat": {"iat": None},
        "an iat that is not an integer": {"iat": IAT + 0.5},
        "an iat that is a string": {"iat": str(IAT)},
        "an iat before 1970": {"iat": -1},
        "an iat after the year 9999": {"iat": 253_402_300_800},
        "an extra member": {"exp": IAT + 60},
        "an embedded key": {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": base64url(bytes(32))}},
        "crit": {"crit": ["b64"]},
        "unencoded content": {"b64": False},
    }
    for why, change in headers.items():
        kid = change.get("kid", SEVEN) or SEVEN
        bad = sign(form, **{"kid": kid, "by": SEVEN, **change})
        yield f"a header with {why}", alert(proof(form, bad, by_nine)), {"dropped": "signature"}
    yield (
        "a header that is not a map",
        alert(proof(form, sign_header(form, [], SEVEN), by_nine)),
        {"dropped": "signature"},
    )
    signatures: dict[str, object] = {
        "that is truncated": {**by_seven, "signature": by_seven["signature"][:-2]},
        "that is empty": {**by_seven, "signature": ""},
        "of zeros": {**by_seven, "signature": base64url(bytes(64))},
        "with padding": {**by_seven, "signature": by_seven["signature"] + "=="},
        "with a space": {**by_seven, "signature": by_seven["signature"][:40] + " " + by_seven["signature"][40:]},
        "that is not a string": {**by_seven, "signature": 7},
        "without a header": {"signature": by_seven["signature"]},
        "with an unprotected header": {"header": {"kid": SEVEN}, "signature": by_seven["signature"]},
        "that is a string instead of a map": "eyJ",
    }
    for why, signature in signatures.items():
        yield f"a signature {why}", alert({"form": form, "signatures": [signature, by_nine]}), {"dropped": "signature"}
    proofs: dict[str, object] = {
        "no signatures": {"form": form, "signatures": []},
        "nine signatures": {"form": form, "signatures": [by_seven] * 8 + [by_nine]},
        "signatures that are not a list": {"form": form, "signatures": {"0": by_seven, "1": by_nine}},
        "no form": {"signatures": [by_seven, by_nine]},
        "a form that is a map": {"form": ALERT, "signatures": [by_seven, by_nine]},
        "a form of more than 20 KiB": proof(ALERT | {"description": "ü" * 10_240}),
    }
    for why, one in proofs.items():
        yield f"a proof with {why}", alert(one), {"dropped": "signature"}
    yield "a proof that is a string", alert("yes"), {"dropped": "signature"}


def approvals() -> Json:
    """Return the content of the file `approvals.json`."""
    cases = [*good(), *forged(), *malformed()]
    return {
        "about": "The result of each message in a client that verifies (C11 to C15), with these reviewers and this "
        "audience. The client requires `approvals` (default 2) for an alert and `cancel_approvals` (default 1) for a "
        "cancel. The result is one of: `alert`, the alert as it is shown, whose `issued_at` is the time of the newest "
        "approval; `cancel`, the members that the client takes from the cancel; `dropped`, the reason (a client needs "
        "no reasons, but this project's clients report them). The seeds of the keys are 32 bytes of 0 for the first "
        "key, 32 bytes of 1 for the second, and so on.",
        "audience": AUDIENCE,
        "reviewers": {"keys": [_jwk(kid, sub) for kid, sub in PEOPLE.items()]},
        "cases": [{"why": why, "message": message, **then} for why, message, then in cases],
    }


def _jwk(kid: str, sub: str) -> Json:
    public = Ed25519PrivateKey.from_private_bytes(SEEDS[kid]).public_key()
    x = base64url(public.public_bytes(Encoding.Raw, PublicFormat.Raw))
    return {"kty": "OKP", "crv": "Ed25519", "alg": "Ed25519", "kid": kid, "sub": sub, "x": x}
