"""Fixtures: an intake of CAP messages with an empty log."""

import pytest
from ingest.cap.issuer import (
    CapIngestHarness,
)


@pytest.fixture
def room():
    """Return a harness that accepts CAP messages."""
    return CapIngestHarness()
