"""Tests that rule ids resolve: the ids that tests cite, and the letters of ids in the glossary."""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "server" / "geocast"
ID = r"[A-Z][A-Za-z]{0,3}\d+[a-z]?"
OTHER_WORDS = {"Ed25519", "HS256", "IPv4", "IPv6"}  # look like ids of rules


def ids_in(path):
    """Return the ids of the rules that a page or the docstring of a module contains."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        return set(re.findall(rf"^ +({ID})  ", ast.get_docstring(ast.parse(text)) or "", re.MULTILINE))
    found = set(re.findall(rf"^\| ({ID}) \|", text, re.MULTILINE))  # a row that begins with an id
    titles = re.findall(rf"^#+ .*\(({ID})(?: to ({ID}))?\)$", text, re.MULTILINE)  # a heading that ends with an id
    found |= {each for title in titles for each in title if each}
    return found | set(re.findall(r"\b(HD\d+)[,:]", text) if path.name == "threats.md" else ())


def letters(rule):
    """Return the part of an id before its number."""
    return re.match("[A-Za-z]+", rule)[0]


def glossary():
    """Return the files in which the glossary says that the rules of some letters are."""
    table = (DOCS / "glossary.md").read_text("utf-8").split("\n## Ids of rules\n")[1]
    return {
        name: [(DOCS / target.partition("#")[0]).resolve() for target in re.findall(r"\]\(([^)]+)\)", row)]
        for row in re.findall(r"^\| `.*", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }


def defined():
    """Return each rule with the files that contain it."""
    found = defaultdict(set)
    for path in [*DOCS.rglob("*.md"), *PACKAGE.rglob("*.py")]:
        for rule in ids_in(path):
            found[rule].add(path)
    return found


def test_glossary_has_the_letters_of_every_rule():
    """docs/glossary.md, "Ids of rules": each rule is in a file of its row, and each file has rules of its row."""
    table, rules = glossary(), defined()
    assert {letters(rule) for rule in rules} == table.keys()
    assert {rule: files for rule, files in rules.items() if not files & {*table[letters(rule)]}} == {}
    for name, files in table.items():
        for file in files:
            assert name in {letters(rule) for rule in ids_in(file)}, f"{file.name} has no rule {name}…"


def test_every_rule_that_a_test_cites_exists():
    """A rule is a row or a heading of a document, or a paragraph of a module's docstring."""
    known, unknown = defined().keys() | OTHER_WORDS, defaultdict(set)
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                for word in re.findall(rf"\b{ID}\b", ast.get_docstring(node) or ""):
                    if word not in known:
                        unknown[word].add(str(path.relative_to(ROOT)))
    assert unknown == {}
