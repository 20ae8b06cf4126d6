"""Tests that fail if a step of CONTRIBUTING.md, "Your first change", is forgotten."""

import re
import tomllib
from pathlib import Path

from end_to_end.kit.alerts import CATEGORIES

from geocast import policy

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
    """client_demo/demo/policy.toml has the same tables, and calls besides."""
    built_in = tomllib.loads(read("server/geocast/policy/builtin/neighbourhood.toml"))
    demo = tomllib.loads(read("client_demo/demo/policy.toml"))
    assert [demo[table] for table in ("categories", "never")] == [built_in[table] for table in ("categories", "never")]


def test_end_to_end_tests_publish_in_every_category_of_the_built_in_policy():
    """tests/end_to_end/kit/alerts.py imports nothing from geocast, so it has a list of its own."""
    assert [*BUILT_IN.categories] == CATEGORIES
