"""Publishing on an empty log, for each test."""

import pytest
from support.publisher import PublisherHarness


@pytest.fixture
def desk():
    """A desk with an empty log and the built-in policy."""
    return PublisherHarness()
