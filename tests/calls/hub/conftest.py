"""Fixtures for the tests of the call hub."""

import pytest
from calls.quarter import Quarter


@pytest.fixture
def quarter():
    """A call hub without sessions; radii of 100, 300 and 500 m around `near`, whose radius is 210 m; two seats."""
    return Quarter()
