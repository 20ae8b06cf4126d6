"""Fixtures: a publisher with an empty log."""

import pytest
from support.publisher import PublisherHarness


@pytest.fixture
def desk():
    """A publisher with an empty log and the built-in policy."""
    return PublisherHarness()
