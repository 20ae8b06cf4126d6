"""A fixture: a new call service for each test."""

import pytest
from calls.service.harness import CallServiceHarness


@pytest.fixture
def room():
    """A node whose log has no calls yet."""
    return CallServiceHarness()
