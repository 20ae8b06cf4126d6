"""Fixtures: the intake of CAP messages on an empty log."""

import pytest
from ingest.cap.issuer import (
    CapIngestHarness,
)


@pytest.fixture
def room():
    """Return a harness that takes messages."""
    return CapIngestHarness()
