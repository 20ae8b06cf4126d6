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
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
KILLED, SURVIVED, NOT_CHECKED = {1, 3, 24, 36, 152, 255, -24, -11, -9}, {0, 5, 33}, None
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
pytest_add_cli_args_test_selection =
    {tests}
timeout_multiplier = 5.0
timeout_constant = 2.0
track_dependencies = false
use_git_change_detection = false
on_dependency_change = ignore
"""


def prepare(package: str) -> Path:
    """Make the folder in which mutmut works: it expects the code in `src`, and its settings beside it."""
    settings = tomllib.loads((HERE / "packages.toml").read_text())[package]
    work = ROOT / "build" / "mutants" / package
    (work / "mutants").mkdir(parents=True, exist_ok=True)
    links = {work / "src": "server", work / "tests": "tests", work / "pyproject.toml": "pyproject.toml"}
    links |= {work / "mutants" / name: name for name in ("bench", "client_demo", "docs")}
    for link, target in links.items():
        link.is_symlink() or link.symlink_to(ROOT / target)
    files = "\n    ".join(f"src/geocast/{name}" for name in settings["files"])
    marked = settings.get("marked", "not slow")
    tests = "\n    ".join(f"tests/{name}" for name in settings["tests"])
    (work / "setup.cfg").write_text(SETTINGS.format(files=files, tests=tests, marked=marked))
    return work


def results(work: Path) -> dict[Path, dict]:
    """Return what mutmut knows, for each file with mutants."""
    return {path: json.loads(path.read_text()) for path in sorted((work / "mutants" / "src").rglob("*.meta"))}


def forget_survivors(work: Path) -> None:
    """Have the survivors of a complete run tested again."""
    known = results(work)
    if any(code is NOT_CHECKED for data in known.values() for code in data["exit_code_by_key"].values()):
        return
    for path, data in known.items():
        codes = data["exit_code_by_key"]
        data["exit_code_by_key"] = {name: NOT_CHECKED if code in SURVIVED else code for name, code in codes.items()}
        path.write_text(json.dumps(data))


def change(name: str) -> str:
    """Return the removed and the added lines of a mutant."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant  # it reads the settings of the folder that it is in

    lines = get_diff_for_mutant(name).splitlines()
    return "\n".join(line[0] + " " + line[1:].strip() for line in lines[2:] if line[:1] in ("-", "+"))


def function(name: str) -> str:
    """Return the module, class and name of a mutant's function: `geometry.sphere.Cap.contains`."""
    module, _, mangled = name.partition("__mutmut_")[0].rpartition(".")
    return ".".join([module.removeprefix("geocast."), *mangled[2:].split("ǁ")])


def report(package: str, work: Path) -> int:
    """Print the score of each file and the survivors without an explanation. Return the exit status."""
    explained = tomllib.loads((HERE / "explained.toml").read_text()).get(package, [])
    because = {(entry["in"], entry["change"].strip()): entry["because"] for entry in explained}
    os.chdir(work)
    found, total = set(), [0, 0, 0, 0]
    for path, data in results(work).items():
        codes = data["exit_code_by_key"]
        survivors = [(function(name), change(name)) for name, code in codes.items() if code in SURVIVED]
        found.update(survivors)
        killed, left = sum(code in KILLED for code in codes.values()), [one for one in survivors if one in because]
        row = [len(codes), killed, len(left), len(survivors) - len(left)]
        total = [before + new for before, new in zip(total, row, strict=True)]
        print("{:<32}{:6} mutants {:6} killed {:4} explained {:4} unexplained".format(path.name[:-8], *row))
    print("{:<32}{:6} mutants {:6} killed {:4} explained {:4} unexplained".format(package, *total))
    print(f"{total[1] / total[0]:.1%} killed")
    for where, what in sorted(found - because.keys()):
        print(f"\n[[{package}]]\nin = '{where}'\nchange = '''\n{what}'''\nbecause = ''")
    for where, what in because.keys() - found:
        print(f"\nexplained.toml explains what is no survivor, in {where}:\n{what}")
    unchecked = total[0] - sum(total[1:])
    if unchecked:
        print(f"\n{unchecked} mutants are not checked")
    return int(bool(found ^ because.keys() or unchecked))


def main(package: str) -> int:
    """Run mutmut for one package."""
    work = prepare(package)
    forget_survivors(work)
    mutmut = [Path(sys.executable).parent / "mutmut", "run", "--max-children", "1"]
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": str(HERE)}
    subprocess.run(mutmut, cwd=work, env=environment, check=False)
    return report(package, work)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
