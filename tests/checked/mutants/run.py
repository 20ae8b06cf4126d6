"""Mutation testing with mutmut (`make mutants PACKAGE=geometry`): change the code, and see whether the tests notice.

mutmut changes one thing at a time in the functions of a package: a comparison, a number, an argument, a text. Then it
runs the tests that call the changed function. A change that no test notices is a survivor. Each survivor is either a
statement that is missing in the tests, or a change that makes no difference; explained.toml has a line for each of the
latter. This command fails if there is a survivor without an explanation, or an explanation without its survivor.

The work is in build/mutants/PACKAGE. A run that was interrupted goes on there; a run after a complete one tests the
survivors again.
"""

import json
import os
import subprocess
import sys
import tomllib
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
SURVIVED = {0, 5, 33}  # exit status of the tests: none failed, or there is none for the function
ALL = "0123456789"
# `-k`: the code that mutmut changes is slower, so a test of its CPU time would fail.
SETTINGS = """\
[mutmut]
source_paths = src
only_mutate =
    {files}
pytest_add_cli_args =
    -p
    no:schemathesis
    -p
    fastest_first
    -m
    {marked}
    -k
    not takes_little_time
pytest_add_cli_args_test_selection =
    {tests}
timeout_multiplier = 5.0
timeout_constant = 2.0
track_dependencies = false
use_git_change_detection = false
on_dependency_change = ignore
"""


def prepare(package: str, settings: dict[str, Any]) -> Path:
    """Make the folder in which mutmut works: it expects the code in `src`, and its settings beside it."""
    work = ROOT / "build" / "mutants" / package
    (work / "mutants").mkdir(parents=True, exist_ok=True)
    links = {work / "src": "server", work / "tests": "tests", work / "pyproject.toml": "pyproject.toml"}
    links |= {work / "mutants" / name: name for name in ("bench", "client_demo", "docs")}
    for link, target in links.items():
        link.is_symlink() or link.symlink_to(ROOT / target)
    # mutmut takes a file for complete if it was interrupted while it wrote the file, before the file's `.meta`.
    for path in (path for name in settings["files"] for path in (work / "mutants" / "src" / "geocast").glob(name)):
        meta = path.with_name(f"{path.name}.meta")
        if path.suffix == ".py" and not (meta.exists() and meta.stat().st_mtime >= path.stat().st_mtime):
            path.unlink()
    files = "\n    ".join(f"src/geocast/{name}" for name in settings["files"])
    marked = settings.get("marked", "not slow")
    tests = "\n    ".join(f"tests/{name}" for name in settings["tests"])
    (work / "setup.cfg").write_text(SETTINGS.format(files=files, tests=tests, marked=marked))
    return work


def results(work: Path) -> dict[str, dict[str, int | None]]:
    """Return the exit status of the tests for each mutant of each module; None if it was not tested yet."""
    files = sorted((work / "mutants" / "src" / "geocast").rglob("*.py.meta"))
    return {path.name[:-8]: json.loads(path.read_text())["exit_code_by_key"] for path in files}


def unchecked(work: Path, sample: str) -> list[str]:
    """Return the chosen mutants that were not tested yet."""
    codes = {name: code for codes in results(work).values() for name, code in codes.items()}
    return [name for name, code in codes.items() if code is None and name[-1] in sample]


def due(work: Path, sample: str) -> list[str]:
    """Return the mutants to test: those that were not tested yet; if there are none, the survivors.

    If nothing is known yet, return a pattern of names.
    """
    known = {name: code for codes in results(work).values() for name, code in codes.items() if name[-1] in sample}
    survivors = [name for name, code in known.items() if code in SURVIVED]
    return (unchecked(work, sample) or survivors or [next(iter(known))]) if known else [f"*[{sample}]"]


def change(name: str) -> tuple[str, str, str]:
    """Return where a mutant is, the lines that it removes, and those that it adds."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant  # it reads the settings of the folder that it is in

    lines = get_diff_for_mutant(name).splitlines()[2:]
    removed, added = (
        "\n".join(line[1:].strip() for line in lines if line.startswith(sign) and line[1:].strip()) for sign in "-+"
    )
    return function(name), removed, added


def function(name: str) -> str:
    """Return the module, class and name of a mutant's function: `geometry.sphere.Cap.contains`."""
    module, _, mangled = name.partition("__mutmut_")[0].rpartition(".")
    return ".".join([module.removeprefix("geocast."), *mangled[2:].split("ǁ")])


def report(package: str, work: Path, sample: str) -> int:
    """Print the score of each module and the survivors without an explanation. Return the exit status."""
    explained = tomllib.loads((HERE / "explained.toml").read_text()).get(package, [])
    because = {(entry["in"], entry["line"].strip(), new.strip()) for entry in explained for new in entry["becomes"]}
    functions = {where for where, _, _ in because}
    os.chdir(work)
    row = "{:<24}{:6} mutants {:6} killed {:6} explained {:6} unexplained {:6} not tested".format
    survivors, stale, total = set(), set(because), [0] * 5
    for module, codes in results(work).items():
        counts = [0] * 5
        for name, code in codes.items():
            if name[-1] not in sample:
                continue
            state = 4 if code is None else 1
            if code in SURVIVED:
                survivors.add(change(name))
                state = 2 if change(name) in because else 3
            counts[0], counts[state] = counts[0] + 1, counts[state] + 1
        stale -= {
            change(name) for name, code in codes.items() if code in {None, *SURVIVED} and function(name) in functions
        }
        total = [before + new for before, new in zip(total, counts, strict=True)]
        print(row(module, *counts))
    print(row(package, *total), f"{total[1] / total[0]:.1%}", sep="\n")
    for (where, line), changes in groupby(sorted(survivors - because), key=lambda each: each[:2]):
        becomes = ",\n".join(f"    '''{added}'''" for _, _, added in changes)
        print(f"\n[[{package}]]\nin = '{where}'\nline = '''{line}'''\nbecomes = [\n{becomes},\n]\nbecause = ''")
    for entry in sorted(stale):
        print("\nexplained.toml explains what is no survivor:", *entry, sep="\n")
    return int(bool(survivors - because or stale or total[4]))


def main(package: str, sample: str = "") -> int:
    """Test the mutants of one package whose numbers end in one of the digits of `sample`."""
    settings = tomllib.loads((HERE / "packages.toml").read_text("utf-8"))[package]
    sample = sample or settings.get("sample", ALL)
    work = prepare(package, settings)
    mutmut = [Path(sys.executable).parent / "mutmut", "run", "--max-children", "1"]
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": str(HERE)}
    while True:
        done = subprocess.run([*mutmut, *due(work, sample)], cwd=work, env=environment, check=False)
        if done.returncode or not unchecked(work, sample):
            break
    return report(package, work, sample)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
