"""Fixtures for the tests of the call hub."""

import pytest
from calls.quarter import Quarter


@pytest.fixture
def quarter():
    """A call hub without sessions.

    The radii are 100, 300 and 500 m around `near`, whose radius is 210 m, and a call has two seats.
    """
    return Quarter()
