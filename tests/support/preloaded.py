"""Small C libraries that answer in place of the system's in processes that tests start (LD_PRELOAD)."""

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
    """Compile a C file; the library is there for as long as this process runs."""
    folder = tempfile.mkdtemp(prefix="geocast-preloaded-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = f"{folder}/{source.stem}.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-Wall", "-o", made, str(source)], check=True)
    return made


def preloading(source: Path) -> str:
    """Return the value of LD_PRELOAD that loads a C file before all libraries that this process has others load."""
    return " ".join([*os.environ.get("LD_PRELOAD", "").split(), _library(source)])


def slow_the_disk(seed: str) -> None:
    """Let the disk stall at random, by a seed, in each process that this one starts (`slow_disk.c`)."""
    os.environ.update(LD_PRELOAD=preloading(Path(__file__).with_name("slow_disk.c")), SLOW_FSYNC=seed)
