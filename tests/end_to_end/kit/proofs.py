"""A desk whose alerts are signed by reviewers, and a node that asks for it. Nothing of the server is imported here."""

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
    """Without padding (RFC 7515, 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True)
class Reviewer:
    """A person with a key."""

    sub: str
    kid: str
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def public(self) -> Json:
        """What the operator enrols."""
        x = base64url(self.key.public_key().public_bytes_raw())
        return {"kty": "OKP", "crv": "Ed25519", "alg": "Ed25519", "kid": self.kid, "sub": self.sub, "x": x}

    def private(self) -> Json:
        """The whole pair, as in an envelope."""
        return self.public() | {"d": base64url(self.key.private_bytes_raw())}

    def sign(self, form: str, **header: Any) -> Json:
        """A signature of a form; `header` changes what its header says."""
        members = {"alg": "Ed25519", "typ": "geocast-approval", "kid": self.kid, "iat": int(time.time())} | header
        protected = base64url(json.dumps(members).encode())
        signature = self.key.sign(f"{protected}.{base64url(form.encode())}".encode())
        return {"protected": protected, "signature": base64url(signature)}


@dataclass
class Published:
    """An accepted request: its body, and the form that was signed."""

    body: Json
    form: Json


@dataclass
class Desk:
    """Publishes what two of its reviewers have signed, cancels what one has."""

    node: Node
    people: list[Reviewer]
    forms: list[Json] = field(default_factory=list)

    @property
    def reviewers(self) -> Json:
        """The operator's file, and what clients pin."""
        return {"keys": [person.public() for person in self.people]}

    def publish(self, spot: Point, **fields: Any) -> Published:
        """Publish an alert; all steps of it."""
        return self._send("/v1/alerts", alert(spot, approval=None, **fields), 2)

    def revise(self, last: Published, **fields: Any) -> Published:
        """Publish the next revision."""
        body = last.body | {"revision": last.form["revision"] + 1} | fields
        return self._send(f"/v1/alerts/{body['id']}/revisions", body, 2)

    def cancel(self, last: Published, reason: str) -> Published:
        """Call it off."""
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
    """A node that sends what two reviewers have signed; `like`: the people of another desk."""
    people = like.people if like else [Reviewer(f"r-{number}", f"key-{number}") for number in range(1, 4)]
    policy, reviewers = home / "policy.toml", home / "reviewers.json"
    policy.write_text(POLICY.format(audience=audience))
    reviewers.write_text(json.dumps({"keys": [person.public() for person in people]}))
    with Node(home, keys, "--policy", str(policy), "--reviewers", str(reviewers)) as node:
        yield Desk(node, people)
