"""A quarter of a town for each test."""

import pytest
from calls.quarter import Quarter


@pytest.fixture
def quarter():
    """A quarter without anybody; rings of 100, 300 and 500 m round `near`, whose radius is 210 m; two seats."""
    return Quarter()
