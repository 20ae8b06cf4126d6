"""A run of schemathesis against a node: requests made from the OpenAPI document get the documented answers."""

import re
from pathlib import Path

from end_to_end.kit.dispatcher import DISPATCH_SCOPE
from end_to_end.kit.keys import DESK_SCOPE
from end_to_end.kit.node import BIN, Node, clean_environment
from support.command import ended

HOOKS = Path(__file__).parents[1] / "kit" / "schemathesis_hooks.py"
# A valid request may be refused by the policy, a known id (409) or an ended alert (410). The hooks check the 422s.
CONFIG = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", 404, 409, 410, 422]
"""
SECONDS = 120  # the limit; usually the run takes 5 s


def test_schemathesis_finds_no_violation_of_the_openapi_document(own_calling: Node, tmp_path: Path):
    """The run uses every check, and follows the document's links (section 4)."""
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    token = own_calling.keys.token(scope=f"{DESK_SCOPE} alerts:manage {DISPATCH_SCOPE}")
    done = ended(
        *(BIN / "st", "--config-file", config, "run", f"{own_calling.api.base_url}/openapi.json"),
        *("--header", f"Authorization: Bearer {token}", "--checks", "all"),
        *("--seed", "1", "--max-examples", "30", "--continue-on-failure", "--no-color"),
        cwd=tmp_path,
        env=clean_environment(SCHEMATHESIS_HOOKS=str(HOOKS)),
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown = own_calling.api.get("/metrics").text
    for name, kinds in (("accepted", {"alert", "revision", "cancel"}), ("calls_accepted", {"call", "content", "end"})):
        found = re.findall(rf'^geocast_{name}_total\{{kind="(\w+)"\}} ([0-9.]+)', shown, re.MULTILINE)
        assert {kind for kind, count in found if float(count)} == kinds
    own_calling.assert_serving()
