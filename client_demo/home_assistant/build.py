"""Build the integration for Home Assistant: a complete folder, and a zip of it.

    python client_demo/home_assistant/build.py dist/home-assistant

The client library is on no package index, so the folder gets a copy of it (`custom_components/geocast/client`). The
result has the layout of a repository for HACS. Copy its folder `custom_components` into Home Assistant's configuration
folder, or unpack the zip there.
"""

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLIENT = HERE.parent / "python"
LICENSE = HERE.parents[1] / "LICENSE"
NOT_COPIED = shutil.ignore_patterns("__pycache__", "build.py", "pyproject.toml", "*.md", ".*")


def build(folder: Path) -> Path:
    """Make the complete folder, in place of an older one, and return the path of the zip beside it."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HERE, folder, ignore=NOT_COPIED)
    shutil.copytree(CLIENT, folder / "custom_components" / "geocast" / "client", ignore=NOT_COPIED)
    shutil.copy(HERE / "README.md", folder)
    shutil.copy(LICENSE, folder)
    return Path(shutil.make_archive(str(folder), "zip", folder, "custom_components"))


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
