"""Commands that a test runs to their end."""

import subprocess


def ended(*command, **options):
    """Run a command to its end; return its exit status, and what it wrote as text."""
    usual = {"capture_output": True, "text": True, "timeout": 60}
    return subprocess.run([*map(str, command)], check=False, **usual | options)


class Outcome:
    """How a call ended: its exit status, and what it said on standard output and standard error."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    @property
    def is_one_line_error(self):
        """Whether it is a refusal as the protocol wants it."""
        return (self.status, self.out, self.err.count("\n")) == (2, "", 1) and self.err.startswith("geocast: error: ")
