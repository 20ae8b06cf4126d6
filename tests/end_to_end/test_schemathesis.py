"""schemathesis against a node: whatever is made from the OpenAPI document, the node answers as the document says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from end_to_end.keys import DESK_SCOPE
from end_to_end.node import BIN, Node, clean_environment

HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
# A good request may be refused by the policy, a known id (409) or an ended alert (410). The hooks judge the 422s.
CONFIG = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", 404, 409, 410, 422]
"""
SECONDS = 120  # it takes five


def test_schemathesis_finds_nothing(own_node: Node, tmp_path: Path):
    """Section 4 and the OpenAPI document: with every check that there is, along its links too."""
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    token = own_node.keys.token(scope=f"{DESK_SCOPE} alerts:manage")
    done = subprocess.run(
        [
            *(BIN / "st", "--config-file", config, "run", f"{own_node.api.base_url}/openapi.json"),
            *("--header", f"Authorization: Bearer {token}", "--checks", "all"),
            *("--seed", "1", "--max-examples", "30", "--continue-on-failure", "--no-color"),
        ],
        cwd=tmp_path,
        env=clean_environment(SCHEMATHESIS_HOOKS=str(HOOKS)),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    accepted = dict(
        re.findall(
            r'^geocast_accepted_total\{kind="(\w+)"\} ([0-9.]+)', own_node.api.get("/metrics").text, re.MULTILINE
        )
    )
    assert {kind for kind, count in accepted.items() if float(count)} == {"alert", "revision", "cancel"}
    own_node.assert_serving()
