"""Tests of the commands in documents: each can be typed as printed, and each block of them is run, checked or excused.

A command of geocast, `python -m client_demo` or `python -m bench` is given to the program's real parser. A block with
other programs is run by an end-to-end test, which gets it by `blocks` (end_to_end/kit/shell.py), or has a reason in
NOT_RUN.
"""

import ast
import re
import shlex
import subprocess
from functools import cache

import click
import pytest
from support.pages import ROOT, Block, blocks_of, inline_code_of

from bench.cli import cli as bench
from client_demo.terminal.cli import main as client_demo
from geocast.cli import cli as geocast

MODULES = {"client_demo": client_demo, "bench": bench}
PAGES = [
    str(path.relative_to(ROOT))
    for folder in (".", "docs", "client_demo", "bench")
    for path in sorted((ROOT / folder).glob("*.md" if folder == "." else "**/*.md"))
    if "node_modules" not in path.parts and path.name != "CHANGELOG.md"
]
HARMLESS = {".", "[", "cat", "cd", "date", "done", "echo", "eval", "for", "kill", "sleep", "source", "wait"}
SHELL = ("sh", "bash", "console")

NOT_RUN = {  # the reason, for each block of another program that no test runs: page, heading
    ("docs/operations/container.md", "In a container"): "needs a running Docker; test_image.py runs the image itself",
    (
        "docs/operations/phones-that-sleep.md",
        "Where devices are kept",
    ): "installs files; test_deployed_redis.py reads them",
    ("docs/operations/several-nodes.md", "Redis and the nodes"): "installs; test_deployed_redis.py runs the files",
    (
        "docs/operations/several-nodes.md",
        "The proxy in front",
    ): "installs HAProxy; test_proxies.py runs it with this file",
    ("docs/operations/upgrades.md", "Upgrading"): "installs from an index; test_upgrade.py starts both releases",
    (
        "docs/guide/home-assistant.md",
        "Install it",
    ): "needs a Home Assistant; tests/client_demo/home_assistant builds the zip",
    ("docs/guide/cap.md", "CAP in"): "shows an answer; the same request is in A first warning, which is run",
    ("client_demo/python/README.md", "Show only alerts that reviewers have signed"): "installs from an index",
    ("client_demo/python/README.md", "The Python client"): "test_python_readme.py builds and installs this package",
    ("client_demo/web/geocast/README.md", "The web client"): "test_package.py packs and installs this package",
}


def scripts(page: str) -> list[Block]:
    """Return the shell blocks of a page; of a block that shows a session (`$ command`), only the typed lines."""
    found = []
    for block in blocks_of(page):
        if block.language in SHELL:
            found.append(block)
        elif block.language == "" and (typed := re.findall(r"^\$ (.*)$", block.text, re.MULTILINE)):
            found.append(Block(block.page, block.heading, "", "\n".join(typed)))
    return found


SCRIPTS = [block for page in PAGES for block in scripts(page)]


