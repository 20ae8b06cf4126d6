"""The town that the tests share, and limits so small that a few sessions are enough."""

import pytest
from stream.hub.town import Town

from geocast.stream import fanout, hub


@pytest.fixture
def town():
    """A town whose hub has places for 64 sessions."""
    return Town()


@pytest.fixture(autouse=True)
def look_at_every_sweep(monkeypatch):
    """Have each sweep (periodic check) test the deadlines of all sessions; normally only one sweep in a few does."""
    monkeypatch.setattr(hub, "LOOK_S", 0.0)


@pytest.fixture
def small_slices(monkeypatch):
    """Make slices of two rows, so that a fan-out to a few sessions takes several turns of the event loop."""
    monkeypatch.setattr(fanout, "SLICE", 2)
