"""Small C libraries that replace functions of the system in processes that tests start (LD_PRELOAD)."""

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

COMPILER = shutil.which("cc")


@functools.cache
def _library(source: Path) -> str:
    """Compile a C file and return the library's path. The library is deleted when this process exits."""
    folder = tempfile.mkdtemp(prefix="geocast-preloaded-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = f"{folder}/{source.stem}.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-Wall", "-o", made, str(source)], check=True)
    return made


def preloading(source: Path) -> str:
    """Return a value of LD_PRELOAD that loads a C file first, then the libraries from this process's own LD_PRELOAD."""
    return " ".join([*os.environ.get("LD_PRELOAD", "").split(), _library(source)])


def stuck_disk(gate: Path) -> dict[str, str]:
    """Return the environment of a process whose `fsync` waits while the file `gate` exists (`slow_disk.c`)."""
    return {"LD_PRELOAD": preloading(Path(__file__).with_name("slow_disk.c")), "STUCK_FSYNC": str(gate)}


def slow_the_disk(seed: str) -> None:
    """Make `fsync` stall at random, by a seed, in each process that this process starts (`slow_disk.c`)."""
    os.environ.update(LD_PRELOAD=preloading(Path(__file__).with_name("slow_disk.c")), SLOW_FSYNC=seed)
