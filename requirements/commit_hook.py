"""The build hook that puts the git commit into packages, for `geocast --version` and `geocast_build_info`."""

import os
import runpy
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILE = "server/geocast/commit.txt"  # in an sdist; a wheel that is built from the sdist contains it, too


class CommitHook(BuildHookInterface):  # type: ignore[type-arg]
    """A hook that adds commit.txt to a package that is built from a git checkout or with COMMIT in the environment."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the commit to a temporary file, so that the source tree stays clean, and include it as FILE."""
        commit = os.environ.get("COMMIT", "")[:12] or self._commit()
        if version == "editable" or not commit or (Path(self.root) / FILE).exists():
            return
        with NamedTemporaryFile("w", encoding="ascii", prefix="geocast-commit-", delete=False) as file:
            file.write(f"{commit}\n")
        self._file = Path(file.name)
        target = FILE if self.target_name == "sdist" else FILE.removeprefix("server/")
        build_data["force_include"][file.name] = target

    def finalize(self, *_: Any) -> None:
        """Remove the file that `initialize` wrote."""
        if written := getattr(self, "_file", None):
            written.unlink()

    def _commit(self) -> str:
        """Return what `geocast.commit` returns. The package can't be imported during an isolated build."""
        return str(runpy.run_path(str(Path(self.root) / "server" / "geocast" / "__init__.py"))["commit"]())
