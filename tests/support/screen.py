"""A screen that nobody sees, for browsers that draw with OpenGL only on a screen (Xvfb)."""

import contextlib
import os
import subprocess
from collections.abc import Iterator


@contextlib.contextmanager
def screen() -> Iterator[str]:
    """Run a screen; yield its name for the environment variable DISPLAY."""
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1600x1200x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL) as process:
        os.close(writing)
        with os.fdopen(reading) as said:
            number = said.readline().strip()
        try:
            yield f":{number}"
        finally:
            process.terminate()
