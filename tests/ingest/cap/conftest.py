"""A place where messages of CAP are taken, for each test."""

import pytest
from ingest.cap.issuer import (
    CapIngestHarness,
)


@pytest.fixture
def room():
    """Where messages are taken."""
    return CapIngestHarness()
