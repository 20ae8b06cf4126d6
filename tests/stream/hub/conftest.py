"""The town that the tests share, and sizes that make a few sessions enough."""

import pytest
from stream.hub.town import Town

from geocast.stream import fanout, hub


@pytest.fixture
def town():
    """A town of 64 rows."""
    return Town()


@pytest.fixture(autouse=True)
def look_at_every_sweep(monkeypatch):
    """Have each sweep check the deadlines of all sessions; otherwise one sweep in a few does."""
    monkeypatch.setattr(hub, "LOOK_S", 0.0)


@pytest.fixture
def small_slices(monkeypatch):
    """Make slices of two rows, so that a few sessions make a flight of several turns."""
    monkeypatch.setattr(fanout, "SLICE", 2)