def commands_of(text: str) -> list[list[str]]:
    """Return the simple commands of a shell script, each as words. Comments and redirections are left out."""
    text = re.sub(r"<<'?(\w+)'?\n.*?\n\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"(^|\s)#.*$", "", text.replace("\\\n", " "), flags=re.MULTILINE)
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    commands: list[list[str]] = [[]]
    redirected = False
    for word in lexer:
        if re.fullmatch(r"[();<>|&\n]+", word):
            redirected = "<" in word or ">" in word
            if not redirected:
                commands.append([])
        elif not redirected:
            commands[-1].append(word)
        else:
            redirected = False
    return [words for each in commands if (words := without_settings(each))]


def without_settings(words: list[str]) -> list[str]:
    """Return the words of a command from its program on: without `export`, `NAME=value`, `do` and so on."""
    for number, word in enumerate(words):
        if word not in ("export", "do", "then", "until", "!") and not re.match(r"\w+=", word):
            return words[number:]
    return []


def program_of(words: list[str]) -> tuple[str, click.Group | None, list[str]]:
    """Return the program of a command, its click group if it is one of ours, and its arguments."""
    if words[0].rpartition("/")[2] == "geocast":
        return "geocast", geocast, words[1:]
    if words[0] in ("python", "python3") and words[1] == "-m" and words[2] in MODULES:
        return words[2], MODULES[words[2]], words[3:]
    return words[0], None, words[1:]


def is_checked(words: list[str]) -> bool:
    """Return whether this module checks such a command."""
    name, group, arguments = program_of(words)
    return group is not None or name in HARMLESS | {"make"} or "pytest" in arguments


@pytest.fixture(autouse=True)
def _only_parsing(monkeypatch: pytest.MonkeyPatch):
    """Let click parse commands without running them, as if a token were in the environment."""
    monkeypatch.setenv("GEOCAST_TOKEN", "x")
    monkeypatch.setattr(click.Command, "invoke", lambda _command, _context: None)


def parse(group: click.Group, arguments: list[str]) -> None:
    """Parse the arguments with the real parser. Raise click.UsageError.

    An ellipsis stands for arguments that the document leaves out.
    """
    try:
        group.main([word for word in arguments if word != "…"], standalone_mode=False)
    except click.MissingParameter:
        if "…" not in arguments:
            raise
    except click.BadParameter as error:
        if "does not exist" not in error.message:  # a file that the reader has
            raise


def complain(words: list[str]) -> str:
    """Return what is wrong with a command of one of our programs; "" if nothing is, or if it is another program's."""
    name, group, arguments = program_of(words)
    if group is not None:
        try:
            parse(group, arguments)
        except click.UsageError as error:
            return f"{name} {' '.join(arguments)}: {error.format_message()}"
    if name == "make":
        unknown = {word for word in arguments if "=" not in word} - targets()
        return f"make has no {unknown}" if unknown else ""
    if "pytest" in arguments:
        paths = [word for word in arguments if word.startswith("tests") and "NAME" not in word]
        return " ".join(f"{path} does not exist" for path in paths if not (ROOT / path).exists())
    return ""


@cache
def targets() -> set[str]:
    """Return the targets of the Makefile."""
    return set(re.findall(r"^([\w./$()-]+): ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)) | {".venv/.demo"}


@cache
def run_by_tests() -> set[tuple[str, str]]:
    """Return the page and heading of all shell blocks that end-to-end tests get by `blocks`."""
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "blocks":
                heading, *more = [each.value for each in node.args if isinstance(each, ast.Constant)]
                found.add((more[1] if len(more) > 1 else "docs/guide/first-alert.md", heading))
    return found


def named(block: Block) -> str:
    """Return a short name of a block for the output of pytest."""
    return f"{block.page}:{block.heading[:24]}"


@pytest.mark.parametrize("block", SCRIPTS, ids=named)
def test_documented_script_has_valid_syntax_and_existing_options(block: Block):
    """bash parses the block, and our programs' parsers accept each of their commands."""
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [said for words in commands_of(block.text) if (said := complain(words))] == []


@pytest.mark.parametrize("block", SCRIPTS, ids=named)
def test_documented_script_is_run_or_checked_or_has_a_reason(block: Block):
    """A block with other programs than ours is run by a test, or NOT_RUN says why not."""
    where = (block.page, block.heading)
    others = {program_of(words)[0] for words in commands_of(block.text) if not is_checked(words)}
    assert not others or where in run_by_tests() or where in NOT_RUN, f"nothing runs {others}"


def test_reasons_not_to_run_a_script_are_still_needed():
    """No reason is about a block that is gone or that a test runs."""
    assert {(block.page, block.heading) for block in SCRIPTS} >= NOT_RUN.keys()
    assert not NOT_RUN.keys() & run_by_tests()


@pytest.mark.parametrize("page", PAGES)
def test_commands_named_in_prose_exist(page: str):
    """Each command and option of ours that a sentence or a cell names exists."""
    wrong = []
    for code in inline_code_of(page):
        if not re.match(r"(\w+=\S+ )*(geocast|make|python3?) [^=]", code):
            continue
        try:
            [words, *_] = commands_of(code)
        except ValueError:
            continue
        _, group, arguments = program_of(words)
        wrong += [unknown(group, arguments)] if group is not None else [complain(words)]
    assert [each for each in wrong if each] == []


def unknown(command: click.Command, words: list[str]) -> str:
    """Return the first word of a command that is neither a subcommand nor an option nor a value, or ""."""
    for word in words:
        if word == "--":
            break
        if isinstance(command, click.Group) and word in command.commands:
            command = command.commands[word]
        elif word.startswith("--") and word.partition("=")[0] not in {
            "--help",
            *(name for each in command.params for name in (*each.opts, *each.secondary_opts)),
        }:
            return f"{command.name} has no option {word}"
        elif isinstance(command, click.Group) and re.match("[a-z]", word):
            return f"{command.name} has no command {word}"
    return ""
