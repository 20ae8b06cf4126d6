"""Commands that a test runs until they exit."""

import subprocess


def ended(*command, **options):
    """Run a command until it exits and return its status and its output as text."""
    usual = {"capture_output": True, "text": True, "timeout": 60}
    return subprocess.run([*map(str, command)], check=False, **usual | options)


class Outcome:
    """The exit status of a command, and its text on standard output and standard error."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    @property
    def is_one_line_error(self):
        """Whether the command failed with status 2 and one error line, as the protocol requires."""
        return (self.status, self.out, self.err.count("\n")) == (2, "", 1) and self.err.startswith("geocast: error: ")
