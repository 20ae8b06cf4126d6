"""A dispatcher's client, and a node that takes calls. Nothing of the server is imported here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
from end_to_end.kit.alerts import Json, new_id
from end_to_end.kit.earth import Point
from end_to_end.kit.keys import Keys, bearer
from end_to_end.kit.node import BIN, Node, clean_environment, repeated
from end_to_end.kit.process import run
from end_to_end.kit.times import stamp
from end_to_end.kit.wire import PATIENCE

DISPATCH_SCOPE = "calls:dispatch"
POLICY = """
name = "town"
[categories]
burglary = { title = "Burglary" }
[calls.cardiac_arrest]
title = "Cardiac arrest: CPR needed"
quals = ["cpr", "medic"]
residence_quals = ["medic"]
[calls.choking]
title = "Choking"
quals = ["cpr"]
max_age_s = 600
"""
ONE_RING = POLICY.replace('quals = ["cpr', 'rings_m = [2000]\nquals = ["cpr')
"""A policy with one search radius, for tests that depend on a call's revision numbers.

A call that reaches nobody widens after 200 ms, and each widening takes a number.
"""

PLACE = {
    "lat": 47.6780089,
    "lng": 8.8311129,
    "kind": "residence",
    "address": "Dorfstrasse 4, Ossingen",
    "access": "Door code 4711.\n3rd floor, left.",
}
NEAR = {"type": "circle", "lat": 47.67825933515865, "lng": 8.830423174775438, "radius_m": 210.0}
SECRETS = ("47.67800", "8.83111", "Dorfstrasse", "code 4711")  # four digits alone also occur in metrics


def calling_node(home: Path, keys: Keys, *options: str, log: str | None = None, policy: str = POLICY) -> Node:
    """Return a node whose policy has calls, with its own key to encrypt them."""
    (home / "policy.toml").write_text(policy)
    make_call_key(home)
    return Node(home, keys, "--policy", "policy.toml", "--call-keys", "call-keys.jwks", *options, log=log)


def make_call_key(home: Path, *options: str) -> Json:
    """Run `geocast keygen --call`, and return the key set that it wrote."""
    made = (BIN / "geocast", "keygen", "--call", *options)
    run(*made, environment=clean_environment(), folder=home).check_returncode()
    return json.loads((home / "call-keys.jwks").read_text())


def call(**fields: Any) -> Json:
    """Return a valid call of one minute ago; a field of `None` is left out."""
    body = {
        "id": new_id("cad"),
        "category": "cardiac_arrest",
        "headline": "Adult, not breathing. Bystander does compressions.",
        "occurred_at": stamp(minutes=-1),
        "place": PLACE,
    }
    return {name: value for name, value in (body | fields).items() if value is not None}


def call_at(spot: Point, call_id: str, *, where: Json | None = None, **fields: Any) -> Json:
    """Return a call to a public place at a point; `where` changes members of the place."""
    place = {"lat": spot[0], "lng": spot[1], "kind": "public"} | (where or {})
    return call(id=call_id, place=place, **fields)


class Dispatcher:
    """A client of a dispatcher's system at one node."""

    def __init__(self, node: Node, sub: str = "cad-3", scope: str = DISPATCH_SCOPE, **options: Any) -> None:
        """Connect to a node; `options` go to the HTTP client."""
        headers = bearer(node.keys.token(sub=sub, scope=scope))
        base = f"http://127.0.0.1:{node.api_port}"
        self.api = httpx.Client(base_url=base, headers=headers, timeout=PATIENCE, trust_env=False, **options)

    def __enter__(self) -> Dispatcher:
        return self

    def __exit__(self, *exc: object) -> None:
        self.api.close()

    def post(self, path: str, body: Any, status: int = 201) -> Json:
        """Send a POST request, repeating it while the log is unreachable; require `status` and return the answer."""
        answer = repeated(lambda: self.api.post(f"/v1/calls{path}", json=body))
        assert answer.status_code == status, answer.text
        return answer.json()

    def state(self, call_id: str) -> Json:
        """Return the node's state of a call."""
        answer = self.api.get(f"/v1/calls/{call_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()
