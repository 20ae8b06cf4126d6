"""Tests that fail if a step of CONTRIBUTING.md, "Your first change", is forgotten."""

import re
import tomllib
from pathlib import Path

import pytest
from end_to_end.kit.alerts import CATEGORIES

from geocast import policy
from geocast.cli.publish import NOT_KEPT
from geocast.model.alert import Alert
from geocast.model.members import members_of
from geocast.wire.output import AlertOut
from geocast.wire.requests import AlertRequest, RevisionRequest

ROOT = Path(__file__).resolve().parents[2]
BUILT_IN = policy.load(None)


def read(name):
    """Return the text of a file of the repository."""
    return (ROOT / name).read_text("utf-8")


# ---- a category --------------------------------------------------------------------------------------------------


def test_protocol_lists_the_categories_of_the_built_in_policy():
    """docs/protocol.md, section 3."""
    [listed] = re.findall(r"^`neighbourhood` has these categories: ([^.]*)\.", read("docs/protocol.md"), re.MULTILINE)
    assert re.findall(r"`(\w+)`", listed) == [*BUILT_IN.categories]


def test_commands_page_counts_the_categories_of_the_built_in_policy():
    """docs/reference/commands.md shows what `geocast check` prints about the policy."""
    count, never = len(BUILT_IN.categories), len(BUILT_IN.never)
    line = f"policy: neighbourhood, with {count} categories; {never} are never alerted"
    assert line in read("docs/reference/commands.md").splitlines()


def test_desk_has_words_for_every_category_of_the_built_in_policy():
    """client_demo/desk/wording.toml has no others."""
    assert tomllib.loads(read("client_demo/desk/wording.toml")).keys() == BUILT_IN.categories.keys()


def test_demo_has_the_categories_of_the_built_in_policy():
    """client_demo/demo/policy.toml has the same tables, and besides floods (of its feed of warnings) and calls."""
    built_in = tomllib.loads(read("server/geocast/policy/builtin/neighbourhood.toml"))
    demo = tomllib.loads(read("client_demo/demo/policy.toml"))
    del demo["categories"]["flood"]
    assert [demo[table] for table in ("categories", "never")] == [built_in[table] for table in ("categories", "never")]


def test_end_to_end_tests_publish_in_every_category_of_the_built_in_policy():
    """tests/end_to_end/kit/alerts.py imports nothing from geocast, so it has a list of its own."""
    assert [*BUILT_IN.categories] == CATEGORIES


# ---- a field of an alert -----------------------------------------------------------------------------------------

NOT_SENT = {"threat", "approval", "confirm"}  # rule A14


def section(heading):
    """Return a section of docs/protocol.md."""
    return read("docs/protocol.md").split(f"\n### {heading}\n")[1].split("\n### ")[0]


def test_every_field_of_a_request_is_a_member_of_alerts():
    """Otherwise the value would be dropped (rule A13). `threat` is always the same in an accepted alert (rule A7)."""
    assert AlertRequest.model_fields.keys() - {"threat"} <= {each.name for each in members_of(Alert)}


def test_every_field_of_a_request_is_sent():
    """Subscribers are sent the publisher's fields, except those in rule A14 (rule A13)."""
    assert AlertRequest.model_fields.keys() - NOT_SENT <= AlertOut.__annotations__.keys()


def test_every_field_of_a_request_has_a_row_in_the_protocol():
    """docs/protocol.md, "What a publisher sends"."""
    table = section("What a publisher sends")
    assert re.findall(r"^\| A\d+ \| `(\w+)`", table, re.MULTILINE) == [*AlertRequest.model_fields]


@pytest.mark.parametrize("name", sorted(AlertOut.__annotations__))
def test_every_member_that_is_sent_is_documented(name):
    """docs/protocol.md, "What a subscriber is sent", and the types of the web client."""
    assert re.search(rf"[`\"]{name}[`\"]", section("What a subscriber is sent"))
    types = read("client_demo/web/geocast/geocast.d.ts")
    [alert] = re.findall(r"^export interface Alert {(.*?)^}", types, re.MULTILINE | re.DOTALL)
    assert re.search(rf"^  readonly {name}\??:", alert, re.MULTILINE)


def test_revise_command_keeps_every_member_that_a_revision_may_have():
    """`geocast revise` sends back all members of the current alert except those that it must not."""
    assert {*NOT_KEPT} == AlertOut.__annotations__.keys() - RevisionRequest.model_fields.keys() | {"area"}
