"""Fixtures: the path of a log, and a trusted time that does not limit `purge`."""

import pytest


@pytest.fixture(autouse=True)
def _time_passes_for_all(request):
    """Let only the clock passed to `purge` count, except in tests with `trusted_time` in their names."""
    if "trusted_time" not in request.function.__name__:
        request.getfixturevalue("time_passes_for_all")


@pytest.fixture
def path(tmp_path):
    """Return the path of the log."""
    return tmp_path / "geocast.db"
