"""A desk whose alerts are signed by reviewers, and a node that requires the signatures.

Nothing of the server is imported here.
"""

import base64
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from end_to_end.kit.alerts import Json, alert
from end_to_end.kit.earth import Point
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node

AUDIENCE = "alerts.harbour.example"
POLICY = """
name = "signed"
audience = "{audience}"

[defaults]
approvals = 2
cancel_approvals = 1

[categories.burglary]
title = "Burglary"

[categories.robbery]
title = "Robbery"
approvals = 0
cancel_approvals = 0
"""


def base64url(data: bytes) -> str:
    """Encode bytes as base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True)
class Reviewer:
    """A person with a signing key."""

    sub: str
    kid: str
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def public(self) -> Json:
        """Return the public key as the operator enrols it."""
        x = base64url(self.key.public_key().public_bytes_raw())
        return {"kty": "OKP", "crv": "Ed25519", "alg": "Ed25519", "kid": self.kid, "sub": self.sub, "x": x}

    def private(self) -> Json:
        """Return the key pair as a private JWK."""
        return self.public() | {"d": base64url(self.key.private_bytes_raw())}

    def sign(self, form: str, **header: Any) -> Json:
        """Return a signature over a form; `header` changes members of the protected header."""
        members = {"alg": "Ed25519", "typ": "geocast-approval", "kid": self.kid, "iat": int(time.time())} | header
        protected = base64url(json.dumps(members).encode())
        signature = self.key.sign(f"{protected}.{base64url(form.encode())}".encode())
        return {"protected": protected, "signature": base64url(signature)}


@dataclass
class Published:
    """An accepted request: its body, and the signed form."""

    body: Json
    form: Json


@dataclass
class Desk:
    """A desk that publishes with the signatures of two reviewers, and cancels with that of one."""

    node: Node
    people: list[Reviewer]
    forms: list[Json] = field(default_factory=list)

    @property
    def reviewers(self) -> Json:
        """The operator's file of reviewers, which clients pin."""
        return {"keys": [person.public() for person in self.people]}

    def publish(self, spot: Point, **fields: Any) -> Published:
        """Publish an alert: get the form by a dry run, sign it, and post the request."""
        return self._send("/v1/alerts", alert(spot, approval=None, **fields), 2)

    def revise(self, last: Published, **fields: Any) -> Published:
        """Publish the next revision."""
        body = last.body | {"revision": last.form["revision"] + 1} | fields
        return self._send(f"/v1/alerts/{body['id']}/revisions", body, 2)

    def cancel(self, last: Published, reason: str) -> Published:
        """Cancel an alert."""
        body = {"revision": last.form["revision"] + 1, "reason": reason}
        return self._send(f"/v1/alerts/{last.form['id']}/cancel", body, 1)

    def _send(self, path: str, body: Json, approvals: int) -> Published:
        dry = self.node.post(path, body, dry_run="true")
        assert dry.status_code == 200, dry.text
        form = dry.json()["form"]
        signatures = [person.sign(form) for person in self.people[:approvals]]
        answer = self.node.post(path, body | {"approval": {"form": form, "signatures": signatures}})
        assert answer.status_code == 201, answer.text
        self.forms.append(json.loads(form))
        return Published(body, self.forms[-1])


@contextlib.contextmanager
def signing_node(keys: Keys, home: Path, audience: str = AUDIENCE, like: Desk | None = None) -> Iterator[Desk]:
    """Run a node that requires two signatures for an alert.

    `like`: a desk with the same reviewers.
    """
    people = like.people if like else [Reviewer(f"r-{number}", f"key-{number}") for number in range(1, 4)]
    policy, reviewers = home / "policy.toml", home / "reviewers.json"
    policy.write_text(POLICY.format(audience=audience))
    reviewers.write_text(json.dumps({"keys": [person.public() for person in people]}))
    with Node(home, keys, "--policy", str(policy), "--reviewers", str(reviewers)) as node:
        yield Desk(node, people)
