"""The documents say what the code does: settings, close codes, problem types, the rules that tests cite."""

import re
from pathlib import Path

import click
import pytest

from geocast import cli, closing
from geocast.errors import PROBLEMS
from geocast.policy import Category

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
OPTIONS = [parameter for parameter in cli.serve.params if isinstance(parameter, click.Option)]
COMMANDS = [(name, option) for name in ("keygen", "token") for option in cli.cli.commands[name].params]


def document(name):
    """The text of a document."""
    path = DOCS / name
    assert path.is_file(), f"docs/{name} is missing"
    return path.read_text("utf-8")


def section(text, heading):
    """What stands under a heading, up to the next one of the same depth or above."""
    [marks] = re.findall(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    _, _, rest = text.partition(f"{marks} {heading}\n")
    return re.split(rf"^#{{1,{len(marks)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text):
    """The rows of all tables in a text, cell by cell."""
    lines = [line.strip() for line in text.splitlines()]
    tables = [re.split(r"(?<!\\)\|", line[1:-1]) for line in lines if line.startswith("|") and line.endswith("|")]
    return [[cell.strip() for cell in cells] for cells in tables if not set("".join(cells)) <= set("-: ")]


# ---- docs/settings.md ----------------------------------------------------------------------------------------


def row_of(option, heading):
    """The row of docs/settings.md that begins with an option."""
    found = [row for row in rows(section(document("settings.md"), heading)) if re.match(rf"`{option}[ `]", row[0])]
    assert len(found) == 1, f"docs/settings.md has {len(found)} rows for {option}"
    return found[0]


def default_of(option):
    """An option's default, if it is one that can be written down."""
    plain = isinstance(option.default, str | int | float) and not isinstance(option.default, bool)
    return option.default if plain else None


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.opts[0])
def test_every_option_of_serve_is_documented(option):
    """Section 7: each option with its environment variable and its default."""
    row = row_of(option.opts[0], "`geocast serve`")
    assert f"`{option.envvar}`" in row
    if default := default_of(option):
        assert any(f"`{default}`" in cell for cell in row[1:]), f"its default is {default}"


def test_no_option_of_serve_is_documented_that_is_not_there():
    """Section 7."""
    options = {option.opts[0] for option in OPTIONS}
    table = rows(section(document("settings.md"), "`geocast serve`"))
    documented = {found[0] for row in table if (found := re.findall(r"^`(--[a-z-]+)", row[0]))}
    assert documented == options
    variables = set(re.findall(r"\bGEOCAST_[A-Z_]+", document("settings.md")))
    assert variables - {"GEOCAST_TOKEN"} == {option.envvar for option in OPTIONS}


@pytest.mark.parametrize(("command", "option"), COMMANDS, ids=lambda value: getattr(value, "name", value))
def test_every_option_of_the_other_commands_is_documented(command, option):
    """K2."""
    row = row_of(option.opts[0], f"`geocast {command}`")
    if default := default_of(option):
        assert any(f"`{default}`" in cell for cell in row[1:]), f"its default is {default}"


@pytest.mark.parametrize("name", sorted(Category.model_fields))
def test_every_key_of_a_policy_is_documented(name):
    """Section 3: with its default."""
    row = row_of(name, "`geocast serve`")
    default = Category.model_fields[name].default
    if isinstance(default, int | float):
        assert f"{default:,}" in row[2]


# ---- docs/protocol.md ----------------------------------------------------------------------------------------


def test_the_close_codes_are_those_of_the_code():
    """Section 5, close codes: code, reason and what a client does, in this order."""
    table = [row for row in rows(section(document("protocol.md"), "Close codes")) if row[0].isdigit()]
    assert [tuple(row) for row in table] == [
        (str(close.code), close.reason, close.reconnect.value) for close in closing.ALL
    ]


def test_every_way_to_close_is_in_the_list():
    """`geocast.closing`: every way a session ends is a named value, and in ALL."""
    named = {value for value in vars(closing).values() if isinstance(value, closing.Close)}
    assert named == set(closing.ALL)
    assert len({close.code for close in closing.ALL}) == len(closing.ALL)


@pytest.mark.parametrize("slug", sorted(PROBLEMS))
def test_every_problem_type_is_documented(slug):
    """H8: with its status."""
    found = [row[0] for row in rows(section(document("protocol.md"), "Problems")) if f"`{slug}`" in row[1]]
    assert found == [str(PROBLEMS[slug][0])]


def test_no_problem_type_is_documented_that_is_not_there():
    """H8."""
    table = [row for row in rows(section(document("protocol.md"), "Problems")) if row[0].isdigit()]
    assert {slug for row in table for slug in re.findall(r"`([a-z-]+)`", row[1])} == set(PROBLEMS)


def test_no_rule_has_two_ids():
    """Section by section, a rule's id names one rule."""
    ids = [row[0] for row in rows(document("protocol.md")) if re.fullmatch(r"[A-Z]\d+", row[0])]
    assert len(ids) > 50
    assert len(ids) == len(set(ids))


# ---- all documents -------------------------------------------------------------------------------------------


def documents():
    """All documents of the project that link to one another."""
    clients = [path for path in ROOT.glob("client_demo/**/*.md") if "node_modules" not in path.parts]
    return sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *clients])


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    """A link to a file of the project leads to a file, one to a heading to a heading."""
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, heading = target.partition("#")
        where = (path.parent / file).resolve() if file else path
        assert where.exists(), f"{target} is not there"
        if heading:
            assert heading in headings(where), f"{target}: no such heading"


def headings(path):
    """The anchors of a document, as GitHub makes them of its headings."""
    titles = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
