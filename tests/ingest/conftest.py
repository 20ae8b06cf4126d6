"""Fixtures: publishing on an empty log."""

import pytest
from support.publisher import PublisherHarness


@pytest.fixture
def desk():
    """A desk with an empty log and the built-in policy."""
    return PublisherHarness()
