"""A service of calls for each test."""

import pytest
from calls.service.harness import CallServiceHarness


@pytest.fixture
def room():
    """A node that has heard of no call yet."""
    return CallServiceHarness()
