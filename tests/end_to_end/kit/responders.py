"""A node that notifies responders nearby, and tokens for it. Nothing of the server is imported here."""

import time
from pathlib import Path

from end_to_end.kit.dispatcher import DISPATCH_SCOPE, make_call_key
from end_to_end.kit.keys import PHONE_SCOPE, Keys
from end_to_end.kit.node import Node

POLICY = """
name = "town"
[categories]
burglary = { title = "Burglary" }
[calls.cardiac_arrest]
title = "Cardiac arrest: CPR needed"
quals = ["cpr", "medic"]
rings_m = [500, 1500]
seats = ["cpr", "cpr"]
"""


def responding_node(home: Path, *options: str) -> Node:
    """Return a node whose policy has a call with two seats."""
    (home / "policy.toml").write_text(POLICY)
    make_call_key(home)
    return Node(home, Keys(["cpr"]), "--policy", "policy.toml", "--call-keys", "call-keys.jwks", *options)


def responder_token(node: Node, name: str) -> str:
    """Return a token of a responder with the qualification `cpr`, valid for an hour."""
    now = int(time.time())
    return node.keys.token(sub=name, scope=PHONE_SCOPE, quals=["cpr"], iat=now, exp=now + 3600)


def dispatch_token(node: Node, name: str = "cad-3") -> str:
    """Return a token of a dispatcher."""
    return node.keys.token(sub=name, scope=DISPATCH_SCOPE)
