"""Tests that documents and code agree: settings, close codes, problems, limits, metrics, layout, links and rules."""

import ast
import importlib
import json
import os
import re
import statistics
import subprocess
import sys
from functools import cache
from pathlib import Path

import click
import pytest

from geocast import cli, policy
from geocast.model import close_codes, problems
from geocast.policy import CallCategory, Category
from geocast.policy.cap import Cap, CapTexts
from geocast.policy.files import BUILT_IN

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "server" / "geocast"
OPTIONS = [parameter for parameter in cli.cli.commands["serve"].params if isinstance(parameter, click.Option)]
COMMANDS = [
    (name, option)
    for name, command in cli.cli.commands.items()
    if name not in ("serve", "check")
    for option in {
        each.opts[0]: each
        for each in [*command.params, *(p for sub in getattr(command, "commands", {}).values() for p in sub.params)]
    }.values()
    if isinstance(option, click.Option)
]


def document(name):
    """Return the text of the one document of this name in docs/."""
    [path] = DOCS.rglob(name)
    return path.read_text("utf-8")


def section(text, heading):
    """Return the text under a heading, up to the next heading of the same or a higher level."""
    [marks] = re.findall(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    _, _, rest = text.partition(f"{marks} {heading}\n")
    return re.split(rf"^#{{1,{len(marks)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text):
    """Return the rows of all tables in a text, each as a list of cells."""
    lines = [line.strip() for line in text.splitlines()]
    tables = [re.split(r"(?<!\\)\|", line[1:-1]) for line in lines if line.startswith("|") and line.endswith("|")]
    return [[cell.strip() for cell in cells] for cells in tables if not set("".join(cells)) <= set("-: ")]


# ---- settings.md, commands.md, policy.md ----------------------------------------------------------------------


def row_of(option, text):
    """Return the one row of a text that begins with an option."""
    found = [row for row in rows(text) if re.match(rf"`{option}[ `]", row[0])]
    assert len(found) == 1, f"there are {len(found)} rows for {option}"
    return found[0]


def default_of(option):
    """Return an option's default if it is a number or a text, otherwise None."""
    plain = isinstance(option.default, str | int | float) and not isinstance(option.default, bool)
    return option.default if plain else None


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.opts[0])
def test_every_serve_option_is_documented(option):
    """Each option has a row with its environment variable and its default (section 7)."""
    row = row_of(option.opts[0], section(document("settings.md"), "`geocast serve`"))
    assert f"`{option.envvar}`" in row
    if default := default_of(option):
        assert any(f"`{default}`" in cell for cell in row[1:]), f"its default is {default}"


def test_every_documented_serve_option_exists():
    """Every documented environment variable exists, too (section 7)."""
    options = {option.opts[0] for option in OPTIONS}
    table = rows(section(document("settings.md"), "`geocast serve`"))
    documented = {found[0] for row in table if (found := re.findall(r"^`(--[a-z-]+)", row[0]))}
    assert documented == options
    variables = set(re.findall(r"\bGEOCAST_[A-Z_]+", document("settings.md") + document("commands.md")))
    others = {"GEOCAST_TOKEN", "GEOCAST_ORIGIN", "GEOCAST_PUSH_WORKERS", "GEOCAST_RELAY_STATE", "GEOCAST_PART_OPTIONS"}
    assert variables - others == {option.envvar for option in OPTIONS}


def section_of(command):
    """Return the section about a command: on the page for operators, that for clients, or that of other ways out."""
    if command in ("tail", "part"):
        return section((ROOT / "docs" / "guide" / "ways-out.md").read_text("utf-8"), f"`geocast {command}`")
    if command in ("publish", "revise", "cancel", "listen"):
        return section(document("client-commands.md"), "Listening" if command == "listen" else "Publishing")
    return section(document("commands.md"), f"`geocast {command}`")


@pytest.mark.parametrize(("command", "option"), COMMANDS, ids=lambda value: getattr(value, "name", value))
def test_every_option_of_other_commands_is_documented(command, option):
    """Each option has a row with its default (K2)."""
    row = row_of(option.opts[0], section_of(command))
    if default := default_of(option):
        assert any(f"`{default}`" in cell for cell in row[1:]), f"its default is {default}"


KEYS = {
    name: field
    for model in (CapTexts, Cap, CallCategory, Category)
    for name, field in model.model_fields.items()
    if name != "texts"
}


@pytest.mark.parametrize("name", sorted(KEYS))
def test_every_policy_key_is_documented(name):
    """Each key has a row with its default (section 3)."""
    row = row_of(name, document("policy.md"))
    default = KEYS[name].default
    if isinstance(default, int | float) and not isinstance(default, bool):
        assert f"{default:,}" in row[2]


@pytest.mark.parametrize("name", BUILT_IN)
def test_documented_categories_are_those_of_the_built_in_policy(name):
    """policy.md, "The built-in policies": names and titles, in the order of the policy, and the bounds of all."""
    built_in = policy.load(Path(f"builtin:{name}"))
    text = document("policy.md")
    tables = rows(section(text, f"Categories of `{name}`"))
    listed = [(row[0].strip("`"), row[1]) for row in tables if row[0].startswith("`")]
    assert listed == [*((key, each.title) for key, each in built_in.categories.items()), *built_in.never.items()]

    [head, *table] = rows(section(text, "The built-in policies").partition("\n### ")[0])
    for row in table:
        keys, said = re.findall(r"`(\w+)`", row[0]), row[head.index(f"`{name}`")]
        for category in built_in.categories.values():
            values = [getattr(category, key) for key in keys]
            if isinstance(values[0], bool):
                assert said == str(values[0]).lower()
            else:
                assert {float(value) for value in values} <= set(quantities(said))


def test_documented_bash_line_enables_completion():
    """Bash runs the line from commands.md, "Completion", and then completes an option."""
    [line] = re.findall(r"^(eval .*bash_source.*?) +#", section(document("commands.md"), "Completion"), re.MULTILINE)
    asked = 'COMP_WORDS=(geocast serve --log-l); COMP_CWORD=2; _geocast_completion geocast; echo "${COMPREPLY[@]}"'
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    bash = ["bash", "-c", f"{line}; {asked}"]
    done = subprocess.run(bash, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["--log-level"]


# ---- docs/protocol.md ----------------------------------------------------------------------------------------


def test_documented_close_codes_match_the_source_code():
    """The table has code, reason and the client's reaction, in the order of the code (section 5)."""
    table = [row for row in rows(section(document("protocol.md"), "Close codes")) if row[0].isdigit()]
    assert [tuple(row) for row in table] == [
        (str(close.code), close.reason, close.reconnect.value) for close in close_codes.ALL
    ]


def test_close_codes_all_contains_every_close_code():
    """`geocast.model.close_codes` has a named value for every way a session ends."""
    named = {value for value in vars(close_codes).values() if isinstance(value, close_codes.Close)}
    assert named == set(close_codes.ALL)
    assert len({close.code for close in close_codes.ALL}) == len(close_codes.ALL)


def test_problems_all_contains_every_problem_type():
    """`geocast.model.problems` has a value for every type, named after its slug."""
    named = {name: value for name, value in vars(problems).items() if isinstance(value, problems.ProblemType)}
    assert set(named.values()) == set(problems.ALL)
    assert all(name == value.slug.upper().replace("-", "_") for name, value in named.items())
    assert len(problems.BY_SLUG) == len(problems.ALL)


@pytest.mark.parametrize("slug", sorted(problems.BY_SLUG))
def test_every_problem_type_is_documented(slug):
    """The table has each problem type under its status (H8)."""
    found = [row[0] for row in rows(section(document("protocol.md"), "Problems")) if f"`{slug}`" in row[1]]
    assert found == [str(problems.BY_SLUG[slug].status)]


def test_every_documented_problem_type_exists():
    """The table names no other types (H8)."""
    table = [row for row in rows(section(document("protocol.md"), "Problems")) if row[0].isdigit()]
    assert {slug for row in table for slug in re.findall(r"`([a-z-]+)`", row[1])} == set(problems.BY_SLUG)


PROVED = (
    "areas.md",
    "calls.md",
    "call-rules.md",
    "call-api.md",
    "defibrillators.md",
    "languages.md",
    "fetch.md",
    "publishers.md",
    "approval-rules.md",
    "ledger.md",
    "privacy.md",
    "threats.md",
    "push.md",
    "push-rules.md",
)  # the pages whose rule ids continue those of protocol.md
RULE = r"(?!HD)[A-Z]{1,3}\d+"  # the ids HD1 to HD19 belong to threats.md


def rules_of(page):
    """Return the ids of a page's rules: of rows that begin with one, and of headings that end with one in brackets."""
    text = document(page)
    in_rows = [row[0] for row in rows(text) if re.fullmatch(RULE, row[0])]
    return in_rows + re.findall(rf"^#+ .*\(({RULE})\)$", text, re.MULTILINE)


def test_rule_ids_are_unique():
    """All pages share one set of ids."""
    ids = [rule for page in ("protocol.md", *PROVED) for rule in rules_of(page)]
    assert len(ids) > 50
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("rule", [rule for page in PROVED for rule in rules_of(page)])
def test_every_rule_is_cited_in_a_test_docstring(rule):
    assert rule in cited()


@cache
def cited():
    """Return all words in the docstrings of tests; the rule ids are among them."""
    tests = [path for path in (ROOT / "tests").rglob("test_*.py") if path.name != "test_docs.py"]
    nodes = (node for path in tests for node in ast.walk(ast.parse(path.read_text("utf-8"))))
    texts = (
        ast.get_docstring(node) or "" for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return {word for text in texts for word in re.findall(r"\w+", text)}


# ---- limits.md, metrics.md ------------------------------------------------------------------------------------


def limits():
    """Return the rows of the tables of limits: name, limit, constants in the code, and the effect of the limit."""
    found = [row for row in rows(section(document("limits.md"), "Limits")) if row[0] != "what"]
    assert len(found) > 20
    return found


def quantities(text):
    """Yield the numbers in a text in the units of the code: "64 KiB" gives 65536, "1/32" gives 0.03125."""
    for number, part, unit in re.findall(r"(\d[\d,]*(?:\.\d+)?)(?:/(\d+))?( KiB)?", text):
        yield float(number.replace(",", "")) / float(part or 1) * (1024 if unit else 1)


@pytest.mark.parametrize("row", limits(), ids=lambda row: row[0][:40])
def test_documented_limit_equals_its_constant_in_the_source_code(row):
    """Each constant in the third column exists in its module, and its value is in the row."""
    names = re.findall(r"`([\w/]+)\.([A-Z_]+)`", row[2])
    assert names, "a limit is the constant of a module"
    assert len(names) == row[2].count("`") / 2
    for module, name in names:
        value = getattr(importlib.import_module(f"geocast.{module.replace('/', '.')}"), name)
        assert float(value) in set(quantities(f"{row[1]} {row[3]}")), f"{name} is {value}"


@cache
def names_of_metrics():
    """Return the names of all metrics that the code creates, in the form that Prometheus shows."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
                continue
            kind, name = getattr(node.func, "id", "") or getattr(node.func, "attr", ""), node.args[0].value
            if kind in ("gauge", "gauges", "add_histogram"):
                found.add(f"geocast_{name}")
            elif kind in ("counter", "counters", "add_counter"):
                found.add(f"geocast_{name}_total")
            elif kind in ("Counter", "Histogram"):
                found.add(f"{name}_total" if kind == "Counter" else name)
    assert len(found) > 30
    return found


def test_documented_metrics_match_the_source_code():
    """Every metric of the code has a row, and every row is about an existing metric."""
    table = rows(document("metrics.md"))
    documented = {name for row in table for name in re.findall(r"`(geocast_\w+)", row[0])}
    assert documented == names_of_metrics()


@pytest.mark.parametrize(
    "path", [*sorted(DOCS.rglob("*.md")), *sorted(DOCS.rglob("*.yml"))], ids=lambda path: path.name
)
def test_every_metric_named_in_docs_exists(path):
    """Prose and Prometheus rules are checked. A histogram has three names."""
    named = set(re.findall(r"\bgeocast_[a-z_]+", path.read_text("utf-8")))
    plain = {re.sub(r"(?<=_seconds)_(bucket|sum|count)$", "", name) for name in named}
    assert plain <= names_of_metrics()


# ---- ARCHITECTURE.md, CONTRIBUTING.md, README.md --------------------------------------------------------------


def layout():
    """Yield the files and folders in ARCHITECTURE.md's layout, each with the leftmost folder above it."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    [drawing] = re.findall(r"^## Layout\n+```\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    top = ""
    for line in drawing.splitlines():
        top = line.split()[0] if line[0] != " " else top
        for name in re.findall(r"(?<![\w/.])[\w/*]+(?:\.(?:py|toml|lua|csv)\b|/(?!\w))", line):
            yield top, name.removeprefix(top)


@pytest.mark.parametrize(("top", "name"), sorted(set(layout())))
def test_every_file_in_the_documented_layout_exists(top, name):
    """ARCHITECTURE.md, "Layout": no file or folder is named that has moved."""
    assert list((ROOT / top).rglob(name.strip("/"))) if name else (ROOT / top).is_dir()


def test_documented_layout_has_every_server_module():
    """ARCHITECTURE.md, "Layout": each module is named in the lines of its package, except `__init__` and `__main__`."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    [drawing] = re.findall(r"^server/geocast/.*\n((?:  .*\n)*)", text, re.MULTILINE)
    parts = re.split(r"^(?=  \w)", drawing, flags=re.MULTILINE)
    sections = {part.split("/")[0].strip(): part for part in parts}
    missing = set()
    for path in PACKAGE.rglob("*.py"):
        package = path.relative_to(PACKAGE).parts[0]
        told = sections.get(package) or drawing.splitlines()[-1]
        if path.stem not in ("__init__", "__main__") and not re.search(rf"\b{path.stem}\b", told):
            missing.add(str(path.relative_to(PACKAGE)))
    assert missing == set()


def test_documented_make_targets_match_the_makefile():
    """CONTRIBUTING.md, "Make targets": the table has the targets that `make help` lists, and no others."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+): .*## ", makefile, re.MULTILINE)) - {"help"}
    table = rows(section((ROOT / "CONTRIBUTING.md").read_text("utf-8"), "Make targets"))
    assert {name for row in table for name in re.findall(r"`make ([a-z-]+)", row[0])} == targets


MEASURED = {  # a sentence in "How fast" of docs/about.md: the file in bench/results and the figure in it
    r"nearest 100 have an alert after (\S+) ms": ("fanout", lambda found: found["systems"]["geocast"]["nearest_ms"]),
    r"and the last after (\S+) ms": ("fanout", lambda found: found["systems"]["geocast"]["last_ms"]),
    r"at (\S+) µs of CPU": ("fanout", lambda found: found["systems"]["geocast"]["cpu_us"]),
    r"the last has an alert after (\S+) s": ("many", lambda found: statistics.median(found["last_ms"]) / 1000),
    r"One session takes (\S+) KiB": ("many", lambda found: found["rss_bytes_per_session"] / 1024),
    r"`ingest`: (\S+) alerts a second": ("ingest", lambda found: found["by_concurrency"]["1"]["alerts_per_s"]),
    r"(\S+) from 256": ("ingest", lambda found: found["by_concurrency"]["256"]["alerts_per_s"]),
}


@pytest.mark.parametrize("pattern", MEASURED)
def test_published_figures_match_the_recorded_benchmark_results(pattern):
    """docs/about.md, "How fast": each figure is within a tenth of the last result, so new results must be entered."""
    name, figure = MEASURED[pattern]
    text = " ".join(section(document("about.md"), "How fast").split())
    [said] = re.findall(pattern, text)
    found = json.loads((ROOT / "bench" / "results" / f"{name}.json").read_text("utf-8"))["found"]
    assert float(said.replace(",", "")) == pytest.approx(figure(found), rel=0.1)


# ---- all documents -------------------------------------------------------------------------------------------


def test_changelog_lists_no_change_twice():
    """CHANGELOG.md: a new change is not also listed under the first release, and is listed in one place only."""
    changes = re.findall(r"^- .*(?:\n  .*)*", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    begin = [" ".join(change.split())[:60] for change in changes]
    assert len(begin) > 60
    assert sorted(begin) == sorted(set(begin))


def documents():
    """Return the paths of all documents of the project."""
    folders = [ROOT / name for name in ("docs", "client_demo", "bench", "server", "tests")]
    found = [path for folder in folders for path in folder.rglob("*.md") if "node_modules" not in path.parts]
    return sorted([*ROOT.glob("*.md"), *found])


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_has_a_target(path):
    """A link to a file leads to an existing file, and a link to a heading to an existing heading."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, heading = target.partition("#")
        where = (path.parent / file).resolve() if file else path
        assert where.exists(), f"{target} is not there"
        if heading:
            assert heading in headings(where), f"{target}: no such heading"


SHORT = [path for path in sorted(DOCS.rglob("*.md")) if path.name != "protocol.md" and path.parent.name != "adr"]


@pytest.mark.parametrize("path", SHORT, ids=lambda path: str(path.relative_to(DOCS)))
def test_pages_and_table_cells_of_the_documents_are_short(path):
    """CONTRIBUTING.md: pages have at most 3,000 words and cells 200 characters, except in the protocol and ADRs."""
    assert len(path.read_text("utf-8").split()) <= 3_000
    cells = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", cell) for row in rows(prose(path)) for cell in row]
    assert [cell for cell in cells if len(cell) > 200] == []


@pytest.mark.parametrize(("page", "moved"), json.loads((DOCS / "site" / "moved.json").read_text("utf-8")).items())
def test_moved_headings_exist_on_their_new_pages(page, moved):
    """docs/site/moved.json: each anchor is a heading of its new page, and not of its old one."""
    old = [
        path for path in DOCS.rglob("*.md") if page in (path.stem, path.parent.name if path.stem == "README" else "")
    ]
    assert not set(moved) & set().union(*map(headings, old))
    for anchor, name in moved.items():
        [path] = DOCS.rglob(f"{name}.md")
        assert anchor in headings(path)


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_named_in_a_document_exists(path):
    """A path like `folder/file.py` is relative to the repository, the document's folder, the server or client_demo."""
    endings = "py|md|toml|lua|c|js|mjs|json|yml|conf|csv"
    named = set(re.findall(rf"`([\w-]+(?:/[\w.-]+)*/[\w-]+\.(?:{endings}))`", prose(path)))
    tops = (ROOT, path.parent, PACKAGE, ROOT / "client_demo")
    missing = {name for name in named if not any((top / name).exists() for top in tops)}
    assert not {name for name in missing if "NAME" not in name}


def prose(path):
    """Return a document without its code blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def headings(path):
    """Return the anchors of a document: those that GitHub makes from its headings, and those in HTML."""
    text = path.read_text("utf-8")
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    return made | set(re.findall(r'<a id="([\w-]+)">', text))
