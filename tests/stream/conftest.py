"""Live alerts at noon."""

import pytest
from stream.rows import CAPACITY
from support.fakes import FakeClock

from geocast.stream.live_alerts import LiveAlerts


@pytest.fixture
def clock():
    """A clock at noon."""
    return FakeClock()


@pytest.fixture
def alerts():
    """The live alerts of a node with places for eight sessions."""
    return LiveAlerts(CAPACITY)
