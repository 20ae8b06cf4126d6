"""The file of a test, and its time."""

import pytest

from geocast.alertlog.trusted_time import TrustedTime


@pytest.fixture(autouse=True)
def _time_passes_for_all(request, monkeypatch):
    """The entries of most tests bear witness to any time: what counts is the clock that a test passes to `purge`."""
    if "witness" not in request.function.__name__:
        monkeypatch.setattr(TrustedTime, "at_least", lambda _witness, _newest, now: now.wall_ms)


@pytest.fixture
def path(tmp_path):
    """Where the log is."""
    return tmp_path / "geocast.db"
