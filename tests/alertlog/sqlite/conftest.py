"""A fixture: the path of a log."""

import pytest


@pytest.fixture
def path(tmp_path):
    """Return the path of the log."""
    return tmp_path / "geocast.db"
