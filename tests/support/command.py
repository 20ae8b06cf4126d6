"""A call of `geocast`, and how it ended."""


class Outcome:
    """How a call ended: its exit status, and what it said on standard output and standard error."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    @property
    def is_one_line_error(self):
        """Whether it is a refusal as the protocol wants it."""
        return (self.status, self.out, self.err.count("\n")) == (2, "", 1) and self.err.startswith("geocast: error: ")
