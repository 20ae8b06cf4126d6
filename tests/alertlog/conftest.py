"""Registration of the contract tests with pytest, which then explains their failed assertions; a fixture for logs."""

import pytest

from geocast.alertlog.trusted_time import TrustedTime

pytest.register_assert_rewrite("alertlog.contract", "alertlog.contract_of_kinds")


@pytest.fixture
def time_passes_for_all(monkeypatch):
    """Replace the trusted time of logs, so that only the clock passed to `purge` counts (LogR1)."""
    monkeypatch.setattr(TrustedTime, "at_least", lambda _self, _newest, now: now.wall_ms)
