"""mutmut changes the code of the log's decisions, and the tests notice each change that makes a difference.

This takes half a minute. `make mutants PACKAGE=geometry` does the same for other packages, which take much longer.
"""

import re
import sys

import pytest
from checked.tool import HERE, Tool, run

pytestmark = pytest.mark.checked

TOOL = Tool("mutmut", "whether the tests notice changes of the code", pypi=("mutmut",))


def test_each_change_is_noticed_or_explained(record_property):
    """An explanation in explained.toml whose change is noticed now, or is gone, fails the test too."""
    said = run(sys.executable, HERE / "mutants" / "run.py", "log")
    [mutants, killed] = re.search(r"^log +(\d+) mutants +(\d+) killed", said, re.MULTILINE).groups()
    record_property("cases", int(mutants))
    assert int(killed) >= 0.95 * int(mutants)
