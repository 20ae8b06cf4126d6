"""The town that tests share, and the sizes that make a handful of sessions enough."""

import pytest
from stream.hub.town import Town

from geocast.stream import fanout, hub


@pytest.fixture
def town():
    """A town of 64 rows."""
    return Town()


@pytest.fixture(autouse=True)
def look_at_every_sweep(monkeypatch):
    """Each sweep looks at the times of all sessions; without this, one in a few."""
    monkeypatch.setattr(hub, "LOOK_S", 0.0)


@pytest.fixture
def small_slices(monkeypatch):
    """Turns of two rows, so that a handful of sessions makes a flight of several turns."""
    monkeypatch.setattr(fanout, "SLICE", 2)
