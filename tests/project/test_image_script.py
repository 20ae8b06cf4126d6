"""Tests of requirements/image.sh, which builds the image with a program that works on the machine.

The real script runs with a PATH of commands that only print their arguments or fail.
"""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "requirements" / "image.sh"
WORKS, NO_DAEMON, NO_BUILDX = 'echo "$0 $@"', '[ "$1" != info ]', '[ "$1" != buildx ] || exit 1; echo "$0 $@"'


def build(folder: Path, programs: dict[str, str], **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a machine that has these programs, given as shell scripts."""
    for name, text in programs.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    environment = {"PATH": str(folder), "IMAGE": "geocast", **settings}
    return subprocess.run(["/bin/sh", SCRIPT], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("programs", "chosen"),
    [
        ({"docker": WORKS, "podman": WORKS, "buildah": WORKS}, "docker"),
        ({"docker": NO_DAEMON, "podman": WORKS, "buildah": WORKS}, "podman"),
        ({"docker": NO_BUILDX, "podman": WORKS}, "podman"),
        ({"docker": NO_BUILDX, "buildah": WORKS}, "buildah"),
        ({"podman": NO_DAEMON, "buildah": WORKS}, "buildah"),
    ],
)
def test_image_is_built_with_the_first_builder_that_works(tmp_path: Path, programs: dict[str, str], chosen: str):
    """A docker without its daemon, or without buildx, can't build this Dockerfile."""
    done = build(tmp_path, programs)
    said, built = done.stdout.splitlines()
    assert said == f"geocast: building geocast with {chosen}"
    assert built.startswith(f"{tmp_path / chosen} build --file Dockerfile --target node --tag geocast")
    assert ("--format docker" in built) == (chosen != "docker")


def test_image_script_names_the_possible_builders_if_none_is_installed(tmp_path: Path):
    """The exit status is 1."""
    done = build(tmp_path, {"docker": NO_BUILDX})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "geocast: an image needs docker with its daemon and buildx, podman, or buildah (apt-get install buildah)\n"
    )
