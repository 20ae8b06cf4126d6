"""A plugin of pytest for mutmut, which makes most mutants die early.

Tests that have noticed another mutant of the same function run first, then the fastest files and tests. mutmut starts
pytest in a new process for each mutant, so the plugin keeps the names of these tests in a file.

Before mutmut tests mutants, it runs all tests to measure them, and once more to see that they pass. The second time,
the plugin leaves out those that have just passed.
"""

import json
import os
from collections import Counter
from pathlib import Path

from hypothesis import Phase, settings

# A line for each killed mutant: its function, a tab, and the test that noticed it.
NOTICED = Path("noticed.txt").absolute()
MEASURING, WITHOUT_MUTANT = "stats", ""  # what mutmut says in place of the name of a mutant
_passed = set()  # the tests that have passed while they were measured, in this process


def pytest_sessionstart():
    """Do not search for a smaller example after a failure: one failure is enough to kill a mutant."""
    settings.register_profile("mutants", settings.default, phases=[Phase.explicit, Phase.generate])
    settings.load_profile("mutants")


def pytest_collection_modifyitems(items):
    """Order tests by what they have noticed, and by the times that mutmut has measured, if it has."""
    if os.environ.get("MUTANT_UNDER_TEST") == WITHOUT_MUTANT:
        items[:] = [item for item in items if item.nodeid not in _passed] or items[:1]
    try:
        took = json.loads(Path("mutmut-stats.json").read_text())["duration_by_test"]
    except FileNotFoundError:
        return
    lines = NOTICED.read_text().splitlines() if NOTICED.exists() else []
    noticed = Counter(test for where, test in (line.split("\t") for line in lines) if where == _function())
    of_file = Counter()
    for item in items:
        of_file[item.path] += took.get(item.nodeid, 0)
    items.sort(
        key=lambda item: (
            -noticed[item.nodeid] / (took.get(item.nodeid, 0) + 0.01),
            of_file[item.path],
            item.path,
            took.get(item.nodeid, 0),
        )
    )


def pytest_runtest_logreport(report):
    """Keep the name of a test that has noticed a mutant, or has passed without one."""
    if report.when == "call" and report.passed and os.environ.get("MUTANT_UNDER_TEST") == MEASURING:
        _passed.add(report.nodeid)
    if report.failed and _function():
        with NOTICED.open("a") as file:
            file.write(f"{_function()}\t{report.nodeid}\n")


def _function():
    """Return the function of the mutant under test; an empty text if no mutant is under test."""
    name, mutant, _ = os.environ.get("MUTANT_UNDER_TEST", "").partition("__mutmut_")
    return name if mutant else ""
